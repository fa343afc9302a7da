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
            OR (greatest(r.created_at, r.updated_at, p.updated_at) < c.now - INTERVAL 11 MINUTE
                AND ((p.revision_number <> r.revision_number AND p.device_owner <> 'network:floatingip')
                  OR (r.revision_number = -1
                      AND ((r.resource_type = 'networks'
                            AND NOT EXISTS (SELECT 1 FROM ovn_switches o WHERE o.network = r.resource_uuid)
                            AND NOT EXISTS (SELECT 1 FROM ovn_switches o
                                              JOIN neutron_network_segments g ON g.id = o.network
                                             WHERE g.network_id = r.resource_uuid))
                        OR (r.resource_type = 'routers'
                            AND NOT EXISTS (SELECT 1 FROM ovn_routers o WHERE o.router = r.resource_uuid))
                        OR (r.resource_type = 'router_ports'
                            AND NOT EXISTS (SELECT 1 FROM ovn_router_ports o WHERE o.port = r.resource_uuid))))))
    """,
    commands=_commands,
    settle=timedelta(minutes=15),
    scenarios=(
        Scenario(
            "deleted, changed, and never made: a port, a network, a router, its port", """
            hosts cell1      c1
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  fa:01        5                -9d         -1d
                             p-2  compute:nova  s-1        ACTIVE  fa:02        1                -9d         -1d
            neutron_network_segments  id   network_id  network_type
                                      g-1  n-2         vlan
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  created_at  updated_at
                                   p-1            ports          1                 4                -9d         -2d
                                   p-2            ports          2                 -1               -9d         -
                                   p-3            ports          -                 4                -9d         -2d
                                   n-1            networks       -                 2                -9d         -2d
                                   n-2            networks       5                 -1               -9d         -2d
                                   r-1            routers        6                 -1               -9d         -2d
                                   o-1            router_ports   7                 -1               -9d         -2d
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      1      2
            """,
            finds=("p-1/ports", "p-2/ports", "p-3/ports", "n-1/networks", "n-2/networks", "r-1/routers", "o-1/router_ports")),
        Scenario(
            "never made as Neutron notes it, and there; on the switches of its segments alone; made a moment ago", """
            hosts cell1      c1
            neutron_network_segments  id   network_id  network_type
                                      g-1  n-2         vlan
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  created_at  updated_at
                                   n-1            networks       1                 -1               -9d         -2d
                                   n-2            networks       2                 -1               -9d         -2d
                                   n-3            networks       3                 -1               -9d         -10m
                                   n-4            networks       6                 2                -9d         -2d
                                   r-1            routers        4                 -1               -9d         -2d
                                   r-2            routers        7                 2                -9d         -2d
                                   o-1            router_ports   5                 -1               -9d         -2d
                                   o-2            router_ports   8                 2                -9d         -2d
                                   t-1            subnets        9                 -1               -9d         -2d
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      0      2
                             u-2   neutron-g-1  g-1      0      2
            ovn_routers      uuid  name         router  ports  revision
                             u-3   neutron-r-1  r-1     1      3
            ovn_router_ports  uuid  name     revision  router       port  network  gateway
                              u-4   lrp-o-1  3         neutron-r-1  o-1   n-1      false
            """),
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
