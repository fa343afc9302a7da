"""The address of a server has no PTR, and those of most others have.

Why it matters
    What trusts a peer by its name asks for the name of its address first, and turns this one away: mail, SSH, Kerberos.
    In every log it is a number.
How it comes about
    Of the two updates that name a server the second was lost, or somebody took the PTR away.
What the repair does
    None is made by a program: which of the names of an address its PTR is to say only you know.  Shown is the update
    that makes it.
When not to repair
    Where the name is an alias.  It is told only of a reverse zone in which more of the names that [dns.zone] says are
    servers' have a PTR than have none.
"""

from collections.abc import Iterable

from cloudfsck.acts.name import nsupdate
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    update = f"prereq nxdomain {row['pointer']}\\nupdate add {row['pointer']} {row['ttl']} PTR {row['name']}\\n"
    yield f"with a key that may change the zone: {nsupdate(row['reverse'], update)}"


CHECK = Check(
    text=__doc__,
    accused=("dns_records",),
    query="""
        WITH names AS (
            SELECT n.copy, n.zone, n.name, n.address, n.ttl, n.pointer
              FROM server_records n
             WHERE n.type <> 'PTR'),
        placed AS (
            SELECT n.*, arg_max(z.copy, length(z.zone)) AS reverse, arg_max(z.zone, length(z.zone)) AS reverse_zone
              FROM names n
              JOIN dns_zones z ON ends_with(n.pointer, '.' || z.zone)
             WHERE z.own
               AND z.first
             GROUP BY ALL),
        judged AS (
            SELECT p.*, count(r.name) > 0 AS has
              FROM placed p
              LEFT JOIN dns_records r
                     ON r.copy = p.reverse
                    AND (r.name = p.pointer AND r.type IN ('PTR', 'CNAME')
                         OR r.type = 'NS' AND r.name <> r.zone AND ends_with('.' || p.pointer, '.' || r.name))
             GROUP BY ALL),
        zones AS (
            SELECT j.reverse, count(*) FILTER (j.has) AS many, count(*) FILTER (NOT j.has) AS few
              FROM judged j
             GROUP BY j.reverse)
        SELECT j.name || ' ' || j.address AS key, NULL AS server, j.name, j.address, j.pointer, j.ttl, j.reverse,
               [j.copy, j.zone, j.reverse, j.reverse_zone, j.name, j.address] AS also, [] AS hosts, [] AS cells,
               NULL AS since, NULL AS clock, 'which name the PTR is to say only a person knows' AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM judged j
          JOIN zones z ON z.reverse = j.reverse
         WHERE NOT j.has
           AND z.many > z.few
           AND EXISTS (SELECT 1 FROM taken_addresses t WHERE t.address = j.address)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "two of three have one, in the inner of two zones",
            """
            hosts cell1  c1
            dns_zones    copy                   zone                server  own   first
                         cloud.test.@ns         cloud.test.         ns      true  true
                         10.in-addr.arpa.@ns2   10.in-addr.arpa.    ns2     true  false
                         0.10.in-addr.arpa.@ns  0.10.in-addr.arpa.  ns      true  true
                         10.in-addr.arpa.@ns    10.in-addr.arpa.    ns      true  true
                         0.0.10.in-addr.arpa.@n2  0.0.10.in-addr.arpa.  n2  true  false
                         0.0.10.in-addr.arpa.@n3  0.0.10.in-addr.arpa.  n3  false  true
            dns_records  copy                   zone                name                    type  ttl  data               address   hostname  ours  pointer
                         cloud.test.@ns         cloud.test.         one.cloud.test.         A     300  10.0.0.1           10.0.0.1  one       true  1.0.0.10.in-addr.arpa.
                         cloud.test.@ns         cloud.test.         two.cloud.test.         A     300  10.0.0.2           10.0.0.2  two       true  2.0.0.10.in-addr.arpa.
                         cloud.test.@ns         cloud.test.         three.cloud.test.       A     60   10.0.0.3           10.0.0.3  three     true  3.0.0.10.in-addr.arpa.
                         cloud.test.@ns         cloud.test.         eight.cloud.test.       A     60   10.8.0.8           10.8.0.8  eight     true  8.0.8.10.in-addr.arpa.
                         0.10.in-addr.arpa.@ns  0.10.in-addr.arpa.  1.0.0.10.in-addr.arpa.  PTR   300  one.cloud.test.    10.0.0.1  one       true  1.0.0.10.in-addr.arpa.
                         0.10.in-addr.arpa.@ns  0.10.in-addr.arpa.  2.0.0.10.in-addr.arpa.  PTR   300  two.cloud.test.    10.0.0.2  two       true  2.0.0.10.in-addr.arpa.
                         0.10.in-addr.arpa.@ns  0.10.in-addr.arpa.  3.0.0.10.in-addr.arpa.  TXT   300  words              -         -         -  -
                         0.10.in-addr.arpa.@ns  0.10.in-addr.arpa.  0.10.in-addr.arpa.      NS    300  ns.cloud.test.     -         -         -  -
                         0.10.in-addr.arpa.@ns  0.10.in-addr.arpa.  9.0.10.in-addr.arpa.    NS    300  ns.cloud.test.     -         -         -  -
                         10.in-addr.arpa.@ns    10.in-addr.arpa.    3.0.0.10.in-addr.arpa.  PTR   300  three.cloud.test.  10.0.0.3  three     true  3.0.0.10.in-addr.arpa.
            neutron_ip_allocations  port_id  ip_address
                                    p-1      10.0.0.1
                                    p-2      10.0.0.2
                                    p-3      10.0.0.3
                                    p-8      10.8.0.8
            """,
            finds=("three.cloud.test. 10.0.0.3",),
        ),
        Scenario(
            "it has one, or an alias of one, or another server tells; nobody has the address; half have none",
            """
            hosts cell1  c1
            dns_zones    copy                   zone                server  own    first
                         cloud.test.@ns         cloud.test.         ns      true   true
                         10.in-addr.arpa.@ns    10.in-addr.arpa.    ns      true   true
                         11.in-addr.arpa.@ns    11.in-addr.arpa.    ns      true   true
            dns_records  copy                   zone                name                    type   ttl  data                address    hostname  ours  pointer
                         cloud.test.@ns         cloud.test.         one.cloud.test.         A      300  10.0.0.1            10.0.0.1   one       true  1.0.0.10.in-addr.arpa.
                         cloud.test.@ns         cloud.test.         two.cloud.test.         A      300  10.0.0.2            10.0.0.2   two       true  2.0.0.10.in-addr.arpa.
                         cloud.test.@ns         cloud.test.         three.cloud.test.       A      300  10.0.3.3            10.0.3.3   three     true  3.3.0.10.in-addr.arpa.
                         cloud.test.@ns         cloud.test.         four.cloud.test.        A      300  10.0.0.4            10.0.0.4   four      true  4.0.0.10.in-addr.arpa.
                         cloud.test.@ns         cloud.test.         five.cloud.test.        AAAA   300  fd00::5             fd00::5    five      true  5.d.ip6.arpa.
                         cloud.test.@ns         cloud.test.         nine.cloud.test.        A      300  10.0.0.9            10.0.0.9   nine      true  9.0.0.10.in-addr.arpa.
                         10.in-addr.arpa.@ns    10.in-addr.arpa.    9.0.0.10.in-addr.arpa.  PTR    300  nine.cloud.test.    10.0.0.9   nine      true  9.0.0.10.in-addr.arpa.
                         10.in-addr.arpa.@ns    10.in-addr.arpa.    1.0.0.10.in-addr.arpa.  PTR    300  one.cloud.test.     10.0.0.1   one       true  1.0.0.10.in-addr.arpa.
                         10.in-addr.arpa.@ns    10.in-addr.arpa.    2.0.0.10.in-addr.arpa.  CNAME  300  2.two.cloud.test.   -          -         -  -
                         10.in-addr.arpa.@ns    10.in-addr.arpa.    3.0.10.in-addr.arpa.    NS     300  ns.cloud.test.      -          -         -  -
                         cloud.test.@ns         cloud.test.         six.cloud.test.         A      300  11.0.0.6            11.0.0.6   six       true  6.0.0.11.in-addr.arpa.
                         cloud.test.@ns         cloud.test.         seven.cloud.test.       A      300  11.0.0.7            11.0.0.7   seven     true  7.0.0.11.in-addr.arpa.
                         11.in-addr.arpa.@ns    11.in-addr.arpa.    6.0.0.11.in-addr.arpa.  PTR    300  six.cloud.test.     11.0.0.6   six       true  6.0.0.11.in-addr.arpa.
            neutron_ip_allocations  port_id  ip_address
                                    p-1      10.0.0.1
                                    p-2      10.0.0.2
                                    p-3      10.0.3.3
                                    p-5      fd00::5
                                    p-6      11.0.0.6
                                    p-7      11.0.0.7
            """,
        ),
    ),
)
