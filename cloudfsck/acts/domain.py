"""Acts on a libvirt domain, each a rung of its ladder or the way back.  `hand.py` carries them out on the host.

running --Pause--> paused --Stop--> stopped --Undefine--> gone;  Hold takes in what already stands on a rung.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import Standing, moved_on, one_row
from cloudfsck.model import Row, Undo


@dataclass(frozen=True)
class Pause:
    """Suspend a running domain; its memory is kept."""

    kind: ClassVar[str] = "domain.pause"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str] = "domain"
    host: str
    server: str
    run: int
    persistent: bool
    rung: ClassVar[str] = "paused"
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False

    @property
    def entry(self) -> str:
        """What is paused is this run of the domain, and no other."""
        return str(self.run)

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"id": self.run, "state": "running", "persistent": self.persistent}
        return {"do": self.kind, "server": self.server, "was": was}

    @property
    def command(self) -> str:
        return f"virsh suspend {self.server}"

    def undo(self, saw: Row) -> Resume:
        return Resume(self.host, self.server, self.run)

    def effect(self, db: Any) -> None:
        one_row(
            db, self, None, "UPDATE libvirt_domains SET state = 'paused'", "state = 'running' AND id = $run",
            run=self.run,
        )  # fmt: skip
        moved_on(db, self, "domain", None, Standing("paused"), self.entry)

    def __str__(self) -> str:
        return f"pause domain {self.server} on {self.host}; its memory is kept"


@dataclass(frozen=True)
class Resume:
    """Take a Pause back."""

    kind: ClassVar[str] = "domain.resume"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str] = "domain"
    host: str
    server: str
    run: int
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False

    @property
    def order(self) -> Mapping[str, Any]:
        return {"do": self.kind, "server": self.server, "was": {"id": self.run, "state": "paused"}}

    @property
    def command(self) -> str:
        return f"virsh resume {self.server}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        one_row(
            db, self, Standing("paused"), "UPDATE libvirt_domains SET state = 'running'",
            "state = 'paused' AND id = $run", run=self.run,
        )  # fmt: skip
        moved_on(db, self, "domain", Standing("paused"), None)

    def __str__(self) -> str:
        return f"resume domain {self.server} on {self.host}"


@dataclass(frozen=True)
class Hold:
    """Take in a domain that somebody else paused or shut off: look that it still is so, and let its time begin."""

    kind: ClassVar[str] = "domain.hold"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str] = "domain"
    host: str
    server: str
    run: int | None
    state: str
    persistent: bool
    xml_sha256: str
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False

    @property
    def rung(self) -> str:
        return {"paused": "paused", "shutoff": "stopped"}[self.state]

    @property
    def entry(self) -> str:
        """What is held is this run of the domain, or this definition, and no other."""
        return str(self.run) if self.state == "paused" else self.xml_sha256

    @property
    def order(self) -> Mapping[str, Any]:
        verb = "domain.pause" if self.state == "paused" else "domain.stop"  # neither does anything to such a domain
        was = {"id": self.run, "state": self.state, "persistent": self.persistent}
        return {"do": verb, "server": self.server, "was": was}

    @property
    def command(self) -> str:
        return f"virsh dominfo {self.server}"

    def undo(self, saw: Row) -> Release:
        return Release(self.host, self.server, self.run, self.state, self.persistent, self.xml_sha256)

    def effect(self, db: Any) -> None:
        one_row(db, self, None, "UPDATE libvirt_domains SET state = state", "state = $state", state=self.state)
        moved_on(db, self, "domain", None, Standing(self.rung), self.entry)

    def __str__(self) -> str:
        return f"hold domain {self.server} on {self.host} as it is, {self.rung}"


@dataclass(frozen=True)
class Release:
    """Take a Hold back: nothing changes on the host."""

    kind: ClassVar[str] = "domain.release"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str] = "domain"
    host: str
    server: str
    run: int | None
    state: str
    persistent: bool
    xml_sha256: str
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False

    @property
    def order(self) -> Mapping[str, Any]:
        return Hold(self.host, self.server, self.run, self.state, self.persistent, self.xml_sha256).order

    @property
    def command(self) -> str:
        return f"virsh dominfo {self.server}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        rung = {"paused": "paused", "shutoff": "stopped"}[self.state]
        moved_on(db, self, "domain", Standing(rung), None)

    def __str__(self) -> str:
        return f"release domain {self.server} on {self.host}, which stays {self.state}"


@dataclass(frozen=True)
class Stop:
    """Destroy (power off) a paused domain that stays defined; its memory is lost, its definition is saved first."""

    kind: ClassVar[str] = "domain.stop"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str] = "domain"
    host: str
    server: str
    run: int
    persistent: bool
    xml_sha256: str
    since: str
    rung: ClassVar[str] = "stopped"
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False

    @property
    def entry(self) -> str:
        """What is stopped is the domain as it is defined now, and no other."""
        return self.xml_sha256

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"id": self.run, "state": "paused", "persistent": self.persistent}
        return {"do": self.kind, "server": self.server, "was": was}

    @property
    def command(self) -> str:
        return f"virsh destroy {self.server}"

    def undo(self, saw: Row) -> Start:
        return Start(self.host, self.server, self.since)

    def effect(self, db: Any) -> None:
        one_row(
            db, self, Standing("paused"), "UPDATE libvirt_domains SET state = 'shutoff', id = NULL",
            "state = 'paused' AND id = $run", run=self.run,
        )  # fmt: skip
        db.execute("DELETE FROM qemu_processes WHERE host = ? AND uuid = ?", [self.host, self.server])
        moved_on(db, self, "domain", Standing("paused", self.since), Standing("stopped"), self.entry)

    def __str__(self) -> str:
        return f"stop domain {self.server} on {self.host}; it stays defined, its memory is lost"


@dataclass(frozen=True)
class Start:
    """Take a Stop back: the domain starts anew, paused, with the memory of a guest that was just switched on."""

    kind: ClassVar[str] = "domain.start"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str] = "domain"
    host: str
    server: str
    since: str
    rung: ClassVar[str] = "paused"
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False

    @property
    def stood_since(self) -> str:
        """Its time on the rung goes on from where it was."""
        return self.since

    @property
    def order(self) -> Mapping[str, Any]:
        return {"do": self.kind, "server": self.server, "was": {"state": "shutoff"}, "paused": True}

    @property
    def command(self) -> str:
        return f"virsh start --paused {self.server}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        one_row(db, self, Standing("stopped"), "UPDATE libvirt_domains SET state = 'paused'", "state = 'shutoff'")
        db.execute("INSERT INTO qemu_processes (host, uuid) VALUES (?, ?)", [self.host, self.server])
        moved_on(db, self, "domain", Standing("stopped"), Standing("paused", self.since))

    def __str__(self) -> str:
        return f"start domain {self.server} on {self.host} again, paused; what was in its memory is lost"


@dataclass(frozen=True)
class Undefine:
    """Undefine a domain that has stood stopped long enough; its definition and NVRAM are saved on the host first."""

    kind: ClassVar[str] = "domain.undefine"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str] = "domain"
    host: str
    server: str
    xml_sha256: str
    since: str
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = True

    @property
    def order(self) -> Mapping[str, Any]:
        return {"do": self.kind, "server": self.server, "was": {"state": "shutoff", "xml_sha256": self.xml_sha256}}

    @property
    def command(self) -> str:
        return f"virsh undefine --managed-save --keep-nvram {self.server}"

    def undo(self, saw: Row) -> Define:
        return Define(self.host, self.server, str(saw["saved"]), self.since)

    def effect(self, db: Any) -> None:
        one_row(
            db, self, Standing("stopped"), "DELETE FROM libvirt_domains", "state = 'shutoff' AND xml_sha256 = $digest",
            digest=self.xml_sha256,
        )  # fmt: skip
        for table in ("libvirt_disks", "libvirt_interfaces"):
            db.execute(
                f"DELETE FROM {table} WHERE host = $host AND uuid = $uuid", {"host": self.host, "uuid": self.server}
            )
        moved_on(db, self, "domain", Standing("stopped", self.since), None)

    def __str__(self) -> str:
        return f"undefine domain {self.server} on {self.host}; its definition is saved there"


@dataclass(frozen=True)
class Define:
    """Take an Undefine back, from what was saved on the host; a saved memory image does not come back."""

    kind: ClassVar[str] = "domain.define"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    what: ClassVar[str] = "domain"
    host: str
    server: str
    saved: str
    since: str
    rung: ClassVar[str] = "stopped"
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False

    @property
    def stood_since(self) -> str:
        """Its time on the rung goes on from where it was."""
        return self.since

    @property
    def order(self) -> Mapping[str, Any]:
        return {"do": self.kind, "server": self.server, "saved": self.saved}

    @property
    def command(self) -> str:
        return f"virsh define {self.saved}/domain.xml"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        moved_on(db, self, "domain", None, Standing("stopped", self.since))
        db.execute(
            "INSERT INTO libvirt_domains (host, uuid, state, persistent) VALUES (?, ?, 'shutoff', TRUE)",
            [self.host, self.server],
        )

    def __str__(self) -> str:
        return f"define domain {self.server} on {self.host} again from {self.saved}"


def next_step(row: Row) -> Pause | Hold | Stop | Undefine:
    """The next rung for a domain that should not be there, from a row with host, server, state, run, persistent,
    xml_sha256, rung and rung_since."""
    host, server, run, persistent = row["host"], row["server"], row["run"], row["persistent"]
    if row["rung"] == "paused":
        return Stop(host, server, run, persistent, row["xml_sha256"], str(row["rung_since"]))
    if row["rung"] == "stopped":
        return Undefine(host, server, row["xml_sha256"], str(row["rung_since"]))
    if row["state"] == "running":
        return Pause(host, server, run, persistent)
    return Hold(host, server, run, row["state"], persistent, row["xml_sha256"])
