"""Nova deleted the server, and its directory is still in the instances path.

Why it matters
    The disks of the dead fill the hypervisor; the scheduler, which counts what Nova has, sends servers to a full disk.
How it comes about
    nova-compute could not remove it in five attempts and gave up for good (nova/compute/manager.py:
    _run_pending_deletes, maximum_instance_delete_attempts); the row was archived before it could; or the directory
    was left on another host by a migration, where nobody looks.
What the repair does
    Renames the directory into .cloudfsck beside it, with hard links to the backing files that it needs, so that it
    can be brought back; `purge` removes it when it has stood there for a week.
When not to repair
    While servers are being restored from a backup of Nova's database, or disks are being rescued by hand.
"""

from cloudfsck.acts.directory import next_step
from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("instance_dirs", "quarantine"),
    query="""
        SELECT e.host || '/' || e.object AS key, e.server, g.name, g.project, g.cell, g.deleted_at, g.host AS last_host,
               e.host, e.seen_on, e.path, e.inode, e.device, e.bytes, e.files, e.newest, e.uid, e.gid, e.mode, e.entry,
               coalesce(g.nova_will, 'nothing: nova-compute looks only on the last host of the server, and not after '
                                     || t.delete_attempts || ' attempts') AS nova_will,
               CASE WHEN e.alone THEN [e.host] END AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, g.cell])) END AS cells,
               greatest(e.changed, g.deleted_at) AS since,
               CASE WHEN e.changed > g.deleted_at THEN 'host:' || e.host ELSE 'cell:' || g.cell END AS clock,
               e.obstacle AS by_hand, e.rung, e.rung_since
          FROM directories e
          JOIN gone_servers g ON g.server = e.server
          CROSS JOIN nova_settings t
          LEFT JOIN mapped_servers p ON p.server = e.server
          LEFT JOIN mapped_hosts m ON m.host = e.host
         WHERE e.kind = 'instance'
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = e.server)
           AND NOT EXISTS (SELECT 1 FROM storage_guests d WHERE d.server = e.server AND d.storage = e.storage)
           AND NOT EXISTS (SELECT 1 FROM unfinished_deletions u WHERE u.server = e.server AND u.host = e.host)
    """,
    repair=lambda row: [next_step(row)],
    risk="ask",
    scenarios=(
        Scenario(
            "nova-compute gave up after five attempts", """
            hosts cell1     c1
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -3h         0
                            cell1  s-2   c1    0        -           0
            nova_instance_system_metadata  cell   instance_uuid  key             value
                                           cell1  s-1            clean_attempts  5
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -2h      0    0    493   false    []
                            c1    s-2   instance  s-2     /i/s-2  12     1       4096   2      -2h      0    0    493   false    []
                            c1    _base base      -       /i/_base 13    1       4096   2      -2h      0    0    493   false    []
            disk_images     host  path         server  format  inode  backing  backing_server
                            c1    /i/s-1/disk  s-1     qcow2   21     /i/s-1/base  s-1
            """,
            finds=("c1/s-1",),
            plans="quarantine /i/s-1 on c1 (4.0 KiB)"),
        Scenario(
            "left on c2 by a migration, and archived since", """
            hosts cell1            c1 c2
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-1   c1    1        -4h
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c2    s-1   instance  s-1     /i/s-1  11     1       4096   2      -9d      0    0    493   false    []
            libvirt_domains host  uuid  state
                            c1    s-1   running
            qemu_processes  host  uuid
                            c1    s-1
            """,
            finds=("c2/s-1",),
            plans="quarantine /i/s-1 on c2 (4.0 KiB)"),
        Scenario(
            "in quarantine for a week", """
            hosts cell1     c1
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -9d         1
            quarantine      host  entry     server  was_path  path                             inode  bytes  files  newest  at   manifest_ok
                            c1    11-7-s-1  s-1     /i/s-1    /i/.cloudfsck/11-7-s-1/tree/s-1  11     4096   2      77      -7d  true
            holds           kind       host  server  rung         since  entry
                            directory  c1    s-1     quarantined  -7d    11-7-s-1
            """,
            finds=("c1/11-7-s-1",),
            plans="remove /i/s-1 from quarantine on c1 for good (4.0 KiB)"),
        Scenario(
            "a link, a broken quarantine, a file system that others share: only a person can tell", """
            hosts cell1     c1
            instances_paths host  path  real  fstype  local
                            c2    /i    /i    nfs4    false
                            c3    /i    /i    ext4    true
            instances_path_sharing  host  other  seen
                                    c3    c3     -1h
                                    c3    c4     -1h
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -9d         1
                            cell1  s-2   c1    2        -9d         1
                            cell1  s-3   c2    3        -9d         1
                            cell1  s-4   c3    4        -9d         1
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -8d      0    0    511   true     []
                            c2    s-3   instance  s-3     /i/s-3  13     1       4096   2      -8d      0    0    493   false    []
                            c3    s-4   instance  s-4     /i/s-4  14     1       4096   2      -8d      0    0    493   false    []
            quarantine      host  entry     server  was_path  path                             inode  bytes  files  newest  at   manifest_ok
                            c1    12-7-s-2  s-2     /i/s-2    /i/.cloudfsck/12-7-s-2/tree/s-2  12     4096   2      77      -7d  false
            """,
            finds=("c1/12-7-s-2", "c1/s-1", "c2/s-3", "c3/s-4")),
        Scenario(
            "two in quarantine on a file system that is shared: each has its own time", """
            hosts cell1     c9
            instances_paths host  path  real  fstype  local
                            c1    /i    /i    nfs4    false
                            c2    /i    /i    nfs4    false
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -9d         1
                            cell1  s-2   c1    2        -9d         1
            quarantine      host  entry     server  was_path  path                             inode  bytes  files  newest  at   manifest_ok
                            c1    11-7-s-1  s-1     /i/s-1    /i/.cloudfsck/11-7-s-1/tree/s-1  11     4096   2      77      -7d  true
                            c1    12-7-s-2  s-2     /i/s-2    /i/.cloudfsck/12-7-s-2/tree/s-2  12     4096   2      77      -6d  true
                            c2    11-7-s-1  s-1     /i/s-1    /i/.cloudfsck/11-7-s-1/tree/s-1  11     4096   2      77      -7d  true
            holds           kind       host  server  rung         since  entry
                            directory  c1    s-1     quarantined  -5d    11-7-s-1
            """,
            finds=("c1/11-7-s-1", "c1/12-7-s-2", "c2/11-7-s-1")),
        Scenario(
            "what keeps another directory, on this host or on that, does not keep this one", """
            hosts cell1     c1 c2
            clock           cell:cell2  -2d
            clock           host:cell1  -2d
            hypervisors     host
                            cell1
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -2h         0
                            cell1  s-2   c1    2        -9d         1
                            cell1  s-3   c1    3        -25h        0
                            cell2  s-4   c9    0        -           0
            instances_path_sharing  host  other  seen
                                    c1    c1     -1h
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -2h      0    0    493   false    []
                            c1    s-2   instance  s-2     /i/s-2  12     1       4096   2      -9d      0    0    493   false    []
                            c1    s-3   instance  s-3     /i/s-3  13     1       4096   2      -9d      0    0    493   false    []
                            c2    s-1   instance  s-1     /i/s-1  11     1       4096   2      -2h      0    0    493   false    []
            disk_images     host  path         server  format  inode  backing      backing_server
                            c2    /i/s-5/disk  s-5     qcow2   21     /i/s-2/disk  s-2
            """,
            finds=("c1/s-2", "c1/s-3", "c2/s-1"),
            plans="""
            quarantine /i/s-2 on c1 (4.0 KiB)
            quarantine /i/s-3 on c1 (4.0 KiB)
            quarantine /i/s-1 on c2 (4.0 KiB)
            """),
        Scenario(
            "its host is in no cell that the API knows: every cell counts", """
            hypervisors             host
                                    c1
            nova_services           cell   host  binary        last_seen_up  deleted  forced_down
                                    cell1  c1    nova-compute  -1s           0        false
            instances_paths         host  path  real  fstype  local
                                    c1    /i    /i    ext4    true
            nova_instances          cell   uuid  host  deleted  deleted_at  cleaned
                                    cell1  s-1   c1    1        -9d         1
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -8d      0    0    493   false    []
            """,
            finds=("c1/s-1",),
            plans="quarantine /i/s-1 on c1 (4.0 KiB)"),
        Scenario(
            "Nova is told to wait long, and to try five times: it has", """
            hosts cell1     c1
            settings        name                              value
                            long_rpc_timeout                  1800
                            maximum_instance_delete_attempts  5
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -3h         0
            nova_instance_system_metadata  cell   instance_uuid  key             value
                                           cell1  s-1            clean_attempts  6
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -3h      0    0    493   false    []
            """,
            finds=("c1/s-1",),
            plans="quarantine /i/s-1 on c1 (4.0 KiB)"),
        Scenario(
            "no nova-compute serves the host any more", """
            hypervisors     host
                            c1
            instances_paths host  path  real  fstype  local
                            c1    /i    /i    ext4    true
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -9d         1
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -8d      0    0    493   false    []
            """,
            finds=("c1/s-1",)),
        Scenario(
            "its domain is still there, or its process, or somebody reads it, or another disk stands on its own", """
            hosts cell1     c1
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -9d         1
                            cell1  s-2   c1    2        -9d         1
                            cell1  s-3   c1    3        -9d         1
                            cell1  s-4   c1    4        -9d         1
                            cell1  s-6   c1    6        -9d         1
            libvirt_domains host  uuid  state    persistent  job
                            c1    s-1   shutoff  true        undefine
            qemu_processes  host  uuid
                            c1    s-2
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -8d      0    0    493   false    []
                            c1    s-2   instance  s-2     /i/s-2  12     1       4096   2      -8d      0    0    493   false    []
                            c1    s-3   instance  s-3     /i/s-3  13     1       4096   2      -8d      0    0    493   false    [4711]
                            c1    s-4   instance  s-4     /i/s-4  14     1       4096   2      -8d      0    0    493   false    []
                            c1    s-6_resize  resize  s-6  /i/s-6_resize  16  1  4096   2      -8d      0    0    493   false    []
                            c1    s-6_del     del     s-6  /i/s-6_del     17  1  4096   2      -8d      0    0    493   false    []
            disk_images     host  path         server  format  inode  backing      backing_server
                            c1    /i/s-5/disk  s-5     qcow2   21     /a-link/disk s-4
            """),
        Scenario(
            "nova-compute still deletes it: four attempts, less than a day", """
            hosts cell1     c1
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -2h         0
                            cell1  s-2   c1    2        -2h         0
            nova_instance_system_metadata  cell   instance_uuid  key             value
                                           cell1  s-1            clean_attempts  4
                                           cell1  s-1            old_vm_state    9
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -2h      0    0    493   false    []
                            c1    s-2   instance  s-2     /i/s-2  12     1       4096   2      -2h      0    0    493   false    []
            """),
        Scenario(
            "its nova-compute has just gone down, or a migration of it is open", """
            hosts cell1     c2
            nova_services   cell   host  binary        last_seen_up  deleted  forced_down
                            cell1  c1    nova-compute  -2h           0        false
            instances_paths host  path  real  fstype  local
                            c1    /i    /i    ext4    true
            nova_instances  cell   uuid  host  deleted  deleted_at  cleaned
                            cell1  s-1   c1    1        -2d         1
                            cell1  s-2   c2    2        -2d         1
            nova_migrations cell   id  instance_uuid  status     deleted
                            cell1  5   s-2            migrating  0
            instance_dirs   host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                            c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -2d      0    0    493   false    []
                            c2    s-2   instance  s-2     /i/s-2  12     1       4096   2      -2d      0    0    493   false    []
            """),
    ),
)  # fmt: skip
