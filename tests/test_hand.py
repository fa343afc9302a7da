"""The acting program: what it does, what it refuses, and that it loses every race and survives every kill."""

import ast
import ctypes
import errno
import functools
import inspect
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudfsck.acts import hand
from cloudfsck.sources import probe
from tests import hand_virsh

SERVER = "4f3f2898-69e3-5a0d-820a-c4e87987dbce"
OTHER = "b72f1bcd-e229-57e2-bb24-d01077785f16"
ENTRY = "5-1-" + SERVER
SOURCE = Path(hand.__file__)
XML = """<domain type='qemu'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <os><type>hvm</type><nvram>{nvram}</nvram></os>
  <devices>
    <disk type='file' device='disk'><source file='{disk}'/><target dev='vda'/></disk>
    <graphics type='vnc' passwd='secret'/>
    <tpm model='tpm-crb'/>
  </devices>
</domain>"""


def qcow2(backing: str | None = None) -> bytes:
    """An image of two clusters with a header that qemu would take."""
    name = (backing or "").encode()
    header = b"QFI\xfb" + struct.pack(">IQI", 2, 72 if backing else 0, len(name))
    return header.ljust(72, b"\0") + name.ljust(1024, b"\0") + b"guest" * 100


class Bed:
    """A hypervisor in a folder."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.patch = monkeypatch
        self.root = top / "instances"
        self.path = self.root / SERVER
        self.base = self.root / "_base" / "0123abcd"
        self.proc = top / "proc"
        self.state = top / "state"
        self.memory = top / "virsh.json"
        self.nvram = top / "nvram.fd"
        self.aside = self.root / ".cloudfsck" / ENTRY / "tree" / SERVER
        self.fence = 7
        self.was: dict[str, int] = {}
        self.inode = 0
        self.proc.mkdir()
        self.remember(domains={}, hooks=[], log=[], runs=4)
        fake = top / "bin" / "virsh"
        fake.parent.mkdir()
        fake.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{hand_virsh.__file__}' '{self.memory}' \"$@\"\n")
        fake.chmod(0o755)
        self.virsh = [str(fake)]

        def program(_: Any, argv: list[str], feed: bytes | None = None) -> tuple[int, bytes, str]:
            status, said, wrong = hand_virsh.answer(self.memory, argv[1:], (feed or b"").decode())
            return status, said.encode(), wrong.strip()

        # Most tests save the time of starting a program; test_as_a_program and its like do start it.
        monkeypatch.setattr(hand.Virsh, "program", program)

    def remember(self, **changes: Any) -> None:
        state = json.loads(self.memory.read_text()) if self.memory.exists() else {}
        self.memory.write_text(json.dumps({**state, **changes}))

    @property
    def domains(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.memory.read_text())["domains"]
        return found

    @property
    def log(self) -> list[str]:
        """What virsh was told that is no question."""
        asked = re.compile(r"echo|list|dom|dump|uri|help|blockjob")
        return [line for line in json.loads(self.memory.read_text())["log"] if not asked.match(line)]

    def xml(self, uuid: str = SERVER, disk: str | None = None, name: str = "instance-1") -> str:
        return XML.format(uuid=uuid, name=name, nvram=self.nvram, disk=disk or f"/var/lib/nova/instances/{uuid}/disk")

    def define(self, uuid: str = SERVER, disk: str | None = None, name: str = "instance-1", **changes: Any) -> None:
        new = hand_virsh.domain(name=name, xml=self.xml(uuid, disk, name), **changes)
        self.remember(domains={**self.domains, uuid: new})

    def running(self, **changes: Any) -> None:
        self.define(**{"id": 4, "state": "running", "reason": "booted", **changes})
        self.process(40, "qemu-system-x86_64", "-uuid", SERVER)

    def meanwhile(self, when: str, command: str, **change: Any) -> None:
        """Somebody changes the domain just before or after virsh is told something."""
        hooks = [{"when": when, "command": command, "set": {SERVER: change or None}}]
        self.remember(hooks=hooks)

    def process(self, pid: int, *words: str, **held: str) -> None:
        folder = self.proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (folder / "stat").write_text(f"{pid} (qemu-system-x86) S 1 1")
        (folder / "maps").write_text(
            "".join(f"7f00-7f01 r--s 0 fe:00 12 {path}\n" for path in [held.get("map")] if path)
        )
        (folder / "cwd").symlink_to(held.get("cwd", "/"))
        (folder / "root").symlink_to(held.get("root", "/"))
        if "fd" in held:
            (folder / "fd" / "3").symlink_to(held["fd"])

    def directory(self) -> None:
        """A server's directory: an overlay on two backing files, a symlink, a folder."""
        (self.root / "_base").mkdir(parents=True)
        self.base.write_bytes(b"base" * 5000)
        (self.root / "_base" / "middle").write_bytes(qcow2("0123abcd"))
        (self.path / "sub").mkdir(parents=True)
        # As nova in a container sees it.
        (self.path / "disk").write_bytes(qcow2("/var/lib/nova/instances/_base/middle"))
        (self.path / "disk.rescue").write_bytes(qcow2("disk"))
        (self.path / "sub" / "note").write_text("note")
        (self.path / "out").symlink_to(self.top)

    def whole(self, place: Path) -> bool:
        files = {
            "disk": qcow2("/var/lib/nova/instances/_base/middle"),
            "disk.rescue": qcow2("disk"),
            "sub/note": b"note",
        }
        same = [(place / name).is_file() and (place / name).read_bytes() == data for name, data in files.items()]
        return all(same) and (place / "out").is_symlink()

    def request(self, do: str, **act: Any) -> dict[str, Any]:
        given = {"version": 1, "nonce": "n0", "cloud": "prod", "fence": self.fence, "virsh": self.virsh}
        act = {"do": do, "server": SERVER, **act}
        return {**given, "state_dir": str(self.state), "proc": str(self.proc), "act": act}

    def ask(self, do: str, **act: Any) -> dict[str, Any]:
        told = hand.answer(self.request(do, **act))
        assert set(told) == {"version", "outcome", "why", "saw"} | (
            {"changed"} if told["outcome"] == "failed" else set()
        )
        json.dumps(told)
        return told

    def pause(self, state: str = "running", **was: Any) -> dict[str, Any]:
        return self.ask("domain.pause", was={"id": 4, "state": state, "persistent": True, **was})

    def stop(self, state: str = "running", **was: Any) -> dict[str, Any]:
        return self.ask("domain.stop", was={"id": 4, "state": state, "persistent": True, **was})

    def undefine(self) -> dict[str, Any]:
        xml = self.xml().replace(" passwd='secret'", "")
        return self.ask("domain.undefine", was={"state": "shutoff", "xml_sha256": hand.xml_digest(xml)})

    def seen(self) -> dict[str, int]:
        return hand.measure(str(self.path))

    def quarantine(self, **was: Any) -> dict[str, Any]:
        seen = self.seen() if self.path.exists() else {}
        return self.ask("directory.quarantine", path=str(self.path), entry=ENTRY, was={**seen, **was})

    def restore(self, inode: int) -> dict[str, Any]:
        return self.ask("directory.restore", path=str(self.path), entry=ENTRY, was={"inode": inode})

    def remove(self, inode: int) -> dict[str, Any]:
        return self.ask("directory.remove", path=str(self.path), entry=ENTRY, was={"inode": inode})

    def in_the_moment(self, when: str, what: Callable[[], object]) -> None:
        """Somebody does something just before or just after the directory is renamed."""
        rename = hand.rename_new

        def renamed(old_folder: int, old: str, new_folder: int, new: str) -> None:
            if new == SERVER and when == "before":
                self.patch.setattr(hand, "rename_new", rename)
                what()
            rename(old_folder, old, new_folder, new)
            if new == SERVER and when == "after":
                self.patch.setattr(hand, "rename_new", rename)
                what()

        self.patch.setattr(hand, "rename_new", renamed)

    def untouched(self) -> bool:
        """The directory is in its place and nothing of a quarantine is left."""
        return self.whole(self.path) and not (self.root / ".cloudfsck").exists() and self.base.stat().st_nlink == 1


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(tmp_path, monkeypatch)


