"""Acts in a service's database: what is compared, who wins a race, what each fault means, and that all of it or nothing
is done."""

from __future__ import annotations

import datetime as dt
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cloudfsck import apply, checks, config, journal, plan, tables
from cloudfsck.acts import database
from cloudfsck.acts.block_device import Delete, Restore
from cloudfsck.acts.database import Guarded
from cloudfsck.acts.ovn_note import Reset
from cloudfsck.acts.quota import Count
from cloudfsck.acts.rows import Change, Rows, Statement
from cloudfsck.demo import hosts
from cloudfsck.demo.cloud import NODES
from cloudfsck.model import Act, Moved, Outcomeless, Refused, Trouble
from cloudfsck.sources import Sources
from cloudfsck.sources.database import Database, Login, Reading
from cloudfsck.state import Lease, State
from tests.bed import MariaDB, PostgreSQL
from tests.bed import ovn as ovn_bed
from tests.bed.databases import Account
from tests.real_cloud import ROOT, Ran

S = "33333333-0000-4000-8000-000000000003"
V = "11111111-0000-4000-8000-000000000001"
A = "22222222-0000-4000-8000-000000000002"
U = "55555555-0000-4000-8000-000000000005"
CHANGED = "2026-01-31 10:00:00"
SECRET = "chap-secret-of-the-row"

ACT = Delete(S, "cell1", 7, V, A, "/dev/vdb", None, CHANGED, "compute1", "active")

WRITER = Account("cloudfsck_write", "wr!tes@p%ss")
#: What the account may do, and no more.
_SEEN = "id, instance_uuid, volume_id, attachment_id, device_name, boot_index, updated_at, deleted, deleted_at"
_SERVER = "uuid, host, vm_state, task_state, deleted"


