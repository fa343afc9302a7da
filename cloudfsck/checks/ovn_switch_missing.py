"""Neutron believes that a network is in OVN, and it is not there.

Why it matters
    Nothing in the network reaches anything, and no port can be made in it.
How it comes about
    Somebody removed the switch from the northbound database, or that was restored from an older backup.  Neutron's
    maintenance looks only at what it has noted itself, and there the network is up to date.
What the repair does
    It has Neutron's note say that the network never got there, in one transaction in which the network and the note are
    as they were seen.  Neutron's maintenance then makes the switch within five minutes (neutron/plugins/ml2/drivers/ovn/
    mech_driver/ovsdb/maintenance.py: _fix_create_update); if it does not, ovn-change-overdue tells.  The network's ports
    are then told by ovn-port-missing.  `neutron-ovn-db-sync-util` in repair mode would do both, for everything that
    differs, and delete what it does not know.
When not to repair
    While OVN is being restored.  What Octavia's provider for OVN had put on the switch Neutron does not know:
    `octavia-ovn-db-sync-util` brings it back.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_note
from cloudfsck.model import Act, Check, Row, Scenario


def _repair(row: Row) -> Iterable[Act]:
    yield ovn_note.Reset.made(row, "networks")


def _commands(row: Row) -> Iterable[str]:
    network = row["network"]
    yield f"as an administrator: openstack network show {network}; openstack subnet list --network {network}"
    yield f"where OVN's northbound database is: ovn-nbctl --columns=name,external_ids find Logical_Switch name=neutron-{network}"
    yield from ovn_note.again(network, "networks", row["revision"])


CHECK = Check(
    text=__doc__,
    accused=("neutron_networks",),
    query="""
        SELECT n.id AS key, NULL AS server, n.id AS network, n.name, n.project_id AS project, n.status,
               n.revision_number AS revision, n.updated_at, r.standard_attr_id, r.updated_at AS noted_at, [n.id] AS also, [] AS hosts, [] AS cells,
               greatest(n.created_at, n.updated_at, r.updated_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_networks n
          JOIN neutron_ovn_revisions r ON r.resource_uuid = n.id AND r.resource_type = 'networks'
         WHERE r.revision_number = n.revision_number
           AND r.standard_attr_id NOTNULL
           AND NOT EXISTS (SELECT 1 FROM ovn_switches o WHERE o.network = n.id)
           AND NOT EXISTS (SELECT 1 FROM ovn_switches o
                             JOIN neutron_network_segments g ON g.id = o.network
                            WHERE g.network_id = n.id)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "its switch is not there, nor one of a segment of its own", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  2                -9d         -9d
            neutron_network_segments  id   network_id  network_type
                                      g-1  n-1         vlan
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   n-1            networks       1                 2                -9d
            """,
            finds=("n-1",),
            plans="have Neutron make network n-1 in OVN again: its note of revision 2"),
        Scenario(
            "it is there, or its segment is; Neutron knows that it is not, or has deleted it; it is of another driver", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net1  p-1         ACTIVE  2                -9d         -9d
                              n-2  net2  p-1         ACTIVE  3                -9d         -5m
                              n-3  net3  p-1         ACTIVE  2                -9d         -9d
                              n-4  net4  p-1         ACTIVE  2                -9d         -9d
                              n-5  net5  p-1         ACTIVE  2                -9d         -9d
                              n-6  net6  p-1         ACTIVE  2                -9d         -9d
            neutron_network_segments  id   network_id  network_type
                                      g-3  n-3         vlan
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   n-1            networks       1                 2                -9d
                                   n-2            networks       2                 2                -9d
                                   n-3            networks       3                 2                -9d
                                   n-4            ports          4                 2                -9d
                                   n-6            networks       -                 2                -9d
            ovn_switches      uuid  name         network  ports  revision
                              u-1   neutron-n-1  n-1      0      2
                              u-3   neutron-g-3  g-3      0      2
            """),
    ),
)  # fmt: skip
