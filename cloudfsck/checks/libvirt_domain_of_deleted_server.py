"""Nova deleted the server, and its domain is still on the host.

Why it matters
    It takes memory, processors and disk that Nova gives to others, keeps its volumes and addresses busy, and may
    answer on an address that now belongs to somebody else.
How it comes about
    nova-compute died or lost the message while it deleted; the server was deleted while its host was down; or
    [DEFAULT] running_deleted_instance_action is not reap.  A healthy nova-compute reaps such domains itself, every
    half hour (nova/compute/manager.py: _cleanup_running_deleted_instances; bug 911366).
What the repair does
    Pauses the domain, keeping its memory; stops it when it has stood paused for a day; and `purge` undefines it when
    it has stood stopped for a week.  Its files are another finding, once it is gone.
When not to repair
    While servers are being restored from a backup of Nova's database.  Do not restart nova-compute to make it reap:
    it also deletes volumes that the owner detached from the server long ago and kept, if they were attached with
    delete_on_termination.
"""

from cloudfsck.acts.domain import next_step
from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("libvirt_domains",),
    query="""
        SELECT d.host || '/' || d.uuid AS key, d.uuid AS server, s.name, s.project, s.cell, s.deleted_at, s.updated_at,
               s.host AS last_host, d.host, d.name AS domain, d.state, d.id AS run, d.persistent, d.xml_sha256,
               coalesce(n.why, 'nova-compute on ' || d.host || ' reaps it within half an hour, if it is told to'
                        || ' (running_deleted_instance_action)') AS nova_will,
               [d.host] AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, s.cell])) END AS cells,
               greatest(s.deleted_at, g.started) AS since,
               CASE WHEN g.started > s.deleted_at THEN 'host:' || d.host ELSE 'cell:' || s.cell END AS clock,
               coalesce(n.why, o.why) AS by_hand, h.rung, h.since AS rung_since
          FROM libvirt_domains d
          JOIN deleted_servers s ON s.server = d.uuid
          LEFT JOIN mapped_servers p ON p.server = d.uuid
          LEFT JOIN mapped_hosts m ON m.host = d.host
          LEFT JOIN domain_starts g ON g.host = d.host AND g.uuid = d.uuid
          LEFT JOIN host_obstacles n ON n.host = d.host
          LEFT JOIN domain_obstacles o ON o.host = d.host AND o.uuid = d.uuid
          LEFT JOIN held_domains h ON h.host = d.host AND h.server = d.uuid
         WHERE d.job IS NULL
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = d.uuid)
           AND NOT EXISTS (SELECT 1 FROM compute_services c WHERE c.host = d.host AND c.just_down)
    """,
    repair=lambda row: [next_step(row)],
    risk="ask",
    scenarios=(
        Scenario(
            "deleted two hours ago, and still running beside its neighbour", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2h
                             cell1  s-2   c1    0        -
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c1    s-2   running  8   true
            """,
            finds=("c1/s-1",),
            plans="pause domain s-1 on c1; its memory is kept"),
        Scenario(
            "found shut off: its time begins now", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2h
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   shutoff  -   true
            """,
            finds=("c1/s-1",),
            plans="hold domain s-1 on c1 as it is, stopped"),
        Scenario(
            "paused by us a day ago", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2d
            libvirt_domains  host  uuid  state   id  persistent
                             c1    s-1   paused  7   true
            qemu_processes   host  uuid
                             c1    s-1
            holds            kind    host  server  rung    since
                             domain  c1    s-1     paused  -1d
            """,
            finds=("c1/s-1",),
            plans="stop domain s-1 on c1; it stays defined, its memory is lost"),
        Scenario(
            "stopped by us a week ago", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -9d
            libvirt_domains  host  uuid  state    id  persistent  xml_sha256
                             c1    s-1   shutoff  -   true        d1
            holds            kind    host  server  rung     since
                             domain  c1    s-1     stopped  -7d
            """,
            finds=("c1/s-1",),
            plans="undefine domain s-1 on c1; its definition is saved there"),
        Scenario(
            "started again since it was deleted: it counts from then, whatever runs beside it", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -9d
                             cell1  s-2   c1    2        -1m
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c1    s-2   running  8   true
            qemu_processes   host  uuid  started
                             c1    s-1   -5m
                             c1    s-2   -2d
                             c2    s-1   -3m
                             c2    s-2   -1s
            """,
            finds=("c1/s-1", "c1/s-2"),
            plans="""
            pause domain s-1 on c1; its memory is kept
            pause domain s-2 on c1; its memory is kept
            """),
        Scenario(
            "the same runs and definitions as we put on their rungs, and others under their names", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2d
                             cell1  s-2   c1    2        -2d
            libvirt_domains  host  uuid  state    id  persistent  xml_sha256
                             c1    s-1   paused   7   true        d1
                             c2    s-1   paused   7   true        d1
                             c1    s-2   shutoff  -   true        d2
                             c2    s-2   shutoff  -   true        d2
            qemu_processes   host  uuid
                             c1    s-1
                             c2    s-1
            holds            kind    host  server  rung     since  entry
                             domain  c1    s-1     paused   -1d    7
                             domain  c2    s-1     paused   -1d    6
                             domain  c1    s-2     stopped  -7d    d2
                             domain  c2    s-2     stopped  -7d    d9
            """,
            finds=("c1/s-1", "c1/s-2", "c2/s-1", "c2/s-2"),
            plans="""
            stop domain s-1 on c1; it stays defined, its memory is lost
            undefine domain s-2 on c1; its definition is saved there
            """),
        Scenario(
            "paused by us, and resumed by somebody since", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2d
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
            holds            kind    host  server  rung    since
                             domain  c1    s-1     paused  -1d
            """,
            finds=("c1/s-1",)),
        Scenario(
            "crashed, or with a device of the host: only a person can tell", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2d
                             cell1  s-2   c1    2        -2d
            libvirt_domains  host  uuid  state    id  persistent  hostdevs
                             c1    s-1   crashed  -   true        0
                             c1    s-2   running  7   true        1
            """,
            finds=("c1/s-1", "c1/s-2")),
        Scenario(
            "its nova-compute is gone for good, or down for two days: only a person can tell", """
            hypervisors      host
                             c1
                             c2
                             cell1
            clock            cell:cell2  -2d
            clock            host:cell1  -2d
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c1    nova-compute  -2d           0        false
                             cell1  c1    nova-console  -1s           0        false
                             cell1  c2    nova-compute  -1s           9        false
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -9d
                             cell1  s-2   c2    2        -9d
                             cell2  s-3   c3    0        -
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-2   running  7   true
            """,
            finds=("c1/s-1", "c2/s-2")),
        Scenario(
            "what holds for one domain holds for none beside it, and for none of the same server on another host", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -9d
                             cell1  s-2   c1    2        -9d
                             cell1  s-3   c1    3        -9d
                             cell1  s-4   c1    4        -9d
            libvirt_domains  host  uuid  state    id  persistent  hostdevs
                             c1    s-1   paused   1   true        0
                             c1    s-2   running  2   true        1
                             c1    s-3   running  3   true        0
                             c1    s-4   running  4   true        0
                             c2    s-1   running  1   true        0
                             c2    s-2   running  2   true        0
            holds            kind       host  server  rung         since  entry
                             domain     c1    s-1     paused       -1d    -
                             domain     c1    s-4     paused       -1d    -
                             domain     c2    s-1     paused       -1d    -
                             directory  c1    s-3     quarantined  -1d    11-7-s-3
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c1/s-4", "c2/s-1", "c2/s-2"),
            plans="""
            stop domain s-1 on c1; it stays defined, its memory is lost
            pause domain s-3 on c1; its memory is kept
            pause domain s-2 on c2; its memory is kept
            """),
        Scenario(
            "deleted in both cells between which it once moved", """
            hosts cell1             c1
            nova_instances          cell   uuid  host  deleted  deleted_at
                                    cell1  s-1   c1    1        -9d
                                    cell2  s-1   c2    5        -2h
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell2
            libvirt_domains         host  uuid  state    id  persistent
                                    c1    s-1   running  7   true
            """,
            finds=("c1/s-1",),
            plans="pause domain s-1 on c1; its memory is kept"),
        Scenario(
            "its host is in no cell that the API knows: every cell counts", """
            hypervisors             host
                                    c1
            nova_services           cell   host  binary        last_seen_up  deleted  forced_down
                                    cell1  c1    nova-compute  -1s           0        false
            nova_instances          cell   uuid  host  deleted  deleted_at
                                    cell1  s-1   c1    1        -2h
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            libvirt_domains         host  uuid  state    id  persistent
                                    c1    s-1   running  7   true
            """,
            finds=("c1/s-1",),
            plans="pause domain s-1 on c1; its memory is kept"),
        Scenario(
            "all that was once under way on it is over, by the clock of its own cell", """
            hosts east       c1
            hypervisors      host
                             east
            clock            cell:west  -2d
            clock            host:east  -2d
            nova_instances   cell  uuid  host  deleted  deleted_at
                             east  s-1   c1    1        -3h
                             east  s-2   c1    0        -
                             west  s-3   c9    0        -
            nova_migrations  cell  id  instance_uuid  status     deleted
                             east  5   s-1            migrating  5
            nova_instance_actions         cell  id  instance_uuid  action  start_time
                                          east  70  s-1            delete  -3h
                                          east  71  s-2            reboot  -5m
                                          west  70  s-3            reboot  -2d
            nova_instance_actions_events  cell  id  action_id  event                       start_time  finish_time
                                          east  80  70         compute_reboot_instance     -2h         -
                                          east  81  70         compute_terminate_instance  -10m        -9m
                                          east  82  71         compute_reboot_instance     -5m         -
                                          west  80  70         compute_reboot_instance     -2d         -
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
            """,
            finds=("c1/s-1",),
            plans="pause domain s-1 on c1; its memory is kept"),
        Scenario(
            "Nova is told to call a service down only after two hours, a call lost after half an hour", """
            hosts cell1      c1
            settings         name               value
                             service_down_time  7200
                             long_rpc_timeout   1800
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -3h
            nova_instance_actions         cell   id  instance_uuid  action  start_time
                                          cell1  70  s-1            delete  -3h
            nova_instance_actions_events  cell   id  action_id  event                       start_time  finish_time
                                          cell1  80  70         compute_terminate_instance  -1h         -
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
            """,
            finds=("c1/s-1",),
            plans="pause domain s-1 on c1; its memory is kept"),
        Scenario(
            "a libvirt job runs on it", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2h
            libvirt_domains  host  uuid  state    id  persistent  job
                             c1    s-1   running  7   true        migration
            """),
        Scenario(
            "its nova-compute has just gone down, or was declared dead, and reaps when it comes back", """
            hypervisors      host
                             c1
                             c2
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c1    nova-compute  -2h           0        false
                             cell1  c2    nova-compute  -1s           0        true
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2h
                             cell1  s-2   c2    2        -2h
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
                             c2    s-2   running  7   true
            """),
        Scenario(
            "its nova-compute has been silent for longer than Nova is told to wait", """
            hypervisors      host
                             c1
            settings         name                              value
                             service_down_time                 300
                             long_rpc_timeout                  900
                             maximum_instance_delete_attempts  5
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c1    nova-compute  -10m          0        false
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    1        -2h
            libvirt_domains  host  uuid  state    id  persistent
                             c1    s-1   running  7   true
            """),
    ),
)  # fmt: skip
