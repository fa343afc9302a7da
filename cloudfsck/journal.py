"""The durable record of what was done: one file a run, one JSON line an event, on disk before and after every act.

It never decides anything; `undo` and `repair` read it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudfsck import acts
from cloudfsck.model import Act, Trouble
from cloudfsck.state import utcnow

#: How an act can end.
ENDS = ("done", "moved", "refused", "failed", "unknown")


@dataclass(frozen=True)
class Entry:
    """One act of a run, and how it ended; `outcome` is None when the run broke off before it could say."""

    run: str
    number: int
    check: str
    key: str
    act: Act
    outcome: str | None
    why: str
    saw: Mapping[str, Any]
    began: str
    undone_by: str | None

    @property
    def name(self) -> str:
        return f"{self.run}/{self.number}"


class Journal:
    """The journal of a run that is under way."""

    def __init__(self, folder: Path, run: str, head: Mapping[str, Any]) -> None:
        self.run = run
        self.path = folder / "journal" / f"{run}.jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise _unwritten(self.path, error) from error
        try:
            self._write({"event": "run", "run": run, **head})
            _sync_folder(self.path.parent)
        except BaseException:
            self.close()
            with suppress(OSError):
                self.path.unlink()  # nothing was done under it
            raise

    def begin(self, number: int, check: str, key: str, act: Act, undoes: str | None = None) -> None:
        event = {"event": "begin", "n": number, "check": check, "key": key, "text": str(act), "act": acts.to_json(act)}
        self._write(event if undoes is None else {**event, "undoes": undoes})

    def end(self, number: int, outcome: str, why: str, saw: Mapping[str, Any]) -> None:
        assert outcome in ENDS
        self._write({"event": outcome, "n": number, "why": why, "saw": dict(saw)})

    def _write(self, event: Mapping[str, Any]) -> None:
        _append(self._file, self.path, json.dumps({"at": f"{utcnow()}Z", **event}, default=str))

    def close(self) -> None:
        self._file.close()


def runs(folder: Path) -> list[str]:
    """The runs that have a journal, the oldest first."""
    return sorted(path.stem for path in (folder / "journal").glob("*.jsonl"))


def read(folder: Path, run: str) -> list[Entry]:
    """The acts of a run, in their order.  Raises Trouble if there is no such run or its journal is no journal."""
    if run not in runs(folder):
        known = ", ".join(runs(folder)[-3:]) or "none yet"
        raise Trouble(f"there is no run {run}; the last ones are: {known}")
    return _entries(folder, run, _undone(folder))


def _entries(folder: Path, run: str, undone: Mapping[str, str]) -> list[Entry]:
    path = folder / "journal" / f"{run}.jsonl"
    begun: dict[int, dict[str, Any]] = {}
    ended: dict[int, dict[str, Any]] = {}
    for event in _events(path):
        if event["event"] == "begin":
            begun[event["n"]] = event
        elif event["event"] in ENDS:
            ended[event["n"]] = event
    try:
        return [
            Entry(
                run, number, event["check"], event["key"], acts.from_json(event["act"]),
                ended[number]["event"] if number in ended else None, ended.get(number, {}).get("why", ""),
                ended.get(number, {}).get("saw", {}), event["at"], undone.get(f"{run}/{number}"),
            )
            for number, event in sorted(begun.items())
        ]  # fmt: skip
    except (Trouble, KeyError, TypeError, AttributeError) as error:
        raise _spoilt(path, f"{type(error).__name__} {error}") from error


def broken_off(folder: Path) -> Iterator[Entry]:
    """Acts that began and of which no end was written: the machine or the program died in the midst of them."""
    for run in runs(folder):  # what was taken back has ended, so who took back what need not be known
        yield from (entry for entry in _entries(folder, run, {}) if entry.outcome is None)


def settle(folder: Path, entry: Entry) -> None:
    """Write that what became of an act that broke off is not known, so that it is asked only once."""
    path = folder / "journal" / f"{entry.run}.jsonl"
    why = "cloudfsck broke off in the midst of it"
    event = {"at": f"{utcnow()}Z", "event": "unknown", "n": entry.number, "why": why, "saw": {}}
    try:
        torn = not path.read_bytes().endswith(b"\n")
        file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise _unwritten(path, error) from error
    with file:
        _append(file, path, ("\n" if torn else "") + json.dumps(event))


def _undone(folder: Path) -> dict[str, str]:
    """Which entries were taken back, and by which."""
    undone = {}
    for run in runs(folder):
        taking: dict[int, str] = {}
        for event in _events(folder / "journal" / f"{run}.jsonl"):
            if event["event"] == "begin" and "undoes" in event:
                taking[event["n"]] = event["undoes"]
            elif event["event"] == "done" and event["n"] in taking:
                undone[taking[event["n"]]] = f"{run}/{event['n']}"
    return undone


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a journal.  A crash may tear the last line: it was not on disk as a whole, so what it announces was
    never sent; nothing but `settle` writes after it.  Anything else that is no event raises Trouble."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise Trouble(f"the journal {path} cannot be read: {error.strerror}") from error
    torn = 0
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            torn = torn or number
            continue
        known = isinstance(event, dict) and isinstance(event.get("event"), str)
        if not known or (event["event"] != "run" and type(event.get("n")) is not int):
            raise _spoilt(path, f"line {number} is no event")
        if torn and event["event"] != "unknown":
            raise _spoilt(path, f"line {torn} is no JSON")
        yield event


def _spoilt(path: Path, why: str) -> Trouble:
    return Trouble(
        f"the journal {path} is not as cloudfsck wrote it ({why}): bring it back from a backup, or move it away when"
        " you know what became of its acts"
    )


def _unwritten(path: Path, error: OSError) -> Trouble:
    return Trouble(f"the journal {path} cannot be written, and without it nothing is done: {error.strerror}")


def _append(file: io.FileIO, path: Path, line: str) -> None:
    """Write a line, and return when it is on disk; what cannot be written whole is not left there in part."""
    data = memoryview(line.encode() + b"\n")
    length = os.fstat(file.fileno()).st_size
    try:
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            file.truncate(length)
            file.seek(length)
        raise _unwritten(path, error) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
