-- Facts that many checks need, each named once.  An unknown value never makes anything look dead.

-- What the clock of each part said when each of its tables was read.  A large cell takes minutes: an age is told by the
-- clock of the very table that has the date.
CREATE VIEW clocks AS
SELECT table_name, part, clock AS now
  FROM ledger;

-- What was read to its end.  Who accuses something of not being there asks this first: that a whole cell or host was not
-- heard is told once, and not again for each of its servers.
CREATE VIEW read_parts AS
SELECT table_name, part
  FROM ledger
 WHERE whole;

-- What Nova's configuration says, with Nova's defaults (nova/conf: service.py, rpc.py, compute.py); reclaim_interval is
-- NULL where it is not known, and zero where nobody reclaims.
CREATE VIEW nova_settings AS
SELECT to_seconds(coalesce(max(value) FILTER (name = 'service_down_time'), 60)) AS service_down_time,
       to_seconds(coalesce(max(value) FILTER (name = 'long_rpc_timeout'), 1800)) AS long_rpc_timeout,
       coalesce(max(value) FILTER (name = 'maximum_instance_delete_attempts'), 5) AS delete_attempts,
       to_seconds(max(value) FILTER (name = 'reclaim_instance_interval')) AS reclaim_interval
  FROM settings;

-- Whether what bears Neutron's marks in OVN is this Neutron's, as the configuration says; nothing in OVN tells.
CREATE VIEW ovn_settings AS
SELECT coalesce(max(value) FILTER (name = 'ovn_alone'), 0) > 0 AS alone
  FROM settings;

-- Rows of servers that live; a soft-deleted server lives, and so does the hidden copy of a cross-cell resize.
CREATE VIEW live_servers AS
SELECT i.uuid AS server, i.cell, i.host, i.vm_state, i.task_state, i.hidden, i.display_name AS name,
       i.project_id AS project, i.updated_at, i.created_at, i.deleted_at, i.id, i.node, i.compute_id,
       i.launched_at
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
CREATE VIEW servers_under_way AS
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
SELECT a.instance_uuid, 'its ' || a.action || ' is under way'
  FROM nova_instance_actions a
  JOIN nova_instance_actions_events e ON e.cell = a.cell AND e.action_id = a.id
  JOIN clocks c ON c.table_name = 'nova_instance_actions_events' AND c.part = e.cell
  CROSS JOIN nova_settings t
 WHERE e.finish_time IS NULL
   AND e.start_time > c.now - t.long_rpc_timeout;

-- The same, and those that live in several cells: which of their rows counts may just be changing.
CREATE VIEW busy_servers AS
SELECT u.server, u.why
  FROM servers_under_way u
UNION ALL
SELECT l.server, 'it lives in several cells'
  FROM live_servers l
 GROUP BY l.server
HAVING count(*) > 1;

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
SELECT s.cell, s.host, s.last_seen_up,
       coalesce(NOT s.forced_down AND s.last_seen_up >= c.now - t.service_down_time, FALSE) AS up,
       NOT up AND coalesce(s.last_seen_up > c.now - INTERVAL 1 DAY, FALSE) AS just_down
  FROM nova_services s
  JOIN clocks c ON c.table_name = 'nova_services' AND c.part = s.cell
  CROSS JOIN nova_settings t
 WHERE coalesce(s.deleted, 0) = 0
   AND s."binary" = 'nova-compute';

-- The hypervisors that live.  One host may have many: an ironic nova-compute has one for each machine.
CREATE VIEW live_compute_nodes AS
SELECT n.cell, n.id, n.uuid, n.host, n.hypervisor_hostname AS node, n.hypervisor_type AS type, n.created_at
  FROM nova_compute_nodes n
 WHERE coalesce(n.deleted, 0) = 0;

-- The hypervisor on which a live server is; its UUID is that of its resource provider in Placement.  Of several nodes of one
-- host, and of nodes that call themselves alike on several, each is one.
CREATE VIEW server_nodes AS
SELECT l.server, n.uuid, n.type
  FROM live_servers l
  JOIN live_compute_nodes n ON n.cell = l.cell AND n.host = l.host AND n.node = l.node;

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
SELECT h.host, h.server, h.rung, h.since, h.check_name AS held_by
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

-- Servers, deleted for good or softly, whose files nova-compute itself will still try to remove (nova/compute/manager.py:
-- _run_pending_deletes: every 300 s, while it has failed fewer than maximum_instance_delete_attempts times).  One that
-- was not removed in a day never will be.
CREATE VIEW unfinished_deletions AS
SELECT i.uuid AS server, i.host
  FROM nova_instances i
  JOIN clocks c ON c.table_name = 'nova_instances' AND c.part = i.cell
  CROSS JOIN nova_settings t
 WHERE coalesce(i.cleaned, 0) = 0
   AND i.deleted_at > c.now - INTERVAL 1 DAY
   AND NOT EXISTS (SELECT 1 FROM nova_instance_system_metadata m
                    WHERE m.instance_uuid = i.uuid AND m.key = 'clean_attempts'
                      AND TRY_CAST(m.value AS BIGINT) >= t.delete_attempts);

-- What Nova last did to bring a server to a host or away from it, and whether that was within the hour: then a service
-- may still be clearing up, for it closes the record first, or the guest is gone before its host says so.
CREATE VIEW last_moves AS
SELECT m.cell, m.server, m.host, max(m.id) AS id, arg_max(m.status, m.id) AS status, arg_max(m.kind, m.id) AS kind,
       max(m.updated_at) AS moved_at, bool_or(m.updated_at > c.now - INTERVAL 1 HOUR) AS recent
  FROM (SELECT cell, instance_uuid AS server, source_compute AS host, id, status, migration_type AS kind, updated_at
          FROM nova_migrations
         UNION ALL
        SELECT cell, instance_uuid AS server, dest_compute AS host, id, status, migration_type AS kind, updated_at
          FROM nova_migrations) m
  JOIN clocks c ON c.table_name = 'nova_migrations' AND c.part = m.cell
 GROUP BY m.cell, m.server, m.host;

