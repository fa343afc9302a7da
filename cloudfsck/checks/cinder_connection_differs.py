"""Nova would look for a server's volume elsewhere on the backend than Cinder.

Why it matters
    What Nova keeps is what it disconnects: it may leave the device of this volume behind, or take away another's.  What
    Cinder keeps is what the next hard reboot connects (nova/virt/block_device.py: refresh_connection_info).  If that
    place is another volume's by now, the guest reads and writes data that are not its own.
How it comes about
    One of the databases was restored without the other, or changed by hand; a live migration was rolled back and the
    rows of Nova could not be saved (nova/compute/manager.py: _rollback_volume_bdms); a refresh was interrupted; the
    backend was replaced.
What the repair does
    There is none.  nova-manage volume_attachment refresh connects the volume anew while the server is stopped.
When not to repair
    While the server is moved.  Before it is known where the volume is on the backend, and which device the guest has.
"""

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    server, volume, host = row["server"], row["volume"], row["nova_host"]
    return [
        f"as an administrator: openstack --os-volume-api-version 3.27 volume attachment show {row['attachment']}",
        f"on a controller: nova-manage volume_attachment show {server} {volume}",
        f"on {host}: virsh domblklist {server}",
        f"on {host}: nova-manage volume_attachment get_connector --json > {server}.json",
        f"as an administrator, if its owner agrees: openstack server stop {server}",
        f"on a controller, with that file: nova-manage volume_attachment refresh {server} {volume} {server}.json",
        f"as an administrator, then: openstack server start {server}",
    ]


