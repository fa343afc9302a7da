"""Innocent life: clients use the cloud all at once, hosts fail and are fenced; cloudfsck looks on and proves nothing.

`python -m testbed.churn --minutes 15 --clients 4 --seed 1`.  Whatever it proves here, where nothing is broken, is a
fault of cloudfsck.  No fault need have lasted (`settle_factor` is 0) and none is too many to be believed: only the
second and the third reading stand between life and a repair.  What is told from life by its age alone is believed when
it has stood as long as its check says.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

from cloudfsck.checks import load
from testbed import initial, names, oracles, places
from testbed.api import Api, enter_network, until
from testbed.cloud import Cloud
from testbed.node import Failed
from testbed.operations import OPERATIONS, PATIENCE, PREFIX, Act, away_with_networks, becomes, delete
from testbed.operator import Operator, listed

#: Guests under emulation that live at once; the fakes cost nothing.
GUESTS = 8
#: Servers that a client has, before long.
REAL, FAKE = 2, 1
#: Seconds between two failures of hosts, at most.
CALM = 300
#: Every so many readings, one is made for a plan.
PLANS = 4
#: Seconds in which the cloud must come to be clean when all is deleted: Nova tidies up every five minutes.
TIDY = 900
#: Nobody notes when something was deleted in Neutron, and its maintenance sees to it for as long as this check waits.
BY_AGE = frozenset({"ovn-change-overdue"})
#: Python on a host that answers as late as one of a thousand hosts: minutes lie between the first host that is read and
#: the last database, and in that time things happen.
LATE = """\
#!/bin/bash
sleep $((RANDOM % 6))
python3 "$@"
status=$?
sleep $((RANDOM % 6))
exit $status
"""
CHECKS = load()
#: How cloudfsck says that a second or third reading took back what the first nominated.
CLEARED = "it was not there, or not the same"

TROUBLES = (Failed, SDKException, ClientException)

Event = Mapping[str, Any]


#: How often each is in the deck, where it is not once: what moves or removes a guest is where a reading can be fooled.
_OFTEN = {"live migration": 3, "delete": 3, "resize, confirm": 2, "migrate, confirm": 2, "delete while building": 2}


class Deck:
    """The operations in an order by chance, for all clients: each comes once before any comes again."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._left: list[str] = []

    def draw(self) -> str:
        with self._lock:
            if not self._left:
                more = [name for name, times in _OFTEN.items() for _ in range(times - 1)]
                once = list(OPERATIONS)
                self._rng.shuffle(more)
                self._rng.shuffle(once)
                self._left = more + once
            return self._left.pop()


# ------------------------------------------------------------------------------------------------ what they share


