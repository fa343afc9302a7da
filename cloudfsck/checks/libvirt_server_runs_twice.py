"""A server runs on two hosts at once.

Why it matters
    Two guests write to the same volumes, or answer on the same address: whatever they share is being destroyed now.
How it comes about
    A host was taken for dead and its servers were evacuated, while its guests still ran; nova-compute of that host
    has not come back since to remove them (nova/compute/manager.py: _destroy_evacuated_instances).  Or somebody
    started a domain by hand.
What the repair does
    Only where Nova itself has said which copy counts: the last that it did with the server was to evacuate it from
    the one host to the other, and the server runs where Nova has it.  Then it pauses the copy that was left behind, keeping its memory;
    stops it after a day; and `purge` undefines it after a week, unless nova-compute has removed it first.  It never
    chooses between two copies by itself.
When not to repair
    While the two guests are being compared, or rescued, by a person.
"""

from datetime import timedelta

from cloudfsck.acts.domain import next_step
from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("libvirt_domains", "qemu_processes"),
    query="""
        WITH copies AS (
            SELECT d.uuid, d.host, d.name, d.state, d.id, d.persistent, d.xml_sha256, h.rung, h.since
              FROM libvirt_domains d
              LEFT JOIN held_domains h ON h.host = d.host AND h.server = d.uuid
             WHERE (d.state IN ('running', 'paused')
                    OR h.rung = 'stopped' AND h.held_by IS DISTINCT FROM 'libvirt-domain-on-wrong-host')
               AND d.job IS NULL
            UNION ALL
            SELECT q.uuid, q.host, q.name, 'unknown to libvirt', NULL, NULL, NULL, NULL, NULL
              FROM qemu_processes q
             WHERE NOT EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.host = q.host AND d.uuid = q.uuid)),
        evacuations AS (
            SELECT m.cell, m.instance_uuid, m.source_compute, m.dest_compute, m.updated_at AS evacuated_at, m.status
              FROM nova_migrations m
             WHERE m.migration_type = 'evacuation' AND m.status IN ('done', 'completed') AND coalesce(m.deleted, 0) = 0
               AND NOT EXISTS (SELECT 1 FROM nova_migrations l WHERE l.cell = m.cell
                                  AND l.instance_uuid = m.instance_uuid AND l.id > m.id))
        SELECT c.host || '/' || c.uuid AS key, c.uuid AS server, s.name, s.project, s.cell, s.vm_state, s.updated_at,
               s.host AS nova_host, c.host, c.name AS domain, c.state, c.id AS run, c.persistent, c.xml_sha256,
               e.evacuated_at, others.hosts AS also_on,
               if(e.status = 'done', 'nova-compute on ' || c.host || ' removes it when it starts',
                  'nova-compute removes only what an open record of an evacuation names') AS nova_will,
               list_sort(list_distinct(list_concat(others.hosts, [c.host, s.host]))) AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL AND others.mapped
                    THEN list_sort(list_distinct(list_concat(others.cells, [p.cell, m.cell, s.cell]))) END AS cells,
               others.since, 'host:' || others.since_on AS clock,
               CASE WHEN e.evacuated_at IS NULL
                    THEN 'the last that Nova did with it was no evacuation from ' || c.host || ' to '
                         || coalesce(s.host, 'anywhere') || ': only a person can tell which copy counts'
                    WHEN c.state = 'unknown to libvirt' THEN 'libvirt on ' || c.host || ' does not know it'
                    ELSE o.why END AS by_hand,
               c.rung, c.since AS rung_since
          FROM copies c
          JOIN live_servers s ON s.server = c.uuid
          JOIN (SELECT a.uuid, a.host, list(DISTINCT b.host ORDER BY b.host) AS hosts, bool_or(b.state <> 'paused') AS runs,
                       max(q.started) AS since, arg_max(q.host, q.started) AS since_on,
                       list(m.cell) AS cells, bool_and(m.cell IS NOT NULL) AS mapped
                  FROM copies a
                  JOIN copies b ON b.uuid = a.uuid AND b.host <> a.host AND b.rung IS NULL
                  LEFT JOIN mapped_hosts m ON m.host = b.host
                  LEFT JOIN qemu_processes q ON q.uuid = a.uuid AND q.host IN (a.host, b.host)
                 GROUP BY a.uuid, a.host) others ON others.uuid = c.uuid AND others.host = c.host
          LEFT JOIN mapped_servers p ON p.server = c.uuid
          LEFT JOIN mapped_hosts m ON m.host = c.host
          LEFT JOIN evacuations e ON e.cell = s.cell AND e.instance_uuid = c.uuid AND e.source_compute = c.host
                AND e.dest_compute = s.host
                AND EXISTS (SELECT 1 FROM libvirt_domains r
                             WHERE r.host = s.host AND r.uuid = c.uuid AND r.state = 'running')
          LEFT JOIN domain_obstacles o ON o.host = c.host AND o.uuid = c.uuid
         WHERE c.host IS DISTINCT FROM s.host
           AND others.runs
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = c.uuid)
    """,
    repair=lambda row: [next_step(row)],
    risk="ask",
    settle=timedelta(minutes=10),
    scenarios=(
        Scenario(
            "evacuated from c1 to c2, and never stopped on c1", """
            hosts cell1      c1 c2 c3
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c3    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status  source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-1            evacuation      done    c1              c2            -2h         0
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-1   running  3   true
                             c3    s-2   running  4   true
            """,
            finds=("c1/s-1",),
            plans="pause domain s-1 on c1; its memory is kept"),
        Scenario(
            "the copy left behind was stopped by us", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-1            evacuation      completed  c1              c2            -9d         0
            libvirt_domains  host  uuid  state    id  persistent  xml_sha256
                             c1    s-1   shutoff  -   true        d1
                             c2    s-1   running  3   true        d2
            holds            kind    host  server  rung     since
                             domain  c1    s-1     stopped  -7d
            """,
            finds=("c1/s-1",),
            plans="undefine domain s-1 on c1; its definition is saved there"),
        Scenario(
            "no record says which copy counts", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c2    0        active
                             cell1  s-3   c2    0        active
                             cell1  s-4   c2    0        active
                             cell1  s-5   c2    0        active
                             cell1  s-6   c2    0        active
                             cell1  s-7   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status  source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-2            resize          done    c1              c2            -2h         0
                             cell1  6   s-3            evacuation      failed  c1              c2            -2h         0
                             cell1  7   s-4            evacuation      done    c1              c2            -2h         7
                             cell1  8   s-5            evacuation      done    c2              c1            -2h         0
                             cell1  9   s-6            evacuation      done    c1              c9            -2h         0
                             cell1  10  s-7            evacuation      done    c9              c2            -2h         0
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-1   running  3   true
                             c1    s-2   running  7   true
                             c2    s-2   running  3   true
                             c1    s-3   running  7   true
                             c2    s-3   running  3   true
                             c1    s-4   running  7   true
                             c2    s-4   running  3   true
                             c1    s-5   running  7   true
                             c2    s-5   running  3   true
                             c1    s-6   running  7   true
                             c2    s-6   running  3   true
                             c1    s-7   running  7   true
                             c2    s-7   running  3   true
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c1/s-4", "c1/s-5", "c1/s-6", "c1/s-7")),
        Scenario(
            "evacuated from c1 to c2, and moved about since: whatever happened, only a person can tell", """
            hosts cell1      c1 c2
            hosts cell2      c3
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-1            evacuation      done       c1              c2            -9d         0
                             cell1  6   s-1            live-migration  error      c2              c1            -2d         0
                             cell2  7   s-2            evacuation      done       c1              c2            -9d         0
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-1   running  3   true
                             c1    s-2   running  8   true
                             c2    s-2   running  4   true
            """,
            finds=("c1/s-1", "c1/s-2")),
        Scenario(
            "what became of other servers, before and elsewhere, does not matter", """
            hosts cell1      c1 c2
            hosts cell2      c3
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status     source_compute  dest_compute  updated_at  deleted
                             cell1  4   s-1            live-migration  completed  c2              c1            -20d        0
                             cell1  5   s-1            evacuation      done       c1              c2            -9d         0
                             cell1  6   s-2            live-migration  completed  c2              c1            -2d         0
                             cell2  7   s-1            live-migration  completed  c8              c9            -2d         0
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-1   running  3   true
            """,
            finds=("c1/s-1",),
            plans="pause domain s-1 on c1; its memory is kept"),
        Scenario(
            "evacuated from c1 to c2, but what runs beside c1 is c3: nobody knows", """
            hosts cell1      c1 c2 c3
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status  source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-1            evacuation      done    c1              c2            -2h         0
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-1   paused   3   true
                             c3    s-1   running  4   true
                             c2    s-2   running  5   true
            """,
            finds=("c1/s-1", "c3/s-1")),
        Scenario(
            "libvirt on c1 has forgotten the guest that still runs there", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status  source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-1            evacuation      done    c1              c2            -2h         0
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-2   running  2   true
                             c2    s-1   running  3   true
            qemu_processes   host  uuid
                             c1    s-1
                             c2    s-1
            """,
            finds=("c1/s-1",)),
        Scenario(
            "a device of c1 is passed through to the copy left behind", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status  source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-1            evacuation      done    c1              c2            -2h         0
            libvirt_domains  host  uuid  state    id  persistent  hostdevs
                             c1    s-1   running  7   true        1
                             c2    s-1   running  3   true        0
            """,
            finds=("c1/s-1",)),
        Scenario(
            "what holds for one copy holds for none beside it", """
            hosts cell1      c1 c2 c3
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
                             cell1  s-2   c2    0        active
                             cell1  s-3   c2    0        active
                             cell1  s-4   c2    0        active
                             cell1  s-5   c2    5        deleted
            nova_migrations  cell   id  instance_uuid  migration_type  status  source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-1            evacuation      done    c1              c2            -9d         0
                             cell1  6   s-2            evacuation      done    c1              c2            -9d         0
                             cell1  7   s-3            evacuation      done    c1              c2            -9d         0
            libvirt_domains  host  uuid  state    id  persistent  xml_sha256  hostdevs  job
                             c1    s-1   shutoff  -   true        d1          0         -
                             c1    s-2   running  2   true        d2          0         -
                             c1    s-3   running  3   true        d3          1         -
                             c1    s-4   running  4   true        d4          0         -
                             c1    s-5   running  5   true        d5          0         -
                             c2    s-1   running  1   true        d1          0         -
                             c2    s-2   running  2   true        d2          1         -
                             c2    s-3   running  3   true        d3          0         -
                             c2    s-4   running  4   true        d4          0         -
                             c2    s-5   running  5   true        d5          0         -
                             c3    s-2   running  6   false       d2          0         migration
            qemu_processes   host  uuid  started
                             c1    s-2   -9d
                             c2    s-2   -8d
                             c1    s-3   -2d
                             c2    s-3   -7d
                             c3    s-2   -1h
            holds            kind    host  server  rung     since
                             domain  c1    s-1     stopped  -7d
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c1/s-4"),
            plans="""
            undefine domain s-1 on c1; its definition is saved there
            pause domain s-2 on c1; its memory is kept
            """),
        Scenario(
            "beside a copy that was stopped by us, another runs where Nova does not have it", """
            hosts cell1      c1 c2 c3
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        active
            libvirt_domains  host  uuid  state    id  persistent  xml_sha256
                             c1    s-1   shutoff  -   true        d1
                             c3    s-1   running  3   true        d3
            holds            kind    host  server  rung     since
                             domain  c1    s-1     stopped  -7d
            """,
            finds=("c1/s-1",)),
        Scenario(
            "one of its hosts is in no cell that the API knows: every cell counts", """
            hosts cell1      c1 c3
            hypervisors      host
                             c2
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c2    nova-compute  -1s           0        false
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        active
                             cell1  s-3   c1    0        active
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  1   true
                             c1    s-2   running  2   true
                             c1    s-3   running  3   true
                             c2    s-1   running  4   true
                             c3    s-3   running  5   true
                             c2    s-2   running  6   true
                             c3    s-2   running  7   true
            """,
            finds=("c2/s-1", "c2/s-2", "c3/s-2", "c3/s-3")),
        Scenario(
            "shelved away, and runs on two hosts", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   -     0        shelved_offloaded
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-1   running  3   true
            """,
            finds=("c1/s-1", "c2/s-1")),
        Scenario(
            "evacuated and left shut off there: the copy on c1 is the only one that runs", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c2    0        stopped
            nova_migrations  cell   id  instance_uuid  migration_type  status  source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-1            evacuation      done    c1              c2            -2h         0
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-1   shutoff  -   true
            """),
        Scenario(
            "a live migration that libvirt is still at, and one that Nova is still at", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c1    0        active
            nova_migrations  cell   id  instance_uuid  migration_type  status   source_compute  dest_compute  updated_at  deleted
                             cell1  5   s-2            live-migration  running  c1              c2            -1m         0
            libvirt_domains  host  uuid  state    id  persistent  job
                             c1    s-1   running  7   true        -
                             c2    s-1   running  3   false       migration
                             c1    s-2   running  8   true        -
                             c2    s-2   paused   4   false       -
            """),
        Scenario(
            "one of two was paused by somebody: it cannot write any more", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   paused   7   true
                             c2    s-1   paused   3   true
            """),
    ),
)  # fmt: skip
