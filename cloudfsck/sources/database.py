"""One service database (MariaDB, MySQL, PostgreSQL, SQLite): it reads, never writes, and never shows a password.

`Database.open` proves within seconds that the database answers, who it is and what may be read; then `Reading.bulk`
streams a whole table and `Database.transaction` reads few rows of many tables in one snapshot.  Every session is
read-only, but for one of a `Database` that acts/database.py alone makes: that one may write.
"""

from __future__ import annotations

import datetime as dt
import decimal
import os
import re
import sqlite3
import ssl
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import sqlalchemy as sa

from cloudfsck import tables
from cloudfsck.config import Account
from cloudfsck.model import UUID

# connectorx logs every refused login on stderr, where our progress is; its errors reach us as exceptions anyway.
os.environ.setdefault("RUST_LOG", "off")
import connectorx

CONNECT_SECONDS = 10
FEW_SECONDS = 60
BULK_SECONDS = 900
HELD_SECONDS = 5
CHUNK = 1000
BATCH = 10_000

_PORTS = {"mysql": 3306, "postgresql": 5432}
_ACCOUNT_REFUSED = {1044, 1045, 1142, 1143, 1227, 1698}
_UNKNOWN_TABLE = 1146


class Unreadable(Exception):
    """A database, or a table of it, that could not be read, in one sentence.  It never means that nothing is there."""


