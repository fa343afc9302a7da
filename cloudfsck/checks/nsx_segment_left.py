"""NSX has a segment of a network that Neutron does not have.

Why it matters
    Its VNI, or its VLAN, stays taken; the router that it hangs on cannot be deleted; and what NSX can hold is less.
How it comes about
    Neutron's plugin deletes its own row first and the segment then (vmware_nsx/plugins/nsx_p/plugin.py:
    delete_network); NSX did not answer, or refused (error 503040: it still had VMs or VIFs), which the plugin notes in
    its log alone.
What the repair does
    It deletes the object by NSX's API, right after it was read again, and keeps all of it in the journal; what belongs
    to it alone goes before it.  NSX itself refuses while anything refers to it.  By the Policy API `undo` puts the same
    object back under the same id; the Manager API would give it another, so there only the journal has it.
When not to repair
    While anything is on it: only ports that are left as well go first, and then it.  After Neutron's database was
    restored: everything made since the backup looks like this, and is needed.  Where another region has a Neutron too,
    the projects of this Keystone do not tell whose it is, and only a person decides.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_left("network", row)


CHECK = Check(
    text=__doc__,
    accused=("nsx_objects",),
    query="""
        SELECT l.path AS key, NULL AS server, l.api, l.path, l.kind, l.name, l.neutron, l.project, l.plugin, l.revision,
               l.created, l.changed, coalesce(b.below, []) AS below,
               [l.path, l.neutron] AS also, CASE WHEN l.doubt IS NULL THEN b.below END AS after,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               coalesce('what is on it goes first: ' || b.below[1], l.doubt) AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nsx_leftovers l
          LEFT JOIN (SELECT o.parent, list(o.path ORDER BY o.path) AS below
                       FROM nsx_objects o
                      GROUP BY o.parent) b ON b.parent = l.path
         WHERE l.kind = 'segment'
    """,
    repair=nsx_object.repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "empty; with ports that are left too, that Neutron has, or that nobody knows; without a revision", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            neutron_ports    id   device_owner  device_id  mac_address  revision_number  created_at  updated_at
                             p-3  compute:nova  s-1        fa:03        4                -9d         -9d
            nsx_objects  path                           parent               kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-1            -                    segment  n-1  network  n-1      t-1      17      0
                         /infra/segments/n-2            -                    segment  n-2  network  n-2      t-1      17      0
                         /infra/segments/n-3            -                    segment  n-3  network  n-3      t-1      17      0
                         /infra/segments/n-4            -                    segment  n-4  network  n-4      t-1      17      0
                         /infra/segments/n-5            -                    segment  n-5  network  n-5      t-1      17      -
                         /infra/segments/n-2/ports/p-2  /infra/segments/n-2  port     p-2  port     p-2      t-1      17      0
                         /infra/segments/n-2/ports/p-9  /infra/segments/n-2  port     p-9  port     p-9      t-1      17      0
                         /infra/segments/n-3/ports/p-3  /infra/segments/n-3  port     p-3  port     p-3      t-1      17      0
                         /infra/segments/n-3/ports/p-4  /infra/segments/n-3  port     p-4  port     p-4      t-1      17      0
                         /infra/segments/n-4/ports/x-1  /infra/segments/n-4  port     x-1  -        -        -        -       0
            """,
            finds=("/infra/segments/n-1", "/infra/segments/n-2", "/infra/segments/n-3", "/infra/segments/n-4",
                   "/infra/segments/n-5"),
            plans="delete segment /infra/segments/n-1 from NSX"),
        Scenario(
            "Neutron has it, or has it under another id, or has a network on it that was there before; of another kind", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            neutron_networks  id   name  revision_number
                              n-1  net0  2
            neutron_nsx_networks  network_id  binding_type  phy_uuid
                                  n-1         nsx-net       n-2
            neutron_nsx_network_mappings  neutron_id  nsx_id
                                          n-9         x-3
            nsx_objects  path                            parent  kind         id   thing    neutron  project  plugin  revision
                         /infra/segments/n-1             -       segment      n-1  network  n-1      t-1      17      0
                         /infra/segments/n-2             -       segment      n-2  network  n-2      t-1      17      0
                         /logical-switches/x-3           -       segment      x-3  network  n-3      t-1      17      0
                         /infra/dhcp-server-configs/n-4  -       dhcp-server  n-4  network  n-4      t-1      17      0
            """),
    ),
)  # fmt: skip
