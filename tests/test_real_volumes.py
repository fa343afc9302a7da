"""Volumes in all five places at once: rows of Nova and Cinder in MariaDB, a real guest, a real initiator's devices.

Healthy ones stand beside everything that is left over.  Each is judged right; the repair removes what is left over, and
touches nothing that is held.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import tables
from tests.bed import Initiator, MariaDB
from tests.bed.programs import await_true
from tests.bed.targets import PREFIX
from tests.real_cloud import Ran, User

pytestmark = pytest.mark.real

HOST = "compute1"
SERVER = "aaaaaaaa-0000-4000-8000-0000000000aa"
CELL = "11111111-2222-3333-4444-555555555555"

#: Attached to the server: by two paths, by two of which one is dead, on an array's shared target, on a dead target.
TWO, LIMPING, SHARED, DEAD = (str(uuid.uuid5(uuid.NAMESPACE_DNS, f"used {n}")) for n in range(4))
USED = (TWO, LIMPING, SHARED, DEAD)
#: Left over: by two paths, on a dead target, a session without a device; and one that a process holds.
LEFT, LEFT_DEAD, EMPTY, HELD = (str(uuid.uuid5(uuid.NAMESPACE_DNS, f"left {n}")) for n in range(4))
ARRAY = "iqn.1992-08.com.netapp:sn.two"

DEVICE_LEFT, SESSION_LEFT, NO_PATH = "cinder-device-left", "cinder-session-left", "cinder-device-without-path"

_TYPES = {"VARCHAR": "text", "BIGINT": "bigint", "BOOLEAN": "tinyint(1)", "TIMESTAMP": "datetime"}


@dataclass(frozen=True)
class Bed:
    machine: Initiator
    database: MariaDB
    disks: dict[str, list[str]]
    folder: Path


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


def write(server: MariaDB) -> None:
    """One server that is paused, with its volumes; and volumes that have no attachment."""
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
    insert(server, cell, "instances", id=10, uuid=SERVER, host=HOST, node=HOST, vm_state="paused", power_state=3,
           deleted=0, cleaned=0, hidden=0, project_id="p" * 32, user_id="u" * 32, display_name="web-1",
           hostname="web-1", launched_at=old, launched_on=HOST, created_at=old, updated_at=days)  # fmt: skip
    for number, volume in enumerate((*USED, LEFT, LEFT_DEAD, EMPTY, HELD), start=1):
        used, gone = volume in USED, volume in (LEFT, EMPTY)
        insert(server, "cinder", "volumes", id=volume, status="in-use" if used else "deleted" if gone else "available",
               attach_status="attached" if used else "detached", deleted=gone, project_id="p" * 32, multiattach=0,
               created_at=old, updated_at=days, deleted_at=days if gone else None)  # fmt: skip
        if not used:
            continue
        data = {"target_iqn": ARRAY if volume == SHARED else PREFIX + volume, "target_lun": 1,
                "target_portal": "10.0.2.2:3260", "auth_password": "chap-secret"}  # fmt: skip
        attachment = str(uuid.uuid5(uuid.NAMESPACE_DNS, volume))
        insert(server, "cinder", "volume_attachment", id=attachment, volume_id=volume, instance_uuid=SERVER,
               attached_host=HOST, attach_status="attached", attach_mode="rw", deleted=0, created_at=old,
               updated_at=days, connection_info=json.dumps({"driver_volume_type": "iscsi", **data}),
               connector=json.dumps({"host": HOST}))  # fmt: skip
        insert(server, cell, "block_device_mapping", id=number, uuid=str(uuid.uuid4()), instance_uuid=SERVER,
               source_type="volume", destination_type="volume", volume_id=volume, attachment_id=attachment, deleted=0,
               device_name=f"/dev/vd{'abcdefgh'[number - 1]}", no_device=0, delete_on_termination=0, created_at=old,
               updated_at=days,
               connection_info=json.dumps({"driver_volume_type": "iscsi", "data": data, "serial": volume}))  # fmt: skip


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("volumes")
    with ExitStack() as stack:
        machine = stack.enter_context(Initiator(folder / "vm", HOST, portals=3))
        database = stack.enter_context(MariaDB(folder / "db"))
        write(database)
        array, disks = machine.array, {}
        for volume, portals in (
            (TWO, (0, 1)), (LIMPING, (0, 2)), (DEAD, (1,)), (LEFT, (0, 1)), (LEFT_DEAD, (1,)),
            (HELD, (0,)), (EMPTY, (0,)),
        ):  # fmt: skip
            disks[volume] = machine.login(array.target(volume), portals)
        disks[SHARED] = machine.login(array.shared_target(ARRAY, [1, 2]), (0,), [1, 2])
        maps = {path: name for name, paths in machine.maps().items() for path in paths}
        mine = {volume: maps.get(disks[volume][0], disks[volume][0]) for volume in USED}
        machine.guest(SERVER, "instance-0000000a", {volume: f"/dev/{name}" for volume, name in mine.items()}, "web-1")
        # As nova-compute and os-brick have it there.
        machine.run("printf '[DEFAULT]\\nhost = compute1\\n[oslo_concurrency]\\nlock_path = /var/lib/nova/lock\\n'"
                    " >/etc/nova/nova.conf; mkdir -p /var/lib/nova/lock /var/lib/cloudfsck"
                    "; touch /var/lib/nova/lock/os-brick-connect_volume")  # fmt: skip
        machine.run(f"echo 1 >/sys/block/{disks[EMPTY][0]}/device/delete")
        machine.hold(f"/dev/{disks[HELD][0]}")
        array.remove_target(PREFIX + DEAD)
        array.remove_target(PREFIX + LEFT_DEAD)
        array.portals[2].block()
        states = "cat /sys/block/sd*/device/state"
        await_true("three are offline", lambda: machine.run(states).split().count("transport-offline") == 3, 90)
        yield Bed(machine, database, disks, folder)


@pytest.fixture
def operator(bed: Bed, tmp_path: Path) -> "Operator":
    return Operator(bed, tmp_path)


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
""")
        self.user = User(None, path)  # type: ignore[arg-type]

    def __call__(self, *words: str) -> Ran:
        return self.user(*words, timeout=900)


