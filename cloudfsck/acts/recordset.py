"""Acts on the DNS records that Designate has for what is gone: away with them, and back.  `designate.py` sends them.

A recordset is deleted only when every record in it is of the dead; else the rest of it stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import stands
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import DESIGNATE


@dataclass(frozen=True)
class Remove:
    """Take from a recordset the `records` of what is gone; where none is `kept`, delete it.

    `name` ends in a dot, `type` is A, AAAA, PTR, …; a `ttl` of None is the zone's.
    """

    kind: ClassVar[str] = "recordset.remove"
    what: ClassVar[str] = "recordset"
    host: ClassVar[str] = ""
    part: ClassVar[str] = DESIGNATE
    rung: ClassVar[None] = None
    #: The API makes no managed record, and gives what is made anew another id.
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    server: str
    zone: str
    recordset: str
    name: str
    type: str
    ttl: int | None
    records: tuple[str, ...]
    kept: tuple[str, ...]

    def __post_init__(self) -> None:
        _freeze(self)

    @classmethod
    def of(cls, row: Row) -> Remove:
        """From a row with server, zone, recordset, name, type, ttl, and the records that are dead and those kept."""
        return cls(
            row["server"] or "", row["zone"], row["recordset"], row["name"], row["type"], row["ttl"],
            tuple(row["dead"]), tuple(row["kept"]),
        )  # fmt: skip

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.recordset})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({self.recordset})

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self, self.records + self.kept, self.kept)

    @property
    def command(self) -> str:
        who = "--all-projects --edit-managed"
        if not self.kept:
            return f"openstack recordset delete {who} {self.zone} {self.recordset}"
        records = " ".join(f"--record {one}" for one in self.kept)
        return f"openstack recordset set {who} {records} {self.zone} {self.recordset}"

    def undo(self, saw: Row) -> Restore:
        return Restore(**asdict(self))

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        _there(db, self, self.records + self.kept)
        db.execute(
            "DELETE FROM designate_records WHERE recordset_id = $id AND list_contains($dead, data)",
            {"id": self.recordset, "dead": list(self.records)},
        )
        if not self.kept:
            db.execute("DELETE FROM designate_recordsets WHERE id = ?", [self.recordset])

    def __str__(self) -> str:
        rest = f"; {', '.join(self.kept)} stays" if self.kept else ""
        return f"delete {self.name} {self.type} {', '.join(self.records)} from Designate{rest}"


@dataclass(frozen=True)
class Restore:
    """Put the records back that were taken: they say the same as before, and are nobody's.  The fields are Remove's."""

    kind: ClassVar[str] = "recordset.restore"
    what: ClassVar[str] = "recordset"
    host: ClassVar[str] = ""
    part: ClassVar[str] = DESIGNATE
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    server: str
    zone: str
    recordset: str
    name: str
    type: str
    ttl: int | None
    records: tuple[str, ...]
    kept: tuple[str, ...]

    def __post_init__(self) -> None:
        _freeze(self)

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.recordset})

    @property
    def things(self) -> frozenset[str]:
        """A recordset that is made anew has an id of Designate's choice."""
        return frozenset({self.recordset} if self.kept else ())

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self, self.kept, self.records + self.kept)

    @property
    def command(self) -> str:
        records = " ".join(f"--record {one}" for one in (*self.records, *self.kept))
        if self.kept:
            return f"openstack recordset set --all-projects --edit-managed {records} {self.zone} {self.recordset}"
        ttl = "" if self.ttl is None else f" --ttl {self.ttl}"
        return f"openstack recordset create --all-projects --type {self.type}{ttl} {records} {self.zone} {self.name}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        _there(db, self, self.kept)
        if not self.kept:
            db.execute(
                "INSERT INTO designate_recordsets (id, zone_id, name, type, ttl) VALUES (?, ?, ?, ?, ?)",
                [self.recordset, self.zone, self.name, self.type, self.ttl],
            )
        for data in self.records:
            db.execute(
                "INSERT INTO designate_records (id, recordset_id, data, managed, status, action)"
                " VALUES (?, ?, ?, FALSE, 'ACTIVE', 'NONE')",
                [f"{self.recordset} {data}", self.recordset, data],
            )

    def __str__(self) -> str:
        return f"put {self.name} {self.type} {', '.join(self.records)} back into Designate"


def _freeze(act: Remove | Restore) -> None:
    """What comes back from JSON has lists."""
    object.__setattr__(act, "records", tuple(act.records))
    object.__setattr__(act, "kept", tuple(act.kept))


def _order(act: Remove | Restore, was: tuple[str, ...], to: tuple[str, ...]) -> Mapping[str, Any]:
    """`was` and `to` have the records of the whole set; of none, it is not there."""
    named = {"name": act.name, "type": act.type, "ttl": act.ttl}
    return {
        "do": act.kind, "server": act.server, "zone": act.zone, "recordset": act.recordset,
        "was": {**named, "records": sorted(was)}, "to": {**named, "records": sorted(to)},
    }  # fmt: skip


def _there(db: Any, act: Remove | Restore, records: tuple[str, ...]) -> None:
    """Raises Moved unless the set has these records and no others, with nothing under way."""
    found = db.execute(
        "SELECT data, status = 'ACTIVE' AND action = 'NONE' FROM designate_records WHERE recordset_id = ?",
        [act.recordset],
    ).fetchall()
    if sorted(data for data, _ in found) != sorted(records):
        raise Moved(f"{act}: it has {sorted(data for data, _ in found) or 'no record'}, not {sorted(records)}")
    if not all(at_rest for _, at_rest in found):
        raise Moved(f"{act}: something is under way with it")
