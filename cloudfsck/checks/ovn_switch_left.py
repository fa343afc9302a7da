"""OVN has a switch of a network that Neutron does not have.

Why it matters
    Every host is told of it, and of each of its ports; and what was to be cut off by deleting the network still talks.
How it comes about
    Neutron deletes its own row first, and then the switch in OVN (neutron/plugins/ml2/drivers/ovn/mech_driver.py:
    delete_network_postcommit); the northbound database was away just then, and what Neutron's maintenance goes by has
    been lost.  Or another Neutron uses the same OVN, and the network is that one's.
What the repair does
    It deletes one that has no ports, in one transaction that demands that the whole row is as it was read and refers to
    nothing else: if anything of it has changed, nothing is written.  `undo` puts the same row back.  Nothing in the row
    says whose Neutron made it, so that only a person decides unless [ovn] of the configuration says that this one uses
    OVN alone.
When not to repair
    After Neutron's database was restored.  Where another Neutron uses this OVN and has not been asked.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_object
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[ovn_object.Delete]:
    yield ovn_object.Delete("Logical_Switch", row["switch"], row["ovn_row"], row["network"], row["revision"])


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator of each Neutron that uses this OVN: openstack network show {row['network']}"
    yield f"where OVN's northbound database is: ovn-nbctl show {row['switch']}; ovn-nbctl list Logical_Switch {row['switch']}"
    for act in _repair(row):
        yield f"where OVN's northbound database is, if none of them has it and it has no port: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_switches",),
    query="""
        SELECT s.name AS key, NULL AS server, s.name AS switch, s.network, s.uuid AS ovn_row, s.ports, s.revision,
               [s.network] AS also, [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               CASE WHEN NOT a.alone THEN 'another Neutron may use this OVN: alone in [ovn] is to say that none does'
                    WHEN s.ports > 0 THEN 'it still has ports' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM ovn_switches s
         CROSS JOIN ovn_settings a
         WHERE s.network IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM neutron_networks n WHERE n.id = s.network)
           AND NOT EXISTS (SELECT 1 FROM neutron_network_segments g WHERE g.id = s.network)
           AND NOT EXISTS (SELECT 1 FROM neutron_ovn_revisions r
                            WHERE r.resource_uuid = s.network AND r.resource_type = 'networks')
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a network that is gone; what Neutron notes of another kind of thing does not count", """
            hosts cell1      c1
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   n-3            routers        -                 4
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      1      2
                             u-2   neutron-n-2  n-2      0      2
                             u-3   neutron-n-3  n-3      0      2
            """,
            finds=("neutron-n-2", "neutron-n-3")),
        Scenario(
            "where no other Neutron uses OVN: without ports, and with one", """
            hosts cell1      c1
            settings         name       value
                             ovn_alone  1
            ovn_switches     uuid  name         network  ports  revision
                             u-2   neutron-n-2  n-2      0      2
                             u-3   neutron-n-3  n-3      1      2
            """,
            finds=("neutron-n-2", "neutron-n-3"),
            plans="delete switch neutron-n-2 from OVN"),
        Scenario(
            "Neutron has it, as a network or a segment, or is about to delete it; it is not Neutron's", """
            hosts cell1      c1
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            neutron_network_segments  id   network_id  network_type
                                      g-1  n-1         vlan
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   n-2            networks       -                 4
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      1      2
                             u-2   neutron-n-2  n-2      0      2
                             u-3   neutron-g-1  g-1      0      2
                             u-4   other        -        0      -
            """),
    ),
)  # fmt: skip
