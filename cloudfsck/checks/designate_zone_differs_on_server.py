"""A name server does not say what Designate says it does.

Why it matters
    Two servers of one zone give two answers, and which one a client gets is chance: every other connection fails, or
    goes to a server that is gone.
How it comes about
    Somebody edited the zone on that server; it was restored from a backup, or its transfer broke off and the serial was
    kept.  Designate asks its servers for the serial alone, and so does not see it.
What the repair does
    It has Designate send the zone anew: the zone gets a new serial, and every server fetches the whole of it.  Nothing
    that Designate has is changed.
When not to repair
    Where somebody changes the zone on the server itself, which then is no secondary any more: its serial is the later
    one.  What was written there by hand is lost.
"""

from collections.abc import Iterable

from cloudfsck.acts import zone
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[zone.Refresh]:
    yield zone.Refresh.of(row)


def _commands(row: Row) -> Iterable[str]:
    for server in row["name_servers"]:
        yield f"on {server}, if it is BIND: rndc retransfer {row['zone_name']}"
    for act in _repair(row):
        yield f"as an administrator: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("dns_zones",),
    query="""
        WITH copies AS (
            SELECT z.id AS zone, z.name AS zone_name, z.ttl, z.serial, z.status, z.action, c.copy, c.server AS name_server,
                   c.serial AS server_serial
              FROM designate_zones z
              JOIN dns_zones c ON c.zone = lower(z.name)
             WHERE z.type = 'PRIMARY'
               AND z.status = 'ACTIVE'),
        differences AS (
            SELECT c.copy, c.name_server || ' lacks ' || s.name || ' ' || s.type || ' ' || s.data AS difference
              FROM copies c
              JOIN designate_served s ON s.zone = c.zone
             WHERE NOT EXISTS (SELECT 1 FROM dns_records r
                                WHERE r.copy = c.copy AND r.name = s.name AND r.type = s.type AND r.data = s.data)
            UNION ALL
            SELECT c.copy, c.name_server || ' has ' || r.name || ' ' || r.type || ' ' || r.data
              FROM copies c
              JOIN dns_records r ON r.copy = c.copy
             WHERE r.type IN ('A', 'CNAME', 'PTR')
               AND NOT EXISTS (SELECT 1 FROM designate_served s
                                WHERE s.zone = c.zone AND s.name = r.name AND s.type = r.type AND s.data = r.data))
        SELECT c.zone AS key, NULL AS server, c.zone, c.zone_name, c.ttl, c.serial, c.status, c.action,
               list(DISTINCT c.name_server ORDER BY c.name_server) AS name_servers,
               list(d.difference ORDER BY d.difference) AS differences,
               list_concat([c.zone, lower(c.zone_name)], list(DISTINCT c.copy ORDER BY c.copy)) AS also,
               [] AS hosts, [] AS cells, NULL AS since, NULL AS clock,
               min(c.name_server || ' has a later serial: somebody changes the zone there')
                   FILTER (c.server_serial > c.serial) AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM copies c
          JOIN differences d ON d.copy = c.copy
         GROUP BY c.zone, c.zone_name, c.ttl, c.serial, c.status, c.action
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "records that servers lack, one that Designate does not have; a later serial there; another zone",
            """
            hosts cell1           c1
            dns_zones             copy            zone         server  serial  own    first
                                  cloud.test.@n1  cloud.test.  n1      7       false  false
                                  cloud.test.@n2  cloud.test.  n2      7       false  false
                                  cloud.test.@n4  cloud.test.  n4      7       false  false
                                  hand.test.@n3   hand.test.   n3      8       false  false
            dns_records           copy            zone         name            type   ttl  data
                                  cloud.test.@n1  cloud.test.  a.cloud.test.   A      300  10.0.0.1
                                  cloud.test.@n2  cloud.test.  a.cloud.test.   A      300  10.0.0.2
                                  cloud.test.@n2  cloud.test.  c.cloud.test.   CNAME  300  a.cloud.test.
                                  cloud.test.@n4  cloud.test.  a.cloud.test.   A      300  10.0.0.1
                                  cloud.test.@n4  cloud.test.  c.cloud.test.   CNAME  300  a.cloud.test.
                                  hand.test.@n3   hand.test.   b.hand.test.    A      300  10.0.0.3
            designate_zones       id   name         type     status  action  serial  ttl
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE    7       3600
                                  z-2  hand.test.   PRIMARY  ACTIVE  NONE    7       3600
            designate_recordsets  id    zone_id  name            type   ttl
                                  rs-1  z-1      a.cloud.test.   A      300
                                  rs-2  z-1      c.cloud.test.   CNAME  300
            designate_records     id    recordset_id  zone_id  data           status  action
                                  rr-1  rs-1          z-1      10.0.0.1       ACTIVE  NONE
                                  rr-2  rs-2          z-1      a.cloud.test.  ACTIVE  NONE
            """,
            finds=("z-1", "z-2"),
            plans="""
            send cloud.test. to its name servers anew
            """,
        ),
        Scenario(
            "one name has what another has; another type; another's name; another server; another zone",
            """
            hosts cell1           c1
            dns_zones             copy            zone         server  serial  own    first
                                  c.test.@n1      c.test.      n1      7       false  false
                                  c.test.@n2      c.test.      n2      7       false  false
                                  d.c.test.@n1    d.c.test.    n1      7       false  false
                                  f.test.@n1      f.test.      n1      7       false  false
                                  a.test.@n1      a.test.      n1      7       false  false
                                  b.test.@n1      b.test.      n1      7       false  false
            dns_records           copy            zone         name        type   ttl  data
                                  c.test.@n2      c.test.      a.c.test.   A      300  10.0.0.1
                                  c.test.@n2      c.test.      a.d.c.test. A      300  10.0.0.4
                                  c.test.@n1      c.test.      a.d.c.test. A      300  10.0.0.4
                                  d.c.test.@n1    d.c.test.    a.d.c.test. A      300  10.0.0.5
                                  f.test.@n1      f.test.      a.g.f.test. A      300  10.0.0.6
                                  a.test.@n1      a.test.      a.a.test.   A      300  10.0.0.1
                                  a.test.@n1      a.test.      b.a.test.   A      300  10.0.0.2
                                  a.test.@n1      a.test.      c.a.test.   A      300  10.0.0.3
                                  b.test.@n1      b.test.      p.b.test.   CNAME  300  q.b.test.
                                  b.test.@n1      b.test.      r.b.test.   CNAME  300  q.b.test.
            designate_zones       id   name         type     status  action  serial  ttl
                                  z-3  c.test.      PRIMARY  ACTIVE  NONE    7       3600
                                  z-4  d.c.test.    PRIMARY  ACTIVE  NONE    7       3600
                                  z-5  g.f.test.    PRIMARY  ACTIVE  NONE    7       3600
                                  z-6  f.test.      PRIMARY  ACTIVE  NONE    7       3600
                                  z-1  a.test.      PRIMARY  ACTIVE  NONE    7       3600
                                  z-2  b.test.      PRIMARY  ACTIVE  NONE    7       3600
            designate_recordsets  id    zone_id  name        type   ttl
                                  rs-6  z-3      a.c.test.   A      300
                                  rs-7  z-3      a.d.c.test. A      300
                                  rs-8  z-4      a.d.c.test. A      300
                                  rs-9  z-5      a.g.f.test. A      300
                                  rs-1  z-1      a.a.test.   A      300
                                  rs-2  z-1      b.a.test.   A      300
                                  rs-3  z-2      p.b.test.   PTR    300
                                  rs-4  z-2      r.b.test.   CNAME  300
                                  rs-5  z-1      c.a.test.   A      300
            designate_records     id    recordset_id  zone_id  data       status  action
                                  rr-6  rs-6          z-3      10.0.0.1   ACTIVE  NONE
                                  rr-7  rs-7          z-3      10.0.0.4   ACTIVE  NONE
                                  rr-8  rs-8          z-4      10.0.0.5   ACTIVE  NONE
                                  rr-9  rs-9          z-5      10.0.0.6   ACTIVE  NONE
                                  rr-1  rs-1          z-1      10.0.0.2   ACTIVE  NONE
                                  rr-2  rs-2          z-1      10.0.0.2   ACTIVE  NONE
                                  rr-3  rs-3          z-2      q.b.test.  ACTIVE  NONE
                                  rr-4  rs-4          z-2      q.b.test.  ACTIVE  NONE
                                  rr-5  rs-5          z-1      10.0.0.3   ACTIVE  NONE
            """,
            finds=("z-1", "z-2", "z-3", "z-6"),
            plans="""
            send a.test. to its name servers anew
            send b.test. to its name servers anew
            send c.test. to its name servers anew
            send f.test. to its name servers anew
            """,
        ),
        Scenario(
            "all is there; not all of it yet; a copy of somebody else's; what is not compared; no zone of Designate's",
            """
            hosts cell1           c1
            dns_zones             copy            zone         server  serial  own    first
                                  cloud.test.@n1  cloud.test.  n1      7       false  false
                                  late.test.@n1   late.test.   n1      7       false  false
                                  copy.test.@n1   copy.test.   n1      7       false  false
                                  own.test.@n1    own.test.    n1      7       true   true
            dns_records           copy            zone         name            type   ttl  data
                                  cloud.test.@n1  cloud.test.  a.cloud.test.   A      300  10.0.0.1
                                  cloud.test.@n1  cloud.test.  a.cloud.test.   AAAA   300  fd00::1
                                  cloud.test.@n1  cloud.test.  cloud.test.     NS     300  ns.cloud.test.
                                  late.test.@n1   late.test.   a.late.test.    A      300  10.0.0.9
                                  copy.test.@n1   copy.test.   a.copy.test.    A      300  10.0.0.9
                                  own.test.@n1    own.test.    a.own.test.     A      300  10.0.0.9
            designate_zones       id   name         type       status   action  serial  ttl
                                  z-1  cloud.test.  PRIMARY    ACTIVE   NONE    7       3600
                                  z-2  late.test.   PRIMARY    PENDING  UPDATE  8       3600
                                  z-3  copy.test.   SECONDARY  ACTIVE   NONE    8       3600
            designate_recordsets  id    zone_id  name            type   ttl
                                  rs-1  z-1      a.cloud.test.   A      300
                                  rs-2  z-1      t.cloud.test.   TXT    300
            designate_records     id    recordset_id  zone_id  data           status  action
                                  rr-1  rs-1          z-1      10.0.0.1       ACTIVE  NONE
                                  rr-2  rs-2          z-1      "words"        ACTIVE  NONE
            """,
        ),
    ),
)
