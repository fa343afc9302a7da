"""Volumes in all five places at once: rows of Nova and Cinder in MariaDB, and on a hypervisor of its own kernel what
os-brick has connected for them, from a real target, to a real guest that writes and reads all the time.

Healthy ones stand beside everything that is left over.  Each is judged right; nothing is cleared while os-brick works;
then what is left over is removed, nothing that is held is touched, and the guest notices none of it.  Each test begins
where the one before it has ended.
"""

import datetime as dt
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import journal, tables
from tests.bed import Initiator, MariaDB, guest
from tests.bed.programs import await_true
from tests.bed.targets import PREFIX
from tests.real_cloud import Ran, User

pytestmark = [pytest.mark.real, pytest.mark.long]

HOST = "compute1"
SERVER = "aaaaaaaa-0000-4000-8000-0000000000aa"
CELL = "11111111-2222-3333-4444-555555555555"

#: Attached to the server: by two paths, by two of which one is dead, on an array's shared target, on a dead target.
TWO, LIMPING, SHARED, DEAD = (str(uuid.uuid5(uuid.NAMESPACE_DNS, f"used {n}")) for n in range(4))
USED = (TWO, LIMPING, SHARED, DEAD)
#: To these the guest writes, in the order of its disks.
WRITTEN = (TWO, LIMPING, SHARED)
#: No row gives them to anybody: one is in the guest all the same, a process has the other open.
GRABBED, HELD = (str(uuid.uuid5(uuid.NAMESPACE_DNS, f"held {n}")) for n in range(2))
#: Left over: by two paths, on a dead target, a session without a device.
LEFT, LEFT_DEAD, EMPTY = (str(uuid.uuid5(uuid.NAMESPACE_DNS, f"left {n}")) for n in range(3))
#: One that comes and goes while others are cleared up.
LATE = str(uuid.uuid5(uuid.NAMESPACE_DNS, "late"))
#: An array that has all volumes in one target: LUN 300 is the guest's, and of LUN 2 nobody knows whose it was.
ARRAY, SHARED_LUN, UNKNOWN_LUN = "iqn.1992-08.com.netapp:sn.two", 300, 2
ACCOUNT = ("cinder-user", "chap-secret-7")

DEVICE_LEFT, SESSION_LEFT, NO_PATH = "cinder-device-left", "cinder-session-left", "cinder-device-without-path"
UNKNOWN = "cinder-volume-unknown-to-nova"
#: What stays after everything that a program may remove: a person's business.
STAYS = {(NO_PATH, f"{SERVER}/{DEAD}"), (UNKNOWN, f"{HOST}/{SERVER}/{GRABBED}")}
NAMELESS = (DEVICE_LEFT, f"{HOST}/{ARRAY}/{UNKNOWN_LUN}")

SAID = "/run/guest"
LOCK = "/var/lib/nova/tmp/os-brick-connect_volume"
#: Stops nova-compute in the middle of what it does, as soon as os-brick has its lock; the kernel says who has locks by
#: device and inode.
STAND_STILL = f"""\
set -e
mark=$(printf ':%02x:%d ' 0x$(stat -c %D {LOCK}) $(stat -c %i {LOCK}))
pid=$(cat /run/nova-compute.pid)
until grep " $pid .*$mark" /proc/locks; do sleep 0.05; done
kill -STOP $pid
until grep 'State:.T' /proc/$pid/status; do sleep 0.05; done
grep " $pid .*$mark" /proc/locks
"""

_TYPES = {"VARCHAR": "text", "BIGINT": "bigint", "BOOLEAN": "tinyint(1)", "TIMESTAMP": "datetime"}


@dataclass(frozen=True)
class Volume:
    """One that os-brick has connected: how Cinder says that it is reached, what os-brick answered, and its disks."""

    connection: Mapping[str, Any]
    device: Mapping[str, Any]
    disks: tuple[str, ...]


