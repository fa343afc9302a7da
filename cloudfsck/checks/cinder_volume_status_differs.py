"""What Cinder says of a volume is not what follows from its attachments.

Why it matters
    The owner can neither attach, detach nor delete a volume that counts as in-use, reserved or detaching for nobody.
    One that counts as available while a server has it may be given to a second one, and both write to it.
How it comes about
    A person reset the state; an attach or a detach was interrupted; the server was deleted while the volume was backed
    up, and the backup then put in-use back (cinder/backup/manager.py: _finish_backup); a database was restored.
    Cinder itself derives both words from the attachments whenever one is deleted (cinder/db/api.py:
    _get_statuses_from_attachments): attached before attaching, detaching, reserved; those in error count for nothing.
What the repair does
    Where there is no attachment at all, and neither Nova nor a guest has the volume, it sets the state through Cinder's
    API as an administrator: a change of Cinder's database and no more.  To set a volume to detached deletes all its
    attachments and tells neither the backend nor Nova (cinder/api/contrib/admin_actions.py), even one that was made in
    this moment: so a volume that could be attached just now is left to a person.  Where there are attachments, to delete
    or complete one sets the state anew.
When not to repair
    While a server has the volume by Nova's or libvirt's word and no attachment says so: mend that first.  While the
    volume is being attached, detached, moved or backed up.
"""

from collections.abc import Iterable

from cloudfsck.acts import attachment
from cloudfsck.acts.attachment import ResetStatus
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[ResetStatus]:
    yield ResetStatus(
        row["volume"], row["status"], row["attach_status"], row["should_be"], row["attach_status_should_be"],
        attachment.second(row["updated_at"]),
    )  # fmt: skip


def _commands(row: Row) -> list[str]:
    volume = row["volume"]
    say = [
        f"as an administrator: openstack volume show {volume}",
        "as an administrator: openstack --os-volume-api-version 3.27 volume attachment list --all-projects"
        f" --volume-id {volume}",
        f"here, after a whole reading: cloudfsck sql \"SELECT host, server FROM guest_volumes WHERE volume = '{volume}'\"",
    ]
    say += [f"as an administrator: openstack server volume list {server}" for server in row["in_nova"]]
    if row["should_be"] == "in-use":
        state = f"openstack volume set --state in-use --attached {volume}"
        return [*say, f"as an administrator, if the server has it and nothing is being done with it: {state}"]
    if row["should_be"] != "available":
        state = f"cinder reset-state --state {row['should_be']} {volume}"
        say.append(f"as an administrator, if what it is {row['should_be']} for still goes on: {state}")
    if row["in_nova"]:
        return say
    if row["attachments"]:
        delete = "openstack --os-volume-api-version 3.27 volume attachment delete"
        return [
            *say,
            *(
                f"as an administrator, without a service token, if nobody is at it: {delete} {attachment}"
                for attachment in row["attachments"]
            ),
        ]
    free = [f"openstack volume set --state available {volume}"]
    if row["attach_status"] != "detached":
        free.insert(0, f"openstack volume set --detached {volume}")
    return [*say, *(f"as an administrator, if no guest has it and there is no attachment: {each}" for each in free)]


