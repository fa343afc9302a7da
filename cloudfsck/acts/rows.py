"""What an act on a service's database expects of its rows and changes in them: values, which `database.py` sends.

An act is a tuple of these, in the order in which they are sent, all in one transaction.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

#: Of a column; None: NULL.  Times are UTC.
Value = str | int | bool | dt.datetime | None


@dataclass(frozen=True)
class Rows:
    """So many rows of a table have these values.  They are kept from changing where the server lets us: MySQL and
    MariaDB lock them, SQLite all there is; PostgreSQL wants a right to change them first, so who needs them to stay as
    they are asks once more, after its change."""

    table: str
    where: Mapping[str, Value]
    count: int = 1


@dataclass(frozen=True)
class Change:
    """The one row that has all these values gets others.  `where` has every old value that matters: whoever comes first
    wins, and it is not us."""

    table: str
    where: Mapping[str, Value]
    to: Mapping[str, Value]


Statement = Rows | Change


def moment(when: object) -> str:
    """A time of a row as it stands in an act: 'YYYY-MM-DD HH:MM:SS', with microseconds if it has any; '' for none."""
    return when.isoformat(" ") if isinstance(when, dt.datetime) else ""


def at(text: str) -> dt.datetime | None:
    """The same, back.  Raises ValueError on a text that is no time."""
    return dt.datetime.fromisoformat(text) if text else None
