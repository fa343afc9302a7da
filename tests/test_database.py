"""Databases are read whole or not at all, from the server that was proven, and no password is ever shown."""

import contextlib
import dataclasses
import datetime as dt
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cloudfsck import tables
from cloudfsck.model import Piece, Scope
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import nova, service
from cloudfsck.sources.database import Database, Login, Unreadable
from tests.bed import MariaDB, PostgreSQL
from tests.bed.databases import Account, free_port
from tests.bed.programs import await_true, run

SECRET = "hunter2 is/s3cr@t:%{x}"
SERVERS = [str(uuid.UUID(int=n)) for n in range(1, 6)]
CELL = "be8b3fd4-1818-4852-a1eb-5f59fbe04bb2"
INSTANCES = tables.BY_NAME["nova_instances"]
PROVIDERS = (Path("/usr/lib/galera/libgalera_smm.so"), Path("/usr/lib64/galera-4/libgalera_smm.so"))


def few(*servers: str) -> Scope:
    return Scope(servers=frozenset(servers))


def message(error: BaseException) -> str:
    """All that a log could show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


def read(pieces: Iterator[Piece]) -> dict[str, list[dict[str, Any]]]:
    """What a snapshot makes of the pieces; there is to be no gap."""
    snapshot = Snapshot.create()
    try:
        assert snapshot.add(pieces) == []
        return {
            table.name: [dict(row) for row in snapshot.rows(f"SELECT * FROM {table.name} ORDER BY ALL")]
            for table in tables.TABLES
        }
    finally:
        snapshot.close()


# -- without a server


#: What standardattributes has of Neutron's resources, beside its id.
STANDARD = ("revision_number", "created_at", "updated_at")


def sqlite_database(path: Path, per: tables.Per, *without: str) -> sqlite3.Connection:
    """A database with the tables and columns that are read, but for those named (table or table.column)."""
    db = sqlite3.connect(path)
    made: dict[str, dict[str, str]] = {}
    for table in tables.TABLES:
        if table.per == per and table.origin and not table.distinct and table.origin not in without:
            for column in table.asked:
                at = table.joined if table.joined and column.name in STANDARD else table.origin
                if column.name != "cell" and f"{at}.{column.name}" not in without:
                    made.setdefault(at, {})[column.name] = column.type
            if table.joined:
                made[table.joined]["id"] = "BIGINT"
    for origin, columns in made.items():
        extra = ", database_connection TEXT, transport_url TEXT" if origin == "cell_mappings" else ""
        declared = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        db.execute(f"CREATE TABLE {origin} ({declared}{extra})")
    db.commit()
    return db


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[tuple[Database, sqlite3.Connection]]:
    db = sqlite_database(tmp_path / "cell 1#é.db", "cell")
    db.executemany(
        "INSERT INTO instances (id, uuid, display_name, created_at, deleted_at, deleted, hidden)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (1, SERVERS[0], None, None, None, 0, None),
            (2, SERVERS[1], "Bär 🐻", "2026-11-22 06:25:46.000123", None, 0, 1),
            (3, SERVERS[2], "it's", "2026-11-22 06:25:46", "2026-11-23 00:00:00", 3, 0),
        ],
    )
    db.executemany(
        "INSERT INTO instance_system_metadata VALUES (?, ?, ?, ?, 0)",
        [(1, SERVERS[0], "clean_attempts", "3"), (2, SERVERS[0], "image_base", "x")],
    )
    db.executemany("INSERT INTO instance_actions (id, instance_uuid) VALUES (?, ?)", [(1, SERVERS[0]), (2, SERVERS[0])])
    db.executemany(
        "INSERT INTO instance_actions_events (id, action_id, finish_time) VALUES (?, ?, ?)",
        [(1, 1, None), (2, 2, "2026-11-22 06:25:46")],
    )
    db.commit()
    yield Database("cell1", f"sqlite:///{tmp_path}/cell 1#é.db", Login("ro", SECRET)), db
    db.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Callable[..., Database]]:
    """Makes databases by what they lack."""
    opened: list[sqlite3.Connection] = []

    def make(per: tables.Per, *without: str) -> Database:
        path = tmp_path / f"{len(opened)}.db"
        opened.append(sqlite_database(path, per, *without))
        return Database("cell1" if per == "cell" else tables.API, f"sqlite:///{path}", Login("ro", SECRET))

    yield make
    for db in opened:
        db.close()


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("mysql+pymysql://nova:pw@db1:3307/nova?charset=utf8#x", "mysql://db1:3307/nova"),
        ("mariadb://nova:p:ss#/?@db1/nova", "mysql://db1:3306/nova"),
        ("mysql://nova:p%40s/s@[fd00::1]:3306/nova", "mysql://[fd00::1]:3306/nova"),
        ("postgresql+psycopg2://nova:pw@db1/nova?sslmode=disable", "postgresql://db1:5432/nova"),
        ("sqlite:////var/lib/nova/nova.sqlite?mode=rw", "sqlite:////var/lib/nova/nova.sqlite"),
    ],
)
def test_of_a_url_only_the_place_is_kept(url: str, kept: str) -> None:
    assert Database("x", url).url == kept


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "oracle://a:{}@b/c", "mysql://a:{}@db1", "mysql://a:{}@db1:port/nova", "sqlite:///relative.db",
     "mysql://u:{}@{{hostname}}/nova", "://{}@", "mysql://u:x@{}@db1/nova",
     "mysql://u:x@y/{}@db1/nova"],
)  # fmt: skip
def test_a_url_that_leads_nowhere_says_so_when_read_and_shows_no_secret(url: str) -> None:
    database = Database("cell1", url.format("hunter2"), Login("ro", SECRET))
    with pytest.raises(Unreadable) as caught, database.open():
        pass
    assert str(caught.value).startswith("cell1: its URL")
    for text in (message(caught.value), repr(database), str(database)):
        assert "hunter2" not in text
    gaps = list(nova.read_cell(database, Scope()))
    assert gaps
    assert {gap.why for gap in gaps} == {str(caught.value)}


def test_values_of_every_type_and_null_first_come_in_whole_and_few(cell: tuple[Database, sqlite3.Connection]) -> None:
    database, _ = cell
    whole = read(nova.read_cell(database, Scope()))
    rows = whole["nova_instances"]
    assert [row["uuid"] for row in rows] == SERVERS[:3]
    assert [row["display_name"] for row in rows] == [None, "Bär 🐻", "it's"]
    assert [row["hidden"] for row in rows] == [None, True, False]
    assert rows[1]["created_at"] == dt.datetime(2026, 11, 22, 6, 25, 46, 123)
    assert [row["key"] for row in whole["nova_instance_system_metadata"]] == ["clean_attempts"]
    assert [row["id"] for row in whole["nova_instance_actions"]] == [1]
    assert read(nova.read_cell(database, few(*SERVERS))) == whole
    only = read(nova.read_cell(database, few(SERVERS[2], "nobody's")))
    assert [row["uuid"] for row in only["nova_instances"]] == [SERVERS[2]]
    assert only["nova_instance_actions_events"] == whole["nova_instance_actions_events"], "it has no key: whole"


def test_many_servers_are_asked_for_in_chunks(cell: tuple[Database, sqlite3.Connection]) -> None:
    database, db = cell
    many = [str(uuid.UUID(int=n)) for n in range(100, 3600)]
    db.executemany("INSERT INTO instances (id, uuid) VALUES (?, ?)", list(enumerate(many, 100)))
    db.commit()
    with database.transaction() as reading:
        assert reading.rows(INSTANCES, many).num_rows == len(many)
        assert reading.rows(INSTANCES, []).num_rows == 0


def test_a_transaction_sees_one_moment(cell: tuple[Database, sqlite3.Connection]) -> None:
    database, db = cell
    with database.transaction(writer=True) as reading:
        before = reading.rows(INSTANCES).num_rows
        db.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(sqlite3.OperationalError):
            db.execute("DELETE FROM instances").connection.commit()
        assert reading.rows(INSTANCES).num_rows == before


def test_the_file_is_opened_for_reading_alone(cell: tuple[Database, sqlite3.Connection], tmp_path: Path) -> None:
    database, _ = cell
    with database.open() as reading, pytest.raises(sa.exc.OperationalError, match="readonly"):
        reading.connection.exec_driver_sql("DELETE FROM instances")
    with pytest.raises(Unreadable, match="unable to open"), Database("x", f"sqlite:///{tmp_path}/none.db").open():
        pass
    assert not (tmp_path / "none.db").exists()


def test_an_empty_file_is_no_empty_cloud(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    database = Database("cell1", f"sqlite:///{tmp_path}/empty.db")
    for scope in (Scope(), few(SERVERS[0])):
        pieces = list(nova.read_cell(database, scope))
        assert pieces
        assert all(piece.rows is None and "it shows no table" in str(piece.why) for piece in pieces)


@pytest.mark.parametrize("scope", [Scope(), few(SERVERS[0])], ids=["whole", "few"])
def test_what_is_missing_is_a_gap_and_only_what_may_be_missing_is_none(
    plain: Callable[..., Database], scope: Scope
) -> None:
    database = plain(
        "cell", "instances.vm_state", "migrations", "tags", "share_mapping", "instances.hidden", "services.uuid",
        "shadow_instances.hidden",
    )  # fmt: skip
    pieces = {piece.table: piece for piece in nova.read_cell(database, scope)}
    gaps = {name: str(piece.why) for name, piece in pieces.items() if piece.why is not None}
    assert set(gaps) == {"nova_instances", "nova_migrations"}
    assert "column vm_state of table instances is missing" in gaps["nova_instances"]
    assert "table migrations is missing" in gaps["nova_migrations"]
    snapshot = Snapshot.create()
    assert {gap.table for gap in snapshot.add(pieces.values())} == set(gaps)
    snapshot.close()


@pytest.mark.parametrize("value", ["yesterday", b"\xff", 3])
def test_what_has_not_the_type_it_must_have_is_a_gap(cell: tuple[Database, sqlite3.Connection], value: object) -> None:
    database, db = cell
    db.execute("UPDATE instances SET created_at = ? WHERE id = 3", [value])
    db.commit()
    snapshot = Snapshot.create()
    gaps = {gap.table: gap.why for gap in snapshot.add(nova.read_cell(database, Scope()))}
    assert set(gaps) == {"nova_instances"}
    assert "column created_at of table instances holds what is no TIMESTAMP" in gaps["nova_instances"]
    assert snapshot.db.execute("SELECT count(*) FROM nova_instances").fetchone() == (0,)
    snapshot.close()


def mapped(api: Database, *rows: tuple[int, str, str | None, str]) -> Database:
    with sqlite3.connect(str(sa.make_url(api.url).database)) as db:
        db.executemany("INSERT INTO cell_mappings (id, uuid, name, database_connection) VALUES (?, ?, ?, ?)", rows)
    db.close()
    return api


def test_cells_come_from_the_mappings_without_their_accounts(plain: Callable[..., Database]) -> None:
    url = "mysql+pymysql://nova:hunter2@db%d:3306/nova_cell%d?charset=utf8"
    api = mapped(
        plain("api"),
        (1, "00000000-0000-0000-0000-000000000000", "cell0", url % (0, 0)),
        (2, CELL, None, url % (1, 1)),
        (3, SERVERS[0], "twin", url % (2, 2)),
        (4, SERVERS[1], "twin", url % (3, 3)),
        (5, SERVERS[2], "broken", "hunter2"),
    )
    login = Login("ro", SECRET)
    found = {cell.name: cell for cell in nova.cells(api, login)}
    assert set(found) == {"cell0", CELL, SERVERS[0], SERVERS[1], "broken"}
    assert found["cell0"].url == "mysql://db0:3306/nova_cell0"
    assert found["cell0"].login is login
    broken = [*nova.read_cell(found["broken"], Scope()), *nova.read_cell(found["broken"], few(SERVERS[0]))]
    assert all(piece.rows is None for piece in broken)
    for text in [repr(found), *(str(cell) for cell in found.values()), *(repr(piece) for piece in broken)]:
        assert "hunter2" not in text
    rows = read(nova.read_api(api, list(found.values()), Scope()))["nova_cell_mappings"]
    assert [(row["id"], row["cell"]) for row in rows] == [
        (1, "cell0"), (2, CELL), (3, SERVERS[0]), (4, SERVERS[1]), (5, "broken"),
    ]  # fmt: skip
    assert "hunter2" not in repr(rows)


def test_a_cell_that_is_not_read_is_a_gap(plain: Callable[..., Database]) -> None:
    url = "sqlite:////nowhere/cell.db"
    api = mapped(plain("api"), (1, CELL, "cell1", url), (2, SERVERS[0], "cell2", url))
    by_uuid = [Database(CELL, url), Database("cell2", url)]
    assert [row["cell"] for row in read(nova.read_api(api, by_uuid, Scope()))["nova_cell_mappings"]] == [CELL, "cell2"]
    for scope in (Scope(), few(SERVERS[0])):
        pieces = {piece.table: piece for piece in nova.read_api(api, by_uuid[1:], scope)}
        assert pieces["nova_cell_mappings"].why == "Nova has cells that are not read: cell1"


def test_no_mapping_at_all_is_an_error(plain: Callable[..., Database]) -> None:
    with pytest.raises(Unreadable, match="cell_mappings is empty"):
        nova.cells(plain("api"), Login())
    with pytest.raises(Unreadable, match="table cell_mappings is missing"):
        nova.cells(plain("api", "cell_mappings"), Login())


@pytest.mark.parametrize(
    ("mapping", "template", "place"),
    [
        ("{scheme}://{username}:{password}@{hostname}:{port}/nova_cell1?{query}",
         "mysql+pymysql://n:hunter2@db7:3307/nova?charset=utf8", "mysql://db7:3307/nova_cell1"),
        ("{scheme}://{username}:{password}@{hostname}:{port}/{path}_cell1",
         "postgresql://n:hunter2@db7:5433/nova", "postgresql://db7:5433/nova_cell1"),
        ("mysql://{username2}:{password2}@{hostname2}:{port2}/nova",
         "rabbit://a:hunter2@h1:1,b:hunter2@h2:2/", "mysql://h2:2/nova"),
        ("mysql://nova:{hunter2@db1/nova", "mysql://n:p@db7/nova", "mysql://db1:3306/nova"),
        ("mysql://nova:pw@db1/nova", None, "mysql://db1:3306/nova"),
    ],
)  # fmt: skip
def test_templates_are_filled_in_as_nova_does(
    plain: Callable[..., Database], mapping: str, template: str | None, place: str
) -> None:
    [cell] = nova.cells(mapped(plain("api"), (1, CELL, "cell1", mapping)), Login(), template)
    assert (cell.url, cell.flaw) == (place, "")
    assert "hunter2" not in repr(cell)


@pytest.mark.parametrize(
    ("mapping", "template"),
    [
        ("{scheme}://u:hunter2@{hostname}:1/{path}", None),
        ("mysql://u:hunter2@{nobody}/nova", "mysql://n:hunter2@db7/nova"),
        ("mysql://u:hunter2@{hostname}:{port}/nova", "mysql://n:hunter2@db7/nova"),
        ("mysql://u:hunter2@{hostname}/nova", "mysql://n:hunter2@db7:hunter2/nova"),
        ("mysql://u:hunter2@{hostname.nothing}/nova", "mysql://n:hunter2@db7/nova"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_a_cell_that_cannot_be_read(
    plain: Callable[..., Database], mapping: str, template: str | None
) -> None:
    [cell] = nova.cells(mapped(plain("api"), (1, CELL, "cell1", mapping)), Login(), template)
    assert cell.flaw
    with pytest.raises(Unreadable) as caught, cell.open():
        pass
    assert "hunter2" not in message(caught.value) + repr(cell)


def test_build_requests_are_read_first_and_a_choice_of_tables_is_kept(plain: Callable[..., Database]) -> None:
    api = plain("api")
    assert next(iter(nova.read_api(api, [], Scope()))).table == "nova_build_requests"
    assert next(iter(nova.read_api(api, [], few(SERVERS[0])))).table == "nova_build_requests"
    chosen = frozenset({"nova_host_mappings"})
    assert [piece.table for piece in nova.read_api(api, [], Scope(), chosen)] == ["nova_host_mappings"]
    names = {table.name for table in tables.TABLES if table.per == "api"}
    assert {piece.table for piece in nova.read_api(api, [], Scope())} == names


def test_what_is_distinct_comes_once_whoever_is_asked_for_and_no_grant_is_lost(plain: Callable[..., Database]) -> None:
    api = plain("api")
    with sqlite3.connect(api.url.removeprefix("sqlite:///")) as db:
        db.executemany(
            "INSERT INTO instance_mappings (id, instance_uuid, project_id) VALUES (?, ?, ?)",
            [(1, SERVERS[0], "bank"), (2, SERVERS[1], "bank"), (3, SERVERS[2], "shop")],
        )
    db.close()
    for scope in (Scope(), few(SERVERS[0])):
        rows = read(nova.read_api(api, [], scope, frozenset({"nova_projects", "nova_instance_mappings"})))
        assert sorted(row["project_id"] for row in rows["nova_projects"]) == ["bank", "shop"]
        assert len(rows["nova_instance_mappings"]) == (3 if scope.whole else 1)
    login = Login("ro", SECRET)
    granted = nova.grants(Database("nova_api", "mysql://db1/nova_api", login), [])
    (names,) = re.findall(r"table_name = 'instance_mappings'\s+AND column_name IN \((.*)\)\)", granted)
    assert names.split(", ").count("'project_id'") == 1
    assert "'instance_uuid'" in names


def test_pieces_carry_their_keys_and_the_servers_clock(cell: tuple[Database, sqlite3.Connection]) -> None:
    before = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(seconds=1)
    for scope in (Scope(), few(SERVERS[0])):
        for piece in nova.read_cell(cell[0], scope):
            assert piece.part == "cell1"
            assert piece.keys == (scope.servers if tables.BY_NAME[piece.table].narrow else None)
            assert piece.clock is not None
            assert before <= piece.clock <= dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(seconds=1)
            assert before <= piece.started <= piece.finished
            assert piece.started.tzinfo is piece.clock.tzinfo is None


def test_a_login_does_not_show_its_password() -> None:
    login = Login("ro", SECRET, "/ca.pem", True)
    assert SECRET not in repr(login) + str(login) + repr(Database("x", "mysql://db1/nova", login))
    assert dataclasses.replace(login).password == SECRET


# -- with real servers


PASSWORD = "p@ss/w:%{x} #?"


def fill(server: MariaDB | PostgreSQL, name: str) -> None:
    """A few rows in every way: NULLs, dates, enumerations, booleans, addresses, signs of every alphabet."""

    def put(table: str, columns: str, *rows: tuple[Any, ...]) -> None:
        marks = ", ".join(["%s"] * len(rows[0]))
        key = '"key"' if server.kind == "PostgreSQL" else "`key`"
        server.execute(name, f"INSERT INTO {table} ({columns.replace('key', key)}) VALUES ({marks})", list(rows))

    now = dt.datetime(2026, 11, 22, 6, 25, 46)
    put(
        "instances", "uuid, project_id, display_name, host, vm_state, power_state, created_at, deleted_at, deleted,"
        " hidden, cleaned",
        (SERVERS[0], None, None, None, None, None, None, None, 0, None, 0),
        (SERVERS[1], "p1", "Bär's ĳ 漢", "compute1", "active", 1, now, None, 0, False, 0),
        (SERVERS[2], "p1", "", "compute2", "deleted", 4, now, now, 3, True, 1),
    )  # fmt: skip
    put(
        "migrations", "instance_uuid, status, migration_type, source_compute, dest_compute, cross_cell_move,"
        " created_at, deleted",
        (SERVERS[1], "accepted", "live-migration", "compute1", None, False, now, 0),
        (SERVERS[1], "done", None, None, "compute2", True, None, 0),
    )  # fmt: skip
    put(
        "compute_nodes", "uuid, host, hypervisor_hostname, hypervisor_type, hypervisor_version, host_ip, vcpus,"
        " memory_mb, local_gb, vcpus_used, memory_mb_used, local_gb_used, cpu_info, created_at, deleted",
        (SERVERS[3], "compute1", "c1.example", "QEMU", 7, "192.0.2.1", 1, 1, 1, 0, 0, 0, "{}", now, 0),
        (SERVERS[4], "compute2", "c2.example", "ironic", 7, None, 1, 1, 1, 0, 0, 0, "{}", None, 2),
    )  # fmt: skip
    put(
        "services", "uuid, host, topic, report_count, disabled, forced_down, last_seen_up, version, deleted",
        (SERVERS[3], "compute1", "compute", 5, False, True, now, 70, 0),
        (SERVERS[4], None, None, 0, None, None, None, None, 0),
    )  # fmt: skip
    put(
        "instance_actions",
        "id, instance_uuid, action, start_time, deleted",
        (1, SERVERS[1], "reboot", now, 0),
        (2, SERVERS[1], "stop", now, 0),
    )
    put(
        "instance_actions_events", "id, action_id, event, start_time, finish_time, deleted",
        (1, 1, "compute_reboot_instance", now, None, 0), (2, 2, "compute_stop_instance", now, now, 0),
    )  # fmt: skip
    put(
        "instance_system_metadata", "instance_uuid, key, value, deleted",
        (SERVERS[1], "clean_attempts", "2", 0), (SERVERS[1], "image_base_image_ref", "x", 0),
    )  # fmt: skip
    put(
        "block_device_mapping", "uuid, instance_uuid, source_type, destination_type, volume_id, boot_index,"
        " delete_on_termination, no_device, connection_info, created_at, deleted",
        (SERVERS[3], SERVERS[1], "volume", "volume", SERVERS[4], 0, True, None, '{"auth_password": "hunter2"}', now, 0),
        (None, SERVERS[2], "image", "local", None, -1, None, False, None, None, 2),
    )  # fmt: skip
    put("virtual_interfaces", "uuid, instance_uuid, address, deleted", (SERVERS[4], SERVERS[1], "fa:16:3e:00:00:01", 0))
    put("tags", "resource_id, tag", (SERVERS[1], "keep"), (SERVERS[2], "größe"))


def fill_api(server: MariaDB | PostgreSQL, name: str) -> None:
    cell = f"{server.driver}://nova:hunter2@127.0.0.1:{server.port}/nova_cell1"
    server.execute(
        name, "INSERT INTO cell_mappings (uuid, name, transport_url, database_connection, disabled)"
        " VALUES (%s, %s, %s, %s, %s)", CELL, "cell1", "rabbit://nova:hunter2@mq/", cell, False,
    )  # fmt: skip
    server.execute(
        name, "INSERT INTO instance_mappings (instance_uuid, cell_id, project_id, queued_for_delete, created_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        [
            (SERVERS[0], None, "p1", None, None),
            (SERVERS[1], 1, "p1", False, dt.datetime(2026, 11, 22, 6, 25, 46)),
        ],
    )  # fmt: skip
    server.execute(name, "INSERT INTO host_mappings (host, cell_id) VALUES ('compute1', 1)")


def account(server: MariaDB | PostgreSQL, user: str) -> Login:
    """An account that has no right yet, with a password that no URL likes."""
    if server.kind == "MariaDB":
        server.execute("", f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")
    else:
        server.execute("", f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    return Login(user, PASSWORD)


def start(kind: type[MariaDB] | type[PostgreSQL], directory: Path, **options: Any) -> Iterator[Any]:
    with kind(directory, **options) as server:
        yield server


@pytest.fixture(scope="module", params=[MariaDB, PostgreSQL], ids=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB | PostgreSQL]:
    for server in start(request.param, tmp_path_factory.mktemp("server")):
        server.create("nova_api", "nova_api")
        server.create("nova_cell1", "nova_cell")
        fill_api(server, "nova_api")
        fill(server, "nova_cell1")
        yield server


def reader(server: MariaDB | PostgreSQL) -> Login:
    return Login(server.reader.user, server.reader.password)


def at(server: MariaDB | PostgreSQL, name: str = "nova_cell1", login: Login | None = None) -> Database:
    url = server.url(name, Account("nova", "hunter2"))
    return Database(tables.API if name == "nova_api" else "cell1", url, login or reader(server))


def client(server: MariaDB | PostgreSQL, sql: str) -> None:
    """Run a script as the server's administrator does."""
    if isinstance(server, MariaDB):
        run(["mariadb", f"--socket={server._socket()}", f"--user={server._owner}"], sql)
    else:
        run(["psql", f"--host={server.data}", f"--port={server.port}", "--username=owner", "--dbname=postgres",
             "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1"], sql)  # fmt: skip


