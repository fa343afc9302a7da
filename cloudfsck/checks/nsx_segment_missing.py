"""Neutron has a network that NSX does not have.

Why it matters
    Nothing on the network reaches anything, and no port can be made on it.
How it comes about
    Somebody deleted it in NSX, or NSX was restored from an older backup, and Neutron's plugin looks at neither: it has
    no maintenance that compares the two.
What the repair does
    There is none: only Neutron's plugin knows how to make it.  A network without servers is best deleted and made
    again; otherwise NSX's own backup has it.
When not to repair
    While NSX is being restored from a backup.  Where Neutron works with ML2, which alone has segments, nothing of it is
    looked for in NSX.  A network that lies on a segment that was there before it is not looked at.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_missing("network", row)


CHECK = Check(
    text=__doc__,
    accused=("neutron_networks",),
    query="""
        SELECT n.id AS key, NULL AS server, n.id AS network, n.name, n.project_id AS project,
               n.revision_number AS revision, n.created_at, n.updated_at, w.paths, list_concat([n.id], w.paths) AS also,
               [] AS hosts, [] AS cells, greatest(n.created_at, n.updated_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_networks n
          JOIN nsx_missing w ON w.neutron = n.id
         WHERE NOT EXISTS (SELECT 1 FROM neutron_external_networks e WHERE e.network_id = n.id)
           AND NOT EXISTS (SELECT 1 FROM neutron_nsx_networks b
                            WHERE b.network_id = n.id AND b.binding_type NOT IN ('geneve', 'vlan'))
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "in neither API; a VLAN", """
            hosts cell1      c1
            neutron_networks  id   name  revision_number  created_at  updated_at
                              n-1  net0  2                -9d         -9d
                              n-2  net1  2                -9d         -9d
            neutron_nsx_networks  network_id  binding_type  phy_uuid
                                  n-2         vlan          z-1
            neutron_nsx_network_mappings  neutron_id  nsx_id
                                          n-2         x-2
            nsx_objects  path                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-9  segment  n-9  network  n-9      t-1      17      0
            """,
            finds=("n-1", "n-2")),
        Scenario(
            "Neutron works with ML2", """
            hosts cell1      c1
            neutron_networks  id   name  revision_number  created_at  updated_at
                              n-1  net0  2                -9d         -9d
            neutron_network_segments  id   network_id
                                      z-1  n-8
            nsx_objects  path                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-9  segment  n-9  network  n-9      t-1      17      0
            """),
        Scenario(
            "in one of them; it leads out; it is on a segment that was there before", """
            hosts cell1      c1
            neutron_networks  id   name  revision_number  created_at  updated_at
                              n-1  net0  2                -9d         -9d
                              n-2  net1  2                -9d         -9d
                              n-3  ext   2                -9d         -9d
                              n-4  old   2                -9d         -9d
            neutron_external_networks  network_id
                                       n-3
            neutron_nsx_networks  network_id  binding_type  phy_uuid
                                  n-4         nsx-net       y-4
            neutron_nsx_network_mappings  neutron_id  nsx_id
                                          n-2         x-2
            nsx_objects  path                   kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-1    segment  n-1  network  n-1      t-1      17      0
                         /logical-switches/x-2  segment  x-2  network  n-2      t-1      17      0
            """),
    ),
)  # fmt: skip
