"""A simulator of VMware NSX-T on the loopback: its Policy and its Manager API over one store, and faults as ordered.

What it knows of NSX is what vmware-nsxlib 19.4.3 asks and expects; the real client drives it in test_nsx_simulator.py.
Where the client says nothing, it refuses rather than lets pass: a query argument that it does not know, a path to what
is not there, the deletion of what still has children.

    with Nsx(managers=2) as nsx:
        nsx.load("infra/segments", [{"id": "a", "display_name": "one", "tags": [...]}])
        nsx.fault(503, kind="infra/segments", page=2)
        ... a client of nsx.urls, as nsx.ADMIN ...
        assert nsx.counts["GET", "infra/segments"] == 3
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import hashlib
import json
import re
import secrets
import socket
import ssl
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qs, parse_qsl, unquote

from .programs import INSTALLER, REPOSITORY, Missing, need, run

Json = dict[str, Any]
Word = Literal["again", "bad-cursor", "close", "expire", "half", "hang", "html", "no-cursor", "null-cursor"]
Does = int | tuple[int, int] | Word

CLIENT = REPOSITORY / ".venv-nsx"
LOCK = REPOSITORY / "tests" / "nsx-requirements.txt"

POLICY = "policy/api/v1/"
MANAGER = "api/v1/"
MOST = 1000  # objects on one page

# Each collection and the resource type of what is in it, unless an object says another.
KINDS: Mapping[str, str] = dict(
    line.split()
    for line in """\
infra/domains Domain
infra/domains/*/groups Group
infra/domains/*/security-policies SecurityPolicy
infra/domains/*/security-policies/*/rules Rule
infra/domains/*/gateway-policies GatewayPolicy
infra/domains/*/gateway-policies/*/rules Rule
infra/services Service
infra/services/*/service-entries L4PortSetServiceEntry
infra/segments Segment
infra/segments/*/ports SegmentPort
infra/segments/*/ports/*/port-security-profile-binding-maps PortSecurityProfileBindingMap
infra/segments/*/ports/*/port-discovery-profile-binding-maps PortDiscoveryProfileBindingMap
infra/segments/*/ports/*/port-qos-profile-binding-maps PortQoSProfileBindingMap
infra/segments/*/segment-security-profile-binding-maps SegmentSecurityProfileBindingMap
infra/segments/*/segment-discovery-profile-binding-maps SegmentDiscoveryProfileBindingMap
infra/segments/*/segment-qos-profile-binding-maps SegmentQoSProfileBindingMap
infra/segments/*/dhcp-static-binding-configs DhcpV4StaticBindingConfig
infra/tier-0s Tier0
infra/tier-0s/*/locale-services LocaleServices
infra/tier-0s/*/locale-services/*/interfaces Tier0Interface
infra/tier-0s/*/nat/*/nat-rules PolicyNatRule
infra/tier-0s/*/static-routes StaticRoutes
infra/tier-1s Tier1
infra/tier-1s/*/locale-services LocaleServices
infra/tier-1s/*/locale-services/*/interfaces Tier1Interface
infra/tier-1s/*/nat/*/nat-rules PolicyNatRule
infra/tier-1s/*/static-routes StaticRoutes
infra/tier-1s/*/segments Segment
infra/tier-1s/*/segments/*/ports SegmentPort
infra/dhcp-server-configs DhcpServerConfig
infra/dhcp-relay-configs DhcpRelayConfig
infra/metadata-proxies MetadataProxyConfig
infra/ip-blocks IpAddressBlock
infra/ip-pools IpAddressPool
infra/ip-pools/*/ip-allocations IpAddressAllocation
infra/ip-pools/*/ip-subnets IpAddressPoolStaticSubnet
infra/segment-security-profiles SegmentSecurityProfile
infra/spoofguard-profiles SpoofGuardProfile
infra/ip-discovery-profiles IPDiscoveryProfile
infra/mac-discovery-profiles MacDiscoveryProfile
infra/qos-profiles QosProfile
infra/ipv6-ndra-profiles Ipv6NdraProfile
infra/certificates TlsCertificate
infra/lb-services LBService
infra/lb-virtual-servers LBVirtualServer
infra/lb-pools LBPool
infra/lb-app-profiles LBHttpProfile
infra/lb-monitor-profiles LBHttpMonitorProfile
infra/lb-persistence-profiles LBSourceIpPersistenceProfile
infra/lb-client-ssl-profiles LBClientSslProfile
infra/lb-server-ssl-profiles LBServerSslProfile
infra/sites Site
infra/sites/*/enforcement-points EnforcementPoint
infra/sites/*/enforcement-points/*/transport-zones PolicyTransportZone
infra/sites/*/enforcement-points/*/edge-clusters PolicyEdgeCluster
logical-switches LogicalSwitch
logical-ports LogicalPort
logical-routers LogicalRouter
logical-routers/*/nat/rules NatRule
logical-routers/*/routing/static-routes StaticRoute
logical-router-ports LogicalRouterDownLinkPort
switching-profiles SpoofGuardSwitchingProfile
ns-groups NSGroup
firewall/sections FirewallSection
firewall/sections/*/rules FirewallRule
ip-sets IPSet
dhcp/servers LogicalDhcpServer
dhcp/servers/*/static-bindings DhcpStaticBinding
dhcp/server-profiles DhcpProfile
dhcp/relays DhcpRelayService
md-proxies MetadataProxy
pools/ip-pools IpPool
pools/ip-blocks IpBlock
pools/ip-subnets IpBlockSubnet
transport-zones OverlayTransportZone
transport-nodes TransportNode
edge-clusters EdgeCluster
bridge-endpoints BridgeEndpoint
bridge-clusters BridgeCluster
mirror-sessions PortMirroringSession
loadbalancer/services LbService
loadbalancer/virtual-servers LbVirtualServer
loadbalancer/pools LbPool
loadbalancer/monitors LbHttpMonitor
loadbalancer/rules LbRule
loadbalancer/application-profiles LbHttpProfile
loadbalancer/persistence-profiles LbSourceIpPersistenceProfile
loadbalancer/client-ssl-profiles LbClientSslProfile
loadbalancer/server-ssl-profiles LbServerSslProfile
fabric/virtual-machines VirtualMachine
fabric/vifs VirtualNetworkInterface
cluster/nodes ClusterNodeConfig
""".splitlines()
)
SINGLES: Mapping[str, str] = {
    "infra/settings/firewall/security/exclude-list": "PolicyExcludeList",
    "infra/global-config": "GlobalConfig",
}
READ_ONLY = {"fabric/virtual-machines", "fabric/vifs", "cluster/nodes", "infra/sites", "transport-nodes"}

# Children that come and go with their parent, in one body with it.
WITHIN: Mapping[str, tuple[str, str]] = {
    "infra/domains/*/security-policies": ("rules", "rules"),
    "infra/domains/*/gateway-policies": ("rules", "rules"),
    "infra/services": ("service-entries", "service_entries"),
}
# What only the server sets.
OWN = {
    "_create_time", "_create_user", "_last_modified_time", "_last_modified_user", "_protection", "_revision",
    "_system_owned", "marked_for_delete", "parent_path", "path", "relative_path", "unique_id",
}  # fmt: skip

