"""The demo's network: what Neutron has for the servers of the story and beside them.  Values only.

Each project has a network with DHCP, two have a router, and some ports look as if nobody needed them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cloudfsck.demo import cloud
from cloudfsck.demo.cloud import Server, ident, project

#: What Keystone has beside the projects of the servers.
SERVICE = project("service")
DOMAIN = "default"
#: A project that Keystone has deleted, and Neutron was not told.
GONE = project("trial")
#: Where the agents for DHCP and for routers are.
AGENTS = "network1"
EXTERNAL = ident("network", "public")

_ROUTED = ("shop", "bank")
#: Servers with a floating IP, with the address of a database that fails over, and with a trunk.
_REACHED = ("web-1", "web-4", "mail-2", "api-3")
_KEPT_ALIVE = ("db-1", "db-2")
_TRUNK = "vpn-1"


@dataclass(frozen=True)
class Binding:
    host: str
    status: Literal["ACTIVE", "INACTIVE"] = "ACTIVE"
    vif: str = "ovs"


UNBOUND = (Binding("", vif="unbound"),)
_HERE = (Binding(AGENTS),)


@dataclass(frozen=True)
class Port:
    """`owner` is the kind of thing that has it, `device` which one; `beside` is another address that it may use."""

    id: str
    project: str
    network: str
    address: str
    owner: str = ""
    device: str = ""
    name: str = ""
    status: Literal["ACTIVE", "DOWN", "N/A"] = "DOWN"
    bindings: tuple[Binding, ...] = UNBOUND
    beside: str | None = None
    days: float = 60.0

    @property
    def mac(self) -> str:
        digits = uuid.UUID(self.id).hex
        return f"fa:16:3e:{digits[:2]}:{digits[2:4]}:{digits[4:6]}"


@dataclass(frozen=True)
class Router:
    name: str
    project: str
    gateway: Port
    interface: Port

    @property
    def id(self) -> str:
        return ident("router", self.name)


@dataclass(frozen=True)
class FloatingIp:
    """`port` keeps its address on the external network; `to` is the port that it leads to, by that router."""

    id: str
    project: str
    port: Port
    to: Port | None = None
    router: str | None = None


@dataclass(frozen=True)
class Network:
    """All that Neutron has, and where OVN differs.

    `networks` and `security_groups` are by owner; `trunks` are a parent and its subport.
    """

    networks: Mapping[str, str]
    security_groups: Mapping[str, str]
    ports: tuple[Port, ...]
    routers: tuple[Router, ...]
    floating_ips: tuple[FloatingIp, ...]
    trunks: Mapping[str, str]
    #: What only OVN still has; and the ports that it has lost.
    kept: tuple[Port, ...]
    lost: frozenset[str]


def network(servers: list[Server], by_hand: bool) -> Network:
    """What Neutron has for these servers; `by_hand` adds damage that no program repairs."""
    of_servers = {server.name: _of_server(server) for server in servers if server.linked}
    routers = [_router(name, nth) for nth, name in enumerate(_ROUTED)]
    floating_ips = list(_floating_ips(servers, of_servers, by_hand))
    subport = _own("lab", 3, "vpn-vlan-12", owner="trunk:subport")
    networks = {EXTERNAL: SERVICE, **{ident("network", name): project(name) for name in cloud.PROJECTS}}
    groups = {ident("security group", name): project(name) for name in cloud.PROJECTS}
    left: list[Port] = []
    if by_hand:
        networks[ident("network", "trial")] = GONE
        groups[ident("security group", "trial")] = GONE
        gone = ident("router", "media-router")
        left.append(_own("media", 1, "media-router", owner="network:router_interface", device=gone, named=False))
    ports = [
        *of_servers.values(), *(port for router in routers for port in (router.gateway, router.interface)),
        *map(_dhcp, cloud.PROJECTS), *(one.port for one in floating_ips), *_innocent(), subport, *left,
    ]  # fmt: skip
    trunks = {of_servers[_TRUNK].id: subport.id} if _TRUNK in of_servers else {}
    kept = tuple(_of_server(server) for server in servers if server.link.ovn == "kept")
    lost = frozenset(server.port for server in servers if server.link.ovn == "lost")
    return Network(networks, groups, tuple(ports), tuple(routers), tuple(floating_ips), trunks, kept, lost)


def _of_server(server: Server) -> Port:
    host = server.link.bound or server.host or ""
    bindings: tuple[Binding, ...] = (Binding(host),) if host else UNBOUND
    if host == cloud.IRONIC[0]:  # its nodes are hosts to Neutron, each by its UUID
        bindings = (Binding(cloud.IRONIC[2], vif="other"),)
    if server.link.inactive:
        bindings = (*bindings, Binding(server.link.inactive, "INACTIVE"))
    return Port(
        server.port, project(server.project), ident("network", server.project), server.address, "compute:nova",
        server.uuid, f"{server.name}-nic" if server.link.own else "", "ACTIVE" if server.runs else "DOWN", bindings,
        _address("shop", 5) if server.name in _KEPT_ALIVE else None, server.created,
    )  # fmt: skip


def _address(name: str, number: int) -> str:
    """An address that no server has: theirs end in 10 and above."""
    return f"10.{20 + cloud.PROJECTS.index(name)}.0.{number}"


def _own(name: str, number: int, what: str, owner: str = "", device: str = "", named: bool = True) -> Port:
    """A port of a project's that no server has."""
    return Port(
        ident("port", name, what), project(name), ident("network", name), _address(name, number), owner, device,
        what if named else "",
    )  # fmt: skip


