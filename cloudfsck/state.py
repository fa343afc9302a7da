"""What cloudfsck itself knows of a cloud between two runs: sightings, holds, keeps, samples, the lease.

It lies in SQLite beside the journals, or in a database that several machines share.  It never holds a fact about the
cloud that a check would believe without reading it again.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import getpass
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    or_,
)

from sqlalchemy import select, update  # isort: skip

from cloudfsck.config import Cloud
from cloudfsck.model import Finding, Hold, Trouble

_META = MetaData()

_READINGS = Table(
    "readings", _META,
    Column("run", String(64), primary_key=True),
    Column("taken_at", DateTime, nullable=False),
    Column("whole", Boolean, nullable=False),
)  # fmt: skip

_SIGHTINGS = Table(
    "sightings", _META,
    Column("check_name", String(128), primary_key=True),
    Column("object", String(255), primary_key=True),
    Column("first_seen", DateTime, nullable=False),
    Column("last_seen", DateTime, nullable=False),
    Column("ended", DateTime),
)  # fmt: skip

_HOLDS = Table(
    "holds", _META,
    Column("kind", String(32), primary_key=True),
    Column("host", String(255), primary_key=True),
    Column("server", String(64), primary_key=True),
    Column("check_name", String(128), nullable=False),
    Column("rung", String(32), nullable=False),
    Column("since", DateTime, nullable=False),
    Column("run", String(64), nullable=False),
    Column("entry", String(255), nullable=False),
)  # fmt: skip

_KEEPS = Table(
    "keeps", _META,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("pattern", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("until", DateTime),
    Column("made_at", DateTime, nullable=False),
    Column("made_by", String(255), nullable=False),
)  # fmt: skip

_SAMPLES = Table(
    "samples", _META,
    Column("cell", String(255), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("uuid", String(64), nullable=False),
    Column("taken_at", DateTime, nullable=False),
)  # fmt: skip

_MARKS = Table(
    "marks", _META,
    Column("cell", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("height", BigInteger, nullable=False),
    Column("taken_at", DateTime, nullable=False),
)  # fmt: skip

_CLOCKS = Table(
    "clocks", _META,
    Column("part", String(255), primary_key=True),
    Column("said", DateTime, nullable=False),
)  # fmt: skip

_LEASE = Table(
    "lease", _META,
    Column("name", String(32), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("until", DateTime, nullable=False),
)  # fmt: skip

_FROZEN = Table(
    "frozen", _META,
    Column("host", String(255), primary_key=True),
    Column("server", String(255), primary_key=True),
    Column("until", DateTime, nullable=False),
    Column("why", Text, nullable=False),
)  # fmt: skip

_HALTS = Table(
    "halts", _META,
    Column("why", String(255), primary_key=True),
    Column("since", DateTime, nullable=False),
)  # fmt: skip

KEEP_KINDS = ("id", "project", "host", "name", "tag")

#: How long a lease is good for; it is renewed before every act.
LEASE = dt.timedelta(minutes=5)


def utcnow() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0)


@dataclass(frozen=True)
class Keep:
    """Never touch what this matches: a server's UUID, a project, a host, a pattern of names, or a tag."""

    id: int
    kind: str
    pattern: str
    reason: str
    until: dt.datetime | None
    made_at: dt.datetime
    made_by: str

    def matches(self, row: Mapping[str, Any], tags: Iterable[str]) -> bool:
        if self.kind == "tag":
            return self.pattern in tags
        column = {"id": "server", "project": "project", "host": "host", "name": "name"}[self.kind]
        value = row.get(column)
        if value is None:
            return False
        return fnmatch.fnmatchcase(str(value), self.pattern) if self.kind == "name" else str(value) == self.pattern

    def __str__(self) -> str:
        until = f" until {self.until:%Y-%m-%d}" if self.until else ""
        return f"kept ({self.kind} {self.pattern}{until}): {self.reason}"


@dataclass(frozen=True)
class Lease:
    owner: str
    fence: int


