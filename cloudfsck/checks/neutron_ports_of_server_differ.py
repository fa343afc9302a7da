"""Nova and Neutron do not agree on which ports a server has.

Why it matters
    Nova plugs in and shows what it has in its cache.  A port that is `gone` leads nowhere, and the guest does not know; one
    that is `another's` now is plugged in twice; one that Nova does not know (`unknown`) keeps its address and binds a port
    to a server that cannot use it, and is missing after the next hard reboot.
How it comes about
    Neutron tells Nova when a port is deleted or changed (neutron/notifiers/nova.py), and does not say it again when Nova's
    API did not answer.  Or an attachment of a port broke off (nova/network/neutron.py: allocate_for_instance).  Nova's task
    that compares the two is off by default in newer releases (nova/conf/compute.py: heal_instance_info_cache_interval).
What the repair does
    There is none.  The commands say to Nova what Neutron would have said: of a port that the server has no more, that it
    was deleted, so that nova-compute takes it from the guest and forgets it; of one that it has, that it changed, so that
    Nova learns of it.  A cache that is empty altogether stays empty even so: there only that task helps.  `openstack server
    remove port` would have Nova delete or unbind a port that is another's by now.
When not to repair
    While a port is being attached or detached, or the server moves.  Where somebody wrote the server into a port's device_id
    himself, the port is to be given back to him.
"""

from collections.abc import Iterable
from datetime import timedelta

from cloudfsck.model import Check, Row, Scenario


def _told(event: str, server: str, port: str) -> str:
    body = f'{{"events": [{{"name": "{event}", "server_uuid": "{server}", "tag": "{port}"}}]}}'
    return (
        "curl -H \"X-Auth-Token: $(openstack token issue -f value -c id)\" -H 'Content-Type: application/json'"
        f" -d '{body}' NOVA/os-server-external-events"
    )


def _commands(row: Row) -> Iterable[str]:
    server = row["server"]
    yield f"as an administrator: openstack server show {server}; openstack port list --device-id {server}"
    yield f"on {row['host']}: virsh domiflist {server}"
    yield "as an administrator, the address of Nova's API (NOVA below): openstack catalog show compute"
    for port in (*row["gone"], *row["anothers"]):
        yield f"as an administrator, if the server is not to have it: {_told('network-vif-deleted', server, port)}"
    for port in row["unknown"]:
        yield f"as an administrator, if the server is to have it: {_told('network-changed', server, port)}"
        yield f"as an administrator, then, if the guest does not have it: openstack server reboot --hard {server}"
        yield f"as an administrator, if it is not to have it: openstack port unset --device --device-owner --host {port}"


