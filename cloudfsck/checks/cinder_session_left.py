"""An iSCSI session to a volume's target is left on a host, with no device in it.

Why it matters
    The host stays logged in to the target, and sees whatever LUN is put there next.  Once the target is gone the kernel
    tries for ever to reach it, and every scan for another volume waits for that.
How it comes about
    os-brick removes the device and then ends the session if no other device came by it (os_brick/initiator/connectors/
    iscsi.py: _cleanup_connection): nova-compute was killed between the two, or logging out failed.  Or the backend
    removed the LUN first.
What the repair does
    On the host, under os-brick's own lock, it looks once more that no device is in the session and that no domain names
    the target; then it logs out of this one session and removes its record.  It cannot be undone.
When not to repair
    While os-brick is at work on the host: it logs in first, and the devices come a moment later.
"""

from collections.abc import Iterable

from cloudfsck.acts import device
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[device.Logout]:
    yield device.Logout(row["host"], "", row["volume"], row["session"], row["target"], row["portal"])


def _commands(row: Row) -> Iterable[str]:
    host, number = row["host"], row["session"].removeprefix("session")
    yield f"on {host}: iscsiadm -m session -r {number} -P 3"
    yield f"on {host}, if it has no device: iscsiadm -m session -r {number} -u"
    yield f"on {host}, after that: iscsiadm -m node -T {row['target']} -p {row['portal']} -o delete"


CHECK = Check(
    text=__doc__,
    accused=("iscsi_sessions",),
    query="""
        WITH empty AS MATERIALIZED (
            SELECT s.*
              FROM iscsi_sessions s
             WHERE len(s.devices) = 0),
        volumes AS (
            SELECT e.host, e.session, list(v.volume ORDER BY v.volume) AS ids, max(v.status) AS status, max(v.project) AS project,
                   max(v.name) AS volume_name, max(v.deleted_at) AS deleted_at
              FROM empty e
              JOIN stored_volumes v ON v.stored = e.volume
             GROUP BY e.host, e.session)
        SELECT e.host || '/' || e.session || '/' || e.target AS key, NULL AS server, e.host, e.session, e.target, e.portal, e.state, e.connection,
               e.volume, v.volume_name, v.project, v.status AS volume_status, v.deleted_at AS volume_deleted_at,
               list_sort(list_distinct(list_concat(
                   [e.host, e.volume], v.ids))) AS also,
               [e.host] AS hosts, NULL AS cells, NULL AS since, 'host:' || e.host AS clock,
               CASE WHEN e.portal IS NULL THEN 'by which portal it came is not known' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM empty e
          JOIN volumes v ON v.host = e.host AND v.session = e.session
         WHERE NOT EXISTS (SELECT 1 FROM live_attachments a
                            WHERE list_contains(v.ids, a.volume)
                              AND (coalesce(a.attached_host, '') = ''
                                   OR EXISTS (SELECT 1 FROM host_names k
                                               WHERE k.host = e.host
                                                 AND k.short = split_part(lower(a.attached_host), '.', 1))))
           AND NOT EXISTS (SELECT 1 FROM server_volumes m
                             JOIN live_servers l ON l.server = m.server
                            WHERE l.host = e.host AND list_contains(v.ids, m.volume))
           AND NOT EXISTS (SELECT 1 FROM busy_volumes b WHERE list_contains(v.ids, b.volume))
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a deleted volume, and of one that is attached to another host", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-2   c2    0        active
                             cell1  s-9   c1    0        active
            hypervisors      host  hostname
                             c3    node17.example
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  connected  deleted
                                       cell1  2   s-2            volume            v-2        a-2            true       0
                                       cell1  9   s-9            volume            v-9        a-9            true       0
            cinder_volumes   id   _name_id  status   attach_status  deleted  updated_at
                             v-1  -         deleted  detached       true     -9d
                             v-2  n-2       in-use   attached       false    -9d
                             v-3  -         deleted  detached       true     -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  connected  places                deleted
                                      a-2  v-2        s-2            c2             c2              attached       true       [iqn:volume-n-2/1]  false
            iscsi_sessions   host  session   target            portal    state      connection  volume  devices
                             c1    session1  iqn:volume-v-1    1.2.3.4:  FREE       failed      v-1     []
                             c1    session2  iqn:volume-n-2    1.2.3.4:  LOGGED_IN  up          n-2     []
                             c2    session1  iqn:volume-n-2    1.2.3.4:  LOGGED_IN  up          n-2     []
                             c1    session3  iqn:volume-v-3    -         LOGGED_IN  up          v-3     []
            """,
            finds=("c1/session1/iqn:volume-v-1", "c1/session2/iqn:volume-n-2", "c1/session3/iqn:volume-v-3"),
            plans="""
            log c1 out of iqn:volume-v-1 at 1.2.3.4: (session1), where there is no device
            log c1 out of iqn:volume-n-2 at 1.2.3.4: (session2), where there is no device
            """),
        Scenario(
            "with a device; of no volume; attached here, or nobody knows where; a server here has it; busy", """
            hosts cell1      c1 c2
            nova_instances   cell   uuid  host  deleted  vm_state
                             cell1  s-1   c1    0        active
                             cell1  s-2   c2    0        active
            nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  connected  deleted
                                       cell1  1   s-1            volume            v-5        a-5            true       0
            cinder_volumes   id   status     attach_status  deleted  updated_at
                             v-1  available  detached       false    -9d
                             v-3  in-use     attached       false    -9d
                             v-4  attaching  attaching      false    -9d
                             v-5  in-use     attached       false    -9d
                             v-6  uploading  detached       false    -9d
                             v-7  in-use     attached       false    -9d
                             v-9  in-use     attached       false    -9d
            cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  connected  places  deleted
                                      a-3  v-3        s-2            c1.example     c1.example      attached       true       []      false
                                      a-5  v-5        s-1            c2             c2              attached       true       []      false
                                      a-7  v-7        s-2            -              -               attached       true       []      false
                                      a-9  v-9        -              node17.example  node17.example  attached       true       []      false
            hypervisors      host  hostname
                             c3    node17.example
            iscsi_sessions   host  session   target          portal    state      connection  volume  devices
                             c1    session1  iqn:volume-v-1  1.2.3.4:  LOGGED_IN  up          v-1     [sdb]
                             c1    session2  iqn:other       1.2.3.4:  LOGGED_IN  up          -       []
                             c1    session3  iqn:volume-v-3  1.2.3.4:  LOGGED_IN  up          v-3     []
                             c1    session5  iqn:volume-v-5  1.2.3.4:  LOGGED_IN  up          v-5     []
                             c1    session6  iqn:volume-v-6  1.2.3.4:  LOGGED_IN  up          v-6     []
                             c1    session7  iqn:volume-v-7  1.2.3.4:  LOGGED_IN  up          v-7     []
                             c1    session8  iqn:volume-v-8  1.2.3.4:  LOGGED_IN  up          v-8     []
                             c1    session1  iqn:volume-v-4  1.2.3.4:  LOGGED_IN  up          v-4     -
                             c3    session9  iqn:volume-v-9  1.2.3.4:  LOGGED_IN  up          v-9     []
            """),
    ),
)  # fmt: skip
