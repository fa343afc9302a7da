"""The nouns that every other module speaks: values only; nothing here does I/O or imports ours."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

Row = Mapping[str, Any]
Risk = Literal["safe", "ask", "by-hand"]
State = Literal["seen", "proven", "unproven", "held"]
Undo = Literal["exact", "approximate", "none"]

#: As OpenStack writes them, in lower case.
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

RISKS: tuple[Risk, ...] = ("safe", "ask", "by-hand")


class Trouble(Exception):
    """Something that a person must be told in one sentence: what, where, and what to do."""


class Moved(Exception):
    """The world is no longer as the act expects; nothing was done."""


class Refused(Exception):
    """The world is as the act expects, and acting would still not be safe; nothing was done."""


class Outcomeless(Exception):
    """The act was sent, and whether it took place is not known."""


class Unheard(Exception):
    """No answer, or none of use; `sent` says whether the request may have arrived."""

    def __init__(self, why: str, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


def one_line(error: BaseException) -> str:
    """What an exception of somebody else's says, in one line."""
    return " ".join((str(error) or type(error).__name__).split())[:500]


@dataclass(frozen=True)
class Gap:
    """A part of a table that could not be read, with the reason.  Never an empty table."""

    table: str
    part: str
    why: str

    def __str__(self) -> str:
        return f"{self.table} of {self.part}: {self.why}" if self.part else f"{self.table}: {self.why}"


@dataclass(frozen=True)
class Scope:
    """What a reading is asked for.  None stands for everything.  `also` are the UUIDs of volumes and attachments, and
    of other servers, that are asked for beside the servers, names and addresses, and zones on DNS servers.  `backends`
    are the storage backends that are asked, `tables` what is read: whatever only others are read from is not asked."""

    servers: frozenset[str] | None = None
    hosts: frozenset[str] | None = None
    also: frozenset[str] = frozenset()
    backends: frozenset[str] | None = None
    tables: frozenset[str] | None = None

    @property
    def whole(self) -> bool:
        return self.servers is None and self.hosts is None

    @property
    def ids(self) -> frozenset[str] | None:
        """Every UUID that is asked for; None: all."""
        return None if self.servers is None else self.servers | self.also

    @property
    def copies(self) -> frozenset[str] | None:
        """The zones on DNS servers that are asked (zone@server); None: all."""
        return None if self.servers is None else copies(self.also)

    def reads(self, table: str) -> bool:
        return self.tables is None or table in self.tables


def copies(ids: Iterable[str]) -> frozenset[str]:
    """Those that name a zone on a DNS server: cloud.example.@192.0.2.53."""
    return frozenset(one for one in ids if "@" in one)


@dataclass(frozen=True)
class Piece:
    """One part of one table as a source read it: rows (Arrow), or the reason why there are none.

    `clock` is what the clock of the system said that wrote the rows' dates (UTC, naive), `keys` the UUIDs that
    were asked for (None: all).  `rows` is None exactly when `why` is not.
    """

    table: str
    part: str
    rows: Any
    why: str | None
    clock: dt.datetime | None
    started: dt.datetime
    finished: dt.datetime
    keys: frozenset[str] | None = None


class Act(Protocol):
    """One change to one system: a frozen value, with what must still be true before it and what it leaves behind."""

    kind: ClassVar[str]

    @property
    def host(self) -> str:
        """The host on which it changes something; empty for an act on no host, which has a part instead."""

    @property
    def part(self) -> str:
        """What it changes, if it is no host, as the ledger calls it: cinder, or a cell."""

    @property
    def server(self) -> str: ...
    @property
    def also(self) -> frozenset[str]:
        """The UUIDs beside its server's that it touches."""

    @property
    def order(self) -> Mapping[str, Any]:
        """The order as it goes to the host: `do`, `server`, `was` and the rest."""

    @property
    def what(self) -> str:
        """What it moves, as the holds call it: domain, or directory, resize or del.  A server has one of each there."""

    @property
    def command(self) -> str:
        """What a person would type on the host, where only a person may decide; the mildest that helps."""

    @property
    def rung(self) -> str | None:
        """The rung of its ladder on which the object stands afterwards; None when it stands on none."""

    @property
    def undoing(self) -> Undo:
        """How well `undo` brings back what was."""

    @property
    def destroys(self) -> bool:
        """Whether only `purge` may run it."""

    def undo(self, saw: Row) -> Act | None:
        """The act that takes this one back, given what was seen right after it.  None: it cannot be undone."""

    def effect(self, db: Any) -> None:
        """Change a snapshot as the act changes the world.  Raises Moved if the snapshot is not as the act expects."""

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Scenario:
    """A tiny world as text tables, with the keys that the check finds in it and the plan that it makes.

    `rests_on_less` marks the findings that stand in the answer but are unproven.
    """

    title: str
    world: str
    finds: tuple[str, ...] = ()
    plans: str = ""


