"""Hostile input is met with one sentence that names the thing and the way out; nothing is lost or half done."""

from __future__ import annotations

import copy
import json
import os
import pty
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import cli, config, journal, plan, remote
from cloudfsck.acts import hand
from cloudfsck.journal import Journal
from cloudfsck.model import Scope, Trouble
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import hypervisors, probe, service
from cloudfsck.state import State
from tests import small, tiny
from tests.bed import MariaDB

ROOT = Path(__file__).resolve().parents[1]


class User:
    """Somebody with a small demo cloud."""

    def __init__(self, folder: Path) -> None:
        self.configuration = small.make(folder / "cloud")
        self.folder = self.configuration.parent
        self.leftover = self.folder / "hosts/compute3/instances" / small.server(small.LEFTOVER).uuid

    def run(self, *words: str, status: int, first: tuple[str, ...] = (), code: str | None = None) -> str:
        """What a command says, which must end with that status and is never a fault of ours."""
        start = ["-m", "cloudfsck"] if code is None else ["-c", code]
        command = [*first, sys.executable, *start, "-c", str(self.configuration), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        said = done.stdout + done.stderr
        assert done.returncode == status, said
        assert "Traceback" not in said, said
        assert "fault of cloudfsck" not in said, said
        return said

    def edit(self, old: str, new: str) -> None:
        text = self.configuration.read_text()
        assert old in text
        self.configuration.write_text(text.replace(old, new))

    def guest(self) -> str:
        """In which state the guest is that should not run."""
        words = [str(self.folder / "hosts/compute1/virsh"), "-q", "domstate", small.server(small.ZOMBIE).uuid]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def untouched(self) -> bool:
        return self.guest() == "running" and self.leftover.exists()


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


# -- the configuration


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[cloud\nname = ", "cloudfsck.toml is not TOML: Expected ']'"),
        (b"\xff\xfe\x00", "cloudfsck.toml is not TOML: 'utf-8' codec"),
        (b"a = " + b"[" * 100_000, "cloudfsck.toml is not TOML: "),
        (b"", "cloudfsck.toml: cloud: is missing"),
    ],
)
def test_a_configuration_that_is_none(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "cloudfsck.toml"
    path.write_bytes(text)
    with pytest.raises(Trouble, match=re.escape(said)):
        config.load(path)


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("section", "key", "url"),
    [
        ("nova", "api_database", f"mysql://nova:{SECRET}@db/nova_api"),
        ("nova", "template", f"mysql://nova:{SECRET}@{{hostname}}/nova"),
        ("nova.cells", "cell1", f"mysql+pymysql://nova:p/#@{SECRET}@db/nova_cell1?charset=utf8"),
        ("cinder", "database", f"mysql://cinder:{SECRET}@db/cinder"),
        ("cloud", "store", f"postgresql://fsck:{SECRET}@db/fsck"),
    ],
)
def test_a_password_that_everybody_can_read_is_refused(tmp_path: Path, section: str, key: str, url: str) -> None:
    tables: dict[str, dict[str, str]] = {
        "cloud": {"name": "x", "state": "state"}, "nova": {"api_database": "mysql://db/nova_api"},
        "hosts": {"transport": "local"},
    }  # fmt: skip
    tables.setdefault(section, {})[key] = url
    path = tmp_path / "cloudfsck.toml"
    path.write_text("".join(
        f"[{name}]\n" + "".join(f"{one} = {json.dumps(value)}\n" for one, value in values.items())
        for name, values in tables.items()
    ))  # fmt: skip
    path.chmod(0o644)
    with pytest.raises(Trouble) as raised:
        config.load(path)
    said = str(raised.value)
    assert said == f"{path} holds a password ({section}.{key}), and everybody can read it: chmod o= {path}"
    path.chmod(0o640)
    assert config.load(path).cloud.name == "x"


