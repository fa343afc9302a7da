-- Facts that many checks need, each named once.  An unknown value never makes anything look dead.

-- What the clock of each part said when each of its tables was read.  A large cell takes minutes: an age is told by the
-- clock of the very table that has the date.
CREATE VIEW clocks AS
SELECT table_name, part, clock AS now
  FROM ledger;

-- What Nova's configuration says, with Nova's defaults (nova/conf: service.py, rpc.py, compute.py).
CREATE VIEW nova_settings AS
SELECT to_seconds(coalesce(max(value) FILTER (name = 'service_down_time'), 60)) AS service_down_time,
       to_seconds(coalesce(max(value) FILTER (name = 'long_rpc_timeout'), 1800)) AS long_rpc_timeout,
       coalesce(max(value) FILTER (name = 'maximum_instance_delete_attempts'), 5) AS delete_attempts
  FROM settings;

-- Rows of servers that live; a soft-deleted server lives, and so does the hidden copy of a cross-cell resize.
CREATE VIEW live_servers AS
SELECT i.uuid AS server, i.cell, i.host, i.vm_state, i.task_state, i.hidden, i.display_name AS name,
       i.project_id AS project, i.updated_at
  FROM nova_instances i
 WHERE coalesce(i.deleted, 0) = 0;

-- Servers all of whose rows, in whatever cell, are deleted.
CREATE VIEW deleted_servers AS
SELECT i.uuid AS server, max(i.deleted_at) AS deleted_at, arg_max(i.cell, i.deleted_at) AS cell,
       arg_max(i.host, i.deleted_at) AS host, arg_max(i.cleaned, i.deleted_at) AS cleaned,
       max(i.updated_at) AS updated_at,
       any_value(i.display_name) AS name, any_value(i.project_id) AS project
  FROM nova_instances i
 GROUP BY i.uuid
HAVING bool_and(coalesce(i.deleted, 0) <> 0);

-- Servers that only the shadow tables know.
CREATE VIEW archived_servers AS
SELECT s.uuid AS server, max(s.deleted_at) AS deleted_at, arg_max(s.cell, s.deleted_at) AS cell,
       arg_max(s.host, s.deleted_at) AS host, any_value(s.display_name) AS name, any_value(s.project_id) AS project
  FROM nova_shadow_instances s
 WHERE NOT EXISTS (SELECT 1 FROM nova_instances i WHERE i.uuid = s.uuid)
 GROUP BY s.uuid;