@dataclass(frozen=True)
class Bed:
    machine: Initiator
    database: MariaDB
    volumes: Mapping[str, Volume]
    #: A LUN of which no row tells.
    unknown: Volume

    def rounds(self) -> int:
        """How often the guest has written to each of its disks and read the same again."""
        return guest.rounds(self.machine.run(f"cat {SAID}"))

    def goes_on(self) -> None:
        """Wait until the guest has begun and ended a round."""
        before = self.rounds()
        await_true("the guest writes and reads", lambda: self.rounds() >= before + 2, 120)

    @contextmanager
    def watched(self) -> Iterator[list[tuple[dt.datetime, int]]]:
        """When the guest had done how many rounds, some times a second."""
        seen: list[tuple[dt.datetime, int]] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                at = dt.datetime.now(dt.UTC).replace(tzinfo=None)
                seen.append((at, self.rounds()))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()


def cinder(server: MariaDB) -> None:
    """Cinder's tables with the columns that are read."""
    server.create("cinder")
    for table in tables.TABLES:
        if table.per == "cinder":
            columns = ", ".join(f"`{column.name}` {_TYPES[column.type]}" for column in table.asked)
            server.execute("cinder", f"CREATE TABLE {table.origin} ({columns})")


def insert(server: MariaDB, database: str, table: str, **row: Any) -> None:
    columns = ", ".join(f"`{name}`" for name in row)
    server.execute(database, f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(row))})",
                   [tuple(row.values())])  # fmt: skip


def write(server: MariaDB, volumes: Mapping[str, Volume]) -> None:
    """One server that runs, with its volumes as they were connected; and volumes that have no attachment."""
    old, days = "2026-01-05 10:00:00", "2026-06-01 10:00:00"
    server.create("nova_api", "nova_api")
    server.create("nova_cell0", "nova_cell")
    server.create("nova_cell1", "nova_cell")
    cinder(server)
    at = f"mysql+pymysql://nova:secret@127.0.0.1:{server.port}/"
    for number, name, ident in ((1, "cell0", "00000000-0000-0000-0000-000000000000"), (2, "cell1", CELL)):
        insert(server, "nova_api", "cell_mappings", id=number, uuid=ident, name=name, transport_url="none:///",
               database_connection=f"{at}nova_{name}", disabled=0)  # fmt: skip
    insert(server, "nova_api", "host_mappings", id=1, host=HOST, cell_id=2, created_at=old)
    insert(server, "nova_api", "instance_mappings", id=1, instance_uuid=SERVER, cell_id=2, project_id="p" * 32,
           user_id="u" * 32, queued_for_delete=0, created_at=old)  # fmt: skip
    cell = "nova_cell1"
    insert(server, cell, "services", id=1, host=HOST, binary="nova-compute", topic="compute", report_count=9,
           disabled=0, last_seen_up="2099-01-01 00:00:00", forced_down=0, version=68, deleted=0, uuid=str(uuid.uuid4()),
           created_at=old)  # fmt: skip
    insert(server, cell, "compute_nodes", id=1, host=HOST, hypervisor_hostname=HOST, hypervisor_type="QEMU",
           hypervisor_version=1, vcpus=1, memory_mb=1, local_gb=1, vcpus_used=0, memory_mb_used=0, local_gb_used=0,
           cpu_info="", deleted=0, uuid=str(uuid.uuid4()), host_ip="127.0.0.1", created_at=old)  # fmt: skip
    insert(server, cell, "instances", id=10, uuid=SERVER, host=HOST, node=HOST, vm_state="active", power_state=1,
           deleted=0, cleaned=0, hidden=0, project_id="p" * 32, user_id="u" * 32, display_name="web-1",
           hostname="web-1", launched_at=old, launched_on=HOST, created_at=old, updated_at=days)  # fmt: skip
    for number, volume in enumerate((*USED, GRABBED, HELD, LEFT, LEFT_DEAD, EMPTY, LATE), start=1):
        used, gone = volume in USED, volume in (LEFT, EMPTY)
        insert(server, "cinder", "volumes", id=volume, status="in-use" if used else "deleted" if gone else "available",
               attach_status="attached" if used else "detached", deleted=gone, project_id="p" * 32, multiattach=0,
               created_at=old, updated_at=days, deleted_at=days if gone else None)  # fmt: skip
        if not used:
            continue
        connection, device = volumes[volume].connection, volumes[volume].device
        attachment = str(uuid.uuid5(uuid.NAMESPACE_DNS, volume))
        # Cinder has it flat (cinder/volume/manager.py: attachment_update).
        flat = {**connection, "driver_volume_type": "iscsi", "attachment_id": attachment, "enforce_multipath": True}
        insert(server, "cinder", "volume_attachment", id=attachment, volume_id=volume, instance_uuid=SERVER,
               attached_host=HOST, attach_status="attached", attach_mode="rw", deleted=0, created_at=old,
               updated_at=days, connection_info=json.dumps(flat),
               connector=json.dumps({"host": HOST, "initiator": f"iqn.1993-08.org.debian:01:{HOST}",
                                     "multipath": True, "os_type": "linux"}))  # fmt: skip
        # Nova adds what os-brick answered (nova/virt/libvirt/volume/iscsi.py: connect_volume).
        nested = {**connection, "device_path": device["path"]}
        if "multipath_id" in device:
            nested["multipath_id"] = device["multipath_id"]
        whole = {"driver_volume_type": "iscsi", "data": nested, "serial": volume, "status": "attached",
                 "instance": SERVER, "attached_at": days}  # fmt: skip
        insert(server, cell, "block_device_mapping", id=number, uuid=str(uuid.uuid4()), instance_uuid=SERVER,
               source_type="volume", destination_type="volume", volume_id=volume, attachment_id=attachment, deleted=0,
               device_name=f"/dev/vd{'abcdefgh'[number - 1]}", no_device=0, delete_on_termination=0, created_at=old,
               updated_at=days, connection_info=json.dumps(whole))  # fmt: skip


