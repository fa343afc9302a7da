"""Neutron believes that a security group is in OVN, and it is not there.

Why it matters
    What the group allows is not allowed any more: a port that has no other group is cut off.  No port with that group can
    be made.
How it comes about
    Somebody removed its port group from the northbound database, or that was restored from an older backup.  Neutron's
    maintenance looks only at what it has noted itself, and there the group is up to date.
What the repair does
    There is none: which ports the group has is not read.  Once Neutron's note says that the group never got there, its maintenance makes it within five
    minutes, with its rules and without its ports: what a port says itself of its groups is unchanged, so that Neutron sees
    nothing to add (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/ovn_client.py: update_port).  A person puts them in.
    `neutron-ovn-db-sync-util` in repair mode would do so for everything that differs, and delete what it does not know.
When not to repair
    While OVN is being restored.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_note
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    group = row["security_group"]
    name = f"pg_{group.replace('-', '_')}"
    yield f"as an administrator: openstack security group show {group}; openstack port list --security-group {group} -c ID"
    yield f"where OVN's northbound database is: ovn-nbctl --columns=name,ports find Port_Group name={name}"
    yield from ovn_note.again(group, "security_groups", row["revision"])
    yield f"where OVN's northbound database is, when it is there: ovn-nbctl pg-set-ports {name} PORT PORT …, all that were listed"


CHECK = Check(
    text=__doc__,
    accused=("neutron_security_groups",),
    query="""
        SELECT n.id AS key, NULL AS server, n.id AS security_group, n.name, n.project_id AS project,
               n.revision_number AS revision, n.updated_at, [n.id] AS also, [] AS hosts, [] AS cells,
               greatest(n.created_at, n.updated_at, r.updated_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_security_groups n
          JOIN neutron_ovn_revisions r ON r.resource_uuid = n.id AND r.resource_type = 'security_groups'
         WHERE r.revision_number = n.revision_number
           AND NOT EXISTS (SELECT 1 FROM ovn_port_groups o WHERE o.security_group = n.id)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "it is not there", """
            hosts cell1      c1
            neutron_security_groups  id   project_id  name     revision_number  created_at  updated_at
                                     g-1  p-1         default  2                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type    standard_attr_id  revision_number  updated_at
                                   g-1            security_groups  1                 2                -9d
            """,
            finds=("g-1",)),
        Scenario(
            "it is there; Neutron knows that it is not, or that it is not to be", """
            hosts cell1      c1
            neutron_security_groups  id   project_id  name     revision_number  created_at  updated_at
                                     g-1  p-1         default  2                -9d         -9d
                                     g-2  p-1         web      3                -9d         -5m
                                     g-3  p-1         db       2                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type         standard_attr_id  revision_number  updated_at
                                   g-1            security_groups       1                 2                -9d
                                   g-2            security_groups       2                 2                -9d
                                   g-3            security_group_rules  3                 2                -9d
            ovn_port_groups  uuid  name    security_group  ports
                             u-1   pg_g_1  g-1             1
            """),
    ),
)  # fmt: skip
