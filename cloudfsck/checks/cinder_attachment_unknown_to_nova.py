"""Cinder has an attachment of a server that lives, and Nova knows nothing of it.

Why it matters
    The backend still exports the volume to a host that has no business with it.  When the server goes, this attachment
    stays: the volume can then be neither attached elsewhere nor deleted.
How it comes about
    After a live migration Nova deletes the attachment of the source, and only writes to its log when it cannot
    (nova/compute/manager.py: _post_live_migration_remove_source_vol_connections); then `connected_to` is a host where
    the server was once, and `nova_has` the attachment that counts.  A rollback of one may leave that of the destination
    (_rollback_volume_bdms).  A volume could not be attached or detached, and what followed failed as well.  Somebody
    made the attachment by hand, or deleted Nova's row.
What the repair does
    Where no guest can lose anything by it, it deletes the attachment through Cinder's API, as an administrator and without
    a service token: Cinder then asks Nova, and refuses if Nova has this very attachment (CVE-2023-2088).  That is so where
    no guest has the volume, or each that has it runs on another host and has an attachment to that host of its own.  It
    cannot be undone.  From 2023.2 on a hard reboot of the server does the same (nova/compute/manager.py:
    _delete_dangling_bdms), and the owner notices that.
When not to repair
    Where it is connected to the server's own host, and Nova's attachment to another, or to none: then it may be the one
    that the guest writes through.  Look at the guest's disks first.  While the server moves, or a volume is swapped.
"""

from collections.abc import Iterable

from cloudfsck.acts import attachment
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[attachment.Delete]:
    yield attachment.Delete.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack volume show {row['volume']}"
    yield f"as an administrator: openstack server volume list {row['server']}"
    hosts = [host for host in (row["server_host"], row["connected_to"]) if host is not None]
    for host in dict.fromkeys(hosts):
        yield f"on {host}: virsh dumpxml {row['server']} | grep -E '<(source|serial|alias)'"
    if row["attach_status"] == "reserved" and row["connected_to"] is None:
        unused = ""
    elif row["connected_to"] in (None, row["server_host"]) or not row["nova_has"]:
        unused = f", if the guest has no disk of {row['volume']}"
    else:
        unused = f", if the guest on {row['connected_to']} is gone, or has no disk of {row['volume']}"
    yield (
        f"as an administrator, without a service token{unused}:"
        f" openstack --os-volume-api-version 3.27 volume attachment delete {row['attachment']}"
    )


