"""OVN has a port group of a security group that Neutron does not have.

Why it matters
    Its rules still hold for every port that is in it, and no owner sees them any more: what was to be shut stays open.
    One without ports only takes room.
How it comes about
    Neutron's own maintenance deletes what its notes (ovn_revision_numbers) tell of.  One that they do not tell of is
    there after a backup of either database was restored: OVN's has what was deleted since, Neutron's lacks what was made
    since.  Or another Neutron uses the same OVN, and the group is that one's.
What the repair does
    It deletes one that has no ports, in one transaction that demands that the whole row is as it was read and refers to
    nothing else: if anything of it has changed, nothing is written.  `undo` puts the same row back, with its rules.  Nothing in the row
    says whose Neutron made it, so that only a person decides unless [ovn] of the configuration says that this one uses
    OVN alone.
When not to repair
    After Neutron's database was restored: every group made since the backup looks like this, and protects somebody.
    Where another Neutron uses this OVN and has not been asked.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_object
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[ovn_object.Delete]:
    yield ovn_object.Delete("Port_Group", row["name"], row["ovn_row"], row["security_group"], row["revision"])


def _commands(row: Row) -> Iterable[str]:
    name = row["name"]
    yield f"as an administrator of each Neutron that uses this OVN: openstack security group show {row['security_group']}"
    yield f"where OVN's northbound database is: ovn-nbctl list Port_Group {name}; ovn-nbctl --type=port-group acl-list {name}"
    for act in _repair(row):
        yield f"where OVN's northbound database is, if none of them has it and it has no port: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_port_groups",),
    query="""
        SELECT o.name AS key, NULL AS server, o.name, o.security_group, o.uuid AS ovn_row, o.ports, o.revision,
               [o.security_group] AS also, [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               CASE WHEN NOT a.alone THEN 'another Neutron may use this OVN: alone in [ovn] is to say that none does'
                    WHEN o.ports > 0 THEN 'it still has ports' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM ovn_port_groups o
         CROSS JOIN ovn_settings a
         WHERE o.security_group IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM neutron_security_groups n WHERE n.id = o.security_group)
           AND NOT EXISTS (SELECT 1 FROM neutron_ovn_revisions r
                            WHERE r.resource_uuid = o.security_group AND r.resource_type = 'security_groups')
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "one that is gone; what Neutron notes of another kind of thing does not count", """
            hosts cell1      c1
            neutron_security_groups  id   project_id  name     revision_number
                                     g-1  p-1         default  2
            neutron_ovn_revisions  resource_uuid  resource_type         standard_attr_id  revision_number
                                   g-3            security_group_rules  -                 0
            ovn_port_groups  uuid  name    security_group  ports
                             u-1   pg_g_1  g-1             1
                             u-2   pg_g_2  g-2             0
                             u-3   pg_g_3  g-3             2
            """,
            finds=("pg_g_2", "pg_g_3")),
        Scenario(
            "where no other Neutron uses OVN: without ports, and with one", """
            hosts cell1      c1
            settings         name       value
                             ovn_alone  1
            ovn_port_groups  uuid  name    security_group  ports
                             u-2   pg_g_2  g-2             0
                             u-3   pg_g_3  g-3             1
            """,
            finds=("pg_g_2", "pg_g_3"),
            plans="delete port group pg_g_2 from OVN"),
        Scenario(
            "where another one uses it, or may", """
            hosts cell1      c1
            settings         name               value
                             ovn_alone          0
                             service_down_time  60
            ovn_port_groups  uuid  name    security_group  ports
                             u-2   pg_g_2  g-2             0
            """,
            finds=("pg_g_2",)),
        Scenario(
            "Neutron has it, or is about to delete it; of no security group", """
            hosts cell1      c1
            neutron_security_groups  id   project_id  name     revision_number
                                     g-1  p-1         default  2
            neutron_ovn_revisions  resource_uuid  resource_type    standard_attr_id  revision_number
                                   g-2            security_groups  -                 2
            ovn_port_groups  uuid  name             security_group  ports
                             u-1   pg_g_1           g-1             1
                             u-2   pg_g_2           g-2             0
                             u-3   neutron_pg_drop  -               1
            """),
    ),
)  # fmt: skip
