"""A server lives in two cells at once.

Why it matters
    Nova's API shows and changes one of its rows, the one in the cell that the mapping names; the other holds a host,
    memory and perhaps a second guest on the same volumes, and nobody sees it.
How it comes about
    A resize between cells was interrupted after its two rows had changed places (nova/conductor/tasks/
    cross_cell_migrate.py), or a cell was restored to a time before the server left it.
What the repair does
    There is none: only a person can tell which guest has the data.  The row that is not to count is deleted in its
    cell's database, when its guest is stopped.
When not to repair
    While a server is moved between cells, or a database is being restored.
"""

from datetime import timedelta

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    server = row["server"]
    copies = list(zip(row["in_cells"], row["on_hosts"], row["ids"], row["updated"], strict=True))
    say = [f"as an administrator: openstack server show {server}"]
    say += [f"on {host}: virsh dominfo {server}" for _, host, _, _ in copies if host is not None]
    for cell, host, number, updated in copies:
        if row["mapped_to"] is None or cell == row["mapped_to"]:
            continue
        where = "host IS NULL" if host is None else f"host = '{host}'"
        where += " AND updated_at IS NULL" if updated is None else f" AND updated_at = '{updated}'"
        say += [
            f"on the database server of {cell}, whose database may have another name than nova:"
            f" mysqldump --no-create-info --where=\"uuid='{server}'\" nova instances > {server}.{cell}.sql",
            f"in the database of {cell} (MySQL), if its copy is not to count: START TRANSACTION;"
            f" SELECT * FROM instances WHERE uuid = '{server}' FOR UPDATE;"
            f" UPDATE instances SET deleted = id, deleted_at = UTC_TIMESTAMP(), vm_state = 'deleted'"
            f" WHERE id = {number} AND uuid = '{server}' AND deleted = 0 AND task_state IS NULL AND {where};"
            f" SELECT ROW_COUNT() AS must_be_one;",
            "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else",
        ]
    return say


CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        SELECT s.server AS key, s.server, min(s.name) AS name, min(s.project) AS project, p.cell AS mapped_to,
               list(s.cell ORDER BY s.cell) AS in_cells, list(s.host ORDER BY s.cell) AS on_hosts,
               list(s.id ORDER BY s.cell) AS ids, list(s.vm_state ORDER BY s.cell) AS vm_states,
               list(s.updated_at ORDER BY s.cell) AS updated,
               [] AS hosts, NULL AS cells,
               max(greatest(s.created_at, s.updated_at)) AS since,
               'cell:' || arg_max(s.cell, greatest(s.created_at, s.updated_at)) AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM (SELECT server FROM live_servers GROUP BY server HAVING count(*) > 1) o
          JOIN live_servers s ON s.server = o.server
          LEFT JOIN mapped_servers p ON p.server = s.server
         WHERE NOT EXISTS (SELECT 1 FROM servers_under_way u WHERE u.server = s.server)
           AND NOT EXISTS (SELECT 1 FROM nova_migrations m
                             JOIN clocks c ON c.table_name = 'nova_migrations' AND c.part = m.cell
                            WHERE m.instance_uuid = s.server AND m.cross_cell_move
                              AND m.updated_at > c.now - INTERVAL 1 DAY)
         GROUP BY s.server, p.cell
    """,
    commands=_commands,
    settle=timedelta(days=1),
    scenarios=(
        Scenario(
            "left behind by a move that was over two days ago; and by none", """
            hosts cell1      c1
            hosts cell2      c2
            clock            cell:cell2  -2d
            clock            host:cell1  -2d
            hypervisors      host
                             cell1
            nova_instances   cell   id  uuid  host  vm_state  hidden  deleted  created_at  updated_at
                             cell1  1   s-1   c1    active    false   0        -30d        -3d
                             cell2  1   s-1   c2    active    false   0        -3d         -3d
                             cell1  2   s-2   c1    active    -       0        -30d        -9d
                             cell2  2   s-2   -     active    -       0        -20d        -
                             cell1  3   s-3   c1    active    -       0        -30d        -9d
                             cell2  3   s-3   c2    deleted   -       3        -30d        -9d
                             cell2  4   s-4   c2    active    -       0        -30d        -9d
            nova_migrations  cell   id  instance_uuid  migration_type  status     cross_cell_move  updated_at  deleted
                             cell1  1   s-1            resize          confirmed  true             -2d         0
                             cell1  2   s-2            live-migration  completed  false            -1h         0
            nova_instance_mappings  id  instance_uuid  cell_id
                                    1   s-1            cell2
                                    2   s-2            cell1
            """,
            finds=("s-1", "s-2")),
        Scenario(
            "a move is under way, or was an hour ago", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  task_state     hidden  deleted  updated_at
                             cell1  1   s-1   c1    resized   -              true    0        -9d
                             cell2  1   s-1   c2    resized   -              false   0        -9d
                             cell1  2   s-2   c1    active    resize_finish  false   0        -9d
                             cell2  2   s-2   c2    active    -              false   0        -9d
                             cell1  3   s-3   c1    active    -              false   0        -9d
                             cell2  3   s-3   c2    active    -              false   0        -9d
            nova_migrations  cell   id  instance_uuid  migration_type  status     cross_cell_move  updated_at  deleted
                             cell1  3   s-3            resize          confirmed  true             -1h         0
            """),
    ),
)  # fmt: skip
