"""Faults of names: what Designate's sink did not hear of, and what Neutron does not tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from uuid import UUID

from testbed import places
from testbed.api import Api
from testbed.cloud import SINK_PATIENCE, Cloud
from testbed.interrupted import booted, broker, messages
from testbed.node import await_true
from testbed.ports import floating_ip, own

#: Where the two name servers of Designate's pool listen.
SERVERS = ("5351", "5352")
ENDPOINTS = [f"{places.ADDRESS}:{port}" for port in SERVERS]
#: A zone that Designate does not have, on the first of them.
LEGACY = "legacy.test."
#: Settings of one who reads all that the name servers have of Designate's zones.
READS: Mapping[str, Mapping[str, Any]] = {
    "skip": {},
    "dns": {"servers": ENDPOINTS, "key_file": "/var/lib/bind/transfer.key"},
}
#: And of one who has that zone of his own besides.
OWNS: Mapping[str, Mapping[str, Any]] = {
    f'dns.zone."{LEGACY.rstrip(".")}"': {
        "servers": ENDPOINTS[:1],
        "names": ["{hostname}.{zone}"],
        "subnets": ["10.20.0.0/16"],
    }
}
#: The queue in which a notification waits for the sink.
NOTIFICATIONS = "notifications_designate.info"
#: Without these Designate shows nobody's records to nobody, and lets nobody change them.
POWERS = {"X-Auth-All-Projects": "true", "X-Designate-Edit-Managed-Records": "true"}

Record = tuple[str, ...]


@dataclass(frozen=True)
class Leaked:
    """A recordset that is left, and the name that it is of."""

    recordset: str
    name: str


def record_leaked(cloud: Cloud, api: Api, host: str, name: str) -> Leaked:
    """designate-sink stands still while a server is deleted, and what Nova has said of it is lost with the queue, as it
    is with every restart of the broker."""
    server = booted(api, name, host)
    await_true("its record is active", lambda: active(cloud, server), 90)
    cloud.controller.stop("designate-sink")
    api.delete(server)
    await_true("Nova has said so", lambda: any(server in one for one in messages(NOTIFICATIONS)), 30)
    broker("DELETE", f"queues/%2F/{NOTIFICATIONS}")
    cloud.start("designate-sink")
    return Leaked(records(cloud, server)[0][3], f"{name}.{places.ZONE}")


def reverse_left(cloud: Cloud, api: Api, name: str) -> tuple[Leaked, str]:
    """A floating IP is deleted, and Neutron does not tell Designate; another one has a name too, and stays.  Returns
    what is left, and the one that stays."""
    gone, stays = (floating_ip(api, own(api, f"{name}-{number}")) for number in (1, 2))
    for one in (gone, stays):
        points(api, one, f"{name}.{places.ZONE}")
    await_true("both names are active", lambda: active(cloud, gone) and active(cloud, stays), 90)
    recordset = records(cloud, gone)[0]
    api.sdk.network.delete_ip(gone)
    return Leaked(recordset[3], recordset[0]), stays


def points(api: Api, address: str, name: str | None) -> None:
    """Give a floating IP a PTR to that name, or take it away."""
    asked = {"ptrdname": name, **({"ttl": 300} if name else {})}
    answer = api.sdk.dns.patch(f"/reverse/floatingips/RegionOne:{address}", json=asked)
    assert answer.status_code == 202, answer.text


def unheard(cloud: Cloud, api: Api, host: str, gone: str, late: str) -> tuple[Leaked, str]:
    """designate-central is down while one server is deleted and another one booted: designate-sink hears of both, waits
    for central, gives up, and drops what it heard.  Returns what is left, and the server that has no name."""
    first = booted(api, gone, host)
    await_true("its record is active", lambda: active(cloud, first), 90)
    leaked = Leaked(records(cloud, first)[0][3], f"{gone}.{places.ZONE}")
    cloud.controller.stop("designate-central")
    given_up = _given_up(cloud)
    api.delete(first)
    second = booted(api, late, host)
    await_true("the sink has given up on both", lambda: _given_up(cloud) >= given_up + 2, 4 * SINK_PATIENCE, 0.5)
    cloud.start("designate-central")
    await_true("Designate answers", lambda: api.sdk.dns.get("/zones").status_code == 200, 60, 0.5)
    return leaked, second


def _given_up(cloud: Cloud) -> int:
    """How many calls of designate-sink's central did not answer: one of each message, which is dropped then."""
    log = cloud.controller.path("/var/log/designate/designate-sink.log").read_text(errors="replace")
    return len(set(re.findall("MessagingTimeout: Timed out waiting for a reply to message ID ([0-9a-f]+)", log)))


