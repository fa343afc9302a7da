"""A small damaged cloud of real servers: Nova's databases, five hypervisors, and what is healthy, innocent or broken.

Most of it is healthy, some of it only looks wrong, and four things are broken, each in one way.  What is broken can be
made anew for every test; the rest is made once, and nothing of ours may ever change it.
"""

import datetime as dt
import hashlib
import json
import shutil
import subprocess
import sys
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.bed import Hypervisor, Hypervisors, MariaDB, PostgreSQL
from tests.bed.databases import Account
from tests.bed.hypervisors import measure

NAME = "real"
ROOT = Path(__file__).resolve().parents[1]
INSTANCES = Hypervisor.instances
#: Where hand.py keeps what it knows on a hypervisor.
KEPT = "/var/lib/cloudfsck"

#: What must never leave the databases and the file that holds the password.
PASSWORD = "reader@p%ss:word/7"
SECRETS = (PASSWORD, "cell-mapping-secret", "rabbit-secret", "chap-secret")

#: Nova's name of each host, its cell, and the hypervisor's own name.
HOSTS = {
    "compute1": ("cell1", "hv1"),
    "compute2": ("cell1", "hv2"),
    "compute3": ("cell1", "hv3"),
    "compute4": ("cell2", "hv4"),
    "compute5": ("cell2", "hv5"),
}
#: Its nova-compute died two days ago, the host was taken for dead, and servers were evacuated from it.
DEAD = "compute2"
CELLS = {"cell0": 1, "cell1": 2, "cell2": 3}
CELL0 = "00000000-0000-0000-0000-000000000000"

#: The four checks, by the letters of the faults that they find here.
TWICE = "libvirt-server-runs-twice"
DELETED = "libvirt-domain-of-deleted-server"
ARCHIVED = "libvirt-domain-of-archived-server"
DIRECTORY = "nova-directory-of-deleted-server"

Row = dict[str, Any]
Database = MariaDB | PostgreSQL


def ident(*words: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "real:" + "/".join(words)))


@dataclass(frozen=True)
class Guest:
    """A domain of a server on a host, with its directory unless that bears a suffix of Nova's."""

    host: str
    start: Literal["running", "paused", "no"] = "running"
    suffix: str = ""


@dataclass(frozen=True)
class Server:
    """A server as Nova has it, and what there is of it.  Times are days ago; `row` is the table its row stands in."""

    name: str
    host: str
    vm_state: str = "active"
    power: int = 1
    deleted: float | None = None
    row: Literal["live", "deleted", "shadow"] = "live"
    guests: tuple[Guest, ...] = ()
    folders: tuple[str, ...] = ()
    attempts: int | None = None
    migration: tuple[str, str, str, str] | None = None
    task: str | None = None

    @property
    def uuid(self) -> str:
        return ident("server", self.name)

    @property
    def cell(self) -> str:
        return HOSTS[self.host][0]


def _evacuated(name: str, state: str, power: int, *guests: Guest) -> Server:
    move = ("evacuation", "done", DEAD, "compute3")
    return Server(name, "compute3", state, power, guests=guests, migration=move)


