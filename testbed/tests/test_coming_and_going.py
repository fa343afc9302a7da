"""The cloud comes up or says what did not, and goes without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from testbed import machine, places
from testbed.cloud import Cloud
from testbed.node import Failed


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """The testbed's own files, to be broken, and a state of its own that borrows the installed OpenStack."""
    shutil.copytree(places.HERE, tmp_path / "testbed", ignore=shutil.ignore_patterns("tests", "__pycache__"))
    limits = tmp_path / "testbed/machine.py"
    limits.write_text(limits.read_text().replace("MEMORY, ROOM = 8, 6", "MEMORY, ROOM = 0, 0"))
    state = tmp_path / "state"
    state.mkdir()
    for kept in (places.VENV, places.CACHE):
        (state / kept.name).symlink_to(kept)
    yield tmp_path
    run(tmp_path, "down")


def run(copy: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "testbed", command], cwd=copy, capture_output=True, text=True, timeout=300,
        env={**os.environ, "CLOUDFSCK_TESTBED": str(copy / "state")},
    )  # fmt: skip


def traces() -> tuple[set[str], set[str]]:
    """The network namespaces of all processes, and the mounts of this one."""
    networks = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                networks.add(os.readlink(entry / "ns/net"))
    return networks, set(Path("/proc/self/mounts").read_text().splitlines())


def test_what_does_not_come_up_is_named_with_its_log_and_the_rest_is_ended(copy: Path) -> None:
    before = traces()
    conf = copy / "testbed/etc/controller/testbed/my.cnf"
    conf.write_text(conf.read_text() + "\nno_such_option = 1\n")
    ran = run(copy, "up")
    assert ran.returncode == 8
    assert "mariadb" in ran.stderr
    assert "no_such_option" in ran.stderr or "unknown variable" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert traces() == before
    assert not (copy / "state/nodes").exists()


def test_down_leaves_nothing(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = traces()
    monkeypatch.setattr(places, "STATE", tmp_path)
    monkeypatch.setattr(places, "NODES", tmp_path / "nodes")
    other = Cloud()
    try:
        other.launch()
        assert all(node.pid for node in (other.controller, *other.computes.values()))
        assert len(traces()[0]) == len(before[0]) + 3
        # Nobody listens there, and somebody says so: the network carries.
        with pytest.raises(Failed, match="Connection refused"):
            other.computes["compute1"].run("bash", "-c", "</dev/tcp/10.77.0.12/22")
    finally:
        other.down()
    assert traces() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys"]


def test_what_the_machine_lacks_is_said_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(machine, "MEMORY", 10_000)
    monkeypatch.setattr(machine, "ROOM", 1_000_000)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Failed) as caught:
        machine.check(fresh=True)
    said = str(caught.value)
    assert "only root can make it" in said
    assert "needs 10000 GiB of memory" in said
    assert "needs 1000000 GiB of room" in said
    assert "no apt-get" in said
