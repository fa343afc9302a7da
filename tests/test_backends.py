"""The storage backends' own listings: the program that lists them, its answers as a snapshot, and a real Ceph."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import checking, checks, proof, scenario
from cloudfsck.config import Backend, Config
from cloudfsck.model import Piece, Scope
from cloudfsck.remote import Failure, Target
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import Roster, Sources, backends, images
from tests.bed.ceph import Ceph
from tests.bed.programs import end

CHECKS = checks.load()
SOURCE = Path(images.__file__)
U = [f"11111111-0000-4000-8000-00000000000{number}" for number in range(10)]
NOW = scenario.NOW

# -------------------------------------------------------------------------------------------------- the program

#: Everything of Python's that changes something; test_probe.py has the same of the program for hypervisors.
WRITES = """
    unlink remove rmdir removedirs rename renames replace mkdir makedirs mkfifo mknod symlink link truncate ftruncate
    chmod fchmod chown fchown lchown utime setxattr removexattr kill killpg system popen Popen call check_call
    check_output getoutput execv execve execvp fork forkpty spawn posix_spawn exec eval compile open fdopen
"""


def test_the_program_contains_no_call_that_writes() -> None:
    runs = []
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            assert not names & {"shutil", "tempfile", "pathlib", "fcntl", "mmap", "ctypes", "signal"}
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        whole = ast.unparse(node)
        if name == "write":
            assert whole.startswith("sys.stdout.write(")
        elif name in ("compile", "replace"):
            assert whole.startswith("re.compile(") or ".replace(tzinfo=" in whole, whole
        else:
            assert name not in WRITES.split(), whole
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "subprocess":
            runs.append(whole)
    assert len(runs) == 1
    assert runs[0].startswith("subprocess.run(argv, stdin=subprocess.DEVNULL")


def test_the_program_runs_on_old_machines() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    assert SOURCE.read_text().isascii()
    assert not re.search(r"removesuffix|removeprefix|capture_output|text=True|functools.cache", SOURCE.read_text())


def test_nothing_is_asked_of_rbd_that_changes_anything() -> None:
    assert [" ".join(question) for question in images.ASKING] == [
        "ls", "trash ls", "info", "snap ls --all", "children --all", "status",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "volume", "server"),
    [
        (f"volume-{U[1]}", U[1], None),
        (f"{U[1]}_disk", None, U[1]),
        (f"{U[1]}_disk.config", None, U[1]),
        (f"{U[1]}_disk.eph0", None, U[1]),
    ],
)
def test_an_image_is_known_by_its_name(name: str, volume: str | None, server: str | None) -> None:
    assert images.named(name) == {"name": name, "volume": volume, "server": server}


@pytest.mark.parametrize(
    "name",
    [
        U[1], f"volume-{U[1]}.deleted", f"volume-{U[1]}.backup.base", f"volume-{U[1]}\n", f"snapshot-{U[1]}",
        f"_snapshot-{U[1]}", f"volume-{U[1]}-cow", f"{U[1]}_disk/x", f"x{U[1]}_disk", f"{U[1]}_diskette", "volume-1",
        f"volume-{U[1].upper().replace('1', 'A')}", "csi-vol-1", f"image-volume-{U[1]}", "",
    ],
)  # fmt: skip
def test_other_names_are_nobodys(name: str) -> None:
    assert images.named(name) is None


@pytest.mark.parametrize("wrong", ["--mon-host=x", "-p", "a b", "a;b", "$(x)", "", None, 7, "a\n"])
@pytest.mark.parametrize("key", ["user", "conf", "pools"])
def test_no_option_comes_in_by_the_request(key: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if (key, wrong) == ("conf", None):
        return  # Ceph's own default
    ran: list[object] = []
    monkeypatch.setattr(images, "run", lambda *given: ran.append(given))
    given = {"version": 1, "kind": "rbd", "user": "u", "conf": None, "pools": ["p"], "ids": None}
    said = images.answer({**given, key: [wrong] if key == "pools" else wrong})
    assert "is no name" in said["failed"]["images"]
    assert ran == []
    assert said["images"] is None


class Recorded:
    """An rbd, or an lvs, that answers as a real one did."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.answers: dict[str, Any] = json.loads((Path(__file__).parent / "probe_samples/images.json").read_text())
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        for name in ("rbd", "lvs"):
            program = folder / name
            program.write_text(RECORDED.format(python=sys.executable, folder=folder))
            program.chmod(0o755)

    def ask(self, kind: str, ids: list[str] | None = None, **more: Any) -> dict[str, Any]:
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        given = {
            "version": 1,
            "user": "cloudfsck",
            "conf": None,
            "pools": ["volumes", "vms"],
            "group": "cinder-volumes",
        }
        return images.answer({**given, "kind": kind, "ids": ids, **more})

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


