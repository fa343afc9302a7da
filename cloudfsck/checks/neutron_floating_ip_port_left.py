"""A port keeps a floating address, and no floating IP is of it.

Why it matters
    The address is taken from the external network, and nobody has it: of those there are few.  Where a floating IP still
    is upon the port (`floating_ip`) and the port does not say so, whoever deletes the port deletes the floating IP.
How it comes about
    Neutron makes the port first, with the device_id PENDING, and died before the floating IP was there (neutron/db/
    l3_db.py: _create_floatingip).  Its janitor looks every five minutes, and deletes the port or puts it right when it has
    met it twice (_clean_garbage): if the port is still there, that failed, and Neutron's log says why.  A device_id other
    than PENDING it never looks at: then the floating IP was deleted by hand in the database.
What the repair does
    There is none.  Where no floating IP is upon the port, Neutron lets it be deleted (prevent_l3_port_deletion).  Where one
    is, Neutron would let it be deleted too, and the floating IP with it: the port is to be told whose it is.
When not to repair
    While Neutron's own janitor still gets to it; look into its log first.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port show {row['port']}"
    if row["floating_ip"] is None:
        for address in row["addresses"]:
            yield f"as an administrator: openstack floating ip list --floating-ip-address {address}"
        yield f"as an administrator, if no floating IP has its address: openstack port delete {row['port']}"
    else:
        yield f"as an administrator; do not delete it: openstack floating ip show {row['floating_ip']}"
        yield f"as an administrator: openstack port set --device {row['floating_ip']} {row['port']}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        SELECT p.id AS key, NULL AS server, p.id AS port, p.device_id, f.id AS floating_ip, f.project_id AS project,
               p.network_id AS network, p.status,
               (SELECT coalesce(list(a.ip_address ORDER BY a.ip_address), []) FROM neutron_ip_allocations a
                 WHERE a.port_id = p.id) AS addresses,
               p.revision_number AS revision, p.created_at, p.updated_at, [p.id, nullif(p.device_id, 'PENDING'), f.id] AS also,
               [] AS hosts, [] AS cells, greatest(p.created_at, p.updated_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_ports p
          LEFT JOIN neutron_floating_ips f ON f.floating_port_id = p.id
         WHERE p.device_owner = 'network:floatingip'
           AND NOT EXISTS (SELECT 1 FROM neutron_floating_ips o WHERE o.id = p.device_id)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "its creation broke off, before and after the floating IP was there; the floating IP is gone", """
            hosts cell1      c1
            neutron_ports    id   device_owner        device_id  network_id  status  revision_number  created_at  updated_at
                             o-1  network:floatingip  PENDING    n-1         N/A     2                -9h         -9h
                             o-2  network:floatingip  PENDING    n-1         N/A     2                -9h         -9h
                             o-3  network:floatingip  f-3        n-1         N/A     2                -9d         -9d
                             o-4  network:floatingip  f-4        n-1         N/A     2                -9d         -9d
            neutron_ip_allocations  port_id  ip_address  subnet_id
                                    o-1      192.0.2.1   sub-1
                                    o-4      192.0.2.4   sub-1
            neutron_floating_ips  id   project_id  floating_ip_address  floating_port_id  revision_number  created_at  updated_at
                                  f-2  pr-1        192.0.2.2            o-2               2                -9h         -9h
                                  f-4  pr-1        192.0.2.4            o-4               2                -9d         -9d
            """,
            finds=("o-1", "o-2", "o-3")),
        Scenario(
            "a floating IP's, a server's and a router's", """
            hosts cell1      c1
            neutron_ports    id   device_owner            device_id  network_id  status  revision_number  created_at  updated_at
                             o-4  network:floatingip      f-4        n-1         N/A     2                -9d         -9d
                             o-6  network:local_ip        l-1        n-1         N/A     2                -9d         -9d
            neutron_floating_ips  id   project_id  floating_ip_address  floating_port_id  revision_number  created_at  updated_at
                                  f-4  pr-1        192.0.2.4            o-4               2                -9d         -9d
            """),
    ),
)  # fmt: skip
