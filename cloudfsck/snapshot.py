"""One snapshot is one DuckDB file: a table for each thing collected, and the ledger of what was really read.

It is written aside and renamed when it is whole, and from then on only opened for reading.  It never reads a cloud.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cloudfsck import tables
from cloudfsck.model import Gap, Piece, Row, Trouble

_LEDGER = """
CREATE TABLE ledger (
    table_name VARCHAR NOT NULL,
    per        VARCHAR NOT NULL,
    part       VARCHAR NOT NULL,
    whole      BOOLEAN NOT NULL,
    why        VARCHAR,
    clock      TIMESTAMP,
    started    TIMESTAMP NOT NULL,
    finished   TIMESTAMP NOT NULL,
    keys       VARCHAR[]
)
"""

#: The column in which rows of many parts carry theirs on the way in; no source has one of that name.
_PART = "(part)"

#: By how much two readings of one date on one host may differ.
JITTER = dt.timedelta(seconds=5)

#: How much memory DuckDB may take for a snapshot on disk, in MB; a query that cannot do with it is given more.
MEMORY = 150

#: Tables of the engine's own; no check has to wait for them.
OWN = frozenset({"ledger", "meta"})

_ARROW_LEDGER = pa.schema([
    ("table_name", pa.string()), ("per", pa.string()), ("part", pa.string()), ("whole", pa.bool_()),
    ("why", pa.string()), ("clock", pa.timestamp("us")), ("started", pa.timestamp("us")),
    ("finished", pa.timestamp("us")), ("keys", pa.list_(pa.string())),
])  # fmt: skip


@cache
def _format() -> str:
    """What tells snapshots with our tables and views from those with others."""
    return hashlib.sha256(_schema().encode()).hexdigest()[:16]


@cache
def _schema() -> str:
    """Our tables and views, as SQL."""
    columns = {table.name: ", ".join(f'"{one.name}" {one.type}' for one in table.columns) for table in tables.TABLES}
    views = files("cloudfsck").joinpath("views.sql").read_text(encoding="utf-8")
    made = "".join(f"CREATE TABLE {name} ({those});\n" for name, those in columns.items())
    return f"{_LEDGER};\nCREATE TABLE meta (name VARCHAR PRIMARY KEY, value VARCHAR);\n{made}{views}"


@cache
def _memory() -> duckdb.DuckDBPyConnection:
    """The DuckDB in which all snapshots without a file are databases of their own.  Its first, `blank`, is the empty
    one of which the others are copies: to copy costs a quarter of what it costs to make our tables and views, and to
    start another DuckDB costs threads as well."""
    db = duckdb.connect(":memory:")
    _bound(db, None)
    db.execute("ATTACH ':memory:' AS blank; USE blank; BEGIN; " + _schema() + "COMMIT")
    db.execute("INSERT INTO meta VALUES ('format', ?)", [_format()])
    return db


_NUMBERS = count(1)


def _copy() -> tuple[duckdb.DuckDBPyConnection, str]:
    """A connection to a new, empty database in memory, and the name of that."""
    db, name = _memory().cursor(), f"snapshot{next(_NUMBERS)}"
    db.execute(f"ATTACH ':memory:' AS {name}; COPY FROM DATABASE blank TO {name}; USE {name}; SET TimeZone = 'UTC'")
    return db, name


def _detach(name: str) -> None:
    """Away with a database in memory, whose connection is closed."""
    with suppress(duckdb.Error), _memory().cursor() as db:
        db.execute(f"DETACH {name}")


@cache
def tables_read(query: str) -> frozenset[str]:
    """The tables of ours that a query reads, seen through views and CTEs.  Raises Trouble where DuckDB cannot say (it
    cannot for USING, NATURAL and ASOF joins)."""
    try:
        with _memory().cursor() as db:
            return frozenset(db.execute("USE blank").get_table_names(query)) - OWN
    except duckdb.Error as error:
        raise Trouble(f"DuckDB cannot say which tables the query reads: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Heard:
    """What the ledger says of the parts: which were read whole (and for which UUIDs), and why others were not."""

    keys: dict[tuple[str, str], frozenset[str] | None]
    gaps: dict[tuple[str, str], Gap]
    tables: frozenset[str]

    def lacks(self, table: str, part: str, ids: Iterable[str]) -> Gap | None:
        """The reason why this part of the table cannot speak for these UUIDs; None if it can."""
        at = (table, part)
        if at in self.gaps:
            return self.gaps[at]
        if at not in self.keys:
            return Gap(table, part, "was not read")
        keys = self.keys[at]
        strange = [] if keys is None else sorted(set(ids) - keys)
        return Gap(table, part, f"was not asked about {strange[0]}") if strange else None

    def parts(self, table: str) -> frozenset[str]:
        return frozenset(self._parts.get(table, ()))

    @cached_property
    def _parts(self) -> dict[str, set[str]]:
        parts: dict[str, set[str]] = {}
        for table, part in (*self.keys, *self.gaps):
            parts.setdefault(table, set()).add(part)
        return parts


class Snapshot:
    """A DuckDB database with our tables, views and ledger.  Not for more than one thread."""

    def __init__(self, db: duckdb.DuckDBPyConnection, path: Path | None = None, aside: Path | None = None) -> None:
        self.db = db
        self.path = path
        self._aside = aside
        self._memory = MEMORY
        self._filled: set[str] = set()
        #: However we end, what was begun and not finished does not stay.
        self._drop: weakref.finalize[..., Any] = weakref.finalize(self, _remove, aside)

    @classmethod
    def create(cls, path: Path | None = None) -> Snapshot:
        """A new, empty snapshot; in memory without a path, else beside its path until `finish`."""
        if path is None:
            db, name = _copy()
            snapshot = cls(db)
            snapshot._drop = weakref.finalize(db, _detach, name)
            snapshot._drop.atexit = False
            return snapshot
        aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with _writing(aside):
            aside.parent.mkdir(parents=True, exist_ok=True)
            _remove(aside)
            db = duckdb.connect(str(aside))
            snapshot = cls(db, path, aside)
            _bound(db, path)
            db.execute("BEGIN; " + _schema() + "COMMIT")
        snapshot.note(format=_format())
        return snapshot

    @classmethod
    def open(cls, path: Path) -> Snapshot:
        """An old snapshot, for reading.  Raises Trouble if it is none of ours, or of another version."""
        if not path.exists():
            raise Trouble(f"there is no snapshot at {path}; `cloudfsck snapshot` takes one")
        try:
            db = duckdb.connect(str(path), read_only=True)
            found = db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        except duckdb.Error as error:
            raise Trouble(f"{path} is no snapshot of cloudfsck: {str(error).splitlines()[0]}") from error
        if found is None or found[0] != _format():
            raise Trouble(f"{path} was written by another version of cloudfsck; take a new one")
        _bound(db, path)
        return cls(db, path)

    def note(self, **facts: str) -> None:
        with _writing(self._aside):
            self.db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))

    def noted(self, name: str) -> str | None:
        found = self.db.execute("SELECT value FROM meta WHERE name = ?", [name]).fetchone()
        return None if found is None else str(found[0])

    def finish(self) -> None:
        """Give a snapshot that was written aside its own name, and open it again for reading only."""
        assert self.path is not None
        assert self._aside is not None
        with _writing(self._aside):
            self.db.execute("CHECKPOINT")  # to close it does the same, and does not say when that failed
            self.db.close()
            os.replace(self._aside, self.path)
        self._aside = None
        self._drop.detach()
        self.db = duckdb.connect(str(self.path), read_only=True)
        self._memory = MEMORY
        _bound(self.db, self.path)

    def close(self) -> None:
        self.db.close()
        self._drop()

    # ------------------------------------------------------------------------------------------- writing

    def add(self, pieces: Iterable[Piece]) -> list[Gap]:
        """Take in what a source read; a part that breaks off in the middle becomes a gap.  Returns the gaps."""
        ledger: list[dict[str, Any]] = []
        gaps: list[Gap] = []
        at_rest: dict[str, list[Piece]] = {}
        for piece in pieces:
            why = piece.why
            if piece.rows is not None and not isinstance(piece.rows, pa.Table):
                why = self._insert(piece.table, [piece])
            elif piece.rows is not None:
                at_rest.setdefault(piece.table, []).append(piece)
            if piece.rows is not None and not isinstance(piece.rows, pa.Table):  # a stream is read only here
                piece = replace(piece, finished=dt.datetime.now(dt.UTC).replace(tzinfo=None))
            ledger.append(_entry(piece, why))
            if why is not None:
                gaps.append(Gap(piece.table, piece.part, why))
        for table, many in at_rest.items():
            if self._insert(table, many) is None:
                continue
            for piece in many:  # one part spoils the insert of all: find out which
                why = self._insert(table, [piece])
                if why is not None:
                    ledger = [row for row in ledger if (row["table_name"], row["part"]) != (table, piece.part)]
                    ledger.append(_entry(piece, why))
                    gaps.append(Gap(table, piece.part, why))
        if ledger:
            written = pa.Table.from_pylist(ledger, schema=_ARROW_LEDGER)
            with _writing(self._aside):
                self.db.register("written", written)
                self.db.execute(
                    "DELETE FROM ledger USING written WHERE ledger.table_name = written.table_name"
                    " AND ledger.part = written.part"
                )
                self.db.execute("INSERT INTO ledger SELECT * FROM written")
                self.db.unregister("written")
        return gaps

    def _insert(self, name: str, pieces: Sequence[Piece]) -> str | None:
        table = tables.BY_NAME[name]
        nothing = all(isinstance(piece.rows, pa.Table) and not piece.rows.num_rows for piece in pieces)
        if nothing and name not in self._filled:
            return None
        again = name in self._filled
        self._filled.add(name)
        self.db.execute("BEGIN")
        try:
            if again and table.part:
                parts = [piece.part for piece in pieces]
                self.db.execute(f'DELETE FROM {name} WHERE "{table.part}" IN (SELECT unnest($parts))', {"parts": parts})
            elif again:
                self.db.execute(f"DELETE FROM {name}")
            if len(pieces) == 1:
                rows, part, given = pieces[0].rows, "$part", {"part": pieces[0].part} if table.part else None
            else:
                rows, part, given = _together(pieces), f'"{_PART}"', None
            there = set(rows.schema.names)
            values = [
                part if column.name == table.part
                else f'CAST("{column.name}" AS {column.type})' if column.name in there
                else "NULL"
                for column in table.columns
            ]  # fmt: skip
            self.db.register("incoming", rows)
            self.db.execute(f"INSERT INTO {name} SELECT {', '.join(values)} FROM incoming", given)
            self.db.unregister("incoming")
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            self.db.execute("ROLLBACK")
            raise
        except BaseException as error:
            if self._aside is not None and isinstance(error, duckdb.Error) and str(self._aside) in str(error):
                raise _unwritten(self._aside, error) from error  # our own disk, and no part of the cloud
            self.db.execute("ROLLBACK")
            return f"broke off: {str(error).splitlines()[0]}" if str(error) else f"broke off: {type(error).__name__}"
        with _writing(self._aside):
            self.db.execute("COMMIT")
        return None

    # ------------------------------------------------------------------------------------------- reading

    def rows(self, query: str, parameters: Any = None) -> list[dict[str, Any]]:
        while True:
            try:
                cursor = self.db.execute(query, parameters)
                names = [column[0] for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            except duckdb.OutOfMemoryException:
                if self.path is None or self._memory >= _physical():
                    raise
                self._memory *= 2
                self.db.execute(f"SET memory_limit = '{self._memory}MB'")

    def query(self, query: str) -> list[dict[str, Any]]:
        """Somebody else's query.  Raises Trouble with what DuckDB says of it."""
        try:
            return self.rows(query)
        except duckdb.Error as error:
            raise Trouble(str(error).strip()) from error

    def heard(self) -> Heard:
        keys: dict[tuple[str, str], frozenset[str] | None] = {}
        gaps: dict[tuple[str, str], Gap] = {}
        seen = set()
        for table, part, whole, why, asked in self.db.execute(
            "SELECT table_name, part, whole, why, keys FROM ledger"
        ).fetchall():
            seen.add(table)
            if whole:
                keys[table, part] = None if asked is None else frozenset(asked)
            else:
                gaps[table, part] = Gap(table, part, why)
        return Heard(keys, gaps, frozenset(seen))

    def clocks(self) -> dict[str, dt.datetime]:
        """What the clock of each part said when its reading began: {'cell:cell1': …, 'host:compute1': …}."""
        found = self.db.execute(
            "SELECT per || ':' || part, min(clock) FROM ledger GROUP BY ALL HAVING min(clock) NOTNULL"
        )
        return dict(found.fetchall())

    @contextmanager
    def supposing(self) -> Iterator[None]:
        """A change of mind: everything written inside is taken back at the end."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            self.db.execute("ROLLBACK")


def _bound(db: duckdb.DuckDBPyConnection, path: Path | None) -> None:
    """Keep DuckDB small; what lies in memory alone may take what it needs, and is too small for a second thread."""
    db.execute(f"SET threads = {1 if path is None else 2}; SET TimeZone = 'UTC'")
    if path is not None:
        db.execute(f"SET memory_limit = '{MEMORY}MB'")


def _physical() -> int:
    """The memory of this machine, in MB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def _remove(aside: Path | None) -> None:
    """Away with a snapshot that was not finished, with DuckDB's journal of it, and with what it had no memory for."""
    if aside is not None:
        shutil.rmtree(aside.with_name(f"{aside.name}.tmp"), ignore_errors=True)
        for path in (aside, aside.with_name(f"{aside.name}.wal")):
            with suppress(OSError):
                path.unlink(missing_ok=True)


