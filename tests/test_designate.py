"""Designate: what is read of its database, and acts through its API, which names no revision."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from cloudfsck import acts
from cloudfsck.acts.designate import Designate
from cloudfsck.acts.domain import Pause
from cloudfsck.acts.recordset import Remove, Restore
from cloudfsck.config import CloudApi
from cloudfsck.model import Moved, Outcomeless, Refused, Scope, Trouble
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import service
from cloudfsck.sources.database import Database, Login
from tests import cinder_api

S = "33333333-0000-4000-8000-000000000003"
Z = "44444444-0000-4000-8000-000000000004"
R = "55555555-0000-4000-8000-000000000005"
NAME = "web.cloud.test."

WHOLE = Remove(S, Z, R, NAME, "A", 300, ("10.0.0.1",), ())
PART = Remove(S, Z, R, NAME, "A", 300, ("10.0.0.1",), ("10.0.0.9",))


# ------------------------------------------------------------------------------------------ its database


SCHEMA = """
CREATE TABLE zones (id CHAR(32), name VARCHAR, type VARCHAR, tenant_id VARCHAR, status VARCHAR, action VARCHAR,
                    serial INT, ttl INT, created_at DATETIME, updated_at DATETIME, deleted CHAR(32));
CREATE TABLE recordsets (id CHAR(32), zone_id CHAR(32), name VARCHAR, type VARCHAR, ttl INT, tenant_id VARCHAR,
                         description VARCHAR, created_at DATETIME, updated_at DATETIME);
CREATE TABLE records (id CHAR(32), recordset_id CHAR(32), zone_id CHAR(32), data TEXT, managed BOOLEAN,
                      managed_plugin_name VARCHAR,
                      managed_resource_type VARCHAR, managed_resource_id CHAR(32), managed_resource_region VARCHAR,
                      managed_extra VARCHAR,
                      status VARCHAR, action VARCHAR, created_at DATETIME, updated_at DATETIME);
"""


def bare(one: str) -> str:
    return one.replace("-", "")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    file = tmp_path / "designate.sqlite"
    at = "2026-11-22 07:30:21"
    with closing(sqlite3.connect(file)) as db, db:
        db.executescript(SCHEMA)
        for zone, deleted in ((bare(Z), "0"), ("f" * 32, "f" * 32)):
            db.execute("INSERT INTO zones VALUES (?, 'cloud.test.', 'PRIMARY', 't', 'ACTIVE', 'NONE', 7, 60, ?, ?, ?)",
                       [zone, at, at, deleted])  # fmt: skip
        for number, recordset in enumerate((bare(R), "e" * 32)):
            db.execute("INSERT INTO recordsets VALUES (?, ?, ?, 'A', NULL, NULL, NULL, ?, NULL)",
                       [recordset, bare(Z), f"web-{number}.cloud.test.", at])  # fmt: skip
            db.execute(
                "INSERT INTO records VALUES"
                " (?, ?, ?, ?, 1, 'nova_fixed', 'instance', ?, NULL, NULL, 'ACTIVE', 'NONE', ?, NULL)",
                [f"{number:032x}", recordset, bare(Z), f"10.0.0.{number}", bare(S) if number == 0 else None, at],
            )
    return Database("designate", f"sqlite:///{file}", Login())


def taken(database: Database, scope: Scope) -> Snapshot:
    snapshot = Snapshot.create()
    gaps = snapshot.add(service.read(database, database.name, service.tables_read_from(database), scope))
    assert gaps == []
    return snapshot


@pytest.mark.parametrize("whole", [True, False])
def test_its_uuids_have_dashes_here(database: Database, whole: bool) -> None:
    snapshot = taken(database, Scope() if whole else Scope(frozenset({S}), frozenset(), frozenset({R})))
    records = snapshot.rows("SELECT id, recordset_id, managed_resource_id, data FROM designate_records ORDER BY data")
    mine = {
        "id": "00000000-0000-0000-0000-000000000000",
        "recordset_id": R,
        "managed_resource_id": S,
        "data": "10.0.0.0",
    }
    assert records[0] == mine
    assert [row["managed_resource_id"] for row in records] == ([S, None] if whole else [S])
    assert [row["zone_id"] for row in snapshot.rows("SELECT * FROM designate_recordsets")] == [Z] * len(records)
    assert [row["id"] for row in snapshot.rows("SELECT * FROM designate_zones")] == [Z], "the other is deleted"


# ------------------------------------------------------------------------------------------ its API


class Api(cinder_api.Api):
    """Designate as its API tells of it: one zone with one recordset, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.recordset: dict[str, Any] | None = {
            "id": R, "name": NAME, "type": "A", "ttl": 300, "records": ["10.0.0.1"],
            "status": "ACTIVE", "action": "NONE",
        }  # fmt: skip
        self.bodies: list[Any] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path in ("/dns", "/dns/"):
            link = [{"rel": "self", "href": f"{self.url}/dns/v2/"}]
            return 200, {"versions": {"values": [{"id": "v2", "status": "CURRENT", "links": link}]}}
        assert self.headers[-1]["X-Auth-All-Projects"] == "true"
        assert self.headers[-1]["X-Designate-Edit-Managed-Records"] == "true"
        place, _, query = path.removeprefix("/dns/v2").partition("?")
        if method != "GET":
            self.bodies.append(body)
        if place == f"/zones/{Z}/recordsets":
            if method == "POST" and not self.lazy:
                self.recordset = {**body, "id": S, "status": "PENDING", "action": "CREATE"}
            if method == "POST":
                return 202, {"id": S}
            asked = {name: value for name, (value,) in parse_qs(query).items()}
            there = self.recordset if self.recordset is not None and asked.items() <= self.recordset.items() else None
            return 200, {"recordsets": [there] if there else []}
        if self.recordset is None or place != f"/zones/{Z}/recordsets/{self.recordset['id']}":
            return 404, {"code": 404, "type": "recordset_not_found", "message": "Could not find RecordSet"}
        if method == "PUT" and not self.lazy:
            self.recordset.update(body, status="PENDING", action="UPDATE")
        told = copy.deepcopy(self.recordset)
        if method == "DELETE" and not self.lazy:
            self.recordset = None
        return 200 if method == "GET" else 202, told


