"""Neutron believes that a router is in OVN, and it is not there.

Why it matters
    Its networks reach neither each other nor the outside, and no floating IP of theirs is reached.
How it comes about
    Somebody removed it from the northbound database, or that was restored from an older backup.  Neutron's maintenance
    looks only at what it has noted itself, and there the router is up to date.  A router of another provider (a flavor)
    has no such note (neutron/services/ovn_l3/service_providers/ovn.py: is_ovn_provider_router).
What the repair does
    It has Neutron's note say that the router never got there, in one transaction in which the router and the note are as
    they were seen.  Neutron's maintenance then makes it within five minutes, with its gateway (neutron/plugins/ml2/
    drivers/ovn/mech_driver/ovsdb/maintenance.py: _fix_create_update; ovn_client.py: create_router); if it does not,
    ovn-change-overdue tells.  Its other ports are then told by ovn-router-port-missing.  `neutron-ovn-db-sync-util` in
    repair mode would do so for everything that differs, and delete what it does not know.
When not to repair
    While OVN is being restored.  A router with floating IPs or extra routes is left to a person: the ones have notes of
    their own, which say that all is well, and the others come back only with the next change of the router.  So is one
    whose gateway has no port on its switch: Neutron would make the gateway without joining the two.  What Octavia's
    provider for OVN had put on the router Neutron does not know: `octavia-ovn-db-sync-util` brings it back.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_note
from cloudfsck.model import Act, Check, Row, Scenario


def _repair(row: Row) -> Iterable[Act]:
    yield ovn_note.Reset.made(row, "routers")


def _commands(row: Row) -> Iterable[str]:
    router = row["router"]
    yield f"as an administrator: openstack router show {router}"
    yield f"where OVN's northbound database is: ovn-nbctl --columns=name,external_ids find Logical_Router name=neutron-{router}"
    hang = (
        f"(resource_type = 'routers' AND resource_uuid = '{router}')"
        f" OR (resource_type = 'router_ports' AND resource_uuid IN (SELECT port_id FROM routerports WHERE router_id = '{router}'))"
        f" OR (resource_type = 'floatingips' AND resource_uuid IN (SELECT id FROM floatingips WHERE router_id = '{router}'))"
    )
    yield f"in Neutron's database, if it is not there: SELECT * FROM ovn_revision_numbers WHERE {hang};"
    yield f"in the same session: UPDATE ovn_revision_numbers SET revision_number = -1, updated_at = CURRENT_TIMESTAMP WHERE {hang};"
    yield (
        "as an administrator, when it is there, if it has extra routes: openstack router set"
        f" --description 'routes again' {router}"
    )


CHECK = Check(
    text=__doc__,
    accused=("neutron_routers",),
    query="""
        SELECT n.id AS key, NULL AS server, n.id AS router, n.name, n.project_id AS project, n.status,
               n.revision_number AS revision, n.updated_at, r.standard_attr_id, r.updated_at AS noted_at, [n.id] AS also, [] AS hosts, [] AS cells,
               greatest(n.created_at, n.updated_at, r.updated_at) AS since, 'neutron:neutron' AS clock,
               CASE WHEN EXISTS (SELECT 1 FROM neutron_floating_ips f WHERE f.router_id = n.id)
                    THEN 'it has floating IPs, which Neutron would not put back with it'
                    WHEN EXISTS (SELECT 1 FROM neutron_router_routes t WHERE t.router_id = n.id)
                    THEN 'it has extra routes, which Neutron would not put back with it'
                    WHEN EXISTS (SELECT 1 FROM neutron_ports p
                                  WHERE p.device_id = n.id AND p.device_owner = 'network:router_gateway'
                                    AND NOT EXISTS (SELECT 1 FROM ovn_switch_ports o WHERE o.name = p.id))
                    THEN 'the port of its gateway is missing on its switch as well, and goes first' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM neutron_routers n
          JOIN neutron_ovn_revisions r ON r.resource_uuid = n.id AND r.resource_type = 'routers'
         WHERE r.revision_number = n.revision_number
           AND r.standard_attr_id NOTNULL
           AND NOT EXISTS (SELECT 1 FROM ovn_routers o WHERE o.router = n.id)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "it is not there", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number  created_at  updated_at
                             r-1  p-1         r     ACTIVE  3                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   r-1            routers        1                 3                -9d
            """,
            finds=("r-1",),
            plans="have Neutron make router r-1 in OVN again: its note of revision 3"),
        Scenario(
            "with a gateway that is on its switch; with floating IPs; with extra routes; with a gateway that is not there", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  gw_port_id  revision_number  created_at  updated_at
                             r-1  p-1         r     ACTIVE  o-1         3                -9d         -9d
                             r-2  p-1         r     ACTIVE  o-2         3                -9d         -9d
                             r-3  p-1         r     ACTIVE  -           3                -9d         -9d
                             r-4  p-1         r     ACTIVE  o-4         3                -9d         -9d
            neutron_ports    id   device_owner              device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             o-1  network:router_gateway    r-1        ACTIVE  n-1         fa:01        3                -9d         -9d
                             o-2  network:router_gateway    r-2        ACTIVE  n-1         fa:02        3                -9d         -9d
                             o-4  network:router_gateway    r-4        ACTIVE  n-1         fa:04        3                -9d         -9d
                             o-5  network:router_interface  r-1        ACTIVE  n-1         fa:05        3                -9d         -9d
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  2                -9d         -9d
            neutron_floating_ips  id   floating_ip_address  router_id  status  revision_number  created_at  updated_at
                                  f-1  192.0.2.9            r-2        ACTIVE  2                -9d         -9d
            neutron_router_routes  router_id  destination   nexthop
                                   r-3        10.9.0.0/16   10.0.0.9
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   r-1            routers        1                 3                -9d
                                   r-2            routers        2                 3                -9d
                                   r-3            routers        3                 3                -9d
                                   r-4            routers        4                 3                -9d
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      2      2
            ovn_switch_ports  uuid  name  port  switch       type    up    revision
                              u-11  o-1   o-1   neutron-n-1  router  true  3
                              u-12  o-2   o-2   neutron-n-1  router  true  3
            """,
            finds=("r-1", "r-2", "r-3", "r-4"),
            plans="have Neutron make router r-1 in OVN again: its note of revision 3"),
        Scenario(
            "it is there; Neutron knows that it is not, or has deleted it; it is of another provider", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number  created_at  updated_at
                             r-1  p-1         r     ACTIVE  3                -9d         -9d
                             r-2  p-1         r     ACTIVE  4                -9d         -5m
                             r-3  p-1         hw    ACTIVE  3                -9d         -9d
                             r-4  p-1         r     ACTIVE  3                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   r-1            routers        1                 3                -9d
                                   r-2            routers        2                 3                -9d
                                   r-3            networks       3                 3                -9d
                                   r-4            routers        -                 3                -9d
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     0      3
            """),
    ),
)  # fmt: skip