-- Servers that were evacuated from a host whose nova-compute has not come back: it removes what they left there when it
-- starts (nova/compute/manager.py: _destroy_evacuated_instances).  No other move is ever called done.
CREATE VIEW unreturned_evacuations AS
SELECT m.instance_uuid AS server, m.source_compute AS host
  FROM nova_migrations m
  JOIN compute_services c ON c.host = m.source_compute
 WHERE m.status = 'done'
   AND NOT c.up;

-- Servers that Nova deleted, archived or not; `nova_will` says why nova-compute looks for nothing of theirs any more.
CREATE VIEW gone_servers AS
SELECT server, name, project, cell, host, deleted_at, NULL AS nova_will
  FROM deleted_servers
UNION ALL
SELECT server, name, project, cell, host, deleted_at,
       'nothing: nova-compute looks only for servers that are not archived' AS nova_will
  FROM archived_servers;

-- Hosts whose instances paths are one and the same directory as far as can be told from outside, and the first of them,
-- which speaks for all.  Copies of one disk have equal numbers too: what lies in it must agree as well.
CREATE VIEW storage_speakers AS
SELECT a.host, min(b.host) AS speaker
  FROM instances_paths a
  JOIN instances_storage s ON s.host = a.host
  JOIN instances_paths b ON b.inode = a.inode
  JOIN instances_storage t ON t.host = b.host
 WHERE NOT s.alone
   AND NOT t.alone
   AND (b.fsid = nullif(a.fsid, '0')
        OR b.mount = a.mount
        OR EXISTS (SELECT 1 FROM instances_path_sharing n
                    WHERE n.host = b.host AND n.other = a.host))
 GROUP BY a.host;

-- The directories of servers in the instances paths and in quarantine, each once however many hosts see it, but for those
-- that something uses: a process, or another disk that stands on theirs.  Those of a host whose nova-compute has just
-- gone down are left out too.  `obstacle` says why no program may touch one.
CREATE VIEW directories AS
WITH every AS (
    SELECT e.host, e.kind, e.server, e.name AS folder, e.name AS object, e.path, e.inode, e.device, e.bytes, e.files,
           e.newest, e.changed, e.uid, e.gid, e.mode, NULL AS entry, NULL AS rung, NULL::TIMESTAMP AS rung_since,
           CASE WHEN e.symlink THEN 'it is a symbolic link' END AS obstacle, e.open_by
      FROM instance_dirs e
    UNION ALL
    SELECT q.host,
           CASE WHEN ends_with(q.path, '_resize') THEN 'resize'
                WHEN ends_with(q.path, '_del') THEN 'del'
                ELSE 'instance' END AS kind,
           q.server, split_part(q.path, '/', -1) AS folder, q.entry AS object, coalesce(q.was_path, q.path) AS path,
           q.inode, NULL AS device, q.bytes, q.files, q.newest, q."at" AS changed, NULL AS uid, NULL AS gid, NULL AS mode,
           q.entry, 'quarantined' AS rung, coalesce(h.since, q."at") AS rung_since,
           CASE WHEN NOT q.manifest_ok THEN 'the manifest of its quarantine cannot be read' END AS obstacle,
           [] AS open_by
      FROM quarantine q
      LEFT JOIN holds h ON h.host = q.host AND h.entry = q.entry),
seen AS (
    SELECT e.*, s.alone, s.storage,
           list(e.host) OVER (PARTITION BY coalesce(o.speaker, e.host), e.server, e.object, e.inode, e.newest) AS everywhere,
           list(e.open_by) OVER (PARTITION BY coalesce(o.speaker, e.host), e.server, e.object, e.inode, e.newest) AS open
      FROM every e
      JOIN instances_storage s ON s.host = e.host
      LEFT JOIN storage_speakers o ON o.host = e.host)
SELECT e.host, e.kind, e.server, e.folder, e.object, e.path, e.inode, e.device, e.bytes, e.files, e.newest, e.changed,
       e.uid, e.gid, e.mode, e.entry, e.rung, e.rung_since, e.alone, e.storage, list_sort(e.everywhere) AS seen_on,
       CASE WHEN NOT e.alone THEN 'its instances path may be shared with other hosts'
            ELSE coalesce(e.obstacle, n.why) END AS obstacle
  FROM seen e
  LEFT JOIN host_obstacles n ON n.host = e.host
 WHERE e.host = list_min(e.everywhere)
   AND len(flatten(e.open)) = 0
   AND NOT EXISTS (SELECT 1 FROM compute_services c WHERE list_contains(e.everywhere, c.host) AND c.just_down)
   AND NOT EXISTS (SELECT 1 FROM disk_images i JOIN instances_storage o ON o.host = i.host
                    WHERE i.backing_server = e.server AND o.storage = e.storage
                      AND (i.server IS DISTINCT FROM e.server
                           OR (contains(i.backing, '/' || e.folder || '/')
                               AND NOT contains(i.path, '/' || e.folder || '/'))));

-- The guests, as libvirt or the process list knows them, by the storage on which their directories would lie.
CREATE VIEW storage_guests AS
SELECT o.storage, d.uuid AS server, d.host
  FROM libvirt_domains d
  JOIN instances_storage o ON o.host = d.host
UNION ALL
SELECT o.storage, q.uuid, q.host
  FROM qemu_processes q
  JOIN instances_storage o ON o.host = q.host;

-- Every server of which Nova knows a row or a mapping, alive or not; one that was only asked for is busy.
CREATE VIEW known_servers AS
SELECT uuid AS server FROM nova_instances
UNION ALL
SELECT uuid FROM nova_shadow_instances
UNION ALL
SELECT instance_uuid FROM nova_instance_mappings;

