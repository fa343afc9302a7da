"""Faults of what is counted: Placement's allocations and providers, and Cinder's usage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from testbed import places
from testbed.api import Api, until
from testbed.cloud import Cloud
from testbed.interrupted import booted, die, row_locked, waiting
from testbed.leftovers import INSTANCES, VIRSH, archive, nova_compute_dies, nova_compute_returns, two_hours_pass


def allocated(api: Api, consumer: str) -> dict[str, dict[str, int]]:
    """What Placement's API tells that a consumer has, by provider."""
    told = api.call("placement", "GET", f"/allocations/{consumer}")["allocations"]
    return {provider: each["resources"] for provider, each in told.items()}


def provider(cloud: Cloud, host: str) -> str:
    """The resource provider of a host: its compute node's UUID."""
    cell = places.FAKES.get(host, "cell1")
    ((uuid,),) = cloud.sql(f"nova_{cell}", f"SELECT uuid FROM compute_nodes WHERE host = '{host}' AND NOT deleted")
    return uuid


def deleted_without_placement(cloud: Cloud, api: Api, host: str, name: str, **more: Any) -> str:
    """A server of a host that is none is deleted while placement-api and the host's nova-compute are dead, and its row
    is archived before that comes back and looks (nova/compute/resource_tracker.py:
    _remove_deleted_instances_allocations).

    nova-api deletes it alone, and goes on where it does not reach Placement (nova/scheduler/client/report.py:
    safe_connect); nova-compute itself would not.
    """
    server = booted(api, name, host, **more)
    die(cloud.controller, f"nova-{host}")
    api.force_down(host, True)
    api.compute_becomes(host, "down")
    die(cloud.controller, "placement-api")
    api.delete(server)
    archive(cloud)
    cloud.start("placement-api")
    heard = api.last_heard(host)
    cloud.start(f"nova-{host}")
    until(f"nova-compute of {host} reports", lambda: api.last_heard(host) > heard, 120)
    api.force_down(host, False)
    api.compute_becomes(host, "up")
    return server


def confirmed_without_placement(cloud: Cloud, api: Api, source: str, name: str) -> tuple[str, str]:
    """A migration is confirmed while placement-api is dead, and somebody resets the server's state, which is ERROR
    then; the server, and the migration.  Two hours pass: they are taken off what Nova says of it.

    nova/compute/manager.py: _delete_allocation_after_move is the last that the source does.
    """
    server = booted(api, name, source)
    api.act(server, "migrate")
    api.becomes(server, "VERIFY_RESIZE", seconds=240)
    die(cloud.controller, "placement-api")
    api.act(server, "confirmResize")
    move = f"FROM migrations WHERE instance_uuid = '{server}'"
    ended = f"SELECT 1 {move} AND status IN ('confirmed', 'error')"
    until("the migration has ended", lambda: bool(cloud.sql("nova_cell1", ended)), 120)
    api.becomes(server, "ERROR", seconds=120)
    cloud.start("placement-api")
    api.act(server, "os-resetState", {"state": "active"})
    ((migration,),) = cloud.sql("nova_cell1", f"SELECT uuid {move}")
    two_hours_pass(cloud, server)
    return server, migration


def evacuated_for_good(cloud: Cloud, api: Api, source: str, target: str, name: str) -> str:
    """A host dies with all that is on it, its server is evacuated, and the host is removed from Nova's database by
    hand, for it will not come back: nova-compute never frees there what the server had.

    Through its API Nova would free it (nova/scheduler/client/report.py: delete_resource_provider, LP 1829479).
    """
    server = booted(api, name, source)
    nova_compute_dies(cloud, api, source)
    node = cloud.computes[source]
    node.run(*VIRSH, "destroy", server)
    node.run(*VIRSH, "undefine", server)
    shutil.rmtree(node.path(f"{INSTANCES}/{server}"))
    api.act(server, "evacuate", {"host": target})
    api.arrives(server, target)
    api.becomes(server, "ACTIVE", "SHUTOFF", seconds=180)
    for table in ("services", "compute_nodes"):
        cloud.sql(
            "nova_cell1", f"UPDATE {table} SET deleted = id, deleted_at = UTC_TIMESTAMP() WHERE host = '{source}'"
        )
    two_hours_pass(cloud, server)
    return server


