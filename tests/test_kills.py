"""The command is killed after every line of its journal, and in the midst of every act; begun again, it comes to the
same end.  And a database that was restored from a dump, between two runs, lets nothing be done."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests import small

#: The command line in a process that kills itself: after the nth line of its journal, or after the nth order to a host.
KILLING = """\
import os, signal, sys
from cloudfsck import cli
from cloudfsck.acts import hypervisor
from cloudfsck.journal import Journal

what, at = sys.argv.pop(1).split()
left = int(at)

def killing(original):
    def stepping(*given):
        global left
        result = original(*given)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return stepping

if what == "line":
    Journal._write = killing(Journal._write)
else:
    hypervisor.send = killing(hypervisor.send)
cli.main()
"""


class Cloud:
    """A small demo cloud, its user, and a record of every command that changed something on a host."""

    def __init__(self, folder: Path) -> None:
        self.configuration = small.make(folder / "cloud")
        self.folder = self.configuration.parent
        self.log = folder / "log"
        self.log.touch()
        for host in small.HOSTS:
            script = self.folder / "hosts" / host / "virsh"
            first, rest = script.read_text().split("\n", 1)
            verbs = "|".join(f'*" {verb} "*' for verb in ("suspend", "resume", "destroy", "undefine"))
            noting = f'case " $* " in {verbs}) echo "$*" >>{self.log};; esac'
            script.write_text(f"{first}\n{noting}\n{rest}")
        self.zombie, self.leftover = small.server(small.ZOMBIE).uuid, small.server(small.LEFTOVER).uuid
        self.place = self.folder / "hosts/compute3/instances" / self.leftover
        self.state = self.folder / "state/state.sqlite"

    def __call__(self, *words: str, kill: str | None = None) -> subprocess.CompletedProcess[str]:
        start = ["-m", "cloudfsck"] if kill is None else ["-c", KILLING, kill]
        command = [sys.executable, *start, "-c", str(self.configuration), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert "fault of cloudfsck" not in done.stderr, done.stderr
        return done

    def check(self) -> Any:
        return json.loads(self("check", "--format", "json").stdout)

    def later(self) -> None:
        """Time passes: what was frozen may be touched again, and the lease of one who was killed has ended."""
        with sqlite3.connect(self.state) as db:
            for table in ("frozen", "lease"):
                db.execute(f"UPDATE {table} SET until = '2020-01-01 00:00:00.000000'")
        db.close()

    def domain(self) -> str:
        script = self.folder / "hosts/compute1/virsh"
        said = subprocess.run([script, "-q", "domstate", self.zombie], capture_output=True, text=True, check=False)
        return said.stdout.strip()

    def quarantined(self) -> list[Path]:
        return sorted(self.folder.glob(f"hosts/compute3/instances/.cloudfsck/*/tree/{self.leftover}"))

    def changes(self) -> Counter[str]:
        """How often each command that changes something was given."""
        verbs = (
            re.search(r"\b(suspend|resume|destroy|undefine)\b", line) for line in self.log.read_text().splitlines()
        )
        return Counter(verb[1] for verb in verbs if verb)

    def runs(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("state/journal/*.jsonl"))

    def last_lines(self) -> Iterator[str]:
        """The event, and the act, with which each journal ends."""
        for run in self.runs():
            lines = [json.loads(line) for line in (self.folder / f"state/journal/{run}.jsonl").read_text().splitlines()]
            acts = {line["n"]: line["act"]["act"] for line in lines if line["event"] == "begin"}
            yield f"{lines[-1]['event']} {acts.get(lines[-1].get('n'), '')}".strip()


def killed_at(cloud: Cloud, points: Sequence[str], *words: str) -> set[str]:
    """Run the command until there is nothing left for it to do, each time killed at the next point; how the journals
    of the killed ended."""
    ends: set[str] = set()
    ahead = list(points)
    quiet = 0
    for _ in range(16):
        before = set(cloud.runs())
        done = cloud(*words, "--yes", kill=ahead[0] if ahead else "line 99")
        if done.returncode == -9:
            killed = set(cloud.runs()) - before
            ends |= {end for run, end in zip(cloud.runs(), cloud.last_lines(), strict=True) if run in killed}
            del ahead[0]
            quiet = 0
        elif quiet or set(cloud.runs()) == before:
            return ends
        else:  # it may only have waited for what was frozen
            quiet += 1
        cloud.later()
    raise AssertionError(f"it never ends: {done.stdout}{done.stderr}")


def wait(cloud: Cloud, paused: object) -> None:
    """Say how long a domain stays paused before `repair` stops it."""
    text = cloud.configuration.read_text()
    cloud.configuration.write_text(re.sub(r"(?m)^paused = .*$", f"paused = {json.dumps(paused)}", text))


def test_a_killed_repair_and_a_killed_undo(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    wait(cloud, "1d")
    inode = cloud.place.stat().st_ino
    assert cloud("repair", "--yes", kill="line 1").returncode == -9
    done = cloud("repair", "--yes")
    assert (done.returncode, cloud.changes()) == (8, {})
    assert re.search(r"another cloudfsck is repairing this cloud: .* pid \d+ .*; its lease ends at .* UTC", done.stderr)
    cloud.later()
    ends = killed_at(cloud, ("line 2", "sent 1", "line 3"), "repair")
    assert ends >= {"begin domain.pause", "begin directory.quarantine"}
    assert (cloud.domain(), cloud.place.exists(), len(cloud.quarantined())) == ("paused", False, 1)
    assert cloud.changes() == {"suspend": 1}
    found = cloud.check()
    assert (found["findings"], sorted(held["rung"] for held in found["held"])) == ([], ["paused", "quarantined"])

    listed = json.loads(cloud("undo", "--format", "json").stdout)
    ends = set()
    points = [("line 2", "line 3"), ("sent 1",)]
    for one in reversed([one for one in listed if one["outcome"] in ("done", "unknown")]):
        ends |= killed_at(cloud, points.pop() if points else (), "undo", f"{one['run']}/{one['n']}")
    assert {end.split()[0] for end in ends} == {"begin", "done"}
    assert (cloud.domain(), cloud.place.stat().st_ino, cloud.quarantined()) == ("running", inode, [])
    assert cloud.changes() == {"suspend": 1, "resume": 1}
    found = cloud.check()
    assert (sorted(one["state"] for one in found["findings"]), found["held"]) == (["proven", "proven"], [])


def test_a_killed_repair_and_a_killed_purge(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    wait(cloud, "1d")
    assert cloud("repair", "--yes", kill="line 4").returncode == -9
    done = cloud("repair", "--yes")
    assert (done.returncode, cloud.changes(), cloud.quarantined()) == (4, {"suspend": 1}, [])
    assert "nothing is sent before" in done.stdout
    cloud.later()
    assert killed_at(cloud, ("line 3",), "repair") == {"done directory.quarantine"}
    wait(cloud, 0)
    assert cloud("repair", "--yes").returncode == 1
    assert (cloud.domain(), len(cloud.quarantined())) == ("shut off", 1)
    ends = killed_at(cloud, ("line 2", "sent 1", "line 3", "line 1"), "purge")
    assert ends >= {"begin domain.undefine", "begin directory.remove", "done domain.undefine"}
    assert (cloud.domain(), cloud.place.exists(), cloud.quarantined()) == ("", False, [])
    assert list(cloud.folder.glob("hosts/compute3/instances/.cloudfsck/*")) == []
    assert cloud.changes() == {"suspend": 1, "destroy": 1, "undefine": 1}
    found = cloud.check()
    assert (found["held"], {one["check"] for one in found["findings"]}) == ([], {small.CHECKS[1]})  # the guest's own


def test_a_database_from_an_older_dump_stops_everything_until_it_is_accepted(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    wait(cloud, "1d")
    database = cloud.folder / "databases/nova_cell1.sqlite"
    shutil.copy(database, tmp_path / "dump")
    with sqlite3.connect(database) as db:  # life goes on: a server is made, which the dump does not know
        columns = [row[1] for row in db.execute("PRAGMA table_info(instances)") if row[1] not in ("id", "uuid")]
        listed = ", ".join(f'"{name}"' for name in columns)
        db.execute(f"INSERT INTO instances (id, uuid, {listed}) SELECT 99, ?, {listed} FROM instances WHERE id = 1",
                   ["11111111-2222-4333-8444-555555555555"])  # fmt: skip
    db.close()
    assert cloud("repair", "--yes").returncode == 1
    (run,) = cloud.runs()
    wait(cloud, 0)
    shutil.copy(tmp_path / "dump", database)
    before = (cloud.domain(), cloud.quarantined(), cloud.changes())
    for words in (("repair", "--yes"), ("purge", "--yes"), ("undo", run, "--yes")):
        done = cloud(*words)
        assert done.returncode & 8
        assert "was restored" in done.stdout + done.stderr
    assert (cloud.domain(), cloud.quarantined(), cloud.changes()) == before
    assert "was restored" in cloud("accept-restore").stdout
    assert cloud("undo", run, "--yes").returncode == 1
    assert (cloud.domain(), cloud.quarantined()) == ("running", [])