def edited(cloud: Cloud, name: str, address: str) -> None:
    """Somebody edits the file of a zone on one name server, and leaves its serial: one name leads elsewhere, and one is
    there that Designate does not have."""
    cloud.controller.stop("named-ns2")
    (file,) = cloud.controller.path("/var/lib/bind/ns2").glob(f"slave.{places.ZONE}*")
    label = name.partition(".")[0]
    lines = file.read_text().splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.split()[:1] == [label])
    words = lines[at].split()
    lines[at] = lines[at].replace(words[-1], address)
    lines.append(f"by-hand\t\tA\t{address}")
    file.write_text("\n".join(lines) + "\n")
    cloud.start("named-ns2")


def update(cloud: Cloud, *lines: str) -> None:
    """Somebody changes the zone that Designate does not have."""
    text = "\n".join([f"server {places.ADDRESS} {SERVERS[0]}", f"zone {LEGACY}", *lines, "send", ""])
    cloud.controller.run("nsupdate", "-k", "/var/lib/bind/update.key", input=text)


def active(cloud: Cloud, owner: str) -> bool:
    """Whether a server or a floating IP has one record, with nothing under way."""
    return [one[2] for one in records(cloud, owner)] == ["ACTIVE"]


def at_rest(cloud: Cloud) -> bool:
    """Whether all name servers have all that Designate has."""
    return cloud.sql("designate", "SELECT count(*) FROM records WHERE status <> 'ACTIVE'") == [["0"]]


def forgotten(cloud: Cloud, api: Api) -> None:
    """Away with the names of servers that other faults have left."""
    live = {server.id.replace("-", "") for server in api.sdk.compute.servers(all_projects=True)}
    query = "SELECT s.name, r.managed_resource_id FROM records r JOIN recordsets s ON s.id = r.recordset_id"
    for name, server in cloud.sql("designate", f"{query} WHERE r.managed_resource_type = 'instance'"):
        if server not in live:
            removed(api, name)


def records(cloud: Cloud, owner: str) -> list[list[str]]:
    """Name, data, status and recordset of the records that Designate has for a server or a floating IP."""
    query = "SELECT s.name, r.data, r.status, s.id FROM records r JOIN recordsets s ON s.id = r.recordset_id"
    return [
        [name, data, status, str(UUID(recordset))]
        for name, data, status, recordset in cloud.sql(
            "designate", f"{query} WHERE r.managed_resource_id = '{owner.replace('-', '')}'"
        )
    ]


def zone(cloud: Cloud, name: str) -> list[set[Record]]:
    """All that each name server has of a zone, its serial aside."""
    key = "/var/lib/bind/transfer.key"
    said = [
        cloud.controller.run("dig", "-k", key, "+noall", "+answer", "-p", port, f"@{places.ADDRESS}", name, "AXFR")
        for port in SERVERS
    ]
    found = [{tuple(line.split()) for line in one.splitlines() if line and line[0] != ";"} for one in said]
    return [{record for record in one if record[3] != "SOA"} for one in found]


def removed(api: Api, name: str) -> None:
    """Delete the recordset of that name, whoever made it."""
    (found,) = api.sdk.dns.get(f"/recordsets?name={name}", headers=POWERS).json()["recordsets"]
    answer = api.sdk.dns.delete(f"/zones/{found['zone_id']}/recordsets/{found['id']}", headers=POWERS)
    assert answer.status_code == 202, answer.text


def readdressed(api: Api, server: str) -> str:
    """Neutron gives the one port of a server another address, the last of its subnet, and designate-sink does not hear
    of it; that address."""
    (port,) = api.sdk.network.ports(device_id=server)
    subnet = api.sdk.network.get_subnet(port.fixed_ips[0]["subnet_id"])
    address = str(ip_network(subnet.cidr)[-2])
    api.sdk.network.update_port(port, fixed_ips=[{"subnet_id": subnet.id, "ip_address": address}])
    return address
