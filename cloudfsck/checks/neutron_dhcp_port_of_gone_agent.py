"""Neutron has the port of a DHCP agent that does not serve its network.

Why it matters
    The port keeps an address in each subnet.  Where a subnet names no DNS servers, the agents that do serve the network tell
    its guests to ask at the addresses of all DHCP ports (neutron/agent/linux/dhcp.py: _generate_opts_per_port), and at this
    one nobody answers.
How it comes about
    The agent was deleted (`openstack network agent delete`) while it still had networks: its bindings go with it, and its
    ports stay (neutron/db/agents_db.py: delete_agent).  Or a network with several segments was taken from an agent that was
    down: Neutron looks for a port to reserve by a name without the segment (agentschedulers_db.py:
    remove_network_from_dhcp_agent).  Or the host was given another name, and the agent made its ports again.
What the repair does
    It deletes the port through Neutron's API, with the revision that was seen.  An agent that is to serve the network makes a
    port of its own, under another address.  A deletion cannot be undone; the whole port is kept in the journal.
When not to repair
    While no other agent serves the network: guests may still ask for their names at that address, and a port that is reserved
    keeps it for the agent that comes next; the commands tell how.  While something on that host may still use the port.
    Where somebody has given the port a name, a tag or the like: then it is not only an agent's.
"""

from collections.abc import Iterable

