"""Designate has a name for a floating IP that Neutron does not have.

Why it matters
    Whoever asks who has that address is told a name of its last owner's, and mail and logs believe it.  If another
    project gets the address, the name is somebody else's; if the same does, its new floating IP inherits the old name.
How it comes about
    The name of a floating IP is Designate's to keep, and Neutron does not say when one is deleted; Designate looks after it
    when somebody lists the floating IPs of another project that has the address (designate/central/service.py:
    list_floatingips).  A record that designate-sink made was left because the message was lost.
What the repair does
    It deletes the recordset through Designate's API, right after it was read again; where a record of somebody else is in
    it, that one stays.  `undo` makes a recordset of the same name, type, TTL and records; it is nobody's then.
When not to repair
    While another floating IP has the address: Designate shows its owner the name as his own.  Where nothing shows that
    the floating IPs of that region are this Neutron's: of a region, that Designate has a name for one that is there.
"""

from collections.abc import Iterable

from cloudfsck.acts import recordset
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[recordset.Remove]:
    yield recordset.Remove.of(row)


def _commands(row: Row) -> Iterable[str]:
    for address in row["addresses"]:
        yield f"as an administrator, in each region: openstack floating ip list --floating-ip-address {address}"
    for act in _repair(row):
        yield f"as an administrator, if nobody has the address: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("designate_records",),
    query="""
        WITH of_addresses AS (
            SELECT r.recordset_id AS recordset, r.data, r.managed_resource_id AS floating_ip,
                   coalesce(r.managed_extra, r.data) AS address, r.managed_resource_region AS region
              FROM designate_records r
             WHERE r.managed
               AND r.managed_resource_type IN ('floatingip', 'ptr:floatingip')),
        witnesses AS (
            SELECT o.region, min(o.floating_ip) AS witness
              FROM of_addresses o
              JOIN neutron_floating_ips f ON f.id = o.floating_ip
             GROUP BY o.region),
        dead AS (
            SELECT o.recordset, list(o.data ORDER BY o.data) AS dead, list(DISTINCT o.address ORDER BY o.address) AS addresses,
                   list(DISTINCT o.floating_ip ORDER BY o.floating_ip) AS floating_ips,
                   list(DISTINCT n.id ORDER BY n.id) FILTER (n.id IS NOT NULL) AS successors,
                   list(DISTINCT w.witness ORDER BY w.witness) FILTER (w.witness IS NOT NULL) AS witnesses,
                   bool_and(w.witness IS NOT NULL) AS ours
              FROM of_addresses o
              LEFT JOIN neutron_floating_ips n ON n.floating_ip_address = o.address
              LEFT JOIN witnesses w ON w.region IS NOT DISTINCT FROM o.region
             WHERE NOT EXISTS (SELECT 1 FROM neutron_floating_ips f WHERE f.id = o.floating_ip)
             GROUP BY o.recordset)
        SELECT s.recordset AS key, NULL AS server, s.name, s.type, s.ttl, d.dead,
               list_filter(s.records, lambda one: NOT list_contains(d.dead, one)) AS kept,
               d.addresses, d.floating_ips, coalesce(d.successors, []) AS successors, s.project, s.zone, s.zone_name, s.recordset,
               s.changed, list_concat([s.recordset], d.floating_ips, d.successors, d.witnesses) AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'designate:designate' AS clock,
               CASE WHEN d.successors IS NOT NULL THEN 'another floating IP has the address: ' || d.successors[1]
                    WHEN NOT d.ours THEN 'nothing shows that the floating IP was this Neutron''s' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM recordsets s
          JOIN dead d ON d.recordset = s.recordset
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "a PTR, a record of the sink's, beside another's; the address is taken again; another region",
            """
            hosts cell1           c1
            designate_zones       id   name                    type     status  action
                                  z-1  2.0.192.in-addr.arpa.   PRIMARY  ACTIVE  NONE
                                  z-2  cloud.test.             PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name                     type  ttl  created_at  updated_at
                                  rs-1  z-1      11.2.0.192.in-addr.arpa. PTR   300  -9d         -
                                  rs-2  z-1      12.2.0.192.in-addr.arpa. PTR   -    -9d         -
                                  rs-3  z-2      fip-3.cloud.test.        A     -    -9d         -
                                  rs-4  z-1      14.2.0.192.in-addr.arpa. PTR   -    -9d         -
                                  rs-5  z-1      15.2.0.192.in-addr.arpa. PTR   -    -9d         -
                                  rs-6  z-2      fip-6.cloud.test.        A     -    -9d         -
            designate_records     id     recordset_id  data             managed  managed_resource_type  managed_resource_id  managed_extra  managed_resource_region  status  action  created_at  updated_at
                                  rr-1   rs-1          a.cloud.test.    true     ptr:floatingip         f-1                  192.0.2.11     One                      ACTIVE  NONE    -9d         -9d
                                  rr-2   rs-2          b.cloud.test.    true     ptr:floatingip         f-2                  192.0.2.12     One                      ACTIVE  NONE    -9d         -9d
                                  rr-3   rs-3          192.0.2.13       true     floatingip             f-3                  -              -                        ACTIVE  NONE    -9d         -9d
                                  rr-31  rs-3          192.0.2.99       false    -                      -                    -              -                        ACTIVE  NONE    -9d         -9d
                                  rr-4   rs-4          d.cloud.test.    true     ptr:floatingip         f-4                  192.0.2.14     One                      ACTIVE  NONE    -9d         -9d
                                  rr-5   rs-5          e.cloud.test.    true     ptr:floatingip         f-5                  192.0.2.15     Two                      ACTIVE  NONE    -9d         -9d
                                  rr-6   rs-6          192.0.2.16       true     floatingip             f-6                  -              -                        ACTIVE  NONE    -9d         -9d
            neutron_floating_ips  id   floating_ip_address  revision_number  created_at  updated_at
                                  f-2  192.0.2.12           2                -9d         -9d
                                  f-6  192.0.2.16           2                -9d         -9d
                                  f-9  192.0.2.14           2                -9d         -9d
            """,
            finds=("rs-1", "rs-3", "rs-4", "rs-5"),
            plans="""
            delete 11.2.0.192.in-addr.arpa. PTR a.cloud.test. from Designate
            delete fip-3.cloud.test. A 192.0.2.13 from Designate; 192.0.2.99 stays
            """,
        ),
        Scenario(
            "it is there; a record of another kind, or nobody's; under way",
            """
            hosts cell1           c1
            designate_zones       id   name                    type     status  action
                                  z-1  2.0.192.in-addr.arpa.   PRIMARY  ACTIVE  NONE
            designate_recordsets  id    zone_id  name                     type  ttl  created_at  updated_at
                                  rs-1  z-1      21.2.0.192.in-addr.arpa. PTR   300  -9d         -
                                  rs-2  z-1      22.2.0.192.in-addr.arpa. PTR   -    -9d         -
                                  rs-3  z-1      23.2.0.192.in-addr.arpa. PTR   -    -9d         -
                                  rs-4  z-1      24.2.0.192.in-addr.arpa. PTR   -    -9d         -
            designate_records     id     recordset_id  data             managed  managed_resource_type  managed_resource_id  managed_extra  managed_resource_region  status   action  created_at  updated_at
                                  rr-1   rs-1          a.cloud.test.    true     ptr:floatingip         f-1                  192.0.2.21     One                      ACTIVE   NONE    -9d         -9d
                                  rr-2   rs-2          b.cloud.test.    true     instance               f-2                  192.0.2.22     One                      ACTIVE   NONE    -9d         -9d
                                  rr-3   rs-3          c.cloud.test.    false    ptr:floatingip         f-3                  192.0.2.23     One                      ACTIVE   NONE    -9d         -9d
                                  rr-4   rs-4          d.cloud.test.    true     ptr:floatingip         f-4                  192.0.2.24     One                      PENDING  UPDATE  -9d         -9d
            neutron_floating_ips  id   floating_ip_address  revision_number  created_at  updated_at
                                  f-1  192.0.2.21           2                -9d         -9d
            """,
        ),
    ),
)
