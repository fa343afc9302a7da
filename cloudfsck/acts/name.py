"""Acts on the names in zones of the cloud's own: away with what leads to nobody, and back.  `dns.py` sends them.

What a name says besides stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import just_these, stands
from cloudfsck.acts.lists import tuple_of
from cloudfsck.model import Row, Undo


def nsupdate(copy: str, lines: str) -> str:
    """The command that sends these lines, each with a \\n of printf's at its end, to a zone on a server."""
    zone, _, server = copy.rpartition("@")
    return f"printf 'server {server.strip('[]')}\\nzone {zone}\\n{lines}send\\n' | nsupdate -k KEY"


@dataclass(frozen=True)
class _Change:
    """What is done to the records of one type of a name, an RRset: to `records`, beside those that are `kept`.

    `copy` is the zone on the server to which its changes are sent (zone@server); `ttl` is in seconds.  `addresses` and
    `hostnames` are those of `records`, one for each, by [dns.zone] of the configuration.
    """

    kind: ClassVar[str]
    what: ClassVar[str] = "name"
    host: ClassVar[str] = ""
    rung: ClassVar[None] = None
    destroys: ClassVar[bool] = False
    server: str
    copy: str
    name: str
    type: str
    ttl: int
    records: tuple[str, ...]
    kept: tuple[str, ...]
    addresses: tuple[str, ...]
    hostnames: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("records", "kept", "addresses", "hostnames"):
            tuple_of(self, name, str)

    @property
    def part(self) -> str:
        return self.copy

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.name, self.copy})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({f"{self.name} {self.type}"})

    @property
    def order(self) -> Mapping[str, Any]:
        return {
            "do": self.kind, "server": self.server, "copy": self.copy, "name": self.name, "type": self.type,
            "ttl": self.ttl, "records": sorted(self.records), "kept": sorted(self.kept),
        }  # fmt: skip

    def _nsupdate(self, prerequisites: tuple[str, ...], change: str) -> str:
        """What a person would type: the same that we send."""
        needed = "".join(f"prereq yxrrset {self.name} {self.type} {one}\\n" for one in prerequisites)
        if not prerequisites:
            needed = f"prereq nxrrset {self.name} {self.type}\\n"
        return nsupdate(self.copy, needed + change)

    def _there(self, db: Any, records: tuple[str, ...]) -> None:
        """Raises Moved unless the name has these records and no others."""
        found = db.execute(
            "SELECT data FROM dns_records WHERE copy = ? AND name = ? AND type = ?", [self.copy, self.name, self.type]
        ).fetchall()
        just_these(self, [data for (data,) in found], records)


@dataclass(frozen=True)
class Remove(_Change):
    """Take from a name the records that lead to nobody."""

    kind: ClassVar[str] = "name.remove"
    undoing: ClassVar[Undo] = "exact"

    @classmethod
    def of(cls, row: Row) -> Remove:
        """From a row with server, copy, name, type, ttl, and the records that are dead and those kept."""
        return cls(
            row["server"] or "", row["copy"], row["name"], row["type"], row["ttl"], row["dead"], row["kept"],
            row["addresses"], row["hostnames"],
        )  # fmt: skip

    @property
    def command(self) -> str:
        gone = "".join(f"update delete {self.name} {self.type} {one}\\n" for one in self.records)
        return self._nsupdate(self.records + self.kept, gone)

    def undo(self, saw: Row) -> Restore:
        return Restore(**asdict(self))

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        self._there(db, self.records + self.kept)
        db.execute(
            "DELETE FROM dns_records WHERE copy = $copy AND name = $name AND type = $type"
            " AND list_contains($dead, data)",
            {"copy": self.copy, "name": self.name, "type": self.type, "dead": list(self.records)},
        )

    def __str__(self) -> str:
        rest = f"; {', '.join(self.kept)} stays" if self.kept else ""
        return f"delete {self.name} {self.type} {', '.join(self.records)} from the DNS{rest}"


@dataclass(frozen=True)
class Restore(_Change):
    """Put the records back that were taken."""

    kind: ClassVar[str] = "name.restore"
    undoing: ClassVar[Undo] = "none"

    @property
    def command(self) -> str:
        back = "".join(f"update add {self.name} {self.ttl} {self.type} {one}\\n" for one in self.records)
        return self._nsupdate(self.kept, back)

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        self._there(db, self.kept)
        zone = self.copy.rpartition("@")[0]
        for data, address, hostname in zip(self.records, self.addresses, self.hostnames, strict=True):
            db.execute(
                "INSERT INTO dns_records (copy, zone, name, type, ttl, data, address, hostname, ours)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, TRUE)",
                [self.copy, zone, self.name, self.type, self.ttl, data, address, hostname],
            )

    def __str__(self) -> str:
        return f"put {self.name} {self.type} {', '.join(self.records)} back into the DNS"