def test_what_only_looks_like_a_password_is_none(tmp_path: Path) -> None:
    path = tmp_path / "cloudfsck.toml"
    path.write_text('[cloud]\nname = "x"\nstate = "state"\n[hosts]\ntransport = "local"\n[nova]\n'
                    'api_database = "mysql://[fd00::1]:3306/nova_api"\n'
                    'template = "{scheme}://{username}:{password}@{hostname}:{port}/nova?{query}"\n')  # fmt: skip
    path.chmod(0o644)
    assert config.load(path).nova.template


def test_a_configuration_that_is_refused_ends_with_16(user: User) -> None:
    user.edit('state = "state"', 'state = "state"\nstore = "postgresql://fsck:hunter2@db/fsck"')
    user.configuration.chmod(0o644)
    said = user.run("check", status=16)
    assert "holds a password (cloud.store)" in said
    assert SECRET not in said


def test_a_store_that_is_no_url_does_not_show_its_password(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=r"cloud.store is no database URL; it is written as") as raised:
        State(config.Cloud(name="x", state=tmp_path, store=f"fsck:{SECRET}@db"))
    assert SECRET not in str(raised.value)


# -- what hosts answer


BEGIN, END = "@@cloudfsck {nonce} begin@@\n", "\n@@cloudfsck {nonce} end@@\n"
NONE = "our program did not answer there (status 0): "
ANSWERS = {
    "is no JSON": (BEGIN + "not JSON" + END, "its answer is no JSON: Expecting"),
    "nests without end": (BEGIN + "[" * 200_000 + END, "its answer is no JSON: "),
    "is a list": (BEGIN + "[]" + END, "its answer is no JSON object"),
    "is cut off": (BEGIN + '{{"version": 1, "domains": [', "its answer is cut off after 27 bytes"),
    "is of another request": ("@@cloudfsck 0 begin@@\n{{}}\n@@cloudfsck 0 end@@\n", NONE + "@@cloudfsck 0 end@@"),
    "is nothing": ("", NONE + "nothing said"),
    "would be obeyed by a terminal": ("\x1b]0;owned\x07\x1b[2J", NONE + "?]0;owned??[2J"),
}


