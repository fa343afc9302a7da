"""The acting program on what is left of a volume's connection: the order of its steps, every reason to leave all as it
is, and that nothing goes that somebody else has."""

import fcntl
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cloudfsck.acts import device, hand
from cloudfsck.model import Moved
from cloudfsck.scenario import build
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import probe
from tests import hand_storage
from tests.test_hand import OTHER, SERVER, Bed

VOLUME = "0b1c2d3e-1111-4222-8333-444455556666"
TARGET = "iqn.2010-10.org.openstack:volume-" + VOLUME
WWID = "naa.60000000000000000e00000000010001"
MAP = "360000000000000000e00000000010001"
PORTALS = {1: "10.0.0.1:3260", 2: "10.0.0.2:3260"}
FLUSH = "blockdev --flushbufs /dev/dm-3"
ALL = [
    FLUSH,
    "multipath -f " + MAP,
    "tee sda",
    "tee sdb",
    "iscsiadm -m session -r 1 -u",
    f"iscsiadm -m node -T {TARGET} -p {PORTALS[1]} -o delete",
    "iscsiadm -m session -r 2 -u",
    f"iscsiadm -m node -T {TARGET} -p {PORTALS[2]} -o delete",
]


class Storage(Bed):
    """A hypervisor in a folder, with volumes connected to it."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(top, monkeypatch)
        self.sys = top / "sys"
        self.dev = top / "dev"
        self.lock = top / "lock" / "os-brick-connect_volume"
        self.conf = top / "nova.conf"
        self.calls = top / "calls"
        self.claimed: set[str] = set()
        self.wrong: dict[str, Any] = {}
        self.numbers = 0
        for folder in (self.sys / "block", self.dev, self.lock.parent):
            folder.mkdir(parents=True)
        self.lock.write_text("")
        self.calls.write_text("")
        self.conf.write_text(f"[oslo_concurrency]\nlock_path = {self.lock.parent}\n")
        bin_ = top / "bin"
        for name in ("multipath", "multipathd", "iscsiadm", "blockdev", "dmsetup", "tee", "nsenter"):
            shutil.copy(hand_storage.__file__, bin_ / name)
            text = (bin_ / name).read_text()
            (bin_ / name).write_text(f"#!{sys.executable} -ISs\n{text}")
            (bin_ / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
        # Special files take a root: here a plain file has the number of the device in it.
        monkeypatch.setattr(hand, "block_number", self.block_number)
        monkeypatch.setattr(hand, "character_number", self.block_number)
        monkeypatch.setattr(hand, "is_claimed", lambda path: os.path.basename(path) in self.claimed)
        for name in ("SETTLE_SECONDS", "BRICK_SECONDS", "VANISH_SECONDS"):
            monkeypatch.setattr(hand, name, 0.3)
        self.process(50, "/usr/bin/python3", "/usr/bin/nova-compute", "--config-file", str(self.conf))
        self.process(51, "/sbin/multipathd", "-d")
        (self.proc / "51" / "comm").write_text("multipathd\n")

    def block_number(self, path: str) -> str | None:
        real = os.path.realpath(path)
        if not real.startswith(str(self.dev) + "/") or not os.path.isfile(real):
            return None
        return Path(real).read_text()

    def process(self, pid: int, *words: str, **held: str) -> None:
        super().process(pid, *words, **held)
        (self.proc / str(pid) / "environ").write_bytes(b"LANG=C\0")
        (self.proc / str(pid) / "comm").write_text(os.path.basename(words[0]) + "\n")

    def opened(self, name: str, pid: int = 60, number: int = 9) -> None:
        """A process has a device open."""
        if not (self.proc / str(pid)).exists():
            self.process(pid, "/usr/bin/qemu-system-x86_64")
        (self.proc / str(pid) / "fd" / str(number)).symlink_to(self.dev / name)

    def mounted(self, line: str) -> None:
        """A mount in the mount namespace of some process."""
        self.process(61, "/bin/sleep")
        (self.proc / "61" / "ns").mkdir()
        (self.proc / "61" / "ns" / "mnt").symlink_to("mnt:[4026539999]")
        (self.proc / "61" / "mountinfo").write_text(line + "\n")

    def node(self, name: str) -> str:
        self.numbers += 16
        number = f"8:{self.numbers}"
        (self.dev / name).write_text(number)
        return number

    def files(self, folder: Path, **texts: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text + "\n")

    def session(self, number: int, target: str = TARGET, state: str = "LOGGED_IN") -> Path:
        there = self.sys / "devices" / "platform" / f"host{number}" / f"session{number}"
        there.mkdir(parents=True)
        folder = self.sys / "class" / "iscsi_session" / f"session{number}"
        self.files(folder, targetname=target, state=state)
        (folder / "device").symlink_to(there)
        host, port = PORTALS.get(number, "10.0.0.1:3260").split(":")
        line = self.sys / "class" / "iscsi_connection" / f"connection{number}:0"
        self.files(line, persistent_address=host, persistent_port=port, state="up")
        # As tgt and many arrays have it: a controller, which is nobody's volume.
        self.files(there / f"target{number}:0:0" / f"{number}:0:0:0", type="12", state="running")
        return there

    def disk(self, name: str, session: int, lun: int = 1, state: str = "running", wwid: str = WWID) -> Path:
        number = f"{session}:0:0:{lun}"
        there = self.sys / "devices" / "platform" / f"host{session}" / f"session{session}"
        device_ = there / f"target{session}:0:0" / number
        self.files(device_, state=state, wwid=wwid, type="0", delete="")
        block = device_ / "block" / name
        self.files(block, dev=self.node(name), size="131072")
        (block / "holders").mkdir()
        (block / "device").symlink_to(device_)
        (self.sys / "block" / name).symlink_to(block)
        return block

    def map(self, name: str, slaves: list[str], uuid: str, alias: str) -> Path:
        block = self.sys / "devices" / "virtual" / "block" / name
        self.files(block, dev=self.node(name), size="131072")
        self.files(block / "dm", uuid=uuid, name=alias, suspended="0")
        (block / "holders").mkdir()
        (block / "slaves").mkdir()
        (self.sys / "block" / name).symlink_to(block)
        for slave in slaves:
            below = (self.sys / "block" / slave).resolve()
            (block / "slaves" / slave).symlink_to(below)
            (below / "holders" / name).symlink_to(block)
        return block

    def volume(self) -> None:
        """A volume over two portals, as a multipath map."""
        for number, name in ((1, "sda"), (2, "sdb")):
            self.session(number)
            self.disk(name, number)
            self.opened(name, 51, number)
        self.map("dm-3", ["sda", "sdb"], "mpath-" + MAP, MAP)

    def number(self, name: str) -> str:
        node = self.dev / name
        return node.read_text() if node.exists() else "0:0"

    def way(self, name: str, number: int, **given: Any) -> device.Path:
        return device.Path(**{
            "name": name, "number": self.number(name), "wwid": WWID, "session": f"session{number}",
            "places": (f"{TARGET}/1",), **given,
        })  # fmt: skip

    def act(self, **given: Any) -> device.Remove:
        """The act as a check makes it."""
        return device.Remove(**{
            "host": "c1", "server": SERVER, "volume": VOLUME,
            "device": "dm-3", "number": self.number("dm-3"), "wwid": "mpath-" + MAP,
            "places": (f"{TARGET}/1",), "paths": (self.way("sda", 1), self.way("sdb", 2)),
            "sessions": tuple(device.Session(f"session{n}", TARGET, PORTALS[n]) for n in (1, 2)), **given,
        })  # fmt: skip

    def one(self, **given: Any) -> device.Remove:
        """The same of one disk without a map."""
        path = self.way("sda", 1)
        sessions = (device.Session("session1", TARGET, PORTALS[1]),)
        return self.act(**{
            "device": "sda", "number": path.number, "wwid": WWID, "paths": (path,), "sessions": sessions, **given,
        })  # fmt: skip

    def send(self, order: Any) -> dict[str, Any]:
        """Have it done; and no call of a program is a shell's."""
        state = {"sys": str(self.sys), "log": str(self.calls), "lock": str(self.lock), "wrong": self.wrong}
        (self.top / "bin" / "storage.json").write_text(json.dumps(state))
        request = {**self.request("device.remove"), "sys": str(self.sys), "dev": str(self.dev)}
        request["act"] = json.loads(json.dumps(order))
        return hand.answer(request)

    def remove(self, **given: Any) -> dict[str, Any]:  # type: ignore[override]
        return self.send(self.act(**given).order)

    @property
    def called(self) -> list[str]:
        lines = []
        for line in self.calls.read_text().splitlines():
            # The disk is told by its SCSI address; the tests have one to each session.
            words = line.split()
            if words[0] == "tee":
                words[1] = {"1:0:0:1": "sda", "2:0:0:1": "sdb"}[Path(words[1]).parent.name]
            lines.append(" ".join(words))
        return lines

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in (self.sys / "block").iterdir())


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    return Storage(tmp_path, monkeypatch)


