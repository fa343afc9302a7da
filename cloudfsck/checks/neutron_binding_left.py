"""A port has an inactive binding on a host to which its server did not go.

Why it matters
    The next live migration to that host fails, for Nova cannot make a binding that is there; and the host may be kept
    ready for traffic that never comes.
How it comes about
    A live migration makes one on its target (nova/compute/manager.py: pre_live_migration), and deletes it when it fails,
    or the other one when it has succeeded.  Neutron did not answer just then, or the conductor died in between.
What the repair does
    It deletes the inactive binding through Neutron's API, right after both were seen as they were.  It cannot be undone;
    whoever migrates the server makes another.  `neutron-remove-duplicated-port-bindings` would delete all of them at once,
    also those of migrations that are under way.
When not to repair
    While the server moves.
"""

from collections.abc import Iterable

from cloudfsck.acts import port
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[port.DeleteBinding]:
    yield port.DeleteBinding(row["server"], row["port"], row["bound_to"], row["active_on"])


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port binding list {row['port']}; openstack server show {row['server']}"
    for act in _repair(row):
        yield f"as an administrator, while the server does not move: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_port_bindings",),
    query="""
        SELECT p.port || '/' || b.host AS key, p.server, l.name, l.project, l.cell, p.port, b.host AS bound_to, b.vif_type,
               p.bound_to AS active_on, p.revision, p.updated_at, [p.port] AS also,
               list_sort([l.host, b.host]) AS hosts, NULL AS cells,
               NULL AS since, 'neutron:neutron' AS clock,
               CASE WHEN EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.uuid = p.server AND d.host = b.host)
                    THEN 'there is a domain of the server on ' || b.host END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM neutron_port_bindings b
          JOIN server_ports p ON p.port = b.port_id
          JOIN live_servers l ON l.server = p.server
         WHERE b.status = 'INACTIVE'
           AND p.bound_to = l.host
           AND NOT EXISTS (SELECT 1 FROM busy_servers y WHERE y.server = p.server)
           AND NOT EXISTS (SELECT 1 FROM last_moves o WHERE o.server = p.server AND o.recent)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "after a migration that failed; and where a domain of it is on that host, too", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        active
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
            nova_migrations  cell   id  instance_uuid  status  migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  1   s-1            error   live-migration  c1              c2            -2d         0
            libvirt_domains  host  uuid  state    nova  id  xml_sha256
                             c1    s-1   running  true  1   d1
                             c1    s-2   running  true  2   d2
                             c2    s-2   paused   true  3   d3
            qemu_processes   host  uuid  pid
                             c1    s-1   101
                             c1    s-2   102
                             c2    s-2   103
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  fa:01        4                -9d         -9d
                             p-2  compute:nova  s-2        ACTIVE  fa:02        4                -9d         -9d
            neutron_port_bindings  port_id  host  status    vif_type
                                   p-1      c1    ACTIVE    ovs
                                   p-1      c2    INACTIVE  ovs
                                   p-2      c1    ACTIVE    ovs
                                   p-2      c2    INACTIVE  ovs
            """,
            finds=("p-1/c2", "p-2/c2"),
            plans="delete the inactive binding of port p-1 on c2; the active one is on c1"),
        Scenario(
            "it moves, or has just moved; its active binding is elsewhere too; a server that is gone; one binding alone", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state  task_state
                             cell1  s-1   c1    0        active    migrating
                             cell1  s-2   c1    0        active    -
                             cell1  s-3   c1    0        active    -
                             cell1  s-4   c1    0        active    -
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
            nova_migrations  cell   id  instance_uuid  status  migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  1   s-2            error   live-migration  c1              c2            -20m        0
            libvirt_domains  host  uuid  state    nova  id  xml_sha256
                             c1    s-1   running  true  1   d1
                             c1    s-2   running  true  2   d2
                             c1    s-3   running  true  3   d3
                             c1    s-4   running  true  4   d4
            qemu_processes   host  uuid  pid
                             c1    s-1   101
                             c1    s-2   102
                             c1    s-3   103
                             c1    s-4   104
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  fa:01        4                -9d         -9d
                             p-2  compute:nova  s-2        ACTIVE  fa:02        4                -9d         -9d
                             p-3  compute:nova  s-3        ACTIVE  fa:03        4                -10m        -10m
                             p-4  compute:nova  s-4        ACTIVE  fa:04        4                -9d         -9d
            neutron_port_bindings  port_id  host  status    vif_type
                                   p-1      c1    ACTIVE    ovs
                                   p-1      c2    INACTIVE  ovs
                                   p-2      c1    ACTIVE    ovs
                                   p-2      c2    INACTIVE  ovs
                                   p-3      c9    ACTIVE    ovs
                                   p-3      c2    INACTIVE  ovs
                                   p-4      c1    ACTIVE    ovs
            """),
    ),
)  # fmt: skip
