"""Faults of ports: what Neutron keeps when the server is gone, or has not come."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from testbed.api import Api, until
from testbed.cloud import SERVICES, Cloud
from testbed.interrupted import await_row, background, booted, die, row_locked, waiting

ROUTER = "way-out"
#: Goes by ovn_revision_numbers every five minutes, and when it begins.
MAINTENANCE = "neutron-ovn-maintenance-worker"


@dataclass(frozen=True)
class Left:
    """A server, and its port that was left."""

    server: str
    port: str


def ports(api: Api, server: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.call("network", "GET", f"/ports?device_id={server}")["ports"]
    return found


def show(api: Api, port: str) -> dict[str, Any]:
    found: dict[str, Any] = api.call("network", "GET", f"/ports/{port}")["port"]
    return found


def becomes(api: Api, port: str, status: str) -> None:
    until(f"port {port} is {status}", lambda: bool(show(api, port)["status"] == status), 60)


def own(api: Api, name: str = "") -> str:
    """A port that somebody makes for himself, before there is a server."""
    network = api.sdk.network.find_network("net0").id
    made: str = api.call("network", "POST", "/ports", {"port": {"network_id": network, "name": name}})["port"]["id"]
    return made


def deleted_in_the_database(cloud: Cloud, api: Api, host: str, name: str, count: int = 1) -> list[Left]:
    """A server with so many ports cannot be deleted, for Neutron is away; somebody loses patience and deletes its rows,
    as Nova would.

    nova-compute has ended the guest by then.
    """
    network = api.sdk.network.find_network("net0").id
    server = booted(api, name, host, networks=[{"uuid": network}] * count)
    left = [Left(server, one["id"]) for one in ports(api, server)]
    die(cloud.controller, "neutron-api")
    api.delete(server, wait=False)
    await_row(cloud, server, f"error - {host}")
    cloud.start("neutron-api")
    deleted = "SET deleted = id, deleted_at = UTC_TIMESTAMP()"
    cloud.sql("nova_cell1", f"UPDATE instances {deleted}, vm_state = 'deleted' WHERE uuid = '{server}'")
    for table in ("instance_info_caches", "virtual_interfaces", "block_device_mapping"):
        cloud.sql("nova_cell1", f"UPDATE {table} {deleted} WHERE instance_uuid = '{server}' AND deleted = 0")
    cloud.sql("nova_cell1", f"UPDATE instance_id_mappings {deleted} WHERE uuid = '{server}'")
    cloud.sql("nova_api", f"UPDATE instance_mappings SET queued_for_delete = 1 WHERE instance_uuid = '{server}'")
    cloud.sql("placement", f"DELETE FROM allocations WHERE consumer_id = '{server}'")
    for one in left:
        becomes(api, one.port, "DOWN")
    return left


def made_too_late(cloud: Cloud, api: Api, host: str, name: str) -> Left:
    """nova-compute dies in a build while Neutron is about to make the port; the server is deleted without it, and
    Neutron then makes the port all the same.

    nova-api looks for ports of the server, and there is none yet (nova/compute/api.py: _local_delete).
    """
    network = api.sdk.network.find_network("net0").id
    with row_locked(cloud, "neutron", "networks", f"id = '{network}'"):
        server = api.boot(name, host, wait=False)
        until("neutron-api waits for the row of the network", lambda: waiting(cloud) > 0, 120)
        # Meanwhile nova-compute makes the disk, and needs no port for that.
        disk = cloud.computes[host].path(f"/var/lib/nova/instances/{server}/disk")
        until("nova-compute has made the disk", disk.exists, 120)
        die(cloud.computes[host], "nova-compute")
        api.force_down(host, True)
        api.compute_becomes(host, "down")
        api.delete(server)
        assert ports(api, server) == []
    until("Neutron has made the port", lambda: len(ports(api, server)) == 1, 120)
    (port,) = (one["id"] for one in ports(api, server))
    return Left(server, port)


def not_given_back(cloud: Cloud, api: Api, host: str, name: str) -> Left:
    """neutron-api dies while nova-compute gives a port back to its owner; nova-compute goes on without.

    nova/network/neutron.py: _unbind_ports says so in its log, and no more.  Beside Nova's request the news that the
    port is down comes for the row, for the guest has ended; which of them is first does not matter, if both are there.
    """
    port = own(api, name)
    server = api.boot(name, host, networks=[{"port": port}])
    with row_locked(cloud, "neutron", "ports", f"id = '{port}'"), background(lambda: api.delete(server)):
        until("neutron-api waits for the row of the port, twice", lambda: waiting(cloud) >= 2, 120)
        die(cloud.controller, "neutron-api")
    cloud.start("neutron-api")
    becomes(api, port, "DOWN")
    return Left(server, port)


def binding_left(cloud: Cloud, api: Api, source: str, target: str, name: str) -> Left:
    """nova-conductor dies in a live migration while Neutron makes the binding on the target, and nobody goes on with
    it; somebody resets the server's state, says of the migration that it failed, and gives its allocation back.  Two
    hours pass: they are taken off what Nova says of the migration.

    nova/conductor/tasks/live_migrate.py: _execute binds on the target first, and only then tells the source.
    """
    server = booted(api, name, source)
    (port,) = (one["id"] for one in ports(api, server))
    conductors = [one for one in SERVICES if "conductor" in one]
    with row_locked(cloud, "neutron", "ports", f"id = '{port}'"):
        api.act(server, "os-migrateLive", {"host": target, "block_migration": "auto"})
        until("neutron-api waits for the row of the port", lambda: waiting(cloud) > 0, 120)
        for one in conductors:
            die(cloud.controller, one)
    bound = f"SELECT 1 FROM ml2_port_bindings WHERE port_id = '{port}' AND host = '{target}' AND status = 'INACTIVE'"
    until("Neutron has made the binding", lambda: bool(cloud.sql("neutron", bound)), 120)
    for one in conductors:
        cloud.start(one)
    api.act(server, "os-resetState", {"state": "active"})
    ((migration,),) = cloud.sql("nova_cell1", f"SELECT uuid FROM migrations WHERE instance_uuid = '{server}'")
    cloud.sql(
        "nova_cell1",
        f"UPDATE migrations SET status = 'error', updated_at = updated_at - INTERVAL 2 HOUR WHERE uuid = '{migration}'",
    )
    if cloud.sql("placement", f"SELECT 1 FROM allocations WHERE consumer_id = '{migration}'"):
        cloud.sql(
            "placement",
            f"DELETE FROM allocations WHERE consumer_id = '{server}';"
            f" UPDATE allocations SET consumer_id = '{server}' WHERE consumer_id = '{migration}'",
        )
    return Left(server, port)


def floating_ip(api: Api, port: str) -> str:
    """An address on ext that leads to a port of net0, by a router between them."""
    router = api.sdk.network.find_router(ROUTER) or api.sdk.network.create_router(
        name=ROUTER, external_gateway_info={"network_id": api.sdk.network.find_network("ext").id}
    )
    if not list(api.sdk.network.ports(device_id=router.id, device_owner="network:router_interface")):
        free = api.sdk.network.create_port(network_id=api.sdk.network.find_network("net0").id)
        api.sdk.network.add_interface_to_router(router, port_id=free.id)
    made: str = api.sdk.network.create_ip(floating_network_id=api.sdk.network.find_network("ext").id, port_id=port).id
    return made


def without_router(cloud: Cloud, api: Api) -> None:
    """Away with what `floating_ip` made, and from OVN too."""
    router = api.sdk.network.find_router(ROUTER)
    if router is None:
        return
    for one in api.sdk.network.ips():
        api.sdk.network.delete_ip(one)
    for port in api.sdk.network.ports(device_id=router.id, device_owner="network:router_interface"):
        api.sdk.network.remove_interface_from_router(router, port_id=port.id)
    api.sdk.network.delete_router(router)
    forgotten(cloud)


def forgotten(cloud: Cloud) -> None:
    """Wait until Neutron has no note any more of what it deleted in OVN.

    It may write the revision of a router's port once more while another of its workers deletes it; the row that is left
    then goes with the next round of its maintenance, five minutes later at most, or when that begins anew
    (neutron/db/ovn_revision_numbers_db.py: bump_revision, get_deleted_resources).
    """
    left = "SELECT count(*) FROM ovn_revision_numbers WHERE standard_attr_id IS NULL"
    if cloud.sql("neutron", left) != [["0"]]:
        die(cloud.controller, MAINTENANCE)
        cloud.start(MAINTENANCE)
    until("OVN has forgotten what was deleted", lambda: cloud.sql("neutron", left) == [["0"]], 330)


def forgotten_by_neutron(cloud: Cloud, api: Api) -> str:
    """A port is deleted in Neutron's database by hand, with all that Neutron's maintenance would go by."""
    port = own(api)
    cloud.sql("neutron", f"DELETE FROM ovn_revision_numbers WHERE resource_uuid = '{port}'")
    cloud.sql(
        "neutron",
        f"DELETE s FROM standardattributes s JOIN ports p ON p.standard_attr_id = s.id WHERE p.id = '{port}'",
    )
    return port


@dataclass(frozen=True)
class LookAlikes:
    """Ports that nobody may touch, and a server that some of them serve; `trunk` is its port's."""

    server: str
    trunk: str
    ports: tuple[str, ...]

    def now(self, api: Api) -> list[dict[str, Any]]:
        """All that Neutron says of them."""
        return [show(api, port) for port in self.ports]


