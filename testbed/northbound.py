"""Faults of OVN's northbound database: what it lost, what it kept, and who leads its cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from testbed import places, ports
from testbed.api import Api, until
from testbed.cloud import NORTHBOUND, OVN_PORTS, Cloud
from testbed.interrupted import booted, die

REMOTES = tuple(f"tcp:{places.ADDRESS}:{OVN_PORTS[name]}" for name in NORTHBOUND)

#: Neutron's tables of what it also has in OVN, by what it calls each there.
TABLES = {
    "ports": "ports",
    "networks": "networks",
    "subnets": "subnets",
    "routers": "routers",
    "security_groups": "securitygroups",
}


def ovn(cloud: Cloud, *words: str) -> str:
    """A command of ovn-nbctl's."""
    return cloud.controller.run("ovn-nbctl", "--db", ",".join(REMOTES), *words).strip()


def leader(cloud: Cloud) -> str:
    """Who leads the cluster now; somebody does, soon."""
    leads: list[str] = []

    def somebody() -> bool:
        for name in NORTHBOUND:
            if cloud.controller.serves(f"ovn-{name}"):
                said = cloud.controller.run(
                    "ovs-appctl", "-t", f"/run/ovn/{name}.ctl", "cluster/status", "OVN_Northbound", check=False
                )
                if re.search(r"^Role: leader$", said, re.MULTILINE):
                    leads.append(name)
        return bool(leads)

    until("somebody leads OVN's northbound database", somebody, 60, pause=0.1)
    return leads[0]


def leader_moves(cloud: Cloud) -> None:
    """Whoever leads dies, another one is elected, and the dead one comes back as one of those who follow."""
    name = leader(cloud)
    die(cloud.controller, f"ovn-{name}")
    until("another one leads", lambda: leader(cloud) != name, 60)
    cloud.start(f"ovn-{name}")


@dataclass(frozen=True)
class Made:
    """What somebody made for this: a network with a subnet, a router in it by a port, a security group, a port that
    nothing has, another network."""

    network: str
    subnet: str
    router: str
    interface: str
    security_group: str
    port: str
    other: str


