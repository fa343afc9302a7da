"""A volume's device is left on a host that uses it for nothing any more.

Why it matters
    It is a security matter: the backend may give the same LUN number to another volume, of another project, and then
    this device shows that one's data, or a guest that is given the device next writes to it (CVE-2023-2088).  It also
    keeps the session alive, slows every later scan down, and makes a dead path once the volume is gone.
How it comes about
    nova-compute was down when the server was deleted, and the API detached the volume alone (nova/compute/api.py:
    _local_delete_cleanup); or os-brick failed to flush or to remove a path (os_brick/initiator/connectors/iscsi.py:
    _cleanup_connection), and Nova went on.
What the repair does
    On the host, under os-brick's own lock, it looks once more that nothing uses the device: no process, mount, domain or
    device upon it.  Then it flushes it, removes the map and its paths, and logs out of a session in which no
    device is left.  It cannot be undone; whoever needs the volume there connects it anew, as Nova does.
When not to repair
    While anything uses it, or os-brick is at work on the host: it takes LUNs up and away in the same sessions.
"""

from collections.abc import Iterable

from cloudfsck.acts import device
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[device.Remove]:
    yield device.Remove(
        row["host"], "", row["volume"], row["name"], row["number"], row["wwid"], tuple(row["device_places"]),
        tuple(device.Path(**path) for path in row["paths"]), tuple(device.Session(**one) for one in row["sessions"]),
    )  # fmt: skip


def _commands(row: Row) -> Iterable[str]:
    host, name, paths = row["host"], row["name"], [path["name"] for path in row["paths"]]
    yield f"on {host}: lsblk -o NAME,SIZE,WWN,MOUNTPOINT /dev/{name}; fuser -v /dev/{name}"
    yield f"on {host}: grep -l -e {' -e '.join(row['links'])} /etc/libvirt/qemu/*.xml"
    if paths != [name]:
        yield f"on {host}, if nothing uses it: multipath -f /dev/{name}"
    else:
        yield f"on {host}, if nothing uses it: blockdev --flushbufs /dev/{name}"
    for path in paths:
        yield f"on {host}, once that has succeeded: echo 1 > /sys/block/{path}/device/delete"
    for session in row["sessions"]:
        number = session["session"].removeprefix("session")
        yield f"on {host}, if no device is left in it: iscsiadm -m session -r {number} -P 3; iscsiadm -m session -r {number} -u"


