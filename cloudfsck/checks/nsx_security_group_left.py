"""NSX has a group or a policy of a security group that Neutron does not have.

Why it matters
    Its rules are still in force: what they let in is let in, and every host that has a member computes them.
How it comes about
    Neutron's plugin deletes its own row first, then the policy, the group and what its rules need
    (vmware_nsx/plugins/nsx_p/plugin.py: delete_security_group); at the first that NSX refused it stops.
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
    return nsx_object.of_left("security group", row)


CHECK = Check(
    text=__doc__,
    accused=("nsx_objects",),
    query="""
        SELECT l.path AS key, NULL AS server, l.api, l.path, l.kind, l.name, l.neutron, l.project, l.plugin, l.revision,
               l.created, l.changed, [l.path, l.neutron] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               l.doubt AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nsx_leftovers l
         WHERE l.thing = 'security-group'
    """,
    repair=nsx_object.repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "the policy and its group, the policy first", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            nsx_objects  path                                          kind    id   thing           neutron  project  plugin  revision
                         /infra/domains/default/groups/g-1             group   g-1  security-group  g-1      t-1      17      0
                         /infra/domains/default/security-policies/g-1  policy  g-1  security-group  g-1      t-1      17      0
            """,
            finds=("/infra/domains/default/groups/g-1", "/infra/domains/default/security-policies/g-1"),
            plans="""
            delete group /infra/domains/default/groups/g-1 from NSX
            delete policy /infra/domains/default/security-policies/g-1 from NSX
            """),
        Scenario(
            "Neutron has it, or has it under another id; of a rule", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            neutron_security_groups  id   name     revision_number
                                     g-1  default  2
            neutron_nsx_security_group_mappings  neutron_id  nsx_id
                                                 g-9         x-3
            nsx_objects  path                               kind     id   thing           neutron  project  plugin  revision
                         /infra/domains/default/groups/g-1  group    g-1  security-group  g-1      t-1      17      0
                         /ns-groups/x-3                     group    x-3  security-group  g-3      t-1      17      0
                         /infra/services/u-1                service  u-1  rule            u-1      t-1      17      0
            """),
    ),
)  # fmt: skip
