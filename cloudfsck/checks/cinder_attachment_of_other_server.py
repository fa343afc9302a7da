"""A server's volume stands on an attachment that Cinder made for another.

Why it matters
    Nova goes by the attachment's id alone.  When it detaches the volume or deletes the server, it deletes the
    attachment, and takes the disk from another server that runs on it.  When it starts the server, it connects the
    other's volume: data of another owner, or two that write to one disk.
How it comes about
    A row was changed by hand, or one of the databases of Nova and Cinder was restored without the other.  A retype of a
    volume in use was interrupted between the swap of the volumes and that of their attachments
    (cinder/volume/manager.py: migrate_volume_completion).
What the repair does
    There is none, and there will be none: only a person can tell whose disk it is.  Nova's row is given the server's
    own attachment of the volume, if there is just one.
When not to repair
    Before it is known which volume the guest has.  Neither detach the volume nor reboot, move or delete either server
    until then.
"""

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    server, volume, cell, own = row["server"], row["volume"], row["cell"], row["own_attachments"]
    servers = list(dict.fromkeys([server, row["attachment_server"] or server]))
    volumes = list(dict.fromkeys([volume, row["attachment_volume"]]))
    say = [f"as an administrator: openstack server volume list {one}" for one in servers]
    say += [
        "as an administrator: openstack --os-volume-api-version 3.27 volume attachment list --all-projects"
        f" --volume-id {one}"
        for one in volumes
    ]
    if row["nova_host"] is not None:
        say.append(f"on {row['nova_host']}: virsh domblklist {server}")
    if len(own) != 1:
        return say
    updated = "IS NULL" if row["updated_at"] is None else f"= '{row['updated_at']}'"
    return [
        *say,
        f"on the database server of {cell}, whose database may have another name than nova:"
        f' mysqldump --no-create-info --where="id={row["id"]}" nova block_device_mapping > {server}.{row["id"]}.sql',
        f"in the database of {cell} (MySQL), if the guest has volume {volume}: START TRANSACTION;"
        f" SELECT * FROM block_device_mapping WHERE id = {row['id']} FOR UPDATE;"
        f" UPDATE block_device_mapping SET attachment_id = '{own[0]}'"
        f" WHERE id = {row['id']} AND instance_uuid = '{server}' AND volume_id = '{volume}'"
        f" AND attachment_id = '{row['attachment']}' AND deleted = 0 AND updated_at {updated};"
        " SELECT ROW_COUNT() AS must_be_one;",
        "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else",
    ]


