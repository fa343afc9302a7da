"""NSX-T as pieces of a snapshot: what it has of the kinds that Neutron's plugin makes there, with the plugin's marks.

Whose an object is stands in its tags (vmware_nsxlib/v3/utils.py: build_v3_tags_payload).  What has none of them is
somebody else's; what has another cloud's project is another cloud's.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cloudfsck.model import UUID, Piece, Scope
from cloudfsck.sources import service
from cloudfsck.sources.nsxapi import MANAGER, POLICY, Cluster, Json

#: How many lists of what segments have are asked for at a time; NSX answers forty (client_api_concurrency_limit).
AT_ONCE = 8

INTERFACES = "/fabric/vifs"

#: An id in a path; nothing that leads out of it.
_ID = r"(?!\.)[^/]+"


@dataclass(frozen=True)
class Kind:
    """Objects of one kind: their list, with * for the id of what they belong to, and the tags that may say what they
    are of.  Where they stand in no list of what they belong to, `owner` is the field that names it, and `owners` the
    list of those.  Only what has the field `needs` can have some."""

    name: str
    list: str
    things: Mapping[str, str]
    owner: str = ""
    owners: str = ""
    needs: str = ""

    @property
    def parent(self) -> str | None:
        """The list of what it belongs to."""
        return self.list.rpartition("/*/")[0] or None

    def path(self, id: str, parent: str | None) -> str:
        return f"{self.below(parent)}/{id}"

    def below(self, parent: str | None) -> str:
        """Its list of one parent."""
        return self.list if parent is None else parent + self.list[len(str(self.parent)) + 2 :]

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.list).replace(r"\*", _ID) + f"/{_ID}")


_NETWORK = {"os-neutron-net-id": "network"}
_PORT = {f"os-neutron-{kind}-id": "port" for kind in ("port", "rport", "dport")}
_ROUTER = {"os-neutron-router-id": "router"}
_LISTENER = {"os-lbaas-listener-id": "listener"}
_POOL = {"os-lbaas-pool-id": "pool"}
_MONITOR = {"os-lbaas-hm-id": "monitor"}

#: The load balancers of one router share a service, which is named after the first of them; who it is for stands in its
#: tags (vmware_nsx/services/lbaas/nsx_p/implementation/lb_utils.py: SERVICE_LB_TAG_SCOPE).
_SHARED = "lb-service"

#: The kinds by the API that the plugin uses; what belongs to something stands after it.
KINDS: Mapping[str, Sequence[Kind]] = {
    "policy": (
        Kind("segment", "/infra/segments", _NETWORK),
        Kind("port", "/infra/segments/*/ports", _PORT),
        Kind("dhcp-binding", "/infra/segments/*/dhcp-static-binding-configs", _PORT, needs="dhcp_config_path"),
        Kind("router", "/infra/tier-1s", _ROUTER),
        Kind("group", "/infra/domains/default/groups",
             {"os-neutron-secg-id": "security-group", "os-neutron-secgr-id": "rule"}),
        Kind("policy", "/infra/domains/default/security-policies", {"os-neutron-secg-id": "security-group"}),
        Kind("service", "/infra/services", {"os-neutron-secgr-id": "rule"}),
        Kind("dhcp-server", "/infra/dhcp-server-configs", _NETWORK),
        Kind(_SHARED, "/infra/lb-services", {"loadbalancer_id": "load-balancer"}),
        Kind("virtual-server", "/infra/lb-virtual-servers", _LISTENER),
        Kind("pool", "/infra/lb-pools", _POOL),
        Kind("monitor", "/infra/lb-monitor-profiles", _MONITOR),
    ),
    "manager": (
        Kind("segment", "/logical-switches", _NETWORK),
        Kind("port", "/logical-ports", _PORT, owner="logical_switch_id", owners="/logical-switches"),
        Kind("router", "/logical-routers", _ROUTER),
        Kind("group", "/ns-groups", {"os-neutron-secgr-id": "security-group"}),
        Kind("policy", "/firewall/sections", {"os-neutron-secgr-id": "security-group"}),
        Kind("dhcp-server", "/dhcp/servers", _NETWORK),
        # Its services bear a router's mark alone: of whose load balancers they are the plugin's own tables tell.
        Kind("virtual-server", "/loadbalancer/virtual-servers", _LISTENER),
        Kind("pool", "/loadbalancer/pools", _POOL),
        Kind("monitor", "/loadbalancer/monitors", _MONITOR),
    ),
}  # fmt: skip

BASE = {"policy": POLICY, "manager": MANAGER}


def read(cluster: Cluster, scope: Scope, progress: Callable[[str, int, int], None]) -> Iterator[Piece]:
    """A piece for every table: all that NSX has, or of a scope the objects whose paths it names, with all that belongs
    to them.  It never raises."""
    paths = None if scope.ids is None else sorted(one for one in scope.ids if one.startswith("/"))

    def ask() -> dict[str, list[dict[str, Any]]]:
        objects, attached = _everything(cluster, progress) if paths is None else _some(cluster, paths)
        return {"nsx_objects": objects, "nsx_interfaces": [_interface(one) for one in attached]}

    return service.asked("nsx", "NSX", scope, ask)


def _everything(cluster: Cluster, progress: Callable[[str, int, int], None]) -> tuple[list[dict[str, Any]], list[Json]]:
    """What is condemned first: an interface that comes meanwhile still acquits."""
    base, kinds = BASE[cluster.settings.api], KINDS[cluster.settings.api]
    rows: list[dict[str, Any]] = []
    may_have: dict[str, list[str]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for kind in kinds:
            parents = [None] if kind.parent is None else may_have[kind.name]
            lists = pool.map(
                lambda parent, kind=kind: cluster.all(base + kind.below(parent), below=parent is not None), parents
            )
            for done, (parent, many) in enumerate(zip(parents, lists, strict=True), start=1):
                progress(f"NSX: {kind.name}", done, len(parents))
                rows += [row(kind, one, parent) for one in many]
                for other in below(cluster.settings.api, kind):
                    here = [
                        kind.path(str(one["id"]), parent) for one in many if not other.needs or one.get(other.needs)
                    ]
                    may_have.setdefault(other.name, []).extend(here)
    return rows, cluster.all(MANAGER + INTERFACES)


def _some(cluster: Cluster, paths: Iterable[str]) -> tuple[list[dict[str, Any]], list[Json]]:
    base, kinds = BASE[cluster.settings.api], KINDS[cluster.settings.api]
    objects: dict[str, dict[str, Any]] = {}
    found: list[Json] = []
    for path in paths:
        if path.startswith(f"{INTERFACES}/"):
            found += interfaces(cluster, path.removeprefix(f"{INTERFACES}/"))
        for kind in kinds:
            if not kind.pattern.fullmatch(path):
                continue
            if (one := cluster.one(base + path)) is None:
                continue
            parent = None if kind.parent is None else path.rsplit("/", 2)[0]
            objects[path] = row(kind, one, parent)
            for other in below(cluster.settings.api, kind):
                rows = [row(other, each, path) for each in list_below(cluster, other, path, one)]
                objects |= {each["path"]: each for each in rows}
    return list(objects.values()), found


def interfaces(cluster: Cluster, attached: str) -> list[Json]:
    """The virtual interfaces that are attached as `attached`.  Raises Unreadable."""
    return cluster.all(MANAGER + INTERFACES, {"lport_attachment_id": attached})


def below(api: str, kind: Kind) -> list[Kind]:
    """The kinds of which an object of a kind may have some."""
    return [one for one in KINDS[api] if kind.list in (one.parent, one.owners)]


def list_below(cluster: Cluster, kind: Kind, path: str, body: Json) -> list[Json]:
    """What the object at `path` has of a kind.  Raises Unreadable."""
    base = BASE[cluster.settings.api]
    if kind.needs and not body.get(kind.needs):
        return []
    if kind.owner:
        return cluster.all(base + kind.list, {kind.owner: path.rpartition("/")[2]})
    return cluster.all(base + kind.below(path), below=True)


def row(kind: Kind, one: Json, parent: str | None) -> dict[str, Any]:
    """An object as a row of nsx_objects."""
    id = str(one["id"])
    if kind.owner and one.get(kind.owner):
        parent = f"{kind.owners}/{one[kind.owner]}"
    tags = [(tag.get("scope"), tag.get("tag")) for tag in one.get("tags") or () if isinstance(tag, Mapping)]
    of = [(kind.things[str(scope)], str(tag).lower()) for scope, tag in tags if scope in kind.things]
    thing, neutron = of[0] if len(of) == 1 and UUID.fullmatch(of[0][1]) else (None, None)
    attachment = one.get("attachment")
    return {
        "path": kind.path(id, None if kind.owner else parent),
        "parent": parent,
        "kind": kind.name,
        "id": id,
        "name": one.get("display_name"),
        "thing": thing,
        "neutron": neutron,
        "project": _only(tags, "os-project-id"),
        "plugin": _only(tags, "os-api-version"),
        "protected": _protected(kind, one, dict(tags), neutron),
        "revision": one.get("_revision"),
        "attachment": attachment.get("id") if isinstance(attachment, Mapping) else None,
        "created": _time(one.get("_create_time")),
        "changed": _time(one.get("_last_modified_time")),
    }


def _only(tags: Sequence[tuple[Any, Any]], scope: str) -> str | None:
    """The one tag of a scope; None where there is none, or more than one."""
    found = {tag for name, tag in tags if name == scope}
    return str(found.pop()) if len(found) == 1 else None


def _protected(kind: Kind, one: Json, tags: Mapping[Any, Any], neutron: str | None) -> str | None:
    """Why no program may touch an object."""
    if one.get("_system_owned"):
        return "it is NSX's own"
    if one.get("marked_for_delete"):
        return "NSX is about to delete it"
    if "os-neutron-id" in tags:
        return "it is the plugin's own, and no network's"
    if "policyPath" in tags:
        return "the Policy API made it, and deletes it"
    named = kind.list.startswith("/infra/") and kind.name != _SHARED
    if named and neutron is not None and neutron not in str(one["id"]).lower():
        return "its id is not that of Neutron's object in its tags"
    return None


def _interface(one: Json) -> dict[str, Any]:
    attachment = one.get("lport_attachment_id")
    return {
        "path": f"{INTERFACES}/{attachment}" if attachment else None,
        "attachment": attachment,
        "machine": one.get("owner_vm_id"),
        "mac": one.get("mac_address"),
    }


def _time(told: object) -> dt.datetime | None:
    """Milliseconds since 1970 as a time (UTC)."""
    return dt.datetime.fromtimestamp(told / 1000, dt.UTC).replace(tzinfo=None) if isinstance(told, int) else None