@pytest.fixture
def stored(bed: Bed) -> Bed:
    bed.directory()
    return bed


# ---------------------------------------------------------------------------------------------------------------------
# The program.


@pytest.mark.parametrize("name", ["xml_tree", "xml_digest", "measure", "qcow2_backing", "open_paths"])
def test_both_programs_have_the_same_recipes(name: str) -> None:
    assert inspect.getsource(getattr(hand, name)) == inspect.getsource(getattr(probe, name))


def test_it_is_for_python_3_6_and_the_standard_library_alone() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
    assert SOURCE.read_text().isascii()


@pytest.mark.parametrize("piped", [True, False])
def test_as_a_program(bed: Bed, piped: bool) -> None:
    bed.running()
    request = json.dumps(bed.request("domain.pause", was={"id": 4, "state": "running", "persistent": True}))
    if piped:
        argv, given = [sys.executable, "-"], f"REQUEST = {request!r}\n" + SOURCE.read_text()
    else:
        argv, given = [sys.executable, str(SOURCE)], request
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=True)
    told = re.fullmatch(r"\n@@cloudfsck n0 begin@@\n(.*)\n@@cloudfsck n0 end@@\n", done.stdout)
    assert told
    answer = json.loads(told.group(1))
    assert (answer["outcome"], answer["saw"]["state"]) == ("done", "paused")
    assert bed.domains[SERVER]["state"] == "paused"