class Log:
    """What happened: a JSON line each, in a file and in memory."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.events: list[Event] = []
        self._say = say
        self._lock = threading.Lock()
        self._file = path.open("w")

    def note(self, event: str, text: str = "", **facts: Any) -> None:
        line = {"at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        with self._lock:
            self.events.append(line)
            print(json.dumps(line, default=str), file=self._file, flush=True)
            if text:
                self._say(f"{line['at'][11:19]}  {text}")

    def close(self) -> None:
        self._file.close()


class Turn:
    """Many at once, or one alone; whoever wants to be alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._alone = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one thread ever asks for it."""
        with self._changed:
            self._alone += 1
            self._changed.wait_for(lambda: not self._together)
        try:
            yield
        finally:
            with self._changed:
                self._alone -= 1
                self._changed.notify_all()


@dataclass(frozen=True)
class World:
    """`over` is set when no client is to begin anything more, `still` when all have ended."""

    cloud: Cloud
    log: Log
    deck: Deck
    turn: Turn
    slots: threading.Semaphore
    over: threading.Event
    still: threading.Event


# ------------------------------------------------------------------------------------------------ who acts


class Client:
    """One who makes servers and does things with them, one after the other."""

    def __init__(self, world: World, number: int, seed: int) -> None:
        self.world = world
        self.number = number
        self.api = Api()
        self.rng = random.Random(f"{seed} {number}")
        self.count = itertools.count(1)
        #: Each server's kind: whether it is a fake.
        self.servers: dict[str, bool] = {}

    def live(self) -> None:
        while not self.world.over.is_set():
            with self.world.turn.together():
                self.step()
        for server in list(self.servers):
            with self.world.turn.together():
                self.attempt("delete", server, OPERATIONS["delete"].act)

    def step(self) -> None:
        fakes = sum(self.servers.values())
        real = len(self.servers) - fakes
        if (not real or (real < REAL and self.rng.random() < 0.5)) and self.world.slots.acquire(blocking=False):
            self.boot(fake=False)
        elif fakes < FAKE:
            self.boot(fake=True)
        else:
            self.operate(self.world.deck.draw())

    def boot(self, fake: bool) -> None:
        server = self.make(fake)
        if server is not None:
            self.attempt("boot, fake" if fake else "boot", server, lambda api, made, rng: self._booted(made))

    def _booted(self, server: str) -> None:
        becomes(self.api, server, "ACTIVE")

    def make(self, fake: bool) -> str | None:
        """Ask for a server; a guest's slot is the caller's to have taken."""
        host = self.rng.choice([*places.FAKES] if fake else [*places.COMPUTES, None])
        flavor = self.rng.choice(["m1.small", "m1.small", "m1.bigger"])
        more = {"availability_zone": "fake"} if fake else {}
        name = f"{PREFIX}{self.number}-{next(self.count)}"
        try:
            server = self.api.boot(name, host, flavor, wait=False, **more)
        except TROUBLES as error:
            if not fake:
                self.world.slots.release()
            self._note("boot, fake" if fake else "boot", "", 0, str(error), None)
            return None
        self.servers[server] = fake
        return server

    def operate(self, name: str) -> None:
        operation = OPERATIONS[name]
        if operation.fresh:
            fake = not self.world.slots.acquire(blocking=False)
            server = self.make(fake)
        else:
            able = [server for server, fake in self.servers.items() if operation.fake or not fake]
            server = self.rng.choice(able) if able else None
        if server is not None:
            self.attempt(name, server, operation.act)

    def attempt(self, name: str, server: str, act: Act) -> None:
        """Do it, note how it ended, and delete what it left broken."""
        began = time.monotonic()
        failed, said = None, None
        try:
            said = act(self.api, server, self.rng)
        except TROUBLES as error:
            failed = str(error)
        self._note(name, server, time.monotonic() - began, failed, said)
        if failed is not None:
            try:
                delete(self.api, server, self.rng)
            except TROUBLES as error:  # the sweep at the end tries again
                self._note("delete what is broken", server, 0, str(error), None)
                self._forget(server)
        with suppress(*TROUBLES):
            if server in self.servers and not self.api.server(server):
                self._forget(server)

    def _forget(self, server: str) -> None:
        if not self.servers.pop(server):
            self.world.slots.release()

    def _note(self, name: str, server: str, seconds: float, failed: str | None, said: str | None) -> None:
        text = f"{self.number}  {name}  {server[:8]}  {seconds:.0f} s" + (f"  FAILED: {failed}" if failed else "")
        self.world.log.note("operation", text, client=self.number, kind=name, server=server,
                            seconds=round(seconds, 1), failed=failed, said=said)  # fmt: skip


class Misfortune:
    """Hosts that fail, one at a time, and are dealt with as they should be: fenced, evacuated, brought back."""

    KIND = "host fails, evacuate"

    def __init__(self, world: World, pause: float) -> None:
        self.world = world
        self.pause = pause
        self.api = Api()

    def live(self) -> None:
        for host in itertools.cycle(places.COMPUTES):
            if self.world.over.wait(self.pause):
                return
            with self.world.turn.alone():
                self.strike(host)

    def strike(self, host: str) -> None:
        began = time.monotonic()
        failed = None
        moved: list[str] = []
        try:
            moved = self._lost(host)
        except TROUBLES as error:
            failed = str(error)
        try:
            self._returns(host)
        except TROUBLES as error:
            failed = f"{failed}; {error}" if failed else str(error)
        seconds = time.monotonic() - began
        text = f"-  {self.KIND}  {host}, {len(moved)} servers  {seconds:.0f} s"
        self.world.log.note("operation", text + (f"  FAILED: {failed}" if failed else ""), client=None, kind=self.KIND,
                            server=host, seconds=round(seconds, 1), failed=failed, said=moved)  # fmt: skip

    def _lost(self, host: str) -> list[str]:
        """The host is gone, and its servers are brought up on the other."""
        node = self.world.cloud.computes[host]
        other = next(name for name in places.COMPUTES if name != host)
        found = self.api.call("compute", "GET", f"/servers/detail?all_tenants=1&host={host}")["servers"]
        servers = [server["id"] for server in found if server["status"] == "ACTIVE"]
        node.stop("nova-compute", signal.SIGKILL)
        # Power is cut before anybody says that the host is down: else a server would really run twice.
        for domain in node.run("virsh", "-q", "list", "--name").split():
            node.run("virsh", "-q", "destroy", domain)
        self.api.force_down(host, True)
        for server in servers:
            self.api.act(server, "evacuate", {"host": other})
        for server in servers:
            self.api.arrives(server, other, PATIENCE)
            becomes(self.api, server, "SHUTOFF")
            self.api.act(server, "os-start")
        for server in servers:
            becomes(self.api, server, "ACTIVE")
        return servers

    def _returns(self, host: str) -> None:
        self.world.cloud.nova_compute(host)
        # Nova refuses to have the host back before it has removed what was evacuated from it.
        waiting = f"/os-migrations?source_compute={host}&migration_type=evacuation&status=done"
        until(f"{host} has removed what was evacuated",
              lambda: not self.api.call("compute", "GET", waiting)["migrations"], PATIENCE)  # fmt: skip
        self.api.force_down(host, False)
        self.api.compute_becomes(host, "up", seconds=PATIENCE)


# ------------------------------------------------------------------------------------------------ who looks on


class Watcher:
    """cloudfsck, again and again."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.operator = Operator(world.cloud, folder)
        checks = [check["check"] for check in self.operator("checks").data]
        # Many candidates in a day are a reason not to believe any, and would hide what is proven here.
        limits = {f"limits.{name}": {"count": 10**6, "share": 1.0} for name in checks}
        late = folder / "late-python"
        late.write_text(LATE)
        late.chmod(0o755)
        slow = {f"host.{name}": {"python": str(late)} for name in places.COMPUTES}
        self.operator.configure(**limits, **slow, **listed(world.cloud), **names.READS, **names.OWNS)
        self.since: dict[tuple[str, str], float] = {}

    def live(self) -> None:
        try:
            for number in itertools.count(1):
                if self.world.still.is_set():
                    return
                if number % PLANS:
                    self.check()
                else:
                    self.plan()
        finally:
            self.world.over.set()

    def check(self) -> int:
        began = time.monotonic()
        ran = self.operator("check", timeout=PATIENCE)
        seconds = time.monotonic() - began
        data = ran.data
        states = Counter(f"{one['check']}: {one['state']}" for one in data["findings"])
        gaps = Counter(f"{gap['part'] or gap['table']}: {gap['why']}" for gap in data["gaps"])
        stands = {(one["check"], one["key"]) for one in data["findings"]}
        self.since = {at: self.since.get(at, began) for at in stands}
        proven = [one for one in data["findings"] if one["state"] == "proven" and not self._is_young(one, began)]
        cleared = [one for one in data["findings"] if one["state"] == "seen" and (one["why"] or "").startswith(CLEARED)]
        self.world.log.note(
            "check", f"   check  {seconds:.1f} s  {dict(states) or 'nothing'}  {dict(gaps) or ''}", status=ran.status,
            seconds=round(seconds, 1), states=states, gaps=gaps, stops=data["stops"], proven=len(proven),
            cleared=len(cleared), findings=data["findings"],
        )  # fmt: skip
        for finding in proven:
            shutil.copy(data["snapshot"], self.folder / f"proven-{Path(data['snapshot']).name}")
            self.world.log.note("proven", f"PROVEN  {finding['key']}", finding=finding,
                                testimony=testimony(self.world.cloud, finding["server"]))  # fmt: skip
        return ran.status

    def _is_young(self, finding: Event, now: float) -> bool:
        name = finding["check"]
        return name in BY_AGE and now - self.since[name, finding["key"]] < CHECKS[name].settle.total_seconds()

    def plan(self) -> None:
        began = time.monotonic()
        ran = self.operator("plan", timeout=PATIENCE)
        seconds = time.monotonic() - began
        acts, left_out, stops = (ran.data[part] for part in ("acts", "left_out", "stops"))
        self.world.log.note("plan", f"   plan  {seconds:.1f} s  {len(acts)} acts  {stops or ''}", status=ran.status,
                            seconds=round(seconds, 1), acts=acts, left_out=left_out, stops=stops)  # fmt: skip
        for act in acts:
            self.world.log.note("act", f"OFFERED  {act['text']}", act=act,
                                testimony=testimony(self.world.cloud, act["case"]))  # fmt: skip

    def comes_clean(self) -> int:
        """Check until the cloud is clean; the last exit status."""
        deadline = time.monotonic() + TIDY
        while (status := self.check()) and time.monotonic() < deadline:
            time.sleep(10)
        return status


