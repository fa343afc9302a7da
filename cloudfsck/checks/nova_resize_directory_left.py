"""A directory <uuid>_resize is left, and no resize of the server is open.

Why it matters
    It is a whole disk that the scheduler counts as free.  It can also be the only copy of the server's data: a resize
    that failed half way leaves the old disk there, and a broken one where the server is.
How it comes about
    The source renames the disks to <uuid>_resize and keeps them until the resize is confirmed (nova/virt/libvirt/
    driver.py: migrate_disk_and_power_off, _cleanup_resize).  A confirmation or a revert that failed, and a server that
    was deleted while its source was down, leave them.
What the repair does
    Where the server is deleted: renames the directory into .cloudfsck beside it, with hard links to the backing files
    that it needs; `purge` removes it when it has stood there for a week.  Where the server lives, a person looks
    which disk is the good one.
When not to repair
    While servers are being restored from a backup of Nova's database, or disks are being rescued by hand.
"""

from collections.abc import Iterable

from cloudfsck.acts.directory import next_step
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack server show {row['server']}"
    yield f"on {row['host']}: qemu-img info --backing-chain {row['path']}/disk"
    if row["nova_host"] is not None:
        yield f"on {row['nova_host']}: qemu-img info -U --backing-chain {row['path'].removesuffix('_resize')}/disk"
    yield f"on {row['host']}: mv -n {row['path']} {row['path']}.aside"