@contextmanager
def _writing(aside: Path | None) -> Iterator[None]:
    """Say in a sentence why our own file cannot be written."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        if aside is None:
            raise
        raise _unwritten(aside, error) from error


def _unwritten(aside: Path, error: Exception) -> Trouble:
    why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0].rpartition(": ")[2]
    return Trouble(f"the snapshot cannot be written in {aside.parent}, and nothing was done: {why}")


def _together(pieces: Sequence[Piece]) -> pa.Table:
    """The rows of many parts in one table, each with its part beside it."""
    marked = [
        piece.rows.append_column(_PART, pa.array([piece.part] * piece.rows.num_rows, pa.string())) for piece in pieces
    ]
    return pa.concat_tables(marked, promote_options="permissive")


def _entry(piece: Piece, why: str | None) -> dict[str, Any]:
    return {
        "table_name": piece.table,
        "per": tables.BY_NAME[piece.table].per,
        "part": piece.part,
        "whole": why is None,
        "why": why,
        "clock": piece.clock,
        "started": piece.started,
        "finished": piece.finished,
        # some tables are always read whole for their part
        "keys": None if piece.keys is None or not tables.BY_NAME[piece.table].narrow else sorted(piece.keys),
    }


def same(one: Row, other: Row) -> bool:
    """Whether two readings agree on a row: every column equal.

    A host tells when a process started by its boot time, which Linux derives from the clock anew each time (/proc/stat:
    btime) and which moves by a second or two as NTP slews it; so much, and no more, may `since` differ.  Of two guests
    started together either may then seem the later one, and its host the one that dated it.
    """
    since, again = one.get("since"), other.get("since")
    if isinstance(since, dt.datetime) and isinstance(again, dt.datetime) and abs(since - again) <= JITTER:
        return {**one, "since": None, "clock": None} == {**other, "since": None, "clock": None}
    return dict(one) == dict(other)
