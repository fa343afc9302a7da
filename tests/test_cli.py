"""The command as a user runs it, on the demo cloud: every command, its exit status, its JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import checks, demo

#: The checks that find something in the demo, those first that are repaired through Neutron's API.
OF_NEUTRON = {
    "neutron-binding-left",
    "neutron-floating-ip-of-deleted-server",
    "neutron-port-of-deleted-server",
    "neutron-port-of-unknown-server",
}
FOUND = {
    "cinder-device-left",
    "cinder-quota-differs",
    "cinder-session-left",
    "designate-record-of-deleted-server",
    "designate-server-without-record",
    "libvirt-domain-of-archived-server",
    "libvirt-domain-of-deleted-server",
    "libvirt-domain-on-wrong-host",
    "libvirt-server-runs-twice",
    *OF_NEUTRON,
    "nova-del-directory-left",
    "nova-directory-of-deleted-server",
    "ovn-port-left",
    "placement-allocation-of-deleted-server",
}


class User:
    """Somebody with a shell and a demo cloud."""

    def __init__(self, configuration: Path) -> None:
        self.configuration = configuration

    def run(self, *arguments: str, status: int | None = 0, given: str | None = None) -> str:
        """The output of a command, which must end with that status (None: with any)."""
        done = subprocess.run(
            [sys.executable, "-m", "cloudfsck", "-c", str(self.configuration), *arguments],
            capture_output=True, text=True, check=False, input=given,
        )  # fmt: skip
        assert status is None or done.returncode == status, f"{done.returncode}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--format", "json", status=status))


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(demo.make(tmp_path / "cloud"))


def test_a_damaged_cloud_from_the_first_check_to_the_last_purge(user: User) -> None:
    """One user's way through everything, as it is too dear to make a cloud for each step."""
    first = user.json("check", status=4)
    assert {finding["check"] for finding in first["findings"]} == FOUND
    assert {finding["state"] for finding in first["findings"]} == {"proven"}
    assert (first["held"], first["unknown"], first["stops"]) == ([], [], [])

    # a plan, cut down by hand to one act, does that and no more
    path = user.configuration.parent / "plan.json"
    user.run("plan", "-o", str(path), status=4)
    made = json.loads(path.read_text())
    assert (len(made["acts"]), made["leaves"]) == (18, 0)
    # Whoever needs a volume connects it anew, Neutron counts each change of a port, OVN gives its row another UUID,
    # Designate's API makes no name that is the sink's, and Placement counts anew; all else comes back as it was.
    assert {act["check"] for act in made["acts"] if act["undo"] != "exact"} == {
        "cinder-device-left",
        "cinder-session-left",
        "designate-record-of-deleted-server",
        "ovn-port-left",
        "placement-allocation-of-deleted-server",
        *OF_NEUTRON,
    }
    path.write_text(json.dumps({**made, "acts": made["acts"][:1]}))
    assert "1 of 1 acts done" in user.run("repair", str(path), "--yes", status=5)
    user.run("repair", "--dry-run", status=4)

    done = user.json("repair", "--yes", status=1)
    assert [act["outcome"] for act in done["acts"]] == ["done"] * 17
    clean = user.json("check")
    assert clean["findings"] == []
    assert sorted(held["rung"] for held in clean["held"]) == [*["paused"] * 3, *["quarantined"] * 2, "stopped"]
    assert user.json("plan")["acts"] == []
    assert user.json("repair", "--yes")["acts"] == []

    # undo: one act, and the finding is back; then the rest
    runs = user.json("undo")
    assert [entry["outcome"] for entry in runs] == ["done"] * 18
    user.run("undo", f"{runs[0]['run']}/1", "--yes", status=1)
    assert len(user.json("check", status=4)["findings"]) == 1
    assert "Nothing to take back" in user.run("undo", runs[0]["run"], "--yes")
    # a guest that runs elsewhere is started again only by its own name
    said = user.run("undo", runs[1]["run"], "--yes", status=9)
    assert "it runs on compute3, and two guests would write to the same disks" in said
    twice = next(entry for entry in runs if entry["check"] == "libvirt-server-runs-twice")
    user.run("undo", f"{twice['run']}/{twice['n']}", "--yes", status=1)
    assert user.json("check", status=4)["held"] == []

    # down the whole ladder, with no time to wait
    text = user.configuration.read_text()
    user.configuration.write_text(
        text.replace('paused = "1d"', "paused = 0")
        .replace('stopped = "7d"', "stopped = 0")
        .replace('quarantined = "7d"', "quarantined = 0")
    )
    user.run("repair", "--yes", status=1)
    stopped = user.json("repair", "--yes", status=1)
    assert [act["text"].split()[0] for act in stopped["acts"]] == ["stop"] * 3
    user.run("purge", "--dry-run")
    purged = user.json("purge", "--yes", status=1)
    assert sorted(act["text"].split()[0] for act in purged["acts"]) == [*["remove"] * 2, *["undefine"] * 4]
    # their directories are the next step of the same cases
    left = user.json("check", status=4)["findings"]
    assert {finding["check"] for finding in left} == {"nova-directory-of-deleted-server"}
    user.run("repair", "--yes", status=1)
    assert user.json("check")["findings"] == []