# Query arguments that narrow a list of the Manager API, and where in an object they look.
FILTERS: Mapping[str, tuple[str, ...]] = {
    "attachment_id": ("attachment", "id"),
    "attachment_type": ("attachment", "attachment_type"),
    "logical_router_id": ("logical_router_id",),
    "logical_switch_id": ("logical_switch_id",),
    "lport_attachment_id": ("lport_attachment_id",),
    "owner_vm_id": ("owner_vm_id",),
    "resource_type": ("resource_type",),
    "router_type": ("router_type",),
}
LISTING = {"cursor", "page_size", "include_mark_for_delete_objects", "populate_references"}
WRITING = {"action", "cascade", "detach", "force", "id", "operation", "populate_references", "skip_host_detach"}
REFERRING = {"target_id", "logical_switch_id", "logical_router_id", "dhcp_profile_id", "pool_id"}
REFERRING_TO_MANY = {"virtual_server_ids", "active_monitor_ids"}
SERVICES = {"DHCP_SERVICE", "METADATA_PROXY", "LOGICALROUTER"}
# The Policy object, its shadow in the Manager API, and what realization calls that.
SHADOWS: Mapping[str, tuple[str, str]] = {
    "infra/segments": ("logical-switches", "RealizedLogicalSwitch"),
    "infra/segments/*/ports": ("logical-ports", "RealizedLogicalPort"),
    "infra/tier-1s": ("logical-routers", "RealizedLogicalRouter"),
}


