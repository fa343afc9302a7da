"""A server's compute_id names another compute node than its host and node do.

Why it matters
    Nova is going over from names to compute_id: what goes by the number looks at another hypervisor, or at none, and
    resources and migrations are counted there.
How it comes about
    The compute node was deleted and made again under the same name, with another number; or the row was changed by
    hand, or left half changed by a migration.
What the repair does
    There is none: nova-compute corrects it within a minute while it is up (nova/compute/resource_tracker.py:
    _ensure_compute_id_for_instances).  What stands for longer than an hour has a nova-compute that does not look.
When not to repair
    While the host's nova-compute is down: start it, and it does this itself.
"""

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    server = row["server"]
    return [
        f"as an administrator: openstack compute service list --service nova-compute --host {row['nova_host']}",
        f"on {row['nova_host']}: systemctl restart nova-compute",
        f"in the database of {row['cell']} (MySQL): START TRANSACTION;"
        f" SELECT host, node, compute_id FROM instances WHERE uuid = '{server}' FOR UPDATE;"
        f" UPDATE instances SET compute_id = {row['compute_node']} WHERE uuid = '{server}' AND deleted = 0"
        f" AND task_state IS NULL AND host = '{row['nova_host']}' AND node = '{row['node']}'"
        f" AND compute_id = {row['compute_id']}; SELECT ROW_COUNT() AS must_be_one;",
        "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else",
    ]


CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        SELECT s.server AS key, s.server, s.name, s.project, s.cell, s.host AS nova_host, s.node, s.compute_id,
               n.id AS compute_node, w.host AS compute_id_host, w.hypervisor_hostname AS compute_id_node,
               w.deleted_at AS compute_id_deleted_at, s.updated_at,
               [] AS hosts,
               CASE WHEN p.cell IS NOT NULL THEN list_sort(list_distinct([p.cell, s.cell])) END AS cells,
               greatest(s.updated_at, n.created_at) AS since, 'cell:' || s.cell AS clock,
               'nova-compute on ' || s.host || ' corrects it within a minute, once it is up' AS nova_will,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_servers s
          JOIN live_compute_nodes n ON n.cell = s.cell AND n.host = s.host AND n.node = s.node
          LEFT JOIN nova_compute_nodes w ON w.cell = s.cell AND w.id = s.compute_id
          LEFT JOIN mapped_servers p ON p.server = s.server
         WHERE s.compute_id <> n.id
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = s.server)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "of another node, of a deleted one, of none; one beside them is right, and one has no number yet", """
            hosts cell1         c1 c2
            nova_compute_nodes  cell   id  host  hypervisor_hostname  created_at  deleted
                                cell1  7   c1    c1                   -30d        7
                                cell1  8   c1    m-1                  -30d        0
                                cell1  9   c3    c1                   -30d        0
                                cell2  1   c2    c2                   -30d        0
                                cell2  2   c1    c1                   -30d        0
            nova_instances      cell   id  uuid  host  node  compute_id  vm_state  deleted  updated_at
                                cell1  1   s-1   c1    c1    2           active    0        -9d
                                cell1  2   s-2   c1    c1    7           active    0        -9d
                                cell1  3   s-3   c1    c1    99          active    0        -9d
                                cell1  4   s-4   c1    c1    1           active    0        -9d
                                cell1  5   s-5   c1    c1    -           active    0        -9d
                                cell1  6   s-6   c1    c1    2           deleted   6        -9d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            """,
            finds=("s-1", "s-2", "s-3")),
        Scenario(
            "it is moving", """
            hosts cell1         c1 c2
            nova_instances      cell   id  uuid  host  node  compute_id  vm_state  task_state     deleted  updated_at
                                cell1  1   s-1   c1    c1    2           active    resize_finish  0        -1m
            """),
    ),
)  # fmt: skip