def connect(machine: Initiator, volume: str, connection: Mapping[str, Any]) -> Volume:
    """Have os-brick connect a volume, as nova-compute does."""
    device = machine.attach(connection)
    name = device["path"].removeprefix("/dev/")
    paths = machine.run(f"ls /sys/block/{name}/slaves").split() if "multipath_id" in device else [name]
    assert len(paths) == len(connection.get("target_portals", [volume])), (device, paths)
    return Volume(connection, device, tuple(paths))


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("volumes")
    with ExitStack() as stack:
        machine = stack.enter_context(Initiator(folder / "vm", HOST, portals=3))
        machine.start_compute()
        database = stack.enter_context(MariaDB(folder / "db"))
        array, volumes = machine.array, {}
        account = ACCOUNT
        to_two = machine.connection(TWO, array.target(TWO, account=account), (0, 1), account=account)
        with array.disk(PREFIX + TWO).open("r+b") as disk:
            disk.write(guest.boot_sector(len(WRITTEN)))
        array.shared_target(ARRAY, [SHARED_LUN, UNKNOWN_LUN])
        volumes[TWO] = connect(machine, TWO, to_two)
        volumes[SHARED] = connect(machine, SHARED, machine.connection(SHARED, ARRAY, (0,), SHARED_LUN))
        unknown = connect(machine, "", machine.connection("", ARRAY, (0,), UNKNOWN_LUN))
        for volume, portals in (
            (LIMPING, (0, 2)), (DEAD, (1,)), (GRABBED, (0,)), (HELD, (0,)), (LEFT, (0, 1)), (LEFT_DEAD, (1,)),
            (EMPTY, (0,)),
        ):  # fmt: skip
            volumes[volume] = connect(machine, volume, machine.connection(volume, array.target(volume), portals))
        write(database, volumes)

        there = {volume: volumes[volume].device["path"] for volume in (*WRITTEN, DEAD, GRABBED)}
        machine.guest(SERVER, "instance-0000000a", there, "web-1", SAID)
        bed = Bed(machine, database, volumes, unknown)
        await_true("the guest writes and reads", lambda: bed.rounds() > 0, 120)

        machine.run(f"echo 1 >/sys/block/{volumes[EMPTY].disks[0]}/device/delete")
        machine.hold(f"/dev/{volumes[HELD].disks[0]}")
        array.remove_target(PREFIX + DEAD)
        array.remove_target(PREFIX + LEFT_DEAD)
        array.portals[2].block()
        states = "cat /sys/block/sd*/device/state"
        await_true("three are offline", lambda: machine.run(states).split().count("transport-offline") == 3, 90)
        # With one path dead it goes on by the other.
        bed.goes_on()
        yield bed


