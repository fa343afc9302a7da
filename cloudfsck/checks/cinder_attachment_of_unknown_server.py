"""Cinder has an attachment of a server that Nova does not know.

Why it matters
    The owner can neither attach the volume elsewhere nor delete it: Cinder says that it is in use, or reserved.
How it comes about
    The server was deleted without its attachment, archived, and then `nova-manage db purge` removed its last row; or a
    build failed before Nova had a row of it (nova/compute/api.py reserves the volumes first).  Or the server was never
    this Nova's: another Nova, or a bare-metal service by itself, uses the same Cinder (`traces` says what this Nova
    still has of it).  Or Nova's databases were restored from a backup that is older than the server.
What the repair does
    Where this Nova still has a trace of the server, it was this Nova's, and is purged: the attachment is deleted through
    Cinder's API, as an administrator and without a service token.  It cannot be undone.  Without a trace nobody can prove
    whose the server was: Cinder asks only the Nova that it is configured with, hears that the server is not there, and
    deletes the attachment whosever it is (cinder/volume/api.py: attachment_deletion_allowed).  So there a person looks
    first who has the volume.
When not to repair
    While a guest has the volume as a disk, on any host of any cloud.  While another Nova, or a bare-metal service, uses
    this Cinder and has not been asked.  After a database was restored: every server made since the backup looks like
    this, and is needed.
"""

from collections.abc import Iterable

from cloudfsck.acts import attachment
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[attachment.Delete]:
    yield attachment.Delete.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack volume show {row['volume']}"
    yield f"as an administrator: openstack project show {row['project']}"
    yield f"as an administrator of each Nova that uses this Cinder: openstack server show {row['server']}"
    yield f"as an administrator, if there is bare metal: openstack baremetal node list --instance-uuid {row['server']}"
    yield f"as an administrator, if there is bare metal: openstack baremetal node show {row['server']}"
    for host in row["guests_on"]:
        yield (
            f"on {host}: for d in $(virsh list --all --uuid); do"
            f" virsh dumpxml $d | grep -q {row['volume']} && echo $d; done"
        )
    if row["connected_to"] is not None and row["connected_to"] not in row["guests_on"]:
        yield f"on {row['connected_to']}: virsh dumpxml {row['server']} | grep -E '<(source|serial|alias)'"
    yield (
        "as an administrator, without a service token, if nobody has it:"
        f" openstack --os-volume-api-version 3.27 volume attachment delete {row['attachment']}"
    )