-- Servers of which Nova knows no row any more, and what in its databases still tells that they were its own.
CREATE VIEW traces_of_servers AS
SELECT instance_uuid AS server, 'a migration' AS trace FROM nova_migrations
UNION ALL
SELECT instance_uuid, 'an archived migration' FROM nova_shadow_migrations
UNION ALL
SELECT instance_uuid, 'a block device mapping' FROM nova_block_device_mapping
UNION ALL
SELECT instance_uuid, 'an archived block device mapping' FROM nova_shadow_block_device_mapping
UNION ALL
SELECT instance_uuid, 'a fault' FROM nova_instance_faults
UNION ALL
SELECT instance_uuid, 'a network interface' FROM nova_virtual_interfaces
UNION ALL
SELECT uuid, 'an EC2 number' FROM nova_instance_id_mappings
UNION ALL
SELECT instance_uuid, 'a request specification' FROM nova_request_specs
UNION ALL
SELECT instance_uuid, 'a membership in a server group' FROM nova_instance_group_members;

-- Volumes that live, and what they are attached to or reserved for.
CREATE VIEW live_volumes AS
SELECT v.id AS volume, coalesce(v._name_id, v.id) AS stored, v.display_name AS name, v.project_id AS project, v.host AS backend,
       v.status, v.attach_status, v.migration_status, coalesce(v.multiattach, FALSE) AS multiattach, v.created_at, v.updated_at
  FROM cinder_volumes v
 WHERE NOT coalesce(v.deleted, FALSE);

CREATE VIEW live_attachments AS
SELECT a.id AS attachment, a.volume_id AS volume, a.instance_uuid AS server, a.attached_host, a.connector_host,
       a.attach_status AS status, a.connected, a.driver, a.places, a.created_at, a.updated_at,
       greatest(a.created_at, a.updated_at) AS changed
  FROM cinder_volume_attachment a
 WHERE NOT coalesce(a.deleted, FALSE);

-- The volumes that Nova's servers have, by Nova's own rows.
CREATE VIEW server_volumes AS
SELECT b.cell, b.id, b.instance_uuid AS server, b.volume_id AS volume, b.attachment_id AS attachment, b.device_name, b.device_path,
       b.connected, b.driver, b.places, b.created_at, b.updated_at, greatest(b.created_at, b.updated_at) AS changed
  FROM nova_block_device_mapping b
 WHERE coalesce(b.deleted, 0) = 0
   AND b.destination_type = 'volume'
   AND NOT coalesce(b.no_device, FALSE)
   AND b.volume_id IS NOT NULL;

-- The volumes that guests have as disks, also as a LUN or CD-ROM.  A disk may bear its volume's name in any of three
-- places, and where Nova exchanged one volume for another it bears the old one's until a hard reboot (nova/virt/libvirt/
-- driver.py: _swap_volume): then only where it lies tells.  A LUN bears no serial (nova/virt/libvirt/config.py).  A disk
-- that is one of its server's volumes, by Nova's rows, is no other; one that is none (`known` is false) is each that it
-- could be.
CREATE VIEW guest_volumes AS
WITH named AS (
    SELECT d.host, d.server, d.target, TRUE AS told, coalesce(v.volume, d.volume) AS volume
      FROM (SELECT k.host, k.uuid AS server, k.target, unnest(list_distinct([k.serial, k.alias, k.stored])) AS volume
              FROM libvirt_disks k) d
      LEFT JOIN live_volumes v ON v.stored = d.volume
    UNION ALL
    SELECT k.host, k.uuid AS server, k.target, FALSE AS told, m.volume
      FROM libvirt_disks k
      JOIN server_volumes m ON m.server = k.uuid
     WHERE m.device_path = k.source
        OR (k.device = 'lun' AND m.device_name = '/dev/' || k.target)),
judged AS (
    SELECT n.host, n.server, n.target, n.volume, n.told,
           m.server IS NOT NULL AND (n.told OR NOT bool_or(n.told) OVER (PARTITION BY n.host, n.server, n.volume)) AS known
      FROM named n
      LEFT JOIN server_volumes m ON m.server = n.server AND m.volume = n.volume)
SELECT DISTINCT e.host, e.server, e.target, e.volume, e.known
  FROM (SELECT j.*, bool_or(j.known) OVER (PARTITION BY j.host, j.server, j.target) AS explained
          FROM judged j
         WHERE j.told OR j.known) e
 WHERE e.known OR NOT e.explained;

-- Volumes on which something is under way, and why we think so (cinder/volume/manager.py; cinder/objects/fields.py).
CREATE VIEW busy_volumes AS
SELECT v.volume, 'its status is ' || v.status AS why
  FROM live_volumes v
 WHERE v.status IN ('creating', 'deleting', 'downloading', 'uploading', 'retyping', 'extending', 'managing',
                    'restoring-backup', 'backing-up', 'awaiting-transfer', 'maintenance')
UNION ALL
SELECT v.volume, 'its migration_status is ' || v.migration_status
  FROM live_volumes v
 WHERE v.migration_status IN ('starting', 'migrating', 'completing')
    OR starts_with(v.migration_status, 'target:')
UNION ALL
SELECT unnest(b.volumes), 'a server is being built with it'
  FROM nova_build_requests b
UNION ALL
SELECT w.resource_id, 'a service of Cinder is at it: ' || w.status
  FROM cinder_workers w
 WHERE w.resource_type = 'Volume'
   AND NOT coalesce(w.deleted, FALSE)
UNION ALL
SELECT s.volume, 'its server: ' || b.why
  FROM (SELECT volume, server FROM live_attachments
         UNION ALL
        SELECT volume, server FROM server_volumes) s
  JOIN busy_servers b ON b.server = s.server;

-- Every name under which a backend has a volume, be it deleted: by its id, and by its _name_id since it was migrated
-- (cinder/db/models.py: Volume.name).
CREATE VIEW stored_volumes AS
SELECT v.id AS stored, v.id AS volume, v.status, v.display_name AS name, v.project_id AS project, v.host, v.deleted,
       v.deleted_at
  FROM cinder_volumes v
UNION ALL
SELECT v._name_id, v.id, v.status, v.display_name, v.project_id, v.host, v.deleted, v.deleted_at
  FROM cinder_volumes v;