class Refused(Exception):
    """A request that NSX answers with an error."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(f"{status}/{code}: {message}")
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Place:
    """What a path names: a collection, or with `id` one object of it; `kind` is the path with * for every id."""

    kind: str
    collection: str
    id: str | None

    @property
    def key(self) -> str:
        return self.collection if self.id is None else f"{self.collection}/{self.id}"

    @property
    def name(self) -> str:
        return self.kind if self.id is None or self.kind in SINGLES else f"{self.kind}/*"


@dataclass(frozen=True)
class Asked:
    """One request as it was answered; `kind` is the path without its API, with * for every id; `page` counts from 1."""

    manager: int
    method: str
    target: str
    kind: str
    page: int
    user: str | None
    status: int


@dataclass
class Fault:
    does: Does | Callable[[], None]
    method: str | None
    kind: str | None
    page: int | None
    times: int


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    how: Literal["whole", "half", "html", "close"] = "whole"


@dataclass
class _Collection:
    kind: str
    objects: dict[str, Json] = field(default_factory=dict)
    order: list[tuple[str, str]] | None = None

    def sorted(self) -> list[tuple[str, str]]:
        if self.order is None:
            self.order = sorted((str(one.get("display_name", "")), id) for id, one in self.objects.items())
        return self.order


@dataclass(frozen=True)
class _Request:
    method: str
    api: str
    place: Place
    query: dict[str, str]
    body: Any
    user: str
    overwrites: bool


class Nsx:
    """A cluster of NSX managers as a context manager; whatever is set on it holds from the next request on.

    `directory` is needed for TLS alone: `ca` is the authority's file there, `certificate` and `key` those of a client
    that the managers know as the principal identity PRINCIPAL.
    """

    ADMIN: ClassVar = ("admin", "VMware1!VMware1!")
    AUDITOR: ClassVar = ("audit", "VMware1!VMware1!")  # may read, and nothing else
    PRINCIPAL: ClassVar = "openstack"

    def __init__(self, directory: Path | None = None, managers: int = 1, tls: bool = False) -> None:
        self.version = "4.1.2.3.0.23382408"
        self.page_size = MOST  # of a list that asks for no other
        self.paging: Literal["key", "offset"] = "key"  # by offset a page skips an object if one before it is deleted
        self.last_cursor: Literal["absent", "empty", "null"] = "absent"  # what the last page has for one
        self.rate = 100  # requests that one manager answers in a second, as NSX is installed; 0 is without end
        self.refuses = 0  # of so many requests one is refused for haste, however slow they come; 0: of none
        self.concurrency = 40  # requests that one manager answers at a time
        self.delay = 0.0  # seconds that each request takes
        self.pending_delete = 0.0  # seconds that the id of a deleted Policy object stays taken; see end_pending()
        self.stale = 412  # what a PUT with an old _revision is told; 409 is the other
        self.shadows = False  # make the Manager API's object of each segment, port and tier-1 that comes from now on
        self.realization: dict[str, str] = {}  # of a path, where it is not REALIZED: UNREALIZED, ERROR
        self.asked: list[Asked] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.faults: list[Fault] = []
        self.broken: list[BaseException] = []  # what went wrong here, and not as ordered; raised at the end
        self.ca = self.certificate = self.key = Path()
        self._heard = 0
        self._lock = threading.RLock()
        self._collections: dict[str, _Collection] = {}
        self._children: dict[str, set[str]] = {}
        self._users: dict[str, set[str]] = {}  # by what is referred to: Policy by its key, Manager by its id
        self._refers: dict[str, set[str]] = {}
        self._pending: dict[str, tuple[float, Json]] = {}
        self._shadow: dict[str, str] = {}
        self._changes = 0
        self._found: dict[tuple[str, str], tuple[int, list[Json]]] = {}
        self._index: dict[str, list[Json]] | None = None
        self._directory = directory
        self._tls = tls
        self.managers = tuple(Manager(self, number) for number in range(managers))
        self.load("infra/domains", [{"id": "default", "display_name": "default"}])
        self.load("infra/sites", [{"id": "default", "display_name": "default"}])
        self.load("infra/sites/default/enforcement-points", [{"id": "default", "display_name": "default"}])
        for key in SINGLES:
            parent, _, name = key.rpartition("/")
            self.load(parent, [{"id": name, "display_name": name}])

    def __enter__(self) -> Self:
        context = self._context() if self._tls else None
        try:
            for manager in self.managers:
                manager.context = context
                manager.up()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        address = "127.0.0.1"
        self.load("cluster/nodes", [{
            "id": str(uuid.uuid4()), "display_name": f"manager-{manager.number}", "manager_role": {
                "api_listen_addr": {"ip_address": address, "port": manager.port},
                "mgmt_cluster_listen_addr": {"ip_address": address, "port": manager.port}}}
            for manager in self.managers])  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for manager in self.managers:
            manager.down()
        if self.broken and kind is None:
            raise self.broken[0]

    @property
    def urls(self) -> list[str]:
        return [manager.url for manager in self.managers]

    @property
    def writes(self) -> list[tuple[str, str]]:
        """Every request that could have changed something, logins and searches aside."""
        return [
            (one.method, one.target)
            for one in self.asked
            if one.method != "GET" and not one.kind.startswith(("api/session/", "search", "infra/realized-state/"))
        ]

    def load(self, collection: str, objects: Iterable[Json]) -> None:
        """Put objects there as if they had been there all along, whatever they refer to; theirs is what they say.

        Raises ValueError for a collection that NSX does not have, or whose parent is not there.
        """
        with self._lock:
            kind = _kind(collection)
            parent = self._parent(collection)
            if parent is not None and self._find(parent) is None:
                raise ValueError(f"{parent} is not there")
            for one in objects:
                # A virtual interface has no id of its own.
                name = str(one.get("id") or one.get("external_id") or uuid.uuid4())
                if "id" in one or "external_id" not in one:
                    one = {"id": name, **one}
                self._store(Place(kind, collection, name), self._made(kind, collection, name, one, "system") | one)

    def get(self, key: str) -> Json | None:
        """One object, say infra/segments/a or logical-switches/b."""
        with self._lock:
            return self._find(key)

    def all(self, collection: str) -> list[Json]:
        with self._lock:
            return [*self._at(collection).objects.values()] if collection in self._collections else []

    def contents(self) -> dict[str, str]:
        """Every object that there is, by its key, whole: two that are the same are so to the last byte."""
        with self._lock:
            return {
                f"{at}/{id}": json.dumps(one, sort_keys=True)
                for at, collection in self._collections.items() for id, one in collection.objects.items()
            }  # fmt: skip

    def change(self, key: str, **fields: Any) -> None:
        """Change an object as somebody else does: it has a new revision."""
        with self._lock:
            place = _placed(key)
            old = self._find(key)
            assert place is not None
            assert old is not None, key
            self._store(place, old | fields | {"_revision": old.get("_revision", 0) + 1})

    def remove(self, key: str) -> None:
        """Take an object away with all that is below it, whoever needs it."""
        with self._lock:
            self._drop(key)

    def end_pending(self) -> None:
        """Every id of what was deleted is free again."""
        with self._lock:
            self._pending.clear()

    def expire_sessions(self) -> None:
        for manager in self.managers:
            manager.sessions.clear()

    def freeze_search(self) -> None:
        """From now on the search tells what is there now: its index is behind."""
        with self._lock:
            self._index = {api: self._everything(api) for api in (POLICY, MANAGER)}
            self._found.clear()

    def thaw_search(self) -> None:
        with self._lock:
            self._index = None
            self._found.clear()

    def fault(
        self,
        does: Does | Callable[[], None],
        method: str | None = "GET",
        kind: str | None = None,
        page: int | None = None,
        times: int = 1,
    ) -> None:
        """Let the next `times` requests of that method, kind and page (from 1) fail, each fault once per request.

        A number is a status, two are a status and an error_code. `expire` ends all sessions before the request is
        heard, a function is called then, and the list may change in it. `again` answers the page before once more,
        which then leads on to this one; `no-cursor` and `null-cursor` leave out what follows, `bad-cursor` does not
        know the cursor any more; `half` breaks off amid the answer, `html` is somebody else's answer, `hang` and
        `close` are none.
        """
        self.faults.append(Fault(does, method, kind, page, times))

    def _context(self) -> ssl.SSLContext:
        need("NSX", "openssl")
        assert self._directory is not None, "TLS needs a directory"
        at = self._directory.resolve()
        at.mkdir(parents=True, exist_ok=True)
        (at / "server.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        (at / "client.ext").write_text("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")
        new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        sign = "openssl x509 -req -days 30 -CA ca.pem -CAkey ca.key -CAcreateserial"
        for command in (
            f"{new} -x509 -days 30 -subj /CN=authority -keyout ca.key -out ca.pem",
            f"{new} -subj /CN=nsx -keyout server.key -out server.csr",
            f"{sign} -extfile server.ext -in server.csr -out server.pem",
            f"{new} -subj /CN={self.PRINCIPAL} -keyout client.key -out client.csr",
            f"{sign} -extfile client.ext -in client.csr -out client.pem",
        ):
            words = command.split()
            run([at / word if word.endswith((".pem", ".key", ".csr", ".ext")) else word for word in words])
        self.ca, self.certificate, self.key = at / "ca.pem", at / "client.pem", at / "client.key"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(at / "server.pem", at / "server.key")
        context.load_verify_locations(self.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _taken(self, method: str, kind: str, page: int) -> Does | Callable[[], None] | None:
        """The first fault that is meant for this request; it is then one less."""
        with self._lock:
            for fault in self.faults:
                if (
                    fault.method in (None, method)
                    and fault.kind in (None, kind)
                    and fault.page in (None, page)
                    and fault.times > 0
                ):
                    fault.times -= 1
                    return fault.does
        return None

    def _answer(self, request: _Request, does: Does | None) -> Reply:
        with self._lock:
            kind = request.place.kind
            if request.api == MANAGER and kind.startswith("infra/"):
                raise Refused(404, 404, f"There is no {kind} in the Manager API.")
            if request.method != "GET" and kind in READ_ONLY:
                raise Refused(405, 405, f"{request.method} is not supported.")
            answers = {
                "GET": lambda: self._list(request, does) if request.place.id is None else self._one(request),
                "PATCH": lambda: self._patch(request),
                "PUT": lambda: self._put(request),
                "POST": lambda: self._post(request),
                "DELETE": lambda: self._delete(request),
            }
            return answers[request.method]()

    def _one(self, request: _Request) -> Reply:
        _known(request.query, {"populate_references"})
        return Reply(200, self._told(request.place, self._existing(request.place), one=True))

    def _list(self, request: _Request, does: Does | None) -> Reply:
        query, place = request.query, request.place
        _known(query, LISTING | (FILTERS.keys() if request.api == MANAGER else set()))
        parent = self._parent(place.collection)
        if parent is not None and self._find(parent) is None:
            raise self._invalid(parent) if request.api == POLICY else self._absent(parent)
        size = query.get("page_size", str(self.page_size))
        if not size.isdecimal() or not 1 <= int(size) <= MOST:
            raise Refused(400, 255, f"page_size has to be a number from 1 to {MOST}.")
        collection = self._collections.get(place.collection) or _Collection(place.kind)
        order: list[tuple[str, str]] = collection.sorted()
        if query.get("include_mark_for_delete_objects") == "true":
            marked = {key: one for key, (_, one) in self._still_pending() if key.rpartition("/")[0] == place.collection}
            gone = {key.rpartition("/")[2]: one for key, one in marked.items()}
            collection = _Collection(place.kind, {**collection.objects, **gone})
            order = collection.sorted()
        wanted = {name: value for name, value in query.items() if name in FILTERS}
        if wanted:
            order = [at for at in order if _fits(collection.objects[at[1]], wanted)]
        cursor = _Cursor.read(query.get("cursor", ""))
        if does == "bad-cursor":
            raise Refused(400, 255, "The cursor is not valid.")
        here, number = cursor.at, cursor.page
        if does == "again" and number > 1:
            here, number = cursor.before, number - 1
        first = here if isinstance(here, int) else bisect.bisect_right(order, tuple(here))
        last = first + int(size)
        results = [self._told(place, collection.objects[id]) for _, id in order[first:last]]
        body: Json = {"results": results, "sort_by": "display_name", "sort_ascending": True}
        if number == 1:
            body["result_count"] = len(order)
        if last < len(order):
            after = last if self.paging == "offset" else order[last - 1]
            body["cursor"] = _Cursor(number + 1, after, here).written()
        elif self.last_cursor != "absent":
            body["cursor"] = "" if self.last_cursor == "empty" else "0000"
        if does == "no-cursor":
            body.pop("cursor", None)
        if does == "null-cursor":
            body["cursor"] = "0000" + body.get("cursor", "")[4:]
        return Reply(200, body)

    def _put(self, request: _Request) -> Reply:
        place = self._named(request)
        old = self._find(place.key)
        if old is None:
            if request.api == MANAGER:
                raise self._absent(place.key)
            return Reply(200, self._create(request, place, request.body))
        if request.body.get("_revision") != old["_revision"]:
            raise self._outdated(place.key)
        self._owned(request, old)
        return Reply(200, self._update(request, place, old, {}))

    def _patch(self, request: _Request) -> Reply:
        if request.api == MANAGER:
            raise Refused(405, 405, "PATCH is not supported.")
        place = self._named(request)
        old = self._find(place.key)
        if old is None:
            self._create(request, place, request.body)
        else:
            self._owned(request, old)
            self._update(request, place, old, old)
        return Reply(200)

    def _post(self, request: _Request) -> Reply:
        """Only the Manager API creates so; what else it does by POST, it calls an action."""
        _known(request.query, WRITING)
        if request.api == POLICY:
            raise Refused(405, 405, "POST is not supported.")
        place, body, action = request.place, request.body, request.query.get("action")
        if place.id is not None:
            return self._act(request, place, action)
        if place.kind == "firewall/sections/*/rules":
            rules = body["rules"] if action == "create_multiple" else [body]
            made = self._add_rules(request, place.collection, rules)
            return Reply(201, {"rules": made} if action == "create_multiple" else made[0])
        rules = body.pop("rules", []) if place.kind == "firewall/sections" else []
        name = str(body.get("id") or uuid.uuid4())
        told = self._create(request, Place(place.kind, place.collection, name), body)
        if rules:
            made = self._add_rules(request, f"{place.collection}/{name}/rules", rules)
            told = {**self._at(place.collection).objects[name], "rules": made}
        return Reply(201, told)

    def _act(self, request: _Request, place: Place, action: str | None) -> Reply:
        old = self._existing(place)
        self._owned(request, old)
        if place.kind == "ns-groups" and action in ("ADD_MEMBERS", "REMOVE_MEMBERS"):
            given = request.body["members"]
            members = [one for one in old.get("members", []) if one not in given]
            changed = {**old, "members": members + given if action == "ADD_MEMBERS" else members}
            return Reply(200, self._update(request, place, old, changed, {}))
        if place.kind == "firewall/sections" and action == "update_with_rules":
            if request.body.get("_revision") != old["_revision"]:
                raise self._outdated(place.key)
            rules = request.body.pop("rules")
            for rule in [*self._collections.get(f"{place.key}/rules", _Collection("")).objects]:
                self._drop(f"{place.key}/rules/{rule}")
            told = self._update(request, place, old, {})
            for rule in rules:
                rule.pop("_revision", None)
            return Reply(200, {**told, "rules": self._add_rules(request, f"{place.key}/rules", rules)})
        raise Refused(405, 405, f"There is no action {action} on {place.kind}.")

    def _add_rules(self, request: _Request, collection: str, rules: list[Json]) -> list[Json]:
        """A rule has the revision of its section, and a new one is a new revision of it."""
        section = _sure(collection.removesuffix("/rules"))
        old = self._existing(section)
        if any(rule.get("_revision", old["_revision"]) != old["_revision"] for rule in rules):
            raise self._outdated(section.key)
        revision = old["_revision"] + 1
        self._store(section, {**old, "_revision": revision})
        for name, rule in self._at(collection).objects.items():
            self._store(Place("firewall/sections/*/rules", collection, name), {**rule, "_revision": revision})
        made = []
        for rule in rules:
            name = str(rule.get("id") or uuid.uuid4().int % 10**6)
            place = Place("firewall/sections/*/rules", collection, name)
            self._create(request, place, rule)
            self._store(place, {**self._existing(place), "_revision": revision})
            made.append(self._told(place, self._existing(place)))
        return made

    def _delete(self, request: _Request) -> Reply:
        _known(request.query, WRITING if request.api == MANAGER else {"force"})
        place = self._named(request)
        if place.kind in SINGLES:
            raise Refused(405, 405, "DELETE is not supported.")
        old = self._existing(place)
        self._owned(request, old)
        if old.get("_system_owned"):
            raise Refused(403, 289, f"{place.key} belongs to the system.")
        if request.api == POLICY:
            self._free_in_policy(place)
        else:
            said = {name for name, value in request.query.items() if value.lower() == "true"}
            self._free_in_manager(place, old, said)
        self._drop(place.key)
        if request.api == POLICY and self.pending_delete:
            self._pending[place.key] = (time.monotonic() + self.pending_delete, {**old, "marked_for_delete": True})
        return Reply(200)

    def _free_in_policy(self, place: Place) -> None:
        """Refuse to delete what others need; in Policy no argument overrules that."""
        children = [
            child
            for collection in self._children.get(place.key, ())
            for child in self._at(collection).objects
            if collection.rpartition("/")[2] != WITHIN.get(place.kind, ("",))[0]
        ]
        if place.kind.endswith("/segments"):
            ports = self._collections.get(f"{place.key}/ports", _Collection("")).objects
            if attached := sum(1 for port in ports.values() if (port.get("attachment") or {}).get("id")):
                raise Refused(400, 503040, f"Segment {place.key} still has {attached} VMs or VIFs.")
        users = sorted(user for user in self._users.get(place.key, ()) if not user.startswith(f"{place.key}/"))
        if children or users:
            others = ",".join(f"/{user}" for user in users[:10])
            raise Refused(
                400, 500030, f"The object path=[/{place.key}] cannot be deleted as either it has children or it is"
                f" being referenced by other objects path=[{others}]."
            )  # fmt: skip

    def _free_in_manager(self, place: Place, old: Json, said: set[str]) -> None:
        """Refuse to delete what others need, unless the argument says so that is made for it."""
        users = self._users.get(str(place.id), set())
        in_use = Refused(400, 500030, f"{place.key} is in use by {', '.join(sorted(users)[:10]) or 'what it holds'}.")
        match place.kind:
            case "logical-switches":
                ports = [user for user in users if user.startswith("logical-ports/")]
                attached = [port for port in ports if (self._find(port) or {}).get("attachment")]
                if (ports and "cascade" not in said) or (attached and "detach" not in said):
                    raise in_use
                for port in ports:
                    self._drop(port)
            case "logical-ports":
                if old.get("attachment") and "detach" not in said:
                    raise in_use
            case "firewall/sections":
                if self._children.get(place.key) and "cascade" not in said:
                    raise in_use
            case "ns-groups" | "logical-routers" | "ip-sets" | "pools/ip-pools":
                if users and "force" not in said:
                    raise in_use
                for port in [user for user in users if user.startswith("logical-router-ports/")]:
                    self._drop(port)
            case _:
                if users:
                    raise in_use

    def _special(self, method: str, api: str, path: str, query: dict[str, str], body: Any) -> Reply | None:
        """What is no collection and no object; None if this is not there either."""
        match method, path:
            case "GET", "node" if api == MANAGER:
                return Reply(200, {"node_version": self.version, "product_version": self.version})
            case "GET", "node/version" if api == MANAGER:
                return Reply(200, {"node_version": self.version, "product_version": self.version})
            case "GET", "node/services/http" if api == MANAGER:
                limits = {"client_api_rate_limit": self.rate, "client_api_concurrency_limit": self.concurrency}
                return Reply(200, {"service_name": "http", "service_properties": limits})
            case "GET", "spec/vmware/types/Tag":
                return Reply(200, {"properties": {"scope": {"maxLength": 128}, "tag": {"maxLength": 256}}})
            case "GET", "spec/vmware/types/ManagedResource":
                return Reply(200, {"properties": {"tags": {"maxItems": 15}}})
            case "GET", "search" | "search/query":
                return Reply(200, self._searched(api, query.get("query", ""), query))
            case "POST", "search/querypipeline":
                return Reply(200, self._searched(api, body["query_pipeline"][0]["query"], query))
            case _, _ if api == POLICY and path.startswith("infra/realized-state/"):
                return self._realized(method, path.removeprefix("infra/realized-state/"), query)
        return None

    def _realized(self, method: str, what: str, query: dict[str, str]) -> Reply | None:
        intent = query.get("intent_path", "")
        with self._lock:
            place = _placed(intent.removeprefix("/"))
            if place is None or self._find(place.key) is None:
                raise self._invalid(intent.removeprefix("/"))
            state = self.realization.get(intent, "REALIZED")
            match method, what:
                case "GET", "realized-entities":
                    entity = {"state": state, "intent_paths": [intent], "entity_type": "Realized"}
                    if place.kind in SHADOWS:
                        entity["entity_type"] = SHADOWS[place.kind][1]
                    if place.key in self._shadow:
                        entity["realization_specific_identifier"] = self._shadow[place.key].rpartition("/")[2]
                    return Reply(200, {"results": [entity], "result_count": 1})
                case "GET", "status":
                    told = {"REALIZED": "SUCCESS", "UNREALIZED": "IN_PROGRESS", "ERROR": "ERROR"}[state]
                    return Reply(200, {"intent_path": intent, "consolidated_status": {"consolidated_status": told}})
                case "POST", "realized-entity":
                    return Reply(204)
        return None

    def _searched(self, api: str, query: str, arguments: dict[str, str]) -> Json:
        """One page of a search: its cursor is an offset, and it has one on the last page too."""
        _known(arguments, {"query", "sort_by", "cursor", "page_size"})
        with self._lock:
            changes, found = self._found.get((api, query), (-1, []))
            if changes != self._changes:
                fits = _search(query)
                everything = self._everything(api) if self._index is None else self._index[api]
                found = sorted(filter(fits, everything), key=lambda one: str(one.get("id")))
                self._found[api, query] = (self._changes, found)
            size, first = int(arguments.get("page_size", self.page_size)), int(arguments.get("cursor", "0"))
            results = found[first : first + size]
            return {"results": results, "result_count": len(found), "cursor": str(first + len(results))}

    def _everything(self, api: str) -> list[Json]:
        return [
            one
            for key, collection in self._collections.items()
            if key.startswith("infra") == (api == POLICY)
            for one in collection.objects.values()
        ]

    def _create(self, request: _Request, place: Place, body: Json) -> Json:
        assert place.id is not None
        if place.key in dict(self._still_pending()):
            raise Refused(400, 500045, f"The object path=[/{place.key}] is marked for deletion.")
        parent = self._parent(place.collection)
        if parent is not None and self._find(parent) is None:
            raise self._invalid(parent) if request.api == POLICY else self._absent(parent)
        within, body = self._apart(place, body)
        self._sound(request, place, body, within)
        given = {name: value for name, value in body.items() if name not in OWN and value is not None}
        made = self._made(place.kind, place.collection, place.id, given, request.user)
        self._store(place, made)
        self._put_within(request, place, within, whole=False)
        return self._told(place, made, one=True)

    def _update(self, request: _Request, place: Place, old: Json, base: Json, body: Json | None = None) -> Json:
        """Replace an object by `base` and what the request says, under its own name and history."""
        within, body = self._apart(place, request.body if body is None else body)
        self._sound(request, place, body, within)
        given = {name: value for name, value in body.items() if name not in OWN and value is not None}
        kept = {name: value for name, value in old.items() if name in OWN | {"id", "resource_type"}}
        changed = {"_last_modified_time": _now(), "_last_modified_user": request.user}
        changed["_revision"] = old["_revision"] + 1
        new = {**base, "resource_type": old.get("resource_type"), **given, **kept, **changed}
        self._store(place, new)
        self._put_within(request, place, within, whole=request.method == "PUT")
        return self._told(place, new, one=True)

    def _apart(self, place: Place, body: Json) -> tuple[list[Json] | None, Json]:
        """The children that are said in their parent's body, and the rest of it."""
        if place.kind not in WITHIN:
            return None, body
        name = WITHIN[place.kind][1]
        return body.get(name), {key: value for key, value in body.items() if key != name}

    def _put_within(self, request: _Request, place: Place, within: list[Json] | None, whole: bool) -> None:
        if within is None:
            return
        collection = f"{place.key}/{WITHIN[place.kind][0]}"
        kind = f"{place.kind}/*/{WITHIN[place.kind][0]}"
        if whole:
            for name in {*self._collections.get(collection, _Collection("")).objects} - {one["id"] for one in within}:
                self._drop(f"{collection}/{name}")
        for one in within:
            child = Place(kind, collection, str(one.get("id") or uuid.uuid4()))
            old = self._find(child.key)
            if old is None:
                self._create(request, child, one)
            else:
                self._update(request, child, old, {} if whole else old, one)

    def _made(self, kind: str, collection: str, id: str, given: Json, user: str) -> Json:
        made: Json = {"resource_type": KINDS.get(kind) or SINGLES[f"{collection}/{id}"], "display_name": id, **given}
        if "external_id" not in given:
            made["id"] = id
        if collection.startswith("infra"):
            parent = f"/{collection}".rpartition("/")[0]
            made |= {"path": f"/{collection}/{id}", "relative_path": id, "parent_path": parent}
            made |= {"unique_id": str(uuid.uuid4()), "marked_for_delete": False}
        now = _now()
        protection = "REQUIRE_OVERRIDE" if user in (self.PRINCIPAL, "nsx_policy") else "NOT_PROTECTED"
        made |= {"_create_time": now, "_create_user": user, "_last_modified_time": now, "_last_modified_user": user}
        return made | {"_system_owned": False, "_protection": protection, "_revision": 0}

    def _store(self, place: Place, new: Json) -> None:
        """An object is never changed, but replaced, so that an answer can be written without the lock."""
        assert place.id is not None
        collection = self._at(place.collection)
        old = collection.objects.get(place.id)
        collection.objects[place.id] = new
        if old is None or old.get("display_name") != new.get("display_name"):
            collection.order = None
        self._changes += 1
        refers = _references(new, place.collection.startswith("infra"))
        for gone in self._refers.get(place.key, set()) - refers:
            self._users[gone].discard(place.key)
        for target in refers:
            self._users.setdefault(target, set()).add(place.key)
        if refers:
            self._refers[place.key] = refers
        else:
            self._refers.pop(place.key, None)
        if (self.shadows or place.key in self._shadow) and place.kind in SHADOWS:
            self._cast(place, new)

    def _cast(self, place: Place, new: Json) -> None:
        """The Manager API's object that stands for a Policy object."""
        collection = SHADOWS[place.kind][0]
        name = self._shadow.setdefault(place.key, f"{collection}/{uuid.uuid4()}").rpartition("/")[2]
        tags = [*new.get("tags", []), {"scope": "policyPath", "tag": new["path"]}]
        body: Json = {"id": name, "display_name": new.get("display_name"), "tags": tags, "admin_state": "UP"}
        if collection == "logical-ports":
            body["logical_switch_id"] = self._shadow.get(str(self._parent(place.collection)), "/").rpartition("/")[2]
            body["address_bindings"] = new.get("address_bindings", [])
            if (new.get("attachment") or {}).get("id"):
                body["attachment"] = {"attachment_type": "VIF", "id": new["attachment"]["id"]}
        if collection == "logical-routers":
            body["router_type"] = "TIER1"
        made = self._made(collection, collection, name, body, "nsx_policy")
        self._store(Place(collection, collection, name), {**made, "_revision": new["_revision"]})

    def _drop(self, key: str) -> None:
        """Take an object away, with all below it."""
        parent, _, name = key.rpartition("/")
        for collection in [*self._children.get(key, ())]:
            for child in [*self._at(collection).objects]:
                self._drop(f"{collection}/{child}")
        collection = self._at(parent)
        del collection.objects[name]
        collection.order = None
        self._changes += 1
        if not collection.objects:
            del self._collections[parent]
            above = self._parent(parent)
            if above is not None:
                self._children[above].discard(parent)
        for target in self._refers.pop(key, set()):
            self._users[target].discard(key)
        if shadow := self._shadow.pop(key, None):
            with contextlib.suppress(KeyError):
                self._drop(shadow)

    def _at(self, collection: str) -> _Collection:
        if collection not in self._collections:
            self._collections[collection] = _Collection(_kind(collection))
            if (parent := self._parent(collection)) is not None:
                self._children.setdefault(parent, set()).add(collection)
        return self._collections[collection]

    def _find(self, key: str) -> Json | None:
        parent, _, name = key.rpartition("/")
        return self._collections[parent].objects.get(name) if parent in self._collections else None

    def _existing(self, place: Place) -> Json:
        found = self._find(place.key)
        if found is None:
            raise self._absent(place.key)
        return found

    def _parent(self, collection: str) -> str | None:
        """The object that a collection belongs to; the NAT sections of a router are no objects of their own."""
        parts = collection.split("/")
        for length in range(len(parts) - 1, 1, -1):
            if _pattern(parts[: length - 1]) is not None:
                return "/".join(parts[:length])
        return None

    def _still_pending(self) -> list[tuple[str, tuple[float, Json]]]:
        now = time.monotonic()
        self._pending = {key: one for key, one in self._pending.items() if one[0] > now}
        return [*self._pending.items()]

    def _told(self, place: Place, stored: Json, one: bool = False) -> Json:
        """An object as it is told: rules only where their policy is asked for by itself."""
        if place.kind not in WITHIN or (place.kind != "infra/services" and not one):
            return stored
        collection, name = WITHIN[place.kind]
        children = self._collections.get(f"{place.collection}/{stored['id']}/{collection}", _Collection(""))
        return {**stored, name: [*children.objects.values()]}

    def _named(self, request: _Request) -> Place:
        if request.place.id is None:
            raise Refused(405, 405, f"{request.method} is not supported on a collection.")
        return request.place

    def _owned(self, request: _Request, old: Json) -> None:
        """What a principal identity made is not others' to change, unless they say so."""
        protected = old.get("_protection") == "REQUIRE_OVERRIDE" and old.get("_create_user") != request.user
        if protected and not request.overwrites:
            raise Refused(
                403, 289, f"Principal '{request.user}' attempts to delete or modify an object of type"
                f" {old.get('resource_type')} it doesn't own. (createUser={old.get('_create_user')},"
                " allowOverwrite=null)"
            )  # fmt: skip

    def _sound(self, request: _Request, place: Place, body: Json, within: list[Json] | None) -> None:
        """Refuse what refers to what is not there, before any of it is stored."""
        if request.api == POLICY:
            for target in sorted(_references([body, within], policy=True)):
                named = _placed(target)
                if named is not None and named.key != place.key and self._find(target) is None:
                    raise self._invalid(target)
            return
        for name, collection in {
            "logical_switch_id": "logical-switches",
            "logical_router_id": "logical-routers",
        }.items():
            if name in body and self._find(f"{collection}/{body[name]}") is None:
                raise self._absent(f"{collection}/{body[name]}")

    def _absent(self, key: str) -> Refused:
        if key.startswith("infra"):
            return Refused(404, 600, f"The requested object : /{key} could not be found.")
        return Refused(404, 202, f"The requested object : {key} could not be found.")

    def _invalid(self, key: str) -> Refused:
        return Refused(400, 500012, f"The path=[/{key}] is invalid")

    def _outdated(self, key: str) -> Refused:
        return Refused(self.stale, 604, f"The object {key} is out of date. Fetch the latest copy and retry.")