def look_alikes(api: Api, host: str, name: str) -> LookAlikes:
    """One that its owner keeps ahead; one that only keeps an address which two servers may take over (keepalived); a
    server's, with a trunk and a subport; a load balancer's, by Octavia's amphora and by OVN; a share's."""
    network = api.sdk.network.find_network("net0").id

    def port(**body: Any) -> str:
        asked = {"port": {"network_id": network, **body}}
        made: dict[str, Any] = api.call("network", "POST", "/ports", asked)["port"]
        return str(made["id"])

    ahead, virtual = port(name="ahead"), port(name="vip")
    address = show(api, virtual)["fixed_ips"][0]["ip_address"]
    parent = port(name="parent", allowed_address_pairs=[{"ip_address": address}])
    sub = port(name="sub")
    below = [{"port_id": sub, "segmentation_type": "vlan", "segmentation_id": 101}]
    trunk = api.call("network", "POST", "/trunks", {"trunk": {"port_id": parent, "sub_ports": below}})["trunk"]["id"]
    server = api.boot(name, host, networks=[{"port": parent}])
    api.ready(server)
    balancer = str(uuid.uuid4())
    others = (
        port(name=f"octavia-lb-{balancer}", device_owner="Octavia", device_id=f"lb-{balancer}"),
        port(name=f"ovn-lb-vip-{balancer}", device_owner="ovn-lb:vip", device_id=f"lb-{balancer}"),
        port(name="share", device_owner="manila:share", device_id=str(uuid.uuid4())),
    )
    return LookAlikes(server, trunk, (ahead, virtual, parent, sub, *others))


def without_look_alikes(api: Api, made: LookAlikes) -> None:
    api.delete(made.server)
    api.call("network", "DELETE", f"/trunks/{made.trunk}")
    for port in made.ports:
        api.call("network", "DELETE", f"/ports/{port}")