-- The devices of volumes on each host, a multipath map as one with its paths, and whether anything uses them: what stands
-- upon them, a mount, a process, a guest, be it only defined.  What is not known to be unused is used.  `works`: some
-- path is there; one that was just lost counts, for the kernel waits for it (iscsid.conf: replacement_timeout).
CREATE VIEW volume_devices AS
WITH paths AS (
    SELECT m.host, m.name AS map, unnest(m.slaves) AS name
      FROM block_devices m
     WHERE m.kind = 'multipath'),
parts AS (
    SELECT d.*, coalesce(p.map, d.name) AS device,
           d.kind <> 'multipath' AS leaf,
           coalesce(len(d.guests) + len(d.mounts) + len(d.held_by)
                    + len(list_filter(d.holders, lambda h: h IS DISTINCT FROM p.map)), 1) > 0 AS used
      FROM block_devices d
      LEFT JOIN paths p ON p.host = d.host AND p.name = d.name
     WHERE d.kind IN ('scsi', 'nvme', 'rbd', 'multipath'))
SELECT e.host, e.device AS name, bool_or(e.used) AS used,
       CASE WHEN count(DISTINCT e.volume) = 1 THEN max(e.volume) END AS volume,
       list_sort(list_distinct(flatten(list(e.places)))) AS places,
       list_sort(list_distinct(flatten(list(e.links)))) AS links,
       list(e.name ORDER BY e.name) FILTER (e.leaf) AS paths,
       list(e.state ORDER BY e.name) FILTER (e.leaf) AS path_states,
       bool_or(coalesce(e.state, 'running') = 'running') AS works
  FROM parts e
 GROUP BY e.host, e.device;

-- Images on the storage backends that are named after servers that Nova deleted.
CREATE VIEW images_of_gone_servers AS
SELECT i.backend, i.pool, i.name AS image, g.server, g.name, g.project, g.cell, g.host, g.deleted_at, g.nova_will
  FROM backend_images i
  JOIN gone_servers g ON g.server = i.server
 WHERE i.trash IS NULL;

-- Those that are named after deleted volumes: every volume of that name is deleted.  A volume that Cinder knows no row of
-- is another cloud's, for all we know.
CREATE VIEW images_of_deleted_volumes AS
SELECT i.backend, i.pool, i.name AS image, i.volume, max(n.deleted_at) AS deleted_at,
       list(n.volume ORDER BY n.volume) AS volumes,
       list_sort(list_distinct(list_append(list(n.volume), i.volume))) AS also,
       arg_max(n.name, n.deleted_at) AS name, arg_max(n.project, n.deleted_at) AS project,
       arg_max(n.host, n.deleted_at) AS host
  FROM backend_images i
  JOIN stored_volumes n ON n.stored = i.volume
 WHERE i.trash IS NULL
 GROUP BY i.backend, i.pool, i.name, i.volume
HAVING bool_and(coalesce(n.deleted, FALSE));

-- Ports with their one active binding; `server` is one only where a server has the port.
CREATE VIEW bound_ports AS
SELECT p.id AS port, p.device_id AS server, p.project_id AS project, p.name, p.network_id AS network, p.mac_address AS mac,
       p.status, p.device_owner, p.revision_number AS revision, p.standard_attr_id, p.created_at, p.updated_at,
       greatest(p.created_at, p.updated_at) AS changed, b.host AS bound_to, b.vif_type
  FROM neutron_ports p
  LEFT JOIN neutron_port_bindings b ON b.port_id = p.id AND b.status = 'ACTIVE';

-- Those that are a server's, by Neutron.
CREATE VIEW server_ports AS
SELECT p.* FROM bound_ports p WHERE starts_with(p.device_owner, 'compute:');

-- Ports of servers that Nova deleted, but for those that somebody may still take care of: Nova is at the server, or
-- nova-compute will be.  A port that Nova has just made has the server's UUID, and no owner yet
-- (nova/network/neutron.py: _create_port_minimal).
CREATE VIEW ports_of_gone_servers AS
SELECT p.port, p.server, p.project, p.name, p.network, p.mac, p.status, p.device_owner, p.revision, p.standard_attr_id,
       p.created_at, p.updated_at, p.changed, p.bound_to, p.vif_type,
       g.name AS server_name, g.deleted_at, g.cell, g.host AS last_host
  FROM bound_ports p
  JOIN gone_servers g ON g.server = p.server
 WHERE (starts_with(p.device_owner, 'compute:') OR coalesce(p.device_owner, '') = '')
   AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = p.server)
   AND NOT EXISTS (SELECT 1 FROM unfinished_deletions f WHERE f.server = p.server)
   AND NOT EXISTS (SELECT 1 FROM compute_services c WHERE c.host = g.host AND c.just_down);

-- Hosts on which an interface bears a port: a guest's, or one of Open vSwitch, whoever it is for.  What a host left there
-- when it fell has no device any more, and nobody uses that.
CREATE VIEW port_interfaces AS
SELECT i.port, i.host
  FROM libvirt_interfaces i
UNION ALL
SELECT v.iface_id AS port, v.host
  FROM ovs_interfaces v
 WHERE coalesce(v.error, '') NOT LIKE '%No_such_device%';

-- The guests that have an interface on a port; by its MAC address where Nova did not write the port down.
CREATE VIEW port_guests AS
SELECT s.port, list(DISTINCT s.host ORDER BY s.host) AS on_hosts
  FROM (SELECT i.port, i.host
          FROM port_interfaces i
         UNION ALL
        SELECT p.id AS port, i.host
          FROM neutron_ports p
          JOIN libvirt_interfaces i ON i.uuid = p.device_id AND lower(i.mac) = lower(p.mac_address)) s
 GROUP BY s.port;

-- Why a port is its owner's for more than one server's sake: it is not deleted with the server.
CREATE VIEW port_ties AS
SELECT f.fixed_port_id AS port, 'floating IP ' || f.floating_ip_address || ' leads to it' AS why
  FROM neutron_floating_ips f
UNION ALL
SELECT t.port_id, 'it has trunk ' || t.id
  FROM neutron_trunks t
