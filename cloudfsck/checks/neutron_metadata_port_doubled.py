"""A network has two of OVN's metadata ports, and needs one.

Why it matters
    Neutron tells the guests of the one that it meets first, by DHCP, and each host's metadata agent serves the one that it
    meets first (ovn_client.py: _find_metadata_port; impl_idl_ovn.py: get_metadata_port).  Where these are two, a new server
    gets no metadata, and no SSH key.  The second one keeps an address in each subnet.
How it comes about
    Neutron looks whether the network has one, and makes one if it has none (neutron/plugins/ml2/drivers/ovn/mech_driver/
    ovsdb/ovn_client.py: create_metadata_port); two of its processes that look at the same time both make one.
What the repair does
    There is none, for guests may be using either.  The commands tell which of them DHCP names; the other one can go.
    `neutron-ovn-db-sync-util` in repair mode keeps whichever it is told of first, and deletes whatever else it does not know
    in OVN, on every network; it takes OVN load balancers' ports of older releases for doubles as well.
When not to repair
    While no subnet's DHCP options name any of them: look at the metadata agents' namespaces first, `ovnmeta-<network>`.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port list --network {row['network']} --device-owner network:distributed --long"
    yield (
        "where OVN's northbound database is, it names the address of the one to keep: ovn-nbctl --columns=cidr,options"
        f" find DHCP_Options external_ids:subnet_id=SUBNET, for each of: openstack subnet list --network {row['network']}"
    )
    for port in row["ports"]:
        yield f"as an administrator, if it is the other one: openstack port delete {port}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        SELECT substr(p.device_id, 9) AS key, NULL AS server, n.id AS network, n.name, n.project_id AS project, p.device_id,
               list(p.id ORDER BY p.created_at, p.id) AS ports, list(p.revision_number ORDER BY p.created_at, p.id) AS revisions,
               list_concat(list(p.id ORDER BY p.id), [p.device_id, n.id]) AS also,
               [] AS hosts, [] AS cells, max(p.created_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_ports p
          JOIN neutron_networks n ON n.id = p.network_id
         WHERE p.device_owner = 'network:distributed'
           AND starts_with(p.device_id, 'ovnmeta-')
         GROUP BY n.id, n.name, n.project_id, p.device_id
        HAVING count(*) > 1
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "two for a network, two for a segment of another", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  revision_number
                              n-1  net1  pr-1        2
                              n-2  net2  pr-1        2
            neutron_network_segments  id   network_id  network_type
                                      g-1  n-2         vlan
            neutron_ports     id   device_owner         device_id    network_id  status  revision_number  created_at  updated_at
                              o-1  network:distributed  ovnmeta-n-1  n-1         DOWN    2                -9d         -9d
                              o-2  network:distributed  ovnmeta-n-1  n-1         DOWN    1                -8d         -8d
                              o-3  network:distributed  ovnmeta-n-2  n-2         DOWN    2                -9d         -9d
                              o-4  network:distributed  ovnmeta-g-1  n-2         DOWN    2                -9d         -9d
                              o-5  network:distributed  ovnmeta-g-1  n-2         DOWN    2                -9d         -9d
            """,
            finds=("g-1", "n-1")),
        Scenario(
            "one for each network and segment; a load balancer's; somebody's own port of that device", """
            hosts cell1       c1
            neutron_networks  id   name  project_id  revision_number
                              n-1  net1  pr-1        2
                              n-2  net2  pr-1        2
            neutron_network_segments  id   network_id  network_type
                                      g-1  n-2         vlan
                                      g-2  n-2         vlan
            neutron_ports     id   device_owner         device_id     network_id  status  revision_number  created_at  updated_at
                              o-1  network:distributed  ovnmeta-n-1   n-1         DOWN    2                -9d         -9d
                              o-2  network:distributed  ovn-lb-hm-1   n-1         DOWN    2                -9d         -9d
                              o-3  network:distributed  ovn-lb-hm-1   n-1         DOWN    2                -9d         -9d
                              o-4  -                    ovnmeta-n-1   n-1         DOWN    2                -9d         -9d
                              o-5  network:distributed  ovnmeta-g-1   n-2         DOWN    2                -9d         -9d
                              o-6  network:distributed  ovnmeta-g-2   n-2         DOWN    2                -9d         -9d
            """),
    ),
)  # fmt: skip