@pytest.mark.long
def test_a_demo_is_repaired_and_taken_back_by_whichever_neutron_answers(tmp_path: Path) -> None:
    place = tmp_path / "cloud"
    command = [sys.executable, "-m", "cloudfsck", "demo", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "18 of 18 acts done" in done.stdout
    assert "demo: clean; 6 held" in done.stdout
    user = User(place / "cloudfsck.toml")
    unbound = next(entry for entry in user.json("undo") if entry["check"] == "neutron-port-of-unknown-server")
    act = f"{unbound['run']}/{unbound['n']}"
    command = [sys.executable, "-m", "cloudfsck.demo.neutron", str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            said = program.stdout.readline()
            assert said.startswith("the demo's Neutron answers at http://127.0.0.1:")
            assert said.endswith("/placement,\n")
            assert program.stdout.readline().startswith(f"and its OVN at {place}/ovn/nb.sock; ")
            user.run("undo", act, "--yes", status=1)
            assert (place / "ovn/nb.sock").exists()
        finally:
            program.terminate()
        assert program.wait(60) == 0
    kept = next(entry for entry in user.json("undo") if entry["check"] == "ovn-port-left")
    user.run("undo", f"{kept['run']}/{kept['n']}", "--yes", status=1)
    assert not (place / "ovn/nb.sock").exists()


def test_what_could_not_be_read_is_never_clean(user: User) -> None:
    user.run("repair", "--yes", status=5)  # what cannot be undone waits for a second whole reading
    (user.configuration.parent / "databases" / "nova_cell2.sqlite").rename(user.configuration.parent / "away")
    found = user.json("check", status=8)
    assert {entry["part"] for entry in found["unknown"]} >= {"cell2"}
    assert "nova_cell2.sqlite" in user.run("check", status=8)


def test_looking(user: User) -> None:
    user.run("snapshot")
    rows = user.json("sql", "SELECT count(*) AS n FROM libvirt_domains")
    assert rows[0]["n"] > 30
    assert "syntax error" in user.run("sql", "SELEC", status=8)
    assert "read-only" in user.run("sql", "DELETE FROM ledger", status=8)
    assert {line["check"] for line in user.json("checks")} == set(checks.load())
    assert "Why it matters" in user.run("explain", "libvirt-server-runs-twice")
    assert user.json("explain", "libvirt-server-runs-twice")["scenario"]["finds"]
    archived = "libvirt-domain-of-archived-server"
    server = next(one["server"] for one in user.json("check", status=4)["findings"] if one["check"] == archived)
    shown = user.json("show", "server", server, status=4)
    assert {"libvirt_domains", "nova_shadow_instances"} <= set(shown["places"])
    assert "No place that was read knows" in user.run("show", "server", "11111111-2222-3333-4444-555555555555")
    assert {row["state"] for row in user.json("doctor")} == {"good"}


def test_keeping(user: User) -> None:
    server = next(one["server"] for one in user.json("check", status=4)["findings"] if one["server"])
    user.run("keep", "add", "id", server, "--reason", "ours", "--until", "2999-01-01")
    assert [keep["pattern"] for keep in user.json("keep", "list")] == [server]
    left_out = user.json("plan", status=4)["left_out"]
    assert [one["why"] for one in left_out] == [f"kept (id {server} until 2999-01-01): ours"]
    user.run("keep", "remove", "1")
    user.run("keep", "remove", "1", status=8)
    user.run("keep", "add", "id", server, "--reason", "ours", "--until", "2001-01-01", status=16)
    user.run("keep", "add", "colour", server, "--reason", "ours", status=16)


def test_nobody_to_ask_is_no_yes(user: User) -> None:
    assert "nobody can be asked" in user.run("repair", status=8, given="")
    assert user.json("undo") == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["explain", "no-such"], 16, "there is no check 'no-such'"),
        (["chekc"], 16, "No such command 'chekc'"),
        (["check", "--format", "yaml"], 16, "'yaml' is not one of"),
        (["undo", "no-run"], 8, "there is no run no-run"),
        (["repair", "/no/plan"], 8, "the plan /no/plan cannot be read: No such file"),
        (["show", "network", "x"], 16, "there is no kind 'network'; the kinds are: server, volume, port"),
        (["show", "volume", "x"], 16, "'x' is no UUID"),
        (["init", "--conf", "/no/nova.conf", "-o", "/no/x"], 8, "/no/nova.conf cannot be read: No such file"),
        (["init", "--conf", "/no/novas.conf"], 16, "/no/novas.conf does not tell whose it is"),
        (["init", "--root", "/no"], 16, "'/no' does not exist"),
    ],
)
def test_a_wrong_call_gets_a_sentence_and_its_status(user: User, arguments: list[str], status: int, said: str) -> None:
    assert said in user.run(*arguments, status=status)


def test_a_typo_in_the_configuration_names_the_line(user: User) -> None:
    text = user.configuration.read_text()
    user.configuration.write_text(text.replace("settle_factor", "setle_factor"))
    line = text.splitlines().index("settle_factor = 0") + 1
    said = user.run("check", status=16)
    assert f"cloudfsck.toml:{line}: proof.setle_factor: there is no such key; did you mean settle_factor?" in said
    user.configuration.unlink()
    assert "there is no configuration file" in user.run("check", status=16)


def test_demo_refuses_a_directory_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    done = subprocess.run(
        [sys.executable, "-m", "cloudfsck", "demo", str(tmp_path / "mine")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 8
    assert (tmp_path / "mine" / "file").read_text() == "precious"
