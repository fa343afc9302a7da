"""Acts on a whole switch, router or port group of OVN's northbound database that has no ports: away with it, and back
with all that it was.  `ovn.py` sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import stands
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import OVN


@dataclass(frozen=True)
class Place:
    """Where a snapshot has the rows of one of OVN's tables: its table, and the column that says what each is of."""

    table: str
    column: str
    delete: str
    add: str
    word: str


PLACES: Mapping[str, Place] = {
    "Logical_Switch": Place("ovn_switches", "network", "ls-del", "ls-add", "switch"),
    "Logical_Router": Place("ovn_routers", "router", "lr-del", "lr-add", "router"),
    "Port_Group": Place("ovn_port_groups", "security_group", "pg-del", "pg-add", "port group"),
}


@dataclass(frozen=True)
class Delete:
    """Delete a switch, router or port group that has no ports, and of which Neutron has nothing any more.

    `table` is OVN's, `name` and `row` its name and UUID there, `of` the network, router or security group, `revision`
    Neutron's of it there.
    """

    kind: ClassVar[str] = "ovn_object.delete"
    what: ClassVar[str] = "OVN object"
    host: ClassVar[str] = ""
    part: ClassVar[str] = OVN
    server: ClassVar[str] = ""
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    table: str
    name: str
    row: str
    of: str
    revision: int | None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.of})

    @property
    def things(self) -> frozenset[str]:
        """What is compared afterwards; all else in OVN comes and goes with other networks."""
        return frozenset({self.name})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"row": self.row, "revision": self.revision}
        return {"do": self.kind, "server": self.server, "table": self.table, "name": self.name, "was": was}

    @property
    def command(self) -> str:
        return f"ovn-nbctl {PLACES[self.table].delete} {self.name}"

    def undo(self, saw: Row) -> Insert:
        columns, owned = json.dumps(saw.get("was", {})), json.dumps(saw.get("owned", {}))
        return Insert(self.table, self.name, self.of, self.revision, columns, owned)

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        place = PLACES[self.table]
        here = (
            f"uuid = $row AND name = $name AND {place.column} = $of AND ports = 0"
            " AND revision IS NOT DISTINCT FROM $revision"
        )
        given = {"row": self.row, "name": self.name, "of": self.of, "revision": self.revision}
        found = db.execute(f"SELECT count(*) FROM {place.table} WHERE {here}", given).fetchone()[0]
        if found != 1:
            raise Moved(f"{self}: {found} rows are as it expects, not one")
        db.execute(f"DELETE FROM {place.table} WHERE uuid = ?", [self.row])

    def __str__(self) -> str:
        return f"delete {PLACES[self.table].word} {self.name} from OVN"


@dataclass(frozen=True)
class Insert:
    """Put a switch, router or port group back, as it was; it gets another UUID.  `columns` are all of its row, `owned`
    by their column the rows that are its own (a port group's rules), as OVSDB writes them, in JSON."""

    kind: ClassVar[str] = "ovn_object.insert"
    what: ClassVar[str] = "OVN object"
    host: ClassVar[str] = ""
    part: ClassVar[str] = OVN
    server: ClassVar[str] = ""
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    table: str
    name: str
    of: str
    revision: int | None
    columns: str
    owned: str

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.of})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({self.name})

    @property
    def order(self) -> Mapping[str, Any]:
        row = {"parent": None, "columns": self.columns, "owned": self.owned}
        return {"do": self.kind, "server": self.server, "table": self.table, "name": self.name, **row}

    @property
    def command(self) -> str:
        return f"ovn-nbctl {PLACES[self.table].add} {self.name}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        place = PLACES[self.table]
        if db.execute(f"SELECT count(*) FROM {place.table} WHERE name = ?", [self.name]).fetchone()[0]:
            raise Moved(f"{self}: there is one of that name")
        db.execute(
            f"INSERT INTO {place.table} (name, {place.column}, revision, ports) VALUES (?, ?, ?, 0)",
            [self.name, self.of, self.revision],
        )

    def __str__(self) -> str:
        return f"put {PLACES[self.table].word} {self.name} back into OVN"