UNION ALL
SELECT s.port_id, 'it is a subport of trunk ' || s.trunk_id
  FROM neutron_subports s
UNION ALL
SELECT a.port_id, 'it may use other addresses beside its own'
  FROM neutron_allowed_address_pairs a
UNION ALL
SELECT p.id, 'it has a tag'
  FROM neutron_ports p
  JOIN neutron_tags t ON t.standard_attr_id = p.standard_attr_id
UNION ALL
SELECT p.id, 'somebody gave it a name'
  FROM neutron_ports p
 WHERE p.name <> '';

-- Ports that a DHCP agent made on the host that they are bound to: it writes the first part of that host's name, as a UUID
-- of version 5 in the namespace of DNS, and the network into the device_id (neutron/common/utils.py:
-- get_dhcp_agent_device_id; dhcp_rpc.py: create_dhcp_port binds it to the host).  Others' have another device_id: OVN's
-- metadata ports of old, those of NSX, which tell of no host or are bound to none, and what is reserved for the next agent.
CREATE VIEW dhcp_agent_ports AS
WITH digests AS (
    SELECT b.port_id AS port, b.host, split_part(b.host, '.', 1) AS short,
           sha1(from_hex('6ba7b8109dad11d180b400c04fd430c8') || encode(short)) AS hex
      FROM neutron_port_bindings b
     WHERE b.status = 'ACTIVE'),
named AS (
    SELECT d.port, d.host, d.short,
           concat_ws('-', substr(d.hex, 1, 8), substr(d.hex, 9, 4), '5' || substr(d.hex, 14, 3),
                     substr('89ab', (instr('0123456789abcdef', substr(d.hex, 17, 1)) - 1) % 4 + 1, 1)
                     || substr(d.hex, 18, 3), substr(d.hex, 21, 12)) AS uuid
      FROM digests d)
SELECT p.id AS port, n.host, n.short, p.network_id AS network, p.name, p.project_id AS project, p.mac_address AS mac,
       p.status, p.device_owner, p.device_id, p.revision_number AS revision, p.created_at, p.updated_at
  FROM neutron_ports p
  JOIN named n ON n.port = p.id
 WHERE p.device_owner = 'network:dhcp'
   AND starts_with(p.device_id || '-', concat_ws('-', 'dhcp' || n.uuid, p.network_id, ''));

-- Which networks the DHCP agents serve, by the first part of the name of the agent's host.
CREATE VIEW dhcp_served AS
SELECT s.network_id AS network, a.id AS agent, split_part(a.host, '.', 1) AS short
  FROM neutron_dhcp_agent_networks s
  JOIN neutron_agents a ON a.id = s.dhcp_agent_id;

-- The names by which a host may be told in Cinder's attachments, their first part: Nova's, its hypervisor's and its own
-- (glance_store and Cinder itself go by socket.gethostname()).
CREATE VIEW host_names AS
SELECT h.host, split_part(lower(h.host), '.', 1) AS short FROM hypervisors h
UNION
SELECT h.host, split_part(lower(h.hostname), '.', 1) FROM hypervisors h
UNION
SELECT n.host, split_part(lower(n.node), '.', 1) FROM live_compute_nodes n;

-- Why something may be using an attachment of which no disk of a domain tells.
CREATE VIEW attachment_doubts AS
WITH connected AS (
    SELECT a.attachment, a.volume, a.server, v.stored, v.multiattach, a.places,
           coalesce(a.connector_host, nullif(a.attached_host, '')) AS host
      FROM live_attachments a
      JOIN live_volumes v ON v.volume = a.volume)
SELECT w.attachment, 'it is connected to ' || w.host || ', which is no hypervisor that was asked' AS why
  FROM connected w
 WHERE NOT EXISTS (SELECT 1 FROM hypervisors h WHERE h.host = w.host)
UNION ALL
SELECT w.attachment, 'QEMU runs for a server that has the volume, and libvirt knows no domain of it, on ' || q.host
  FROM connected w
  JOIN live_attachments x ON x.volume = w.volume
  JOIN qemu_processes q ON q.uuid = x.server
 WHERE NOT EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.host = q.host AND d.uuid = q.uuid)
UNION ALL
SELECT w.attachment, 'a device of the volume is in use on ' || e.host
  FROM connected w
  JOIN volume_devices e ON e.host = w.host AND (e.volume = w.stored OR list_has_any(e.places, w.places))
 WHERE e.used
UNION ALL
SELECT w.attachment, 'a server that has the volume is rescued, and its domain does not tell of its volumes'
  FROM connected w
  JOIN live_attachments x ON x.volume = w.volume
  JOIN live_servers s ON s.server = x.server
 WHERE s.vm_state = 'rescued'
UNION ALL
SELECT w.attachment, 'the server has another attachment of it to the same host: to end one may end both'
  FROM connected w
  JOIN connected x ON x.volume = w.volume AND x.server = w.server AND x.host = w.host
 WHERE x.attachment <> w.attachment
   AND NOT w.multiattach;

-- Networks of this cloud's regions: with more than one, several Neutrons have the projects of one Keystone.
CREATE VIEW network_regions AS
SELECT DISTINCT e.region_id AS region
  FROM keystone_endpoints e
  JOIN keystone_services s ON s.id = e.service_id
 WHERE s.type = 'network' AND e.enabled;

-- What the tags of an object of NSX may name, as Neutron has it.
CREATE VIEW neutron_things AS
SELECT 'network' AS thing, id FROM neutron_networks
UNION ALL
SELECT 'port', id FROM neutron_ports
UNION ALL
SELECT 'router', id FROM neutron_routers
UNION ALL
SELECT 'security-group', id FROM neutron_security_groups
UNION ALL
SELECT 'rule', id FROM neutron_security_group_rules;

