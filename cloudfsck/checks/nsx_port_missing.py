"""Neutron has a server's port that NSX does not have.

Why it matters
    The server is cut off, or will be as soon as it starts.
How it comes about
    Somebody deleted it in NSX, or NSX was restored from an older backup, and Neutron's plugin looks at neither: it has
    no maintenance that compares the two.
What the repair does
    There is none: only Neutron's plugin knows how to make it.  Detach the port from the server and attach it, or
    another, again: that makes it anew.
When not to repair
    While NSX is being restored from a backup.  Where Neutron works with ML2, which alone has segments, nothing of it is
    looked for in NSX.  While its server is being built, moved or deleted.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_missing("port", row)


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        SELECT p.port AS key, p.server, p.port, p.name, p.project, p.network, p.mac, p.status, p.bound_to, p.revision, p.created_at,
               p.updated_at, w.paths, list_concat([p.port, p.network], w.paths, s.paths) AS also,
               [] AS hosts, [l.cell] AS cells, p.changed AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM server_ports p
          JOIN live_servers l ON l.server = p.server
          JOIN nsx_missing w ON w.neutron = p.port
          JOIN nsx_present s ON s.neutron = p.network
         WHERE p.vif_type NOT IN ('unbound', 'binding_failed')
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = p.server)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "in neither API; on a network that was there before", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted
                             cell1  s-1   c1    0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            neutron_networks  id   name  revision_number  created_at  updated_at
                              n-1  net0  2                -9d         -9d
                              n-2  net0  2                -9d         -9d
            neutron_ports    id   device_owner  device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  n-1         fa:01        4                -9d         -9d
                             p-2  compute:nova  s-1        ACTIVE  n-2         fa:02        4                -9d         -9d
            neutron_port_bindings  port_id  host  status  vif_type
                                   p-1      c1    ACTIVE  ovs
                                   p-2      c1    ACTIVE  ovs
            neutron_nsx_port_mappings  neutron_id  nsx_port_id
                                       p-2         x-22
            neutron_nsx_network_mappings  neutron_id  nsx_id
                                          n-2         x-2
            nsx_objects  path                           parent               kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-1            -                    segment  n-1  network  n-1      t-1      17      0
                         /logical-switches/x-2          -                    segment  x-2  network  n-2      t-1      17      0
                         /infra/segments/n-1/ports/p-9  /infra/segments/n-1  port     p-9  port     p-9      t-1      17      0
            """,
            finds=("p-1", "p-2")),
        Scenario(
            "Neutron works with ML2", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted
                             cell1  s-1   c1    0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            neutron_networks  id   name  revision_number  created_at  updated_at
                              n-9  net0  2                -9d         -9d
            neutron_ports    id   device_owner  device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  n-9         fa:01        4                -9d         -9d
            neutron_port_bindings  port_id  host  status  vif_type
                                   p-1      c1    ACTIVE  ovs
            neutron_network_segments  id   network_id
                                      z-1  n-8
            nsx_objects  path                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-9  segment  n-9  network  n-9      t-1      17      0
            """),
        Scenario(
            "in one of them; not bound, or in vain; of a server under way, of a router; its network is not there either", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  task_state
                             cell1  s-1   c1    0        -
                             cell1  s-2   c1    0        rebuilding
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
            neutron_networks  id   name  revision_number  created_at  updated_at
                              n-1  net0  2                -9d         -9d
                              n-2  net1  2                -9d         -9d
                              n-3  net2  2                -9d         -9d
            neutron_ports    id   device_owner              device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova              s-1        ACTIVE  n-1         fa:01        4                -9d         -9d
                             p-2  compute:nova              s-1        ACTIVE  n-2         fa:02        4                -9d         -9d
                             p-3  compute:nova              s-1        DOWN    n-1         fa:03        4                -9d         -9d
                             p-4  compute:nova              s-1        DOWN    n-1         fa:04        4                -9d         -9d
                             p-5  compute:nova              s-2        ACTIVE  n-1         fa:05        4                -9d         -9d
                             p-6  network:router_interface  r-1        ACTIVE  n-1         fa:06        4                -9d         -9d
                             p-7  compute:nova              s-1        ACTIVE  n-3         fa:07        4                -9d         -9d
                             p-8  compute:nova              s-1        ACTIVE  n-1         fa:08        4                -9d         -9d
            neutron_port_bindings  port_id  host  status  vif_type
                                   p-1      c1    ACTIVE  ovs
                                   p-2      c1    ACTIVE  ovs
                                   p-3      -     ACTIVE  unbound
                                   p-4      c1    ACTIVE  binding_failed
                                   p-5      c1    ACTIVE  ovs
                                   p-6      c1    ACTIVE  ovs
                                   p-7      c1    ACTIVE  ovs
                                   p-8      c1    ACTIVE  ovs
            neutron_nsx_networks  network_id  binding_type  phy_uuid
                                  n-1         vlan          y-1
                                  n-2         nsx-net       y-2
            neutron_nsx_port_mappings  neutron_id  nsx_port_id
                                       p-8         x-8
            nsx_objects  path                           parent                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-1            -                      segment  n-1  network  n-1      t-1      17      0
                         /infra/segments/n-2            -                      segment  n-2  network  n-2      t-1      17      0
                         /infra/segments/y-2            -                      segment  y-2  -        -        -        -       0
                         /infra/segments/n-1/ports/p-1  /infra/segments/n-1    port     p-1  port     p-1      t-1      17      0
                         /infra/segments/y-2/ports/p-2  /infra/segments/y-2    port     p-2  port     p-2      t-1      17      0
                         /logical-ports/x-8             /logical-switches/x-1  port     x-8  port     p-8      t-1      17      0
            """),
    ),
)  # fmt: skip
