"""A live server has a domain on a host where Nova does not have it.

Why it matters
    Nothing of Nova's looks at this copy, which keeps disk and, if it runs, memory and addresses.  Whoever starts it by
    hand, or a host that starts its domains when it boots, makes two guests of one server, on the same volumes.  And
    where the copy that Nova knows is gone, this may be the only one.
How it comes about
    A move was broken off, or what it left could not be removed: a live migration, a resize, an evacuation whose record
    was closed before nova-compute of the old host came back, a server that was shelved away.  When nova-compute starts
    it only warns that such a server is not owned by its host (nova/compute/manager.py: _init_instance).
What the repair does
    Only for a copy that is shut off, where the server is well on the host that Nova names, and Nova's record of a move
    says how this copy came to stay behind: it begins the time for which it stands stopped, which changes nothing on the
    host; and `purge` undefines it after a week.  Its files are another finding.
When not to repair
    While the copies are being compared, or one is being rescued, by a person.  Where it is said that only a person can
    tell, compare the disks of both before either is started.
"""

from cloudfsck.acts.domain import next_step
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    """How to compare the copies; nothing of it changes anything, but that the definition is saved."""
    server, hosts = row["server"], [host for host in (row["host"], row["nova_host"]) if host]
    return [
        f"as an administrator: openstack server migration list --server {server}",
        *(f"on {host}: virsh domstate --reason {server}" for host in hosts),
        *(f"on {host}: virsh domblklist --details {server}" for host in hosts),
        f"on {row['host']}: virsh dumpxml --security-info {server} > {server}.xml",
    ]


