"""Send an act to a service's database, where there is no API for it: its statements in one transaction, on the server
that is written to, under the account of [write.database].

An act is a tuple of `rows.Rows` and `rows.Change`.  All of them meet what they expect, or nothing is changed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import sqlalchemy as sa

from cloudfsck.acts.rows import Change, Rows, Statement, Value
from cloudfsck.model import Moved, Outcomeless, Refused, Trouble
from cloudfsck.sources.database import Database, Login, Reading, Unreadable, number, reason

#: What servers say of one who came first, or who holds a row for too long; the transaction is taken back then.
#: MySQL: lock wait timeout, deadlock (Galera: another node came first), statement timeouts; PostgreSQL: serialization,
#: deadlock, lock and statement timeouts.
_CAME_FIRST = frozenset({1205, 1213, 1969, 3024})
_CAME_FIRST_STATES = frozenset({"40001", "40P01", "55P03", "57014"})

#: How our values go to the server; a bool is an int as well.
_KINDS = ((dt.datetime, sa.DateTime()), (bool, sa.Boolean()), (int, sa.BigInteger()), (str, sa.String()))


@runtime_checkable
class Guarded(Protocol):
    """An act on a database."""

    @property
    def part(self) -> str:
        """Whose database it changes: a cell, or cinder."""

    def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
        """What is sent; `now` is what the server's clock says, UTC, to the second."""


def send(act: Guarded, database: Database, login: Login) -> Mapping[str, Any]:
    """Have the act done, and return when that was, by the server's clock: `at`.

    Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
    Outcomeless when what became of it is not known.
    """
    database = replace(database, login=login, writes=True)
    try:
        # A replica, and a Galera node that is not in step, is refused here.
        with database.transaction(writer=True) as reading:
            now = reading.clock().replace(microsecond=0)
            for one in act.statements(now):
                with _saying(database, one.table):
                    _sent(reading, one)
            _commit(reading)
    except Unreadable as error:
        raise Trouble(f"nothing was sent: {error}") from error
    return {"at": str(now)}


def _sent(reading: Reading, one: Statement) -> None:
    """Raises Moved if it does not meet just what it expects."""
    quote = reading.connection.dialect.identifier_preparer.quote_identifier
    given: list[sa.BindParameter[Any]] = []

    def bound(value: Value) -> str:
        kind = next(kind for python, kind in _KINDS if value is None or isinstance(value, python))
        given.append(sa.bindparam(f"v{len(given)}", value, type_=kind))
        return f":v{len(given) - 1}"

    def condition(column: str, value: Value) -> str:
        if value is None:
            return f"{quote(column)} IS NULL"
        if isinstance(value, dt.datetime) and reading.connection.dialect.name == "sqlite":
            # There a date is a text, with or without its fraction.
            ours = f"strftime('%Y-%m-%d %H\\:%M\\:%f', {bound(value)})"
            return f"strftime('%Y-%m-%d %H\\:%M\\:%f', {quote(column)}) = {ours}"
        return f"{quote(column)} = {bound(value)}"

    table = quote(one.table)
    where = " AND ".join(condition(column, value) for column, value in one.where.items())
    met, expected = 0, 1
    if isinstance(one, Change):
        to = ", ".join(
            f"{quote(column)} = {'NULL' if value is None else bound(value)}" for column, value in one.to.items()
        )
        text = f"UPDATE {table} SET {to} WHERE {where}"
        met = reading.connection.execute(sa.text(text).bindparams(*given)).rowcount
    else:
        text = f"SELECT 1 FROM {table} WHERE {where}{reading.backend.share}"
        met = len(reading.connection.execute(sa.text(text).bindparams(*given)).fetchall())
        expected = one.count
    if met != expected:
        raise Moved(f"{reading.database}: {_said(met)} of {one.table} {_as(met)} {_values(one)}, and {expected} should")


def _said(count: int) -> str:
    return "no row" if count == 0 else "1 row" if count == 1 else f"{count} rows"


def _as(count: int) -> str:
    return "has" if count < 2 else "have"


def _values(one: Rows | Change) -> str:
    return ", ".join(f"{name} {'NULL' if value is None else value}" for name, value in one.where.items())


@contextmanager
def _saying(database: Database, table: str) -> Iterator[None]:
    """Whatever the server says within, the transaction is not committed, and is taken back when we leave."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        said = database.scrub(f"{database}, table {table}: {reason(error, database.account)}")
        if _came_first(error):
            raise Refused(f"somebody else is at it: {said}") from None
        raise Trouble(said) from None


def _commit(reading: Reading) -> None:
    """Raises Outcomeless if nobody knows whether it took place."""
    database = reading.database
    try:
        reading.connection.exec_driver_sql("COMMIT")
    except (sa.exc.DBAPIError, OSError) as error:
        if isinstance(error, sa.exc.DBAPIError):
            if _came_first(error):
                raise Refused(f"somebody else came first: {database}: {reason(error, database.account)}") from None
            error_said = reason(error, database.account)
        else:
            error_said = str(error)
        raise Outcomeless(database.scrub(f"{database} did not say whether it is done: {error_said}")) from None


def _came_first(error: sa.exc.DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    busy = getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY")
    return number(error) in _CAME_FIRST or state in _CAME_FIRST_STATES or busy
