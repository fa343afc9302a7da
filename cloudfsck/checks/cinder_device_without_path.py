"""A running guest has a volume whose device on its host is gone or dead.

Why it matters
    What the guest reads or writes there fails or hangs, and a server that hangs in it cannot even be stopped cleanly.
How it comes about
    The target was removed while the volume was attached (its status was reset and it was deleted, or exported anew
    elsewhere), all paths to the array were lost, or somebody logged the host out of the session: iscsiadm does not
    refuse while a guest uses it.
What the repair does
    There is none: the way to the backend must come back first.  A hard reboot of the server connects its volumes anew
    (nova/virt/libvirt/driver.py: _hard_reboot), and loses what the guest has not yet written.
When not to repair
    While the array or its network is down: with them the paths come back by themselves.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    server, volume, host = row["server"], row["volume"], row["host"]
    yield f"as an administrator: openstack volume show {volume}"
    yield f"on {host}: virsh domblkerror {server}; iscsiadm -m session -P 3; multipath -ll"
    yield (
        "as an administrator, once the backend serves the volume again and no path has come back:"
        f" openstack server reboot --hard {server}"
    )


CHECK = Check(
    text=__doc__,
    accused=("libvirt_disks",),
    query="""
        WITH suspects AS MATERIALIZED (
            SELECT g.server, g.host, g.volume, g.target, k.source, s.name AS server_name, s.project, s.cell,
                   s.updated_at AS server_updated_at
              FROM guest_volumes g
              JOIN libvirt_disks k ON k.host = g.host AND k.uuid = g.server AND k.target = g.target
              JOIN live_servers s ON s.server = g.server
             WHERE g.known
               AND k.config <> 'persistent'
               AND starts_with(k.source, '/dev/')
               AND EXISTS (SELECT 1 FROM read_parts r WHERE r.table_name = 'block_devices' AND r.part = g.host)),
        links AS (
            SELECT v.host, v.name, v.works, v.paths, v.path_states, unnest(v.links) AS link
              FROM volume_devices v
            UNION ALL
            SELECT b.host, v.name, v.works, v.paths, v.path_states, unnest(b.links)
              FROM block_devices b
              JOIN volume_devices v ON v.host = b.host AND list_contains(b.slaves, v.name))
        SELECT o.server || '/' || o.volume AS key, o.server, o.server_name, o.project, o.cell, o.server_updated_at,
               o.host, o.volume, v.name AS volume_name, v.status AS volume_status, o.target, o.source, a.attachment, a.driver,
               a.places, l.name AS device, l.paths, l.path_states,
               list_sort(list_distinct([o.volume, v.stored, a.attachment])) AS also,
               [o.host] AS hosts, NULL AS cells, NULL AS since, 'host:' || o.host AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM suspects o
          JOIN live_volumes v ON v.volume = o.volume
          JOIN live_attachments a ON a.volume = o.volume AND a.server = o.server
          LEFT JOIN links l ON l.host = o.host AND l.link = o.source
         WHERE a.driver IN ('iscsi', 'iser', 'fibre_channel', 'nvmeof', 'nvme')
           AND NOT coalesce(l.works, FALSE)
           AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = o.volume)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "no device; a dead one; a map with no path; one below an encrypted one", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c2    0        active
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  connected  deleted
                                       cell1  1   s-1            volume            v-1        a-1            true       0
                                       cell1  2   s-1            volume            v-2        a-2            true       0
                                       cell1  3   s-1            volume            v-3        a-3            true       0
                                       cell1  4   s-1            volume            v-4        a-4            true       0
                                       cell1  5   s-2            volume            v-5        a-5            true       0
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c2    s-2   running  true
            libvirt_disks    host  uuid  config  target  type   device  source            serial
                             c1    s-1   both    vdb     block  disk    /dev/sdb          v-1
                             c1    s-1   live    vdc     block  disk    /dev/sdc          v-2
                             c1    s-1   both    vdd     block  disk    /dev/dm-0         v-3
                             c1    s-1   both    vde     block  disk    /dev/mapper/crypt v-4
                             c2    s-2   both    vdb     block  disk    /dev/sdc          v-5
            cinder_volumes   id   status  attach_status  deleted  updated_at
                             v-1  in-use  attached       false    -9d
                             v-2  in-use  attached       false    -9d
                             v-3  in-use  attached       false    -9d
                             v-4  in-use  attached       false    -9d
                             v-5  in-use  attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  connected  driver         places       deleted
                                      a-1  v-1        s-1            c1             c1              attached       true       iscsi          [iqn.v-1/1]  false
                                      a-2  v-2        s-1            c1             c1              attached       true       iscsi          [iqn.v-2/1]  false
                                      a-3  v-3        s-1            c1             c1              attached       true       fibre_channel  [wwn/3]      false
                                      a-4  v-4        s-1            c1             c1              attached       true       iscsi          [iqn.v-4/1]  false
                                      a-5  v-5        s-2            c2             c2              attached       true       iscsi          [iqn.v-5/1]  false
                                      a-6  v-1        s-2            c2             c2              attached       true       iscsi          [iqn.v-1/1]  false
            block_devices    host  name  kind       state              session   places       volume  slaves  holders  links                mounts  held_by     guests
                             c1    sdc   scsi       transport-offline  session1  [iqn.v-2/1]  v-2     []      []       [/dev/sdc]           []      [1:qemu]    [s-1]
                             c1    sdd   scsi       offline            rport-1   [wwn/3]      -       []      [dm-0]   [/dev/sdd]           []      []          []
                             c1    dm-0  multipath  active             -         [wwn/3]      -       [sdd]   []       [/dev/dm-0]          []      [1:qemu]    [s-1]
                             c1    sde   scsi       offline            session2  [iqn.v-4/1]  v-4     []      [dm-1]   [/dev/sde]           []      []          []
                             c1    dm-1  crypt      active             -         []           -       [sde]   []       [/dev/mapper/crypt]  []      [1:qemu]    [s-1]
                             c2    sdc   scsi       running            session2  [iqn.v-5/1]  v-5     []      []       [/dev/sdc]           []      [1:qemu]    [s-2]
                             c2    dm-0  multipath  active             -         []           -       []      []       [/dev/dm-0]          []      []          []
            """,
            finds=("s-1/v-1", "s-1/v-2", "s-1/v-3", "s-1/v-4")),
        Scenario(
            "all work, one by one path of two; a file, a local volume, one of another's; stopped; in the definition alone; busy", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state  task_state
                             cell1  s-1   c1    0        active    -
                             cell1  s-2   c1    0        stopped   -
                             cell1  s-3   c1    0        active    migrating
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  connected  deleted
                                       cell1  1   s-1            volume            v-1        a-1            true       0
                                       cell1  2   s-1            volume            v-2        a-2            true       0
                                       cell1  3   s-1            volume            v-3        a-3            true       0
                                       cell1  4   s-1            volume            v-4        a-4            true       0
                                       cell1  5   s-2            volume            v-5        a-5            true       0
                                       cell1  6   s-3            volume            v-6        a-6            true       0
                                       cell1  7   s-1            volume            v-7        a-7            true       0
                                       cell1  8   s-1            volume            v-9        a-9            true       0
                                       cell1  9   s-1            volume            v-10       a-10           true       0
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   shutoff  true
                             c1    s-3   running  true
                             c2    s-1   shutoff  true
            libvirt_disks    host  uuid  config      target  type   device  source                serial
                             c1    s-1   both        vdb     block  disk    /dev/disk/by-path/1   v-1
                             c2    s-1   persistent  vdb     block  disk    /dev/disk/by-path/1   v-1
                             c1    s-1   both        vdc     block  disk    /dev/dm-0             v-2
                             c1    s-1   both        vdd     file   disk    /mnt/nfs/v-3          v-3
                             c1    s-1   both        vde     block  disk    /dev/vg/v-4           v-4
                             c1    s-2   persistent  vdb     block  disk    /dev/sdz              v-5
                             c1    s-3   both        vdb     block  disk    /dev/sdz              v-6
                             c1    s-1   persistent  vdf     block  disk    /dev/sdz              v-7
                             c1    s-1   both        vdg     block  disk    /dev/sdz              v-8
                             c1    s-1   both        vdh     block  disk    /dev/nvme1n1          v-9
                             c1    s-1   both        vdi     block  disk    /dev/mapper/crypt     v-10
            cinder_volumes   id    status     attach_status  deleted  updated_at
                             v-1   in-use     attached       false    -9d
                             v-2   in-use     attached       false    -9d
                             v-3   in-use     attached       false    -9d
                             v-4   in-use     attached       false    -9d
                             v-5   in-use     attached       false    -9d
                             v-6   in-use     attached       false    -9d
                             v-7   in-use     attached       false    -9d
                             v-8   in-use     attached       false    -9d
                             v-9   in-use     attached       false    -9d
                             v-10  in-use     attached       false    -9d
            cinder_volume_attachment  id    volume_id  instance_uuid  attached_host  connector_host  attach_status  connected  driver  places        deleted
                                      a-1   v-1        s-1            c1             c1              attached       true       iscsi   [iqn.v-1/1]   false
                                      a-2   v-2        s-1            c1             c1              attached       true       iscsi   [iqn.v-2/1]   false
                                      a-3   v-3        s-1            c1             c1              attached       true       iscsi   [iqn.v-3/1]   false
                                      a-4   v-4        s-1            c1             c1              attached       true       local   []            false
                                      a-5   v-5        s-2            c1             c1              attached       true       iscsi   [iqn.v-5/1]   false
                                      a-6   v-6        s-3            c1             c1              attached       true       iscsi   [iqn.v-6/1]   false
                                      a-7   v-7        s-1            c1             c1              attached       true       iscsi   [iqn.v-7/1]   false
                                      a-8   v-8        s-1            c1             c1              attached       true       iscsi   [iqn.v-8/1]   false
                                      a-9   v-9        s-1            c1             c1              attached       true       nvmeof  [nqn.v-9/1]   false
                                      a-10  v-10       s-1            c1             c1              attached       true       iscsi   [iqn.v-10/1]  false
            block_devices    host  name     kind       state              session   places        volume  slaves     holders  links                          mounts  held_by   guests
                             c1    sdb      scsi       running            session1  [iqn.v-1/1]   v-1     []         []       [/dev/sdb,/dev/disk/by-path/1]  []     [1:qemu]  [s-1]
                             c1    sdc      scsi       transport-offline  session2  [iqn.v-2/1]   v-2     []         [dm-0]   [/dev/sdc]                     []      []        []
                             c1    sdd      scsi       running            session3  [iqn.v-2/1]   v-2     []         [dm-0]   [/dev/sdd]                     []      []        []
                             c1    dm-0     multipath  active             -         [iqn.v-2/1]   v-2     [sdc,sdd]  []       [/dev/dm-0]                    []      [1:qemu]  [s-1]
                             c1    nvme1n1  nvme       -                  nvme1     [nqn.v-9/1]   v-9     []         []       [/dev/nvme1n1]                 []      [1:qemu]  [s-1]
                             c1    sde      scsi       running            session4  [iqn.v-10/1]  v-10    []         [dm-1]   [/dev/sde]                     []      []        []
                             c1    dm-1     crypt      active             -         []            -       [sde]      []       [/dev/mapper/crypt]            []      [1:qemu]  [s-1]
            """),
        Scenario(
            "the devices of its host could not be read", """
            hosts cell1      c1 c2
            lost             block_devices  c1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  connected  deleted
                                       cell1  1   s-1            volume            v-1        a-1            true       0
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
            libvirt_disks    host  uuid  config  target  type   device  source    serial
                             c1    s-1   both    vdb     block  disk    /dev/sdb  v-1
            cinder_volumes   id   status  attach_status  deleted  updated_at
                             v-1  in-use  attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  connected  driver  places       deleted
                                      a-1  v-1        s-1            c1             c1              attached       true       iscsi   [iqn.v-1/1]  false
            """),
    ),
)  # fmt: skip