@pytest.mark.real
def test_a_stream_gives_what_few_rows_give(server: MariaDB | PostgreSQL) -> None:
    database = at(server)
    whole = read(nova.read_cell(database, Scope()))
    assert whole == read(nova.read_cell(database, few(*SERVERS)))
    rows = whole["nova_instances"]
    assert [row["display_name"] for row in rows] == [None, "Bär's ĳ 漢", ""]
    assert [row["hidden"] for row in rows] == [None, False, True]
    assert rows[2]["deleted_at"] == dt.datetime(2026, 11, 22, 6, 25, 46)
    assert [row["host_ip"] for row in whole["nova_compute_nodes"]] == ["192.0.2.1", None]
    assert {row["migration_type"] for row in whole["nova_migrations"]} == {"live-migration", None}
    assert [row["key"] for row in whole["nova_instance_system_metadata"]] == ["clean_attempts"]
    assert [row["id"] for row in whole["nova_instance_actions"]] == [1]
    assert "hunter2" not in repr(whole)
    api = at(server, "nova_api")
    cells = nova.cells(api, reader(server))
    assert cells == [database]
    whole = read(nova.read_api(api, cells, Scope()))
    assert whole == read(nova.read_api(api, cells, few(*SERVERS)))
    assert [row["cell"] for row in whole["nova_cell_mappings"]] == ["cell1"]
    assert "hunter2" not in repr(whole)


