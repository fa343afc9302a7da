"""Designate has a name of a server that Nova does not know.

Why it matters
    The name leads to an address that is free, or somebody else's by now: whoever trusts the name speaks to a stranger.
How it comes about
    The server was deleted without its name, archived, and then `nova-manage db purge` removed its last row.  Or the server
    was never this Nova's: another Nova's messages reach this designate-sink.  Or Nova's databases were restored from a
    backup that is older than the server.
What the repair does
    Where this Nova still has a trace of the server (`traces`), it was this Nova's, and is purged: the recordset is deleted
    through Designate's API, right after it was read again; where a record of somebody else is in it, that one stays.
    `undo` makes a recordset of the same name, type, TTL and records; it is not managed then, for no API makes that.
    Without a trace nobody can prove whose the server was.
When not to repair
    While a server of that name lives, or a guest of the server runs, on any host of any cloud.  While another Nova uses
    this Designate and has not been asked.  After a database was restored: every server made since the backup looks like
    this, and is needed.
"""

from collections.abc import Iterable

from cloudfsck.acts import recordset
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[recordset.Remove]:
    yield recordset.Remove.of(row)


def _commands(row: Row) -> Iterable[str]:
    for server in row["servers"]:
        yield f"as an administrator of each Nova that uses this Designate: openstack server show {server}"
    for data in row["dead"]:
        yield f"as an administrator: openstack port list --fixed-ip ip-address={data}"
    for act in _repair(row):
        yield f"as an administrator, if nobody is known by it: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("designate_records",),
    query="""
        WITH suspects AS (
            SELECT r.recordset, r.data, r.server
              FROM records_of_servers r
             WHERE r.server <> ''
               AND NOT EXISTS (SELECT 1 FROM known_servers k WHERE k.server = r.server)
               AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = r.server)),
        traced AS (
            SELECT s.server, list(DISTINCT t.trace ORDER BY t.trace) AS traces
              FROM suspects s
              JOIN traces_of_servers t ON t.server = s.server
             GROUP BY s.server),
        dead AS (
            SELECT s.recordset, list(DISTINCT s.data ORDER BY s.data) AS dead,
                   list(DISTINCT s.server ORDER BY s.server) AS servers,
                   list_distinct(flatten(list(t.traces ORDER BY s.server))) AS traces, bool_and(t.server IS NOT NULL) AS ours
              FROM suspects s
              LEFT JOIN traced t ON t.server = s.server
             GROUP BY s.recordset),
        named AS (
            SELECT s.*, d.dead, d.servers, coalesce(d.traces, []) AS traces, d.ours,
                   list_filter(s.records, lambda one: NOT list_contains(d.dead, one)) AS kept,
                   coalesce(n.servers, []) AS namesakes,
                   (SELECT coalesce(list(DISTINCT v.host ORDER BY v.host), []) FROM libvirt_domains v
                     WHERE list_contains(d.servers, v.uuid)) AS guests_on
              FROM recordsets s
              JOIN dead d ON d.recordset = s.recordset
              LEFT JOIN namesakes n ON n.recordset = s.recordset)
        SELECT n.recordset AS key, n.servers[1] AS server, n.servers, n.traces, n.name, n.type, n.ttl, n.dead, n.kept,
               n.project, n.zone, n.zone_name, n.recordset, n.changed, n.namesakes, n.guests_on,
               list_concat([n.recordset], n.servers, n.namesakes) AS also, NULL AS hosts, NULL AS cells,
               n.changed AS since, 'designate:designate' AS clock,
               CASE WHEN len(n.namesakes) > 0 THEN 'a server of that name lives: ' || n.namesakes[1]
                    WHEN len(n.guests_on) > 0 THEN 'a guest of it still runs, on ' || array_to_string(n.guests_on, ', ')
                    WHEN NOT n.ours THEN 'nothing says that the server was ever this Nova''s' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM named n
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "this Nova has a trace of it, or of one of two, or none; beside others; its name, or its guest, lives",
            """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  hostname  vm_state
                             cell1  s-40  c1    0        dead-d    active
                             cell1  s-41  c1    41       dead-a    deleted
            nova_virtual_interfaces  cell   uuid  instance_uuid  deleted
                                     cell1  p-1   s-1            1
                                     cell1  p-3   s-3            1
                                     cell1  p-4   s-4            1
                                     cell1  p-5   s-5            1
            libvirt_domains  host  uuid  state    nova
                             c1    s-5   running  true
                             c1    s-40  running  true
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name                type  ttl
                                  rs-1  z-1      dead-a.cloud.test.  A     300
                                  rs-2  z-1      dead-b.cloud.test.  A     -
                                  rs-3  z-1      dead-c.cloud.test.  A     -
                                  rs-4  z-1      Dead-D.cloud.test.  A     -
                                  rs-5  z-1      dead-e.cloud.test.  A     -
            designate_records     id     recordset_id  data       managed  managed_resource_type  managed_resource_id  status  action  created_at
                                  rr-1   rs-1          10.0.0.1   true     instance               s-1                  ACTIVE  NONE    -9d
                                  rr-11  rs-1          10.0.0.11  false    -                      -                    ACTIVE  NONE    -9d
                                  rr-2   rs-2          10.0.0.2   true     instance               s-2                  ACTIVE  NONE    -9d
                                  rr-3   rs-3          10.0.0.3   true     instance               s-3                  ACTIVE  NONE    -9d
                                  rr-33  rs-3          10.0.0.33  true     instance               s-33                 ACTIVE  NONE    -9d
                                  rr-4   rs-4          10.0.0.4   true     instance               s-4                  ACTIVE  NONE    -9d
                                  rr-5   rs-5          10.0.0.5   true     instance               s-5                  ACTIVE  NONE    -9d
            """,
            finds=("rs-1", "rs-2", "rs-3", "rs-4", "rs-5"),
            plans="""
            delete dead-a.cloud.test. A 10.0.0.1 from Designate; 10.0.0.11 stays
            """,
        ),
        Scenario(
            "Nova knows it, alive, deleted or archived; it was only asked for; nobody's record; a floating IP's; under way",
            """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  hostname
                             cell1  s-1   c1    0        one
                             cell1  s-2   c1    2        two
            nova_shadow_instances  cell   uuid  deleted  hostname
                                   cell1  s-3   3        three
            nova_build_requests    instance_uuid
                                   s-4
            nova_virtual_interfaces  cell   uuid  instance_uuid  deleted
                                     cell1  p-7   s-7            1
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name               type  ttl
                                  rs-1  z-1      one.cloud.test.    A     -
                                  rs-2  z-1      two.cloud.test.    A     -
                                  rs-3  z-1      three.cloud.test.  A     -
                                  rs-4  z-1      four.cloud.test.   A     -
                                  rs-5  z-1      five.cloud.test.   A     -
                                  rs-6  z-1      six.cloud.test.    A     -
                                  rs-7  z-1      seven.cloud.test.  A     -
            designate_records     id    recordset_id  data      managed  managed_resource_type  managed_resource_id  status   action  created_at
                                  rr-1  rs-1          10.0.0.1  true     instance               s-1                  ACTIVE   NONE    -9d
                                  rr-2  rs-2          10.0.0.2  true     instance               s-2                  ACTIVE   NONE    -9d
                                  rr-3  rs-3          10.0.0.3  true     instance               s-3                  ACTIVE   NONE    -9d
                                  rr-4  rs-4          10.0.0.4  true     instance               s-4                  ACTIVE   NONE    -9d
                                  rr-5  rs-5          10.0.0.5  false    -                      -                    ACTIVE   NONE    -9d
                                  rr-6  rs-6          10.0.0.6  true     floatingip             f-6                  ACTIVE   NONE    -9d
                                  rr-7  rs-7          10.0.0.7  true     instance               s-7                  PENDING  DELETE  -9d
            """,
        ),
    ),
)