RECORDED = """#!{python}
import json, os, sys
name = os.path.basename(sys.argv[0])
words = " ".join(word for word in sys.argv[1:] if not word.startswith(("--id=", "--format=", "--conf=")))
open({folder!r} + "/calls", "a").write(name + " " + words + "\\n") if name else None
answers = json.load(open("{folder}/answers.json"))
answer = answers.get(name + " " + words, [2, "", "rbd: error opening image x: (2) No such file or directory"])
sys.stdout.write(answer[1])
sys.stderr.write(answer[2])
raise SystemExit(answer[0])
""".replace("{folder!r}", '"{folder}"')


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(tmp_path, monkeypatch)


def test_a_whole_listing_asks_for_names_alone(recorded: Recorded) -> None:
    said = recorded.ask("rbd")
    assert said["failed"] == {}
    assert {(one["pool"], one["name"]) for one in said["images"] if one["trash"] is None} == {
        ("volumes", f"volume-{U[1]}"), ("volumes", f"volume-{U[2]}"), ("vms", f"{U[3]}_disk"),
    }  # fmt: skip
    assert [(one["name"], one["volume"]) for one in said["images"] if one["trash"]] == [(f"volume-{U[4]}", U[4])]
    assert (said["listed"], said["volumes"]) == (6, 2)
    assert "uses" not in said
    assert sorted(set(recorded.calls())) == ["rbd ls vms", "rbd ls volumes", "rbd trash ls vms", "rbd trash ls volumes"]


def test_what_is_asked_for_is_looked_at(recorded: Recorded) -> None:
    said = recorded.ask("rbd", [U[1], U[3], U[4]])
    assert said["failed"] == {}
    one, other = sorted(said["uses"], key=lambda use: str(use["pool"]))
    assert (one["server"], one["snapshots"], one["children"], one["parent"]) == (U[3], [], [], None)
    assert re.fullmatch(r"127\.0\.0\.1:0/\d+", one["watchers"][0])
    assert (other["volume"], other["snapshots"], other["children"]) == (
        U[1],
        ["snapshot-x"],
        [f"volumes/volume-{U[2]}"],
    )
    assert other["watchers"] == []
    assert other["bytes"] == 16 << 20
    assert len(said["images"]) == 3, "what is in the trash is told, and not looked at"
    (clone,) = recorded.ask("rbd", [U[2]])["uses"]
    assert clone["parent"] == f"volumes/volume-{U[1]}@snapshot-x"


def test_an_image_that_goes_meanwhile_is_gone(recorded: Recorded) -> None:
    del recorded.answers[f"rbd status volumes/volume-{U[1]}"]
    said = recorded.ask("rbd", [U[1], U[2]])
    assert said["failed"] == {}
    assert [one["volume"] for one in said["uses"]] == [U[2]]
    assert [one["volume"] for one in said["images"]] == [U[2]]


@pytest.mark.parametrize("answer", [
    [2, "", "rbd: error opening pool 'volumes': (2) No such file or directory"],
    [1, "", "rbd: couldn't connect to the cluster!"],
    [0, "", ""],
    [0, "{}", ""],
    [0, "[", ""],
])  # fmt: skip
def test_what_cannot_be_read_is_said_and_nothing_is_missing(recorded: Recorded, answer: list[Any]) -> None:
    recorded.answers[f"rbd status volumes/volume-{U[1]}"] = answer
    said = recorded.ask("rbd", [U[1], U[2]])
    assert list(said["failed"]) == ["uses"]
    assert said["uses"] is None
    assert len(said["images"]) == 2
    recorded.answers["rbd ls volumes"] = answer if answer[1] != "{}" else [0, '{"a": 1}', ""]
    if answer[1] != "{}":
        said = recorded.ask("rbd", [U[1]])
        assert list(said["failed"]) == ["images"]
        assert said["images"] is None


def test_a_machine_without_rbd_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(images, "CONTAINERS", [])
    monkeypatch.setattr(images, "run", _absent)
    given = {"version": 1, "kind": "rbd", "user": "u", "conf": None, "pools": ["p"], "ids": None}
    assert images.answer(given)["failed"] == {"images": "rbd is not installed"}


def _absent(argv: list[str], seconds: float) -> str:
    raise images.Unread(f"{argv[0]} is not installed")


