"""Placement has a resource provider of a compute node that Nova deleted.

Why it matters
    The scheduler may choose it, and finds no host behind it.  A new compute node of the same name cannot have a provider,
    for its name is taken: nova-compute starts, and no server is ever put there (LP 1817833).
How it comes about
    `openstack compute service delete` could not delete the provider, since something was allocated on it (LP 1829479: what
    evacuated servers had there); or Placement did not answer; or a row was deleted by hand.
What the repair does
    There is none: a provider may carry inventories, traits and aggregates that somebody set.  Placement itself refuses to
    delete one of which something is allocated (shown with the finding).
When not to repair
    While the host is to come back with its old database row, from a backup.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    provider = row["provider"]
    yield f"as an administrator: openstack resource provider show --allocations {provider}"
    yield f"as an administrator, once nothing is allocated on it: openstack resource provider delete {provider}"


CHECK = Check(
    text=__doc__,
    accused=("placement_providers",),
    query="""
        SELECT p.uuid AS key, NULL AS server, p.uuid AS provider, p.name, n.cell, n.host, n.deleted_at, p.created_at,
               [] AS hosts, NULL AS cells, n.deleted_at AS since, 'cell:' || n.cell AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM placement_providers p
          JOIN (SELECT uuid, arg_max(cell, deleted_at) AS cell, arg_max(host, deleted_at) AS host, max(deleted_at) AS deleted_at
                  FROM nova_compute_nodes GROUP BY uuid HAVING bool_and(coalesce(deleted, 0) <> 0)) n ON n.uuid = p.uuid
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "it is deleted", """
            hosts cell1      c1
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted  deleted_at
                                cell1  r-2   c2    n-2                  2        -9d
                                cell1  r-2   c2    n-2                  3        -8d
            placement_providers  id   uuid  name  root_provider_id  created_at
                                 222  r-2   n-2   222               -90d
            """,
            finds=("r-2",)),
        Scenario(
            "it lives, has come back, is none of a compute node", """
            hosts cell1      c1
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted  deleted_at
                                cell1  r-11  c1    n-11                 0        -
                                cell1  r-14  c4    n-14                 4        -9d
                                cell1  r-14  c4    n-14                 0        -
            placement_providers  id   uuid  name  root_provider_id  created_at
                                 226  r-11  n-11  226               -90d
                                 227  r-14  n-14  227               -90d
                                 228  r-15  o-15  228               -90d
            """),
    ),
)  # fmt: skip
