"""Cinder deleted the volume, and still has an attachment of it.

Why it matters
    Nothing of Cinder's removes the attachment any more: its API does not find the volume, and answers 404.  The backend
    may still export what is left of the volume, and a server may still have it as a disk.
How it comes about
    The volume's row was deleted by hand; or the attachment was made or written again while the volume was deleted (bug
    1937084 is such a race): Cinder deletes a volume and its attachments together (cinder/db/api.py: volume_destroy), and
    nothing looks at them later.
What the repair does
    There is none: only the database has it.  A person looks whether a guest or the backend still has the volume.  If so,
    it is the volume's row that is wrong, and is brought back.  If not, the row of the attachment is deleted in Cinder's
    database as Cinder would have.
When not to repair
    By deleting the attachment's row, while a guest has the volume as a disk: its data may be all that is left of it.
    By bringing back the volume's row, if the backend has nothing of it any more.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    attachment, volume, server = row["attachment"], row["volume"], row["server"]
    if server is not None:
        yield f"as an administrator: openstack server volume list {server}"
    for host in dict.fromkeys(filter(None, (row["server_host"], row["connected_to"]))):
        look = "lsblk --output NAME,WWN,SERIAL,MOUNTPOINT"
        if server is not None:
            look = f"virsh dumpxml {server} | grep -E '<(source|serial|alias)'"
        yield f"on {host}: {look}"
    said = {"instance_uuid": server, "attach_status": row["attach_status"], "updated_at": row["updated_at"]}
    was = " AND ".join(f"{name} IS NULL" if value is None else f"{name} = '{value}'" for name, value in said.items())
    yield (
        "on the database server of Cinder, whose database may have another name than cinder (the file holds passwords):"
        f" mysqldump --no-create-info --where=\"id='{attachment}'\" cinder volume_attachment > {attachment}.sql"
    )
    yield (
        "in the database of Cinder (MySQL), if no guest has it: START TRANSACTION;"
        f" SELECT deleted, deleted_at, status FROM volumes WHERE id = '{volume}' FOR UPDATE;"
        " UPDATE volume_attachment SET deleted = 1, deleted_at = UTC_TIMESTAMP(), detach_time = UTC_TIMESTAMP(),"
        f" attach_status = 'detached' WHERE id = '{attachment}' AND deleted = 0 AND volume_id = '{volume}' AND {was}"
        f" AND EXISTS (SELECT 1 FROM volumes WHERE id = '{volume}' AND deleted = 1);"
        " SELECT ROW_COUNT() AS must_be_one;"
    )
    status = "in-use" if row["attach_status"] == "attached" else row["attach_status"]
    if not status.startswith("error_"):
        yield (
            "in the database of Cinder (MySQL), if the backend still has the volume, and it is to live: START TRANSACTION;"
            " UPDATE volumes SET deleted = 0, deleted_at = NULL, terminated_at = NULL,"
            f" status = '{status}', attach_status = '{row['attach_status']}'"
            f" WHERE id = '{volume}' AND deleted = 1 AND deleted_at = '{row['volume_deleted_at']}';"
            " SELECT ROW_COUNT() AS must_be_one;"
        )
    yield "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else"


CHECK = Check(
    text=__doc__,
    accused=("cinder_volume_attachment",),
    query="""
        WITH suspects AS (
            SELECT a.*, v._name_id, v.display_name AS volume_name, v.project_id AS project, v.host AS backend,
                   v.deleted_at AS volume_deleted_at
              FROM live_attachments a
              JOIN cinder_volumes v ON v.id = a.volume AND v.deleted
             WHERE NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = a.volume)),
        others AS (
            SELECT a.attachment, list(DISTINCT x.server ORDER BY x.server) AS servers, max(x.changed) AS changed
              FROM suspects a
              JOIN live_attachments x ON x.volume = a.volume
             GROUP BY a.attachment),
        has AS (
            SELECT a.attachment, list(b.device_name ORDER BY b.device_name) AS devices, max(b.changed) AS changed,
                   any_value(b.cell) AS cell
              FROM suspects a
              JOIN server_volumes b ON b.server = a.server AND b.volume = a.volume
             GROUP BY a.attachment)
        SELECT a.attachment AS key, a.server, s.name AS server_name, s.host AS server_host, s.vm_state,
               coalesce(n.devices, []) AS nova_has,
               a.volume, a.volume_name, a.project, a.backend, a.volume_deleted_at, o.servers AS volume_servers,
               a.attachment, a.status AS attach_status, coalesce(a.connector_host, a.attached_host) AS connected_to,
               a.updated_at,
               list_sort(list_distinct(list_concat([a.volume, a._name_id, a.attachment], o.servers))) AS also,
               [] AS hosts, NULL AS cells,
               greatest(o.changed, a.volume_deleted_at, n.changed) AS since,
               CASE WHEN n.changed > greatest(o.changed, a.volume_deleted_at) THEN 'cell:' || n.cell
                    ELSE 'cinder:cinder' END AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM suspects a
          JOIN others o ON o.attachment = a.attachment
          LEFT JOIN has n ON n.attachment = a.attachment
          LEFT JOIN live_servers s ON s.server = a.server
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "its server lives and still has it, or lives, or is gone; or a host had it", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state
                             cell1  s-1   c1    0        -           active
                             cell1  s-2   c1    0        -           stopped
                             cell1  s-3   c1    3        -9d         deleted
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  device_name  destination_type  connected  deleted  updated_at
                                       cell1  1   s-1            v-1        a-1            /dev/vdb     volume            true       0        -8d
                                       cell1  2   s-1            v-5        a-5            /dev/vdc     volume            true       0        -2d
                                       cell1  3   s-2            v-1        a-9            /dev/vdb     volume            true       0        -2d
            cinder_volumes   id   _name_id  status   attach_status  deleted  deleted_at  updated_at
                             v-1  n-1       deleted  attached       true     -9d         -9d
                             v-2  -         deleted  detached       true     -9d         -9d
                             v-3  -         deleted  attached       true     -9d         -9d
                             v-4  -         deleted  attaching      true     -3h         -9d
                             v-5  -         in-use   attached       false    -           -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status    deleted  updated_at
                                      a-1  v-1        s-1            c1             c1              attached         false    -9d
                                      a-2  v-2        s-2            c1             c1              error_attaching  false    -
                                      a-3  v-3        s-3            c1             -               attached         false    -9d
                                      a-4  v-4        -              ctl1           -               attaching        false    -9d
                                      a-5  v-5        s-1            c1             c1              attached         false    -9d
            """,
            finds=("a-1", "a-2", "a-3", "a-4")),
        Scenario(
            "the volume lives, the attachment is deleted too, or its server is being deleted", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  vm_state  task_state
                             cell1  s-1   c1    0        active    -
                             cell1  s-3   c1    0        active    deleting
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted
                                       cell1  1   s-1            v-1        a-1            volume            true       0
            cinder_volumes   id   status   attach_status  deleted  deleted_at  updated_at
                             v-1  in-use   attached       false    -           -9d
                             v-2  deleted  detached       true     -9d         -9d
                             v-3  deleted  attached       true     -9d         -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            c1             attached       false    -9d
                                      a-2  v-2        s-1            c1             detached       true     -9d
                                      a-3  v-3        s-3            c1             attached       false    -9d
            """),
    ),
)  # fmt: skip