def made(api: Api) -> Made:
    def post(kind: str, **body: object) -> str:
        one = kind.removesuffix("s").replace("-", "_")
        answer = api.call("network", "POST", f"/{kind}", {one: body})
        found: str = answer[one]["id"]
        return found

    network = post("networks", name="of-ovn")
    subnet = post("subnets", network_id=network, ip_version=4, cidr="10.99.0.0/24")
    router = post("routers", name="of-ovn")
    joined = api.call("network", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    group = post("security-groups", name="of-ovn")
    port = post("ports", network_id=network, security_groups=[group])
    return Made(network, subnet, router, joined["port_id"], group, port, post("networks", name="of-ovn-2"))


def unmade(cloud: Cloud, api: Api, made: Made) -> None:
    """Away with it, as somebody does who needs it no more, and from OVN too."""
    api.call("network", "DELETE", f"/ports/{made.port}")
    api.call("network", "PUT", f"/routers/{made.router}/remove_router_interface", {"port_id": made.interface})
    api.call("network", "DELETE", f"/routers/{made.router}")
    api.call("network", "DELETE", f"/security-groups/{made.security_group}")
    for network in (made.network, made.other):
        api.call("network", "DELETE", f"/networks/{network}")
    ports.forgotten(cloud)


def deleted_by_hand(cloud: Cloud, resource: str, kind: str, *, noted: bool) -> None:
    """Something is deleted in Neutron's database by hand; with `noted`, its maintenance can still tell."""
    if not noted:
        cloud.sql("neutron", f"DELETE FROM ovn_revision_numbers WHERE resource_uuid = '{resource}'")
    cloud.sql(
        "neutron",
        f"DELETE s FROM standardattributes s JOIN {TABLES[kind]} t ON t.standard_attr_id = s.id"
        f" WHERE t.id = '{resource}'",
    )


def lost(cloud: Cloud, made: Made) -> None:
    """Somebody removes from OVN a port, a switch, a router's port, and a security group's port group, by hand."""
    ovn(cloud, "lsp-del", made.port)
    ovn(cloud, "ls-del", f"neutron-{made.other}")
    ovn(cloud, "lrp-del", f"lrp-{made.interface}")
    ovn(cloud, "pg-del", f"pg_{made.security_group.replace('-', '_')}")


def kept(cloud: Cloud, made: Made) -> None:
    """All of it is deleted in Neutron's database by hand, and nothing tells its maintenance."""
    for kind, resource in (
        ("ports", made.interface),
        ("ports", made.port),
        ("routers", made.router),
        ("security_groups", made.security_group),
        ("subnets", made.subnet),
        ("networks", made.network),
        ("networks", made.other),
    ):
        deleted_by_hand(cloud, resource, kind, noted=False)


def aged(cloud: Cloud, resource: str, kind: str) -> None:
    """Two hours go by for something of Neutron's and for its note of it: the one thing that time would have done."""
    cloud.sql(
        "neutron",
        f"UPDATE standardattributes s JOIN {TABLES[kind]} t ON t.standard_attr_id = s.id"
        " JOIN ovn_revision_numbers r ON r.standard_attr_id = s.id"
        " SET s.created_at = s.created_at - INTERVAL 2 HOUR, s.updated_at = s.updated_at - INTERVAL 2 HOUR,"
        " r.created_at = r.created_at - INTERVAL 2 HOUR, r.updated_at = r.updated_at - INTERVAL 2 HOUR"
        f" WHERE t.id = '{resource}'",
    )


def status_lost(cloud: Cloud, api: Api, host: str, name: str) -> ports.Left:
    """Neutron did not hear that a port is up, and that was two hours ago."""
    server = booted(api, name, host)
    (port,) = (one["id"] for one in ports.ports(api, server))
    ports.becomes(api, port, "ACTIVE")
    cloud.sql("neutron", f"UPDATE ports SET status = 'DOWN' WHERE id = '{port}'")
    aged(cloud, port, "ports")
    return ports.Left(server, port)


def rows(cloud: Cloud, made: Made) -> list[str]:
    """All that OVN has of it, as ovn-nbctl lists it, but for the revisions: a subnet raises its network's in Neutron,
    and Neutron's maintenance OVN's, minutes later."""
    names = {
        "Logical_Switch": (f"neutron-{made.network}", f"neutron-{made.other}"),
        "Logical_Switch_Port": (made.port, made.interface),
        "Logical_Router": (f"neutron-{made.router}",),
        "Logical_Router_Port": (f"lrp-{made.interface}",),
        "Port_Group": (f"pg_{made.security_group.replace('-', '_')}",),
    }
    listed = (ovn(cloud, "list", table, name) for table, here in names.items() for name in here)
    return [re.sub(r'"neutron:revision_number"="\d+"', "", one) for one in listed]


def dhcp_options(cloud: Cloud, subnet: str) -> str:
    """The row of what OVN answers to DHCP in a subnet."""
    return ovn(cloud, "--bare", "--columns=_uuid", "find", "DHCP_Options", f"external_ids:subnet_id={subnet}")


def older(cloud: Cloud, network: str) -> None:
    """OVN's switch is as of an older backup: its revision is the one before the first; that was two hours ago."""
    ovn(cloud, "set", "Logical_Switch", f"neutron-{network}", 'external_ids:"neutron:revision_number"=0')
    aged(cloud, network, "networks")


def moved(cloud: Cloud, port: str, switch: str) -> None:
    """A port of OVN's is moved to another switch, by hand."""
    uuid = ovn(cloud, "--bare", "--columns=_uuid", "find", "Logical_Switch_Port", f"name={port}")
    old = ovn(cloud, "lsp-get-ls", port).partition(" ")[0]
    ovn(cloud, "remove", "Logical_Switch", old, "ports", uuid, "--", "add", "Logical_Switch", switch, "ports", uuid)


def types(cloud: Cloud, commands: Iterable[str], word: str) -> None:
    """The one command with this word that a finding names, where OVN's northbound database is."""
    (command,) = (command.partition(": ")[2] for command in commands if word in command)
    cloud.controller.run("bash", "-ec", command.replace("ovn-nbctl", f"ovn-nbctl --db={','.join(REMOTES)}"))
