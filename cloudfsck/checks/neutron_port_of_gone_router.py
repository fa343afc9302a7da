"""Neutron has a port of a router that it does not have.

Why it matters
    The port keeps its addresses, often a subnet's gateway or one of the external network's; neither the network nor the
    subnet can be deleted while it is there, and no other router can take the address.
How it comes about
    A router's ports are deleted before it, one by one; those of HA may stay when that fails (neutron/db/l3_db.py:
    delete_router, prevent_l3_port_deletion).  Or a router was deleted by hand in Neutron's database; or somebody made the
    port himself, with a device_owner and a device_id that he chose, as the owner of a network may.
What the repair does
    There is none.  Neutron refuses to delete a router's port as long as it has the router; now it lets it go.
When not to repair
    Where another service keeps its own routers under that name, and made the port.  After Neutron's database was restored in
    part.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator, it is to be unknown: openstack router show {row['router']}"
    yield f"as an administrator: openstack port show {row['port']}"
    yield f"as an administrator, if nothing else uses the port: openstack port delete {row['port']}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        SELECT p.id AS key, NULL AS server, p.id AS port, p.device_owner, p.device_id AS router, p.name, p.project_id AS project,
               p.network_id AS network, p.mac_address AS mac, p.status,
               (SELECT coalesce(list(a.ip_address ORDER BY a.ip_address), []) FROM neutron_ip_allocations a
                 WHERE a.port_id = p.id) AS addresses,
               p.revision_number AS revision, p.created_at, p.updated_at, [p.id, p.device_id] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_ports p
         WHERE p.device_owner IN ('network:router_interface', 'network:router_interface_distributed',
                                  'network:ha_router_replicated_interface', 'network:router_ha_interface',
                                  'network:router_gateway', 'network:router_centralized_snat')
           AND p.device_id <> ''
           AND NOT EXISTS (SELECT 1 FROM neutron_routers r WHERE r.id = p.device_id)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "one that HA left, and one that somebody made; beside them a router with its own", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  gw_port_id  revision_number
                             r-1  pr-1        r1    o-2         2
            neutron_ports    id   device_owner                     device_id  name  network_id  mac_address  status  revision_number  created_at  updated_at
                             o-1  network:router_interface         r-1        -     n-1         fa:01        ACTIVE  2                -9d         -9d
                             o-2  network:router_gateway           r-1        -     n-2         fa:02        ACTIVE  2                -9d         -9d
                             o-3  network:router_ha_interface      r-2        -     n-3         fa:03        DOWN    2                -9d         -9d
                             o-4  network:router_centralized_snat  r-3        mine  n-1         fa:04        DOWN    2                -9d         -9d
            neutron_ip_allocations  port_id  ip_address   subnet_id
                                    o-3      169.254.1.1  sub-3
                                    o-1      10.0.0.1     sub-1
            """,
            finds=("o-3", "o-4")),
        Scenario(
            "no router's; of no device", """
            hosts cell1      c1
            neutron_ports    id   device_owner                          device_id      name  network_id  status  revision_number  created_at  updated_at
                             o-1  network:floatingip_agent_gateway      host-1         -     n-1         ACTIVE  2                -9d         -9d
                             o-2  network:dhcp                          dhcp-1         -     n-1         ACTIVE  2                -9d         -9d
                             o-3  network:router_interface              -              -     n-1         DOWN    2                -9d         -9d
                             o-4  -                                     -              -     n-1         DOWN    2                -9d         -9d
            """),
    ),
)  # fmt: skip
