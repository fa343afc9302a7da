"""Acts on the DNS records that Designate has for what is gone: away with them, and back.  `designate.py` sends them.

A recordset is deleted only when every record in it is of the dead; else the rest of it stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import just_these, stands
from cloudfsck.acts.lists import tuple_of
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import DESIGNATE

#: The only types that a program of ours changes, whatever an order says: nothing that is a zone's own, no mail.
TYPES = frozenset({"A", "AAAA", "CNAME", "PTR"})


@dataclass(frozen=True)
class _Change:
    """What is done to one recordset: to the `records` of what is gone, beside those that are `kept`.

    `name` ends in a dot, `type` is A, AAAA, PTR, …; a `ttl` of None is the zone's.
    """

    kind: ClassVar[str]
    what: ClassVar[str] = "recordset"
    host: ClassVar[str] = ""
    part: ClassVar[str] = DESIGNATE
    rung: ClassVar[None] = None
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
        tuple_of(self, "records", str)
        tuple_of(self, "kept", str)

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.recordset})

    def _order(self, was: tuple[str, ...], to: tuple[str, ...]) -> Mapping[str, Any]:
        """`was` and `to` have the records of the whole set; of none, it is not there."""
        named = {"name": self.name, "type": self.type, "ttl": self.ttl}
        return {
            "do": self.kind, "server": self.server, "zone": self.zone, "recordset": self.recordset,
            "was": {**named, "records": sorted(was)}, "to": {**named, "records": sorted(to)},
        }  # fmt: skip

    def _there(self, db: Any, records: tuple[str, ...]) -> None:
        """Raises Moved unless the set has these records and no others, with nothing under way."""
        found = db.execute(
            "SELECT data, status = 'ACTIVE' AND action = 'NONE' FROM designate_records WHERE recordset_id = ?",
            [self.recordset],
        ).fetchall()
        just_these(self, [data for data, _ in found], records)
        if not all(at_rest for _, at_rest in found):
            raise Moved(f"{self}: something is under way with it")

    def _put(self, db: Any, recordset: str) -> None:
        """The records into a set of a snapshot, as the API makes them: they are nobody's."""
        for data in self.records:
            db.execute(
                "INSERT INTO designate_records (id, recordset_id, zone_id, data, managed, status, action)"
                " VALUES (?, ?, ?, ?, FALSE, 'ACTIVE', 'NONE')",
                [f"{recordset} {data}", recordset, self.zone, data],
            )


@dataclass(frozen=True)
class Remove(_Change):
    """Take from a recordset the records of what is gone; where none is kept, delete it."""

    kind: ClassVar[str] = "recordset.remove"
    #: The API makes no managed record, and gives what is made anew another id.
    undoing: ClassVar[Undo] = "approximate"

    @classmethod
    def of(cls, row: Row) -> Remove:
        """From a row with server, zone, recordset, name, type, ttl, and the records that are dead and those kept."""
        return cls(
            row["server"] or "", row["zone"], row["recordset"], row["name"], row["type"], row["ttl"], row["dead"],
            row["kept"],
        )  # fmt: skip

    @property
    def things(self) -> frozenset[str]:
        return frozenset({self.recordset})

    @property
    def order(self) -> Mapping[str, Any]:
        return self._order(self.records + self.kept, self.kept)

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
        self._there(db, self.records + self.kept)
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
class Restore(_Change):
    """Put the records back that were taken: they say the same as before, and are nobody's."""

    kind: ClassVar[str] = "recordset.restore"
    undoing: ClassVar[Undo] = "none"

    @property
    def things(self) -> frozenset[str]:
        """A recordset that is made anew has an id of Designate's choice."""
        return frozenset({self.recordset} if self.kept else ())

    @property
    def order(self) -> Mapping[str, Any]:
        return self._order(self.kept, self.records + self.kept)

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
        self._there(db, self.kept)
        if not self.kept:
            db.execute(
                "INSERT INTO designate_recordsets (id, zone_id, name, type, ttl) VALUES (?, ?, ?, ?, ?)",
                [self.recordset, self.zone, self.name, self.type, self.ttl],
            )
        self._put(db, self.recordset)

    def __str__(self) -> str:
        return f"put {self.name} {self.type} {', '.join(self.records)} back into Designate"


@dataclass(frozen=True)
class Make(_Change):
    """Make a name for a server that has none.  It is nobody's by Designate, whose API makes no managed record; what it
    is for stands in its description, in words of ours by which it is found once the server is gone."""

    kind: ClassVar[str] = "recordset.make"
    undoing: ClassVar[Undo] = "exact"

    @classmethod
    def of(cls, row: Row) -> Make:
        """From a row with server, zone, record_name, type and addresses; the TTL is the zone's."""
        return cls(row["server"], row["zone"], "", row["record_name"], row["type"], None, row["addresses"], ())

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.zone})

    @property
    def things(self) -> frozenset[str]:
        """It has an id of Designate's choice."""
        return frozenset()

    @property
    def order(self) -> Mapping[str, Any]:
        order = dict(self._order((), self.records))
        del order["recordset"]
        return {**order, "to": {**order["to"], "description": OURS + self.server}}

    @property
    def command(self) -> str:
        records = " ".join(f"--record {one}" for one in self.records)
        return (
            f"openstack recordset create --all-projects --type {self.type} --description {OURS}{self.server}"
            f" {records} {self.zone} {self.name}"
        )

    def undo(self, saw: Row) -> Remove:
        return Remove(self.server, self.zone, saw["made"], self.name, self.type, None, self.records, ())

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        if db.execute(
            "SELECT 1 FROM designate_recordsets WHERE zone_id = ? AND name = ?", [self.zone, self.name]
        ).fetchall():
            raise Moved(f"{self}: Designate has a recordset of that name by now")
        made = f"{self.zone} {self.name}"
        db.execute(
            "INSERT INTO designate_recordsets (id, zone_id, name, type, description) VALUES (?, ?, ?, ?, ?)",
            [made, self.zone, self.name, self.type, OURS + self.server],
        )
        self._put(db, made)

    def __str__(self) -> str:
        return f"make {self.name} {self.type} {', '.join(self.records)} in Designate"


#: How the description of a name begins that we made for a server; its UUID follows.
OURS = "made-by-cloudfsck-for-server:"
