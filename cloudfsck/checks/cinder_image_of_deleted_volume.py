"""Cinder deleted the volume, and its image is left on the backend.

Why it matters
    It takes its size on the backend, and its owner was told that the data is gone.
How it comes about
    Somebody set a volume whose deletion failed to deleted by hand, or deleted its row, because its image was busy or had
    snapshots left (cinder/volume/drivers/rbd.py: delete_volume, ImageBusy); or a move or retype could not delete the
    image that it replaced (cinder/volume/manager.py: _clean_temporary_volume).  Or the volume was unmanaged: Cinder then
    deletes its row and leaves the image to its new owner, under the same name.
What the repair does
    There is none: a volume that was unmanaged looks the same, and its data is somebody's.  A person who knows that it
    is not moves the image into the pool's trash, from which it can be brought back; in a group of LVM's, gives it
    another name.
When not to repair
    If the volume was unmanaged; while volumes are being restored from a backup of Cinder's database; where another
    cloud's Cinder, restored from this one, has its volumes in the same pool.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    pool, image = row["pool"], row["image"]
    yield (
        f"on the host of {row['cinder_host'] or 'the backend'}, whose log says whether it was unmanaged:"
        f" grep -r {row['volume']} /var/log/cinder"
    )
    if row["kind"] == "lvm":
        at = f"on the machine that has the group {pool}"
        yield f"{at}: lvs --options lv_name,lv_size,lv_device_open,origin {pool}"
        yield f"{at}, if it is not open and nothing stands on it: lvrename {pool} {image} deleted_{image}"
        yield f"to take it back: lvrename {pool} deleted_{image} {image}"
        return
    at = "where a key of Ceph's may write"
    yield f"{at}: rbd status {pool}/{image}"
    yield f"{at}: rbd snap ls --all {pool}/{image}"
    yield f"{at}, if it has no watcher: rbd trash mv --expires-at '30 days' {pool}/{image}"
    yield f"to take it back: rbd trash ls {pool} | grep {image}, and rbd trash restore {pool}/ID with the id that stands there"


CHECK = Check(
    text=__doc__,
    accused=("backend_images",),
    query="""
        SELECT i.backend || '/' || i.pool || '/' || i.image AS key, NULL AS server, i.name, i.project, i.volume, i.volumes,
               i.deleted_at, i.host AS cinder_host, i.backend, k.kind, i.pool, i.image,
               u.bytes, u.created_at, u.parent, u.snapshots, i.also,
               [] AS hosts, NULL AS cells, [i.backend] AS backends,
               i.deleted_at AS since, 'cinder:cinder' AS clock, NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM images_of_deleted_volumes i
          JOIN backends k ON k.backend = i.backend
          LEFT JOIN backend_image_uses u ON u.backend = i.backend AND u.pool = i.pool AND u.name = i.image
         WHERE NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE list_contains(i.also, b.volume))
           AND NOT EXISTS (SELECT 1 FROM live_attachments a WHERE list_contains(i.also, a.volume))
           AND NOT EXISTS (SELECT 1 FROM server_volumes m WHERE list_contains(i.also, m.volume))
           AND NOT EXISTS (SELECT 1 FROM live_volumes l
                            WHERE list_contains(i.also, split_part(l.migration_status, 'target:', 2)))
           AND coalesce(len(u.watchers), 0) = 0
           AND coalesce(len(u.children), 0) = 0
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "its row was deleted by hand; it was moved before, and its first row is purged or not", """
            cinder_volumes   id   _name_id  host        status     deleted  deleted_at  updated_at
                             v-1  -         h@ceph#p    deleted    true     -9d         -9d
                             v-2  v-12      h@ceph#p    deleted    true     -9d         -9d
                             v-3  v-13      h@ceph#p    deleted    true     -3d         -9d
                             v-13 -         h@ceph#p    deleted    true     -9d         -9d
                             v-4  -         h@ceph#p    available  false    -           -9d
                             v-5  -         h@ceph#p    deleted    true     -9d         -9d
                             v-6  -         h@ceph#p    available  false    -           -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-6  v-6        s-6            attached       false    -9d
            backends         backend  kind  pools      listed  volumes
                             ceph     rbd   [volumes]  5       4
                             lvm      lvm   [group]    1       1
            backend_images   backend  pool     name         volume  trash
                             ceph     volumes  volume-v-1   v-1     -
                             ceph     volumes  volume-v-12  v-12    -
                             ceph     volumes  volume-v-13  v-13    -
                             ceph     volumes  volume-v-4   v-4     -
                             ceph     volumes  volume-v-5   v-5     a1b2
                             lvm      group    volume-v-5   v-5     -
            backend_image_uses  backend  pool     name         volume  bytes  snapshots  children  watchers
                                ceph     volumes  volume-v-1   v-1     4096   [left]     []        []
                                ceph     volumes  volume-v-12  v-12    4096   []         []        []
                                ceph     volumes  volume-v-13  v-13    4096   []         []        []
                                lvm      group    volume-v-5   v-5     4096   []         []        []
                                lvm      volumes  volume-v-1   v-1     8192   []         []        []
                                ceph     group    volume-v-1   v-1     8192   []         []        []
                                ceph     group    volume-v-5   v-5     8192   []         []        []
            """,
            finds=("ceph/volumes/volume-v-1", "ceph/volumes/volume-v-12", "ceph/volumes/volume-v-13",
                   "lvm/group/volume-v-5")),
        Scenario(
            "in use, cloned, another's by its _name_id, moving, attached, known to Nova, never Cinder's", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  destination_type  deleted
                                       cell1  1   s-1            v-6        volume            0
            cinder_volumes   id   _name_id  status     deleted  deleted_at  migration_status
                             v-1  -         deleted    true     -9d         -
                             v-2  -         deleted    true     -9d         -
                             v-3  -         deleted    true     -9d         -
                             v-9  v-3       available  false    -           success
                             v-4  -         deleted    true     -9d         -
                             v-5  -         deleted    true     -9d         -
                             v-6  -         deleted    true     -9d         -
                             v-8  -         deleted    true     -9d         -
                             v-10 -         available  false    -           target:v-8
            cinder_workers   id  resource_type  resource_id  status    deleted
                             1   Volume         v-4          deleting  false
            cinder_volume_attachment  id   volume_id  attached_host  attach_status  deleted
                                      a-5  v-5        ctl1           attaching      false
            backends         backend  kind  pools      listed  volumes
                             ceph     rbd   [volumes]  9       9
            backend_images   backend  pool     name        volume
                             ceph     volumes  volume-v-1  v-1
                             ceph     volumes  volume-v-2  v-2
                             ceph     volumes  volume-v-3  v-3
                             ceph     volumes  volume-v-4  v-4
                             ceph     volumes  volume-v-5  v-5
                             ceph     volumes  volume-v-6  v-6
                             ceph     volumes  volume-v-7  v-7
                             ceph     volumes  volume-v-8  v-8
            backend_image_uses  backend  pool     name        volume  bytes  snapshots  children             watchers
                                ceph     volumes  volume-v-1  v-1     4096   []         []                   [10.0.0.1:0/7]
                                ceph     volumes  volume-v-2  v-2     4096   [s]        [volumes/volume-v-9] []
                                ceph     volumes  volume-v-4  v-4     4096   []         []                   []
                                ceph     volumes  volume-v-5  v-5     4096   []         []                   []
                                ceph     volumes  volume-v-6  v-6     4096   []         []                   []
                                ceph     volumes  volume-v-8  v-8     4096   []         []                   []
            """),
    ),
)  # fmt: skip
