"""The demo's Placement: what each server has of its host, and a stand-in for the API, over the demo's own database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudfsck.demo import cloud, service
from cloudfsck.demo.service import Answer, Wrong

#: What a server of the demo has of its node, and one of bare metal.
AMOUNTS = {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 2}
METAL = {"CUSTOM_BAREMETAL": 1}
CLASSES = (*AMOUNTS, *METAL)
#: Providers by their UUIDs: the compute nodes, by their own names.
PROVIDERS = {
    **{cloud.ident("node", host): node for host, node in cloud.NODES.items()},
    cloud.IRONIC[2]: cloud.IRONIC[2],
}
#: Who has something, as Placement tells whoever asks.
_OWNER = {"project_id": "admin", "user_id": "admin"}


@dataclass(frozen=True)
class Allocation:
    consumer: str
    provider: str
    resource: str
    used: int
    days: float


def allocations(servers: list[cloud.Server]) -> Iterator[Allocation]:
    """A server has what it has on its host.  While it moves, its migration has it on the source, and it has the same on
    the target; an evacuated one has both."""
    for server in servers:
        lives = server.row == "live" and server.vm_state != "deleted"
        if not (server.host and (lives or server.allocated)):
            continue
        own = server.host
        for move in server.migrations:
            consumer = cloud.ident("migration", server.name, move.kind)
            match move.status:
                case "finished":
                    yield from _of(consumer, move.source, move.days)
                case "running":
                    yield from _of(consumer, move.source, move.days)
                    own = move.dest
                case "done":
                    yield from _of(server.uuid, move.source, move.days)
        yield from _of(server.uuid, own, server.created)


def _of(consumer: str, host: str, days: float) -> Iterator[Allocation]:
    metal = host == cloud.IRONIC[0]
    provider = cloud.IRONIC[2] if metal else cloud.ident("node", host)
    for resource, used in (METAL if metal else AMOUNTS).items():
        yield Allocation(consumer, provider, resource, used, days)


class Placement:
    """What its API answers and does; each request is one transaction."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def answer(self, method: str, path: str, given: Mapping[str, Any]) -> Answer:
        told = service.answer(self.file, _CALLS, method, path, lambda db: _Call(db, given))
        return told or _wrong(404, f"the demo's Placement does not know how to {method} {path}").answer


def _wrong(status: int, why: str) -> Wrong:
    """A refusal as Placement words it."""
    return Wrong((status, {"errors": [{"status": status, "title": "Conflict", "detail": why}]}))


class _Call:
    def __init__(self, db: sqlite3.Connection, given: Mapping[str, Any]) -> None:
        self.db, self.given = db, given

    def show(self, consumer: str) -> Answer:
        found: dict[str, dict[str, Any]] = {}
        for row in self.db.execute(
            """
            SELECT p.uuid, c.name, a.used
              FROM allocations a
              JOIN resource_providers p ON p.id = a.resource_provider_id
              JOIN resource_classes c ON c.id = a.resource_class_id
             WHERE a.consumer_id = ?
            """,
            [consumer],
        ):
            found.setdefault(row["uuid"], {"resources": {}})["resources"][row["name"]] = row["used"]
        if not found:
            return 200, {"allocations": {}}
        return 200, {"allocations": found, "consumer_generation": self._generation(consumer), **_OWNER}

    def set(self, consumer: str) -> Answer:
        if self.given.get("consumer_generation") != (generation := self._generation(consumer)):
            raise _wrong(409, f"consumer generation conflict - expected {generation}")
        self.db.execute("DELETE FROM allocations WHERE consumer_id = ?", [consumer])
        self.db.execute("DELETE FROM consumers WHERE uuid = ?", [consumer])
        for provider, of_it in self.given["allocations"].items():
            for resource, used in of_it["resources"].items():
                self.db.execute(
                    "INSERT INTO allocations (consumer_id, resource_provider_id, resource_class_id, used, created_at)"
                    " VALUES (?, (SELECT id FROM resource_providers WHERE uuid = ?),"
                    " (SELECT id FROM resource_classes WHERE name = ?), ?, datetime())",
                    [consumer, provider, resource, used],
                )
        if self.given["allocations"]:
            self.db.execute(
                "INSERT INTO consumers (uuid, generation) VALUES (?, ?)", [consumer, (generation or 0) + 1]
            )  # fmt: skip
        return 204, {}

    def _generation(self, consumer: str) -> int | None:
        row = self.db.execute("SELECT generation FROM consumers WHERE uuid = ?", [consumer]).fetchone()
        return None if row is None else int(row["generation"])


_ID = "([0-9a-f-]{36})"
_CALLS: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", f"/allocations/{_ID}", _Call.show),
    ("PUT", f"/allocations/{_ID}", _Call.set),
)