-- Under which id the Manager API of NSX has what Neutron has.
CREATE VIEW nsx_mappings AS
SELECT 'network' AS thing, neutron_id AS neutron, nsx_id FROM neutron_nsx_network_mappings
UNION ALL
SELECT 'port', neutron_id, nsx_port_id FROM neutron_nsx_port_mappings
UNION ALL
SELECT 'router', neutron_id, nsx_id FROM neutron_nsx_router_mappings
UNION ALL
SELECT 'security-group', neutron_id, nsx_id FROM neutron_nsx_security_group_mappings;

-- What Neutron's plugin made in NSX for a project of this Keystone's, and this Neutron has no more.
CREATE VIEW nsx_leftovers AS
SELECT o.path, o.parent, o.kind, o.id, o.name, o.thing, o.neutron, o.project, o.plugin, o.revision, o.attachment,
       o.created, o.changed, CASE WHEN starts_with(o.path, '/infra/') THEN 'policy' ELSE 'manager' END AS api,
       CASE WHEN r.regions > 1 THEN 'another region has a Neutron too, and may use the same NSX'
            WHEN o.revision IS NULL THEN 'NSX tells no revision of it' END AS doubt
  FROM nsx_objects o
  JOIN (SELECT DISTINCT id FROM keystone_projects) p ON p.id = o.project
 CROSS JOIN (SELECT count(*) AS regions FROM network_regions) r
 WHERE o.plugin NOTNULL
   AND o.protected IS NULL
   AND o.neutron NOTNULL
   AND NOT EXISTS (SELECT 1 FROM neutron_things n WHERE n.thing = o.thing AND n.id = o.neutron)
   AND NOT EXISTS (SELECT 1 FROM nsx_mappings m WHERE m.nsx_id = o.id)
   AND NOT EXISTS (SELECT 1 FROM neutron_nsx_networks b WHERE b.phy_uuid = o.id);

-- What the tags of NSX's load balancers may name, as Octavia has it, or Neutron before there was an Octavia.
CREATE VIEW load_balancer_things AS
SELECT b.id
  FROM octavia_load_balancers b
 WHERE b.provisioning_status IS DISTINCT FROM 'DELETED'
UNION ALL
SELECT id FROM octavia_listeners
UNION ALL
SELECT id FROM octavia_pools
UNION ALL
SELECT id FROM octavia_health_monitors
UNION ALL
SELECT id FROM neutron_lbaas_load_balancers
UNION ALL
SELECT id FROM neutron_lbaas_listeners
UNION ALL
SELECT id FROM neutron_lbaas_pools
UNION ALL
SELECT id FROM neutron_lbaas_health_monitors;

-- Where in NSX's Policy API what belongs to a load balancer of Octavia's is to be, once nothing is under way with it: it
-- is named as Octavia names it (vmware_nsx/services/lbaas/nsx_p/implementation: listener_mgr.py, pool_mgr.py,
-- healthmonitor_mgr.py).
CREATE VIEW nsx_load_balancer_places AS
WITH balancers AS (
    SELECT b.id, b.name, b.project_id
      FROM octavia_load_balancers b
     WHERE b.provider = 'vmwareedge'
       AND b.provisioning_status = 'ACTIVE')
SELECT l.id, 'listener' AS thing, l.name, l.created_at, l.updated_at, b.id AS load_balancer, b.project_id AS project,
       '/infra/lb-virtual-servers/' || l.id AS path
  FROM octavia_listeners l
  JOIN balancers b ON b.id = l.load_balancer_id
 WHERE l.provisioning_status = 'ACTIVE'
UNION ALL
SELECT p.id, 'pool', p.name, p.created_at, p.updated_at, b.id, b.project_id, '/infra/lb-pools/' || p.id
  FROM octavia_pools p
  JOIN balancers b ON b.id = p.load_balancer_id
 WHERE p.provisioning_status = 'ACTIVE'
UNION ALL
SELECT h.id, 'healthmonitor', h.name, h.created_at, h.updated_at, b.id, b.project_id,
       '/infra/lb-monitor-profiles/' || h.id
  FROM octavia_health_monitors h
  JOIN octavia_pools p ON p.id = h.pool_id
  JOIN balancers b ON b.id = p.load_balancer_id
 WHERE h.provisioning_status = 'ACTIVE';

-- Where in NSX something of Neutron's is to be: by the Policy API under its own id, by the Manager API under the mapped.
CREATE VIEW nsx_places AS
SELECT n.id AS neutron, '/infra/segments/' || n.id AS path
  FROM neutron_networks n
UNION ALL
SELECT r.id, '/infra/tier-1s/' || r.id
  FROM neutron_routers r
UNION ALL
SELECT g.id, '/infra/domains/default/groups/' || g.id
  FROM neutron_security_groups g
UNION ALL
SELECT p.id, '/infra/segments/' || coalesce(b.phy_uuid, p.network_id) || '/ports/' || p.id
  FROM neutron_ports p
  LEFT JOIN neutron_nsx_networks b ON b.network_id = p.network_id AND b.binding_type = 'nsx-net'
UNION ALL
SELECT m.neutron,
       CASE m.thing WHEN 'network' THEN '/logical-switches/' WHEN 'router' THEN '/logical-routers/'
                    WHEN 'port' THEN '/logical-ports/' ELSE '/ns-groups/' END || m.nsx_id
  FROM nsx_mappings m;

-- What of Neutron's is in one of those places, and which.
CREATE VIEW nsx_present AS
SELECT w.neutron, list(w.path ORDER BY w.path) AS paths
  FROM nsx_places w
  JOIN nsx_objects o ON o.path = w.path
 GROUP BY w.neutron;

-- What of Neutron's is in none of them, and where it was to be.  ML2 alone has segments: then it is not in NSX at all.
CREATE VIEW nsx_missing AS
SELECT w.neutron, list(w.path ORDER BY w.path) AS paths
  FROM nsx_places w
 WHERE NOT EXISTS (SELECT 1 FROM nsx_present o WHERE o.neutron = w.neutron)
   AND NOT EXISTS (SELECT 1 FROM neutron_network_segments)
 GROUP BY w.neutron;

