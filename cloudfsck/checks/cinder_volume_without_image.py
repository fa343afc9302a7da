"""A volume lives, and its storage backend has no image of it.

Why it matters
    Its data is lost, or lies where Cinder does not look.  A server that has it does not start again.
How it comes about
    Somebody removed the image on the backend, or moved it into the trash; a pool was restored from a backup, or Cinder's
    database was, to a day on which the volume was still there (then many are found at once); or cinder-volume was killed
    while it moved the volume.
What the repair does
    There is none.  A person looks in the trash, on the backends that the volume had before, and in backups.
When not to repair
    Before the data was looked for nobody deletes the volume or its row, and nobody resets its state.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    volume = row["volume"]
    yield f"as an administrator: openstack volume show {volume}"
    yield f"as an administrator: openstack volume backup list --all-projects --volume {volume}"
    for place in row["in_trash"]:
        yield f"where a key of Ceph's may write, if Cinder did not put it there: rbd trash restore {place}"
    yield f"on the host of {row['cinder_host']}: grep -r {row['stored']} /var/log/cinder"


CHECK = Check(
    text=__doc__,
    accused=("cinder_volumes",),
    query="""
        SELECT v.volume AS key, NULL AS server, v.name, v.project, v.volume, v.stored, v.backend AS cinder_host, v.status,
               v.attach_status, v.migration_status, v.created_at, v.updated_at, v.listing, coalesce(a.servers, []) AS attached_to,
               coalesce(x.places, []) AS in_trash,
               list_sort(list_distinct(list_concat([v.volume, v.stored], a.servers))) AS also,
               [] AS hosts, NULL AS cells,
               (SELECT list(c.part ORDER BY c.part) FROM clocks c WHERE c.table_name = 'backend_images') AS backends,
               NULL AS since, NULL AS clock, NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM (SELECT l.*, list(k.backend ORDER BY k.backend) AS listing
                  FROM live_volumes l
                  JOIN backends k ON k.cinder = split_part(l.backend, '#', 1)
                                  OR k.cinder = split_part(split_part(l.backend, '#', 1), '@', 2)
                  JOIN read_parts r ON r.table_name = 'backend_images' AND r.part = k.backend
                 WHERE k.volumes > 0
                   AND l.status IN ('available', 'in-use', 'reserved')
                 GROUP BY ALL) v
          LEFT JOIN (SELECT p.volume, list(p.server ORDER BY p.attachment) AS servers
                       FROM live_attachments p GROUP BY p.volume) a ON a.volume = v.volume
          LEFT JOIN (SELECT t.volume, list(t.pool || '/' || t.trash ORDER BY t.pool, t.trash) AS places
                       FROM backend_images t GROUP BY t.volume) x ON x.volume = v.stored
         WHERE NOT EXISTS (SELECT 1 FROM backend_images i WHERE i.volume = v.stored AND i.trash IS NULL)
           AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = v.volume)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "removed on the backend, or in its trash; of one host's backend or of any host's; moved", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        stopped
            cinder_volumes   id   _name_id  host           status     attach_status  deleted  updated_at
                             v-1  -         c1@ceph#ceph   available  detached       false    -9d
                             v-2  -         c2@ceph#ceph   in-use     attached       false    -9d
                             v-3  v-13      c1@ceph#ceph   reserved   reserved       false    -9d
                             v-4  -         c1@lvm#lvm     available  detached       false    -9d
                             v-5  -         c1@ceph#ceph   available  detached       false    -9d
                             v-6  v-16      c1@ceph#ceph   available  detached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-2  v-2        s-1            attached       false    -9d
            backends         backend  kind  pools      cinder  listed  volumes
                             b-1      rbd   [volumes]  ceph    4       3
                             b-2      lvm   [group]    c1@lvm  1       1
            backend_images   backend  pool     name         volume  trash
                             b-1      volumes  volume-v-2   v-2     a1b2
                             b-1      volumes  volume-v-3   v-3     -
                             b-1      volumes  volume-v-5   v-5     -
                             b-1      volumes  volume-v-16  v-16    -
                             b-2      group    volume-v-9   v-9     -
            """,
            finds=("v-1", "v-2", "v-3", "v-4")),
        Scenario(
            "kept elsewhere: no listing is tied to its backend; deleted, moving, in error; nothing is listed at all", """
            cinder_volumes   id   host          status     migration_status  deleted
                             v-1  c1@netapp#a   available  -                 false
                             v-2  c2@lvm#lvm    available  -                 false
                             v-3  c1@ceph#ceph  deleted    -                 true
                             v-4  c1@ceph#ceph  available  migrating         false
                             v-5  c1@ceph#ceph  error      -                 false
                             v-6  -             available  -                 false
                             v-7  c1@new#new    available  -                 false
                             v-8  c1@ceph#ceph  available  -                 false
                             v-9  c1@none#n     available  -                 false
            backends         backend  kind  pools      cinder  listed  volumes
                             b-1      rbd   [volumes]  ceph    1       1
                             b-2      lvm   [group]    c1@lvm  1       1
                             b-3      rbd   [new]      new     0       0
                             b-4      rbd   [vms]      -       1       1
            backend_images   backend  pool     name         volume
                             b-4      vms      volume-v-8   v-8
            """),
        Scenario(
            "a listing that could not be read, though its place is known: nothing of it is called missing", """
            lost             backend_images  b-1
            cinder_volumes   id   host          status     deleted
                             v-1  c1@ceph#ceph  available  false
            backends         backend  kind  pools      cinder  listed  volumes
                             b-1      rbd   [volumes]  ceph    1       1
            """),
    ),
)  # fmt: skip
