"""OVN has a port on the switch of another network.

Why it matters
    It talks with a network that its owner never gave it, and not with its own.
How it comes about
    Neutron makes a port on its network's switch, or on that of one of the network's segments
    (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/ovn_client.py: create_port), and a port never changes its network:
    somebody moved it by hand, or a switch was made anew under another name.
What the repair does
    There is none: whoever has the port may be talking over it.  It goes where it belongs when it is deleted in OVN and
    Neutron's maintenance makes it again, within five minutes; until then it is cut off.
When not to repair
    Before its owner knows that it will be cut off.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_note
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    port = row["port"]
    yield f"as an administrator: openstack port show {port}; openstack network show {row['network']}"
    yield (
        f"where OVN's northbound database is: ovn-nbctl lsp-get-ls {port}; ovn-nbctl list Logical_Switch_Port {port};"
        f" ovn-nbctl show {row['switch']}"
    )
    yield f"where OVN's northbound database is, when its owner knows: ovn-nbctl lsp-del {port}"
    if row["noted"] is not None:
        yield from ovn_note.again(port, "ports", row["noted"])


CHECK = Check(
    text=__doc__,
    accused=("ovn_switch_ports",),
    query="""
        SELECT o.name AS key, CASE WHEN starts_with(p.device_owner, 'compute:') THEN p.device_id END AS server, o.port,
               o.uuid AS ovn_row, o.switch, p.network_id AS network, p.device_owner, o.up, o.revision,
               r.revision_number AS noted, [o.port] AS also, [] AS hosts, [] AS cells, NULL AS since,
               'neutron:neutron' AS clock, NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM ovn_switch_ports o
          JOIN neutron_ports p ON p.id = o.port
          LEFT JOIN neutron_ovn_revisions r ON r.resource_uuid = o.port AND r.resource_type = 'ports'
         WHERE NOT EXISTS (SELECT 1 FROM ovn_switches s WHERE s.name = o.switch AND s.network = p.network_id)
           AND NOT EXISTS (SELECT 1 FROM ovn_switches s
                             JOIN neutron_network_segments g ON g.id = s.network
                            WHERE s.name = o.switch AND g.network_id = p.network_id)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "on that of another network, of another's segment, and on somebody else's", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  2                -9d         -9d
                              n-2  net1  p-1         ACTIVE  2                -9d         -9d
                              n-3  net2  p-1         ACTIVE  2                -9d         -9d
            neutron_network_segments  id   network_id  network_type
                                      g-2  n-2         vlan
                                      g-1  n-1         vlan
            neutron_ports     id   device_owner  device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                              o-1  -             -          DOWN    n-1         fa:01        4                -9d         -9d
                              o-2  compute:nova  s-1        ACTIVE  n-1         fa:02        4                -9d         -9d
                              o-3  -             -          DOWN    n-1         fa:03        4                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   o-1            ports          1                 4                -9d
                                   o-2            router_ports   2                 4                -9d
            ovn_switches      uuid  name         network  ports  revision
                              u-1   neutron-n-1  n-1      0      2
                              u-2   neutron-g-2  g-2      1      2
                              u-3   neutron-n-3  n-3      1      2
                              u-4   other        -        1      -
                              u-5   neutron-g-1  g-1      0      2
            ovn_switch_ports  uuid  name  port  switch       type  up     device_id  device_owner  revision
                              u-11  o-1   o-1   neutron-n-3  -     false  -          -             4
                              u-12  o-2   o-2   neutron-g-2  -     true   s-1        compute:nova  4
                              u-13  o-3   o-3   other        -     false  -          -             4
            """,
            finds=("o-1", "o-2", "o-3")),
        Scenario(
            "on its network's, or a segment's of that; it is not Neutron's, or not this one's", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  2                -9d         -9d
            neutron_network_segments  id   network_id  network_type
                                      g-1  n-1         vlan
            neutron_ports     id   device_owner  device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                              o-1  -             -          DOWN    n-1         fa:01        4                -9d         -9d
                              o-2  -             -          DOWN    n-1         fa:02        4                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   o-9            ports          -                 4                -9d
            ovn_switches      uuid  name         network  ports  revision
                              u-1   neutron-n-1  n-1      1      2
                              u-2   neutron-g-1  g-1      1      2
                              u-4   other        -        2      -
            ovn_switch_ports  uuid  name   port  switch       type  up     device_id  device_owner  revision
                              u-11  o-1    o-1   neutron-n-1  -     false  -          -             4
                              u-12  o-2    o-2   neutron-g-1  -     false  -          -             4
                              u-13  o-9    o-9   other        -     false  -          -             4
                              u-14  pod-1  -     other        -     true   -          -             -
            """),
    ),
)  # fmt: skip
