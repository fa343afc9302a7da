"""Acts on a whole object of OVN's northbound database on which nothing hangs, a switch, router or port group without
ports, a NAT rule, or DHCP options: away with it, and back with all that it was.  `ovn.py` sends them."""

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
    """Where a snapshot has the rows of one of OVN's tables: its table, the column that says what each is of, the one
    that tells them apart, the one that says what has them, if anything does, and which of them may go."""

    table: str
    column: str
    delete: str
    add: str
    word: str
    key: str = "name"
    parent: str = ""
    idle: str = "ports = 0"


PLACES: Mapping[str, Place] = {
    "Logical_Switch": Place("ovn_switches", "network", "ls-del {name}", "ls-add {name}", "switch"),
    "Logical_Router": Place("ovn_routers", "router", "lr-del {name}", "lr-add {name}", "router"),
    "Port_Group": Place("ovn_port_groups", "security_group", "pg-del {name}", "pg-add {name}", "port group"),
    # lr-nat-del would take every rule of the same address.
    "NAT": Place(
        "ovn_nats", "floating_ip", "remove Logical_Router {parent} nat {name}", "lr-nat-add {parent}", "NAT rule",
        key="uuid", parent="router", idle="TRUE",
    ),
    "DHCP_Options": Place(
        "ovn_dhcp_options", "subnet", "dhcp-options-del {name}", "dhcp-options-create", "DHCP options", key="uuid",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Delete:
    """Delete an object on which nothing hangs, and of which Neutron has nothing any more.

    `table` is OVN's, `name` and `row` its name and UUID there (what has no name goes by its UUID), `of` the network,
    router, security group, floating IP or subnet, `revision` Neutron's of it there, `parent` the name of the router
    that has it, where one does.
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
    parent: str | None = None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.of})

    @property
    def things(self) -> frozenset[str]:
        """What is compared afterwards; all else in OVN comes and goes with other networks."""
        return frozenset({self.name})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"row": self.row, "of": self.of, "parent": self.parent, "revision": self.revision}
        return {"do": self.kind, "server": self.server, "table": self.table, "name": self.name, "was": was}

    @property
    def command(self) -> str:
        return f"ovn-nbctl {PLACES[self.table].delete.format(name=self.name, parent=self.parent)}"

    def undo(self, saw: Row) -> Insert:
        columns, owned = json.dumps(saw.get("was", {})), json.dumps(saw.get("owned", {}))
        return Insert(self.table, self.name, self.of, self.revision, columns, owned, self.parent)

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        place = PLACES[self.table]
        here = (
            f"uuid = $row AND {place.key} = $name AND {place.column} = $of AND {place.idle}"
            f" AND revision IS NOT DISTINCT FROM $revision AND $parent IS NOT DISTINCT FROM {place.parent or 'NULL'}"
        )
        given = {
            "row": self.row, "name": self.name, "of": self.of, "revision": self.revision, "parent": self.parent,
        }  # fmt: skip
        found = db.execute(f"SELECT count(*) FROM {place.table} WHERE {here}", given).fetchone()[0]
        if found != 1:
            raise Moved(f"{self}: {found} rows are as it expects, not one")
        db.execute(f"DELETE FROM {place.table} WHERE uuid = ?", [self.row])

    def __str__(self) -> str:
        return f"delete {PLACES[self.table].word} {self.name} from {_where(self.parent)}"


@dataclass(frozen=True)
class Insert:
    """Put an object back, as it was; one that has a name gets another UUID.  `columns` are all of its row, `owned`
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
    parent: str | None = None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.of})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({self.name})

    @property
    def order(self) -> Mapping[str, Any]:
        row = {"of": self.of, "parent": self.parent, "columns": self.columns, "owned": self.owned}
        return {"do": self.kind, "server": self.server, "table": self.table, "name": self.name, **row}

    @property
    def command(self) -> str:
        return f"ovn-nbctl {PLACES[self.table].add.format(name=self.name, parent=self.parent)}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        place = PLACES[self.table]
        if db.execute(f"SELECT count(*) FROM {place.table} WHERE {place.key} = ?", [self.name]).fetchone()[0]:
            raise Moved(f"{self}: there is one of that name")
        given = {place.key: self.name, place.column: self.of, "revision": self.revision}
        if place.parent:
            given[place.parent] = self.parent
        if place.idle == "ports = 0":
            given["ports"] = 0
        columns, values = ", ".join(given), ", ".join(f"${column}" for column in given)
        db.execute(f"INSERT INTO {place.table} ({columns}) VALUES ({values})", given)

    def __str__(self) -> str:
        return f"put {PLACES[self.table].word} {self.name} back into {_where(self.parent)}"


def _where(parent: str | None) -> str:
    return "OVN" if parent is None else f"router {parent} of OVN"
