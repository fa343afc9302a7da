"""Neutron has a router that NSX does not have.

Why it matters
    What is behind it reaches nothing outside its own network, and its floating IPs lead nowhere.
How it comes about
    Somebody deleted it in NSX, or NSX was restored from an older backup, and Neutron's plugin looks at neither: it has
    no maintenance that compares the two.
What the repair does
    There is none: only Neutron's plugin knows how to make it.  A router is made anew by deleting it and making it
    again, with its interfaces and routes; otherwise NSX's own backup has it.
When not to repair
    While NSX is being restored from a backup.  Where Neutron works with ML2, which alone has segments, nothing of it is
    looked for in NSX.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_missing("router", row)


CHECK = Check(
    text=__doc__,
    accused=("neutron_routers",),
    query="""
        SELECT r.id AS key, NULL AS server, r.id AS router, r.name, r.project_id AS project,
               r.revision_number AS revision, r.created_at, r.updated_at, w.paths, list_concat([r.id], w.paths) AS also,
               [] AS hosts, [] AS cells, greatest(r.created_at, r.updated_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_routers r
          JOIN nsx_missing w ON w.neutron = r.id
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "in neither API", """
            hosts cell1      c1
            neutron_routers  id   name  revision_number  created_at  updated_at
                             r-1  one   2                -9d         -9d
            nsx_objects  path                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-9  segment  n-9  network  n-9      t-1      17      0
            """,
            finds=("r-1",)),
        Scenario(
            "Neutron works with ML2", """
            hosts cell1      c1
            neutron_routers  id   name  revision_number  created_at  updated_at
                             r-1  one   2                -9d         -9d
            neutron_network_segments  id   network_id
                                      z-1  n-8
            nsx_objects  path                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-9  segment  n-9  network  n-9      t-1      17      0
            """),
        Scenario(
            "in one of them", """
            hosts cell1      c1
            neutron_routers  id   name  revision_number  created_at  updated_at
                             r-1  one   2                -9d         -9d
                             r-2  two   2                -9d         -9d
            neutron_nsx_router_mappings  neutron_id  nsx_id
                                         r-2         x-2
            nsx_objects  path                  kind    id   thing   neutron  project  plugin  revision
                         /infra/tier-1s/r-1    router  r-1  router  r-1      t-1      17      0
                         /logical-routers/x-2  router  x-2  router  r-2      t-1      17      0
            """),
    ),
)  # fmt: skip