@pytest.fixture(scope="module")
def operator(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> "Operator":
    return Operator(bed, tmp_path_factory.mktemp("operator"))


class Operator:
    """One who runs cloudfsck on it."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        machine, database = bed.machine, bed.database
        (folder / "password").write_text(database.reader.password)
        ssh = f'known_hosts = "{machine.known_hosts}"\ntimeout = "60s"'
        path = folder / "cloudfsck.toml"
        path.write_text(f"""\
[cloud]
name = "volumes"
state = "state"
[nova]
api_database = "mysql+pymysql://127.0.0.1:{database.port}/nova_api"
[cinder]
database = "mysql+pymysql://127.0.0.1:{database.port}/cinder"
[read.database]
user = "{database.reader.user}"
password_file = "password"
[read.ssh]
key = "{machine.read_key}"
{ssh}
[write.ssh]
key = "{machine.write_key}"
{ssh}
[host.compute1]
address = "{machine.address}"
port = {machine.port}
[proof]
settle_factor = 0
[limits.{DEVICE_LEFT}]
share = 1.0
[limits.{SESSION_LEFT}]
share = 1.0
[limits.{NO_PATH}]
share = 1.0
[limits.{UNKNOWN}]
share = 1.0
""")
        self.folder = folder
        #: What is to be done by hand about the LUN of which nobody knows.
        self.told: list[str] = []
        self.user = User(None, path)  # type: ignore[arg-type]

    def __call__(self, *words: str) -> Ran:
        return self.user(*words, timeout=900)


def keys(ran: Ran, check: str) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in ran.data["findings"] if one["check"] == check}


def found(ran: Ran) -> set[tuple[str, str]]:
    return {(one["check"], one["key"]) for one in ran.data["findings"]}


def clearable(bed: Bed) -> set[tuple[str, str]]:
    """What a program may remove."""
    sessions = bed.machine.run("iscsiadm -m session")
    (number,) = [line.split("[")[1].split("]")[0] for line in sessions.splitlines() if PREFIX + EMPTY in line]
    return {
        (DEVICE_LEFT, f"{HOST}/{PREFIX}{LEFT}/1"),
        (DEVICE_LEFT, f"{HOST}/{PREFIX}{LEFT_DEAD}/1"),
        (SESSION_LEFT, f"{HOST}/session{number}/{PREFIX}{EMPTY}"),
    }


def test_each_is_judged_right(bed: Bed, operator: Operator) -> None:
    ran = operator("check")
    assert ran.data["unknown"] == [], ran.out
    assert found(ran) == STAYS | clearable(bed) | {NAMELESS}, ran.out
    assert {one["state"] for one in ran.data["findings"]} <= {"proven", "seen"}, ran.out
    risks = {(one["check"], one["key"]): one["risk"] for one in ran.data["findings"]}
    assert {one for one, risk in risks.items() if risk == "ask"} == clearable(bed)
    assert risks[NAMELESS] == "by-hand", "nobody knows whose it was"
    operator.told = keys(ran, DEVICE_LEFT)[NAMELESS[1]]["commands"]
    bed.goes_on()


def test_nothing_is_cleared_while_os_brick_connects_a_volume(bed: Bed, operator: Operator) -> None:
    machine = bed.machine
    path = operator.folder / "plan.json"
    operator("plan", "-o", str(path))
    plan = json.loads(path.read_text())
    assert {(act["check"], act["key"]) for act in plan["acts"]} == clearable(bed)
    plan["acts"] = [act for act in plan["acts"] if act["check"] == SESSION_LEFT]
    path.write_text(json.dumps(plan))

    connection = machine.connection(LATE, machine.array.target(LATE), (0, 1))
    machine.ask("connect", connection)
    machine.run(STAND_STILL)
    (done,) = operator("repair", str(path), "--yes").data["acts"]
    assert done["outcome"] == "refused"
    number = machine.run("cat /run/nova-compute.pid").strip()
    assert done["why"] == f"os-brick attaches or detaches a volume on this host (/proc/{number}/root{LOCK})"
    assert PREFIX + EMPTY in machine.run("iscsiadm -m session")

    machine.run("kill -CONT $(cat /run/nova-compute.pid)")
    device = machine.answer()
    assert device is not None
    machine.detach(connection, device)
    bed.goes_on()


def test_what_is_left_is_cleared_beside_a_guest_at_work(bed: Bed, operator: Operator) -> None:
    machine, wanted = bed.machine, clearable(bed)
    with bed.watched() as seen:
        done = operator("repair", "--yes")
    assert done.outcomes == {key: "done" for _, key in wanted}, (done.out, done.err)
    # While each act was done, the guest went on.
    run = journal.runs(operator.folder / "state")[-1]
    for begin, end in spans(operator.folder / "state" / "journal" / f"{run}.jsonl"):
        meanwhile = [count for at, count in seen if begin <= at <= end + dt.timedelta(seconds=1)]
        assert len(set(meanwhile)) > 1, (begin, end, seen)

    there = set(machine.run("ls /sys/block").split())
    gone = {name for volume in (LEFT, LEFT_DEAD) for name in bed.volumes[volume].disks}
    gone.add(bed.volumes[LEFT].device["path"].removeprefix("/dev/"))
    kept = {name for volume in (*USED, GRABBED, HELD) for name in bed.volumes[volume].disks}
    assert (gone & there, kept - there) == (set(), set())
    listed = machine.run("iscsiadm -m session")
    assert [volume for volume in (LEFT, LEFT_DEAD, EMPTY, LATE) if volume in listed] == []
    assert [target for target in (TWO, LIMPING, GRABBED, HELD, ARRAY) if target not in listed] == []


def test_a_lun_of_which_nobody_knows_goes_by_the_commands_that_are_told(bed: Bed, operator: Operator) -> None:
    (name,) = bed.unknown.disks
    (flush, delete) = [line for line in operator.told if "if nothing uses it" in line or "has succeeded" in line]
    for line, part in ((flush, f"blockdev --flushbufs /dev/{name}"), (delete, f"/sys/block/{name}/device/delete")):
        place, _, command = line.partition(": ")
        assert place.startswith(f"on {HOST},"), line
        assert command.endswith(part), line
        bed.machine.run(command)
    ran = operator("check")
    assert found(ran) == STAYS, ran.out
    # In the same session the guest still has its own.
    assert f"/dev/{bed.volumes[SHARED].disks[0]}" == bed.volumes[SHARED].device["path"]
    assert ARRAY in bed.machine.run("iscsiadm -m session")
    bed.goes_on()


def test_what_the_guest_wrote_is_on_the_array(bed: Bed) -> None:
    bed.goes_on()
    bed.machine.remove_guest(SERVER)
    done = bed.rounds()
    array = bed.machine.array
    for number, volume in enumerate(WRITTEN):
        disk = array.disk(ARRAY, SHARED_LUN) if volume == SHARED else array.disk(PREFIX + volume)
        assert list(guest.wrong(disk.read_bytes(), number, done)) == []


def test_the_secret_of_chap_stays_where_it_was(bed: Bed, operator: Operator) -> None:
    assert bed.machine.run(f"grep -rl {ACCOUNT[1]} /etc/iscsi/nodes"), "os-brick has logged in with it"
    files = [path for path in operator.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".jsonl" for path in files)
    assert [path for path in files if ACCOUNT[1].encode() in path.read_bytes()] == []
    assert [said for said in operator.user.said if ACCOUNT[1] in said] == []


def spans(path: Path) -> list[tuple[dt.datetime, dt.datetime]]:
    """From when to when each act of a journal was done."""
    begun: dict[int, dt.datetime] = {}
    found = []
    for line in map(json.loads, path.read_text().splitlines()):
        if "n" in line:
            at = dt.datetime.fromisoformat(line["at"].removesuffix("Z"))
            if line["event"] == "begin":
                begun[line["n"]] = at
            else:
                found.append((begun[line["n"]], at))
    assert found
    return found
