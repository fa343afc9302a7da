"""A zone of Designate's has been waiting for its name servers for too long.

Why it matters
    What was changed last in that zone is not known to be served: a new server has no name yet on one of the name
    servers, or a deleted one still has.
How it comes about
    The message to designate-worker was lost, as with a restart of the broker; Designate finds that itself after some
    ten minutes.  Or a name server of the pool is down, or refuses the zone: then it waits as long as that.
What the repair does
    It has Designate send the zone anew: the zone gets a new serial, and every name server is told of it.  Nothing that
    Designate has is changed.
When not to repair
    While a name server is down it does not help, and does no harm.  A zone that is being made or deleted is left alone.
"""

import datetime as dt
from collections.abc import Iterable

from cloudfsck.acts import zone
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[zone.Refresh]:
    yield zone.Refresh.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"for each name server of the pool: dig +norecurse @SERVER {row['zone_name']} SOA"
    for act in _repair(row):
        yield f"as an administrator: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("designate_zones",),
    query="""
        SELECT z.id AS key, NULL AS server, z.id AS zone, z.name AS zone_name, z.ttl, z.serial, z.status, z.action,
               [] AS hosts, [] AS cells, coalesce(z.updated_at, z.created_at) AS since,
               'designate:designate' AS clock,
               CASE WHEN z.action <> 'UPDATE' THEN 'the zone itself is to be made or deleted' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM designate_zones z
          JOIN clocks c ON c.table_name = 'designate_zones'
         WHERE z.type = 'PRIMARY'
           AND z.status <> 'ACTIVE'
           AND coalesce(z.updated_at, z.created_at) < c.now - INTERVAL 10 MINUTE
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    # Within ten minutes Designate comes back to it by itself: 455 s and its periodic recovery of 120 s, by its defaults.
    settle=dt.timedelta(minutes=20),
    scenarios=(
        Scenario(
            "a change that waits; one that failed; a zone that is to be deleted",
            """
            hosts cell1      c1
            designate_zones  id   name       type     status   action  serial  ttl   created_at  updated_at
                             z-1  a.test.    PRIMARY  PENDING  UPDATE  7       3600  -9d         -2h
                             z-2  b.test.    PRIMARY  ERROR    UPDATE  7       3600  -9d         -2h
                             z-3  c.test.    PRIMARY  ERROR    DELETE  7       3600  -9d         -
            """,
            finds=("z-1", "z-2", "z-3"),
            plans="""
            send a.test. to its name servers anew
            send b.test. to its name servers anew
            """,
        ),
        Scenario(
            "nothing waits; not yet for long; a copy of somebody else's",
            """
            hosts cell1      c1
            designate_zones  id   name       type       status   action  serial  ttl   created_at  updated_at
                             z-1  a.test.    PRIMARY    ACTIVE   NONE    7       3600  -9d         -2h
                             z-2  b.test.    SECONDARY  ERROR    UPDATE  7       3600  -9d         -2h
                             z-3  c.test.    PRIMARY    PENDING  UPDATE  7       3600  -9d         -9m
            """,
        ),
    ),
)
