"""The tables of one service's database as pieces of a snapshot: what it cannot read is a gap with its reason."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cloudfsck import tables
from cloudfsck.model import Piece, Scope
from cloudfsck.sources import connection
from cloudfsck.sources.database import Database, Reading, Unreadable, arrow_schema


def tables_of(per: tables.Per, only: frozenset[str] | None = None) -> list[tables.Table]:
    """The tables that are read from such a database, or `only` these."""
    return [
        table for table in tables.TABLES if table.per == per and table.origin and (only is None or table.name in only)
    ]


def tables_read_from(database: Database) -> list[tables.Table]:
    """Those of a service beside Nova, which its database is named after; none where no table of it is read."""
    return [table for per in tables.SERVICES if per == database.name for table in tables_of(per)]


def read(database: Database, part: str, wanted: Sequence[tables.Table], scope: Scope) -> Iterator[Piece]:
    """A piece for each of these tables.  It never raises."""
    left = list(wanted)
    started = now()
    try:
        with database.open() if scope.whole else database.transaction(writer=True) as reading:
            while left:
                yield _piece(reading, part, left.pop(0), scope)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a gap
        # The database could not be opened: no table of it was read.
        for table in left:
            yield Piece(table.name, part, None, why(database, error), None, started, now(), _keys(table, scope))


def _piece(reading: Reading, part: str, table: tables.Table, scope: Scope) -> Piece:
    started, keys = now(), _keys(table, scope)
    clock: dt.datetime | None = None
    try:
        clock = reading.clock()
        asked = replace(table, columns=(*table.columns[: 0 if table.part is None else 1], *table.asked))
        rows = reading.bulk(asked) if scope.whole else reading.rows(asked, bare(keys) if table.bare else keys)
        if table.apart:
            rows = connection.apart(rows, table.apart)
        if table.bare:
            rows = dashed(rows, table.bare)
        return Piece(table.name, part, rows, None, clock, started, now(), keys)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a gap, and the other tables are still read
        return Piece(table.name, part, None, why(reading.database, error), clock, started, now(), keys)


def bare(ids: Iterable[str] | None) -> frozenset[str] | None:
    """UUIDs as a service has them that keeps them without dashes, or with, by the database (oslo's UUID type)."""
    return None if ids is None else frozenset(form for one in ids for form in (one, one.replace("-", "")))


def dashed(rows: pa.Table | pa.RecordBatchReader, columns: Sequence[str]) -> pa.Table | pa.RecordBatchReader:
    """The same rows, the UUIDs in these columns with dashes."""

    def with_dashes(batch: pa.RecordBatch) -> pa.RecordBatch:
        for name in columns:
            texts = pc.replace_substring_regex(batch.column(name), _BARE, r"\1-\2-\3-\4-\5")
            batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), texts)
        return batch

    return connection.batch_by_batch(rows, rows.schema, with_dashes)


#: A UUID without dashes.
_BARE = "^" + "".join(f"([0-9a-f]{{{length}}})" for length in (8, 4, 4, 4, 12)) + "$"


def asked(
    per: tables.Per, name: str, scope: Scope, ask: Callable[[], Mapping[str, list[dict[str, Any]]]]
) -> Iterator[Piece]:
    """A piece for each table of what is no database, of the rows that `ask` gives by table, all of one moment; if it
    fails each is a gap.  `name` says what it is.  It never raises."""
    started, part = now(), tables.SINGLE[per]
    wanted = [table for table in tables.TABLES if table.per == per]
    rows: dict[str, pa.Table] = {}
    reason = None
    try:
        told = ask()
        rows = {table.name: pa.Table.from_pylist(told[table.name], arrow_schema(table.columns)) for table in wanted}
    except Unreadable as error:
        reason = str(error)
    except (ValueError, TypeError, AttributeError, KeyError, pa.ArrowException) as error:
        reason = f"{name}: {type(error).__name__}: {error}"
    finished = now()
    for table in wanted:
        yield Piece(table.name, part, rows.get(table.name), reason, None, started, finished, _keys(table, scope))


def columns(wanted: Iterable[tables.Table]) -> dict[str, list[str]]:
    """The columns that are read, by the table's name in the database."""
    found: dict[str, list[str]] = {}
    for table in wanted:
        origins = [table.origin, table.joined] if table.joined else [table.origin]
        for origin in origins:  # who grants them finds out which of the two has a column
            there = found.setdefault(origin, [])
            mine = [column.name for column in table.asked] + ([tables.STANDARD, "id"] if table.joined else [])
            there += [name for name in mine if name not in there]
    return found


def _keys(table: tables.Table, scope: Scope) -> frozenset[str] | None:
    return scope.ids if table.narrow else None


def why(database: Database, error: Exception) -> str:
    if isinstance(error, Unreadable):
        return str(error)
    return database.scrub(f"{database}: {type(error).__name__}: {error}")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)
