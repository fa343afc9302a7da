"""A directory is left of a server that Nova has forgotten.

Why it matters
    It takes disk space that the scheduler counts as free, and no part of Nova will ever look for it: even its owner
    is not known any more.
How it comes about
    The server's row was purged (nova-manage db purge), deleted by hand, or lost when a database was restored, and the
    directory was still there.  Directories that no trace connects with this cloud are left out: they carry no mark
    of Nova's, and may belong to another cloud on the same hosts.
What the repair does
    There is none.  A person looks what is on the disks, asks whether anybody misses a server, and moves the directory
    aside before it is removed for good.
When not to repair
    When a database was restored from a backup: the servers made since are unknown, and run.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"on {row['host']}: ls -lR {row['path']}"
    yield f"on {row['host']}: qemu-img info --backing-chain {row['path']}/disk"
    yield f"on {row['host']}: mv -n {row['path']} {row['path']}.aside"


CHECK = Check(
    text=__doc__,
    accused=("instance_dirs",),
    query="""
        SELECT e.host || '/' || e.object AS key, e.server, e.host, e.seen_on, e.path, e.inode, e.bytes, e.files, e.newest,
               list(DISTINCT r.trace ORDER BY r.trace) AS traces,
               'nothing: nova-compute looks only for servers that Nova knows' AS nova_will,
               CASE WHEN e.alone THEN [e.host] END AS hosts, NULL AS cells, e.changed AS since,
               'host:' || e.host AS clock, 'Nova knows no row of it: whose it was is not known' AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM directories e
          JOIN traces_of_servers r ON r.server = e.server
         WHERE e.kind = 'instance'
           AND e.rung IS NULL
           AND NOT EXISTS (SELECT 1 FROM known_servers k WHERE k.server = e.server)
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = e.server)
           AND NOT EXISTS (SELECT 1 FROM storage_guests d WHERE d.server = e.server AND d.storage = e.storage)
         GROUP BY ALL
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "each kind of trace that Nova may keep", """
            hosts cell1      c1 c2
            libvirt_domains         host  uuid  state
                                    c2    s-1   shutoff
                                    c1    op-1  running
            nova_migrations         cell   id  instance_uuid  status
                                    cell1  1   s-1            completed
            nova_shadow_migrations  cell   id  instance_uuid  status
                                    cell1  2   s-2            completed
            nova_block_device_mapping         cell   id  instance_uuid
                                              cell1  3   s-3
            nova_shadow_block_device_mapping  cell   id  instance_uuid
                                              cell1  4   s-4
            nova_instance_faults         cell   id  instance_uuid
                                         cell1  5   s-5
            nova_virtual_interfaces      cell   id  instance_uuid
                                         cell1  6   s-6
            nova_instance_id_mappings    cell   id  uuid
                                         cell1  7   s-7
            nova_request_specs           id  instance_uuid
                                         8   s-8
            nova_instance_group_members  id  instance_uuid
                                         9   s-9
            instance_dirs  host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                           c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -9d      0    0    493   false    []
                           c1    s-2   instance  s-2     /i/s-2  12     1       4096   2      -9d      0    0    493   false    []
                           c1    s-3   instance  s-3     /i/s-3  13     1       4096   2      -9d      0    0    493   false    []
                           c1    s-4   instance  s-4     /i/s-4  14     1       4096   2      -9d      0    0    493   false    []
                           c1    s-5   instance  s-5     /i/s-5  15     1       4096   2      -9d      0    0    493   false    []
                           c1    s-6   instance  s-6     /i/s-6  16     1       4096   2      -9d      0    0    493   false    []
                           c1    s-7   instance  s-7     /i/s-7  17     1       4096   2      -9d      0    0    493   false    []
                           c1    s-8   instance  s-8     /i/s-8  18     1       4096   2      -9d      0    0    493   false    []
                           c1    s-9   instance  s-9     /i/s-9  19     1       4096   2      -9d      0    0    493   false    []
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c1/s-4", "c1/s-5", "c1/s-6", "c1/s-7", "c1/s-8", "c1/s-9")),
        Scenario(
            "on a file system that others share, as its compute_nodes file says", """
            hosts cell1      c9
            hypervisors      host
                             c1
                             c2
                             c5
            instances_paths  host  path  real  inode  fsid  mount      fstype          local
                             c1    /i    /i    25     0     a:/nova    fuse.glusterfs  false
                             c2    /i    /i    25     0     b:/nova    fuse.glusterfs  false
                             c5    /i    /i    25     0     e:/nova    fuse.glusterfs  false
            instances_path_sharing  host  other  seen
                                    c1    c2     -1h
                                    c9    c5     -1h
            nova_request_specs      id  instance_uuid
                                    1   s-1
            instance_dirs  host  name  kind      server  path    inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                           c1    s-1   instance  s-1     /i/s-1  11     1       4096   2      -9d      0    0    493   false    []
                           c2    s-1   instance  s-1     /i/s-1  11     1       4096   2      -9d      0    0    493   false    []
                           c5    s-1   instance  s-1     /i/s-1  11     1       4096   2      -9d      0    0    493   false    []
            """,
            finds=("c1/s-1", "c5/s-1")),
        Scenario(
            "Nova knows it after all, or makes it, or it has a guest there, or is in quarantine, or has no trace", """
            hosts cell1      c1
            nova_instances          cell   uuid  host  deleted  vm_state
                                    cell1  s-1   c1    0        active
            nova_shadow_instances   cell   uuid  host  deleted  deleted_at
                                    cell1  s-2   c1    1        -30m
            nova_instance_mappings  instance_uuid  cell_id
                                    s-3            -
            nova_build_requests     id  instance_uuid
                                    1   s-4
            nova_request_specs      id  instance_uuid
                                    1   s-1
                                    2   s-2
                                    3   s-3
                                    4   s-4
                                    5   s-5
                                    6   s-6
                                    7   s-7
            libvirt_domains  host  uuid  state
                             c1    s-5   shutoff
            instance_dirs    host  name        kind      server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1         instance  s-1     /i/s-1         11     1       4096   2      -9d      0    0    493   false    []
                             c1    s-2         instance  s-2     /i/s-2         12     1       4096   2      -9d      0    0    493   false    []
                             c1    s-3         instance  s-3     /i/s-3         13     1       4096   2      -9d      0    0    493   false    []
                             c1    s-4         instance  s-4     /i/s-4         14     1       4096   2      -9d      0    0    493   false    []
                             c1    s-5         instance  s-5     /i/s-5         15     1       4096   2      -9d      0    0    493   false    []
                             c1    s-6_resize  resize    s-6     /i/s-6_resize  16     1       4096   2      -9d      0    0    493   false    []
                             c1    s-8         instance  s-8     /i/s-8         18     1       4096   2      -9d      0    0    493   false    []
            quarantine       host  entry     server  was_path  path                             inode  bytes  files  newest  at   manifest_ok
                             c1    14-7-s-7  s-7     /i/s-7    /i/.cloudfsck/14-7-s-7/tree/s-7  14     4096   2      77      -7d  true
            """),
    ),
)  # fmt: skip