def test_a_group_of_lvm_is_told_at_once(recorded: Recorded) -> None:
    said = recorded.ask("lvm")
    assert said["failed"] == {}
    uses = {one["name"]: one for one in said["uses"]}
    assert set(uses) == {*(f"volume-{U[number]}" for number in (1, 2, 3, 4)), f"{U[9]}_disk"}
    assert (said["listed"], said["volumes"]) == (6, 4)
    assert uses[f"volume-{U[2]}"]["snapshots"] == [f"_snapshot-{U[7]}"]
    # Of one that is not active LVM does not know whether it is open: it counts as used.
    assert [number for number in (1, 2, 3, 4) if uses[f"volume-{U[number]}"]["watchers"]] == [3, 4]
    assert uses[f"volume-{U[1]}"]["bytes"] == 4 << 20
    assert {use["volume"] for use in recorded.ask("lvm", [U[1]])["uses"]} == {U[1]}
    said = recorded.ask("lvm", group="nogroup")
    assert "nogroup" in said["failed"]["images"]


# ------------------------------------------------------------------------------------------------- its answers

RBD = Backend(kind="rbd", host="here", pools=["volumes", "vms"], cinder_backend="ceph")


def pieces(answer: Any, keys: frozenset[str] | None = None) -> dict[str, Piece]:
    return {piece.table: piece for piece in backends._pieces("b", RBD, answer, NOW, keys)}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Failure("away", False), "away"),
        ({}, "its key must force images.py"),
        ({"images": None, "failed": {"images": "no pool"}, "clock": 1.0}, "no pool"),
        ({"images": [], "failed": {}, "clock": 1.0}, "not understood"),
        ({"images": [{"name": "x"}], "failed": {}, "clock": 1.0, "listed": 1, "volumes": 0}, "not understood"),
        ({"images": 7, "failed": {}, "clock": 1.0, "listed": 1, "volumes": 0}, "not understood"),
        ({"images": [], "failed": [], "clock": "x", "listed": 1, "volumes": 0}, "not understood"),
    ],
)
def test_what_is_no_answer_is_a_gap(answer: Any, why: str) -> None:
    found = pieces(answer)
    assert set(found) == set(backends.PARTS)
    for piece in found.values():
        assert piece.rows is None
        assert why in str(piece.why)


def test_details_that_were_not_asked_for_are_no_piece() -> None:
    answer = {"images": [], "failed": {}, "clock": 1.0, "listed": 0, "volumes": 0}
    assert set(pieces(answer)) == {"backends", "backend_images"}
    assert pieces({**answer, "uses": []}, frozenset({"x"}))["backend_image_uses"].keys == frozenset({"x"})
    assert pieces({**answer, "failed": {"uses": "away"}})["backend_image_uses"].why == "away"


# --------------------------------------------------------------------------------------------------- a real Ceph


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    with Ceph(tmp_path_factory.mktemp("ceph")) as made:
        yield made


@pytest.fixture
def sources(ceph: Ceph, tmp_path: Path) -> Sources:
    return Sources(Config.model_validate({
        "cloud": {"name": "c", "state": tmp_path},
        "nova": {"api_database": "sqlite://"},
        "hosts": {"transport": "local", "python": sys.executable},
        "backend": {"ceph": {
            "kind": "rbd", "host": "here", "pools": list(ceph.pools), "user": ceph.reader, "conf": str(ceph.conf),
            "cinder_backend": "ceph",
        }},
    }))  # fmt: skip


WORLD = f"""
    hosts cell1      c1
    nova_instances   cell   uuid    host  deleted  deleted_at  cleaned
                     cell1  {U[3]}  c1    1        -9d         1
                     cell1  {U[4]}  c1    0        -           0
                     cell1  {U[5]}  c1    5        -9d         1
    cinder_volumes   id      _name_id  host         status     deleted  deleted_at  updated_at
                     {U[1]}  -         c1@ceph#p    deleted    true     -9d         -9d
                     {U[2]}  -         c1@ceph#p    available  false    -           -9d
                     {U[6]}  -         c1@ceph#p    available  false    -           -9d
                     {U[7]}  -         c1@ceph#p    deleted    true     -9d         -9d
    """


def of_images(snapshot: Snapshot) -> dict[str, tuple[str, str]]:
    """What the checks of images find."""
    return {
        finding.key: (name, finding.state)
        for name, check in CHECKS.items()
        if "image-of-" in name or "without-image" in name
        for finding in checking.run(name, check, snapshot).findings
    }