CHECK = Check(
    text=__doc__,
    accused=("block_devices",),
    query="""
        WITH unused AS MATERIALIZED (
            SELECT d.*,
                   list_distinct(list_transform(d.places, lambda p: regexp_replace(p, '/[^/]*$', ''))) AS targets
              FROM volume_devices d
             WHERE NOT d.used),
        here AS (
            SELECT u.host, a.volume, CASE WHEN a.attached_host <> '' THEN a.places ELSE [] END AS places
              FROM (SELECT DISTINCT u.host, k.short FROM unused u JOIN host_names k ON k.host = u.host) u
              JOIN live_attachments a ON split_part(lower(coalesce(nullif(a.attached_host, ''), u.short)), '.', 1) = u.short),
        volumes AS (
            SELECT u.host, u.name, list(v.volume ORDER BY v.volume) AS ids, max(v.status) AS status, max(v.project) AS project,
                   max(v.name) AS volume_name, max(v.deleted_at) AS deleted_at
              FROM unused u
              JOIN stored_volumes v ON v.stored = u.volume
             GROUP BY u.host, u.name),
        paths AS (
            SELECT u.host, u.name, bool_and(b.kind = 'scsi' AND b.session IS NOT NULL) AS plain,
                   list({'name': b.name, 'number': b.number, 'wwid': b.wwid, 'session': b.session, 'places': b.places}
                        ORDER BY b.name) AS paths,
                   list(DISTINCT {'session': s.session, 'target': s.target, 'portal': s.portal}) FILTER (s.portal IS NOT NULL) AS sessions
              FROM (SELECT host, name, unnest(paths) AS path FROM unused) u
              JOIN block_devices b ON b.host = u.host AND b.name = u.path
              LEFT JOIN iscsi_sessions s ON s.host = u.host AND s.session = b.session
             GROUP BY u.host, u.name)
        SELECT u.host || '/' || coalesce(u.places[1], u.name) AS key, NULL AS server, u.host, u.name, b.number, b.wwid, b.state, b.bytes,
               b.places AS device_places, u.links, p.paths, u.path_states, list_sort(coalesce(p.sessions, [])) AS sessions, u.volume, v.volume_name, v.project, v.status AS volume_status,
               v.deleted_at AS volume_deleted_at,
               list_sort(list_distinct(list_concat(
                   [u.host, u.volume], v.ids, (SELECT list(h.hostname) FROM hypervisors h WHERE h.host = u.host),
                   (SELECT list(n.node) FROM live_compute_nodes n WHERE n.host = u.host)))) AS also,
               [u.host] AS hosts, NULL AS cells, NULL AS since, 'host:' || u.host AS clock,
               CASE WHEN v.ids IS NULL
                    THEN 'its target is one of Cinder''s, and which volume it was is not known'
                    WHEN NOT p.plain THEN 'only SCSI devices are removed by a program'
                    WHEN len(u.places) = 0 THEN 'where it is on its backend is not known' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM unused u
          JOIN block_devices b ON b.host = u.host AND b.name = u.name
          JOIN paths p ON p.host = u.host AND p.name = u.name
          LEFT JOIN volumes v ON v.host = u.host AND v.name = u.name
         WHERE (v.ids IS NOT NULL
                OR EXISTS (SELECT 1 FROM here a
                            WHERE a.host = u.host
                              AND list_has_any(list_transform(a.places, lambda p: regexp_replace(p, '/[^/]*$', '')), u.targets)))
           AND NOT EXISTS (SELECT 1 FROM here a
                            WHERE a.host = u.host
                              AND (list_contains(v.ids, a.volume) OR a.places IS NULL OR list_has_any(a.places, u.places)))
           AND NOT EXISTS (SELECT 1 FROM server_volumes m
                             JOIN live_servers l ON l.server = m.server
                            WHERE l.host = u.host AND list_contains(v.ids, m.volume))
           AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE list_contains(v.ids, b.volume))
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a deleted server, of one that moved on, and a LUN beside one that is used", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    1        deleted
                             cell1  s-2   c2    0        active
                             cell1  s-3   c1    0        active
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  connected  deleted
                                       cell1  2   s-2            volume            v-2        a-2            true       0
                                       cell1  3   s-3            volume            v-3        a-3            true       0
            cinder_volumes   id   _name_id  status     attach_status  deleted  updated_at
                             v-1  -         deleted    detached       true     -9d
                             v-2  n-2       in-use     attached       false    -9d
                             v-3  -         in-use     attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  connected  places       deleted
                                      a-2  v-2        s-2            c2             c2              attached       true       [iqn.n-2/1]  false
                                      a-3  v-3        s-3            c1             c1              attached       true       [iqn.a/7]    false
            iscsi_sessions   host  session   target   portal     state      devices
                             c1    session3  iqn.n-2  192.0.2.1  LOGGED_IN  [sdd]
                             c2    session3  iqn.n-2  192.0.2.2  LOGGED_IN  [sdd]
            block_devices    host  name  kind       number  state    session   places       volume  slaves     holders  links        mounts  held_by      guests
                             c1    sdb   scsi       8:16    running  session1  [iqn.v-1/1]  v-1     []         [dm-0]   [/dev/sdb]   []      []           []
                             c1    sdc   scsi       8:32    offline  session2  [iqn.v-1/1]  v-1     []         [dm-0]   [/dev/sdc]   []      []           []
                             c1    dm-0  multipath  252:0   active   -         [iqn.v-1/1]  v-1     [sdb,sdc]  []       [/dev/dm-0]  []      []           []
                             c1    sdd   scsi       8:48    running  session3  [iqn.n-2/1]  n-2     []         []       [/dev/sdd]   []      []           []
                             c2    sdd   scsi       8:48    running  session3  [iqn.n-2/1]  n-2     []         []       [/dev/sdd]   []      [1:qemu]     [s-2]
                             c1    sde   scsi       8:64    running  session4  [iqn.a/7]    -       []         []       [/dev/sde]   []      [2:qemu]     [s-3]
                             c1    sdf   scsi       8:80    running  session4  [iqn.a/8]    -       []         []       [/dev/sdf]   []      []           []
                             c2    sdc   scsi       8:32    running  session7  [iqn.b/1]    -       []         [sdc1]   [/dev/sdc]   []      []           []
                             c2    sdc1  partition  8:33    -        -         []           -       [sdc]      []       [/dev/sdc1]  [/srv]  []           []
                             c2    sdf   scsi       8:80    running  session4  [iqn.a/8]    -       []         []       [/dev/sdf]   []      []           []
                             c2    sdb   scsi       8:16    running  session5  [iqn.v-1/1]  v-1     []         []       [/dev/sdb]   []      []           []
            """,
            finds=("c1/iqn.v-1/1", "c1/iqn.n-2/1", "c1/iqn.a/8", "c2/iqn.v-1/1"),
            plans="""
            remove sdd from c1 (iqn.n-2/1); log out of iqn.n-2 if nothing else is left there
            remove dm-0 with its paths sdb, sdc from c1 (iqn.v-1/1)
            remove sdb from c2 (iqn.v-1/1)
            """),
        Scenario(
            "over NVMe, and one of which nobody knows by which session it came", """
            hosts cell1      c1
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  available  detached       false    -9d
                             v-2  available  detached       false    -9d
            block_devices    host  name     kind  number   state    session  places       volume  slaves  holders  links           mounts  held_by  guests
                             c1    nvme1n1  nvme  259:0    -        nvme1    [nqn.v-1/1]  v-1     []      []       [/dev/nvme1n1]  []      []       []
                             c1    sdb      scsi  8:16     running  -        [iqn.v-2/1]  v-2     []      []       [/dev/sdb]      []      []       []
                             c1    sdc      scsi  8:32     running  session5 []           v-2     []      []       [/dev/sdc]      []      []       []
            """,
            finds=("c1/nqn.v-1/1", "c1/iqn.v-2/1", "c1/sdc")),
        Scenario(
            "mounted, open, under another, a guest's, not known; of no volume; attached here, or nobody knows where; busy", """
            hosts cell1      c1 c2
            nova_compute_nodes  cell   id  host  hypervisor_hostname  hypervisor_type  deleted
                                cell1  9   c4    n4                   QEMU             0
            nova_instances   cell   uuid  host  deleted  vm_state  task_state
                             cell1  s-1   c1    0        active    -
                             cell1  s-2   c2    0        stopped   -
                             cell1  s-3   c2    0        active    migrating
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  connected  deleted
                                       cell1  1   s-1            volume            v-6        a-6            true       0
                                       cell1  3   s-3            volume            v-9        a-9            true       0
            nova_build_requests  id  instance_uuid  volumes
                                 1   s-4            [v-12]
            cinder_volumes   id    status     attach_status  deleted  updated_at
                             v-12  available  detached       false    -9d
                             v-1   available  detached       false    -9d
                             v-6   in-use     attached       false    -9d
                             v-7   in-use     attached       false    -9d
                             v-8   attaching  attaching      false    -9d
                             v-9   in-use     attached       false    -9d
                             v-10  uploading  detached       false    -9d
                             v-11  in-use     attached       false    -9d
                             v-13  in-use     attached       false    -9d
                             v-14  in-use     attached       false    -9d
            hypervisors      host  hostname
                             c3    node17.example
                             c4    c4
            cinder_volume_attachment  id    volume_id  instance_uuid  attached_host  connector_host  attach_status  connected  places        deleted
                                      a-6   v-6        s-1            c2             c2              attached       true       [iqn.v-6/1]   false
                                      a-7   v-7        s-2            c1.example     c1.example      attached       true       [iqn.v-7/1]   false
                                      a-8   v-8        -              -              -               attaching      false      []            false
                                      a-9   v-9        s-3            c2             c2              attached       true       [iqn.v-9/1]   false
                                      a-11  v-11       s-2            c1             c1              attached       true       [iqn.a/4]     false
                                      a-12  v-11       s-2            c2             c2              attached       -          -             false
                                      a-13  v-13       -              node17.example  node17.example  attached       true       [iqn.v-13/1]  false
                                      a-14  v-14       s-2            n4             n4              attached       true       [iqn.v-14/1]  false
            block_devices    host  name   kind       number  state    session   places          volume  slaves   holders  links        mounts  held_by   guests
                             c1    sdb    scsi       8:16    running  session1  [iqn.v-1/1]     v-1     []       []       [/dev/sdb]   [/mnt]  []        []
                             c1    sdc    scsi       8:32    running  session2  [iqn.v-1/2]     v-1     []       []       [/dev/sdc]   []      [7:dd]    []
                             c1    sdd    scsi       8:48    running  session3  [iqn.v-1/3]     v-1     []       [sdd1]   [/dev/sdd]   []      []        []
                             c1    sdd1   partition  8:49    -        -         [iqn.v-1/3]     v-1     [sdd]    []       [/dev/sdd1]  []      []        []
                             c1    sde    scsi       8:64    running  session4  [iqn.v-1/4]     v-1     []       []       [/dev/sde]   []      []        [s-9]
                             c1    sdf    scsi       8:80    running  session5  [iqn.v-1/5]     v-1     []       []       [/dev/sdf]   []      []        -
                             c1    sdg    scsi       8:96    running  session6  [iqn.host/1]    -       []       []       [/dev/sdg]   []      []        []
                             c1    sdh    scsi       8:112   running  session7  [iqn.v-6/1]     v-6     []       []       [/dev/sdh]   []      []        []
                             c1    sdi    scsi       8:128   running  session8  [iqn.v-7/1]     v-7     []       []       [/dev/sdi]   []      []        []
                             c1    sdj    scsi       8:144   running  session9  [iqn.v-8/1]     v-8     []       []       [/dev/sdj]   []      []        []
                             c1    sdk    scsi       8:160   running  session9  [iqn.v-9/1]     v-9     []       []       [/dev/sdk]   []      []        []
                             c1    sdl    scsi       8:176   running  session9  [iqn.v-10/1]    v-10    []       []       [/dev/sdl]   []      []        []
                             c1    sdm    scsi       8:192   running  session9  [iqn.a/4]       -       []       []       [/dev/sdm]   []      []        []
                             c1    sdn    scsi       8:208   running  session9  [iqn.x/1]       v-77    []       []       [/dev/sdn]   []      []        []
                             c2    sdb    scsi       8:16    running  session1  [iqn.v-1/1]     v-1     []       []       [/dev/sdb]   []      []        []
                             c1    sdo    scsi       8:224   running  session9  [iqn.v-12/1]    v-12    []       []       [/dev/sdo]   []      []        []
                             c3    sdb    scsi       8:16    running  session1  [iqn.v-13/1]    v-13    []       []       [/dev/sdb]   []      []        []
                             c4    sdc    scsi       8:32    running  session2  [iqn.v-14/1]    v-14    []       []       [/dev/sdc]   []      []        []
            """),
    ),
)  # fmt: skip