@pytest.mark.real
def test_a_transaction_on_a_server_sees_one_moment(server: MariaDB | PostgreSQL) -> None:
    tags = tables.BY_NAME["nova_tags"]
    with at(server).transaction(writer=True) as reading:
        server.execute("nova_cell1", f"INSERT INTO tags (resource_id, tag) VALUES ('{SERVERS[3]}', 'late')")
        if isinstance(server, MariaDB):
            assert reading.rows(tags, [SERVERS[3]]).num_rows == 0
        first = reading.rows(tags, [SERVERS[1], SERVERS[3]])
        server.execute("nova_cell1", "DELETE FROM tags WHERE tag = 'late'")
        assert reading.rows(tags, [SERVERS[1], SERVERS[3]]).equals(first)
        with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.only|denied"):
            reading.connection.exec_driver_sql("DELETE FROM tags")


@pytest.mark.real
def test_an_account_that_may_write_does_not(server: MariaDB | PostgreSQL) -> None:
    login = account(server, "writer")
    if isinstance(server, MariaDB):
        server.execute("", "GRANT ALL ON *.* TO writer")
    else:
        server.execute("nova_cell1", "GRANT ALL ON ALL TABLES IN SCHEMA public TO writer")
    with at(server, login=login).open() as reading, pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.only"):
        reading.connection.exec_driver_sql("DELETE FROM tags")
    assert server.execute("nova_cell1", "SELECT count(*) FROM tags") == [(2,)]


