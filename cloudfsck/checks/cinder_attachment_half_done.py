"""A volume was promised to a server, and never connected to it.

Why it matters
    The volume is reserved or attaching for good: its owner can neither use it, attach it elsewhere nor delete it.
    Nova's own detach refuses a volume that is not in use, and a hard reboot of the server may fail over it.
How it comes about
    nova-api reserves the volume and then sends nova-compute a message to attach it (nova/compute/api.py:
    attach_volume); the message was lost with its queue, or nova-compute stopped while it attached.  Or `nova-manage
    volume_attachment refresh` failed half-way: it leaves a new reserved attachment, and a row of Nova's that no longer
    says how to reach the volume (nova/cmd/manage.py: _do_refresh).
What the repair does
    There is none yet.  A person looks whether the guest has the disk.  If it has not, the attachment and Nova's row of it
    are deleted, and the owner attaches the volume again.  After a refresh that failed, the refresh is run again instead.
When not to repair
    While the message may still come: a queue that is read again after days delivers it.  While the guest has the disk.
    A server that is shelved away has its attachments reserved for months, and is never found.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


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
                   b.changed AS device_changed,
                   s.name AS server_name, s.cell, s.host AS server_host, s.vm_state,
                   v.stored, v.name AS volume_name, v.project, v.status AS volume_status
              FROM live_attachments a
              JOIN server_volumes b ON b.attachment = a.attachment AND b.server = a.server
              JOIN live_servers s ON s.server = a.server
              JOIN live_volumes v ON v.volume = a.volume
             WHERE a.status IN ('reserved', 'attaching')
               AND NOT b.connected
               AND s.vm_state NOT IN ('shelved_offloaded', 'shelved', 'building', 'error')
               AND NOT EXISTS (SELECT 1 FROM busy_volumes w WHERE w.volume = a.volume)),
        others AS (
            SELECT a.attachment, list(DISTINCT x.server ORDER BY x.server) AS servers, max(x.changed) AS changed
              FROM suspects a
              JOIN live_attachments x ON x.volume = a.volume
             GROUP BY a.attachment)
        SELECT a.attachment AS key, a.server, a.server_name, a.cell, a.server_host, a.vm_state,
               a.device_id, a.device_name, a.device_updated_at,
               a.volume, a.volume_name, a.project, a.volume_status, o.servers AS volume_servers,
               a.attachment, a.status AS attach_status, coalesce(a.connector_host, a.attached_host) AS connected_to,
               a.updated_at,
               list_sort(list_distinct(list_concat([a.volume, a.stored, a.attachment], o.servers))) AS also,
               [] AS hosts, NULL AS cells,
               greatest(o.changed, a.device_changed) AS since,
               CASE WHEN a.device_changed > o.changed THEN 'cell:' || a.cell ELSE 'cinder:cinder' END AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM suspects a
          JOIN others o ON o.attachment = a.attachment
    """,
    commands=_commands,
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
