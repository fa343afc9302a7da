"""Stand in for Designate's API over the demo's own database: the recordsets of its zone.

Its name servers are told at once, for there are none.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudfsck.demo import service
from cloudfsck.demo.service import Answer, Wrong


class Designate:
    """What its API answers and does; each request is one transaction."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def answer(self, method: str, path: str, given: Mapping[str, Any], managed: bool) -> Answer:
        """`given` is the query of a GET, and the body of any other; `managed` says that what is managed may change."""
        # Its database has UUIDs without dashes.
        place = re.sub("[0-9a-f-]{36}", lambda id: id[0].replace("-", ""), path)
        told = service.answer(self.file, _CALLS, method, place, lambda db: _Call(db, given, managed))
        return told or _wrong(404, "not_found", f"the demo's Designate does not know how to {method} {path}").answer


def _wrong(status: int, kind: str, message: str) -> Wrong:
    """A refusal as Designate words it."""
    return Wrong((status, {"code": status, "type": kind, "message": message}))


class _Call:
    def __init__(self, db: sqlite3.Connection, given: Mapping[str, Any], managed: bool) -> None:
        self.db, self.given, self.managed = db, given, managed

    def recordsets(self, zone: str) -> Answer:
        rows = self.db.execute(
            "SELECT id FROM recordsets WHERE zone_id = ? AND name = ? AND type = ?",
            [zone, self.given.get("name"), self.given.get("type")],
        ).fetchall()
        return 200, {"recordsets": [self._told(zone, row["id"]) for row in rows]}

    def recordset(self, zone: str, recordset: str) -> Answer:
        return 200, self._told(zone, recordset)

    def make(self, zone: str) -> Answer:
        name, kind, records = (self.given.get(one) for one in ("name", "type", "records"))
        if not (isinstance(name, str) and isinstance(kind, str) and isinstance(records, list) and records):
            raise _wrong(400, "invalid_object", "Provided object does not match schema")
        there = self.db.execute(
            "SELECT 1 FROM recordsets WHERE zone_id = ? AND name = ? AND type = ?", [zone, name, kind]
        )
        if there.fetchone():
            raise _wrong(409, "duplicate_recordset", "Duplicate RecordSet")
        made = uuid.uuid4().hex
        self.db.execute(
            "INSERT INTO recordsets (id, zone_id, name, type, ttl, tenant_id, description, created_at)"
            " VALUES (?, ?, ?, ?, ?, 'admin', ?, ?)",
            [made, zone, name, kind, self.given.get("ttl"), self.given.get("description"), _now()],
        )
        self._say(zone, made, records)
        return 202, self._told(zone, made)

    def change(self, zone: str, recordset: str) -> Answer:
        records = self.given.get("records")
        if not isinstance(records, list) or not records:
            raise _wrong(400, "invalid_object", "Provided object does not match schema")
        self._may_change(zone, recordset)
        self._say(zone, recordset, records)
        return 202, self._told(zone, recordset)

    def delete(self, zone: str, recordset: str) -> Answer:
        self._may_change(zone, recordset)
        told = self._told(zone, recordset)
        self.db.execute("DELETE FROM records WHERE recordset_id = ?", [recordset])
        self.db.execute("DELETE FROM recordsets WHERE id = ?", [recordset])
        return 202, {**told, "action": "DELETE", "status": "PENDING"}

    def _may_change(self, zone: str, recordset: str) -> None:
        self._told(zone, recordset)
        managed = self.db.execute("SELECT 1 FROM records WHERE recordset_id = ? AND managed", [recordset]).fetchone()
        if managed and not self.managed:
            raise _wrong(400, "bad_request", "Managed records may not be updated")

    def _say(self, zone: str, recordset: str, records: list[str]) -> None:
        """Have a set say this; what it said already stays as it was."""
        said = self.db.execute("SELECT data FROM records WHERE recordset_id = ?", [recordset]).fetchall()
        for gone in {row["data"] for row in said} - set(records):
            self.db.execute("DELETE FROM records WHERE recordset_id = ? AND data = ?", [recordset, gone])
        for new in set(records) - {row["data"] for row in said}:
            self.db.execute(
                "INSERT INTO records (id, recordset_id, zone_id, data, managed, status, action, created_at)"
                " VALUES (?, ?, ?, ?, 0, 'ACTIVE', 'NONE', ?)",
                [uuid.uuid4().hex, recordset, zone, new, _now()],
            )

    def _told(self, zone: str, recordset: str) -> Mapping[str, Any]:
        row = self.db.execute("SELECT * FROM recordsets WHERE id = ? AND zone_id = ?", [recordset, zone]).fetchone()
        if row is None:
            raise _wrong(404, "recordset_not_found", "Could not find RecordSet")
        records = self.db.execute(
            "SELECT data FROM records WHERE recordset_id = ? ORDER BY data", [recordset]
        ).fetchall()
        return {
            "id": str(uuid.UUID(row["id"])), "zone_id": str(uuid.UUID(zone)), "status": "ACTIVE", "action": "NONE",
            "records": [one["data"] for one in records],
            **{name: row[name] for name in ("name", "type", "ttl", "description")},
        }  # fmt: skip


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.000000")


_ID = "([0-9a-f]{32})"
_CALLS: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", f"/zones/{_ID}/recordsets", _Call.recordsets),
    ("POST", f"/zones/{_ID}/recordsets", _Call.make),
    ("GET", f"/zones/{_ID}/recordsets/{_ID}", _Call.recordset),
    ("PUT", f"/zones/{_ID}/recordsets/{_ID}", _Call.change),
    ("DELETE", f"/zones/{_ID}/recordsets/{_ID}", _Call.delete),
)