@pytest.fixture
def there(bed: Storage) -> Storage:
    bed.volume()
    return bed


def kept(bed: Storage, told: dict[str, Any], outcome: str) -> None:
    """Nothing was done at all."""
    assert (told["outcome"], told.get("changed")) == (outcome, False if outcome == "failed" else None), told
    assert bed.called == []
    assert {"dm-3", "sda", "sdb"} <= set(bed.left)


# ---------------------------------------------------------------------------------------------------------------------
# What it does.


@pytest.mark.parametrize(
    "name",
    ["told", "content", "names_in", "address_of", "scsi_wwid", "lun_places", "kernel_holds"],
)
def test_both_programs_read_storage_by_the_same_recipes(name: str) -> None:
    assert inspect.getsource(getattr(hand, name)) == inspect.getsource(getattr(probe, name))


def test_both_programs_have_the_same_words_of_storage() -> None:
    assert (hand.ABSENT, hand.KERNEL, hand.VOLUME.pattern) == (probe.ABSENT, probe.KERNEL, probe.STORED.pattern)


def test_a_map_goes_with_its_paths_and_sessions(there: Storage) -> None:
    told = there.remove()
    assert told["outcome"] == "done", told
    assert there.called == ALL
    assert there.left == []
    assert told["saw"]["removed"] == ["dm-3", "sda", "sdb"]
    assert told["saw"]["sessions"] == {"session1": "logged out", "session2": "logged out"}
    assert len(told["saw"]["steps"]) == len(ALL)
    assert there.remove()["outcome"] == "moved"


def test_a_disk_without_a_map_goes(bed: Storage) -> None:
    bed.session(1)
    bed.disk("sda", 1)
    told = bed.send(bed.one().order)
    assert told["outcome"] == "done", told
    assert bed.called == [FLUSH.replace("dm-3", "sda"), ALL[2], *ALL[4:6]]


def test_what_is_no_servers_goes_as_well(there: Storage) -> None:
    assert there.remove(server="")["outcome"] == "done"


def test_a_session_with_another_volume_is_not_logged_out_of(there: Storage) -> None:
    there.disk("sdc", 1, lun=2, wwid="naa.60000000000000000e00000000020001")
    told = there.remove()
    assert told["outcome"] == "done", told
    assert told["saw"]["sessions"] == {"session1": "kept: sdc is in it", "session2": "logged out"}
    assert there.left == ["sdc"]
    assert [line for line in there.called if "iscsiadm" in line] == ALL[6:]


