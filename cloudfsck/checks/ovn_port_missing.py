"""Neutron believes that a port is in OVN, and it is not there.

Why it matters
    Whoever has the port is cut off, or will be as soon as he starts.
How it comes about
    Somebody removed it from the northbound database, or that was restored from an older backup.  Neutron's maintenance
    looks only at what it has noted itself, and there the port is up to date.
What the repair does
    It has Neutron's note say that the port never got there, in one transaction in which the port and the note are as
    they were seen.  Neutron's maintenance then makes the port within five minutes, it alone and as Neutron has it
    (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/maintenance.py: _fix_create_update); if it does not,
    ovn-change-overdue tells.  `neutron-ovn-db-sync-util` in repair mode would do so for everything that differs, and
    delete what it does not know.
When not to repair
    While OVN is being restored.  A router's port whose side on the router is there is left to a person: Neutron joins the
    two only when it makes that side (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/ovn_client.py: create_port,
    _create_lrouter_port).
"""

from collections.abc import Iterable

from cloudfsck.acts import ovn_note
from cloudfsck.model import Act, Check, Row, Scenario


def _repair(row: Row) -> Iterable[Act]:
    yield ovn_note.Reset.made(row, "ports")


def _commands(row: Row) -> Iterable[str]:
    port, revision = row["port"], row["revision"]
    yield f"as an administrator: openstack port show {port}"
    yield f"where OVN's northbound database is: ovn-nbctl --columns=name,external_ids find Logical_Switch_Port name={port}"
    yield from ovn_note.again(port, "ports", revision)
    if row["router_port"] is not None:
        more = " nat-addresses=router exclude-lb-vips-from-garp=true" if row["gateway"] else ""
        yield (
            f"where OVN's northbound database is, when it is there: ovn-nbctl lsp-set-type {port} router"
            f" -- lsp-set-addresses {port} router -- lsp-set-options {port} router-port={row['router_port']}{more}"
        )


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        SELECT p.id AS key, CASE WHEN starts_with(p.device_owner, 'compute:') THEN p.device_id END AS server, p.id AS port, p.name, p.project_id AS project,
               p.network_id AS network, s.name AS switch, p.device_owner, p.status, p.revision_number AS revision,
               p.updated_at, r.standard_attr_id, r.updated_at AS noted_at, l.name AS router_port, l.gateway,
               [p.id, p.network_id] AS also, [] AS hosts, [] AS cells,
               greatest(p.created_at, p.updated_at, r.updated_at) AS since, 'neutron:neutron' AS clock,
               CASE WHEN l.name NOTNULL THEN 'its side on the router is there, and Neutron would not join the two again' END
                   AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_ports p
          JOIN neutron_ovn_revisions r ON r.resource_uuid = p.id AND r.resource_type = 'ports'
          JOIN ovn_switches s ON s.network = p.network_id
          LEFT JOIN ovn_router_ports l ON l.port = p.id
         WHERE r.revision_number = p.revision_number
           AND r.standard_attr_id NOTNULL
           AND p.device_owner <> 'network:floatingip'
           AND NOT EXISTS (SELECT 1 FROM ovn_switch_ports o WHERE o.name = p.id)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "a server's, and one that nobody has", """
            hosts cell1      c1
            neutron_ports    id   device_owner  device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  n-1         fa:01        4                -9d         -9d
                             p-2  network:dhcp  x          DOWN    n-1         fa:02        1                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   p-1            ports          1                 4                -9d
                                   p-2            ports          2                 1                -9d
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      0      2
            """,
            finds=("p-1", "p-2"),
            plans="""
            have Neutron make port p-1 in OVN again: its note of revision 4
            have Neutron make port p-2 in OVN again: its note of revision 1
            """),
        Scenario(
            "of a router: its side there is there, or is missing too", """
            hosts cell1      c1
            neutron_ports    id   device_owner              device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             p-1  network:router_interface  r-1        ACTIVE  n-1         fa:01        4                -9d         -9d
                             p-2  network:router_gateway    r-1        ACTIVE  n-1         fa:02        3                -9d         -9d
                             p-3  network:router_interface  r-2        ACTIVE  n-1         fa:03        2                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   p-1            ports          1                 4                -9d
                                   p-2            ports          2                 3                -9d
                                   p-3            ports          3                 2                -9d
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      0      2
            ovn_router_ports  uuid  name     revision  router       port  network  gateway
                              u-21  lrp-p-1  4         neutron-r-1  p-1   n-1      false
                              u-22  lrp-p-2  3         neutron-r-1  p-2   n-1      true
            """,
            finds=("p-1", "p-2", "p-3"),
            plans="have Neutron make port p-3 in OVN again: its note of revision 2"),
        Scenario(
            "it is there; Neutron knows that it is not, or has deleted it; a floating IP's own; of a network that OVN does not have", """
            hosts cell1      c1
            neutron_ports    id   device_owner        device_id  status  network_id  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova        s-1        ACTIVE  n-1         fa:01        4                -9d         -9d
                             p-2  compute:nova        s-1        ACTIVE  n-1         fa:02        5                -9d         -5m
                             p-3  network:floatingip  f-1        N/A     n-1         fa:03        1                -9d         -9d
                             p-4  compute:nova        s-1        ACTIVE  n-2         fa:04        4                -9d         -9d
                             p-5  compute:nova        s-1        ACTIVE  n-1         fa:05        4                -9d         -9d
                             p-6  compute:nova        s-1        ACTIVE  n-1         fa:06        4                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   p-1            ports          1                 4                -9d
                                   p-2            ports          2                 4                -9d
                                   p-3            ports          3                 1                -9d
                                   p-4            ports          4                 4                -9d
                                   p-5            router_ports   5                 4                -9d
                                   p-6            ports          -                 4                -9d
            ovn_switches     uuid  name         network  ports  revision
                             u-1   neutron-n-1  n-1      1      2
            ovn_switch_ports  uuid  name  port  switch       type  up    revision
                              u-11  p-1   p-1   neutron-n-1  -     true  4
            """),
    ),
)  # fmt: skip
