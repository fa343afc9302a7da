"""Acts on what Cinder says of a volume: an attachment away, or completed; a state set.  `cinder.py` sends them, and no
host hears.

They have no rung: Cinder keeps nothing of a deleted attachment that would bring it back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import stands
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import CINDER

#: What the API takes for an attach_status (cinder/api/validation/validators.py).
SETTABLE = ("attached", "detached")


@dataclass(frozen=True)
class Delete:
    """Delete an attachment through Cinder's API, which first asks Nova whether the server has it (CVE-2023-2088), and
    then has the backend end the connection.  Times are 'YYYY-MM-DD HH:MM:SS' UTC, '' where there is none."""

    kind: ClassVar[str] = "attachment.delete"
    what: ClassVar[str] = "attachment"
    host: ClassVar[str] = ""
    part: ClassVar[str] = CINDER
    server: str
    volume: str
    attachment: str
    status: str
    attached_at: str
    changed: str
    volume_changed: str
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False

    @classmethod
    def of(cls, row: Row) -> Delete:
        """From a row with server, volume, attachment, attach_status, attached_at, updated_at and volume_updated_at."""
        return cls(
            row["server"],
            row["volume"],
            row["attachment"],
            row["attach_status"],
            second(row["attached_at"]),
            second(row["updated_at"]),
            second(row["volume_updated_at"]),
        )

    @property
    def also(self) -> frozenset[str]:
        """All that it touches: nothing but this volume is read right before and after it."""
        return frozenset({self.volume, self.attachment})

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self)

    @property
    def command(self) -> str:
        return f"openstack --os-volume-api-version 3.27 volume attachment delete {self.attachment}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        here, given = _there(db, self)
        db.execute(f"DELETE FROM cinder_volume_attachment WHERE {here}", given)
        # cinder/db/api.py: volume_detached, _get_statuses_from_attachments
        db.execute(
            "UPDATE cinder_volumes SET attach_status = d.word,"
            " status = CASE WHEN d.word <> 'detached'"
            " OR (coalesce(migration_status, '') = '' AND status IS DISTINCT FROM 'uploading')"
            " OR migration_status IN ('success', 'error')"
            " THEN CASE d.word WHEN 'attached' THEN 'in-use' WHEN 'detached' THEN 'available' ELSE d.word END"
            " ELSE status END"
            " FROM (SELECT coalesce(min(a.attach_status), 'detached') AS word FROM cinder_volume_attachment a"
            " WHERE a.volume_id = $volume AND NOT coalesce(a.deleted, FALSE)"
            " AND NOT starts_with(a.attach_status, 'error_')) d WHERE id = $volume",
            {"volume": self.volume},
        )

    def __str__(self) -> str:
        return f"delete attachment {self.attachment} ({self.status}) of volume {self.volume} to server {self.server}"


@dataclass(frozen=True)
class Complete:
    """Say of an attachment that is being made that it is made, as nova-compute does when the guest has the disk: it
    changes Cinder's database, and nothing else (cinder/api/v3/attachments.py: complete).  Times are as Delete's."""

    kind: ClassVar[str] = "attachment.complete"
    what: ClassVar[str] = "attachment"
    host: ClassVar[str] = ""
    part: ClassVar[str] = CINDER
    server: str
    volume: str
    attachment: str
    status: str
    attached_at: str
    changed: str
    volume_changed: str
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False

    @classmethod
    def of(cls, row: Row) -> Complete:
        """From a row as Delete takes it."""
        return cls(**asdict(Delete.of(row)))

    @property
    def also(self) -> frozenset[str]:
        """All that it touches: nothing but this volume is read right before and after it."""
        return frozenset({self.volume, self.attachment})

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self)

    @property
    def command(self) -> str:
        return f"openstack --os-volume-api-version 3.44 volume attachment complete {self.attachment}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        here, given = _there(db, self)
        db.execute(f"UPDATE cinder_volume_attachment SET attach_status = 'attached' WHERE {here}", given)
        db.execute(
            "UPDATE cinder_volumes SET status = 'in-use', attach_status = 'attached' WHERE id = $volume",
            {"volume": self.volume},
        )

    def __str__(self) -> str:
        return f"complete attachment {self.attachment} ({self.status}) of volume {self.volume} to server {self.server}"


@dataclass(frozen=True)
class ResetStatus:
    """Set the state of a volume that has no attachment at all: a change of Cinder's database, and of nothing else.

    An attach_status is only sent where it changes: to send 'detached' deletes attachments (cinder/api/contrib/
    admin_actions.py), even one that was made in this moment.  `changed` is the volume's updated_at as Delete has its
    times; None: it is not compared.
    """

    kind: ClassVar[str] = "volume.reset_status"
    what: ClassVar[str] = "volume"
    host: ClassVar[str] = ""
    part: ClassVar[str] = CINDER
    server: ClassVar[str] = ""
    volume: str
    status: str
    attach_status: str
    to_status: str
    to_attach_status: str
    changed: str | None
    rung: ClassVar[None] = None
    destroys: ClassVar[bool] = False

    @property
    def undoing(self) -> Undo:
        """Cinder sets no volume without an attachment to in-use (cinder/api/contrib/admin_actions.py)."""
        return "none" if self.status == "in-use" else "approximate"

    @property
    def also(self) -> frozenset[str]:
        """All that it touches."""
        return frozenset({self.volume})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"status": self.status, "updated_at": self.changed}
        to = {"status": self.to_status}
        if self.to_attach_status != self.attach_status:
            to["attach_status"] = self.to_attach_status
        return {"do": self.kind, "server": self.server, "volume": self.volume, "was": was, "to": to}

    @property
    def command(self) -> str:
        return f"openstack volume set --state {self.to_status} {self.volume}"

    def undo(self, saw: Row) -> ResetStatus | None:
        if self.undoing == "none":
            return None
        back = self.attach_status if self.attach_status in SETTABLE else self.to_attach_status
        changed = saw.get("updated_at")
        return ResetStatus(
            self.volume, self.to_status, self.to_attach_status, self.status, back,
            None if changed is None else str(changed),
        )  # fmt: skip

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        given = {"volume": self.volume, "status": self.status, "attach": self.attach_status}
        _as_it_was(db, self, self.volume, self.changed)
        here = "id = $volume AND status = $status AND attach_status = $attach AND NOT coalesce(deleted, FALSE)"
        found = db.execute(f"SELECT count(*) FROM cinder_volumes WHERE {here}", given).fetchone()[0]
        if found != 1:
            raise Moved(f"{self}: {found} rows are as it expects, not one")
        attached = db.execute(
            "SELECT count(*) FROM cinder_volume_attachment WHERE volume_id = ? AND NOT coalesce(deleted, FALSE)",
            [self.volume],
        ).fetchone()[0]
        if attached:
            raise Moved(f"{self}: it has an attachment now")
        db.execute(
            "UPDATE cinder_volumes SET status = ?, attach_status = ? WHERE id = ?",
            [self.to_status, self.to_attach_status, self.volume],
        )

    def __str__(self) -> str:
        return (
            f"set volume {self.volume}, which has no attachment, from {self.status} ({self.attach_status})"
            f" to {self.to_status} ({self.to_attach_status})"
        )


def second(when: object) -> str:
    """A time of a row as it stands in an act, to the second."""
    return f"{when:%Y-%m-%d %H:%M:%S}" if isinstance(when, dt.datetime) else ""


def _second(column: str) -> str:
    """The same in SQL."""
    return f"coalesce(strftime({column}, '%Y-%m-%d %H:%M:%S'), '')"


def _order(act: Delete | Complete) -> Mapping[str, Any]:
    was = {
        "status": act.status,
        "instance": act.server,
        "volume_id": act.volume,
        "attached_at": act.attached_at,
        "volume_updated_at": act.volume_changed,
    }
    return {"do": act.kind, "server": act.server, "volume": act.volume, "attachment": act.attachment, "was": was}


def _there(db: Any, act: Delete | Complete) -> tuple[str, dict[str, Any]]:
    """How the attachment's row is found, if it and its volume are as the act expects.  Raises Moved if not."""
    stands(db, act, act.what, None)
    _as_it_was(db, act, act.volume, act.volume_changed)
    given = {"id": act.attachment, "volume": act.volume, "server": act.server, "status": act.status,
             "attached_at": act.attached_at, "changed": act.changed}  # fmt: skip
    here = (
        "id = $id AND volume_id = $volume AND instance_uuid = $server AND attach_status = $status"
        f" AND {_second('attach_time')} = $attached_at AND {_second('updated_at')} = $changed"
        " AND NOT coalesce(deleted, FALSE)"
    )
    found = db.execute(f"SELECT count(*) FROM cinder_volume_attachment WHERE {here}", given).fetchone()[0]
    if found != 1:
        raise Moved(f"{act}: {found} rows are as it expects, not one")
    return here, given


def _as_it_was(db: Any, act: Delete | Complete | ResetStatus, volume: str, changed: str | None) -> None:
    """Raises Moved if the volume was changed since."""
    found = db.execute(f"SELECT {_second('updated_at')} FROM cinder_volumes WHERE id = ?", [volume]).fetchall()
    if len(found) != 1 or (changed is not None and found != [(changed,)]):
        raise Moved(f"{act}: the volume is not as it was")
