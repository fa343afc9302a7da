"""Two clouds on one NSX: what one of them has leaked there is found and deleted, and nothing of the other is touched.

NSX is the simulator; Neutron's and Keystone's databases are files, and the rest is a small demo cloud.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import checks, tables
from cloudfsck.sources.nsx import KINDS
from tests import small
from tests.bed.nsx import Nsx, tags
from tests.real_cloud import Ran
from tests.test_database import sqlite_database

ROOT = Path(__file__).resolve().parents[1]
CHECKS = [name for name in checks.load() if name.startswith("nsx-")]


def ident() -> str:
    return str(uuid.uuid4())


@dataclass
class Plugin:
    """Neutron with its plugin for NSX, of one cloud: what it makes stands in both, and what it leaks in NSX alone."""

    nsx: Nsx
    project: str = field(default_factory=lambda: uuid.uuid4().hex)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    loaded: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    leaked: set[str] = field(default_factory=set)

    def put(self, collection: str, scope: str, table: str | None, id: str, **body: Any) -> str:
        """An object, and its row in Neutron's table; without one it is a leak."""
        marks = tags(**{scope: id}, os_project_id=self.project, os_project_name="one", os_api_version="17.0.0")
        self.loaded.setdefault(collection, []).append({"id": id, "tags": marks, **body})
        if table is None:
            self.leaked.add(f"/{collection}/{id}")
        else:
            self.rows.setdefault(table, []).append({"id": id, "project_id": self.project})
        return id

    def network(self, ports: int, leaked_ports: int = 0, known: bool = True) -> str:
        net = self.put("infra/segments", "os_neutron_net_id", "networks" if known else None, ident())
        for number in range(ports + leaked_ports):
            port = ident()
            self.put(
                f"infra/segments/{net}/ports", "os_neutron_port_id", "ports" if number < ports else None, port,
                attachment={"id": port},
            )  # fmt: skip
            if number < ports:
                self.rows["ports"][-1] |= {"network_id": net, "device_owner": "", "device_id": "", "mac_address": port}
        return net

    def group(self, known: bool = True) -> None:
        group = ident()
        for collection in ("groups", "security-policies"):
            once = "securitygroups" if collection == "groups" else "nowhere"
            path = f"infra/domains/default/{collection}"
            self.put(path, "os_neutron_secg_id", once if known else None, group)

    def router(self, known: bool = True) -> None:
        self.put("infra/tier-1s", "os_neutron_router_id", "routers" if known else None, ident())

    def service(self, known: bool = True) -> None:
        self.put("infra/services", "os_neutron_secgr_id", "securitygrouprules" if known else None, ident())

    def load(self) -> None:
        for collection, objects in self.loaded.items():
            self.nsx.load(collection, objects)

    @property
    def paths(self) -> set[str]:
        return {f"/{collection}/{one['id']}" for collection, objects in self.loaded.items() for one in objects}

    @property
    def objects(self) -> int:
        return sum(map(len, self.loaded.values()))

    def write(self, folder: Path) -> None:
        """Neutron's database and Keystone's, with the tables that are read."""
        self.rows.pop("nowhere", None)
        number = 0
        standard = []
        for many in self.rows.values():
            for row in many:
                number += 1
                row["standard_attr_id"] = number
                standard.append(
                    {"id": number, "revision_number": 1, "created_at": "2026-01-01", "updated_at": "2026-01-01"}
                )
        database(folder / "neutron.sqlite", ("neutron", "neutron_nsx"), {**self.rows, "standardattributes": standard})
        projects = [{"id": self.project, "name": "one", "enabled": True}]
        database(folder / "keystone.sqlite", ("keystone",), {"project": projects})


def database(path: Path, pers: tuple[tables.Per, ...], rows: dict[str, list[dict[str, Any]]]) -> None:
    """A database with the tables that are read of these services, and these rows."""
    for per in pers:
        db = sqlite_database(path, per)
        for origin in [origin for (origin,) in db.execute("SELECT name FROM sqlite_master")]:
            names = {name for _, name, *_ in db.execute(f"PRAGMA table_info({origin})")}
            for row in rows.pop(origin, ()):
                given = {name: value for name, value in row.items() if name in names}
                marks = ", ".join("?" * len(given))
                db.execute(f"INSERT INTO {origin} ({', '.join(given)}) VALUES ({marks})", list(given.values()))
        db.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
        db.execute("INSERT INTO alembic_version VALUES ('one')")
        db.commit()
        db.close()


class User:
    """Who runs cloudfsck on the one cloud."""

    def __init__(self, folder: Path, nsx: Nsx, plugin: Plugin) -> None:
        self.configuration = small.make(folder / "cloud")
        plugin.write(folder)
        text = self.configuration.read_text()
        text = text[: text.index("\n[skip]")] + "\n[skip]\n"
        text += "".join(f'{name} = "of no interest here"\n' for name in checks.load() if name not in CHECKS)
        for name in CHECKS:
            text += f"\n[limits.{name}]\ncount = 100_000\nshare = 1.0\n"
        for service in ("neutron", "keystone"):
            text = text.replace(f"{self.configuration.parent}/databases/{service}.sqlite", f"{folder}/{service}.sqlite")
        for section in ("nsx", "write.nsx"):
            text += f'\n[{section}]\nmanagers = {json.dumps(nsx.urls)}\nuser = "admin"\npassword_env = "NSX_PASSWORD"\n'
            text += "rate = 100_000\n"
        self.configuration.write_text(text)

    def __call__(self, *words: str) -> Ran:
        command = [sys.executable, "-m", "cloudfsck", "-c", str(self.configuration), *words, "--format", "json"]
        environment = {**os.environ, "NSX_PASSWORD": Nsx.ADMIN[1]}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def proven(self) -> set[str]:
        ran = self("check")
        assert ran.data["unknown"] == [], ran.out
        return {one["key"] for one in ran.data["findings"] if one["state"] == "proven"}


