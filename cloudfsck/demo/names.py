"""The demo's story of names: the zone that designate-sink fills, and what it did not hear.  Values only."""

from __future__ import annotations

from dataclasses import dataclass

from cloudfsck.demo import cloud

ZONE = "demo.example."
#: Its owner; what the sink makes is nobody's.
OWNER = cloud.project("lab")


@dataclass(frozen=True)
class Name:
    """A recordset of one record, made so many days ago; `server` is the one for which the sink made it."""

    name: str
    type: str
    data: str
    days: float
    server: str = ""
    owner: str | None = OWNER

    @property
    def id(self) -> str:
        return cloud.ident("recordset", self.name, self.type)


def names(servers: list[cloud.Server]) -> list[Name]:
    """What stands in the zone: the names of the servers, and what somebody made himself."""
    sunk = [
        Name(f"{one.name}.{ZONE}", "A", one.address, one.created, one.uuid, None) for one in servers if _is_named(one)
    ]
    return [
        Name(ZONE, "SOA", f"ns1.{ZONE} admin.{ZONE} 1764500000 3600 600 86400 3600", 200.0),
        Name(ZONE, "NS", f"ns1.{ZONE}", 200.0),
        Name(ZONE, "MX", f"10 mail.{ZONE}", 200.0),
        Name(f"www.{ZONE}", "CNAME", f"web-1.{ZONE}", 40.0),
        Name(f"printer.{ZONE}", "A", "198.51.100.7", 90.0),
        # An alias that somebody keeps for a server that is gone is his, and no program's.
        Name(f"old-shop.{ZONE}", "A", "198.51.100.8", 90.0),
        *sunk,
    ]


def _is_named(server: cloud.Server) -> bool:
    if server.named is not None:
        return server.named
    return server.linked and server.row == "live"