CHECK = Check(
    text=__doc__,
    accused=("instance_dirs", "quarantine"),
    query="""
        WITH owners AS (
            SELECT g.server, g.name, g.project, g.cell, NULL AS nova_host, NULL AS vm_state, g.deleted_at, g.nova_will,
                   NULL AS lives
              FROM gone_servers g
            UNION ALL
            SELECT l.server, l.name, l.project, l.cell, l.host, l.vm_state, NULL,
                   'nothing: nova-compute leaves it to whoever confirms or reverts a resize',
                   'the server lives, its vm_state is ' || l.vm_state || ': this may be the only good copy of its disk'
              FROM live_servers l
             WHERE l.vm_state <> 'resized')
        SELECT e.host || '/' || e.object AS key, e.server, o.name, o.project, o.cell, o.vm_state, o.nova_host, o.deleted_at,
               e.host, e.seen_on, e.path, e.inode, e.device, e.bytes, e.files, e.newest, e.uid, e.gid, e.mode, e.entry,
               coalesce(o.nova_will, 'nothing, unless a migration of it stands in error (_cleanup_incomplete_migrations)')
                   AS nova_will,
               CASE WHEN e.alone THEN [e.host] END AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, o.cell])) END AS cells,
               greatest(e.changed, o.deleted_at) AS since,
               CASE WHEN o.deleted_at >= e.changed THEN 'cell:' || o.cell ELSE 'host:' || e.host END AS clock,
               coalesce(o.lives, e.obstacle) AS by_hand, e.rung, e.rung_since
          FROM directories e
          JOIN owners o ON o.server = e.server
          LEFT JOIN mapped_servers p ON p.server = e.server
          LEFT JOIN mapped_hosts m ON m.host = e.host
         WHERE e.kind = 'resize'
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = e.server)
           AND NOT EXISTS (SELECT 1 FROM storage_guests d
                            WHERE d.server = e.server AND d.storage = e.storage AND d.host IS DISTINCT FROM o.nova_host)
           AND NOT EXISTS (SELECT 1 FROM unfinished_deletions u WHERE u.server = e.server AND u.host = e.host)
    """,
    repair=lambda row: [next_step(row)],
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "deleted while its source was down, and archived; and one that lies in quarantine beside its directory", """
            hosts cell1      c1 c2
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c2    1        -4h         1
                             cell1  s-4   c2    4        -2h         0
                             cell1  s-5   c1    5        -2h         0
            libvirt_domains  host  uuid  state
                             c2    s-1   shutoff
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-2   c2    2        -4h
                                   cell1  s-3   c2    3        -9d
            instance_dirs    host  name        kind      server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1_resize  resize    s-1     /i/s-1_resize  11     1       4096   2      -2h      0    0    493   false    []
                             c1    s-2_resize  resize    s-2     /i/s-2_resize  12     1       4096   2      -9d      0    0    493   false    []
                             c1    s-2         instance  s-2     /i/s-2         13     1       4096   2      -30m     0    0    493   false    [4]
                             c1    s-4_resize  resize    s-4     /i/s-4_resize  16     1       4096   2      -9d      0    0    493   false    []
            disk_images      host  path                server  format  inode  backing             backing_server
                             c1    /i/s-2/disk         s-2     qcow2   21     /i/s-2/base         s-2
                             c1    /i/s-1_resize/disk  s-1     qcow2   22     /i/s-1_resize/base  s-1
            quarantine       host  entry     server  was_path       path                                    inode  bytes  files  newest  at   manifest_ok
                             c1    14-7-s-3  s-3     /i/s-3_resize  /i/.cloudfsck/14-7-s-3/tree/s-3_resize  14     4096   2      77      -7d  true
                             c1    15-7-s-3  s-3     /i/s-3         /i/.cloudfsck/15-7-s-3/tree/s-3         15     4096   2      77      -2d  true
            holds            kind       host  server  rung         since  entry
                             resize     c1    s-3     quarantined  -7d    14-7-s-3
                             directory  c1    s-3     quarantined  -2d    15-7-s-3
            """,
            finds=("c1/14-7-s-3", "c1/s-1_resize", "c1/s-2_resize", "c1/s-4_resize"),
            plans="""
            remove /i/s-3_resize from quarantine on c1 for good (4.0 KiB)
            quarantine /i/s-1_resize on c1 (4.0 KiB)
            quarantine /i/s-2_resize on c1 (4.0 KiB)
            quarantine /i/s-4_resize on c1 (4.0 KiB)
            """),
        Scenario(
            "the server lives, beside it or elsewhere; or the directory is a link: only a person can tell", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state  deleted_at
                             cell1  s-1   c1    0        error     -
                             cell1  s-2   c2    0        active    -
                             cell1  s-3   c2    3        -         -4h
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute
                             cell1  1   s-1            resize          error      c1              c1
                             cell1  2   s-2            resize          confirmed  c1              c2
            libvirt_domains  host  uuid  state
                             c1    s-1   running
                             c2    s-2   running
            instance_dirs    host  name        kind    server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1_resize  resize  s-1     /i/s-1_resize  11     1       4096   2      -3h      0    0    493   false    []
                             c1    s-2_resize  resize  s-2     /i/s-2_resize  12     1       4096   2      -3h      0    0    493   false    []
                             c1    s-3_resize  resize  s-3     /i/s-3_resize  13     1       4096   2      -3h      0    0    511   true     []
            """,
            finds=("c1/s-1_resize", "c1/s-2_resize", "c1/s-3_resize")),
        Scenario(
            "on a file system that others share: once, however many hosts see it; a copy of it, and another part, apart", """
            hosts cell1      c9
            hypervisors      host
                             c0
                             c1
                             c2
                             c4
            instances_paths  host  path  real  inode  fsid  mount      fstype  local
                             c0    /i    /i    21     7a    nas:/nrsz  ext4    true
                             c1    /i    /i    21     7a    nas:/nrsz  nfs4    false
                             c2    /i    /i    21     7a    10.0.0.5:  nfs4    false
                             c4    /i    /i    22     7a    nas:/nrsz  nfs4    false
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c2    1        -4h         1
            instance_dirs    host  name        kind    server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1_resize  resize  s-1     /i/s-1_resize  11     1       4096   2      -3h      0    0    493   false    []
                             c2    s-1_resize  resize  s-1     /i/s-1_resize  11     1       4096   2      -3h      0    0    493   false    []
                             c0    s-1_resize  resize  s-1     /i/s-1_resize  11     1       4096   2      -3h      0    0    493   false    []
                             c4    s-1_resize  resize  s-1     /i/s-1_resize  11     1       4096   2      -3h      0    0    493   false    []
            """,
            finds=("c0/s-1_resize", "c1/s-1_resize", "c4/s-1_resize")),
        Scenario(
            "resized, or nobody knows; Nova works on it; a guest stands on it; nova-compute still deletes it", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state  task_state     deleted_at  cleaned
                             cell1  s-1   c2    0        resized   -              -           -
                             cell1  s-2   c2    0        -         -              -           -
                             cell1  s-3   c2    0        active    resize_prep    -           -
                             cell1  s-4   c2    0        error     -              -           -
                             cell1  s-5   c1    5        -         -              -2h         0
                             cell1  s-6   c2    6        -         -              -4h         1
                             cell1  s-7   c1    0        active    -              -           -
            libvirt_domains  host  uuid  state
                             c1    s-4   shutoff
            qemu_processes   host  uuid
                             c1    s-6
            instance_dirs    host  name        kind      server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1_resize  resize    s-1     /i/s-1_resize  11     1       4096   2      -3h      0    0    493   false    []
                             c1    s-2_resize  resize    s-2     /i/s-2_resize  12     1       4096   2      -3h      0    0    493   false    []
                             c1    s-3_resize  resize    s-3     /i/s-3_resize  13     1       4096   2      -3h      0    0    493   false    []
                             c1    s-4_resize  resize    s-4     /i/s-4_resize  14     1       4096   2      -3h      0    0    493   false    []
                             c1    s-5_resize  resize    s-5     /i/s-5_resize  15     1       4096   2      -3h      0    0    493   false    []
                             c1    s-6_resize  resize    s-6     /i/s-6_resize  16     1       4096   2      -3h      0    0    493   false    []
                             c1    s-7         instance  s-7     /i/s-7         17     1       4096   2      -3h      0    0    493   false    []
                             c1    s-7_resize  resize    s-7     /i/s-7_resize  18     1       4096   2      -3h      0    0    493   false    []
            disk_images      host  path         server  format  inode  backing             backing_server
                             c1    /i/s-7/disk  s-7     qcow2   21     /i/s-7_resize/disk  s-7
            """),
    ),
)  # fmt: skip
