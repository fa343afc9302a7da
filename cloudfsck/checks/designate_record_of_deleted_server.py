"""Nova deleted the server, and Designate still has a name of it.

Why it matters
    The name leads to an address that is free, or somebody else's by now: whoever trusts the name speaks to a stranger.
    It is in the way of a server of that name, and with a reverse record beside it two names claim one address.
How it comes about
    Nova says by a message that a server is deleted, and designate-sink deletes its records then.  The message was lost
    (the queue does not outlive its broker), or designate-central did not answer the sink for a minute: the sink says so
    in its log and drops the message (designate/notification_handler/nova.py).  Nobody says it again.  Or the deletion was
    forced while nova-compute was down: nova-api calls that force_delete, for which the sink does not listen.
What the repair does
    It deletes the recordset through Designate's API, right after it was read again; where a record of somebody else is in
    it, that one stays.  `undo` makes a recordset of the same name, type, TTL and records; it is not managed then, for no
    API makes that.
When not to repair
    While a server of that name lives: it has no record of its own then, and may be known by this one.  While a guest of
    the dead server still runs.  While servers are being restored from a backup of Nova's database.
"""

from collections.abc import Iterable

from cloudfsck.acts import recordset
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[recordset.Remove]:
    yield recordset.Remove.of(row)


