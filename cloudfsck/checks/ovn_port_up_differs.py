"""Neutron and OVN disagree on whether a server's port is up.

Why it matters
    Nova waits for Neutron to say that a port is up: the next start, rebuild or migration of a server whose port stays DOWN
    fails after its vif_plugging_timeout.  Of one that is ACTIVE in Neutron and down in OVN nobody sees that it is cut off.
How it comes about
    Neutron learns it by an event of OVN's (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/ovsdb_monitor.py:
    LogicalSwitchPortUpdateUpEvent), and whoever was to handle that died, or failed at it; it does not ask again.  Or a
    provisioning block of another of its agents holds the port back (neutron/db/provisioning_blocks.py).
What the repair does
    There is none.  What of Neutron listens to OVN gives every port its status anew when it connects again
    (LogicalSwitchPortCreateEvent): a restart of neutron-server does that.  A port that is disabled and enabled gets its
    status as well, and is cut off in between.
When not to repair
    While the server moves or is built, and an hour after the port last changed.  Where the port is none that OVN puts up:
    it is not bound, or a device of the host is passed through.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    port = row["port"]
    yield f"as an administrator: openstack port show {port}; openstack server show {row['server']}"
    yield f"where OVN's databases are: ovn-nbctl list Logical_Switch_Port {port}; ovn-sbctl find Port_Binding logical_port={port}"
    yield (
        "in Neutron's database: SELECT b.entity FROM provisioningblocks b JOIN ports p"
        f" ON p.standard_attr_id = b.standard_attr_id WHERE p.id = '{port}';"
    )
    yield "on each controller, one after the other: systemctl restart neutron-server"
    yield f"or as an administrator, which cuts it off for a moment: openstack port set --disable {port}; openstack port set --enable {port}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_switch_ports",),
    query="""
        SELECT o.name AS key, p.server, l.name, l.project, l.cell, l.host, l.vm_state, o.port, o.switch, o.up, o.enabled,
               p.status, p.bound_to, p.revision, p.updated_at, [o.port] AS also, [] AS hosts, NULL AS cells,
               NULL AS since, 'neutron:neutron' AS clock, NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM ovn_switch_ports o
          JOIN server_ports p ON p.port = o.port
          JOIN live_servers l ON l.server = p.server
          JOIN clocks c ON c.table_name = 'neutron_ports'
         WHERE coalesce(o.type, '') = ''
           AND p.vif_type = 'ovs'
           AND p.status IN ('ACTIVE', 'DOWN')
           AND p.status <> CASE WHEN o.up AND coalesce(o.enabled, TRUE) THEN 'ACTIVE' ELSE 'DOWN' END
           AND p.changed < c.now - INTERVAL 1 HOUR
           AND NOT EXISTS (SELECT 1 FROM neutron_port_bindings b
                            WHERE b.port_id = o.port AND (b.status <> 'ACTIVE' OR b.vnic_type <> 'normal'))
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = p.server)
           AND NOT EXISTS (SELECT 1 FROM last_moves m WHERE m.server = p.server AND m.recent)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "up in OVN alone, and in Neutron alone; its move is long over", """
            hosts cell1       c1 c2
            nova_instances    cell   uuid  host  deleted  vm_state
                              cell1  s-1   c1    0        active
                              cell1  s-2   c1    0        stopped
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
            nova_migrations   cell   id  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                              cell1  1   s-1            completed  live-migration  c2              c1            -2h         0
            libvirt_domains   host  uuid  state    nova
                              c1    s-1   running  true
                              c1    s-2   shutoff  true
            qemu_processes    host  uuid  pid
                              c1    s-1   11
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  2                -9d         -9d
            neutron_ports     id   device_owner  device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                              o-1  compute:nova  s-1        DOWN    n-1         fa:01        4                -9d         -9d
                              o-2  compute:nova  s-2        ACTIVE  n-1         fa:02        4                -9d         -9d
                              o-3  compute:nova  s-2        ACTIVE  n-1         fa:03        4                -9d         -9d
            neutron_port_bindings  port_id  host  status  vif_type  vnic_type
                                   o-1      c1    ACTIVE  ovs       normal
                                   o-2      c1    ACTIVE  ovs       normal
                                   o-3      c1    ACTIVE  ovs       normal
            ovn_switches      uuid  name         network  ports  revision
                              u-1   neutron-n-1  n-1      3      2
            ovn_switch_ports  uuid  name  port  switch       type  up     enabled  device_id  device_owner  revision
                              u-11  o-1   o-1   neutron-n-1  -     true   true     s-1        compute:nova  4
                              u-12  o-2   o-2   neutron-n-1  -     false  true     s-2        compute:nova  4
                              u-13  o-3   o-3   neutron-n-1  -     true   false    s-2        compute:nova  4
            """,
            finds=("o-1", "o-2", "o-3")),
        Scenario(
            "they agree; disabled; not bound; passed through; moving; just changed or moved; no server's; in error", """
            hosts cell1       c1 c2
            nova_instances    cell   uuid  host  deleted  vm_state           task_state
                              cell1  s-1   c1    0        active             -
                              cell1  s-2   c1    0        active             migrating
                              cell1  s-3   -     0        shelved_offloaded  -
                              cell1  s-4   c1    0        active             -
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
            nova_migrations   cell   id  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                              cell1  1   s-4            completed  live-migration  c2              c1            -5m         0
            libvirt_domains   host  uuid  state    nova
                              c1    s-1   running  true
                              c1    s-2   running  true
                              c1    s-4   running  true
            qemu_processes    host  uuid  pid
                              c1    s-1   11
                              c1    s-2   12
                              c1    s-4   14
            neutron_networks  id   name  project_id  status  revision_number  created_at  updated_at
                              n-1  net0  p-1         ACTIVE  2                -9d         -9d
            neutron_ports     id    device_owner   device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                              o-1   compute:nova   s-1        ACTIVE  n-1         fa:01        4                -9d         -9d
                              o-2   compute:nova   s-1        DOWN    n-1         fa:02        4                -9d         -9d
                              o-3   compute:nova   s-3        DOWN    n-1         fa:03        4                -9d         -9d
                              o-4   compute:nova   s-1        ACTIVE  n-1         fa:04        4                -9d         -9d
                              o-5   compute:nova   s-2        DOWN    n-1         fa:05        4                -9d         -9d
                              o-6   compute:nova   s-1        DOWN    n-1         fa:06        4                -9d         -30m
                              o-7   compute:nova   s-4        DOWN    n-1         fa:07        4                -9d         -9d
                              o-8   trunk:subport  s-1        DOWN    n-1         fa:08        4                -9d         -9d
                              o-9   compute:nova   s-1        ERROR   n-1         fa:09        4                -9d         -9d
                              o-10  compute:nova   s-1        ACTIVE  n-1         fa:10        4                -9d         -9d
                              o-11  compute:nova   s-1        DOWN    n-1         fa:11        4                -9d         -9d
                              o-12  compute:nova   s-9        DOWN    n-1         fa:12        4                -9d         -9d
            neutron_port_bindings  port_id  host  status    vif_type     vnic_type
                                   o-1      c1    ACTIVE    ovs          normal
                                   o-2      c1    ACTIVE    ovs          normal
                                   o-3      -     ACTIVE    unbound      normal
                                   o-4      c1    ACTIVE    ovs          direct
                                   o-5      c1    ACTIVE    ovs          normal
                                   o-6      c1    ACTIVE    ovs          normal
                                   o-7      c1    ACTIVE    ovs          normal
                                   o-8      c1    ACTIVE    ovs          normal
                                   o-9      c1    ACTIVE    ovs          normal
                                   o-10     c1    ACTIVE    ovs          normal
                                   o-11     c1    ACTIVE    ovs          normal
                                   o-11     c2    INACTIVE  ovs          normal
                                   o-12     c1    ACTIVE    ovs          normal
            ovn_switches      uuid  name         network  ports  revision
                              u-1   neutron-n-1  n-1      12     2
            ovn_switch_ports  uuid  name  port  switch       type      up     enabled  device_id  device_owner   revision
                              u-11  o-1   o-1   neutron-n-1  -         true   -        s-1        compute:nova   4
                              u-12  o-2   o-2   neutron-n-1  -         true   false    s-1        compute:nova   4
                              u-13  o-3   o-3   neutron-n-1  -         true   true     s-3        compute:nova   4
                              u-14  o-4   o-4   neutron-n-1  -         false  true     s-1        compute:nova   4
                              u-15  o-5   o-5   neutron-n-1  -         true   true     s-2        compute:nova   4
                              u-16  o-6   o-6   neutron-n-1  -         true   true     s-1        compute:nova   4
                              u-17  o-7   o-7   neutron-n-1  -         true   true     s-4        compute:nova   4
                              u-18  o-8   o-8   neutron-n-1  -         true   true     s-1        trunk:subport  4
                              u-19  o-9   o-9   neutron-n-1  -         true   true     s-1        compute:nova   4
                              u-20  o-10  o-10  neutron-n-1  external  false  true     s-1        compute:nova   4
                              u-21  o-11  o-11  neutron-n-1  -         true   true     s-1        compute:nova   4
                              u-22  o-12  o-12  neutron-n-1  -         true   true     s-9        compute:nova   4
            """),
    ),
)  # fmt: skip
