"""A running server lacks a volume that Nova and Cinder give it.

Why it matters
    What the owner has on that volume is not there, and its file systems may hang or be read-only; nobody else can use
    the volume either, for Cinder calls it in use.
How it comes about
    Somebody took the disk from the guest by hand, or defined the domain anew from an old copy; the guest let go of it
    only after Nova had given up asking, and put the volume back in use (nova/virt/libvirt/driver.py:
    _detach_with_retry); or nova-compute died between the guest's letting go and its own row's end (nova/compute/
    manager.py: _detach_volume).
What the repair does
    There is none yet.  A person asks the owner which of two it is to be.  Nova detaches it for good: that the guest does
    not have the disk is no obstacle (nova/virt/libvirt/driver.py: detach_volume).  Or a hard reboot gives it to the
    guest again, for Nova then makes the domain anew from its own rows.
When not to repair
    While the owner is just detaching it.  Where another disk is in its place (`in_its_place`), detaching would take
    that one, for Nova then goes by the device's name (_get_guest_disk_device): only a hard reboot helps.  A server that is stopped is left out: starting it is a hard reboot
    (nova/virt/libvirt/driver.py: power_on); and so is a rescued one, whose guest may have nothing but the rescue disk.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"on {row['host']}: virsh domblklist --details {row['server']}"
    yield f"as an administrator: openstack server event list {row['server']}"
    yield f"as an administrator: openstack volume show {row['volume']}"
    if row["in_its_place"] is None:
        if row["volume_status"] == "detaching":
            yield f"as an administrator, which Nova needs to detach it: openstack volume set --state in-use {row['volume']}"
        yield f"as an administrator, if the owner does not want it there: openstack server remove volume {row['server']} {row['volume']}"
    yield f"as an administrator, if the owner wants it, and a restart now: openstack server reboot --hard {row['server']}"


CHECK = Check(
    text=__doc__,
    accused=("nova_block_device_mapping",),
    query="""
        SELECT s.host || '/' || s.server || '/' || m.volume AS key, s.server, s.name, s.project, s.cell, s.host, s.vm_state,
               s.updated_at, d.state, m.volume, v.name AS volume_name, v.status AS volume_status, v.attach_status,
               v.updated_at AS volume_updated_at, m.mapping, m.device_name, m.attachment, m.updated_at AS mapping_updated_at,
               p.disk AS in_its_place,
               list_sort(list_distinct(list_concat([m.volume, v.stored, m.attachment], o.servers))) AS also,
               [s.host] AS hosts, NULL AS cells,
               greatest(m.changed, v.updated_at) AS since,
               CASE WHEN v.updated_at = greatest(m.changed, v.updated_at) THEN 'cinder:cinder' ELSE 'cell:' || m.cell END AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM (SELECT n.cell, n.server, n.volume, max(n.id) AS mapping, arg_max(n.attachment, n.id) AS attachment,
                       arg_max(n.device_name, n.id) AS device_name, bool_or(n.connected) AS connected,
                       max(n.updated_at) AS updated_at, max(n.changed) AS changed
                  FROM server_volumes n
                 GROUP BY n.cell, n.server, n.volume) m
          JOIN live_servers s ON s.cell = m.cell AND s.server = m.server
          JOIN live_volumes v ON v.volume = m.volume
          JOIN libvirt_domains d ON d.host = s.host AND d.uuid = s.server
          JOIN read_parts r ON r.table_name = 'libvirt_disks' AND r.part = s.host
          LEFT JOIN (SELECT a.volume, list(DISTINCT a.server) AS servers FROM live_attachments a GROUP BY a.volume) o
            ON o.volume = m.volume
          LEFT JOIN (SELECT k.host, k.uuid, '/dev/' || k.target AS device, max(coalesce(k.serial, k.source, k.type)) AS disk
                       FROM libvirt_disks k
                      GROUP BY ALL) p ON p.host = s.host AND p.uuid = s.server AND p.device = m.device_name
         WHERE m.connected
           AND s.vm_state IN ('active', 'paused')
           AND d.state IN ('running', 'paused')
           AND d.job IS NULL
           AND NOT EXISTS (SELECT 1 FROM guest_volumes u
                            WHERE u.host = s.host AND u.server = s.server AND u.volume = m.volume)
           AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = m.volume)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "taken away by hand, once of two; and while it was being detached, with another disk in its place", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        paused
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  device_name  device_path  connected  deleted  updated_at
                                       cell1  1   s-1            volume            v-1        a-1            /dev/vda     /dev/sdc     true       0        -9d
                                       cell1  2   s-1            volume            v-2        a-2            /dev/vdb     /dev/sdd     true       0        -9d
                                       cell1  3   s-2            volume            v-3        a-3            /dev/vdb     /dev/sde     true       0        -9d
                                       cell1  4   s-2            volume            v-3        a-3            /dev/vdb     /dev/sde     true       0        -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   paused   true
                             c2    s-2   shutoff  true
                             c1    o-3   running  false
            libvirt_disks    host  uuid  target  device  source    serial
                             c2    s-2   vdb     disk    /i/other  -
                             c1    o-3   vdb     disk    /o/3      -
                             c1    s-1   vda     disk    /dev/sdc  v-1
                             c1    s-1   sda     lun     /dev/sdx  -
                             c1    s-2   vdb     disk    /i/extra  -
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  in-use     attached       false    -9d
                             v-2  in-use     attached       false    -9d
                             v-3  detaching  attached       false    -2h
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-1  v-1        s-1            attached       false    -9d
                                      a-2  v-2        s-1            attached       false    -9d
                                      a-3  v-3        s-2            attached       false    -9d
            """,
            finds=("c1/s-1/v-2", "c1/s-2/v-3")),
        Scenario(
            "what another guest, another host or another cell has is not this guest's", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state
                             cell1  s-1   c1    0        -           active
                             cell1  s-2   c1    0        -           active
                             cell1  s-3   c2    0        -           active
                             cell2  s-3   c9    3        -9d         deleted
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  device_path  connected  deleted  updated_at
                                       cell1  1   s-1            volume            v-1        -            true       0        -9d
                                       cell2  2   s-3            volume            v-3        /dev/sdx     true       0        -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   running  true
                             c2    s-1   shutoff  true
                             c2    s-3   running  true
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-2   vdb     disk    v-1
                             c2    s-1   vdb     disk    v-1
            cinder_volumes   id   status  attach_status  multiattach  deleted  updated_at
                             v-1  in-use  attached       true         false    -9d
                             v-3  in-use  attached       false        false    -9d
            """,
            finds=("c1/s-1/v-1",)),
        Scenario(
            "it has it; its row is not connected yet; the server is busy, stopped, rescued or elsewhere; a job runs", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state  task_state
                             cell1  s-1   c1    0        active    -
                             cell1  s-2   c1    0        active    -
                             cell1  s-3   c1    0        active    rebooting_hard
                             cell1  s-4   c1    0        stopped   -
                             cell1  s-5   c1    0        rescued   -
                             cell1  s-6   c2    0        active    -
                             cell1  s-7   c1    0        active    -
                             cell1  s-8   c1    0        active    -
                             cell1  s-9   c1    0        active    -
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  connected  deleted  updated_at
                                       cell1  1   s-1            volume            v-1        true       0        -9d
                                       cell1  2   s-2            volume            v-2        false      0        -9d
                                       cell1  3   s-3            volume            v-3        true       0        -9d
                                       cell1  4   s-4            volume            v-4        true       0        -9d
                                       cell1  5   s-5            volume            v-5        true       0        -9d
                                       cell1  6   s-6            volume            v-6        true       0        -9d
                                       cell1  7   s-7            volume            v-7        true       0        -9d
                                       cell1  8   s-8            volume            v-8        true       0        -9d
                                       cell1  9   s-9            volume            v-9        true       0        -9d
                                       cell1  10  s-1            volume            v-10       true       0        -9d
            libvirt_domains  host  uuid  state    nova  job
                             c1    s-1   running  true  -
                             c1    s-2   running  true  -
                             c1    s-3   running  true  -
                             c1    s-4   running  true  -
                             c1    s-5   running  true  -
                             c1    s-6   running  true  -
                             c1    s-7   running  true  backup
                             c1    s-8   shutoff  true  -
                             c1    s-9   running  true  -
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-1   vdb     disk    v-1
            cinder_volumes   id   status     attach_status  migration_status  deleted  updated_at
                             v-1  in-use     attached       -                 false    -9d
                             v-2  attaching  attaching      -                 false    -9d
                             v-3  in-use     attached       -                 false    -9d
                             v-4  in-use     attached       -                 false    -9d
                             v-5  in-use     attached       -                 false    -9d
                             v-6  in-use     attached       -                 false    -9d
                             v-7  in-use     attached       -                 false    -9d
                             v-8  in-use     attached       -                 false    -9d
                             v-9  in-use     attached       migrating         false    -9d
                             v-10 deleted    detached       -                 true     -9d
            """),
        Scenario(
            "the disks of its host could not be read", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  connected  deleted  updated_at
                                       cell1  1   s-1            volume            v-1        true       0        -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
            cinder_volumes   id   status  attach_status  deleted  updated_at
                             v-1  in-use  attached       false    -9d
            lost libvirt_disks c1
            """),
    ),
)  # fmt: skip
