"""OVN has DHCP options of a subnet or a port that Neutron does not have.

Why it matters
    They only take room, but they are in the way: a newer Neutron that starts completes the options that an older one
    wrote, and one of a subnet that it does not have ends that for all (neutron/plugins/ml2/drivers/ovn/mech_driver/
    ovsdb/maintenance.py: check_dhcp_options_consistency).
How it comes about
    Neutron deletes its own row first, and then the options in OVN (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/
    ovn_client.py: delete_subnet); what its maintenance goes by (ovn_revision_numbers) has been lost, or the subnet was
    deleted from the database by hand.  A port's own go with the port in OVN only where Neutron deletes it (commands.py:
    DelLSwitchPortCommand).
What the repair does
    It deletes the one row, in one transaction that demands that the whole row is as it was read and that no port refers
    to it: otherwise nothing is written.  `undo` puts the same row back.
When not to repair
    After Neutron's database was restored: the options of every subnet made since the backup look like this, and are
    needed.  While a port refers to them: its guest would get no address any more.  Where another Neutron uses the same
    OVN: its networks are not this one's, and only a person decides, unless [ovn] of the configuration says that this one
    uses OVN alone; options that an older Neutron wrote do not tell the network.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_object
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[ovn_object.Delete]:
    yield ovn_object.Delete("DHCP_Options", row["ovn_row"], row["ovn_row"], row["subnet"], row["revision"])


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator of each Neutron that uses this OVN: openstack subnet show {row['subnet']}"
    if row["port"]:
        yield f"as an administrator of each Neutron that uses this OVN: openstack port show {row['port']}"
    column = "dhcpv6_options" if ":" in row["cidr"] else "dhcpv4_options"
    yield (
        f"where OVN's northbound database is: ovn-nbctl list DHCP_Options {row['ovn_row']}; ovn-nbctl --columns=name"
        f" find Logical_Switch_Port {column}={row['ovn_row']}"
    )
    for act in _repair(row):
        yield f"where OVN's northbound database is, if none of them has it and no port has them: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_dhcp_options",),
    query="""
        SELECT o.uuid AS key, NULL AS server, o.subnet, o.port, o.network, o.uuid AS ovn_row, o.cidr, o.ports, o.revision,
               n.name AS network_name, n.project_id AS project, [o.subnet, o.port, o.network] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               CASE WHEN n.id IS NULL AND NOT a.alone THEN 'its network is none of this Neutron''s'
                    WHEN o.ports > 0 THEN 'a port refers to them' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM ovn_dhcp_options o
         CROSS JOIN ovn_settings a
          LEFT JOIN neutron_networks n ON n.id = o.network
         WHERE o.subnet IS NOT NULL
           AND (NOT EXISTS (SELECT 1 FROM neutron_subnets s WHERE s.id = o.subnet)
                OR o.port IS NOT NULL AND NOT EXISTS (SELECT 1 FROM neutron_ports p WHERE p.id = o.port))
           AND NOT EXISTS (SELECT 1 FROM neutron_ovn_revisions r
                            WHERE r.resource_uuid IN (o.subnet, o.port) AND r.standard_attr_id IS NULL)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a subnet: its network is here, is another Neutron's, is not told; a port refers to them", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  revision_number
                              n-1  net0  p-1         2
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   b-1            subnets        7                 0
            ovn_dhcp_options  uuid  subnet  port  network  cidr         ports  revision
                              u-1   b-1     -     n-1      10.0.0.0/24  0      0
                              u-2   b-2     -     n-2      10.0.0.0/24  0      0
                              u-3   b-3     -     -        10.0.0.0/24  0      0
                              u-4   b-4     -     n-1      10.0.0.0/24  2      0
            """,
            finds=("u-1", "u-2", "u-3", "u-4"),
            plans="delete DHCP options u-1 from OVN"),
        Scenario(
            "of a port of a subnet that is here; of one that is here, of a subnet that is not", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  revision_number
                              n-1  net0  p-1         2
            neutron_subnets   id
                              b-1
            neutron_ports     id   device_owner  device_id  status  network_id  mac_address  revision_number
                              o-2  compute:nova  s-2        ACTIVE  n-1         fa:02        4
            ovn_dhcp_options  uuid  subnet  port  network  cidr         ports  revision
                              u-1   b-1     o-1   n-1      10.0.0.0/24  0      0
                              u-2   b-2     o-2   n-1      10.0.0.0/24  0      0
            """,
            finds=("u-1", "u-2"),
            plans="""
            delete DHCP options u-1 from OVN
            delete DHCP options u-2 from OVN
            """),
        Scenario(
            "of a network that is gone too, where no other Neutron uses OVN", """
            hosts cell1       c1
            settings          name       value
                              ovn_alone  1
            ovn_dhcp_options  uuid  subnet  port  network  cidr         ports  revision
                              u-2   b-2     -     n-2      10.0.0.0/24  0      0
            """,
            finds=("u-2",),
            plans="delete DHCP options u-2 from OVN"),
        Scenario(
            "Neutron has it, or is about to delete it; it is not Neutron's", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  revision_number
                              n-1  net0  p-1         2
            neutron_subnets   id
                              b-1
            neutron_ports     id   device_owner  device_id  status  network_id  mac_address  revision_number
                              o-1  compute:nova  s-1        ACTIVE  n-1         fa:01        4
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   b-1            subnets        1                 0
                                   b-3            subnets        -                 0
                                   o-4            ports          -                 3
            ovn_dhcp_options  uuid  subnet  port  network  cidr         ports  revision
                              u-1   b-1     -     n-1      10.0.0.0/24  1      0
                              u-2   b-1     o-1   n-1      10.0.0.0/24  1      0
                              u-3   b-3     -     n-1      10.0.1.0/24  0      0
                              u-4   b-1     o-4   n-1      10.0.0.0/24  0      0
                              u-5   -       -     -        10.1.0.0/24  0      -
            """),
    ),
)  # fmt: skip
