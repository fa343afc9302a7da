"""Placement has nothing allocated to the server on the node that it is on.

Why it matters
    The scheduler takes for free what the server uses: it puts more servers on the host than it can bear.
How it comes about
    The allocations were deleted: by `nova-manage placement audit --delete`, which takes those of a server that moves, or
    whose cell does not answer, for orphans; or by hand.  The server was moved by hand, in the database.  Or the service
    died in the midst of a move that took them from it.
What the repair does
    There is none: what the server is to have depends on its flavor, its image and its ports, and only Nova knows
    (`nova-manage placement heal_allocations`, shown with the finding).
When not to repair
    A server of a flavor that asks for nothing of a node's (resources:VCPU=0 and the like, with its disk on a volume) has
    nothing.
"""

from collections.abc import Iterable
from datetime import timedelta

from cloudfsck.acts import allocation
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    server = row["server"]
    yield f"as an administrator: openstack resource provider allocation show {server}"
    for other in row["has_of"]:
        # Nova gives nothing to one that has something (nova/cmd/manage.py: _heal_missing_alloc).
        yield f"as an administrator, if its guest is not there: {allocation.unset(server, other)}"
    yield f"on a controller: nova-manage placement heal_allocations --dry-run --instance {server}"
    yield f"on a controller, if that is what it has: nova-manage placement heal_allocations --instance {server}"


CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        SELECT l.server AS key, l.server, l.name, l.project, l.cell, l.host, l.node, n.uuid AS provider, l.vm_state,
               coalesce((SELECT list(a.tree ORDER BY a.tree) FROM allocated a WHERE a.consumer = l.server), []) AS has_of,
               [] AS hosts, [l.cell] AS cells, NULL AS since, 'cell:' || l.cell AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM live_servers l
          JOIN server_nodes n ON n.server = l.server
          JOIN placement_providers p ON p.uuid = n.uuid
         WHERE n.type IS DISTINCT FROM 'ironic'
           AND l.vm_state IN ('active', 'paused', 'stopped', 'suspended', 'rescued', 'soft-delete', 'shelved')
           AND NOT EXISTS (SELECT 1 FROM allocated a WHERE a.consumer = l.server AND a.tree = n.uuid)
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = l.server)
           AND NOT EXISTS (SELECT 1 FROM last_moves o WHERE o.server = l.server AND o.recent)
    """,
    commands=_commands,
    settle=timedelta(hours=6),
    scenarios=(
        Scenario(
            "nothing at all, of another node, of shared storage alone; in every state", """
            hosts cell1      c1
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  hypervisor_type  deleted
                                cell1  r-1   c1    n-1                  QEMU             0
            nova_migrations  cell   id  uuid  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  11  u-1   s-1            confirmed  resize          c2              c1            -2d         0
            nova_instances   cell   uuid  host  node  deleted  vm_state
                             cell1  s-1   c1    n-1   0        active
                             cell1  s-2   c1    n-1   0        paused
                             cell1  s-3   c1    n-1   0        suspended
                             cell1  s-4   c1    n-1   0        stopped
                             cell1  s-5   c1    n-1   0        rescued
                             cell1  s-6   c1    n-1   0        soft-delete
                             cell1  s-7   c1    n-1   0        shelved
                             cell1  s-8   c1    n-1   0        active
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
                                    s-6            cell1
                                    s-7            cell1
                                    s-8            cell1
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-8   running  true  8
                             c1    s-1   running  true  1
                             c1    s-2   paused   true  2
                             c1    s-3   shutoff  true  -
                             c1    s-4   shutoff  true  -
                             c1    s-5   running  true  5
                             c1    s-6   shutoff  true  -
                             c1    s-7   shutoff  true  -
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
                             c1    s-5   15
                             c1    s-8   18
            placement_resource_classes  id   name
                                        201  VCPU
            placement_providers  id   uuid  name  root_provider_id
                                 201  r-1   n-1   201
                                 202  r-2   n-2   202
                                 203  r-3   o-3   203
            placement_consumers  id   uuid  generation
                                 202  s-2   4
                                 203  s-3   4
                                 208  s-8   4
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   208  s-8          201                   201                1     -9d
                                   202  s-2          202                   201                1     -9d
                                   203  s-3          203                   201                1     -9d
            """,
            finds=("s-1", "s-2", "s-3", "s-4", "s-5", "s-6", "s-7")),
        Scenario(
            "it has it; is built, shelved away, under way, moved just now; its node has no provider, or is a machine of Ironic's", """
            hosts cell1      c1 c2 c3
            hosts cell2      c4
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  hypervisor_type  deleted
                                cell1  r-11  c1    n-11                 QEMU             0
                                cell1  r-15  c1    n-15                 QEMU             0
                                cell1  r-16  c2    n-11                 QEMU             0
                                cell2  r-17  c1    n-11                 QEMU             0
                                cell1  r-12  c2    n-12                 QEMU             0
                                cell1  r-13  c3    n-13                 ironic           0
            nova_instances   cell   uuid  host  node  deleted  vm_state           task_state  deleted_at
                             cell1  s-1   c1    n-11  0        active             -           -
                             cell1  s-2   -     -     0        building           scheduling  -
                             cell1  s-3   -     -     0        shelved_offloaded  -           -
                             cell1  s-4   c1    n-11  0        active             migrating   -
                             cell1  s-5   c1    n-11  0        active             -           -
                             cell1  s-6   c2    n-12  0        active             -           -
                             cell1  s-7   c3    n-13  0        active             -           -
                             cell1  s-8   c1    n-11  0        error              -           -
                             cell1  s-9   c1    n-11  9        deleted            -           -3d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
                                    s-6            cell1
                                    s-7            cell1
                                    s-8            cell1
            nova_migrations  cell   id  uuid  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  12  u-5   s-5            confirmed  resize          c2              c1            -10m        0
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
                             c1    s-4   running  true  4
                             c1    s-5   running  true  5
                             c2    s-6   running  true  6
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-4   14
                             c1    s-5   15
                             c2    s-6   16
            placement_resource_classes  id   name
                                        211  VCPU
            placement_providers  id   uuid  name  root_provider_id
                                 211  r-11  n-11  211
                                 213  r-13  n-13  213
                                 215  r-15  n-15  215
                                 216  r-16  n-11  216
                                 217  r-17  n-11  217
                                 214  r-14  o-14  211
            placement_consumers  id   uuid  generation
                                 211  s-1   4
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   211  s-1          214                   211                1     -9d
            """),
    ),
)  # fmt: skip