HEALTHY = (
    Server("web-1", "compute1", guests=(Guest("compute1"),)),
    Server("web-2", "compute1", "paused", 3, guests=(Guest("compute1", "paused"),)),
    Server("cache-1", "compute1", "stopped", 4, guests=(Guest("compute1", "no"),)),
    Server("web-3", "compute2", guests=(Guest("compute2"),)),
    Server("db-1", "compute3", guests=(Guest("compute3"),)),
    Server("db-2", "compute3", "stopped", 4, guests=(Guest("compute3", "no"),)),
    Server("crm-1", "compute4", guests=(Guest("compute4"),)),
    Server("crm-2", "compute4", "stopped", 4, guests=(Guest("compute4", "no"),)),
    Server("mail-1", "compute5", guests=(Guest("compute5"),)),
    # What looks wrong, and is not: a resize that waits to be confirmed, an evacuated server that was not started yet,
    # one whose owner may still ask for it back, one that nova-compute still deletes, and two that are simply gone.
    Server("resized-1", "compute3", "resized", guests=(Guest("compute3"), Guest("compute1", "no", "_resize")),
           migration=("resize", "finished", "compute1", "compute3")),
    _evacuated("evacuated-1", "stopped", 4, Guest("compute3", "no"), Guest(DEAD)),
    Server("softdeleted-1", "compute4", "soft-delete", 4, deleted=0.4, guests=(Guest("compute4", "no"),)),
    Server("deleting-1", "compute5", "deleted", 0, deleted=0.1, row="deleted", folders=("compute5",), attempts=4),
    Server("gone-1", "compute1", "deleted", 0, deleted=6.0, row="deleted"),
    Server("gone-2", "compute5", "deleted", 0, deleted=30.0, row="shadow"),
)  # fmt: skip

#: 1A: deleted three days ago, and it still runs.
ZOMBIE = Server("billing-7", "compute1", "deleted", 0, deleted=3.0, row="deleted", guests=(Guest("compute1"),))
#: 1B: the same, but its row was archived.
FORGOTTEN = Server("crm-3", "compute4", "deleted", 0, deleted=12.0, row="shadow", guests=(Guest("compute4"),))
#: 1E: evacuated from a host that was not dead: it runs twice.
TWIN = _evacuated("ledger-2", "active", 1, Guest("compute3"), Guest(DEAD))
#: 2A: deleted five hours ago; nova-compute could not remove its directory and has given up.
LEFTOVER = Server("export-5", "compute3", "deleted", 0, deleted=0.2, row="deleted", folders=("compute3",), attempts=5)
DAMAGE = (ZOMBIE, FORGOTTEN, TWIN, LEFTOVER)

#: Each fault as (check, key).
FAULT_ZOMBIE = (DELETED, f"compute1/{ZOMBIE.uuid}")
FAULT_FORGOTTEN = (ARCHIVED, f"compute4/{FORGOTTEN.uuid}")
FAULT_TWIN = (TWICE, f"{DEAD}/{TWIN.uuid}")
FAULT_LEFTOVER = (DIRECTORY, f"compute3/{LEFTOVER.uuid}")
FAULTS = frozenset({FAULT_ZOMBIE, FAULT_FORGOTTEN, FAULT_TWIN, FAULT_LEFTOVER})

#: An operator's own machine, which no Nova knows.
STRANGER = ident("an operator's own")


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)

    def found(self, *states: str) -> set[tuple[str, str]]:
        """The findings of a `check` in these states."""
        return {(one["check"], one["key"]) for one in self.data["findings"] if one["state"] in states}

    @property
    def held(self) -> dict[tuple[str, str], str]:
        return {(one["check"], one["key"]): one["rung"] for one in self.data["held"]}

    def came_to(self, status: int, outcomes: Mapping[str, str]) -> None:
        """Fail with all that was said unless the acts ended like this."""
        assert (self.outcomes, self.status) == (outcomes, status), (self.out, self.err)

    @property
    def outcomes(self) -> dict[str, str]:
        """How each act ended, by its key."""
        return {one["key"]: one["outcome"] for one in self.data["acts"]}


