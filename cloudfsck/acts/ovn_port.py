"""Acts on a port of OVN's northbound database: away with it, and back with all that it was.  `ovn.py` sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import stands
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import OVN


@dataclass(frozen=True)
class Delete:
    """Delete a port of a logical switch, of which Neutron has no port any more.

    `row` is its UUID in OVN, `revision` Neutron's of it there.  `server` is what had it, or "".
    """

    kind: ClassVar[str] = "ovn_port.delete"
    what: ClassVar[str] = "OVN port"
    host: ClassVar[str] = ""
    part: ClassVar[str] = OVN
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    server: str
    port: str
    row: str
    switch: str
    revision: int | None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"row": self.row, "switch": self.switch, "revision": self.revision}
        return {"do": self.kind, "server": self.server, "port": self.port, "was": was}

    @property
    def command(self) -> str:
        return f"ovn-nbctl lsp-del {self.port}"

    def undo(self, saw: Row) -> Insert:
        return Insert(self.server, self.port, self.switch, self.revision, json.dumps(saw.get("was", {})))

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        given = {"row": self.row, "port": self.port, "switch": self.switch, "revision": self.revision}
        here = (
            "uuid = $row AND name = $port AND switch IS NOT DISTINCT FROM $switch"
            " AND revision IS NOT DISTINCT FROM $revision AND NOT up"
        )
        found = db.execute(f"SELECT count(*) FROM ovn_switch_ports WHERE {here}", given).fetchone()[0]
        if found != 1:
            raise Moved(f"{self}: {found} rows are as it expects, not one")
        db.execute("DELETE FROM ovn_switch_ports WHERE uuid = ?", [self.row])
        db.execute("UPDATE ovn_switches SET ports = ports - 1 WHERE name = ?", [self.switch])

    def __str__(self) -> str:
        return f"delete port {self.port} from switch {self.switch} of OVN"


@dataclass(frozen=True)
class Insert:
    """Put a port back into its logical switch, as it was; it gets another UUID there.  `columns` are all of its row,
    as OVSDB writes them, in JSON."""

    kind: ClassVar[str] = "ovn_port.insert"
    what: ClassVar[str] = "OVN port"
    host: ClassVar[str] = ""
    part: ClassVar[str] = OVN
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    server: str
    port: str
    switch: str
    revision: int | None
    columns: str

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        row = {"switch": self.switch, "columns": self.columns}
        return {"do": self.kind, "server": self.server, "port": self.port, **row}

    @property
    def command(self) -> str:
        return f"ovn-nbctl lsp-add {self.switch} {self.port}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        if db.execute("SELECT count(*) FROM ovn_switch_ports WHERE name = ?", [self.port]).fetchone()[0]:
            raise Moved(f"{self}: there is one of that name")
        db.execute(
            "INSERT INTO ovn_switch_ports (name, switch, revision, type, up, port, device_id)"
            " VALUES ($port, $switch, $revision, '', FALSE, $port, $server)",
            {"port": self.port, "switch": self.switch, "revision": self.revision, "server": self.server},
        )
        db.execute("UPDATE ovn_switches SET ports = ports + 1 WHERE name = ?", [self.switch])

    def __str__(self) -> str:
        return f"put port {self.port} back into switch {self.switch} of OVN"
