"""OVN has a router that Neutron does not have.

Why it matters
    It still routes between the networks that it has ports in, and translates the addresses that it did: two projects
    that were to be apart reach each other, and every host carries its flows.
How it comes about
    Neutron forgets a router in OVN even where it did not find it there: it looks in its own copy of the northbound
    database (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/ovn_client.py: delete_router, with if_exists), and one
    that another of its processes is just making is not there yet.  Then nothing that its maintenance goes by
    (ovn_revision_numbers) tells of it.  Or one of the two databases was restored from a backup: OVN's has what was
    deleted since, Neutron's lacks what was made since.  Or another Neutron uses the same OVN, and the router is that
    one's.
What the repair does
    It deletes one that has no ports and translates nothing, in one transaction that demands that the whole row is as it
    was read and refers to nothing else: if anything of it has changed, nothing is written.  `undo` puts the same row
    back.  Nothing in the row says whose Neutron made it, so that only a person decides unless [ovn] of the configuration
    says that this one uses OVN alone.
When not to repair
    After Neutron's database was restored: every router made since the backup looks like this, and is needed.  Where
    another Neutron uses this OVN and has not been asked.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_object
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[ovn_object.Delete]:
    yield ovn_object.Delete("Logical_Router", row["name"], row["ovn_row"], row["router"], row["revision"])


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator of each Neutron that uses this OVN: openstack router show {row['router']}"
    yield f"where OVN's northbound database is: ovn-nbctl show {row['name']}; ovn-nbctl list Logical_Router {row['name']}"
    for act in _repair(row):
        yield f"where OVN's northbound database is, if none of them has it and it has no port: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_routers",),
    query="""
        SELECT o.name AS key, NULL AS server, o.name, o.router, o.uuid AS ovn_row, o.ports, o.revision,
               [o.router] AS also, [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               CASE WHEN NOT a.alone THEN 'another Neutron may use this OVN: alone in [ovn] is to say that none does'
                    WHEN o.ports > 0 THEN 'it still has ports'
                    WHEN EXISTS (SELECT 1 FROM ovn_nats t WHERE t.router = o.name)
                    THEN 'it still translates addresses' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM ovn_routers o
         CROSS JOIN ovn_settings a
         WHERE o.router IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM neutron_routers n WHERE n.id = o.router)
           AND NOT EXISTS (SELECT 1 FROM neutron_ovn_revisions r
                            WHERE r.resource_uuid = o.router AND r.resource_type = 'routers')
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "one that is gone; what Neutron notes of another kind of thing does not count", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number
                             r-1  p-1         r     ACTIVE  3
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   r-3            networks       -                 4
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
                             u-2   neutron-r-2  r-2     0      3
                             u-3   neutron-r-3  r-3     2      3
            """,
            finds=("neutron-r-2", "neutron-r-3")),
        Scenario(
            "where no other Neutron uses OVN: without ports, with one, and with a gateway's NAT rule", """
            hosts cell1      c1
            settings         name       value
                             ovn_alone  1
            ovn_routers      uuid  name         router  ports  revision
                             u-2   neutron-r-2  r-2     0      3
                             u-3   neutron-r-3  r-3     1      3
                             u-4   neutron-r-4  r-4     0      3
            ovn_nats         uuid  router       type  external_ip  logical_ip   floating_ip  port  revision
                             u-14  neutron-r-4  snat  192.0.2.9    10.0.0.0/24  -            -     -
            """,
            finds=("neutron-r-2", "neutron-r-3", "neutron-r-4"),
            plans="delete router neutron-r-2 from OVN"),
        Scenario(
            "Neutron has it, or is about to delete it; it is not Neutron's", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number
                             r-1  p-1         r     ACTIVE  3
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   r-2            routers        -                 4
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     1      3
                             u-2   neutron-r-2  r-2     0      3
                             u-3   other        -       1      -
            """),
    ),
)  # fmt: skip
