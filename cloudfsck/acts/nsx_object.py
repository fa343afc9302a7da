"""Acts on an object of NSX: away with it, and back under the same id as it was.  `nsx.py` sends them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import stands
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.sources.nsxapi import MANAGER, POLICY
from cloudfsck.tables import NSX

#: What is below others, or refers to them, goes first (vmware_nsx/plugins/nsx_p/plugin.py: delete_port, delete_network,
#: delete_security_group, delete_router).  A virtual server refers to its pool and its service, a pool to its monitor, a
#: service to its router.
_FIRST = (
    "dhcp-binding", "port", "segment", "dhcp-server", "policy", "group", "service", "virtual-server", "pool", "monitor",
    "lb-service", "router",
)  # fmt: skip


def address(path: str) -> str:
    """Where a person finds an object; MANAGER is any of NSX's."""
    return f"https://MANAGER{POLICY if path.startswith('/infra/') else MANAGER}{path}"


def repair(row: Row) -> Iterator[Delete]:
    """What is done about an object that is left, by a row of the view nsx_leftovers."""
    yield Delete(row["server"] or "", row["api"], row["path"], row["kind"], row["neutron"], row["revision"])


def of_left(what: str, row: Row) -> Iterator[str]:
    """What a person types about such an object; `what` is what the openstack command calls that of Neutron's."""
    yield f"as an administrator: openstack {what} show {row['neutron']}; openstack project show {row['project']}"
    for act in repair(row):
        yield f"as an administrator of NSX, if it is this cloud's: {act.command}"


def of_missing(what: str, row: Row) -> Iterator[str]:
    """What a person types about something of Neutron's that NSX lacks, by a row of the view nsx_missing."""
    for path in row["paths"]:
        yield f"as an administrator of NSX: curl {address(path)}"
    yield f"on each controller: grep {row['key']} /var/log/neutron/*.log"
    yield f"as an administrator: openstack {what} show {row['key']}"


@dataclass(frozen=True)
class Delete:
    """Delete what Neutron's plugin made in NSX for something that Neutron does not have any more.

    `path` is the object's in the `api` that the plugin uses, `of` the kind that it is of, `neutron` what Neutron called
    it; `revision` is NSX's.
    """

    kind: ClassVar[str] = "nsx_object.delete"
    what: ClassVar[str] = "NSX object"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NSX
    rung: ClassVar[None] = None
    destroys: ClassVar[bool] = False
    server: str
    api: str
    path: str
    of: str
    neutron: str
    revision: int

    @property
    def turn(self) -> int:
        """What has a lower one is sent before it."""
        return _FIRST.index(self.of)

    @property
    def undoing(self) -> Undo:
        """The Manager API gives what is made anew an id of its own choice."""
        return "approximate" if self.api == "policy" else "none"

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"neutron": self.neutron, "revision": self.revision, "kind": self.of}
        return {"do": self.kind, "server": self.server, "api": self.api, "path": self.path, "was": was}

    @property
    def command(self) -> str:
        return f"curl -X DELETE {address(self.path)}"

    def undo(self, saw: Row) -> Create | None:
        if self.undoing == "none":
            return None
        bodies = json.dumps({"body": saw.get("was", {}), "children": saw.get("children", [])})
        return Create(self.server, self.path, self.of, self.neutron, bodies)

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        given = {"path": self.path, "neutron": self.neutron, "revision": self.revision}
        here = "path = $path AND neutron = $neutron AND revision = $revision AND protected IS NULL"
        found = db.execute(f"SELECT count(*) FROM nsx_objects WHERE {here}", given).fetchone()[0]
        if found != 1:
            raise Moved(f"{self}: {found} rows are as it expects, not one")
        below = db.execute("SELECT count(*) FROM nsx_objects WHERE parent = ?", [self.path]).fetchone()[0]
        if below:
            raise Moved(f"{self}: {below} objects are below it")
        db.execute("DELETE FROM nsx_objects WHERE path = ?", [self.path])

    def __str__(self) -> str:
        return f"delete {self.of} {self.path} from NSX"


@dataclass(frozen=True)
class Create:
    """Put an object back into NSX's Policy API under its own id.  `bodies` are its own and those of what was below it,
    as NSX told them, in JSON."""

    kind: ClassVar[str] = "nsx_object.create"
    what: ClassVar[str] = "NSX object"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NSX
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    server: str
    path: str
    of: str
    neutron: str
    bodies: str

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.path})

    @property
    def order(self) -> Mapping[str, Any]:
        of = {"path": self.path, "kind": self.of}
        return {"do": self.kind, "server": self.server, **of, "bodies": self.bodies}

    @property
    def command(self) -> str:
        return f"curl -X PUT {address(self.path)}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        if db.execute("SELECT count(*) FROM nsx_objects WHERE path = ?", [self.path]).fetchone()[0]:
            raise Moved(f"{self}: it is there")
        above, _, id = self.path.rpartition("/")
        parent = above.rpartition("/")[0] if self.of in ("port", "dhcp-binding") else None
        db.execute(
            "INSERT INTO nsx_objects (path, parent, kind, id, neutron) VALUES ($path, $parent, $kind, $id, $neutron)",
            {"path": self.path, "parent": parent, "kind": self.of, "id": id, "neutron": self.neutron},
        )

    def __str__(self) -> str:
        return f"put {self.of} {self.path} back into NSX"
