"""An attachment of a volume to a server was begun, and never completed.

Why it matters
    The volume is reserved or attaching for good: its owner can neither use it, attach it elsewhere nor delete it.
    Nova's own detach refuses a volume that is not in use, and a hard reboot of the server may fail over it.
How it comes about
    nova-api reserves the volume and then sends nova-compute a message to attach it (nova/compute/api.py:
    attach_volume); the message was lost with its queue, or nova-compute stopped while it attached, perhaps with the disk
    in the guest and before it told Cinder.  Or `nova-manage
    volume_attachment refresh` failed half-way: it leaves a new reserved attachment, and a row of Nova's that no longer
    says how to reach the volume (nova/cmd/manage.py: _do_refresh).
What the repair does
    Where the guest has the disk, by Nova's row, by libvirt, and by Cinder's connection to that very host, it completes
    the attachment, as nova-compute would have.  Where nobody ever connected it (neither Nova nor Cinder says how it is
    reached, the domain does not have it, the host has no device of it) it deletes the attachment; Nova's row of it is
    found then as one without an attachment, and is the next step.  The owner attaches the volume again.
    All else is a person's: after a refresh that failed, the refresh is run again.
When not to repair
    While the message may still come: a queue that is read again after days delivers it.  While the guest has the disk.
    A server that is shelved away has its attachments reserved for months, and is never found.
"""

from collections.abc import Iterable

from cloudfsck.acts.attachment import Complete, Delete
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[Complete | Delete]:
    yield Complete.of(row) if row["device_connected"] else Delete.of(row)


def _commands(row: Row) -> Iterable[str]:
    server, volume, host = row["server"], row["volume"], row["server_host"]
    yield f"as an administrator: openstack server event list {server}"
    if host is not None:
        yield f"on a RabbitMQ server: rabbitmqctl list_queues name messages consumers | grep compute.{host}"
        yield f"on {host}: virsh dumpxml {server} | grep -E '<(source|serial|alias)'"
    if row["vm_state"] == "stopped" and host is not None:
        connector = f"connector.{host}.json"
        yield f"on {host}, if a refresh failed: nova-manage volume_attachment get_connector --json > {connector}"
        yield (
            f"on a controller that has the {connector} of {host}, if a refresh failed:"
            f" nova-manage volume_attachment refresh {server} {volume} {connector}"
        )
    if row["device_connected"]:
        complete = f"openstack --os-volume-api-version 3.44 volume attachment complete {row['attachment']}"
        yield f"as an administrator, if the guest has it: {complete}"
        return
    changed = row["device_updated_at"]
    when = "updated_at IS NULL" if changed is None else f"updated_at = '{changed}'"
    attachment = (
        "as an administrator, without a service token, if the guest does not have it:"
        f" openstack --os-volume-api-version 3.27 volume attachment delete {row['attachment']}"
    )
    device = (
        f"in the database of {row['cell']} (MySQL), if the guest does not have it: START TRANSACTION;"
        f" SELECT * FROM block_device_mapping WHERE id = {row['device_id']} FOR UPDATE;"
        " UPDATE block_device_mapping SET deleted = id, deleted_at = UTC_TIMESTAMP()"
        f" WHERE id = {row['device_id']} AND deleted = 0 AND instance_uuid = '{server}' AND volume_id = '{volume}'"
        f" AND attachment_id = '{row['attachment']}' AND {when}; SELECT ROW_COUNT() AS must_be_one;"
    )
    commit = "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else"
    # A late message finds no reserved attachment, and gives up; one that is connected Cinder deletes only when Nova has
    # forgotten it (cinder/volume/api.py: attachment_deletion_allowed).
    yield from [attachment, device, commit] if row["attach_status"] == "reserved" else [device, commit, attachment]


