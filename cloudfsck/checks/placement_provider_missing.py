"""Placement has no resource provider of a compute node.

Why it matters
    No server is ever put on the host, and none that is there can be moved: the scheduler does not know it.
How it comes about
    A provider of another UUID has the node's name, as after the node was deleted and came back, and nova-compute cannot
    make its own ("ResourceProviderCreationFailed", LP 1817833).  Or the provider was deleted by hand.
What the repair does
    There is none: nova-compute makes the provider itself, within a minute, once nothing is in its way.
When not to repair
    While nova-compute there does not run; it is not found then.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    if (other := row["in_the_way"]) is not None:
        yield f"as an administrator: openstack resource provider show --allocations {other}"
        yield f"as an administrator, once nothing is allocated on it: openstack resource provider delete {other}"
    yield f"on {row['host']}: journalctl -u nova-compute | grep -i placement"
    yield f"on {row['host']}, then: systemctl restart nova-compute"
    # A new one is in no aggregate there, and no availability zone is looked for on it.
    yield "on a controller, when it has made its provider: nova-manage placement sync_aggregates"


CHECK = Check(
    text=__doc__,
    accused=("nova_compute_nodes",),
    query="""
        SELECT n.uuid AS key, NULL AS server, n.uuid AS provider, n.cell, n.host, n.node, n.created_at,
               (SELECT any_value(p.uuid) FROM placement_providers p WHERE p.name = n.node) AS in_the_way,
               [] AS hosts, [n.cell] AS cells, n.created_at AS since, 'cell:' || n.cell AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_compute_nodes n
          JOIN compute_services s ON s.host = n.host AND s.up
         WHERE n.uuid IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM placement_providers p WHERE p.uuid = n.uuid)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "another has its name, or nobody", """
            hosts cell1      c1 c2
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted  created_at
                                cell1  r-1   c1    n-1                  0        -9d
                                cell1  r-2   c2    n-2                  0        -90d
            placement_providers  id   uuid  name  root_provider_id
                                 231  r-22  n-1   231
            """,
            finds=("r-1", "r-2")),
        Scenario(
            "it is there; its nova-compute is down; it is deleted; of a release without such UUIDs", """
            hosts cell1      c1 c3
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c2    nova-compute  -9d           0        false
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted  created_at
                                cell1  r-11  c1    n-11                 0        -90d
                                cell1  r-12  c2    n-12                 0        -90d
                                cell1  -     c3    n-13                 0        -90d
                                cell1  r-14  c3    n-14                 4        -90d
            placement_providers  id   uuid  name  root_provider_id
                                 236  r-11  n-11  236
            """),
    ),
)  # fmt: skip