def testimony(cloud: Cloud, server: str) -> dict[str, str]:
    """What every place says of a server now."""
    said = {}
    wanted = {
        "nova_api": {"instance_mappings": "instance_uuid", "build_requests": "instance_uuid"},
        "placement": {"allocations": "consumer_id"},
        **{f"nova_{cell}": {"instances": "uuid", "migrations": "instance_uuid", "instance_actions": "instance_uuid"}
           for cell in ("cell0", *places.CELLS)},
    }  # fmt: skip
    queries = {
        (database, table): f"SELECT * FROM {table} WHERE {column} = '{server}'"
        for database, tables in wanted.items()
        for table, column in tables.items()
    }
    for cell in places.CELLS:
        queries[f"nova_{cell}", "instance_actions_events"] = (
            "SELECT e.* FROM instance_actions_events e JOIN instance_actions a ON a.id = e.action_id"
            f" WHERE a.instance_uuid = '{server}'"
        )
    for (database, table), query in queries.items():
        said[f"{database}.{table}"] = cloud.controller.run(
            "mariadb", "-E", "-S", "/run/mysqld/mysqld.sock", database, input=query, check=False
        )
    look = f"""
        virsh -q list --all; virsh -q dominfo {server}
        pgrep -af {server} | cut -c 1-200
        cd /var/lib/nova/instances && ls -ld --full-time * && ls -l --full-time {server}*
    """
    for name, node in cloud.computes.items():
        said[name] = node.run("bash", "-c", f"exec 2>&1; {look}", check=False)
    return said