class Cloud:
    """The cloud; a context manager that makes it, with cell2 on a database server of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hypervisors = Hypervisors(directory / "hypervisors")
        self.first = MariaDB(directory / "first")
        self.second = MariaDB(directory / "second")
        for server in (self.first, self.second):
            server.reader = Account("cloudfsck", PASSWORD)
        self.password_file = directory / "password"
        self._stack = ExitStack()

    def __enter__(self) -> "Cloud":
        with self._stack:
            for server in (self.hypervisors, self.first, self.second):
                self._stack.enter_context(server)
            self.password_file.write_text(PASSWORD + "\n")
            self.places = {"cell0": self.first, "cell1": self.first, "cell2": self.second}
            write_databases(self.first, self.places, {name: host.address for name, host in self.hosts()})
            self.on_every_host(self._furnish)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # -- the hosts

    def host(self, name: str) -> Hypervisor:
        return self.hypervisors[HOSTS[name][1]]

    def hosts(self) -> Iterator[tuple[str, Hypervisor]]:
        for name in HOSTS:
            yield name, self.host(name)

    def on_every_host(self, do: Callable[[str, Hypervisor], Any]) -> dict[str, Any]:
        with ThreadPoolExecutor(5) as pool:
            return dict(zip(HOSTS, pool.map(lambda each: do(*each), self.hosts()), strict=True))

    def _furnish(self, name: str, host: Hypervisor) -> None:
        conf = host.path("/etc/nova/nova.conf")
        conf.write_text(conf.read_text().replace(f"host = {host.name}", f"host = {name}"))
        self.share(name)
        for server in HEALTHY:
            _make(server, name, host)
        if name == "compute5":
            host.define(STRANGER, "jumpbox", nova=False, disk=False)

    def share(self, name: str) -> None:
        """Let nova-compute note, as it does, that it alone uses its instances path."""
        text = json.dumps({name: dt.datetime.now().timestamp()})
        self.host(name).write_file(f"{INSTANCES}/compute_nodes", text)

    def damage(self) -> None:
        """Break what is broken, anew, and take away whatever our acts have left on the hosts."""
        self.on_every_host(self._damage)

    def _damage(self, name: str, host: Hypervisor) -> None:
        there = host.states()
        ours = [server.uuid for server in DAMAGE if server.uuid in there]
        active = [one for one in ours if there[one] != "shutoff"]
        if commands := [f"destroy {one}" for one in active] + [f"undefine {one}" for one in ours]:
            host.virsh(*commands)
        for server in DAMAGE:
            shutil.rmtree(host.path(f"{INSTANCES}/{server.uuid}"), ignore_errors=True)
        self._forget(name, host)
        for server in DAMAGE:
            _make(server, name, host)

    def forget(self) -> None:
        """Take away whatever our acts have left on the hosts; a new state directory counts its writers from one."""
        self.on_every_host(self._forget)

    def _forget(self, name: str, host: Hypervisor) -> None:
        shutil.rmtree(host.path(f"{INSTANCES}/.cloudfsck"), ignore_errors=True)
        for path in host.path(KEPT).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def facts(self, fault: Server, host: str) -> dict[str, Any]:
        """Everything there is of a server on a host; see Hypervisor.facts."""
        return self.host(host).facts(fault.uuid)

    def run_of(self, server: Server, host: str) -> tuple[str, Any]:
        """The libvirt id of its run there and its QEMU process: the same for as long as the guest was not stopped."""
        facts = self.facts(server, host)
        return self.host(host).virsh(f"domid {server.uuid}").strip(), facts["processes"]

    def state(self, server: Server, host: str) -> str | None:
        return self.host(host).states().get(server.uuid)

    def quarantine(self, host: str) -> list[str]:
        place = self.host(host).path(f"{INSTANCES}/.cloudfsck")
        return sorted(path.name for path in place.iterdir()) if place.exists() else []

    # -- what must stay as it is

    def neighbours(self) -> dict[str, Any]:
        """A digest of each host's healthy domains, processes and files, and of every row of every database."""
        uuids = [server.uuid for server in HEALTHY] + [STRANGER]
        seen = self.on_every_host(lambda name, host: (host.fingerprint(*uuids), _runs(host, uuids)))
        for server, names in ((self.first, ("nova_api", "nova_cell0", "nova_cell1")), (self.second, ("nova_cell2",))):
            seen |= {name: rows_of(server, name) for name in names}
        return seen

    # -- running cloudfsck

    def configure(self, folder: Path, **settings: Mapping[str, Any]) -> Path:
        """Write a configuration with a state directory of its own; `settings` go over the usual ones."""
        ssh = {"known_hosts": str(self.hypervisors.known_hosts), "timeout": "20s"}
        sections: dict[str, dict[str, Any]] = {
            "cloud": {"name": NAME, "state": "state"},
            # Nothing beats here: with ten days its services stay up.
            "nova": {"api_database": place(self.first, "nova_api"), "service_down_time": 864000},
            "read.database": {"user": self.first.reader.user, "password_file": str(self.password_file)},
            "read.ssh": {"key": str(self.hypervisors.read_key), **ssh},
            "write.ssh": {"key": str(self.hypervisors.write_key), **ssh},
            "hosts": {"address": "{host_ip}"},
            "proof": {"settle_factor": 0},
            "ladder": {"paused": 0, "stopped": 0, "quarantined": 0},
        }
        for name, changes in settings.items():
            sections[name.replace("__", ".")] = {**sections.get(name.replace("__", "."), {}), **changes}
        lines = []
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "cloudfsck.toml"
        path.write_text("\n".join(lines))
        return path


