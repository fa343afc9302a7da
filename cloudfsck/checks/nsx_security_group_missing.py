"""Neutron has a security group that NSX does not have.

Why it matters
    What its rules let in is kept out, or, where the default is to let in, let in what they keep out.
How it comes about
    Somebody deleted it in NSX, or NSX was restored from an older backup, and Neutron's plugin looks at neither: it has
    no maintenance that compares the two.
What the repair does
    There is none: only Neutron's plugin knows how to make it.  A group without ports is best deleted and made again;
    otherwise NSX's own backup has it.
When not to repair
    While NSX is being restored from a backup.  Where Neutron works with ML2, which alone has segments, nothing of it is
    looked for in NSX.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_missing("security group", row)


CHECK = Check(
    text=__doc__,
    accused=("neutron_security_groups",),
    query="""
        SELECT g.id AS key, NULL AS server, g.id AS security_group, g.name, g.project_id AS project,
               g.revision_number AS revision, g.created_at, g.updated_at, w.paths, list_concat([g.id], w.paths) AS also,
               [] AS hosts, [] AS cells, greatest(g.created_at, g.updated_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_security_groups g
          JOIN nsx_missing w ON w.neutron = g.id
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "in neither API", """
            hosts cell1      c1
            neutron_security_groups  id   name  revision_number  created_at  updated_at
                                     g-1  one   2                -9d         -9d
            nsx_objects  path                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-9  segment  n-9  network  n-9      t-1      17      0
            """,
            finds=("g-1",)),
        Scenario(
            "Neutron works with ML2", """
            hosts cell1      c1
            neutron_security_groups  id   name  revision_number  created_at  updated_at
                                     g-1  one   2                -9d         -9d
            neutron_network_segments  id   network_id
                                      z-1  n-8
            nsx_objects  path                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-9  segment  n-9  network  n-9      t-1      17      0
            """),
        Scenario(
            "in one of them", """
            hosts cell1      c1
            neutron_security_groups  id   name  revision_number  created_at  updated_at
                                     g-1  one   2                -9d         -9d
                                     g-2  two   2                -9d         -9d
            neutron_nsx_security_group_mappings  neutron_id  nsx_id
                                                 g-2         x-2
            nsx_objects  path                               kind   id   thing           neutron  project  plugin  revision
                         /infra/domains/default/groups/g-1  group  g-1  security-group  g-1      t-1      17      0
                         /ns-groups/x-2                     group  x-2  security-group  g-2      t-1      17      0
            """),
    ),
)  # fmt: skip
