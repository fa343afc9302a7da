"""Have Designate send a zone to its name servers anew; nothing that the zone says is changed.  `designate.py` sends it.

Whatever is changed of a zone, Designate gives it a new serial, tells every name server of its pool, and looks whether
they have it (designate/central/service.py: update_zone): also where the TTL is changed to what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import stands
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import DESIGNATE


@dataclass(frozen=True)
class Refresh:
    """`status` and `action` are those of the zone now, `serial` is the one that gives way."""

    kind: ClassVar[str] = "zone.refresh"
    what: ClassVar[str] = "zone"
    host: ClassVar[str] = ""
    part: ClassVar[str] = DESIGNATE
    server: ClassVar[str] = ""
    rung: ClassVar[None] = None
    destroys: ClassVar[bool] = False
    #: There is nothing to take back.
    undoing: ClassVar[Undo] = "none"
    zone: str
    name: str
    ttl: int
    serial: int
    status: str
    action: str

    @classmethod
    def of(cls, row: Row) -> Refresh:
        """From a row with zone, zone_name, ttl, serial, status and action."""
        return cls(row["zone"], row["zone_name"], row["ttl"], row["serial"], row["status"], row["action"])

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.zone})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"name": self.name, "ttl": self.ttl, "serial": self.serial, "status": self.status, "action": self.action}
        return {"do": self.kind, "server": self.server, "zone": self.zone, "was": was}

    @property
    def command(self) -> str:
        return f"openstack zone set --all-projects --ttl {self.ttl} {self.zone}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        """What comes of it in the end: all name servers have what Designate has."""
        stands(db, self, self.what, None)
        found = db.execute("SELECT status, action, serial FROM designate_zones WHERE id = ?", [self.zone]).fetchall()
        if found != [(self.status, self.action, self.serial)]:
            raise Moved(f"{self}: it is {found or 'gone'}, and was {self.status}, {self.action}, {self.serial}")
        db.execute(
            "UPDATE designate_zones SET status = 'ACTIVE', action = 'NONE', serial = serial + 1 WHERE id = ?",
            [self.zone],
        )
        db.execute("DELETE FROM dns_records WHERE zone = lower(?)", [self.name])
        db.execute(
            "INSERT INTO dns_records (copy, zone, name, type, ttl, data)"
            " SELECT c.copy, c.zone, s.name, s.type, s.ttl, s.data"
            "   FROM dns_zones c JOIN designate_served s ON s.zone_name = c.zone WHERE c.zone = lower(?)",
            [self.name],
        )

    def __str__(self) -> str:
        return f"send {self.name} to its name servers anew"
