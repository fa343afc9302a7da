"""Cinder remembers how a volume was attached, and it is attached to nothing.

Why it matters
    Cinder tells the next server to use the volume in that mode: after `ro` it can only be read there, whatever was asked
    for (cinder/volume/manager.py: initialize_connection, access_mode).  An attachment in another mode may be refused.
How it comes about
    Cinder notes the mode when it attaches (cinder/objects/volume.py: begin_attach) and forgets it when it detaches, in
    another transaction than that of the attachment (finish_detach): cinder-volume died between the two, or somebody
    deleted the attachment in the database.
What the repair does
    There is none: an administrator sets the volume to detached once more, which forgets the mode as well.
When not to repair
    While anything uses the volume: setting it to detached deletes every attachment that it has by then.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    volume = row["volume"]
    yield (
        "as an administrator: openstack --os-volume-api-version 3.27 volume attachment list --all-projects"
        f" --volume-id {volume}"
    )
    yield f"as an administrator, if it has none: openstack volume set --detached {volume}"


CHECK = Check(
    text=__doc__,
    accused=("cinder_volume_admin_metadata",),
    query="""
        SELECT v.volume AS key, NULL AS server, v.volume, v.name, v.project, v.status, v.attach_status, v.updated_at,
               m.value AS attached_mode, m.created_at,
               list_sort(list_distinct([v.volume, v.stored])) AS also,
               [] AS hosts, NULL AS cells,
               greatest(m.created_at, m.updated_at, v.updated_at) AS since, 'cinder:cinder' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM cinder_volume_admin_metadata m
          JOIN live_volumes v ON v.volume = m.volume_id
         WHERE m.key = 'attached_mode'
           AND NOT coalesce(m.deleted, FALSE)
           AND v.status = 'available'
           AND NOT EXISTS (SELECT 1 FROM live_attachments a WHERE a.volume = v.volume)
           AND NOT EXISTS (SELECT 1 FROM server_volumes s WHERE s.volume = v.volume)
           AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = v.volume)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "of a volume that was detached long ago", """
            hosts cell1      c1
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  available  detached       false    -9d
            cinder_volume_admin_metadata  id  volume_id  key            value  deleted  created_at
                                          1   v-1        attached_mode  ro     false    -30d
            """,
            finds=("v-1",)),
        Scenario(
            "it is forgotten; of something else; the volume is attached, or Nova's, in use, busy or gone", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  deleted
                                       cell1  1   s-1            v-4        a-4            volume            0
            cinder_volumes   id   status     attach_status  deleted  migration_status  updated_at
                             v-1  available  detached       false    -                 -9d
                             v-2  available  detached       false    -                 -9d
                             v-3  available  attached       false    -                 -9d
                             v-4  available  detached       false    -                 -9d
                             v-5  in-use     detached       false    -                 -9d
                             v-6  available  detached       false    migrating         -9d
                             v-7  deleted    detached       true     -                 -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted
                                      a-3  v-3        -              attached       false
            cinder_volume_admin_metadata  id  volume_id  key            value  deleted  created_at
                                          1   v-1        attached_mode  rw     true     -30d
                                          2   v-2        readonly       True   false    -30d
                                          3   v-3        attached_mode  rw     false    -30d
                                          4   v-4        attached_mode  rw     false    -30d
                                          5   v-5        attached_mode  rw     false    -30d
                                          6   v-6        attached_mode  rw     false    -30d
                                          7   v-7        attached_mode  rw     false    -30d
            """),
    ),
)  # fmt: skip
