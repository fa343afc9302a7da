"""Neutron has a port of a server that Nova does not know.

Why it matters
    The port keeps its addresses and counts against the quota of its project; security groups, the network and its
    subnets cannot be deleted while it is there.
How it comes about
    The server was deleted without its port, archived, and then `nova-manage db purge` removed its last row.  Or the server
    was never this Nova's: another Nova or another service uses the same Neutron, or somebody wrote the device_id himself.
    Or Nova's databases were restored from a backup that is older than the server.
What the repair does
    Where this Nova still has a trace of the server (`traces`), it was this Nova's, and is purged: the port is taken from
    it through Neutron's API, with the revision that was seen, and stays its owner's, with its addresses.  Without a trace
    nobody can prove whose the server was, and a person looks first who has the port.
When not to repair
    While a guest has the port, on any host of any cloud.  While another Nova uses this Neutron and has not been asked.
    After a database was restored: every server made since the backup looks like this, and is needed.
"""

from collections.abc import Iterable

from cloudfsck.acts import port
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[port.Unbind]:
    yield port.Unbind.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"as an administrator: openstack port show {row['port']}; openstack project show {row['project']}"
    yield f"as an administrator of each Nova that uses this Neutron: openstack server show {row['server']}"
    for act in _repair(row):
        yield f"as an administrator, if nobody has it: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("neutron_ports",),
    query="""
        WITH suspects AS MATERIALIZED (
            SELECT p.*
              FROM server_ports p
             WHERE p.server <> ''
               AND NOT EXISTS (SELECT 1 FROM known_servers k WHERE k.server = p.server)
               AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = p.server)),
        known AS (
            SELECT s.port, list(DISTINCT t.trace ORDER BY t.trace) AS traces
              FROM suspects s
              JOIN traces_of_servers t ON t.server = s.server
             GROUP BY s.port)
        SELECT p.port AS key, p.server, p.project, p.port, p.name, p.network, p.mac, p.status, p.device_owner, p.bound_to,
               p.revision, p.created_at, p.updated_at, coalesce(k.traces, []) AS traces,
               coalesce(g.on_hosts, []) AS guests_on, [p.port] AS also,
               NULL AS hosts, NULL AS cells, p.changed AS since, 'neutron:neutron' AS clock,
               CASE WHEN g.port IS NOT NULL THEN 'a guest has the port, on ' || array_to_string(g.on_hosts, ', ')
                    WHEN p.status = 'ACTIVE' THEN 'Neutron says that something uses it'
                    WHEN k.port IS NULL THEN 'nothing says that the server was ever this Nova''s'
                    WHEN p.revision IS NULL THEN 'Neutron tells no revision of it' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM suspects p
          LEFT JOIN known k ON k.port = p.port
          LEFT JOIN port_guests g ON g.port = p.port
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "this Nova has a trace of it, or none; a guest has it; it is up; without a revision", """
            hosts cell1      c1
            nova_virtual_interfaces  cell   uuid  instance_uuid  deleted
                                     cell1  p-1   s-1            1
                                     cell1  p-3   s-3            1
                                     cell1  p-4   s-4            1
                                     cell1  p-5   s-5            1
            libvirt_domains  host  uuid  state    nova
                             c1    s-3   running  false
            qemu_processes   host  uuid  pid
                             c1    s-3   13
            libvirt_interfaces  host  uuid  config  mac    port
                                c1    s-3   live    fa:03  p-3
            neutron_ports    id   device_owner  device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova  s-1        DOWN    fa:01        4                -9d         -9d
                             p-2  compute:nova  s-2        DOWN    fa:02        4                -9d         -9d
                             p-3  compute:nova  s-3        DOWN    fa:03        4                -9d         -9d
                             p-4  compute:nova  s-4        ACTIVE  fa:04        4                -9d         -9d
                             p-5  compute:nova  s-5        DOWN    fa:05        -                -9d         -9d
            """,
            finds=("p-1", "p-2", "p-3", "p-4", "p-5"),
            plans="unbind port p-1 from server s-1; it stays its owner's, with its addresses"),
        Scenario(
            "Nova knows the server, alive, deleted, archived, mapped or asked for; no server's port", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    0        -
                             cell1  s-2   c1    2        -10m
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-3   c1    3        -10m
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-4            cell1
            nova_build_requests  id  instance_uuid  volumes
                                 1   s-5            []
            neutron_ports    id   device_owner              device_id  status  mac_address  revision_number  created_at  updated_at
                             p-1  compute:nova              s-1        DOWN    fa:01        4                -9d         -9d
                             p-2  compute:nova              s-2        DOWN    fa:02        4                -9d         -9d
                             p-3  compute:nova              s-3        DOWN    fa:03        4                -9d         -9d
                             p-4  compute:nova              s-4        DOWN    fa:04        4                -9d         -9d
                             p-5  compute:nova              s-5        DOWN    fa:05        4                -9d         -9d
                             p-6  network:router_interface  s-6        DOWN    fa:06        4                -9d         -9d
                             p-7  compute:nova              -          DOWN    fa:07        4                -9d         -9d
            """),
    ),
)  # fmt: skip
