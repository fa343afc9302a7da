"""Neutron still has what a project owned that is gone from Keystone.

Why it matters
    Nobody but an administrator can change it any more, and nobody will ever ask for its deletion: its addresses, networks
    and routers stay for good, and of floating IPs there are few.
How it comes about
    Keystone deletes a project and asks no other service (keystone/resource/core.py: delete_project); Neutron is not told.
    Most often its security group `default` is left, which Neutron makes for every project (neutron/db/securitygroups_db.py:
    _ensure_default_security_group) and which nobody deletes.
What the repair does
    There is none.  The commands delete one thing at a time, in an order in which Neutron lets them go; it refuses whatever
    is still in use, but for a floating IP.  `openstack project purge` would delete the servers, images, volumes and backups of the project
    as well, without a question.  A port that something has (`device_owner`) is not named here: it goes with what has it.
When not to repair
    Where another Keystone uses the same Neutron: its projects are not in this one, and all that they own looks like this.
    Nothing here can tell; `servers_here` says that this Nova has, or had, servers of the project.  After Keystone's database
    was restored, until the projects made since the backup are there again.  While the project still has servers.  A network
    that is shared or external may be what others live by: look whose ports are on it.
"""

from collections.abc import Iterable
from datetime import timedelta

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    project = row["project"]
    yield f"as an administrator, it is to be unknown: openstack project show {project}"
    yield f"as an administrator, it is to have none: openstack server list --all-projects --project {project}"
    for one in row["floating_ips"]:
        yield f"as an administrator, where does it lead: openstack floating ip show {one}"
        yield f"as an administrator, if nobody needs that: openstack floating ip delete {one}"
    for router, port in ((each["router"], each["port"]) for each in row["router_ports"]):
        yield f"as an administrator: openstack router remove port {router} {port}"
    for one in row["routers"]:
        yield f"as an administrator: openstack router delete {one}"
    for one in row["ports"]:
        yield f"as an administrator: openstack port delete {one}"
    for one in row["networks"]:
        yield f"as an administrator: openstack network show {one}; openstack port list --network {one}"
        yield f"as an administrator, if nobody else needs it: openstack network delete {one}"
    for one in row["security_groups"]:
        yield f"as an administrator: openstack security group delete {one}"


CHECK = Check(
    text=__doc__,
    accused=(
        "neutron_networks", "neutron_routers", "neutron_floating_ips", "neutron_ports", "neutron_security_groups",
    ),
    query="""
        WITH owned AS (
            SELECT n.project_id, n.id, n.id AS network, NULL AS router, NULL AS floating_ip, NULL AS port, NULL AS security_group
              FROM neutron_networks n
            UNION ALL
            SELECT r.project_id, r.id, NULL, r.id, NULL, NULL, NULL FROM neutron_routers r
            UNION ALL
            SELECT f.project_id, f.id, NULL, NULL, f.id, NULL, NULL FROM neutron_floating_ips f
            UNION ALL
            SELECT p.project_id, p.id, NULL, NULL, NULL, p.id, NULL FROM neutron_ports p WHERE coalesce(p.device_owner, '') = ''
            UNION ALL
            SELECT g.project_id, g.id, NULL, NULL, NULL, NULL, g.id FROM neutron_security_groups g)
        SELECT o.project_id AS key, NULL AS server, o.project_id AS project,
               EXISTS (SELECT 1 FROM nova_projects n WHERE n.project_id = o.project_id) AS servers_here,
               coalesce(list(o.floating_ip ORDER BY o.id) FILTER (o.floating_ip IS NOT NULL), []) AS floating_ips,
               coalesce(list(o.router ORDER BY o.id) FILTER (o.router IS NOT NULL), []) AS routers,
               coalesce((SELECT list({'router': i.router_id, 'port': i.port_id} ORDER BY i.port_id)
                           FROM neutron_router_ports i
                           JOIN neutron_routers r ON r.id = i.router_id
                          WHERE r.project_id = o.project_id
                            AND i.port_type IN ('network:router_interface', 'network:router_interface_distributed',
                                                'network:ha_router_replicated_interface')), []) AS router_ports,
               coalesce(list(o.port ORDER BY o.id) FILTER (o.port IS NOT NULL), []) AS ports,
               coalesce(list(o.network ORDER BY o.id) FILTER (o.network IS NOT NULL), []) AS networks,
               coalesce(list(o.security_group ORDER BY o.id) FILTER (o.security_group IS NOT NULL), []) AS security_groups,
               list(o.id ORDER BY o.id) AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM owned o
         WHERE o.project_id <> ''
           AND NOT EXISTS (SELECT 1 FROM keystone_projects k WHERE k.id = o.project_id)
           AND EXISTS (SELECT 1 FROM keystone_projects k JOIN nova_projects n ON n.project_id = k.id)
         GROUP BY o.project_id
    """,
    commands=_commands,
    settle=timedelta(days=1),
    scenarios=(
        Scenario(
            "of every kind; with a router's ports, of which HA's and the gateway go with it; another project is there", """
            hosts cell1        c1
            keystone_projects  id    name    domain_id  is_domain  enabled
                               p-1   shop    default    false      true
            nova_projects      project_id
                               p-1
                               p-7
            neutron_networks   id   project_id  name  revision_number
                               n-1  p-1         net1  2
                               n-9  p-9         net9  2
            neutron_routers    id   project_id  name  gw_port_id  revision_number
                               r-1  p-1         r1    -           2
                               r-9  p-9         r9    o-92        2
            neutron_router_ports  router_id  port_id  port_type
                                  r-1        o-11     network:router_interface
                                  r-9        o-91     network:router_interface
                                  r-9        o-92     network:router_gateway
                                  r-9        o-93     network:router_centralized_snat
                                  r-9        o-94     network:router_ha_interface
            neutron_floating_ips  id   project_id  floating_ip_address  revision_number
                                  f-1  p-1         192.0.2.1            2
                                  f-9  p-9         192.0.2.9            2
            neutron_ports      id    project_id  network_id  device_owner              device_id  revision_number
                               o-90  p-9         n-9         -                         -          2
                               o-91  p-9         n-9         network:router_interface  r-9        2
            neutron_security_groups  id   project_id  name     revision_number
                                     g-1  p-1         default  2
                                     g-7  p-7         default  2
                                     g-9  p-9         default  2
            """,
            finds=("p-7", "p-9")),
        Scenario(
            "Neutron's own; a server's port and DHCP's; a domain's, a disabled project's", """
            hosts cell1        c1
            keystone_projects  id    name    domain_id  is_domain  enabled
                               p-1   shop    default    false      true
                               p-2   idle    default    false      false
                               default  Default  root   true       true
            nova_projects      project_id
                               p-1
            neutron_networks   id   project_id  name  revision_number
                               n-1  p-1         net1  2
                               n-2  p-2         net2  2
                               n-3  default     net3  2
                               n-4  -           ha    2
            neutron_ports      id    project_id  network_id  device_owner     device_id  revision_number
                               o-1   p-9         n-1         compute:nova     s-1        2
                               o-2   p-9         n-1         network:dhcp     dhcp-1     2
            nova_instances     cell   uuid  host  deleted  vm_state
                               cell1  s-1   c1    0        active
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            """),
        Scenario(
            "a Keystone that has none of Nova's projects is another cloud's; one that is empty is none", """
            hosts cell1        c1
            keystone_projects  id    name    domain_id  is_domain  enabled
                               q-1   other   default    false      true
            nova_projects      project_id
                               p-1
            neutron_networks   id   project_id  name  revision_number
                               n-1  p-1         net1  2
            """),
    ),
)  # fmt: skip
