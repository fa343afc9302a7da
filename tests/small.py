"""A demo cloud as small as one can be, so that a test may make many: two hosts, six servers, two faults, no OVN."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import checks, demo, tables
from cloudfsck.demo import cloud
from tests.real_cloud import Ran
from tests.test_database import sqlite_database

ROOT = Path(__file__).resolve().parents[1]

HOSTS = {"compute1": "cell1", "compute3": "cell1"}
#: A guest that still runs, and a directory that is left; all others are healthy.
ZOMBIE, LEFTOVER = "billing-7", "export-5"
CHECKS = ("libvirt-domain-of-deleted-server", "nova-directory-of-deleted-server")
_NAMES = ("web-1", "web-4", "cache-1", "mail-2", ZOMBIE, LEFTOVER)


def server(name: str) -> cloud.Server:
    return next(one for one in cloud.servers(by_hand=False) if one.name == name)


def make(place: Path, hosts: Mapping[str, str] = HOSTS) -> Path:
    """Make it, and return its configuration: it knows no waiting, and no share of faults is too large for it."""
    chosen = [one for one in map(server, _NAMES) if one.host in hosts]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cloud, "HOSTS", hosts)
        patched.setattr(cloud, "CELLS", {"cell1": tuple(hosts)})
        patched.setattr(cloud, "servers", lambda by_hand: chosen)
        path = demo.make(place)
    text = path.read_text()
    for section in ("ovn", "write.ovn"):
        before, _, after = text.partition(f"[{section}]\n")
        text = before + after.partition("\n\n")[2]
    for rung, time in (("paused", "1d"), ("stopped", "7d"), ("quarantined", "7d")):
        text = text.replace(f'{rung} = "{time}"', f"{rung} = 0")
    for name in CHECKS:
        text += f"\n[limits.{name}]\nshare = 1.0\n"
    text += "\n[skip]\n" + "".join(f'{name} = "of no interest here"\n' for name in checks.load() if name not in CHECKS)
    path.write_text(text)
    return path


#: Columns that Neutron itself has an index of.
INDEXED = {
    "standardattributes": ("id",), "networks": ("id",), "ports": ("id", "device_id"), "routers": ("id", "gw_port_id"),
    "securitygroups": ("id",), "securitygrouprules": ("id", "security_group_id"),
}  # fmt: skip


def database(path: Path, pers: tuple[tables.Per, ...], rows: dict[str, list[dict[str, Any]]]) -> None:
    """A database with the tables that are read of these services, and these rows."""
    for per in pers:
        db = sqlite_database(path, per)
        for origin in [origin for (origin,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]:
            names = {name for _, name, *_ in db.execute(f"PRAGMA table_info({origin})")}
            for row in rows.pop(origin, ()):
                given = {name: value for name, value in row.items() if name in names}
                marks = ", ".join("?" * len(given))
                db.execute(f"INSERT INTO {origin} ({', '.join(given)}) VALUES ({marks})", list(given.values()))
            for column in INDEXED.get(origin, ()):
                db.execute(f"CREATE INDEX IF NOT EXISTS {origin}_{column} ON {origin} ({column})")
        db.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
        db.execute("INSERT INTO alembic_version VALUES ('one')")
        db.commit()
        db.close()
    assert not rows, "every row has a table"


class User:
    """Who runs cloudfsck on such a cloud, with `services` of a test's own, for some `checks` alone, however much they
    find; `sections` of the configuration say what else there is."""

    def __init__(
        self, folder: Path, services: Mapping[str, Path], only: Collection[str], sections: Mapping[str, str],
        **environment: str,
    ) -> None:  # fmt: skip
        self.environment = {**os.environ, **environment}
        self.configuration = make(folder / "cloud", {"compute3": "cell1"})
        text = self.configuration.read_text()
        text = text[: text.index("\n[skip]")] + "\n[skip]\n"
        text += "".join(f'{name} = "of no interest here"\n' for name in checks.load() if name not in only)
        for name in only:
            text += f"\n[limits.{name}]\ncount = 100_000\nshare = 1.0\n"
        for service, path in services.items():
            text = text.replace(f"{self.configuration.parent}/databases/{service}.sqlite", str(path))
        text += "".join(f"\n[{name}]\n{keys}" for name, keys in sections.items())
        self.configuration.write_text(text)

    def __call__(self, *words: str) -> Ran:
        command = [sys.executable, "-m", "cloudfsck", "-c", str(self.configuration), *words, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=self.environment)
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def proven(self) -> set[str]:
        ran = self("check")
        assert ran.data["unknown"] == [], ran.out
        return {one["key"] for one in ran.data["findings"] if one["state"] == "proven"}
