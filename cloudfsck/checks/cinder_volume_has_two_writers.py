"""CRITICAL: two servers have a volume at once that only one may write to.

Why it matters
    Two guests that write to one file system without knowing of each other destroy it; every minute makes it worse.
How it comes about
    A server was deleted, evacuated or restored while its guest went on, and the volume was attached elsewhere; a volume
    was reset to available while a guest had it (os-reset_status takes the attachments away and tells nobody:
    cinder/api/contrib/admin_actions.py); an attachment was made past Nova (CVE-2023-2088, bug 2004555); or Cinder's
    database was restored.
What the repair does
    There is none, and never will be: no program can tell whose writes are the good ones.  A person looks which of the
    guests writes, pauses the one that should not, which keeps its memory, and takes the volume from it; then the
    owner checks the file system.
When not to repair
    Never leave it for later.  Only where both owners know of it, and their guests keep to a cluster file system: such a
    volume is to be made multiattach (its type is), and is found no more.
"""

from collections.abc import Iterable
from datetime import timedelta

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    guests = list(zip(row["on_hosts"], row["guests"], row["targets"], strict=True))
    yield f"as an administrator: openstack volume show {row['volume']}"
    yield (
        "as an administrator: openstack --os-volume-api-version 3.27 volume attachment list --all-projects"
        f" --volume-id {row['volume']}"
    )
    for server in sorted({*row["attached_to"], *row["guests"]} - {None}):
        yield f"as an administrator: openstack server show {server}"
    for server, host in zip(row["attached_to"], row["nova_hosts"], strict=True):
        if host is not None and server not in row["guests"]:
            yield f"on {host}: virsh domblklist --details {server}"
    for host, server, target in guests:
        yield f"on {host}, twice, a minute apart; it writes if wr_bytes grows: virsh domblkstat {server} {target}"
    for host, server, _ in guests:
        yield f"on {host}, if this is the one that should not write; its memory is kept: virsh suspend {server}"