class Manager:
    """One manager of the cluster: it shares the objects, and has its own port, sessions and limits."""

    def __init__(self, nsx: Nsx, number: int) -> None:
        self.number = number
        self.healthy = True
        self.sessions: dict[str, tuple[str, str]] = {}  # user and token, by JSESSIONID
        self.context: ssl.SSLContext | None = None
        self.port = 0
        self.nsx = nsx
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.let_go = threading.Event()  # what hangs here waits for it
        self.deaf = threading.Event()  # every connection is broken: nobody hears it any more
        self._recent: deque[float] = deque()
        self._active = 0

    @property
    def url(self) -> str:
        return f"{'http' if self.context is None else 'https'}://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Take connections, at the port it always had."""
        if self._server is None:
            self.let_go.clear()
            self.deaf.clear()
            self._server = _Server(self)
            self.port = self._server.server_address[1]
            serve = self._server.serve_forever
            self._thread = threading.Thread(target=serve, kwargs={"poll_interval": 0.02}, name=f"NSX {self.port}")
            self._thread.start()

    def down(self) -> None:
        """Break every connection, forget every session, and refuse new connections."""
        server, self._server = self._server, None
        if server is not None:
            self.let_go.set()
            server.shutdown()
            server.break_all()
            self.deaf.set()
            server.server_close()
            assert self._thread is not None
            self._thread.join()
            self.sessions.clear()

    def respond(
        self, method: str, target: str, headers: Mapping[str, str], data: bytes, certificate: str | None
    ) -> Reply:
        """Answer one request, and note it."""
        nsx = self.nsx
        path, _, rest = target.partition("?")
        query = dict(parse_qsl(rest, keep_blank_values=True))
        path = path.strip("/")
        api = next((api for api in (POLICY, MANAGER) if path.startswith(api)), "")
        path = path.removeprefix(api)
        place = _placed(path) if api else None
        kind = path if place is None else place.name
        page = _Cursor.number(query.get("cursor", ""))
        user: str | None = None
        reply = Reply(500)
        try:
            with self._within_limits():
                if nsx.delay:
                    time.sleep(nsx.delay)
                does = nsx._taken(method, kind, page)
                if callable(does):
                    does()
                    does = None
                match does:
                    case int():
                        raise Refused(does, does, HTTPStatus(does).phrase)
                    case (int(status), int(code)):
                        raise Refused(status, code, HTTPStatus(status).phrase)
                    case "expire":
                        nsx.expire_sessions()
                    case "hang" | "close":
                        if does == "hang":
                            self.let_go.wait(60)
                        reply = Reply(0, how="close")
                        return reply
                if (method, path) == ("POST", "api/session/create"):
                    user, reply = self._login(data)
                    return reply
                if (method, path) == ("POST", "api/session/destroy"):
                    self.sessions.pop(_jsessionid(headers), None)
                    reply = Reply(200)
                    return reply
                user = self._user(headers, certificate)
                reply = self._routed(method, api, path, place, query, headers, data, user, does)
                if does in ("half", "html"):
                    reply = Reply(reply.status, reply.body, reply.headers, "half" if does == "half" else "html")
                return reply
        except Refused as error:
            module = "policy" if api == POLICY else "common-services"
            name = HTTPStatus(error.status).name
            body = {"httpStatus": name, "error_code": error.code, "module_name": module, "error_message": error.message}
            reply = Reply(error.status, body)
            return reply
        finally:
            with nsx._lock:
                nsx.asked.append(Asked(self.number, method, target, kind, page, user, reply.status))
                nsx.counts[method, kind] += 1

    def _routed(
        self,
        method: str,
        api: str,
        path: str,
        place: Place | None,
        query: dict[str, str],
        headers: Mapping[str, str],
        data: bytes,
        user: str,
        does: Does | None,
    ) -> Reply:
        nsx = self.nsx
        if (method, api, path) == ("GET", MANAGER, "reverse-proxy/node/health"):
            return Reply(200, {"healthy": self.healthy})
        try:
            body = json.loads(data) if data else None
        except ValueError as error:
            raise Refused(400, 400, "This is not JSON.") from error
        searches = path.startswith(("search", "infra/realized-state/"))
        if method != "GET" and user == nsx.AUDITOR[0] and not searches:
            raise Refused(403, 401, "User is not authorized to perform this operation on the application.")
        special = nsx._special(method, api, path, query, body)
        if special is not None:
            return special
        if place is None:
            raise Refused(404, 404, f"{path} is no resource of this API.")
        if method in ("PUT", "PATCH", "POST") and not isinstance(body, dict):
            raise Refused(400, 400, "The body has to be an object.")
        overwrites = headers.get("X-Allow-Overwrite", "").lower() == "true"
        return nsx._answer(_Request(method, api, place, query, body, user, overwrites), does)

    @contextlib.contextmanager
    def _within_limits(self) -> Iterator[None]:
        nsx = self.nsx
        with nsx._lock:
            now = time.monotonic()
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            nsx._heard += 1
            if (nsx.rate and len(self._recent) >= nsx.rate) or (nsx.refuses and nsx._heard % nsx.refuses == 0):
                raise Refused(429, 102, f"The client exceeded the request rate of {nsx.rate} per second.")
            if nsx.concurrency and self._active >= nsx.concurrency:
                raise Refused(503, 101, f"The client exceeded the limit of {nsx.concurrency} concurrent requests.")
            self._recent.append(now)
            self._active += 1
        try:
            yield
        finally:
            with nsx._lock:
                self._active -= 1

    def _login(self, data: bytes) -> tuple[str, Reply]:
        form = parse_qs(data.decode(), keep_blank_values=True)
        user, password = (form.get(name, [""])[0] for name in ("j_username", "j_password"))
        self._check(user, password)
        session, token = secrets.token_hex(16).upper(), str(uuid.uuid4())
        self.sessions[session] = (user, token)
        cookie = f"JSESSIONID={session}; Path=/; HttpOnly" + ("" if self.context is None else "; Secure")
        return user, Reply(200, None, {"Set-Cookie": cookie, "X-XSRF-TOKEN": token})

    def _user(self, headers: Mapping[str, str], certificate: str | None) -> str:
        """Who asks. A session counts before a password that comes with it, and that before a certificate."""
        if session := _jsessionid(headers):
            user, token = self.sessions.get(session, ("", ""))
            if not user or headers.get("X-XSRF-TOKEN") != token:
                raise Refused(403, 98, "The X-XSRF-TOKEN is not valid.")
            return user
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            try:
                user, _, password = base64.b64decode(given).decode().partition(":")
            except ValueError:
                user = password = ""
            self._check(user, password)
            return user
        if certificate == self.nsx.PRINCIPAL:
            return certificate
        raise Refused(403, 403, "The credentials were incorrect or the account specified has been locked.")

    def _check(self, user: str, password: str) -> None:
        if (user, password) not in (self.nsx.ADMIN, self.nsx.AUDITOR):
            raise Refused(403, 403, "The credentials were incorrect or the account specified has been locked.")


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", manager.port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.manager.context is not None:
            # The handshake is made in a thread of its own: a client that is silent must not hold up the others.
            connection = self.manager.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def break_all(self) -> None:
        for each in [*self._open]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or does not trust us, is no fault of ours; anything else is."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.manager.nsx.broken.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _any(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        manager = self.server.manager
        headers = _Headers(self.headers.items())
        reply = manager.respond(self.command, self.path, headers, data, self._certificate())
        if reply.how == "close":
            self.close_connection = True
            return
        told = b"" if reply.body is None else json.dumps(reply.body).encode()
        kind = "application/json"
        if reply.how == "html":
            told, kind = b"<html><body>Please log in to the proxy.</body></html>", "text/html"
        self.send_response(reply.status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(told)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.how == "half":
            told = told[: len(told) // 2]
            self.close_connection = True
        self.wfile.write(told)

    def _certificate(self) -> str | None:
        if not isinstance(self.connection, ssl.SSLSocket):
            return None
        subject: Any = (self.connection.getpeercert() or {}).get("subject", ())
        return next((value for part in subject for name, value in part if name == "commonName"), None)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any


class _Headers(dict[str, str]):
    """Names of headers are the same in any case."""

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        super().__init__((name.lower(), value) for name, value in items)

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


@dataclass(frozen=True)
class _Cursor:
    """Where a page begins, and where the one before it began: after a name and id, or at an offset."""

    page: int
    at: Any
    before: Any

    def written(self) -> str:
        told = base64.urlsafe_b64encode(json.dumps([self.page, self.at, self.before]).encode()).decode().rstrip("=")
        return f"{len(told):04d}{told}"

    @classmethod
    def read(cls, told: str) -> _Cursor:
        if not told or told.startswith("0000"):
            return cls(1, 0, 0)
        try:
            data = told[4:]
            return cls(*json.loads(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))))
        except (TypeError, ValueError) as error:
            raise Refused(400, 255, "The cursor is not valid.") from error

    @classmethod
    def number(cls, told: str) -> int:
        try:
            return cls.read(told).page
        except Refused:
            return 1


