"""The whole of cloudfsck on real servers: what is broken is found, proven, repaired rung by rung and taken back."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import jsonschema
import pytest

from cloudfsck import apply, checks, config, journal, plan
from cloudfsck.acts import directory, domain, hypervisor
from cloudfsck.model import Act, Moved, Refused
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import Sources, probe
from cloudfsck.state import Lease, State
from cloudfsck.tables import TABLES
from tests import real_cloud
from tests.bed import Hypervisor, PostgreSQL
from tests.bed.programs import run
from tests.real_cloud import (
    DEAD,
    DIRECTORY,
    FAULT_FORGOTTEN,
    FAULT_LEFTOVER,
    FAULT_TWIN,
    FAULT_ZOMBIE,
    FAULTS,
    FORGOTTEN,
    INSTANCES,
    KEPT,
    LEFTOVER,
    TWIN,
    ZOMBIE,
    Cloud,
    User,
    secrets_in,
)

pytestmark = pytest.mark.real

SCHEMA = real_cloud.ROOT / "docs" / "check.schema.json"
#: The three guests that should not run, and where.
GUESTS = ((ZOMBIE, "compute1"), (TWIN, DEAD), (FORGOTTEN, "compute4"))
GUEST_FAULTS = FAULTS - {FAULT_LEFTOVER}
#: As `repair` and `undo` name them.
KEYS = {key for _, key in FAULTS}
DOMAINS = {key for _, key in GUEST_FAULTS}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with Cloud(tmp_path_factory.mktemp("real")) as cloud:
        before = cloud.neighbours()
        yield cloud
        assert cloud.neighbours() == before


@pytest.fixture
def cloud(made: Cloud) -> Cloud:
    """The cloud, broken as it was at first."""
    made.damage()
    return made


@pytest.fixture
def user(cloud: Cloud, tmp_path: Path) -> Iterator[User]:
    """One who runs cloudfsck; no secret of the cloud's may be in anything that it wrote."""
    user = User(cloud, cloud.configure(tmp_path))
    yield user
    assert secrets_in(tmp_path, user.said) == []
    for _, host in cloud.hosts():
        assert secrets_in(host.path(KEPT), []) == []


def states(cloud: Cloud) -> list[str | None]:
    return [cloud.state(*guest) for guest in GUESTS]


def last_run(user: User) -> str:
    """The run that acted last."""
    return journal.runs(user.path.parent / "state")[-1]


# -- found, repaired, taken back


def test_each_fault_is_found_and_proven_and_nothing_else(user: User) -> None:
    ran = user("check")
    assert ran.status == 4
    assert ran.found("proven") == FAULTS
    assert len(ran.data["findings"]) == len(FAULTS)
    assert (ran.held, ran.data["unknown"], ran.data["stops"]) == ({}, [], [])
    assert all(cover["heard"] == cover["parts"] for cover in ran.data["coverage"])
    jsonschema.validate(ran.data, json.loads(SCHEMA.read_text()))


def take_back(user: User, keys: frozenset[str] | set[str]) -> None:
    """Undo the last run: all but the guest that runs elsewhere too, and then that one by its own name."""
    run, twin = last_run(user), FAULT_TWIN[1]
    user("undo", run, "--yes").came_to(9, {**dict.fromkeys(keys, "done"), twin: "refused"})
    (number,) = [one["n"] for one in user("undo").data if one["run"] == run and one["key"] == twin]
    user("undo", f"{run}/{number}", "--yes").came_to(1, {twin: "done"})