-- What Cinder counts for each project, thing by thing, by the type of the volume that it is or is of; `snapshot` marks
-- gigabytes that count unless cinder.conf says no_snapshot_gb_quota (cinder/db/api.py: _volume_data_get_for_project,
-- _snapshot_data_get_for_project, _backup_data_get_for_project).
CREATE VIEW cinder_counted AS
WITH volumes AS (
    SELECT v.project_id AS project, v.volume_type_id AS type, v.size
      FROM cinder_volumes v
     WHERE v.use_quota
       AND NOT v.deleted),
snapshots AS (
    SELECT s.project_id AS project, v.volume_type_id AS type, s.volume_size AS size
      FROM cinder_snapshots s
      LEFT JOIN cinder_volumes v ON v.id = s.volume_id
     WHERE s.use_quota)
SELECT project, type, 'volumes' AS base, 1 AS amount, FALSE AS snapshot FROM volumes
UNION ALL
SELECT project, type, 'gigabytes', size, FALSE FROM volumes
UNION ALL
SELECT project, type, 'snapshots', 1, FALSE FROM snapshots
UNION ALL
SELECT project, type, 'gigabytes', size, TRUE FROM snapshots
UNION ALL
SELECT project_id, NULL, 'backups', 1, FALSE FROM cinder_backups
UNION ALL
SELECT project_id, NULL, 'backup_gigabytes', size, FALSE FROM cinder_backups
UNION ALL
SELECT project_id, NULL, 'groups', 1, FALSE FROM cinder_groups;

-- By what name Cinder counts what: of all types together, and of each for itself.
CREATE VIEW cinder_resources AS
SELECT b.base AS resource, b.base, NULL AS type
  FROM (VALUES ('volumes'), ('gigabytes'), ('snapshots'), ('backups'), ('backup_gigabytes'), ('groups')) b(base)
UNION ALL
SELECT b.base || '_' || t.name, b.base, t.id
  FROM cinder_volume_types t, (VALUES ('volumes'), ('gigabytes'), ('snapshots')) b(base);

-- Projects of which nobody can say now what Cinder is to count: it makes, changes or deletes something of theirs, or has
-- not noted yet whether a thing counts, which it does of old ones by and by (cinder-manage db online_data_migrations).
CREATE VIEW cinder_uncounted_projects AS
SELECT t.project
  FROM (SELECT v.project_id AS project, v.status, v.use_quota FROM cinder_volumes v WHERE NOT v.deleted
        UNION ALL
        SELECT s.project_id, s.status, s.use_quota FROM cinder_snapshots s
        UNION ALL
        SELECT b.project_id, b.status, TRUE FROM cinder_backups b
        UNION ALL
        SELECT g.project_id, g.status, TRUE FROM cinder_groups g) t
 WHERE t.use_quota IS NULL
    OR (t.status LIKE '%ing' AND t.status NOT IN ('attaching', 'detaching'))
UNION
SELECT r.project_id FROM cinder_reservations r;

-- Recordsets of Designate's with nothing under way in them, and all that they say.
CREATE VIEW recordsets AS
SELECT s.id AS recordset, s.name, s.type, s.ttl, s.tenant_id AS project, z.id AS zone, z.name AS zone_name,
       list(r.data ORDER BY r.data) AS records, max(greatest(r.created_at, r.updated_at)) AS changed
  FROM designate_recordsets s
  JOIN designate_zones z ON z.id = s.zone_id
  JOIN designate_records r ON r.recordset_id = s.id
 GROUP BY s.id, s.name, s.type, s.ttl, s.tenant_id, z.id, z.name
HAVING bool_and(r.status = 'ACTIVE' AND r.action = 'NONE');

-- Records in zones of the cloud's own that are judged, as the server has them to which changes of the zone are sent: by
-- their names servers', and of addresses that servers have.
CREATE VIEW server_records AS
SELECT r.copy, r.zone, r.name, r.type, r.ttl, r.data, r.hostname, r.address, r.pointer
  FROM dns_records r
  JOIN dns_zones z ON z.copy = r.copy
 WHERE z.own AND z.first AND r.ours AND r.hostname IS NOT NULL AND r.type IN ('A', 'AAAA', 'PTR');

-- The name that each server's guest was given, by the servers that had it or have it; of a name with dots in it (since
-- 2023.1 an owner may choose one), the first part.
CREATE VIEW hostnames AS
SELECT lower(split_part(i.hostname, '.', 1)) AS hostname, i.uuid AS server, i.cell, coalesce(i.deleted, 0) = 0 AS live,
       i.deleted_at
  FROM nova_instances i
UNION ALL
SELECT lower(split_part(s.hostname, '.', 1)), s.uuid, s.cell, FALSE, s.deleted_at
  FROM nova_shadow_instances s;

-- The servers that live and have the name of a recordset of Designate's, in whatever zone.
CREATE VIEW namesakes AS
SELECT s.recordset, list(DISTINCT h.server ORDER BY h.server) AS servers
  FROM recordsets s
  JOIN hostnames h ON h.hostname = lower(split_part(s.name, '.', 1))
 WHERE h.live
 GROUP BY s.recordset;

-- All servers that were given one hostname; `last` is the one that was deleted last.
CREATE VIEW hostname_owners AS
SELECT h.hostname, list(DISTINCT h.server ORDER BY h.server) AS servers, bool_or(h.live) AS live,
       arg_max(h.server, h.deleted_at) AS last, max(h.deleted_at) AS deleted_at
  FROM hostnames h
 GROUP BY h.hostname;

-- All that a name says in one type on one server, an RRset, and the addresses in it.
CREATE VIEW rrsets AS
SELECT r.copy, r.name, r.type, min(r.ttl) AS ttl, list(r.data ORDER BY r.data) AS records,
       list(DISTINCT r.address ORDER BY r.address) AS addresses
  FROM dns_records r
 GROUP BY r.copy, r.name, r.type;

-- Addresses that somebody has in Neutron, whoever it is and in whatever network: a port, a floating IP, a port that may
-- use it beside its own.
CREATE VIEW taken_addresses AS
SELECT a.ip_address AS address, a.port_id AS holder FROM neutron_ip_allocations a
UNION ALL
SELECT f.floating_ip_address, f.id FROM neutron_floating_ips f
UNION ALL
SELECT split_part(p.ip_address, '/', 1), p.port_id FROM neutron_allowed_address_pairs p;

