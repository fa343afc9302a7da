"""Nova's API has a mapping for a server that no cell knows.

Why it matters
    The server may be counted against its project's quota, and cannot be shown or deleted.  Many at once are
    no litter: they are what is left of servers whose cell was restored from an older dump, or lost.
How it comes about
    A row was purged or deleted by hand, and its mapping was not (`nova-manage db archive_deleted_rows` removes both); a
    server was deleted in the moment in which it was scheduled, and the service that should remove the mapping died.
What the repair does
    There is none.  Whoever knows that the server is gone deletes its mapping and its request in Nova's API database,
    and keeps what they were.
When not to repair
    While it may still be that a cell's database was restored: then the mappings are right, and the cell is wrong.
    Look for guests of these servers first.
"""

from datetime import timedelta

from cloudfsck.model import Check, Row, Scenario


def _is(column: str, value: object) -> str:
    """A condition of MySQL's that holds for this value alone; NULL is one."""
    if value is None:
        return f"{column} IS NULL"
    if isinstance(value, bool | int):
        return f"{column} = {int(value)}"
    quoted = str(value).replace("\\", "\\\\").replace("'", "''")
    return f"{column} = '{quoted}'"


def _commands(row: Row) -> list[str]:
    server = row["server"]
    was = {"id": row["mapping"], "instance_uuid": server, "cell_id": row["cell_id"], "project_id": row["project"],
           "created_at": row["created_at"], "updated_at": row["updated_at"]}  # fmt: skip
    if row["queued_for_delete"] is not None:  # releases before Rocky do not have it
        was["queued_for_delete"] = row["queued_for_delete"]
    mine = " AND ".join(_is(column, value) for column, value in was.items())
    sql = [
        "START TRANSACTION",
        f"SELECT * FROM instance_mappings WHERE instance_uuid = '{server}' FOR UPDATE",
        f"SELECT * FROM request_specs WHERE instance_uuid = '{server}' FOR UPDATE",
        f"DELETE FROM instance_mappings WHERE {mine}",
        "SELECT ROW_COUNT() AS must_be_one",
    ]
    if row["request_spec"] is not None:
        sql += [
            f"DELETE FROM request_specs WHERE id = {row['request_spec']} AND instance_uuid = '{server}'",
            "SELECT ROW_COUNT() AS must_be_one",
        ]
    return [
        f"on a controller: nova-manage cell_v2 verify_instance --uuid {server}",
        f"on the server of Nova's API database: mysqldump --no-create-info --where=\"instance_uuid='{server}'\""
        f" nova_api instance_mappings request_specs > {server}.sql",
        f"in Nova's API database (MySQL): {'; '.join(sql)};",
        "in the same session: COMMIT if every must_be_one is 1, and ROLLBACK if one is anything else",
    ]


CHECK = Check(
    text=__doc__,
    accused=("nova_instance_mappings",),
    query="""
        WITH strangers AS MATERIALIZED (
            SELECT m.*
              FROM nova_instance_mappings m
             WHERE NOT EXISTS (SELECT 1 FROM nova_instances i WHERE i.uuid = m.instance_uuid)
               AND NOT EXISTS (SELECT 1 FROM nova_shadow_instances i WHERE i.uuid = m.instance_uuid))
        SELECT m.instance_uuid AS key, m.instance_uuid AS server, m.project_id AS project, c.cell, m.id AS mapping,
               m.cell_id, m.queued_for_delete, m.created_at, m.updated_at, r.id AS request_spec,
               [] AS hosts, NULL AS cells,
               greatest(m.created_at, m.updated_at) AS since, 'api:nova_api' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM strangers m
          LEFT JOIN nova_cell_mappings c ON c.id = m.cell_id
          LEFT JOIN nova_request_specs r ON r.instance_uuid = m.instance_uuid
         WHERE m.project_id IS DISTINCT FROM 'INSTANCE_MIGRATION_MARKER'  -- the bookmark of nova-manage map_instances
           AND (c.cell IS NULL
                OR EXISTS (SELECT 1 FROM read_parts p WHERE p.table_name = 'nova_instances' AND p.part = c.cell))
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = m.instance_uuid)
    """,
    commands=_commands,
    settle=timedelta(days=1),
    scenarios=(
        Scenario(
            "with a cell and without; one with its request, one queued for deletion", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances   cell   id  uuid  host  vm_state  deleted
                             cell1  1   s-3   c1    active    0
            nova_instance_mappings  id  instance_uuid  cell_id  project_id  queued_for_delete  created_at  updated_at
                                    1   s-1            cell1    p-1         false              -9d         -8d
                                    2   s-2            -        p-1         true               -9d         -
                                    3   s-3            cell1    p-1         false              -9d         -
                                    4   s-4            -        -           -                  -9d         -
            nova_request_specs      id  instance_uuid
                                    1   s-1
                                    3   s-3
            """,
            finds=("s-1", "s-2", "s-4")),
        Scenario(
            "deleted or archived, in whatever cell: the mapping goes with the row", """
            hosts cell1      c1
            nova_instances         cell   uuid  host  vm_state  deleted  deleted_at
                                   cell2  s-1   c1    deleted   1        -9d
            nova_shadow_instances  cell   uuid  host  vm_state  deleted  deleted_at
                                   cell2  s-2   c1    deleted   2        -9d
            nova_instance_mappings  id  instance_uuid  cell_id  created_at
                                    1   s-1            cell1    -9d
                                    2   s-2            cell1    -9d
            """),
        Scenario(
            "its cell could not be read: that is not told again for each of its servers", """
            hosts cell1      c1
            hosts cell2      c2
            nova_instances         cell   uuid  host  vm_state  deleted
                                   cell1  s-2   c1    active    0
            nova_instance_mappings  id  instance_uuid  cell_id  created_at
                                    1   s-1            cell2    -9d
                                    2   s-2            cell1    -9d
            lost nova_instances cell2
            """),
        Scenario(
            "asked for and never scheduled; and the bookmark of nova-manage", """
            hosts cell1      c1
            nova_instance_mappings  id  instance_uuid  cell_id  project_id                 created_at
                                    1   s-1            -        p-1                        -9d
                                    2   s-2            -        INSTANCE_MIGRATION_MARKER  -9d
            nova_build_requests     id  instance_uuid
                                    9   s-1
            """),
    ),
)  # fmt: skip