def test_each_is_repaired_rung_by_rung_taken_back_and_purged(cloud: Cloud, user: User) -> None:
    before = cloud.neighbours()
    runs = [cloud.run_of(*guest) for guest in GUESTS]
    xml = [cloud.facts(*guest)["domain"]["xml"] for guest in GUESTS]
    leftover = cloud.facts(LEFTOVER, "compute3")
    place = cloud.host("compute3").path(f"{INSTANCES}/{LEFTOVER.uuid}")
    (base,) = [path for path in leftover["files"] if "/_base/" in path]

    # Paused, and moved aside; the guests are kept as they are.
    ran = user("repair", "--yes")
    ran.came_to(1, dict.fromkeys(KEYS, "done"))
    assert states(cloud) == ["paused"] * 3
    assert [cloud.run_of(*guest) for guest in GUESTS] == runs
    assert not place.exists()
    (entry,) = cloud.quarantine("compute3")
    ran = user("check")
    assert (ran.status, ran.found("proven", "seen", "unproven")) == (0, set())
    aside = (DIRECTORY, f"compute3/{entry}")
    assert ran.held == {**dict.fromkeys(GUEST_FAULTS, "paused"), aside: "quarantined"}

    # Back: the guests never stopped, and the directory is what it was, byte for byte.
    take_back(user, KEYS)
    assert states(cloud) == ["running"] * 3
    assert [cloud.run_of(*guest) for guest in GUESTS] == runs
    assert cloud.facts(LEFTOVER, "compute3") == leftover
    assert cloud.quarantine("compute3") == []

    # Paused again; and what cannot be undone exactly waits until the whole cloud was read twice.
    ran = user("repair", "--yes")
    ran.came_to(1, dict.fromkeys(KEYS, "done"))
    (entry,) = cloud.quarantine("compute3")
    aside = (DIRECTORY, f"compute3/{entry}")
    assert user("accept-restore", form=None).status == 0
    ran = user("repair", "--yes")
    assert (ran.status, ran.data["acts"]) == (0, [])
    assert {one["key"] for one in ran.data["left_out"] if "read twice" in one["why"]} == DOMAINS
    assert states(cloud) == ["paused"] * 3

    # Stopped, back to paused as a guest that was just switched on, and stopped again.
    ran = user("repair", "--yes")
    ran.came_to(1, dict.fromkeys(DOMAINS, "done"))
    assert states(cloud) == ["shutoff"] * 3
    ran = user("check")
    assert ran.status == 0
    assert ran.held == {**dict.fromkeys(GUEST_FAULTS, "stopped"), aside: "quarantined"}
    take_back(user, DOMAINS)
    assert states(cloud) == ["paused"] * 3
    assert all(cloud.run_of(*guest) != was for guest, was in zip(GUESTS, runs, strict=True))
    ran = user("repair", "--yes")
    ran.came_to(1, dict.fromkeys(DOMAINS, "done"))

    # Purged: undefined, and the directory removed, but nothing that others stand on.
    ran = user("purge", "--yes")
    ran.came_to(1, dict.fromkeys(DOMAINS | {aside[1]}, "done"))
    assert states(cloud) == [None] * 3
    assert cloud.quarantine("compute3") == []
    assert not place.exists()
    assert real_cloud.measured(cloud.host("compute3"), base) == leftover["files"][base]

    # Defined again from what was saved; the directory is gone for good, and undo says so.
    ran = user("undo", last_run(user), "--yes")
    ran.came_to(9, {**dict.fromkeys(DOMAINS, "done"), aside[1]: "refused"})
    assert states(cloud) == ["shutoff"] * 3
    assert [cloud.facts(*guest)["domain"]["xml"] for guest in GUESTS] == xml
    ran = user("check")
    assert (ran.status, ran.held) == (0, dict.fromkeys(GUEST_FAULTS, "stopped"))

    # Purged for good: now their directories are what is left, but not that of the server that lives elsewhere.
    assert user("purge", "--yes").outcomes == dict.fromkeys(DOMAINS, "done")
    ran = user("repair", "--yes")
    left = {f"compute1/{ZOMBIE.uuid}", f"compute4/{FORGOTTEN.uuid}"}
    ran.came_to(1, dict.fromkeys(left, "done"))
    ran = user("check")
    assert (ran.status, set(ran.held.values()), len(ran.held)) == (0, {"quarantined"}, 2)
    assert user("purge", "--yes").status == 1
    ran = user("check")
    assert (ran.status, ran.held, ran.data["findings"]) == (0, {}, [])
    assert cloud.host(DEAD).path(f"{INSTANCES}/{TWIN.uuid}/disk").exists()
    assert cloud.neighbours() == before


