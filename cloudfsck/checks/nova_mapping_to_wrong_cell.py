"""A server lives in a cell in which Nova's API does not look for it.

Why it matters
    Its owner gets "not found", while it runs and is charged.  Nobody can stop, move or delete it; whoever makes it anew
    has it twice.
How it comes about
    One database was restored without the other; a mapping was deleted or changed by hand; a resize between cells was
    interrupted; or the server is older than cells, and `nova-manage cell_v2 map_instances` was never run for all.
What the repair does
    There is none.  `map_instances` adds the mappings that are missing and changes none that is there; one that names
    another cell, or none, is changed in Nova's API database.
When not to repair
    While databases are being restored, or servers are moved between cells.
"""

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    server, mapping = row["server"], row["mapping"]
    verify = f"on a controller: nova-manage cell_v2 verify_instance --uuid {server}"
    if mapping is None:
        return [verify, f"on a controller: nova-manage cell_v2 map_instances --cell_uuid {row['cell_uuid']} --reset"]
    names = "IS NULL" if row["cell_id"] is None else f"= {row['cell_id']}"
    return [
        verify,
        f"in Nova's API database (MySQL): START TRANSACTION;"
        f" SELECT * FROM instance_mappings WHERE instance_uuid = '{server}' FOR UPDATE;"
        f" UPDATE instance_mappings SET cell_id = (SELECT id FROM cell_mappings WHERE uuid = '{row['cell_uuid']}')"
        f" WHERE id = {mapping} AND instance_uuid = '{server}' AND cell_id {names};"
        f" SELECT ROW_COUNT() AS must_be_one;",
        "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else",
    ]


CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        SELECT s.server AS key, s.server, s.name, s.project, s.cell, s.host, s.vm_state, s.updated_at,
               m.id AS mapping, m.cell_id, c.cell AS mapped_to, o.uuid AS cell_uuid,
               [] AS hosts, NULL AS cells,
               greatest(s.created_at, s.updated_at) AS since, 'cell:' || s.cell AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_servers s
          LEFT JOIN nova_instance_mappings m ON m.instance_uuid = s.server
          LEFT JOIN nova_cell_mappings c ON c.id = m.cell_id
          LEFT JOIN nova_cell_mappings o ON o.cell = s.cell
         WHERE c.cell IS DISTINCT FROM s.cell
           AND (SELECT count(*) FROM read_parts r
                 WHERE r.table_name IN ('nova_instance_mappings', 'nova_cell_mappings')) = 2
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = s.server)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "mapped to another cell, to none, or not at all", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  deleted  created_at  updated_at
                             cell1  1   s-1   c1    active    0        -30d        -9d
                             cell1  2   s-2   c1    active    0        -30d        -
                             cell1  3   s-3   c1    active    0        -30d        -9d
                             cell1  4   s-4   c1    active    0        -30d        -9d
                             cell1  5   s-5   c1    deleted   5        -30d        -9d
            nova_instance_mappings  id  instance_uuid  cell_id
                                    1   s-1            cell2
                                    2   s-2            -
                                    4   s-4            cell1
                                    5   s-5            cell2
            """,
            finds=("s-1", "s-2", "s-3")),
        Scenario(
            "the row in the cell that the mapping names is deleted: it does not count", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  deleted  created_at  updated_at
                             cell1  1   s-1   c1    active    0        -30d        -9d
                             cell2  1   s-1   c2    deleted   1        -30d        -9d
            nova_instance_mappings  id  instance_uuid  cell_id
                                    1   s-1            cell2
            """,
            finds=("s-1",)),
        Scenario(
            "the mappings could not be read: that is not told again for each server", """
            hosts cell1      c1
            nova_instances   cell   id  uuid  host  vm_state  deleted  created_at  updated_at
                             cell1  1   s-1   c1    active    0        -30d        -9d
            lost nova_instance_mappings nova_api
            """),
        Scenario(
            "it lives where its mapping says as well, or is being built, or moves between cells", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  hidden  deleted  updated_at
                             cell1  1   s-1   c1    active    false   0        -9d
                             cell2  1   s-1   c2    active    false   0        -9d
                             cell1  2   s-2   c1    active    false   0        -9d
                             cell1  3   s-3   c1    resized   true    0        -9d
                             cell1  4   s-4   c1    active    false   0        -9d
            nova_instance_mappings  id  instance_uuid  cell_id
                                    1   s-1            cell2
                                    2   s-2            -
                                    3   s-3            cell2
                                    4   s-4            cell2
            nova_build_requests     id  instance_uuid
                                    9   s-2
            nova_migrations         cell   id  instance_uuid  migration_type  status          deleted
                                    cell1  5   s-4            resize          post-migrating  0
            """),
    ),
)  # fmt: skip