-- IPv4 networks of which Neutron has the addresses, as numbers from the first to the last: a subnet of a network's, or
-- what a port may use beside its own addresses.
CREATE VIEW address_ranges AS
SELECT n.port, n.network, n.subnet, n.cidr, n.first, n.first + (1 << (32 - n.bits)) - 1 AS last
  FROM (SELECT r.port, r.network, r.subnet, r.cidr, split_part(r.cidr, '/', 2)::INTEGER AS bits,
               (split_part(r.cidr, '.', 1)::BIGINT << 24) + (split_part(r.cidr, '.', 2)::BIGINT << 16)
               + (split_part(r.cidr, '.', 3)::BIGINT << 8)
               + split_part(split_part(r.cidr, '.', 4), '/', 1)::BIGINT AS first
          FROM (SELECT p.port_id AS port, NULL AS network, NULL AS subnet, p.ip_address AS cidr
                  FROM neutron_allowed_address_pairs p
                UNION ALL
                SELECT NULL, s.network_id, s.id, s.cidr FROM neutron_subnets s) r
         WHERE r.cidr LIKE '%.%/%') n;

-- The IPv4 addresses that Designate has names for, also as numbers, with nothing asked of what is under way.
CREATE VIEW designate_addresses AS
SELECT r.recordset_id AS recordset, r.zone_id AS zone, r.data, r.managed,
       list_reduce(list_transform(string_split(regexp_extract(r.data, '([0-9]+\.){3}[0-9]+$'), '.'),
                                  lambda byte: TRY_CAST(byte AS BIGINT)),
                   lambda high, low: high * 256 + low) AS number
  FROM designate_records r
  JOIN designate_recordsets s ON s.id = r.recordset_id
 WHERE s.type = 'A';

-- What the name servers of Designate's zones are to say, of what both write alike: not of an AAAA, for which there are
-- many spellings, nor of a TXT.
CREATE VIEW designate_served AS
SELECT DISTINCT s.zone_id AS zone, lower(z.name) AS zone_name, lower(s.name) AS name, s.type, s.ttl, lower(r.data) AS data
  FROM designate_zones z
  JOIN designate_recordsets s ON s.zone_id = z.id
  JOIN designate_records r ON r.recordset_id = s.id
 WHERE s.type IN ('A', 'CNAME', 'PTR');

-- For which server each record of Designate's was made: by designate-sink, which says so, or by us, and then the
-- recordset's description does (acts/recordset.py).
CREATE VIEW records_of_servers AS
SELECT r.recordset_id AS recordset, r.zone_id AS zone, r.data, r.managed_resource_id AS server, r.created_at, TRUE AS sunk
  FROM designate_records r
 WHERE r.managed
   AND r.managed_resource_type = 'instance'
UNION ALL
SELECT r.recordset_id, r.zone_id, r.data, regexp_extract(s.description, '^made-by-cloudfsck-for-server:(.+)$', 1),
       r.created_at, FALSE
  FROM designate_records r
  JOIN designate_recordsets s ON s.id = r.recordset_id;

-- What is allocated to whom in Placement, by the tree of providers that it is of: a compute node with what is inside it,
-- or storage that several share.
CREATE VIEW allocated AS
SELECT a.consumer_id AS consumer, r.uuid AS tree,
       list({'provider': p.uuid, 'name': p.name, 'resource': c.name, 'used': a.used} ORDER BY p.uuid, c.name) AS amounts,
       max(a.created_at) AS changed
  FROM placement_allocations a
  JOIN placement_providers p ON p.id = a.resource_provider_id
  JOIN placement_providers r ON r.id = coalesce(p.root_provider_id, p.id)
  JOIN placement_resource_classes c ON c.id = a.resource_class_id
 GROUP BY a.consumer_id, r.uuid;

-- Who has something allocated, and all that it is; `on_hosts` are those of the compute nodes on which it is, as far as they
-- live, and `hosts` those of them that can be asked for guests; NULL: none can.
CREATE VIEW consumers AS
SELECT a.consumer, any_value(k.generation) AS generation, any_value(t.name) AS type,
       flatten(list(a.amounts ORDER BY a.tree)) AS amounts, max(a.changed) AS changed,
       coalesce(any_value(h.on_hosts), []) AS on_hosts, any_value(h.asked) AS hosts
  FROM allocated a
  LEFT JOIN placement_consumers k ON k.uuid = a.consumer
  LEFT JOIN placement_consumer_types t ON t.id = k.consumer_type_id
  LEFT JOIN (SELECT o.consumer, list(DISTINCT n.host ORDER BY n.host) AS on_hosts,
                    list(DISTINCT n.host ORDER BY n.host) FILTER (r.libvirt) AS asked
               FROM allocated o
               JOIN live_compute_nodes n ON n.uuid = o.tree
               LEFT JOIN roster r ON r.host = n.host
              GROUP BY o.consumer) h ON h.consumer = a.consumer
 GROUP BY a.consumer;

-- Guests of a consumer, or of the server of the migration that it is, on the hosts where it has something allocated; on any,
-- where nobody knows which those are.
CREATE VIEW consumer_guests AS
SELECT c.consumer, list(DISTINCT g.host ORDER BY g.host) AS on_hosts
  FROM consumers c
  JOIN (SELECT uuid AS consumer, instance_uuid AS server FROM nova_migrations
         UNION
        SELECT uuid, instance_uuid FROM nova_shadow_migrations
         UNION
        SELECT consumer, consumer FROM consumers) o ON o.consumer = c.consumer
  JOIN (SELECT uuid, host FROM libvirt_domains
         UNION ALL
        SELECT uuid, host FROM qemu_processes) g ON g.uuid = o.server
 WHERE c.hosts IS NULL
    OR list_contains(c.hosts, g.host)
 GROUP BY c.consumer;