class Cell:
    """A cell's database with one server and one block device, and what one does in it beside us."""

    database: Database
    login: Login

    def do(self, sql: str) -> None:
        raise NotImplementedError

    def row(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def fill(self) -> None:
        self.do("DELETE FROM block_device_mapping")
        self.do("DELETE FROM instances")
        self.do("INSERT INTO instances (id, uuid, host, vm_state, deleted, created_at) VALUES"
                f" (5, '{S}', 'compute1', 'active', 0, '2026-01-01 10:00:00')")  # fmt: skip
        self.do(
            "INSERT INTO block_device_mapping (id, uuid, instance_uuid, volume_id, attachment_id, device_name,"
            " source_type, destination_type, connection_info, created_at, updated_at, deleted) VALUES"
            f" (7, '{U}', '{S}', '{V}', '{A}', '/dev/vdb', 'volume', 'volume', '{SECRET}', '2026-01-01 10:00:00',"
            f" '{CHANGED}', 0)"
        )

    def send(self, act: Guarded) -> dict[str, Any]:
        return dict(database.send(act, self.database, self.login))


class File(Cell):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "cell.sqlite"
        self.database = Database("cell1", f"sqlite:///{self.path}")
        self.login = Login()
        self.do("CREATE TABLE instances (id INTEGER, uuid TEXT, host TEXT, vm_state TEXT, task_state TEXT,"
                " deleted INTEGER, created_at TEXT)")  # fmt: skip
        self.do("CREATE TABLE block_device_mapping (id INTEGER, uuid TEXT, instance_uuid TEXT, volume_id TEXT,"
                " attachment_id TEXT, device_name TEXT, boot_index INTEGER, source_type TEXT, destination_type TEXT,"
                " connection_info TEXT, created_at TEXT, updated_at TEXT, deleted_at TEXT,"
                " deleted INTEGER)")  # fmt: skip

    def do(self, sql: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(sql)
            connection.commit()

    def row(self) -> tuple[Any, ...]:
        with closing(sqlite3.connect(self.path)) as connection:
            found: tuple[Any, ...] = connection.execute("SELECT * FROM block_device_mapping WHERE id = 7").fetchone()
            return found


class Server(Cell):
    """On a real server, with Nova's schema, and an account that has the rights that are asked for and no other."""

    def __init__(self, server: MariaDB | PostgreSQL) -> None:
        self.server = server
        server.create("nova_cell1", "nova_cell")
        at = "" if isinstance(server, PostgreSQL) else "nova_cell1."
        who, password = WRITER.user, WRITER.password
        if isinstance(server, PostgreSQL):
            server.execute("", f"CREATE ROLE {who} LOGIN PASSWORD '{password}'")
        else:
            server.execute("", f"CREATE USER {who} IDENTIFIED BY '{password}'")
        for right in (f"SELECT ({_SEEN}), UPDATE (deleted, deleted_at) ON {at}block_device_mapping",
                      f"SELECT ({_SERVER}) ON {at}instances"):  # fmt: skip
            server.execute("nova_cell1", f"GRANT {right} TO {who}")
        self.database = Database("cell1", server.url("nova_cell1"))
        self.login = Login(who, password)

    def do(self, sql: str) -> None:
        self.server.execute("nova_cell1", sql)

    def row(self) -> tuple[Any, ...]:
        (found,) = self.server.execute("nova_cell1", "SELECT * FROM block_device_mapping WHERE id = 7")
        return found


@pytest.fixture(scope="module", params=[
    "sqlite", pytest.param("mariadb", marks=pytest.mark.real), pytest.param("postgresql", marks=pytest.mark.real),
])  # fmt: skip
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        yield File(folder)
        return
    with (MariaDB if request.param == "mariadb" else PostgreSQL)(folder) as server:
        yield Server(server)


@pytest.fixture
def cell(made: Cell) -> Cell:
    made.fill()
    return made


# ------------------------------------------------------------------------------------------ well


def test_a_row_is_marked_and_the_mark_is_taken_away_again(cell: Cell) -> None:
    before = cell.row()
    saw = cell.send(ACT)
    marked = cell.row()
    assert len(set(marked) - set(before)) == 1, "deleted_at"
    assert marked.count(7) == 2, "the id, and deleted"
    at = dt.datetime.fromisoformat(saw["at"])
    assert abs(at - dt.datetime.now(dt.UTC).replace(tzinfo=None)) < dt.timedelta(minutes=1)
    back = ACT.undo(saw)
    assert back.deleted_at == saw["at"]
    cell.send(back)
    assert cell.row() == before
    cell.send(back.undo({}))
    assert cell.row() != before


# ------------------------------------------------------------------------------------------ compare and swap

_DEVICE, _INSTANCE = "UPDATE block_device_mapping SET", "UPDATE instances SET"


@pytest.mark.parametrize("sql", [
    f"{_DEVICE} deleted = 7, deleted_at = '2026-02-01 10:00:00'",
    f"{_DEVICE} volume_id = '{A}'",
    f"{_DEVICE} attachment_id = '{V}'",
    f"{_DEVICE} attachment_id = NULL",
    f"{_DEVICE} device_name = '/dev/vdc'",
    f"{_DEVICE} boot_index = 0",
    f"{_DEVICE} updated_at = '2026-01-31 10:00:01'",
    f"{_DEVICE} updated_at = NULL",
    "DELETE FROM block_device_mapping",
    f"{_INSTANCE} task_state = 'detaching'",
    f"{_INSTANCE} deleted = 5",
    f"{_INSTANCE} host = 'compute2'",
    f"{_INSTANCE} host = NULL",
    f"{_INSTANCE} vm_state = 'stopped'",
])  # fmt: skip
def test_what_is_not_as_it_was_is_left(cell: Cell, sql: str) -> None:
    cell.do(sql)
    before = None if sql.startswith("DELETE") else cell.row()
    with pytest.raises(Moved, match="cell1 at .*no row of (instances|block_device_mapping) has .*, and 1 should"):
        cell.send(ACT)
    assert before is None or cell.row() == before


def test_nothing_is_done_twice(cell: Cell) -> None:
    cell.send(ACT)
    marked = cell.row()
    with pytest.raises(Moved):
        cell.send(ACT)
    assert cell.row() == marked


def test_a_mark_that_is_not_ours_is_not_taken_away(cell: Cell) -> None:
    saw = cell.send(ACT)
    cell.do(f"{_DEVICE} deleted_at = '2026-02-01 10:00:00'")
    theirs = cell.row()
    for heard in (saw, {}):
        with pytest.raises(Moved):
            cell.send(ACT.undo(heard))
    assert cell.row() == theirs


@pytest.mark.parametrize("sql", [
    f"{_INSTANCE} task_state = 'deleting'",
    f"{_INSTANCE} deleted = 5",
    "INSERT INTO block_device_mapping (id, uuid, instance_uuid, volume_id, deleted)"
    f" VALUES (8, '{A}', '{S}', '{V}', 0)",
])  # fmt: skip
def test_it_does_not_come_back_to_a_server_that_is_busy_or_has_the_volume_again(cell: Cell, sql: str) -> None:
    back = ACT.undo(cell.send(ACT))
    cell.do(sql)
    marked = cell.row()
    with pytest.raises(Moved):
        cell.send(back)
    assert cell.row() == marked


def test_it_comes_back_to_a_server_that_has_moved(cell: Cell) -> None:
    before = cell.row()
    back = ACT.undo(cell.send(ACT))
    cell.do(f"{_INSTANCE} host = 'compute2', vm_state = 'stopped'")
    cell.send(back)
    assert cell.row() == before


class Meanwhile:
    """The act, with something that happens right after its change, in the midst of its transaction."""

    part = "cell1"

    def __init__(self, act: Delete, *more: Statement) -> None:
        self.act, self.more = act, more

    def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
        idle, change, *_ = self.act.statements(now)
        return (idle, change, *self.more)


def test_what_came_before_is_taken_back_where_something_later_is_not_met(cell: Cell) -> None:
    before = cell.row()
    with pytest.raises(Moved, match=r"no row of instances has uuid .*, task_state rebuilding, and 1 should"):
        cell.send(Meanwhile(ACT, Rows("instances", {"uuid": S, "task_state": "rebuilding"})))
    assert cell.row() == before
    cell.do(f"{_INSTANCE} task_state = NULL")  # nothing is locked any more


def test_more_rows_than_one_are_not_changed(cell: Cell) -> None:
    cell.do(f"INSERT INTO block_device_mapping (id, uuid, instance_uuid, volume_id, deleted) VALUES (8, '{A}', '{S}',"
            f" '{V}', 0)")  # fmt: skip
    before = cell.row()

    class Both:
        part = "cell1"

        def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
            return (Change("block_device_mapping", {"instance_uuid": S}, {"deleted_at": now}),)

    with pytest.raises(Moved, match="2 rows of block_device_mapping have"):
        cell.send(Both())
    assert cell.row() == before


# ------------------------------------------------------------------------------------------ who holds a row


def test_one_who_holds_the_row_wins(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudfsck.sources.database.HELD_SECONDS", 1)
    monkeypatch.setattr("cloudfsck.sources.database.CONNECT_SECONDS", 1)
    before = cell.row()
    url = f"sqlite:///{cell.path}" if isinstance(cell, File) else ""
    engine = sa.create_engine(url) if isinstance(cell, File) else cell.server._engine("nova_cell1")  # type: ignore[attr-defined]
    with engine.connect() as other:
        other.exec_driver_sql(f"{_DEVICE} device_name = '/dev/vdz'")
        with (
            pytest.raises(Refused, match=r"somebody else is at it: cell1 at ")
            if not isinstance(cell, File)
            else (pytest.raises(Trouble, match="locked"))
        ):
            cell.send(ACT)
        other.rollback()
    assert cell.row() == before
    cell.send(ACT)


# ------------------------------------------------------------------------------------------ faults


def _cut(monkeypatch: pytest.MonkeyPatch, word: str, after: bool) -> None:
    """Lose the connection at a statement, before it is sent or after it was done."""
    was = sa.Connection.exec_driver_sql

    def lost(self: sa.Connection, statement: str, *args: Any, **more: Any) -> Any:
        if not statement.startswith(word):
            return was(self, statement, *args, **more)
        if after:
            was(self, statement, *args, **more)
        driver = self.connection.driver_connection
        assert driver is not None
        driver.close()
        return was(self, "SELECT 1")

    monkeypatch.setattr(sa.Connection, "exec_driver_sql", lost)


@pytest.mark.parametrize("after", [False, True])
def test_a_connection_that_is_lost_in_the_commit_leaves_it_open(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    before = cell.row()
    with monkeypatch.context() as patched:
        _cut(patched, "COMMIT", after)
        with pytest.raises(Outcomeless, match="cell1 at .* did not say whether it is done"):
            cell.send(ACT)
    assert (cell.row() != before) == after


def test_a_replica_is_refused(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cell.row()
    monkeypatch.setattr(Reading, "__init__", _lagging(Reading.__init__))
    with pytest.raises(Trouble, match="nothing was sent: cell1 at .*: the server is a replica"):
        cell.send(ACT)
    assert cell.row() == before


def _lagging(was: Any) -> Any:
    def init(self: Reading, *args: Any) -> None:
        was(self, *args)
        self.lags = "the server is a replica (@@read_only is ON)"

    return init


def test_a_real_replica_is_refused(cell: Cell) -> None:
    if not isinstance(cell, Server) or not isinstance(cell.server, MariaDB):
        pytest.skip("only MariaDB is made one by a word")
    before = cell.row()
    cell.do("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(Trouble, match=r"the server is a replica \(@@read_only is ON\)"):
            cell.send(ACT)
    finally:
        cell.do("SET GLOBAL read_only = 0")
    assert cell.row() == before


def test_without_the_right_nothing_is_done(cell: Cell) -> None:
    if not isinstance(cell, Server):
        pytest.skip("a file has no accounts")
    before = cell.row()
    reader = Login(cell.server.reader.user, cell.server.reader.password)
    with pytest.raises(Trouble, match=r"(denied|permission).*\(check \[write.database\]\)"):
        database.send(ACT, cell.database, reader)
    with pytest.raises(Trouble, match=r"\(check \[write.database\]\)") as raised:
        database.send(ACT, cell.database, replace(cell.login, password="wrong-and-s3cret"))
    assert "wrong-and-s3cret" not in str(raised.value)
    assert cell.row() == before


def test_the_account_sees_no_secret_and_writes_nothing_else(cell: Cell) -> None:
    """The rights that the operator is told to give are enough, and no more."""
    if not isinstance(cell, Server):
        pytest.skip("a file has no accounts")
    mine = replace(cell.database, login=cell.login, writes=True)
    for sql in ("SELECT connection_info FROM block_device_mapping", f"{_DEVICE} volume_id = NULL",
                f"{_INSTANCE} task_state = NULL", "DELETE FROM block_device_mapping"):  # fmt: skip
        with mine.open() as reading, pytest.raises(sa.exc.DBAPIError, match="denied"):
            reading.connection.exec_driver_sql(sql)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="nothing was sent: cell1 at .*unable to open"):
        database.send(ACT, Database("cell1", f"sqlite:///{tmp_path}/none.sqlite"), Login())
    assert list(tmp_path.iterdir()) == [], "no empty database is made"


def test_a_server_that_is_no_server_of_ours_is_only_read(cell: Cell) -> None:
    """What reads has no way to write, even with an account that may."""
    only = replace(cell.database, login=cell.login)
    with only.open() as reading, pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only"):
        reading.connection.exec_driver_sql(f"{_DEVICE} deleted = 0")


def test_what_is_said_of_an_act_bears_no_secret(cell: Cell) -> None:
    assert SECRET not in repr(ACT) + str(Restore(**vars(ACT), deleted_at=CHANGED)) + str(ACT.order)


# ------------------------------------------------------------------------------------------ Neutron's notes of OVN

NOTED = "2026-01-31 10:00:00"
RESET = Reset(S, V, "ports", 5, 4, NOTED)
_NOTE = "UPDATE ovn_revision_numbers SET"
#: As Neutron's own migrations make them on MariaDB, and what that is called elsewhere.
_NEUTRON = (
    "CREATE TABLE standardattributes (id bigint NOT NULL PRIMARY KEY, resource_type varchar(255) NOT NULL,"
    " created_at datetime, updated_at datetime, description varchar(255), revision_number bigint NOT NULL)",
    "CREATE TABLE ovn_revision_numbers (standard_attr_id bigint, resource_uuid varchar(36) NOT NULL, resource_type"
    " varchar(36) NOT NULL, revision_number bigint NOT NULL DEFAULT 0, created_at datetime NOT NULL, updated_at"
    " timestamp NULL DEFAULT NULL, PRIMARY KEY (resource_uuid, resource_type), FOREIGN KEY (standard_attr_id)"
    " REFERENCES standardattributes (id) ON DELETE SET NULL)",
)
#: What the account may do there, and no more.
_NOTES = "resource_uuid, resource_type, standard_attr_id, revision_number, updated_at"


class Beside:
    """The database of another service beside a cell's, on the same server, where the same account has other rights."""

    def __init__(self, cell: Cell, folder: Path, name: str, made: Sequence[str], rights: Mapping[str, str]) -> None:
        """`made` are the statements that make its tables, `rights` what the account may do with each of them."""
        self.cell, self.login, self.name = cell, cell.login, name
        self.path = folder / f"{name}.sqlite"
        if not isinstance(cell, Server):
            self.database = Database(name, f"sqlite:///{self.path}")
        else:
            cell.server.create(name)
            self.database = Database(name, cell.server.url(name))
        postgresql = isinstance(cell, Server) and isinstance(cell.server, PostgreSQL)
        for sql in made:
            self.do(sql.replace("datetime", "timestamp") if postgresql else sql)
        if isinstance(cell, Server):
            for table, right in rights.items():
                self.do(f"GRANT {right} ON {'' if postgresql else f'{name}.'}{table} TO {WRITER.user}")

    def do(self, sql: str) -> None:
        if isinstance(self.cell, Server):
            self.cell.server.execute(self.name, sql)
            return
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(sql)
            connection.commit()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        if isinstance(self.cell, Server):
            return self.cell.server.execute(self.name, sql)
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def send(self, act: Guarded) -> dict[str, Any]:
        return dict(database.send(act, self.database, self.login))

    def refuses(self, *statements: str) -> None:
        """The account may do nothing of this."""
        if not isinstance(self.cell, Server):
            pytest.skip("a file has no accounts")
        mine = replace(self.database, login=self.login, writes=True)
        for sql in statements:
            with mine.open() as reading, pytest.raises(sa.exc.DBAPIError, match="denied"):
                reading.connection.exec_driver_sql(sql)


class Neutron(Beside):
    """Neutron's database with one port that is a router's, so that it has two notes; and what Neutron does there."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        rights = {
            "ovn_revision_numbers": f"SELECT ({_NOTES}), UPDATE (revision_number, updated_at)",
            "standardattributes": "SELECT (id, revision_number)",
        }
        super().__init__(cell, folder, "neutron", _NEUTRON, rights)

    def fill(self) -> None:
        self.do("DELETE FROM ovn_revision_numbers")
        self.do("DELETE FROM standardattributes")
        self.do("INSERT INTO standardattributes (id, resource_type, revision_number) VALUES (5, 'ports', 4)")
        for of in ("ports", "router_ports"):
            self.do(
                "INSERT INTO ovn_revision_numbers (standard_attr_id, resource_uuid, resource_type, revision_number,"
                f" created_at, updated_at) VALUES (5, '{V}', '{of}', 4, '2026-01-01 10:00:00', '{NOTED}')"
            )

    def notes(self) -> dict[str, tuple[Any, ...]]:
        """What each note says: which row of standardattributes it is of, its revision, when it was written."""
        sql = "SELECT resource_type, standard_attr_id, revision_number, updated_at FROM ovn_revision_numbers"
        return {of: (number, revision, str(at).removesuffix(".000000")) for of, number, revision, at in self.rows(sql)}

    def maintains(self) -> None:
        """Neutron's maintenance has made the port (neutron/db/ovn_revision_numbers_db.py: bump_revision)."""
        self.do(f"{_NOTE} revision_number = 4, updated_at = CURRENT_TIMESTAMP WHERE revision_number = -1")


@pytest.fixture(scope="module")
def its_neutron(made: Cell, tmp_path_factory: pytest.TempPathFactory) -> Neutron:
    return Neutron(made, tmp_path_factory.mktemp("neutron"))


@pytest.fixture
def neutron(its_neutron: Neutron) -> Neutron:
    its_neutron.fill()
    return its_neutron


def test_a_note_is_reset_and_comes_back_as_it_was(neutron: Neutron) -> None:
    before = neutron.notes()
    saw = neutron.send(RESET)
    assert neutron.notes() == before | {"ports": (5, -1, saw["at"])}
    assert abs(dt.datetime.fromisoformat(saw["at"]) - dt.datetime.now(dt.UTC).replace(tzinfo=None)).seconds < 60
    neutron.send(RESET.undo(saw))
    assert neutron.notes() == before


@pytest.mark.parametrize("sql", [
    f"{_NOTE} revision_number = 5 WHERE resource_type = 'ports'",
    f"{_NOTE} revision_number = -1 WHERE resource_type = 'ports'",
    f"{_NOTE} updated_at = '2026-01-31 10:00:01' WHERE resource_type = 'ports'",
    f"{_NOTE} updated_at = NULL WHERE resource_type = 'ports'",
    f"{_NOTE} standard_attr_id = NULL WHERE resource_type = 'ports'",
    "DELETE FROM ovn_revision_numbers WHERE resource_type = 'ports'",
    "UPDATE standardattributes SET revision_number = 5",
    "DELETE FROM standardattributes",
])  # fmt: skip
def test_a_note_or_a_port_that_is_not_as_it_was_is_left(neutron: Neutron, sql: str) -> None:
    neutron.do(sql)
    before = neutron.notes()
    with pytest.raises(Moved, match="no row of (ovn_revision_numbers|standardattributes) has .*, and 1 should"):
        neutron.send(RESET)
    assert neutron.notes() == before


def test_a_port_that_changes_in_the_midst_of_it_is_left(neutron: Neutron) -> None:
    """What is asked after the change is what PostgreSQL does not keep from changing."""
    before = neutron.notes()

    class Late:
        part = "neutron"

        def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
            _, change, _ = RESET.statements(now)
            return change, Rows("standardattributes", {"id": 5, "revision_number": 3})

    with pytest.raises(Moved, match="no row of standardattributes has id 5, revision_number 3, and 1 should"):
        neutron.send(Late())
    assert neutron.notes() == before


def test_what_neutron_has_made_by_now_is_not_taken_back(neutron: Neutron) -> None:
    saw = neutron.send(RESET)
    neutron.maintains()
    made = neutron.notes()
    assert made["ports"][1] == 4
    for heard in (saw, {}):
        with pytest.raises(Moved):
            neutron.send(RESET.undo(heard))
    assert neutron.notes() == made


def test_a_note_that_another_reset_is_not_taken_back(neutron: Neutron) -> None:
    saw = neutron.send(RESET)
    neutron.do(f"{_NOTE} updated_at = '2026-02-01 10:00:00' WHERE resource_type = 'ports'")
    with pytest.raises(Moved):
        neutron.send(RESET.undo(saw))
    assert neutron.notes()["ports"][1] == -1


def test_the_times_of_notes_are_utc_wherever_the_server_is(neutron: Neutron) -> None:
    """Neutron's updated_at is a TIMESTAMP, which MariaDB tells and takes in the zone of whoever asks."""
    if not isinstance(neutron.cell, Server) or not isinstance(neutron.cell.server, MariaDB):
        pytest.skip("only MariaDB and MySQL have a zone for it")
    neutron.do("SET GLOBAL time_zone = '+05:00'")
    try:
        saw = neutron.send(RESET)
    finally:
        neutron.do("SET GLOBAL time_zone = 'SYSTEM'")
    (told,) = neutron.rows("SELECT UNIX_TIMESTAMP(updated_at) FROM ovn_revision_numbers WHERE revision_number = -1")
    assert told[0] == dt.datetime.fromisoformat(saw["at"]).replace(tzinfo=dt.UTC).timestamp()


def test_the_account_changes_nothing_else_of_neutrons(neutron: Neutron) -> None:
    neutron.refuses(
        f"{_NOTE} standard_attr_id = NULL",
        "DELETE FROM ovn_revision_numbers",
        "UPDATE standardattributes SET revision_number = 9",
        "SELECT description FROM standardattributes",
    )


# ------------------------------------------------------------------------------------------ what Cinder counts

P = "5c4d6b1f0e7e4a0f9d3a2b1c0d9e8f7a"
COUNT = Count(P, "volumes_fast", 7, 5, 1, CHANGED, 2, 0)
_USAGE = "UPDATE quota_usages SET"
#: As Cinder's own migrations make them on MariaDB, and what that is called elsewhere.
_CINDER = (
    "CREATE TABLE quota_usages (created_at datetime, updated_at datetime, deleted_at datetime, deleted boolean,"
    " id integer NOT NULL PRIMARY KEY, project_id varchar(255), resource varchar(300) NOT NULL, in_use integer NOT"
    " NULL, reserved integer NOT NULL, until_refresh integer, race_preventer boolean)",
    "CREATE TABLE reservations (created_at datetime, updated_at datetime, deleted_at datetime, deleted boolean,"
    " id integer NOT NULL PRIMARY KEY, uuid varchar(36) NOT NULL, usage_id integer, allocated_id integer,"
    " project_id varchar(255), resource varchar(255), delta integer NOT NULL, expire datetime)",
)


class Counts(Beside):
    """Cinder's database with what it counts of a project, and what Cinder does there."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        counted = "id, project_id, resource, in_use, reserved, updated_at, deleted"
        rights = {
            "quota_usages": f"SELECT ({counted}), UPDATE (in_use, reserved)",
            "reservations": "SELECT (usage_id, deleted)",
        }
        super().__init__(cell, folder, "cinder", _CINDER, rights)

    def fill(self) -> None:
        self.do("DELETE FROM quota_usages")
        self.do("DELETE FROM reservations")
        for number, resource in ((7, "volumes_fast"), (8, "volumes")):
            self.do("INSERT INTO quota_usages (id, project_id, resource, in_use, reserved, created_at, updated_at,"
                    f" deleted, race_preventer) VALUES ({number}, '{P}', '{resource}', 5, 1, '2026-01-01 10:00:00',"
                    f" '{CHANGED}', FALSE, TRUE)")  # fmt: skip
        self.reserve(8, False)
        self.reserve(7, True)

    def reserve(self, usage: int, deleted: bool) -> None:
        self.do("INSERT INTO reservations (id, uuid, usage_id, project_id, delta, deleted)"
                f" VALUES ({usage}, '{U}', {usage}, '{P}', 1, {deleted})")  # fmt: skip

    def whole(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT * FROM quota_usages ORDER BY id")


@pytest.fixture(scope="module")
def its_counts(made: Cell, tmp_path_factory: pytest.TempPathFactory) -> Counts:
    return Counts(made, tmp_path_factory.mktemp("cinder"))


@pytest.fixture
def counts(its_counts: Counts) -> Counts:
    its_counts.fill()
    return its_counts


def test_a_count_is_set_and_comes_back_as_it_was(counts: Counts) -> None:
    before = counts.whole()
    saw = counts.send(COUNT)
    assert counts.rows("SELECT in_use, reserved FROM quota_usages ORDER BY id") == [(2, 0), (5, 1)]
    counts.send(COUNT.undo(saw))
    assert counts.whole() == before


@pytest.mark.parametrize("sql", [
    f"{_USAGE} in_use = 6",
    f"{_USAGE} reserved = 2",
    f"{_USAGE} updated_at = '2026-01-31 10:00:01'",
    f"{_USAGE} updated_at = NULL",
    f"{_USAGE} deleted = TRUE",
    f"{_USAGE} project_id = '{S}'",
    f"{_USAGE} resource = 'volumes_slow' WHERE id = 7",
    "DELETE FROM quota_usages",
    "UPDATE reservations SET deleted = FALSE",
])  # fmt: skip
def test_a_count_that_moves_or_is_about_to_is_left(counts: Counts, sql: str) -> None:
    counts.do(sql)
    before = counts.whole()
    with pytest.raises(
        Moved, match="no row of quota_usages has .*, and 1 should|1 row of reservations has .*, and 0 sh"
    ):
        counts.send(COUNT)
    assert counts.whole() == before


def test_a_count_that_cinder_has_changed_since_is_not_taken_back(counts: Counts) -> None:
    saw = counts.send(COUNT)
    counts.do(f"{_USAGE} updated_at = '2026-02-01 10:00:00' WHERE id = 7")
    theirs = counts.whole()
    with pytest.raises(Moved):
        counts.send(COUNT.undo(saw))
    assert counts.whole() == theirs


def test_the_account_changes_nothing_else_of_cinders(counts: Counts) -> None:
    counts.refuses(f"{_USAGE} resource = 'x'", "DELETE FROM quota_usages", "UPDATE reservations SET delta = 0")


# ------------------------------------------------------------------------------------------ the whole way

HOST = "compute1"
FAULT = ("cinder-block-device-without-attachment", f"{S}/7")
_TYPES = {"VARCHAR": "text", "BIGINT": "bigint", "BOOLEAN": "tinyint(1)", "TIMESTAMP": "datetime"}


class Cloud(Server):
    """Nova's and Cinder's databases on a real MariaDB, a host on which nothing runs, and a server that is shelved away
    with a volume that is deleted."""

    def __init__(self, server: MariaDB, folder: Path) -> None:
        super().__init__(server)
        self.folder = folder
        server.create("nova_api", "nova_api")
        server.create("nova_cell0", "nova_cell")
        server.create("cinder")
        for table in tables.TABLES:
            if table.per == "cinder":
                columns = ", ".join(f"`{column.name}` {_TYPES[column.type]}" for column in table.asked)
                server.execute("cinder", f"CREATE TABLE {table.origin} ({columns})")
        old, at = "2026-01-05 10:00:00", f"mysql+pymysql://nova:secret@127.0.0.1:{server.port}/"
        zero = "00000000-0000-0000-0000-000000000000"
        for number, name, ident in ((1, "cell0", zero), (2, "cell1", U)):
            self.insert("nova_api", "cell_mappings", id=number, uuid=ident, name=name, transport_url="none:///",
                        database_connection=f"{at}nova_{name}", disabled=0)  # fmt: skip
        self.insert("nova_api", "host_mappings", id=1, host=HOST, cell_id=2, created_at=old)
        self.insert("nova_api", "instance_mappings", id=1, instance_uuid=S, cell_id=2, project_id="p", user_id="u",
                    queued_for_delete=0, created_at=old)  # fmt: skip
        self.insert("nova_cell1", "services", id=1, host=HOST, binary="nova-compute", topic="compute", report_count=9,
                    disabled=0, last_seen_up="2099-01-01 00:00:00", forced_down=0, version=68, deleted=0, uuid=A,
                    created_at=old)  # fmt: skip
        self.insert("nova_cell1", "compute_nodes", id=1, host=HOST, hypervisor_hostname=HOST, hypervisor_type="QEMU",
                    hypervisor_version=1, vcpus=1, memory_mb=1, local_gb=1, vcpus_used=0, memory_mb_used=0,
                    local_gb_used=0, cpu_info="", deleted=0, uuid=V, host_ip="127.0.0.1", created_at=old)  # fmt: skip
        self.insert("cinder", "volumes", id=V, status="deleted", attach_status="detached", deleted=1, created_at=old,
                    deleted_at="2026-02-01 10:00:00")  # fmt: skip
        self.fill()
        self.do("UPDATE instances SET host = NULL, vm_state = 'shelved_offloaded', hidden = 0, cleaned = 1,"
                " project_id = 'p', launched_at = '2026-01-05 10:00:00'")  # fmt: skip
        self.path = self._configure()

    def insert(self, into: str, table: str, /, **row: Any) -> None:
        marks = ", ".join(["%s"] * len(row))
        columns = ", ".join(f"`{column}`" for column in row)
        self.server.execute(into, f"INSERT INTO {table} ({columns}) VALUES ({marks})", [tuple(row.values())])

    def _configure(self) -> Path:
        here = self.folder / "host"
        hosts._host(here, HOST, dt.datetime.now(dt.UTC).replace(tzinfo=None))
        for name, account in (("read", self.server.reader), ("write", WRITER)):
            (self.folder / name).write_text(account.password + "\n")
        port = self.server.port
        path = self.folder / "cloudfsck.toml"
        path.write_text(f"""\
[cloud]
name = "here"
state = "state"
[nova]
api_database = "mysql://127.0.0.1:{port}/nova_api"
[cinder]
database = "mysql://127.0.0.1:{port}/cinder"
[read.database]
user = "{self.server.reader.user}"
password_file = "read"
[write.database]
user = "{WRITER.user}"
password_file = "write"
[hosts]
transport = "local"
virsh = ["{here}/virsh"]
python = "{sys.executable}"
instances_path = "{here}/instances"
proc = "{here}/proc"
sys = "{here}/sys"
dev = "{here}/dev"
state_dir = "{here}/cloudfsck"
[host.{HOST}]
hostname = "{NODES[HOST]}"
[proof]
settle_factor = 0
""")
        return path

    def run(self, *words: str) -> Ran:
        command = [sys.executable, "-m", "cloudfsck", "-c", str(self.path), *words, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        for secret in (SECRET, WRITER.password, self.server.reader.password):
            assert secret not in done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with MariaDB(tmp_path / "db") as server:
        yield Cloud(server, tmp_path)


@pytest.mark.real
def test_found_repaired_clean_taken_back_and_found_again(cloud: Cloud) -> None:
    before = cloud.row()
    ran = cloud.run("check")
    assert ran.found("proven") == {FAULT}, (ran.out, ran.err)
    cloud.run("repair", "--yes").came_to(1, {FAULT[1]: "done"})
    assert cloud.row() != before
    ran = cloud.run("check")
    assert (ran.status, ran.found("proven", "seen", "unproven")) == (0, set()), (ran.out, ran.err)
    cloud.run("undo", "--yes", journal.runs(cloud.folder / "state")[-1]).came_to(1, {FAULT[1]: "done"})
    assert cloud.row() == before
    assert cloud.run("check").found("proven") == {FAULT}


@pytest.mark.real
def test_what_ovn_has_lost_is_had_made_and_taken_back(cloud: Cloud, tmp_path: Path) -> None:
    """From Neutron's database on a real MariaDB and OVN's on a real server; here nobody maintains."""
    net, port = "aaaaaaaa-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000000"
    cloud.server.create("neutron")
    tables_of = {table.origin: table for table in tables.TABLES if table.per == "neutron"}
    made = {origin: dict.fromkeys(column.name for column in table.asked) for origin, table in tables_of.items()}
    kinds = {column.name: column.type for table in tables_of.values() for column in table.asked}
    for origin, columns in made.items():
        if tables_of[origin].joined:
            for moved in ("created_at", "updated_at", "revision_number"):
                columns.pop(moved)
            columns[tables.STANDARD] = None
        told = ", ".join(f"`{name}` {_TYPES.get(kinds.get(name, 'BIGINT'), 'text')}" for name in columns)
        if origin != "ovn_revision_numbers":
            cloud.server.execute("neutron", f"CREATE TABLE {origin} ({told})")
    for sql in _NEUTRON:
        cloud.server.execute("neutron", sql)
    for right in (f"SELECT ({_NOTES}), UPDATE (revision_number, updated_at) ON neutron.ovn_revision_numbers",
                  "SELECT (id, revision_number) ON neutron.standardattributes"):  # fmt: skip
        cloud.server.execute("neutron", f"GRANT {right} TO {WRITER.user}")
    old = "2026-01-05 10:00:00"
    for number, kind in ((5, "ports"), (6, "networks")):
        cloud.insert("neutron", "standardattributes", id=number, resource_type=kind, created_at=old, updated_at=old,
                     revision_number=4)  # fmt: skip
    cloud.insert("neutron", "networks", id=net, project_id="p", name="net0", status="ACTIVE", standard_attr_id=6)
    cloud.insert("neutron", "ports", id=port, project_id="p", name="", network_id=net, mac_address="fa:16:3e:00:00:00",
                 status="DOWN", device_owner="", device_id="", standard_attr_id=5)  # fmt: skip
    cloud.insert("neutron", "ovn_revision_numbers", standard_attr_id=5, resource_uuid=port, resource_type="ports",
                 revision_number=4, created_at=old, updated_at=old)  # fmt: skip

    def note() -> list[tuple[Any, ...]]:
        return cloud.server.execute("neutron", "SELECT revision_number, updated_at FROM ovn_revision_numbers")

    with ovn_bed.Northbound(tmp_path / "nb") as northbound:
        northbound.fill(f"neutron-{net}", 0)
        neutron = f'[neutron]\ndatabase = "mysql://127.0.0.1:{cloud.server.port}/neutron"\n'
        text = cloud.path.read_text().replace(
            "[read.database]", f'{neutron}[ovn]\nnorthbound = ["{northbound.tcp}"]\n[read.database]'
        )
        cloud.path.write_text(text)
        before = note()
        fault = ("ovn-port-missing", port)
        for _ in range(2):
            ran = cloud.run("check")
        assert fault in ran.found("proven"), (ran.out, ran.err)
        ran = cloud.run("repair", "--yes")
        assert ran.outcomes[port] == "done", (ran.out, ran.err)
        ((revision, at),) = note()
        assert (revision, at > before[0][1]) == (-1, True)
        ran = cloud.run("check")
        assert fault not in ran.found("proven", "seen", "unproven"), (ran.out, ran.err)
        ran = cloud.run("undo", "--yes", journal.runs(cloud.folder / "state")[-1])
        assert ran.outcomes[port] == "done", (ran.out, ran.err)
        assert note() == before
        assert fault in cloud.run("check").found("proven")


@pytest.mark.real
def test_what_changes_after_the_gate_is_left(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner's own request comes between the last look and the act, and wins."""
    settings = config.load(cloud.path)
    sources = Sources(settings)
    state = State(settings.cloud)
    cloud.run("plan", "-o", str(cloud.folder / "plan.json"))
    made = plan.load(cloud.folder / "plan.json", "here", checks.load())
    before = cloud.row()

    def send(act: Act, lease: Lease) -> Any:
        cloud.do("UPDATE instances SET task_state = 'unshelving'")
        assert isinstance(act, Delete)
        return database.send(act, sources.database(act.part), cloud.login)

    done = list(apply.apply(made, checks.load(), settings, state, apply.Means(sources.prove, sources.look, send)))
    assert [one.outcome for one in done] == ["moved"]
    assert "no row of instances has" in done[0].why
    assert cloud.row() == before