@dataclass
class User:
    """One who runs cloudfsck with a configuration of his own, and keeps what it printed."""

    cloud: Cloud
    path: Path
    said: list[str] = field(default_factory=list)

    def __call__(self, *words: str, form: str | None = "json", timeout: float = 120) -> Ran:
        command = [sys.executable, "-m", "cloudfsck", "-c", str(self.path), *words]
        command += ["--format", form] if form else []
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=timeout)
        self.said += [done.stdout, done.stderr]
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def plan(self, *faults: tuple[str, str]) -> Path:
        """A plan of `plan -o`, cut down to these faults."""
        path = self.path.with_name("plan.json")
        self("plan", "-o", str(path))
        made = json.loads(path.read_text())
        made["acts"] = [act for act in made["acts"] if (act["check"], act["key"]) in faults]
        assert len(made["acts"]) == len(faults), made
        path.write_text(json.dumps(made))
        return path


def secrets_in(folder: Path, said: Iterable[str]) -> list[str]:
    """Where one of the secrets stands, however it is spelled: in the files of a folder, or in what was printed."""
    spelled = {spelling.encode() for secret in SECRETS
               for spelling in (secret, urllib.parse.quote(secret, safe=""), json.dumps(secret)[1:-1])}  # fmt: skip
    found = [f"printed: {text[:200]}" for text in said if any(one in text.encode() for one in spelled)]
    for path in folder.rglob("*"):
        if path.is_file() and any(one in path.read_bytes() for one in spelled):
            found.append(str(path))
    return found


def place(server: Database, name: str, account: str = "") -> str:
    """Where a database is, as Nova would write it; `account` is user:password."""
    return f"{server.nova_driver}://{account}{'@' if account else ''}127.0.0.1:{server.port}/{name}"


def measured(host: Hypervisor, path: str) -> list[Any]:
    """A file of a host as Hypervisor.facts shows it."""
    found = json.loads(json.dumps(measure(host.path(path))))
    assert isinstance(found, list)
    return found


def rows_of(server: MariaDB, name: str) -> str:
    """A digest of every row of a database."""
    tables = [row[0] for row in server.execute(name, "SHOW TABLES")]
    sums = server.execute(name, f"CHECKSUM TABLE {', '.join(f'`{table}`' for table in sorted(tables))} EXTENDED")
    return hashlib.sha256(repr(sums).encode()).hexdigest()


def _runs(host: Hypervisor, uuids: Iterable[str]) -> dict[str, str]:
    there = host.states()
    return {one: f"{there[one]} {host.virsh(f'domid {one}').strip()}" for one in uuids if one in there}


def _make(server: Server, name: str, host: Hypervisor) -> None:
    """Make what there is of a server on a host."""
    for guest in server.guests:
        if guest.host == name:
            number = (HEALTHY + DAMAGE).index(server) + 1
            host.define(server.uuid, f"instance-{number:08x}", start=guest.start, display=server.name)
            if guest.suffix:
                here = host.path(f"{INSTANCES}/{server.uuid}")
                here.rename(here.with_name(here.name + guest.suffix))
    if name in server.folders:
        host.make_directory(server.uuid)
        disk = host.path(f"{INSTANCES}/{server.uuid}/disk")
        with disk.open("ab") as file:
            file.write(b"what its owner wrote" * 5000)


