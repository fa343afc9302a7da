"""A directory <uuid>_del is left: nova-compute broke off while it removed it.

Why it matters
    It takes disk space that the scheduler counts as free, and nothing looks for it again.
How it comes about
    nova-compute renames a server's directory to <uuid>_del and then removes what is in it (nova/virt/libvirt/driver.py:
    delete_instance_files).  If it is killed in the midst of that, or a file cannot be removed, the rest stays.
What the repair does
    Renames the directory into .cloudfsck beside it, with hard links to the backing files that it needs, so that it
    can be brought back; `purge` removes it when it has stood there for a week.
When not to repair
    Where the server lives and has no other directory on that host: then it may have been renamed by mistake.
"""

from collections.abc import Iterable

from cloudfsck.acts.directory import next_step
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack server show {row['server']}"
    yield f"on {row['host']}: ls -lR {row['path']}"
    yield f"on {row['host']}: mv -n {row['path']} {row['path']}.aside"


CHECK = Check(
    text=__doc__,
    accused=("instance_dirs", "quarantine"),
    query="""
        WITH owners AS (
            SELECT g.server, g.name, g.project, g.cell, NULL AS nova_host, NULL AS vm_state, g.deleted_at, g.nova_will
              FROM gone_servers g
            UNION ALL
            SELECT l.server, l.name, l.project, l.cell, coalesce(l.host, 'no host'), l.vm_state, NULL, NULL
              FROM live_servers l)
        SELECT e.host || '/' || e.object AS key, e.server, o.name, o.project, o.cell, o.vm_state, o.nova_host, o.deleted_at,
               e.host, e.seen_on, e.path, e.inode, e.device, e.bytes, e.files, e.newest, e.uid, e.gid, e.mode, e.entry,
               coalesce(o.nova_will, 'nothing, unless it deletes the server on that host once more') AS nova_will,
               CASE WHEN e.alone THEN [e.host] END AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, o.cell])) END AS cells,
               e.changed AS since, 'host:' || e.host AS clock,
               coalesce(
                   e.obstacle,
                   CASE WHEN o.nova_host IN (e.host, 'no host')
                         AND NOT EXISTS (SELECT 1 FROM instance_dirs n WHERE n.host = e.host AND n.server = e.server
                                            AND n.kind = 'instance')
                        THEN 'the server lives, on ' || o.nova_host || ', and this may be the only copy of its disk' END
               ) AS by_hand,
               e.rung, e.rung_since
          FROM directories e
          JOIN owners o ON o.server = e.server
          LEFT JOIN mapped_servers p ON p.server = e.server
          LEFT JOIN mapped_hosts m ON m.host = e.host
         WHERE e.kind = 'del'
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = e.server)
           AND NOT EXISTS (SELECT 1 FROM unfinished_deletions u WHERE u.server = e.server AND u.host = e.host)
    """,
    repair=lambda row: [next_step(row)],
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a deleted server, of an archived one, of one that runs elsewhere, and of one that runs beside it", """
            hosts cell1      c1 c2
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned  vm_state
                             cell1  s-1   c1    1        -2h         1        -
                             cell1  s-3   c2    0        -           -        active
                             cell1  s-4   c1    0        -           -        active
                             cell1  s-5   c2    5        -2h         0        -
                             cell1  s-6   c1    6        -2h         0        -
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-2   c2    2        -4h
            libvirt_domains  host  uuid  state
                             c2    s-3   running
                             c1    s-4   running
            instance_dirs    host  name     kind      server  path        inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1_del  del       s-1     /i/s-1_del  11     1       4096   2      -90m     0    0    493   false    []
                             c1    s-2_del  del       s-2     /i/s-2_del  12     1       4096   2      -9d      0    0    493   false    []
                             c1    s-3_del  del       s-3     /i/s-3_del  13     1       4096   2      -9d      0    0    493   false    []
                             c1    s-4_del  del       s-4     /i/s-4_del  14     1       4096   2      -9d      0    0    493   false    []
                             c1    s-4      instance  s-4     /i/s-4      15     1       4096   2      -9d      0    0    493   false    [4]
                             c1    s-5_del  del       s-5     /i/s-5_del  16     1       4096   2      -9d      0    0    493   false    []
                             c2    s-1      instance  s-1     /i/s-1      17     1       4096   2      -9d      0    0    493   false    []
            """,
            finds=("c1/s-1_del", "c1/s-2_del", "c1/s-3_del", "c1/s-4_del", "c1/s-5_del"),
            plans="""
            quarantine /i/s-1_del on c1 (4.0 KiB)
            quarantine /i/s-2_del on c1 (4.0 KiB)
            quarantine /i/s-3_del on c1 (4.0 KiB)
            quarantine /i/s-4_del on c1 (4.0 KiB)
            quarantine /i/s-5_del on c1 (4.0 KiB)
            """),
        Scenario(
            "in quarantine for a week", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c1    1        -9d         1
            quarantine       host  entry     server  was_path    path                                 inode  bytes  files  newest  at   manifest_ok
                             c1    14-7-s-1  s-1     /i/s-1_del  /i/.cloudfsck/14-7-s-1/tree/s-1_del  14     4096   2      77      -7d  true
            holds            kind  host  server  rung         since  entry
                             del   c1    s-1     quarantined  -7d    14-7-s-1
            """,
            finds=("c1/14-7-s-1",),
            plans="remove /i/s-1_del from quarantine on c1 for good (4.0 KiB)"),
        Scenario(
            "the server lives and has no other directory, or it is a link, or others may share it: a person looks", """
            hosts cell1      c1 c2
            hypervisors      host
                             c3
            instances_paths  host  path  real  fstype  local
                             c3    /i    /i    nfs4    false
            nova_instance_mappings  instance_uuid  cell_id
                                    s-4            cell1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned  vm_state
                             cell1  s-1   c1    0        -           -        active
                             cell1  s-2   -     0        -           -        shelved_offloaded
                             cell1  s-3   c2    3        -2h         1        -
                             cell1  s-4   c2    4        -2h         1        -
            instance_dirs    host  name        kind      server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1_del     del       s-1     /i/s-1_del     11     1       4096   2      -9d      0    0    493   false    []
                             c1    s-1_resize  resize    s-1     /i/s-1_resize  15     1       4096   2      -9d      0    0    493   false    [4]
                             c2    s-1         instance  s-1     /i/s-1         16     1       4096   2      -9d      0    0    493   false    [4]
                             c1    s-9         instance  s-9     /i/s-9         19     1       4096   2      -9d      0    0    493   false    [4]
                             c1    s-2_del     del       s-2     /i/s-2_del     12     1       4096   2      -9d      0    0    493   false    []
                             c1    s-3_del     del       s-3     /i/s-3_del     13     1       4096   2      -9d      0    0    511   true     []
                             c3    s-4_del     del       s-4     /i/s-4_del     14     1       4096   2      -9d      0    0    493   false    []
            """,
            finds=("c1/s-1_del", "c1/s-2_del", "c1/s-3_del", "c3/s-4_del")),
        Scenario(
            "Nova works on the server, nova-compute still deletes it, or nobody knows whose it is", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned  task_state
                             cell1  s-1   c2    0        -           -        deleting
                             cell1  s-2   c1    2        -2h         0        -
            instance_dirs    host  name     kind  server  path        inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                             c1    s-1_del  del   s-1     /i/s-1_del  11     1       4096   2      -9d      0    0    493   false    []
                             c1    s-2_del  del   s-2     /i/s-2_del  12     1       4096   2      -9d      0    0    493   false    []
                             c1    x-1_del  del   x-1     /i/x-1_del  13     1       4096   2      -9d      0    0    493   false    []
            """),
    ),
)  # fmt: skip
