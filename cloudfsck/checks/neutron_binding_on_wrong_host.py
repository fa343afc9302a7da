"""A server's port is bound to another host than the server is on, or to none.

Why it matters
    The server is cut off: the network sends its traffic to the other host, or nowhere, and the guest looks well.
How it comes about
    A migration or an evacuation went on although Neutron did not answer (nova/network/neutron.py:
    migrate_instance_finish, _update_port_binding_for_instance), a host was rebuilt under another name, or the binding
    failed because the agent of the host was down (`binding_failed`).
What the repair does
    There is none: which host is right shows only on the hosts.  Where the server runs on the host that Nova says, an
    account with the role `service` may bind the port there; a hard reboot then plugs it in.
When not to repair
    While the server moves.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port show {row['port']}; openstack server show {row['server']}"
    yield f"on {row['host']}: virsh domiflist {row['server']}"
    yield f"as a service, if the server runs there: openstack port set --host {row['host']} {row['port']}"
    yield f"as an administrator, then: openstack server reboot --hard {row['server']}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_port_bindings",),
    query="""
        SELECT p.port AS key, p.server, l.name, l.project, l.cell, l.host, l.vm_state, p.port, p.bound_to, p.vif_type,
               p.status, p.revision, p.updated_at, [p.port] AS also, [l.host] AS hosts, NULL AS cells,
               p.changed AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM server_ports p
          JOIN live_servers l ON l.server = p.server
          JOIN roster r ON r.host = l.host AND r.libvirt
         WHERE (p.bound_to <> l.host OR p.vif_type = 'binding_failed')
           AND l.vm_state IN ('active', 'paused')
           AND EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.uuid = p.server AND d.host = l.host)
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = p.server)
           AND NOT EXISTS (SELECT 1 FROM last_moves o WHERE o.server = p.server AND o.recent)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "bound elsewhere, to none, or in vain", """
            hosts cell1      c1 c2
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        paused
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
            nova_migrations  cell   id  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  1   s-1            completed  live-migration  c2              c1            -2d         0
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   paused   true
            qemu_processes   host  uuid  pid
                             c1    s-1   11
                             c1    s-2   12
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        DOWN    fa:01        4                -9d         -9d
                             p-2  compute:nova  s-2        DOWN    fa:02        4                -9d         -9d
            neutron_port_bindings  port_id  host  status    vif_type
                                   p-1      c2    ACTIVE    ovs
                                   p-2      c1    ACTIVE    binding_failed
            """,
            finds=("p-1", "p-2")),
        Scenario(
            "bound where it is; it moves, or has just moved; stopped; shelved; of bare metal; its domain is not there", """
            hosts cell1      c1 c2
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
                             c2    cell1  true  true
                             c9    cell1  true  false
            nova_instances   cell   uuid  host  deleted  vm_state           task_state
                             cell1  s-1   c1    0        active             -
                             cell1  s-2   c1    0        active             migrating
                             cell1  s-3   c1    0        active             -
                             cell1  s-4   c1    0        stopped            -
                             cell1  s-5   -     0        shelved_offloaded  -
                             cell1  s-6   c9    0        active             -
                             cell1  s-7   c1    0        active             -
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
                                    s-6            cell1
                                    s-7            cell1
            nova_migrations  cell   id  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  1   s-3            completed  live-migration  c2              c1            -20m        0
            libvirt_domains  host  uuid  state    nova
                             c1    s-1   running  true
                             c1    s-2   running  true
                             c1    s-3   running  true
                             c1    s-4   shutoff  true
                             c9    s-6   running  true
                             c2    s-7   running  true
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  fa:01        4                -9d         -9d
                             p-2  compute:nova  s-2        ACTIVE  fa:02        4                -9d         -9d
                             p-3  compute:nova  s-3        ACTIVE  fa:03        4                -9d         -9d
                             p-4  compute:nova  s-4        DOWN    fa:04        4                -9d         -9d
                             p-5  compute:nova  s-5        DOWN    fa:05        4                -9d         -9d
                             p-6  compute:nova  s-6        ACTIVE  fa:06        4                -9d         -9d
                             p-7  compute:nova  s-7        ACTIVE  fa:07        4                -9d         -9d
            neutron_port_bindings  port_id  host  status    vif_type
                                   p-1      c1    ACTIVE    ovs
                                   p-2      c2    ACTIVE    ovs
                                   p-3      c2    ACTIVE    ovs
                                   p-4      c2    ACTIVE    ovs
                                   p-5      -     ACTIVE    unbound
                                   p-6      x-1   ACTIVE    other
                                   p-7      c2    ACTIVE    ovs
            """),
    ),
)  # fmt: skip