def test_a_disk_that_was_just_found_keeps_its_session(there: Storage) -> None:
    """The kernel knows the LUN, but has not named it yet."""
    there.files(there.sys / "devices/platform/host1/session1/target1:0:0/1:0:0:7", type="0")
    assert there.remove()["saw"]["sessions"]["session1"] == "kept: 1:0:0:7 is in it"


def test_a_session_that_is_another_by_now_is_not_logged_out_of(there: Storage) -> None:
    act = there.act(sessions=[device.Session("session2", TARGET, PORTALS[1])])
    told = there.send(act.order)
    assert told["saw"]["sessions"] == {"session2": "gone"}
    assert there.called == ALL[:4]


def test_a_node_record_that_is_missing_is_fine(there: Storage) -> None:
    there.wrong = {"iscsiadm -m node": {"status": 21, "says": "iscsiadm: No records found"}}
    assert there.remove()["outcome"] == "done"
    assert there.called == ALL


def test_a_node_record_stays_while_another_session_needs_it(there: Storage) -> None:
    there.session(3)
    told = there.remove()
    assert told["saw"]["sessions"]["session1"] == "logged out; the node record is that of session3, too"
    assert not any(PORTALS[1] in line for line in there.called)


def test_partitions_of_a_guest_that_kpartx_mapped_go_with_the_map(there: Storage) -> None:
    there.map("dm-4", ["dm-3"], "part1-mpath-" + MAP, MAP + "-part1")
    # The map is claimed by its partition.
    there.claimed = {"dm-3"}
    assert there.remove()["outcome"] == "done"
    assert there.left == []


def test_a_map_without_a_path_waits_for_none(there: Storage) -> None:
    for session, name in ((1, "sda"), (2, "sdb")):
        shutil.rmtree((there.sys / "block" / name).resolve().parents[1])
        (there.sys / "block" / name).unlink()
        assert not list((there.sys / "devices" / "platform" / f"host{session}").glob("*/*/*/block"))
    # The links below a map outlive the disks (and would lead to whatever gets the name).
    told = there.remove(paths=[], places=[])
    assert told["outcome"] == "done", told
    assert there.called == ["multipathd disablequeueing map " + MAP, ALL[1], *ALL[4:]]


@pytest.mark.parametrize("state", ["transport-offline", "offline"])
def test_what_is_dead_is_not_flushed(bed: Storage, state: str) -> None:
    for number, name in ((1, "sda"), (2, "sdb")):
        bed.session(number, state="FREE")
        bed.disk(name, number, state=state)
    bed.map("dm-3", ["sda", "sdb"], "mpath-" + MAP, MAP)
    bed.wrong = {"multipathd": {"status": 1, "says": "fail"}}
    told = bed.remove()
    assert told["outcome"] == "done", told
    queueing = ["multipathd disablequeueing map " + MAP, f"dmsetup message {MAP} 0 fail_if_no_path"]
    assert bed.called == queueing + ALL[1:]
    assert told["saw"]["steps"][0] == "dm-3 is not flushed: no path gets through"


def test_a_node_record_that_stays_is_told(there: Storage) -> None:
    there.wrong = {"iscsiadm -m node": {"status": 6, "says": "iscsiadm: Could not execute operation"}}
    told = there.remove()
    assert (told["outcome"], told["changed"]) == ("failed", True)
    assert "Could not execute operation" in told["why"]


def test_one_dead_path_of_two_hinders_nothing(bed: Storage) -> None:
    bed.session(1)
    bed.disk("sda", 1)
    bed.session(2, state="FREE")
    bed.disk("sdb", 2, state="transport-offline")
    bed.map("dm-3", ["sda", "sdb"], "mpath-" + MAP, MAP)
    assert bed.remove()["outcome"] == "done"
    assert bed.called == ALL


def test_a_lun_of_fibre_channel(bed: Storage) -> None:
    port = bed.sys / "class" / "fc_remote_ports" / "rport-5:0-2"
    bed.files(port, port_name="0x5006016B3DE0", port_state="Online")
    there = bed.sys / "devices/pci0/host5/rport-5:0-2/target5:0:2/5:0:2:16640"
    bed.files(there, state="running", wwid=WWID, delete="")
    bed.files(there / "block" / "sda", dev=bed.node("sda"))
    (there / "block" / "sda" / "device").symlink_to(there)
    (bed.sys / "block" / "sda").symlink_to(there / "block" / "sda")
    places = ("5006016b3de0/16640", "5006016b3de0/256")
    path = device.Path("sda", bed.number("sda"), WWID, "rport-5:0-2", places)
    far = "/dev/disk/by-path/pci-0000:05:00.0-fc-0x5006016b3de0-lun-0x0100000000000000"
    bed.define(OTHER, disk=far)
    act = bed.one(number=path.number, paths=[path], places=places, sessions=[])
    assert bed.send(act.order)["why"] == f"domain {OTHER} uses {far}"
    bed.remember(domains={})
    told = bed.send(act.order)
    assert told["outcome"] == "done", told
    assert not there.exists()


# ---------------------------------------------------------------------------------------------------------------------
# The device is not the one that was seen.

MOVES: dict[str, Callable[[Storage], object]] = {
    "another number": lambda bed: (bed.sys / "block/dm-3/dev").write_text("254:9"),
    "another volume": lambda bed: (bed.sys / "block/dm-3/dm/uuid").write_text("mpath-36000beef"),
    "a path more": lambda bed: another_path(bed),
    "a path less": lambda bed: (bed.sys / "block/dm-3/slaves/sdb").unlink(),
    "a path replaced": lambda bed: (bed.sys / "block/sdb/device/wwid").write_text("naa.6000beef"),
    "another number of a path": lambda bed: (bed.sys / "block/sdb/dev").write_text("8:99"),
    "another target": lambda bed: (bed.sys / "class/iscsi_session/session2/targetname").write_text("iqn.2010-10.x:y"),
    "a session gone": lambda bed: (bed.sys / "class/iscsi_session/session2/targetname").unlink(),
    "gone": lambda bed: (bed.sys / "block/dm-3").unlink(),
}