def keys(ran: Ran, check: str) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in ran.data["findings"] if one["check"] == check}


def test_each_is_judged_right_and_what_is_left_is_cleared_beside_a_guest(bed: Bed, operator: Operator) -> None:
    machine = bed.machine
    ran = operator("check")
    assert ran.data["unknown"] == [], ran.out
    assert {one["check"] for one in ran.data["findings"]} == {DEVICE_LEFT, SESSION_LEFT, NO_PATH}, ran.out
    assert {one["state"] for one in ran.data["findings"]} <= {"proven", "seen"}, ran.out
    left, sessions, without = (keys(ran, check) for check in (DEVICE_LEFT, SESSION_LEFT, NO_PATH))
    assert set(left) == {f"{HOST}/{PREFIX}{LEFT}/1", f"{HOST}/{PREFIX}{LEFT_DEAD}/1", f"{HOST}/{ARRAY}/2"}
    assert left[f"{HOST}/{ARRAY}/2"]["risk"] == "by-hand", "nobody knows whose it was"
    (session,) = sessions
    assert session.endswith(PREFIX + EMPTY)
    assert set(without) == {f"{SERVER}/{DEAD}"}

    operator("check")  # what cannot be undone waits for a second whole reading
    done = operator("repair", "--yes")
    mine = {key for key, one in {**left, **sessions}.items() if one["risk"] == "ask"}
    assert done.outcomes == dict.fromkeys(mine, "done"), (done.out, done.err)

    there = set(machine.run("ls /sys/block").split())
    gone = {name for volume in (LEFT, LEFT_DEAD) for name in bed.disks[volume]}
    kept = {name for volume in (*USED, HELD) for name in bed.disks[volume]}
    assert (gone & there, kept - there) == (set(), set())
    listed = machine.run("iscsiadm -m session")
    assert [volume for volume in (LEFT, LEFT_DEAD, EMPTY) if volume in listed] == []
    assert [target for target in (TWO, LIMPING, HELD, ARRAY) if target not in listed] == []
    again = operator("check")
    assert {(one["check"], one["key"]) for one in again.data["findings"]} == {
        (DEVICE_LEFT, f"{HOST}/{ARRAY}/2"), (NO_PATH, f"{SERVER}/{DEAD}"),
    }  # fmt: skip