def client_python() -> Path:
    """The Python that has the real client, vmware-nsxlib; raises Missing where it is not installed."""
    stamp = CLIENT / "lock.sha256"
    if not stamp.exists() or stamp.read_text().strip() != hashlib.sha256(LOCK.read_bytes()).hexdigest():
        raise Missing(f"NSX's client: .venv-nsx is not there, or not of today's lock ({INSTALLER} makes it)")
    return CLIENT / "bin" / "python"


def tags(**scopes: str) -> list[dict[str, str]]:
    """Tags as the plugins set them: _ stands for - in a scope."""
    return [{"scope": scope.replace("_", "-"), "tag": tag} for scope, tag in scopes.items()]


_BY_LENGTH: dict[int, list[tuple[list[str], str]]] = {}
for _name in KINDS:
    _BY_LENGTH.setdefault(_name.count("/") + 1, []).append((_name.split("/"), _name))


def _pattern(parts: list[str]) -> str | None:
    """The kind of collection that a path names, if any."""
    for pattern, kind in _BY_LENGTH.get(len(parts), ()):
        if all(one in ("*", part) for one, part in zip(pattern, parts, strict=True)):
            return kind
    return None


def _kind(collection: str) -> str:
    kind = _pattern(collection.split("/"))
    if kind is None and any(single.rpartition("/")[0] == collection for single in SINGLES):
        return next(single for single in SINGLES if single.rpartition("/")[0] == collection)
    if kind is None:
        raise ValueError(f"NSX has no collection {collection}")
    return kind


