"""Designate's name of a server leads to an address that the server does not have.

Why it matters
    Whoever asks for the server is sent where nobody is, or to another server that has that address by now, and tells it
    what was not meant for it.
How it comes about
    designate-sink names a server once, when it is made.  An interface was taken from the server since, or Neutron gave
    its port another address: of neither does the sink hear anything (designate/notification_handler/nova.py).
What the repair does
    None is made by a program: a managed record can be changed, but of several addresses that the server has only you know
    which the name is to have.  Shown is what does it.
When not to repair
    Where the address is one that the server shares with others without Neutron's knowing.
"""

from collections.abc import Iterable

from cloudfsck.acts import recordset
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    for server in row["holders"]:
        yield f"as an administrator, who has the address now: openstack server show {server}"
    records = " ".join(f"--record {one}" for one in [*row["addresses"][:1], *row["kept"]])
    # Designate takes from a record that is changed what it was made for: the description says it from then on.
    whose = "" if row["kept"] else f" --description {recordset.OURS}{row['server']}"
    yield (
        "as an administrator, with the address that the name is to have:"
        f" openstack recordset set --all-projects --edit-managed{whose} {records} {row['zone']} {row['recordset']}"
    )


CHECK = Check(
    text=__doc__,
    accused=("designate_records",),
    query="""
        WITH held AS (
            SELECT p.device_id AS server, p.id AS port, a.ip_address AS address
              FROM neutron_ports p
              JOIN neutron_ip_allocations a ON a.port_id = p.id),
        strange AS (
            SELECT r.recordset, r.server, l.name AS server_name, l.cell, d.data
              FROM records_of_servers r
              JOIN designate_addresses d ON d.data = r.data
              JOIN live_servers l ON l.server = r.server
             WHERE NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = r.server)
               AND NOT EXISTS (SELECT 1 FROM neutron_ports p
                                 JOIN taken_addresses t ON t.holder = p.id AND t.address = d.data
                                WHERE p.device_id = r.server)
               AND NOT EXISTS (SELECT 1 FROM neutron_ports p
                                 JOIN address_ranges f ON f.port = p.id AND d.number BETWEEN f.first AND f.last
                                WHERE p.device_id = r.server)
               AND NOT EXISTS (SELECT 1 FROM neutron_floating_ips f WHERE f.floating_ip_address = d.data)),
        judged AS (
            SELECT s.recordset, min(s.server) AS server, min(s.server_name) AS server_name, min(s.cell) AS cell,
                   list(DISTINCT s.data ORDER BY s.data) AS wrong, list(DISTINCT s.server ORDER BY s.server) AS servers,
                   list(DISTINCT h.address ORDER BY h.address) AS addresses,
                   list(DISTINCT h.port ORDER BY h.port) AS ports
              FROM strange s
              JOIN held h ON h.server = s.server AND h.address NOT LIKE '%:%'
             GROUP BY s.recordset)
        SELECT n.recordset AS key, j.server, j.server_name, n.name, j.wrong, j.addresses, o.holders,
               list_filter(n.records, lambda one: NOT list_contains(j.wrong, one)) AS kept, n.zone, n.zone_name,
               n.recordset, n.changed,
               list_concat([n.recordset, n.zone], j.servers, j.ports, o.ports, o.holders, j.wrong) AS also,
               [] AS hosts, [j.cell] AS cells, NULL AS since, NULL AS clock,
               coalesce('another server has that address: ' || o.holders[1], 'nobody has that address') AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM judged j
          JOIN recordsets n ON n.recordset = j.recordset,
               LATERAL (SELECT coalesce(list(DISTINCT h.server ORDER BY h.server), []) AS holders,
                               coalesce(list(DISTINCT h.port ORDER BY h.port), []) AS ports
                          FROM held h
                         WHERE list_contains(j.wrong, h.address)) o
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "its interface is another server's by now; nobody has the address; of two in the set one; one of ours",
            """
            hosts cell1           c1
            nova_instances        cell   uuid  host  deleted  hostname  vm_state
                                  cell1  s-1   c1    0        one       active
                                  cell1  s-2   c1    0        two       active
                                  cell1  s-3   c1    0        three     active
                                  cell1  s-4   c1    0        four      active
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name               type  description
                                  rs-1  z-1      one.cloud.test.    A     -
                                  rs-2  z-1      two.cloud.test.    A     -
                                  rs-3  z-1      three.cloud.test.  A     -
                                  rs-4  z-1      four.cloud.test.   A     made-by-cloudfsck-for-server:s-4
            designate_records     id     recordset_id  zone_id  data       managed  managed_resource_type  managed_resource_id  status  action  created_at
                                  rr-1   rs-1          z-1      10.0.0.1   true     instance               s-1                  ACTIVE  NONE    -9d
                                  rr-2   rs-2          z-1      10.0.0.22  true     instance               s-2                  ACTIVE  NONE    -9d
                                  rr-3   rs-3          z-1      10.0.0.3   true     instance               s-3                  ACTIVE  NONE    -9d
                                  rr-33  rs-3          z-1      10.0.0.33  true     instance               s-3                  ACTIVE  NONE    -9d
                                  rr-4   rs-4          z-1      10.0.0.44  false    -                      -                    ACTIVE  NONE    -9d
            neutron_ports         id    device_id
                                  p-1   s-1
                                  p-11  s-1
                                  p-2   s-2
                                  p-3   s-3
                                  p-4   s-4
                                  p-9   s-4
            neutron_ip_allocations  port_id  ip_address
                                    p-9      10.0.0.1
                                    p-1      10.0.0.9
                                    p-11     fd00::9
                                    p-2      10.0.0.2
                                    p-3      10.0.0.3
                                    p-4      10.0.0.4
            neutron_allowed_address_pairs  port_id  ip_address
                                           p-3      10.0.0.16/28
            """,
            finds=("rs-1", "rs-2", "rs-3", "rs-4"),
        ),
        Scenario(
            "it has it, or may use it; a floating IP; it has no port, or is busy, or is dead; not an A; under way",
            """
            hosts cell1           c1
            nova_instances        cell   uuid  host  deleted  hostname  vm_state  task_state
                                  cell1  s-1   c1    0        one       active    -
                                  cell1  s-2   c1    0        two       active    -
                                  cell1  s-3   c1    0        three     active    -
                                  cell1  s-4   c1    0        four      active    -
                                  cell1  s-5   c1    0        five      active    -
                                  cell1  s-6   c1    0        six       active    rebuilding
                                  cell1  s-7   c1    7        seven     deleted   -
                                  cell1  s-8   c1    0        eight     active    -
                                  cell1  s-9   c1    0        nine      active    -
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name               type
                                  rs-1  z-1      one.cloud.test.    A
                                  rs-2  z-1      two.cloud.test.    A
                                  rs-3  z-1      three.cloud.test.  A
                                  rs-4  z-1      four.cloud.test.   A
                                  rs-5  z-1      five.cloud.test.   A
                                  rs-6  z-1      six.cloud.test.    A
                                  rs-7  z-1      seven.cloud.test.  A
                                  rs-8  z-1      eight.cloud.test.  AAAA
                                  rs-9  z-1      nine.cloud.test.   A
            designate_records     id     recordset_id  zone_id  data       managed  managed_resource_type  managed_resource_id  status   action  created_at
                                  rr-1   rs-1          z-1      10.0.0.1   true     instance               s-1                  ACTIVE   NONE    -9d
                                  rr-2   rs-2          z-1      10.0.2.2   true     instance               s-2                  ACTIVE   NONE    -9d
                                  rr-3   rs-3          z-1      10.0.0.33  true     instance               s-3                  ACTIVE   NONE    -9d
                                  rr-4   rs-4          z-1      10.0.0.44  true     instance               s-4                  ACTIVE   NONE    -9d
                                  rr-5   rs-5          z-1      10.0.0.55  true     instance               s-5                  ACTIVE   NONE    -9d
                                  rr-6   rs-6          z-1      10.0.0.66  true     instance               s-6                  ACTIVE   NONE    -9d
                                  rr-7   rs-7          z-1      10.0.0.77  true     instance               s-7                  ACTIVE   NONE    -9d
                                  rr-8   rs-8          z-1      fd00::88   true     instance               s-8                  ACTIVE   NONE    -9d
                                  rr-9   rs-9          z-1      10.0.0.99  true     instance               s-9                  PENDING  UPDATE  -9d
            neutron_ports         id   device_id
                                  p-1  s-1
                                  p-2  s-2
                                  p-3  s-3
                                  p-4  s-4
                                  p-6  s-6
                                  p-7  s-7
                                  p-8  s-8
                                  p-9  s-9
            neutron_ip_allocations  port_id  ip_address
                                    p-1      10.0.0.1
                                    p-2      10.0.0.2
                                    p-3      10.0.0.3
                                    p-4      10.0.0.4
                                    p-6      10.0.0.6
                                    p-7      10.0.0.7
                                    p-8      10.0.0.8
                                    p-9      10.0.0.9
            neutron_floating_ips  id   floating_ip_address
                                  f-3  10.0.0.33
            neutron_allowed_address_pairs  port_id  ip_address
                                           p-2      10.0.2.0/24
                                           p-4      10.0.0.44
            """,
        ),
    ),
)