from cloudfsck.acts.port import DeleteDhcp
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[DeleteDhcp]:
    yield DeleteDhcp("", row["port"], row["device_id"], row["device_owner"], row["host"], row["revision"])


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack network agent list --agent-type dhcp --network {row['network']}"
    yield f"as an administrator: openstack port show {row['port']}"
    if not row["agents"]:
        yield (
            "as an administrator, to keep its addresses for the next agent: openstack port set"
            f" --device reserved_dhcp_port {row['port']}"
        )
    yield f"on {row['host']}, if it is still there: ip netns exec qdhcp-{row['network']} ip address"
    for act in _repair(row):
        yield f"as an administrator, if nothing answers at its addresses any more: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        WITH left_ports AS (
            SELECT p.*,
                   (SELECT coalesce(list(a.ip_address ORDER BY a.ip_address), []) FROM neutron_ip_allocations a
                     WHERE a.port_id = p.port) AS addresses,
                   (SELECT coalesce(list(s.agent ORDER BY s.agent), []) FROM dhcp_served s
                     WHERE s.network = p.network) AS agents,
                   (SELECT coalesce(list(a."binary" ORDER BY a."binary"), []) FROM neutron_agents a
                     WHERE split_part(a.host, '.', 1) = p.short) AS still_there,
                   (SELECT coalesce(list(DISTINCT t.why ORDER BY t.why), []) FROM port_ties t WHERE t.port = p.port) AS ties
              FROM dhcp_agent_ports p
             WHERE EXISTS (SELECT 1 FROM dhcp_served)
               AND NOT EXISTS (SELECT 1 FROM dhcp_served s WHERE s.network = p.network AND s.short = p.short))
        SELECT p.port AS key, NULL AS server, p.port, p.network, p.host, p.device_owner, p.device_id, p.project, p.mac, p.status,
               p.addresses, p.agents, p.still_there, p.ties, p.revision, p.created_at, p.updated_at, [p.port, p.network] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'neutron:neutron' AS clock,
               CASE WHEN p.agents = [] THEN 'no other DHCP agent serves the network'
                    WHEN p.status = 'ACTIVE' AND p.still_there <> []
                    THEN 'Neutron says that the port is in use, and has agents on that host'
                    WHEN p.ties <> [] THEN p.ties[1]
                    WHEN p.revision IS NULL THEN 'Neutron tells no revision of it' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM left_ports p
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        # net1, net2 and net3, by uuid.uuid5(uuid.NAMESPACE_DNS, ...): 04771cbe-..., 742861f7-..., 8a884419-...
        Scenario(
            "the agent is gone; it serves another network; of a segment; beside those that serve it, under the domain's name",
            """
            hosts cell1      c1
            neutron_agents   id   binary              host
                             a-1  neutron-dhcp-agent  net1.example.org
                             a-3  neutron-dhcp-agent  net3
                             a-4  neutron-l3-agent    net3
            neutron_dhcp_agent_networks  network_id  dhcp_agent_id
                                         n-1         a-1
                                         n-2         a-1
                                         n-3         a-3
            neutron_ports    id   device_owner  device_id                                          network_id  status  mac_address  revision_number  created_at  updated_at
                             o-1  network:dhcp  dhcp04771cbe-437e-5f2c-860d-465c2ee070fb-n-1       n-1         ACTIVE  fa:01        4                -9d         -9d
                             o-2  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-1       n-1         ACTIVE  fa:02        4                -9d         -9d
                             o-3  network:dhcp  dhcp8a884419-a83b-5163-bb5e-91b7e6815626-n-2       n-2         DOWN    fa:03        4                -9d         -9d
                             o-4  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-2-7     n-2         ACTIVE  fa:04        4                -9d         -9d
                             o-5  network:dhcp  dhcp8a884419-a83b-5163-bb5e-91b7e6815626-n-3       n-3         ACTIVE  fa:05        4                -9d         -9d
                             o-6  network:dhcp  dhcp04771cbe-437e-5f2c-860d-465c2ee070fb-n-1-7     n-1         DOWN    fa:06        4                -9d         -9d
            neutron_port_bindings  port_id  host              status  vif_type
                                   o-1      net1.example.org  ACTIVE  ovs
                                   o-2      net2              ACTIVE  ovs
                                   o-3      net3              ACTIVE  ovs
                                   o-4      net2              ACTIVE  ovs
                                   o-5      net3              ACTIVE  ovs
                                   o-6      net1              ACTIVE  ovs
            neutron_ip_allocations  port_id  ip_address  subnet_id
                                    o-2      10.0.0.3    sub-1
                                    o-2      10.0.0.2    sub-2
                                    o-5      10.0.9.2    sub-3
            """,
            finds=("o-2", "o-3", "o-4"),
            plans="""
            delete DHCP port o-2, which was bound to net2
            delete DHCP port o-3, which was bound to net3
            delete DHCP port o-4, which was bound to net2
            """),
        Scenario(
            "no other agent serves the network; in use where an agent still is; with a tag; without a revision", """
            hosts cell1      c1
            neutron_agents   id   binary              host
                             a-1  neutron-dhcp-agent  net1
                             a-3  neutron-ovs-agent   net3.example.org
            neutron_dhcp_agent_networks  network_id  dhcp_agent_id
                                         n-1         a-1
                                         n-2         a-9
            neutron_ports    id   device_owner  device_id                                      network_id  status  standard_attr_id  revision_number  created_at  updated_at
                             o-1  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-2   n-2         DOWN    1                 4                -9d         -9d
                             o-2  network:dhcp  dhcp8a884419-a83b-5163-bb5e-91b7e6815626-n-1   n-1         ACTIVE  2                 4                -9d         -9d
                             o-3  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-1   n-1         DOWN    3                 4                -9d         -9d
                             o-4  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-1   n-1         DOWN    4                 -                -9d         -9d
            neutron_port_bindings  port_id  host  status  vif_type
                                   o-1      net2  ACTIVE  ovs
                                   o-2      net3  ACTIVE  ovs
                                   o-3      net2  ACTIVE  ovs
                                   o-4      net2  ACTIVE  ovs
            neutron_tags     standard_attr_id  tag
                             3                 keep
            """,
            finds=("o-1", "o-2", "o-3", "o-4")),
        Scenario(
            "reserved; of another network; bound elsewhere, or on the way there; somebody's own; no agent's", """
            hosts cell1      c1
            neutron_agents   id   binary              host
                             a-1  neutron-dhcp-agent  net1
            neutron_dhcp_agent_networks  network_id  dhcp_agent_id
                                         n-1         a-1
            neutron_ports    id   device_owner  device_id                                      network_id  status  revision_number  created_at  updated_at
                             o-1  network:dhcp  reserved_dhcp_port                             n-1         DOWN    4                -9d         -9d
                             o-2  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-2   n-1         DOWN    4                -9d         -9d
                             o-3  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-1   n-1         DOWN    4                -9d         -9d
                             o-4  -             dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-1   n-1         DOWN    4                -9d         -9d
                             o-5  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-1   n-1         DOWN    4                -9d         -9d
                             o-6  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-12  n-1         DOWN    4                -9d         -9d
            neutron_port_bindings  port_id  host  status    vif_type
                                   o-1      net2  ACTIVE    ovs
                                   o-2      net2  ACTIVE    ovs
                                   o-3      net3  ACTIVE    ovs
                                   o-3      net2  INACTIVE  ovs
                                   o-4      net2  ACTIVE    ovs
                                   o-6      net2  ACTIVE    ovs
            """),
        Scenario(
            "no DHCP agent serves any network: OVN, or NSX, has it do by itself, or the agents' rows were lost", """
            hosts cell1      c1
            neutron_agents   id   binary              host
                             a-1  neutron-ovs-agent   net3
            neutron_ports    id   device_owner  device_id                                      network_id  status  revision_number  created_at  updated_at
                             o-1  network:dhcp  dhcp742861f7-42d3-5e87-ab60-4dd2d1ecd153-n-1   n-1         DOWN    4                -9d         -9d
            neutron_port_bindings  port_id  host  status  vif_type
                                   o-1      net2  ACTIVE  ovs
            """),
    ),
)  # fmt: skip
