"""A server's directory lies on a host on which Nova does not have the server.

Why it matters
    It takes disk space that the scheduler counts as free; a later migration to that host finds its place taken and
    fails; and whoever looks for the server's data there finds an old copy.
How it comes about
    A live migration, an evacuation or a resize that ended without cleaning up one side: nova-compute was restarted
    in the midst of it, or could not remove the directory (nova/compute/manager.py: _post_live_migration,
    _rollback_live_migration, _confirm_resize).  Nova looks for leftovers only of servers that are deleted, or that were
    evacuated (_destroy_evacuated_instances).
What the repair does
    Where a migration that ended well says how the server left, and the host that Nova names has a directory of it:
    renames this one into .cloudfsck beside it, so that it can be brought back; `purge` removes it after a week.
    Everything else is left to a person: it may be the only copy.
When not to repair
    While somebody rescues the server's disks, and as long as nobody has looked whether it works where Nova has it.
"""

from collections.abc import Iterable

from cloudfsck.acts.directory import next_step
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack server show {row['server']}"
    yield f"as an administrator: openstack server migration list --server {row['server']}"
    yield f"on {row['host']}: ls -lR {row['path']}"
    if row["nova_host"] is not None:
        yield f"on {row['nova_host']}: ls -lR {row['path']}"
    yield f"on {row['host']}: mv -n {row['path']} {row['path']}.aside"


