"""Placement has resources of another node allocated to the server as well.

Why it matters
    The scheduler takes them for used, on a host that the server has left: new servers are refused with "No valid host" by
    hosts that have room, and the server counts twice.  A compute node that has such an allocation cannot be deleted.
How it comes about
    The server was evacuated, and nova-compute never came back on the host that it was evacuated from, which would have
    freed it (nova/compute/manager.py: _destroy_evacuated_instances); a service died in the midst of a move; or the server
    was moved by hand, in the database.
What the repair does
    Through Placement's API it has the server have what it has without the other node, and names the generation that was
    seen: whoever changed it first has won.  `undo` gives it the same back, if nobody has the room by then.
When not to repair
    While a guest of the server is on the other host.  While nova-compute of the other host is down and may come back: it
    frees that itself, and it is not found until the service is deleted.
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
    yield f"as an administrator, once its only guest is on {row['server_host']}: {allocation.Take.of(row).command}"


CHECK = Check(
    text=__doc__,
    accused=("placement_allocations",),
    query="""
        WITH nodes AS (
            SELECT n.uuid, list(DISTINCT n.host ORDER BY n.host) AS hosts
              FROM nova_compute_nodes n
             GROUP BY n.uuid),
        wrong AS (
            SELECT l.server, l.cell, l.host, l.node, l.name, l.project, n.uuid AS own,
                   list(a.tree ORDER BY a.tree) AS trees, flatten(list(a.amounts ORDER BY a.tree)) AS taken,
                   flatten(list(o.hosts ORDER BY a.tree)) AS others
              FROM live_servers l
              JOIN roster r ON r.host = l.host AND r.libvirt
              JOIN server_nodes n ON n.server = l.server
              JOIN allocated a ON a.consumer = l.server AND a.tree <> n.uuid
              JOIN nodes o ON o.uuid = a.tree
             GROUP BY ALL)
        SELECT w.server AS key, w.server, w.name AS server_name, w.project, w.cell, w.host AS server_host, w.node,
               w.others AS other_hosts, w.server AS consumer, w.taken,
               coalesce((SELECT flatten(list(k.amounts ORDER BY k.tree)) FROM allocated k
                          WHERE k.consumer = w.server AND NOT list_contains(w.trees, k.tree)), []) AS kept,
               c.generation, c.changed AS allocated_at,
               coalesce(v.on_hosts, []) AS guests_on,
               c.hosts, [w.cell] AS cells, c.changed AS since, 'placement:placement' AS clock,
               CASE WHEN len(list_filter(guests_on, lambda host: host <> w.host)) > 0
                    THEN 'a guest of the server is there, on ' || array_to_string(guests_on, ', ')
                    WHEN c.generation IS NULL THEN 'Placement tells no generation of it' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM wrong w
          JOIN consumers c ON c.consumer = w.server
          LEFT JOIN consumer_guests v ON v.consumer = w.server
         WHERE EXISTS (SELECT 1 FROM allocated k WHERE k.consumer = w.server AND k.tree = w.own)
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = w.server)
           AND NOT EXISTS (SELECT 1 FROM last_moves o WHERE o.server = w.server AND o.recent)
           AND NOT EXISTS (SELECT 1 FROM unreturned_evacuations u WHERE u.server = w.server AND list_contains(w.others, u.host))
           AND NOT EXISTS (SELECT 1 FROM compute_services s WHERE list_contains(list_append(w.others, w.host), s.host) AND s.just_down)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a node that is deleted, or lives; inside a node; beside shared storage; a guest is there; no generation", """
            hosts cell1      c1 c2
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c4    nova-compute  -9d           0        true
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
                             c2    cell1  true  true
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted
                                cell1  r-1   c1    n-1                  0
                                cell1  r-2   c2    n-2                  0
                                cell1  r-3   c3    n-3                  3
                                cell1  r-6   c4    n-6                  0
            nova_instances   cell   uuid  host  node  deleted
                             cell1  s-1   c1    n-1   0
                             cell1  s-2   c1    n-1   0
                             cell1  s-3   c1    n-1   0
                             cell1  s-4   c1    n-1   0
                             cell1  s-5   c1    n-1   0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
            nova_migrations  cell   id  uuid  instance_uuid  status  migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  1   u-1   s-1            done    evacuation      c3              c1            -2d         0
                             cell1  2   u-2   s-2            done    evacuation      c4              c1            -2d         0
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
                             c1    s-2   running  true  2
                             c2    s-3   running  true  3
                             c1    s-3   running  true  4
                             c1    s-4   running  true  5
                             c1    s-5   running  true  6
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
                             c2    s-3   13
                             c1    s-3   14
                             c1    s-4   15
                             c1    s-5   16
            placement_resource_classes  id   name
                                        151  VCPU
                                        152  DISK_GB
                                        153  CUSTOM_NET
            placement_providers  id   uuid  name  root_provider_id
                                 151  r-1   n-1   151
                                 152  r-2   n-2   152
                                 153  r-3   n-3   153
                                 154  r-4   o-1   154
                                 155  r-5   o-2   152
                                 156  r-6   n-6   156
            placement_consumers  id   uuid  generation
                                 151  s-1   4
                                 152  s-2   4
                                 153  s-3   4
                                 155  s-5   4
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   151  s-1          151                   151                1     -9d
                                   152  s-1          153                   151                1     -9d
                                   153  s-1          154                   152                5     -9d
                                   154  s-2          151                   151                1     -9d
                                   155  s-2          152                   151                1     -9d
                                   156  s-2          155                   153                7     -9d
                                   157  s-3          151                   151                1     -9d
                                   158  s-3          152                   151                1     -9d
                                   159  s-4          151                   151                1     -9d
                                   160  s-4          152                   151                1     -9d
                                   151  s-5          151                   151                1     -9d
                                   150  s-5          156                   151                1     -9d
            """,
            finds=("s-1", "s-2", "s-3", "s-4", "s-5"),
            plans="""
            take 1 VCPU of n-3 from server s-1 in Placement; 1 VCPU of n-1, 5 DISK_GB of o-1 stays
            take 1 VCPU of n-2, 7 CUSTOM_NET of o-2 from server s-2 in Placement; 1 VCPU of n-1 stays
            take 1 VCPU of n-6 from server s-5 in Placement; 1 VCPU of n-1 stays
            """),
        Scenario(
            "under way; moved just now; evacuated from a host that may return, or has just gone down; none of its own; shared; a host without guests", """
            hosts cell1      c1 c2
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c3    nova-compute  -9d           0        true
                             cell1  c4    nova-compute  -2h           0        false
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
                             c2    cell1  true  true
                             c5    cell1  true  false
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted
                                cell1  r-16  c5    n-16                 0
                                cell1  r-11  c1    n-11                 0
                                cell1  r-12  c2    n-12                 0
                                cell1  r-13  c3    n-13                 0
                                cell1  r-14  c4    n-14                 0
            nova_instances   cell   uuid  host  node  deleted  task_state
                             cell1  s-1   c1    n-11  0        migrating
                             cell1  s-2   c1    n-11  0        -
                             cell1  s-3   c1    n-11  0        -
                             cell1  s-4   c1    n-11  0        -
                             cell1  s-5   c1    n-11  0        -
                             cell1  s-6   c1    n-11  0        -
                             cell1  s-7   c5    n-16  0        -
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
                                    s-6            cell1
                                    s-7            cell1
            nova_migrations  cell   id  uuid  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  12  u-2   s-2            confirmed  resize          c2              c1            -10m        0
                             cell1  13  u-3   s-3            done       evacuation      c3              c1            -2d         0
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
                             c1    s-2   running  true  2
                             c1    s-3   running  true  3
                             c1    s-4   running  true  4
                             c1    s-5   running  true  5
                             c1    s-6   running  true  6
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
                             c1    s-3   13
                             c1    s-4   14
                             c1    s-5   15
                             c1    s-6   16
            placement_resource_classes  id   name
                                        161  VCPU
                                        162  DISK_GB
            placement_providers  id   uuid  name  root_provider_id
                                 161  r-11  n-11  161
                                 162  r-12  n-12  162
                                 163  r-13  n-13  163
                                 164  r-14  n-14  164
                                 165  r-15  o-15  165
                                 166  r-16  n-16  166
            placement_consumers  id   uuid  generation
                                 161  s-1   4
                                 162  s-2   4
                                 163  s-3   4
                                 164  s-4   4
                                 165  s-5   4
                                 166  s-6   4
                                 167  s-7   4
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   161  s-1          161                   161                1     -9d
                                   162  s-1          162                   161                1     -9d
                                   163  s-2          161                   161                1     -9d
                                   164  s-2          162                   161                1     -9d
                                   165  s-3          161                   161                1     -9d
                                   166  s-3          163                   161                1     -9d
                                   167  s-4          161                   161                1     -9d
                                   168  s-4          164                   161                1     -9d
                                   169  s-6          161                   161                1     -9d
                                   170  s-6          165                   162                5     -9d
                                   171  s-5          162                   161                1     -9d
                                   172  s-7          166                   161                1     -9d
                                   173  s-7          162                   161                1     -9d
            """),
    ),
)  # fmt: skip