CHECK = Check(
    text=__doc__,
    accused=("cinder_volume_attachment",),
    query="""
        WITH suspects AS (
            SELECT a.*, b.id AS device_id, b.device_name, b.updated_at AS device_updated_at,
                   b.changed AS device_changed, b.connected AS device_connected, n.boot_index, t.attach_time,
                   s.name AS server_name, s.cell, s.host AS server_host, s.vm_state,
                   v.stored, v.name AS volume_name, v.project, v.status AS volume_status,
                   v.updated_at AS volume_updated_at,
                   EXISTS (SELECT 1 FROM guest_volumes u
                            WHERE u.host = s.host AND u.server = a.server AND u.volume = a.volume) AS in_guest
              FROM live_attachments a
              JOIN server_volumes b ON b.attachment = a.attachment AND b.server = a.server
              JOIN nova_block_device_mapping n ON n.cell = b.cell AND n.id = b.id
              JOIN cinder_volume_attachment t ON t.id = a.attachment
              JOIN live_servers s ON s.server = a.server
              JOIN live_volumes v ON v.volume = a.volume
             WHERE a.status IN ('reserved', 'attaching')
               AND (NOT b.connected OR (b.connected AND a.status = 'attaching' AND in_guest))
               AND s.vm_state NOT IN ('shelved_offloaded', 'shelved', 'building', 'error')
               AND NOT EXISTS (SELECT 1 FROM busy_volumes w WHERE w.volume = a.volume)),
        others AS (
            SELECT a.attachment, list(DISTINCT x.server ORDER BY x.server) AS servers, max(x.changed) AS changed
              FROM suspects a
              JOIN live_attachments x ON x.volume = a.volume
             GROUP BY a.attachment)
        SELECT a.attachment AS key, a.server, a.server_name, a.cell, a.server_host, a.vm_state,
               a.device_id, a.device_name, a.boot_index, a.device_connected, a.device_updated_at, a.in_guest,
               a.volume, a.volume_name, a.project, a.volume_status, a.volume_updated_at,
               o.servers AS volume_servers,
               a.attachment, a.status AS attach_status, coalesce(a.connector_host, a.attached_host) AS connected_to,
               a.attach_time AS attached_at, a.updated_at,
               list_sort(list_distinct(list_concat([a.volume, a.stored, a.attachment], o.servers))) AS also,
               CASE WHEN a.server_host IS NOT NULL THEN [a.server_host] END AS hosts, NULL AS cells,
               greatest(o.changed, a.device_changed) AS since,
               CASE WHEN a.device_changed > o.changed THEN 'cell:' || a.cell ELSE 'cinder:cinder' END AS clock,
               CASE WHEN a.device_connected
                    THEN CASE WHEN NOT coalesce(a.connected AND a.connector_host = a.server_host, FALSE)
                              THEN 'Cinder does not say that it is connected to the host of the guest'
                              WHEN d.state IS NULL OR d.state NOT IN ('running', 'paused')
                              THEN 'its guest does not run' END
                    WHEN NOT EXISTS (SELECT 1 FROM compute_services c WHERE c.host = a.server_host AND c.up)
                    THEN 'nova-compute of its host is down, and may still get the message when it starts'
                    WHEN a.boot_index = 0 THEN 'the server boots from it'
                    WHEN a.connected IS DISTINCT FROM FALSE OR a.connector_host IS NOT NULL
                    THEN 'Cinder may have connected it to a host'
                    WHEN a.vm_state NOT IN ('active', 'paused', 'stopped') THEN 'the server is ' || a.vm_state
                    WHEN d.state IS NULL THEN 'its host has no domain of the server'
                    WHEN a.in_guest THEN 'its domain has the disk'
                    WHEN EXISTS (SELECT 1 FROM volume_devices e WHERE e.host = a.server_host AND e.volume = a.stored)
                    THEN 'its host has a device of the volume' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM suspects a
          JOIN others o ON o.attachment = a.attachment
          LEFT JOIN libvirt_domains d ON d.host = a.server_host AND d.uuid = a.server
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "the message was lost; nova-compute stopped while it attached; a refresh failed", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        paused
                             cell1  s-3   c1    0        stopped
                             cell1  s-4   -     0        suspended
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted  created_at  updated_at
                                       cell1  1   s-1            v-1        a-1            volume            false      0        -9d         -
                                       cell1  2   s-2            v-2        a-2            volume            false      0        -9d         -9d
                                       cell1  3   s-3            v-3        a-3            volume            false      0        -30d        -8d
                                       cell1  4   s-4            v-4        a-4            volume            false      0        -30d        -9d
                                       cell1  5   s-1            v-5        a-5            volume            true       0        -30d        -9d
                                       cell1  6   s-1            v-6        a-6            volume            false      0        -30d        -9d
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  reserved   reserved       false    -9d
                             v-2  attaching  attaching      false    -9d
                             v-3  reserved   reserved       false    -9d
                             v-4  reserved   reserved       false    -9d
                             v-5  in-use     attached       false    -9d
                             v-6  in-use     attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  connector_host  attach_status  deleted  created_at  updated_at
                                      a-1  v-1        s-1            -               reserved       false    -9d         -
                                      a-2  v-2        s-2            c1              attaching      false    -9d         -8d
                                      a-3  v-3        s-3            -               reserved       false    -9d         -
                                      a-4  v-4        s-4            -               reserved       false    -9d         -
                                      a-5  v-5        s-1            c1              attached       false    -30d        -9d
                                      a-6  v-6        s-1            c1              attached       false    -30d        -9d
            """,
            finds=("a-1", "a-2", "a-3", "a-4")),
        Scenario(
            "nobody ever connected it; or that is not sure, by Cinder, the domain, the host or what the server is", """
            hosts cell1      c1 c2
            nova_instances  cell   uuid  host  deleted  vm_state   launched_at
                            cell1  s-1   c1    0        active     -30d
                            cell1  s-2   c1    0        paused     -30d
                            cell1  s-3   c1    0        stopped    -30d
                            cell1  s-4   c1    0        active     -30d
                            cell1  s-5   c1    0        active     -30d
                            cell1  s-6   c1    0        suspended  -30d
                            cell1  s-7   c1    0        active     -30d
                            cell1  s-8   c1    0        stopped    -30d
                            cell1  s-9   c1    0        active     -30d
                            cell1  s-10  c3    0        active     -30d
            nova_services   cell   host  binary        last_seen_up  deleted  forced_down
                            cell1  c3    nova-compute  -9d           0        false
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  device_name  connected  boot_index  deleted  updated_at
                                       cell1  10  s-10           v-10       a-10           volume            /dev/vdb     false      -           0        -9d
                                       cell1  1   s-1            v-1        a-1            volume            /dev/vdb     false      -           0        -9d
                                       cell1  2   s-2            v-2        a-2            volume            /dev/vdb     false      1           0        -9d
                                       cell1  3   s-3            v-3        a-3            volume            /dev/vdb     false      0           0        -9d
                                       cell1  4   s-4            v-4        a-4            volume            /dev/vdb     false      -           0        -9d
                                       cell1  5   s-5            v-5        a-5            volume            /dev/vdb     false      -           0        -9d
                                       cell1  6   s-6            v-6        a-6            volume            /dev/vdb     false      -           0        -9d
                                       cell1  7   s-7            v-7        a-7            volume            /dev/vdb     false      -           0        -9d
                                       cell1  8   s-8            v-8        a-8            volume            /dev/vdb     false      -           0        -9d
                                       cell1  9   s-9            v-9        a-9            volume            /dev/vdb     false      -           0        -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   paused   true
                             c1    s-3   shutoff  true
                             c1    s-4   running  true
                             c1    s-5   running  true
                             c1    s-6   running  true
                             c1    s-8   shutoff  true
                             c1    s-9   running  true
                             c2    s-7   shutoff  true
                             c3    s-10  running  true
            libvirt_disks  host  uuid  target  device  serial
                           c1    s-8   vdb     disk    v-8
                           c2    s-1   vdb     disk    v-1
                           c1    s-9   vdc     disk    v-2
                           c1    s-2   vdc     disk    v-x
            block_devices  host  name  kind  volume  guests  mounts  held_by  holders
                           c1    sdb   scsi  v-9     []      []      []       []
                           c2    sdc   scsi  v-1     []      []      []       []
            cinder_volumes  id   status     attach_status  multiattach  deleted  updated_at
                            v-1  reserved   reserved       false        false    -9d
                            v-2  attaching  attaching      false        false    -9d
                            v-3  reserved   reserved       false        false    -9d
                            v-4  attaching  attaching      false        false    -9d
                            v-5  attaching  attaching      false        false    -9d
                            v-6  reserved   reserved       false        false    -9d
                            v-7  reserved   reserved       false        false    -9d
                            v-8  reserved   reserved       true         false    -9d
                            v-9  reserved   reserved       false        false    -9d
                            v-10  reserved  reserved       false        false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  connector_host  connected  attach_status  deleted  created_at  updated_at
                                      a-1  v-1        s-1            -               false      reserved       false    -9d         -9d
                                      a-2  v-2        s-2            -               false      attaching      false    -9d         -9d
                                      a-3  v-3        s-3            -               false      reserved       false    -9d         -9d
                                      a-4  v-4        s-4            -               true       attaching      false    -9d         -9d
                                      a-5  v-5        s-5            c1              false      attaching      false    -9d         -9d
                                      a-6  v-6        s-6            -               false      reserved       false    -9d         -9d
                                      a-7  v-7        s-7            -               false      reserved       false    -9d         -9d
                                      a-8  v-8        s-8            -               false      reserved       false    -9d         -9d
                                      a-9  v-9        s-9            -               false      reserved       false    -9d         -9d
                                      a-10  v-10      s-10           -               false      reserved       false    -9d         -9d
            """,
            finds=("a-1", "a-10", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8", "a-9"),
            plans="""
            delete attachment a-1 (reserved) of volume v-1 to server s-1
            delete attachment a-2 (attaching) of volume v-2 to server s-2
            """),
        Scenario(
            "the guest has the disk, and Cinder was not told; or it is connected elsewhere, or the guest does not run", """
            hosts cell1      c1 c2
            nova_instances  cell   uuid  host  deleted  vm_state  launched_at
                            cell1  s-10  c1    0        active    -30d
                            cell1  s-11  c1    0        active    -30d
                            cell1  s-12  c1    0        active    -30d
                            cell1  s-13  c1    0        stopped   -30d
                            cell1  s-14  c1    0        active    -30d
                            cell1  s-15  c1    0        active    -30d
                            cell1  s-16  c1    0        active    -30d
                            cell1  s-17  c1    0        active    -30d
                            cell1  s-18  c1    0        active    -30d
                            cell1  s-19  c1    0        paused    -30d
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  device_name  connected  boot_index  deleted  updated_at
                                       cell1  10  s-10           v-10       a-10           volume            /dev/vdb     true       -           0        -9d
                                       cell1  11  s-11           v-11       a-11           volume            /dev/vdb     true       -           0        -9d
                                       cell1  12  s-12           v-12       a-12           volume            /dev/vdb     true       -           0        -9d
                                       cell1  13  s-13           v-13       a-13           volume            /dev/vdb     true       -           0        -9d
                                       cell1  14  s-14           v-14       a-14           volume            /dev/vdb     true       -           0        -9d
                                       cell1  15  s-15           v-15       a-15           volume            /dev/vdb     true       -           0        -9d
                                       cell1  16  s-16           v-16       a-16           volume            /dev/vdb     -          -           0        -9d
                                       cell1  17  s-17           v-17       a-17           volume            /dev/vdb     true       -           0        -9d
                                       cell1  18  s-18           v-18       a-18           volume            /dev/vdb     true       -           0        -9d
                                       cell1  19  s-19           v-19       a-19           volume            /dev/vdb     true       -           0        -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-10  running  true
                             c1    s-11  running  true
                             c1    s-12  running  true
                             c1    s-13  shutoff  true
                             c1    s-15  running  true
                             c1    s-16  running  true
                             c1    s-17  running  true
                             c1    s-18  running  true
                             c1    s-19  paused   true
            libvirt_disks  host  uuid  target  device  serial
                           c1    s-10  vdb     disk    v-10
                           c1    s-11  vdb     disk    v-11
                           c1    s-12  vdb     disk    v-12
                           c1    s-13  vdb     disk    v-13
                           c1    s-14  vdb     disk    v-14
                           c1    s-15  vdb     disk    v-15
                           c1    s-16  vdb     disk    v-16
                           c1    s-19  vdb     disk    v-19
                           c2    s-17  vdb     disk    v-17
                           c1    s-18  vdb     disk    v-x
                           c1    s-10  vdc     disk    v-18
            cinder_volumes  id    status     attach_status  multiattach  deleted  updated_at
                            v-10  attaching  attaching      false        false    -9d
                            v-11  attaching  attaching      false        false    -9d
                            v-12  attaching  attaching      false        false    -9d
                            v-13  attaching  attaching      false        false    -9d
                            v-14  attaching  attaching      false        false    -9d
                            v-15  reserved   reserved       false        false    -9d
                            v-16  attaching  attaching      false        false    -9d
                            v-17  attaching  attaching      false        false    -9d
                            v-18  attaching  attaching      true         false    -9d
                            v-19  attaching  attaching      false        false    -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  connector_host  connected  attach_status  deleted  created_at  updated_at
                                      a-10  v-10       s-10           c1              true       attaching      false    -9d         -9d
                                      a-11  v-11       s-11           c2              true       attaching      false    -9d         -9d
                                      a-12  v-12       s-12           c1              false      attaching      false    -9d         -9d
                                      a-13  v-13       s-13           c1              true       attaching      false    -9d         -9d
                                      a-14  v-14       s-14           c1              true       attaching      false    -9d         -9d
                                      a-15  v-15       s-15           c1              true       reserved       false    -9d         -9d
                                      a-16  v-16       s-16           c1              true       attaching      false    -9d         -9d
                                      a-17  v-17       s-17           c1              true       attaching      false    -9d         -9d
                                      a-18  v-18       s-18           c1              true       attaching      false    -9d         -9d
                                      a-19  v-19       s-19           c1              true       attaching      false    -9d         -9d
            """,
            finds=("a-10", "a-11", "a-12", "a-13", "a-14", "a-19"),
            plans="""
            complete attachment a-10 (attaching) of volume v-10 to server s-10
            complete attachment a-19 (attaching) of volume v-19 to server s-19
            """),
        Scenario(
            "it is attached, connected, or of a server that is shelved, built, failed, moving, deleted or another", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state           task_state
                             cell1  s-1   c1    0        active             -
                             cell1  s-2   c1    0        active             -
                             cell1  s-3   -     0        shelved_offloaded  -
                             cell1  s-4   c1    0        active             attaching
                             cell1  s-5   c1    5        deleted            -
                             cell1  s-6   c1    0        active             -
                             cell1  s-7   c1    0        active             -
                             cell1  s-8   c1    0        active             -
                             cell1  s-9   c1    0        shelved            -
                             cell1  s-10  c1    0        building           -
                             cell1  s-11  c1    0        error              -
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted
                                       cell1  1   s-1            v-1        a-1            volume            false      0
                                       cell1  2   s-2            v-2        a-2            volume            true       0
                                       cell1  3   s-3            v-3        a-3            volume            false      0
                                       cell1  4   s-4            v-4        a-4            volume            false      0
                                       cell1  5   s-5            v-5        a-5            volume            false      0
                                       cell1  6   s-6            v-6        a-7            volume            false      0
                                       cell1  8   s-8            v-8        a-8            volume            false      0
                                       cell1  9   s-9            v-9        a-9            volume            false      0
                                       cell1  10  s-10           v-10       a-10           volume            false      0
                                       cell1  11  s-11           v-11       a-11           volume            false      0
            cinder_volumes   id    status    attach_status  deleted  updated_at
                             v-1   in-use    attached       false    -9d
                             v-2   reserved  reserved       false    -9d
                             v-3   reserved  reserved       false    -9d
                             v-4   reserved  reserved       false    -9d
                             v-5   reserved  reserved       false    -9d
                             v-6   reserved  reserved       false    -9d
                             v-8   deleted   reserved       true     -9d
                             v-9   reserved  reserved       false    -9d
                             v-10  reserved  reserved       false    -9d
                             v-11  reserved  reserved       false    -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  connector_host  attach_status  deleted  updated_at
                                      a-1   v-1        s-1            c1              attached       false    -9d
                                      a-2   v-2        s-2            -               reserved       false    -9d
                                      a-3   v-3        s-3            -               reserved       false    -9d
                                      a-4   v-4        s-4            -               reserved       false    -9d
                                      a-5   v-5        s-5            -               reserved       false    -9d
                                      a-7   v-6        s-7            -               reserved       false    -9d
                                      a-8   v-8        s-8            -               reserved       false    -9d
                                      a-9   v-9        s-9            -               reserved       false    -9d
                                      a-10  v-10       s-10           -               reserved       false    -9d
                                      a-11  v-11       s-11           -               reserved       false    -9d
            """),
    ),
)  # fmt: skip