@pytest.mark.real
def test_who_is_refused_is_told_so_at_once(server: MariaDB | PostgreSQL) -> None:
    attempts = [
        (at(server, login=Login(server.reader.user, SECRET)), "check [read.database]"),
        (at(server, login=Login("nobody", SECRET)), "check [read.database]"),
        (at(server, "nowhere", Login(server.reader.user, server.reader.password)), "check [read.database]"),
        (Database("cell1", f"{server.driver}://127.0.0.1:1/nova", Login("ro", SECRET)), "127.0.0.1:1"),
        (Database("cell1", f"{server.driver}://nowhere.invalid/nova", Login("ro", SECRET)), "nowhere.invalid"),
    ]
    for database, says in attempts:
        began = time.monotonic()
        with pytest.raises(Unreadable) as caught, database.open():
            pass
        assert time.monotonic() - began < 20, "nothing is tried for half a minute"
        assert str(caught.value).startswith("cell1 at ")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        for secret in (SECRET, server.reader.password):
            assert secret not in message(caught.value)
        pieces = [*nova.read_cell(database, Scope()), *nova.read_cell(database, few(SERVERS[0]))]
        assert {piece.why for piece in pieces} == {str(caught.value)}


@pytest.mark.real
def test_without_rights_nothing_passes_for_empty(server: MariaDB | PostgreSQL) -> None:
    login = account(server, "outsider")
    if isinstance(server, MariaDB):
        server.execute("", "GRANT SELECT (id) ON nova_cell1.services TO outsider")
    for scope in (Scope(), few(SERVERS[0])):
        pieces = list(nova.read_cell(at(server, login=login), scope))
        assert len(pieces) == len([table for table in tables.TABLES if table.per == "cell"])
        for piece in pieces:
            assert piece.rows is None, piece.table
            assert re.search("may not read it|shows no table", str(piece.why))