# -- outages


@contextmanager
def second_database_stopped(cloud: Cloud) -> Iterator[None]:
    cloud.second.stop()
    try:
        yield
    finally:
        cloud.second.start()


@contextmanager
def rights_revoked(cloud: Cloud) -> Iterator[None]:
    what = "SELECT ON `nova\\_cell1`.*"
    cloud.first.execute("", f"REVOKE {what} FROM {cloud.first.reader.user}")
    try:
        yield
    finally:
        cloud.first.execute("", f"GRANT {what} TO {cloud.first.reader.user}")


def host_off(name: str, how: Any) -> Callable[[Cloud], AbstractContextManager[None]]:
    @contextmanager
    def outage(cloud: Cloud) -> Iterator[None]:
        cloud.host(name).off(how)
        try:
            yield
        finally:
            cloud.host(name).on()

    return outage


def libvirtd_stopped(name: str) -> Callable[[Cloud], AbstractContextManager[None]]:
    @contextmanager
    def outage(cloud: Cloud) -> Iterator[None]:
        cloud.host(name).stop_libvirtd()
        try:
            yield
        finally:
            cloud.host(name).start_libvirtd()

    return outage


def sharing_unreadable(cloud: Cloud) -> AbstractContextManager[None]:
    return real_cloud.changed(cloud.host("compute3").path(f"{INSTANCES}/compute_nodes"), '{"compute3": ')


@contextmanager
def instances_path_dangling(cloud: Cloud) -> Iterator[None]:
    here = cloud.host("compute3").path(INSTANCES)
    aside = here.rename(here.with_name("unmounted"))
    here.symlink_to("/nowhere")
    try:
        yield
    finally:
        here.unlink()
        aside.rename(here)


