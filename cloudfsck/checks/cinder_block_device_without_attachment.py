"""Nova says that the server has a volume, and Cinder has no such attachment.

Why it matters
    The volume counts as free, if it lives: whoever attaches it elsewhere may write to it beside the server.  The server
    does not start again: Nova asks Cinder how to reach the volume, and there is nothing to ask for.
How it comes about
    An attachment or volume was deleted past Nova: with a service token (cinder/volume/api.py:
    attachment_deletion_allowed asks nobody then), by setting the volume to detached, which deletes all its attachments
    (cinder/api/contrib/admin_actions.py), or in the database.  A detach or a delete was interrupted between the two
    services; one of them was restored without the other.
What the repair does
    Where there is nothing that the server could keep, it marks Nova's row as deleted in the cell's database, as Nova
    itself would: the volume is deleted or gone, or was never connected; Cinder has no attachment of it to the server;
    the server does not boot from it; its domain does not have it as a disk, and its host has no device of it; or the
    server is shelved away.  There is no API for that.  Since Nova 28 a hard reboot does the same (nova/compute/
    manager.py: _delete_dangling_bdms).
    Where the volume is to stay, nova-manage makes a new attachment while the server is stopped.  Where it lives and is
    not to stay, a person chooses between the hard reboot and the database.
When not to repair
    By a hard reboot, if the server boots from the volume, or is to keep it: the disk is gone then.  If the server is
    to be deleted: deleting it once more is enough.  While databases are being restored.
"""

from collections.abc import Iterable

from cloudfsck.acts.block_device import Delete
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[Delete]:
    yield Delete.of(row)


def _commands(row: Row) -> list[str]:
    server, volume, cell = row["server"], row["volume"], row["cell"]
    say = [
        f"as an administrator: openstack server volume list {server}",
        "as an administrator: openstack --os-volume-api-version 3.27 volume attachment list --all-projects"
        f" --volume-id {volume}",
    ]
    if row["nova_host"] is not None:
        say.append(f"on {row['nova_host']}: virsh domblklist {server}")
    if row["volume_status"] is not None and row["nova_host"] is not None:
        say += [
            f"on {row['nova_host']}, if the server is to keep the volume: nova-manage volume_attachment get_connector"
            f" --json > {server}.json",
            f"as an administrator, then: openstack server stop {server}",
            f"on a controller, with that file: nova-manage volume_attachment refresh {server} {volume} {server}.json",
            f"as an administrator, then: openstack server start {server}",
        ]
    if row["boot_index"] == 0:
        return say
    attachment = "IS NULL" if row["attachment"] is None else f"= '{row['attachment']}'"
    updated = "IS NULL" if row["updated_at"] is None else f"= '{row['updated_at']}'"
    if row["attachment"] is not None:
        say.append(
            "as an administrator, if it is to lose the volume and Nova is 28 (2023.2) or later:"
            f" openstack server reboot --hard {server}"
        )
    return [
        *say,
        f"on the database server of {cell}, whose database may have another name than nova:"
        f' mysqldump --no-create-info --where="id={row["id"]}" nova block_device_mapping > {server}.{row["id"]}.sql',
        f"in the database of {cell} (MySQL), if it is to lose the volume: START TRANSACTION;"
        f" SELECT * FROM block_device_mapping WHERE id = {row['id']} FOR UPDATE;"
        " UPDATE block_device_mapping SET deleted = id, deleted_at = UTC_TIMESTAMP()"
        f" WHERE id = {row['id']} AND instance_uuid = '{server}' AND volume_id = '{volume}'"
        f" AND attachment_id {attachment} AND deleted = 0 AND updated_at {updated};"
        " SELECT ROW_COUNT() AS must_be_one;",
        "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else",
    ]


