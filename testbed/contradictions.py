"""Faults of two that differ: Nova says one thing of a server that lives, and a host, a cell or the API another."""

from __future__ import annotations

import shutil
import signal

from testbed.api import Api
from testbed.cloud import Cloud
from testbed.interrupted import await_row, booted, die, held
from testbed.leftovers import INSTANCES, VIRSH


def undefined_by_hand(cloud: Cloud, api: Api, host: str, name: str) -> str:
    """Somebody clears up on a host and takes a domain for a leftover; the server's UUID."""
    server = booted(api, name, host)
    for command in ("destroy", "undefine"):
        cloud.computes[host].run(*VIRSH, command, server)
    return server


def stopped_behind_nova(cloud: Cloud, api: Api, host: str, name: str) -> str:
    """nova-compute dies, and then the guest: nobody tells Nova."""
    server = booted(api, name, host)
    node = cloud.computes[host]
    node.stop("nova-compute", signal.SIGKILL)
    node.run(*VIRSH, "destroy", server)
    return server


def never_reclaimed(cloud: Cloud, api: Api, host: str, name: str) -> str:
    """A server was deleted softly, and three hours later it is still there: nova-compute reclaims after one.

    The hours are set back in its row: they are all that is made by hand.
    """
    server = booted(api, name, host)
    api.call("compute", "DELETE", f"/servers/{server}")
    await_row(cloud, server, f"soft-delete - {host}")
    cloud.sql("nova_cell1", f"UPDATE instances SET deleted_at = deleted_at - INTERVAL 3 HOUR WHERE uuid = '{server}'")
    return server


def half_deleted(cloud: Cloud, api: Api, host: str, name: str) -> str:
    """nova-compute dies when it has called a server deleted, and before the row is (_delete_instance)."""
    server = booted(api, name, host)
    with held(cloud.controller, "placement-api"):
        api.delete(server, wait=False)
        await_row(cloud, server, f"deleted - {host}")
        die(cloud.computes[host], "nova-compute")
    return server


def mapped_to_another_cell(cloud: Cloud, api: Api, host: str, name: str) -> str:
    """Somebody maps the servers of the wrong cell (nova-manage cell_v2 map_instances after a mapping was lost)."""
    server = booted(api, name, host)
    cell = "(SELECT id FROM cell_mappings WHERE name = 'cell2')"
    cloud.sql("nova_api", f"UPDATE instance_mappings SET cell_id = {cell} WHERE instance_uuid = '{server}'")
    return server


def carried_by_hand(cloud: Cloud, api: Api, source: str, target: str, server: str) -> None:
    """Somebody carries a stopped server to another host, and tells only Nova's database of it."""
    old, new = cloud.computes[source], cloud.computes[target]
    api.act(server, "os-stop")
    api.becomes(server, "SHUTOFF", seconds=180)
    kept = old.run(*VIRSH, "dumpxml", "--inactive", server)
    old.run(*VIRSH, "undefine", server)
    shutil.move(old.path(f"{INSTANCES}/{server}"), new.path(f"{INSTANCES}/{server}"))
    new.run(*VIRSH, "define", "/dev/stdin", input=kept)
    cloud.sql(
        "nova_cell1",
        "UPDATE instances i JOIN compute_nodes n SET i.host = n.host, i.node = n.hypervisor_hostname,"
        f" i.compute_id = n.id WHERE i.uuid = '{server}' AND n.host = '{target}' AND NOT n.deleted",
    )


def host_forgotten(cloud: Cloud, api: Api, host: str, name: str) -> str:
    """A host of cell2 is scrapped, and removed from Nova's database by hand: the API refuses to while it has servers.

    Bugs 1763183 and 1852610 are why it does.
    """
    server = booted(api, name, host)
    cloud.controller.stop(f"nova-{host}")
    for table in ("services", "compute_nodes"):
        cloud.sql("nova_cell2", f"UPDATE {table} SET deleted = id WHERE host = '{host}'")
    return server


def host_known_again(cloud: Cloud, api: Api, host: str) -> None:
    """Take `host_forgotten` back."""
    for table in ("services", "compute_nodes"):
        cloud.sql("nova_cell2", f"UPDATE {table} SET deleted = 0 WHERE host = '{host}' AND deleted = id")
    cloud.start(f"nova-{host}")
    api.compute_becomes(host, "up")
