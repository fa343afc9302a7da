"""Acts on what is left of a volume's connection on a hypervisor: its block device, and the iSCSI sessions behind it.

`hand.py` carries them out on the host.  Nothing takes them back: whoever needs the volume connects it again, as Nova
does with every attachment and every hard reboot.  No data is lost by it, for what is in use is refused there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import stands
from cloudfsck.acts.lists import tuple_of
from cloudfsck.model import Moved, Row, Undo


@dataclass(frozen=True)
class Path:
    """A SCSI disk over which a device is reached, as it was seen: a row of block_devices."""

    name: str
    number: str
    wwid: str | None
    session: str
    places: tuple[str, ...]

    def __post_init__(self) -> None:
        tuple_of(self, "places", str)


@dataclass(frozen=True)
class Session:
    """An iSCSI session, as it was seen: a row of iscsi_sessions."""

    session: str
    target: str
    portal: str


@dataclass(frozen=True)
class Remove:
    """Remove a multipath map with its paths, or one SCSI disk (its own only path), and log out of those of the sessions
    in which nothing at all is left then.

    `places` and `wwid` are the device's own, as block_devices has them; `server` is the one at the root, or "";
    `volume` is the one that it was of.
    """

    kind: ClassVar[str] = "device.remove"
    part: ClassVar[str] = ""
    what: ClassVar[str] = "device"
    host: str
    server: str
    volume: str
    device: str
    number: str
    wwid: str | None
    places: tuple[str, ...]
    paths: tuple[Path, ...]
    sessions: tuple[Session, ...] = ()
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False

    def __post_init__(self) -> None:
        tuple_of(self, "places", str)
        tuple_of(self, "paths", Path)
        tuple_of(self, "sessions", Session)

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.volume})

    @property
    def things(self) -> frozenset[str]:
        """What it takes away, each as a table has it: name and WWID of a device, name and target of a session."""
        devices = {(self.device, self.wwid), *((path.name, path.wwid) for path in self.paths)}
        return frozenset({
            *(f"{name} {wwid or ''}" for name, wwid in devices),
            *(f"{one.session} {one.target}" for one in self.sessions),
        })  # fmt: skip

    @property
    def names(self) -> tuple[str, ...]:
        """The device and its paths."""
        return (self.device, *(path.name for path in self.paths if path.name != self.device))

    @property
    def order(self) -> Mapping[str, Any]:
        paths = [{**asdict(path), "places": list(path.places)} for path in self.paths]
        was = {"number": self.number, "wwid": self.wwid, "paths": paths}
        sessions = [asdict(one) for one in self.sessions]
        return {"do": self.kind, "server": self.server, "device": self.device, "was": was, "sessions": sessions}

    @property
    def command(self) -> str:
        return f"lsblk -o NAME,KNAME,TYPE,SIZE,STATE,WWN,MOUNTPOINT {' '.join('/dev/' + name for name in self.names)}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        for name, number, wwid, session, places in [
            (self.device, self.number, self.wwid, None, self.places),
            *((path.name, path.number, path.wwid, path.session, path.places) for path in self.paths),
        ]:
            found = db.execute(
                "SELECT count(*) FROM block_devices WHERE host = $host AND name = $name AND number = $number"
                " AND wwid IS NOT DISTINCT FROM $wwid AND list_sort(places) = $places::VARCHAR[]"
                " AND ($session IS NULL OR session = $session)",
                {"host": self.host, "name": name, "number": number, "wwid": wwid, "session": session,
                 "places": sorted(places)},
            ).fetchone()  # fmt: skip
            if found != (1,):
                raise Moved(f"{self}: {name} is not there as it was")
        gone = self._unused(db)
        given = {"host": self.host, "gone": gone}
        db.execute("DELETE FROM block_devices WHERE host = $host AND list_contains($gone, name)", given)
        db.execute(
            "UPDATE iscsi_sessions SET devices = list_filter(devices, lambda name: NOT list_contains($gone, name))"
            " WHERE host = $host",
            given,
        )
        for one in self.sessions:
            _leave(db, self.host, one)

    def _unused(self, db: Any) -> list[str]:
        """The device and all that goes with it.  Raises Moved if anything uses it, or other paths are below it."""
        rows = {
            name: (kind, set(slaves or ()), used)
            for name, kind, slaves, used in db.execute(
                "SELECT name, kind, slaves, coalesce(len(mounts) + len(held_by) + len(guests), 1) > 0"
                "  FROM block_devices WHERE host = ?",
                [self.host],
            ).fetchall()
        }
        below = rows[self.device][1]
        if below and below != {path.name for path in self.paths}:
            raise Moved(f"{self}: its paths are {', '.join(sorted(below))}")
        gone = list(self.names)
        for name in gone:
            if rows[name][2]:
                raise Moved(f"{self}: {name} is in use, or nobody knows whether it is")
            for other, (kind, slaves, _) in sorted(rows.items()):
                if name not in slaves or other in gone:
                    continue
                if kind != "partition":
                    raise Moved(f"{self}: {other} stands on {name}")
                gone.append(other)
        return gone

    def __str__(self) -> str:
        by = [path.name for path in self.paths if path.name != self.device]
        paths = f" with its paths {', '.join(by)}" if by else ""
        volume = f" ({', '.join(self.places)})" if self.places else ""
        targets = sorted({one.target for one in self.sessions})
        out = f"; log out of {', '.join(targets)} if nothing else is left there" if targets else ""
        return f"remove {self.device}{paths} from {self.host}{volume}{out}"


@dataclass(frozen=True)
class Logout:
    """Log out of an iSCSI session in which there is no device."""

    kind: ClassVar[str] = "session.logout"
    part: ClassVar[str] = ""
    what: ClassVar[str] = "session"
    host: str
    server: str
    volume: str
    session: str
    target: str
    portal: str
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.volume})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({f"{self.session} {self.target}"})

    @property
    def order(self) -> Mapping[str, Any]:
        one = {"session": self.session, "target": self.target, "portal": self.portal}
        return {"do": self.kind, "server": self.server, **one}

    @property
    def command(self) -> str:
        return f"iscsiadm -m session -r {self.session.removeprefix('session')} -P 3"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        if not _leave(db, self.host, Session(self.session, self.target, self.portal)):
            raise Moved(f"{self}: it is not there as it was, or there is a device in it")

    def __str__(self) -> str:
        return f"log {self.host} out of {self.target} at {self.portal} ({self.session}), where there is no device"


def _leave(db: Any, host: str, one: Session) -> bool:
    """Whether the session was there, and empty; then it is gone."""
    given = [host, one.session, one.target, one.portal]
    here = "host = ? AND session = ? AND target = ? AND portal = ? AND len(devices) = 0"
    found = db.execute(f"SELECT count(*) FROM iscsi_sessions WHERE {here}", given).fetchone()
    db.execute(f"DELETE FROM iscsi_sessions WHERE {here}", given)
    return bool(found == (1,))
