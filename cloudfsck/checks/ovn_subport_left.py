"""OVN takes a port for a trunk's subport, and Neutron does not any more.

Why it matters
    Whoever sends from the parent's server with that VLAN (`tag`) is still in the network of the port, although Neutron
    says that he is not; and the port is of no use elsewhere, for OVN looks for it behind the parent.
How it comes about
    When a trunk or its subports are deleted, Neutron first forgets that in its database, and then tells OVN, port by port
    (neutron/services/trunk/drivers/ovn/trunk_driver.py: _unset_sub_ports).  OVN's northbound database did not answer just
    then; the rest of them was left as well.  Neutron's maintenance does not notice, for the port's revision is the same.
What the repair does
    There is none.  The commands say of the port what Neutron would have; it then tells OVN.
When not to repair
    Where somebody keeps the port as it is on purpose, as containers in a server do that know no trunks: then its
    device_owner would be another.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    port = row["port"]
    yield f"as an administrator: openstack port show {port}; openstack port show {row['parent']}"
    yield f"where OVN's northbound database is: ovn-nbctl get Logical_Switch_Port {port} parent_name tag"
    yield f"as a service: openstack port unset --binding-profile parent_name --binding-profile tag {port}"
    yield f"as an administrator, then: openstack port unset --device-owner {port}"


CHECK = Check(
    text=__doc__,
    accused=("ovn_switch_ports",),
    query="""
        SELECT o.port AS key, NULL AS server, o.port, o.uuid AS ovn_row, o.switch, o.parent, o.tag, o.up, p.name,
               p.project_id AS project, p.network_id AS network, p.status, p.revision_number AS revision, p.updated_at,
               [o.port, o.parent] AS also, [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM ovn_switch_ports o
          JOIN neutron_ports p ON p.id = o.port
         WHERE o.parent IS NOT NULL
           AND p.device_owner = 'trunk:subport'
           AND NOT EXISTS (SELECT 1 FROM neutron_subports s WHERE s.port_id = p.id)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "of a trunk that is gone; beside it one of a trunk that is there", """
            hosts cell1      c1
            neutron_ports    id   device_owner   device_id  network_id  status  revision_number  created_at  updated_at
                             o-1  compute:nova   s-1        n-1         ACTIVE  2                -9d         -9d
                             o-2  trunk:subport  -          n-2         ACTIVE  2                -9d         -9d
                             o-3  trunk:subport  -          n-3         ACTIVE  2                -9d         -9d
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
            qemu_processes   host  uuid  pid
                             c1    s-1   101
            neutron_trunks   id   port_id
                             t-1  o-1
            neutron_subports  port_id  trunk_id  segmentation_type  segmentation_id
                              o-3      t-1       vlan               7
            ovn_switch_ports  uuid  name  port  switch       type  up    parent  tag  device_owner   revision
                              u-1   o-1   o-1   neutron-n-1  -     true  -       -    compute:nova   2
                              u-2   o-2   o-2   neutron-n-2  -     true  o-1     6    trunk:subport  2
                              u-3   o-3   o-3   neutron-n-3  -     true  o-1     7    trunk:subport  2
            """,
            finds=("o-2",)),
        Scenario(
            "OVN has forgotten the parent; a container's that somebody said so; not Neutron's", """
            hosts cell1      c1
            neutron_ports    id   device_owner   device_id  network_id  status  revision_number  created_at  updated_at
                             o-2  trunk:subport  -          n-2         DOWN    2                -9d         -9d
                             o-4  compute:kuryr  -          n-2         ACTIVE  2                -9d         -9d
            ovn_switch_ports  uuid  name   port  switch       type  up     parent  tag  device_owner   revision
                              u-2   o-2    o-2   neutron-n-2  -     false  -       -    trunk:subport  2
                              u-4   o-4    o-4   neutron-n-2  -     true   o-1     8    compute:kuryr  2
                              u-5   pod-1  -     kube-1       -     true   vm-1    9    -              -
            """),
    ),
)  # fmt: skip
