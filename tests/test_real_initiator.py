"""The storage connections of a real kernel, as the probe reads them over SSH: healthy ones, and each kind of leftover.

One machine has them all, as a hypervisor has after years. It is broken once, read once, and mended in the last tests.
"""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cloudfsck.config import Ssh
from cloudfsck.model import Scope
from cloudfsck.remote import Target
from cloudfsck.sources import hypervisors
from tests.bed import Initiator
from tests.bed.programs import await_true
from tests.bed.targets import MIB, PREFIX

pytestmark = pytest.mark.real

HOST = "compute1"
SERVER = "aaaaaaaa-0000-4000-8000-0000000000aa"
#: Of each state one volume.
HEALTHY, DEAD, LIMPING, UNUSED, UNMAPPED = (str(uuid.uuid5(uuid.NAMESPACE_URL, str(n))) for n in range(5))
#: An array that has all volumes in one target: LUN 1 is a guest's, LUN 2 is left over.
SHARED = "iqn.1992-08.com.netapp:sn.one"
SUBSYSTEM = "nqn.2014-08.org.nvmexpress:uuid:one"
NAMESPACE = "bbbbbbbb-0000-4000-8000-0000000000bb"

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Broken:
    """The machine, and what was seen of it after it was broken."""

    machine: Initiator
    disks: dict[str, list[str]]
    sessions: str
    topology: str
    rows: Rows

    def device(self, name: str) -> dict[str, Any]:
        (row,) = [row for row in self.rows["block_devices"] if row["name"] == name]
        return row

    def of(self, volume: str) -> list[dict[str, Any]]:
        """The sessions of a volume's target."""
        return [row for row in self.rows["iscsi_sessions"] if row["target"] == PREFIX + volume]

    def map(self, volume: str) -> dict[str, Any]:
        """The map of a volume's paths."""
        (above,) = {holder for name in self.disks[volume] for holder in self.device(name)["holders"]}
        return self.device(above)


def read(machine: Initiator) -> Rows:
    """What the probe says of it, as cloudfsck asks: over SSH, with the key that reads."""
    ssh = Ssh(key=machine.read_key, known_hosts=machine.known_hosts)
    target = Target(HOST, machine.address, machine.port, "ssh", "python3")
    (pieces,) = hypervisors.read([(target, {})], ssh, Scope(), {HOST: HOST})
    assert {piece.table: piece.why for piece in pieces if piece.why} == {}
    return {piece.table: piece.rows.to_pylist() for piece in pieces if piece.rows is not None}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    with Initiator(tmp_path_factory.mktemp("initiator"), HOST, portals=3) as machine:
        array = machine.array
        disks = {}
        for volume, portals in (
            (HEALTHY, (0, 1)), (LIMPING, (0, 2)), (DEAD, (1,)), (UNUSED, (1,)), (UNMAPPED, (0, 1)),
        ):  # fmt: skip
            disks[volume] = machine.login(array.target(volume), portals)
        disks[SHARED] = machine.login(array.shared_target(SHARED, [1, 2], 32 * MIB), (0,), [1, 2])
        machine.nvme(SUBSYSTEM, NAMESPACE)

        maps = {path: name for name, paths in machine.maps().items() for path in paths}
        mine = {HEALTHY: maps[disks[HEALTHY][0]], LIMPING: maps[disks[LIMPING][0]]}
        mine[str(uuid.uuid4())] = disks[SHARED][0]
        machine.guest(SERVER, "instance-0000000a", {volume: f"/dev/{name}" for volume, name in mine.items()})

        array.remove_target(PREFIX + DEAD)
        array.portals[2].block()
        # multipathd removes a map that loses its paths, but not while somebody has it open.
        holder = machine.hold("/dev/" + maps[disks[UNMAPPED][0]])
        machine.logout(PREFIX + UNMAPPED)
        machine.kill(holder)
        states = "cat /sys/block/sd*/device/state"
        await_true("two are offline", lambda: machine.run(states).split().count("transport-offline") == 2, 60)
        await_true("one path is faulty", lambda: "failed faulty" in machine.run("multipath -ll"), 60)
        sessions, topology = machine.run("iscsiadm -m session -P 1"), machine.run("multipath -ll")
        yield Broken(machine, disks, sessions, topology, read(machine))


def test_a_volume_with_two_paths_is_one_map_that_the_guest_has(broken: Broken) -> None:
    sessions = broken.of(HEALTHY)
    assert sorted(row["portal"] for row in sessions) == sorted(broken.machine.portal(number) for number in (0, 1))
    assert {(row["state"], row["connection"]) for row in sessions} == {("LOGGED_IN", "up")}
    assert sorted(name for row in sessions for name in row["devices"]) == broken.disks[HEALTHY]
    for name in broken.disks[HEALTHY]:
        path = broken.device(name)
        assert (path["kind"], path["state"], path["bytes"]) == ("scsi", "running", 64 * MIB)
        assert path["places"] == [f"{PREFIX}{HEALTHY}/1"]
        assert path["volume"] == HEALTHY
        # multipathd has it open, as every path.
        assert path["held_by"] == []
        assert any(link.startswith("/dev/disk/by-path/ip-") for link in path["links"])
    whole = broken.map(HEALTHY)
    assert (whole["kind"], whole["state"], whole["bytes"]) == ("multipath", "active", 64 * MIB)
    assert whole["wwid"].startswith("mpath-3600")
    assert f"{whole['dm_name']} {whole['name']} IET,VIRTUAL-DISK" in broken.topology
    assert whole["slaves"] == broken.disks[HEALTHY]
    assert (whole["places"], whole["volume"]) == ([f"{PREFIX}{HEALTHY}/1"], HEALTHY)
    assert f"/dev/mapper/{whole['dm_name']}" in whole["links"]
    assert whole["guests"] == [SERVER]
    ((_, command),) = [held.split() for held in whole["held_by"]]
    assert command == "qemu-system-x86_64"


