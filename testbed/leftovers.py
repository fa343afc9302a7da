"""Faults of the dead and of the double: what a host keeps when Nova has let go of it.  Each is made as it happens."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from contextlib import suppress

from testbed.api import Api, until
from testbed.cloud import Cloud
from testbed.node import Failed, Node

INSTANCES = "/var/lib/nova/instances"
VIRSH = ("virsh", "-q", "-c", "qemu:///system")


def deleted_while_host_is_down(cloud: Cloud, api: Api, host: str, name: str, *jobs: Callable[[Cloud], None]) -> str:
    """nova-compute of the host dies, the owner deletes the server, nova-compute comes back; the server's UUID.

    nova-api deletes it alone, as it does for a host that is down (nova/compute/api.py: _local_delete), and nobody ever
    tells the host.  `jobs` (archive, purge) run before it comes back, as they do every night.
    """
    server = _booted(api, name, host)
    nova_compute_dies(cloud, api, host)
    api.delete(server)
    for job in jobs:
        job(cloud)
    nova_compute_returns(cloud, api, host)
    return server


def put_back_by_hand(cloud: Cloud, api: Api, source: str, target: str, name: str) -> str:
    """A server moves live to another host, and somebody puts back on the old one what he had kept of it.

    Its definition, and a copy of its directory: what one does before a risky night, and forgets.
    """
    server = _booted(api, name, source)
    old, new = cloud.computes[source], cloud.computes[target]
    kept = old.run(*VIRSH, "dumpxml", "--inactive", server)
    api.act(server, "os-migrateLive", {"host": target, "block_migration": "auto"})
    api.arrives(server, target)
    api.becomes(server, "ACTIVE")
    until("the old host has let go of it", lambda: state(old, server) is None, 60)
    place = f"{INSTANCES}/{server}"
    until("its old directory is gone", lambda: not old.path(place).exists(), 60)
    shutil.copytree(new.path(place), old.path(place))
    old.run(*VIRSH, "define", "/dev/stdin", input=kept)
    move = f"SELECT status FROM migrations WHERE instance_uuid = '{server}'"
    until("the move is over", lambda: cloud.sql("nova_cell1", move) == [["completed"]], 60)
    two_hours_pass(cloud, server)
    return server


def two_hours_pass(cloud: Cloud, server: str) -> None:
    """Since the server's last move: within the first hour Nova may still be clearing up."""
    cloud.sql(
        "nova_cell1",
        f"UPDATE migrations SET updated_at = updated_at - INTERVAL 2 HOUR WHERE instance_uuid = '{server}'",
    )


def deleted_half_way(cloud: Cloud, api: Api, host: str, name: str) -> str:
    """nova-compute dies while it removes a directory, which it has renamed; the server's UUID.

    nova/virt/libvirt/driver.py: delete_instance_files renames it to UUID_del first.
    """
    server = _booted(api, name, host)
    node = cloud.computes[host]
    place = node.path(f"{INSTANCES}/{server}")
    for number in range(20_000):
        (place / f"core.{number}").touch()
    api.act(server, "forceDelete")
    until("it is being removed", lambda: node.path(f"{INSTANCES}/{server}_del").exists(), 60, pause=0.01)
    node.stop("nova-compute", signal.SIGKILL)
    return server


def evacuated_from_a_host_that_lives(cloud: Cloud, api: Api, source: str, target: str, name: str) -> str:
    """nova-compute of the source dies, and everybody takes the host for dead; the server's UUID.

    It is evacuated and started, and its old guest never stopped: it runs twice until nova-compute of the source
    is back.
    """
    server = _booted(api, name, source)
    nova_compute_dies(cloud, api, source)
    api.act(server, "evacuate", {"host": target})
    api.arrives(server, target)
    api.becomes(server, "ACTIVE", "SHUTOFF", seconds=180)
    if api.server(server)["status"] == "SHUTOFF":  # from API version 2.95 on it stays stopped where it arrives
        api.act(server, "os-start")
    api.becomes(server, "ACTIVE")
    return server


def deleted_while_it_is_resized(cloud: Cloud, api: Api, source: str, name: str) -> str:
    """The owner deletes a server while its disk is being copied to another host; the server's UUID.

    nova-compute of the source cleans up there, and finish_resize never runs where the copy goes: nobody removes that.
    """
    server = _booted(api, name, source)
    api.act(server, "resize", {"flavorRef": api.flavor("m1.bigger")})
    until("its disk is being moved", lambda: api.server(server)["OS-EXT-STS:task_state"] == "resize_migrating", 60)
    api.delete(server, wait=False)

    def over() -> bool:
        found = api.server(server)
        return not found or (found["status"] == "ERROR" and not found["OS-EXT-STS:task_state"])

    until("its deletion has ended", over, 120)
    if api.server(
        server
    ):  # the resize changed its allocations in the same moment, and Placement refused one of the two
        api.delete(server)
    return server


def nova_compute_returns(cloud: Cloud, api: Api, host: str) -> None:
    heard = api.last_heard(host)
    cloud.nova_compute(host)
    until(f"nova-compute of {host} reports", lambda: api.last_heard(host) > heard, 120)

    def accepted() -> bool:
        """Not before it has removed what was evacuated from it."""
        with suppress(Failed):
            api.force_down(host, False)
            return True
        return False

    until(f"Nova takes {host} for up", accepted, 120)
    api.compute_becomes(host, "up")


def whole_again(cloud: Cloud, api: Api) -> None:
    """Bring back every nova-compute that a fault has left dead."""
    for host, node in cloud.computes.items():
        if not node.serves("nova-compute"):
            nova_compute_returns(cloud, api, host)


def archive(cloud: Cloud) -> None:
    """Move the rows of deleted servers into the shadow tables; nova-manage ends with 1 when it has archived some."""
    _nova_manage(cloud, "db archive_deleted_rows --all-cells --until-complete", 1)


def purge(cloud: Cloud) -> None:
    """Empty the shadow tables, and Nova never had such servers; it ends with 3 when there is nothing to purge."""
    _nova_manage(cloud, "db purge --all --all-cells", 3)


def _nova_manage(cloud: Cloud, command: str, well: int) -> None:
    """Run it; `well` is the status, beside 0, with which it ends when all is well."""
    manage = "/opt/openstack/bin/nova-manage --config-file /etc/nova/nova.conf"
    cloud.controller.run("bash", "-c", f"{manage} {command} || [ $? = {well} ]")


def state(node: Node, server: str) -> str | None:
    """libvirt's word for the state of the server's domain on a host, in one question; None when it has none."""
    word = node.run(*VIRSH, "domstate", server, check=False).strip()
    if not word:
        node.run(*VIRSH, "version")  # fails when it is libvirt that is not there
    return word or None


def _booted(api: Api, name: str, host: str) -> str:
    server = api.boot(name, host)
    api.ready(server)
    return server


def nova_compute_dies(cloud: Cloud, api: Api, host: str) -> None:
    cloud.computes[host].stop("nova-compute", signal.SIGKILL)
    api.force_down(host, True)
    api.compute_becomes(host, "down")
