"""NSX has a port that Neutron does not have.

Why it matters
    It keeps its address bindings on the segment, which cannot be deleted while the port is there, and counts against
    what NSX can hold; security groups go on to be computed for it.
How it comes about
    Neutron's plugin did not reach NSX, or NSX refused, when the port was deleted or its creation was taken back, and
    that stands in the plugin's log alone (vmware_nsx/plugins/nsx_p/plugin.py: delete_port, create_port); or
    Neutron's rows were deleted by hand.
What the repair does
    It deletes the object by NSX's API, right after it was read again, and keeps all of it in the journal; what belongs
    to it alone goes before it.  NSX itself refuses while anything refers to it.  By the Policy API `undo` puts the same
    object back under the same id; the Manager API would give it another, so there only the journal has it.
When not to repair
    While a virtual machine has the port.  After Neutron's database was restored: everything made since the backup looks
    like this, and is needed.  Where another region has a Neutron too, the projects of this Keystone do not tell whose
    it is, and only a person decides.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_left("port", row)


CHECK = Check(
    text=__doc__,
    accused=("nsx_objects",),
    query="""
        SELECT l.path AS key, NULL AS server, l.api, l.path, l.kind, l.name, l.neutron, l.project, l.plugin, l.revision,
               l.created, l.changed,
               l.attachment, i.machine, coalesce(g.on_hosts, []) AS guests_on,
               [l.path, l.neutron, '/fabric/vifs/' || l.attachment] AS also, NULL AS hosts, [] AS cells,
               NULL AS since, 'neutron:neutron' AS clock, CASE WHEN g.on_hosts IS NOT NULL THEN 'a guest has the port, on ' || array_to_string(g.on_hosts, ', ')
                    WHEN i.attachment IS NOT NULL THEN 'a virtual machine has it: ' || coalesce(i.machine, '')
                    ELSE l.doubt END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM nsx_leftovers l
          LEFT JOIN (SELECT attachment, min(machine) AS machine FROM nsx_interfaces GROUP BY attachment) i
                 ON i.attachment = l.attachment
          LEFT JOIN (SELECT i.port, list(DISTINCT i.host ORDER BY i.host) AS on_hosts
                       FROM libvirt_interfaces i GROUP BY i.port) g ON g.port = l.neutron
         WHERE l.kind = 'port'
    """,
    repair=nsx_object.repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "a leftover; one that a guest has, or a virtual machine elsewhere; one without a revision", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            keystone_services    id   type
                                 v-1  network
            keystone_endpoints   service_id  region_id  enabled
                                 v-1         r-1        true
            neutron_networks  id   revision_number
                              n-1  2
            neutron_ports    id   device_owner  device_id  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        fa:01        4                -9d         -9d
            libvirt_domains  host  uuid  state    nova
                             c1    s-3   running  true
            qemu_processes   host  uuid  pid
                             c1    s-3   13
            libvirt_interfaces  host  uuid  config  mac    port
                                c1    s-3   live    fa:03  p-3
            nsx_objects      path                        parent               kind     id   thing    neutron  project  plugin  revision  attachment
                             /infra/segments/n-1         -                    segment  n-1  network  n-1      t-1      17      0         -
                             /infra/segments/n-1/ports/p-1  /infra/segments/n-1  port  p-1  port     p-1      t-1      17      0         p-1
                             /infra/segments/n-1/ports/p-2  /infra/segments/n-1  port  p-2  port     p-2      t-1      17      0         p-2
                             /infra/segments/n-1/ports/p-3  /infra/segments/n-1  port  p-3  port     p-3      t-1      17      0         p-3
                             /infra/segments/n-1/ports/p-4  /infra/segments/n-1  port  p-4  port     p-4      t-1      17      0         p-4
                             /infra/segments/n-1/ports/p-5  /infra/segments/n-1  port  p-5  port     p-5      t-1      17      -         p-5
                             /infra/segments/n-1/ports/p-6  /infra/segments/n-1  port  p-6  port     p-6      t-1      17      0         -
            nsx_interfaces   path              attachment  machine
                             /fabric/vifs/p-4  p-4         vm-4
            """,
            finds=("/infra/segments/n-1/ports/p-2", "/infra/segments/n-1/ports/p-3", "/infra/segments/n-1/ports/p-4",
                   "/infra/segments/n-1/ports/p-5", "/infra/segments/n-1/ports/p-6"),
            plans="""
            delete port /infra/segments/n-1/ports/p-2 from NSX
            delete port /infra/segments/n-1/ports/p-6 from NSX
            """),
        Scenario(
            "of the Manager API; the same id of another kind of thing does not count", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            keystone_services    id   type
                                 v-1  network
            keystone_endpoints   service_id  region_id  enabled
                                 v-1         r-1        true
            neutron_routers  id   revision_number
                             p-2  2
            neutron_nsx_port_mappings  neutron_id  nsx_port_id
                                       p-9         x-3
            nsx_objects      path              parent                 kind  id   thing  neutron  project  plugin  revision  attachment
                             /logical-ports/x-2  /logical-switches/y  port  x-2  port   p-2      t-1      17      0         p-2
                             /logical-ports/x-3  /logical-switches/y  port  x-3  port   p-3      t-1      17      0         p-3
            """,
            finds=("/logical-ports/x-2",),
            plans="delete port /logical-ports/x-2 from NSX"),
        Scenario(
            "two regions have a Neutron; one of another service, and one that is not in use, do not count", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            keystone_services    id   type
                                 v-1  network
                                 v-2  compute
            keystone_endpoints   service_id  region_id  enabled
                                 v-1         r-1        true
                                 v-1         r-1        true
                                 v-1         r-2        true
            nsx_objects      path                           parent               kind  id   thing  neutron  project  plugin  revision  attachment
                             /infra/segments/n-1/ports/p-2  /infra/segments/n-1  port  p-2  port   p-2      t-1      17      0         p-2
            """,
            finds=("/infra/segments/n-1/ports/p-2",)),
        Scenario(
            "the other regions have none, or none that is in use", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            keystone_services    id   type
                                 v-1  network
                                 v-2  compute
            keystone_endpoints   service_id  region_id  enabled
                                 v-1         r-1        true
                                 v-1         r-2        false
                                 v-2         r-3        true
            nsx_objects      path                           parent               kind  id   thing  neutron  project  plugin  revision  attachment
                             /infra/segments/n-1/ports/p-2  /infra/segments/n-1  port  p-2  port   p-2      t-1      17      0         p-2
            """,
            finds=("/infra/segments/n-1/ports/p-2",),
            plans="delete port /infra/segments/n-1/ports/p-2 from NSX"),
        Scenario(
            "another cloud's; of nobody; by no plugin; NSX's own; on a segment that was there before", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            keystone_services    id   type
                                 v-1  network
            keystone_endpoints   service_id  region_id  enabled
                                 v-1         r-1        true
            nsx_objects      path                           parent               kind  id   thing  neutron  project  plugin  revision  protected
                             /infra/segments/n-1/ports/p-2  /infra/segments/n-1  port  p-2  port   p-2      t-2      17      0         -
                             /infra/segments/n-1/ports/p-3  /infra/segments/n-1  port  p-3  port   p-3      -        17      0         -
                             /infra/segments/n-1/ports/p-4  /infra/segments/n-1  port  p-4  port   p-4      t-1      -       0         -
                             /infra/segments/n-1/ports/p-5  /infra/segments/n-1  port  p-5  port   p-5      t-1      17      0         NSX's
                             /infra/segments/n-1/ports/p-6  /infra/segments/n-1  port  p-6  -      -        t-1      17      0         -
            """),
    ),
)  # fmt: skip
