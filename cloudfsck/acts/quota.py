"""An act on what Cinder counts of a project's: the row of its database, for which there is no API.  `database.py` sends
it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from cloudfsck.acts import rows
from cloudfsck.acts.hold import stands
from cloudfsck.acts.rows import Change, Rows, Statement
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import CINDER


@dataclass(frozen=True)
class Count:
    """Set what a project has of a resource, and what is being made of it, to other numbers.

    `number` is the id of the row of quota_usages, `changed` its updated_at, which stays.  Whoever reserves or commits
    changes that (cinder/db/api.py: quota_reserve, reservation_commit): a row with all these values, and no reservation,
    counts what was there when it was read.
    """

    kind: ClassVar[str] = "quota.count"
    what: ClassVar[str] = "quota"
    host: ClassVar[str] = ""
    part: ClassVar[str] = CINDER
    server: ClassVar[str] = ""
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "exact"
    destroys: ClassVar[bool] = False
    project: str
    resource: str
    number: int
    in_use: int
    reserved: int
    changed: str
    to_use: int
    to_reserved: int

    @classmethod
    def of(cls, row: Row) -> Count:
        """From a row with project, resource, id, in_use, reserved, updated_at and counted."""
        return cls(
            row["project"],
            row["resource"],
            row["id"],
            row["in_use"],
            row["reserved"],
            rows.moment(row["updated_at"]),
            row["counted"],
            0,
        )

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.project})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({str(self.number)})

    def went_on(self, table: str, db: Any) -> bool:
        """Whether Cinder has counted on since: it dates each change of its own."""
        dates = db.execute("SELECT updated_at FROM cinder_quota_usages WHERE id = ?", [self.number]).fetchall()
        return table == "cinder_quota_usages" and [rows.moment(date) for (date,) in dates] != [self.changed]

    @property
    def order(self) -> Mapping[str, Any]:
        return {"do": self.kind, "server": self.server, **asdict(self)}

    @property
    def command(self) -> str:
        return f"cinder-manage quota sync --project-id {self.project}"

    def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
        """What is sent.  Cinder locks the row first, and so do we, by changing it."""
        change = Change(
            "quota_usages",
            {
                "id": self.number, "project_id": self.project, "resource": self.resource, "in_use": self.in_use,
                "reserved": self.reserved, "updated_at": rows.at(self.changed), "deleted": False,
            },
            {"in_use": self.to_use, "reserved": self.to_reserved},
        )  # fmt: skip
        return change, Rows("reservations", {"usage_id": self.number, "deleted": False}, count=0)

    def undo(self, saw: Row) -> Count:
        return replace(
            self,
            in_use=self.to_use,
            reserved=self.to_reserved,
            to_use=self.in_use,
            to_reserved=self.reserved,
        )

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        given = {
            "number": self.number, "project": self.project, "resource": self.resource, "in_use": self.in_use,
            "reserved": self.reserved, "changed": self.changed or None, "to_use": self.to_use,
            "to_reserved": self.to_reserved,
        }  # fmt: skip
        found = db.execute(
            "UPDATE cinder_quota_usages SET in_use = $to_use, reserved = $to_reserved WHERE id = $number"
            " AND project_id = $project AND resource = $resource AND in_use = $in_use AND reserved = $reserved"
            " AND updated_at IS NOT DISTINCT FROM $changed::TIMESTAMP"
            " AND NOT EXISTS (SELECT 1 FROM cinder_reservations WHERE usage_id = $number) RETURNING id",
            given,
        ).fetchall()
        if len(found) != 1:
            raise Moved(f"{self}: {len(found)} rows are as it expects, not one")

    def __str__(self) -> str:
        return (
            f"count {self.resource} of project {self.project} in Cinder: {self.to_use} in use and {self.to_reserved}"
            f" reserved, not {self.in_use} and {self.reserved}"
        )