def test_what_it_is_told_to_define_goes_to_virsh_as_a_program(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    bed.define()
    saved = bed.undefine()["saw"]["saved"]
    assert bed.domains == {}
    assert bed.ask("domain.define", saved=saved)["outcome"] == "done"
    assert bed.domains[SERVER]["xml"] == bed.xml()


@pytest.mark.parametrize("given", ["", "[]", "{", '{"version": 1}', '{"version": 2, "nonce": "x"}'])
def test_a_request_that_is_none_fails(given: str) -> None:
    done = subprocess.run([sys.executable, str(SOURCE)], input=given, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[2])
    assert (answer["outcome"], answer["changed"]) == ("failed", False)


@pytest.mark.parametrize(
    "change",
    [
        {"server": "../../etc"},
        {"server": SERVER.upper()},
        {"was": {}},
        {"was": {"id": 4, "state": "running", "persistent": True, "more": 1}},
        {"was": {"id": 4, "state": "crashed", "persistent": True}},
        {"do": "domain.delete"},
        {"more": 1},
    ],
)
def test_an_act_that_is_not_understood_fails(bed: Bed, change: dict[str, Any]) -> None:
    bed.running()
    was = {"id": 4, "state": "running", "persistent": True}
    told = bed.ask(**{"do": "domain.pause", "was": was, **change})
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert not bed.state.exists()


@pytest.mark.parametrize(
    "virsh",
    [["rm", "-rf"], ["sh", "-c", "virsh"], ["docker", "run", "x", "virsh"], ["virsh", "-c", "qemu+ssh://other/system"]],
)
def test_the_request_starts_no_other_program(bed: Bed, virsh: list[str]) -> None:
    bed.virsh = virsh
    bed.running()
    told = bed.pause()
    assert (told["outcome"], told["changed"]) == ("failed", False)


def test_a_writer_that_was_overtaken_is_refused(bed: Bed) -> None:
    bed.running()
    assert bed.pause()["outcome"] == "done"
    assert (bed.state / "prod.fence").read_text() == "7"
    bed.fence = 9
    assert bed.pause("paused")["outcome"] == "done"
    bed.fence = 8
    told = bed.ask("domain.resume", was={"id": 4, "state": "paused"})
    assert (told["outcome"], told["why"]) == ("refused", "writer 8 is behind 9")
    assert bed.domains[SERVER]["state"] == "paused"


def test_a_fence_that_cannot_be_read_stops_all_acts(bed: Bed) -> None:
    bed.running()
    bed.state.mkdir()
    (bed.state / "prod.fence").write_text("")
    assert bed.pause()["outcome"] == "failed"
    assert bed.log == []


def test_one_act_at_a_time(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.running()
    monkeypatch.setattr(hand, "LOCK_SECONDS", 0)
    first = hand.Hand(bed.request("domain.pause", was={"id": 4, "state": "running", "persistent": True}))
    first.take()
    told = bed.pause()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    first.close()
    assert bed.pause()["outcome"] == "done"


def test_a_virsh_that_does_not_answer_in_time(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.running()
    monkeypatch.undo()
    monkeypatch.setattr(hand, "VIRSH_SECONDS", 0.2)
    bed.remember(seconds=30)
    told = bed.pause()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert "no answer" in told["why"]


# ---------------------------------------------------------------------------------------------------------------------
# Domains.


def test_pause_and_resume(bed: Bed) -> None:
    bed.running()
    assert bed.pause()["saw"]["state"] == "paused"
    assert bed.pause("paused")["outcome"] == "done"
    told = bed.ask("domain.resume", was={"id": 4, "state": "paused"})
    assert (told["outcome"], told["saw"]["state"]) == ("done", "running")
    assert bed.log == ["suspend 4", "resume 4"]


@pytest.mark.parametrize(
    ("now", "was"),
    [
        ({"id": 5}, {}),
        ({"state": "paused"}, {}),
        ({"persistent": False}, {}),
        ({}, {"id": 3}),
        ({"id": None, "state": "shut off"}, {}),
    ],
)
def test_a_domain_that_is_not_as_seen_is_left_alone(bed: Bed, now: dict[str, Any], was: dict[str, Any]) -> None:
    bed.running(**now)
    for told in (bed.pause(**was), bed.stop(**was)):
        assert told["outcome"] == "moved"
        assert told["saw"]["persistent"] == bed.domains[SERVER]["persistent"]
    assert bed.log == []


def test_a_domain_that_is_gone_has_moved(bed: Bed) -> None:
    assert bed.pause() == {
        "version": 1,
        "outcome": "moved",
        "why": f"domain {SERVER} does not exist",
        "saw": {"exists": False},
    }


def test_libvirt_that_does_not_answer_is_no_absence(bed: Bed) -> None:
    bed.running()
    bed.remember(down=True)
    told = bed.pause()
    assert (told["outcome"], told["changed"]) == ("failed", False)


@pytest.mark.parametrize("busy", [{"job": "Save"}, {"job": "incoming"}, {"blockjob": "vda"}])
def test_a_domain_that_libvirt_works_on_is_left_alone(bed: Bed, busy: dict[str, Any]) -> None:
    bed.running(**busy)
    assert bed.pause()["outcome"] == "refused"
    assert bed.stop()["outcome"] == "refused"
    assert bed.log == []


def test_a_paused_domain_that_libvirt_works_on_is_not_resumed(bed: Bed) -> None:
    bed.running(state="paused", job="incoming")
    assert bed.ask("domain.resume", was={"id": 4, "state": "paused"})["outcome"] == "refused"
    assert bed.log == []


def test_a_run_that_begins_just_before_the_pause_is_not_paused(bed: Bed) -> None:
    bed.running()
    bed.meanwhile("before", "suspend", id=5)
    told = bed.pause()
    assert (told["outcome"], told["saw"]["id"]) == ("moved", 5)
    assert bed.domains[SERVER]["state"] == "running"


@pytest.mark.parametrize("change", [{"persistent": False}, {"id": 5}])
def test_a_domain_that_changes_with_the_pause_runs_on(bed: Bed, change: dict[str, Any]) -> None:
    bed.running()
    bed.meanwhile("after", "suspend", **change)
    assert bed.pause()["outcome"] == "moved"
    assert bed.domains[SERVER]["state"] == "running"


def test_a_job_that_begins_with_the_pause_gets_its_domain_back(bed: Bed) -> None:
    bed.running()
    bed.remember(
        hooks=[
            {"when": "after", "command": "suspend", "set": {SERVER: {"job": "Outgoing migration"}}},
            {"when": "after", "command": "resume", "set": {SERVER: {"job": None}}},
            # The first resume finds the job still there, the second does not.
            {"when": "before", "command": "resume", "set": {SERVER: {"job": None}}},
        ]
    )
    assert bed.pause()["outcome"] == "moved"
    assert bed.domains[SERVER]["state"] == "running"


def test_a_domain_that_cannot_be_resumed_is_said(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "RESUME_SECONDS", 0)
    bed.running()
    bed.meanwhile("after", "suspend", job="Outgoing migration")
    told = bed.pause()
    assert (told["outcome"], told["changed"]) == ("failed", True)
    assert f"virsh resume {SERVER}" in told["why"]


def test_a_pause_that_virsh_does_not_do_changes_nothing(bed: Bed) -> None:
    bed.running()
    bed.meanwhile("before", "suspend", job="Save")
    told = bed.pause()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert "state change lock" in told["why"]


def test_a_domain_with_the_run_as_its_name_is_not_hit(bed: Bed) -> None:
    bed.running()
    bed.define(OTHER, name="4", id=9, state="running", reason="booted")
    bed.meanwhile("before", "suspend", id=5)
    assert bed.pause()["outcome"] == "moved"
    assert [domain["state"] for domain in bed.domains.values()] == ["running", "running"]


def test_stop_and_start(bed: Bed) -> None:
    bed.running()
    bed.meanwhile("after", "destroy", reason="destroyed")
    shutil.move(bed.proc / "40", bed.top / "gone")
    assert bed.stop()["outcome"] == "refused"
    shutil.move(bed.top / "gone", bed.proc / "40")
    # QEMU ends with the run.
    run = hand_virsh.Virsh.do_destroy

    def destroy(self: hand_virsh.Virsh, key: str) -> str:
        shutil.rmtree(bed.proc / "40")
        return run(self, key)

    bed.patch.setattr(hand_virsh.Virsh, "do_destroy", destroy)
    told = bed.stop()
    assert (told["outcome"], told["saw"]["state"], told["saw"]["id"]) == ("done", "shutoff", None)
    saved = Path(told["saw"]["saved"])
    assert saved.read_text().strip() == bed.xml()
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(saved.parent.stat().st_mode) == 0o700
    assert len(list(saved.parent.iterdir())) == 2
    assert bed.stop("shutoff", id=None)["outcome"] == "done"
    told = bed.ask("domain.start", was={"state": "shutoff"}, paused=True)
    assert (told["outcome"], told["saw"]["state"], told["saw"]["id"]) == ("done", "paused", 5)
    assert bed.ask("domain.start", was={"state": "shutoff"}, paused=True)["outcome"] == "moved"
    assert bed.log == ["destroy 4", f"start {SERVER} --paused"]


def test_a_transient_domain_is_not_stopped(bed: Bed) -> None:
    bed.running(persistent=False)
    told = bed.stop(persistent=False)
    assert told["outcome"] == "refused"
    assert "transient" in told["why"]
    assert bed.log == []


def test_a_domain_with_the_last_copy_of_a_file_is_not_stopped(bed: Bed) -> None:
    bed.running()
    (bed.proc / "40" / "fd" / "9").symlink_to("/var/lib/nova/instances/x/disk (deleted)")
    told = bed.stop()
    assert told["outcome"] == "refused"
    assert "/var/lib/nova/instances/x/disk (deleted)" in told["why"]
    assert bed.log == []


def test_memory_without_a_name_is_no_file(bed: Bed) -> None:
    bed.running()
    for number, path in enumerate(["/memfd:pc.ram (deleted)", "/dev/shm/x (deleted)", "/SYSV00 (deleted)"]):
        (bed.proc / "40" / "fd" / str(10 + number)).symlink_to(path)
    bed.patch.setattr(hand_virsh.Virsh, "do_destroy", lambda *_: "\n")
    assert "holds a file" not in bed.stop()["why"]
    assert bed.log == ["destroy 4"]


def test_two_processes_of_one_domain_are_not_stopped(bed: Bed) -> None:
    bed.running()
    bed.process(41, "qemu-system-x86_64", "-uuid", SERVER)
    assert bed.stop()["outcome"] == "refused"
    assert bed.log == []


def test_a_run_that_begins_just_before_the_stop_is_not_stopped(bed: Bed) -> None:
    bed.running()
    bed.meanwhile("before", "destroy", id=5)
    assert bed.stop()["outcome"] == "moved"
    assert bed.domains[SERVER]["state"] == "running"


def test_a_domain_that_loses_its_definition_just_before_the_stop_is_said(bed: Bed) -> None:
    bed.running()
    bed.meanwhile("before", "destroy", persistent=False)
    told = bed.stop()
    assert (told["outcome"], told["changed"]) == ("failed", True)
    saved = re.search(r"its XML is in (\S+)", told["why"])
    assert saved
    assert Path(saved.group(1)).read_text().strip() == bed.xml()


def test_a_domain_that_changes_while_its_xml_is_saved_is_not_stopped(bed: Bed) -> None:
    bed.running()
    bed.meanwhile("after", "dumpxml", persistent=False)
    assert bed.stop()["outcome"] == "moved"
    assert bed.log == []


def test_a_guest_that_libvirt_lost_is_neither_started_nor_undefined(bed: Bed) -> None:
    bed.running(id=None, state="shut off")
    assert bed.ask("domain.start", was={"state": "shutoff"}, paused=False)["outcome"] == "refused"
    assert bed.undefine()["outcome"] == "refused"
    assert bed.log == []


def test_undefine_and_define(bed: Bed) -> None:
    bed.define(autostart=True, managed_save=True)
    bed.nvram.write_bytes(b"variables")
    bed.nvram.chmod(0o640)
    told = bed.undefine()
    assert told["outcome"] == "done"
    assert bed.domains == {}
    assert not bed.nvram.exists()
    folder = Path(told["saw"]["saved"])
    assert sorted(path.name for path in folder.iterdir()) == ["domain.xml", "facts.json", "nvram"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert bed.log == [f"undefine {SERVER} --managed-save --keep-nvram --keep-tpm"]

    bed.nvram.write_bytes(b"another's")
    assert bed.ask("domain.define", saved=str(folder))["outcome"] == "refused"
    bed.nvram.unlink()
    bed.define(OTHER)
    assert bed.ask("domain.define", saved=str(folder))["outcome"] == "refused"
    bed.remember(domains={})
    told = bed.ask("domain.define", saved=str(folder))
    assert (told["outcome"], told["saw"]["state"]) == ("done", "shutoff")
    assert bed.domains[SERVER]["xml"] == bed.xml()
    assert bed.domains[SERVER]["autostart"]
    assert bed.nvram.read_bytes() == b"variables"
    assert stat.S_IMODE(bed.nvram.stat().st_mode) == 0o640
    assert bed.ask("domain.define", saved=str(folder))["outcome"] == "refused"


def test_an_undefine_that_was_seen_otherwise(bed: Bed) -> None:
    bed.define()
    told = bed.ask("domain.undefine", was={"state": "shutoff", "xml_sha256": "0" * 64})
    assert told["outcome"] == "moved"
    assert bed.log == []


def test_memory_saved_after_the_look_is_not_thrown_away(bed: Bed) -> None:
    bed.define()
    bed.meanwhile("before", "undefine", managed_save=True)
    told = bed.undefine()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert bed.domains[SERVER]["managed_save"]


def test_a_domain_that_is_started_just_before_the_undefine_keeps_its_definition(bed: Bed) -> None:
    bed.define()
    bed.nvram.write_bytes(b"variables")
    bed.meanwhile("before", "undefine", id=5, state="running", reason="booted")
    assert bed.undefine()["outcome"] == "moved"
    assert bed.domains[SERVER]["persistent"]
    assert bed.domains[SERVER]["xml"] == bed.xml()
    assert bed.nvram.read_bytes() == b"variables"


@pytest.mark.parametrize(
    "saved", ["/etc", "domains", "../x", "{state}/domains/{other}/x", "{state}/domains/{server}/.."]
)
def test_only_what_was_saved_is_defined(bed: Bed, saved: str) -> None:
    told = bed.ask("domain.define", saved=saved.format(state=bed.state, other=OTHER, server=SERVER))
    assert (told["outcome"], told["changed"]) == ("failed", False)


# ---------------------------------------------------------------------------------------------------------------------
# Directories.


def test_quarantine_and_restore(stored: Bed) -> None:
    seen = stored.seen()
    told = stored.quarantine()
    assert told["outcome"] == "done"
    assert {key: told["saw"][key] for key in ("inode", "files", "bytes")} == {
        key: seen[key] for key in ("inode", "files", "bytes")
    }
    assert stored.whole(stored.aside)
    assert not stored.path.exists()
    assert stored.base.stat().st_nlink == 2
    entry = stored.aside.parent.parent
    assert stat.S_IMODE(entry.stat().st_mode) == 0o700
    manifest = json.loads((entry / "manifest.json").read_text())
    assert (manifest["was_path"], manifest["server"], manifest["inode"]) == (str(stored.path), SERVER, seen["inode"])
    assert set(manifest["chain"]["disk"]) == {str(stored.base), str(stored.base.parent / "middle")}
    assert manifest["chain"]["disk.rescue"] == manifest["chain"]["disk"]
    (row,) = probe.read_quarantine(str(entry.parent))
    assert row["manifest_ok"]
    assert (row["inode"], row["was_path"]) == (seen["inode"], str(stored.path))

    assert stored.quarantine(**seen)["outcome"] == "done"
    stored.base.unlink()
    (stored.base.parent / "middle").unlink()
    # Nothing but the file system is needed to bring it back.
    stored.remember(down=True)
    assert stored.restore(seen["inode"])["outcome"] == "done"
    assert stored.whole(stored.path)
    assert stored.base.read_bytes() == b"base" * 5000
    assert (stored.base.parent / "middle").read_bytes() == qcow2("0123abcd")
    assert list((stored.root / ".cloudfsck").iterdir()) == []
    assert stored.restore(seen["inode"])["outcome"] == "done"


@pytest.mark.parametrize("suffix", ["_del", "_resize"])
def test_leftovers_of_nova_go_the_same_way(stored: Bed, suffix: str) -> None:
    other = stored.path.with_name(SERVER + suffix)
    stored.path.rename(other)
    seen = hand.measure(str(other))
    told = stored.ask("directory.quarantine", path=str(other), entry=ENTRY, was=seen)
    assert told["outcome"] == "done"
    told = stored.ask("directory.restore", path=str(other), entry=ENTRY, was={"inode": seen["inode"]})
    assert told["outcome"] == "done"
    assert stored.whole(other)


def test_what_nova_had_begun_to_remove_goes_while_the_server_runs_beside_it(stored: Bed) -> None:
    other = stored.path.with_name(SERVER + "_del")
    stored.path.rename(other)
    stored.path.mkdir()
    (stored.path / "disk").write_bytes(b"its own")
    stored.define(SERVER, str(stored.path / "disk"))
    stored.process(77, "qemu-system-x86_64", "-uuid", SERVER, fd=str(stored.path / "disk"))

    def ask() -> dict[str, Any]:
        return stored.ask("directory.quarantine", path=str(other), entry=ENTRY, was=hand.measure(str(other)))

    stored.process(78, "qemu-img", fd=str(other / "disk"))
    assert "process 78" in ask()["why"]
    assert other.exists()
    shutil.rmtree(stored.proc / "78")
    assert ask()["outcome"] == "done"
    assert not other.exists()
    assert (stored.path / "disk").read_bytes() == b"its own"


@pytest.mark.parametrize("suffix", ["", "_resize"])
def test_other_directories_stay_while_the_server_is_there(stored: Bed, suffix: str) -> None:
    other = stored.path.with_name(SERVER + suffix)
    stored.path.rename(other)
    stored.define(SERVER, None)
    told = stored.ask("directory.quarantine", path=str(other), entry=ENTRY, was=hand.measure(str(other)))
    assert (told["outcome"], told["why"]) == ("refused", f"domain {SERVER} exists on this host")
    assert stored.whole(other)


@pytest.mark.parametrize("key", ["inode", "device", "newest", "files", "bytes"])
def test_a_directory_that_is_not_as_seen_is_left_alone(stored: Bed, key: str) -> None:
    told = stored.quarantine(**{key: 1})
    assert told["outcome"] == "moved"
    assert told["saw"]["inode"] == stored.path.stat().st_ino
    assert stored.untouched()


@pytest.mark.parametrize(
    "path", ["/", "relative", "{root}/../instances/{server}", "{root}/{other}", "{root}/{server}/sub"]
)
def test_a_path_that_is_none_of_the_server(stored: Bed, path: str) -> None:
    given = path.format(root=stored.root, server=SERVER, other=OTHER)
    told = stored.ask("directory.quarantine", path=given, entry=ENTRY, was=stored.seen())
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert stored.untouched()


@pytest.mark.parametrize("entry", ["../x-" + SERVER, "5-1-" + OTHER, "." + ENTRY, ""])
def test_an_entry_that_is_none_of_the_server(stored: Bed, entry: str) -> None:
    told = stored.ask("directory.quarantine", path=str(stored.path), entry=entry, was=stored.seen())
    assert (told["outcome"], told["changed"]) == ("failed", False)


def test_a_symlink_is_refused(stored: Bed) -> None:
    stored.path.rename(stored.top / "elsewhere")
    stored.path.symlink_to(stored.top / "elsewhere")
    assert stored.quarantine()["outcome"] == "refused"
    assert stored.whole(stored.top / "elsewhere")


def test_an_instances_path_behind_a_symlink_is_refused(stored: Bed) -> None:
    (stored.top / "link").symlink_to(stored.root)
    told = stored.ask("directory.quarantine", path=str(stored.top / "link" / SERVER), entry=ENTRY, was=stored.seen())
    assert told["outcome"] == "refused"


@pytest.mark.parametrize(
    "domain",
    [
        {"uuid": SERVER},
        {"uuid": OTHER, "disk": "{path}/disk"},
        # As nova in a container names it.
        {"uuid": OTHER, "disk": f"/var/lib/nova/instances/{SERVER}/disk"},
        {"uuid": OTHER, "disk": "{top}/another-name"},
    ],
)
def test_a_directory_that_a_domain_uses_is_refused(stored: Bed, domain: dict[str, str]) -> None:
    (stored.top / "another-name").symlink_to(stored.path / "disk")
    stored.define(domain["uuid"], domain.get("disk", "").format(path=stored.path, top=stored.top) or None)
    assert stored.quarantine()["outcome"] == "refused"
    assert stored.untouched()


@pytest.mark.parametrize(
    "held",
    [
        {"fd": "{path}/disk"},
        {"fd": "{path}/gone (deleted)"},
        {"cwd": "{path}"},
        {"root": "{path}/sub"},
        {"map": "{path}/disk"},
        {"map": f"/var/lib/nova/instances/{SERVER}/disk"},
        # Another mount namespace shows another path; the file is the same.
        {"fd": "{top}/other-name"},
    ],
)
def test_a_directory_that_a_process_holds_is_refused(stored: Bed, held: dict[str, str]) -> None:
    (stored.top / "other-name").hardlink_to(stored.path / "sub" / "note")
    stored.process(77, "backup", **{key: value.format(path=stored.path, top=stored.top) for key, value in held.items()})
    told = stored.quarantine()
    assert told["outcome"] == "refused"
    assert "process 77" in told["why"]
    assert stored.untouched()


def test_a_guest_that_libvirt_does_not_know_is_seen(stored: Bed) -> None:
    stored.process(77, "qemu-system-x86_64", "-uuid", SERVER)
    assert stored.quarantine()["outcome"] == "refused"
    assert stored.untouched()


def test_processes_that_may_not_be_read_are_no_absence(stored: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.process(77, "backup")
    readlink = os.readlink

    def denied(path: Any, **words: Any) -> Any:
        if "/77/cwd" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return readlink(path, **words)

    monkeypatch.setattr(os, "readlink", denied)
    told = stored.quarantine()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert stored.untouched()


@pytest.mark.parametrize("name", [OTHER + "/disk", "snapshots/x", ".cloudfsck/1-1-x/tree/y/disk"])
@pytest.mark.parametrize("backing", ["{path}/disk", f"/var/lib/nova/instances/{SERVER}/disk"])
def test_a_directory_with_a_backing_file_of_another_image_is_refused(stored: Bed, name: str, backing: str) -> None:
    user = stored.root / name
    user.parent.mkdir(parents=True)
    user.write_bytes(qcow2(backing.format(path=stored.path)))
    told = stored.quarantine()
    assert told["outcome"] == "refused"
    assert str(user) in told["why"]
    assert stored.whole(stored.path)


def test_an_image_with_an_unreadable_header_is_refused(stored: Bed) -> None:
    (stored.root / "broken").write_bytes(b"QFI\xfb" + b"\xff" * 100)
    assert stored.quarantine()["outcome"] == "refused"
    assert stored.untouched()


@pytest.mark.parametrize("backing", ["{top}/outside", "nbd://host/disk", "json:{{}}"])
def test_a_backing_file_that_cannot_be_kept_is_refused(stored: Bed, backing: str) -> None:
    (stored.top / "outside").write_bytes(b"base")
    (stored.path / "disk.swap").write_bytes(qcow2(backing.format(top=stored.top)))
    assert stored.quarantine()["outcome"] == "refused"
    assert stored.untouched()


def test_backing_files_in_a_circle_are_refused(stored: Bed) -> None:
    stored.base.write_bytes(qcow2(str(stored.base.parent / "middle")))
    assert stored.quarantine()["outcome"] == "refused"


def test_a_backing_file_that_is_gone_already_does_not_keep_the_directory(stored: Bed) -> None:
    stored.base.unlink()
    told = stored.quarantine()
    assert (told["outcome"], told["saw"]["missing"]) == ("done", [str(stored.base)])
    assert stored.restore(told["saw"]["inode"])["outcome"] == "done"
    assert stored.whole(stored.path)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_a_backing_file_that_cannot_be_linked_is_refused(stored: Bed, number: int) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    stored.patch.setattr(os, "link", link)
    told = stored.quarantine()
    assert told["outcome"] == "refused"
    assert os.strerror(number) in told["why"]
    assert stored.untouched()


@pytest.mark.parametrize("call", ["mkdir", "write", "fsync", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_is_full_or_broken_changes_nothing(stored: Bed, call: str, number: int) -> None:
    assert stored.ask("domain.pause", was={"id": 1, "state": "running", "persistent": True})["outcome"] == "moved"

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    stored.patch.setattr(os, call, broken)
    told = stored.quarantine()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert os.strerror(number) in told["why"]
    assert stored.untouched()


def test_a_rename_that_the_kernel_does_not_know(stored: Bed) -> None:
    class Libc:
        @staticmethod
        def renameat2(*_: Any) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    stored.patch.setattr(ctypes, "CDLL", lambda *_, **__: Libc)
    inode = stored.path.stat().st_ino
    assert stored.quarantine()["outcome"] == "done"
    stored.path.mkdir()
    assert stored.restore(inode)["outcome"] == "refused"
    stored.path.rmdir()
    assert stored.restore(inode)["outcome"] == "done"
    assert stored.whole(stored.path)


def replaced(bed: Bed) -> None:
    bed.path.rename(bed.top / "taken")
    shutil.copytree(bed.top / "taken", bed.path, symlinks=True)


RACES: dict[str, tuple[str, Callable[[Bed], object]]] = {
    "replaced": ("before", replaced),
    "written": ("before", lambda bed: (bed.path / "disk").write_bytes((bed.path / "disk").read_bytes())),
    "grown": ("before", lambda bed: (bed.path / "sub" / "new").write_text("new")),
    "written after": ("after", lambda bed: os.utime(bed.aside / "disk")),
    "opened": ("before", lambda bed: bed.process(77, "qemu-img", fd=str(bed.aside / "disk"))),
    "opened after": ("after", lambda bed: bed.process(77, "qemu-img", map=str(bed.aside / "disk"))),
    "stood in": ("after", lambda bed: bed.process(77, "sh", cwd=str(bed.aside / "sub"))),
    "defined": ("before", lambda bed: bed.define()),
    "used": ("after", lambda bed: bed.define(OTHER, str(bed.path / "disk"))),
    "backed": ("before", lambda bed: (bed.root / "new").write_bytes(qcow2(str(bed.path / "disk")))),
}


@pytest.mark.parametrize("race", RACES)
def test_a_race_is_lost_by_us(stored: Bed, race: str) -> None:
    when, what = RACES[race]
    stored.in_the_moment(when, lambda: what(stored))
    told = stored.quarantine()
    assert told["outcome"] == "moved"
    assert stored.whole(stored.path)
    assert not (stored.root / ".cloudfsck").exists()
    assert told["saw"]["inode"] == stored.path.stat().st_ino
    if race == "replaced":
        assert stored.whole(stored.top / "taken")


def test_a_directory_that_goes_just_before_the_rename_has_moved(stored: Bed) -> None:
    stored.in_the_moment("before", lambda: stored.path.rename(stored.top / "taken"))
    assert stored.quarantine()["outcome"] == "moved"
    assert not (stored.root / ".cloudfsck").exists()


def test_a_directory_whose_place_is_taken_after_the_rename_is_said(stored: Bed) -> None:
    def taken() -> None:
        stored.path.mkdir()
        (stored.path / "new").write_text("new")
        stored.process(77, "qemu-img", fd=str(stored.aside / "disk"))

    stored.in_the_moment("after", taken)
    told = stored.quarantine()
    assert (told["outcome"], told["changed"]) == ("failed", True)
    assert stored.whole(stored.aside)
    assert (stored.path / "new").read_text() == "new"


def test_libvirt_that_goes_down_in_the_midst_brings_the_directory_back(stored: Bed) -> None:
    stored.in_the_moment("after", lambda: stored.remember(down=True))
    told = stored.quarantine()
    assert (told["outcome"], told["changed"]) == ("failed", False)
    assert stored.untouched()


def test_a_quarantine_of_somebody_else_is_refused(stored: Bed) -> None:
    (stored.root / ".cloudfsck").symlink_to(stored.top)
    assert stored.quarantine()["outcome"] == "refused"
    (stored.root / ".cloudfsck").unlink()
    (stored.root / ".cloudfsck").mkdir(mode=0o777)
    (stored.root / ".cloudfsck").chmod(0o777)
    assert stored.quarantine()["outcome"] == "refused"
    assert stored.whole(stored.path)


def test_an_entry_that_is_in_use_is_refused(stored: Bed) -> None:
    other = stored.aside.with_name(OTHER)
    other.mkdir(parents=True)
    assert stored.quarantine()["outcome"] == "refused"
    assert stored.whole(stored.path)
    assert [path for path in (stored.root / ".cloudfsck").rglob("*") if path.is_file()] == []
    assert other.is_dir()


def test_the_last_copy_of_a_backing_file_is_not_removed_with_a_rest(stored: Bed) -> None:
    spare = stored.root / ".cloudfsck" / ENTRY / "backing" / "1-gone"
    spare.parent.mkdir(parents=True)
    spare.write_text("the last copy")
    assert stored.quarantine()["outcome"] == "refused"
    assert spare.read_text() == "the last copy"
    assert stored.whole(stored.path)


def test_restore_never_covers_anything(stored: Bed) -> None:
    inode = stored.path.stat().st_ino
    assert stored.quarantine()["outcome"] == "done"
    stored.path.mkdir()
    assert stored.restore(inode)["outcome"] == "refused"
    stored.path.rmdir()
    stored.in_the_moment("before", stored.path.mkdir)
    assert stored.restore(inode)["outcome"] == "refused"
    assert stored.whole(stored.aside)
    stored.path.rmdir()
    assert stored.restore(inode + 1)["outcome"] == "moved"
    assert stored.restore(inode)["outcome"] == "done"


def test_restore_gives_a_backing_file_back_unless_another_is_there(stored: Bed) -> None:
    inode = stored.path.stat().st_ino
    assert stored.quarantine()["outcome"] == "done"
    stored.base.unlink()
    stored.base.write_bytes(b"wrong" * 4000)
    told = stored.restore(inode)
    assert told["outcome"] == "refused"
    assert str(stored.base) in told["why"]
    assert stored.whole(stored.aside)
    # Nova fetched the same image again.
    stored.base.write_bytes(b"base" * 5000)
    assert stored.restore(inode)["outcome"] == "done"
    assert list((stored.root / ".cloudfsck").iterdir()) == []


def test_restore_without_a_manifest_leaves_the_links(stored: Bed) -> None:
    inode = stored.path.stat().st_ino
    assert stored.quarantine()["outcome"] == "done"
    entry = stored.aside.parent.parent
    (entry / "manifest.json").write_text("{")
    stored.base.unlink()
    told = stored.restore(inode)
    assert told["outcome"] == "done"
    assert Path(told["saw"]["left"]).parent == entry / "backing"
    assert stored.whole(stored.path)
    assert {path.read_bytes() for path in (entry / "backing").iterdir()} >= {b"base" * 5000}


def test_remove(stored: Bed) -> None:
    (stored.top / "keep").write_text("keep")
    inode = stored.path.stat().st_ino
    assert stored.quarantine()["outcome"] == "done"
    assert stored.remove(inode)["outcome"] == "done"
    assert list((stored.root / ".cloudfsck").iterdir()) == []
    assert (stored.top / "keep").read_text() == "keep"
    assert stored.base.stat().st_nlink == 1
    assert stored.remove(inode)["outcome"] == "done"


def test_what_is_not_in_quarantine_is_not_removed(stored: Bed) -> None:
    inode = stored.path.stat().st_ino
    assert stored.remove(inode)["outcome"] == "moved"
    assert stored.quarantine()["outcome"] == "done"
    assert stored.remove(inode + 1)["outcome"] == "moved"
    stored.define()
    assert stored.remove(inode)["outcome"] == "refused"
    stored.remember(domains={})
    stored.process(77, "backup", fd=str(stored.aside / "disk"))
    assert stored.remove(inode)["outcome"] == "refused"
    shutil.rmtree(stored.proc / "77")
    (stored.root / "user").write_bytes(qcow2(str(stored.aside / "disk")))
    assert stored.remove(inode)["outcome"] == "refused"
    (stored.root / "user").unlink()
    assert stored.whole(stored.aside)
    assert stored.remove(inode)["outcome"] == "done"


def test_remove_enters_no_mount(stored: Bed) -> None:
    inode = stored.path.stat().st_ino
    assert stored.quarantine()["outcome"] == "done"
    below = (stored.aside / "sub").stat().st_ino
    stored.patch.setattr(hand, "mount_number", lambda fd: b"2" if os.fstat(fd).st_ino == below else b"1")
    told = stored.remove(inode)
    assert (told["outcome"], told["changed"]) == ("failed", True)
    assert (stored.aside / "sub" / "note").read_text() == "note"
    # It is no longer whole: it does not come back, but its removal goes on.
    assert stored.restore(inode)["outcome"] == "refused"
    stored.patch.undo()
    stored.patch.setattr(hand, "find_virsh", lambda _: hand.Virsh(stored.virsh))
    assert stored.remove(inode)["outcome"] == "done"


def test_a_symlink_put_into_the_tree_is_not_followed(stored: Bed) -> None:
    """A folder that becomes a symlink between the look and the opening."""
    inode = stored.path.stat().st_ino
    assert stored.quarantine()["outcome"] == "done"
    (stored.top / "far").mkdir()
    (stored.top / "far" / "note").write_text("far")
    opened = os.open

    def swapped(path: Any, flags: int, *rest: Any, **words: Any) -> int:
        if path == "sub" and words.get("dir_fd") is not None and not (stored.aside / "sub").is_symlink():
            shutil.rmtree(stored.aside / "sub")
            (stored.aside / "sub").symlink_to(stored.top / "far")
        return opened(path, flags, *rest, **words)

    stored.patch.setattr(os, "open", swapped)
    stored.remove(inode)
    assert (stored.top / "far" / "note").read_text() == "far"


# ---------------------------------------------------------------------------------------------------------------------
# A kill at every step.

STEPS = ("mkdir", "link", "open", "write", "fsync", "rename", "unlink", "rmdir")


def killed(number: int, ask: Callable[[], object]) -> bool:
    """Ask in a child process that dies just before its `number`th call to the system; whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        left = number

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **words: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return call(*args, **words)

            return step

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        hand.rename_new = counted(hand.rename_new)
        try:
            ask()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == 9


def each_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Bed], object], prepare: Callable[[Bed], object]
) -> Iterator[Bed]:
    """A hypervisor killed before the first step of the act, before the second, ..."""
    for number in range(1000):
        top = tmp_path / str(number)
        top.mkdir()
        bed = Bed(top, monkeypatch)
        bed.directory()
        bed.was = bed.seen()
        bed.inode = bed.was["inode"]
        prepare(bed)
        died = killed(number, functools.partial(act, bed))
        yield bed
        shutil.rmtree(top)
        if not died:
            assert number > 20
            return
    raise AssertionError("it never ends")


def restore(bed: Bed) -> dict[str, Any]:
    return bed.restore(bed.inode)


def remove(bed: Bed) -> dict[str, Any]:
    return bed.remove(bed.inode)


def put_aside(bed: Bed) -> None:
    assert bed.quarantine()["outcome"] == "done"


def put_aside_and_lose_the_base(bed: Bed) -> None:
    put_aside(bed)
    bed.base.unlink()


def links(bed: Bed) -> list[Path]:
    return sorted((bed.root / ".cloudfsck").glob("*/backing/*-0123abcd"))


def in_one_place(bed: Bed) -> bool:
    return bed.whole(bed.path) != bed.whole(bed.aside)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_killed_quarantine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool, again: bool) -> None:
    """`again`: the act is asked for once more; `lost`: nova removes the base meanwhile."""
    for bed in each_kill(tmp_path, monkeypatch, Bed.quarantine, Bed.seen):
        assert in_one_place(bed)
        inode = bed.inode
        kept = bool(links(bed))
        if lost:
            bed.base.unlink()
        if again:
            assert bed.quarantine(**bed.was)["outcome"] == "done"
            assert bed.whole(bed.aside)
            assert bool(links(bed)) == (kept or not lost)
        told = bed.restore(inode)
        assert (told["outcome"], told["saw"].get("left")) == ("done", None)
        assert bed.whole(bed.path)
        assert bed.base.exists() == (kept or not lost)
        if bed.base.exists():
            assert bed.base.read_bytes() == b"base" * 5000
            assert bed.base.stat().st_nlink == 1
        assert not any((bed.root / ".cloudfsck").glob("*"))


def test_a_rest_of_a_killed_quarantine_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory has changed since, so the next quarantine is another entry."""
    for bed in each_kill(tmp_path, monkeypatch, Bed.quarantine, Bed.seen):
        if not bed.path.exists():
            continue
        (bed.path / "console.log").write_text("boot")
        told = bed.ask("directory.quarantine", path=str(bed.path), entry="6-2-" + SERVER, was=bed.seen())
        assert told["outcome"] == "done"
        again = bed.restore(bed.inode)
        assert again["outcome"] == "moved"
        assert bed.whole(Path(told["saw"]["path"]))


@pytest.mark.parametrize("prepare", [put_aside, put_aside_and_lose_the_base])
def test_a_killed_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Bed], None]) -> None:
    for bed in each_kill(tmp_path, monkeypatch, restore, prepare):
        assert in_one_place(bed)
        assert bed.base.exists() or links(bed)
        told = restore(bed)
        assert (told["outcome"], told["saw"].get("left")) == ("done", None)
        assert bed.whole(bed.path)
        assert bed.base.read_bytes() == b"base" * 5000
        assert not any((bed.root / ".cloudfsck").glob("*"))


def test_a_killed_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for bed in each_kill(tmp_path, monkeypatch, remove, put_aside):
        # Never half a directory that looks like a whole one.
        if not bed.whole(bed.aside):
            assert bed.restore(bed.inode)["outcome"] != "done"
        assert remove(bed)["outcome"] == "done"
        assert not any((bed.root / ".cloudfsck").glob("*"))
        assert not bed.path.exists()
        assert bed.base.stat().st_nlink == 1