def _commands(row: Row) -> Iterable[str]:
    for data in row["dead"]:
        yield f"as an administrator: openstack port list --fixed-ip ip-address={data}"
    for server in row["namesakes"]:
        yield f"as an administrator: openstack server show {server}"
    for act in _repair(row):
        yield f"as an administrator, if nobody is known by it: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("designate_records",),
    query="""
        WITH dead AS (
            SELECT r.recordset, list(r.data ORDER BY r.data) AS dead,
                   list(DISTINCT g.server ORDER BY g.server) AS servers, min(g.name) AS server_name,
                   max(g.deleted_at) AS deleted_at, arg_max(g.cell, g.deleted_at) AS cell
              FROM records_of_servers r
              JOIN gone_servers g ON g.server = r.server
             WHERE NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = g.server)
             GROUP BY r.recordset),
        named AS (
            SELECT s.*, d.dead, d.servers, d.server_name, d.deleted_at, d.cell,
                   list_filter(s.records, lambda one: NOT list_contains(d.dead, one)) AS kept,
                   coalesce(n.servers, []) AS namesakes,
                   (SELECT coalesce(list(DISTINCT v.host ORDER BY v.host), []) FROM libvirt_domains v
                     WHERE list_contains(d.servers, v.uuid)) AS guests_on
              FROM recordsets s
              JOIN dead d ON d.recordset = s.recordset
              LEFT JOIN namesakes n ON n.recordset = s.recordset)
        SELECT n.recordset AS key, n.servers[1] AS server, n.server_name, n.servers, n.deleted_at, n.name, n.type, n.ttl, n.dead,
               n.kept, n.project, n.zone, n.zone_name, n.recordset, n.changed, n.namesakes, n.guests_on,
               list_concat([n.recordset], n.servers, n.namesakes) AS also, NULL AS hosts, NULL AS cells,
               greatest(n.changed, n.deleted_at) AS since,
               CASE WHEN n.deleted_at > n.changed THEN 'cell:' || n.cell ELSE 'designate:designate' END AS clock,
               CASE WHEN len(n.namesakes) > 0 THEN 'a server of that name lives: ' || n.namesakes[1]
                    WHEN len(n.guests_on) > 0 THEN 'a guest of it still runs, on ' || array_to_string(n.guests_on, ', ')
                    END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM named n
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "alone in its set; beside others; two dead in one set; archived; its name or its guest lives",
            """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  hostname
                             cell1  s-1   c1    1        -3d         dead-a
                             cell1  s-2   c1    2        -3d         dead-b
                             cell1  s-3   c1    3        -3d         dead-c
                             cell1  s-4   c1    4        -2d         dead-c
                             cell1  s-6   c1    6        -3d         dead-e
                             cell1  s-7   c1    0        -           Dead-E
                             cell1  s-8   c1    8        -3d         dead-f
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at  display_name
                                   cell1  s-5   c9    5        -9d         dead-d
            libvirt_domains  host  uuid  state    nova
                             c1    s-7   running  true
                             c1    s-8   running  true
            qemu_processes   host  uuid  pid
                             c1    s-7   17
                             c1    s-8   18
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name                type  ttl  created_at  updated_at
                                  rs-1  z-1      dead-a.cloud.test.  A     -    -9d         -
                                  rs-2  z-1      dead-b.cloud.test.  A     300  -9d         -
                                  rs-3  z-1      dead-c.cloud.test.  AAAA  -    -9d         -
                                  rs-5  z-1      dead-d.cloud.test.  A     -    -9d         -
                                  rs-6  z-1      dead-e.cloud.test.  A     -    -9d         -
                                  rs-8  z-1      dead-f.cloud.test.  A     -    -9d         -
            designate_records     id     recordset_id  data      managed  managed_resource_type  managed_resource_id  status  action  created_at  updated_at
                                  rr-1   rs-1          10.0.0.1  true     instance               s-1                  ACTIVE  NONE    -9d         -9d
                                  rr-2   rs-2          10.0.0.2  true     instance               s-2                  ACTIVE  NONE    -9d         -9d
                                  rr-21  rs-2          10.0.0.9  false    -                      -                    ACTIVE  NONE    -9d         -
                                  rr-3   rs-3          fd00::3   true     instance               s-3                  ACTIVE  NONE    -9d         -9d
                                  rr-4   rs-3          fd00::4   true     instance               s-4                  ACTIVE  NONE    -9d         -1d
                                  rr-5   rs-5          10.0.0.5  true     instance               s-5                  ACTIVE  NONE    -9d         -9d
                                  rr-6   rs-6          10.0.0.6  true     instance               s-6                  ACTIVE  NONE    -9d         -9d
                                  rr-8   rs-8          10.0.0.8  true     instance               s-8                  ACTIVE  NONE    -9d         -9d
            """,
            finds=("rs-1", "rs-2", "rs-3", "rs-5", "rs-6", "rs-8"),
            plans="""
            delete dead-a.cloud.test. A 10.0.0.1 from Designate
            delete dead-b.cloud.test. A 10.0.0.2 from Designate; 10.0.0.9 stays
            delete dead-c.cloud.test. AAAA fd00::3, fd00::4 from Designate
            delete dead-d.cloud.test. A 10.0.0.5 from Designate
            """,
        ),
        Scenario(
            "the server lives; it is being built; a record of another kind, or nobody's; under way; a set without a zone",
            """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    0        -
                             cell1  s-2   c1    2        -10m
                             cell1  s-3   c1    3        -3d
            nova_build_requests  id  instance_uuid  volumes
                                 1   s-2            []
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
            qemu_processes   host  uuid  pid
                             c1    s-1   11
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name                type  ttl  created_at  updated_at
                                  rs-1  z-1      live-a.cloud.test.  A     -    -9d         -
                                  rs-2  z-1      live-b.cloud.test.  A     -    -9d         -
                                  rs-3  z-1      live-c.cloud.test.  A     -    -9d         -
                                  rs-4  z-1      live-d.cloud.test.  A     -    -9d         -
                                  rs-5  z-1      live-e.cloud.test.  A     -    -9d         -
                                  rs-6  z-1      live-f.cloud.test.  A     -    -9d         -
                                  rs-7  z-9      live-g.gone.test.   A     -    -9d         -
            designate_records     id     recordset_id  data      managed  managed_resource_type  managed_resource_id  status   action  created_at  updated_at
                                  rr-1   rs-1          10.0.0.1  true     instance               s-1                  ACTIVE   NONE    -9d         -9d
                                  rr-2   rs-2          10.0.0.2  true     instance               s-2                  ACTIVE   NONE    -9d         -9d
                                  rr-3   rs-3          10.0.0.3  true     instance               s-3                  PENDING  NONE    -9d         -9d
                                  rr-4   rs-4          10.0.0.4  true     instance               s-3                  ACTIVE   DELETE  -9d         -9d
                                  rr-5   rs-5          10.0.0.5  true     share                  s-3                  ACTIVE   NONE    -9d         -9d
                                  rr-6   rs-6          10.0.0.6  false    instance               s-3                  ACTIVE   NONE    -9d         -9d
                                  rr-7   rs-7          10.0.0.7  true     instance               s-3                  ACTIVE   NONE    -9d         -9d
            """,
        ),
    ),
)