CHECK = Check(
    text=__doc__,
    accused=("libvirt_disks", "cinder_volume_attachment"),
    query="""
        WITH running AS (
            SELECT u.volume, u.host, u.server, u.target, d.state, q.started
              FROM guest_volumes u
              JOIN libvirt_domains d ON d.host = u.host AND d.uuid = u.server
              LEFT JOIN domain_starts q ON q.host = u.host AND q.uuid = u.server
             WHERE d.state IN ('running', 'paused')
               AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = u.server)),
        attached AS (
            SELECT a.volume, a.server, a.attachment, a.changed
              FROM live_attachments a
             WHERE a.status = 'attached'
               AND NOT EXISTS (SELECT 1 FROM gone_servers g WHERE g.server = a.server)),
        suspects AS (
            SELECT r.volume FROM running r GROUP BY r.volume HAVING count(DISTINCT r.server) > 1
            UNION
            SELECT a.volume FROM attached a GROUP BY a.volume HAVING count(DISTINCT a.server) > 1),
        guests AS (
            SELECT x.volume, list(r.host ORDER BY r.host, r.server, r.target) AS on_hosts,
                   list(r.server ORDER BY r.host, r.server, r.target) AS servers,
                   list(r.target ORDER BY r.host, r.server, r.target) AS targets,
                   list(r.state ORDER BY r.host, r.server, r.target) AS states,
                   max(r.started) AS started, arg_max(r.host, r.started) AS started_on
              FROM suspects x
              JOIN running r ON r.volume = x.volume
             GROUP BY x.volume),
        claims AS (
            SELECT x.volume, count(DISTINCT a.server) AS count, list(a.server ORDER BY a.server, a.attachment) AS servers,
                   list(a.attachment ORDER BY a.server, a.attachment) AS ids,
                   list(s.host ORDER BY a.server, a.attachment) AS on_hosts, max(a.changed) AS changed
              FROM suspects x
              JOIN attached a ON a.volume = x.volume
              LEFT JOIN live_servers s ON s.server = a.server
             GROUP BY x.volume)
        SELECT v.volume AS key, NULL AS server, v.volume, v.name, v.project, v.status, v.attach_status, v.updated_at,
               coalesce(g.servers, []) AS guests, coalesce(g.on_hosts, []) AS on_hosts, coalesce(g.targets, []) AS targets,
               coalesce(g.states, []) AS states, g.started AS last_started,
               coalesce(c.servers, []) AS attached_to, coalesce(c.on_hosts, []) AS nova_hosts,
               coalesce(c.ids, []) AS attachments, c.changed AS attached_at,
               list_sort(list_distinct(list_concat([v.volume, v.stored], g.servers, c.servers, c.ids))) AS also,
               nullif(list_sort(list_distinct(list_concat(g.on_hosts, c.on_hosts))), []) AS hosts, NULL AS cells,
               CASE WHEN c.count > 1 THEN c.changed ELSE greatest(g.started, c.changed) END AS since,
               CASE WHEN c.count > 1 OR c.changed >= g.started THEN 'cinder:cinder' ELSE 'host:' || g.started_on END AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM suspects x
          JOIN live_volumes v ON v.volume = x.volume
          LEFT JOIN guests g ON g.volume = v.volume
          LEFT JOIN claims c ON c.volume = v.volume
         WHERE NOT v.multiattach
           AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = v.volume)
    """,
    commands=_commands,
    settle=timedelta(minutes=10),
    scenarios=(
        Scenario(
            "the guest of a deleted server goes on; one that was reset to available; two attachments", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state
                             cell1  s-1   c1    1        -9d         deleted
                             cell1  s-2   c2    0        -           active
                             cell1  s-3   c1    0        -           active
                             cell1  s-4   c2    0        -           paused
                             cell1  s-5   c1    0        -           stopped
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  device_name  connected  deleted  updated_at
                                       cell1  1   s-2            volume            v-1        a-1            /dev/vdb     true       0        -8d
                                       cell1  2   s-3            volume            v-2        -              /dev/vdb     true       0        -20d
                                       cell1  3   s-4            volume            v-2        -              /dev/vdb     true       0        -8d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-3   running  true
                             c1    s-5   shutoff  true
                             c2    s-2   running  true
                             c2    s-4   paused   true
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-1   vdb     disk    v-1
                             c1    s-3   vdb     disk    v-2
                             c2    s-2   vdb     disk    v-1
                             c2    s-4   vdb     disk    v-2
                             c2    s-4   vdc     disk    v-3
            qemu_processes   host  uuid  pid   started
                             c1    s-1   4001  -30d
                             c1    s-2   4002  -1h
                             c1    s-3   4003  -20d
                             c2    s-4   4004  -3h
            cinder_volumes   id   status     attach_status  multiattach  deleted  updated_at
                             v-1  in-use     attached       false        false    -8d
                             v-2  available  detached       false        false    -9d
                             v-3  in-use     attached       -            false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-1  v-1        s-2            attached       false    -8d
                                      a-3  v-3        s-4            attached       false    -9d
                                      a-4  v-3        s-5            attached       false    -7d
            """,
            finds=("v-1", "v-2", "v-3")),
        Scenario(
            "disks that Nova's rows do not explain, though it has another volume there, or one that is no disk", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c2    0        active
                             cell1  s-3   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  device_name  device_path  connected  deleted  updated_at
                                       cell1  1   s-1            volume            v-1        /dev/vdb     /dev/sdc     true       0        -9d
                                       cell1  2   s-2            volume            v-2        /dev/vdb     /dev/sdb     true       0        -9d
                                       cell1  3   s-3            volume            v-3        /dev/vdb     /dev/sdx     true       0        -9d
                                       cell1  4   s-2            volume            v-4        /dev/vdc     /dev/sdc     true       0        -9d
                                       cell1  5   s-2            volume            v-5        /dev/vdd     /dev/sdd     true       0        -9d
                                       cell1  6   s-2            volume            v-3        /dev/vde     /dev/sdy     true       0        -9d
                                       cell1  7   s-3            volume            v-5        /dev/vdc     /dev/sdy     true       7        -10d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c2    s-2   running  true
                             c1    s-3   running  true
            libvirt_disks    host  uuid  target  device  source    serial
                             c1    s-1   vdb     disk    /dev/sdb  v-1
                             c1    s-1   vdc     disk    /dev/sdc  v-2
                             c2    s-2   vdb     disk    /dev/sdb  v-2
                             c2    s-2   vdc     disk    /dev/sdc  v-4
                             c2    s-2   vdd     disk    /dev/sdd  v-5
                             c2    s-2   vde     disk    /dev/sdy  v-3
                             c1    s-3   vdc     disk    /dev/sdy  v-4
            cinder_volumes   id   status  attach_status  multiattach  deleted  updated_at
                             v-1  in-use  attached       false        false    -9d
                             v-2  in-use  attached       false        false    -9d
                             v-3  in-use  attached       true         false    -9d
                             v-4  in-use  attached       false        false    -9d
                             v-5  in-use  attached       false        false    -9d
            """,
            finds=("v-2", "v-4")),
        Scenario(
            "one of the two is stopped, deleted, reserved or on its way; one server on two hosts; it is a host's; it is busy", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state  task_state
                             cell1  s-1   c1    0        -           stopped   -
                             cell1  s-2   c2    0        -           active    -
                             cell1  s-3   c1    3        -9d         deleted   -
                             cell1  s-4   c2    0        -           active    -
                             cell1  s-5   c1    0        -           active    rebuilding
                             cell1  s-6   c2    0        -           active    -
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  device_name  connected  deleted  updated_at
                                       cell1  1   s-2            volume            v-1        a-1            /dev/vdb     true       0        -8d
                                       cell1  2   s-6            volume            v-4        a-8            /dev/vdb     true       0        -8d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   shutoff  true
                             c1    s-2   running  true
                             c1    s-5   running  true
                             c1    s-6   running  true
                             c2    s-2   running  true
                             c2    s-4   running  true
                             c2    s-6   running  true
                             c2    s-1   running  true
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-1   vdb     disk    v-1
                             c2    s-2   vdb     disk    v-1
                             c1    s-5   vdb     disk    v-4
                             c2    s-6   vdb     disk    v-4
                             c2    s-4   vdc     disk    v-5
                             c1    s-2   vdc     disk    v-5
                             c2    s-2   vdc     disk    v-6
                             c1    s-2   vdd     disk    v-6
            cinder_volumes   id   status     attach_status  multiattach  deleted  updated_at
                             v-1  in-use     attached       false        false    -8d
                             v-2  in-use     attached       false        false    -9d
                             v-3  in-use     attached       false        false    -9d
                             v-4  in-use     attached       false        false    -9d
                             v-5  backing-up attached       false        false    -9d
                             v-6  in-use     attached       false        false    -9d
                             v-7  in-use     attached       false        false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-1  v-1        s-2            attached       false    -8d
                                      a-2  v-2        s-3            attached       false    -9d
                                      a-3  v-2        s-4            attached       false    -9d
                                      a-4  v-3        s-4            attached       false    -9d
                                      a-5  v-3        s-6            reserved       false    -9d
                                      a-6  v-7        -              attached       false    -9d
                                      a-7  v-7        s-4            attached       false    -9d
                                      a-8  v-4        s-6            attached       false    -9d
            """),
    ),
)  # fmt: skip