@pytest.fixture
def nsx() -> Iterator[Nsx]:
    with Nsx(managers=3) as nsx:
        nsx.rate = 0
        yield nsx


def populate(plugin: Plugin, size: int) -> None:
    """Some `size` objects of every kind, of which one in a hundred is a leak."""
    for number in range(size // 200):
        plugin.network(95, leaked_ports=1)
        for _ in range(24):
            plugin.group()
        for _ in range(10):
            plugin.router()
        for _ in range(44):
            plugin.service()
        match number % 5:
            case 0:
                plugin.network(0, known=False)
            case 1:
                plugin.router(known=False)
            case 2:
                plugin.group(known=False)
            case 3:
                plugin.service(known=False)
            case 4:
                plugin.network(0, leaked_ports=1, known=False)
    plugin.load()


#: What an act is worth in requests beside itself: its finding is proven by two readings, gated by two for its batch and
#: two of its own, looked at before and after; each of them asks for the object, its interface or what is below it; and
#: the act itself looks once more, and at what belongs to it.
READINGS, A_READING, ITS_OWN = 8, 3, 6


def pages(nsx: Nsx) -> int:
    """How many pages all lists have that are read, and those of what segments have."""
    segments = [f"infra/segments/{one['id']}/ports" for one in nsx.all("infra/segments")]
    top = [kind.list.removeprefix("/") for kind in KINDS["policy"] if kind.parent is None]
    return sum(max(1, -(-len(nsx.all(name)) // 1000)) for name in [*top, *segments, "fabric/vifs"])


@pytest.mark.parametrize("size", [2_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_what_one_of_two_clouds_leaked_is_deleted_and_nothing_else(tmp_path: Path, nsx: Nsx, size: int) -> None:
    ours, others = Plugin(nsx), Plugin(nsx)
    for plugin in (ours, others):
        populate(plugin, size // 2)
    nsx.rate = 20  # a fifth of what NSX is installed with, and we do not spare it: it has to say no
    user = User(tmp_path, nsx, ours)
    assert ours.objects + others.objects == pytest.approx(size, rel=0.05)
    assert len(ours.leaked) == pytest.approx(ours.objects / 100, rel=0.3)
    kept = [nsx.get(path.removeprefix("/")) for path in others.paths]
    assert None not in kept
    assert user.proven() == ours.leaked
    answered = [one for one in nsx.asked if one.status != 429 and one.method == "GET"]
    assert len(answered) <= pages(nsx) + 2 * A_READING * len(ours.leaked)
    nsx.managers[0].down()
    assert user.proven() == ours.leaked, "another manager tells the same"
    before = len(nsx.asked)
    first, second = (user("repair", "--yes").outcomes for _ in range(2))
    asked = [one for one in nsx.asked[before:] if one.status != 429]
    assert set(first) | set(second) == ours.leaked
    assert set(first.values()) | set(second.values()) == {"done"}, "segments go when their ports are gone"
    repairs = [one for one in asked if one.method == "DELETE"]
    assert [one.status for one in repairs] == [200] * len(ours.leaked)
    at_most = 2 * (pages(nsx) + len(nsx.managers)) + len(repairs) * (1 + READINGS * A_READING + ITS_OWN)
    assert len(asked) <= at_most, "pages, logins, repairs and what is read again for them"
    assert 429 in {one.status for one in nsx.asked}
    assert [nsx.get(path.removeprefix("/")) for path in others.paths] == kept
    assert all(nsx.get(path.removeprefix("/")) is None for path in ours.leaked)
    assert all(nsx.get(path.removeprefix("/")) is not None for path in ours.paths - ours.leaked)
    ran = user("check")
    assert (ran.status, ran.data["findings"]) == (0, []), ran.out


def test_what_nsx_lost_of_neutrons_is_told(tmp_path: Path, nsx: Nsx) -> None:
    ours = Plugin(nsx)
    net, lost = ours.network(1), ours.network(0)
    ours.group()
    ours.router()
    ours.load()
    user = User(tmp_path, nsx, ours)
    assert user.proven() == set()
    group, router = ours.rows["securitygroups"][0]["id"], ours.rows["routers"][0]["id"]
    for path in (f"segments/{lost}", f"domains/default/groups/{group}", f"tier-1s/{router}"):
        nsx.remove(f"infra/{path}")
    assert user.proven() == {lost, group, router}
    (port,) = (row["id"] for row in ours.rows["ports"])
    nsx.remove(f"infra/segments/{net}/ports/{port}")
    assert user.proven() == {lost, group, router}, "a port that no server has may be anybody's"


@pytest.mark.parametrize("does", ["no-cursor", "html", 500])
def test_what_of_nsx_was_not_read_is_unknown(tmp_path: Path, nsx: Nsx, does: Any) -> None:
    ours = Plugin(nsx)
    ours.network(1, leaked_ports=1)
    ours.router(known=False)
    ours.load()
    nsx.load("infra/services", [{"id": f"s{number:04d}"} for number in range(1100)])
    nsx.fault(does, kind="infra/services", times=1000)
    ran = User(tmp_path, nsx, ours)("check")
    assert {one["state"] for one in ran.data["findings"]} <= {"unproven"}, ran.out
    assert {one["check"] for one in ran.data["unknown"]} == set(CHECKS)
    assert ran.status == 8, ran.out
