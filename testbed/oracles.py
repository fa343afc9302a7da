"""The cloud's own eyes: what OpenStack's own tools say is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from testbed.cloud import Cloud
from testbed.node import Failed


def disagreements(cloud: Cloud) -> list[str]:
    """What Placement's audit, Cinder's quota check and OVN's synchronisation complain of."""
    return [*_placement(cloud), *_quotas(cloud), *_ovn(cloud)]


def unknown_guests(cloud: Cloud, host: str) -> int:
    """By how many guests nova-compute's last count of the hypervisor exceeded that of the database.

    nova/compute/manager.py: _sync_power_states warns of it, and so does this: libvirt's list less Nova's.
    """
    node = cloud.computes[host]
    there = set(node.run("virsh", "-q", "-c", "qemu:///system", "list", "--all", "--uuid").split())
    rows = cloud.sql("nova_cell1", f"SELECT uuid FROM instances WHERE deleted = 0 AND host = '{host}'")
    return len(there - {uuid for (uuid,) in rows})


def _placement(cloud: Cloud) -> Iterator[str]:
    """Allocations of consumers that Nova does not know (nova/cmd/manage.py: placement audit)."""
    try:
        cloud.openstack("nova-manage --config-file /etc/nova/nova.conf placement audit --verbose")
    except Failed as failed:  # status 3: it found some
        yield f"placement audit: {failed}"


def _quotas(cloud: Cloud) -> Iterator[str]:
    """Usages that are not what the rows add up to."""
    try:
        said = cloud.openstack("cinder-manage --config-file /etc/cinder/cinder.conf quota check")
    except Failed as failed:
        said = str(failed)
    for line in said.splitlines():
        if re.search(r"discrepanc|incorrect|not in sync|saved=", line, re.IGNORECASE):
            yield f"cinder quota: {line}"


def _ovn(cloud: Cloud) -> Iterator[str]:
    """What Neutron has and OVN has not, or the other way (neutron-ovn-db-sync-util in log mode changes nothing)."""
    tool = "/opt/openstack/bin/neutron-ovn-db-sync-util --config-file /etc/neutron/neutron.conf"
    said = cloud.controller.run("bash", "-c", f"{tool} --ovn-neutron_sync_mode log 2>&1")
    for line in said.splitlines():
        # Of every cloud without segments and private VLANs: nothing that a server, port or network leaves behind.
        usual = "SegmentHostMapping" in line or "pvlan_pg_drop" in line or "Could not load" in line
        if " WARNING " in line and "ovn_db_sync" in line and not usual:
            yield f"ovn: {line}"
