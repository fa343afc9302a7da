"""The snapshot's tables hold at both ends of what we promise: today's Nova, and that of OpenStack Zed (Debian 12).

Each end's tables are made by that Nova's own migrations, on a real MariaDB, and read with the rights that we ask for.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

from cloudfsck import tables
from cloudfsck.config import Config
from cloudfsck.model import Scope
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import Sources, nova
from cloudfsck.sources.database import Database, Login
from tests.bed import MariaDB
from tests.bed.databases import Account, Schema
from tests.test_database import client

pytestmark = pytest.mark.real

SERVER = "cb2d1a52-4c8b-4a6c-9a0e-6a7f8f1f3f10"
READER = Account("cloudfsck", "from-the-grants")
PARTS: tuple[tables.Per, ...] = ("api", "cell")
TABLES = [table for table in tables.TABLES if table.per in PARTS and table.origin]


@dataclass(frozen=True)
class End:
    """`heads` are the last migrations of the API database and of a cell, `lacks` what is not there of all that we read:
    tables (late ones, read as empty) and columns (optional ones, read as NULL).
    """

    name: str
    schemas: tuple[Schema, Schema]
    heads: tuple[str, str]
    lacks: frozenset[str]


ENDS = [
    End("nova34", ("nova_api", "nova_cell"), heads=("cdeec0c85668", "ab450ba04102"), lacks=frozenset()),
    End(
        "zed",
        ("zed_api", "zed_cell"),
        heads=("b30f573d3377", "ccb0fa1a2252"),
        lacks=frozenset({"instances.compute_id", "shadow_instances.compute_id", "share_mapping"}),
    ),
]

#: The types of MariaDB that arrive as what tables.py says.
ACCEPTED = {
    "VARCHAR": {"varchar", "text", "mediumtext", "enum"},
    "BIGINT": {"int", "bigint"},
    "INTEGER": {"int"},
    "BOOLEAN": {"tinyint"},
    "TIMESTAMP": {"datetime"},
}

#: Columns of JSON, and what is made of each.
CONNECTION = '{"driver_volume_type": "rbd", "data": {"name": "pool/image", "auth_password": "chap-secret"}}'
DEVICES = '{"nova_object.data": {"objects": [{"nova_object.data": {"volume_id": "v-1", "attachment_id": "a-1"}}]}}'
VIFS = '[{"id": "p-1", "preserve_on_delete": false, "profile": {"secret": "chap-secret"}}]'
TAKEN: dict[str, dict[str, Any]] = {
    "connection_info": {
        "connected": True, "driver": "rbd", "places": ["pool/image"], "portals": [], "multipath_id": None,
        "device_path": None,
    },
    "block_device_mappings": {"volumes": ["v-1"]},
    "network_info": {"ports": ["p-1"], "preserved": []},
}  # fmt: skip

#: The values of a row that have a meaning; any other only has the type of its column.
MEANT = {
    "cell_mappings.name": "cell1",
    "migrations.migration_type": "evacuation",
    "shadow_migrations.migration_type": "evacuation",
    # What the filters let through.
    "instance_actions_events.finish_time": None,
    "instance_system_metadata.key": "shelved_at",
    "shadow_instance_system_metadata.key": "shelved_at",
    "block_device_mapping.connection_info": CONNECTION,
    "build_requests.block_device_mappings": DEVICES,
    "block_device_mapping.deleted": 0,
    "instance_info_caches.network_info": VIFS,
    "instance_info_caches.deleted": 1,
}


@dataclass(frozen=True)
class Cloud:
    """The API database of an end and its only cell; `filled`: with a row in every table that we read."""

    server: MariaDB
    end: End
    filled: bool

    def name(self, per: tables.Per) -> str:
        return f"{self.end.name}_{per}_{'filled' if self.filled else 'empty'}"

    def url(self, per: tables.Per) -> str:
        return self.server.url(self.name(per), Account("nova", "hunter2"))

    def make(self) -> Self:
        """With an account that our own SQL makes."""
        for per, schema in zip(PARTS, self.end.schemas, strict=True):
            self.server.create(self.name(per), schema)
        if self.filled:
            for table in TABLES:
                self.fill(table)
        login = Login(READER.user)
        sql = nova.grants(Database("nova_api", self.url("api"), login), [Database("cell1", self.url("cell"), login)])
        client(self.server, sql.replace("'PASSWORD'", f"'{READER.password}'"))
        return self

    def row(self, table: tables.Table) -> dict[str, Any]:
        """What its row has in the columns that we read, and so what is to be read."""
        row: dict[str, Any] = {}
        for nth, column in enumerate(columns(table)):
            at = f"{table.origin}.{column.name}"
            if at in self.end.lacks:
                row[column.name] = None
            elif at in MEANT:
                row[column.name] = MEANT[at]
            elif column.name in table.key:
                row[column.name] = SERVER
            else:
                row[column.name] = {
                    "VARCHAR": column.name,
                    # Each table has one row: whatever refers to a row refers to number 1.
                    "BIGINT": 1 if column.name.endswith("id") else nth,
                    "INTEGER": nth,
                    "BOOLEAN": True,
                    "TIMESTAMP": dt.datetime(2026, 11, 22, 6, 25, nth),
                }[column.type]
        return row

    def fill(self, table: tables.Table) -> None:
        if table.origin in self.end.lacks or table.distinct:
            return
        row = {name: value for name, value in self.row(table).items() if value is not None}
        if table.origin == "cell_mappings":
            row["database_connection"] = self.url("cell")
        # What we do not read, and no row can be without.
        for name, kind in self.server.execute(
            self.name(table.per),
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND table_name = %s AND is_nullable = 'NO' AND column_default IS NULL",
            table.origin,
        ):
            row.setdefault(name, 0 if kind == "int" else "")
        names, marks = ", ".join(f"`{name}`" for name in row), ", ".join(["%s"] * len(row))
        self.server.execute(
            self.name(table.per), f"INSERT INTO {table.origin} ({names}) VALUES ({marks})", *row.values()
        )

    def rows(self, table: tables.Table) -> list[dict[str, Any]]:
        """What a snapshot is to hold."""
        if not self.filled or table.origin in self.end.lacks:
            return []
        cell = {"cell": "cell1"} if any(column.name == "cell" for column in table.columns) else {}
        row = {name: value for name, value in self.row(table).items() if name not in table.apart}
        taken = {name: value for column in table.apart for name, value in TAKEN[column].items()}
        return [{**cell, **row, **taken}]

    def readings(self, folder: Path) -> Iterator[tuple[Snapshot, frozenset[str] | None]]:
        """What the product makes of it, whole and for one server, with the servers that were asked for."""
        password = folder / "password"
        password.write_text(READER.password)
        # The cell is found by its mapping; where there is none it is listed.
        cells = None if self.filled else {"cell1": self.url("cell")}
        config = {
            "cloud": {"name": self.end.name, "state": folder},
            "nova": {"api_database": self.url("api"), "cells": cells},
            "read": {"database": {"user": READER.user, "password_file": password}},
            "hosts": {"transport": "local"},
        }
        sources = Sources(Config.model_validate(config))
        yield sources.read(None, lambda *_: None), None
        servers = frozenset({SERVER})
        for snapshot in sources.prove(Scope(servers=servers)):
            yield snapshot, servers


def columns(table: tables.Table) -> list[tables.Column]:
    """The columns that are read; which cell a row is from, we say ourselves."""
    return [column for column in table.asked if column.name != "cell"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with MariaDB(tmp_path_factory.mktemp("contract")) as server:
        yield server


@pytest.fixture(scope="module", params=ENDS, ids=lambda end: end.name)
def empty(request: pytest.FixtureRequest, server: MariaDB) -> Cloud:
    return Cloud(server, request.param, filled=False).make()


@pytest.fixture(scope="module")
def filled(empty: Cloud) -> Cloud:
    return replace(empty, filled=True).make()


def test_the_schemas_are_those_of_the_end(empty: Cloud) -> None:
    heads = [empty.server.execute(empty.name(per), "SELECT version_num FROM alembic_version") for per in PARTS]
    assert heads == [[(head,)] for head in empty.end.heads]


def test_what_is_read_is_there_with_a_type_that_is_understood(empty: Cloud) -> None:
    types: dict[str, dict[str, str]] = {}
    for per in PARTS:
        for table, column, kind in empty.server.execute(
            empty.name(per),
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = DATABASE()",
        ):
            types.setdefault(table, {})[column] = kind
    lacks: set[str] = set()
    for one in TABLES:
        if one.origin not in types:
            assert one.late, one.origin
            lacks.add(one.origin)
            continue
        for each in columns(one):
            at = f"{one.origin}.{each.name}"
            if each.name not in types[one.origin]:
                assert each.optional, at
                lacks.add(at)
            else:
                assert types[one.origin][each.name] in ACCEPTED[each.type], at
    assert lacks == empty.end.lacks


@pytest.mark.parametrize("which", ["empty", "filled"])
def test_every_table_is_read_whole_with_the_rows_that_are_there(
    which: str, request: pytest.FixtureRequest, empty: Cloud, tmp_path: Path
) -> None:
    cloud: Cloud = request.getfixturevalue(which)
    for snapshot, servers in cloud.readings(tmp_path):
        heard = snapshot.heard()
        assert heard.gaps == {}
        for table in TABLES:
            part = "cell1" if table.per == "cell" else tables.API
            assert heard.parts(table.name) == {part}
            assert heard.keys[table.name, part] == (servers if table.narrow else None)
            assert snapshot.rows(f"SELECT * FROM {table.name}") == cloud.rows(table), table.name
        snapshot.close()