@dataclass(frozen=True)
class Login:
    """An account.  `tls` demands TLS, verified against the file `ca` or the system's authorities."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None
    tls: bool = False

    @classmethod
    def of(cls, account: Account) -> Login:
        """As the configuration has it.  Raises Trouble if its password cannot be had."""
        return cls(account.user, account.password(), str(account.ca) if account.ca else None, account.tls)


@dataclass(frozen=True)
class Database:
    """Where a database is and who reads it.  Of a URL only the backend, host, port and database are kept.

    `flaw` says why it cannot be read at all, where that is known before anyone tries: reading it says so.  `writes`:
    its sessions may write, under the account of [write.database].
    """

    name: str
    url: str = field(repr=False)
    login: Login = field(default_factory=Login)
    flaw: str = ""
    writes: bool = False

    def __post_init__(self) -> None:
        # Not even in a value that nobody prints: an account that stands in a service's own URL can write.
        try:
            object.__setattr__(self, "url", "" if self.flaw else place(self.url))
        except Unreadable as error:
            object.__setattr__(self, "url", "")
            object.__setattr__(self, "flaw", str(error))

    def __str__(self) -> str:
        if self.flaw:
            return self.name
        url = sa.make_url(self.url)
        return f"{self.name} at {url.database}" if url.host is None else f"{self.name} at {_host(url)}:{url.port}"

    def __repr__(self) -> str:
        return f"Database({self.name!r}, {self.url!r}, {self.login!r})"

    @contextmanager
    def open(self) -> Iterator[Reading]:
        """For bulk reads; every read stands for itself.  Whoever may nominate may answer, a replica too."""
        with self._connect() as (connection, backend):
            reading = Reading(self, connection, backend)
            yield reading

    @contextmanager
    def transaction(self, writer: bool = False) -> Iterator[Reading]:
        """For few rows: one read-only transaction, one snapshot.  `writer` refuses whoever may lag behind."""
        with self._connect() as (connection, backend):
            reading = Reading(self, connection, backend)
            if writer and reading.lags is not None:
                raise Unreadable(f"{self}: {reading.lags}; such a server may nominate, never prove")
            with _said(self):
                reading.snapshot_at = reading.clock()
                for statement in backend.begin(connection):
                    connection.exec_driver_sql(statement)
            reading.in_transaction = True
            yield reading

    @contextmanager
    def _connect(self) -> Iterator[tuple[sa.Connection, _Backend]]:
        if self.flaw:
            raise Unreadable(f"{self.name}: {self.flaw}")
        backend = _BACKENDS[sa.make_url(self.url).get_backend_name()](self)
        with _said(self):
            engine = backend.engine()
            connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            with _said(self):
                backend.prepare(connection)
            yield connection, backend
        finally:
            # Nothing was written: what a dead server says to ROLLBACK or to the good-bye is of no interest.
            with _hushed():
                connection.close()
            engine.dispose()

    @property
    def account(self) -> str:
        """The section of the configuration that names its account."""
        return "[write.database]" if self.writes else "[read.database]"

    def scrub(self, text: str) -> str:
        """The text on one line, without the password, however it is spelled."""
        text = " ".join(text.split())
        password = self.login.password or ""
        for secret in {password, urllib.parse.quote(password, safe=""), urllib.parse.quote_plus(password)}:
            if secret:
                text = text.replace(secret, "***")
        # A driver that quotes a connection string quotes its account as well.
        return re.sub(r"://[^\s/@]*@", "://", text)


def place(url: str) -> str:
    """The backend, host, port and database of a URL, and nothing else of it."""
    try:
        parsed = sa.make_url(url)
        backend = {"mariadb": "mysql"}.get(parsed.get_backend_name(), parsed.get_backend_name())
    except (sa.exc.ArgumentError, ValueError):
        # `from None`: the parser's own words quote what it could not parse, password and all.
        raise Unreadable("its URL does not have the form backend://host:port/database") from None
    if backend not in _BACKENDS:
        raise Unreadable("its URL is not one of mysql, postgresql or sqlite")
    database = parsed.database or ""
    if backend == "sqlite":
        if not database.startswith("/"):
            raise Unreadable("its URL is not that of a file: sqlite:////absolute/path")
        return sa.URL.create("sqlite", database=database).render_as_string()
    if not database:
        raise Unreadable("its URL names no database")
    if "{" in (parsed.host or "") + database:
        raise Unreadable("its URL is a template that is not filled in")
    if not re.fullmatch(r"[\w.:%-]*", parsed.host or "") or re.search(r"[@/:\s]", database):
        # A password with a sign that had to be escaped: its rest passes for a part of the place.
        raise Unreadable("its URL does not have the form backend://host:port/database")
    kept = sa.URL.create(
        backend, host=parsed.host or "localhost", port=parsed.port or _PORTS[backend], database=database
    )
    return kept.render_as_string()


class Reading:
    """An open connection to a database that has shown who it is and what may be read there."""

    def __init__(self, database: Database, connection: sa.Connection, backend: _Backend) -> None:
        self.database = database
        self.connection = connection
        self.backend = backend
        self.in_transaction = False
        self.snapshot_at: dt.datetime | None = None
        self._broken: str | None = None
        with self._saying():
            #: Who answers: bulk reads refuse to come from anyone else.
            self.server = backend.server(connection)
            #: Why it must not prove anything; None: it may.
            self.lags = backend.lags(connection)
            #: The tables and columns that the account is shown, with their types.
            self.columns = backend.columns(connection)
        if not self.columns:
            raise Unreadable(f"{database}: it shows no table to {database.login.user!r} (check {database.account})")

    def clock(self) -> dt.datetime:
        """What the server's clock says, UTC.  In a transaction: what it said right before its snapshot."""
        if self.in_transaction and self.snapshot_at is not None:
            return self.snapshot_at
        with self._saying():
            said = self.connection.exec_driver_sql(self.backend.clock).scalar()
        return said if isinstance(said, dt.datetime) else dt.datetime.fromisoformat(str(said))

    def rows(self, table: tables.Table, servers: Iterable[str] | None = None) -> pa.Table:
        """The rows of these servers; of a table that is always read whole, or for None, all rows."""
        columns = self._resolve(table)
        schema = arrow_schema(columns)
        if columns is None:
            return arrow_schema(table.columns[_skipped(table) :]).empty_table()
        if servers is None or not table.narrow:
            return self._fetched(table, columns, sa.text(self._select(table, columns)), schema)
        batches: list[pa.Table] = []
        wanted = sorted(set(servers))
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            # One key after the other, each leaving out what the ones before it gave: no row twice.
            for nth, key in enumerate(table.key):
                asked = [one for one in chunk if not UUID.fullmatch(one)] if key in table.named else chunk
                if not asked:
                    continue
                condition = f"{self._of(table, key)} IN :servers"
                for earlier in table.key[:nth]:
                    quoted = self._of(table, earlier)
                    condition += f" AND ({quoted} IS NULL OR {quoted} NOT IN :wanted)"
                text = sa.text(self._select(table, columns, condition))
                text = text.bindparams(sa.bindparam("servers", value=asked, expanding=True))
                if nth:
                    text = text.bindparams(sa.bindparam("wanted", value=wanted, expanding=True))
                batches.append(self._fetched(table, columns, text, schema))
        return pa.concat_tables(batches) if batches else schema.empty_table()

    def bulk(self, table: tables.Table) -> pa.RecordBatchReader:
        """All rows as a stream, from the same server.  A stream that breaks raises Unreadable where it is consumed."""
        columns = self._resolve(table)
        if columns is None:
            return pa.RecordBatchReader.from_batches(arrow_schema(table.columns[_skipped(table) :]), [])
        query = self._select(table, columns).replace("\\:", ":")
        reader = self.backend.fast(query, self.server)
        if reader is None:
            return pa.RecordBatchReader.from_batches(arrow_schema(columns), self._streamed(table, columns, query))
        return pa.RecordBatchReader.from_batches(reader.schema, _ordinary(self.database, table, reader))

    def _streamed(self, table: tables.Table, columns: Sequence[tables.Column], query: str) -> Iterator[pa.RecordBatch]:
        # On a connection of its own, which lives as long as whoever consumes the stream.
        with self.database._connect() as (connection, backend), _said(self.database, table.origin):
            if backend.server(connection) != self.server:
                raise Unreadable(_ELSEWHERE)
            for statement in backend.bounds(BULK_SECONDS):
                connection.exec_driver_sql(statement)
            # A cursor on the server lives only in a transaction.
            for statement in backend.begin(connection):
                connection.exec_driver_sql(statement)
            # exec_driver_sql would take the % of a filter for a parameter.
            result = connection.execution_options(stream_results=True, no_parameters=True).exec_driver_sql(query)
            schema = arrow_schema(columns)
            try:
                while rows := result.fetchmany(BATCH):
                    yield _batch(self.database, table, columns, schema, rows)
            finally:
                # Whoever gives up in the middle leaves no cursor on the server.
                with _hushed():
                    result.close()

    def _fetched(
        self, table: tables.Table, columns: Sequence[tables.Column], text: sa.TextClause, schema: pa.Schema
    ) -> pa.Table:
        apart = self.backend.apart(self.connection) if self.in_transaction else nullcontext()
        with self._saying(table.origin), apart:
            rows = self.connection.execute(text).fetchall()
        return pa.Table.from_batches([_batch(self.database, table, columns, schema, rows)], schema)

    def _select(self, table: tables.Table, columns: Sequence[tables.Column], condition: str = "") -> str:
        own, joined = self.columns[table.origin], self.columns.get(table.joined, {})
        kinds = {**joined, **own}
        names = ", ".join(self.backend.wanted(self._of(table, c.name), c, kinds[c.name]) for c in columns)
        # A colon would start a parameter.
        conditions = [table.where.replace("{key}", self._quoted("key")).replace(":", "\\:")] if table.where else []
        conditions += [condition] if condition else []
        where = f" WHERE {' AND '.join(f'({each})' for each in conditions)}" if conditions else ""
        distinct = "DISTINCT " if table.distinct else ""
        source = self._quoted(table.origin)
        if table.joined:
            other = self._quoted(table.joined)
            standard = self._of(table, tables.STANDARD)
            source += f" JOIN {other} ON {other}.{self._quoted('id')} = {standard}"
        return f"SELECT {distinct}{names} FROM {source}{where}"

    def _of(self, table: tables.Table, column: str) -> str:
        """A column as SQL names it; where two tables are joined, with its own."""
        quoted = self._quoted(column)
        if not table.joined:
            return quoted
        own = column in self.columns[table.origin]
        return f"{self._quoted(table.origin if own else table.joined)}.{quoted}"

    def _resolve(self, table: tables.Table) -> Sequence[tables.Column] | None:
        """The columns that are there; None for a late table that is provably not there."""
        wanted = table.columns[_skipped(table) :]
        origins = [table.origin, table.joined] if table.joined else [table.origin]
        have: set[str] = set()
        for origin in origins:
            if origin not in self.columns:
                if not self._proven_absent(origin):
                    raise Unreadable(
                        f"{self.database}: table {origin} is missing, or {self.database.login.user!r} may not read it"
                    )
                if table.late:
                    return None
                raise Unreadable(f"{self.database}: table {origin} is missing")
            have |= self.columns[origin].keys()
        found = []
        for column in (*wanted, *_JOINING) if table.joined else wanted:
            if column.name in have:
                found += [column] if column in wanted else []
                continue
            what = f"column {column.name} of table {table.origin}"
            if not all(self._proven_absent(origin, column.name) for origin in origins):
                raise Unreadable(f"{self.database}: {what} is missing, or {self.database.login.user!r} may not read it")
            if not column.optional:
                raise Unreadable(f"{self.database}: {what} is missing")
        return found

    def _proven_absent(self, table: str, column: str = "") -> bool:
        with self._saying(table):
            return self.backend.absent(self.connection, table, column)

    def _quoted(self, name: str) -> str:
        # Always: `key` is a reserved word here and not there.
        return str(self.connection.dialect.identifier_preparer.quote_identifier(name))

    @contextmanager
    def _saying(self, table: str = "") -> Iterator[None]:
        if self._broken is not None:
            raise Unreadable(self._broken)
        try:
            with _said(self.database, table):
                yield
        except Unreadable as error:
            if self.connection.invalidated or self.connection.closed:
                self._broken = str(error)
            raise


