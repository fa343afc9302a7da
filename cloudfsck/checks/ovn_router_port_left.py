"""OVN has a router port that Neutron does not have.

Why it matters
    The router still answers for the subnet's gateway and routes into a network that it was taken from; a new router
    port with the same address contends with it.
How it comes about
    Neutron deletes what its maintenance goes by (ovn_revision_numbers) before the transaction that deletes the port in
    OVN is sent (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/ovn_client.py: _delete_lrouter_port, within that of
    delete_router_port): if the northbound database is away just then, nothing looks at the port again.  Or one of the
    two databases was restored from a backup.
What the repair does
    It deletes the one row, in one transaction that demands that the whole row is as it was read: if anything of it has
    changed, nothing is written.  `undo` puts the same row back.
When not to repair
    After Neutron's database was restored: every port made since the backup looks like this, and is needed.  Where another
    Neutron uses the same OVN: its networks are not this one's, and only a person decides, unless [ovn] of the
    configuration says that this one uses OVN alone.  A gateway's port: what the
    router translates hangs on it.
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_port
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[ovn_port.Delete]:
    yield ovn_port.Delete(
        "", "Logical_Router_Port", row["port"], row["name"], row["ovn_row"], row["ovn_router"], row["revision"]
    )  # fmt: skip


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port show {row['port']}; openstack network show {row['network']}"
    yield (
        f"where OVN's northbound database is: ovn-nbctl list Logical_Router_Port {row['name']};"
        f" ovn-nbctl show {row['ovn_router']}"
    )
    for act in _repair(row):
        yield f"where OVN's northbound database is, if it is this cloud's: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_router_ports",),
    query="""
        SELECT o.name AS key, NULL AS server, o.name, o.port, o.uuid AS ovn_row, o.router AS ovn_router, o.network, o.gateway,
               o.revision, n.name AS network_name, n.project_id AS project, [o.port, o.network] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               CASE WHEN n.id IS NULL AND NOT a.alone THEN 'its network is none of this Neutron''s'
                    WHEN o.gateway THEN 'it is a gateway' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM ovn_router_ports o
         CROSS JOIN ovn_settings a
          LEFT JOIN neutron_networks n ON n.id = o.network
         WHERE o.port IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM neutron_ports p WHERE p.id = o.port)
           AND NOT EXISTS (SELECT 1 FROM neutron_ovn_revisions r
                            WHERE r.resource_uuid = o.port AND r.resource_type IN ('router_ports', 'ports'))
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a network that is here; of another Neutron's; a gateway", """
            hosts cell1       c1
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            ovn_routers       uuid  name         router  ports  revision
                              u-1   neutron-r-1  r-1     1      3
            neutron_routers   id   project_id  name  status  revision_number
                              r-1  p-1         r     ACTIVE  3
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   o-1            routers        -                 4
            ovn_router_ports  uuid  name     revision  router       port  network  gateway
                              u-11  lrp-o-1  3         neutron-r-1  o-1   n-1      false
                              u-12  lrp-o-2  3         neutron-r-1  o-2   n-2      false
                              u-13  lrp-o-3  3         neutron-r-1  o-3   n-1      true
                              u-14  lrp-o-4  3         neutron-r-1  o-4   -        false
            """,
            finds=("lrp-o-1", "lrp-o-2", "lrp-o-3", "lrp-o-4"),
            plans="delete port lrp-o-1 from router neutron-r-1 of OVN"),
        Scenario(
            "of a network that is gone too, where no other Neutron uses OVN", """
            hosts cell1       c1
            settings          name       value
                              ovn_alone  1
            ovn_routers       uuid  name         router  ports  revision
                              u-1   neutron-r-1  r-1     1      3
            ovn_router_ports  uuid  name     revision  router       port  network  gateway
                              u-11  lrp-o-1  3         neutron-r-1  o-1   n-1      false
            """,
            finds=("lrp-o-1",),
            plans="delete port lrp-o-1 from router neutron-r-1 of OVN"),
        Scenario(
            "Neutron has it, or is about to delete it; it is not Neutron's", """
            hosts cell1       c1
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            neutron_ports     id   device_owner              device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                              o-1  network:router_interface  r-1        ACTIVE  n-1         fa:01        3                -9d         -9d
            neutron_routers   id   project_id  name  status  revision_number
                              r-1  p-1         r     ACTIVE  3
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   o-2            router_ports   -                 4
                                   o-3            ports          -                 4
            ovn_routers       uuid  name         router  ports  revision
                              u-1   neutron-r-1  r-1     3      3
                              u-2   other        -       1      -
            ovn_router_ports  uuid  name     revision  router       port  network  gateway
                              u-11  lrp-o-1  3         neutron-r-1  o-1   n-1      false
                              u-12  lrp-o-2  3         neutron-r-1  o-2   n-1      false
                              u-13  lrp-o-3  3         neutron-r-1  o-3   n-1      false
                              u-14  rtr      -         other        -     -        false
            """),
    ),
)  # fmt: skip
