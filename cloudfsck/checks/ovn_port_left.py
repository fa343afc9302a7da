"""OVN has a port that Neutron does not have.

Why it matters
    The address stays taken in OVN: a new port with it does not get its traffic, or its DHCP answers; and every host is
    told of a port that nobody will ever bind.
How it comes about
    Neutron deletes its own row first, and then the port in OVN (neutron/plugins/ml2/drivers/ovn/mech_driver.py:
    delete_port_postcommit); the northbound database was away just then, and what Neutron's maintenance goes by
    (ovn_revision_numbers) has been lost with the row, or Neutron's database was restored.
What the repair does
    It deletes the one row, in one transaction that demands that the whole row is as it was read: if anything of it has
    changed, nothing is written.  `undo` puts the same row back.  `neutron-ovn-db-sync-util` in repair mode would delete
    whatever else it does not know in the same pass.
When not to repair
    After Neutron's database was restored: every port made since the backup looks like this, and is needed.  Where another
    Neutron uses the same OVN: its networks are not this one's, and only a person decides, unless [ovn] of the
    configuration says that this one uses OVN alone.  One that leads to a router is a person's to delete, when the
    router's own port is gone (`ovn-router-port-left`).
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_port
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[ovn_port.Delete]:
    yield ovn_port.Delete(
        row["server"] or "", "Logical_Switch_Port", row["port"], row["key"], row["ovn_row"], row["switch"], row["revision"]
    )  # fmt: skip


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port show {row['port']}; openstack network show {row['network']}"
    yield f"where OVN's northbound database is: ovn-nbctl list Logical_Switch_Port {row['port']}"
    for act in _repair(row):
        yield f"where OVN's northbound database is, if it is this cloud's: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_switch_ports",),
    query="""
        SELECT p.name AS key, CASE WHEN starts_with(p.device_owner, 'compute:') THEN p.device_id END AS server, p.port, p.uuid AS ovn_row, p.switch, s.network, p.type, p.up,
               p.device_owner, p.revision, n.name AS network_name, n.project_id AS project,
               coalesce(g.on_hosts, []) AS guests_on, [p.port, s.network] AS also,
               NULL AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               CASE WHEN n.id IS NULL AND NOT a.alone THEN 'its network is none of this Neutron''s'
                    WHEN g.on_hosts IS NOT NULL THEN 'a guest has the port, on ' || array_to_string(g.on_hosts, ', ')
                    WHEN p.type <> '' THEN 'it is no server''s port'
                    WHEN p.up THEN 'OVN says that a host has it' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM ovn_switch_ports p
         CROSS JOIN ovn_settings a
          LEFT JOIN ovn_switches s ON s.name = p.switch
          LEFT JOIN neutron_networks n ON n.id = s.network
          LEFT JOIN (SELECT i.port, list(DISTINCT i.host ORDER BY i.host) AS on_hosts
                       FROM port_interfaces i GROUP BY i.port) g ON g.port = p.port
         WHERE p.port IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM neutron_ports o WHERE o.id = p.port)
           AND NOT EXISTS (SELECT 1 FROM neutron_ovn_revisions r
                            WHERE r.resource_uuid = p.port AND r.resource_type = 'ports')
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a network that is here; of another Neutron's; a guest or Open vSwitch has it; it is up; a router's", """
            hosts cell1      c1
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      7      2
                             u-2   neutron-n-2  n-2      1      2
                             u-3   other        -        1      -
            ovn_switch_ports  uuid  name  port  switch       type    up     device_id  device_owner              revision
                              u-11  p-1   p-1   neutron-n-1  -       false  s-1        compute:nova              4
                              u-12  p-2   p-2   neutron-n-2  -       false  s-2        compute:nova              4
                              u-13  p-3   p-3   neutron-n-1  -       false  s-3        compute:nova              4
                              u-14  p-4   p-4   neutron-n-1  -       true   s-4        compute:nova              4
                              u-15  p-5   p-5   neutron-n-1  router  false  r-1        network:router_interface  4
                              u-16  q-1   -     other        -       false  -          -                         -
                              u-17  p-6   p-6   neutron-n-1  -       false  s-6        compute:nova              4
                              u-18  p-7   p-7   neutron-n-1  -       false  s-7        compute:nova              4
            libvirt_domains  host  uuid  state    nova
                             c1    s-3   running  true
            qemu_processes   host  uuid  pid
                             c1    s-3   13
            libvirt_interfaces  host  uuid  config  mac    port
                                c1    s-3   live    fa:03  p-3
            ovs_interfaces   host  bridge  name   iface_id  vm   ofport  error
                             c1    br-int  tap-6  p-6       s-6  9       -
                             c1    br-int  tap-7  p-7       s-7  -1      No_such_device
            """,
            finds=("p-1", "p-2", "p-3", "p-4", "p-5", "p-6", "p-7"),
            plans="""
            delete port p-1 from switch neutron-n-1 of OVN
            delete port p-7 from switch neutron-n-1 of OVN
            """),
        Scenario(
            "of a network that is gone too, where no other Neutron uses OVN", """
            hosts cell1      c1
            settings         name       value
                             ovn_alone  1
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      1      2
            ovn_switch_ports  uuid  name  port  switch       type  up     device_id  device_owner  revision
                              u-11  p-1   p-1   neutron-n-1  -     false  s-1        compute:nova  4
            """,
            finds=("p-1",),
            plans="delete port p-1 from switch neutron-n-1 of OVN"),
        Scenario(
            "Neutron has it, or is about to delete it; it is not Neutron's", """
            hosts cell1      c1
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        DOWN    fa:01        4                -9d         -9d
                             p-3  compute:nova  s-1        DOWN    fa:03        4                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   p-2            ports          -                 4
                                   p-1            ports          1                 4
                                   p-9            networks       1                 4
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      3      2
            ovn_switch_ports  uuid  name    port  switch       type      up     device_id  device_owner  revision
                              u-11  p-1     p-1   neutron-n-1  -         false  s-1        compute:nova  4
                              u-12  p-2     p-2   neutron-n-1  -         false  s-2        compute:nova  4
                              u-14  p-3     p-3   neutron-n-1  -         false  s-1        compute:nova  4
                              u-13  provnet -     neutron-n-1  localnet  false  -          -             -
            """),
        Scenario(
            "what Neutron notes of another kind of thing does not count", """
            hosts cell1      c1
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number
                                   p-1            router_ports   1                 4
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      1      2
            ovn_switch_ports  uuid  name    port  switch       type      up     device_id  device_owner  revision
                              u-11  p-1     p-1   neutron-n-1  -         false  -          compute:nova  4
            """,
            finds=("p-1",),
            plans="delete port p-1 from switch neutron-n-1 of OVN"),
    ),
)  # fmt: skip