def _innocent() -> Iterator[Port]:
    """What looks as if nobody needed it."""
    # Made ahead, for a server that is yet to come.
    yield _own("bank", 4, "ledger-3-nic")
    # It only keeps an address, which keepalived moves between two servers, and its owner noted for what.
    yield _own("shop", 5, "db-vip", device="keepalived")
    yield _own("shop", 6, "octavia-lb-web", owner="Octavia", device=f"lb-{ident('load balancer', 'web')}")


def _dhcp(name: str) -> Port:
    home = ident("network", name)
    # neutron/common/utils.py: get_dhcp_agent_device_id
    device = f"dhcp{uuid.uuid5(uuid.NAMESPACE_DNS, AGENTS)}-{home}"
    return Port(
        ident("port", name, "dhcp"), project(name), home, _address(name, 2), "network:dhcp", device, "", "ACTIVE", _HERE
    )  # fmt: skip


def _router(name: str, nth: int) -> Router:
    label = f"{name}-router"
    router, home = ident("router", label), ident("network", name)
    # The gateway's port is nobody's, so that no owner can change it.
    gateway = Port(
        ident("port", name, "gateway"), "", EXTERNAL, f"203.0.113.{2 + nth}", "network:router_gateway", router, "",
        "ACTIVE", _HERE,
    )  # fmt: skip
    interface = Port(
        ident("port", name, "interface"), project(name), home, _address(name, 1), "network:router_interface", router,
        "", "ACTIVE", _HERE,
    )  # fmt: skip
    return Router(label, project(name), gateway, interface)


def _floating_ips(servers: list[Server], ports: Mapping[str, Port], by_hand: bool) -> Iterator[FloatingIp]:
    owners = {server.name: server.project for server in servers}
    for nth, name in enumerate(_REACHED):
        if name in ports:
            owner = owners[name]
            yield _floating_ip(name, project(owner), nth, ports[name], ident("router", f"{owner}-router"))
    # Nothing is behind it now, and its owner keeps it.
    yield _floating_ip("spare", project("bank"), 20)
    if by_hand:
        yield _floating_ip("trial", GONE, 30)


def _floating_ip(name: str, owner: str, number: int, to: Port | None = None, router: str | None = None) -> FloatingIp:
    one = ident("floating IP", name)
    # Neutron's own port, which is nobody's.
    port = Port(
        ident("port", "floating IP", name), "", EXTERNAL, f"203.0.113.{10 + number}", "network:floatingip", one,
        status="N/A",
    )  # fmt: skip
    return FloatingIp(one, owner, port, to, router)