CHECK = Check(
    text=__doc__,
    accused=("nova_block_device_mapping",),
    query="""
        SELECT m.server || '/' || m.id AS key, m.server, l.name AS server_name, l.project, m.cell, l.host AS nova_host,
               l.vm_state, m.id, m.device_name, m.volume, m.attachment, m.driver, m.places, m.updated_at,
               a.driver AS cinder_driver, a.places AS cinder_places, a.updated_at AS cinder_updated_at,
               list_sort(list_distinct(list_concat([m.volume, v.stored, m.attachment], o.servers, n.servers))) AS also,
               [] AS hosts, NULL AS cells,
               greatest(m.changed, a.changed) AS since,
               CASE WHEN a.changed > m.changed THEN 'cinder:cinder' ELSE 'cell:' || m.cell END AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM server_volumes m
          JOIN live_servers l ON l.server = m.server AND l.cell = m.cell
          JOIN live_attachments a ON a.attachment = m.attachment AND a.connector_host = l.host
          LEFT JOIN live_volumes v ON v.volume = m.volume
          LEFT JOIN (SELECT p.volume, list(p.server) AS servers FROM live_attachments p GROUP BY p.volume) o
            ON o.volume = m.volume
          LEFT JOIN (SELECT s.volume, list(s.server) AS servers FROM server_volumes s GROUP BY s.volume) n
            ON n.volume = m.volume
         WHERE lower(array_to_string(m.places, ' ')) <> lower(array_to_string(a.places, ' '))
           AND len(m.places) > 0
           AND len(a.places) > 0
           AND a.server = m.server
           AND a.volume = m.volume
           AND NOT EXISTS (SELECT 1 FROM busy_volumes y WHERE y.volume = m.volume)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "another target, another number, another pool, one path less", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  updated_at  deleted
                             cell1  1   s-1   c1    active    -9d         0
                             cell2  1   s-2   c2    stopped   -9d         0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell2
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  driver  places         created_at  updated_at  deleted
                                       cell1  10  s-1            volume            v-1        a-1            iscsi   [iqn-1/1]      -30d        -9d         0
                                       cell1  11  s-1            volume            v-2        a-2            iscsi   [iqn-1/2]      -30d        -9d         0
                                       cell2  10  s-2            volume            v-3        a-3            rbd     [vms/v-3]      -30d        -           0
                                       cell2  11  s-2            volume            v-4        a-4            iscsi   [iqn-3/4,iqn-4/4]  -30d    -9d         0
            cinder_volumes   id   status  attach_status  deleted
                             v-1  in-use  attached       false
                             v-2  in-use  attached       false
                             v-3  in-use  attached       false
                             v-4  in-use  attached       false
            cinder_volume_attachment  id   volume_id  instance_uuid  connector_host  attach_status  driver  places         deleted  created_at  updated_at
                                      a-1  v-1        s-1            c1              attached       iscsi   [iqn-2/1]      false    -30d        -2d
                                      a-2  v-2        s-1            c1              attached       iscsi   [iqn-1/3]      false    -30d        -10d
                                      a-3  v-3        s-2            c2              attached       rbd     [volumes/v-3]  false    -30d        -
                                      a-4  v-4        s-2            c2              attached       iscsi   [iqn-3/4]      false    -30d        -10d
            """,
            finds=("s-1/10", "s-1/11", "s-2/10", "s-2/11")),
        Scenario(
            "the same in other letters; not connected; on another host; offloaded; moving; another's; gone", """
            hosts cell1      c1  c2
            hosts cell2      c3
            nova_instances   cell   id  uuid  host  vm_state           task_state  updated_at  deleted
                             cell1  1   s-1   c1    active             -           -9d         0
                             cell1  2   s-2   c2    active             -           -9d         0
                             cell1  3   s-3   -     shelved_offloaded  -           -9d         0
                             cell1  4   s-4   c1    active             migrating   -9d         0
                             cell1  5   s-5   c1    deleted            -           -9d         5
                             cell2  1   s-1   c1    deleted            -           -9d         1
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  driver          places             deleted
                                       cell1  10  s-1            volume            v-1        a-1            fibre_channel   [5006ab/1]         0
                                       cell1  11  s-1            volume            v-2        a-2            -               []                 0
                                       cell1  12  s-1            volume            v-3        a-3            iscsi           [iqn-1/3]          0
                                       cell1  13  s-1            volume            v-4        a-4            -               -                  0
                                       cell1  20  s-2            volume            v-5        a-5            iscsi           [iqn-1/5]          0
                                       cell1  30  s-3            volume            v-6        a-6            iscsi           [iqn-1/6]          0
                                       cell1  40  s-4            volume            v-7        a-7            iscsi           [iqn-1/7]          0
                                       cell1  50  s-5            volume            v-8        a-8            iscsi           [iqn-1/8]          0
                                       cell2  60  s-1            volume            v-9        a-9            iscsi           [iqn-1/9]          0
                                       cell1  14  s-1            volume            v-9        a-10           iscsi           [iqn-1/9]          0
                                       cell1  15  s-1            volume            v-9        a-11           iscsi           [iqn-1/9]          0
            cinder_volumes   id   status    attach_status  deleted
                             v-1  in-use    attached       false
                             v-2  in-use    attached       false
                             v-3  in-use    attached       false
                             v-4  in-use    attached       false
                             v-5  in-use    attached       false
                             v-6  reserved  reserved       false
                             v-7  in-use    attached       false
                             v-8  in-use    attached       false
                             v-9  in-use    attached       false
                             v-0  in-use    attached       false
            cinder_volume_attachment  id    volume_id  instance_uuid  connector_host  attach_status  driver         places      deleted
                                      a-1   v-1        s-1            c1              attached       fibre_channel  [5006AB/1]  false
                                      a-2   v-2        s-1            c1              attached       iscsi          [iqn-2/2]   false
                                      a-3   v-3        s-1            c1              reserved       -              []          false
                                      a-4   v-4        s-1            c1              attached       iscsi          [iqn-2/4]   false
                                      a-5   v-5        s-2            c1              attached       iscsi          [iqn-2/5]   false
                                      a-6   v-6        s-3            -               attached       iscsi          [iqn-2/6]   false
                                      a-7   v-7        s-4            c1              attached       iscsi          [iqn-2/7]   false
                                      a-8   v-8        s-5            c1              attached       iscsi          [iqn-2/8]   false
                                      a-9   v-9        s-1            c1              attached       iscsi          [iqn-2/9]   false
                                      a-10  v-9        s-2            c1              attached       iscsi          [iqn-2/9]   false
                                      a-11  v-0        s-1            c1              attached       iscsi          [iqn-2/9]   false
            """),
    ),
)  # fmt: skip
