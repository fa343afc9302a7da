"""A server is on a host that its cell does not know any more.

Why it matters
    No order of Nova's reaches it: every action on the server fails or hangs, it cannot be evacuated, and what the host
    still holds of it is looked after by nobody.
How it comes about
    The host was renamed ([DEFAULT] host, or its hostname), or its service, compute node or host mapping was deleted
    while it had servers, by hand or by a release that did not refuse it.
What the repair does
    There is none.  Give the host its name back and start its nova-compute, which makes its service and compute node
    anew; then map it.  If it is gone for good, the server is lost there: rebuild it elsewhere, or delete it.
When not to repair
    While the host is being reinstalled or moved to another cell.
"""

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    host = row["nova_host"]
    return [
        f"as an administrator: openstack compute service list --service nova-compute --host {host}",
        "as an administrator: openstack hypervisor list --long",
        f"on {host}: virsh dominfo {row['server']}",
        "on a controller: nova-manage cell_v2 list_hosts",
        "on a controller: nova-manage cell_v2 discover_hosts --verbose",
    ]


CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        WITH missing AS (
            SELECT s.server, 'nova-compute of ' || s.host AS what
              FROM live_servers s
             WHERE NOT EXISTS (SELECT 1 FROM compute_services c WHERE c.cell = s.cell AND c.host = s.host)
            UNION ALL
            SELECT s.server, 'host mapping of ' || s.host || ' to ' || s.cell
              FROM live_servers s
             WHERE NOT EXISTS (SELECT 1 FROM mapped_hosts m WHERE m.cell = s.cell AND m.host = s.host)
            UNION ALL
            SELECT s.server, 'compute node ' || concat_ws('/', s.host, s.node)
              FROM live_servers s
             WHERE NOT EXISTS (SELECT 1 FROM live_compute_nodes n
                                WHERE n.cell = s.cell AND (n.host = s.host OR n.type = 'ironic')
                                  AND n.node = coalesce(s.node, n.node)))
        SELECT s.server AS key, s.server, s.name, s.project, s.cell, s.host AS nova_host, s.node, s.vm_state,
               s.updated_at, m.missing,
               [] AS hosts,
               CASE WHEN p.cell IS NOT NULL THEN list_sort(list_distinct([p.cell, s.cell])) END AS cells,
               s.updated_at AS since, 'cell:' || s.cell AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_servers s
          JOIN (SELECT server, list(what ORDER BY what) AS missing FROM missing GROUP BY server) m
            ON m.server = s.server
          LEFT JOIN mapped_servers p ON p.server = s.server
         WHERE s.host IS NOT NULL
           AND (SELECT count(*) FROM read_parts r
                 WHERE r.table_name IN ('nova_host_mappings', 'nova_cell_mappings')
                    OR (r.part = s.cell AND r.table_name IN ('nova_services', 'nova_compute_nodes'))) = 4
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = s.server)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "its host was renamed, and the old name forgotten", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  node  vm_state  deleted  updated_at
                             cell1  1   s-1   c9    c9    active    0        -9d
                             cell1  2   s-2   c1    c1    active    0        -9d
                             cell1  3   s-3   c9    c9    deleted   3        -9d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            """,
            finds=("s-1",)),
        Scenario(
            "one thing is missing: its nova-compute, which is another's, or deleted, or in another cell", """
            hosts cell1      c1
            hosts cell2      c6
            nova_host_mappings  host  cell_id
                                c2    cell1
                                c3    cell1
                                c4    cell1
            nova_compute_nodes  cell   id  host  hypervisor_hostname  deleted
                                cell1  12  c2    c2                   0
                                cell1  13  c3    c3                   0
                                cell1  14  c4    c4                   0
            nova_services       cell   host  binary          last_seen_up  forced_down  deleted
                                cell1  c2    nova-conductor  -1s           false        0
                                cell1  c3    nova-compute    -1s           false        3
                                cell2  c4    nova-compute    -1s           false        0
            nova_instances      cell   id  uuid  host  node  vm_state  deleted  updated_at
                                cell1  1   s-1   c1    c1    active    0        -9d
                                cell1  2   s-2   c2    c2    active    0        -9d
                                cell1  3   s-3   c3    c3    active    0        -9d
                                cell1  4   s-4   c4    c4    active    0        -9d
            """,
            finds=("s-2", "s-3", "s-4")),
        Scenario(
            "one thing is missing: the mapping of its host, which leads to another cell", """
            hosts cell1         c1
            nova_host_mappings  host  cell_id
                                c2    cell2
            nova_compute_nodes  cell   id  host  hypervisor_hostname  deleted
                                cell1  12  c2    c2                   0
                                cell1  13  c3    c3                   0
            nova_services       cell   host  binary        last_seen_up  forced_down  deleted
                                cell1  c2    nova-compute  -1s           false        0
                                cell1  c3    nova-compute  -1s           false        0
            nova_instances      cell   id  uuid  host  node  vm_state  deleted  updated_at
                                cell1  1   s-1   c1    c1    active    0        -9d
                                cell1  2   s-2   c2    c2    active    0        -9d
                                cell1  3   s-3   c3    c3    active    0        -9d
                                cell2  4   s-4   -     -     error     0        -9d
            """,
            finds=("s-2", "s-3")),
        Scenario(
            "the services of its cell could not be read: that is not told again for each server", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  node  vm_state  deleted  updated_at
                             cell1  1   s-1   c1    c1    active    0        -9d
            lost nova_services cell1
            """),
        Scenario(
            "one thing is missing: its compute node, which is another's, or deleted, or in another cell", """
            hosts cell1         c1
            nova_host_mappings  host  cell_id
                                c2    cell1
                                c3    cell1
                                c4    cell1
            nova_compute_nodes  cell   id  host  hypervisor_hostname  hypervisor_type  deleted
                                cell1  12  c2    old-c2               QEMU             0
                                cell1  13  c3    c3                   QEMU             13
                                cell2  14  c4    c4                   QEMU             0
                                cell1  15  c5    c4                   QEMU             0
            nova_services       cell   host  binary        last_seen_up  forced_down  deleted
                                cell1  c2    nova-compute  -1s           false        0
                                cell1  c3    nova-compute  -1s           false        0
                                cell1  c4    nova-compute  -1s           false        0
            nova_instances      cell   id  uuid  host  node  vm_state  deleted  updated_at
                                cell1  1   s-1   c1    -     active    0        -9d
                                cell1  2   s-2   c2    c2    active    0        -9d
                                cell1  3   s-3   c3    c3    active    0        -9d
                                cell1  4   s-4   c4    c4    active    0        -9d
            """,
            finds=("s-2", "s-3", "s-4")),
        Scenario(
            "it is being evacuated from it, or has no host", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  node  vm_state           task_state  deleted  updated_at
                             cell1  1   s-1   c9    c9    active             rebuilding  0        -9d
                             cell1  2   s-2   -     -     shelved_offloaded  -           0        -9d
            """),
    ),
)  # fmt: skip