def known_again(cloud: Cloud, api: Api, host: str) -> None:
    """Take the removal of a host back."""
    for table in ("services", "compute_nodes"):
        cloud.sql("nova_cell1", f"UPDATE {table} SET deleted = 0, deleted_at = NULL WHERE host = '{host}'")
    nova_compute_returns(cloud, api, host)
    known = f"/resource_providers/{provider(cloud, host)}/inventories"
    until(f"{host} has a provider", lambda: api.sdk.placement.get(known).status_code == 200, 120)
    # It is a new one, and in no availability zone yet.
    cloud.openstack("nova-manage --config-file /etc/nova/nova.conf placement sync_aggregates")


@contextmanager
def cell_down(cloud: Cloud, cell: str) -> Iterator[None]:
    """Nobody reaches the cell's database."""
    there = f"nova_{cell}"
    change = "UPDATE cell_mappings SET database_connection = replace(database_connection, '{}', '{}') WHERE name = '{}'"
    cloud.sql("nova_api", change.format(f"/{there}", "/away", cell))
    try:
        yield
    finally:
        cloud.sql("nova_api", change.format("/away", f"/{there}", cell))


def deletion_not_counted(cloud: Cloud, api: Api, name: str) -> str:
    """cinder-volume dies when it has deleted a volume's row, and before it counts that; the volume's project.

    What it has reserved for that is in nobody's way, and the scheduler gives it up when a day is over: the day is taken
    off, and the scheduler started anew, for else it looks once a day.
    """
    volume = api.volume(name, metadata={"row": "to hold it up"})
    ((project,),) = cloud.sql("cinder", f"SELECT project_id FROM volumes WHERE id = '{volume}'")
    counted = f"project_id = '{project}' AND resource = 'volumes' AND NOT deleted"
    with ExitStack() as later:
        with row_locked(cloud, "cinder", "volume_metadata", f"volume_id = '{volume}'"):
            api.call("block_storage", "DELETE", f"/volumes/{volume}")
            until("cinder-volume deletes the row", lambda: waiting(cloud) > 0, 120)
            later.enter_context(row_locked(cloud, "cinder", "quota_usages", counted))
        row = f"SELECT 1 FROM volumes WHERE id = '{volume}' AND deleted"
        until("the row is deleted", lambda: bool(cloud.sql("cinder", row)), 60)
        until("cinder-volume counts", lambda: waiting(cloud) > 0, 60)
        die(cloud.controller, "cinder-volume")
    cloud.start("cinder-volume")
    mine = f"project_id = '{project}' AND NOT deleted"
    cloud.sql("cinder", f"UPDATE reservations SET expire = expire - INTERVAL 2 DAY WHERE {mine}")
    die(cloud.controller, "cinder-scheduler")
    cloud.start("cinder-scheduler")
    reserved = f"SELECT 1 FROM reservations WHERE {mine}"
    until("Cinder has given up what was reserved", lambda: not cloud.sql("cinder", reserved), 120)
    return project


def audit(cloud: Cloud, *words: str) -> str:
    """What Nova's own audit says, and does if it is told to (nova-manage placement audit)."""
    manage = "/opt/openstack/bin/nova-manage --config-file /etc/nova/nova.conf placement audit --verbose"
    # It ends with 3 when it has found some, and with 4 when it has deleted them.
    return cloud.controller.run("bash", "-c", f"{manage} {' '.join(words)}; case $? in 0|3|4) ;; *) exit 1 ;; esac")
