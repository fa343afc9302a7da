"""OVN translates a floating IP that leads nowhere in Neutron, or is not there.

Why it matters
    Who has the address inside still leaves by the address outside, and is still reached by it.  When the address outside
    is another's by now two rules contend for it, and what is sent to one reaches the other.
How it comes about
    When a port is deleted, Neutron takes its floating IPs from it.  Where that does not reach the northbound database it
    logs an error and forgets its note all the same (neutron/services/ovn_l3/service_providers/ovn.py:
    _process_floatingip_update); without one a later deletion of the floating IP does not even look into OVN
    (_process_floatingip_delete).  Or one of the two databases was restored from a backup, or somebody deleted the row.
What the repair does
    It deletes the one rule, in one transaction that demands that the whole row is as it was read: if anything of it has
    changed, nothing is written.  `undo` puts the same row back into its router.  A limit of bandwidth that the floating
    IP had stays in OVN, and so does the address in external_ids of the port inside (neutron:port_fip), which only load
    balancers go by.
When not to repair
    After Neutron's database was restored: every floating IP made since the backup looks like this, and is needed.  Where
    another Neutron uses the same OVN: the router of a floating IP that this one does not have is not this one's, and
    only a person decides, unless [ovn] of the configuration says that this one uses OVN alone.  What leads to a load
    balancer of ovn-octavia-provider: more hangs on it (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/
    ovn_client.py: _handle_lb_fip_cmds).
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_object
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[ovn_object.Delete]:
    rule, of = row["ovn_row"], row["floating_ip"]
    yield ovn_object.Delete("NAT", rule, rule, of, row["revision"], row["ovn_router"])


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack floating ip show {row['floating_ip']}; openstack port show {row['port']}"
    yield (
        f"where OVN's northbound database is: ovn-nbctl list NAT {row['ovn_row']};"
        f" ovn-nbctl lr-nat-list {row['ovn_router']}"
    )
    for act in _repair(row):
        yield f"where OVN's northbound database is, if it is this cloud's: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_nats",),
    query="""
        SELECT o.uuid AS key, NULL AS server, o.floating_ip, o.uuid AS ovn_row, o.router AS ovn_router, s.router,
               o.external_ip, o.logical_ip, o.port, o.revision, f.id IS NOT NULL AS in_neutron, f.status,
               f.project_id AS project, f.updated_at, [o.floating_ip, o.port, s.router] AS also,
               [] AS hosts, [] AS cells, f.updated_at AS since, 'neutron:neutron' AS clock,
               CASE WHEN f.id IS NULL AND q.id IS NULL AND NOT a.alone THEN 'its router is none of this Neutron''s'
                    WHEN starts_with(p.name, 'ovn-lb-vip-') THEN 'it leads to a load balancer' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM ovn_nats o
         CROSS JOIN ovn_settings a
          LEFT JOIN neutron_floating_ips f ON f.id = o.floating_ip
          LEFT JOIN ovn_routers s ON s.name = o.router
          LEFT JOIN neutron_routers q ON q.id = s.router
          LEFT JOIN neutron_ports p ON p.id = o.port
         WHERE o.floating_ip IS NOT NULL
           AND f.fixed_port_id IS NULL
           AND NOT EXISTS (SELECT 1 FROM neutron_ovn_revisions r
                            WHERE r.resource_uuid = o.floating_ip AND r.resource_type = 'floatingips'
                              AND (r.standard_attr_id IS NULL OR r.revision_number <> f.revision_number))
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of one that is gone: its router is here; is another Neutron's; it leads to a load balancer", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number
                             r-1  p-1         r     ACTIVE  3
            neutron_ports    id   name            device_owner   device_id  status  mac_address  revision_number
                             o-1  web             compute:nova   s-1        ACTIVE  fa:01        4
                             o-4  ovn-lb-vip-l-1  ovn-lb:vip     lb-l-1     DOWN    fa:04        4
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
                             u-2   neutron-r-2  r-2     1      3
                             u-3   kube         -       1      -
            ovn_nats         uuid  router       type           external_ip  logical_ip  floating_ip  port  revision
                             f-1   neutron-r-1  dnat_and_snat  192.0.2.1    10.0.0.1    f-1          o-1   2
                             u-12  neutron-r-2  dnat_and_snat  192.0.2.2    10.0.0.2    f-2          o-2   2
                             u-13  neutron-r-1  dnat_and_snat  192.0.2.3    10.0.0.3    f-3          o-3   -
                             u-14  neutron-r-1  dnat_and_snat  192.0.2.4    10.0.0.4    f-4          o-4   2
                             u-15  kube         dnat_and_snat  192.0.2.5    10.0.0.5    f-5          o-5   2
            """,
            finds=("f-1", "u-12", "u-13", "u-14", "u-15"),
            plans="""
            delete NAT rule f-1 from router neutron-r-1 of OVN
            delete NAT rule u-13 from router neutron-r-1 of OVN
            """),
        Scenario(
            "of one that is gone with its router, where no other Neutron uses OVN", """
            hosts cell1      c1
            settings         name       value
                             ovn_alone  1
            ovn_routers      uuid  name         router  ports  revision
                             u-2   neutron-r-2  r-2     1      3
            ovn_nats         uuid  router       type           external_ip  logical_ip  floating_ip  port  revision
                             u-12  neutron-r-2  dnat_and_snat  192.0.2.2    10.0.0.2    f-2          o-2   2
            """,
            finds=("u-12",),
            plans="delete NAT rule u-12 from router neutron-r-2 of OVN"),
        Scenario(
            "of one that leads nowhere: without a note; up to date by it, with its ports forwarded; in a router that is gone", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number
                             r-1  p-1         r     ACTIVE  3
            neutron_floating_ips  id   project_id  floating_ip_address  fixed_port_id  fixed_ip_address  router_id  status  revision_number  created_at  updated_at
                                  f-1  p-1         192.0.2.1            -              -                 -          DOWN    4                -9d         -5d
                                  f-2  p-1         192.0.2.2            -              -                 r-1        ACTIVE  4                -9d         -5d
                                  f-3  p-1         192.0.2.3            -              -                 -          DOWN    4                -9d         -5d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   f-2            floatingips    2                 4
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
                             u-2   neutron-r-2  r-2     1      3
            ovn_nats         uuid  router       type           external_ip  logical_ip  floating_ip  port  revision
                             f-1   neutron-r-1  dnat_and_snat  192.0.2.1    10.0.0.1    f-1          o-1   2
                             f-2   neutron-r-1  dnat_and_snat  192.0.2.2    10.0.0.2    f-2          o-2   2
                             f-3   neutron-r-2  dnat_and_snat  192.0.2.3    10.0.0.3    f-3          o-3   2
            """,
            finds=("f-1", "f-2", "f-3"),
            plans="""
            delete NAT rule f-1 from router neutron-r-1 of OVN
            delete NAT rule f-2 from router neutron-r-1 of OVN
            delete NAT rule f-3 from router neutron-r-2 of OVN
            """),
        Scenario(
            "Neutron's maintenance never looks at a note of what it finds no more; one of another kind of thing does not count", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number
                             r-1  p-1         r     ACTIVE  3
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   f-1            floatingips    1                 2
                                   f-2            ports          -                 2
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
            ovn_nats         uuid  router       type           external_ip  logical_ip  floating_ip  port  revision
                             f-1   neutron-r-1  dnat_and_snat  192.0.2.1    10.0.0.1    f-1          o-1   2
                             f-2   neutron-r-1  dnat_and_snat  192.0.2.2    10.0.0.2    f-2          o-2   2
            """,
            finds=("f-1", "f-2"),
            plans="""
            delete NAT rule f-1 from router neutron-r-1 of OVN
            delete NAT rule f-2 from router neutron-r-1 of OVN
            """),
        Scenario(
            "it leads to a port; Neutron is about to delete it, or to take it away; of the gateway; somebody else's", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number
                             r-1  p-1         r     ACTIVE  3
            neutron_floating_ips  id   project_id  floating_ip_address  fixed_port_id  fixed_ip_address  router_id  status  revision_number  created_at  updated_at
                                  f-1  p-1         192.0.2.1            o-1            10.0.0.1          r-1        ACTIVE  2                -9d         -9d
                                  f-3  p-1         192.0.2.3            -              -                 -          DOWN    4                -9d         -5m
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   f-1            floatingips    1                 2
                                   f-2            floatingips    -                 2
                                   f-3            floatingips    3                 2
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
                             u-2   kube         -       1      -
            ovn_nats         uuid  router       type           external_ip  logical_ip   floating_ip  port  revision
                             f-1   neutron-r-1  dnat_and_snat  192.0.2.1    10.0.0.1     f-1          o-1   2
                             f-2   neutron-r-1  dnat_and_snat  192.0.2.2    10.0.0.2     f-2          o-2   2
                             f-3   neutron-r-1  dnat_and_snat  192.0.2.3    10.0.0.3     f-3          o-3   2
                             u-14  neutron-r-1  snat           192.0.2.9    10.0.0.0/24  -            -     -
                             u-15  kube         dnat_and_snat  192.0.2.8    10.1.0.1     -            -     -
            """),
    ),
)  # fmt: skip