CHECK = Check(
    text=__doc__,
    accused=("nova_block_device_mapping",),
    query="""
        SELECT m.server || '/' || m.id AS key, m.server, l.name AS server_name, l.project, m.cell, l.host AS nova_host,
               l.vm_state, m.id, m.device_name, m.volume, m.attachment, m.updated_at,
               a.server AS attachment_server, a.volume AS attachment_volume, a.status AS attach_status,
               coalesce(a.connector_host, a.attached_host) AS connected_to, a.updated_at AS attachment_updated_at,
               coalesce(o.attachments, []) AS own_attachments,
               list_sort(list_distinct(list_concat([m.volume, v.stored, m.attachment, a.server, a.volume],
                                                   o.attachments, q.servers, n.servers, t.servers, u.servers)))
                   AS also,
               [] AS hosts, NULL AS cells,
               greatest(m.changed, a.changed) AS since,
               CASE WHEN a.changed > m.changed THEN 'cinder:cinder' ELSE 'cell:' || m.cell END AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM server_volumes m
          JOIN live_servers l ON l.server = m.server AND l.cell = m.cell
          JOIN live_attachments a ON a.attachment = m.attachment
          LEFT JOIN live_volumes v ON v.volume = m.volume
          LEFT JOIN (SELECT p.volume, p.server, list(p.attachment ORDER BY p.attachment) AS attachments
                       FROM live_attachments p GROUP BY p.volume, p.server) o
            ON o.volume = m.volume AND o.server = m.server
          LEFT JOIN (SELECT p.volume, list(p.server) AS servers FROM live_attachments p GROUP BY p.volume) q
            ON q.volume = m.volume
          LEFT JOIN (SELECT s.volume, list(s.server) AS servers FROM server_volumes s GROUP BY s.volume) n
            ON n.volume = m.volume
          LEFT JOIN (SELECT p.volume, list(p.server) AS servers FROM live_attachments p GROUP BY p.volume) t
            ON t.volume = a.volume
          LEFT JOIN (SELECT s.volume, list(s.server) AS servers FROM server_volumes s GROUP BY s.volume) u
            ON u.volume = a.volume
         WHERE (a.server <> m.server OR a.volume <> m.volume)
           AND NOT EXISTS (SELECT 1 FROM busy_volumes y WHERE y.volume IN (m.volume, a.volume))
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "another server's, or another volume's", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  updated_at  deleted
                             cell1  1   s-1   c1    active    -9d         0
                             cell1  2   s-2   c1    active    -9d         0
                             cell2  3   s-3   c2    active    -9d         0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell2
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  created_at  updated_at  deleted
                                       cell1  10  s-1            volume            v-1        a-2            -30d        -9d         0
                                       cell1  20  s-2            volume            v-2        a-2            -30d        -9d         0
                                       cell2  10  s-3            volume            v-3        a-4            -30d        -           0
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  in-use     attached       false    -30d
                             v-2  in-use     attached       false    -30d
                             v-3  in-use     attached       false    -30d
                             v-4  in-use     attached       false    -30d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  created_at  updated_at
                                      a-1  v-1        s-1            attached       false    -30d        -30d
                                      a-2  v-1        s-2            attached       false    -30d        -30d
                                      a-4  v-4        s-3            attached       false    -30d        -2d
                                      a-5  v-4        s-1            attached       false    -30d        -30d
            """,
            finds=("s-1/10", "s-2/20", "s-3/10")),
        Scenario(
            "its own; one that no server is named for; one of a volume, or a server, that is at something", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  task_state  updated_at  deleted
                             cell1  1   s-1   c1    active    -           -9d         0
                             cell1  2   s-2   c1    active    -           -9d         0
                             cell1  3   s-3   c1    active    -           -9d         0
                             cell1  4   s-4   c1    active    migrating   -9d         0
                             cell1  5   s-5   c1    deleted   -           -9d         5
                             cell1  6   s-6   c1    active    -           -9d         0
                             cell2  6   s-6   c2    deleted   -           -9d         6
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  created_at  updated_at  deleted
                                       cell1  10  s-1            volume            v-1        a-1            -30d        -9d         0
                                       cell1  11  s-1            volume            v-0        a-0            -30d        -9d         0
                                       cell1  20  s-2            volume            v-2        a-3            -30d        -9d         0
                                       cell1  30  s-3            volume            v-4        a-5            -30d        -9d         0
                                       cell1  40  s-4            volume            v-6        a-7            -30d        -9d         0
                                       cell1  50  s-5            volume            v-8        a-9            -30d        -9d         0
                                       cell2  60  s-6            volume            v-8        a-9            -30d        -9d         0
            cinder_volumes   id   status     attach_status  migration_status  deleted
                             v-0  in-use     attached       -                 false
                             v-1  in-use     attached       -                 false
                             v-2  in-use     attached       migrating         false
                             v-3  in-use     attached       target:v-2        false
                             v-4  in-use     attached       -                 false
                             v-5  retyping   attached       -                 false
                             v-6  in-use     attached       -                 false
                             v-8  in-use     attached       -                 false
                             v-9  in-use     attached       -                 false
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted
                                      a-0  v-0        -              attached       false
                                      a-1  v-1        s-1            attached       false
                                      a-3  v-3        s-2            attached       false
                                      a-5  v-5        s-3            attached       false
                                      a-7  v-6        s-2            attached       false
                                      a-9  v-9        s-1            attached       false
            """),
    ),
)  # fmt: skip
