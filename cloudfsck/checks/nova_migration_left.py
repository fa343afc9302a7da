"""Nova says that the server is moving, and nobody moves it any more.

Why it matters
    Nothing else that is wrong with the server is found, for whatever is in flight is innocent.  The resource tracker of
    both hosts counts it, and Placement has it allocated on both.
How it comes about
    The service died that was to end the migration, or the message was lost, and somebody has reset the server's state
    since: then the server is at nothing, and its migration still is.
What the repair does
    There is none.  A live migration may be aborted through the API; another is called error in the cell's database, as
    Nova does itself, and then what it has left on the hosts and in Placement is found.
When not to repair
    While a job of libvirt's moves it.  Found is what has not moved for six hours while the server was at nothing; never a
    resize that waits to be confirmed, nor an evacuation, which waits for its source.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    server, migration = row["server"], row["migration"]
    yield f"as an administrator: openstack server show {server}; openstack server migration list --server {server}"
    for host in row["hosts"] or ():
        yield f"on {host}: virsh domjobinfo {server}"
    if row["kind"] == "live-migration":
        yield f"as an administrator, if it is shown there: openstack server migration abort {server} {migration}"
    yield (
        f"in the database of {row['cell']} (MySQL), if nothing moves it: START TRANSACTION;"
        f" UPDATE migrations SET status = 'error', updated_at = UTC_TIMESTAMP() WHERE id = {migration} AND uuid = '{row['uuid']}'"
        f" AND instance_uuid = '{server}' AND status = '{row['status']}' AND updated_at = '{row['updated_at']}';"
        " SELECT ROW_COUNT() AS must_be_one;"
    )
    yield "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else"


CHECK = Check(
    text=__doc__,
    accused=("nova_migrations",),
    query="""
        SELECT m.cell || '/' || m.id AS key, l.server, l.name, l.project, m.cell, l.host, l.vm_state, m.id AS migration,
               m.uuid, m.migration_type AS kind, m.status, m.source_compute AS source, m.dest_compute AS dest, m.updated_at,
               (SELECT list(r.host ORDER BY r.host) FROM roster r
                 WHERE r.libvirt AND list_contains([m.source_compute, m.dest_compute, l.host], r.host)) AS hosts,
               [m.cell] AS cells, m.updated_at AS since, 'cell:' || m.cell AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nova_migrations m
          JOIN live_servers l ON l.server = m.instance_uuid
          JOIN clocks c ON c.table_name = 'nova_migrations' AND c.part = m.cell
         WHERE coalesce(m.deleted, 0) = 0
           AND m.status NOT IN ('confirmed', 'reverted', 'error', 'failed', 'completed', 'cancelled', 'done')
           AND m.migration_type IS DISTINCT FROM 'evacuation'
           AND m.updated_at < c.now - INTERVAL 6 HOUR
           AND l.updated_at < c.now - INTERVAL 6 HOUR
           AND l.task_state IS NULL
           AND l.vm_state <> 'resized'
           AND NOT l.hidden
           AND NOT EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.uuid = l.server AND d.job IS NOT NULL)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "a live migration, and a resize", """
            hosts cell1      c1 c2
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
                             c2    cell1  true  true
                             c9    cell1  true  false
            nova_instances   cell   uuid  host  vm_state  task_state  deleted  hidden  updated_at
                             cell1  s-1   c1    active    -           0        false   -2d
                             cell1  s-2   c1    stopped   -           0        false   -2d
                             cell1  s-3   c1    active    migrating   0        false   -10m
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
            nova_migrations  cell   id  uuid  instance_uuid  status         migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  91  u-1   s-1            running        live-migration  c1              c2            -2d         0
                             cell1  92  u-2   s-2            pre-migrating  resize          c1              c9            -2d         0
            libvirt_domains  host  uuid  state    nova  id  job
                             c1    s-1   running  true  1   -
                             c1    s-2   shutoff  true  -   -
                             c1    s-3   running  true  3   Outgoing
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-3   13
            """,
            finds=("cell1/91", "cell1/92")),
        Scenario(
            "it has ended, moves, waits to be confirmed or for its source, crosses cells; the server is at something", """
            hosts cell1      c1 c2
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
                             c2    cell1  true  true
            nova_instances   cell   uuid  host  vm_state  task_state  deleted  hidden  updated_at
                             cell1  s-1   c1    active    -           0        false   -2d
                             cell1  s-2   c1    active    -           0        false   -2d
                             cell1  s-3   c1    resized   -           0        false   -2d
                             cell1  s-4   c1    stopped   -           0        false   -2d
                             cell1  s-5   c1    active    -           0        true    -2d
                             cell1  s-6   c1    active    migrating   0        false   -2d
                             cell1  s-7   c1    active    -           0        false   -2d
                             cell1  s-8   c1    active    -           0        false   -5h
                             cell1  s-9   c1    active    -           9        false   -2d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
                                    s-6            cell1
                                    s-7            cell1
                                    s-8            cell1
            nova_migrations  cell   id   uuid  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  101  u-1   s-1            completed  live-migration  c2              c1            -2d         0
                             cell1  102  u-2   s-2            running    live-migration  c1              c2            -5h         0
                             cell1  103  u-3   s-3            finished   resize          c2              c1            -2d         0
                             cell1  104  u-4   s-4            accepted   evacuation      c2              c1            -2d         0
                             cell1  105  u-5   s-5            finished   resize          c2              c1            -2d         0
                             cell1  106  u-6   s-6            running    live-migration  c1              c2            -2d         0
                             cell1  107  u-7   s-7            running    live-migration  c1              c2            -2d         0
                             cell1  108  u-8   s-8            running    live-migration  c1              c2            -2d         0
                             cell1  109  u-9   s-9            running    live-migration  c1              c2            -2d         9
                             cell1  110  u-10  s-1            running    live-migration  c1              c2            -2d         110
            libvirt_domains  host  uuid  state    nova  id  job
                             c1    s-1   running  true  1   -
                             c1    s-2   running  true  2   -
                             c1    s-3   running  true  3   -
                             c1    s-4   shutoff  true  -   -
                             c1    s-5   running  true  5   -
                             c1    s-6   running  true  6   -
                             c1    s-7   running  true  7   Outgoing
                             c1    s-8   running  true  8   -
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
                             c1    s-3   13
                             c1    s-5   15
                             c1    s-6   16
                             c1    s-7   17
                             c1    s-8   18
            """),
    ),
)  # fmt: skip
