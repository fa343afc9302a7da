"""Acts on a port of a switch or router in OVN's northbound database: away with it, and back with all that it was.
`ovn.py` sends them."""

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
    """Where a snapshot has the ports of one of OVN's tables, and what has them: table, column, table."""

    ports: str
    parent: str
    parents: str
    delete: str
    add: str
    word: str


PLACES: Mapping[str, Place] = {
    "Logical_Switch_Port": Place("ovn_switch_ports", "switch", "ovn_switches", "lsp-del", "lsp-add", "switch"),
    "Logical_Router_Port": Place("ovn_router_ports", "router", "ovn_routers", "lrp-del", "lrp-add", "router"),
}


@dataclass(frozen=True)
class Delete:
    """Delete a port of a logical switch, or of a router, of which Neutron has no port any more.

    `table` is OVN's, `name` and `row` its name and UUID there, `parent` the name of the switch or router, `revision`
    Neutron's of it there.  `server` is what had it, or "".
    """

    kind: ClassVar[str] = "ovn_port.delete"
    what: ClassVar[str] = "OVN port"
    host: ClassVar[str] = ""
    part: ClassVar[str] = OVN
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    server: str
    table: str
    port: str
    name: str
    row: str
    parent: str
    revision: int | None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def things(self) -> frozenset[str]:
        """What is compared afterwards; all else in OVN comes and goes with other ports."""
        return frozenset({self.name})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"row": self.row, "parent": self.parent, "revision": self.revision}
        return {"do": self.kind, "server": self.server, "table": self.table, "name": self.name, "was": was}

    @property
    def command(self) -> str:
        return f"ovn-nbctl {PLACES[self.table].delete} {self.name}"

    def undo(self, saw: Row) -> Insert:
        columns = json.dumps(saw.get("was", {}))
        return Insert(self.server, self.table, self.port, self.name, self.parent, self.revision, columns)

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        place = PLACES[self.table]
        given = {
            "row": self.row,
            "name": self.name,
            "port": self.port,
            "parent": self.parent,
            "revision": self.revision,
        }
        here = (
            f"uuid = $row AND name = $name AND port = $port AND {place.parent} IS NOT DISTINCT FROM $parent"
            " AND revision IS NOT DISTINCT FROM $revision"
        )
        if place.ports == "ovn_switch_ports":
            here += " AND NOT up"
        found = db.execute(f"SELECT count(*) FROM {place.ports} WHERE {here}", given).fetchone()[0]
        if found != 1:
            raise Moved(f"{self}: {found} rows are as it expects, not one")
        db.execute(f"DELETE FROM {place.ports} WHERE uuid = ?", [self.row])
        db.execute(f"UPDATE {place.parents} SET ports = ports - 1 WHERE name = ?", [self.parent])

    def __str__(self) -> str:
        return f"delete port {self.name} from {PLACES[self.table].word} {self.parent} of OVN"


@dataclass(frozen=True)
class Insert:
    """Put a port back into its logical switch or router, as it was; it gets another UUID there.  `columns` are all of
    its row, as OVSDB writes them, in JSON."""

    kind: ClassVar[str] = "ovn_port.insert"
    what: ClassVar[str] = "OVN port"
    host: ClassVar[str] = ""
    part: ClassVar[str] = OVN
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    server: str
    table: str
    port: str
    name: str
    parent: str
    revision: int | None
    columns: str

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({self.name})

    @property
    def order(self) -> Mapping[str, Any]:
        row = {"parent": self.parent, "columns": self.columns, "owned": "{}"}
        return {"do": self.kind, "server": self.server, "table": self.table, "name": self.name, **row}

    @property
    def command(self) -> str:
        return f"ovn-nbctl {PLACES[self.table].add} {self.parent} {self.name}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        place = PLACES[self.table]
        if db.execute(f"SELECT count(*) FROM {place.ports} WHERE name = ?", [self.name]).fetchone()[0]:
            raise Moved(f"{self}: there is one of that name")
        more = {"type": "", "up": False, "device_id": self.server} if place.ports == "ovn_switch_ports" else {}
        given = {"name": self.name, place.parent: self.parent, "revision": self.revision, "port": self.port, **more}
        columns, values = ", ".join(given), ", ".join(f"${column}" for column in given)
        db.execute(f"INSERT INTO {place.ports} ({columns}) VALUES ({values})", given)
        db.execute(f"UPDATE {place.parents} SET ports = ports + 1 WHERE name = ?", [self.parent])

    def __str__(self) -> str:
        return f"put port {self.name} back into {PLACES[self.table].word} {self.parent} of OVN"
