"""A server has no name in a zone, and an older one of its subnet has one.

Why it matters
    Nobody finds the server by its name, and what deploys by names waits for it.
How it comes about
    What keeps the names of a cloud's own zones was down when the server was made, or could not reach the DNS server; or
    it took the name away when a deletion began that failed.
What the repair does
    None is made by a program: whether every server is to have a name only you know.
When not to repair
    Where names are given by choice.  Where only few of a subnet's servers have names, all the others are told here: skip
    the check then.
"""

from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        WITH named AS (
            SELECT n.copy, n.zone, a.subnet_id AS subnet, min(l.launched_at) AS first,
                   arg_min([l.server, p.id, n.address], (l.launched_at, l.server)) AS witness
              FROM server_records n
              JOIN neutron_ip_allocations a ON a.ip_address = n.address
              JOIN neutron_ports p ON p.id = a.port_id
              JOIN live_servers l ON l.server = p.device_id
              JOIN hostnames h ON h.server = l.server AND h.hostname = n.hostname
             WHERE n.type <> 'PTR'
               AND h.live
             GROUP BY ALL),
        addressed AS (
            SELECT p.device_id AS server, a.subnet_id AS subnet,
                   list(DISTINCT p.id ORDER BY p.id) AS ports,
                   list(DISTINCT a.ip_address ORDER BY a.ip_address) AS addresses
              FROM neutron_ports p
              JOIN neutron_ip_allocations a ON a.port_id = p.id
             GROUP BY ALL)
        SELECT l.server || ' ' || n.zone || ' ' || array_to_string(a.addresses, ' ') AS key, l.server, l.name, l.cell,
               n.zone AS zone_name, o.hostname, a.addresses, n.witness[1] AS witness, l.launched_at AS since, 'cell:' || l.cell AS clock,
               list_concat([n.copy, n.zone], n.witness, a.ports) AS also, [] AS hosts, NULL AS cells,
               'whether it is to have one only a person knows' AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_servers l
          JOIN hostnames o ON o.server = l.server
          JOIN addressed a ON a.server = l.server
          JOIN named n ON n.subnet = a.subnet AND n.first < l.launched_at
         WHERE o.live
           AND l.vm_state = 'active'
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = l.server)
           AND NOT EXISTS (SELECT 1 FROM dns_records r WHERE r.copy = n.copy AND r.hostname = o.hostname)
    """,
    scenarios=(
        Scenario(
            "it alone has none, and had another name in another row; it has one in one of two zones",
            """
            hosts cell1            c1
            nova_instances         cell   uuid  host  deleted  hostname  vm_state  launched_at
                                   cell1  s-1   c1    0        one       active    -9d
                                   cell1  s-2   c1    0        Two.x     active    -3d
                                   cell1  s-2   c1    22       older     deleted   -9d
                                   cell1  s-3   c1    0        three     active    -2d
            dns_zones              copy            zone         server  own   first
                                   cloud.test.@ns  cloud.test.  ns      true  true
                                   other.test.@ns  other.test.  ns      true  true
            dns_records            copy            zone         name               type  data      address   hostname  ours
                                   cloud.test.@ns  cloud.test.  one.cloud.test.    A     10.0.0.1  10.0.0.1  one       true
                                   cloud.test.@ns  cloud.test.  older.cloud.test.  A     10.0.0.9  10.0.0.9  older     true
                                   cloud.test.@ns  cloud.test.  three.cloud.test.  A     10.0.0.3  10.0.0.3  three     true
                                   other.test.@ns  other.test.  one.other.test.    A     10.0.0.1  10.0.0.1  one       true
            neutron_ports          id   device_id
                                   p-1  s-1
                                   p-2  s-2
                                   p-3  s-3
            neutron_ip_allocations  port_id  ip_address  subnet_id
                                    p-1      10.0.0.1    n-1
                                    p-2      10.0.0.2    n-1
                                    p-3      10.0.0.3    n-1
            """,
            finds=("s-2 cloud.test. 10.0.0.2", "s-2 other.test. 10.0.0.2", "s-3 other.test. 10.0.0.3"),
        ),
        Scenario(
            "it has one; it is older, busy, stopped, of another subnet; the name is another's, or a PTR",
            """
            hosts cell1            c1
            nova_instances         cell   uuid  host  deleted  hostname  vm_state  task_state  launched_at
                                   cell1  s-1   c1    0        one       active    -           -9d
                                   cell1  s-2   c1    0        two       active    -           -3d
                                   cell1  s-3   c1    0        three     active    -           -10d
                                   cell1  s-4   c1    0        four      active    rebooting   -3d
                                   cell1  s-5   c1    0        five      stopped   -           -3d
                                   cell1  s-6   c1    0        six       active    -           -3d
                                   cell1  s-7   c1    0        seven     active    -           -9d
                                   cell1  s-8   c1    0        eight     active    -           -3d
                                   cell1  s-7   c1    77       renamed   deleted   -           -9d
                                   cell1  s-9   c1    0        nine      active    -           -1d
                                   cell1  s-10  c1    0        ten       active    -           -1h
            dns_zones              copy            zone         server  own   first
                                   cloud.test.@ns  cloud.test.  ns      true  true
            dns_records            copy            zone         name               type  data        address   hostname  ours
                                   cloud.test.@ns  cloud.test.  one.cloud.test.    A     10.0.0.1    10.0.0.1  one       true
                                   cloud.test.@ns  cloud.test.  two.cloud.test.    A     10.0.0.2    10.0.0.2  two       true
                                   cloud.test.@ns  cloud.test.  two.cloud.test.    A     10.0.8.9    10.0.8.9  two       true
                                   cloud.test.@ns  cloud.test.  alias.cloud.test.  A     10.0.0.7    10.0.0.7  alias     true
                                   cloud.test.@ns  cloud.test.  renamed.cloud.test.  A   10.0.0.7    10.0.0.7  renamed   true
                                   cloud.test.@ns  cloud.test.  7.0.0.10.cloud.test.  PTR  seven.cloud.test.  10.0.0.7  seven  true
            neutron_ports          id   device_id
                                   p-1  s-1
                                   p-2  s-2
                                   p-3  s-3
                                   p-4  s-4
                                   p-5  s-5
                                   p-6  s-6
                                   p-7  s-7
                                   p-8  s-8
                                   p-9  s-9
                                   p-10  s-10
                                   p-11  s-1
            neutron_ip_allocations  port_id  ip_address  subnet_id
                                    p-1      10.0.0.1    n-1
                                    p-2      10.0.0.2    n-1
                                    p-3      10.0.0.3    n-1
                                    p-4      10.0.0.4    n-1
                                    p-5      10.0.0.5    n-1
                                    p-6      10.0.0.6    n-6
                                    p-7      10.0.0.7    n-7
                                    p-8      10.0.0.8    n-7
                                    p-9      10.0.8.9    n-8
                                    p-10     10.0.8.10   n-8
                                    p-11     10.0.0.11   n-6
            """,
        ),
    ),
)