CHECK = Check(
    text=__doc__,
    accused=("libvirt_domains",),
    query="""
        WITH running AS (
            SELECT d.host, d.uuid
              FROM libvirt_domains d
             WHERE d.state = 'running'
            UNION ALL
            SELECT q.host, q.uuid
              FROM qemu_processes q
             WHERE NOT EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.host = q.host AND d.uuid = q.uuid))
        SELECT d.host || '/' || d.uuid AS key, d.uuid AS server, s.name, s.project, s.cell, s.vm_state, s.updated_at,
               s.host AS nova_host, r.state AS nova_host_state, d.host, d.name AS domain, d.state, d.id AS run,
               d.persistent, d.xml_sha256,
               coalesce(l.kind || ' ' || l.id || ' (' || l.status || ')',
                        if(s.vm_state = 'shelved_offloaded', 'shelved', NULL)) AS left_by,
               if(l.kind || ' ' || l.status = 'evacuation done',
                  'nova-compute on ' || d.host || ' removes it when it starts',
                  'nova-compute only logs that it is not owned by its host') AS nova_will,
               CASE WHEN d.state NOT IN ('running', 'paused')
                    THEN list_sort(list_distinct([d.host, s.host])) END AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, s.cell])) END AS cells,
               NULL AS since, NULL AS clock,
               CASE WHEN coalesce(s.vm_state, 'nothing') NOT IN ('active', 'stopped', 'rescued')
                    THEN 'Nova calls it ' || coalesce(s.vm_state, 'nothing') || ': only a person can tell which copy counts'
                    WHEN r.uuid IS NULL
                    THEN 'it has no domain on ' || coalesce(s.host, 'any host of Nova''s')
                         || ': this may be the only copy'
                    WHEN d.state IN ('running', 'paused')
                    THEN 'it is ' || d.state || ' here, and does not run on ' || r.host || ': it may be the only copy'
                    WHEN s.vm_state <> 'stopped' AND r.state <> 'running'
                    THEN 'it is ' || r.state || ' on ' || r.host || ', although Nova calls it ' || s.vm_state
                    WHEN l.id IS NULL
                    THEN 'no record of Nova''s says how it came to ' || d.host
                    WHEN l.status = 'error'
                    THEN 'the last move with ' || d.host || ' (' || l.id || ') failed: only a person can tell which copy counts'
                    ELSE coalesce(n.why, o.why) END AS by_hand,
               h.rung, h.since AS rung_since
          FROM libvirt_domains d
          JOIN live_servers s ON s.server = d.uuid
          LEFT JOIN libvirt_domains r ON r.host = s.host AND r.uuid = d.uuid
          LEFT JOIN last_moves l ON l.cell = s.cell AND l.server = d.uuid AND l.host = d.host
          LEFT JOIN mapped_servers p ON p.server = d.uuid
          LEFT JOIN mapped_hosts m ON m.host = d.host
          LEFT JOIN host_obstacles n ON n.host = d.host
          LEFT JOIN domain_obstacles o ON o.host = d.host AND o.uuid = d.uuid
          LEFT JOIN held_domains h ON h.host = d.host AND h.server = d.uuid
         WHERE d.host IS DISTINCT FROM s.host
           AND d.job IS NULL
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = d.uuid)
           AND NOT EXISTS (SELECT 1 FROM running g
                            WHERE g.uuid = d.uuid AND g.host <> d.host
                              AND (d.state IN ('running', 'paused') OR h.held_by <> 'libvirt-domain-on-wrong-host'))
           AND NOT EXISTS (SELECT 1 FROM unreturned_evacuations e WHERE e.server = d.uuid AND e.host = d.host)
           AND NOT coalesce(l.recent, FALSE)
           AND NOT coalesce(s.vm_state = 'error' AND l.status = 'error', FALSE)
    """,
    repair=lambda row: [next_step(row)],
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "left behind by moves that are over, shut off: its time begins now", """
            hosts cell1      c1 c2 c3
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c2    0        stopped
                             cell1  s-3   c3    0        rescued
                             cell1  s-4   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  5   s-1            live-migration  completed  c1              c2            -2h
                             cell1  6   s-2            live-migration  failed     c2              c1            -9d
                             cell1  7   s-3            resize          confirmed  c1              c3            -9d
                             cell1  8   s-4            evacuation      done       c1              c2            -9d
            libvirt_domains  host  uuid  state    id  persistent  hostdevs
                             c1    s-1   shutoff  -   true        0
                             c2    s-1   running  1   true        1
                             c1    s-2   shutoff  -   true        0
                             c2    s-2   shutoff  -   true        0
                             c1    s-3   shutoff  -   true        0
                             c3    s-3   running  3   true        0
                             c1    s-4   shutoff  -   true        0
                             c2    s-4   running  4   true        0
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c1/s-4"),
            plans="""
            hold domain s-1 on c1 as it is, stopped
            hold domain s-2 on c1 as it is, stopped
            hold domain s-3 on c1 as it is, stopped
            hold domain s-4 on c1 as it is, stopped
            """),
        Scenario(
            "held for a week; another such was stopped because it ran twice, and is no new finding", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  5   s-1            live-migration  completed  c1              c2            -9d
                             cell1  6   s-2            evacuation      completed  c1              c2            -9d
            libvirt_domains  host  uuid  state    id  persistent  xml_sha256
                             c1    s-1   shutoff  -   true        d1
                             c2    s-1   running  1   true        d1
                             c1    s-2   shutoff  -   true        d2
                             c2    s-2   running  2   true        d2
            holds            check_name                    kind    host  server  rung     since  entry
                             libvirt-domain-on-wrong-host  domain  c1    s-1     stopped  -7d    d1
                             libvirt-server-runs-twice     domain  c1    s-2     stopped  -7d    d2
            """,
            finds=("c1/s-1",),
            plans="undefine domain s-1 on c1; its definition is saved there"),
        Scenario(
            "the server is not well where Nova has it, or no record tells of this copy: only a person can tell", """
            hosts cell1      c1 c2
            hypervisors      host
                             c3
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        error
                             cell1  s-2   -     0        shelved_offloaded
                             cell1  s-3   c2    0        active
                             cell1  s-4   c2    0        stopped
                             cell1  s-5   c2    0        active
                             cell1  s-6   c2    0        active
                             cell1  s-7   c2    0        active
                             cell1  s-8   c2    0        active
                             cell1  s-9   c2    0        active
                             cell1  s-10  c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  1   s-1            resize          confirmed  c1              c2            -2h
                             cell1  3   s-3            resize          confirmed  c1              c2            -2h
                             cell1  4   s-4            evacuation      completed  c1              c2            -2h
                             cell1  5   s-5            resize          confirmed  c1              c2            -2h
                             cell1  7   s-7            live-migration  completed  c1              c2            -9d
                             cell1  17  s-7            resize          error      c2              c1            -2h
                             cell1  8   s-8            resize          confirmed  c1              c2            -2h
                             cell1  9   s-9            resize          confirmed  c3              c2            -2h
                             cell1  10  s-10           resize          confirmed  c1              c2            -2h
            libvirt_domains  host  uuid  state    id  persistent  hostdevs
                             c1    s-1   shutoff  -   true        0
                             c2    s-1   running  1   true        0
                             c1    s-2   shutoff  -   true        0
                             c1    s-3   shutoff  -   true        0
                             c1    s-4   running  4   true        0
                             c2    s-4   shutoff  -   true        0
                             c1    s-5   shutoff  -   true        0
                             c2    s-5   shutoff  -   true        0
                             c1    s-6   shutoff  -   true        0
                             c2    s-6   running  6   true        0
                             c1    s-7   shutoff  -   true        0
                             c2    s-7   running  7   true        0
                             c1    s-8   shutoff  -   true        1
                             c2    s-8   running  8   true        0
                             c3    s-9   shutoff  -   true        0
                             c2    s-9   running  9   true        0
                             c1    s-10  running  10  true        0
                             c2    s-10  paused   10  true        0
            qemu_processes   host  uuid
                             c1    s-10
                             c2    s-10
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c1/s-4", "c1/s-5", "c1/s-6", "c1/s-7", "c1/s-8", "c3/s-9",
                   "c1/s-10")),
        Scenario(
            "what holds for one copy holds for none beside it, by the clock of its own cell", """
            hosts cell1      c1 c2
            hosts cell2      c9
            hypervisors      host
                             c3
                             cell1
            clock            cell:cell2  -2d
            clock            host:cell1  -2d
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c3    nova-compute  -2d           0        false
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-3            cell1
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c2    0        active
                             cell1  s-3   c2    0        active
                             cell1  s-4   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at
                             cell1  4   s-1            evacuation      done       c3              c1            -9d
                             cell1  5   s-1            live-migration  completed  c1              c2            -2h
                             cell2  6   s-1            live-migration  error      c1              c9            -9d
                             cell1  7   s-2            evacuation      done       c3              c2            -9d
                             cell1  8   s-3            evacuation      completed  c3              c2            -9d
                             cell1  9   s-4            live-migration  completed  c1              c2            -2h
            libvirt_domains  host  uuid  state    id  persistent  hostdevs  xml_sha256
                             c1    s-1   shutoff  -   true        0         d1
                             c2    s-1   running  1   true        0         d1
                             c2    s-2   running  2   true        0         d2
                             c3    s-3   shutoff  -   true        0         d3
                             c2    s-3   running  3   true        0         d3
                             c1    s-4   shutoff  -   true        1         d4
                             c2    s-4   running  4   true        0         d4
                             c3    s-4   shutoff  -   true        0         d4
            holds            check_name                    kind    host  server  rung     since  entry
                             libvirt-domain-on-wrong-host  domain  c1    s-4     stopped  -7d    d4
            """,
            finds=("c1/s-1", "c3/s-3", "c1/s-4", "c3/s-4"),
            plans="hold domain s-1 on c1 as it is, stopped"),
        Scenario(
            "it runs twice, known to libvirt or not; a libvirt job runs on it", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c2    0        active
                             cell1  s-3   c2    0        stopped
            libvirt_domains  host  uuid  state    id  persistent  job
                             c1    s-1   running  1   true        -
                             c2    s-1   running  1   true        -
                             c1    s-2   running  2   true        -
                             c1    s-3   running  3   true        migration
                             c2    s-3   shutoff  -   true        -
            qemu_processes   host  uuid
                             c1    s-2
                             c2    s-2
            """),
    ),
)  # fmt: skip
