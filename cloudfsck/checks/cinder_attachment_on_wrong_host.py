"""A server's volume is attached to another host than the server is on.

Why it matters
    The backend exports the volume to a host that has no business with it, and perhaps not to the one that needs it:
    then the next hard reboot, start or migration of the server fails.
How it comes about
    A migration or an evacuation failed half-way and was put right by hand in Nova's row alone; or the server's host was
    changed there.  Every move of Nova's makes or updates the attachment with the connector of the new host, whose
    `host` is the one of its nova.conf (nova/virt/libvirt/driver.py: get_volume_connector).
What the repair does
    There is none yet.  With the server stopped, `nova-manage volume_attachment refresh` makes a new attachment for the
    host that the server is on, and deletes this one.  What the other host still has of the volume it
    does not remove.
When not to repair
    While the guest runs on the host that the attachment names: then Nova's row is wrong, and not the attachment.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    server, volume, host = row["server"], row["volume"], row["server_host"]
    yield f"as an administrator: openstack server show {server}"
    for each in (host, row["connected_to"]):
        yield f"on {each}: virsh dumpxml {server} | grep -E '<(source|serial|alias)'"
    if row["vm_state"] != "stopped":
        yield f"as an administrator, if the guest is not on {row['connected_to']}: openstack server stop {server}"
    connector = f"connector.{host}.json"
    yield f"on {host}: nova-manage volume_attachment get_connector --json > {connector}"
    yield (
        f"on a controller that has the {connector} of {host}, once the server is stopped:"
        f" nova-manage volume_attachment refresh {server} {volume} {connector}"
    )


CHECK = Check(
    text=__doc__,
    accused=("cinder_volume_attachment",),
    query="""
        WITH suspects AS (
            SELECT a.*, b.device_name, b.updated_at AS device_updated_at, b.changed AS device_changed,
                   s.name AS server_name, s.cell, s.host AS server_host, s.node, s.vm_state,
                   s.updated_at AS server_updated_at, v.stored, v.name AS volume_name, v.project,
                   v.status AS volume_status
              FROM (SELECT *, nullif(coalesce(connector_host, attached_host), '') AS connected_to
                      FROM live_attachments) a
              JOIN server_volumes b ON b.attachment = a.attachment AND b.server = a.server
              JOIN live_servers s ON s.server = a.server
              JOIN live_volumes v ON v.volume = a.volume
             WHERE s.vm_state NOT IN ('shelved', 'shelved_offloaded')
               AND NOT (starts_with(s.host || '.', a.connected_to || '.')
                        OR starts_with(a.connected_to || '.', s.host || '.')
                        OR starts_with(coalesce(s.node, '') || '.', a.connected_to || '.')
                        OR starts_with(a.connected_to || '.', coalesce(s.node, '') || '.'))
               AND NOT EXISTS (SELECT 1 FROM live_attachments x
                                WHERE x.volume = a.volume AND x.server = a.server AND x.attachment <> a.attachment)
               AND EXISTS (SELECT 1 FROM live_compute_nodes n
                            WHERE n.host = s.host AND lower(n.type) IN ('qemu', 'kvm', 'lxc', 'parallels', 'xen'))
               AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = a.volume)),
        others AS (
            SELECT a.attachment, list(DISTINCT x.server ORDER BY x.server) AS servers, max(x.changed) AS changed
              FROM suspects a
              JOIN live_attachments x ON x.volume = a.volume
             GROUP BY a.attachment)
        SELECT a.attachment AS key, a.server, a.server_name, a.cell, a.server_host, a.node, a.vm_state,
               a.server_updated_at,
               a.volume, a.volume_name, a.project, a.volume_status, o.servers AS volume_servers,
               a.attachment, a.status AS attach_status, a.connected_to, a.updated_at, a.device_name,
               a.device_updated_at,
               list_sort(list_distinct(list_concat([a.volume, a.stored, a.attachment], o.servers))) AS also,
               [] AS hosts, NULL AS cells,
               greatest(o.changed, a.device_changed, a.server_updated_at) AS since,
               CASE WHEN greatest(a.device_changed, a.server_updated_at) > o.changed THEN 'cell:' || a.cell
                    ELSE 'cinder:cinder' END AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM suspects a
          JOIN others o ON o.attachment = a.attachment
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "the server's row was changed by hand; the host of the attachment is known by its old column alone", """
            hosts cell1         c1 c2
            nova_instances      cell   uuid  host  node  deleted  vm_state  updated_at
                                cell1  s-1   c2    c2    0        active    -9d
                                cell1  s-2   c2    -     0        stopped   -9d
                                cell1  s-3   c2    c2    0        error     -2d
                                cell1  s-4   c1    c1    0        active    -9d
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted  updated_at
                                       cell1  1   s-1            v-1        a-1            volume            true       0        -30d
                                       cell1  2   s-2            v-2        a-2            volume            true       0        -3d
                                       cell1  3   s-3            v-3        a-3            volume            true       0        -30d
                                       cell1  4   s-4            v-4        a-4            volume            true       0        -30d
                                       cell1  5   s-1            v-4        a-5            volume            true       0        -30d
            cinder_volumes      id   status  attach_status  multiattach  deleted  updated_at
                                v-1  in-use  attached       false        false    -9d
                                v-2  in-use  attached       false        false    -9d
                                v-3  in-use  attached       false        false    -9d
                                v-4  in-use  attached       true         false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            c1             c1              attached       false    -8d
                                      a-2  v-2        s-2            c1             -               attached       false    -8d
                                      a-3  v-3        s-3            c2             c1              attached       false    -8d
                                      a-4  v-4        s-4            c2             c2              attached       false    -8d
                                      a-5  v-4        s-1            c2             c2              attached       false    -8d
            """,
            finds=("a-1", "a-2", "a-3", "a-4")),
        Scenario(
            "the same host by its other name, in full or short; no host; on no host, or on one that is shelved", """
            hosts cell1         c1 c1.example.org c2 c2.example.org c3 c4
            nova_instances      cell   uuid  host            node            deleted  vm_state           updated_at
                                cell1  s-1   c1              n1              0        active             -9d
                                cell1  s-2   c2.example.org  n2              0        active             -9d
                                cell1  s-3   c3              h3.example.org  0        active             -9d
                                cell1  s-4   c3              h3              0        active             -9d
                                cell1  s-5   c4              c4              0        active             -9d
                                cell1  s-6   -               -               0        shelved_offloaded  -9d
                                cell1  s-7   c3              c3              0        shelved            -9d
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted
                                       cell1  1   s-1            v-1        a-1            volume            true       0
                                       cell1  2   s-2            v-2        a-2            volume            true       0
                                       cell1  3   s-3            v-3        a-3            volume            true       0
                                       cell1  4   s-4            v-4        a-4            volume            true       0
                                       cell1  5   s-5            v-5        a-5            volume            true       0
                                       cell1  6   s-6            v-6        a-6            volume            true       0
                                       cell1  7   s-7            v-7        a-7            volume            true       0
            cinder_volumes      id   status    attach_status  deleted  updated_at
                                v-1  in-use    attached       false    -9d
                                v-2  in-use    attached       false    -9d
                                v-3  in-use    attached       false    -9d
                                v-4  in-use    attached       false    -9d
                                v-5  in-use    attached       false    -9d
                                v-6  reserved  reserved       false    -9d
                                v-7  in-use    attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host   connector_host  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            c1.example.org  c1.example.org  attached       false    -9d
                                      a-2  v-2        s-2            c2              c2              attached       false    -9d
                                      a-3  v-3        s-3            h3              h3              attached       false    -9d
                                      a-4  v-4        s-4            h3.example.org  h3.example.org  attached       false    -9d
                                      a-5  v-5        s-5            -               -               attached       false    -9d
                                      a-6  v-6        s-6            c4              c4              reserved       false    -9d
                                      a-7  v-7        s-7            c4              c4              attached       false    -9d
            """),
        Scenario(
            "two attachments of one server; another server's row has it; bare metal; it moves; the volume is deleted", """
            hosts cell1         c1 c2
            nova_compute_nodes  cell   id  host     hypervisor_hostname  hypervisor_type  deleted
                                cell1  9   ironic1  m-1                  ironic           0
            nova_instances      cell   uuid  host     node  deleted  vm_state  task_state  updated_at
                                cell1  s-1   c2       c2    0        active    -           -9d
                                cell1  s-2   c1       c1    0        active    -           -9d
                                cell1  s-3   c2       c2    0        active    -           -9d
                                cell1  s-4   ironic1  m-1   0        active    -           -9d
                                cell1  s-5   c2       c2    0        active    migrating   -9d
                                cell1  s-6   c2       c2    6        deleted   -           -9d
                                cell1  s-7   c2       c2    0        active    -           -9d
            nova_block_device_mapping  cell   id  instance_uuid  volume_id  attachment_id  destination_type  connected  deleted
                                       cell1  1   s-1            v-1        a-1            volume            true       0
                                       cell1  3   s-3            v-2        a-2            volume            true       0
                                       cell1  2   s-2            v-8        a-8            volume            true       0
                                       cell1  4   s-4            v-4        a-4            volume            true       0
                                       cell1  5   s-5            v-5        a-5            volume            true       0
                                       cell1  6   s-6            v-6        a-6            volume            true       0
                                       cell1  7   s-7            v-7        a-7            volume            true       0
            cinder_volumes      id   status     attach_status  deleted  updated_at
                                v-1  in-use     attached       false    -9d
                                v-2  in-use     attached       false    -9d
                                v-4  in-use     attached       false    -9d
                                v-5  in-use     attached       false    -9d
                                v-6  in-use     attached       false    -9d
                                v-7  deleted    attached       true     -9d
                                v-8  in-use     attached       false    -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  attached_host  connector_host  attach_status  deleted  updated_at
                                      a-1   v-1        s-1            c1             c1              attached       false    -9d
                                      a-10  v-1        s-1            c2             c2              attached       false    -9d
                                      a-2   v-2        s-2            c2             c2              attached       false    -9d
                                      a-4   v-4        s-4            10.0.0.4       10.0.0.4        attached       false    -9d
                                      a-5   v-5        s-5            c1             c1              attached       false    -9d
                                      a-6   v-6        s-6            c1             c1              attached       false    -9d
                                      a-7   v-7        s-7            c1             c1              attached       false    -9d
                                      a-8   v-8        s-2            c1             c1              attached       false    -9d
            """),
    ),
)  # fmt: skip
