"""A migration has ended, and Placement still has resources allocated to it.

Why it matters
    The scheduler takes them for used, on a host that the server has left or never came to: new servers are refused with
    "No valid host" by hosts that have room.  A compute node that has such an allocation cannot be deleted.
How it comes about
    While a server moves, the migration holds what the server has where it came from, and the server itself what it gets.
    At the end one of the two is freed, or the migration's is given back to the server.  A service died in between, or
    Placement did not answer.
What the repair does
    Through Placement's API it has the migration have nothing, and names the generation that was seen.  `undo` gives it the
    same back, if nobody has the room by then.
When not to repair
    Where the server has nothing allocated on the host that it is on: what the migration has may be all that keeps its
    place free.  Give it its own first; the finding says so.  While a guest of the server is on another host than its own.
"""

from collections.abc import Iterable

from cloudfsck.acts import allocation
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[allocation.Take]:
    yield allocation.Take.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack resource provider allocation show {row['server']}"
    yield f"as an administrator: openstack resource provider allocation show {row['consumer']}"
    for host in row["guests_on"]:
        yield f"on {host}: virsh dominfo {row['server']}"
    if row["lives"] and not row["has_its_own"]:
        yield f"on a controller: nova-manage placement heal_allocations --dry-run --instance {row['server']}"
        yield f"on a controller, if that is what it has: nova-manage placement heal_allocations --instance {row['server']}"
    yield f"as an administrator, then: {allocation.Take.of(row).command}"