def another_path(bed: Storage) -> None:
    bed.session(3)
    (bed.sys / "block/dm-3/slaves/sdc").symlink_to(bed.disk("sdc", 3))


@pytest.mark.parametrize("move", MOVES)
def test_what_is_not_as_seen_is_left_alone(there: Storage, move: str) -> None:
    act = there.act()
    MOVES[move](there)
    told = there.send(act.order)
    assert told["outcome"] == "moved", told
    assert there.called == []


@pytest.mark.parametrize("seen", [{"session": "session2"}, {"places": (f"{TARGET}/2",)}, {"wwid": None}])
def test_a_path_by_another_way_is_left_alone(there: Storage, seen: dict[str, Any]) -> None:
    told = there.remove(paths=[there.way("sda", 1, **seen), there.way("sdb", 2)])
    kept(there, told, "moved")


# ---------------------------------------------------------------------------------------------------------------------
# Somebody uses it.


def held_by_lvm(bed: Storage) -> None:
    bed.map("dm-5", ["dm-3"], "LVM-abc", "guest-root")


def partition(bed: Storage, holder: str = "") -> str:
    folder = bed.sys / "block" / "sda" / "sda1"
    bed.files(folder, dev=bed.node("sda1"), partition="1")
    (folder / "holders").mkdir()
    if holder:
        (folder / "holders" / holder).mkdir()
    return (bed.dev / "sda1").read_text()


def open_partition(bed: Storage) -> None:
    partition(bed)
    bed.opened("sda1")


def another_holder_of_a_path(bed: Storage) -> None:
    ((bed.sys / "block/sdb").resolve() / "holders" / "md0").mkdir()


def kpartx_in_use(bed: Storage) -> None:
    bed.map("dm-4", ["dm-3"], "part1-mpath-" + MAP, MAP + "-part1")
    bed.map("dm-6", ["dm-4"], "CRYPT-LUKS2-abc", "secret")


def by_link(bed: Storage, text: str) -> str:
    place = bed.dev / text
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(bed.dev / "dm-3")
    return "/dev/" + text


def mount(bed: Storage, number: str, source: str = "/dev/x") -> None:
    bed.mounted(f"36 35 {number} / /mnt rw - ext4 {source} rw")


def swap(bed: Storage) -> None:
    (bed.proc / "swaps").write_text("Filename Type Size Used Priority\n/dev/dm-3 partition 1 0 -2\n")


def kernel(bed: Storage, path: str, text: str) -> None:
    place = bed.sys / path
    place.parent.mkdir(parents=True)
    place.write_text(text + "\n")


USES: dict[str, tuple[Callable[[Storage], object], str]] = {
    "lvm": (held_by_lvm, "dm-5 stands on dm-3"),
    "md on a path": (another_holder_of_a_path, "md0 stands on sdb"),
    "a partition's holder": (lambda bed: partition(bed, "dm-9"), "dm-9 stands on sda1"),
    "a mapped partition's holder": (kpartx_in_use, "dm-6 stands on dm-4"),
    "mounted": (lambda bed: mount(bed, bed.number("dm-3")), "is mounted at /mnt"),
    "a mounted partition": (lambda bed: mount(bed, partition(bed)), "is mounted at /mnt"),
    "a mounted path": (lambda bed: mount(bed, bed.number("sdb")), "is mounted at /mnt"),
    "mounted by name": (lambda bed: mount(bed, "0:44", "/dev/dm-3"), "is mounted at /mnt"),
    "swap": (swap, "the host swaps to /dev/dm-3"),
    "a loop device": (lambda bed: kernel(bed, "block/loop0/loop/backing_file", "/dev/dm-3"), "has dm-3 in use"),
    "an export": (
        lambda bed: kernel(bed, "kernel/config/target/core/iblock_0/x/udev_path", "/dev/dm-3"),
        "has dm-3 in use: lio",
    ),
    "claimed": (lambda bed: bed.claimed.add("dm-3"), "dm-3 is in use"),
    "another node": (lambda bed: (bed.dev / "dm-3").write_text("254:9"), "is not the device"),
    "no node": (lambda bed: (bed.dev / "dm-3").unlink(), "is not the device"),
    "open": (lambda bed: bed.opened("dm-3"), "process 60 (qemu-system-x86_64) has dm-3 open"),
    "an open path": (lambda bed: bed.opened("sdb"), "has sdb open"),
    "an open partition": (lambda bed: open_partition(bed), "has sda1 open"),
    "a map that multipathd has open": (lambda bed: bed.opened("dm-3", 51), "process 51 (multipathd) has dm-3 open"),
    "mapped": (lambda bed: bed.process(62, "/bin/dd", map="/dev/dm-3"), "process 62 (dd) has dm-3 open"),
    "suspended": (lambda bed: (bed.sys / "block/dm-3/dm/suspended").write_text("1"), "is suspended"),
    "a path in recovery": (lambda bed: (bed.sys / "block/sda/device/state").write_text("blocked"), "sda is blocked"),
    "a session in recovery": (
        lambda bed: (bed.sys / "class/iscsi_session/session1/state").write_text("FAILED"),
        "session1 is not up",
    ),
    "a map that is none": (lambda bed: (bed.sys / "block/dm-3/dm/name").write_text("-x"), "none that goes"),
    "a missing program": (
        lambda bed: bed.patch.setattr(hand.Brick, "search", staticmethod(lambda: "/nowhere")),
        "multipath is not installed",
    ),
}