-- Servers on which something is under way, and why we think so (nova/db/main/api.py: migration_get_in_progress_by_*;
-- an open event older than nova's long_rpc_timeout belongs to a service that died).
CREATE VIEW busy_servers AS
SELECT l.server, 'its task_state is ' || l.task_state AS why
  FROM live_servers l
 WHERE l.task_state IS NOT NULL
UNION ALL
SELECT m.instance_uuid, 'migration ' || m.id || ' is ' || coalesce(m.status, 'without status')
  FROM nova_migrations m
 WHERE coalesce(m.deleted, 0) = 0
   AND coalesce(m.status, '') NOT IN ('confirmed', 'reverted', 'error', 'failed', 'completed', 'cancelled', 'done')
UNION ALL
SELECT b.instance_uuid, 'it is being built'
  FROM nova_build_requests b
UNION ALL
SELECT l.server, 'it is being resized between cells'
  FROM live_servers l
 WHERE l.hidden
UNION ALL
SELECT l.server, 'it lives in several cells'
  FROM live_servers l
 GROUP BY l.server
HAVING count(*) > 1
UNION ALL
SELECT a.instance_uuid, 'its ' || a.action || ' is under way'
  FROM nova_instance_actions a
  JOIN nova_instance_actions_events e ON e.cell = a.cell AND e.action_id = a.id
  JOIN clocks c ON c.table_name = 'nova_instance_actions_events' AND c.part = e.cell
  CROSS JOIN nova_settings t
 WHERE e.finish_time IS NULL
   AND e.start_time > c.now - t.long_rpc_timeout;

-- The cell in which Nova's API looks for a server, and the one that a host belongs to.
CREATE VIEW mapped_servers AS
SELECT m.instance_uuid AS server, c.cell
  FROM nova_instance_mappings m
  JOIN nova_cell_mappings c ON c.id = m.cell_id;

CREATE VIEW mapped_hosts AS
SELECT m.host, c.cell
  FROM nova_host_mappings m
  JOIN nova_cell_mappings c ON c.id = m.cell_id;

-- nova-compute on each host.  `just_down`: silent for less than a day, so that whoever looks after it may still come.
CREATE VIEW compute_services AS
SELECT s.host, s.last_seen_up,
       coalesce(NOT s.forced_down AND s.last_seen_up >= c.now - t.service_down_time, FALSE) AS up,
       NOT up AND coalesce(s.last_seen_up > c.now - INTERVAL 1 DAY, FALSE) AS just_down
  FROM nova_services s
  JOIN clocks c ON c.table_name = 'nova_services' AND c.part = s.cell
  CROSS JOIN nova_settings t
 WHERE coalesce(s.deleted, 0) = 0
   AND s."binary" = 'nova-compute';

-- Why nothing on a host may be touched by a program: the service that owns it is not there.
CREATE VIEW host_obstacles AS
SELECT h.host,
       CASE WHEN EXISTS (SELECT 1 FROM compute_services s WHERE s.host = h.host)
            THEN 'nova-compute on ' || h.host || ' is down, and may clean up itself when it starts'
            ELSE 'Nova has no nova-compute on ' || h.host END AS why
  FROM hypervisors h
 WHERE NOT EXISTS (SELECT 1 FROM compute_services s WHERE s.host = h.host AND s.up);

-- Domains that stand on a rung because we put them there; one that was moved off it since does not, nor does another
-- run of it, or another definition: its time begins anew.
CREATE VIEW held_domains AS
SELECT h.host, h.server, h.rung, h.since
  FROM holds h
  JOIN libvirt_domains d ON d.host = h.host AND d.uuid = h.server
 WHERE h.kind = 'domain'
   AND d.state = CASE h.rung WHEN 'paused' THEN 'paused' WHEN 'stopped' THEN 'shutoff' END
   AND coalesce(h.entry, '') IN ('', CASE h.rung WHEN 'paused' THEN d.id::VARCHAR ELSE d.xml_sha256 END);

-- When the guest of a domain was last started, where it runs.
CREATE VIEW domain_starts AS
SELECT q.host, q.uuid, max(q.started) AS started
  FROM qemu_processes q
 GROUP BY q.host, q.uuid;

-- Why no program may touch a domain.
CREATE VIEW domain_obstacles AS
SELECT d.host, d.uuid,
       CASE WHEN d.state NOT IN ('running', 'paused', 'shutoff') THEN 'libvirt says that it is ' || d.state
            WHEN d.hostdevs > 0 THEN 'a device of the host is passed through to it'
            ELSE 'it was ' || h.rung || ' by cloudfsck, and somebody has moved it on since' END AS why
  FROM libvirt_domains d
  LEFT JOIN holds h ON h.kind = 'domain' AND h.host = d.host AND h.server = d.uuid
 WHERE d.state NOT IN ('running', 'paused', 'shutoff')
    OR d.hostdevs > 0
    OR (h.rung IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM held_domains o WHERE o.host = d.host AND o.server = d.uuid));

-- Which file system the instances of each host lie on.  Only one that cannot be shared stands alone; all others may be
-- one and the same.
CREATE VIEW instances_storage AS
SELECT p.host, p.local AND s.host IS NULL AS alone, CASE WHEN alone THEN 'of ' || p.host ELSE 'shared' END AS storage
  FROM instances_paths p
  LEFT JOIN (SELECT DISTINCT host FROM instances_path_sharing WHERE other <> host) s ON s.host = p.host;

-- Deleted servers whose files nova-compute itself will still try to remove (nova/compute/manager.py:
-- _run_pending_deletes: every 300 s, while it has failed fewer than maximum_instance_delete_attempts times).  One that
-- was not removed in a day never will be.
CREATE VIEW unfinished_deletions AS
SELECT s.server, s.host
  FROM deleted_servers s
  JOIN clocks c ON c.table_name = 'nova_instances' AND c.part = s.cell
  CROSS JOIN nova_settings t
 WHERE coalesce(s.cleaned, 0) = 0
   AND s.deleted_at > c.now - INTERVAL 1 DAY
   AND NOT EXISTS (SELECT 1 FROM nova_instance_system_metadata m
                    WHERE m.instance_uuid = s.server AND m.key = 'clean_attempts'
                      AND TRY_CAST(m.value AS BIGINT) >= t.delete_attempts);