@pytest.mark.real
def test_the_grants_suffice_and_keep_secrets_out_of_reach(server: MariaDB | PostgreSQL) -> None:
    server.create("nova_cell2", "nova_cell")
    for missing in (
        "DROP TABLE share_mapping",
        "ALTER TABLE instances DROP COLUMN hidden",
        "ALTER TABLE services DROP COLUMN uuid",
    ):
        if isinstance(server, MariaDB) and missing.endswith("uuid"):
            server.execute("nova_cell2", "ALTER TABLE services DROP KEY services_uuid_idx")
        server.execute("nova_cell2", missing)
    login = Login("cloudfsck", "from-the-grants")
    api = at(server, "nova_api", login)
    cells = [at(server, login=login), dataclasses.replace(at(server, "nova_cell2", login), name="cell2")]
    sql = nova.grants(api, cells)
    assert "from-the-grants" not in sql
    for _ in range(2):  # an administrator runs it again after an upgrade
        client(server, sql.replace("'PASSWORD'", "'from-the-grants'"))
    assert nova.cells(api, login) == cells[:1]
    for scope in (Scope(), few(*SERVERS)):
        for cell in cells:
            assert [piece.why for piece in nova.read_cell(cell, scope) if piece.why] == []
        with_rights = read(nova.read_cell(cells[0], scope))
        assert with_rights == read(nova.read_cell(at(server), scope))
        assert [piece.why for piece in nova.read_api(api, cells[:1], scope) if piece.why] == []
        assert read(nova.read_cell(cells[1], scope))["nova_share_mapping"] == []
    with cells[0].open() as reading:
        for forbidden in (
            "connection_info FROM shadow_block_device_mapping",
            "user_data FROM instances",
            "* FROM instance_extra",
        ):
            with pytest.raises(sa.exc.DBAPIError, match="denied"):
                reading.connection.exec_driver_sql(f"SELECT {forbidden}")
    # A column that came later than the grants is not taken for one that is not there.
    server.execute("nova_cell2", "ALTER TABLE instances ADD COLUMN hidden BOOLEAN")
    server.execute("nova_cell2", "CREATE TABLE share_mapping AS SELECT * FROM tags")
    for scope in (Scope(), few(*SERVERS)):
        snapshot = Snapshot.create()
        gaps = {gap.table: gap.why for gap in snapshot.add(nova.read_cell(cells[1], scope))}
        snapshot.close()
        assert {"nova_instances", "nova_share_mapping"} <= set(gaps)
        assert re.search("may not read it", gaps["nova_instances"])


