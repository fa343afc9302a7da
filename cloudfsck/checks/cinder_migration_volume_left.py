"""A volume was made to replace another that is no longer being moved.

Why it matters
    It takes its full size on the backend.  Nobody can use or delete it: Cinder refuses both while its migration_status
    names the other volume (cinder/volume/api.py).
How it comes about
    cinder-volume was killed while it moved or retyped the volume, or could not delete the copy afterwards
    (cinder/volume/manager.py: _migrate_volume_generic, _clean_temporary_volume); or somebody reset the migration_status
    of the volume that moved, or deleted it.
What the repair does
    There is none yet.  Where nothing has it, an administrator takes its migration_status away and deletes it.
When not to repair
    While a server has it, or another volume lies under its name on the backend: when the last step of a move is
    interrupted (cinder/objects/volume.py: finish_volume_migration), the copy is the only one that has the data.
"""

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    volume, source = row["volume"], row["replaces"]
    say = [f"as an administrator: openstack volume show {volume}"]
    if row["source_deleted"] is False:
        say.append(f"as an administrator: openstack volume show {source}")
    say.append(
        "as an administrator: openstack --os-volume-api-version 3.27 volume attachment list --all-projects"
        f" --volume-id {volume}"
    )
    for guest in row["guests"]:
        host, server = guest.split("/")
        say.append(f"on {host}: virsh domblklist {server}")
    if row["attachments"] or row["in_nova"] or row["guests"] or len(row["stored_by"]) > 1:
        return say
    return [
        *say,
        f"on the host of {row['backend'] or 'the backend'}: see in the log of cinder-volume how the move ended",
        f"as an administrator, if {source} is whole: cinder reset-state --state available --reset-migration-status"
        f" {volume}",
        f"as an administrator, then: openstack volume delete {volume}",
    ]


CHECK = Check(
    text=__doc__,
    accused=("cinder_volumes",),
    query="""
        SELECT t.volume AS key, NULL AS server, t.volume, t.name, t.project, t.backend, t.status, t.migration_status,
               t.updated_at, t.replaces, w.status AS source_status, w.migration_status AS source_migration_status,
               w.deleted AS source_deleted, w.updated_at AS source_updated_at,
               coalesce(a.attachments, []) AS attachments, coalesce(a.servers, []) AS attached_to,
               coalesce(list_sort(list_distinct(n.servers)), []) AS in_nova, coalesce(q.guests, []) AS guests,
               t.stored, o.volumes AS stored_by,
               list_sort(list_distinct(list_concat([t.volume, t.stored, t.replaces, s.stored], o.volumes,
                                                   a.servers, n.servers, e.servers, f.servers))) AS also,
               NULL AS hosts, NULL AS cells,
               greatest(t.created_at, t.updated_at, w.updated_at, w.deleted_at) AS since, 'cinder:cinder' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM (SELECT *, split_part(migration_status, ':', 2) AS replaces
                  FROM live_volumes WHERE starts_with(migration_status, 'target:')) t
          LEFT JOIN cinder_volumes w ON w.id = t.replaces
          LEFT JOIN live_volumes s ON s.volume = t.replaces
          LEFT JOIN (SELECT z.stored, list(z.volume ORDER BY z.volume) AS volumes FROM live_volumes z GROUP BY z.stored) o
            ON o.stored = t.stored
          LEFT JOIN (SELECT p.volume, list(p.attachment ORDER BY p.attachment) AS attachments,
                            list(p.server ORDER BY p.attachment) AS servers
                       FROM live_attachments p GROUP BY p.volume) a ON a.volume = t.volume
          LEFT JOIN (SELECT m.volume, list(m.server) AS servers FROM server_volumes m GROUP BY m.volume) n
            ON n.volume = t.volume
          LEFT JOIN (SELECT p.volume, list(p.server) AS servers FROM live_attachments p GROUP BY p.volume) e
            ON e.volume = t.replaces
          LEFT JOIN (SELECT m.volume, list(m.server) AS servers FROM server_volumes m GROUP BY m.volume) f
            ON f.volume = t.replaces
          LEFT JOIN (SELECT u.volume, list(u.host || '/' || u.server ORDER BY u.host, u.server) AS guests
                       FROM guest_volumes u GROUP BY u.volume) q ON q.volume = t.volume
         WHERE NOT EXISTS (SELECT 1 FROM busy_volumes y
                            WHERE y.volume = t.volume AND y.why <> 'its migration_status is ' || t.migration_status)
           AND NOT EXISTS (SELECT 1 FROM busy_volumes y WHERE y.volume = t.replaces)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "the other is deleted, purged, moved, or in error; in use; interrupted at the last step", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  vm_state  updated_at  deleted
                             cell1  1   s-1   c1    active    -9d         0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  created_at  updated_at  deleted
                                       cell1  10  s-1            volume            v-4        a-4            -30d        -9d         0
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-1   vdb     disk    v-14
            cinder_volumes   id    _name_id  status     attach_status  migration_status  deleted  deleted_at  created_at  updated_at
                             v-1   -         deleted    detached       -                 true     -3d         -30d        -9d
                             v-11  -         available  detached       target:v-1        false    -           -9d         -9d
                             v-12  -         available  detached       target:v-2        false    -           -9d         -
                             v-3   -         available  detached       success           false    -           -30d        -2d
                             v-13  -         error      detached       target:v-3        false    -           -9d         -9d
                             v-4   -         in-use     attached       error             false    -           -30d        -9d
                             v-14  -         in-use     attached       target:v-4        false    -           -9d         -9d
                             v-5   v-15      available  detached       -                 false    -           -30d        -9d
                             v-15  -         available  detached       target:v-5        false    -           -9d         -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-4   v-4        s-1            attached       false    -30d
                                      a-14  v-14       s-1            attached       false    -30d
            """,
            finds=("v-11", "v-12", "v-13", "v-14", "v-15")),
        Scenario(
            "it is moving, retyped, being made or deleted; its server is at something; it was moved and is as good", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  vm_state  task_state  updated_at  deleted
                             cell1  1   s-1   c1    active    migrating   -9d         0
            cinder_volumes   id    status     attach_status  migration_status  deleted  updated_at
                             v-1   available  detached       starting          false    -9d
                             v-11  available  detached       target:v-1        false    -9d
                             v-2   in-use     attached       migrating         false    -9d
                             v-12  available  detached       target:v-2        false    -9d
                             v-3   available  detached       completing        false    -9d
                             v-13  available  detached       target:v-3        false    -9d
                             v-4   retyping   detached       -                 false    -9d
                             v-14  available  detached       target:v-4        false    -9d
                             v-15  creating   detached       target:v-5        false    -9d
                             v-16  deleting   detached       target:v-6        false    -9d
                             v-17  available  detached       target:v-7        false    -9d
                             v-8   in-use     attached       error             false    -9d
                             v-18  available  attached       target:v-8        false    -9d
                             v-19  available  detached       target:v-9        true     -9d
                             v-20  available  detached       success           false    -9d
                             v-21  available  detached       -                 false    -9d
            cinder_workers   id  resource_type  resource_id  status    deleted
                             1   Volume         v-17         creating  false
            cinder_volume_attachment  id    volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-2   v-2        -              attached       false    -30d
                                      a-18  v-18       s-1            attached       false    -30d
            """),
    ),
)  # fmt: skip