#: What two tables are joined by.
_JOINING = (tables.Column(tables.STANDARD, "BIGINT", "", False),)


def _skipped(table: tables.Table) -> int:
    """The part's own column comes first, and no service has it."""
    return 0 if table.part is None else 1


# -- what differs from one kind of server to the next


class _Backend(Protocol):
    """What one kind of server is asked, and how."""

    clock: str
    #: What ends a SELECT so that nobody changes its rows before our transaction ends; empty where that takes a right to
    #: change them, or where beginning the transaction does it.
    share: str

    def engine(self) -> sa.Engine:
        """Where the connection is made, within seconds; TLS verified if it is demanded."""

    def prepare(self, connection: sa.Connection) -> None:
        """Makes the session read-only, unless it is to write, and bounds its statements."""

    def bounds(self, seconds: int) -> list[str]:
        """The statements that bound the time of those that follow."""

    def server(self, connection: sa.Connection) -> str:
        """Who answers, as this kind of server tells itself from others."""

    def lags(self, connection: sa.Connection) -> str | None:
        """Why what it says may be old."""

    def columns(self, connection: sa.Connection) -> dict[str, dict[str, str]]:
        """Every table that the account is shown, its columns and their types."""

    def absent(self, connection: sa.Connection, table: str, column: str) -> bool:
        """Whether what is not shown is not there either."""

    def begin(self, connection: sa.Connection) -> list[str]:
        """The statements that begin a read-only transaction with one snapshot; where it is to write, one that sees the
        newest of what is committed, and waits `HELD_SECONDS` for a row that somebody else is changing."""

    def apart(self, connection: sa.Connection) -> AbstractContextManager[None]:
        """A frame in which a failing statement leaves the transaction that is open whole."""

    def wanted(self, quoted: str, column: tables.Column, kind: str) -> str:
        """How a column is selected so that it arrives as what tables.py says."""

    def fast(self, query: str, server: str) -> pa.RecordBatchReader | None:
        """The stream of connectorx, from that server alone; None where connectorx does not do."""


