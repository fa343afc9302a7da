"""Nova was deleting the server, and stopped right before the end.

Why it matters
    Nova says that the server is deleted and still counts it: it is listed, holds quota and its place in Placement,
    and can neither be used nor archived.
How it comes about
    nova-compute was killed, or lost its database, after it had written vm_state deleted and before it deleted the row
    (nova/compute/manager.py: _delete_instance).  It goes on only when it starts (_init_instance,
    _complete_partial_deletion).
What the repair does
    There is none: delete the server once more, or start its nova-compute anew.
When not to repair
    While its nova-compute is starting.
"""

from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        SELECT s.server AS key, s.server, s.name, s.project, s.cell, s.host, s.vm_state, s.updated_at,
               [] AS hosts,
               CASE WHEN p.cell IS NOT NULL THEN list_sort(list_distinct([p.cell, s.cell])) END AS cells,
               s.updated_at AS since, 'cell:' || s.cell AS clock,
               coalesce('nova-compute on ' || s.host || ' finishes it when it starts',
                        'nobody finishes it: it has no host') AS nova_will,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_servers s
          LEFT JOIN mapped_servers p ON p.server = s.server
         WHERE s.vm_state = 'deleted'
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = s.server)
    """,
    commands=lambda row: [f"as an administrator: openstack server delete {row['server']}"],
    scenarios=(
        Scenario(
            "two days ago; one beside it was deleted in full, one lives", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  vm_state  deleted  deleted_at  updated_at
                             cell1  s-1   c1    deleted   0        -           -2d
                             cell1  s-2   c1    deleted   2        -2d         -2d
                             cell1  s-3   c1    active    0        -           -2d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            """,
            finds=("s-1",)),
        Scenario(
            "without a host or a mapping: every cell counts", """
            nova_instances   cell   uuid  host  vm_state  deleted  updated_at
                             cell1  s-1   -     deleted   0        -2d
            """,
            finds=("s-1",)),
        Scenario(
            "nova-compute is still at it", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  vm_state  task_state  deleted  updated_at
                             cell1  s-1   c1    deleted   deleting    0        -2d
                             cell1  s-2   c1    deleted   -           0        -10m
            nova_instance_actions         cell   id  instance_uuid  action  start_time
                                          cell1  70  s-2            delete  -10m
            nova_instance_actions_events  cell   id  action_id  event                       start_time
                                          cell1  71  70         compute_terminate_instance  -10m
            """),
    ),
)  # fmt: skip