CHECK = Check(
    text=__doc__,
    accused=("cinder_volume_attachment",),
    query="""
        WITH suspects AS (
            SELECT a.*, t.attach_time, v.stored, v.name AS volume_name, v.project, v.status AS volume_status,
                   v.updated_at AS volume_updated_at
              FROM live_attachments a
              JOIN cinder_volume_attachment t ON t.id = a.attachment
              JOIN live_volumes v ON v.volume = a.volume
             WHERE a.server IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM known_servers k WHERE k.server = a.server)
               AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = a.volume)),
        others AS (
            SELECT a.attachment, list(DISTINCT x.server ORDER BY x.server) AS servers, max(x.changed) AS changed
              FROM suspects a
              JOIN live_attachments x ON x.volume = a.volume
             GROUP BY a.attachment),
        known AS (
            SELECT a.attachment, list(DISTINCT r.trace ORDER BY r.trace) AS traces
              FROM suspects a
              JOIN traces_of_servers r ON r.server = a.server
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
        SELECT a.attachment AS key, a.server, coalesce(k.traces, []) AS traces,
               a.volume, a.volume_name, a.project, a.volume_status, a.volume_updated_at, o.servers AS volume_servers,
               a.attachment, a.status AS attach_status, coalesce(a.connector_host, a.attached_host) AS connected_to,
               a.attach_time AS attached_at, a.updated_at, coalesce(g.on_hosts, []) AS guests_on,
               list_sort(list_distinct(list_concat([a.volume, a.stored, a.attachment], o.servers))) AS also,
               NULL AS hosts, NULL AS cells, o.changed AS since, 'cinder:cinder' AS clock,
               coalesce('a guest has the volume, on ' || array_to_string(g.on_hosts, ', '),
                        'a device of the volume is in use on ' || array_to_string(d.on_hosts, ', '),
                        (SELECT min(z.why) FROM attachment_doubts z WHERE z.attachment = a.attachment),
                        CASE WHEN k.traces IS NULL THEN 'nothing says that the server was ever this Nova''s' END)
                   AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM suspects a
          JOIN others o ON o.attachment = a.attachment
          LEFT JOIN known k ON k.attachment = a.attachment
          LEFT JOIN guests g ON g.attachment = a.attachment
          LEFT JOIN devices d ON d.attachment = a.attachment
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "a device of the volume is in use on a host, by its name or by where it is; and one that is not", """
            hosts cell1      c1 c2
            nova_migrations  cell   id  instance_uuid  status
                             cell1  1   s-1            completed
                             cell1  2   s-2            completed
                             cell1  3   s-3            completed
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
            "purged, never built, of another Nova, of two at once, and while a guest has the volume", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-9   c1    0        active
            nova_migrations  cell   id  instance_uuid  status
                             cell1  1   s-1            completed
                             cell1  2   s-9            completed
                             cell1  3   s-4            completed
            libvirt_domains  host  uuid  state    nova
                             c1    s-4   running  true
                             c2    s-4   running  true
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-4   vdb     disk    v-4
                             c2    s-4   vdb     disk    v-4
            cinder_volumes   id   status    attach_status  multiattach  deleted  updated_at
                             v-1  in-use    attached       false        false    -9d
                             v-2  reserved  reserved       false        false    -9d
                             v-3  in-use    attached       true         false    -9d
                             v-4  in-use    attached       false        false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  deleted  created_at  updated_at
                                      a-1  v-1        s-1            c1             c1              attached       false    -30d        -9d
                                      a-2  v-2        s-2            -              -               reserved       false    -9d         -
                                      a-3  v-3        s-3            c2             -               attached       false    -30d        -9d
                                      a-5  v-3        s-5            x9             x9              attached       false    -30d        -9d
                                      a-4  v-4        s-4            c1             c1              attached       false    -30d        -9d
            """,
            finds=("a-1", "a-2", "a-3", "a-4", "a-5"),
            plans="delete attachment a-1 (attached) of volume v-1 to server s-1"),
        Scenario(
            "Nova has a row of it, live, deleted or archived, a mapping, or a request to build it", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state
                             cell1  s-1   c1    0        -           active
                             cell1  s-2   c1    2        -9d         deleted
            nova_shadow_instances   cell   uuid  host  deleted  deleted_at
                                    cell1  s-3   c1    3        -9d
            nova_instance_mappings  id  instance_uuid  cell_id
                                    4   s-4            cell1
            nova_build_requests     id  instance_uuid
                                    5   s-5
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted
                                       cell1  1   s-1            v-1        a-1            volume            true       0
            cinder_volumes   id   status    attach_status  deleted  updated_at
                             v-1  in-use    attached       false    -9d
                             v-2  in-use    attached       false    -9d
                             v-3  in-use    attached       false    -9d
                             v-4  in-use    attached       false    -9d
                             v-5  reserved  reserved       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            attached       false    -9d
                                      a-2  v-2        s-2            attached       false    -9d
                                      a-3  v-3        s-3            attached       false    -9d
                                      a-4  v-4        s-4            attached       false    -9d
                                      a-5  v-5        s-5            reserved       false    -9d
            """),
        Scenario(
            "no server has it, the attachment or its volume is deleted, or Cinder is at the volume", """
            hosts cell1      c1
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  in-use     attached       false    -9d
                             v-2  available  detached       false    -9d
                             v-3  deleted    attached       true     -9d
                             v-4  deleting   attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  attach_status  deleted  updated_at
                                      a-1  v-1        -              c1             attached       false    -9d
                                      a-2  v-2        s-2            c1             detached       true     -9d
                                      a-3  v-3        s-3            c1             attached       false    -9d
                                      a-4  v-4        s-4            c1             attached       false    -9d
            """),
    ),
)  # fmt: skip
