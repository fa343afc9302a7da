"""Acts on a server's directory in the instances_path: into quarantine beside it, back, or away for good.

`hand.py` carries them out on the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from cloudfsck.acts.hold import Standing, moved_on, stands
from cloudfsck.model import Moved, Row, Undo


@dataclass(frozen=True)
class Directory:
    """A directory as it was seen.  `newest` is the newest change of anything in it, ns since 1970; `bytes` what it
    really takes."""

    path: str
    inode: int
    device: int
    newest: int
    files: int
    bytes: int
    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, row: Row) -> Directory:
        return cls(**{field.name: row[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Quarantine:
    """Rename the directory into .cloudfsck of the same file system, with hard links to the backing files it needs."""

    kind: ClassVar[str] = "directory.quarantine"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    host: str
    server: str
    directory: Directory
    rung: ClassVar[str] = "quarantined"
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False

    @property
    def what(self) -> str:
        return what(self.directory.path)

    @property
    def entry(self) -> str:
        """A name that no other directory of this server ever has: not that of the same kind after it, which has another
        newest change, nor `_resize` or `_del` beside it, which have another inode."""
        return f"{self.directory.inode}-{self.directory.newest}-{self.server}"

    @property
    def order(self) -> Mapping[str, Any]:
        was = {name: getattr(self.directory, name) for name in ("inode", "device", "newest", "files", "bytes")}
        return {"do": self.kind, "server": self.server, "path": self.directory.path, "was": was, "entry": self.entry}

    @property
    def command(self) -> str:
        return f"mv -n {self.directory.path} {self.directory.path}.aside"

    def undo(self, saw: Row) -> Restore:
        return Restore(self.host, self.server, self.directory, self.entry)

    def effect(self, db: Any) -> None:
        was = self.directory
        given = [self.host, was.path, was.inode, was.newest]
        here = "host = ? AND path = ? AND inode = ? AND newest = ?"
        if db.execute(f"SELECT count(*) FROM instance_dirs WHERE {here}", given).fetchone() != (1,):
            raise Moved(f"{self}: it is not there as it was")
        stands(db, self, self.what, None)
        db.execute(f"DELETE FROM instance_dirs WHERE {here}", given)
        aside = _aside(was.path, self.entry)
        db.execute(
            "INSERT INTO quarantine"
            ' (host, entry, server, path, was_path, inode, bytes, files, newest, "at", manifest_ok)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT max(finished) FROM ledger), TRUE)",
            [self.host, self.entry, self.server, aside, was.path, was.inode, was.bytes, was.files, was.newest],
        )
        _images_follow(db, self.host, was.path, aside)
        moved_on(db, self, self.what, None, Standing("quarantined"), self.entry)

    def __str__(self) -> str:
        return f"quarantine {self.directory.path} on {self.host} ({size(self.directory.bytes)})"


@dataclass(frozen=True)
class Restore:
    """Take a Quarantine back."""

    kind: ClassVar[str] = "directory.restore"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    host: str
    server: str
    directory: Directory
    entry: str
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False

    @property
    def what(self) -> str:
        return what(self.directory.path)

    @property
    def order(self) -> Mapping[str, Any]:
        return _way_out(self.kind, self.server, self.directory.path, self.entry, self.directory.inode)

    @property
    def command(self) -> str:
        return f"mv -n {self.directory.path}.aside {self.directory.path}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        _leave(db, self, self.entry)
        was = self.directory
        db.execute(
            "INSERT INTO instance_dirs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, make_timestamp(? // 1000),"
            " ?, ?, ?, FALSE, [])",
            [self.host, was.path.rsplit("/", 1)[1], _KINDS[self.what], self.server, was.path, was.inode, was.device,
             was.bytes, was.files, was.newest, was.newest, was.uid, was.gid, was.mode],
        )  # fmt: skip
        _images_follow(db, self.host, _aside(was.path, self.entry), was.path)

    def __str__(self) -> str:
        return f"bring {self.directory.path} on {self.host} back from quarantine"


@dataclass(frozen=True)
class Remove:
    """Remove a directory that has stood in quarantine long enough.  Nothing brings it back."""

    kind: ClassVar[str] = "directory.remove"
    part: ClassVar[str] = ""
    also: ClassVar[frozenset[str]] = frozenset()
    host: str
    server: str
    path: str
    entry: str
    inode: int
    bytes: int
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = True

    @property
    def what(self) -> str:
        return what(self.path)

    @property
    def order(self) -> Mapping[str, Any]:
        return _way_out(self.kind, self.server, self.path, self.entry, self.inode)

    @property
    def command(self) -> str:
        return f"ls -lR {self.path}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        _leave(db, self, self.entry)
        db.execute(
            "DELETE FROM disk_images WHERE host = ? AND starts_with(path, ?)",
            [self.host, _aside(self.path, self.entry) + "/"],
        )

    def __str__(self) -> str:
        return f"remove {self.path} from quarantine on {self.host} for good ({size(self.bytes)})"


#: How instance_dirs calls what a hold calls so.
_KINDS = {"directory": "instance", "resize": "resize", "del": "del"}


def what(path: str) -> str:
    """What a server's directory is, by its name: directory, resize or del."""
    return {"resize": "resize", "del": "del"}.get(path.rsplit("_", 1)[-1], "directory")


def _way_out(kind: str, server: str, path: str, entry: str, inode: int) -> Mapping[str, Any]:
    return {"do": kind, "server": server, "path": path, "entry": entry, "was": {"inode": inode}}


def _leave(db: Any, act: Restore | Remove, entry: str) -> None:
    given = [act.host, entry]
    if db.execute("SELECT count(*) FROM quarantine WHERE host = ? AND entry = ?", given).fetchone() != (1,):
        raise Moved(f"{act}: it is not in quarantine")
    stands(db, act, act.what, Standing("quarantined"))
    db.execute("DELETE FROM quarantine WHERE host = ? AND entry = ?", given)
    moved_on(db, act, act.what, Standing("quarantined"), None)


def _aside(path: str, entry: str) -> str:
    folder, name = path.rsplit("/", 1)
    return f"{folder}/.cloudfsck/{entry}/tree/{name}"


def _images_follow(db: Any, host: str, old: str, new: str) -> None:
    db.execute(
        "UPDATE disk_images SET path = $new || substr(path, length($old) + 1)"
        " WHERE host = $host AND starts_with(path, $old || '/')",
        {"host": host, "old": old, "new": new},
    )


def next_step(row: Row) -> Quarantine | Remove:
    """The next rung for a directory that should not be there, from a row with host, server, rung and the directory."""
    if row["rung"] == "quarantined":
        return Remove(row["host"], row["server"], row["path"], row["entry"], row["inode"], row["bytes"])
    return Quarantine(row["host"], row["server"], Directory.of(row))


def size(count: int) -> str:
    """`count` bytes as a person would say it: 4096 -> '4.0 KiB'."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
