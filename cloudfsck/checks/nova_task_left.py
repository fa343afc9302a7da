"""Nova says that it is at something with the server, and nobody is any more.

Why it matters
    Its owner cannot do anything with the server: "Cannot 'stop' instance while it is in task_state ...".  Nothing else
    that is wrong with it is found, for whatever is in flight is innocent.
How it comes about
    The message was lost, or the service died that had it: nova-compute in its midst, or the conductor or scheduler while
    it waited for an answer.  nova-compute ends some tasks itself when it starts again, and not others
    (nova/compute/manager.py: _init_instance).
What the repair does
    There is none: what the server is to be now only its owner knows, or whoever looks at its guest.  The finding says
    what nova-compute will see to when it starts, and what resets the state otherwise.
When not to repair
    While something still goes on, however slowly: a disk that is being copied, an image that is being uploaded.
    Found is what has shown no sign of life for six hours: no change of the row, no step of an action, no migration that
    moves, no job of libvirt's.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario

#: What nova-compute ends, or does again, when it starts.
_RESTART = frozenset({
    "scheduling", "block_device_mapping", "networking", "spawning", "rebuilding", "rebuild_block_device_mapping",
    "rebuild_spawning", "image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading",
    "resize_prep", "resize_migrating", "migrating", "deleting", "rebooting", "reboot_pending", "reboot_started",
    "rebooting_hard", "reboot_pending_hard", "reboot_started_hard", "pausing", "unpausing", "powering-off",
    "powering-on",
})  # fmt: skip


def _commands(row: Row) -> Iterable[str]:
    server, host = row["server"], row["host"]
    yield f"as an administrator: openstack server event list {server}; openstack server migration list --server {server}"
    if host is not None and not row["host_up"]:
        yield f"on {host}, first of all: systemctl start nova-compute"
    elif host is not None and row["task_state"] in _RESTART:
        yield f"on {host}, which ends it: systemctl restart nova-compute"
    if row["task_state"] == "deleting" or host is None:
        # While it says deleting, nova-api takes another request for the same (nova/compute/api.py: _delete).
        yield f"as an administrator, if it is still there: openstack server set --state error {server}"
        yield f"as an administrator, if nobody wants it, then: openstack server delete {server}"
    else:
        yield f"as an administrator, if it says so still and its guest is well: openstack server set --state active {server}"


CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        WITH signs AS (
            SELECT a.instance_uuid AS server, max(greatest(a.start_time, a.updated_at, e.start_time)) AS at,
                   list(DISTINCT e.event ORDER BY e.event) AS steps
              FROM nova_instance_actions a
              JOIN nova_instance_actions_events e ON e.cell = a.cell AND e.action_id = a.id
             GROUP BY a.instance_uuid),
        moves AS (
            SELECT m.instance_uuid AS server, max(m.updated_at) AS at
              FROM nova_migrations m
             GROUP BY m.instance_uuid)
        SELECT l.server AS key, l.server, l.name, l.project, l.cell, l.host, l.vm_state, l.task_state, l.updated_at,
               coalesce(s.steps, []) AS steps_under_way, coalesce(h.up, FALSE) AS host_up,
               CASE WHEN r.libvirt THEN [l.host] END AS hosts, [l.cell] AS cells,
               greatest(l.created_at, l.updated_at, s.at, m.at) AS since, 'cell:' || l.cell AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_servers l
          JOIN clocks c ON c.table_name = 'nova_instances' AND c.part = l.cell
          LEFT JOIN signs s ON s.server = l.server
          LEFT JOIN moves m ON m.server = l.server
          LEFT JOIN compute_services h ON h.host = l.host
          LEFT JOIN roster r ON r.host = l.host
         WHERE l.task_state IS NOT NULL
           AND greatest(l.created_at, l.updated_at, s.at, m.at) < c.now - INTERVAL 6 HOUR
           AND NOT EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.uuid = l.server AND d.job IS NOT NULL)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "a step that never ended, none at all; without a host; its host is down", """
            hosts cell1      c1
            hosts cell2      c3
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c2    nova-compute  -9d           0        false
            nova_instances   cell   uuid  host  vm_state  task_state      deleted  created_at  updated_at
                             cell1  s-1   c1    active    rebooting       0        -9d         -2d
                             cell1  s-2   c1    active    image_backup    0        -9d         -2d
                             cell1  s-3   -     building  scheduling      0        -9d         -
                             cell1  s-4   c2    active    deleting        0        -9d         -2d
                             cell1  s-5   c1    active    -               0        -9d         -5h
                             cell2  s-6   c3    active    -               0        -9d         -5h
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
                                    s-6            cell2
            nova_instance_actions         cell   id  instance_uuid  action  start_time
                                          cell1  80  s-1            reboot  -2d
                                          cell1  86  s-5            reboot  -5h
                                          cell2  80  s-6            reboot  -5h
            nova_instance_actions_events  cell   id  action_id  event                    start_time
                                          cell1  81  80         compute_reboot_instance  -2d
                                          cell1  87  86         compute_reboot_instance  -5h
                                          cell2  81  80         compute_reboot_instance  -5h
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
                             c1    s-2   running  true  2
                             c1    s-5   running  true  5
                             c3    s-6   running  true  6
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
                             c1    s-5   15
                             c3    s-6   16
            """,
            finds=("s-1", "s-2", "s-3", "s-4")),
        Scenario(
            "it is at nothing; has just begun; a step has; a migration moves; libvirt has a job", """
            hosts cell1      c1
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
            nova_instances   cell   uuid  host  vm_state  task_state  deleted  created_at  updated_at
                             cell1  s-1   c1    active    -           0        -9d         -2d
                             cell1  s-2   c1    active    rebooting   0        -9d         -5h
                             cell1  s-3   c1    active    migrating   0        -9d         -2d
                             cell1  s-4   c1    active    migrating   0        -9d         -2d
                             cell1  s-5   c1    active    migrating   0        -9d         -2d
                             cell1  s-6   c1    building  spawning    0        -10m        -
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
                                    s-6            cell1
            nova_instance_actions         cell   id  instance_uuid  action          start_time
                                          cell1  82  s-3            live-migration  -2d
            nova_instance_actions_events  cell   id  action_id  event                     start_time
                                          cell1  83  82         compute_pre_live_migrate  -5h
            nova_migrations  cell   id  uuid  instance_uuid  status   migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  84  u-4   s-4            running  live-migration  c1              c2            -10m        0
            libvirt_domains  host  uuid  state    nova  id  job
                             c1    s-1   running  true  1   -
                             c1    s-2   running  true  2   -
                             c1    s-3   running  true  3   -
                             c1    s-4   running  true  4   -
                             c1    s-5   running  true  5   Outgoing
                             c1    s-6   running  true  6   -
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
                             c1    s-3   13
                             c1    s-4   14
                             c1    s-5   15
                             c1    s-6   16
            """),
    ),
)  # fmt: skip
