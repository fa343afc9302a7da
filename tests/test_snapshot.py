"""The snapshot's own doings that no other test sees."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cloudfsck import snapshot
from cloudfsck.snapshot import Snapshot

#: What cannot be put aside on the disk.
GREEDY = "SELECT len(list(i)) AS length FROM range(8_000_000) r(i)"


def test_a_query_that_needs_more_memory_is_given_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MEMORY", 32)
    made = Snapshot.create(tmp_path / "made.duckdb")
    with pytest.raises(duckdb.OutOfMemoryException):
        made.db.execute(GREEDY).fetchall()
    assert made.rows(GREEDY) == [{"length": 8_000_000}]
    made.close()


def test_a_query_that_needs_more_than_there_is_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MEMORY", 32)
    monkeypatch.setattr(snapshot, "_physical", lambda: 32)
    made = Snapshot.create(tmp_path / "made.duckdb")
    with pytest.raises(duckdb.OutOfMemoryException):
        made.rows(GREEDY)
    made.close()


def test_what_was_put_aside_on_the_disk_goes_with_a_snapshot_that_was_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "snapshots" / "made.duckdb"
    made = Snapshot.create(path)
    (aside,) = path.parent.glob("*.partial")
    aside.with_name(f"{aside.name}.tmp").mkdir()
    made.close()
    assert list(path.parent.iterdir()) == []
