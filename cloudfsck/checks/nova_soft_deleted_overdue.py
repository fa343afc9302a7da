"""A soft-deleted server stands longer than it should.

Why it matters
    Its owner believes that it is gone.  It keeps its disks, its addresses, its volumes and its place on the host, and
    they stand against somebody's quota.
How it comes about
    reclaim_instance_interval was set when the server was deleted and is 0 now, or is 0 for nova-compute: then nobody
    reclaims it.  Or its nova-compute is down, or fails at it every minute (nova/compute/manager.py:
    _reclaim_queued_deletes); its log says "Periodic reclaim failed to delete instance".
What the repair does
    There is none: only its owner can say whether he wants it back.  Restore it, or delete it for good.
When not to repair
    While reclaim_instance_interval in our configuration is not what nova-compute has; this check believes ours.
"""

from datetime import timedelta

from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        SELECT s.server AS key, s.server, s.name, s.project, s.cell, s.host, s.deleted_at, s.updated_at,
               epoch(t.reclaim_interval)::BIGINT AS reclaim_instance_interval,
               [] AS hosts,
               CASE WHEN p.cell IS NOT NULL THEN list_sort(list_distinct([p.cell, s.cell])) END AS cells,
               s.deleted_at + t.reclaim_interval AS since, 'cell:' || s.cell AS clock,
               coalesce('nova-compute on ' || if(t.reclaim_interval > INTERVAL 0 SECOND, s.host, NULL)
                        || ' deletes it within a minute, once it is up and able to',
                        'nobody reclaims it: it has no host, or reclaim_instance_interval is 0') AS nova_will,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_servers s
          JOIN clocks c ON c.table_name = 'nova_instances' AND c.part = s.cell
          CROSS JOIN nova_settings t
          LEFT JOIN mapped_servers p ON p.server = s.server
         WHERE s.vm_state = 'soft-delete'
           AND s.deleted_at + t.reclaim_interval < c.now - INTERVAL 1 HOUR
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = s.server)
    """,
    commands=lambda row: [
        f"as an administrator: openstack server restore {row['server']}",
        f"as an administrator: openstack server delete --force {row['server']}",
    ],
    settle=timedelta(days=1),
    scenarios=(
        Scenario(
            "a week is over for one, and not for another; a third was restored and runs, a fourth is being deleted", """
            hosts cell1      c1
            settings         name                       value
                             long_rpc_timeout           1800
                             reclaim_instance_interval  604800
            nova_instances   cell   uuid  host  vm_state     task_state  deleted  deleted_at
                             cell1  s-1   c1    soft-delete  -           0        -9d
                             cell1  s-2   c1    soft-delete  -           0        -6d
                             cell1  s-3   c1    active       -           0        -9d
                             cell1  s-4   c1    soft-delete  deleting    0        -9d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
            """,
            finds=("s-1",)),
        Scenario(
            "nobody reclaims, and the clock of one cell is three days slow", """
            hosts cell1      c1
            clock            cell:cell2  -3d
            settings         name                       value
                             reclaim_instance_interval  0
            nova_instances   cell   uuid  host  vm_state     deleted  deleted_at
                             cell1  s-1   c1    soft-delete  0        -2d
                             cell2  s-2   c2    soft-delete  0        -2d
                             cell1  s-3   -     soft-delete  0        -2d
            """,
            finds=("s-1", "s-3")),
        Scenario(
            "nobody knows when they are reclaimed", """
            hosts cell1      c1
            settings         name              value
                             long_rpc_timeout  1800
            nova_instances   cell   uuid  host  vm_state     deleted  deleted_at
                             cell1  s-1   c1    soft-delete  0        -90d
            """),
        Scenario(
            "it is being restored, or deleted for good", """
            hosts cell1      c1
            settings         name                       value
                             reclaim_instance_interval  3600
            nova_instances   cell   uuid  host  vm_state     task_state  deleted  deleted_at
                             cell1  s-1   c1    soft-delete  restoring   0        -9d
                             cell1  s-2   c1    soft-delete  deleting    0        -9d
                             cell1  s-3   c1    deleted      -           3        -9d
            """),
    ),
)  # fmt: skip