CHECK = Check(
    text=__doc__,
    accused=("nova_instance_info_caches",),
    query="""
        WITH caches AS (
            SELECT c.cell, c.instance_uuid AS server, c.ports
              FROM nova_instance_info_caches c
             WHERE c.deleted = 0),
        faults AS (
            SELECT k.cell, k.server, k.port, CASE WHEN p.id IS NULL THEN 'gone' ELSE 'another' END AS fault
              FROM (SELECT c.cell, c.server, unnest(c.ports) AS port FROM caches c) k
              LEFT JOIN neutron_ports p ON p.id = k.port
             WHERE p.device_id IS DISTINCT FROM k.server
            UNION ALL
            SELECT c.cell, c.server, p.id, 'unknown'
              FROM caches c
              JOIN neutron_ports p ON p.device_id = c.server
             WHERE starts_with(p.device_owner, 'compute:')
               AND p.device_owner <> 'compute:kuryr'
               AND NOT list_contains(c.ports, p.id))
        SELECT l.server AS key, l.server, l.name, l.project, l.cell, l.host, l.vm_state,
               coalesce(list(f.port ORDER BY f.port) FILTER (f.fault = 'gone'), []) AS gone,
               coalesce(list(f.port ORDER BY f.port) FILTER (f.fault = 'another'), []) AS anothers,
               coalesce(list(f.port ORDER BY f.port) FILTER (f.fault = 'unknown'), []) AS unknown,
               list(f.port ORDER BY f.port) AS also, [] AS hosts, NULL AS cells, NULL AS since, 'cell:' || l.cell AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM faults f
          JOIN live_servers l ON l.server = f.server AND l.cell = f.cell
          JOIN roster r ON r.host = l.host AND r.libvirt
         WHERE l.vm_state IN ('active', 'paused', 'stopped', 'suspended')
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = l.server)
           AND NOT EXISTS (SELECT 1 FROM last_moves o WHERE o.server = l.server AND o.recent)
         GROUP BY l.server, l.name, l.project, l.cell, l.host, l.vm_state
    """,
    commands=_commands,
    settle=timedelta(hours=6),
    scenarios=(
        Scenario(
            "a port is gone, another's, or nobody's; Nova does not know one; and nothing is wrong", """
            hosts cell1      c1
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        stopped
                             cell1  s-3   c1    0        paused
                             cell1  s-4   c1    0        suspended
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
            nova_migrations  cell   id  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  1   s-1            completed  live-migration  c2              c1            -2d         0
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
                             c1    s-2   shutoff  true  -
                             c1    s-3   paused   true  3
                             c1    s-4   shutoff  true  -
            qemu_processes   host  uuid  pid
                             c1    s-1   101
                             c1    s-3   103
            nova_instance_info_caches  cell   instance_uuid  deleted  ports      preserved
                                       cell1  s-1            0        [p-1,p-9]  []
                                       cell1  s-2            0        [p-2,p-1]  []
                                       cell1  s-3            0        []         []
                                       cell1  s-4            0        [p-4]      []
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        ACTIVE  fa:01        4                -9d         -9d
                             p-2  -             -          DOWN    fa:02        4                -9d         -9d
                             p-3  compute:nova  s-3        DOWN    fa:03        4                -9d         -9d
                             p-4  compute:nova  s-4        DOWN    fa:04        4                -9d         -9d
            neutron_port_bindings  port_id  host  status  vif_type
                                   p-1      c1    ACTIVE  ovs
                                   p-3      c1    ACTIVE  ovs
            """,
            finds=("s-1", "s-2", "s-3")),
        Scenario(
            "busy; just moved; shelved away; of bare metal; a cache that cannot be read, is deleted, or of another cell; Kuryr's", """
            hosts cell1      c1 c2
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
                             c2    cell1  true  true
                             c9    cell1  true  false
            nova_instances   cell   uuid  host  deleted  vm_state           task_state
                             cell1  s-1   c1    0        active             rebooting
                             cell1  s-2   c1    0        active             -
                             cell1  s-3   -     0        shelved_offloaded  -
                             cell1  s-4   c9    0        active             -
                             cell1  s-5   c1    0        active             -
                             cell1  s-6   c1    0        active             -
                             cell1  s-7   c1    0        active             -
                             cell1  s-8   c1    0        error              -
                             cell1  s-9   c1    0        active             -
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
                                    s-4            cell1
                                    s-5            cell1
                                    s-6            cell1
                                    s-7            cell1
                                    s-8            cell1
                                    s-9            cell1
            nova_migrations  cell   id  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  1   s-2            completed  live-migration  c2              c1            -20m        0
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-1   running  true  1
                             c1    s-2   running  true  2
                             c1    s-5   running  true  5
                             c1    s-6   running  true  6
                             c1    s-7   running  true  7
                             c1    s-9   running  true  9
            nova_instance_info_caches  cell   instance_uuid  deleted  ports  preserved
                                       cell1  s-1            0        [p-1]  []
                                       cell1  s-2            0        [p-2]  []
                                       cell1  s-3            0        [p-3]  []
                                       cell1  s-4            0        [p-4]  []
                                       cell1  s-5            0        -      -
                                       cell1  s-6            6        [p-6]  []
                                       cell1  s-7            0        []     []
                                       cell1  s-8            0        [p-8]  []
                                       cell2  s-9            0        [p-9]  []
            neutron_ports    id    device_owner   device_id  status  mac_address  revision_number  created_at  updated_at
                             p-5   compute:nova   s-5        ACTIVE  fa:05        4                -9d         -9d
                             p-7   compute:kuryr  s-7        ACTIVE  fa:07        4                -9d         -9d
                             p-71  -              s-7        DOWN    fa:71        4                -9d         -9d
                             p-72  manila:share   s-7        DOWN    fa:72        4                -9d         -9d
            """),
    ),
)  # fmt: skip
