"""NSX has a router that Neutron does not have.

Why it matters
    It goes on to advertise its routes, and to translate the addresses of its NAT rules: a floating IP that somebody
    else has by now may be led astray.  It takes capacity of the edge cluster.
How it comes about
    Neutron's plugin deletes its own row first and the tier-1 then (vmware_nsx/plugins/nsx_p/plugin.py: delete_router);
    NSX did not answer, or refused, and the plugin makes an exception of that which it never raises.
What the repair does
    It deletes the object by NSX's API, right after it was read again, and keeps all of it in the journal; what belongs
    to it alone goes before it.  NSX itself refuses while anything refers to it.  By the Policy API `undo` puts the same
    object back under the same id; the Manager API would give it another, so there only the journal has it.
When not to repair
    After Neutron's database was restored: everything made since the backup looks like this, and is needed.  Where
    another region has a Neutron too, the projects of this Keystone do not tell whose it is, and only a person decides.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_left("router", row)


CHECK = Check(
    text=__doc__,
    accused=("nsx_objects",),
    query="""
        SELECT l.path AS key, NULL AS server, l.api, l.path, l.kind, l.name, l.neutron, l.project, l.plugin, l.revision,
               l.created, l.changed, [l.path, l.neutron] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               l.doubt AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nsx_leftovers l
         WHERE l.kind = 'router'
    """,
    repair=nsx_object.repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "left; left without a revision", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            nsx_objects  path                kind    id   thing   neutron  project  plugin  revision
                         /infra/tier-1s/r-1  router  r-1  router  r-1      t-1      17      0
                         /infra/tier-1s/r-2  router  r-2  router  r-2      t-1      17      -
            """,
            finds=("/infra/tier-1s/r-1", "/infra/tier-1s/r-2"),
            plans="delete router /infra/tier-1s/r-1 from NSX"),
        Scenario(
            "Neutron has it, or has it under another id; of another kind", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            neutron_routers  id   revision_number
                             r-1  2
            neutron_nsx_router_mappings  neutron_id  nsx_id
                                         r-9         x-3
            nsx_objects  path                  kind     id   thing    neutron  project  plugin  revision
                         /infra/tier-1s/r-1    router   r-1  router   r-1      t-1      17      0
                         /logical-routers/x-3  router   x-3  router   r-3      t-1      17      0
                         /infra/segments/n-1   segment  n-1  network  n-1      t-2      17      0
            """),
        Scenario(
            "what is left of another kind is another check's", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            nsx_objects  path                            kind         id   thing    neutron  project  plugin  revision
                         /infra/dhcp-server-configs/n-1  dhcp-server  n-1  network  n-1      t-1      17      0
            """),
    ),
)  # fmt: skip