CHECK = Check(
    text=__doc__,
    accused=("nova_block_device_mapping",),
    query="""
        SELECT m.server || '/' || m.id AS key, m.server, l.name AS server_name, l.project, m.cell, l.host AS nova_host,
               l.vm_state, m.id, m.device_name, b.boot_index, m.volume, v.name AS volume_name,
               v.status AS volume_status, w.deleted_at AS volume_deleted_at,
               m.attachment, d.deleted_at AS attachment_deleted_at, m.updated_at,
               coalesce(o.attachments, []) AS other_attachments, coalesce(o.servers, []) AS attached_to,
               list_sort(list_distinct(list_concat([m.volume, v.stored, m.attachment], o.attachments, o.servers,
                                                   n.servers))) AS also,
               NULL AS hosts, NULL AS cells,
               greatest(m.changed, d.deleted_at, w.deleted_at) AS since,
               CASE WHEN greatest(d.deleted_at, w.deleted_at) > m.changed THEN 'cinder:cinder'
                    ELSE 'cell:' || m.cell END AS clock,
               CASE WHEN b.boot_index = 0 THEN 'the server boots from it'
                    WHEN a.attachment IS NOT NULL OR list_contains(o.servers, m.server)
                    THEN 'Cinder has an attachment of it to the server'
                    WHEN v.volume IS NOT NULL AND m.connected IS DISTINCT FROM FALSE
                    THEN 'the volume lives, and whether the server is to keep it is for its owner to say'
                    WHEN l.vm_state NOT IN ('active', 'paused', 'stopped')
                         AND (l.vm_state <> 'shelved_offloaded' OR l.host IS NOT NULL)
                    THEN 'the server is ' || l.vm_state
                    WHEN l.vm_state <> 'shelved_offloaded'
                         AND NOT EXISTS (SELECT 1 FROM libvirt_domains g WHERE g.host = l.host AND g.uuid = m.server)
                    THEN 'its host has no domain of the server'
                    WHEN EXISTS (SELECT 1 FROM guest_volumes u
                                  WHERE u.server = m.server AND u.volume = m.volume)
                    THEN 'its domain has the disk'
                    WHEN EXISTS (SELECT 1 FROM volume_devices e
                                  WHERE e.volume = m.volume OR e.volume = w._name_id
                                     OR list_has_any(e.places, m.places))
                    THEN 'a host has a device of the volume' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM server_volumes m
          JOIN nova_block_device_mapping b ON b.cell = m.cell AND b.id = m.id
          JOIN live_servers l ON l.server = m.server AND l.cell = m.cell
          LEFT JOIN live_volumes v ON v.volume = m.volume
          LEFT JOIN live_attachments a ON a.attachment = m.attachment
          LEFT JOIN cinder_volumes w ON w.id = m.volume
          LEFT JOIN cinder_volume_attachment d ON d.id = m.attachment
          LEFT JOIN (SELECT p.volume, list(p.attachment ORDER BY p.attachment) AS attachments,
                            list(p.server ORDER BY p.attachment) AS servers
                       FROM live_attachments p GROUP BY p.volume) o ON o.volume = m.volume
          LEFT JOIN (SELECT s.volume, list(s.server) AS servers FROM server_volumes s GROUP BY s.volume) n
            ON n.volume = m.volume
         WHERE (v.volume IS NULL
                OR (a.attachment IS NULL
                    AND (m.attachment IS NOT NULL OR NOT coalesce(list_contains(o.servers, m.server), FALSE))))
           AND l.launched_at IS NOT NULL
           AND l.vm_state <> 'deleted'
           AND (SELECT count(*) FROM read_parts r
                 WHERE r.table_name IN ('cinder_volumes', 'cinder_volume_attachment')) = 2
           AND NOT EXISTS (SELECT 1 FROM busy_volumes y WHERE y.volume = m.volume)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "the attachment is deleted, or another; the volume is deleted, or purged; one was never attached", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  launched_at  updated_at  deleted
                             cell1  1   s-1   c1    active    -30d         -9d         0
                             cell1  2   s-2   c1    stopped   -30d         -9d         0
                             cell2  3   s-3   c2    active    -30d         -9d         0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell2
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  boot_index  device_name  created_at  updated_at  deleted
                                       cell1  10  s-1            volume            v-1        a-1            0           /dev/vda     -30d        -9d         0
                                       cell1  11  s-1            volume            v-2        a-2            -           /dev/vdb     -30d        -9d         0
                                       cell1  12  s-2            volume            v-3        a-3            -           /dev/vdb     -30d        -9d         0
                                       cell1  13  s-2            volume            v-4        a-4            -           /dev/vdc     -30d        -          0
                                       cell2  10  s-3            volume            v-5        -              -           /dev/vdb     -30d        -9d         0
                                       cell2  11  s-3            volume            v-6        -              -           /dev/vdc     -30d        -9d         0
            cinder_volumes   id   status     attach_status  deleted  deleted_at  updated_at
                             v-1  available  detached       false    -           -2d
                             v-2  in-use     attached       false    -           -9d
                             v-3  deleted    detached       true     -3d         -3d
                             v-5  available  detached       false    -           -9d
                             v-6  in-use     attached       false    -           -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  deleted_at  updated_at
                                      a-1  v-1        s-1            detached       true     -2d         -9d
                                      a-9  v-2        s-1            attached       false    -           -9d
                                      a-3  v-3        s-2            attached       false    -           -9d
                                      a-4  v-4        s-2            attached       false    -           -9d
                                      a-6  v-6        -              attached       false    -           -9d
            """,
            finds=("s-1/10", "s-1/11", "s-2/12", "s-2/13", "s-3/10", "s-3/11")),
        Scenario(
            "there is nothing to keep; or the server boots from it, its owner may want it, or somebody has something of it", """
            hosts cell1      c1 c2
            nova_instances  cell   id  uuid  host  vm_state           launched_at  updated_at  deleted
                            cell1  1   s-1   c1    active             -30d         -9d         0
                            cell1  2   s-2   c1    stopped            -30d         -9d         0
                            cell1  3   s-3   -     shelved_offloaded  -30d         -9d         0
                            cell1  4   s-4   c1    paused             -30d         -9d         0
                            cell1  5   s-5   c1    active             -30d         -9d         0
                            cell1  6   s-6   c1    active             -30d         -9d         0
                            cell1  7   s-7   c1    active             -30d         -9d         0
                            cell1  8   s-8   c1    suspended          -30d         -9d         0
                            cell1  9   s-9   c1    shelved_offloaded  -30d         -9d         0
                            cell1  10  s-10  c1    active             -30d         -9d         0
                            cell1  11  s-11  c1    stopped            -30d         -9d         0
                            cell1  12  s-12  -     shelved_offloaded  -30d         -9d         0
                            cell1  13  s-13  c1    active             -30d         -9d         0
                            cell1  14  s-14  c1    active             -30d         -9d         0
                            cell1  15  s-15  c1    active             -30d         -9d         0
                            cell1  16  s-16  c1    active             -30d         -9d         0
                            cell1  17  s-17  c1    active             -30d         -9d         0
                            cell1  18  s-18  -     shelved_offloaded  -30d         -9d         0
                            cell1  19  s-19  -     suspended          -30d         -9d         0
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  boot_index  device_name  connected  places      created_at  updated_at  deleted
                                       cell1  1   s-1            volume            v-1        a-1            -           /dev/vdb     true       [iqn-1/1]   -30d        -9d         0
                                       cell1  2   s-2            volume            v-2        -              1           -            true       -           -30d        -           0
                                       cell1  3   s-3            volume            v-3        a-3            -           /dev/vdb     true       [iqn-3/1]   -30d        -9d         0
                                       cell1  4   s-4            volume            v-4        a-4            -           /dev/vdb     false      -           -30d        -9d         0
                                       cell1  5   s-5            volume            v-5        a-5            0           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  6   s-6            volume            v-6        a-6            -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  7   s-7            volume            v-7        a-7            -           /dev/vdb     -          -           -30d        -9d         0
                                       cell1  8   s-8            volume            v-8        a-8            -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  9   s-9            volume            v-9        a-9            -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  10  s-10           volume            v-10       a-10           -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  11  s-11           volume            v-11       a-11           -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  12  s-12           volume            v-12       a-12           -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  13  s-13           volume            v-13       a-13           -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  14  s-14           volume            v-14       a-14           -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  15  s-15           volume            v-15       a-15           -           /dev/vdb     true       [iqn-15/1]  -30d        -9d         0
                                       cell1  16  s-16           volume            v-16       a-16           -           /dev/vdb     false      -           -30d        -9d         0
                                       cell1  17  s-17           volume            v-17       a-17           -           /dev/vdb     true       -           -30d        -9d         0
                                       cell1  18  s-18           volume            v-18       a-18           -           /dev/vdb     true       [iqn-18/1]  -30d        -9d         0
                                       cell1  19  s-19           volume            v-19       a-19           -           /dev/vdb     true       [iqn-19/1]  -30d        -9d         0
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   shutoff  true
                             c1    s-4   running  true
                             c1    s-5   running  true
                             c1    s-6   running  true
                             c1    s-7   running  true
                             c1    s-8   running  true
                             c1    s-9   running  true
                             c1    s-11  shutoff  true
                             c1    s-13  running  true
                             c1    s-14  running  true
                             c1    s-15  running  true
                             c1    s-16  running  true
                             c1    s-17  running  true
                             c2    s-10  shutoff  true
                             c2    s-12  shutoff  true
            libvirt_disks  host  uuid  target  device  serial
                           c1    s-11  vdc     disk    v-11
                           c2    s-12  vdc     disk    v-12
                           c2    s-1   vdc     disk    v-1
                           c1    s-4   vdc     disk    v-2
                           c1    s-1   vdd     disk    v-x
            block_devices  host  name  kind  volume  places      guests  mounts  held_by  holders
                           c1    sdb   scsi  v-13    []          []      []      []       []
                           c1    sdc   scsi  n-14    []          []      []      []       []
                           c1    sdd   scsi  -       [iqn-15/1]  []      []      []       []
                           c2    sde   scsi  -       [iqn-18/1]  []      []      []       []
                           c2    sdf   scsi  v-1     [iqn-1/1]   []      []      []       []
            cinder_volumes  id    _name_id  status     attach_status  multiattach  deleted  deleted_at  updated_at
                            v-1   -         deleted    detached       false        true     -3d         -3d
                            v-3   -         deleted    detached       false        true     -3d         -3d
                            v-4   -         available  detached       false        false    -           -3d
                            v-5   -         deleted    detached       false        true     -3d         -3d
                            v-6   -         available  detached       false        false    -           -3d
                            v-7   -         available  detached       false        false    -           -3d
                            v-8   -         deleted    detached       false        true     -3d         -3d
                            v-9   -         deleted    detached       false        true     -3d         -3d
                            v-10  -         deleted    detached       false        true     -3d         -3d
                            v-11  -         deleted    detached       false        true     -3d         -3d
                            v-12  -         deleted    detached       false        true     -3d         -3d
                            v-13  -         deleted    detached       false        true     -3d         -3d
                            v-14  n-14      deleted    detached       false        true     -3d         -3d
                            v-15  -         deleted    detached       false        true     -3d         -3d
                            v-16  -         in-use     attached       false        false    -           -3d
                            v-17  -         deleted    detached       false        true     -3d         -3d
                            v-18  -         deleted    detached       false        true     -3d         -3d
                            v-19  -         deleted    detached       false        true     -3d         -3d
            cinder_volume_attachment  id    volume_id  instance_uuid  attach_status  deleted  deleted_at  updated_at
                                      a-26  v-16       s-16           attached       false    -           -9d
                                      a-17  v-17       -              attached       false    -           -9d
                                      a-1   v-1        s-1            detached       true     -3d         -9d
            """,
            finds=("s-1/1", "s-2/2", "s-3/3", "s-4/4", "s-5/5", "s-6/6", "s-7/7", "s-8/8", "s-9/9",
                   "s-10/10", "s-11/11", "s-12/12", "s-13/13", "s-14/14", "s-15/15", "s-16/16", "s-17/17", "s-18/18", "s-19/19"),
            plans="""
            delete block device 2 of server s-2 in cell1: volume v-2, no attachment, no device name
            delete block device 3 of server s-3 in cell1: volume v-3, attachment a-3, /dev/vdb
            delete block device 4 of server s-4 in cell1: volume v-4, attachment a-4, /dev/vdb
            """),
        Scenario(
            "attached, before Queens too; the server never ran, left, is gone, or going; the volume is busy", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  task_state  launched_at  updated_at  deleted
                             cell1  1   s-1   c1    active    -           -30d         -9d         0
                             cell1  2   s-2   c1    active    -           -30d         -9d         0
                             cell1  3   s-3   -     error     -           -            -9d         0
                             cell1  4   s-4   c1    deleted   -           -30d         -9d         4
                             cell1  5   s-5   c1    deleted   -           -30d         -9d         0
                             cell1  6   s-6   c1    active    deleting    -30d         -9d         0
                             cell1  7   s-7   c1    active    -           -30d         -9d         0
                             cell2  8   s-7   c2    deleted   -           -30d         -9d         8
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  created_at  updated_at  deleted  no_device
                                       cell1  10  s-1            volume            v-1        a-1            -30d        -9d         0        -
                                       cell1  20  s-2            volume            v-2        -              -30d        -9d         0        -
                                       cell1  30  s-3            volume            v-3        a-3            -30d        -9d         0        -
                                       cell1  40  s-4            volume            v-4        a-4            -30d        -9d         0        -
                                       cell1  50  s-5            volume            v-5        a-5            -30d        -9d         0        -
                                       cell1  60  s-6            volume            v-6        a-6            -30d        -9d         0        -
                                       cell1  70  s-7            volume            v-7        a-7            -30d        -9d         0        -
                                       cell1  71  s-7            volume            v-8        a-8            -30d        -9d         71        -
                                       cell1  72  s-7            local             -          -              -30d        -9d         0        -
                                       cell2  73  s-7            volume            v-9        a-9            -30d        -9d         0        -
                                       cell1  74  s-1            volume            -          -              -30d        -9d         0        false
                                       cell1  75  s-1            volume            v-3        a-3            -30d        -9d         0        true
            cinder_volumes   id   status     attach_status  deleted
                             v-1  in-use     attached       false
                             v-2  in-use     attached       false
                             v-3  available  detached       false
                             v-4  available  detached       false
                             v-5  available  detached       false
                             v-6  available  detached       false
                             v-7  retyping   detached       false
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  deleted_at
                                      a-1  v-1        s-1            attached       false    -
                                      a-2  v-2        s-2            attached       false    -
            """),
        Scenario(
            "Cinder's attachments could not be read: that is not told again for each server", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  vm_state  launched_at  updated_at  deleted
                             cell1  1   s-1   c1    active    -30d         -9d         0
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  created_at  deleted
                                       cell1  10  s-1            volume            v-1        a-1            -30d        0
            cinder_volumes   id   status     attach_status  deleted
                             v-1  in-use     attached       false
            lost cinder_volume_attachment cinder
            """),
    ),
)  # fmt: skip
