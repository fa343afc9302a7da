"""The PTR of a server's address leads to a name that does not lead back to it.

Why it matters
    What trusts a peer by its name asks both ways, and turns this one away: mail, SSH, Kerberos.  Or it takes the server
    for another one, whose name that is.
How it comes about
    The name was taken away, or given another address, and its PTR was left; or an address has the PTR of a server that
    had it before beside its own.
What the repair does
    None is made by a program: the name may be what is missing, or the PTR what is too many.  Shown is the update that
    takes the PTR away.
When not to repair
    Where another server than those of [dns.zone] answers for the name.
"""

from collections.abc import Iterable

from cloudfsck.acts.name import nsupdate
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    update = nsupdate(row["copy"], f"update delete {row['name']} PTR {row['target']}\\n")
    yield f"with a key that may change the zone, if the name is not what is missing: {update}"


CHECK = Check(
    text=__doc__,
    accused=("dns_records",),
    query="""
        WITH pointers AS (
            SELECT p.copy, p.name, p.data AS target, p.address, arg_max(z.copy, length(z.zone)) AS forward
              FROM server_records p
              JOIN dns_zones z ON ends_with(p.data, '.' || z.zone)
             WHERE z.own
               AND z.first
               AND EXISTS (SELECT 1 FROM taken_addresses t WHERE t.address = p.address)
             GROUP BY ALL)
        SELECT p.name || ' ' || p.target AS key, NULL AS server, p.copy, p.name, p.target, p.address, s.addresses AS leads,
               [p.copy, p.name, p.forward, p.target, p.address] AS also, [] AS hosts, [] AS cells,
               NULL AS since, NULL AS clock,
               coalesce('that name leads to ' || array_to_string(s.addresses, ', '), 'that name has no address') AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM pointers p
          LEFT JOIN (SELECT r.copy, r.name, list(DISTINCT r.address ORDER BY r.address) AS addresses
                       FROM dns_records r
                      WHERE r.address IS NOT NULL
                      GROUP BY r.copy, r.name) s ON s.copy = p.forward AND s.name = p.target
         WHERE NOT EXISTS (SELECT 1 FROM dns_records r
                            WHERE r.copy = p.forward
                              AND r.name = p.target
                              AND (r.type = 'CNAME' OR r.address = p.address))
           AND NOT EXISTS (SELECT 1 FROM dns_records d
                            WHERE d.copy = p.forward
                              AND d.type IN ('NS', 'DNAME')
                              AND d.name <> d.zone
                              AND ends_with('.' || p.target, '.' || d.name))
           AND NOT EXISTS (SELECT 1 FROM dns_records w
                            WHERE w.copy = p.forward
                              AND starts_with(w.name, '*.')
                              AND ends_with(p.target, substr(w.name, 2)))
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "that name has no address; it leads elsewhere; of two PTRs one; its name is in the inner of two zones",
            """
            hosts cell1  c1
            dns_zones    copy                 zone              server  own   first
                         cloud.test.@ns2      cloud.test.       ns2     true  false
                         cloud.test.@ns       cloud.test.       ns      true  true
                         in.cloud.test.@ns    in.cloud.test.    ns      true  true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  ns      true  true
            dns_records  copy                 zone              name                    type  ttl  data               address   hostname  ours
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  1.0.0.10.in-addr.arpa.  PTR   300  gone.cloud.test.   10.0.0.1  gone      true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  2.0.0.10.in-addr.arpa.  PTR   300  moved.cloud.test.  10.0.0.2  moved     true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  3.0.0.10.in-addr.arpa.  PTR   300  three.cloud.test.  10.0.0.3  three     true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  3.0.0.10.in-addr.arpa.  PTR   300  moved.cloud.test.  10.0.0.3  moved     true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  4.0.0.10.in-addr.arpa.  PTR   300  x.in.cloud.test.   10.0.0.4  x         true
                         cloud.test.@ns       cloud.test.       cloud.test.             NS    300  ns.cloud.test.     -         -         -
                         cloud.test.@ns       cloud.test.       sub.cloud.test.         NS    300  ns.cloud.test.     -         -         -
                         cloud.test.@ns       cloud.test.       *.apps.cloud.test.      A     300  10.0.0.3           10.0.0.3  -         true
                         cloud.test.@ns       cloud.test.       gone.cloud.test.        TXT   300  words              -         gone      -
                         cloud.test.@ns2      cloud.test.       gone.cloud.test.        A     300  10.0.0.1           10.0.0.1  gone      true
                         cloud.test.@ns2      cloud.test.       moved.cloud.test.       A     300  10.0.0.8           10.0.0.8  moved     true
                         cloud.test.@ns2      cloud.test.       moved.cloud.test.       NS    300  ns.cloud.test.     -         -         -
                         cloud.test.@ns2      cloud.test.       *.cloud.test.           A     300  10.0.0.3           10.0.0.3  -         true
                         cloud.test.@ns       cloud.test.       moved.cloud.test.       A     300  10.0.0.9           10.0.0.9  moved     true
                         cloud.test.@ns       cloud.test.       three.cloud.test.       A     300  10.0.0.3           10.0.0.3  three     true
                         cloud.test.@ns       cloud.test.       x.in.cloud.test.        A     300  10.0.0.4           10.0.0.4  -         true
            neutron_ip_allocations  port_id  ip_address
                                    p-1      10.0.0.1
                                    p-2      10.0.0.2
                                    p-3      10.0.0.3
                                    p-4      10.0.0.4
                                    p-9      10.0.0.9
            """,
            finds=(
                "1.0.0.10.in-addr.arpa. gone.cloud.test.",
                "2.0.0.10.in-addr.arpa. moved.cloud.test.",
                "3.0.0.10.in-addr.arpa. moved.cloud.test.",
                "4.0.0.10.in-addr.arpa. x.in.cloud.test.",
            ),
        ),
        Scenario(
            "it leads back, as an alias or by a wildcard too; another server answers for it; nobody has the address",
            """
            hosts cell1  c1
            dns_zones    copy                 zone              server  own    first
                         cloud.test.@ns2      cloud.test.       ns2     true   false
                         cloud.test.@ns       cloud.test.       ns      true   true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  ns      true   true
                         other.test.@ns       other.test.       ns      false  true
                         c.cloud.test.@ns2    c.cloud.test.     ns2     true   false
            dns_records  copy                 zone              name                    type   ttl  data               address   hostname  ours
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  1.0.0.10.in-addr.arpa.  PTR    300  one.cloud.test.    10.0.0.1  one       true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  2.0.0.10.in-addr.arpa.  PTR    300  two.cloud.test.    10.0.0.2  two       true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  3.0.0.10.in-addr.arpa.  PTR    300  x.apps.cloud.test.  10.0.0.3  x         true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  4.0.0.10.in-addr.arpa.  PTR    300  y.sub.cloud.test.  10.0.0.4  y         true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  5.0.0.10.in-addr.arpa.  PTR    300  old.cloud.test.    10.0.0.5  old       true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  6.0.0.10.in-addr.arpa.  PTR    300  six.other.test.    10.0.0.6  six       true
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  7.0.0.10.in-addr.arpa.  PTR    300  z.new.cloud.test.  10.0.0.7  z         true
                         cloud.test.@ns       cloud.test.       one.cloud.test.         A      300  10.0.0.1           10.0.0.1  one       true
                         cloud.test.@ns       cloud.test.       one.cloud.test.         A      300  10.0.0.8           10.0.0.8  one       true
                         cloud.test.@ns       cloud.test.       two.cloud.test.         CNAME  300  one.cloud.test.    -         two       -
                         cloud.test.@ns       cloud.test.       *.apps.cloud.test.      A      300  10.0.0.3           10.0.0.3  -         true
                         cloud.test.@ns       cloud.test.       sub.cloud.test.         NS     300  ns.sub.cloud.test.  -         -         -
                         cloud.test.@ns       cloud.test.       new.cloud.test.         DNAME  300  other.test.        -         -         -
                         10.in-addr.arpa.@ns  10.in-addr.arpa.  8.0.0.10.in-addr.arpa.  PTR    300  w.c.cloud.test.    10.0.0.8  w         true
                         cloud.test.@ns       cloud.test.       w.c.cloud.test.         A      300  10.0.0.8           10.0.0.8  w         true
            neutron_ip_allocations  port_id  ip_address
                                    p-1      10.0.0.1
                                    p-2      10.0.0.2
                                    p-3      10.0.0.3
                                    p-4      10.0.0.4
                                    p-6      10.0.0.6
                                    p-7      10.0.0.7
                                    p-8      10.0.0.8
            """,
        ),
    ),
)
