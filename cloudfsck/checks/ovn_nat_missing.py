"""Neutron believes that OVN translates a floating IP, and it does not.

Why it matters
    Nobody reaches the address, and what is behind it leaves by the router's own.
How it comes about
    Somebody removed the rule from the northbound database, or that was restored from an older backup.  Neutron's
    maintenance looks only at what it has noted itself, and there the floating IP is up to date.
What the repair does
    There is none yet.  Once Neutron's note says that the floating IP never got there, its maintenance makes the rule
    within five minutes, it alone.
When not to repair
    While OVN is being restored.  Where the router or its gateway is missing: then that is told, and comes first.  One
    that only forwards ports has no rule, but a load balancer (neutron/services/portforwarding/drivers/ovn/driver.py),
    and one of a router of another provider has no note (neutron/services/ovn_l3/service_providers/ovn.py:
    _create_floatingip_initial_revision).
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_note
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack floating ip show {row['floating_ip']}; openstack router show {row['router']}"
    yield f"where OVN's northbound database is: ovn-nbctl lr-nat-list {row['ovn_router']}"
    yield from ovn_note.again(row["floating_ip"], "floatingips", row["revision"])


CHECK = Check(
    text=__doc__,
    accused=("neutron_floating_ips",),
    query="""
        SELECT f.id AS key, NULL AS server, f.id AS floating_ip, f.floating_ip_address AS address, f.fixed_port_id AS port,
               f.fixed_ip_address, f.router_id AS router, s.name AS ovn_router, f.project_id AS project, f.status,
               f.revision_number AS revision, f.updated_at, [f.id, f.fixed_port_id, f.router_id] AS also,
               [] AS hosts, [] AS cells, greatest(f.created_at, f.updated_at, r.updated_at) AS since,
               'neutron:neutron' AS clock, NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_floating_ips f
          JOIN neutron_ovn_revisions r ON r.resource_uuid = f.id AND r.resource_type = 'floatingips'
          JOIN ovn_routers s ON s.router = f.router_id
         WHERE r.revision_number = f.revision_number
           AND f.fixed_ip_address IS NOT NULL
           AND EXISTS (SELECT 1 FROM ovn_router_ports g WHERE g.router = s.name AND g.gateway)
           AND NOT EXISTS (SELECT 1 FROM ovn_nats o WHERE o.floating_ip = f.id)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "it is not there", """
            hosts cell1      c1
            neutron_floating_ips  id   project_id  floating_ip_address  fixed_port_id  fixed_ip_address  router_id  status  revision_number  created_at  updated_at
                                  f-1  p-1         192.0.2.1            o-1            10.0.0.1          r-1        ACTIVE  2                -9d         -9d
                                  f-2  p-1         192.0.2.2            o-2            10.0.0.2          r-1        ACTIVE  2                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   f-1            floatingips    1                 2                -9d
                                   f-2            floatingips    2                 2                -9d
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
            ovn_router_ports  uuid  name     revision  router       port  network  gateway
                              u-11  lrp-g-1  3         neutron-r-1  g-1   n-1      true
            ovn_nats         uuid  router       type           external_ip  logical_ip  floating_ip  port  revision
                             f-2   neutron-r-1  dnat_and_snat  192.0.2.2    10.0.0.2    f-2          o-2   2
            """,
            finds=("f-1",)),
        Scenario(
            "Neutron knows that it is not, or never will be; it only forwards ports; its router or that one's gateway is not there", """
            hosts cell1      c1
            neutron_floating_ips  id   project_id  floating_ip_address  fixed_port_id  fixed_ip_address  router_id  status  revision_number  created_at  updated_at
                                  f-1  p-1         192.0.2.1            o-1            10.0.0.1          r-1        ACTIVE  2                -9d         -5m
                                  f-2  p-1         192.0.2.2            o-2            10.0.0.2          r-1        ACTIVE  2                -9d         -9d
                                  f-3  p-1         192.0.2.3            -              -                 r-1        ACTIVE  2                -9d         -9d
                                  f-4  p-1         192.0.2.4            o-4            10.0.0.4          r-4        ACTIVE  2                -9d         -9d
                                  f-5  p-1         192.0.2.5            o-5            10.0.0.5          r-5        ACTIVE  2                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   f-1            floatingips    1                 -1               -9d
                                   f-2            ports          2                 2                -9d
                                   f-3            floatingips    3                 2                -9d
                                   f-4            floatingips    4                 2                -9d
                                   f-5            floatingips    5                 2                -9d
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
                             u-2   neutron-r-5  r-5     1      3
            ovn_router_ports  uuid  name     revision  router       port  network  gateway
                              u-11  lrp-g-1  3         neutron-r-1  g-1   n-1      true
                              u-12  lrp-i-5  3         neutron-r-5  i-5   n-5      false
            """),
    ),
)  # fmt: skip