def answering(folder: Path, text: str) -> Path:
    """A python that answers so, whatever it is asked."""
    path = folder / "python"
    path.write_text(
        f"#!{sys.executable}\nimport re, sys\n"
        'nonce = re.search(r\'"nonce": "([0-9a-f]+)"\', sys.stdin.read())[1]\n'
        f"sys.stdout.write({text!r}.format(nonce=nonce))\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_none_is_a_gap(tmp_path: Path, name: str) -> None:
    text, said = ANSWERS[name]
    target = remote.Target("c1", "c1", 22, "local", str(answering(tmp_path, text)))
    ((_, answer),) = remote.ask([(target, {})], "", None)
    assert isinstance(answer, remote.Failure)
    assert answer.why.startswith(f"here: {said}"), answer.why
    assert len(answer.why) < 400
    assert answer.why.isprintable()
    ((*pieces,),) = hypervisors.read([(target, {})], None, Scope())
    assert {piece.table for piece in pieces} == set(hypervisors.PARTS)
    assert all(piece.rows is None and piece.why == answer.why for piece in pieces)


@pytest.mark.parametrize(
    ("known", "said", "same"),
    [
        ("hv1", "hv1", True), ("hv1.a.example", "HV1.a.example.", True), ("hv1.a.example", "hv1", True),
        ("hv1", "hv1.a.example", True), ("hv1.a.example", "hv1.b.example", False), ("hv1", "hv11", False),
        ("hv1.a.example", "hv2.a.example", False), ("hv1", "", False), ("hv1", "localhost", False),
    ],
)  # fmt: skip
def test_by_which_names_a_machine_is_known(known: str, said: str, same: bool) -> None:
    answer = {"hostname": said, "canonical": said}
    (*pieces,) = hypervisors._pieces("c1", answer, service.now(), None, known)
    believed = not any("answers as" in str(piece.why) for piece in pieces)
    assert believed is same


def test_a_machine_of_another_name_is_not_believed_unless_the_configuration_says_so(user: User) -> None:
    name = user.folder / "hosts/compute1/proc/sys/kernel/hostname"
    name.write_text("stranger\n")
    user.edit(str(user.folder / "hosts/compute3/bin/python3"), str(answering(user.folder, BEGIN)))
    gaps = {gap["part"]: gap["why"] for gap in json.loads(user.run("snapshot", "--format", "json", status=8))["gaps"]}
    assert gaps == {
        "compute1": "it answers as 'stranger', and is known as 'hv11.rack.example': see its address; if it is the right"
        ' machine, say hostname = "stranger" under [host.compute1]',
        "compute3": "here: its answer is cut off after 0 bytes (status 0)",
    }
    assert "0 acts" in user.run("repair", "--yes", status=8)
    assert user.untouched()
    user.edit("[host.compute1]", '[host.compute1]\nhostname = "stranger"')
    assert "1 of 1 acts done" in user.run("repair", "--yes", status=9)
    assert (user.guest(), user.leftover.exists()) == ("paused", True)


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON text."""
    if at:
        yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield from leaves(below, (*at, key))


def spoilt(value: Any, junk: list[Any]) -> Iterator[Any]:
    """The JSON with one value after the other replaced by each of these, and taken away."""
    for at in leaves(value):
        for worse in [*junk, None]:
            one = copy.deepcopy(value)
            inner = one
            for key in at[:-1]:
                inner = inner[key]
            if worse is None:
                del inner[at[-1]]
            else:
                inner[at[-1]] = worse
            yield one


def test_no_answer_of_a_host_is_a_fault_of_ours(user: User) -> None:
    settings = config.load(user.configuration)
    place = settings.place("compute3")
    target = remote.Target("compute3", "compute3", 22, "local", sys.executable)
    request = {"version": 1, "virsh": place.virsh, "ovs_vsctl": place.ovs_vsctl, "nova_conf": place.nova_conf,
               "proc": place.proc, "servers": [small.server(small.LEFTOVER).uuid]}  # fmt: skip
    program = Path(probe.__file__).read_text()
    ((_, answer),) = remote.ask([(target, request)], program, None)
    assert isinstance(answer, dict)
    taken = Snapshot.create()
    # One row of each list says as much as all of them.
    for _, value in list(answer.items()):
        if isinstance(value, list):
            del value[1:]
    for key, value in list(answer["instances"].items()):
        if isinstance(value, list):
            answer["instances"][key] = value[:1]
    pieces = [
        piece
        for one in spoilt(answer, [{}, [[]], "\udcff", 1e308, -(2**70), True, "../../../etc"])
        for piece in hypervisors._pieces("compute3", one, service.now(), None, "hv13.rack.example")
    ]
    assert len({str(piece.why) for piece in pieces}) > 20
    for piece in pieces[:: len(pieces) // 200]:
        taken.add([piece])
    taken.close()


# -- the XML of domains


LAUGHS = '<!DOCTYPE domain [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12)
) + "]><domain><name>&m;</name></domain>"  # fmt: skip
EXTERNAL = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>'


@pytest.mark.parametrize("text", [LAUGHS, EXTERNAL, "<?xml version='1.0'?>\n" + LAUGHS])
def test_no_entity_of_a_domain_is_expanded(text: str) -> None:
    begun = time.monotonic()
    for program in (probe, hand):
        with pytest.raises(ElementTree.ParseError, match="it has a DOCTYPE, which libvirt never writes"):
            program.xml_tree(text)
    lists = {key: {"u"} for key in ("all", "active", "persistent", "autostart", "managed_save")}
    with pytest.raises(probe.Unread, match="domain u: virsh dumpxml gives no XML: it has a DOCTYPE"):
        probe.describe("u", {"state": "running (booted)", "live": text}, lists, "")
    with pytest.raises(hand.Failed, match="virsh dumpxml gives no XML: it has a DOCTYPE"):
        hand.parse_xml(text)
    assert time.monotonic() - begun < 20


def test_the_encoding_that_xml_names_hides_nothing() -> None:
    text = "<?xml version='1.0' encoding='utf-7'?><domain><name>+ADw-x+AD4-é</name></domain>"
    for program in (probe, hand):
        assert program.xml_tree(text).findtext("name") == "+ADw-x+AD4-é"


# -- names


@pytest.mark.parametrize("name", ["../../../../etc", "6c48ad26-7dab-5807-85cd-beb4c5e76c69\n", "--help", "a;reboot"])
def test_no_act_takes_a_name_that_is_no_uuid(tmp_path: Path, name: str) -> None:
    told = hand.answer({
        "version": 1, "cloud": "x", "fence": 1, "state_dir": str(tmp_path / "never"),
        "act": {"do": "domain.pause", "server": name, "was": {"id": 1, "state": "running", "persistent": True}},
    })  # fmt: skip
    assert (told["outcome"], told["changed"], told["why"]) == ("failed", False, f"{name!r} is not a server")
    assert not (tmp_path / "never").exists()


def test_links_and_paths_in_the_place_of_servers_are_left_alone(user: User, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    shutil.move(user.leftover, precious)
    user.leftover.symlink_to(precious)
    with sqlite3.connect(user.folder / "databases/nova_cell1.sqlite") as db:
        db.execute(
            "UPDATE instances SET uuid = '../../../../../../../../../precious' WHERE display_name = ?", [small.ZOMBIE]
        )
    db.close()
    user.run("repair", "--yes", status=4)
    assert user.untouched()
    assert user.leftover.is_symlink()
    assert (precious / "disk").exists()


def test_a_terminal_obeys_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    cli.out.print("web-1\x1b[2J\x1b]0;owned\u202eevil\x9b [red]", markup=False)
    assert capsys.readouterr().out == "web-1\\x1b[2J\\x1b]0;owned\\u202eevil\\x9b [red]\n"


# -- plans and journals


def test_a_plan_edited_into_nonsense_does_nothing_else(tmp_path: Path) -> None:
    cloud = tiny.Cloud(tmp_path)
    path = tmp_path / "plan.json"
    plan.save(cloud.plan(), path)
    whole = json.loads(path.read_text())
    whole["acts"] = whole["acts"][:1]
    known, refused = list(tiny.CHECKS), []
    for one in spoilt(whole, [7, "x", "../../etc", [], {}, [["x"]], True, -1, "\x00"]):
        path.write_text(json.dumps(one))
        try:
            made = plan.load(path, "tiny", known)
        except Trouble as error:
            refused.append(str(error))
            continue
        if (
            made.entries
            and made.entries[0].act.server == "s-1"
            and str(made.entries[0].act) == whole["acts"][0]["text"]
        ):
            continue  # the very act, only its surroundings were edited
        assert {outcome for outcome, _ in cloud.apply(made)} <= {"moved"}
    assert len(refused) > 50
    assert all("as cloudfsck writes it" in said or "there is no act" in said or str(path) in said for said in refused)
    assert cloud.sent == []


@pytest.mark.parametrize("text", [b"[" * 200_000, b"\xff", b"", b"[]", b"null", b"3"])
def test_a_plan_that_is_none(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text)
    with pytest.raises(Trouble, match=re.escape(f"the plan {path} is not ")):
        plan.load(path, "tiny", [])


def test_a_plan_of_an_older_reading_is_gated_like_any(tmp_path: Path) -> None:
    cloud = tiny.Cloud(tmp_path)
    plan.save(cloud.plan(), tmp_path / "plan.json")
    assert cloud.apply(cloud.plan()) == [("done", "s-1"), ("done", "s-3")]
    old = plan.load(tmp_path / "plan.json", "tiny", list(tiny.CHECKS))
    assert cloud.apply(old) == [("moved", "s-1"), ("moved", "s-3")]


ACT = '{"event": "begin", "n": 3, "check": "x", "key": "y", "at": "", "act": '
EDITED = {
    "5": "line 6 is no event",
    '{"event": "begin"}': "line 6 is no event",
    '{"n": 1}': "line 6 is no event",
    '{"event": "begin", "n": 3}': "KeyError 'check'",
    ACT + '{"act": "no"}}': "there is no act 'no'",
    ACT + "3}": "TypeError",
    '{"torn\n{"event": "begin", "n": 3}': "line 6 is no JSON",
    "[" * 100_000 + '\n{"event": "done", "n": 1}': "line 6 is no JSON",
}


def test_a_journal_edited_into_nonsense_stops_everything(tmp_path: Path) -> None:
    cloud = tiny.Cloud(tmp_path)
    made = cloud.plan()
    cloud.apply(made)
    (run,) = journal.runs(tmp_path)
    path = tmp_path / f"journal/{run}.jsonl"
    whole = path.read_text()
    for line, said in EDITED.items():
        path.write_text(whole + line + "\n")
        with pytest.raises(Trouble, match=re.escape(f"the journal {path} is not as cloudfsck wrote it")) as raised:
            journal.read(tmp_path, run)
        assert said in str(raised.value)
        assert "bring it back from a backup, or move it away" in str(raised.value)
        with pytest.raises(Trouble, match=re.escape(str(raised.value))):
            cloud.apply(made)
    assert len(cloud.sent) == 2


# -- a full disk


#: A mount that nobody else sees, of so many bytes, over a directory; then the command.
TINY = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"', "sh")


def mounts() -> bool:
    done = subprocess.run([*TINY, "4k", "/tmp", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not mounts(), reason="this machine lets nobody mount")
@pytest.mark.parametrize(
    ("size", "words", "said"),
    [
        ("4k", ("check",), "the state store {state}/state.sqlite cannot be used: database or disk is full"),
        (
            "600k",
            ("check",),
            "the snapshot cannot be written in {state}/snapshots, and nothing was done: No space left",
        ),
        ("600k", ("repair", "--yes"), "the snapshot cannot be written in {state}/snapshots, and nothing was done"),
    ],
)
def test_a_full_disk_is_said_and_nothing_is_done(user: User, size: str, words: tuple[str, ...], said: str) -> None:
    state = user.folder / "state"
    state.mkdir()
    assert said.format(state=state) in user.run(*words, status=8, first=(*TINY, size, str(state)))
    assert user.untouched()


@pytest.mark.skipif(not mounts(), reason="this machine lets nobody mount")
def test_without_room_for_a_journal_nothing_is_sent(user: User) -> None:
    place = user.folder / "state/journal"
    place.mkdir(parents=True)
    full = f'dd if=/dev/zero of={place}/filler bs=4096 count=1 2>/dev/null; exec "$@"'
    first = (*TINY, "4k", str(place), "sh", "-c", full, "sh")
    said = user.run("repair", "--yes", status=8, first=first)
    assert re.search(rf"the journal {place}/\S+ cannot be written, and without it nothing is done: No space left", said)
    assert user.untouched()


def test_a_line_of_the_journal_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    book = Journal(tmp_path, "run-1", {})
    length = book.path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length + 20, hard))
    try:
        with pytest.raises(Trouble, match="cannot be written, and without it nothing is done: File too large"):
            book.end(1, "done", "", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert book.path.stat().st_size == length
    book.end(1, "done", "", {})
    assert [json.loads(line)["event"] for line in book.path.read_text().splitlines()] == ["run", "done"]
    book.close()


def test_a_plan_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("an older one")
    made = tiny.Cloud(tmp_path / "state").plan()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(Trouble, match=re.escape(f"the plan cannot be written to {path}: File too large")):
            plan.save(made, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "an older one"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["plan.json", "state"]


def test_output_that_goes_nowhere_is_said(user: User) -> None:
    command = [sys.executable, "-m", "cloudfsck", "checks", "--format", "json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (
        8, "cloudfsck: where the output goes cannot be written: No space left on device\n",
    )  # fmt: skip


# -- Ctrl-C


INTERRUPTED = """\
import os, signal, sys
from cloudfsck import apply, cli, proof
from cloudfsck.acts import hypervisor
from cloudfsck.sources import hypervisors

signal.signal(signal.SIGINT, signal.default_int_handler)
where = sys.argv.pop(1)
module, name = {"reading": (hypervisors, "read"), "proving": (proof, "reread"), "between": (apply, "_gate"),
                "act": (hypervisor, "send"), "act twice": (hypervisor, "send")}[where]
original, count = getattr(module, name), 0

def interrupted(*given, **named):
    global count
    count += 1
    if count == (2 if where == "between" else 1):
        os.kill(os.getpid(), signal.SIGINT)
    if where == "act twice":
        os.kill(os.getpid(), signal.SIGINT)
    return original(*given, **named)

setattr(module, name, interrupted)
cli.main()
"""


@pytest.mark.parametrize("where", ["reading", "proving", "between", "act", "act twice"])
def test_ctrl_c_stops_at_once_and_lets_an_act_end(user: User, where: str) -> None:
    code = INTERRUPTED.replace("sys.argv.pop(1)", repr(where))
    said = user.run("repair", "--yes", status=32, code=code)
    assert said.endswith("cancelled\n"), said
    assert list((user.folder / "state/snapshots").glob("*.partial*")) == []
    if where in ("act", "between"):  # one has ended, and the other was not begun
        assert ("stopping when this act has ended" in said) == (where == "act")
        assert "1 acts were done; `cloudfsck undo` lists what can be taken back" in said
        assert (user.guest(), user.leftover.exists()) == ("paused", True)
    else:
        assert user.untouched()
    if where == "act twice":
        assert "What became of the one that was under way is not known" in said
        user.run("repair", "--yes", status=5)  # all but that one, which is frozen
        assert (user.guest(), user.leftover.exists()) == ("running", False)


def test_ctrl_c_at_the_question(user: User) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background are told to ignore it
        words = [sys.executable, "-m", "cloudfsck", "-c", str(user.configuration), "repair"]
        os.execv(sys.executable, words)
    said = b""
    while b"to go on" not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    with suppress(OSError):  # so ends a terminal
        while more := os.read(terminal, 4096):
            said += more
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 32
    assert said.rstrip().endswith(b"cancelled")
    assert user.untouched()


# -- databases


@pytest.mark.real
def test_a_database_that_refuses_or_is_down(user: User, tmp_path: Path) -> None:
    with MariaDB(tmp_path / "mariadb") as server:
        server.create("nova_api")
        secret = tmp_path / "password"
        secret.write_text("wr0ng-p@ss\n")
        text = re.sub(r"(?m)^api_database = .*$", f'api_database = "mysql://127.0.0.1:{server.port}/nova_api"',
                      user.configuration.read_text())  # fmt: skip
        text += f'\n[read.database]\nuser = "{server.reader.user}"\npassword_file = "{secret}"\n'
        user.configuration.write_text(text)
        said = user.run("doctor", status=8)
        assert f"access denied for user '{server.reader.user}'" in said
        assert "(check [read.database])" in said
        assert "wr0ng" not in said
        server.stop()
        said = user.run("repair", "--yes", status=8)
        assert f"127.0.0.1:{server.port}" in said
        assert "wr0ng" not in said
    assert user.untouched()