def read_whole(sources: Sources) -> Snapshot:
    """The world, with the listing of the real Ceph as a whole reading makes it."""
    snapshot = scenario.build(WORLD)
    snapshot.add(sources._backends(Roster({}), Scope()))
    scope = Scope(frozenset(), None, backends.suspects(snapshot))
    snapshot.add(backends.uses(sources._backends(Roster({}), scope)))
    return snapshot


@pytest.mark.real
def test_leftovers_on_a_real_ceph_are_found_and_used_ones_are_not(ceph: Ceph, sources: Sources) -> None:
    left, disk = ceph.image(f"volumes/volume-{U[1]}"), ceph.image(f"vms/{U[3]}_disk")
    used, other = ceph.image(f"vms/{U[5]}_disk"), ceph.image(f"volumes/volume-{U[7]}")
    for name in (f"volumes/volume-{U[2]}", f"vms/{U[4]}_disk", f"volumes/volume-{U[8]}", "volumes/csi-vol-1"):
        ceph.image(name)
    ceph.rbd("snap", "create", f"{other}@snapshot-x")
    ceph.rbd("clone", f"{other}@snapshot-x", f"volumes/volume-{U[9]}", "--rbd-default-clone-format", "2")
    holder = ceph.watch(used)
    snapshot = read_whole(sources)
    assert snapshot.heard().gaps == {}
    expected = {
        f"ceph/{left}": ("cinder-image-of-deleted-volume", "seen"),
        f"ceph/{disk}": ("nova-image-of-deleted-server", "seen"),
        U[6]: ("cinder-volume-without-image", "seen"),
    }
    assert of_images(snapshot) == expected

    # A scope's reading says the same of it, and the names that were not asked for are not there.
    for key, (name, _) in expected.items():
        (found,) = (one for one in checking.run(name, CHECKS[name], snapshot).findings if one.key == key)
        again = scenario.build(WORLD)
        again.add(sources._backends(Roster({}), proof.scope([found], CHECKS)))
        (same,) = (one for one in checking.run(name, CHECKS[name], again).findings if one.key == key)
        assert (dict(same.row), same.state) == (dict(found.row), "seen")

    # Its user lets go of it, and it is left over; the other is moved into the trash by the command that is told.
    end(holder, signal.SIGKILL)
    ceph.ceph("osd", "blocklist", "clear")
    assert not read_whole(sources).rows("SELECT 1 FROM backend_image_uses WHERE len(watchers) > 1")
    name = "nova-image-of-deleted-server"
    (found,) = (one for one in checking.run(name, CHECKS[name], snapshot).findings if one.key == f"ceph/{disk}")
    tell = CHECKS[name].commands
    assert tell is not None
    commands = list(tell(found.row))
    (move,) = (line.partition(": rbd ")[2] for line in commands if "trash mv" in line)
    ceph.rbd(*(word.replace("_", " ") for word in move.replace("'30 days'", "30_days").split()[:-1]), disk)
    assert f"ceph/{disk}" not in of_images(read_whole(sources))
    (thrown,) = json.loads(ceph.rbd("trash", "ls", "vms", "--format", "json"))
    ceph.rbd("trash", "restore", f"vms/{thrown['id']}")
    assert f"ceph/{disk}" in of_images(read_whole(sources))


@pytest.mark.real
def test_the_reader_of_a_real_ceph_can_write_nothing(ceph: Ceph) -> None:
    name = ceph.image(f"volumes/volume-{U[0]}")
    for words in (
        ("rm", name),
        ("trash", "mv", name),
        ("snap", "create", f"{name}@x"),
        ("create", "vms/x", "--size", "1M"),
    ):
        with pytest.raises(Exception, match="not permitted"):
            ceph.rbd("--id", ceph.reader, *words)


@pytest.mark.real
def test_a_ceph_that_does_not_know_us_is_a_gap(sources: Sources) -> None:
    stranger = sources.config.backend["ceph"].model_copy(update={"user": "stranger"})
    sources = replace(sources, config=sources.config.model_copy(update={"backend": {"ceph": stranger}}))
    snapshot = scenario.build(WORLD)
    snapshot.add(sources._backends(Roster({}), Scope()))
    assert {gap.table for gap in snapshot.heard().gaps.values()} == set(backends.PARTS)
    assert of_images(snapshot) == {}
    here = Target("ceph", "here", 22, "local", sys.executable)
    nowhere = list(backends.read([(here, stranger.model_copy(update={"pools": ["nopool"]}))], None, Scope()))
    assert all(piece.rows is None for piece in nowhere)
