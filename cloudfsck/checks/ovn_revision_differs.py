"""OVN has another revision of something than Neutron believes.

Why it matters
    What is in force is not what its owner was told: old security groups, old addresses, old routes.  Where OVN's revision
    is the higher one, Neutron refuses each update of its own (RevisionConflict) until it has caught up.
How it comes about
    One of the two databases was restored from a backup.  Neutron's maintenance compares its own notes
    (ovn_revision_numbers) with its own revisions, and only where these differ looks into OVN
    (neutron/db/ovn_revision_numbers_db.py: get_inconsistent_resources).
What the repair does
    There is none yet.  Once OVN's revision and Neutron's note are both lower than Neutron's revision, its maintenance
    writes the object anew within five minutes, it alone.
When not to repair
    Before two of its rounds are over, ten minutes after the last change.  Router ports are not looked at: Neutron itself
    notes the revision of a gateway's port that it found and left as it was, where the external subnet has no gateway
    (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/ovn_client.py: _add_router_ext_gw, with may_exist).  Of a security
    group OVN has no revision.
"""

from collections.abc import Iterable
from datetime import timedelta

from cloudfsck.acts import ovn_note
from cloudfsck.model import Check, Row, Scenario

_SHOWN = {"networks": "network", "ports": "port", "routers": "router"}
_ROWS = {"networks": "Logical_Switch", "ports": "Logical_Switch_Port", "routers": "Logical_Router"}


def _commands(row: Row) -> Iterable[str]:
    kind, resource, name = row["resource_type"], row["resource"], row["name"]
    yield f"as an administrator: openstack {_SHOWN[kind]} show {resource}"
    yield f"where OVN's northbound database is: ovn-nbctl list {_ROWS[kind]} {name}"
    yield (
        "where OVN's northbound database is, if it is so:"
        f" ovn-nbctl set {_ROWS[kind]} {name} 'external_ids:\"neutron:revision_number\"=0'"
    )
    yield from ovn_note.again(resource, kind, row["in_neutron"])


CHECK = Check(
    text=__doc__,
    accused=("ovn_switches", "ovn_switch_ports", "ovn_routers"),
    query="""
        WITH both_have AS (
            SELECT n.id, 'networks' AS kind, o.name, o.uuid AS ovn_row, o.revision AS in_ovn,
                   n.revision_number AS in_neutron, n.created_at, n.updated_at
              FROM ovn_switches o
              JOIN neutron_networks n ON n.id = o.network
            UNION ALL
            SELECT n.id, 'ports' AS kind, o.name, o.uuid AS ovn_row, o.revision AS in_ovn,
                   n.revision_number AS in_neutron, n.created_at, n.updated_at
              FROM ovn_switch_ports o
              JOIN neutron_ports n ON n.id = o.port
            UNION ALL
            SELECT n.id, 'routers' AS kind, o.name, o.uuid AS ovn_row, o.revision AS in_ovn,
                   n.revision_number AS in_neutron, n.created_at, n.updated_at
              FROM ovn_routers o
              JOIN neutron_routers n ON n.id = o.router)
        SELECT b.id || '/' || b.kind AS key, NULL AS server, b.id AS resource, b.kind AS resource_type, b.name, b.ovn_row,
               b.in_ovn, b.in_neutron, b.updated_at, r.updated_at AS noted_at, [b.id] AS also,
               [] AS hosts, [] AS cells, greatest(b.created_at, b.updated_at, r.updated_at) AS since,
               'neutron:neutron' AS clock, NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM both_have b
          JOIN neutron_ovn_revisions r ON r.resource_uuid = b.id AND r.resource_type = b.kind
          JOIN clocks c ON c.table_name = 'neutron_ovn_revisions'
         WHERE r.revision_number = b.in_neutron
           AND b.in_ovn <> b.in_neutron
           AND greatest(b.created_at, b.updated_at, r.updated_at) < c.now - INTERVAL 11 MINUTE
    """,
    commands=_commands,
    settle=timedelta(minutes=15),
    scenarios=(
        Scenario(
            "OVN's is lower, or higher", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  2                -9d         -9d
            neutron_routers   id   project_id  name  status  revision_number  created_at  updated_at
                              r-1  p-1         r     ACTIVE  3                -9d         -9d
            neutron_ports     id   device_owner  device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                              o-1  -             -          DOWN    n-1         fa:01        4                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   n-1            networks       1                 2                -9d
                                   r-1            routers        2                 3                -9d
                                   o-1            ports          3                 4                -9d
            ovn_switches      uuid  name         network  ports  revision
                              u-1   neutron-n-1  n-1      1      1
            ovn_routers       uuid  name         router  ports  revision
                              u-2   neutron-r-1  r-1     0      9
            ovn_switch_ports  uuid  name  port  switch       type  up     device_id  device_owner  revision
                              u-11  o-1   o-1   neutron-n-1  -     false  -          -             3
            """,
            finds=("n-1/networks", "r-1/routers", "o-1/ports")),
        Scenario(
            "the same; Neutron knows it; just written, or changed; never told; of another kind of thing", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  2                -9d         -9d
            neutron_ports     id   device_owner  device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                              o-1  -             -          DOWN    n-1         fa:01        4                -9d         -9d
                              o-2  -             -          DOWN    n-1         fa:02        5                -9d         -9m
                              o-3  -             -          DOWN    n-1         fa:03        5                -9d         -9d
                              o-4  -             -          DOWN    n-1         fa:04        5                -9d         -9m
                              o-5  -             -          DOWN    n-1         fa:05        5                -9d         -9d
                              o-6  -             -          DOWN    n-1         fa:06        5                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   n-1            networks       1                 2                -9d
                                   o-1            ports          2                 4                -9d
                                   o-2            ports          3                 4                -9d
                                   o-3            ports          4                 5                -9m
                                   o-4            ports          5                 5                -9d
                                   o-5            ports          6                 5                -9d
                                   o-6            router_ports   7                 5                -9d
            ovn_switches      uuid  name         network  ports  revision
                              u-1   neutron-n-1  n-1      6      2
            ovn_switch_ports  uuid  name  port  switch       type  up     device_id  device_owner  revision
                              u-11  o-1   o-1   neutron-n-1  -     false  -          -             4
                              u-12  o-2   o-2   neutron-n-1  -     false  -          -             4
                              u-13  o-3   o-3   neutron-n-1  -     false  -          -             4
                              u-14  o-4   o-4   neutron-n-1  -     false  -          -             4
                              u-15  o-5   o-5   neutron-n-1  -     false  -          -             -
                              u-16  o-6   o-6   neutron-n-1  -     false  -          -             4
            """),
        Scenario(
            "Neutron's maintenance will still get to it", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  3                -9d         -12m
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   n-1            networks       1                 2                -9d
            ovn_switches      uuid  name         network  ports  revision
                              u-1   neutron-n-1  n-1      0      2
            """),
    ),
)  # fmt: skip