class _MySQL:
    """MariaDB and MySQL."""

    clock = "SELECT UTC_TIMESTAMP(6)"
    share = " LOCK IN SHARE MODE"
    # As many as there are: server_uid is MariaDB's, and only its later releases have it; server_uuid is MySQL's.
    _identity = ("hostname", "port", "server_id", "server_uid", "server_uuid")

    def __init__(self, database: Database) -> None:
        self.database = database
        self.url = sa.make_url(database.url)
        self._variables: dict[str, str] = {}

    def engine(self) -> sa.Engine:
        login = self.database.login
        options: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS, "read_timeout": FEW_SECONDS + 10, "write_timeout": CONNECT_SECONDS,
            # `~/.my.cnf` of whoever runs this has no say.
            "read_default_file": None, "charset": "utf8mb4",
        }  # fmt: skip
        if login.tls:
            try:
                options["ssl"] = ssl.create_default_context(cafile=login.ca)
            except OSError as error:
                raise Unreadable(f"the authorities in {login.ca} cannot be read: {error.strerror or error}") from None
        return sa.create_engine(
            self.url.set(drivername="mysql+pymysql", username=login.user, password=login.password),
            connect_args=options, poolclass=sa.pool.NullPool, hide_parameters=True,
        )  # fmt: skip

    def prepare(self, connection: sa.Connection) -> None:
        if self.database.login.tls:
            socket = getattr(connection.connection.driver_connection, "_sock", None)
            # Older releases of PyMySQL go on in plain text when the server offers no TLS.
            if not isinstance(socket, ssl.SSLSocket):
                raise Unreadable(f"the server offers no TLS, and {self.database.account} demands it")
        names = ", ".join(f"'{n}'" for n in (*self._identity, "read_only", "super_read_only", "wsrep_on", "version"))
        self._variables = {
            str(name).lower(): str(value)
            for name, value in connection.exec_driver_sql(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
        }
        may = "READ WRITE" if self.database.writes else "READ ONLY"
        for statement in [f"SET SESSION TRANSACTION {may}", *self.bounds(FEW_SECONDS)]:
            connection.exec_driver_sql(statement)

    def bounds(self, seconds: int) -> list[str]:
        # A TIMESTAMP, unlike a DATETIME, is told in the session's zone (Neutron: ovn_revision_numbers.updated_at).
        utc = "SET SESSION time_zone = '+00:00'"
        if "mariadb" in self._variables["version"].lower():
            return [utc, f"SET SESSION max_statement_time = {seconds}"]
        return [utc, f"SET SESSION max_execution_time = {seconds * 1000}"]

    def server(self, connection: sa.Connection) -> str:
        return str(connection.exec_driver_sql(f"SELECT {self._server}").scalar())

    @property
    def _server(self) -> str:
        known = [f"@@GLOBAL.{name}" for name in self._identity if name in self._variables]
        # HEX: it goes into a statement as a literal, and nobody's host name is to end that.
        return f"HEX(CONCAT_WS('|', {', '.join(known)}))"

    def lags(self, connection: sa.Connection) -> str | None:
        for name in ("read_only", "super_read_only"):
            if self._variables.get(name, "OFF") not in ("OFF", "0"):
                return f"the server is a replica (@@{name} is {self._variables[name]})"
        if self._galera:
            status = {
                str(name).lower(): str(value)
                for name, value in connection.exec_driver_sql("SHOW STATUS LIKE 'wsrep%%'")
            }
            cluster, local = status.get("wsrep_cluster_status"), status.get("wsrep_local_state_comment")
            if cluster != "Primary" or local != "Synced":
                return f"the Galera node is {cluster or 'unknown'} and {local or 'unknown'}, not Primary and Synced"
        return None

    @property
    def _galera(self) -> bool:
        return self._variables.get("wsrep_on", "OFF") in ("ON", "1")

    def columns(self, connection: sa.Connection) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for table, column, kind, rights in connection.exec_driver_sql(
            "SELECT table_name, column_name, data_type, privileges FROM information_schema.columns"
            " WHERE table_schema = DATABASE()"
        ):
            if "select" in str(rights).lower():
                found.setdefault(str(table), {})[str(column)] = str(kind).lower()
        return found

    def absent(self, connection: sa.Connection, table: str, column: str) -> bool:
        # An account with SELECT on some columns is told "denied" of every other, there or not, and so of tables.  The
        # definition tells, which it may see with any right to the whole table (`nova.grants` gives SHOW VIEW).
        quote = connection.dialect.identifier_preparer.quote_identifier
        try:
            definition = connection.exec_driver_sql(f"SHOW CREATE TABLE {quote(table)}").one()[1]
        except sa.exc.DBAPIError as error:
            if number(error) in _ACCOUNT_REFUSED:
                return False
            if number(error) == _UNKNOWN_TABLE:
                return True
            raise
        return bool(column) and f"\n  {quote(column)} ".lower() not in str(definition).lower()

    def begin(self, connection: sa.Connection) -> list[str]:
        if self.database.writes:
            return [
                *(["SET SESSION wsrep_sync_wait = 3"] if self._galera else []),
                f"SET SESSION innodb_lock_wait_timeout = {HELD_SECONDS}",
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "START TRANSACTION READ WRITE",
            ]
        # Galera: wait until everything that the cluster has committed is visible on this node.
        wait = ["SET SESSION wsrep_sync_wait = 1"] if self._galera else []
        return [
            *wait,
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ]

    @contextmanager
    def apart(self, connection: sa.Connection) -> Iterator[None]:
        yield

    def wanted(self, quoted: str, column: tables.Column, kind: str) -> str:
        return quoted

    def fast(self, query: str, server: str) -> pa.RecordBatchReader | None:
        login = self.database.login
        options = {
            # Else a loopback host is swapped for the server's socket, which may be another server's.
            "prefer_socket": "false",
            "tcp_connect_timeout_ms": str(CONNECT_SECONDS * 1000), "tcp_keepalive_time_ms": "30000",
        }  # fmt: skip
        if login.tls:
            # Seen with a real server: a wrong authority and a wrong host name are both refused.  Without sslmode,
            # ssl-ca alone is plain text.
            options["sslmode"] = "verify_identity"
            if login.ca:
                options["ssl-ca"] = login.ca
        # SET, not DO: DO turns its errors into warnings.
        same = f"SET @cloudfsck_same = IF({self._server} = '{server}', 1, (SELECT 1 UNION SELECT 2))"
        before = [same, "SET SESSION TRANSACTION READ ONLY", *self.bounds(BULK_SECONDS)]
        return _connectorx(self.database, "mysql", options, query, before)


class _PostgreSQL:
    """PostgreSQL."""

    clock = "SELECT clock_timestamp() AT TIME ZONE 'utc'"
    share = ""  # FOR SHARE takes the right to update a column of the table
    _server = (
        "md5(concat_ws('|', inet_server_addr(), inet_server_port(), pg_postmaster_start_time() AT TIME ZONE 'utc',"
        " current_database()))"
    )

    def __init__(self, database: Database) -> None:
        self.database = database
        self.url = sa.make_url(database.url)
        self._there: set[tuple[str, str]] = set()

    def engine(self) -> sa.Engine:
        login = self.database.login
        options: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS, "application_name": "cloudfsck",
            "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000,
        }  # fmt: skip
        if login.tls:
            options |= {"sslmode": "verify-full", "sslrootcert": login.ca or "system"}
        return sa.create_engine(
            self.url.set(drivername="postgresql+psycopg", username=login.user, password=login.password),
            connect_args=options, poolclass=sa.pool.NullPool, hide_parameters=True,
        )  # fmt: skip

    def prepare(self, connection: sa.Connection) -> None:
        only = "off" if self.database.writes else "on"
        for statement in [f"SET default_transaction_read_only = {only}", *self.bounds(FEW_SECONDS)]:
            connection.exec_driver_sql(statement)

    def bounds(self, seconds: int) -> list[str]:
        return [f"SET statement_timeout = {seconds * 1000}"]

    def server(self, connection: sa.Connection) -> str:
        return str(connection.exec_driver_sql(f"SELECT {self._server}").scalar())

    def lags(self, connection: sa.Connection) -> str | None:
        if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar():
            return "the server is a replica (pg_is_in_recovery() is true)"
        return None

    def columns(self, connection: sa.Connection) -> dict[str, dict[str, str]]:
        # Not information_schema: that leaves out what the account may not read, and left out would pass for not there.
        found: dict[str, dict[str, str]] = {}
        for table, column, kind, readable in connection.exec_driver_sql(
            "SELECT c.relname, a.attname, t.typname,"
            " pg_table_is_visible(c.oid) AND has_column_privilege(c.oid, a.attnum, 'SELECT')"
            " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped"
            " AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
        ):
            self._there.add((str(table), str(column)))
            self._there.add((str(table), ""))
            if readable:
                found.setdefault(str(table), {})[str(column)] = str(kind)
        return found

    def absent(self, connection: sa.Connection, table: str, column: str) -> bool:
        return (table, column) not in self._there

    def begin(self, connection: sa.Connection) -> list[str]:
        if self.database.writes:
            return [f"SET lock_timeout = {HELD_SECONDS * 1000}", "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"]
        return ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"]

    @contextmanager
    def apart(self, connection: sa.Connection) -> Iterator[None]:
        connection.exec_driver_sql("SAVEPOINT apart")
        try:
            yield
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                connection.exec_driver_sql("ROLLBACK TO SAVEPOINT apart")
            raise
        connection.exec_driver_sql("RELEASE SAVEPOINT apart")

    def wanted(self, quoted: str, column: tables.Column, kind: str) -> str:
        name = quoted.rpartition(".")[2]
        if kind == "inet":
            return f"host({quoted}) AS {name}"
        if column.type == "VARCHAR" and kind not in ("varchar", "text", "bpchar"):
            # Enumerations (migration_type), uuid, …
            return f"CAST({quoted} AS text) AS {name}"
        return quoted

    def fast(self, query: str, server: str) -> pa.RecordBatchReader | None:
        if self.database.login.tls:
            # connectorx knows no sslmode=verify-full for PostgreSQL ("invalid value for option `sslmode`"), and its
            # `require` with a root certificate checks the authority but not the host's name: seen with a real server.
            return None
        options = {"connect_timeout": str(CONNECT_SECONDS), "keepalives_idle": "30", "keepalives_interval": "10"}
        before = [
            f"SELECT 1 / (CASE WHEN {self._server} = '{server}' THEN 1 ELSE 0 END)",
            "SET default_transaction_read_only = on",
            *self.bounds(BULK_SECONDS),
        ]
        return _connectorx(self.database, "postgresql", options, query, before)