# ------------------------------------------------------------------------------------------------ the end


def sweep(api: Api) -> list[str]:
    """Delete all that is left; what could not be deleted."""
    tasks: dict[str, Callable[[], object]] = {}
    for more in ("", "&status=SOFT_DELETED"):
        for server in api.call("compute", "GET", f"/servers?all_tenants=1&name={PREFIX}{more}")["servers"]:
            tasks[f"server {server['id']}"] = partial(_delete_stuck, api, server["id"])
    tasks.update(away_with_networks(api))
    for volume in api.call("block_storage", "GET", "/volumes")["volumes"]:
        if volume["name"].startswith(PREFIX):
            tasks[f"volume {volume['id']}"] = partial(_delete_volume, api, volume["id"])
    for image in list(api.sdk.image.images()):
        if image.name.startswith(PREFIX):
            tasks[f"image {image.id}"] = partial(api.sdk.image.delete_image, image.id)
    left = []
    for what, remove in tasks.items():
        try:
            remove()
        except TROUBLES as error:
            left.append(f"{what}: {error}")
    return left


def _delete_stuck(api: Api, server: str) -> None:
    """Delete a server that may be stuck on its way to be deleted: Nova would ignore us."""
    api.act(server, "os-resetState", {"state": "error"})
    delete(api, server, random.Random())


def _delete_volume(api: Api, volume: str) -> None:
    """Delete a volume that may be stuck on its way to a server, or from one; that is gone by now."""
    api.call("block_storage", "POST", f"/volumes/{volume}/action", {"os-force_delete": {}})
    api.volume_becomes(volume, None, seconds=PATIENCE)


