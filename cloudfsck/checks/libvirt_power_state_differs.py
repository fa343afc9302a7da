"""A server runs that should not, or is off that should run, by Nova's own word.

Why it matters
    Nova, and so the owner, believes what is not so: a server that should answer does not, or one that was stopped runs.
    A healthy nova-compute puts most of this right within ten minutes, so what lasts tells that it does not.
How it comes about
    The guest shut itself down, or somebody used virsh; and nova-compute is down, hangs, or has
    sync_power_state_interval below zero (nova/compute/manager.py: _sync_instance_power_state).
What the repair does
    There is none: whether the server should run is for its owner to say.  Where nova-compute is at work it decides by
    itself: what is off it calls stopped, and what runs although Nova calls it stopped it shuts off.
When not to repair
    While a person works on the guest with virsh, and before its owner was asked whether it is in use.
"""

from datetime import timedelta

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> list[str]:
    """What brings Nova's word and the guest together without stopping anything that runs."""
    admin, server = "as an administrator: openstack server", row["server"]
    look = [
        f"on {row['host']}: virsh domstate --reason {server}",
        f"as an administrator: openstack compute service list --service nova-compute --host {row['host']}",
    ]
    if row["state"] == "running":
        return [*look, f"{admin} set --state active {server}"]
    if row["vm_state"] == "active":
        return [*look, f"{admin} stop {server}", f"{admin} start {server}"]
    return [*look, f"{admin} reboot --hard {server}"]


CHECK = Check(
    text=__doc__,
    accused=("nova_instances", "libvirt_domains"),
    query="""
        SELECT d.host || '/' || d.uuid AS key, d.uuid AS server, s.name, s.project, s.cell, d.host, d.name AS domain,
               s.vm_state, d.state, d.reason, d.id AS run, s.updated_at,
               if(s.vm_state || '/' || d.state = 'paused/running',
                  'nova-compute leaves a paused server that runs as it is',
                  coalesce(n.why, 'nova-compute on ' || d.host || ' corrects this every ten minutes while it is up')
               ) AS nova_will,
               [d.host] AS hosts,
               CASE WHEN p.cell IS NOT NULL AND m.cell IS NOT NULL
                    THEN list_sort(list_distinct([p.cell, m.cell, s.cell])) END AS cells,
               NULL AS since, NULL AS clock,
               'only its owner can say whether it should run' AS by_hand, NULL AS rung, NULL AS rung_since
          FROM libvirt_domains d
          JOIN live_servers s ON s.server = d.uuid AND s.host = d.host
          LEFT JOIN mapped_servers p ON p.server = d.uuid
          LEFT JOIN mapped_hosts m ON m.host = d.host
          LEFT JOIN host_obstacles n ON n.host = d.host
         WHERE s.vm_state || '/' || d.state IN ('active/shutoff', 'active/crashed', 'stopped/running',
                                                'paused/running', 'paused/shutoff', 'paused/crashed')
           AND d.job IS NULL
           AND NOT EXISTS (SELECT 1 FROM held_domains h WHERE h.host = d.host AND h.server = d.uuid)
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = d.uuid)
    """,
    commands=_commands,
    settle=timedelta(minutes=20),
    scenarios=(
        Scenario(
            "off or crashed although active; runs although stopped or paused", """
            hosts cell1       c1
            hypervisors       host
                              c2
            nova_services     cell   host  binary        last_seen_up  deleted  forced_down
                              cell1  c2    nova-compute  -2d           0        false
            nova_instances    cell   uuid  host  deleted  vm_state
                              cell1  s-1   c1    0        active
                              cell1  s-2   c1    0        active
                              cell1  s-3   c1    0        stopped
                              cell1  s-4   c1    0        paused
                              cell1  s-5   c2    0        paused
                              cell1  s-6   c2    0        paused
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-2            cell1
                                    s-5            cell1
            libvirt_domains   host  uuid  state    id  persistent
                              c1    s-1   shutoff  -   true
                              c1    s-2   crashed  2   true
                              c1    s-3   running  3   true
                              c1    s-4   running  4   true
                              c2    s-5   shutoff  -   true
                              c2    s-6   crashed  6   true
            """,
            finds=("c1/s-1", "c1/s-2", "c1/s-3", "c1/s-4", "c2/s-5", "c2/s-6")),
        Scenario(
            "what is held, or at work, on one host is neither on another, nor beside it", """
            hosts cell1       c1 c2
            nova_instances    cell   uuid  host  deleted  vm_state  task_state
                              cell1  s-1   c1    0        active    -
                              cell1  s-2   c1    0        active    -
                              cell1  s-3   c1    0        active    powering-off
                              cell1  s-4   c1    0        active    -
                              cell1  s-5   c2    0        active    -
            libvirt_domains   host  uuid  state    id  persistent  xml_sha256  job
                              c1    s-1   shutoff  -   true        d1          -
                              c1    s-2   shutoff  -   true        d2          -
                              c1    s-3   shutoff  -   true        d3          -
                              c1    s-4   shutoff  -   true        d4          backup
                              c1    s-5   shutoff  -   true        d5          -
                              c2    s-2   shutoff  -   true        d2          -
                              c2    s-5   shutoff  -   true        d5          -
            holds             kind    host  server  rung     since  entry
                              domain  c1    s-1     stopped  -1d    d1
                              domain  c2    s-2     stopped  -1d    d2
                              domain  c1    s-5     stopped  -1d    d5
            """,
            finds=("c1/s-2", "c2/s-5")),
        Scenario(
            "as Nova says; in a state of which Nova takes no notice; deleted", """
            hosts cell1       c1
            nova_instances    cell   uuid  host  deleted  deleted_at  vm_state
                              cell1  s-1   c1    0        -           active
                              cell1  s-2   c1    0        -           stopped
                              cell1  s-3   c1    0        -           paused
                              cell1  s-4   c1    0        -           active
                              cell1  s-5   c1    0        -           error
                              cell1  s-6   c1    0        -           rescued
                              cell1  s-7   c1    7        -9d         active
            libvirt_domains   host  uuid  state    id  persistent
                              c1    s-1   running  1   true
                              c1    s-2   shutoff  -   true
                              c1    s-3   paused   3   true
                              c1    s-4   paused   4   true
                              c1    s-5   shutoff  -   true
                              c1    s-6   shutoff  -   true
                              c1    s-7   shutoff  -   true
            """),
    ),
)  # fmt: skip
