"""A floating IP leads to a port of a server that Nova deleted.

Why it matters
    Its owner believes that he reaches a server there, and pays for it; and when the port is given to another server,
    the world reaches that one, unasked.
How it comes about
    The port was left behind when the server was deleted: Neutron did not answer just then.
What the repair does
    It takes the floating IP from the port, through Neutron's API and with the revision that was seen.  The address is
    never given back: it stays its owner's.  `undo` lets it lead to the port again.
When not to repair
    While a guest of that server still runs somewhere: somebody may be using it.
"""

from collections.abc import Iterable

from cloudfsck.acts import port
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[port.Disassociate]:
    yield port.Disassociate(row["server"], row["floating_ip"], row["port"], row["fixed_ip_address"], row["revision"])


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack floating ip show {row['floating_ip']}"
    for act in _repair(row):
        yield f"as an administrator, once no guest has the port: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_floating_ips",),
    query="""
        SELECT f.id AS key, p.server, p.server_name, p.deleted_at, f.id AS floating_ip, f.floating_ip_address, f.project_id AS project,
               f.fixed_port_id AS port, f.fixed_ip_address, f.router_id, f.status, f.revision_number AS revision,
               f.updated_at, p.status AS port_status, p.revision AS port_revision,
               coalesce(g.on_hosts, []) AS guests_on, [f.id, p.port] AS also,
               NULL AS hosts, CASE WHEN m.cell IS NOT NULL THEN list_sort(list_distinct([m.cell, p.cell])) END AS cells,
               greatest(p.changed, f.updated_at, p.deleted_at) AS since,
               CASE WHEN p.deleted_at > greatest(p.changed, f.updated_at) THEN 'cell:' || p.cell ELSE 'neutron:neutron' END AS clock,
               CASE WHEN g.port IS NOT NULL THEN 'a guest has the port, on ' || array_to_string(g.on_hosts, ', ')
                    WHEN p.status = 'ACTIVE' THEN 'Neutron says that something uses the port' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM neutron_floating_ips f
          JOIN ports_of_gone_servers p ON p.port = f.fixed_port_id
          LEFT JOIN mapped_servers m ON m.server = p.server
          LEFT JOIN port_guests g ON g.port = p.port
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "the port is left; a guest has it; it is up", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -3d
                             cell1  s-2   c1    2        -3d
                             cell1  s-3   c1    3        -3d
                             cell1  s-4   c1    0        -
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-4            cell1
            libvirt_domains  host  uuid  state    nova  id  xml_sha256
                             c1    s-2   running  true  1   d1
            qemu_processes   host  uuid  pid
                             c1    s-2   101
            libvirt_interfaces  host  uuid  config  mac    port
                                c1    s-2   live    fa:02  p-2
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        DOWN    fa:01        4                -9d         -9d
                             p-2  compute:nova  s-2        DOWN    fa:02        4                -9d         -9d
                             p-3  compute:nova  s-3        ACTIVE  fa:03        4                -9d         -9d
                             p-4  compute:nova  s-4        DOWN    fa:04        4                -9d         -9d
            neutron_floating_ips  id   floating_ip_address  fixed_port_id  fixed_ip_address  revision_number  created_at  updated_at
                                  f-1  192.0.2.1            p-1            10.0.0.1          2                -9d         -2d
                                  f-2  192.0.2.2            p-2            10.0.0.2          2                -9d         -9d
                                  f-3  192.0.2.3            p-3            10.0.0.3          2                -9d         -9d
                                  f-4  192.0.2.4            p-4            10.0.0.4          2                -9d         -9d
                                  f-5  192.0.2.5            -              -                 2                -9d         -9d
            """,
            finds=("f-1", "f-2", "f-3"),
            plans="take floating IP f-1 from port p-1 of server s-1; it stays its owner's"),
        Scenario(
            "it leads to a live server", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted
                             cell1  s-4   c1    0
            nova_instance_mappings  instance_uuid  cell_id
                                    s-4            cell1
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-4  compute:nova  s-4        DOWN    fa:04        4                -9d         -9d
            neutron_floating_ips  id   floating_ip_address  fixed_port_id  fixed_ip_address  revision_number  created_at  updated_at
                                  f-4  192.0.2.4            p-4            10.0.0.4          2                -9d         -9d
            """),
    ),
)  # fmt: skip