@pytest.mark.real
@pytest.mark.parametrize("server", [MariaDB], ids=["mariadb"], indirect=True)
def test_the_grants_reach_every_cell_that_is_mapped_to_the_server(server: MariaDB) -> None:
    server.create("nova_cell3", "nova_cell")
    server.create("other_cell", "nova_cell")
    url = "{scheme}://{username}:{password}@{hostname}:{port}/nova_cell3?{query}"
    server.execute("nova_api", "UPDATE cell_mappings SET database_connection = %s WHERE name = 'cell1'", url)
    login = Login("cloudfsck", "from-the-grants")
    api = at(server, "nova_api", login)
    for _ in range(2):
        client(server, nova.grants(api, []).replace("'PASSWORD'", "'from-the-grants'"))
    mapped = dataclasses.replace(at(server, "nova_cell3", login), name="cell3")
    assert [piece.why for piece in nova.read_cell(mapped, Scope()) if piece.why] == []
    with pytest.raises(Unreadable, match="denied"), at(server, "other_cell", login).open():
        pass
    assert (
        server.execute("nova_api", "SELECT 1 FROM information_schema.routines WHERE routine_name LIKE 'cloudfsck%%'")
        == []
    )


@pytest.mark.real
def test_a_missing_column_spoils_its_table_alone(server: MariaDB | PostgreSQL) -> None:
    server.create("damaged", "nova_cell")
    fill(server, "damaged")
    server.execute("damaged", "ALTER TABLE migrations DROP COLUMN status")
    server.execute("damaged", "ALTER TABLE tags DROP COLUMN tag" if server.kind == "PostgreSQL" else "DROP TABLE tags")
    for scope in (Scope(), few(*SERVERS)):
        gaps = {piece.table: piece.why for piece in nova.read_cell(at(server, "damaged"), scope) if piece.why}
        if isinstance(server, PostgreSQL):
            assert "column tag of table tags is missing" in str(gaps.pop("nova_tags"))
        assert set(gaps) == {"nova_migrations"}
        assert "column status of table migrations is missing" in str(gaps["nova_migrations"])


@pytest.mark.real
def test_an_error_within_a_transaction_leaves_the_other_tables_readable(server: MariaDB | PostgreSQL) -> None:
    broken = dataclasses.replace(INSTANCES, where="no_such_column = 1")
    with at(server).transaction(writer=True) as reading:
        with pytest.raises(Unreadable, match=r"table instances.*no_such_column"):
            reading.rows(broken)
        assert reading.rows(INSTANCES).num_rows == 3


@pytest.mark.real
def test_a_bulk_read_that_lands_on_another_server_is_refused(server: MariaDB | PostgreSQL) -> None:
    with at(server).open() as reading:
        assert reading.bulk(INSTANCES).read_all().num_rows == 3
        reading.server = "00"
        with pytest.raises(Unreadable, match="different servers"):
            reading.bulk(INSTANCES)


@contextlib.contextmanager
def replica(server: MariaDB | PostgreSQL) -> Iterator[None]:
    """The server as a replica."""
    if isinstance(server, MariaDB):
        server.execute("", "SET GLOBAL read_only = ON")
        yield
        server.execute("", "SET GLOBAL read_only = OFF")
        return
    signal = server.data / "standby.signal"
    server.stop()
    signal.touch()
    server.start()
    try:
        yield
    finally:
        server.stop()
        signal.unlink()
        server.start()


@pytest.mark.real
def test_a_replica_may_nominate_and_not_prove(server: MariaDB | PostgreSQL) -> None:
    database = at(server)
    with replica(server):
        pieces = list(nova.read_cell(database, few(SERVERS[0])))
        assert all(piece.rows is None and "may nominate, never prove" in str(piece.why) for piece in pieces)
        assert len(read(nova.read_cell(database, Scope()))["nova_instances"]) == 3
        with database.transaction() as reading:
            assert reading.rows(INSTANCES).num_rows == 3
    assert len(read(nova.read_cell(database, few(*SERVERS)))["nova_instances"]) == 3


@pytest.mark.real
def test_a_server_that_is_down_is_a_gap_within_seconds(server: MariaDB | PostgreSQL) -> None:
    database = at(server)
    with database.transaction(writer=True) as few_rows, database.open() as bulk:
        assert few_rows.rows(INSTANCES).num_rows == 3
        server.stop()
        try:
            began = time.monotonic()
            with pytest.raises(Unreadable) as first:
                few_rows.rows(INSTANCES)
            with pytest.raises(Unreadable) as second:
                few_rows.rows(tables.BY_NAME["nova_tags"])
            assert str(first.value) == str(second.value), "the reason stays; nobody reconnects behind a transaction"
            with pytest.raises(Unreadable):
                bulk.clock()
            gaps = list(nova.read_cell(database, Scope()))
            assert gaps
            assert all(gap.rows is None and str(gap.why).startswith("cell1 at 127.0.0.1:") for gap in gaps)
            with pytest.raises(Unreadable):
                nova.cells(at(server, "nova_api"), reader(server))
            assert time.monotonic() - began < 10
        finally:
            server.start()
        with pytest.raises(Unreadable):
            few_rows.rows(INSTANCES)