@pytest.fixture
def api() -> Iterator[Api]:
    with cinder_api.served(Api) as api:
        yield api


@pytest.fixture
def designate(api: Api, tmp_path: Path) -> Designate:
    clouds = cinder_api.clouds(tmp_path, api.url)
    settings = CloudApi.model_validate({"cloud": "here", "clouds_file": clouds, "timeout": "1s"})
    ticks = iter(range(10_000))
    return Designate(settings, lambda: float(next(ticks)), lambda seconds: None)


def of(api: Api) -> dict[str, Any]:
    assert api.recordset is not None
    return api.recordset


def test_a_recordset_of_the_dead_alone_is_deleted_and_made_anew(api: Api, designate: Designate) -> None:
    saw = designate.send(WHOLE)
    assert (saw["was"]["records"], api.recordset) == (["10.0.0.1"], None)
    assert api.writes == [("DELETE", f"/dns/v2/zones/{Z}/recordsets/{R}")]
    back = WHOLE.undo(saw)
    assert designate.send(back) == {"made": S}
    assert api.bodies[-1] == {"name": NAME, "type": "A", "ttl": 300, "records": ["10.0.0.1"]}
    with pytest.raises(Moved, match="has web.cloud.test. A already"):
        designate.send(back)


def test_what_else_is_in_the_set_stays_and_what_was_taken_comes_back(api: Api, designate: Designate) -> None:
    of(api)["records"] = ["10.0.0.9", "10.0.0.1"]
    saw = designate.send(PART)
    assert api.bodies == [{"records": ["10.0.0.9"]}]
    with pytest.raises(Moved, match="something is under way with it"):
        designate.send(PART.undo(saw))
    of(api).update(status="ACTIVE", action="NONE")
    designate.send(PART.undo(saw))
    assert of(api)["records"] == ["10.0.0.1", "10.0.0.9"]


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"records": ["10.0.0.1", "10.0.0.2"]}, "has records"),
        ({"records": ["10.0.0.2"]}, "has records"),
        ({"records": None}, "has records"),
        ({"ttl": None}, "has ttl None"),
        ({"name": "mail.cloud.test."}, "has name"),
        ({"type": "MX"}, "has type"),
        ({"status": "PENDING"}, "is PENDING, NONE"),
        ({"action": "DELETE"}, "is ACTIVE, DELETE"),
    ],
)
def test_whoever_came_first_has_won(api: Api, designate: Designate, now: dict[str, Any], why: str) -> None:
    of(api).update(now)
    with pytest.raises(Moved, match=why):
        designate.send(WHOLE)
    assert api.writes == []


