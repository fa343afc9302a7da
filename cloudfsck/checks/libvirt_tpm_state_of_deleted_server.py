"""Nova deleted the server, and the keys of its emulated TPM are still there.

Why it matters
    It holds the keys of a guest that is gone: whoever reads the host's disk has them.
How it comes about
    libvirt removes the state when the domain is undefined.  A hypervisor that died, a domain that was undefined by hand
    with --keep-tpm, or a migration that left it behind, leave it (nova/virt/libvirt/driver.py: cleanup, _undefine_domain).
What the repair does
    There is none.  A person moves it aside, and removes it when nobody misses it.
When not to repair
    While servers are being restored from a backup of Nova's database: without it their encrypted disks stay shut.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"on {row['host']}: virsh domstate {row['server']}"
    yield f"on {row['host']}: mv -n {row['path']} {row['path']}.aside"


CHECK = Check(
    text=__doc__,
    accused=("swtpm_states",),
    query="""
        SELECT w.host || '/' || w.server AS key, w.server, g.name, g.project, g.cell, g.deleted_at, g.host AS last_host,
               w.host, w.path, w.bytes, w.changed,
               coalesce(g.nova_will, 'nothing, unless it deletes the server on that host once more') AS nova_will,
               [w.host] AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, g.cell])) END AS cells,
               greatest(w.changed, g.deleted_at) AS since,
               CASE WHEN w.changed > g.deleted_at THEN 'host:' || w.host ELSE 'cell:' || g.cell END AS clock,
               'no program removes the keys of a guest' AS by_hand, NULL AS rung, NULL AS rung_since
          FROM swtpm_states w
          JOIN gone_servers g ON g.server = w.server
          LEFT JOIN mapped_servers p ON p.server = w.server
          LEFT JOIN mapped_hosts m ON m.host = w.host
         WHERE NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = w.server)
           AND NOT EXISTS (SELECT 1 FROM compute_services c WHERE c.host = w.host AND c.just_down)
           AND NOT EXISTS (SELECT 1 FROM libvirt_domains d WHERE d.host = w.host AND d.uuid = w.server)
           AND NOT EXISTS (SELECT 1 FROM qemu_processes q WHERE q.host = w.host AND q.uuid = w.server)
           AND NOT EXISTS (SELECT 1 FROM unfinished_deletions u WHERE u.server = w.server AND u.host = w.host)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "deleted on c1, changed there after that; another archived; on another host its domain is another's matter", """
            hosts cell1      c1 c2
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c1    1        -4h         1
                             cell1  s-3   c2    3        -2h         0
                             cell1  s-5   c1    5        -2h         0
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-2   c2    2        -9d
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c3    nova-compute  -2h           0        false
            libvirt_domains  host  uuid  state
                             c2    s-1   shutoff
                             c1    op-1  running
            qemu_processes   host  uuid
                             c2    s-2
                             c1    op-1
            swtpm_states     host  server  path                          bytes  changed
                             c1    s-1     /var/lib/libvirt/swtpm/s-1  4096   -3h
                             c1    s-2     /var/lib/libvirt/swtpm/s-2  4096   -9d
                             c1    s-3     /var/lib/libvirt/swtpm/s-3  4096   -9d
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3")),
        Scenario(
            "its host is in no cell that the API knows: every cell counts", """
            hypervisors      host
                             c1
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c1    1        -4h         1
            swtpm_states     host  server  path                        bytes  changed
                             c1    s-1     /var/lib/libvirt/swtpm/s-1  4096   -3h
            """,
            finds=("c1/s-1",)),
        Scenario(
            "it lives, Nova works on it or still deletes it, its domain or process is there, nova-compute just went down", """
            hosts cell1      c1
            nova_instances   cell   uuid  host  deleted  deleted_at  cleaned
                             cell1  s-1   c1    0        -           -
                             cell1  s-2   c1    2        -4h         1
                             cell1  s-3   c1    3        -2h         0
                             cell1  s-4   c1    4        -4h         1
                             cell1  s-5   c1    5        -4h         1
                             cell1  s-6   c2    6        -4h         1
            nova_migrations  cell   id  instance_uuid  status     deleted
                             cell1  5   s-2            migrating  0
            nova_services    cell   host  binary        last_seen_up  deleted  forced_down
                             cell1  c2    nova-compute  -2h           0        false
            libvirt_domains  host  uuid  state
                             c1    s-4   shutoff
            qemu_processes   host  uuid
                             c1    s-5
            swtpm_states     host  server  path                        bytes  changed
                             c1    s-1     /var/lib/libvirt/swtpm/s-1  4096   -3h
                             c1    s-2     /var/lib/libvirt/swtpm/s-2  4096   -3h
                             c1    s-3     /var/lib/libvirt/swtpm/s-3  4096   -3h
                             c1    s-4     /var/lib/libvirt/swtpm/s-4  4096   -3h
                             c1    s-5     /var/lib/libvirt/swtpm/s-5  4096   -3h
                             c2    s-6     /var/lib/libvirt/swtpm/s-6  4096   -3h
            """),
    ),
)  # fmt: skip
