"""Nova deleted the server, and Placement still has resources allocated to it.

Why it matters
    The scheduler takes them for used: new servers are refused with "No valid host" by hosts that have room.  With
    `[quota] count_usage_from_placement` they count against the quota of the project.  A compute node that has such an
    allocation cannot be deleted.
How it comes about
    Placement did not answer while the server was deleted, or the service died in between.  nova-compute frees what it
    finds of deleted servers on its own node (nova/compute/resource_tracker.py: _remove_deleted_instances_allocations),
    but not when the server's row is archived by then, and not while it does not run.
What the repair does
    Through Placement's API it has the consumer have nothing, and names the generation that was seen: whoever changed it
    first has won.  `undo` gives it the same back, if nobody has the room by then.
When not to repair
    While a guest of that server still runs: it uses what is allocated.  While servers are being restored from a backup of
    Nova's database.
"""

from collections.abc import Iterable

from cloudfsck.acts import allocation
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[allocation.Take]:
    yield allocation.Take.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack resource provider allocation show {row['consumer']}"
    for host in row["guests_on"]:
        yield f"on {host}: virsh dominfo {row['server']}"
    yield f"as an administrator, once no guest runs: {allocation.Take.of(row).command}"


CHECK = Check(
    text=__doc__,
    accused=("placement_allocations",),
    query="""
        SELECT c.consumer AS key, g.server, g.name AS server_name, g.project, g.host AS last_host, g.deleted_at, c.consumer,
               c.amounts AS taken, [] AS kept, c.generation, c.changed AS allocated_at,
               coalesce(v.on_hosts, []) AS guests_on, c.hosts,
               CASE WHEN m.cell IS NOT NULL THEN list_sort(list_distinct([m.cell, g.cell])) END AS cells,
               greatest(c.changed, g.deleted_at) AS since,
               CASE WHEN g.deleted_at > c.changed THEN 'cell:' || g.cell ELSE 'placement:placement' END AS clock,
               CASE WHEN v.on_hosts IS NOT NULL THEN 'a guest of it is there, on ' || array_to_string(v.on_hosts, ', ')
                    WHEN c.generation IS NULL THEN 'Placement tells no generation of it' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM consumers c
          JOIN gone_servers g ON g.server = c.consumer
          LEFT JOIN mapped_servers m ON m.server = g.server
          LEFT JOIN consumer_guests v ON v.consumer = c.consumer
         WHERE NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = g.server)
           AND NOT EXISTS (SELECT 1 FROM unfinished_deletions f WHERE f.server = g.server)
           AND NOT EXISTS (SELECT 1 FROM compute_services s WHERE list_contains(list_append(c.on_hosts, g.host), s.host) AND s.just_down)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "deleted, archived; inside a compute node and on shared storage; a guest is there or elsewhere; without a generation", """
            hosts cell1      c1 c2
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
                             c2    cell1  true  true
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted
                                cell1  r-1   c1    n-1                  0
                                cell1  r-2   c2    n-2                  0
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -3d
                             cell1  s-3   c2    3        -3d
                             cell1  s-4   c2    4        -3d
                             cell1  s-5   c2    5        -3d
                             cell1  s-6   c2    6        -3d
                             cell1  s-7   c2    7        -3d
                             cell1  s-8   c2    8        -3d
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-2   c9    2        -9d
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            libvirt_domains  host  uuid  state    nova  id
                             c2    s-3   running  true  3
                             c2    s-5   shutoff  true  -
                             c1    s-7   shutoff  true  -
                             c1    s-8   shutoff  true  -
            qemu_processes   host  uuid  pid
                             c2    s-3   33
                             c2    s-6   36
            placement_resource_classes  id   name
                                        101  VCPU
                                        102  DISK_GB
                                        103  NET_BW_EGR_KILOBIT_PER_SEC
            placement_providers  id   uuid  name  root_provider_id
                                 101  r-1   n-1   101
                                 102  r-2   n-2   -
                                 103  r-3   o-1   103
                                 104  r-4   o-2   101
            placement_consumers  id   uuid  generation
                                 101  s-1   4
                                 102  s-2   1
                                 103  s-3   1
                                 105  s-5   1
                                 106  s-6   1
                                 107  s-7   1
                                 108  s-8   1
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   101  s-1          101                   101                2     -9d
                                   102  s-1          103                   102                10    -9d
                                   103  s-1          104                   103                64    -9d
                                   104  s-2          102                   101                1     -2d
                                   105  s-3          102                   101                1     -9d
                                   106  s-4          102                   101                1     -9d
                                   107  s-5          102                   101                1     -9d
                                   108  s-6          102                   101                1     -9d
                                   109  s-7          102                   101                1     -9d
                                   110  s-8          103                   102                1     -9d
            """,
            finds=("s-1", "s-2", "s-3", "s-4", "s-5", "s-6", "s-7", "s-8"),
            plans="""
            take 2 VCPU of n-1, 10 DISK_GB of o-1, 64 NET_BW_EGR_KILOBIT_PER_SEC of o-2 from server s-1 in Placement
            take 1 VCPU of n-2 from server s-2 in Placement
            take 1 VCPU of n-2 from server s-7 in Placement
            """),
        Scenario(
            "it lives, is under way, or its deletion is; the host has just gone down; another's consumer", """
            hosts cell1      c1
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c3    nova-compute  -2h           0        false
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted
                                cell1  r-11  c1    n-11                 0
                                cell1  r-13  c3    n-13                 0
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c1    0        -           0
                             cell1  s-2   c1    2        -2h         0
                             cell1  s-3   c3    3        -9d         1
                             cell1  s-4   c1    4        -9d         1
                             cell1  s-6   c1    6        -9d         1
            nova_build_requests  id  instance_uuid  volumes
                                 1   s-6            []
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            placement_resource_classes  id   name
                                        111  VCPU
            placement_providers  id   uuid  name  root_provider_id
                                 111  r-11  n-11  111
                                 113  r-13  n-13  113
            placement_consumer_types  id   name
                                      117  RESERVATION
            placement_consumers  id   uuid  generation  consumer_type_id
                                 111  s-1   1           -
                                 112  s-2   1           -
                                 113  s-3   1           -
                                 114  s-4   1           -
                                 116  s-6   1           -
                                 117  s-7   1           117
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   111  s-1          111                   111                1     -9d
                                   112  s-2          111                   111                1     -9d
                                   113  s-3          111                   111                1     -9d
                                   114  s-4          113                   111                1     -9d
                                   116  s-6          111                   111                1     -9d
                                   117  s-7          111                   111                1     -9d
            """),
    ),
)  # fmt: skip