OUTAGES: dict[str, tuple[Callable[[Cloud], AbstractContextManager[None]], str, set[tuple[str, str]]]] = {
    "a cell's database is stopped": (second_database_stopped, "cell2", {FAULT_ZOMBIE, FAULT_TWIN, FAULT_LEFTOVER}),
    "a cell's database is not ours to read": (rights_revoked, "cell1", set()),
    "a host refuses": (host_off("compute4", "refused"), "compute4", {FAULT_ZOMBIE, FAULT_TWIN, FAULT_LEFTOVER}),
    "a host is silent": (host_off("compute1", "silent"), "compute1", {FAULT_FORGOTTEN, FAULT_TWIN, FAULT_LEFTOVER}),
    "a host hangs": (host_off("compute3", "hung"), "compute3", {FAULT_ZOMBIE, FAULT_FORGOTTEN}),
    "who shares the instances": (sharing_unreadable, "compute3", {FAULT_ZOMBIE, FAULT_FORGOTTEN, FAULT_TWIN}),
    "the instances are not mounted": (
        instances_path_dangling, "compute3", {FAULT_ZOMBIE, FAULT_FORGOTTEN, FAULT_TWIN}),
    "libvirtd of an accused host": (
        libvirtd_stopped("compute1"), "compute1", {FAULT_FORGOTTEN, FAULT_TWIN, FAULT_LEFTOVER}),
    "libvirtd of an acquitting host": (libvirtd_stopped("compute3"), "compute3", {FAULT_ZOMBIE, FAULT_FORGOTTEN}),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_takes_every_verdict_that_rested_on_it_and_no_other(name: str, cloud: Cloud, user: User) -> None:
    outage, part, stand = OUTAGES[name]
    cloud.configure(user.path.parent, read__ssh={"timeout": "5s"})
    with outage(cloud):
        ran = user("check")
    assert ran.status & 8
    assert ran.found("proven") == stand
    assert ran.found("seen") == set()
    assert ran.found("unproven") <= FAULTS - stand
    assert part in {gap["part"] for gap in ran.data["unknown"]}
    # The addresses of a cell's hosts come from its database.
    lost = {part, "", *(host for host, (cell, _) in real_cloud.HOSTS.items() if cell == part)}
    assert {gap["part"] for gap in ran.data["unknown"]} <= lost
    assert all(gap["why"] and not gap["why"].startswith(":") for gap in ran.data["unknown"])


def test_what_a_cell_that_is_away_could_acquit_is_unproven_and_not_repaired(cloud: Cloud, user: User) -> None:
    with rights_revoked(cloud):
        ran = user("check")
        assert ran.found("unproven") >= {FAULT_FORGOTTEN}
        why = [one["why"] for one in ran.data["findings"] if one["key"] == FAULT_FORGOTTEN[1]]
        assert "cell1" in str(why)
        ran = user("repair", "--yes")
        assert (ran.status & 8, ran.data["acts"]) == (8, [])
    assert states(cloud) == ["running"] * 3


# -- races


def sent(user: User, act: Act, fence: int = 1) -> Mapping[str, Any]:
    """Have an act done as apply has it done."""
    settings = config.load(user.path)
    target, place = Sources(settings).target(Sources(settings).roster().hosts[act.host])
    return hypervisor.send(act, target, place, settings.write.ssh, settings.cloud.name, fence)


def quarantine(cloud: Cloud) -> directory.Quarantine:
    """The act on the leftover directory as it is now."""
    path = f"{INSTANCES}/{LEFTOVER.uuid}"
    seen = probe.measure(str(cloud.host("compute3").path(path)))
    return directory.Quarantine("compute3", LEFTOVER.uuid, directory.Directory(path=path, uid=0, gid=0, mode=0, **seen))


def pause(cloud: Cloud) -> domain.Pause:
    return domain.Pause("compute1", ZOMBIE.uuid, int(cloud.run_of(ZOMBIE, "compute1")[0]), True)


def leftover(cloud: Cloud) -> Path:
    return cloud.host("compute3").path(f"{INSTANCES}/{LEFTOVER.uuid}")


def replace_directory(cloud: Cloud) -> None:
    """Another directory with the same files takes its name."""
    here = leftover(cloud)
    shutil.copytree(here, here.with_name("copy"))
    shutil.rmtree(here)
    here.with_name("copy").rename(here)


def write_into(cloud: Cloud) -> None:
    with (leftover(cloud) / "disk").open("r+b") as file:
        file.seek(300_000)
        file.write(b"one more")


def move_link(cloud: Cloud) -> None:
    """A link takes its name."""
    here = leftover(cloud)
    here.rename(here.with_name("moved"))
    here.symlink_to("moved")


def virsh(command: str) -> Callable[[Cloud], None]:
    def change(cloud: Cloud) -> None:
        cloud.host("compute1").virsh(*(f"{word} {ZOMBIE.uuid}" for word in command.split()))

    return change


DIRECTORY_RACES = {"replaced": replace_directory, "written to": write_into, "made a link": move_link}


@pytest.mark.parametrize("name", DIRECTORY_RACES)
def test_a_directory_that_changed_before_the_act_is_left_alone(name: str, cloud: Cloud, user: User) -> None:
    act = quarantine(cloud)
    try:
        DIRECTORY_RACES[name](cloud)
        now = cloud.facts(LEFTOVER, "compute3")
        with pytest.raises((Moved, Refused)):
            sent(user, act)
        assert cloud.facts(LEFTOVER, "compute3") == now
        assert cloud.quarantine("compute3") == []
    finally:
        shutil.rmtree(leftover(cloud).with_name("moved"), ignore_errors=True)
        if leftover(cloud).is_symlink():
            leftover(cloud).unlink()


@contextmanager
def opened(host: Hypervisor, path: str) -> Iterator[None]:
    """A process on the host that holds a file open."""
    script = f"exec 9<{path}; sleep 600 </dev/null >/dev/null 2>&1 & echo $!"
    pid = host.run(["bash", "-c", script]).strip()
    try:
        yield
    finally:
        host.run(["kill", pid])


def test_a_directory_that_somebody_has_open_is_left_alone(cloud: Cloud, user: User) -> None:
    act = quarantine(cloud)
    now = cloud.facts(LEFTOVER, "compute3")
    with (
        opened(cloud.host("compute3"), f"{INSTANCES}/{LEFTOVER.uuid}/disk"),
        pytest.raises(Refused, match=r"has .*/disk open"),
    ):
        sent(user, act)
    assert cloud.facts(LEFTOVER, "compute3") == now
    assert cloud.quarantine("compute3") == []


@pytest.mark.parametrize("change", ["destroy start", "destroy", "suspend", "destroy undefine"])
def test_a_domain_that_changed_before_it_is_paused_is_left_alone(change: str, cloud: Cloud, user: User) -> None:
    act = pause(cloud)
    virsh(change)(cloud)
    now = cloud.facts(ZOMBIE, "compute1")
    with pytest.raises(Moved):
        sent(user, act)
    assert cloud.facts(ZOMBIE, "compute1") == now


@pytest.mark.parametrize("change", ["resume", "destroy start", "destroy start suspend"])
def test_a_domain_that_changed_before_it_is_stopped_is_left_alone(change: str, cloud: Cloud, user: User) -> None:
    act = pause(cloud)
    sent(user, act)
    virsh(change)(cloud)
    now = cloud.facts(ZOMBIE, "compute1")
    with pytest.raises(Moved):
        sent(user, domain.Stop("compute1", ZOMBIE.uuid, act.run, True, "", "2026-01-01 00:00:00"))
    assert cloud.facts(ZOMBIE, "compute1") == now


def test_between_gate_and_act_every_race_is_lost_by_us(cloud: Cloud, user: User) -> None:
    made = plan.load(user.plan(*FAULTS), real_cloud.NAME, checks.load())
    settings = config.load(user.path)
    state = State(settings.cloud)
    sources = Sources(settings, state.holds)
    roster = sources.roster()
    changes = {
        ZOMBIE.uuid: virsh("destroy start"),
        TWIN.uuid: lambda cloud: cloud.host(DEAD).virsh(f"destroy {TWIN.uuid}"),
        FORGOTTEN.uuid: lambda cloud: cloud.host("compute4").virsh(f"suspend {FORGOTTEN.uuid}"),
        LEFTOVER.uuid: replace_directory,
    }
    after: dict[str, Any] = {}

    def send(act: Act, lease: Lease) -> Mapping[str, Any]:
        changes[act.server](cloud)
        after[act.server] = cloud.host(act.host).facts(act.server)
        target, place = sources.target(roster.hosts[act.host])
        return hypervisor.send(act, target, place, settings.write.ssh, settings.cloud.name, lease.fence)

    means = apply.Means(sources.prove, sources.look, send)
    done = list(apply.apply(made, checks.load(), settings, state, means))
    assert [one.outcome for one in done] == ["moved"] * 4, done
    assert {one.entry.act.server: cloud.host(one.entry.act.host).facts(one.entry.act.server) for one in done} == after
    assert state.holds() == []
    assert state.frozen() == {}
    state.close()


def test_between_plan_and_gate_too(cloud: Cloud, user: User) -> None:
    path = user.plan(FAULT_ZOMBIE, FAULT_LEFTOVER)
    virsh("destroy start")(cloud)
    write_into(cloud)
    ran = user("repair", str(path), "--yes")
    assert ran.outcomes == {FAULT_ZOMBIE[1]: "moved", FAULT_LEFTOVER[1]: "moved"}
    assert ran.status == 4
    assert cloud.state(ZOMBIE, "compute1") == "running"
    assert cloud.quarantine("compute3") == []


# -- a host that dies

#: In place of hand.py: one host dies before it acts, one does what is asked, and then answers no more.
DIES = {
    "compute1": "cat >/dev/null; echo ordered >>{kept}/orders; kill -KILL $(cat /run/sshd.pid) $PPID",
    "compute4": "cat >/run/order; python3 /run/order >/dev/null; echo ordered >>{kept}/orders;"
    " kill -STOP $(cat /run/sshd.pid) $PPID",
}


@contextmanager
def forced(cloud: Cloud, names: Mapping[str, tuple[str, str]]) -> Iterator[None]:
    """On these hosts the read key and the write key may run nothing but these commands; "" is anything."""
    keys = [
        path.with_name(f"{path.name}.pub").read_text()
        for path in (cloud.hypervisors.read_key, cloud.hypervisors.write_key)
    ]
    files = {name: cloud.host(name).path("/root/.ssh/authorized_keys") for name in names}
    was = {name: file.read_text() for name, file in files.items()}
    for name, commands in names.items():
        options = [f'restrict,command="{command}" ' if command else "" for command in commands]
        files[name].write_text("".join(option + key for option, key in zip(options, keys, strict=True)))
    try:
        yield
    finally:
        for name, text in was.items():
            files[name].write_text(text)


def test_a_host_that_dies_in_the_midst_leaves_its_object_frozen(cloud: Cloud, user: User) -> None:
    wanted = (FAULT_ZOMBIE, FAULT_FORGOTTEN)
    path = user.plan(*wanted)
    cloud.configure(user.path.parent, write__ssh={"timeout": "5s"})
    for name, script in DIES.items():
        cloud.host(name).write_file("/root/dies", script.format(kept=KEPT))
    with forced(cloud, dict.fromkeys(DIES, ("", "bash /root/dies"))):
        try:
            ran = user("repair", str(path), "--yes")
            ran.came_to(12, {key: "unknown" for _, key in wanted})
        finally:
            for name in DIES:
                cloud.host(name).on()
        assert (cloud.state(ZOMBIE, "compute1"), cloud.state(FORGOTTEN, "compute4")) == ("running", "paused")
        ran = user("repair", str(path), "--yes")
        ran.came_to(4, {key: "moved" for _, key in wanted})
        ran = user("repair", "--dry-run")
        assert {act["key"] for act in ran.data["acts"]} == {FAULT_TWIN[1], FAULT_LEFTOVER[1]}
        assert {one["key"] for one in ran.data["left_out"] if "is not known" in one["why"]} == {
            key for _, key in wanted
        }
        for name in DIES:
            assert cloud.host(name).path(f"{KEPT}/orders").read_text() == "ordered\n"


# -- ways to the hosts


async def tried(cloud: Cloud, host: Hypervisor, command: str) -> bytes:
    """What a host says under the read key to a command, and to who asks for file transfer; forwarding is refused."""
    known, key = str(cloud.hypervisors.known_hosts), str(cloud.hypervisors.read_key)
    said = b""
    async with asyncio.timeout(30), asyncssh.connect(
        host.address, username="root", client_keys=[key], known_hosts=known, config=None, agent_path=None
    ) as connection:  # fmt: skip
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", 22)
        for subsystem in (None, "sftp"):
            asked = None if subsystem else command
            done = await connection.run(
                asked, subsystem=subsystem, stdin=asyncssh.DEVNULL, encoding=None, check=False
            )  # fmt: skip
            assert isinstance(done.stdout, bytes)
            said += done.stdout
    return said


def test_keys_that_may_run_nothing_but_our_programs_are_enough(cloud: Cloud, user: User) -> None:
    programs = {"probe.py": "sources/probe.py", "hand.py": "acts/hand.py"}
    commands = tuple(f"python3 /var/lib/cloudfsck-programs/{name}" for name in programs)
    assert len(commands) == 2
    for _, host in cloud.hosts():
        for name, source in programs.items():
            text = (real_cloud.ROOT / "cloudfsck" / source).read_text()
            host.write_file(f"/var/lib/cloudfsck-programs/{name}", text)
    cloud.configure(user.path.parent, read__ssh={"command": True}, write__ssh={"command": True})
    with forced(cloud, dict.fromkeys(real_cloud.HOSTS, commands)):
        ran = user("repair", "--yes")
        ran.came_to(1, dict.fromkeys(KEYS, "done"))
        assert states(cloud) == ["paused"] * 3
        take_back(user, KEYS)
        assert states(cloud) == ["running"] * 3
        said = asyncio.run(tried(cloud, cloud.host("compute1"), "touch /root/mine; echo mine"))
        assert said == b""
        assert not cloud.host("compute1").path("/root/mine").exists()


@contextmanager
def behind(cloud: Cloud, jump: Hypervisor, hosts: list[Hypervisor]) -> Iterator[None]:
    """These hosts are reached from the jump host alone, over links of their own; to all others they are silent."""
    ours = jump.address.rpartition(".")[0] + ".254"
    for number, host in enumerate(hosts):
        link = f"behind{number}"
        run(["ip", *f"link add {link} netns {jump.pid} type veth peer name jump netns {host.pid}".split()])
        for end, device, there in ((jump, link, host), (host, "jump", jump)):
            end.run(["ip", "link", "set", device, "up"])
            end.run(["ip", "route", "add", f"{there.address}/32", "dev", device])
        host.run(["ip", "route", "add", "blackhole", ours])
    try:
        yield
    finally:
        for number, host in enumerate(hosts):
            host.run(["ip", "route", "del", "blackhole", ours])
            jump.run(["ip", "link", "del", f"behind{number}"])


def test_hosts_behind_a_jump_host_are_reached(cloud: Cloud, user: User) -> None:
    jump = cloud.host("compute3")
    cloud.configure(user.path.parent, read__ssh={"timeout": "8s"}, hosts__jump={"cell2": f"root@{jump.address}:22"})
    path = user.path
    with behind(cloud, jump, [cloud.host("compute4"), cloud.host("compute5")]):
        ran = user("check")
        assert ran.status == 4
        assert ran.found("proven") == FAULTS
        ran = user("repair", str(user.plan(FAULT_FORGOTTEN)), "--yes")
        assert ran.outcomes == {FAULT_FORGOTTEN[1]: "done"}
        direct = User(cloud, cloud.configure(path.parent / "direct", read__ssh={"timeout": "4s"}), user.said)
        ran = direct("check")
        assert ran.found("proven") == FAULTS - {FAULT_FORGOTTEN}
        assert {gap["part"] for gap in ran.data["unknown"]} == {"compute4", "compute5"}


def test_noise_is_tolerated_and_a_wrong_host_key_is_not(cloud: Cloud, user: User, tmp_path: Path) -> None:
    lines = [line.split() for line in cloud.hypervisors.known_hosts.read_text().splitlines()]
    other = [[names, *lines[0][1:]] if names.startswith("hv5,") else [names, *key] for names, *key in lines]
    known = tmp_path / "known_hosts"
    known.write_text("".join(" ".join(line) + "\n" for line in other))
    cloud.configure(tmp_path, read__ssh={"known_hosts": str(known)})
    noise = "echo 'Welcome!'; echo '@@cloudfsck begin@@'; echo '{}' >&2\n"
    try:
        for _, host in cloud.hosts():
            host.write_file("/root/.bashrc", noise)
        assert "Welcome!" in cloud.host("compute1").run(["bash", "-c", "source /root/.bashrc"])
        ran = user("check")
    finally:
        for _, host in cloud.hosts():
            host.write_file("/root/.bashrc", "")
    assert ran.status == 12
    assert ran.found("proven") == FAULTS
    assert {gap["part"] for gap in ran.data["unknown"]} == {"compute5"}
    address = cloud.host("compute5").address
    assert {gap["why"] for gap in ran.data["unknown"]} == {
        f"the host key of {address}:22 is not the one in known_hosts;"
        " if the host was reinstalled, put its new key there"
    }


# -- one writer, no secrets, another kind of database


def test_there_is_one_writer(cloud: Cloud, user: User) -> None:
    path = user.plan(FAULT_ZOMBIE)
    settings = config.load(user.path)
    state = State(settings.cloud)
    with state.lease() as lease:
        ran = user("repair", str(path), "--yes")
        assert ran.status == 8
        assert "another cloudfsck is repairing this cloud" in ran.err
        assert lease.owner in ran.err
        assert cloud.state(ZOMBIE, "compute1") == "running"
    state.close()
    assert user("repair", str(path), "--yes").outcomes == {FAULT_ZOMBIE[1]: "done"}
    # The host has seen the second writer: the first one, were it still alive, is refused.
    act = pause(cloud)
    with pytest.raises(Refused, match="writer 1 is behind 2"):
        sent(user, act, fence=lease.fence)
    assert cloud.state(ZOMBIE, "compute1") == "paused"


def test_no_secret_leaves_the_databases(cloud: Cloud, user: User, tmp_path: Path) -> None:
    cells = cloud.first.execute("nova_api", "SELECT database_connection, transport_url FROM cell_mappings")
    disks = cloud.first.execute("nova_cell1", "SELECT connection_info FROM block_device_mapping")
    for secret, rows in zip(real_cloud.SECRETS[1:], (cells, cells, disks), strict=True):
        assert secret in str(rows)
    for words, form in (
        (("check",), "text"), (("plan", "-o", str(tmp_path / "plan.json")), "text"), (("doctor",), "json"),
        (("show", "server", ZOMBIE.uuid), "json"), (("sql", "SELECT * FROM nova_block_device_mapping"), "json"),
        (("sql", "SELECT * FROM nova_cell_mappings"), "json"),
        (("repair", str(tmp_path / "plan.json"), "--yes"), "text"), (("undo",), "json"),
    ):  # fmt: skip
        ran = user(*words, form=form)
        assert ran.out
    assert {path.suffix for path in (tmp_path / "state").rglob("*") if path.is_file()} >= {
        ".duckdb",
        ".jsonl",
        ".sqlite",
    }
    # Errors too: a database that is away, one that refuses us, and a password that is wrong.
    wrong = tmp_path / "wrong"
    wrong.write_text(real_cloud.SECRETS[1])
    refused = User(
        cloud, cloud.configure(tmp_path / "refused", read__database={"password_file": str(wrong)}), user.said
    )
    with second_database_stopped(cloud), rights_revoked(cloud):
        assert user("doctor").status == 8
    assert refused("check").status & 8
    # What DuckDB packs may not show in its bytes.
    taken = Snapshot.open(max((tmp_path / "state" / "snapshots").iterdir()))
    user.said.append(str([taken.rows(f"SELECT * FROM {table.name}") for table in TABLES]))
    taken.close()
    assert secrets_in(tmp_path, []) == [str(wrong)]
    wrong.unlink()


def test_the_same_is_found_with_postgresql(cloud: Cloud, tmp_path: Path) -> None:
    with PostgreSQL(tmp_path / "postgresql") as server:
        addresses = {name: host.address for name, host in cloud.hosts()}
        real_cloud.write_databases(server, dict.fromkeys(real_cloud.CELLS, server), addresses)
        (tmp_path / "password").write_text(server.reader.password)
        account = {"user": server.reader.user, "password_file": str(tmp_path / "password")}
        api = {"api_database": real_cloud.place(server, "nova_api")}
        user = User(cloud, cloud.configure(tmp_path / "user", nova=api, read__database=account))
        ran = user("check")
        assert (ran.status, ran.data["unknown"]) == (4, [])
        assert ran.found("proven") == FAULTS
        assert user("repair", "--yes").outcomes == dict.fromkeys(KEYS, "done")
        assert secrets_in(tmp_path / "user", user.said) == []
