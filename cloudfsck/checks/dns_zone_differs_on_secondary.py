"""A server of a zone of the cloud's own does not say what the first one says.

Why it matters
    Two servers of one zone give two answers, and which one a client gets is chance.
How it comes about
    The transfer is refused, or the server was not told of a change, or its serial is later than the first one's, as when
    that was restored from a backup: then it never fetches anything again.  Or somebody edited the zone there.
What the repair does
    None is made by a program.  Shown is what has the server fetch the zone anew.
When not to repair
    Where the server is meant to say something else, as to clients outside.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"on {row['server_name']}, if it is BIND: rndc retransfer {row['zone_name']}"


CHECK = Check(
    text=__doc__,
    accused=("dns_zones",),
    query="""
        WITH pairs AS (
            SELECT f.copy AS first_copy, f.server AS first_server, f.serial AS first_serial, s.copy, s.zone, s.server, s.serial
              FROM dns_zones s
              JOIN dns_zones f ON f.zone = s.zone AND f.first
             WHERE s.own),
        differences AS (
            SELECT p.copy, 'lacks ' || r.name || ' ' || r.type || ' ' || r.data AS difference
              FROM pairs p
              JOIN dns_records r ON r.copy = p.first_copy
             WHERE NOT EXISTS (SELECT 1 FROM dns_records o
                                WHERE o.copy = p.copy AND o.name = r.name AND o.type = r.type AND o.data = r.data)
            UNION ALL
            SELECT p.copy, 'has ' || r.name || ' ' || r.type || ' ' || r.data
              FROM pairs p
              JOIN dns_records r ON r.copy = p.copy
             WHERE NOT EXISTS (SELECT 1 FROM dns_records o
                                WHERE o.copy = p.first_copy AND o.name = r.name AND o.type = r.type AND o.data = r.data))
        SELECT p.copy AS key, NULL AS server, p.zone AS zone_name, p.server AS server_name, p.serial, p.first_server,
               p.first_serial, count(*) AS many, list(d.difference ORDER BY d.difference)[:20] AS differences,
               [p.zone, p.copy, p.first_copy] AS also, [] AS hosts, [] AS cells, NULL AS since, NULL AS clock,
               CASE WHEN p.serial > p.first_serial THEN 'its serial is later than that of ' || p.first_server
                    ELSE 'only a person knows why' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM pairs p
          JOIN differences d ON d.copy = p.copy
         GROUP BY p.copy, p.zone, p.server, p.serial, p.first_server, p.first_serial, p.first_copy
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "it lacks a record; it has another; it has the later serial",
            """
            hosts cell1  c1
            dns_zones    copy        zone     server  serial  own   first
                         a.test.@n1  a.test.  n1      7       true  true
                         a.test.@n2  a.test.  n2      6       true  false
                         a.test.@n3  a.test.  n3      8       true  false
                         a.test.@n4  a.test.  n4      7       true  false
            dns_records  copy        zone     name       type   ttl  data
                         a.test.@n1  a.test.  x.a.test.  A      300  10.0.0.1
                         a.test.@n1  a.test.  y.a.test.  A      300  10.0.0.2
                         a.test.@n2  a.test.  x.a.test.  A      300  10.0.0.1
                         a.test.@n3  a.test.  x.a.test.  A      300  10.0.0.1
                         a.test.@n3  a.test.  y.a.test.  A      300  10.0.0.2
                         a.test.@n3  a.test.  z.a.test.  A      300  10.0.0.2
                         a.test.@n4  a.test.  x.a.test.  A      300  10.0.0.1
                         a.test.@n4  a.test.  y.a.test.  A      300  10.0.0.2
            """,
            finds=("a.test.@n2", "a.test.@n3"),
        ),
        Scenario(
            "only the type differs; only the name; only the data; of each both ways",
            """
            hosts cell1  c1
            dns_zones    copy        zone     server  serial  own   first
                         a.test.@n1  a.test.  n1      7       true  true
                         a.test.@n2  a.test.  n2      7       true  false
                         b.test.@n1  b.test.  n1      7       true  true
                         b.test.@n2  b.test.  n2      7       true  false
                         c.test.@n1  c.test.  n1      7       true  true
                         c.test.@n2  c.test.  n2      7       true  false
                         d.test.@n1  d.test.  n1      7       true  true
                         d.test.@n2  d.test.  n2      7       true  false
                         e.test.@n1  e.test.  n1      7       true  true
                         e.test.@n2  e.test.  n2      7       true  false
                         f.test.@n1  f.test.  n1      7       true  true
                         f.test.@n2  f.test.  n2      7       true  false
            dns_records  copy        zone     name       type   ttl  data
                         a.test.@n1  a.test.  x.a.test.  A      300  10.0.0.1
                         a.test.@n1  a.test.  x.a.test.  TXT    300  10.0.0.1
                         a.test.@n2  a.test.  x.a.test.  A      300  10.0.0.1
                         b.test.@n1  b.test.  x.b.test.  A      300  10.0.0.1
                         b.test.@n1  b.test.  y.b.test.  A      300  10.0.0.1
                         b.test.@n2  b.test.  x.b.test.  A      300  10.0.0.1
                         c.test.@n1  c.test.  x.c.test.  A      300  10.0.0.1
                         c.test.@n1  c.test.  x.c.test.  A      300  10.0.0.2
                         c.test.@n2  c.test.  x.c.test.  A      300  10.0.0.1
                         d.test.@n1  d.test.  x.d.test.  A      300  10.0.0.1
                         d.test.@n2  d.test.  x.d.test.  A      300  10.0.0.1
                         d.test.@n2  d.test.  x.d.test.  TXT    300  10.0.0.1
                         e.test.@n1  e.test.  x.e.test.  A      300  10.0.0.1
                         e.test.@n2  e.test.  x.e.test.  A      300  10.0.0.1
                         e.test.@n2  e.test.  y.e.test.  A      300  10.0.0.1
                         f.test.@n1  f.test.  x.f.test.  A      300  10.0.0.1
                         f.test.@n2  f.test.  x.f.test.  A      300  10.0.0.1
                         f.test.@n2  f.test.  x.f.test.  A      300  10.0.0.2
            """,
            finds=("a.test.@n2", "b.test.@n2", "c.test.@n2", "d.test.@n2", "e.test.@n2", "f.test.@n2"),
        ),
        Scenario(
            "the same; a zone of Designate's; one of which the first was not heard",
            """
            hosts cell1  c1
            dns_zones    copy        zone     server  serial  own    first
                         a.test.@n1  a.test.  n1      7       true   true
                         a.test.@n2  a.test.  n2      7       true   false
                         b.test.@n1  b.test.  n1      7       false  true
                         b.test.@n2  b.test.  n2      7       false  false
                         c.test.@n3  c.test.  n3      7       true   false
                         c.test.@n2  c.test.  n2      7       true   false
            dns_records  copy        zone     name       type   ttl  data
                         a.test.@n1  a.test.  x.a.test.  A      300  10.0.0.1
                         a.test.@n2  a.test.  x.a.test.  A      60   10.0.0.1
                         b.test.@n1  b.test.  x.b.test.  A      300  10.0.0.1
                         c.test.@n2  c.test.  x.c.test.  A      300  10.0.0.1
            """,
        ),
    ),
)
