"""OVN's northbound database as pieces of a snapshot, all of one state: what in it Neutron has made, and what not.

Neutron's marks are in external_ids (neutron/common/ovn/constants.py); what has none of them is somebody else's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from cloudfsck.config import Ovn
from cloudfsck.model import Piece, Row, Scope
from cloudfsck.sources import ovsdb, service
from cloudfsck.sources.database import Unreadable
from cloudfsck.sources.ovsdb import Query, Rows

NORTHBOUND = "OVN_Northbound"

_QUERIES = (
    Query("Logical_Switch", {"name": "atom", "ports": "set", "external_ids": "map"}),
    Query(
        "Logical_Switch_Port",
        {
            "name": "atom",
            "type": "atom",
            "up": "set",
            "enabled": "set",
            "parent_name": "set",
            "tag": "set",
            "dhcpv4_options": "set",
            "dhcpv6_options": "set",
            "external_ids": "map",
        },
    ),
    Query("Logical_Router", {"name": "atom", "ports": "set", "nat": "set", "external_ids": "map"}),
    Query("Logical_Router_Port", {"name": "atom", "external_ids": "map"}),
    Query("Port_Group", {"name": "atom", "ports": "set", "external_ids": "map"}),
    Query("NAT", {"type": "atom", "external_ip": "atom", "logical_ip": "atom", "external_ids": "map"}),
    Query("DHCP_Options", {"cidr": "atom", "external_ids": "map"}),
)


def server(settings: Ovn) -> ovsdb.Server:
    return ovsdb.Server(
        tuple(settings.northbound), settings.timeout, settings.private_key, settings.certificate, settings.ca
    )


def read(settings: Ovn) -> Iterator[Piece]:
    """A piece for every table.  It never raises."""

    def ask() -> dict[str, list[dict[str, Any]]]:
        answers = ovsdb.select(server(settings), NORTHBOUND, _QUERIES)
        return _made({query.table: _whole(query, answer) for query, answer in zip(_QUERIES, answers, strict=True)})

    return service.asked("ovn", "OVN", Scope(), ask)


def _whole(query: Query, answer: Rows | None) -> tuple[Row, ...]:
    """Raises Unreadable where the server knows less than every release of OVN does."""
    if answer is None or answer.absent:
        lacks = query.table if answer is None else f"{', '.join(sorted(answer.absent))} of {query.table}"
        raise Unreadable(f"OVN's northbound database has no {lacks}: is it one?")
    return answer.rows


def _made(found: Mapping[str, tuple[Row, ...]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each of our tables."""
    switch_of = {port: one["name"] for one in found["Logical_Switch"] for port in one["ports"]}
    router_of = {part: one["name"] for one in found["Logical_Router"] for part in (*one["ports"], *one["nat"])}
    refer = Counter(
        row for one in found["Logical_Switch_Port"] for row in (*one["dhcpv4_options"], *one["dhcpv6_options"])
    )
    return {
        "ovn_switches": [
            {
                **_row(one),
                "network": _named(one, "neutron-", "neutron:network_name"),
                "ports": len(one["ports"]),
            }
            for one in found["Logical_Switch"]
        ],
        "ovn_switch_ports": [
            {
                **_row(one),
                "switch": switch_of.get(one["_uuid"]),
                "type": one["type"],
                "up": bool(one["up"] and one["up"][0]),
                # One that does not say is enabled (neutron/common/ovn/utils.py: is_lsp_enabled).
                "enabled": bool(not one["enabled"] or one["enabled"][0]),
                "parent": one["parent_name"][0] if one["parent_name"] else None,
                "tag": one["tag"][0] if one["tag"] else None,
                "port": _named(one, "", "neutron:port_name"),
                "device_owner": one["external_ids"].get("neutron:device_owner"),
                "device_id": one["external_ids"].get("neutron:device_id"),
            }
            for one in found["Logical_Switch_Port"]
        ],
        "ovn_routers": [
            {
                **_row(one),
                "router": _named(one, "neutron-", "neutron:router_name"),
                "ports": len(one["ports"]),
            }
            for one in found["Logical_Router"]
        ],
        "ovn_router_ports": [
            {
                **_row(one),
                "router": router_of.get(one["_uuid"]),
                "port": _named(one, "lrp-", "neutron:router_name"),
                "network": _network(one),
                "gateway": one["external_ids"].get("neutron:is_ext_gw") == "True",
            }
            for one in found["Logical_Router_Port"]
        ],
        "ovn_port_groups": [
            {
                **_row(one),
                "security_group": one["external_ids"].get("neutron:security_group_id"),
                "ports": len(one["ports"]),
            }
            for one in found["Port_Group"]
        ],
        "ovn_nats": [
            {
                **_nameless(one),
                "router": router_of.get(one["_uuid"]),
                "type": one["type"],
                "external_ip": one["external_ip"],
                "logical_ip": one["logical_ip"],
                "floating_ip": one["external_ids"].get("neutron:fip_id"),
                "port": one["external_ids"].get("neutron:fip_port_id"),
            }
            for one in found["NAT"]
        ],
        "ovn_dhcp_options": [
            {
                **_nameless(one),
                "subnet": one["external_ids"].get("subnet_id"),
                "port": one["external_ids"].get("port_id"),
                "network": one["external_ids"].get("neutron:network_id"),
                "cidr": one["cidr"],
                "ports": refer[one["_uuid"]],
            }
            for one in found["DHCP_Options"]
        ],
    }


def _row(one: Row) -> dict[str, Any]:
    return {**_nameless(one), "name": one["name"]}


def _nameless(one: Row) -> dict[str, Any]:
    """Of a row of a table whose rows have no name."""
    revision = one["external_ids"].get("neutron:revision_number")
    return {"uuid": one["_uuid"], "revision": int(revision) if revision and revision.isdecimal() else None}


def _named(one: Row, prefix: str, mark: str) -> str | None:
    """What of Neutron's a row is of, by its name, where Neutron has marked it."""
    name: str = one["name"]
    return name.removeprefix(prefix) if mark in one["external_ids"] and name.startswith(prefix) else None


def _network(one: Row) -> str | None:
    """The network of a router's port: what Neutron calls its name there is that of its switch."""
    switch = one["external_ids"].get("neutron:network_name")
    return switch.removeprefix("neutron-") if switch and switch.startswith("neutron-") else None
