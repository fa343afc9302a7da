"""Nova has a server on a host, and the host has no domain of it.

Why it matters
    The owner pays for a server that cannot run.  Nova itself only writes to its log that it was unexpectedly not found
    (nova/compute/manager.py: _sync_instance_power_state), and goes on calling it active.
How it comes about
    Somebody undefined the domain by hand; it was transient, as during a snapshot or the swap of a volume, when its
    host or libvirt died; the host was set up anew, or lost /etc/libvirt; or it is on another host (`also_on`).
What the repair does
    There is none: what is left of its disks decides, and they are its owner's.  A hard reboot makes the domain again
    from Nova's database and starts it on the disks that are there.  Look first whether the directory and the disks
    still are; where another host has a domain of it, that copy is the one to look at.
When not to repair
    While its guest still runs without libvirt's knowledge (`process`), or on another host: a hard reboot would start a
    second one on the same disks.
"""

from datetime import timedelta

from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        WITH others AS (
            SELECT d.uuid, list(d.host ORDER BY d.host) AS hosts
              FROM libvirt_domains d
             GROUP BY d.uuid),
        guests AS (
            SELECT q.host, q.uuid, max(q.pid) AS pid
              FROM qemu_processes q
             GROUP BY q.host, q.uuid)
        SELECT s.host || '/' || s.server AS key, s.server, s.name, s.project, s.cell, s.host, s.vm_state,
               s.launched_at, s.updated_at, coalesce(a.hosts, []) AS also_on,
               q.pid AS process,
               'nova-compute logs that it is unexpectedly not found, and does nothing' AS nova_will,
               list_sort(list_distinct(list_concat(a.hosts, [s.host]))) AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, s.cell])) END AS cells,
               NULL AS since, NULL AS clock,
               coalesce('its guest still runs, as process ' || q.pid || ': libvirt has forgotten it',
                        'only its owner can say what its disks are worth') AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM live_servers s
          JOIN read_parts r ON r.table_name = 'libvirt_domains' AND r.part = s.host
          JOIN compute_services c ON c.host = s.host
          LEFT JOIN others a ON a.uuid = s.server
          LEFT JOIN guests q ON q.host = s.host AND q.uuid = s.server
          LEFT JOIN mapped_servers p ON p.server = s.server
          LEFT JOIN mapped_hosts m ON m.host = s.host
         WHERE s.vm_state IN ('active', 'paused', 'suspended', 'stopped', 'rescued', 'resized', 'shelved')
           AND s.launched_at IS NOT NULL
           AND c.up
           AND NOT EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.host = s.host AND d.uuid = s.server)
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = s.server)
    """,
    commands=lambda row: [
        *(f"on {host}: virsh dominfo {row['server']}" for host in row["also_on"]),
        f"on {row['host']}: pgrep -af {row['server']}",
        f"as an administrator: openstack server event list {row['server']}",
        *(
            [f"as an administrator: openstack server reboot --hard {row['server']}"]
            if row["process"] is None and not row["also_on"]
            else []
        ),
    ],
    settle=timedelta(minutes=20),
    scenarios=(
        Scenario(
            "undefined by hand, or lost with its host's disk", """
            hosts cell1             c1 c2
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
            nova_instances          cell   uuid  host  deleted  vm_state  launched_at
                                    cell1  s-1   c1    0        active    -9d
                                    cell1  s-2   c1    0        active    -9d
                                    cell1  s-3   c2    0        shelved   -9d
            libvirt_domains         host  uuid  state    id  persistent
                                    c1    s-2   running  8   true
            qemu_processes          host  uuid  pid
                                    c1    s-2   4001
                                    c2    s-1   4002
            """,
            finds=("c1/s-1", "c2/s-3")),
        Scenario(
            "it is on another host, or on two; or runs, and libvirt does not know it", """
            hosts cell1       c1 c2 c3
            nova_instances    cell   uuid  host  deleted  vm_state  launched_at
                              cell1  s-1   c1    0        active    -9d
                              cell1  s-2   c1    0        stopped   -9d
                              cell1  s-3   c1    0        active    -9d
            libvirt_domains   host  uuid  state    id  persistent
                              c2    s-1   running  7   true
                              c2    s-2   shutoff  -   true
                              c3    s-2   shutoff  -   true
            qemu_processes    host  uuid  pid
                              c1    s-3   4001
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3")),
        Scenario(
            "its host is in no cell that the API knows: every cell counts", """
            hosts cell1             c2
            hypervisors             host
                                    c1
            nova_services           cell   host  binary        last_seen_up  deleted  forced_down
                                    cell1  c1    nova-compute  -1s           0        false
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instances          cell   uuid  host  deleted  vm_state  launched_at
                                    cell1  s-1   c1    0        active    -9d
                                    cell1  s-2   c2    0        active    -9d
            """,
            finds=("c1/s-1", "c2/s-2")),
        Scenario(
            "it never ran; it failed; its nova-compute is down; nobody asked its host; it is busy; its row is deleted", """
            hosts cell1      c1
            hypervisors      host
                             c2
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c2    nova-compute  -2d           0        false
                             cell1  c3    nova-compute  -1s           0        false
            nova_instances   cell   uuid  host  deleted  deleted_at  vm_state  task_state  launched_at
                             cell1  s-1   c1    0        -           active    -           -
                             cell1  s-2   c1    0        -           error     -           -9d
                             cell1  s-3   c2    0        -           active    -           -9d
                             cell1  s-4   c3    0        -           active    -           -9d
                             cell1  s-5   c1    0        -           active    rebuilding  -9d
                             cell1  s-6   c1    6        -9d         active    -           -9d
            """),
        Scenario(
            "libvirt on its host did not answer: that is not told again for each server", """
            hosts cell1             c1
            nova_instances          cell   uuid  host  deleted  vm_state  launched_at
                                    cell1  s-1   c1    0        active    -9d
            libvirt_domains         host  uuid  state    id  persistent
                                    c1    s-2   running  8   true
            lost libvirt_domains c1
            """),
    ),
)  # fmt: skip
