"""Neutron believes that a router port is in OVN, and it is not there.

Why it matters
    The subnet's gateway does not answer: what is in it reaches only itself.  Of a gateway's port, nothing behind the
    router reaches the outside.
How it comes about
    Somebody removed it from the northbound database, or that was restored from an older backup.  Neutron's maintenance
    looks only at what it has noted itself, and there the port is up to date.
What the repair does
    It has Neutron's note say that the port never got there, in one transaction in which the port and the note are as
    they were seen.  Neutron's maintenance then makes it within five minutes, it alone (neutron/plugins/ml2/drivers/ovn/
    mech_driver/ovsdb/maintenance.py: _create_lrouter_port); if it does not, ovn-change-overdue tells.
When not to repair
    While OVN is being restored.  Where the router itself is missing: then that is told, and comes first.  A gateway's port
    is left to a person: Neutron makes it with its router, at any change of that (neutron/plugins/ml2/drivers/ovn/
    mech_driver/ovsdb/ovn_client.py: update_router counts them).  So is one that is missing on its switch as well:
    Neutron would make it without joining the two (the same: _create_lrouter_port).
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_note
from cloudfsck.model import Act, Check, Row, Scenario


def _repair(row: Row) -> Iterable[Act]:
    yield ovn_note.Reset.made(row, "router_ports")


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port show {row['port']}; openstack router show {row['router']}"
    yield f"where OVN's northbound database is: ovn-nbctl show {row['ovn_router']}"
    if row["device_owner"] == "network:router_gateway":
        yield (
            "as an administrator, if it is not there: openstack router set --description 'gateway again'"
            f" {row['router']}"
        )
    else:
        yield from ovn_note.again(row["port"], "router_ports", row["revision"])


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        SELECT p.id AS key, NULL AS server, p.id AS port, p.device_id AS router, s.name AS ovn_router,
               p.project_id AS project, p.network_id AS network, p.device_owner, p.status,
               p.revision_number AS revision, p.updated_at, r.standard_attr_id, r.updated_at AS noted_at,
               [p.id, p.device_id] AS also, [] AS hosts, [] AS cells,
               greatest(p.created_at, p.updated_at, r.updated_at) AS since, 'neutron:neutron' AS clock,
               CASE WHEN p.device_owner = 'network:router_gateway'
                    THEN 'Neutron makes a gateway with its router, at any change of that'
                    WHEN NOT EXISTS (SELECT 1 FROM ovn_switch_ports o WHERE o.name = p.id)
                    THEN 'its port on the switch is missing as well, and goes first' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM neutron_ports p
          JOIN neutron_ovn_revisions r ON r.resource_uuid = p.id AND r.resource_type = 'router_ports'
          JOIN ovn_routers s ON s.router = p.device_id
         WHERE r.revision_number = p.revision_number
           AND r.standard_attr_id NOTNULL
           AND NOT EXISTS (SELECT 1 FROM ovn_router_ports o WHERE o.port = p.id)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "an interface, a gateway, and an interface that is not on its switch either", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number  created_at  updated_at
                             r-1  p-1         r     ACTIVE  3                -9d         -9d
            neutron_ports    id   device_owner              device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             o-1  network:router_interface  r-1        ACTIVE  n-1         fa:01        3                -9d         -9d
                             o-2  network:router_gateway    r-1        ACTIVE  n-2         fa:02        3                -9d         -9d
                             o-3  network:router_interface  r-1        ACTIVE  n-2         fa:03        3                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   o-1            router_ports   1                 3                -9d
                                   o-2            router_ports   2                 3                -9d
                                   o-3            router_ports   3                 3                -9d
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     0      3
            ovn_switches     uuid  name         network  ports  revision
                             u-2   neutron-n-1  n-1      1      2
                             u-3   neutron-n-2  n-2      1      2
            ovn_switch_ports  uuid  name  port  switch       type    up    revision
                              u-21  o-1   o-1   neutron-n-1  router  true  3
                              u-22  o-2   o-2   neutron-n-2  router  true  3
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net1  p-1         ACTIVE  2                -9d         -9d
                              n-2  net2  p-1         ACTIVE  2                -9d         -9d
            """,
            finds=("o-1", "o-2", "o-3"),
            plans="have Neutron make router port o-1 in OVN again: its note of revision 3"),
        Scenario(
            "it is there; Neutron knows that it is not, never will be, or has deleted it; its router is not there", """
            hosts cell1      c1
            neutron_ports    id   device_owner              device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             o-1  network:router_interface  r-1        ACTIVE  n-1         fa:01        3                -9d         -9d
                             o-2  network:router_interface  r-1        ACTIVE  n-1         fa:02        4                -9d         -5m
                             o-3  network:router_interface  r-1        ACTIVE  n-1         fa:03        3                -9d         -9d
                             o-4  network:router_interface  r-2        ACTIVE  n-1         fa:04        3                -9d         -9d
                             o-5  network:router_interface  r-1        ACTIVE  n-1         fa:05        3                -9d         -9d
            neutron_routers  id   project_id  name  status  revision_number  created_at  updated_at
                             r-1  p-1         r     ACTIVE  3                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   o-1            router_ports   1                 3                -9d
                                   o-2            router_ports   2                 3                -9d
                                   o-3            floatingips    3                 3                -9d
                                   o-4            router_ports   4                 3                -9d
                                   o-5            router_ports   -                 3                -9d
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
            ovn_router_ports  uuid  name     revision  router       port  network  gateway
                              u-11  lrp-o-1  3         neutron-r-1  o-1   n-1      false
            """),
    ),
)  # fmt: skip
