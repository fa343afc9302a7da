"""Acts on Neutron's own note of what it has put into OVN (ovn_revision_numbers), for which there is no API: where the
note says that a thing never got there, Neutron's maintenance makes it within five minutes, it alone and as Neutron has
it (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/maintenance.py: _fix_create_update).  `database.py` sends them.

Each leaves a time in the note, as whatever of Neutron's own writes there does (neutron/db/models/ovn.py: updated_at).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cloudfsck.acts import rows
from cloudfsck.acts.hold import stands
from cloudfsck.acts.rows import Change, Rows, Statement, Value
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import NEUTRON

_TABLE = "ovn_revision_numbers"

#: What a note has before a thing is in OVN (neutron/db/ovn_revision_numbers_db.py: INITIAL_REV_NUM).
NEVER = -1

_WORDS = {"networks": "network", "ports": "port", "routers": "router", "router_ports": "router port"}


@dataclass(frozen=True)
class Reset:
    """Have the note say that the thing never got to OVN.

    `resource` and `of` are its resource_uuid and resource_type, `number` the thing's row of standardattributes,
    `revision` what both of them say, `noted_at` the note's updated_at.  `server` is what has the thing, or "".
    """

    kind: ClassVar[str] = "ovn_note.reset"
    what: ClassVar[str] = "OVN note"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    #: The note comes back as it was, but only until Neutron has gone by it.
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    server: str
    resource: str
    of: str
    number: int
    revision: int
    noted_at: str

    @classmethod
    def made(cls, row: Row, of: str) -> Reset:
        """From a row with server, revision, standard_attr_id and noted_at, whose key is the resource."""
        noted_at = rows.moment(row["noted_at"])
        return cls(row["server"] or "", row["key"], of, row["standard_attr_id"], row["revision"], noted_at)

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.resource})

    @property
    def things(self) -> frozenset[str]:
        """What is compared afterwards: of a port that is a router's there are two notes."""
        return frozenset({f"{self.of} {self.resource}"})

    @property
    def order(self) -> Mapping[str, Any]:
        return {"do": self.kind, **asdict(self)}

    @property
    def command(self) -> str:
        return f"openstack {_WORDS[self.of].removeprefix('router ')} show {self.resource}"

    def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
        """What is sent: nobody has changed the thing in Neutron, or the note, since they were seen."""
        same, was = _same(self), {"revision_number": self.revision, "updated_at": rows.at(self.noted_at)}
        return same, Change(_TABLE, {**_note(self), **was}, {"revision_number": NEVER, "updated_at": now}), same

    def undo(self, saw: Row) -> Restore:
        """What was not heard of matches no row; neither does what Neutron has put into OVN since."""
        return Restore(**asdict(self), reset_at=str(saw.get("at") or ""))

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        _one(
            db, self,
            "UPDATE neutron_ovn_revisions SET revision_number = -1, updated_at ="
            " (SELECT max(now) FROM clocks WHERE table_name = 'neutron_ovn_revisions')"
            f" WHERE {_HERE} AND revision_number = $revision AND updated_at IS NOT DISTINCT FROM $noted_at::TIMESTAMP",
            revision=self.revision, noted_at=self.noted_at or None,
        )  # fmt: skip

    def went_on(self, table: str, db: Any) -> bool:
        """Whether a reading after the act shows what Neutron has made of it already: a newer note of its own, which it
        writes once the thing is in OVN (neutron/db/ovn_revision_numbers_db.py: bump_revision).  Had the act not taken
        place, the note would be as old as it was."""
        if table != "neutron_ovn_revisions":
            return False
        given = {**_given(self), "revision": self.revision, "noted_at": self.noted_at or "-infinity"}
        newer = f"{_HERE} AND revision_number >= $revision AND updated_at > $noted_at::TIMESTAMP"
        found = db.execute(f"SELECT count(*) FROM neutron_ovn_revisions WHERE {newer}", given).fetchone()[0]
        return bool(found == 1)

    def __str__(self) -> str:
        return f"have Neutron make {_WORDS[self.of]} {self.resource} in OVN again: its note of revision {self.revision}"


@dataclass(frozen=True)
class Restore:
    """Give the note back what it had, while it is as Reset left it at `reset_at`: Neutron has not gone by it yet."""

    kind: ClassVar[str] = "ovn_note.restore"
    what: ClassVar[str] = "OVN note"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    server: str
    resource: str
    of: str
    number: int
    revision: int
    noted_at: str
    reset_at: str

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.resource})

    @property
    def things(self) -> frozenset[str]:
        return frozenset({f"{self.of} {self.resource}"})

    @property
    def order(self) -> Mapping[str, Any]:
        return {"do": self.kind, **asdict(self)}

    @property
    def command(self) -> str:
        return f"openstack {_WORDS[self.of].removeprefix('router ')} show {self.resource}"

    def statements(self, now: dt.datetime) -> tuple[Statement, ...]:
        same, was = _same(self), {"revision_number": NEVER, "updated_at": rows.at(self.reset_at)}
        back = {"revision_number": self.revision, "updated_at": rows.at(self.noted_at)}
        return same, Change(_TABLE, {**_note(self), **was}, back), same

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        _one(
            db, self,
            "UPDATE neutron_ovn_revisions SET revision_number = $revision, updated_at = $noted_at::TIMESTAMP"
            f" WHERE {_HERE} AND revision_number = -1",
            revision=self.revision, noted_at=self.noted_at or None,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"give Neutron's note of {_WORDS[self.of]} {self.resource} in OVN its revision {self.revision} back"


_HERE = "resource_uuid = $resource AND resource_type = $of AND standard_attr_id = $number"


def _given(act: Reset | Restore) -> dict[str, Any]:
    return {"resource": act.resource, "of": act.of, "number": act.number}


def _one(db: Any, act: Reset | Restore, change: str, **more: Any) -> None:
    """Raises Moved if the change does not meet just one note; then nothing is changed."""
    found = db.execute(f"{change} RETURNING resource_uuid", {**_given(act), **more}).fetchall()
    if len(found) != 1:
        raise Moved(f"{act}: {len(found)} notes are as it expects, not one")


def _note(act: Reset | Restore) -> dict[str, Value]:
    return {"resource_uuid": act.resource, "resource_type": act.of, "standard_attr_id": act.number}


def _same(act: Reset | Restore) -> Rows:
    """Neutron's thing is there, and in the revision that it had: any change of it would be a higher one."""
    return Rows("standardattributes", {"id": act.number, "revision_number": act.revision})


def again(resource: str, kind: str, revision: int) -> Iterator[str]:
    """The commands by which a person does what Reset does."""
    yield (
        "in Neutron's database, if it is so: START TRANSACTION; UPDATE ovn_revision_numbers SET revision_number = -1,"
        f" updated_at = CURRENT_TIMESTAMP WHERE resource_uuid = '{resource}' AND resource_type = '{kind}'"
        f" AND revision_number = {revision}; SELECT ROW_COUNT() AS must_be_one;"
    )
    yield "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else"
