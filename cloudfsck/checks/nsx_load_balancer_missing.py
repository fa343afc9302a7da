"""Octavia has a part of a load balancer that NSX does not have.

Why it matters
    Octavia calls it ACTIVE, and nobody answers at its address, or answers without a member, or goes on sending to members that
    are dead.
How it comes about
    Somebody deleted it in NSX, or NSX was restored from an older backup; neither Octavia nor its driver compares the two.
What the repair does
    There is none: only the driver knows how to make it, and it has no failover (vmware_nsx/services/lbaas/octavia/
    octavia_driver.py: loadbalancer_failover).  The part is made anew by deleting it and making it again, as the commands show
    it.
When not to repair
    While NSX is being restored from a backup, or anything is under way with the load balancer.  Where Octavia has another
    provider make it, Neutron works with ML2, or its plugin uses the Manager API, which gives it another id, it is not looked
    for.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    what = f"openstack loadbalancer {row['thing']}"
    yield f"as an administrator of NSX: curl {nsx_object.address(row['path'])}"
    yield f"as an administrator: openstack loadbalancer status show {row['load_balancer']}"
    yield f"as an administrator, to keep what it was: {what} show {row['key']}"
    yield f"as its owner, if NSX does not have it: {what} delete {row['key']}; {what} create, as it was"


CHECK = Check(
    text=__doc__,
    accused=("octavia_load_balancers",),
    query="""
        SELECT w.id AS key, NULL AS server, w.thing, w.name, w.project, w.load_balancer, w.path, w.created_at, w.updated_at,
               [w.id, w.load_balancer, w.path] AS also,
               [] AS hosts, [] AS cells, greatest(w.created_at, w.updated_at) AS since, 'octavia:octavia' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nsx_load_balancer_places w
         WHERE EXISTS (SELECT 1 FROM settings s WHERE s.name = 'nsx_policy' AND s.value > 0)
           AND NOT EXISTS (SELECT 1 FROM neutron_network_segments)
           AND NOT EXISTS (SELECT 1 FROM nsx_objects o WHERE o.path = w.path)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "its listener, its pool and its monitor; one of another that has the rest", """
            hosts cell1      c1
            settings         name        value
                             nsx_policy  1
            octavia_load_balancers  id   project_id  name  provider    provisioning_status  created_at  updated_at
                                    b-1  t-1         one   vmwareedge  ACTIVE               -9d         -2d
                                    b-2  t-1         two   vmwareedge  ACTIVE               -9d         -2d
            octavia_listeners       id   load_balancer_id  name  provisioning_status  created_at  updated_at
                                    l-1  b-1               -     ACTIVE               -9d         -2d
                                    l-2  b-2               -     ACTIVE               -9d         -2d
            octavia_pools           id   load_balancer_id  name  provisioning_status  created_at  updated_at
                                    e-1  b-1               -     ACTIVE               -9d         -2d
                                    e-2  b-2               -     ACTIVE               -9d         -
            octavia_health_monitors  id   pool_id  name  provisioning_status  created_at  updated_at
                                     h-1  e-1      -     ACTIVE               -9d         -2d
                                     h-2  e-2      -     ACTIVE               -9d         -2d
            nsx_objects  path                            kind            id   thing     neutron  project  plugin  revision
                         /infra/lb-virtual-servers/l-2   virtual-server  l-2  listener  l-2      t-1      17      0
                         /infra/lb-monitor-profiles/h-2  monitor         h-2  monitor   h-2      t-1      17      0
            """,
            finds=("e-1", "e-2", "h-1", "l-1")),
        Scenario(
            "another provider's; something is under way with it, or with the part; in error, or deleted", """
            hosts cell1      c1
            settings         name        value
                             nsx_policy  1
            octavia_load_balancers  id   project_id  name  provider    provisioning_status  created_at  updated_at
                                    b-1  t-1         one   amphora     ACTIVE               -9d         -2d
                                    b-2  t-1         two   vmwareedge  PENDING_UPDATE       -9d         -2d
                                    b-3  t-1         tri   vmwareedge  ACTIVE               -9d         -2d
                                    b-4  t-1         for   vmwareedge  DELETED              -9d         -2d
            octavia_listeners       id   load_balancer_id  name  provisioning_status  created_at  updated_at
                                    l-1  b-1               -     ACTIVE               -9d         -2d
                                    l-2  b-2               -     ACTIVE               -9d         -2d
                                    l-3  b-3               -     PENDING_CREATE       -9d         -2d
                                    l-4  b-4               -     ACTIVE               -9d         -2d
            octavia_pools           id   load_balancer_id  name  provisioning_status  created_at  updated_at
                                    e-1  b-1               -     ACTIVE               -9d         -2d
                                    e-2  b-2               -     ACTIVE               -9d         -2d
                                    e-3  b-3               -     ERROR                -9d         -2d
            octavia_health_monitors  id   pool_id  name  provisioning_status  created_at  updated_at
                                     h-1  e-1      -     ACTIVE               -9d         -2d
                                     h-2  e-2      -     ACTIVE               -9d         -2d
                                     h-3  e-3      -     ERROR                -9d         -2d
            """),
        Scenario(
            "Neutron works with ML2", """
            hosts cell1      c1
            settings         name        value
                             nsx_policy  1
            neutron_network_segments  id   network_id
                                      z-1  n-8
            octavia_load_balancers  id   project_id  name  provider    provisioning_status  created_at  updated_at
                                    b-1  t-1         one   vmwareedge  ACTIVE               -9d         -2d
            octavia_listeners       id   load_balancer_id  name  provisioning_status  created_at  updated_at
                                    l-1  b-1               -     ACTIVE               -9d         -2d
            nsx_objects  path                 kind     id   thing    neutron  project  plugin  revision
                         /infra/segments/n-9  segment  n-9  network  n-9      t-1      17      0
            """),
        Scenario(
            "Neutron's plugin uses the Manager API", """
            hosts cell1      c1
            settings         name        value
                             nsx_policy  0
                             ovn_alone   1
            octavia_load_balancers  id   project_id  name  provider    provisioning_status  created_at  updated_at
                                    b-1  t-1         one   vmwareedge  ACTIVE               -9d         -2d
            octavia_listeners       id   load_balancer_id  name  provisioning_status  created_at  updated_at
                                    l-1  b-1               -     ACTIVE               -9d         -2d
            """),
    ),
)  # fmt: skip