# -- Nova's rows


def write_databases(api: Database, cells: Mapping[str, Database], addresses: Mapping[str, str]) -> None:
    """Make Nova's databases and write the rows, as Nova writes them."""
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0)
    api.create("nova_api", "nova_api")
    _insert(api, "nova_api", _api_rows(cells, now))
    for cell, server in cells.items():
        server.create(f"nova_{cell}", "nova_cell")
        _insert(server, f"nova_{cell}", _cell_rows(cell, addresses, now))


def _insert(server: Database, name: str, tables: Mapping[str, list[Row]]) -> None:
    quote = "`" if isinstance(server, MariaDB) else '"'
    for table, rows in tables.items():
        if rows:
            columns = ", ".join(f"{quote}{column}{quote}" for column in rows[0])
            marks = ", ".join(["%s"] * len(rows[0]))
            values = [tuple(row.values()) for row in rows]
            server.execute(name, f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)


def _numbered(rows: Iterable[Row]) -> list[Row]:
    return [{"id": number, **row} for number, row in enumerate(rows, start=1)]


def _ago(now: dt.datetime, days: float | None) -> dt.datetime | None:
    return None if days is None else (now - dt.timedelta(days=days)).replace(microsecond=0)


def _api_rows(cells: Mapping[str, Database], now: dt.datetime) -> dict[str, list[Row]]:
    account = f"nova:{SECRETS[1]}"
    mappings = [
        {"id": number, "uuid": CELL0 if cell == "cell0" else ident("cell", cell), "name": cell, "disabled": False,
         "transport_url": "none:///" if cell == "cell0" else f"rabbit://nova:{SECRETS[2]}@127.0.0.1:5672/{cell}",
         "database_connection": place(cells[cell], f"nova_{cell}", account), "created_at": _ago(now, 400)}
        for cell, number in CELLS.items()
    ]  # fmt: skip
    servers = [
        {"instance_uuid": one.uuid, "cell_id": CELLS[one.cell], "project_id": ident("project"),
         "queued_for_delete": one.row != "live", "user_id": ident("user"), "created_at": _ago(now, 40)}
        for one in HEALTHY + DAMAGE
        if one.row != "shadow"  # archiving takes the mapping away
    ]  # fmt: skip
    hosts = [{"host": host, "cell_id": CELLS[cell], "created_at": _ago(now, 400)} for host, (cell, _) in HOSTS.items()]
    return {
        "cell_mappings": mappings,
        "instance_mappings": _numbered(servers),
        "host_mappings": _numbered(hosts),
    }