def killed_in_the_middle(server: MariaDB | PostgreSQL, name: str, login: Login, consumer: str) -> str:
    """What is said when the server stops while it sends a table."""
    server.create(name)
    key = "PRIMARY KEY" if server.kind == "MariaDB" else ""
    server.execute(name, f"CREATE TABLE tags (resource_id VARCHAR(36), tag VARCHAR(80), n INT {key})")
    numbers = "seq FROM seq_1_to_30000" if server.kind == "MariaDB" else "n FROM generate_series(1, 30000) n"
    server.execute(name, f"INSERT INTO tags SELECT 'x', 'y', {numbers}")
    server.execute(name, "GRANT SELECT ON tags TO reader")
    # From the 25,000th row on the server thinks for longer than anybody waits.
    wait = "SLEEP(600) = 0" if server.kind == "MariaDB" else "pg_sleep(600) IS NULL"
    table = dataclasses.replace(tables.BY_NAME["nova_tags"], where=f"n < 25000 OR {wait}")
    with at(server, name, login).open() as reading:
        stream = reading.bulk(table)
        first = stream.read_next_batch()
        assert 0 < first.num_rows < 25000
        server.stop()
        try:
            if consumer == "arrow":
                with pytest.raises(Unreadable) as caught:
                    stream.read_all()
                why = str(caught.value)
            else:
                now = dt.datetime(2026, 11, 22)
                snapshot = Snapshot.create()
                [gap] = snapshot.add([Piece("nova_tags", "cell1", stream, None, None, now, now)])
                assert snapshot.db.execute("SELECT count(*) FROM nova_tags").fetchone() == (0,)
                snapshot.close()
                why = gap.why
        finally:
            server.start()
    return why


@pytest.mark.real
@pytest.mark.parametrize("consumer", ["arrow", "snapshot"])
def test_a_stream_that_is_killed_in_the_middle_is_an_error_and_not_a_short_table(
    server: MariaDB | PostgreSQL, consumer: str
) -> None:
    why = killed_in_the_middle(server, f"killed_{consumer}", reader(server), consumer)
    assert "in the middle of table tags" in why
    assert server.reader.password not in why


# -- TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    for server in start(MariaDB, tmp_path_factory.mktemp("tls"), tls=("127.0.0.1", "localhost")):
        server.create("nova_cell1", "nova_cell")
        server.execute("nova_cell1", f"INSERT INTO tags (resource_id, tag) VALUES ('{SERVERS[0]}', 'x')")
        server.execute("", "ALTER USER reader REQUIRE SSL")
        yield server


@pytest.fixture(scope="module")
def misnamed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    for server in start(MariaDB, tmp_path_factory.mktemp("misnamed"), tls=("db.example",)):
        server.create("nova_cell1", "nova_cell")
        yield server