CHECK = Check(
    text=__doc__,
    accused=("cinder_volume_attachment",),
    query="""
        WITH suspects AS (
            SELECT a.*, t.attach_time, s.name AS server_name, s.cell, s.host AS server_host, s.vm_state,
                   s.updated_at AS server_updated_at, v.stored, v.name AS volume_name, v.project,
                   v.status AS volume_status, v.updated_at AS volume_updated_at
              FROM live_attachments a
              JOIN cinder_volume_attachment t ON t.id = a.attachment
              JOIN live_servers s ON s.server = a.server
              JOIN read_parts r ON r.table_name = 'nova_block_device_mapping' AND r.part = s.cell
              JOIN live_volumes v ON v.volume = a.volume
             WHERE NOT starts_with(a.status, 'error_')
               AND NOT EXISTS (SELECT 1 FROM server_volumes b WHERE b.attachment = a.attachment)
               AND NOT EXISTS (SELECT 1 FROM server_volumes b
                                WHERE b.server = a.server AND b.volume = a.volume AND b.attachment IS NULL)
               AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = a.volume)),
        others AS (
            SELECT a.attachment, list(DISTINCT x.server ORDER BY x.server) AS servers, max(x.changed) AS changed
              FROM suspects a
              JOIN live_attachments x ON x.volume = a.volume
             GROUP BY a.attachment),
        had AS (
            SELECT a.attachment, max(b.deleted_at) AS deleted_at
              FROM suspects a
              JOIN nova_block_device_mapping b ON b.attachment_id = a.attachment
             GROUP BY a.attachment),
        has AS (
            SELECT a.attachment, list(b.attachment ORDER BY b.attachment) AS attachments, max(b.changed) AS changed
              FROM suspects a
              JOIN server_volumes b ON b.server = a.server AND b.volume = a.volume
             GROUP BY a.attachment),
        guests AS (
            SELECT a.attachment, list(DISTINCT u.host ORDER BY u.host) AS on_hosts,
                   bool_or(u.host = coalesce(a.connector_host, a.attached_host)) AS beside,
                   list(DISTINCT u.host ORDER BY u.host) FILTER (
                       NOT EXISTS (SELECT 1 FROM live_attachments x
                                    WHERE x.volume = u.volume AND x.server = u.server AND x.attachment <> a.attachment
                                      AND x.status = 'attached'
                                      AND coalesce(x.connector_host, x.attached_host) = u.host)) AS by_it
              FROM suspects a
              JOIN guest_volumes u ON u.volume = a.volume
             GROUP BY a.attachment),
        swaps AS (
            SELECT a.attachment, list(DISTINCT b.volume ORDER BY b.volume) AS volumes,
                   bool_or(w.status = 'detaching') AS swapping
              FROM suspects a
              JOIN server_volumes b ON b.server = a.server
              LEFT JOIN live_volumes w ON w.volume = b.volume
             GROUP BY a.attachment)
        SELECT a.attachment AS key, a.server, a.server_name, a.cell, a.server_host, a.vm_state, a.server_updated_at,
               a.volume, a.volume_name, a.project, a.volume_status, a.volume_updated_at, o.servers AS volume_servers,
               a.attachment, a.status AS attach_status, coalesce(a.connector_host, a.attached_host) AS connected_to,
               coalesce(g.on_hosts, []) AS guests_on, a.attach_time AS attached_at, a.updated_at, coalesce(n.attachments, []) AS nova_has, d.deleted_at AS nova_deleted_at,
               list_sort(list_distinct(list_concat(
                   list_concat([a.volume, a.stored, a.attachment], o.servers), w.volumes))) AS also,
               NULL AS hosts, NULL AS cells,
               greatest(o.changed, d.deleted_at, n.changed, a.server_updated_at) AS since,
               CASE WHEN greatest(d.deleted_at, n.changed, a.server_updated_at) > o.changed THEN 'cell:' || a.cell
                    ELSE 'cinder:cinder' END AS clock,
               coalesce('a guest may have the volume by this very attachment, on ' || array_to_string(g.by_it, ', '),
                        CASE WHEN g.beside THEN 'a guest on the host that it is connected to has the volume' END,
                        CASE WHEN EXISTS (SELECT 1 FROM server_volumes b
                                           WHERE b.server = a.server AND b.volume = a.volume
                                             AND NOT EXISTS (SELECT 1 FROM live_attachments y
                                                              WHERE y.attachment = b.attachment))
                             THEN 'Nova gives it the volume by an attachment that is gone: this may be the one in its place'
                        END,
                        (SELECT min(z.why) FROM attachment_doubts z WHERE z.attachment = a.attachment))
                   AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM suspects a
          JOIN others o ON o.attachment = a.attachment
          LEFT JOIN had d ON d.attachment = a.attachment
          LEFT JOIN has n ON n.attachment = a.attachment
          LEFT JOIN guests g ON g.attachment = a.attachment
          LEFT JOIN swaps w ON w.attachment = a.attachment
         WHERE NOT coalesce(w.swapping, FALSE)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "no disk tells of it: a host that nobody asked, QEMU without a domain, a device in use, rescued, two on one host", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        active
                             cell1  s-3   c1    0        active
                             cell1  s-4   c1    0        active
                             cell1  s-5   c1    0        rescued
                             cell1  s-6   c1    0        active
                             cell1  s-7   c1    0        active
                             cell1  s-8   c1    0        active
                             cell1  s-9   c1    0        active
            libvirt_domains  host  uuid  state    nova
                             c2    s-2   shutoff  true
                             c1    s-3   running  true
                             c1    s-8   running  true
            qemu_processes   host  uuid  pid
                             c1    s-2   12
                             c1    s-3   13
                             c1    s-8   18
            cinder_volumes   id   status  attach_status  multiattach  deleted  updated_at
                             v-1  in-use  attached       false        false    -9d
                             v-2  in-use  attached       false        false    -9d
                             v-3  in-use  attached       false        false    -9d
                             v-4  in-use  attached       false        false    -9d
                             v-5  in-use  attached       false        false    -9d
                             v-6  in-use  attached       false        false    -9d
                             v-7  in-use  attached       true         false    -9d
                             v-8  in-use  attached       false        false    -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  attached_host  connector_host  attach_status  places      deleted  updated_at
                                      a-1   v-1        s-1            x9             x9              attached       []          false    -9d
                                      a-2   v-2        s-2            c1             c1              attached       []          false    -9d
                                      a-3   v-3        s-3            c1             c1              attached       [iqn.z/3]   false    -9d
                                      a-4   v-4        s-4            c1             -               attached       [iqn.z/4]   false    -9d
                                      a-5   v-5        s-5            c1             c1              attached       []          false    -9d
                                      a-6   v-6        s-6            c1             c1              attached       []          false    -9d
                                      a-60  v-6        s-6            c1             c1              attached       []          false    -9d
                                      a-7   v-7        s-7            c1             c1              attached       []          false    -9d
                                      a-70  v-7        s-7            c1             c1              attached       []          false    -9d
                                      a-8   v-8        s-8            c1             c1              attached       [iqn.z/8]   false    -9d
                                      a-9   v-8        s-9            c1             c1              attached       [iqn.z/8]   false    -9d
            block_devices    host  name  kind  state    session   places      volume  slaves  holders  links       mounts  held_by  guests
                             c1    sdb   scsi  running  session1  [iqn.z/3]   -       []      []       [/dev/sdb]  []      [7:dd]   []
                             c1    sdc   scsi  running  session2  [iqn.b/9]   v-4     []      []       [/dev/sdc]  [/mnt]  []       []
                             c1    sdd   scsi  running  session1  [iqn.z/8]   v-8     []      []       [/dev/sdd]  []      []       []
                             c2    sdd   scsi  running  session1  [iqn.z/8]   -       []      []       [/dev/sdd]  []      [7:dd]   []
            """,
            finds=("a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-60", "a-7", "a-70", "a-8", "a-9"),
            plans="""
            delete attachment a-7 (attached) of volume v-7 to server s-7
            delete attachment a-70 (attached) of volume v-7 to server s-7
            delete attachment a-8 (attached) of volume v-8 to server s-8
            delete attachment a-9 (attached) of volume v-8 to server s-9
            """),
        Scenario(
            "left on the source of a live migration; by a detachment; made by hand; Nova has another of the volume", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c1    0        active
                             cell1  s-3   c1    0        stopped
                             cell1  s-4   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  updated_at  deleted_at  deleted
                                       cell1  1   s-1            v-1        a-10           volume            true       -9d         -           0
                                       cell1  2   s-2            v-2        a-2            volume            true       -9d         -2d         2
                                       cell1  3   s-4            v-4        a-4            local             true       -9d         -           0
                                       cell1  4   s-2            v-9        -              volume            true       -9d         -           0
                                       cell1  5   s-3            v-2        -              volume            true       -9d         -           0
                                       cell1  6   s-3            v-1        a-11           volume            true       -3d         -           0
            cinder_volumes   id   status    attach_status  multiattach  deleted  updated_at
                             v-1  in-use    attached       true         false    -9d
                             v-2  in-use    attached       true         false    -9d
                             v-3  reserved  reserved       false        false    -9d
                             v-4  in-use    attached       false        false    -9d
                             v-9  in-use    attached       false        false    -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  attached_host  connector_host  attach_status  deleted  updated_at
                                      a-1   v-1        s-1            c1             c1              attached       false    -9d
                                      a-10  v-1        s-1            c2             c2              attached       false    -9d
                                      a-11  v-1        s-3            c1             c1              attached       false    -9d
                                      a-2   v-2        s-2            c1             -               detaching      false    -9d
                                      a-3   v-3        s-3            -              -               reserved       false    -9d
                                      a-4   v-4        s-4            c1             c1              attached       false    -1d
                                      a-9   v-9        s-2            -              -               attached       false    -9d
            """,
            finds=("a-1", "a-2", "a-3", "a-4"),
            plans="""
            delete attachment a-1 (attached) of volume v-1 to server s-1
            delete attachment a-2 (detaching) of volume v-2 to server s-2
            delete attachment a-3 (reserved) of volume v-3 to server s-3
            delete attachment a-4 (attached) of volume v-4 to server s-4
            """),
        Scenario(
            "guests have the volume: by an attachment to their own host, by no other, and beside it", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c1    0        active
                             cell1  s-3   c2    0        active
                             cell1  s-4   c1    0        active
                             cell1  s-5   c2    0        active
                             cell1  s-6   c2    0        active
                             cell1  s-7   c1    0        active
                             cell1  s-8   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  updated_at  deleted
                                       cell1  1   s-1            v-1        a-10           volume            true       -9d         0
                                       cell1  2   s-2            v-9        a-29           volume            true       -9d         0
                                       cell1  3   s-3            v-3        a-30           volume            true       -9d         0
                                       cell1  4   s-4            v-3        a-31           volume            true       -9d         0
                                       cell1  5   s-6            v-5        a-60           volume            true       -9d         0
                                       cell1  6   s-7            v-7        a-70           volume            true       -9d         0
                                       cell1  7   s-8            v-8        a-80           volume            true       -9d         0
            libvirt_domains  host  uuid  state    nova
                             c2    s-1   running  true
                             c1    s-2   running  true
                             c2    s-3   running  true
                             c1    s-4   running  true
                             c2    s-5   running  true
                             c1    s-7   running  true
                             c1    s-8   running  true
            libvirt_disks    host  uuid  target  device  serial
                             c2    s-1   vdb     disk    v-1
                             c1    s-2   vdb     disk    v-2
                             c2    s-3   vdb     disk    v-3
                             c1    s-4   vdb     disk    v-3
                             c2    s-5   vdb     disk    v-5
                             c1    s-7   vdb     disk    v-7
                             c1    s-8   vdb     disk    v-8
            cinder_volumes   id   status    attach_status  multiattach  deleted  updated_at
                             v-1  in-use    attached       false        false    -9d
                             v-2  in-use    attached       false        false    -9d
                             v-3  in-use    attached       true         false    -9d
                             v-5  in-use    attached       true         false    -9d
                             v-7  in-use    attached       false        false    -9d
                             v-8  in-use    attached       false        false    -9d
                             v-9  in-use    attached       false        false    -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  attached_host  connector_host  attach_status  attach_time  deleted  updated_at
                                      a-1   v-1        s-1            c1             c1              attached       -10d         false    -9d
                                      a-10  v-1        s-1            -              c2              attached       -9d          false    -9d
                                      a-2   v-2        s-2            c1             -               attached       -9d          false    -9d
                                      a-29  v-9        s-2            c1             c1              attached       -9d          false    -9d
                                      a-3   v-3        s-3            c1             c1              attached       -9d          false    -9d
                                      a-30  v-3        s-3            c2             c2              attached       -9d          false    -9d
                                      a-31  v-3        s-4            c1             c1              attached       -9d          false    -9d
                                      a-5   v-5        s-5            -              -               reserved       -            false    -9d
                                      a-60  v-5        s-6            c2             c2              attached       -9d          false    -9d
                                      a-7   v-7        s-7            c2             c2              attached       -9d          false    -9d
                                      a-70  v-7        s-7            c1             c1              attaching      -            false    -9d
                                      a-8   v-8        s-8            -              -               reserved       -            false    -9d
                                      a-80  v-8        s-8            c2             c2              attached       -9d          false    -9d
            """,
            finds=("a-1", "a-2", "a-3", "a-5", "a-7", "a-8"),
            plans="delete attachment a-1 (attached) of volume v-1 to server s-1"),
        Scenario(
            "Nova has it, or a row from before there were attachments; it failed; the server moves; its cell was not heard", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state  task_state
                             cell1  s-1   c1    0        active    -
                             cell1  s-2   c1    0        active    -
                             cell1  s-3   c1    0        active    -
                             cell1  s-4   c1    0        active    migrating
                             cell1  s-5   c1    5        deleted   -
                             cell1  s-6   c1    0        active    -
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted
                                       cell1  1   s-1            v-1        a-1            volume            true       0
                                       cell1  2   s-2            v-2        -              volume            true       0
                                       cell1  4   s-4            v-4        a-40           volume            true       0
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  in-use     attached       false    -9d
                             v-2  in-use     attached       false    -9d
                             v-3  available  detached       false    -9d
                             v-4  in-use     attached       false    -9d
                             v-5  in-use     attached       false    -9d
                             v-6  deleted    attached       true     -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  attached_host  attach_status    deleted  updated_at
                                      a-1   v-1        s-1            c1             attached         false    -9d
                                      a-2   v-2        s-2            -              attached         false    -9d
                                      a-3   v-3        s-3            c1             error_attaching  false    -9d
                                      a-4   v-4        s-4            c1             attached         false    -9d
                                      a-40  v-4        s-4            c2             attaching        false    -9d
                                      a-5   v-5        s-5            c1             attached         false    -9d
                                      a-6   v-6        s-6            c1             attached         false    -9d
            """),
        Scenario(
            "one of its volumes is being swapped for hours: Nova's row is of the old one until the end", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted
                                       cell1  1   s-1            v-1        a-1            volume            true       0
                                       cell1  2   s-2            v-4        a-4            volume            true       0
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  detaching  attached       false    -3h
                             v-2  attaching  attaching      false    -3h
                             v-3  in-use     attached       false    -3h
                             v-4  in-use     attached       false    -3h
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            c1             attached       false    -9d
                                      a-2  v-2        s-1            c1             attaching      false    -3h
                                      a-3  v-3        s-2            c1             attached       false    -3h
                                      a-4  v-4        s-2            c1             attached       false    -9d
            """,
            finds=("a-3",),
            plans="delete attachment a-3 (attached) of volume v-3 to server s-2"),
        Scenario(
            "Nova's rows of its cell could not be read: that is not told again for each attachment", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  in-use     attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            c1             attached       false    -9d
            lost nova_block_device_mapping cell1
            """),
    ),
)  # fmt: skip