class State:
    """The store of one cloud.  Every method is one transaction."""

    def __init__(self, cloud: Cloud) -> None:
        self.folder = cloud.state
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._engine = sa.create_engine(self._url(cloud))
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _sqlite_settings)
                sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
            _META.create_all(self._engine)
            # Not before: that a table is not there yet is an error as well.
            sa.event.listen(self._engine, "handle_error", self._say)
        except OSError as error:
            raise Trouble(f"the state directory {self.folder} cannot be used: {error.strerror}") from error
        except sa.exc.DBAPIError as error:
            raise self._trouble(error.orig or error) from error
        except sa.exc.SQLAlchemyError as error:
            raise Trouble(f"the state store cannot be used: {str(error).splitlines()[0]}") from error

    def _url(self, cloud: Cloud) -> sa.URL:
        if cloud.store is None:
            return sa.URL.create("sqlite", database=str(cloud.state / "state.sqlite"))
        try:
            url = sa.make_url(cloud.store)
        except sa.exc.ArgumentError as error:
            raise Trouble("cloud.store is no database URL; it is written as postgresql://USER@HOST/DATABASE") from error
        drivers = {"mysql": "mysql+pymysql", "mariadb": "mysql+pymysql", "postgresql": "postgresql+psycopg"}
        url = url.set(drivername=drivers.get(url.drivername, url.drivername))
        if cloud.store_password_file is not None:
            try:
                url = url.set(password=cloud.store_password_file.read_text(encoding="utf-8").rstrip("\n"))
            except OSError as error:
                raise Trouble(f"{cloud.store_password_file} cannot be read: {error.strerror}") from error
        return url

    def _say(self, context: sa.engine.ExceptionContext) -> None:
        """A full disk, a server that went away: whoever was at it stops with a sentence."""
        raise self._trouble(context.original_exception) from context.original_exception

    def _trouble(self, error: BaseException) -> Trouble:
        url = self._engine.url
        where = url.database if url.get_backend_name() == "sqlite" else url.render_as_string()
        return Trouble(f"the state store {where} cannot be used: {str(error).splitlines()[0]}")

    def close(self) -> None:
        self._engine.dispose()

    # --------------------------------------------------------------------------------- readings and sightings

    def new_run(self) -> str:
        return f"{utcnow():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"

    def whole_readings(self) -> int:
        """How many times the whole cloud was read with no part missing."""
        with self._engine.begin() as db:
            return int(db.execute(select(func.count()).select_from(_READINGS).where(_READINGS.c.whole)).scalar_one())

    def note_reading(self, run: str, whole: bool) -> None:
        with self._engine.begin() as db:
            db.execute(insert(_READINGS).values(run=run, taken_at=utcnow(), whole=whole))

    def sight(self, findings: Sequence[Finding], judged: frozenset[str]) -> dict[tuple[str, str], dt.datetime]:
        """Note what was found, and return when each was first seen.  A sighting ends when its check, being among those
        that `judged` everything, finds it no more."""
        now = utcnow()
        found = {(finding.check, finding.key) for finding in findings}
        with self._engine.begin() as db:
            known = {
                (row.check_name, row.object): (row.first_seen, row.ended) for row in db.execute(select(_SIGHTINGS))
            }
            first: dict[tuple[str, str], dt.datetime] = {}
            for at in sorted(found):
                seen, ended = known.get(at, (now, None))
                first[at] = now if ended is not None else seen
                values = {"first_seen": first[at], "last_seen": now, "ended": None}
                here = and_(_SIGHTINGS.c.check_name == at[0], _SIGHTINGS.c.object == at[1])
                if at in known:
                    db.execute(update(_SIGHTINGS).where(here).values(values))
                else:
                    db.execute(insert(_SIGHTINGS).values(check_name=at[0], object=at[1], **values))
            for at, (_, ended) in known.items():
                if at not in found and ended is None and at[0] in judged:
                    here = and_(_SIGHTINGS.c.check_name == at[0], _SIGHTINGS.c.object == at[1])
                    db.execute(update(_SIGHTINGS).where(here).values(ended=now))
            db.execute(delete(_SIGHTINGS).where(_SIGHTINGS.c.ended < now - dt.timedelta(days=2)))
        return first

    def first_seen(self, check: str, key: str) -> dt.datetime | None:
        with self._engine.begin() as db:
            row = db.execute(
                select(_SIGHTINGS.c.first_seen).where(
                    _SIGHTINGS.c.check_name == check, _SIGHTINGS.c.object == key, _SIGHTINGS.c.ended.is_(None)
                )
            ).first()
            return None if row is None else row.first_seen

    def seen_today(self, check: str) -> frozenset[str]:
        """The keys that a check found in the last 24 hours."""
        since = utcnow() - dt.timedelta(days=1)
        with self._engine.begin() as db:
            rows = db.execute(
                select(_SIGHTINGS.c.object).where(_SIGHTINGS.c.check_name == check, _SIGHTINGS.c.last_seen >= since)
            )
            return frozenset(row.object for row in rows)

    # --------------------------------------------------------------------------------- holds and frozen objects

    def holds(self) -> list[Hold]:
        with self._engine.begin() as db:
            return [
                Hold(row.check_name, row.kind, row.host, row.server, row.rung, row.since, row.run, row.entry)
                for row in db.execute(select(_HOLDS).order_by(_HOLDS.c.since, _HOLDS.c.host, _HOLDS.c.server))
            ]

    def hold(self, hold: Hold) -> None:
        """Put an object on a rung, from whichever it stood on."""
        with self._engine.begin() as db:
            db.execute(delete(_HOLDS).where(_at(_HOLDS, hold.kind, hold.host, hold.server)))
            db.execute(insert(_HOLDS).values(
                kind=hold.kind, host=hold.host, server=hold.server, check_name=hold.check, rung=hold.rung,
                since=hold.since, run=hold.run, entry=hold.entry,
            ))  # fmt: skip

    def release(self, kind: str, host: str, server: str) -> None:
        with self._engine.begin() as db:
            db.execute(delete(_HOLDS).where(_at(_HOLDS, kind, host, server)))

    def freeze(self, host: str, server: str, why: str, until: dt.datetime) -> None:
        """Nothing touches the object, or its case, before `until` has passed and it was proven anew."""
        with self._engine.begin() as db:
            db.execute(delete(_FROZEN).where(_FROZEN.c.host == host, _FROZEN.c.server == server))
            db.execute(insert(_FROZEN).values(host=host, server=server, why=why, until=until))

    def thaw(self, host: str, server: str) -> None:
        with self._engine.begin() as db:
            db.execute(delete(_FROZEN).where(_FROZEN.c.host == host, _FROZEN.c.server == server))

    def frozen(self) -> dict[str, str]:
        """Why the cases of these servers may not be touched now."""
        now = utcnow()
        with self._engine.begin() as db:
            db.execute(delete(_FROZEN).where(_FROZEN.c.until < now))
            return {
                row.server: f"what became of an act on {row.host} is not known ({row.why}); nothing is sent"
                f" before {row.until} UTC"
                for row in db.execute(select(_FROZEN))
            }

    # --------------------------------------------------------------------------------- keeps

    def keep(self, kind: str, pattern: str, reason: str, until: dt.datetime | None) -> int:
        with self._engine.begin() as db:
            made = db.execute(insert(_KEEPS).values(
                kind=kind, pattern=pattern, reason=reason, until=until, made_at=utcnow(), made_by=_whoami(),
            ))  # fmt: skip
            assert made.inserted_primary_key is not None
            return int(made.inserted_primary_key[0])

    def keeps(self) -> list[Keep]:
        """Those that have not expired."""
        with self._engine.begin() as db:
            rows = db.execute(
                select(_KEEPS).where(or_(_KEEPS.c.until.is_(None), _KEEPS.c.until > utcnow())).order_by(_KEEPS.c.id)
            )
            return [
                Keep(row.id, row.kind, row.pattern, row.reason, row.until, row.made_at, row.made_by) for row in rows
            ]

    def unkeep(self, number: int) -> bool:
        with self._engine.begin() as db:
            return bool(db.execute(delete(_KEEPS).where(_KEEPS.c.id == number)).rowcount)

    # --------------------------------------------------------------------------------- what stops all repairs

    def samples(self) -> list[tuple[str, int, str, dt.datetime]]:
        with self._engine.begin() as db:
            return [(row.cell, row.id, row.uuid, row.taken_at) for row in db.execute(select(_SAMPLES))]

    def sample(self, cell: str, rows: Iterable[tuple[int, str]]) -> None:
        """Keep these (id, uuid) of a cell's instances in place of the earlier ones."""
        now = utcnow()
        with self._engine.begin() as db:
            db.execute(delete(_SAMPLES).where(_SAMPLES.c.cell == cell))
            kept = [{"cell": cell, "id": number, "uuid": uuid, "taken_at": now} for number, uuid in rows]
            if kept:
                db.execute(insert(_SAMPLES), kept)

    def marks(self) -> list[tuple[str, str, int, dt.datetime]]:
        """What only grows in a cell's database, as it stood: (cell, name, height, when)."""
        with self._engine.begin() as db:
            return [(row.cell, row.name, row.height, row.taken_at) for row in db.execute(select(_MARKS))]

    def mark(self, cell: str, heights: Mapping[str, int]) -> None:
        """Keep these marks of a cell in place of the earlier ones."""
        now = utcnow()
        with self._engine.begin() as db:
            db.execute(delete(_MARKS).where(_MARKS.c.cell == cell))
            rows = [{"cell": cell, "name": name, "height": height, "taken_at": now} for name, height in heights.items()]
            if rows:
                db.execute(insert(_MARKS), rows)

    def clocks(self, said: Mapping[str, dt.datetime]) -> dict[str, tuple[dt.datetime, dt.datetime]]:
        """Note what each clock says now, and return those that stepped back: {part: (before, now)}."""
        back = {}
        with self._engine.begin() as db:
            known = {row.part: row.said for row in db.execute(select(_CLOCKS))}
            for part, now in said.items():
                before = known.get(part)
                if before is not None and now < before - dt.timedelta(seconds=5):
                    back[part] = (before, now)
                    continue
                db.execute(delete(_CLOCKS).where(_CLOCKS.c.part == part))
                db.execute(insert(_CLOCKS).values(part=part, said=now))
        return back

    def halt(self, why: str) -> None:
        with self._engine.begin() as db:
            if db.execute(select(_HALTS).where(_HALTS.c.why == why[:255])).first() is None:
                db.execute(insert(_HALTS).values(why=why[:255], since=utcnow()))

    def halts(self) -> list[str]:
        with self._engine.begin() as db:
            return [f"{row.why} (since {row.since} UTC)" for row in db.execute(select(_HALTS).order_by(_HALTS.c.since))]

    def accept_restore(self) -> list[str]:
        """Take what the databases hold now as right: forget what stopped repairs, the samples and the clocks."""
        accepted = self.halts()
        with self._engine.begin() as db:
            for table in (_HALTS, _SAMPLES, _MARKS, _CLOCKS, _READINGS):
                db.execute(delete(table))
        return accepted

    # --------------------------------------------------------------------------------- the one writer

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Be the one writer.  Raises Trouble while another is."""
        owner = f"{_whoami()}@{socket.gethostname()} pid {os.getpid()} {secrets.token_hex(3)}"
        now = utcnow()
        with self._engine.begin() as db:
            row = db.execute(select(_LEASE).where(_LEASE.c.name == "writer").with_for_update()).first()
            if row is None:
                fence = 1
                db.execute(insert(_LEASE).values(name="writer", owner=owner, fence=fence, until=now + LEASE))
            elif row.until > now:
                raise Trouble(
                    f"another cloudfsck is repairing this cloud: {row.owner}; its lease ends at {row.until} UTC"
                )
            else:
                fence = row.fence + 1
                taken = db.execute(
                    update(_LEASE)
                    .where(_LEASE.c.name == "writer", _LEASE.c.fence == row.fence)
                    .values(owner=owner, fence=fence, until=now + LEASE)
                )
                if taken.rowcount != 1:
                    raise Trouble("another cloudfsck began to repair this cloud in this very moment")
        lease = Lease(owner, fence)
        try:
            yield lease
        finally:
            with self._engine.begin() as db:
                db.execute(update(_LEASE).where(_mine(lease)).values(until=now))

    def renew(self, lease: Lease) -> None:
        """Stay the one writer.  Raises Trouble if the lease was lost."""
        with self._engine.begin() as db:
            renewed = db.execute(update(_LEASE).where(_mine(lease)).values(until=utcnow() + LEASE))
            if renewed.rowcount != 1:
                raise Trouble("our lease was lost to another cloudfsck: nothing more is done")


def _mine(lease: Lease) -> Any:
    return and_(_LEASE.c.name == "writer", _LEASE.c.owner == lease.owner, _LEASE.c.fence == lease.fence)


def _at(table: Table, kind: str, host: str, server: str) -> Any:
    return and_(table.c.kind == kind, table.c.host == host, table.c.server == server)


def _sqlite_settings(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, so that a reader that will write locks first
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA busy_timeout = 10000")


def _whoami() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
