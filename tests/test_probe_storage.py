"""The storage connections of a hypervisor, as the probe reads them: trees laid out as kernels lay out sysfs."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import remote, tables
from cloudfsck.model import Scope
from cloudfsck.sources import hypervisors, probe, service

ONE, TWO, THREE = (f"{digit * 8}-aaaa-4aaa-8aaa-00000000000{digit}" for digit in "123")
SERVER = "aaaaaaaa-0000-4000-8000-0000000000aa"
IQN = "iqn.2010-10.org.openstack:volume-"
ARRAY = "iqn.1992-08.com.netapp:sn.1"
NQN = "nqn.2014-08.org.nvmexpress:uuid:array"
WWID = "60000000000000000e0000000001000"


class Machine:
    """A host as a folder: sys, dev and proc.  Every device of sysfs is a directory below devices, linked from class."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.dev, self.proc = folder / "sys", folder / "dev", folder / "proc"
        for path in (self.sys / "class/block", self.dev, self.proc):
            path.mkdir(parents=True)
        self.minor = 0

    def put(self, path: str, **files: object) -> Path:
        here = self.sys / path
        here.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            file = here / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(value if isinstance(value, bytes) else f"{value}\n".encode())
        return here

    def classed(self, kind: str, path: Path) -> None:
        folder = self.sys / "class" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).symlink_to(path)

    def block(self, path: str, **files: object) -> Path:
        self.minor += 1
        here = self.put(path, **{"dev": f"8:{self.minor}", "size": 131072, **files})
        for name in ("slaves", "holders"):
            (here / name).mkdir(exist_ok=True)
        self.classed("block", here)
        if "hidden" not in files:
            (self.dev / here.name).touch()
        return here

    def session(
        self, number: int, target: str, portal: str = "10.0.2.2", port: int = 3260, state: str = "LOGGED_IN",
        connection: str | None = "up",
    ) -> None:  # fmt: skip
        top = f"devices/platform/host{number}/session{number}"
        here = self.put(f"{top}/iscsi_session/session{number}", targetname=target, state=state, username="u")
        self.classed("iscsi_session", here)
        said = {"persistent_address": portal, "persistent_port": port, "address": "", "port": ""}
        line = self.put(f"{top}/connection{number}:0/iscsi_connection/connection{number}:0", **said)
        if connection is not None:
            (line / "state").write_text(f"{connection}\n")
        self.classed("iscsi_connection", line)

    def disk(
        self, name: str, session: int, lun: int = 1, wwid: str | None = WWID + "1", state: str = "running"
    ) -> None:
        top = f"devices/platform/host{session}/session{session}/target{session}:0:0/{session}:0:0:{lun}"
        self.put(top, state=state)
        if wwid is not None:
            self.put(top, wwid=f"naa.{wwid}")
        self.block(f"{top}/block/{name}")
        target = (self.sys / f"class/iscsi_session/session{session}/targetname").read_text().strip()
        line = self.sys / f"class/iscsi_connection/connection{session}:0"
        host, port = ((line / f"persistent_{name}").read_text().strip() for name in ("address", "port"))
        self.link(f"disk/by-path/ip-{host}:{port}-iscsi-{target}-lun-{lun}", name)

    def mapped(self, name: str, label: str, uuid: str, slaves: list[str], **files: object) -> None:
        self.block(f"devices/virtual/block/{name}", dm__name=label, dm__uuid=uuid, dm__suspended=0, **files)
        for below in slaves:
            self.stands(name, below)
        self.link(f"mapper/{label}", name)

    def stands(self, name: str, below: str) -> None:
        upper, lower = ((self.sys / "class/block" / one).resolve() for one in (name, below))
        (upper / "slaves" / below).symlink_to(lower)
        (lower / "holders" / name).symlink_to(upper)

    def partition(self, disk: str, name: str) -> None:
        here = (self.sys / "class/block" / disk).resolve() / name
        self.block(str(here.relative_to(self.sys)), partition=1)

    def link(self, path: str, name: str) -> None:
        (self.dev / path).parent.mkdir(parents=True, exist_ok=True)
        (self.dev / path).symlink_to(os.path.relpath(self.dev / name, (self.dev / path).parent))

    def process(
        self, pid: int, command: str, held: list[str], mounts: str = "", space: str = "mnt:[1]", comm: str | None = None
    ) -> None:
        here = self.proc / str(pid)
        (here / "fd").mkdir(parents=True)
        (here / "ns").mkdir()
        (here / "ns/mnt").symlink_to(space)
        (here / "mountinfo").write_text(mounts)
        (here / "cmdline").write_text(f"{command}\0--secret=x\0")
        (here / "comm").write_text((os.path.basename(command)[:15] if comm is None else comm) + "\n")
        for number, path in enumerate(held):
            (here / "fd" / str(number)).symlink_to(path)

    def read(self, domains: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        request = {"sys": str(self.sys), "dev": str(self.dev)}
        seen = probe.read_storage(request)
        return probe.used(seen, request, str(self.proc), probe.held_paths(str(self.proc)), lambda: domains)

    def devices(self, domains: list[dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.read(domains)["devices"]}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def row(name: str, kind: str, number: str, **more: object) -> dict[str, object]:
    empty = dict.fromkeys(("wwid", "dm_name", "state", "session", "volume", "guests"))
    lists: dict[str, object] = {name: [] for name in ("places", "slaves", "holders", "mounts", "held_by")}
    links = ["/dev/" + name]
    return {**empty, **lists, "name": name, "kind": kind, "number": number, "bytes": 2**26, "links": links, **more}


def guest(*sources: str, uuid: str = SERVER) -> dict[str, Any]:
    return {"uuid": uuid, "disks": [{"source": source, "backing": []} for source in sources]}


# ---------------------------------------------------------------------------------------------------------------------
# iSCSI and multipath.


def test_a_healthy_volume_with_two_paths(machine: Machine) -> None:
    machine.session(1, IQN + ONE)
    machine.session(2, IQN + ONE, port=3261)
    machine.disk("sda", 1)
    machine.disk("sdb", 2)
    machine.mapped("dm-0", "3" + WWID + "1", "mpath-3" + WWID + "1", ["sda", "sdb"])
    machine.link(f"disk/by-id/dm-uuid-mpath-3{WWID}1", "dm-0")
    machine.process(132, "/sbin/multipathd", [f"{machine.dev}/sda", "/dev/sdb", "socket:[1]"])
    machine.process(317, "/usr/bin/qemu-system-x86_64", ["/dev/dm-0", "/dev/dm-0", "/dev/null"])
    answer = machine.read([guest("/dev/dm-0"), guest("/var/lib/nova/instances/x/disk", uuid=ONE)])
    portal = "10.0.2.2:326"
    assert answer["sessions"] == [
        {"session": f"session{number}", "target": IQN + ONE, "portal": f"{portal}{number - 1}", "state": "LOGGED_IN",
         "connection": "up", "devices": [name], "volume": ONE}
        for number, name in ((1, "sda"), (2, "sdb"))
    ]  # fmt: skip
    assert answer["controllers"] == []
    by_path = [f"/dev/disk/by-path/ip-{portal}{leg}-iscsi-{IQN}{ONE}-lun-1" for leg in (0, 1)]
    path = {"wwid": f"naa.{WWID}1", "state": "running", "places": [f"{IQN}{ONE}/1"], "volume": ONE, "holders": ["dm-0"]}
    uuid = f"mpath-3{WWID}1"
    links = ["/dev/disk/by-id/dm-uuid-" + uuid, "/dev/dm-0", f"/dev/mapper/3{WWID}1"]
    assert answer["devices"] == [
        row("dm-0", "multipath", "8:3", wwid=uuid, dm_name=f"3{WWID}1", state="active", places=[f"{IQN}{ONE}/1"],
            volume=ONE, slaves=["sda", "sdb"], links=links, held_by=["317 qemu-system-x86_64"], guests=[SERVER]),
        row("sda", "scsi", "8:1", session="session1", links=[by_path[0], "/dev/sda"], **path, guests=[]),
        row("sdb", "scsi", "8:2", session="session2", links=[by_path[1], "/dev/sdb"], **path, guests=[]),
    ]  # fmt: skip


def test_a_dead_target_and_one_dead_path(machine: Machine) -> None:
    machine.session(1, IQN + ONE)
    machine.session(2, IQN + ONE, "fd00::2", 3261, "FREE", "failed")
    machine.session(4, IQN + THREE, "[fd00::3]", 3260, "FAILED", None)
    machine.disk("sda", 1)
    machine.disk("sdb", 2, state="transport-offline")
    machine.disk("sdd", 4, wwid=WWID + "3", state="blocked")
    machine.mapped("dm-0", "mpatha", "mpath-3" + WWID + "1", ["sda", "sdb"])
    machine.mapped("dm-2", "mpathc", "mpath-3" + WWID + "3", ["sdd"])
    (machine.sys / "class/block/dm-2/dm/suspended").write_text("1\n")
    answer = machine.read()
    assert [
        (each["session"], each["portal"], each["state"], each["connection"], each["devices"])
        for each in answer["sessions"]
    ] == [
        ("session1", "10.0.2.2:3260", "LOGGED_IN", "up", ["sda"]),
        ("session2", "[fd00::2]:3261", "FREE", "failed", ["sdb"]),
        ("session4", "[fd00::3]:3260", "FAILED", None, ["sdd"]),
    ]
    assert {each["name"]: each["state"] for each in answer["devices"]} == {
        "dm-0": "active", "dm-2": "suspended", "sda": "running", "sdb": "transport-offline", "sdd": "blocked",
    }  # fmt: skip
    # No domain is known: that is not none.
    assert [each["guests"] for each in answer["devices"]] == [None] * 5


def test_what_is_left_over_beside_what_is_used(machine: Machine) -> None:
    machine.session(7, ARRAY)
    machine.session(8, IQN + TWO)
    machine.disk("sda", 7, 0, WWID + "1")
    machine.disk("sdb", 7, 256, None)
    machine.disk("sdc", 7, 0x4000 + 300, None)
    # The path below the map is gone; another disk has its name since.
    machine.mapped("dm-1", "3" + WWID + "2", "mpath-3" + WWID + "2", [])
    gone = machine.sys / "devices/platform/host9/session9/target9:0:0/9:0:0:1/block/sdc"
    (machine.sys / "class/block/dm-1/slaves/sdc").symlink_to(gone)
    machine.mapped("dm-2", "crypt-x", "CRYPT-LUKS2-x", ["dm-1"])
    # A local disk with LVM, and a map that needs nothing below it.
    machine.block("devices/pci0000:00/0000:00:02.0/virtio1/block/vda")
    machine.partition("vda", "vda1")
    machine.mapped("dm-3", "vg-root", "LVM-x", ["vda1"])
    machine.mapped("dm-4", "zero", "", [])
    answer = machine.read([guest(f"/dev/disk/by-path/ip-10.0.2.9:3260-iscsi-{ARRAY}-lun-0-part1")])
    assert [(each["session"], each["devices"]) for each in answer["sessions"]] == [
        ("session7", ["sda", "sdb", "sdc"]), ("session8", []),
    ]  # fmt: skip
    by_path = f"/dev/disk/by-path/ip-10.0.2.2:3260-iscsi-{ARRAY}-lun-"
    more: dict[str, object] = {"session": "session7", "state": "running", "guests": []}
    assert answer["devices"] == [
        row("dm-1", "multipath", "8:4", wwid=f"mpath-3{WWID}2", dm_name=f"3{WWID}2", state="active", holders=["dm-2"],
            links=["/dev/dm-1", f"/dev/mapper/3{WWID}2"], guests=[]),
        row("dm-2", "crypt", "8:5", wwid="CRYPT-LUKS2-x", dm_name="crypt-x", state="active", slaves=["dm-1"],
            links=["/dev/dm-2", "/dev/mapper/crypt-x"], guests=[]),
        row("sda", "scsi", "8:1", wwid=f"naa.{WWID}1", places=[f"{ARRAY}/0"], links=[by_path + "0", "/dev/sda"],
            **{**more, "guests": [SERVER]}),
        row("sdb", "scsi", "8:2", places=[f"{ARRAY}/256"], links=[by_path + "256", "/dev/sdb"], **more),
        row("sdc", "scsi", "8:3", places=[f"{ARRAY}/16684", f"{ARRAY}/300"], links=[by_path + "16684", "/dev/sdc"],
            **more),
    ]  # fmt: skip


def test_paths_of_two_volumes_in_one_map_agree_on_none(machine: Machine) -> None:
    machine.session(1, IQN + ONE)
    machine.session(2, IQN + TWO)
    machine.disk("sda", 1)
    machine.disk("sdb", 2)
    machine.mapped("dm-0", "a\\x20b", "mpath-x", ["sda", "sdb"])
    found = machine.devices()["dm-0"]
    assert (found["volume"], found["places"]) == (None, [f"{IQN}{ONE}/1", f"{IQN}{TWO}/1"])
    assert (found["dm_name"], found["links"]) == ("a\\x20b", ["/dev/dm-0", "/dev/mapper/a\\x20b"])


def test_what_stands_on_a_map_and_who_uses_it(machine: Machine) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    machine.partition("sda", "sda1")
    machine.partition("sda", "sda2")
    machine.mapped("dm-0", "m", "mpath-m", ["sda"])
    machine.mapped("dm-1", "m-part1", "part1-mpath-m", ["dm-0"])
    machine.mapped("dm-2", "vg-lv", "LVM-x", ["dm-1"])
    machine.block("devices/virtual/block/md0", md__level="raid1")
    machine.stands("md0", "dm-2")
    machine.block("devices/virtual/block/bcache0")
    machine.stands("bcache0", "md0")
    machine.block("devices/virtual/block/loop5", loop__backing_file="/dev/mapper/vg-lv")
    machine.put("kernel/config/target/core/iblock_0/disk1", udev_path="/dev/md0")
    machine.put("fs/btrfs/x/devices")
    (machine.sys / "fs/btrfs/x/devices/bcache0").symlink_to(machine.sys)
    (machine.proc / "swaps").write_text("Filename\tType\n/dev/mapper/vg-lv\tpartition\t1\n/swap\\040file file 1\n")
    machine.process(
        1, "/sbin/init", [], "1 0 0:9 / / rw - ext4 x rw\n2 1 8:3 / /a\\040b rw shared:1 - ext4 /dev/x rw\n"
    )
    # btrfs shows a number that is no device's; a zombie has no mounts, and another of its namespace tells.
    machine.process(50, "zombie", ["/dev/null"], "", "mnt:[2]")
    (machine.proc / "50/mountinfo").unlink()
    machine.process(
        51, "/usr/bin/python3", ["/dev/sda1"], "1 0 0:40 / /c rw - btrfs /dev/md0 rw\nbad\n", "mnt:[2]", "nova"
    )
    machine.process(52, "multipathd", ["/dev/dm-0", "/dev/sda"])
    found = machine.devices([])
    assert {name: (one["kind"], one["slaves"], one["holders"]) for name, one in found.items()} == {
        "sda": ("scsi", [], ["dm-0", "sda1", "sda2"]),
        "sda1": ("partition", ["sda"], []),
        "sda2": ("partition", ["sda"], []),
        "dm-0": ("multipath", ["sda"], ["dm-1"]),
        "dm-1": ("partition", ["dm-0"], ["dm-2"]),
        "dm-2": ("lvm", ["dm-1"], ["md0"]),
        "md0": ("md", ["dm-2"], ["bcache0"]),
        "bcache0": ("other", ["md0"], []),
    }
    assert {name: (one["mounts"], one["held_by"]) for name, one in found.items()} == {
        "sda": ([], []),
        "sda1": ([], ["51 nova"]),
        "sda2": (["/a b"], []),
        "dm-0": ([], ["52 multipathd"]),
        "dm-1": ([], []),
        "dm-2": (["swap"], ["0 loop5"]),
        "md0": (["/c"], ["0 lio iblock_0/disk1"]),
        "bcache0": ([], ["0 btrfs"]),
    }
    assert [found[name]["places"] for name in ("dm-0", "dm-1")] == [[f"{IQN}{ONE}/1"], []]
    # A partition that nothing uses says nothing of its disk.
    (machine.proc / "51/fd/0").unlink()
    assert machine.devices([])["sda"]["holders"] == ["dm-0", "sda2"]


def test_files_far_away_are_not_looked_at(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    table = "1 0 0:50 / /mnt/nfs rw - nfs4 filer:/x rw\n"
    machine.process(1, "qemu", ["/mnt/nfs/disk", "/dev/sda"], table)
    looked = []
    stat = os.stat

    def watched(path: Any, *args: Any, **more: Any) -> os.stat_result:
        looked.append(str(path))
        return stat(path, *args, **more)

    monkeypatch.setattr(os, "stat", watched)
    assert machine.devices()["sda"]["held_by"] == ["1 qemu"]
    assert f"{machine.proc}/1/fd/1" in looked
    assert f"{machine.proc}/1/fd/0" not in looked


def test_the_identity_of_a_disk(machine: Machine) -> None:
    machine.session(1, ARRAY)
    pages = {
        "sda": bytes([0, 0x83, 0, 0]),
        # A name in ASCII, an EUI-64, a NAA of the port and two of the unit.
        "sdb": b"\0\x83\0\0" + b"\2\1\0\2xy" + b"\1\2\0\x08" + b"\xaa" * 8 + b"\1\x13\0\x02\x11\x11"
        + b"\1\3\0\x08" + b"\x50" * 8 + b"\1\3\0\x10" + b"\x60" * 16,
        "sdc": b"\0\x83\0\0" + b"\1\2\0\x08" + b"\xaa" * 8,
        "sdd": b"\0\x83\0\0" + b"\1\3\0\xff\x60",
        "sde": b"\0",
    }  # fmt: skip
    for lun, (name, page) in enumerate(pages.items()):
        machine.disk(name, 1, lun, None)
        machine.put(f"devices/platform/host1/session1/target1:0:0/1:0:0:{lun}", vpd_pg83=page)
    found = machine.devices()
    assert [found[name]["wwid"] for name in pages] == [None, "naa." + "60" * 16, "eui." + "aa" * 8, None, None]


# ---------------------------------------------------------------------------------------------------------------------
# Others.


def test_fibre_channel(machine: Machine) -> None:
    port = machine.put("devices/pci0/host1/rport-1:0-2/fc_remote_ports/rport-1:0-2", port_name="0x50060E801049CFD1")
    machine.classed("fc_remote_ports", port)
    top = "devices/pci0/host1/rport-1:0-2/target1:0:0/1:0:0:5"
    machine.put(top, state="running", wwid="naa.5")
    machine.block(top + "/block/sdq")
    assert machine.read([guest("/dev/disk/by-path/pci-0000:05:00.2-fc-0x50060e801049cfd1-lun-5")]) == {
        "sessions": [],
        "controllers": [],
        "devices": [row("sdq", "scsi", "8:1", wwid="naa.5", state="running", session="rport-1:0-2",
                        places=["50060e801049cfd1/5"], guests=[SERVER])],
    }  # fmt: skip


def test_nvme_over_fabrics(machine: Machine) -> None:
    """nvme1 and nvme2 are two ways to one subsystem, nvme3 has its namespace to itself, nvme0 is a disk of the host."""
    uuid, nguid = ONE, "bbbbbbbb-0000-0000-0000-00000000000b"
    fabric = "devices/virtual/nvme-fabrics/ctl"
    for number, state in ((1, "live"), (2, "connecting")):
        said = {"transport": "tcp", "subsysnqn": NQN, "address": f"traddr=10.0.0.{number},trsvcid=4420", "state": state}
        machine.classed("nvme", machine.put(f"{fabric}/nvme{number}", **said))
        node = machine.put(f"{fabric}/nvme{number}/nvme1c{number}n1", hidden=1, size=131072)
        machine.classed("block", node)
    subsystem = machine.put("devices/virtual/nvme-subsystem/nvme-subsys1", subsysnqn=NQN)
    for number in (2, 1):
        (subsystem / f"nvme{number}").symlink_to(machine.sys / fabric / f"nvme{number}")
    machine.block("devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1", uuid=uuid, nguid=nguid, nsid=7)
    machine.partition("nvme1n1", "nvme1n1p1")
    own = machine.put(f"{fabric}/nvme3", transport="rdma", subsysnqn="nqn.x:volume-" + TWO, address="a", state="live")
    machine.classed("nvme", own)
    machine.block(f"{fabric}/nvme3/nvme3n1", uuid="00000000-0000-0000-0000-000000000000", nsid=1)
    local = machine.put("devices/pci0/nvme/nvme0", transport="pcie", subsysnqn="nqn.local", state="live")
    machine.classed("nvme", local)
    machine.block("devices/pci0/nvme/nvme0/nvme0n1", nsid=1)
    subsystem = machine.put("devices/virtual/nvme-subsystem/nvme-subsys4", subsysnqn="nqn.local")
    (subsystem / "nvme0").symlink_to(local)
    machine.block("devices/virtual/nvme-subsystem/nvme-subsys4/nvme4n1", nsid=1)
    answer = machine.read()
    assert answer["controllers"] == [
        {"name": "nvme1", "target": NQN, "transport": "tcp", "address": "traddr=10.0.0.1,trsvcid=4420",
         "state": "live", "namespaces": ["nvme1n1"]},
        {"name": "nvme2", "target": NQN, "transport": "tcp", "address": "traddr=10.0.0.2,trsvcid=4420",
         "state": "connecting", "namespaces": ["nvme1n1"]},
        {"name": "nvme3", "target": "nqn.x:volume-" + TWO, "transport": "rdma", "address": "a", "state": "live",
         "namespaces": ["nvme3n1"]},
    ]  # fmt: skip
    words = ["7", uuid, nguid, nguid.replace("-", "")]
    assert answer["devices"] == [
        row("nvme1n1", "nvme", "8:1", wwid=uuid, session="nvme1", places=sorted(f"{NQN}/{word}" for word in words)),
        row("nvme1n1p1", "partition", "8:2", slaves=["nvme1n1"]),
        row("nvme3n1", "nvme", "8:3", session="nvme3", places=[f"nqn.x:volume-{TWO}/1"], volume=TWO),
    ]


def test_images_that_the_kernel_has_mapped(machine: Machine) -> None:
    for number, said in enumerate([
        {"pool": "volumes", "name": "volume-" + ONE, "pool_ns": "", "current_snap": "-", "image_id": "1"},
        {"pool": "volumes", "name": "volume-" + TWO, "pool_ns": "ns", "current_snap": "-"},
        {"pool": "volumes", "name": "volume-" + ONE, "current_snap": "s"},
    ]):  # fmt: skip
        machine.put(f"bus/rbd/devices/{number}", **said)
        machine.block(f"devices/rbd/{number}/block/rbd{number}")
    machine.link("rbd/volumes/volume-" + ONE, "rbd0")
    machine.partition("rbd0", "rbd0p1")
    assert machine.read()["devices"] == [
        row("rbd0", "rbd", "8:1", places=["volumes/volume-" + ONE], volume=ONE,
            links=["/dev/rbd/volumes/volume-" + ONE, "/dev/rbd0"]),
        row("rbd0p1", "partition", "8:4", slaves=["rbd0"]),
        row("rbd1", "rbd", "8:2", places=["volumes/ns/volume-" + TWO], volume=TWO),
        row("rbd2", "rbd", "8:3", places=[f"volumes/volume-{ONE}@s"], volume=ONE),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# What is not there, what cannot be read, and nonsense.


def test_a_host_without_any(machine: Machine) -> None:
    machine.block("devices/pci0000:00/0000:00:02.0/virtio1/block/vda")
    machine.dev.rename(machine.dev.with_name("elsewhere"))
    assert machine.read() == {"sessions": [], "controllers": [], "devices": []}


def test_no_sysfs_is_no_absence(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    for name in ("sys", "none"):
        with pytest.raises(probe.Unread, match=f"{name}/class/block is not there: is sysfs mounted at "):
            probe.read_storage({"sys": str(tmp_path / name)})


def test_no_dev_is_no_absence(machine: Machine) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    machine.dev.rename(machine.dev.with_name("elsewhere"))
    with pytest.raises(FileNotFoundError):
        machine.read()
    machine.dev.mkdir()
    with pytest.raises(probe.Unread, match=r"has none of the devices that .* shows, such as sda"):
        machine.read()


AS_NOBODY = """
import json, os, sys
from cloudfsck.sources import probe
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    probe.read_storage({"sys": sys.argv[1]})
except Exception as error:
    print(probe.reason(error))
"""


@pytest.mark.parametrize("path", ["class/iscsi_session", "class/iscsi_session/session1/state", "class/block/sda/size"])
def test_what_may_not_be_read_fails_the_part(path: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        machine = Machine(Path(name))
        machine.session(1, IQN + ONE)
        machine.disk("sda", 1)
        (machine.sys / path).chmod(0)
        argv = [sys.executable, "-c", AS_NOBODY, str(machine.sys)]
        root = Path(probe.__file__).parents[2]
        said = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=root).stdout
        assert said.strip() == f"{os.path.realpath(machine.sys / path)}: Permission denied" or (
            said.strip() == f"{machine.sys / path}: Permission denied"
        )


def test_an_error_of_the_disk_is_said_and_a_missing_value_is_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    number = 22

    def broken(path: str, mode: str) -> Any:
        if path.endswith("/wwid"):
            raise OSError(number, os.strerror(number))
        return open(path, mode)

    monkeypatch.setattr(probe, "open", broken, raising=False)
    assert machine.devices()["sda"]["wwid"] is None
    number = 5
    with pytest.raises(OSError, match="Input/output error") as error:
        machine.read()
    assert probe.reason(error.value).endswith("1:0:0:1/wwid: Input/output error")


def test_what_vanishes_meanwhile_is_not_there(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    machine.disk("sdb", 1, 2)
    request = {"sys": str(machine.sys), "dev": str(machine.dev)}
    seen = probe.read_storage(request)
    assert [one["name"] for one in seen["devices"]] == ["sda", "sdb"]
    here = (machine.sys / "class/block/sdb").resolve()
    here.rename(here.with_name("gone"))
    # The same name, and another device.
    machine.put(str(here.relative_to(machine.sys)), dev="8:2")
    found = probe.used(seen, request, str(machine.proc), {}, list)
    assert [one["name"] for one in found["devices"]] == ["sda"]
    # A directory that is listed and then gone.
    (machine.sys / "class/block/sdc").symlink_to("nowhere")
    (machine.sys / "class/iscsi_session/session9").symlink_to("nowhere")
    assert [one["session"] for one in machine.read()["sessions"]] == ["session1"]


@pytest.mark.parametrize("junk", [b"", b"\0", b"\xff\xfe\n", b"9" * 400, b"-1\n", b"(null)\n", b"a\nb c", b"../../x\n"])
def test_garbage_in_every_file(machine: Machine, junk: bytes) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    machine.partition("sda", "sda1")
    machine.mapped("dm-0", "m", "mpath-m", ["sda"])
    machine.put("devices/virtual/nvme-fabrics/ctl/nvme1", transport="tcp", subsysnqn=NQN, state="live", address="x")
    machine.classed("nvme", machine.sys / "devices/virtual/nvme-fabrics/ctl/nvme1")
    machine.block("devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1", uuid=ONE, nsid=1)
    machine.put("bus/rbd/devices/0", pool="p", name="i")
    machine.block("devices/rbd/0/block/rbd0")
    machine.process(1, "x", ["/dev/sda"], "1 0 8:1 / / rw - ext4 /dev/sda rw\n")
    (machine.proc / "swaps").write_text("")
    files = [path for top in (machine.sys, machine.proc) for path in top.rglob("*")
             if path.is_file() and not path.is_symlink()]  # fmt: skip
    assert len(files) > 30
    for file in files:
        good = file.read_bytes()
        file.write_bytes(junk)
        given = {"sys": str(machine.sys), "dev": str(machine.dev), "proc": str(machine.proc), "virsh": ["/none/virsh"]}
        answer = json.loads(json.dumps(probe.probe({"version": 1, "nonce": "n", **given})))
        assert "storage" not in answer["failed"], file
        names = {one["name"] for one in answer["storage"]["devices"]}
        # Only one without any number is not there: it may be a hidden one.
        assert len(names) >= 5 - (file.name == "dev") - 5 * (junk in (b"", b"\0", b"(null)\n"))
        for piece in hypervisors._pieces("h", answer, service.now(), None):
            assert (piece.rows is None) == (hypervisors.PARTS[piece.table] in answer["failed"]), piece
        file.write_bytes(good)


def test_this_machine(tmp_path: Path) -> None:
    request = {"version": 1, "nonce": "n", "virsh": ["/none/virsh"], "proc": str(tmp_path)}
    answer = probe.probe(request)
    assert set(answer["storage"]) == {"sessions", "controllers", "devices"}
    # A disk of this machine itself came over no network.
    local = {os.path.basename(path) for path in os.listdir("/sys/class/block")}
    assert {row["name"] for row in answer["storage"]["devices"]} <= local - {"vda", "loop0"}


# ---------------------------------------------------------------------------------------------------------------------
# In the answer, and in the snapshot.


def test_guests_are_of_all_domains_whatever_the_scope(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    other = guest("/dev/sda", uuid=TWO)
    request = {"version": 1, "nonce": "n", "sys": str(machine.sys), "dev": str(machine.dev), "proc": str(machine.proc)}
    asked: list[object] = []

    def domains(given: object, scope: list[str] | None) -> list[dict[str, Any]]:
        asked.append(scope)
        return [] if scope else [other]

    monkeypatch.setattr(probe, "domains_among", domains)
    scoped = probe.probe({**request, "servers": [SERVER]})
    assert (scoped["domains"], asked) == ([], [[SERVER], None])
    assert scoped["storage"]["devices"][0]["guests"] == [TWO]

    def broken(given: object, scope: object) -> list[dict[str, Any]]:
        raise probe.Unread("no")

    monkeypatch.setattr(probe, "domains_among", broken)
    for servers in (None, [SERVER]):
        assert probe.probe({**request, "servers": servers})["storage"]["devices"][0]["guests"] is None
    # Where there are no such devices, nobody is asked once more.
    monkeypatch.setattr(probe, "domains_among", domains)
    (machine.sys / "class/block/sda").unlink()
    asked.clear()
    assert probe.probe({**request, "servers": [SERVER]})["storage"]["devices"] == []
    assert asked == [[SERVER]]


def pieces(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    def ask(asked: Any, *_: object) -> Any:
        for target, request in asked:
            assert request["sys"] == "/sys"
            yield target.host, answer

    monkeypatch.setattr(remote, "ask", ask)
    target = remote.Target("c1", "c1", 22, "local", sys.executable)
    (found,) = hypervisors.read([(target, {"sys": "/sys"})], None, Scope())
    return {piece.table: piece for piece in found}


def test_the_pieces_of_a_host(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    request = {"version": 1, "nonce": "n", "virsh": ["/none/virsh"], "proc": str(machine.proc), "dev": str(machine.dev)}
    answer = json.loads(json.dumps(probe.probe({**request, "sys": str(machine.sys)})))
    found = pieces(answer, monkeypatch)
    names = [table for table, part in hypervisors.PARTS.items() if part == "storage"]
    assert names == ["iscsi_sessions", "nvme_controllers", "block_devices"]
    for name in names:
        assert ["host", *found[name].rows.schema.names] == [one.name for one in tables.BY_NAME[name].columns]
    assert found["iscsi_sessions"].rows.to_pylist() == answer["storage"]["sessions"]
    (device,) = found["block_devices"].rows.to_pylist()
    assert device == answer["storage"]["devices"][0]
    assert (device["name"], device["guests"], device["bytes"]) == ("sda", None, 2**26)
    assert found["nvme_controllers"].rows.num_rows == 0
    # What failed is a gap of each of its tables, with the reason.
    failed = json.loads(json.dumps(probe.probe({**request, "sys": str(machine.proc)})))
    found = pieces(failed, monkeypatch)
    assert {found[name].why for name in names} == {
        f"{machine.proc}/class/block is not there: is sysfs mounted at {machine.proc}?"
    }
    assert all(found[name].rows is None for name in names)
    # Nobody knows who holds what: then neither what is held by nobody.
    blind = probe.probe({**request, "sys": str(machine.sys), "proc": str(machine.proc / "none")})
    assert blind["failed"]["storage"].startswith("which files are open is not known: ")
    assert "storage" not in blind


def test_no_user_name_or_password_is_read(machine: Machine) -> None:
    machine.session(1, IQN + ONE)
    machine.disk("sda", 1)
    here = machine.sys / "class/iscsi_session/session1"
    for name in ("username", "password", "username_in", "password_in"):
        (here / name).write_text("hunter2\n")
    assert "hunter2" not in json.dumps(machine.read())


def test_many_devices(machine: Machine) -> None:
    for number in range(1, 251):
        for leg in (0, 500):
            machine.session(number + leg, IQN + f"{number:08d}-aaaa-4aaa-8aaa-000000000001", f"10.0.0.{leg % 3}")
            machine.disk(f"sd{number + leg}", number + leg)
        machine.mapped(f"dm-{number}", f"m{number}", f"mpath-{number}", [f"sd{number}", f"sd{number + 500}"])
        held = [f"/dev/dm-{number}", *(f"/var/lib/x{each}" for each in range(20))]
        machine.process(1000 + number, "/usr/bin/qemu", held, "1 0 0:1 / / rw - ext4 x rw\n", f"mnt:[{number}]")
    found = machine.devices([guest(f"/dev/mapper/m{number}", uuid=str(number)) for number in range(1, 251)])
    assert len(found) == 750
    for number in range(1, 251):
        one = found[f"dm-{number}"]
        assert (one["guests"], one["held_by"]) == ([str(number)], [f"{1000 + number} qemu"])
        assert [found[name]["holders"] for name in one["slaves"]] == [[f"dm-{number}"]] * 2


# -- file systems of other machines


SHARE = "10.0.0.5:/vols"
MNT = "/var/lib/nova/mnt/0a1b"
NFS = f"31 22 0:44 / {MNT} rw,relatime shared:1 - nfs4 {SHARE} rw,vers=4.2\n"
LOCAL = "22 1 8:1 / / rw - ext4 /dev/vda1 rw\n32 22 8:2 / /srv rw - xfs /dev/vdb rw\n"


def mounted(machine: Machine, domains: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    proc = str(machine.proc)
    return probe.read_mounts(proc, probe.held_paths(proc), lambda: domains)


def test_a_share_is_told_with_the_processes_and_guests_that_have_a_file_in_it(machine: Machine) -> None:
    machine.process(1, "/sbin/init", ["/srv/x"], LOCAL + NFS)
    machine.process(70, "/usr/bin/qemu-system-x86_64", [f"{MNT}/volume-{ONE}", f"{MNT}x/no"], LOCAL + NFS)
    other = guest("/srv/disk", f"{MNT}x/disk", uuid=TWO)
    above = {"uuid": THREE, "disks": [{"source": None, "backing": [f"{MNT}/base"]}]}
    found = mounted(machine, [guest(f"{MNT}/volume-{ONE}"), other, above])
    assert found == [
        {"point": MNT, "source": SHARE, "fstype": "nfs4", "held_by": ["70 qemu-system-x86_64"],
         "guests": [THREE, SERVER]},
    ]  # fmt: skip


def test_a_share_in_another_mount_namespace_is_told_too_and_held_there_alone(machine: Machine) -> None:
    machine.process(1, "/sbin/init", [f"{MNT}/x"], LOCAL)
    machine.process(80, "/usr/bin/nova-compute", [MNT], LOCAL + NFS, space="mnt:[2]")
    assert mounted(machine) == [
        {"point": MNT, "source": SHARE, "fstype": "nfs4", "held_by": ["80 nova-compute"], "guests": None}
    ]


def test_without_one_nobody_asks_which_domains_there_are(machine: Machine) -> None:
    machine.process(1, "/sbin/init", [], LOCAL)

    def never() -> None:
        raise AssertionError

    assert probe.read_mounts(str(machine.proc), probe.held_paths(str(machine.proc)), never) == []
