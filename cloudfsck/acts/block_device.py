"""Acts on what Nova has of a server's volume: the row in its cell's database, for which there is no API but the detach
that Nova refuses here.  `database.py` sends them.

A row that Nova deletes stays, marked (nova/db/main/api.py: block_device_mapping_destroy): to delete one is to mark it,
and to take that back is to take the mark away.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cloudfsck.acts import rows
from cloudfsck.acts.hold import stands
from cloudfsck.acts.rows import Change, Rows, Statement, Value
from cloudfsck.model import Moved, Row, Undo

_TABLE = "block_device_mapping"


@dataclass(frozen=True)
class Delete:
    """Mark the row as deleted, as Nova's own soft delete does (oslo.db: deleted, deleted_at, and updated_at as it was).

    `cell` is the part whose database has the row, `number` its id, `server_host` and `vm_state` what the server's row
    says, `changed` the row's updated_at.
    """

    kind: ClassVar[str] = "block_device.delete"
    what: ClassVar[str] = "block_device"
    host: ClassVar[str] = ""
    server: str
    cell: str
    number: int
    volume: str
    attachment: str | None
    device: str | None
    boot_index: int | None
    changed: str
    server_host: str | None
    vm_state: str
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False

    @classmethod
    def of(cls, row: Row) -> Delete:
        """From a row with server, cell, id, volume, attachment, device_name, boot_index, updated_at, nova_host and
        vm_state."""
        return cls(
            row["server"],
            row["cell"],
            row["id"],
            row["volume"],
            row["attachment"],
            row["device_name"],
            row["boot_index"],
            rows.moment(row["updated_at"]),
            row["nova_host"],
            row["vm_state"],
        )

    @property
    def part(self) -> str:
        return self.cell

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.volume, self.attachment} - {None, ""})  # type: ignore[arg-type]

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self)

    @property
    def command(self) -> str:
        return f"openstack server volume list {self.server}"

    def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
        """What is sent: the server lives, is where it was, and nothing is being done with it; else it wins."""
        idle = _idle(self, vm_state=self.vm_state, host=self.server_host)
        mark: dict[str, Value] = {"deleted": self.number, "deleted_at": now}
        return idle, Change(_TABLE, {**_row(self), "deleted": 0}, mark), idle

    def undo(self, saw: Row) -> Restore:
        """What was not heard of matches no row."""
        return Restore(**asdict(self), deleted_at=str(saw.get("at") or ""))

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        _one(db, self, f"UPDATE nova_block_device_mapping SET deleted = id WHERE {_HERE} AND coalesce(deleted, 0) = 0")

    def __str__(self) -> str:
        attachment = f"attachment {self.attachment}" if self.attachment else "no attachment"
        return (
            f"delete block device {self.number} of server {self.server} in {self.cell}: volume {self.volume},"
            f" {attachment}, {self.device or 'no device name'}"
        )


@dataclass(frozen=True)
class Restore:
    """Take the mark away that Delete made, and no other: `deleted_at` is the time that it wrote."""

    kind: ClassVar[str] = "block_device.restore"
    what: ClassVar[str] = "block_device"
    host: ClassVar[str] = ""
    server: str
    cell: str
    number: int
    volume: str
    attachment: str | None
    device: str | None
    boot_index: int | None
    changed: str
    server_host: str | None
    vm_state: str
    deleted_at: str
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False

    @property
    def part(self) -> str:
        return self.cell

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.volume, self.attachment} - {None, ""})  # type: ignore[arg-type]

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self)

    @property
    def command(self) -> str:
        return f"openstack server volume list {self.server}"

    def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
        """What is sent: the server lives and is idle, wherever it is by now, and no other row gives it the volume."""
        idle = _idle(self)
        again = Rows(_TABLE, {"instance_uuid": self.server, "volume_id": self.volume, "deleted": 0}, count=0)
        mark: dict[str, Value] = {"deleted": self.number, "deleted_at": rows.at(self.deleted_at)}
        unmarked: dict[str, Value] = {"deleted": 0, "deleted_at": None}
        return idle, again, Change(_TABLE, {**_row(self), **mark}, unmarked), idle

    def undo(self, saw: Row) -> Delete:
        given = asdict(self)
        del given["deleted_at"]
        return Delete(**given)

    def effect(self, db: Any) -> None:
        """A reading has no deleted rows: then the row comes back as far as the act knows it."""
        stands(db, self, self.what, None)
        given = {"cell": self.cell, "number": self.number}
        there = db.execute("SELECT count(*) FROM nova_block_device_mapping WHERE cell = $cell AND id = $number", given)
        if there.fetchone()[0]:
            change = f"UPDATE nova_block_device_mapping SET deleted = 0 WHERE {_HERE} AND deleted = id"
            _one(db, self, change)
            return
        db.execute(
            "INSERT INTO nova_block_device_mapping (cell, id, instance_uuid, volume_id, attachment_id, device_name,"
            " boot_index, updated_at, destination_type, no_device, deleted)"
            " SELECT $cell, $number, $server, $volume, $attachment, $device, $boot_index, $changed::TIMESTAMP,"
            " 'volume', FALSE, 0",
            {**_given(self), "changed": self.changed or None},
        )

    def __str__(self) -> str:
        return f"bring back block device {self.number} of server {self.server} in {self.cell}: volume {self.volume}"


_HERE = (
    "cell = $cell AND id = $number AND instance_uuid = $server AND volume_id = $volume"
    " AND attachment_id IS NOT DISTINCT FROM $attachment AND device_name IS NOT DISTINCT FROM $device"
    " AND boot_index IS NOT DISTINCT FROM $boot_index AND updated_at IS NOT DISTINCT FROM $changed::TIMESTAMP"
)


def _given(act: Delete | Restore) -> dict[str, Any]:
    return {
        "cell": act.cell, "number": act.number, "server": act.server, "volume": act.volume,
        "attachment": act.attachment, "device": act.device, "boot_index": act.boot_index,
        "changed": act.changed or None,
    }  # fmt: skip


def _one(db: Any, act: Delete | Restore, change: str) -> None:
    """Raises Moved if the change does not meet just one row; then nothing is changed."""
    found = db.execute(f"{change} RETURNING id", _given(act)).fetchall()
    if len(found) != 1:
        raise Moved(f"{act}: {len(found)} rows are as it expects, not one")


def _row(act: Delete | Restore) -> dict[str, Value]:
    """The values of the row that no act of ours changes.  What says how the volume is reached is not among them: it may
    hold secrets, and Nova changes nothing of a row without setting its updated_at (oslo.db: TimestampMixin)."""
    return {
        "id": act.number, "instance_uuid": act.server, "volume_id": act.volume, "attachment_id": act.attachment,
        "device_name": act.device, "boot_index": act.boot_index, "updated_at": rows.at(act.changed),
    }  # fmt: skip


def _idle(act: Delete | Restore, **more: Value) -> Rows:
    return Rows("instances", {"uuid": act.server, "deleted": 0, "task_state": None, **more})


def _order(act: Delete | Restore) -> Mapping[str, Any]:
    return {"do": act.kind, **asdict(act)}