def _cell_rows(cell: str, addresses: Mapping[str, str], now: dt.datetime) -> dict[str, list[Row]]:
    here = [one for one in HEALTHY + DAMAGE if one.cell == cell]
    hosts = [host for host, (its, _) in HOSTS.items() if its == cell]
    number = {one.name: count for count, one in enumerate(here, start=1)}
    chap = {"auth_method": "CHAP", "auth_username": "nova", "auth_password": SECRETS[3]}
    info = json.dumps({"driver_volume_type": "iscsi", "data": {"target_lun": 1, **chap}})

    def dead(one: Server) -> Row:
        return {"deleted": number[one.name] if one.row != "live" else 0, "deleted_at": _ago(now, one.deleted)}

    def instances(*rows: str) -> list[Row]:
        return [
            {"id": number[one.name], "uuid": one.uuid, "user_id": ident("user"), "project_id": ident("project"),
             "display_name": one.name, "hostname": one.name, "host": one.host, "node": HOSTS[one.host][1],
             "launched_on": DEAD if one.migration and one.migration[2] == DEAD else one.host,
             "vm_state": one.vm_state, "task_state": one.task, "power_state": one.power, "memory_mb": 1, "vcpus": 1,
             "root_gb": 1, "ephemeral_gb": 0, "instance_type_id": 1, "locked": False, "hidden": False, "cleaned": 0,
             "root_device_name": "/dev/vda", "compute_id": hosts.index(one.host) + 1, "created_at": _ago(now, 40),
             "launched_at": _ago(now, 40), "updated_at": _ago(now, one.deleted or 2), **dead(one)}
            for one in here
            if one.row in rows
        ]  # fmt: skip

    disks = {
        row: [
            {"uuid": ident("block device", one.name), "instance_uuid": one.uuid, "source_type": "volume",
             "destination_type": "volume", "volume_id": ident("volume", one.name), "device_name": "/dev/vdb",
             "delete_on_termination": False, "no_device": False, "connection_info": info, "created_at": _ago(now, 40),
             **dead(one)}
            for one in here
            if (one.row == "shadow") == (row == "shadow")
        ]
        for row in ("live", "shadow")
    }  # fmt: skip
    moves = [
        {"uuid": ident("migration", one.name), "instance_uuid": one.uuid, "migration_type": one.migration[0],
         "status": one.migration[1], "source_compute": one.migration[2], "dest_compute": one.migration[3],
         "source_node": HOSTS[one.migration[2]][1], "dest_node": HOSTS[one.migration[3]][1], "hidden": False,
         "cross_cell_move": False, "created_at": _ago(now, 2.1), "updated_at": _ago(now, 2), "deleted": 0}
        for one in here
        if one.migration
    ]  # fmt: skip
    attempts = [
        {"instance_uuid": one.uuid, "key": key, "value": value, "created_at": _ago(now, 40), "deleted": 0}
        for one in here
        if one.attempts is not None
        for key, value in (("image_min_disk", "1"), ("clean_attempts", str(one.attempts)))
    ]
    actions = [
        {"instance_uuid": one.uuid, "action": "create", "request_id": f"req-{ident('request', one.name)}",
         "start_time": _ago(now, 40), "finish_time": _ago(now, 39.9), "deleted": 0}
        for one in here
        if one.row != "shadow"
    ]  # fmt: skip
    events = [
        {"action_id": count, "event": "compute__do_build_and_run_instance", "start_time": _ago(now, 40),
         "finish_time": _ago(now, 39.9), "result": "Success", "deleted": 0}
        for count in range(1, len(actions) + 1)
    ]  # fmt: skip
    services = [
        {"uuid": ident("service", host), "host": host, "binary": "nova-compute", "topic": "compute", "report_count": 7,
         "disabled": host == DEAD, "disabled_reason": "taken for dead" if host == DEAD else None,
         "last_seen_up": _ago(now, 2.1 if host == DEAD else 0), "forced_down": host == DEAD, "version": 68,
         "created_at": _ago(now, 400), "deleted": 0}
        for host in hosts
    ]  # fmt: skip
    nodes = [
        {"uuid": ident("node", host), "host": host, "hypervisor_hostname": HOSTS[host][1], "hypervisor_type": "QEMU",
         "hypervisor_version": 7002000, "cpu_info": "{}", "vcpus": 4, "memory_mb": 4096, "local_gb": 100,
         "vcpus_used": 0, "memory_mb_used": 0, "local_gb_used": 0, "host_ip": addresses[host], "mapped": 1,
         "created_at": _ago(now, 400), "deleted": 0}
        for host in hosts
    ]  # fmt: skip
    return {
        "services": _numbered(services),
        "compute_nodes": _numbered(nodes),
        "instances": instances("live", "deleted"),
        "shadow_instances": instances("shadow"),
        "block_device_mapping": _numbered(disks["live"]),
        "shadow_block_device_mapping": _numbered(disks["shadow"]),
        "migrations": _numbered(moves),
        "instance_system_metadata": _numbered(attempts),
        "instance_actions": _numbered(actions),
        "instance_actions_events": _numbered(events),
    }


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """Another text in a file for a while."""
    was = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(was)