@pytest.fixture(scope="module")
def tls_postgresql(tls: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    for server in start(PostgreSQL, tmp_path_factory.mktemp("tls-postgresql")):
        server.create("nova_cell1", "nova_cell")
        fill(server, "nova_cell1")
        server.stop()
        owner = server.data.stat()
        for name in ("server.pem", "server.key"):
            shutil.copy(tls.directory / name, server.data / name)
            os.chown(server.data / name, owner.st_uid, owner.st_gid)
            (server.data / name).chmod(0o600)
        with (server.data / "postgresql.conf").open("a") as options:
            options.write("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n")
        server.start()
        yield server


@pytest.mark.real
def test_tls_is_verified_before_anything_is_read(tls: MariaDB, misnamed: MariaDB) -> None:
    login = dataclasses.replace(reader(tls), ca=str(tls.ca), tls=True)
    with at(tls, login=login).open() as reading:
        cipher = reading.connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").fetchone()
        assert cipher is not None
        assert cipher[1]
        # The account demands TLS: the stream has it too.
        assert reading.bulk(tables.BY_NAME["nova_tags"]).read_all().num_rows == 1
    wrong_ca = at(tls, login=dataclasses.replace(login, ca=str(misnamed.ca)))
    of_the_system = at(tls, login=dataclasses.replace(login, ca=None))
    wrong_name = at(misnamed, login=dataclasses.replace(login, ca=str(misnamed.ca)))
    for refused in (wrong_ca, of_the_system, wrong_name):
        with pytest.raises(Unreadable, match="certificate verify failed"), refused.open():
            pass
    with (
        pytest.raises(Unreadable, match=r"authorities in /none\.pem cannot be read: No such file"),
        at(tls, login=dataclasses.replace(login, ca="/none.pem")).open(),
    ):
        pass


@pytest.mark.real
def test_a_server_without_tls_is_refused_where_tls_is_demanded(server: MariaDB | PostgreSQL) -> None:
    database = at(server, login=dataclasses.replace(reader(server), tls=True))
    with pytest.raises(Unreadable, match=r"(?i)SSL|TLS"), database.open():
        pass


@pytest.mark.real
def test_the_streams_own_connection_verifies_tls_too(tls: MariaDB, misnamed: MariaDB) -> None:
    # SQLAlchemy refuses first, so here connectorx is asked alone.  It tries for half a minute, hence both at once.
    script = """
import sys
from cloudfsck.sources.database import Database, Login, Unreadable, _MySQL
backend = _MySQL(Database("cell1", sys.argv[1], Login("reader", "reads-only", sys.argv[2], True)))
backend._variables = {"hostname": "", "version": "MariaDB"}
try:
    backend.fast("SELECT tag FROM tags", "").read_all()
except Unreadable as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    asked = [
        subprocess.Popen(
            [sys.executable, "-c", script, f"mysql://127.0.0.1:{server.port}/nova_cell1", str(ca)],
            stdout=subprocess.PIPE, text=True, env=environment,
        )
        for server, ca in [(tls, misnamed.ca), (misnamed, misnamed.ca)]
    ]  # fmt: skip
    wrong_ca, wrong_name = (process.communicate(timeout=120)[0] for process in asked)
    assert "certificate verify failed" in wrong_ca
    assert "mismatch" in wrong_name


@pytest.mark.real
@pytest.mark.parametrize("consumer", ["arrow", "snapshot"])
def test_psycopgs_stream_that_is_killed_is_an_error_too(
    tls: MariaDB, tls_postgresql: PostgreSQL, consumer: str
) -> None:
    login = dataclasses.replace(reader(tls_postgresql), ca=str(tls.ca), tls=True)
    why = killed_in_the_middle(tls_postgresql, f"killed_{consumer}", login, consumer)
    assert "table tags: " in why
    assert login.password is not None
    assert login.password not in why


@pytest.mark.real
def test_tls_to_postgresql_is_verified(tls: MariaDB, misnamed: MariaDB, tls_postgresql: PostgreSQL) -> None:
    server = tls_postgresql
    login = dataclasses.replace(reader(server), ca=str(tls.ca), tls=True)
    database = at(server, login=login)
    # connectorx cannot verify here: the streams come from psycopg, and give the same.
    assert read(nova.read_cell(database, Scope())) == read(nova.read_cell(at(server), Scope()))
    with database.open() as reading:
        assert reading.connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar()
        reading.server = "00"
        with pytest.raises(Unreadable, match="different servers"):
            reading.bulk(INSTANCES).read_all()
    wrong_ca = dataclasses.replace(login, ca=str(misnamed.ca))
    with pytest.raises(Unreadable, match="certificate verify failed"), at(server, login=wrong_ca).open():
        pass
    elsewhere = Database("cell1", f"postgresql://127.0.0.2:{server.port}/nova_cell1", login)
    server.execute("", "ALTER SYSTEM SET listen_addresses = '127.0.0.1,127.0.0.2'")
    server.stop()
    server.start()
    with pytest.raises(Unreadable, match="does not match host name"), elsewhere.open():
        pass


# -- Galera


@pytest.fixture
def galera(tmp_path: Path) -> Iterator[MariaDB]:
    provider = next((path for path in PROVIDERS if path.exists()), None)
    if provider is None:
        pytest.skip("Galera is not installed (libgalera_smm.so)")
    for server in start(MariaDB, tmp_path):
        server.create("nova_cell1", "nova_cell")
        server.execute("nova_cell1", f"INSERT INTO tags (resource_id, tag) VALUES ('{SERVERS[0]}', 'x')")
        server.stop()
        with server._options.open("a") as options:
            options.write(
                f"wsrep_on=ON\nwsrep_provider={provider}\nwsrep_cluster_address=gcomm://\nbinlog_format=ROW\n"
                "innodb_autoinc_lock_mode=2\nwsrep_node_address=127.0.0.1\n"
                f"wsrep_provider_options=base_port={free_port()};gmcast.listen_addr=tcp://127.0.0.1:{free_port()}\n"
            )
        server.start()
        yield server


@pytest.mark.real
def test_a_galera_node_proves_only_while_it_is_primary_and_synced(galera: MariaDB) -> None:
    database = at(galera)

    def state() -> object:
        return galera.execute("", "SHOW STATUS LIKE 'wsrep_local_state_comment'")[0][1]

    await_true("the node is synced", lambda: state() == "Synced")
    tags = tables.BY_NAME["nova_tags"]
    with database.transaction(writer=True) as reading:
        assert reading.rows(tags).num_rows == 1
        assert reading.connection.exec_driver_sql("SELECT @@wsrep_sync_wait").scalar() == 1
    galera.execute("", "SET GLOBAL wsrep_desync = ON")
    await_true("the node is not synced", lambda: state() != "Synced")
    refused = pytest.raises(Unreadable, match="not Primary and Synced; such a server may nominate")
    with refused, database.transaction(writer=True):
        pass
    with database.open() as reading:
        assert reading.bulk(tags).read_all().num_rows == 1


# -- two tables as one


def neutron(server: MariaDB | PostgreSQL, name: str) -> None:
    """Neutron's ports, and what else it has of every resource in one table for all."""
    server.create(name)
    server.execute(
        name, "CREATE TABLE standardattributes (id BIGINT PRIMARY KEY, resource_type VARCHAR(255), created_at TIMESTAMP"
        " NULL, updated_at TIMESTAMP NULL, revision_number BIGINT, description VARCHAR(255))",
    )  # fmt: skip
    server.execute(
        name, "CREATE TABLE ports (id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255), name VARCHAR(255), network_id"
        " VARCHAR(36), mac_address VARCHAR(32), status VARCHAR(16), device_owner VARCHAR(255), device_id VARCHAR(255),"
        " standard_attr_id BIGINT, secret VARCHAR(9))",
    )  # fmt: skip
    date = dt.datetime(2026, 11, 22, 6, 25, 46)
    server.execute(
        name, "INSERT INTO standardattributes VALUES (%s, %s, %s, %s, %s, %s)",
        [
            (7, "ports", date, None, 3, None),
            (8, "ports", date, date, 4, None),
            (9, "networks", date, date, 1, None),
        ],
    )  # fmt: skip
    server.execute(
        name, "INSERT INTO ports VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            (SERVERS[3], "p1", "", "n1", "fa:01", "DOWN", "compute:nova", SERVERS[0], 7, "hunter2"),
            (SERVERS[4], "p1", "x", "n1", "fa:02", "ACTIVE", "", "", 8, "hunter2"),
        ],
    )  # fmt: skip


@pytest.mark.real
def test_what_another_table_has_of_a_row_comes_with_it(server: MariaDB | PostgreSQL) -> None:
    neutron(server, "neutron")
    ports = tables.BY_NAME["neutron_ports"]
    login = Login("neutron_reader", "from-the-grants")
    database = dataclasses.replace(at(server, "neutron", login), name="neutron")
    sql = nova.grants(at(server, "nova_api", login), [], [(database, service.columns([ports]))])
    client(server, sql.replace("'PASSWORD'", "'from-the-grants'"))
    wanted = [(SERVERS[3], 3, None), (SERVERS[4], 4, dt.datetime(2026, 11, 22, 6, 25, 46))]

    def told(rows: Any) -> list[tuple[Any, ...]]:
        return sorted((row["id"], row["revision_number"], row["updated_at"]) for row in rows.to_pylist())

    with database.open() as reading:
        assert told(reading.bulk(ports).read_all()) == wanted
    for asked, found in ((SERVERS[0], wanted[:1]), (SERVERS[4], wanted[1:]), (SERVERS[1], [])):
        with database.transaction(writer=True) as reading:
            assert told(reading.rows(ports, [asked])) == found
    with database.open() as reading, pytest.raises(sa.exc.DBAPIError, match="denied"):
        reading.connection.exec_driver_sql("SELECT secret FROM ports")
    server.execute("neutron", "ALTER TABLE standardattributes DROP COLUMN revision_number")
    with database.open() as reading, pytest.raises(Unreadable, match="revision_number of table ports is missing"):
        reading.bulk(ports)
    server.execute("neutron", "DROP TABLE standardattributes")
    with database.open() as reading, pytest.raises(Unreadable, match="table standardattributes is missing"):
        reading.bulk(ports)
