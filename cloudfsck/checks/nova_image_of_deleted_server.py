"""Nova deleted the server, and an image of its disk is left on the backend.

Why it matters
    Nobody pays for it and nobody looks for it: the pool fills up, for all of its users.
How it comes about
    nova-compute removes what begins with the server's UUID when it deletes the server (nova/virt/libvirt/driver.py:
    _cleanup_rbd, _cleanup_lvm), and gives up for good after five attempts (nova/compute/manager.py:
    _run_pending_deletes); Ceph was away, or somebody had the image open, while it tried; or the server was deleted while
    its nova-compute was down, and that never came back.
What the repair does
    There is none yet.  A person moves the image into the pool's trash, from which it can be brought back; in a group of
    LVM's, gives it another name.
When not to repair
    While servers are being restored from a backup of Nova's database, or disks are being rescued by hand; where another
    cloud with the same UUIDs, restored from this one, has its disks in the same pool.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    pool, image = row["pool"], row["image"]
    if row["kind"] == "lvm":
        at = f"on the machine that has the group {pool}"
        yield f"{at}: lvs --options lv_name,lv_size,lv_device_open,origin {pool}"
        yield f"{at}, if it is not open and nothing stands on it: lvrename {pool} {image} deleted_{image}"
        yield f"to take it back: lvrename {pool} deleted_{image} {image}"
        return
    at = "where a key of Ceph's may write"
    yield f"{at}: rbd status {pool}/{image}"
    yield f"{at}: rbd snap ls --all {pool}/{image}"
    yield f"{at}, if it has no watcher: rbd trash mv --expires-at '30 days' {pool}/{image}"
    yield f"to take it back: rbd trash ls {pool} | grep {image}, and rbd trash restore {pool}/ID with the id that stands there"


CHECK = Check(
    text=__doc__,
    accused=("backend_images",),
    query="""
        SELECT i.backend || '/' || i.pool || '/' || i.image AS key, i.server, i.name, i.project, i.cell, i.deleted_at,
               i.host AS last_host, i.backend, k.kind, i.pool, i.image, u.bytes, u.created_at, u.parent, u.snapshots,
               coalesce(i.nova_will, 'nothing: nova-compute looks only on the last host of the server, and not after '
                                     || t.delete_attempts || ' attempts') AS nova_will,
               [] AS hosts, CASE WHEN p.cell IS NOT NULL THEN list_sort(list_distinct([p.cell, i.cell])) END AS cells,
               [i.backend] AS backends,
               i.deleted_at AS since, 'cell:' || i.cell AS clock, NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM images_of_gone_servers i
          JOIN backends k ON k.backend = i.backend
          CROSS JOIN nova_settings t
          LEFT JOIN mapped_servers p ON p.server = i.server
          LEFT JOIN backend_image_uses u ON u.backend = i.backend AND u.pool = i.pool AND u.name = i.image
         WHERE NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = i.server)
           AND NOT EXISTS (SELECT 1 FROM unfinished_deletions f WHERE f.server = i.server)
           AND NOT EXISTS (SELECT 1 FROM compute_services c WHERE c.host = i.host AND c.just_down)
           AND coalesce(len(u.watchers), 0) = 0
           AND coalesce(len(u.children), 0) = 0
           AND NOT coalesce(list_contains(u.snapshots, 'nova-resize'), FALSE)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "nova-compute gave up, or it was deleted long ago, or archived; on Ceph and in a group of LVM's", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c1    1        -3h         0
                             cell1  s-2   c1    2        -25h        0
                             cell1  s-4   c1    0        -           0
                             cell1  s-5   c1    5        -9d         1
            nova_instance_mappings  instance_uuid  cell_id
                                    s-2            cell1
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-3   c9    1        -9d
            nova_instance_system_metadata  cell   instance_uuid  key             value
                                           cell1  s-1            clean_attempts  5
            backends         backend  kind  pools   listed
                             ceph     rbd   [vms]   4
                             lvm-c1   lvm   [nova]  1
            backend_images   backend  pool  name             server  trash
                             ceph     vms   s-1_disk         s-1     -
                             ceph     vms   s-1_disk.config  s-1     -
                             ceph     vms   s-2_disk         s-2     -
                             ceph     vms   s-4_disk         s-4     -
                             ceph     vms   s-5_disk         s-5     1f2e
                             lvm-c1   nova  s-3_disk         s-3     -
            backend_image_uses  backend  pool  name             server  bytes  snapshots  children  watchers
                                ceph     vms   s-1_disk         s-1     4096   [left]     []        []
                                ceph     vms   s-1_disk.config  s-1     4096   []         []        []
                                ceph     vms   s-2_disk         s-2     4096   []         []        []
                                lvm-c1   nova  s-3_disk         s-3     4096   []         []        []
                                ceph     nova  s-2_disk         s-2     8192   []         []        []
                                lvm-c1   vms   s-2_disk         s-2     8192   []         []        []
                                ceph     nova  s-3_disk         s-3     8192   []         []        []
            """,
            finds=("ceph/vms/s-1_disk", "ceph/vms/s-1_disk.config", "ceph/vms/s-2_disk", "lvm-c1/nova/s-3_disk")),
        Scenario(
            "somebody uses it, something stands on it, it was being resized; Nova is at it, or will be; unknown", """
            hosts cell1      c1 c2
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c3    nova-compute  -2h           0        false
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c1    1        -9d         1
                             cell1  s-2   c1    2        -9d         1
                             cell1  s-3   c1    3        -9d         1
                             cell1  s-4   c1    4        -2h         0
                             cell1  s-5   c3    5        -9d         1
                             cell1  s-6   c1    6        -9d         1
            nova_migrations  cell   id  instance_uuid  status     deleted
                             cell1  1   s-6            migrating  0
            backends         backend  kind  pools  listed
                             ceph     rbd   [vms]  7
            backend_images   backend  pool  name      server
                             ceph     vms   s-1_disk  s-1
                             ceph     vms   s-2_disk  s-2
                             ceph     vms   s-3_disk  s-3
                             ceph     vms   s-4_disk  s-4
                             ceph     vms   s-5_disk  s-5
                             ceph     vms   s-6_disk  s-6
                             ceph     vms   s-7_disk  s-7
            backend_image_uses  backend  pool  name      server  bytes  snapshots      children     watchers
                                ceph     vms   s-1_disk  s-1     4096   []             []           [10.0.0.1:0/7]
                                ceph     vms   s-2_disk  s-2     4096   [snap]         [images/i-1] []
                                ceph     vms   s-3_disk  s-3     4096   [nova-resize]  []           []
                                ceph     vms   s-4_disk  s-4     4096   []             []           []
                                ceph     vms   s-5_disk  s-5     4096   []             []           []
                                ceph     vms   s-6_disk  s-6     4096   []             []           []
            """),
    ),
)  # fmt: skip
