"""Nova deleted the server, and Cinder still has an attachment of it.

Why it matters
    The owner can neither attach the volume elsewhere nor delete it: Cinder says that it is in use.
How it comes about
    nova-compute was down while the server was deleted, and nova-api deleted it alone (nova/compute/api.py:
    _local_delete, which needs what the connector was); Cinder did not answer just then (nova/compute/manager.py:
    _shutdown_instance goes on when it cannot detach); or the database row was deleted by hand.
What the repair does
    It deletes the attachment through Cinder's API, as an administrator and without a service token: Cinder then asks
    Nova, refuses if Nova still has the server (CVE-2023-2088), and has the backend end the connection.  It cannot be
    undone.  Where a guest still has the volume, or something uses its device on a host, that
    comes first, and this waits.
When not to repair
    While a guest of that server still runs somewhere: it writes to the volume.  While servers are being restored from a
    backup of Nova's database.
"""

from collections.abc import Iterable

from cloudfsck.acts import attachment
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[attachment.Delete]:
    yield attachment.Delete.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack volume show {row['volume']}"
    for host in row["guests_on"]:
        yield f"on {host}: virsh domblklist {row['server']}"
    yield (
        "as an administrator, without a service token:"
        f" openstack --os-volume-api-version 3.27 volume attachment delete {row['attachment']}"
    )


CHECK = Check(
    text=__doc__,
    accused=("cinder_volume_attachment",),
    query="""
        WITH suspects AS (
            SELECT a.*, t.attach_time, v.stored, v.name, v.project, v.status AS volume_status,
                   v.updated_at AS volume_updated_at, g.name AS server_name,
                   g.deleted_at AS server_deleted_at, g.cell AS server_cell
              FROM live_attachments a
              JOIN cinder_volume_attachment t ON t.id = a.attachment
              JOIN gone_servers g ON g.server = a.server
              JOIN live_volumes v ON v.volume = a.volume
             WHERE NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = a.volume)),
        others AS (
            SELECT a.attachment, list(DISTINCT x.server) AS servers, max(x.changed) AS changed
              FROM suspects a
              JOIN live_attachments x ON x.volume = a.volume
             GROUP BY a.attachment),
        guests AS (
            SELECT a.attachment, list(DISTINCT u.host ORDER BY u.host) AS on_hosts
              FROM suspects a
              JOIN guest_volumes u ON u.volume = a.volume
             GROUP BY a.attachment),
        devices AS (
            SELECT a.attachment, list(DISTINCT d.host ORDER BY d.host) AS on_hosts
              FROM suspects a
              JOIN volume_devices d ON d.volume = a.stored OR list_has_any(d.places, a.places)
             WHERE d.used
             GROUP BY a.attachment)
        SELECT a.attachment AS key, a.server, a.server_name, a.server_deleted_at, a.volume, a.name, a.project,
               a.volume_status, a.volume_updated_at, a.attachment, a.status AS attach_status,
               coalesce(a.connector_host, a.attached_host) AS connected_to, a.attach_time AS attached_at, a.updated_at,
               coalesce(q.on_hosts, []) AS guests_on,
               list_sort(list_distinct(list_concat([a.volume, a.stored, a.attachment], o.servers))) AS also,
               NULL AS hosts, NULL AS cells, greatest(o.changed, a.server_deleted_at) AS since,
               CASE WHEN a.server_deleted_at > o.changed THEN 'cell:' || a.server_cell ELSE 'cinder:cinder' END AS clock,
               coalesce('a guest has the volume, on ' || array_to_string(q.on_hosts, ', '),
                        'a device of the volume is in use on ' || array_to_string(d.on_hosts, ', '),
                        (SELECT min(z.why) FROM attachment_doubts z WHERE z.attachment = a.attachment)) AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM suspects a
          JOIN others o ON o.attachment = a.attachment
          LEFT JOIN guests q ON q.attachment = a.attachment
          LEFT JOIN devices d ON d.attachment = a.attachment
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "a device of the volume is in use on a host, by its name or by where it is; and one that is not", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state
                             cell1  s-1   c1    1        -9d         deleted
                             cell1  s-2   c1    2        -9d         deleted
                             cell1  s-3   c1    3        -9d         deleted
            cinder_volumes   id   _name_id  status  attach_status  deleted  updated_at
                             v-1  n-1       in-use  attached       false    -9d
                             v-2  -         in-use  attached       false    -9d
                             v-3  -         in-use  attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  places      deleted  created_at  updated_at
                                      a-1  v-1        s-1            c1             c1              attached       [x/1]       false    -30d        -9d
                                      a-2  v-2        s-2            c1             c1              attached       [iqn.a/2]   false    -30d        -9d
                                      a-3  v-3        s-3            c1             c1              attached       [iqn.a/3]   false    -30d        -9d
            block_devices    host  name  kind  state    session   places       volume  slaves  holders  links       mounts   held_by  guests
                             c2    sdb   scsi  running  session1  [iqn.n/1]    n-1     []      []       [/dev/sdb]  [/mnt]   []       []
                             c1    sdc   scsi  running  session2  [iqn.a/2]    -       []      []       [/dev/sdc]  []       [7:dd]   []
                             c1    sdd   scsi  running  session2  [iqn.a/3]    v-3     []      []       [/dev/sdd]  []       []       []
            """,
            finds=("a-1", "a-2", "a-3"),
            plans="delete attachment a-3 (attached) of volume v-3 to server s-3"),
        Scenario(
            "deleted, archived, and while its guest still runs", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state
                             cell1  s-1   c1    1        -3h         deleted
                             cell1  s-3   c1    3        -2d         deleted
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-2   c1    2        -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-3   running  true
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-3   vdb     disk    v-3
            cinder_volumes   id   status    attach_status  deleted  updated_at
                             v-1  in-use    attached       false    -9d
                             v-2  reserved  reserved       false    -9d
                             v-3  in-use    attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            attached       false    -9d
                                      a-2  v-2        s-2            reserved       false    -1h
                                      a-3  v-3        s-3            attached       false    -9d
            """,
            finds=("a-1", "a-2", "a-3"),
            plans="""
            delete attachment a-1 (attached) of volume v-1 to server s-1
            delete attachment a-2 (reserved) of volume v-2 to server s-2
            """),
        Scenario(
            "the server lives, is being deleted, or the attachment or its volume is deleted too", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state  task_state
                             cell1  s-1   c1    0        -           active    -
                             cell1  s-2   c1    0        -           active    deleting
                             cell1  s-3   c1    3        -2d         deleted   -
                             cell1  s-4   c1    4        -2d         deleted   -
                             cell1  s-5   c1    5        -2d         deleted   -
            cinder_volumes   id   status    attach_status  deleted  updated_at
                             v-1  in-use    attached       false    -9d
                             v-2  in-use    attached       false    -9d
                             v-3  available detached       false    -9d
                             v-4  deleted   detached       true     -9d
                             v-5  deleting  attached       false    -9d
                             v-6  in-use    attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            attached       false    -9d
                                      a-2  v-2        s-2            attached       false    -9d
                                      a-3  v-3        s-3            detached       true     -9d
                                      a-4  v-4        s-4            attached       false    -9d
                                      a-5  v-5        s-5            attached       false    -9d
                                      a-6  v-6        -              attached       false    -9d
            """),
    ),
)  # fmt: skip