CHECK = Check(
    text=__doc__,
    accused=("placement_allocations",),
    query="""
        WITH ended AS (
            SELECT uuid, instance_uuid AS server, cell, id, status, migration_type AS kind, source_compute AS source,
                   dest_compute AS dest, updated_at
              FROM nova_migrations
             UNION ALL
            SELECT uuid, instance_uuid, cell, id, status, migration_type, source_compute, dest_compute, updated_at
              FROM nova_shadow_migrations),
        servers AS (
            SELECT l.server, l.cell, l.host, l.name, l.project, TRUE AS lives, a.consumer IS NOT NULL AS has_its_own
              FROM live_servers l
              LEFT JOIN server_nodes n ON n.server = l.server
              LEFT JOIN allocated a ON a.consumer = l.server AND a.tree = n.uuid
             UNION ALL
            SELECT g.server, g.cell, g.host, g.name, g.project, FALSE, FALSE
              FROM gone_servers g),
        guests AS (  -- but for the server's own
            SELECT v.consumer, list_filter(v.on_hosts, lambda host: NOT s.lives OR host IS DISTINCT FROM s.host) AS on_hosts
              FROM consumer_guests v
              JOIN ended e ON e.uuid = v.consumer
              JOIN servers s ON s.server = e.server)
        SELECT c.consumer AS key, s.server, s.name AS server_name, s.project, s.lives, s.host AS server_host, s.has_its_own,
               e.id AS migration, e.kind, e.status, e.source, e.dest, e.updated_at AS ended_at, c.consumer,
               c.amounts AS taken, [] AS kept, c.generation, c.changed AS allocated_at,
               coalesce(v.on_hosts, []) AS guests_on, [c.consumer] AS also,
               c.hosts,
               CASE WHEN m.cell IS NOT NULL THEN list_sort(list_distinct([m.cell, e.cell, s.cell])) END AS cells,
               greatest(c.changed, e.updated_at) AS since,
               CASE WHEN e.updated_at > c.changed THEN 'cell:' || e.cell ELSE 'placement:placement' END AS clock,
               CASE WHEN s.lives AND NOT s.has_its_own THEN 'the server has nothing allocated where it is'
                    WHEN len(v.on_hosts) > 0 THEN 'a guest of the server is there, on ' || array_to_string(v.on_hosts, ', ')
                    WHEN c.generation IS NULL THEN 'Placement tells no generation of it' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM consumers c
          JOIN ended e ON e.uuid = c.consumer
          JOIN servers s ON s.server = e.server
          LEFT JOIN mapped_servers m ON m.server = e.server
          LEFT JOIN guests v ON v.consumer = c.consumer
         WHERE NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = e.server)
           AND NOT EXISTS (SELECT 1 FROM unfinished_deletions f WHERE f.server = e.server)
           AND NOT EXISTS (SELECT 1 FROM last_moves o WHERE o.server = e.server AND o.recent)
           AND NOT EXISTS (SELECT 1 FROM compute_services w
                            WHERE list_contains(list_concat(c.on_hosts, [e.source, e.dest, s.host]), w.host) AND w.just_down)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a server that lives, with its own or without, or with a guest elsewhere; that is deleted; archived", """
            hosts cell1      c1 c2
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
                             c2    cell1  true  true
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted
                                cell1  r-1   c1    n-1                  0
                                cell1  r-2   c2    n-2                  0
            nova_instances   cell   uuid  host  node  deleted  deleted_at
                             cell1  s-1   c1    n-1   0        -
                             cell1  s-2   c1    n-1   0        -
                             cell1  s-3   c1    n-1   0        -
                             cell1  s-4   c1    n-1   4        -3d
                             cell1  s-6   c1    n-1   6        -3d
                             cell1  s-7   c2    n-2   7        -3d
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-5   c1    5        -9d
                                   cell1  s-8   c2    8        -9d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
            nova_migrations  cell   id  uuid  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  1   u-1   s-1            error      migration       c2              c1            -2d         0
                             cell1  2   u-2   s-2            failed     live-migration  c1              c2            -2d         0
                             cell1  3   u-3   s-3            completed  live-migration  c2              c1            -2d         0
                             cell1  4   u-4   s-4            confirmed  resize          c2              c1            -9d         4
                             cell1  6   u-6   s-6            reverted   resize          c1              c2            -9d         6
                             cell1  7   u-7   s-7            running    live-migration  c2              c1            -9d         7
            nova_shadow_migrations  cell   id  uuid  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                                    cell1  5   u-5   s-5            cancelled  live-migration  c1              c2            -9d         5
                                    cell1  8   u-8   s-8            cancelled  live-migration  c1              c2            -9d         8
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
                             c1    s-2   running  true  2
                             c2    s-3   running  true  3
                             c1    s-3   running  true  4
                             c2    s-7   running  true  7
                             c2    s-8   shutoff  true  -
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
                             c2    s-3   13
                             c1    s-3   14
                             c2    s-7   17
            placement_resource_classes  id   name
                                        121  VCPU
            placement_providers  id   uuid  name  root_provider_id
                                 121  r-1   n-1   121
                                 122  r-2   n-2   122
            placement_consumers  id   uuid  generation
                                 121  s-1   4
                                 122  s-3   4
                                 123  u-1   1
                                 124  u-2   1
                                 125  u-3   1
                                 126  u-4   1
                                 127  u-5   1
                                 129  s-2   1
                                 130  u-7   1
                                 128  u-8   1
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   121  s-1          121                   121                1     -9d
                                   122  s-3          121                   121                1     -9d
                                   123  u-1          122                   121                1     -3d
                                   124  u-2          121                   121                1     -3d
                                   125  u-3          122                   121                1     -3d
                                   126  u-4          122                   121                1     -3d
                                   127  u-5          122                   121                1     -3d
                                   128  u-6          122                   121                1     -3d
                                   129  s-2          122                   121                1     -3d
                                   130  u-7          122                   121                1     -3d
                                   120  u-8          122                   121                1     -3d
            """,
            finds=("u-1", "u-2", "u-3", "u-4", "u-5", "u-6", "u-7", "u-8"),
            plans="""
            take 1 VCPU of n-2 from migration u-1 in Placement
            take 1 VCPU of n-2 from migration u-4 in Placement
            take 1 VCPU of n-2 from migration u-5 in Placement
            """),
        Scenario(
            "it goes on, waits to be confirmed, has ended just now; the server is under way, or where it went is down", """
            hosts cell1      c1 c2
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c3    nova-compute  -2h           0        false
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted
                                cell1  r-11  c1    n-11                 0
                                cell1  r-12  c2    n-12                 0
                                cell1  r-13  c3    n-13                 0
            nova_instances   cell   uuid  host  node  deleted  deleted_at  vm_state  task_state  cleaned
                             cell1  s-1   c1    n-11  0        -           active    migrating   0
                             cell1  s-2   c1    n-11  0        -           resized   -           0
                             cell1  s-3   c1    n-11  0        -           active    -           0
                             cell1  s-4   c1    n-11  0        -           active    rebooting   0
                             cell1  s-5   c1    n-11  0        -           active    -           0
                             cell1  s-6   c1    n-11  6        -2h         deleted   -           0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
            nova_migrations  cell   id  uuid  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  11  u-1   s-1            running    live-migration  c1              c2            -2d         0
                             cell1  12  u-2   s-2            finished   resize          c2              c1            -2d         0
                             cell1  13  u-3   s-3            confirmed  resize          c2              c1            -10m        0
                             cell1  14  u-4   s-4            confirmed  resize          c2              c1            -2d         0
                             cell1  15  u-5   s-5            failed     live-migration  c1              c3            -2d         0
                             cell1  16  u-6   s-6            confirmed  resize          c2              c1            -2d         6
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
                             c1    s-2   running  true  2
                             c1    s-3   running  true  3
                             c1    s-4   running  true  4
                             c1    s-5   running  true  5
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
                             c1    s-3   13
                             c1    s-4   14
                             c1    s-5   15
            placement_resource_classes  id   name
                                        131  VCPU
            placement_providers  id   uuid  name  root_provider_id
                                 131  r-11  n-11  131
                                 132  r-12  n-12  132
                                 133  r-13  n-13  133
            placement_consumers  id   uuid  generation
                                 131  s-1   4
                                 132  s-2   4
                                 133  s-3   4
                                 134  s-4   4
                                 135  s-5   4
                                 141  u-1   1
                                 142  u-2   1
                                 143  u-3   1
                                 144  u-4   1
                                 145  u-5   1
                                 146  u-6   1
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   131  s-1          132                   131                1     -9d
                                   132  s-2          131                   131                1     -9d
                                   133  s-3          131                   131                1     -9d
                                   134  s-4          131                   131                1     -9d
                                   135  s-5          131                   131                1     -9d
                                   141  u-1          131                   131                1     -9d
                                   142  u-2          132                   131                1     -9d
                                   143  u-3          132                   131                1     -9d
                                   144  u-4          132                   131                1     -9d
                                   145  u-5          133                   131                1     -9d
                                   146  u-6          132                   131                1     -9d
            """),
    ),
)  # fmt: skip