def _placed(path: str) -> Place | None:
    parts = [unquote(part) for part in path.split("/")]
    if path in SINGLES:
        return Place(path, "/".join(parts[:-1]), parts[-1])
    if (kind := _pattern(parts)) is not None:
        return Place(kind, "/".join(parts), None)
    if len(parts) > 1 and (kind := _pattern(parts[:-1])) is not None:
        return Place(kind, "/".join(parts[:-1]), parts[-1])
    return None


def _sure(path: str) -> Place:
    place = _placed(path)
    assert place is not None, path
    return place


def _known(query: dict[str, str], known: Iterable[str]) -> None:
    if unknown := set(query) - set(known):
        raise Refused(400, 255, f"There are no query arguments {', '.join(sorted(unknown))}.")


def _references(given: Any, policy: bool) -> set[str]:
    """What an object refers to: in Policy by any path, in the Manager API by the fields that do."""
    found: set[str] = set()
    waiting = [given]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            if policy and one.startswith("/infra/"):
                found.add(one[1:])
        elif isinstance(one, dict):
            for name, value in one.items():
                if name in OWN or name == "tags":
                    continue
                if not policy and name in REFERRING_TO_MANY:
                    found |= set(map(str, value or ()))
                elif policy or isinstance(value, dict | list):
                    waiting.append(value)
                elif name in REFERRING or (name == "id" and one.get("attachment_type") in SERVICES):
                    found.add(str(value))
    return found


