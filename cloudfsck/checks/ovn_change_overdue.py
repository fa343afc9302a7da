"""Neutron's maintenance has not brought OVN up to date.

Why it matters
    What was changed or deleted in Neutron is still in force in OVN, or what was made there is missing: security groups
    that no longer protect, ports without a network, addresses that stay taken.
How it comes about
    A change of Neutron's did not reach the northbound database, and the task that goes by ovn_revision_numbers every
    five minutes (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/maintenance.py: check_for_inconsistencies) has not
    mended it since: it does not run, does not get OVSDB's lock, or fails at this very object.
What the repair does
    There is none: the task mends it once it runs.  Its log, and that of who holds the lock, say why it has not.
When not to repair
    Before two of its rounds are over, ten minutes after the last change; of a deletion nobody notes when it was, so that
    begins when it is first seen.  While OVN is away: the task starts again when it is back.
"""

from collections.abc import Iterable
from datetime import timedelta

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield "on each controller: pgrep -af neutron-ovn-maintenance-worker; grep -i 'maintenance task' /var/log/neutron/*.log"
    yield f"on each controller: grep {row['resource']} /var/log/neutron/*.log"
    yield "on a controller, to see all that differs: neutron-ovn-db-sync-util --ovn-neutron_sync_mode log"


CHECK = Check(
    text=__doc__,
    accused=("neutron_ovn_revisions",),
    query="""
        SELECT r.resource_uuid || '/' || r.resource_type AS key, NULL AS server, r.resource_uuid AS resource, r.resource_type,
               r.revision_number AS in_ovn, p.revision_number AS in_neutron, r.standard_attr_id IS NULL AS deleted,
               r.created_at, r.updated_at, (SELECT count(*) FROM ovn_switches) AS switches, [r.resource_uuid] AS also,
               [] AS hosts, [] AS cells, greatest(r.created_at, r.updated_at, p.updated_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_ovn_revisions r
          JOIN clocks c ON c.table_name = 'neutron_ovn_revisions'
          LEFT JOIN neutron_ports p ON p.id = r.resource_uuid AND r.resource_type = 'ports'
         WHERE r.standard_attr_id IS NULL
            OR (p.revision_number <> r.revision_number
                AND p.device_owner <> 'network:floatingip'
                AND greatest(r.created_at, r.updated_at, p.updated_at) < c.now - INTERVAL 11 MINUTE)
    """,
    commands=_commands,
    settle=timedelta(minutes=15),
    scenarios=(
        Scenario(
            "deleted, changed, and never made", """
            hosts cell1      c1
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  fa:01        5                -9d         -1d
                             p-2  compute:nova  s-1        ACTIVE  fa:02        1                -9d         -1d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  created_at  updated_at
                                   p-1            ports          1                 4                -9d         -2d
                                   p-2            ports          2                 -1               -9d         -
                                   p-3            ports          -                 4                -9d         -2d
                                   n-1            networks       -                 2                -9d         -2d
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      1      2
            """,
            finds=("p-1/ports", "p-2/ports", "p-3/ports", "n-1/networks")),
        Scenario(
            "up to date; a floating IP's own port, which OVN never has; of another kind of thing", """
            hosts cell1      c1
            neutron_ports    id   device_owner        device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova        s-1        ACTIVE  fa:01        4                -9d         -9d
                             p-2  network:floatingip  f-1        N/A     fa:02        5                -9d         -9d
                             p-3  network:router_gateway  r-1    ACTIVE  fa:03        5                -9d         -9d
                             p-4  compute:nova        s-1        ACTIVE  fa:04        5                -9d         -10m
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  created_at  updated_at
                                   p-1            ports          1                 4                -9d         -9d
                                   p-2            ports          2                 4                -9d         -9d
                                   p-3            router_ports   3                 4                -9d         -9d
                                   p-3            ports          3                 5                -9d         -9d
                                   p-4            ports          4                 4                -9d         -9d
            """),
    ),
)  # fmt: skip
