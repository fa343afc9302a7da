"""NSX has a service or group of a rule that Neutron does not have.

Why it matters
    Nothing uses it, and it counts against what NSX can hold: each rule has a service of its own, and a group for each
    address range.
How it comes about
    Neutron's plugin deletes its own row first, and then what the rule needs (vmware_nsx/plugins/nsx_p/plugin.py:
    delete_security_group_rule, delete_security_group); NSX did not answer, or refused, which the plugin notes in its
    log alone.
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
    return nsx_object.of_left("security group rule", row)


CHECK = Check(
    text=__doc__,
    accused=("nsx_objects",),
    query="""
        SELECT l.path AS key, NULL AS server, l.api, l.path, l.kind, l.name, l.neutron, l.project, l.plugin, l.revision,
               l.created, l.changed, [l.path, l.neutron] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               l.doubt AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nsx_leftovers l
         WHERE l.thing = 'rule'
    """,
    repair=nsx_object.repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "a service, and a group of addresses", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            nsx_objects  path                                            kind     id                thing  neutron  project  plugin  revision
                         /infra/services/u-1                             service  u-1               rule   u-1      t-1      17      0
                         /infra/domains/default/groups/u-1_remote_group  group    u-1_remote_group  rule   u-1      t-1      17      0
            """,
            finds=("/infra/domains/default/groups/u-1_remote_group", "/infra/services/u-1"),
            plans="""
            delete group /infra/domains/default/groups/u-1_remote_group from NSX
            delete service /infra/services/u-1 from NSX
            """),
        Scenario(
            "Neutron has it; of a security group", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            neutron_security_group_rules  id   security_group_id
                                          u-1  g-1
            nsx_objects  path                               kind     id   thing           neutron  project  plugin  revision
                         /infra/services/u-1                service  u-1  rule            u-1      t-1      17      0
                         /infra/domains/default/groups/g-1  group    g-1  security-group  g-1      t-1      17      0
            """),
    ),
)  # fmt: skip