def test_what_designate_does_not_have_is_moved(api: Api, designate: Designate) -> None:
    api.recordset = None
    with pytest.raises(Moved, match=f"Designate has no recordset {R} of web.cloud.test."):
        designate.send(WHOLE)
    assert api.writes == []


@pytest.mark.parametrize(
    ("fault", "raises", "why"),
    [
        (400, Refused, "Managed records may not be deleted"), (403, Trouble, "does not let"),
        (404, Moved, "has it no more"), (409, Refused, "refuses"),
        (500, Outcomeless, "may still be at it"), (503, Trouble, "cannot do it now"), (504, Outcomeless, "HTTP 504"),
        ("close", Outcomeless, "did not answer"), ("hang", Outcomeless, "did not answer"),
    ],
)  # fmt: skip
def test_each_answer_to_a_deletion_means_one_thing(
    api: Api, designate: Designate, fault: int | str, raises: type[Exception], why: str
) -> None:
    api.faults, api.words = {"DELETE": [fault]}, "Managed records may not be deleted"
    with pytest.raises(raises, match=why):
        designate.send(WHOLE)
    assert [method for method, _ in api.writes] == ["DELETE"], "nothing is sent twice"


def test_what_became_of_a_creation_is_not_known_where_nobody_tells(api: Api, designate: Designate) -> None:
    back = WHOLE.undo(designate.send(WHOLE))

    def deaf(method: str, path: str) -> None:
        if method == "POST":
            api.faults = {"GET": [503] * 100}

    api.before = deaf
    with pytest.raises(Outcomeless, match="Designate answered 202 to the creation"):
        designate.send(back)
    assert api.recordset is not None, "it was made all the same"


def test_nothing_is_made_where_designate_does_not_tell_what_it_has(api: Api, designate: Designate) -> None:
    back = WHOLE.undo(designate.send(WHOLE))
    api.raw = "{}"
    with pytest.raises(Trouble, match="tells no recordsets"):
        designate.send(back)
    assert [method for method, _ in api.writes] == ["DELETE"]


@pytest.mark.parametrize("records", ["10.0.0.1", [["10.0.0.1"]], None, 7])
def test_records_that_are_no_list_of_words_are_none(records: Any) -> None:
    with pytest.raises(Trouble, match="is not as cloudfsck writes it"):
        acts.from_json({**acts.to_json(WHOLE), "records": records})


def test_a_yes_that_nothing_follows_is_no_outcome(api: Api, designate: Designate) -> None:
    api.lazy = True
    with pytest.raises(Outcomeless, match="it is still as it was"):
        designate.send(WHOLE)


@pytest.mark.parametrize("kind", ["SOA", "NS", "MX", "TXT", "SRV"])
def test_what_is_a_zones_own_or_mails_is_never_touched(api: Api, designate: Designate, kind: str) -> None:
    with pytest.raises(Refused, match=f"a record of type {kind}"):
        designate.send(replace(WHOLE, type=kind))
    assert api.asked == []


def test_what_is_none_of_its_own_is_refused(api: Api, designate: Designate) -> None:
    for act, why in (
        (replace(WHOLE, zone="../zones"), "is no UUID"), (replace(WHOLE, recordset=f"{R}/x"), "is no UUID"),
        (Restore(S, Z, "..", NAME, "A", None, ("10.0.0.1",), ()), "is no UUID"),
        (Pause("c1", S, 7, True), "is nothing that Designate does"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=why):
            designate.send(act)
    assert api.asked == []