#: Columns that every query gives beside its evidence; the engine, not the operator, reads them.
GIVEN = ("server", "hosts", "cells", "since", "clock", "by_hand", "rung", "rung_since")

#: A column of the same kind that a query may do without.
ALSO = "also"

#: Another, which a query that reads a storage backend's tables must have.
BACKENDS = "backends"

#: Another that a query may do without.
AFTER = "after"


@dataclass(frozen=True)
class Check:
    """One question to the snapshot.  The query selects the bad rows.  Its first column is the key, and it has

    server      the UUID at the root of the case; NULL: it is no server's
    also        the UUIDs of volumes, attachments and other servers that must be read with it, names and addresses, and
                the zones on DNS servers that it rests on (zone@server); it may be left out
    hosts       the hosts that could acquit the row; NULL: every host of the roster
    cells       the cells that could acquit it; NULL: every cell
    backends    the storage backends that it rests on, where the query reads such
    since       when the fault began, by the date of the object itself; NULL: since we first saw it
    clock       whose clock wrote that date: 'cell:<name>' or 'host:<name>'
    by_hand     why no program may repair this row; NULL: one may
    after       where nothing but what is below it speaks against a repair, that: a plan that takes all of it away goes
                on to this row, which then is read again like any other; it may be left out
    rung        where on its ladder the object stands because we put it there; NULL: nowhere, it is a fault
    rung_since  since when

    and what else is evidence.  Two readings agree on a row only if every column is equal, so evidence holds dates and
    versions, never ages.  `commands` tells a person who decides what to type and where ("where: command"); without it
    the repair's own acts do.
    """

    text: str
    query: str
    accused: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    repair: Callable[[Row], Iterable[Act]] | None = None
    commands: Callable[[Row], Iterable[str]] | None = None
    risk: Risk = "by-hand"
    settle: dt.timedelta = dt.timedelta(hours=1)
    limit: int = 25
    share: float = 0.10

    @property
    def title(self) -> str:
        return self.text.strip().splitlines()[0]


@dataclass(frozen=True)
class Finding:
    """One thing wrong."""

    check: str
    key: str
    risk: Risk
    state: State
    row: Row = field(compare=False, repr=False)
    why: str = field(default="", compare=False)
    first_seen: dt.datetime | None = field(default=None, compare=False)

    @property
    def server(self) -> str:
        """Empty where the object is no server's."""
        return str(self.row["server"] or "")

    @property
    def also(self) -> frozenset[str]:
        """What must be read with it, beside its server."""
        return frozenset(one for one in self.row.get(ALSO) or () if one is not None)

    @property
    def backends(self) -> frozenset[str]:
        """The storage backends that it rests on."""
        return frozenset(self.row.get(BACKENDS) or ())

    @property
    def after(self) -> frozenset[str]:
        """What has to be gone before it is repaired."""
        return frozenset(self.row.get(AFTER) or ())

    @property
    def evidence(self) -> dict[str, Any]:
        return {name: value for name, value in self.row.items() if name not in (*GIVEN, ALSO, BACKENDS, AFTER)}


@dataclass(frozen=True)
class Unknown:
    """What a check could not judge.  Never an empty list of findings."""

    check: str
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Answer:
    """What one check says of one snapshot.  `looked_at` counts the accused rows, for the limits."""

    check: str
    findings: tuple[Finding, ...]
    unknown: Unknown | None
    looked_at: int
    parts: int
    heard: int


@dataclass(frozen=True)
class Hold:
    """An object that stands on a rung of its ladder because we put it there."""

    check: str
    kind: str
    host: str
    server: str
    rung: str
    since: dt.datetime
    run: str
    entry: str = ""