CHECK = Check(
    text=__doc__,
    accused=("cinder_volumes",),
    query="""
        WITH every AS (
            SELECT v.volume, v.stored, v.name, v.project, v.status, v.attach_status, v.migration_status, v.multiattach,
                   v.created_at, v.updated_at, coalesce(a.attachments, []) AS attachments,
                   coalesce(a.servers, []) AS servers, coalesce(a.statuses, []) AS statuses,
                   coalesce(a.derived, 'detached') AS attach_status_should_be,
                   CASE attach_status_should_be WHEN 'attached' THEN 'in-use' WHEN 'detached' THEN 'available'
                        ELSE attach_status_should_be END AS should_be
              FROM live_volumes v
              LEFT JOIN (SELECT p.volume, list(p.attachment ORDER BY p.attachment) AS attachments,
                                list(p.server ORDER BY p.attachment) AS servers,
                                list(p.status ORDER BY p.attachment) AS statuses,
                                min(p.status) FILTER (NOT starts_with(p.status, 'error_')) AS derived
                           FROM live_attachments p GROUP BY p.volume) a ON a.volume = v.volume)
        SELECT v.volume AS key, NULL AS server, v.volume, v.name, v.project, v.status, v.should_be, v.attach_status,
               v.attach_status_should_be, v.migration_status, v.multiattach, v.updated_at,
               v.attachments, v.servers AS attached_to, v.statuses AS attachments_are,
               coalesce(list_sort(list_distinct(n.servers)), []) AS in_nova,
               list_sort(list_distinct(list_concat([v.volume, v.stored], v.attachments, v.servers, n.servers))) AS also,
               coalesce(g.hosts, []) AS guests_on,
               NULL AS hosts, NULL AS cells,
               greatest(v.created_at, v.updated_at, w.changed) AS since, 'cinder:cinder' AS clock,
               CASE WHEN v.attachments <> []
                    THEN 'it has attachments: to delete or complete one of them sets the state anew'
                    WHEN n.servers IS NOT NULL THEN 'Nova gives it to a server, and no attachment says so'
                    WHEN g.hosts IS NOT NULL THEN 'a guest has it, on ' || array_to_string(g.hosts, ', ')
                    WHEN EXISTS (SELECT 1 FROM volume_devices e WHERE e.volume = v.stored AND e.used)
                    THEN 'a device of it is in use'
                    WHEN v.status = 'available' OR (v.status = 'in-use' AND v.multiattach)
                    THEN 'somebody may attach it in this moment, and to set its state would undo that' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM every v
          LEFT JOIN (SELECT p.volume_id AS volume, max(greatest(p.created_at, p.updated_at, p.deleted_at)) AS changed
                       FROM cinder_volume_attachment p GROUP BY p.volume_id) w ON w.volume = v.volume
          LEFT JOIN (SELECT s.volume, list(s.server) AS servers FROM server_volumes s GROUP BY s.volume) n
            ON n.volume = v.volume
          LEFT JOIN (SELECT u.volume, list(DISTINCT u.host ORDER BY u.host) AS hosts FROM guest_volumes u
                      GROUP BY u.volume) g ON g.volume = v.volume
         WHERE v.status IN ('available', 'in-use', 'reserved', 'attaching', 'detaching', 'error_attaching',
                            'error_detaching')
           AND ((v.status <> v.should_be
                 AND NOT (v.status IN ('reserved', 'attaching') AND list_contains(v.statuses, v.status))
                 AND NOT (v.status = 'detaching'
                          AND EXISTS (SELECT 1 FROM live_attachments x
                                       WHERE list_contains(v.servers, x.server) AND x.volume <> v.volume
                                         AND x.status IN ('reserved', 'attaching'))))
                OR (v.attach_status <> v.attach_status_should_be
                    AND NOT (v.attach_status = 'detached' AND v.attach_status_should_be = 'reserved')
                    AND NOT (v.attach_status = 'attaching' AND list_contains(v.statuses, 'attaching'))))
           AND (SELECT count(*) FROM read_parts r WHERE r.table_name = 'cinder_volume_attachment') = 1
           AND NOT EXISTS (SELECT 1 FROM busy_volumes y WHERE y.volume = v.volume)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "reset by hand, left by a backup, interrupted", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  vm_state  updated_at  deleted
                             cell1  1   s-1   c1    active    -9d         0
                             cell1  4   s-4   c1    active    -9d         0
                             cell1  5   s-5   c1    active    -9d         0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-4            cell1
                                    s-5            cell1
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  created_at  updated_at  deleted
                                       cell1  10  s-1            volume            v-1        a-1            -30d        -9d         0
            cinder_volumes   id    status           attach_status  deleted  created_at  updated_at
                             v-1   available        attached       false    -30d        -9d
                             v-2   in-use           detached       false    -30d        -
                             v-3   reserved         reserved       false    -30d        -9d
                             v-4   detaching        attached       false    -30d        -9d
                             v-5   attaching        detached       false    -30d        -9d
                             v-6   error_attaching  detached       false    -30d        -9d
                             v-7   error_detaching  attached       false    -30d        -9d
                             v-8   in-use           detached       false    -30d        -9d
                             v-9   in-use           attached       false    -30d        -9d
                             v-10  available        attached       false    -30d        -9d
                             v-11  attaching        attaching      false    -30d        -9d
                             v-12  reserved         detached       false    -30d        -9d
                             v-13  reserved         attached       false    -30d        -9d
                             v-14  in-use           reserved       false    -30d        -9d
                             v-15  in-use           attaching      false    -30d        -9d
                             v-16  detaching        attached       false    -30d        -9d
                             v-17  in-use           attached       false    -30d        -9d
                             v-18  in-use           detached       false    -30d        -9d
                             v-19  detaching        detached       false    -30d        -9d
            block_devices    host  name  kind  state    session   places     volume  slaves  holders  links       mounts  held_by  guests
                             c1    sdb   scsi  running  session1  [iqn/1]    v-18    []      []       [/dev/sdb]  [/srv]  []       []
                             c1    sdc   scsi  running  session2  [iqn/2]    v-19    []      []       [/dev/sdc]  []      []       []
            cinder_volume_attachment  id    volume_id  instance_uuid  attach_status    deleted  updated_at  deleted_at
                                      a-1   v-1        s-1            attached         false    -30d        -
                                      a-3   v-3        s-1            error_attaching  false    -30d        -
                                      a-4   v-4        s-4            attached         false    -30d        -
                                      a-6   v-6        s-1            error_attaching  false    -9d         -
                                      a-7   v-7        s-1            attached         false    -30d        -
                                      a-8   v-8        s-1            attached         false    -30d        -
                                      a-9   v-9        s-1            reserved         false    -30d        -
                                      a-10  v-10       s-1            detached         true     -30d        -2d
                                      a-11  v-11       s-1            reserved         false    -30d        -
                                      a-12  v-12       s-1            attached         false    -30d        -
                                      a-13  v-13       s-1            reserved         false    -30d        -
                                      a-14  v-14       s-1            attached         false    -30d        -
                                      a-24  v-14       s-1            attaching        false    -30d        -
                                      a-15  v-15       s-1            attached         false    -30d        -
                                      a-16  v-16       s-5            attached         false    -30d        -
                                      a-26  v-16       s-5            reserved         false    -30d        -
                                      a-17  v-17       s-4            attached         false    -30d        -
            cinder_workers   id  resource_type  resource_id  status    deleted
                             1   Volume         v-2          deleting  true
                             2   Snapshot       v-5          creating  false
            """,
            finds=("v-1", "v-10", "v-11", "v-12", "v-13", "v-14", "v-15", "v-16", "v-18", "v-19", "v-2", "v-3", "v-4", "v-5", "v-6",
                   "v-7", "v-8", "v-9"),
            plans="""
            set volume v-19, which has no attachment, from detaching (detached) to available (detached)
            set volume v-2, which has no attachment, from in-use (detached) to available (detached)
            set volume v-5, which has no attachment, from attaching (detached) to available (detached)
            """),
        Scenario(
            "without an attachment: free, or had by somebody, or such that somebody could attach it just now", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  vm_state  updated_at  deleted
                             cell1  1   s-1   c1    active    -9d         0
                             cell1  2   s-2   c1    active    -9d         0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  created_at  updated_at  deleted
                                       cell1  10  s-1            volume            v-2        a-2            -30d        -9d         0
            libvirt_domains  host  uuid  state    nova
                             c1    s-2   running  true
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-2   vdb     disk    v-3
            cinder_volumes   id    status           attach_status  multiattach  deleted  created_at  updated_at
                             v-1   reserved         attached       false        false    -30d        -9d
                             v-2   in-use           attached       false        false    -30d        -9d
                             v-3   in-use           attached       false        false    -30d        -9d
                             v-4   available        attached       false        false    -30d        -9d
                             v-5   in-use           detached       true         false    -30d        -9d
                             v-6   detaching        detached       true         false    -30d        -
                             v-7   error_detaching  attached       false        false    -30d        -9d
            """,
            finds=("v-1", "v-2", "v-3", "v-4", "v-5", "v-6", "v-7"),
            plans="""
            set volume v-1, which has no attachment, from reserved (attached) to available (detached)
            set volume v-6, which has no attachment, from detaching (detached) to available (detached)
            set volume v-7, which has no attachment, from error_detaching (attached) to available (detached)
            """),
        Scenario(
            "as Cinder derives it, or sets it on the way; swapped for hours; in error; at something", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  vm_state           updated_at  deleted
                             cell1  1   s-1   c1    active             -9d         0
                             cell1  2   s-2   -     shelved_offloaded  -9d         0
            cinder_volumes   id    status           attach_status  migration_status  deleted  updated_at
                             v-1   available        detached       -                 false    -9d
                             v-2   in-use           attached       success           false    -9d
                             v-3   reserved         detached       -                 false    -9d
                             v-4   reserved         reserved       -                 false    -9d
                             v-5   attaching        attaching      -                 false    -9d
                             v-6   available        detached       -                 false    -9d
                             v-7   reserved         attached       -                 false    -9d
                             v-8   attaching        attaching      -                 false    -9d
                             v-9   in-use           attached       -                 false    -9d
                             v-10  detaching        attached       -                 false    -9d
                             v-11  error            attached       -                 false    -9d
                             v-12  error_deleting   attached       -                 false    -9d
                             v-13  in-use           detached       migrating         false    -9d
                             v-14  available        attached       -                 true     -9d
                             v-15  -                -              -                 false    -9d
                             v-16  backing-up       attached       -                 false    -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  attach_status    deleted  updated_at
                                      a-2   v-2        -              attached         false    -30d
                                      a-3   v-3        s-2            reserved         false    -30d
                                      a-4   v-4        s-2            reserved         false    -30d
                                      a-5   v-5        s-1            attaching        false    -30d
                                      a-6   v-6        s-1            error_attaching  false    -30d
                                      a-16  v-7        s-1            attached         false    -30d
                                      a-7   v-7        s-2            reserved         false    -30d
                                      a-8   v-8        s-1            attached         false    -30d
                                      a-18  v-8        s-2            attaching        false    -30d
                                      a-9   v-9        s-1            error_detaching  false    -30d
                                      a-19  v-9        s-2            attached         false    -30d
                                      a-10  v-10       s-1            attached         false    -30d
            """),
        Scenario(
            "the attachments could not be read: that is not told again for each volume", """
            cinder_volumes   id    status     attach_status  deleted  updated_at
                             v-1   in-use     attached       false    -9d
            lost cinder_volume_attachment cinder
            """),
    ),
)  # fmt: skip
