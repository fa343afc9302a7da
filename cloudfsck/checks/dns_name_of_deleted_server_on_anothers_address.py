"""A name of a deleted server leads to an address that another server has.

Why it matters
    Whoever asks for the old server is sent to another one, and tells it what was not meant for it.
How it comes about
    What keeps the names of a cloud's own zones was down when the server was deleted; then its address was given to the
    next one, and so has two names.
What the repair does
    None is made by a program: such a name may also be an alias that somebody keeps for the new server.  Shown is the
    update that takes the old name away if nobody has changed it since.
When not to repair
    Where the old name is meant to lead to the new server.
"""

from collections.abc import Iterable

from cloudfsck.acts import name
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"with a key that may change the zone, if nobody wants the name: {name.Remove.of(row).command}"


CHECK = Check(
    text=__doc__,
    accused=("dns_records",),
    query="""
        WITH rightful AS (
            SELECT n.address, min(n.name) AS name, min(h.server) AS server
              FROM server_records n
              JOIN hostnames h ON h.hostname = n.hostname AND h.live
              JOIN neutron_ports p ON p.device_id = h.server
              JOIN neutron_ip_allocations a ON a.port_id = p.id AND a.ip_address = n.address
             WHERE n.type <> 'PTR'
             GROUP BY n.address)
        SELECT n.name || ' ' || n.data AS key, o.last AS server, n.name, n.type, n.ttl, [n.data] AS dead,
               list_filter(r.records, lambda one: one <> n.data) AS kept, [n.address] AS addresses,
               [n.hostname] AS hostnames, w.name AS rightful_name, w.server AS rightful_server, n.copy,
               list_concat([n.copy, n.name, n.address, w.name, w.server], o.servers) AS also,
               o.deleted_at, [] AS hosts, NULL AS cells, NULL AS since, NULL AS clock,
               w.name || ' is the name of the server that has it' AS by_hand, NULL AS rung, NULL AS rung_since
          FROM server_records n
          JOIN hostname_owners o ON o.hostname = n.hostname AND NOT o.live
          JOIN rightful w ON w.address = n.address
          JOIN rrsets r ON r.copy = n.copy AND r.name = n.name AND r.type = n.type
         WHERE n.type <> 'PTR'
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "the address is another server's, which has its own name",
            """
            hosts cell1            c1
            dns_zones              copy             zone          server  own   first
                                   cloud.test.@ns   cloud.test.   ns      true  true
                                   cloud.test.@ns2  cloud.test.   ns2     true  false
            dns_records            copy             zone          name              type  ttl  data      address   hostname  ours
                                   cloud.test.@ns   cloud.test.   old.cloud.test.   A     300  10.0.0.1  10.0.0.1  old       true
                                   cloud.test.@ns   cloud.test.   old.cloud.test.   AAAA  300  fd00::1   fd00::1   old       true
                                   cloud.test.@ns2  cloud.test.   old.cloud.test.   A     300  10.0.0.9  10.0.0.9  old       true
                                   cloud.test.@ns   cloud.test.   new.cloud.test.   A     300  10.0.0.1  10.0.0.1  new       true
            nova_instances         uuid  cell   hostname  vm_state  deleted  deleted_at
                                   s-1   cell1  old       deleted   1        -9d
                                   s-2   cell1  new       active    0        -
            neutron_ports          id    device_id
                                   p-2   s-2
            neutron_ip_allocations  port_id  ip_address
                                   p-2       10.0.0.1
            """,
            finds=("old.cloud.test. 10.0.0.1",),
        ),
        Scenario(
            "an alias that no server had; a server of the name lives; the other name has not its address; a PTR",
            """
            hosts cell1            c1
            dns_zones              copy                 zone              server  own   first
                                   cloud.test.@ns       cloud.test.       ns      true  true
                                   10.in-addr.arpa.@ns  10.in-addr.arpa.  ns      true  true
            dns_records            copy                 zone              name                    type  ttl  data             address   hostname  ours
                                   cloud.test.@ns       cloud.test.       alias.cloud.test.       A     300  10.0.0.1         10.0.0.1  alias     true
                                   cloud.test.@ns       cloud.test.       both.cloud.test.        A     300  10.0.0.1         10.0.0.1  both      true
                                   cloud.test.@ns       cloud.test.       new.cloud.test.         A     300  10.0.0.1         10.0.0.1  new       true
                                   cloud.test.@ns       cloud.test.       old.cloud.test.         A     300  10.0.0.3         10.0.0.3  old       true
                                   cloud.test.@ns       cloud.test.       moved.cloud.test.       A     300  10.0.0.3         10.0.0.3  moved     true
                                   cloud.test.@ns       cloud.test.       gone.cloud.test.        A     300  10.0.0.3         10.0.0.3  gone      true
                                   cloud.test.@ns       cloud.test.       old2.cloud.test.        A     300  10.0.0.4         10.0.0.4  old2      true
                                   10.in-addr.arpa.@ns  10.in-addr.arpa.  4.0.0.10.in-addr.arpa.  PTR   300  new4.cloud.test. 10.0.0.4  new4      true
                                   10.in-addr.arpa.@ns  10.in-addr.arpa.  1.0.0.10.in-addr.arpa.  PTR   300  old.cloud.test.  10.0.0.1  old       true
            nova_instances         uuid  cell   hostname  vm_state  deleted  deleted_at
                                   s-1   cell1  old       deleted   1        -9d
                                   s-2   cell1  new       active    0        -
                                   s-3   cell1  both      deleted   3        -9d
                                   s-4   cell1  both      active    0        -
                                   s-5   cell1  moved     active    0        -
                                   s-6   cell1  gone      deleted   6        -9d
                                   s-7   cell1  old2      deleted   7        -9d
                                   s-8   cell1  new4      active    0        -
            neutron_ports          id    device_id
                                   p-2   s-2
                                   p-4   s-4
                                   p-5   s-5
                                   p-6   s-6
                                   p-8   s-8
                                   p-9   lb-1
            neutron_ip_allocations  port_id  ip_address
                                   p-2       10.0.0.1
                                   p-5       10.0.0.5
                                   p-6       10.0.0.3
                                   p-8       10.0.0.4
                                   p-9       10.0.0.3
            """,
        ),
    ),
)