@pytest.mark.parametrize("use", USES)
def test_what_somebody_uses_is_left_alone(there: Storage, use: str) -> None:
    act = there.act()
    change, why = USES[use]
    change(there)
    told = there.send(act.order)
    kept(there, told, "refused")
    assert why in told["why"]


NAMES: dict[str, Callable[[Storage], str]] = {
    "the map": lambda bed: "/dev/dm-3",
    "a path": lambda bed: "/dev/sdb",
    "a link": lambda bed: by_link(bed, "mapper/mpatha"),
    "os-brick's link": lambda bed: "/dev/disk/by-id/os-brick+dev+dm-3",
    "a name of udev": lambda bed: f"/dev/disk/by-path/ip-10.9.9.9:3260-iscsi-{TARGET}-lun-1",
    "a name of udev, of a partition": lambda bed: f"/dev/disk/by-path/ip-10.9.9.9:3260-iscsi-{TARGET}-lun-1-part2",
    "an adapter's": lambda bed: f"/dev/disk/by-path/pci-0000:05:00.0-ip-10.9.9.9:3260-iscsi-{TARGET}-lun-1",
    "cryptsetup's": lambda bed: f"/dev/mapper/crypt-ip-10.9.9.9:3260-iscsi-{TARGET}-lun-1",
    "the WWID": lambda bed: f"/dev/disk/by-id/dm-uuid-mpath-{MAP}",
    "QEMU's own initiator": lambda bed: f"{TARGET}/1",
    "the volume": lambda bed: VOLUME,
    "the alias": lambda bed: f"ua-{VOLUME}",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept_only", [False, True])
def test_what_a_domain_names_is_left_alone(there: Storage, name: str, kept_only: bool) -> None:
    text = NAMES[name](there)
    if kept_only:
        there.define(OTHER, disk=text)
    else:
        there.define(OTHER, disk=text, id=4, state="running")
    told = there.remove()
    kept(there, told, "refused")
    assert told["why"] == f"domain {OTHER} uses {text}"


@pytest.mark.parametrize(
    "text",
    [
        f"/dev/disk/by-path/ip-10.9.9.9:3260-iscsi-{TARGET}-lun-11",
        f"/dev/disk/by-path/ip-10.9.9.9:3260-iscsi-{TARGET}0-lun-1",
        "/dev/sdz",
    ],
)
def test_what_a_domain_has_of_another_volume_is_no_matter(there: Storage, text: str) -> None:
    there.define(OTHER, disk=text)
    assert there.remove()["outcome"] == "done"


def test_libvirt_that_does_not_answer_is_no_absence(there: Storage) -> None:
    there.remember(down=True)
    kept(there, there.remove(), "failed")


def test_a_file_that_cannot_be_read_is_no_absence(there: Storage) -> None:
    act = there.act()
    (there.sys / "block/sdb/device/state").unlink()
    (there.sys / "block/sdb/device/state").mkdir()
    kept(there, there.send(act.order), "failed")


# ---------------------------------------------------------------------------------------------------------------------
# os-brick.


def test_os_brick_at_work_is_not_disturbed(there: Storage) -> None:
    pid = os.fork()
    ready, wait = there.top / "ready", there.top / "wait"
    if pid == 0:
        with open(there.lock, "a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            ready.write_text("")
            while not wait.exists():
                pass
            os._exit(0)
    while not ready.exists():
        pass
    try:
        kept(there, told := there.remove(), "refused")
        assert "os-brick attaches or detaches a volume" in told["why"]
    finally:
        wait.write_text("")
        os.waitpid(pid, 0)
    assert there.remove()["outcome"] == "done"


BRICKS: dict[str, tuple[Callable[[Storage], object], str]] = {
    "no lock": (lambda bed: bed.lock.unlink(), "the lock of os-brick is not at"),
    "no folder": (lambda bed: bed.conf.write_text("[oslo_concurrency]\n#lock_path = /x\n"), "(lock_path)"),
    "unknown": (lambda bed: bed.conf.write_text("[oslo_concurrency]\nlock_path = $state_path/lock\n"), "is not known"),
    "none wanted": (
        lambda bed: bed.conf.write_text(bed.conf.read_text() + "disable_process_locking = True\n"),
        "disable_process_locking",
    ),
}


@pytest.mark.parametrize("brick", BRICKS)
def test_a_lock_that_cannot_be_found_is_not_guessed(there: Storage, brick: str) -> None:
    change, why = BRICKS[brick]
    change(there)
    told = there.remove()
    kept(there, told, "refused")
    assert why in told["why"]


def test_nova_compute_that_does_not_run_and_has_no_configuration(there: Storage) -> None:
    shutil.rmtree(there.proc / "50")
    there.patch.setattr(hand.Brick, "files", lambda *_: [])
    told = there.remove()
    kept(there, told, "refused")
    assert "nova-compute does not run here" in told["why"]


def test_the_lock_of_cinder_is_taken_as_well(there: Storage) -> None:
    conf = there.top / "cinder.conf"
    conf.write_text("[oslo_concurrency]\nlock_path = /nowhere\n[os_brick]\nlock_path = " + str(there.top / "cinder"))
    there.process(52, "/usr/bin/python3", "/usr/bin/cinder-volume", f"--config-file={conf}")
    # It has never attached a volume.
    asked = hand.Hand({**there.request("device.remove"), "act": json.loads(json.dumps(there.act().order))})
    brick = hand.Brick(asked)
    brick.take()
    assert len(brick.locked) == 1
    asked.close()
    (there.top / "cinder").mkdir()
    lock = there.top / "cinder" / "os-brick-connect_volume"
    lock.write_text("")
    asked = hand.Hand({**there.request("device.remove"), "act": json.loads(json.dumps(there.act().order))})
    brick = hand.Brick(asked)
    brick.take()
    assert hand_storage_locked(lock)
    assert len(brick.locked) == 2
    asked.close()


def hand_storage_locked(path: Path) -> bool:
    """Whether another process finds it locked: a lock is its process's own."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if hand_storage.locked(str(path)) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_configuration_is_read_as_oslo_does(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(
        "[DEFAULT]\nstate_path = /var/lib/nova\n[oslo_concurrency]\nlock_path=$state_path/tmp\n# lock_path=x\n"
    )
    two.write_text('[os_brick]\nlock_path: "${state_path}/brick"\n[database]\nconnection = mysql://nova:pass$word@x\n')
    options = hand.Options([str(one)], {})
    assert options.get("oslo_concurrency", "lock_path") == "/var/lib/nova/tmp"
    assert options.get("os_brick", "lock_path") is None
    options = hand.Options([str(one), str(two)], {"OS_DEFAULT__STATE_PATH": "/data"})
    assert options.get("os_brick", "lock_path") == "/data/brick"
    assert options.get("oslo_concurrency", "lock_path") == "/data/tmp"
    one.write_text("[oslo_concurrency]\nlock_path = $lock_path\n")
    with pytest.raises(hand.Refused, match="not known"):
        hand.Options([str(one)], {}).get("oslo_concurrency", "lock_path")


def test_nova_in_a_container(there: Storage) -> None:
    """Its configuration, its lock and its programs are below its own root, whatever its symlinks say."""
    root = there.top / "container"
    (root / "etc" / "nova").mkdir(parents=True)
    (root / "usr" / "sbin").mkdir(parents=True)
    (root / "run" / "lock").mkdir(parents=True)
    (root / "var").mkdir()
    (root / "var" / "lock").symlink_to("/run/lock")
    (root / "sbin").symlink_to("/usr/sbin")
    for name in ("multipath", "multipathd", "iscsiadm"):
        (root / "usr" / "sbin" / name).write_text("")
    (root / "etc" / "nova" / "nova.conf").write_text("[oslo_concurrency]\nlock_path = /var/lock\n")
    there.lock = root / "run" / "lock" / "os-brick-connect_volume"
    there.lock.write_text("")
    shutil.rmtree(there.proc / "50")
    there.process(53, "/var/lib/kolla/venv/bin/python3", "/var/lib/kolla/venv/bin/nova-compute", root=str(root))
    assert there.remove()["outcome"] == "done"
    enter = f"nsenter --mount={there.proc}/53/ns/mnt -- "
    inside = [enter + line if line.startswith(("multipath", "iscsiadm")) else line for line in ALL]
    assert there.called == inside
    (root / "usr" / "sbin" / "iscsiadm").unlink()
    there.calls.write_text("")
    again(there)
    told = there.remove()
    kept(there, told, "refused")
    assert "iscsiadm is not installed" in told["why"]


def again(bed: Storage) -> None:
    """The volume is connected anew."""
    shutil.rmtree(bed.sys)
    (bed.sys / "block").mkdir(parents=True)
    for link in (bed.proc / "51" / "fd").iterdir():
        link.unlink()
    bed.volume()


# ---------------------------------------------------------------------------------------------------------------------
# It goes wrong on the way.


def test_multipath_that_refuses_ends_it(there: Storage) -> None:
    there.wrong = {"multipath ": {"status": 1, "says": f"199.05 | {MAP}: map in use"}}
    told = there.remove()
    assert told["outcome"] == "refused", told
    assert "map in use" in told["why"]
    assert there.called == ALL[:2]
    assert there.left == ["dm-3", "sda", "sdb"]


def test_a_flush_that_fails_ends_it(there: Storage) -> None:
    there.wrong = {"blockdev": {"status": 1, "says": "ioctl error on BLKFLSBUF: Input/output error"}}
    told = there.remove()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert "Input/output error" in told["why"]
    assert there.called == ALL[:1]


def test_a_program_that_hangs_ends_it(there: Storage) -> None:
    there.patch.setattr(hand, "FLUSH_SECONDS", 0.5)
    there.wrong = {"blockdev": {"seconds": 30}}
    told = there.remove()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert "no answer within" in told["why"]
    assert there.called == ALL[:1]


def test_a_failure_in_the_midst_says_what_was_done(there: Storage) -> None:
    there.wrong = {"tee": {"status": 1, "says": "tee: Permission denied"}}
    told = there.remove()
    assert (told["outcome"], told["changed"]) == ("failed", True)
    assert there.called == ALL[:3]
    assert there.left == ["sda", "sdb"]
    assert told["saw"]["steps"][:2] == [f"{FLUSH}: done", f"multipath -f {MAP}: done"]
    assert "Permission denied" in told["why"]
    assert f"multipath -f {MAP}: done" in told["why"]


def test_whoever_comes_in_between_keeps_the_disk(there: Storage) -> None:
    there.process(63, "/usr/bin/qemu-img")
    there.wrong = {"multipath ": {"opens": [str(there.proc / "63/fd/7"), str(there.dev / "sda")]}}
    told = there.remove()
    assert (told["outcome"], told["changed"]) == ("failed", True)
    assert "process 63 (qemu-img) has sda open" in told["why"]
    assert there.called == ALL[:2]
    assert there.left == ["sda", "sdb"]


def test_whoever_comes_just_before_a_single_disk_goes_keeps_it(bed: Storage) -> None:
    bed.session(1)
    bed.disk("sda", 1)
    bed.process(63, "/usr/bin/qemu-img")
    bed.wrong = {"blockdev": {"opens": [str(bed.proc / "63/fd/7"), str(bed.dev / "sda")]}}
    told = bed.send(bed.one().order)
    assert told["outcome"] == "refused"
    assert bed.left == ["sda"]


def test_a_logout_that_fails_leaves_the_session(there: Storage) -> None:
    there.wrong = {"iscsiadm -m session": {"status": 20, "says": "iscsiadm: can not connect to iSCSI daemon"}}
    told = there.remove()
    assert (told["outcome"], told["changed"]) == ("failed", True)
    assert there.called == ALL[:5]
    assert there.left == []


# ---------------------------------------------------------------------------------------------------------------------
# A request that is none.


@pytest.mark.parametrize(
    "change",
    [
        {"device": "dm-3; reboot"},
        {"device": "../sda"},
        {"device": "nvme0n1"},
        {"device": "sda"},
        {"number": "8"},
        {"wwid": 3},
        {"server": "x"},
        {"sessions": [device.Session("session1", "iqn.2010-10.org:x -u", PORTALS[1])]},
        {"sessions": [device.Session("session1", "--help", PORTALS[1])]},
        {"sessions": [device.Session("1", TARGET, PORTALS[1])]},
        {"sessions": [device.Session("session1", TARGET, "-p")]},
        {"paths": [device.Path("sd/a", "8:16", WWID, "session1", (f"{TARGET}/1",))]},
        {"paths": [device.Path("sda", "8:16", WWID, "session1", ())]},
        {"paths": [device.Path("sda", "8:16", WWID, "session1", (f"{TARGET}/x",))]},
    ],
)
def test_a_word_that_is_none_goes_into_no_command(there: Storage, change: dict[str, Any]) -> None:
    kept(there, there.remove(**change), "failed")


def test_an_order_of_another_shape_fails(there: Storage) -> None:
    order = json.loads(json.dumps(there.act().order))
    paths: tuple[Any, ...] = (None, [3], [{}])
    for wrong in paths:
        kept(there, there.send({**order, "was": {**order["was"], "paths": wrong}}), "failed")
    others: tuple[dict[str, Any], ...] = ({"sessions": {}}, {"sessions": [3]}, {"device": None}, {"more": 1})
    for other in others:
        kept(there, there.send({**order, **other}), "failed")


# ---------------------------------------------------------------------------------------------------------------------
# A session without a device.


@pytest.fixture
def logged_in(bed: Storage) -> Storage:
    bed.session(1)
    return bed


def out(bed: Storage, **given: Any) -> dict[str, Any]:
    act = device.Logout(**{
        "host": "c1", "server": "", "volume": VOLUME,
        "session": "session1", "target": TARGET, "portal": PORTALS[1], **given,
    })  # fmt: skip
    return bed.send(act.order)


def test_a_session_without_a_device_is_logged_out_of(logged_in: Storage) -> None:
    assert out(logged_in)["outcome"] == "done"
    assert logged_in.called == ALL[4:6]
    assert out(logged_in)["outcome"] == "moved"


@pytest.mark.parametrize("given", [{"target": TARGET + "x"}, {"portal": PORTALS[2]}, {"session": "session2"}])
def test_another_session_is_left_alone(logged_in: Storage, given: dict[str, Any]) -> None:
    assert out(logged_in, **given)["outcome"] == "moved"
    assert logged_in.called == []


def test_a_session_with_a_device_is_left_alone(logged_in: Storage) -> None:
    logged_in.disk("sda", 1, lun=5)
    told = out(logged_in)
    assert (told["outcome"], told["why"]) == ("moved", "session1 has sda in it")
    assert logged_in.called == []


def test_a_session_whose_devices_cannot_be_seen_is_left_alone(logged_in: Storage) -> None:
    (logged_in.sys / "class/iscsi_session/session1/device").unlink()
    told = out(logged_in)
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert logged_in.called == []


def test_a_session_to_a_target_that_a_domain_names_is_left_alone(logged_in: Storage) -> None:
    logged_in.define(OTHER, disk=f"/dev/disk/by-path/ip-10.0.0.1:3260-iscsi-{TARGET}-lun-1")
    assert out(logged_in)["outcome"] == "refused"
    assert logged_in.called == []


def test_no_session_is_left_while_os_brick_may_be_at_it(logged_in: Storage) -> None:
    logged_in.lock.unlink()
    assert out(logged_in)["outcome"] == "refused"
    assert logged_in.called == []


def test_a_session_that_stays_is_told(logged_in: Storage) -> None:
    logged_in.wrong = {"iscsiadm": {"status": 20, "says": "iscsiadm: can not connect to iSCSI daemon"}}
    told = out(logged_in)
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert "can not connect" in told["why"]


# ---------------------------------------------------------------------------------------------------------------------
# The acts on a snapshot.

WORLD = f"""
    hosts cell1       c1 c2
    block_devices     host  name  kind       number  wwid          session   places         slaves     mounts  held_by  guests
                      c1    dm-3  multipath  254:3   mpath-{MAP}   -         [{TARGET}/1]   [sda,sdb]  []      []       []
                      c1    dm-4  partition  254:4   part1-x       -         []             [dm-3]     []      []       []
                      c1    sda   scsi       8:0     {WWID}        session1  [{TARGET}/1]   []         []      []       []
                      c1    sdb   scsi       8:16    {WWID}        session2  [{TARGET}/1]   []         []      []       []
                      c1    sdc   scsi       8:32    naa.x         session1  [{TARGET}/2]   []         []      []       []
                      c2    dm-3  multipath  254:3   mpath-{MAP}   -         [{TARGET}/1]   []         []      []       []
    iscsi_sessions    host  session   target    portal         devices
                      c1    session1  {TARGET}  {PORTALS[1]}   [sda,sdc]
                      c1    session2  {TARGET}  {PORTALS[2]}   [sdb]
                      c1    session3  {TARGET}  {PORTALS[1]}   []
"""  # noqa: E501

SEEN = device.Remove(
    "c1", SERVER, VOLUME, "dm-3", "254:3", f"mpath-{MAP}", (f"{TARGET}/1",),
    (
        device.Path("sda", "8:0", WWID, "session1", (f"{TARGET}/1",)),
        device.Path("sdb", "8:16", WWID, "session2", (f"{TARGET}/1",)),
    ),
    (device.Session("session1", TARGET, PORTALS[1]), device.Session("session2", TARGET, PORTALS[2])),
)  # fmt: skip


@pytest.fixture
def world() -> Iterator[Snapshot]:
    snapshot = build(WORLD)
    yield snapshot
    snapshot.close()


def test_the_effect_of_a_removal(world: Snapshot) -> None:
    SEEN.effect(world.db)
    assert world.db.execute("SELECT host, name FROM block_devices ORDER BY ALL").fetchall() == [
        ("c1", "sdc"),
        ("c2", "dm-3"),
    ]
    assert world.db.execute("SELECT session, devices FROM iscsi_sessions ORDER BY ALL").fetchall() == [
        ("session1", ["sdc"]),
        ("session3", []),
    ]
    with pytest.raises(Moved):
        SEEN.effect(world.db)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE block_devices SET number = '254:9' WHERE name = 'dm-3'",
        "UPDATE block_devices SET wwid = NULL WHERE name = 'dm-3'",
        "UPDATE block_devices SET places = [] WHERE name = 'sda'",
        "UPDATE block_devices SET session = 'session9' WHERE name = 'sda'",
        "UPDATE block_devices SET slaves = ['sda', 'sdb', 'sdc'] WHERE name = 'dm-3'",
        "UPDATE block_devices SET mounts = ['/mnt'] WHERE name = 'dm-4'",
        "UPDATE block_devices SET held_by = ['7 qemu'] WHERE name = 'sdb'",
        "UPDATE block_devices SET guests = NULL WHERE name = 'dm-3'",
        "UPDATE block_devices SET kind = 'lvm' WHERE name = 'dm-4'",
        "DELETE FROM block_devices WHERE name = 'sda'",
    ],
)
def test_a_removal_of_what_is_not_as_seen_has_no_effect(world: Snapshot, change: str) -> None:
    world.db.execute(change)
    before = world.db.execute("SELECT * FROM block_devices ORDER BY ALL").fetchall()
    with pytest.raises(Moved):
        SEEN.effect(world.db)
    assert world.db.execute("SELECT * FROM block_devices ORDER BY ALL").fetchall() == before


def test_the_effect_of_a_logout(world: Snapshot) -> None:
    act = device.Logout("c1", "", VOLUME, "session3", TARGET, PORTALS[1])
    act.effect(world.db)
    with pytest.raises(Moved):
        act.effect(world.db)
    with pytest.raises(Moved):
        device.Logout("c1", "", VOLUME, "session2", TARGET, PORTALS[2]).effect(world.db)


@pytest.mark.parametrize("act", [SEEN, device.Logout("c1", "", VOLUME, "session3", TARGET, PORTALS[1])])
def test_an_act_goes_to_json_and_comes_back(act: device.Remove | device.Logout) -> None:
    back = type(act)(**json.loads(json.dumps(asdict(act))))
    assert back == act
    assert hash(back) == hash(act)
    assert (act.undo({}), act.undoing, act.destroys, act.rung) == (None, "none", False, None)


@pytest.mark.parametrize("wrong", [{"paths": [3]}, {"paths": "sda"}, {"places": [1]}, {"sessions": [{"x": 1}]}])
def test_an_act_that_was_edited_into_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        device.Remove(**{**asdict(SEEN), **wrong})


def test_an_act_says_what_it_does() -> None:
    assert str(SEEN) == (
        f"remove dm-3 with its paths sda, sdb from c1 ({TARGET}/1); log out of {TARGET} if nothing else is left there"
    )


# -- by ways that are no block device


def generic(bed: Storage, kind: str) -> None:
    """A disk with such a node."""
    bed.session(1)
    disk = (bed.disk("sda", 1) / "device").resolve()
    bed.files(disk / kind / "node1", dev="21:1")
    (bed.dev / "node1").write_text("21:1")


@pytest.mark.parametrize("kind", ["scsi_generic", "bsg"])
def test_a_disk_whose_generic_node_is_open_is_left_alone(bed: Storage, kind: str) -> None:
    """As a guest has it by <hostdev type='scsi'>."""
    generic(bed, kind)
    bed.opened("node1")
    told = bed.send(bed.one().order)
    assert (told["outcome"], told["why"]) == ("refused", "process 60 (qemu-system-x86_64) has node1 open")


@pytest.mark.parametrize("kind", ["scsi_generic", "bsg"])
def test_a_disk_of_which_nobody_has_the_generic_node_open_goes(bed: Storage, kind: str) -> None:
    generic(bed, kind)
    assert bed.send(bed.one().order)["outcome"] == "done"


def test_nothing_is_removed_while_glance_connects_a_volume(bed: Storage) -> None:
    bed.session(1)
    bed.disk("sda", 1)
    lock = bed.top / "glance" / "os-brick-connect_volume"
    lock.parent.mkdir()
    lock.write_text("")
    conf = bed.top / "glance-api.conf"
    conf.write_text(f"[oslo_concurrency]\nlock_path = {lock.parent}\n")
    bed.process(70, "/usr/bin/python3", "/usr/bin/glance-api", "--config-file", str(conf))
    holder = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        told = bed.send(bed.one().order)
        other.communicate("\n")
    assert (told["outcome"], "os-brick attaches or detaches a volume" in told["why"]) == ("refused", True)
    assert bed.send(bed.one().order)["outcome"] == "done"