class _SQLite:
    """A file, as small clouds and the demo have it."""

    clock = "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"
    share = ""  # who writes has the whole file

    def __init__(self, database: Database) -> None:
        self.database = database
        self.path = str(sa.make_url(database.url).database)

    def engine(self) -> sa.Engine:
        # mode: without it, a mistyped path makes an empty database.
        uri = f"file:{urllib.parse.quote(self.path)}?mode={'rw' if self.database.writes else 'ro'}"

        def connect() -> sqlite3.Connection:
            # The stream may be consumed in another thread than the one that asked for it.
            return sqlite3.connect(
                uri, uri=True, timeout=CONNECT_SECONDS, isolation_level=None, check_same_thread=False
            )

        return sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool, hide_parameters=True)

    def prepare(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA query_only = {'off' if self.database.writes else 'on'}")

    def bounds(self, seconds: int) -> list[str]:
        return []

    def server(self, connection: sa.Connection) -> str:
        found = os.stat(self.path)
        return f"{found.st_dev}:{found.st_ino}"

    def lags(self, connection: sa.Connection) -> str | None:
        return None

    def columns(self, connection: sa.Connection) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for table, column, kind in connection.exec_driver_sql(
            "SELECT m.name, c.name, c.type FROM sqlite_master m JOIN pragma_table_info(m.name) c"
            " WHERE m.type IN ('table', 'view')"
        ):
            found.setdefault(str(table), {})[str(column)] = str(kind).lower()
        return found

    def absent(self, connection: sa.Connection, table: str, column: str) -> bool:
        return True

    def begin(self, connection: sa.Connection) -> list[str]:
        return ["BEGIN IMMEDIATE" if self.database.writes else "BEGIN"]

    @contextmanager
    def apart(self, connection: sa.Connection) -> Iterator[None]:
        yield

    def wanted(self, quoted: str, column: tables.Column, kind: str) -> str:
        return quoted

    def fast(self, query: str, server: str) -> pa.RecordBatchReader | None:
        # A column of SQLite has no type, so connectorx takes it from the first row: a NULL there, or a date kept as
        # text, ends the read.  Here the types are those that tables.py says.
        return None


_BACKENDS: dict[str, Callable[[Database], _Backend]] = {"mysql": _MySQL, "postgresql": _PostgreSQL, "sqlite": _SQLite}


# -- connectorx

_ELSEWHERE = "connections to it land on different servers; give the address of one"


def _connectorx(
    database: Database, scheme: str, options: dict[str, str], query: str, before: list[str]
) -> pa.RecordBatchReader:
    url, login = sa.make_url(database.url), database.login
    account = f"{urllib.parse.quote(login.user or '', safe='')}:{urllib.parse.quote(login.password or '', safe='')}"
    where = f"{scheme}://{account}@{_host(url)}:{url.port}/{urllib.parse.quote(str(url.database), safe='')}"
    try:
        return connectorx.read_sql(
            f"{where}?{urllib.parse.urlencode(options)}", query, return_type="arrow_stream", batch_size=BATCH,
            pre_execution_query=before,
        )  # fmt: skip
    except BaseException as error:  # noqa: BLE001 - a PanicException is no Exception
        raise _from_connectorx(database, error) from None


def _ordinary(database: Database, table: tables.Table, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The same batches; what breaks the stream becomes an exception that can be caught, with its reason."""
    try:
        yield from reader
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001 - a PanicException is no Exception
        told = _from_connectorx(database, error)
        if isinstance(told, Unreadable):
            told = Unreadable(f"{told} (in the middle of table {table.origin})")
        raise told from None


def _from_connectorx(database: Database, error: BaseException) -> BaseException:
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        return error
    text = str(error)
    if "ERROR 1242" in text or "division by zero" in text:
        return Unreadable(f"{database}: {_ELSEWHERE}")
    if said := re.search(r'message: "((?:[^"\\]|\\.)*)"|ERROR (\d+ \(\w+\): .*?) }', text):
        text = said.group(1) or said.group(2)
    return Unreadable(database.scrub(f"{database}: the stream broke: {text}"))


# -- values


def arrow_schema(columns: Sequence[tables.Column] | None) -> pa.Schema:
    """Columns of ours as Arrow has them."""
    kinds = {
        "VARCHAR": pa.string(), "BIGINT": pa.int64(), "INTEGER": pa.int64(), "UBIGINT": pa.uint64(),
        "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_(), "TIMESTAMP": pa.timestamp("us"),
    }  # fmt: skip
    return pa.schema([(column.name, kinds[column.type]) for column in columns or ()])


def _batch(
    database: Database, table: tables.Table, columns: Sequence[tables.Column], schema: pa.Schema, rows: Sequence[Any]
) -> pa.RecordBatch:
    arrays = []
    for nth, column in enumerate(columns):
        convert = _CONVERT[column.type]
        try:
            values = [None if row[nth] is None else convert(row[nth]) for row in rows]
            arrays.append(pa.array(values, schema.field(nth).type))
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            raise Unreadable(
                f"{database}: column {column.name} of table {table.origin} holds what is no {column.type}"
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _string(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _integer(value: Any) -> int:
    if isinstance(value, (int, decimal.Decimal)) and int(value) == value:
        return int(value)
    raise ValueError


def _boolean(value: Any) -> bool:
    if value in (0, 1):
        return bool(value)
    raise ValueError


def _date(value: Any) -> dt.datetime:
    found = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
    return found.astimezone(dt.UTC).replace(tzinfo=None) if found.tzinfo else found


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "VARCHAR": _string, "BIGINT": _integer, "INTEGER": _integer, "UBIGINT": _integer, "DOUBLE": float,
    "BOOLEAN": _boolean, "TIMESTAMP": _date,
}  # fmt: skip


# -- what goes wrong, in one sentence


def _host(url: sa.URL) -> str:
    host = url.host or "localhost"
    return f"[{host}]" if ":" in host else host


def number(error: sa.exc.DBAPIError) -> int | None:
    """The number that MariaDB and MySQL give an error."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


@contextmanager
def _said(database: Database, table: str = "") -> Iterator[None]:
    """Whatever goes wrong within comes out as Unreadable, in one sentence that names the database."""
    at = f"{database}, table {table}" if table else str(database)
    try:
        yield
    except Unreadable as error:
        if str(error).startswith(database.name):
            raise
        raise Unreadable(database.scrub(f"{at}: {error}")) from None
    except sa.exc.DBAPIError as error:
        raise Unreadable(database.scrub(f"{at}: {reason(error, database.account)}")) from None
    except sa.exc.SQLAlchemyError as error:
        raise Unreadable(database.scrub(f"{at}: {error}")) from None
    except (OSError, pa.ArrowException) as error:
        raise Unreadable(database.scrub(f"{at}: {error}")) from None


def reason(error: sa.exc.DBAPIError, account: str) -> str:
    """What a driver says, in one sentence; `account` is where to look if the account was refused."""
    arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
    if (code := number(error)) is not None:
        text = str(arguments[1]) if len(arguments) > 1 else str(error.orig)
        if code in _ACCOUNT_REFUSED:
            return f"{text[:1].lower()}{text[1:]} (check {account})"
        return f"{text} ({code})"
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    # psycopg ends with advice, and begins with what we have said already.
    text = lines[0] if lines else type(error.orig).__name__
    text = re.sub(r"^connection failed: |connection to server at .*? failed: ", "", text)
    text = re.sub(r"^(FATAL|ERROR): *", "", text)
    if re.search(r"authentication failed|permission denied|does not exist|no pg_hba.conf entry", text):
        text += f" (check {account})"
    return text


@contextmanager
def _hushed() -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError):
        return


def quoted(database: Database, name: str) -> str:
    """A name as this database's SQL quotes it."""
    dialect = sa.make_url(database.url).get_dialect()()
    return dialect.identifier_preparer.quote_identifier(name)