CHECK = Check(
    text=__doc__,
    accused=("instance_dirs", "quarantine"),
    query="""
        WITH evacuated AS (
            SELECT DISTINCT m.cell, m.instance_uuid AS server, m.source_compute AS host
              FROM nova_migrations m
             WHERE m.migration_type = 'evacuation'
               AND m.status = 'done')
        SELECT e.host || '/' || e.object AS key, e.server, l.name, l.project, l.cell, l.vm_state, l.host AS nova_host,
               e.host, e.seen_on, e.path, e.inode, e.device, e.bytes, e.files, e.newest, e.uid, e.gid, e.mode, e.entry,
               v.status AS last_move, v.moved_at,
               coalesce('nova-compute on ' || w.host || ' removes it when it starts',
                        'nothing: nova-compute looks on its own host only for servers that are deleted') AS nova_will,
               CASE WHEN e.alone AND l.host IS NOT NULL THEN list_sort([e.host, l.host]) END AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, l.cell])) END AS cells,
               greatest(e.changed, v.moved_at) AS since,
               CASE WHEN v.moved_at > e.changed THEN 'cell:' || l.cell ELSE 'host:' || e.host END AS clock,
               coalesce(
                   e.obstacle,
                   CASE WHEN l.host IS NULL
                        THEN 'Nova has it on no host: this may be the only copy of its disk'
                        WHEN coalesce(l.vm_state, 'unknown') IN ('unknown', 'error', 'resized')
                        THEN 'its vm_state is ' || coalesce(l.vm_state, 'unknown') || ': this may be its only good disk'
                        WHEN w.host IS NOT NULL
                        THEN 'it was evacuated: nova-compute on ' || w.host || ' removes it when it starts'
                        WHEN NOT EXISTS (SELECT 1 FROM instance_dirs n WHERE n.host = l.host AND n.server = e.server
                                            AND n.kind = 'instance')
                        THEN l.host || ', where Nova has it, has no directory of it: this may be the only copy'
                        WHEN v.status IS NULL
                        THEN 'no migration of it says how it came here, or left'
                        WHEN v.status = 'error'
                        THEN 'its last migration from or to ' || e.host || ' ended in error' END) AS by_hand,
               e.rung, e.rung_since
          FROM directories e
          JOIN live_servers l ON l.server = e.server
          LEFT JOIN last_moves v ON v.cell = l.cell AND v.server = e.server AND v.host = e.host
          LEFT JOIN evacuated w ON w.cell = l.cell AND w.server = e.server AND w.host = e.host
          LEFT JOIN mapped_servers p ON p.server = e.server
          LEFT JOIN mapped_hosts m ON m.host = e.host
         WHERE e.kind = 'instance'
           AND l.host IS DISTINCT FROM e.host
           AND (e.alone
                OR l.host IS NULL
                OR EXISTS (SELECT 1 FROM instances_storage o WHERE o.host = l.host AND o.alone))
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = e.server)
           AND NOT EXISTS (SELECT 1 FROM storage_guests d WHERE d.server = e.server AND d.storage = e.storage)
           AND NOT EXISTS (SELECT 1 FROM unreturned_evacuations u WHERE u.server = e.server AND u.host = e.host)
           AND NOT coalesce(v.recent, FALSE)
    """,
    repair=lambda row: [next_step(row)],
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "left on c1 by a live migration to c2", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-3   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  2   s-3            evacuation      done       c7              c1            -9d
                             cell1  3   s-3            evacuation      completed  c1              c2            -8d
                             cell1  4   s-1            resize          error      c1              c3            -9d
                             cell1  5   s-1            live-migration  completed  c1              c2            -2h
            libvirt_domains  host  uuid  state
                             c2    s-1   running
                             c1    op-1  running
            instance_dirs    host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -3h      0    0    493   false    []
                             c2    s-1   instance  s-1     /i/s-1  12     1       4096   2      -1h      0    0    493   false    [17]
                             c1    s-3   instance  s-3     /i/s-3  13     1       4096   2      -7d      0    0    493   false    []
                             c2    s-3   instance  s-3     /i/s-3  14     1       4096   2      -1h      0    0    493   false    [18]
            """,
            finds=("c1/s-1", "c1/s-3"),
            plans="""
            quarantine /i/s-1 on c1 (4.0 KiB)
            quarantine /i/s-3 on c1 (4.0 KiB)
            """),
        Scenario(
            "a live migration to c1 that failed left it there, and it changed since; another lies there in quarantine", """
            hosts cell1      c1 c2
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        stopped
                             cell1  s-2   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  5   s-1            live-migration  failed     c2              c1            -9d
                             cell1  6   s-2            migration       done       c1              c2            -9d
            instance_dirs    host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -3h      0    0    493   false    []
                             c2    s-1   instance  s-1     /i/s-1  12     1       4096   2      -1h      0    0    493   false    []
                             c2    s-2   instance  s-2     /i/s-2  13     1       4096   2      -1h      0    0    493   false    []
            quarantine       host  entry     server  was_path  path                             inode  bytes  files  newest  at   manifest_ok
                             c1    14-7-s-2  s-2     /i/s-2    /i/.cloudfsck/14-7-s-2/tree/s-2  14     4096   2      77      -7d  true
            holds            kind       host  server  rung         since  entry
                             directory  c1    s-2     quarantined  -7d    14-7-s-2
            """,
            finds=("c1/14-7-s-2", "c1/s-1"),
            plans="""
            remove /i/s-2 from quarantine on c1 for good (4.0 KiB)
            quarantine /i/s-1 on c1 (4.0 KiB)
            """),
        Scenario(
            "it may be the only copy, or nova-compute will remove it: only a person can tell", """
            hosts cell1      c1 c2
            hypervisors      host
                             c7
            instances_paths  host  path  real  fstype  local
                             c7    /i    /i    nfs4    false
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-9   c7    0        active
                             cell1  s-1   -     0        shelved_offloaded
                             cell1  s-2   c2    0        error
                             cell1  s-3   c2    0        -
                             cell1  s-4   c2    0        active
                             cell1  s-5   c2    0        active
                             cell1  s-6   c2    0        active
                             cell1  s-7   c2    0        active
                             cell1  s-8   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  1   s-2            live-migration  completed  c1              c2            -2h
                             cell1  2   s-3            live-migration  completed  c1              c2            -2h
                             cell1  3   s-4            evacuation      done       c1              c2            -2h
                             cell1  4   s-5            live-migration  completed  c1              c2            -2h
                             cell1  5   s-7            live-migration  completed  c1              c2            -3h
                             cell1  6   s-7            live-migration  error      c2              c1            -2h
                             cell1  7   s-8            live-migration  completed  c1              c2            -2h
                             cell1  8   s-6            live-migration  completed  c3              c2            -2h
                             cell2  9   s-6            evacuation      done       c1              c2            -2h
            instance_dirs    host  name        kind      server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1         instance  s-1     /i/s-1         11     1       4096   2      -3h      0    0    493   false    []
                             c1    s-2         instance  s-2     /i/s-2         12     1       4096   2      -3h      0    0    493   false    []
                             c1    s-3         instance  s-3     /i/s-3         13     1       4096   2      -3h      0    0    493   false    []
                             c1    s-4         instance  s-4     /i/s-4         14     1       4096   2      -3h      0    0    493   false    []
                             c1    s-5         instance  s-5     /i/s-5         15     1       4096   2      -3h      0    0    493   false    []
                             c1    s-6         instance  s-6     /i/s-6         16     1       4096   2      -3h      0    0    493   false    []
                             c1    s-7         instance  s-7     /i/s-7         17     1       4096   2      -3h      0    0    493   false    []
                             c1    s-8         instance  s-8     /i/s-8         18     1       4096   2      -3h      0    0    511   true     []
                             c1    s-9         instance  s-9     /i/s-9         19     1       4096   2      -3h      0    0    493   false    []
                             c2    s-2         instance  s-2     /i/s-2         22     1       4096   2      -3h      0    0    493   false    []
                             c2    s-3         instance  s-3     /i/s-3         23     1       4096   2      -3h      0    0    493   false    []
                             c2    s-4         instance  s-4     /i/s-4         24     1       4096   2      -3h      0    0    493   false    []
                             c2    s-5_resize  resize    s-5     /i/s-5_resize  25     1       4096   2      -3h      0    0    493   false    []
                             c2    s-6         instance  s-6     /i/s-6         26     1       4096   2      -3h      0    0    493   false    []
                             c2    s-7         instance  s-7     /i/s-7         27     1       4096   2      -3h      0    0    493   false    []
                             c2    s-8         instance  s-8     /i/s-8         28     1       4096   2      -3h      0    0    493   false    []
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c1/s-4", "c1/s-5", "c1/s-6", "c1/s-7", "c1/s-8", "c1/s-9")),
        Scenario(
            "an instances path that may be shared, seen by two hosts; Nova has the servers on c9, which has its own", """
            hosts cell1      c9
            hypervisors      host
                             c1
                             c2
            instances_paths  host  path  real  inode  fsid  mount      fstype  local
                             c1    /i    /i    23     7b    nas:/nwrg  nfs4    false
                             c2    /i    /i    23     0     nas:/nwrg  nfs4    false
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c9    0        active
                             cell1  s-2   -     0        shelved_offloaded
            instance_dirs    host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -3h      0    0    493   false    []
                             c2    s-1   instance  s-1     /i/s-1  11     1       4096   2      -3h      0    0    493   false    []
                             c1    s-2   instance  s-2     /i/s-2  12     1       4096   2      -3h      0    0    493   false    []
                             c2    s-2   instance  s-2     /i/s-2  12     1       4096   2      -3h      0    0    493   false    []
                             c9    s-1   instance  s-1     /i/s-1  13     1       4096   2      -3h      0    0    493   false    []
            """,
            finds=("c1/s-1", "c1/s-2")),
        Scenario(
            "nova-compute of the host will remove another's when it comes back, or this server's on another host", """
            hosts cell1      c1 c2
            hypervisors      host
                             c6
            instances_paths  host  path  real  fstype  local
                             c6    /i    /i    ext4    true
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c6    nova-compute  -2d           0        false
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  1   s-2            live-migration  completed  c6              c2            -9d
                             cell1  2   s-3            evacuation      done       c6              c2            -2d
                             cell1  3   s-1            evacuation      done       c6              c1            -9d
                             cell1  4   s-1            live-migration  completed  c1              c2            -8d
            instance_dirs    host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -9d      0    0    493   false    []
                             c2    s-1   instance  s-1     /i/s-1  12     1       4096   2      -1h      0    0    493   false    [17]
                             c6    s-2   instance  s-2     /i/s-2  13     1       4096   2      -9d      0    0    493   false    []
                             c2    s-2   instance  s-2     /i/s-2  14     1       4096   2      -1h      0    0    493   false    [18]
            """,
            finds=("c1/s-1", "c6/s-2"),
            plans="quarantine /i/s-1 on c1 (4.0 KiB)"),
        Scenario(
            "its guest is there, Nova works on it or did so just now, its host may share the path, or is not known, or"
            " nova-compute removes it when it comes back", """
            hosts cell1      c1 c2
            instances_paths  host  path  real  fstype  local
                             c3    /i    /i    nfs4    false
                             c4    /i    /i    nfs4    false
                             c6    /i    /i    ext4    true
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c6    nova-compute  -2d           0        false
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  1   s-5            live-migration  completed  c1              c2            -5m
                             cell1  2   s-6            evacuation      done       c6              c2            -2d
            nova_instances   cell   uuid  host  deleted  vm_state  task_state
                             cell1  s-1   c2    0        active    -
                             cell1  s-2   c2    0        active    migrating
                             cell1  s-3   c4    0        active    -
                             cell1  s-4   c5    0        active    -
                             cell1  s-5   c2    0        active    -
                             cell1  s-6   c2    0        active    -
            libvirt_domains  host  uuid  state
                             c1    s-1   shutoff
            instance_dirs    host  name        kind      server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1         instance  s-1     /i/s-1         11     1       4096   2      -3h      0    0    493   false    []
                             c1    s-2         instance  s-2     /i/s-2         12     1       4096   2      -3h      0    0    493   false    []
                             c3    s-3         instance  s-3     /i/s-3         13     1       4096   2      -3h      0    0    493   false    []
                             c3    s-4         instance  s-4     /i/s-4         14     1       4096   2      -3h      0    0    493   false    []
                             c1    s-5         instance  s-5     /i/s-5         16     1       4096   2      -3h      0    0    493   false    []
                             c6    s-6         instance  s-6     /i/s-6         17     1       4096   2      -3h      0    0    493   false    []
                             c1    s-3_del     del       s-3     /i/s-3_del     15     1       4096   2      -3h      0    0    493   false    []
            """),
    ),
)  # fmt: skip
