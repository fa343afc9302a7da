"""A name that Neutron may have made leads to an address that nobody has.

Why it matters
    Whoever asks for that name is sent where nobody is, or, when the address is given out again, to somebody else.
How it comes about
    Neutron's own driver for Designate makes and deletes such names with the user's token, tells nobody whose they are,
    and only logs when it cannot delete one (neutron/services/externaldns/drivers/designate/driver.py); and Neutron forgets
    a port's name together with the port.
What the repair does
    None is made by a program, for nothing proves that Neutron made the name.  Shown is what deletes it.
When not to repair
    Where somebody keeps the name for something that is not in Neutron, or will have that address again.
"""

from collections.abc import Iterable

from cloudfsck.acts import recordset
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    for address in row["dead"]:
        yield f"as an administrator: openstack port list --fixed-ip ip-address={address}"
    yield f"as an administrator, if nobody wants the name: {recordset.Remove.of(row).command}"


CHECK = Check(
    text=__doc__,
    accused=("designate_records",),
    query="""
        WITH dead AS (
            SELECT n.recordset, list(DISTINCT n.data ORDER BY n.data) AS dead, min(a.network) AS network,
                   list(DISTINCT a.subnet ORDER BY a.subnet) AS subnets
              FROM designate_addresses n
              JOIN designate_zones z ON z.id = n.zone
              JOIN neutron_network_domains d ON lower(d.dns_domain) = lower(z.name)
              JOIN address_ranges a ON a.network = d.network_id AND n.number BETWEEN a.first AND a.last
             WHERE NOT n.managed
               AND NOT EXISTS (SELECT 1 FROM taken_addresses t WHERE t.address = n.data)
               AND NOT EXISTS (SELECT 1 FROM address_ranges f
                                WHERE f.port IS NOT NULL AND n.number BETWEEN f.first AND f.last)
               AND NOT EXISTS (SELECT 1 FROM records_of_servers m WHERE m.recordset = n.recordset AND m.server <> '')
             GROUP BY n.recordset)
        SELECT s.recordset AS key, NULL AS server, s.name, s.type, s.ttl, d.dead, d.network,
               list_filter(s.records, lambda one: NOT list_contains(d.dead, one)) AS kept, s.project, s.zone, s.zone_name,
               s.recordset, s.changed, list_concat([s.recordset, s.zone, d.network], d.subnets, s.records) AS also,
               [] AS hosts, [] AS cells, NULL AS since, NULL AS clock,
               'nothing proves that Neutron made the name' AS by_hand, NULL AS rung, NULL AS rung_since
          FROM dead d
          JOIN recordsets s ON s.recordset = d.recordset
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "of its two addresses one; in whatever case the zone is written",
            """
            hosts cell1              c1
            designate_zones          id   name         type     status  action
                                     z-1  cloud.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets     id    zone_id  name             type  ttl
                                     rs-1  z-1      one.cloud.test.  A     -
                                     rs-2  z-1      two.cloud.test.  A     300
            designate_records        id    recordset_id  zone_id  data       managed  status  action  created_at
                                     rr-1  rs-1          z-1      10.0.0.1   false    ACTIVE  NONE    -9d
                                     rr-2  rs-2          z-1      10.0.0.2   false    ACTIVE  NONE    -9d
                                     rr-3  rs-2          z-1      10.0.0.3   false    ACTIVE  NONE    -9d
            neutron_network_domains  network_id  dns_domain
                                     n-1         Cloud.test.
            neutron_subnets          id   network_id  cidr
                                     b-1  n-1         10.0.0.0/24
                                     b-2  n-1         10.0.1.0/24
            neutron_ip_allocations   port_id  ip_address
                                     p-3      10.0.0.3
            """,
            finds=("rs-1", "rs-2"),
        ),
        Scenario(
            "somebody has it, or may use it; the sink's, or ours; of no such network; not an address; under way; IPv6",
            """
            hosts cell1              c1
            nova_instances           uuid  cell   vm_state  deleted
                                     s-5   cell1  active    0
            designate_zones          id   name         type     status  action
                                     z-1  cloud.test.  PRIMARY  ACTIVE  NONE
                                     z-2  other.test.  PRIMARY  ACTIVE  NONE
            designate_recordsets     id     zone_id  name               type   description
                                     rs-1   z-1      one.cloud.test.    A      -
                                     rs-2   z-1      two.cloud.test.    A      -
                                     rs-3   z-1      three.cloud.test.  A      -
                                     rs-4   z-1      four.cloud.test.   A      -
                                     rs-5   z-1      five.cloud.test.   A      made-by-cloudfsck-for-server:s-5
                                     rs-6   z-1      six.cloud.test.    A      -
                                     rs-7   z-2      seven.other.test.  A      -
                                     rs-8   z-1      eight.cloud.test.  TXT    -
                                     rs-9   z-1      nine.cloud.test.   A      -
                                     rs-11  z-1      ten.cloud.test.    AAAA   -
            designate_records        id     recordset_id  zone_id  data       managed  managed_resource_type  managed_resource_id  status   action  created_at
                                     rr-1   rs-1          z-1      10.0.0.1   false    -                      -                    ACTIVE   NONE    -9d
                                     rr-2   rs-2          z-1      10.0.0.2   false    -                      -                    ACTIVE   NONE    -9d
                                     rr-3   rs-3          z-1      10.0.3.3   false    -                      -                    ACTIVE   NONE    -9d
                                     rr-4   rs-4          z-1      10.0.0.4   true     port                   x-4                  ACTIVE   NONE    -9d
                                     rr-5   rs-5          z-1      10.0.0.5   false    -                      -                    ACTIVE   NONE    -9d
                                     rr-6   rs-6          z-1      10.9.0.6   false    -                      -                    ACTIVE   NONE    -9d
                                     rr-7   rs-7          z-2      10.0.0.7   false    -                      -                    ACTIVE   NONE    -9d
                                     rr-8   rs-8          z-1      10.0.0.8   false    -                      -                    ACTIVE   NONE    -9d
                                     rr-9   rs-9          z-1      10.0.0.9   false    -                      -                    PENDING  CREATE  -9d
                                     rr-11  rs-11         z-1      fd00::2    false    -                      -                    ACTIVE   NONE    -9d
            neutron_network_domains  network_id  dns_domain
                                     n-1         cloud.test.
                                     n-7         third.test.
            neutron_subnets          id   network_id  cidr
                                     b-1  n-1         10.0.0.0/22
                                     b-2  n-1         fd00::/64
                                     b-6  n-7         10.9.0.0/24
            neutron_ip_allocations   port_id  ip_address
                                     p-1      10.0.0.1
            neutron_floating_ips     id   floating_ip_address
                                     f-2  10.0.0.2
            neutron_allowed_address_pairs  port_id  ip_address
                                           p-1      10.0.3.0/24
            """,
        ),
    ),
)