@dataclass(frozen=True)
class Summary:
    """`operations` is how many of each kind were done and failed; `status` the exit status of the last check, when all
    was deleted, and `disagreements` what OpenStack's own tools complained of then."""

    operations: Mapping[str, tuple[int, int]]
    failures: Sequence[str]
    checks: int
    plans: int
    seconds: Sequence[float]
    whole: int
    findings: Mapping[str, int]
    proven: int
    cleared: int
    gaps: Mapping[str, int]
    stops: Sequence[str]
    acts: int
    status: int
    disagreements: Sequence[str]
    left: Sequence[str]

    @property
    def innocent(self) -> bool:
        """Nothing was proven, nothing offered, and nothing kept anything from being so."""
        return not (self.proven or self.acts or self.stops)

    def __str__(self) -> str:
        low, middle, high = self.seconds[0], self.seconds[len(self.seconds) // 2], self.seconds[-1]
        lines = [f"{'operation':<28}{'done':>6}{'failed':>8}"]
        lines += [f"{name:<28}{done:>6}{failed:>8}" for name, (done, failed) in self.operations.items()]
        done, failed = (sum(column) for column in zip(*self.operations.values(), strict=True))
        lines += [f"{'in all':<28}{done:>6}{failed:>8}", ""]
        lines += [f"failed: {text}" for text in self.failures]
        lines += [f"checks {self.checks}, and {self.plans} plans; {self.whole} of the checks without a gap;"
                  f" {low:.1f} s at the least, {middle:.1f} s in the middle, {high:.1f} s at the most"]  # fmt: skip
        lines += [f"findings  {name}: {count}" for name, count in self.findings.items()] or ["no finding"]
        lines += [f"gap  {name}: {count}" for name, count in self.gaps.items()] or ["no gap"]
        lines += [f"stop  {text}" for text in self.stops]
        lines += [f"left behind  {text}" for text in self.left]
        lines += [f"proven {self.proven}, cleared by another reading {self.cleared}, acts offered {self.acts}"]
        lines += [f"OpenStack's own tools said in the end  {text}" for text in self.disagreements]
        lines += [f"in the end the check left with {self.status}"]
        return "\n".join(lines)


def summed(events: Sequence[Event]) -> Summary:
    """What the events come to."""
    operations = [event for event in events if event["event"] == "operation"]
    checks = [event for event in events if event["event"] == "check"]
    plans = [event for event in events if event["event"] == "plan"]
    end = next(event for event in events if event["event"] == "end")
    kinds = sorted({event["kind"] for event in operations})
    done = Counter(event["kind"] for event in operations if event["failed"] is None)
    failed = Counter(event["kind"] for event in operations if event["failed"] is not None)
    return Summary(
        operations={kind: (done[kind], failed[kind]) for kind in kinds},
        failures=[f"{event['kind']}  {event['server']}  {event['failed']}" for event in operations if event["failed"]],
        checks=len(checks),
        plans=len(plans),
        seconds=sorted(event["seconds"] for event in checks),
        whole=sum(not event["gaps"] for event in checks),
        findings=dict(sum((Counter(event["states"]) for event in checks), Counter[str]())),
        proven=sum(event["proven"] for event in checks),
        cleared=sum(event["cleared"] for event in checks),
        gaps=dict(sum((Counter(event["gaps"]) for event in checks), Counter[str]())),
        stops=sorted({stop for event in [*checks, *plans] for stop in event["stops"]}),
        acts=sum(len(event["acts"]) for event in plans),
        status=end["status"],
        disagreements=end["disagreements"],
        left=end["left"],
    )


def run(cloud: Cloud, folder: Path, minutes: float, clients: int, seed: int, say: Callable[[str], None]) -> Summary:
    """Let the cloud live, with cloudfsck beside it, and clean up.  The log comes beside `folder`, which is cloudfsck's
    and made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = Log(folder.with_suffix(".jsonl"), say)
    world = World(cloud, log, Deck(seed), Turn(), threading.Semaphore(GUESTS), threading.Event(), threading.Event())
    seconds = minutes * 60
    log.note("begin", minutes=minutes, clients=clients, seed=seed)
    watcher = Watcher(world, folder)
    actors = [Client(world, number, seed).live for number in range(1, clients + 1)]
    actors.append(Misfortune(world, min(CALM, seconds / 3)).live)
    with ThreadPoolExecutor(len(actors) + 1) as pool:
        looking = pool.submit(watcher.live)
        acting = [pool.submit(actor) for actor in actors]
        try:
            world.over.wait(seconds)
        finally:
            world.over.set()
            for done in acting:
                done.exception()  # waits for it; it is raised below
            world.still.set()
        for done in [*acting, looking]:
            done.result()
    left = sweep(Api())
    status = watcher.comes_clean()
    log.note("end", status=status, disagreements=oracles.disagreements(cloud), left=left)
    summary = summed(log.events)
    log.note("summary", innocent=summary.innocent, **asdict(summary))
    log.close()
    return summary


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m testbed.churn", description="An innocent life for cloudfsck.")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    cloud = Cloud()
    if cloud.controller.pid is None:
        print("the cloud is down: `make cloud` brings it up", file=sys.stderr)
        return 8
    enter_network(cloud)
    initial.configure(cloud)
    say = partial(print, flush=True)
    summary = run(cloud, places.STATE / "churn", given.minutes, given.clients, given.seed, say)
    print(summary)
    return 0 if summary.innocent and not summary.status else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
