"""Nova deleted and archived the server, and its domain is still on the host.

Why it matters
    Nova has forgotten the server but for its shadow tables: nothing of Nova's will ever look at this domain again,
    while it takes memory and disk and may answer on an address that now belongs to somebody else.
How it comes about
    The server was deleted while its host was down or its nova-compute did not reap, and then `nova-manage db
    archive_deleted_rows` moved its row: the reaper looks in `instances` alone (nova/compute/manager.py:
    _running_deleted_instances).
What the repair does
    Pauses the domain, keeping its memory; stops it when it has stood paused for a day; and `purge` undefines it when
    it has stood stopped for a week.  Its files are another finding, once it is gone.
When not to repair
    While servers are being restored from a backup of Nova's database.
"""

from cloudfsck.acts.domain import next_step
from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("libvirt_domains",),
    query="""
        SELECT d.host || '/' || d.uuid AS key, d.uuid AS server, s.name, s.project, s.cell, s.deleted_at,
               s.host AS last_host, d.host, d.name AS domain, d.state, d.id AS run, d.persistent, d.xml_sha256,
               'nova-compute looks only for servers that are not archived' AS nova_will,
               [d.host] AS hosts, NULL AS cells,
               greatest(s.deleted_at, g.started) AS since,
               CASE WHEN g.started > s.deleted_at THEN 'host:' || d.host ELSE 'cell:' || s.cell END AS clock,
               coalesce(n.why, o.why) AS by_hand, h.rung, h.since AS rung_since
          FROM libvirt_domains d
          JOIN archived_servers s ON s.server = d.uuid
          LEFT JOIN domain_starts g ON g.host = d.host AND g.uuid = d.uuid
          LEFT JOIN host_obstacles n ON n.host = d.host
          LEFT JOIN domain_obstacles o ON o.host = d.host AND o.uuid = d.uuid
          LEFT JOIN held_domains h ON h.host = d.host AND h.server = d.uuid
         WHERE d.job IS NULL
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = d.uuid)
    """,
    repair=lambda row: [next_step(row)],
    risk="ask",
    scenarios=(
        Scenario(
            "archived two hours after its deletion, and still running", """
            hosts cell1            c1
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-1   c1    1        -4h
            libvirt_domains        host  uuid  state    id  persistent
                                   c1    s-1   running  7   true
            """,
            finds=("c1/s-1",),
            plans="pause domain s-1 on c1; its memory is kept"),
        Scenario(
            "started again since it was deleted: it counts from then, whatever runs beside it", """
            hosts cell1            c1 c2
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-1   c1    1        -9d
                                   cell1  s-2   c1    2        -1m
            libvirt_domains        host  uuid  state    id  persistent
                                   c1    s-1   running  7   true
                                   c1    s-2   running  8   true
            qemu_processes         host  uuid  started
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
            "stopped by us a week ago", """
            hosts cell1            c1
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-1   c1    1        -9d
            libvirt_domains        host  uuid  state    id  persistent  xml_sha256
                                   c1    s-1   shutoff  -   true        d1
            holds                  kind    host  server  rung     since
                                   domain  c1    s-1     stopped  -7d
            """,
            finds=("c1/s-1",),
            plans="undefine domain s-1 on c1; its definition is saved there"),
        Scenario(
            "crashed, or on a host without nova-compute: only a person can tell", """
            hosts cell1            c1
            hypervisors            host
                                   c2
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-1   c1    1        -2d
                                   cell1  s-2   c2    2        -2d
            libvirt_domains        host  uuid  state    id  persistent
                                   c1    s-1   crashed  -   true
                                   c2    s-2   running  7   true
            """,
            finds=("c1/s-1", "c2/s-2")),
        Scenario(
            "what holds for one domain holds for none beside it, and for none of the same server on another host", """
            hosts cell1            c1 c2
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-1   c1    1        -9d
                                   cell1  s-2   c1    2        -9d
                                   cell1  s-3   c1    3        -9d
            libvirt_domains        host  uuid  state    id  persistent  hostdevs
                                   c1    s-1   paused   1   true        0
                                   c1    s-2   running  2   true        1
                                   c1    s-3   running  3   true        0
                                   c2    s-1   running  1   true        0
                                   c2    s-2   running  2   true        0
            holds                  kind    host  server  rung    since
                                   domain  c1    s-1     paused  -1d
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c2/s-1", "c2/s-2"),
            plans="""
            stop domain s-1 on c1; it stays defined, its memory is lost
            pause domain s-3 on c1; its memory is kept
            pause domain s-1 on c2; its memory is kept
            pause domain s-2 on c2; its memory is kept
            """),
        Scenario(
            "a server of that UUID lives again, in whatever cell", """
            hosts cell1            c1
            nova_instances         cell   uuid  host  deleted  deleted_at
                                   cell2  s-1   c1    0        -
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-1   c1    1        -4h
            libvirt_domains        host  uuid  state    id  persistent
                                   c1    s-1   running  7   true
            """),
        Scenario(
            "a libvirt job runs on it, or a migration row of it is open", """
            hosts cell1            c1
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-1   c1    1        -4h
                                   cell1  s-2   c1    2        -4h
            nova_migrations        cell   id  instance_uuid  status     deleted
                                   cell1  5   s-2            migrating  0
            libvirt_domains        host  uuid  state    id  persistent  job
                                   c1    s-1   running  7   true        migration
                                   c1    s-2   running  8   true        -
            """),
    ),
)  # fmt: skip