def _fits(one: Json, wanted: dict[str, str]) -> bool:
    for name, value in wanted.items():
        found: Any = one
        for step in FILTERS[name]:
            found = (found or {}).get(step)
        if str(found) != value:
            return False
    return True


def _search(query: str) -> Callable[[Json], bool]:
    """The part of the search's grammar that the client writes: field:value AND field:(value OR value), \\ escapes."""
    conditions: list[tuple[list[str], list[str]]] = []
    for condition in re.split(r"\s+AND\s+", query.strip()):
        name, colon, value = condition.partition(":")
        if not colon:
            raise Refused(400, 60500, f"The query has no field: {condition}")
        values = value[1:-1].split(" OR ") if value.startswith("(") else [value]
        conditions.append((name.split("."), [re.sub(r"\\(.)", r"\1", one.strip().strip('"')) for one in values]))

    def fits(one: Json) -> bool:
        return all(any(told in values for told in _values(one, steps)) for steps, values in conditions)

    return fits


def _values(found: Any, steps: list[str]) -> Iterator[str]:
    if isinstance(found, list):
        for each in found:
            yield from _values(each, steps)
    elif steps and isinstance(found, dict):
        if steps[0] in found:
            yield from _values(found[steps[0]], steps[1:])
    elif not steps:
        yield str(found).lower() if isinstance(found, bool) else str(found)


def _jsessionid(headers: Mapping[str, str]) -> str:
    found = re.search(r"JSESSIONID=([^;\s]+)", headers.get("Cookie", ""))
    return found[1] if found else ""


def _now() -> int:
    return int(time.time() * 1000)
