"""NSX has DHCP of a network or a port that Neutron does not have.

Why it matters
    A binding gives an address to a MAC address that nobody has any more; while it is there its segment cannot be
    deleted, and whoever gets that address gets no answer.
How it comes about
    Neutron's plugin deletes a port's bindings and a network's server after its own rows
    (vmware_nsx/plugins/nsx_p/plugin.py: _delete_dhcp_binding; vmware_nsx/plugins/common_v3); NSX did not answer, or
    refused, which the plugin notes in its log alone.
What the repair does
    It deletes the object by NSX's API, right after it was read again, and keeps all of it in the journal; what belongs
    to it alone goes before it.  NSX itself refuses while anything refers to it.  By the Policy API `undo` puts the same
    object back under the same id; the Manager API would give it another, so there only the journal has it.
When not to repair
    After Neutron's database was restored: everything made since the backup looks like this, and is needed.  Where
    another region has a Neutron too, the projects of this Keystone do not tell whose it is, and only a person decides.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_left(row["thing"], row)


CHECK = Check(
    text=__doc__,
    accused=("nsx_objects",),
    query="""
        SELECT l.path AS key, NULL AS server, l.api, l.path, l.kind, l.name, l.neutron, l.project, l.plugin, l.revision,
               l.created, l.changed, l.thing,
               [l.path, l.neutron] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               l.doubt AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nsx_leftovers l
         WHERE starts_with(l.kind, 'dhcp-')
    """,
    repair=nsx_object.repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "a server, and a binding", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            nsx_objects  path                                                      parent               kind          id        thing    neutron  project  plugin  revision
                         /infra/dhcp-server-configs/n-1                            -                    dhcp-server   n-1       network  n-1      t-1      17      0
                         /infra/segments/n-2/dhcp-static-binding-configs/p-1-ipv4  /infra/segments/n-2  dhcp-binding  p-1-ipv4  port     p-1      t-1      17      0
            """,
            finds=("/infra/dhcp-server-configs/n-1", "/infra/segments/n-2/dhcp-static-binding-configs/p-1-ipv4"),
            plans="""
            delete dhcp-server /infra/dhcp-server-configs/n-1 from NSX
            delete dhcp-binding /infra/segments/n-2/dhcp-static-binding-configs/p-1-ipv4 from NSX
            """),
        Scenario(
            "Neutron has what it is of; of a segment", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            neutron_ports    id   device_owner  device_id  mac_address  revision_number  created_at  updated_at
                             p-1  -             -          fa:03        4                -9d         -9d
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            nsx_objects  path                                                      parent               kind          id        thing    neutron  project  plugin  revision
                         /infra/dhcp-server-configs/n-1                            -                    dhcp-server   n-1       network  n-1      t-1      17      0
                         /infra/segments/n-2/dhcp-static-binding-configs/p-1-ipv4  /infra/segments/n-2  dhcp-binding  p-1-ipv4  port     p-1      t-1      17      0
                         /infra/segments/n-3                                       -                    segment       n-3       network  n-3      t-1      17      0
            """),
    ),
)  # fmt: skip
