"""Acts on what Placement has allocated to a consumer: some of it away, and back.  `placement.py` sends them.

A consumer has all that it has at once, with a generation: whoever changes it names what it is to have then and the
generation that he saw (placement/handlers/allocation.py: _set_allocations_for_consumer).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from cloudfsck.acts.hold import just_these, stands
from cloudfsck.acts.lists import tuple_of
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import PLACEMENT


@dataclass(frozen=True)
class Amount:
    """So much of a resource class, of a resource provider; `name` is the provider's."""

    provider: str
    name: str
    resource: str
    used: int

    def __str__(self) -> str:
        return f"{self.used} {self.resource} of {self.provider}"


def said(amounts: Iterable[Amount]) -> str:
    """512 MEMORY_MB and 1 VCPU of compute1, 10 DISK_GB of nfs."""
    by_name = groupby(sorted(amounts, key=lambda one: (one.name, one.resource)), key=lambda one: one.name)
    return ", ".join(
        f"{' and '.join(f'{one.used} {one.resource}' for one in them)} of {name}" for name, them in by_name
    )


def unset(consumer: str, *providers: str) -> str:
    """What a person types so that a consumer has nothing, or nothing of these providers."""
    of = "".join(f" --provider {one}" for one in providers)
    return f"openstack --os-placement-api-version 1.28 resource provider allocation unset{of} {consumer}"


@dataclass(frozen=True)
class _Change:
    """What is done to what a consumer has: to the amounts `taken`, beside those that are `kept`.

    `server` is the consumer, or the server of the migration that it is.
    """

    kind: ClassVar[str]
    what: ClassVar[str] = "allocation"
    host: ClassVar[str] = ""
    part: ClassVar[str] = PLACEMENT
    rung: ClassVar[None] = None
    destroys: ClassVar[bool] = False
    server: str
    consumer: str
    taken: tuple[Amount, ...]
    kept: tuple[Amount, ...]
    generation: int | None

    def __post_init__(self) -> None:
        tuple_of(self, "taken", Amount)
        tuple_of(self, "kept", Amount)

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.consumer})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({self.consumer})

    @property
    def who(self) -> str:
        return f"server {self.server}" if self.consumer == self.server else f"migration {self.consumer}"

    def _order(self, was: Iterable[Amount], to: Iterable[Amount]) -> dict[str, Any]:
        """`was` and `to` have all of the consumer's; of none, there is no such consumer."""
        return {
            "do": self.kind, "server": self.server, "consumer": self.consumer, "generation": self.generation,
            "was": _by_provider(was), "to": _by_provider(to),
        }  # fmt: skip

    def _there(self, db: Any, expected: Iterable[Amount]) -> None:
        """Raises Moved unless the consumer has just that, in its generation."""
        found = db.execute(
            "SELECT p.uuid, p.name, c.name, a.used FROM placement_allocations a"
            " JOIN placement_providers p ON p.id = a.resource_provider_id"
            " JOIN placement_resource_classes c ON c.id = a.resource_class_id WHERE a.consumer_id = ?",
            [self.consumer],
        ).fetchall()
        just_these(self, [str(Amount(*row)) for row in found], [str(one) for one in expected])
        noted = db.execute("SELECT generation FROM placement_consumers WHERE uuid = ?", [self.consumer]).fetchall()
        if noted != ([] if self.generation is None else [(self.generation,)]):
            raise Moved(f"{self}: it is in generation {noted}, not {self.generation}")

    def _grow(self, db: Any) -> None:
        db.execute("UPDATE placement_consumers SET generation = generation + 1 WHERE uuid = ?", [self.consumer])


def _by_provider(amounts: Iterable[Amount]) -> Mapping[str, Mapping[str, int]]:
    by_provider: dict[str, dict[str, int]] = {}
    for one in amounts:
        by_provider.setdefault(one.provider, {})[one.resource] = one.used
    return by_provider


@dataclass(frozen=True)
class Take(_Change):
    """Take from a consumer what it has of some providers.  One that has nothing then is none any more."""

    kind: ClassVar[str] = "allocation.take"
    #: Its generation begins anew, and the capacity may be another's by then.
    undoing: ClassVar[Undo] = "approximate"

    @classmethod
    def of(cls, row: Row) -> Take:
        """From a row with server, consumer, taken, kept and generation."""
        return cls(row["server"], row["consumer"], row["taken"], row["kept"], row["generation"])

    @property
    def order(self) -> Mapping[str, Any]:
        return self._order((*self.taken, *self.kept), self.kept)

    @property
    def command(self) -> str:
        return unset(self.consumer, *(sorted({one.provider for one in self.taken}) if self.kept else ()))

    def undo(self, saw: Row) -> Give:
        after = self.generation + 1 if self.kept and self.generation is not None else None
        return Give(
            self.server, self.consumer, self.taken, self.kept, saw.get("generation", after),
            str(saw.get("project_id") or ""), str(saw.get("user_id") or ""),
        )  # fmt: skip

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        self._there(db, (*self.taken, *self.kept))
        db.execute(
            "DELETE FROM placement_allocations WHERE consumer_id = $consumer AND resource_provider_id IN"
            " (SELECT id FROM placement_providers WHERE list_contains($taken, uuid))",
            {"consumer": self.consumer, "taken": [one.provider for one in self.taken]},
        )
        if self.kept:
            self._grow(db)
        else:
            db.execute("DELETE FROM placement_consumers WHERE uuid = ?", [self.consumer])

    def __str__(self) -> str:
        rest = f"; {said(self.kept)} stays" if self.kept else ""
        return f"take {said(self.taken)} from {self.who} in Placement{rest}"


@dataclass(frozen=True)
class Give(_Change):
    """Give it back what was taken.  Placement refuses if another has the capacity by now."""

    kind: ClassVar[str] = "allocation.give"
    undoing: ClassVar[Undo] = "none"
    project: str
    user: str

    @property
    def order(self) -> Mapping[str, Any]:
        return {**self._order(self.kept, (*self.taken, *self.kept)), "project_id": self.project, "user_id": self.user}

    @property
    def command(self) -> str:
        given = " ".join(
            f"--allocation rp={one.provider},{one.resource}={one.used}" for one in (*self.taken, *self.kept)
        )
        return (
            "openstack --os-placement-api-version 1.12 resource provider allocation set"
            f" --project-id {self.project} --user-id {self.user} {given} {self.consumer}"
        )

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        self._there(db, self.kept)
        for one in self.taken:
            db.execute(
                "INSERT INTO placement_allocations (consumer_id, resource_provider_id, resource_class_id, used)"
                " SELECT $consumer, (SELECT id FROM placement_providers WHERE uuid = $provider),"
                " (SELECT id FROM placement_resource_classes WHERE name = $resource), $used",
                {"consumer": self.consumer, "provider": one.provider, "resource": one.resource, "used": one.used},
            )
        if self.generation is None:
            db.execute("INSERT INTO placement_consumers (uuid, generation) VALUES (?, 1)", [self.consumer])
        else:
            self._grow(db)

    def __str__(self) -> str:
        return f"give {said(self.taken)} back to {self.who} in Placement"