def test_a_session_of_a_dead_target_stands_and_its_disk_is_offline(broken: Broken) -> None:
    # Only its state tells: iscsiadm lists it like any other.
    assert f"Target: {PREFIX}{DEAD}" in broken.sessions
    (session,) = broken.of(DEAD)
    assert session["state"] in ("FREE", "FAILED")
    assert session["connection"] != "up"
    assert session["devices"] == broken.disks[DEAD]
    row = broken.device(session["devices"][0])
    assert (row["state"], row["volume"], row["session"]) == ("transport-offline", DEAD, session["session"])


def test_of_a_volume_with_a_dead_path_the_other_serves_the_guest(broken: Broken) -> None:
    states = {row["portal"]: row["state"] for row in broken.of(LIMPING)}
    assert states.pop(broken.machine.portal(0)) == "LOGGED_IN"
    assert states.pop(broken.machine.portal(2)) in ("FREE", "FAILED")
    paths = {row["state"]: row for row in map(broken.device, broken.disks[LIMPING])}
    assert set(paths) == {"running", "transport-offline"}
    whole = broken.map(LIMPING)
    assert (whole["state"], whole["slaves"], whole["guests"]) == ("active", broken.disks[LIMPING], [SERVER])
    lost = paths["transport-offline"]
    assert f"{lost['name']} {lost['number']} failed faulty" in " ".join(broken.topology.split())


def test_a_session_that_nobody_uses_is_healthy_and_free(broken: Broken) -> None:
    (session,) = broken.of(UNUSED)
    assert (session["state"], session["connection"]) == ("LOGGED_IN", "up")
    (name,) = broken.disks[UNUSED]
    row = broken.device(name)
    assert (row["state"], row["volume"]) == ("running", UNUSED)
    assert [row[use] for use in ("holders", "mounts", "held_by", "guests")] == [[], [], [], []]


def test_beside_the_guests_lun_another_is_left_in_the_same_session(broken: Broken) -> None:
    (session,) = [row for row in broken.rows["iscsi_sessions"] if row["target"] == SHARED]
    assert session["devices"] == broken.disks[SHARED]
    used, left = (broken.device(name) for name in broken.disks[SHARED])
    assert (used["places"], left["places"]) == ([f"{SHARED}/1"], [f"{SHARED}/2"])
    assert (used["session"], left["session"]) == (session["session"], session["session"])
    # One path is no map.
    assert (used["holders"], used["guests"]) == ([], [SERVER])
    assert [held.split()[1] for held in used["held_by"]] == ["qemu-system-x86_64"]
    assert [left[use] for use in ("holders", "mounts", "held_by", "guests")] == [[], [], [], []]
    assert (used["volume"], left["volume"]) == (None, None)


def test_a_map_without_paths_is_left_over(broken: Broken) -> None:
    assert broken.of(UNMAPPED) == []
    assert "##,##" in broken.topology
    (row,) = [row for row in broken.rows["block_devices"] if row["kind"] == "multipath" and not row["slaves"]]
    assert f"{row['dm_name']} {row['name']} ##,##" in broken.topology
    assert [row[use] for use in ("places", "holders", "mounts", "held_by", "guests")] == [[], [], [], [], []]


def test_a_namespace_comes_by_its_controller(broken: Broken) -> None:
    (controller,) = broken.rows["nvme_controllers"]
    assert (controller["target"], controller["transport"], controller["state"]) == (SUBSYSTEM, "tcp", "live")
    (name,) = controller["namespaces"]
    row = broken.device(name)
    assert (row["kind"], row["session"]) == ("nvme", controller["name"])
    assert f"{SUBSYSTEM}/{NAMESPACE}" in row["places"]


def test_all_that_the_kernel_has_is_read_and_no_more(broken: Broken) -> None:
    assert broken.sessions.count("SID:") == len(broken.rows["iscsi_sessions"])
    there = set(broken.machine.run("ls /sys/block").split())
    # What is in memory; and of a namespace the hidden path, which cannot be opened.
    local = {name for name in there if re.fullmatch(r"ram[0-9]+|nvme[0-9]+c[0-9]+n[0-9]+", name)}
    assert {row["name"] for row in broken.rows["block_devices"]} == there - local


# -- mended again


def test_a_path_comes_back(broken: Broken) -> None:
    broken.machine.array.portals[2].unblock()
    await_true("no path is faulty", lambda: "faulty" not in broken.machine.run("multipath -ll"), 60)
    rows = read(broken.machine)
    sessions = [row for row in rows["iscsi_sessions"] if row["target"] == PREFIX + LIMPING]
    assert {(row["state"], row["connection"]) for row in sessions} == {("LOGGED_IN", "up")}


def test_a_lun_and_a_map_that_are_removed_are_gone(broken: Broken) -> None:
    machine = broken.machine
    left = broken.disks[SHARED][1]
    (map_,) = [row for row in broken.rows["block_devices"] if row["kind"] == "multipath" and not row["slaves"]]
    machine.run(f"multipath -f {map_['dm_name']}; echo 1 >/sys/block/{left}/device/delete")
    machine.logout(PREFIX + UNUSED)
    rows = read(machine)
    gone = {left, map_["name"], *broken.disks[UNUSED]}
    assert gone & {row["name"] for row in rows["block_devices"]} == set()
    assert PREFIX + UNUSED not in {row["target"] for row in rows["iscsi_sessions"]}
    machine.remove_guest(SERVER)
    assert all(row["guests"] == [] and row["held_by"] == [] for row in read(machine)["block_devices"])
