"""A guest has a volume that is not its server's: perhaps somebody else's data.

Why it matters
    It is a matter of SECURITY.  The guest can read and write the volume although Nova has not given it to its server
    any more.  Where the volume belongs to another project (`same_project`), or Cinder has given it to another server
    (`attached_to`), one owner's data lies open to another: that is to be looked at now.
How it comes about
    Nova took its row away and the disk stayed in the guest: nova-compute was down or did not wait (nova/compute/
    manager.py: _detach_volume), somebody reset or deleted rows by hand, Nova's database was restored, or an attachment
    was deleted past Nova, which Cinder refuses only since CVE-2023-2088 (bug 2004555).  Or somebody attached the disk
    with virsh.
What the repair does
    There is none: only a person can tell whether the guest is to lose it.  To pause the guest harms nobody but its
    owner.  Cinder's attachment of it must stay as long as the guest has the disk.
When not to repair
    While databases are being restored: then the rows may be what is missing.  A disk that Nova itself exchanged is none
    of these, though it keeps the old volume's name until the next hard reboot (nova/virt/libvirt/driver.py:
    _swap_volume).  The guest of a deleted server is told by libvirt-domain-of-deleted-server.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"on {row['host']}: virsh domblklist --details {row['server']}"
    yield f"as an administrator: openstack volume show {row['volume']}"
    yield (
        "as an administrator: openstack --os-volume-api-version 3.27 volume attachment list --all-projects"
        f" --volume-id {row['volume']}"
    )
    yield f"as an administrator: openstack server volume list {row['server']}"
    yield f"as the owner, in the guest: unmount what is on {', '.join(row['targets'])}, if it is to lose it"
    if not row["same_project"] or any(server not in (None, row["server"]) for server in row["attached_to"]):
        yield f"on {row['host']}, if it must read no more now; its memory is kept: virsh suspend {row['server']}"
    for target in row["targets"]:
        yield f"on {row['host']}, if it is to lose it: virsh detach-disk {row['server']} {target} --persistent"


CHECK = Check(
    text=__doc__,
    accused=("libvirt_disks",),
    query="""
        SELECT u.host || '/' || u.server || '/' || u.volume AS key, u.server, s.name, s.project, s.cell, u.host, s.vm_state,
               s.updated_at, d.state, list(u.target ORDER BY u.target) AS targets,
               u.volume, v.name AS volume_name, v.project AS volume_project,
               v.project IS NOT DISTINCT FROM s.project AS same_project, v.status AS volume_status, v.attach_status,
               v.updated_at AS volume_updated_at, coalesce(a.servers, []) AS attached_to, coalesce(a.ids, []) AS attachments,
               x.detached_at,
               list_sort(list_distinct(list_concat([u.volume, v.stored], a.servers, a.ids))) AS also,
               [u.host] AS hosts, NULL AS cells,
               greatest(v.created_at, v.updated_at, x.detached_at) AS since,
               CASE WHEN x.detached_at = greatest(v.created_at, v.updated_at, x.detached_at)
                    THEN 'cell:' || x.cell ELSE 'cinder:cinder' END AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM guest_volumes u
          JOIN live_volumes v ON v.volume = u.volume
          JOIN live_servers s ON s.server = u.server AND s.host = u.host
          JOIN libvirt_domains d ON d.host = u.host AND d.uuid = u.server
          JOIN read_parts r ON r.table_name = 'nova_block_device_mapping' AND r.part = s.cell
          LEFT JOIN (SELECT l.volume, list(DISTINCT l.server ORDER BY l.server) AS servers,
                            list(l.attachment ORDER BY l.attachment) AS ids
                       FROM live_attachments l
                      GROUP BY l.volume) a ON a.volume = u.volume
          LEFT JOIN (SELECT m.instance_uuid, m.volume_id, max(m.deleted_at) AS detached_at, arg_max(m.cell, m.deleted_at) AS cell
                       FROM nova_block_device_mapping m
                      GROUP BY m.instance_uuid, m.volume_id) x ON x.instance_uuid = u.server AND x.volume_id = u.volume
         WHERE NOT u.known
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = u.server)
           AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE b.volume = u.volume)
         GROUP BY ALL
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "detached by Nova's rows alone; attached to another project's server since; attached with virsh", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state  project_id
                             cell1  s-1   c1    0        active    p-1
                             cell1  s-2   c1    0        active    p-1
                             cell1  s-3   c2    0        stopped   p-2
                             cell1  s-4   c2    0        active    p-2
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  device_name  connected  deleted  deleted_at  updated_at
                                       cell1  1   s-1            volume            v-1        /dev/vdb     true       1        -3h         -9d
                                       cell1  5   s-1            volume            v-4        /dev/vdc     true       5        -2h         -9d
                                       cell1  2   s-2            volume            v-2        /dev/vdb     true       2        -9d         -20d
                                       cell1  3   s-3            volume            v-2        /dev/vdb     true       0        -           -8d
                                       cell1  4   s-3            volume            v-4        /dev/vdc     true       0        -           -8d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   running  true
                             c2    s-3   shutoff  true
                             c2    s-4   running  true
                             c2    s-1   shutoff  true
            libvirt_disks    host  uuid  target  device  serial  stored
                             c1    s-1   vdb     disk    v-1     -
                             c1    s-2   vdb     disk    v-2     -
                             c2    s-3   vdb     disk    v-2     -
                             c2    s-3   vdd     disk    v-3     -
                             c2    s-4   vdb     disk    -       v-4-old
                             c2    s-4   vdc     disk    v-4     -
            cinder_volumes   id   _name_id  status     attach_status  project_id  deleted  created_at  updated_at
                             v-1  -         available  detached       p-1         false    -30d        -9d
                             v-2  -         in-use     attached       p-2         false    -30d        -8d
                             v-3  -         available  detached       p-2         false    -30d        -
                             v-4  v-4-old   in-use     attached       p-2         false    -30d        -8d
            cinder_volume_attachment  id   volume_id  instance_uuid  attach_status  deleted  updated_at
                                      a-2  v-2        s-3            attached       false    -8d
                                      a-4  v-4        s-3            attached       false    -8d
            """,
            finds=("c1/s-1/v-1", "c1/s-2/v-2", "c2/s-3/v-3", "c2/s-4/v-4")),
        Scenario(
            "its disk lies where Nova says that another of its volumes lies, which is another of its disks; or of another server", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  vm_state  project_id
                             cell1  s-1   c1    0        active    p-1
                             cell1  s-2   c1    0        active    p-1
                             cell1  s-3   c2    0        active    p-1
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  device_name  device_path  connected  deleted  updated_at
                                       cell1  1   s-1            volume            v-1        /dev/vdb     /dev/sdc     true       0        -9d
                                       cell1  2   s-2            volume            v-3        /dev/vdb     /dev/sdx     true       0        -9d
                                       cell1  3   s-3            volume            v-3        /dev/vdb     /dev/sdy     true       0        -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   running  true
            libvirt_disks    host  uuid  target  device  source    serial
                             c1    s-1   vdb     disk    /dev/sdb  v-1
                             c1    s-1   vdc     disk    /dev/sdc  v-2
                             c1    s-2   vdc     disk    /dev/sdy  v-4
            cinder_volumes   id   status     attach_status  multiattach  project_id  deleted  updated_at
                             v-1  in-use     attached       false        p-1         false    -9d
                             v-2  available  detached       false        p-2         false    -9d
                             v-3  in-use     attached       true         p-1         false    -9d
                             v-4  available  detached       false        p-1         false    -9d
            """,
            finds=("c1/s-1/v-2", "c1/s-2/v-4")),
        Scenario(
            "Nova knows it; the server, or the volume, is busy; the server is deleted, elsewhere or nobody's; nobody's volume", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state  task_state
                             cell1  s-1   c1    0        -           active    -
                             cell1  s-2   c1    0        -           active    rebooting_hard
                             cell1  s-3   c1    0        -           active    -
                             cell1  s-4   c1    4        -9d         deleted   -
                             cell1  s-5   c2    0        -           active    -
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  device_name  connected  deleted  updated_at
                                       cell1  1   s-1            volume            v-1        /dev/vdb     true       0        -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   running  true
                             c1    s-3   running  true
                             c1    s-4   running  true
                             c1    s-5   running  true
                             c1    o-6   running  false
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-1   vdb     disk    v-1
                             c1    s-1   vdc     disk    v-8
                             c1    s-1   vdd     disk    WD-12345
                             c1    s-2   vdb     disk    v-2
                             c1    s-3   vdb     disk    v-3
                             c1    s-4   vdb     disk    v-4
                             c1    s-5   vdb     disk    v-5
                             c1    o-6   vdb     disk    v-6
            cinder_volumes   id   status     attach_status  migration_status  deleted  updated_at
                             v-1  in-use     attached       -                 false    -9d
                             v-2  available  detached       -                 false    -9d
                             v-3  in-use     attached       completing        false    -9d
                             v-4  available  detached       -                 false    -9d
                             v-5  available  detached       -                 false    -9d
                             v-6  available  detached       -                 false    -9d
                             v-8  deleted    detached       -                 true     -9d
            """),
        Scenario(
            "the block devices of its cell could not be read", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
            libvirt_disks    host  uuid  target  device  serial
                             c1    s-1   vdb     disk    v-1
            cinder_volumes   id   status  attach_status  deleted  updated_at
                             v-1  in-use  attached       false    -9d
            lost nova_block_device_mapping cell1
            """),
    ),
)  # fmt: skip
