"""Nova deleted the server, and Neutron still has a port of it.

Why it matters
    The port keeps its addresses and counts against the quota of its project; security groups, the network and its
    subnets cannot be deleted while it is there.  A port that its owner made himself cannot be given to another server.
How it comes about
    Neutron did not answer while the server was deleted (nova/compute/manager.py: _try_deallocate_network gives up after
    three attempts, and the server is in ERROR, or deleted by nova-api alone); or it answered a nova-compute that was dead
    by then, and made the port of a build when the server was gone (`device_owner` is empty then); or the server's rows
    were deleted by hand.
What the repair does
    As Nova itself would have (nova/network/neutron.py: deallocate_for_instance), through Neutron's API and with the
    revision that was seen: a port that Nova made is deleted; any other is taken from the server and stays its owner's,
    with its addresses.  Where nobody can tell any more who made it (the server is archived), or something hangs on it (a
    floating IP, a trunk, tags, a name, address pairs), it is only taken from the server.  A deletion cannot be undone;
    the whole port is kept in the journal.
When not to repair
    While a guest of that server still runs somewhere.  While servers are being restored from a backup of Nova's database.
"""

from collections.abc import Iterable

from cloudfsck.acts import port
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[port.Delete | port.Unbind]:
    yield port.Delete.of(row) if row["made_by_nova"] and not row["ties"] else port.Unbind.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port show {row['port']}"
    for host in row["guests_on"]:
        yield f"on {host}: virsh domiflist {row['server']}"
    for act in _repair(row):
        yield f"as an administrator, once no guest has it: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        SELECT p.port AS key, p.server, p.server_name, p.project, p.deleted_at, p.last_host, p.port, p.name, p.network,
               p.mac, p.status, p.device_owner, p.bound_to, p.revision, p.created_at, p.updated_at,
               coalesce(list_contains(c.ports, p.port) AND NOT list_contains(c.preserved, p.port), FALSE) AS made_by_nova,
               (SELECT coalesce(list(DISTINCT t.why ORDER BY t.why), []) FROM port_ties t WHERE t.port = p.port) AS ties,
               coalesce(g.on_hosts, []) AS guests_on, [p.port] AS also,
               NULL AS hosts, CASE WHEN m.cell IS NOT NULL THEN list_sort(list_distinct([m.cell, p.cell])) END AS cells,
               greatest(p.changed, p.deleted_at) AS since,
               CASE WHEN p.deleted_at > p.changed THEN 'cell:' || p.cell ELSE 'neutron:neutron' END AS clock,
               CASE WHEN g.port IS NOT NULL THEN 'a guest has the port, on ' || array_to_string(g.on_hosts, ', ')
                    WHEN p.status = 'ACTIVE' THEN 'Neutron says that something uses it'
                    WHEN p.revision IS NULL THEN 'Neutron tells no revision of it' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM ports_of_gone_servers p
          LEFT JOIN mapped_servers m ON m.server = p.server
          LEFT JOIN port_guests g ON g.port = p.port
          LEFT JOIN (SELECT instance_uuid, any_value(ports) AS ports, any_value(preserved) AS preserved
                       FROM nova_instance_info_caches GROUP BY instance_uuid HAVING count(*) = 1) c
                 ON c.instance_uuid = p.server
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "Nova made it, its owner made it, nobody knows; a floating IP, a name, a trunk, tags hang on it", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -3d
                             cell1  s-2   c1    2        -3d
                             cell1  s-3   c2    3        -3d
                             cell1  s-4   c2    4        -3d
                             cell1  s-6   c2    6        -3d
                             cell1  s-7   c2    7        -3d
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-5   c9    5        -9d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instance_info_caches  cell   instance_uuid  deleted  ports                       preserved
                                       cell1  s-1            1        [p-1]                       []
                                       cell1  s-2            2        [p-2]                       [p-2]
                                       cell1  s-4            4        [p-4,p-41,p-42,p-43,p-44,p-45]   []
                                       cell1  s-6            6        [p-6]                       []
                                       cell1  s-6            6        [p-6]                       []
                                       cell1  s-7            7        [p-0]                       []
            neutron_ports    id    device_owner  device_id  status  name  network_id  mac_address  standard_attr_id  revision_number  created_at  updated_at
                             p-1   compute:nova  s-1        DOWN    -     n-1         fa:01        1                 4                -9d         -9d
                             p-2   compute:nova  s-2        DOWN    -     n-1         fa:02        2                 4                -9d         -9d
                             p-3   compute:nova  s-3        DOWN    -     n-1         fa:03        3                 4                -9d         -2d
                             p-4   compute:nova  s-4        DOWN    -     n-1         fa:04        4                 4                -9d         -9d
                             p-41  compute:nova  s-4        DOWN    vip   n-1         fa:41        41                4                -9d         -9d
                             p-42  compute:nova  s-4        DOWN    -     n-1         fa:42        42                4                -9d         -9d
                             p-43  compute:nova  s-4        DOWN    -     n-1         fa:43        43                4                -9d         -9d
                             p-44  compute:nova  s-4        DOWN    -     n-1         fa:44        44                4                -9d         -9d
                             p-45  compute:nova  s-4        DOWN    -     n-1         fa:45        45                4                -9d         -9d
                             p-5   compute:None  s-5        DOWN    -     n-1         fa:05        5                 4                -9d         -9d
                             p-6   compute:nova  s-6        DOWN    -     n-1         fa:06        6                 4                -9d         -9d
                             p-7   compute:nova  s-7        DOWN    -     n-1         fa:07        7                 4                -9d         -9d
                             p-71  -             s-7        DOWN    -     n-1         fa:71        71                1                -9d         -
            neutron_port_bindings  port_id  host  status    vif_type
                                   p-1      c1    ACTIVE    ovs
                                   p-1      c2    INACTIVE  ovs
            neutron_floating_ips  id   floating_ip_address  fixed_port_id  fixed_ip_address  revision_number  created_at  updated_at
                                  f-1  192.0.2.9            p-4            10.0.0.4          2                -9d         -9d
                                  f-2  192.0.2.8            -              -                 2                -9d         -9d
            neutron_trunks   id   port_id
                             t-1  p-42
            neutron_subports  port_id  trunk_id
                              p-43     t-1
            neutron_allowed_address_pairs  port_id  ip_address
                                           p-44     10.0.0.9
            neutron_tags     standard_attr_id  tag
                             45                keep
            """,
            finds=("p-1", "p-2", "p-3", "p-4", "p-41", "p-42", "p-43", "p-44", "p-45", "p-5", "p-6", "p-7", "p-71"),
            plans="""
            delete port p-1 of server s-1
            unbind port p-2 from server s-2; it stays its owner's, with its addresses
            unbind port p-3 from server s-3; it stays its owner's, with its addresses
            unbind port p-4 from server s-4; it stays its owner's, with its addresses
            unbind port p-41 from server s-4; it stays its owner's, with its addresses
            unbind port p-42 from server s-4; it stays its owner's, with its addresses
            unbind port p-43 from server s-4; it stays its owner's, with its addresses
            unbind port p-44 from server s-4; it stays its owner's, with its addresses
            unbind port p-45 from server s-4; it stays its owner's, with its addresses
            unbind port p-5 from server s-5; it stays its owner's, with its addresses
            unbind port p-6 from server s-6; it stays its owner's, with its addresses
            unbind port p-7 from server s-7; it stays its owner's, with its addresses
            unbind port p-71 from server s-7; it stays its owner's, with its addresses
            """),
        Scenario(
            "a guest or Open vSwitch has it, by the port or by its address; or it is up; or without a revision", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -3d
                             cell1  s-2   c1    2        -3d
                             cell1  s-3   c2    3        -3d
                             cell1  s-4   c2    4        -3d
                             cell1  s-5   c2    5        -3d
                             cell1  s-6   c2    6        -3d
                             cell1  s-7   c1    7        -3d
                             cell1  s-9   c2    0        -
            nova_instance_mappings  instance_uuid  cell_id
                                    s-9            cell1
            libvirt_domains  host  uuid  state    nova  id  xml_sha256
                             c1    s-1   running  true  1   d1
                             c1    s-2   shutoff  true  -   d2
                             c2    s-6   shutoff  true  -   d6
                             c2    s-9   running  true  9   d9
            qemu_processes   host  uuid  pid
                             c1    s-1   101
                             c2    s-9   109
            libvirt_interfaces  host  uuid  config  mac    port
                                c1    s-1   live    fa:01  p-1
                                c1    s-2   both    FA:02  -
                                c2    s-9   live    fa:33  p-3
                                c2    s-9   live    fa:05  -
                                c2    s-6   both    fa:66  -
            ovs_interfaces   host  bridge  name   iface_id  vm   ofport  error
                             c1    br-int  tap-7  p-7       s-7  9       -
            neutron_ports    id   device_owner  device_id  status  name  mac_address  standard_attr_id  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        DOWN    -     fa:01        1                 4                -9d         -9d
                             p-2  compute:nova  s-2        DOWN    -     fa:02        2                 4                -9d         -9d
                             p-3  compute:nova  s-3        DOWN    -     fa:03        3                 4                -9d         -9d
                             p-4  compute:nova  s-4        ACTIVE  -     fa:04        4                 4                -9d         -9d
                             p-5  compute:nova  s-5        DOWN    -     fa:05        5                 -                -9d         -9d
                             p-6  compute:nova  s-6        DOWN    -     fa:06        6                 4                -9d         -9d
                             p-7  compute:nova  s-7        DOWN    -     fa:07        7                 4                -9d         -9d
            """,
            finds=("p-1", "p-2", "p-3", "p-4", "p-5", "p-6", "p-7"),
            plans="unbind port p-6 from server s-6; it stays its owner's, with its addresses"),
        Scenario(
            "the server lives, is under way, or its deletion is; its host has just gone down; it is nobody's, or a router's", """
            hosts cell1      c1
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c3    nova-compute  -2h           0        false
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned  task_state
                             cell1  s-1   c1    0        -           0        -
                             cell1  s-2   c1    2        -2h         0        -
                             cell1  s-3   c3    3        -9d         1        -
                             cell1  s-4   c1    4        -9d         1        -
                             cell1  s-6   c1    6        -9d         1        -
            nova_build_requests  id  instance_uuid  volumes
                                 1   s-6            []
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            neutron_ports    id   device_owner              device_id  status  name  mac_address  standard_attr_id  revision_number  created_at  updated_at
                             p-1  compute:nova              s-1        DOWN    -     fa:01        1                 4                -9d         -9d
                             p-2  compute:nova              s-2        DOWN    -     fa:02        2                 4                -9d         -9d
                             p-3  compute:nova              s-3        DOWN    -     fa:03        3                 4                -9d         -9d
                             p-4  network:router_interface  s-4        DOWN    -     fa:04        4                 4                -9d         -9d
                             p-5  compute:nova              s-5        DOWN    -     fa:05        5                 4                -9d         -9d
                             p-6  compute:nova              s-6        DOWN    -     fa:06        6                 4                -9d         -9d
            """),
    ),
)  # fmt: skip
