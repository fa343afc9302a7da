"""A server runs, and designate-sink has made no name for it.

Why it matters
    Nobody finds the server by its name, and what deploys by names waits for it.
How it comes about
    The message that says that the server is made was lost, or designate-central did not answer the sink for a minute,
    which then drops it.  Or the deletion of a server broke off: the sink deletes its name when it begins.
What the repair does
    It makes a recordset of the server's name with its address through Designate's API, where there is none of that name.
    It cannot be a managed one, for no API makes that; its description says whose it is, and by that it is found when the
    server is gone.  `undo` deletes it.
When not to repair
    Where another record of that name stands, of somebody else or of another server of that name: of two servers of one
    name the sink keeps the later one's alone.  Where the server has several addresses it is for you to say which.
"""

from collections.abc import Iterable

from cloudfsck.acts import recordset
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[recordset.Make]:
    yield recordset.Make.of(row)


def _commands(row: Row) -> Iterable[str]:
    for act in _repair(row):
        yield f"as an administrator: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("nova_instances",),
    query="""
        WITH named AS (
            SELECT z.id AS zone, lower(z.name) AS zone_name, h.cell, min(r.created_at) AS first,
                   arg_min(h.server, (r.created_at, h.server)) AS witness
              FROM records_of_servers r
              JOIN designate_recordsets s ON s.id = r.recordset
              JOIN designate_zones z ON z.id = r.zone
              JOIN hostnames h ON h.server = r.server AND h.live
             WHERE r.sunk
               AND s.type = 'A'
               AND lower(s.name) = h.hostname || '.' || lower(z.name)
             GROUP BY z.id, z.name, h.cell),
        addressed AS (
            SELECT p.device_id AS server, list(DISTINCT a.ip_address ORDER BY a.ip_address) AS addresses,
                   list(DISTINCT p.id ORDER BY p.id) AS ports
              FROM neutron_ports p
              JOIN neutron_ip_allocations a ON a.port_id = p.id
             WHERE a.ip_address NOT LIKE '%:%'
             GROUP BY p.device_id)
        SELECT l.server || ' ' || n.zone_name AS key, l.server, l.name, l.cell, n.zone, n.zone_name,
               o.hostname || '.' || n.zone_name AS record_name, 'A' AS type, a.addresses,
               n.witness, l.launched_at AS since, 'cell:' || l.cell AS clock,
               list_concat([n.zone, n.witness], a.ports) AS also, [] AS hosts, [l.cell] AS cells,
               CASE WHEN t.taken IS NOT NULL THEN 'there is a record of that name, of somebody else: ' || t.taken
                    WHEN len(a.addresses) > 1 THEN 'it has several addresses: ' || array_to_string(a.addresses, ', ')
                    END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM live_servers l
          JOIN hostnames o ON o.server = l.server AND o.live
          JOIN named n ON n.cell = l.cell AND n.first < l.launched_at
          JOIN addressed a ON a.server = l.server
          LEFT JOIN (SELECT lower(s.name) AS name, min(s.id) AS taken
                       FROM designate_recordsets s
                      GROUP BY lower(s.name)) t
                 ON t.name = o.hostname || '.' || n.zone_name
         WHERE l.vm_state = 'active'
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = l.server)
           AND NOT EXISTS (SELECT 1 FROM records_of_servers r WHERE r.server = l.server AND r.zone = n.zone)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "it alone has none, and had another name in another row; another has its name; it has two addresses",
            """
            hosts cell1           c1
            nova_instances        cell   uuid  host  deleted  hostname  vm_state  launched_at
                                  cell1  s-1   c1    0        one       active    -9d
                                  cell1  s-2   c1    0        Two.x     active    -3d
                                  cell1  s-2   c1    22       older     deleted   -9d
                                  cell1  s-3   c1    0        three     active    -3d
                                  cell1  s-4   c1    0        four      active    -3d
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name               type
                                  rs-1  z-1      one.cloud.test.    A
                                  rs-3  z-1      three.cloud.test.  TXT
            designate_records     id    recordset_id  zone_id  data      managed  managed_resource_type  managed_resource_id  status  action  created_at
                                  rr-1  rs-1          z-1      10.0.0.1  true     instance               s-1                  ACTIVE  NONE    -9d
                                  rr-3  rs-3          z-1      words     false    -                      -                    ACTIVE  NONE    -9d
            neutron_ports         id   device_id
                                  p-1  s-1
                                  p-2  s-2
                                  p-3  s-3
                                  p-4  s-4
            neutron_ip_allocations  port_id  ip_address
                                    p-1      10.0.0.1
                                    p-2      10.0.0.2
                                    p-2      fd00::2
                                    p-3      10.0.0.3
                                    p-4      10.0.0.4
                                    p-4      10.0.0.44
            """,
            finds=("s-2 cloud.test.", "s-3 cloud.test.", "s-4 cloud.test."),
            plans="""
            make two.cloud.test. A 10.0.0.2 in Designate
            """,
        ),
        Scenario(
            "it has one; of ours; it was there before the sink; it is busy, or stopped; no address; names made otherwise",
            """
            hosts cell1           c1
            hosts cell2           c2
            nova_instances        cell   uuid  host  deleted  hostname  vm_state  task_state  launched_at
                                  cell1  s-1   c1    0        one       active    -           -9d
                                  cell1  s-2   c1    0        two       active    -           -3d
                                  cell1  s-3   c1    0        three     active    -           -10d
                                  cell1  s-4   c1    0        four      active    rebooting   -3d
                                  cell1  s-5   c1    0        five      stopped   -           -3d
                                  cell1  s-6   c1    0        six       active    -           -3d
                                  cell2  s-7   c2    0        seven     active    -           -3d
                                  cell2  s-8   c2    0        eight     active    -           -9d
                                  cell2  s-9   c2    0        nine      active    -           -9d
                                  cell2  s-10  c2    10       ten       deleted   -           -9d
                                  cell2  s-11  c2    0        eleven    active    -           -9d
                                  cell2  s-12  c2    0        twelve    active    -           -9d
                                  cell2  s-13  c2    0        ten       active    -           -9d
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
                                  z-2  other.test.  PRIMARY  ACTIVE  NONE
                                  z-5  sub.cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id     zone_id  name               type  description
                                  rs-1   z-1      one.cloud.test.    A     -
                                  rs-8   z-1      host8.cloud.test.  A     -
                                  rs-9   z-1      nine.cloud.test.   AAAA  -
                                  rs-10  z-1      ten.cloud.test.    A     -
                                  rs-11  z-1      eleven.cloud.test. A     -
                                  rs-12  z-1      twelve.sub.cloud.test. A     -
                                  rs-80  z-1      eight.cloud.test.  A     -
            designate_records     id     recordset_id  zone_id  data       managed  managed_resource_type  managed_resource_id  status  action  created_at
                                  rr-1   rs-1          z-1      10.0.0.1   true     instance               s-1                  ACTIVE  NONE    -9d
                                  rr-2   rs-1          z-1      10.0.0.2   true     instance               s-2                  ACTIVE  NONE    -3d
                                  rr-8   rs-8          z-1      10.0.0.8   true     instance               s-8                  ACTIVE  NONE    -9d
                                  rr-9   rs-9          z-1      fd00::9    true     instance               s-9                  ACTIVE  NONE    -9d
                                  rr-10  rs-10         z-1      10.0.0.10  true     instance               s-10                 ACTIVE  NONE    -9d
                                  rr-12  rs-12         z-1      10.0.0.12  true     instance               s-12                 ACTIVE  NONE    -9d
            neutron_ports         id   device_id
                                  p-1  s-1
                                  p-2  s-2
                                  p-3  s-3
                                  p-4  s-4
                                  p-5  s-5
                                  p-7  s-7
                                  p-8  s-8
                                  p-9  s-9
                                  p-6  s-6
            neutron_ip_allocations  port_id  ip_address
                                    p-1      10.0.0.1
                                    p-2      10.0.0.2
                                    p-3      10.0.0.3
                                    p-4      10.0.0.4
                                    p-5      10.0.0.5
                                    p-7      10.0.0.7
                                    p-8      10.0.0.8
                                    p-9      10.0.0.9
                                    p-6      fd00::6
            """,
        ),
        Scenario(
            "in each zone for itself; what we made counts for the server, and shows no way of the sink's",
            """
            hosts cell1           c1
            nova_instances        cell   uuid  host  deleted  hostname  vm_state  launched_at
                                  cell1  s-1   c1    0        one       active    -9d
                                  cell1  s-2   c1    0        two       active    -3d
                                  cell1  s-4   c1    0        four      active    -3d
            designate_zones       id   name         type     status  action
                                  z-1  cloud.test.  PRIMARY  ACTIVE  NONE
                                  z-2  other.test.  PRIMARY  ACTIVE  NONE
                                  z-3  third.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name               type  description
                                  rs-1  z-1      one.cloud.test.    A     -
                                  rs-2  z-1      two.cloud.test.    A     -
                                  rs-3  z-2      one.other.test.    A     -
                                  rs-4  z-3      one.third.test.    A     made-by-cloudfsck-for-server:s-1
                                  rs-5  z-1      four.cloud.test.   A     made-by-cloudfsck-for-server:s-4
            designate_records     id    recordset_id  zone_id  data      managed  managed_resource_type  managed_resource_id  status  action  created_at
                                  rr-1  rs-1          z-1      10.0.0.1  true     instance               s-1                  ACTIVE  NONE    -9d
                                  rr-2  rs-2          z-1      10.0.0.2  true     instance               s-2                  ACTIVE  NONE    -9d
                                  rr-3  rs-3          z-2      10.0.0.1  true     instance               s-1                  ACTIVE  NONE    -9d
                                  rr-4  rs-4          z-3      10.0.0.1  false    -                      -                    ACTIVE  NONE    -9d
                                  rr-5  rs-5          z-1      10.0.0.4  false    -                      -                    ACTIVE  NONE    -3d
            neutron_ports         id   device_id
                                  p-1  s-1
                                  p-2  s-2
                                  p-4  s-4
            neutron_ip_allocations  port_id  ip_address
                                    p-1      10.0.0.1
                                    p-2      10.0.0.2
                                    p-4      10.0.0.4
            """,
            finds=("s-2 other.test.", "s-4 other.test."),
            plans="""
            make two.other.test. A 10.0.0.2 in Designate
            make four.other.test. A 10.0.0.4 in Designate
            """,
        ),
    ),
)
