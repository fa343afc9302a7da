"""NSX has a part of a load balancer that Octavia does not have.

Why it matters
    A virtual server goes on answering at an address that Neutron may give to somebody else, and sends what comes there to
    members that may be somebody else's by now.  NSX has room for few load balancers on a router; and a router that has a
    service cannot be deleted.
How it comes about
    NSX did not answer, or refused, while the load balancer was deleted, and whoever had it deleted forced Octavia to forget
    it; or its rows were deleted by hand, as those are that hang in PENDING_DELETE.
What the repair does
    It deletes the object by NSX's API, right after it was read again, and keeps all of it in the journal: virtual servers
    first, then pools, monitors, and services last.  NSX itself refuses while anything refers to it.  `undo` puts the same
    object back under the same id.  What else bears a listener's or pool's mark stays: application and persistence profiles,
    certificates, which do nothing by themselves.
When not to repair
    While anything is under way with a load balancer of that project: one that hangs in PENDING_UPDATE is to be put right
    first.  After Octavia's database was restored: everything made since the backup looks like this, and is needed.  Where
    another region has an Octavia too, the projects of this Keystone do not tell whose it is, and only a person decides.  By
    the Manager API Neutron's plugin has notes of its own of each, which a deletion would leave behind.
"""

from collections.abc import Iterable

from cloudfsck.acts import nsx_object
from cloudfsck.model import Check, Row, Scenario

_CALLED = {
    "load-balancer": "loadbalancer", "listener": "loadbalancer listener", "pool": "loadbalancer pool",
    "monitor": "loadbalancer healthmonitor",
}  # fmt: skip


def _commands(row: Row) -> Iterable[str]:
    return nsx_object.of_left(_CALLED[row["thing"]], row)


CHECK = Check(
    text=__doc__,
    accused=("nsx_objects",),
    query="""
        SELECT l.path AS key, NULL AS server, l.api, l.path, l.kind, l.name, l.thing, l.neutron, l.project, l.plugin,
               l.revision, l.created, l.changed, [l.path, l.neutron] AS also,
               [] AS hosts, [] AS cells, NULL AS since, 'octavia:octavia' AS clock,
               CASE WHEN l.doubt IS NOT NULL THEN l.doubt
                    WHEN l.api = 'manager' THEN 'Neutron''s plugin may still have it in its tables nsxv3_lbaas_*'
                    END AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nsx_leftovers l
         WHERE l.thing IN ('load-balancer', 'listener', 'pool', 'monitor')
           AND NOT EXISTS (SELECT 1 FROM load_balancer_things n WHERE n.id = l.neutron)
           AND NOT EXISTS (SELECT 1 FROM octavia_load_balancers b
                            WHERE b.project_id = l.project AND starts_with(b.provisioning_status, 'PENDING_'))
    """,
    repair=nsx_object.repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "all of one, which Octavia has purged, or still has as deleted; beside them what is no load balancer's", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            octavia_load_balancers  id   project_id  provider    provisioning_status  created_at  updated_at
                                    b-1  t-1         vmwareedge  DELETED              -9d         -2d
                                    b-2  t-1         vmwareedge  ERROR                -9d         -2d
            nsx_objects  path                            kind            id   thing          neutron  project  plugin  revision
                         /infra/lb-services/b-1          lb-service      b-1  load-balancer  b-1      t-1      17      0
                         /infra/lb-virtual-servers/l-1   virtual-server  l-1  listener       l-1      t-1      17      0
                         /infra/lb-pools/e-1             pool            e-1  pool           e-1      t-1      17      0
                         /infra/lb-monitor-profiles/h-1  monitor         h-1  monitor        h-1      t-1      17      0
                         /infra/services/u-1             service         u-1  -              -        t-1      17      0
            """,
            finds=("/infra/lb-monitor-profiles/h-1", "/infra/lb-pools/e-1", "/infra/lb-services/b-1",
                   "/infra/lb-virtual-servers/l-1"),
            plans="""
            delete monitor /infra/lb-monitor-profiles/h-1 from NSX
            delete pool /infra/lb-pools/e-1 from NSX
            delete lb-service /infra/lb-services/b-1 from NSX
            delete virtual-server /infra/lb-virtual-servers/l-1 from NSX
            """),
        Scenario(
            "by the Manager API", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            nsx_objects  path                    kind  id   thing  neutron  project  plugin  revision
                         /loadbalancer/pools/x-1 pool  x-1  pool   e-1      t-1      17      0
            """,
            finds=("/loadbalancer/pools/x-1",)),
        Scenario(
            "two regions have one", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
            keystone_services    id   type
                                 v-1  network
            keystone_endpoints   service_id  region_id  enabled
                                 v-1         one        true
                                 v-1         two        true
            nsx_objects  path                 kind  id   thing  neutron  project  plugin  revision
                         /infra/lb-pools/e-1  pool  e-1  pool   e-1      t-1      17      0
            """,
            finds=("/infra/lb-pools/e-1",)),
        Scenario(
            "Octavia has them, or Neutron-LBaaS; something is under way in the project; NSX is about to delete it", """
            hosts cell1      c1
            keystone_projects    id   name
                                 t-1  one
                                 t-2  two
            octavia_load_balancers  id   project_id  provider    provisioning_status  created_at  updated_at
                                    b-1  t-1         vmwareedge  ERROR                -9d         -2d
                                    b-2  t-2         vmwareedge  PENDING_DELETE       -9d         -2d
            octavia_listeners       id   load_balancer_id  provisioning_status
                                    l-1  b-1               ACTIVE
            octavia_pools           id   load_balancer_id  provisioning_status
                                    e-1  b-1               ACTIVE
            octavia_health_monitors  id   pool_id  provisioning_status
                                     h-1  e-1      ACTIVE
            neutron_lbaas_load_balancers   id
                                           b-3
            neutron_lbaas_listeners        id
                                           l-3
            neutron_lbaas_pools            id
                                           e-3
            neutron_lbaas_health_monitors  id
                                           h-3
            nsx_objects  path                            kind            id   thing          neutron  project  plugin  revision  protected
                         /infra/lb-services/b-1          lb-service      b-1  load-balancer  b-1      t-1      17      0         -
                         /infra/lb-virtual-servers/l-1   virtual-server  l-1  listener       l-1      t-1      17      0         -
                         /infra/lb-pools/e-1             pool            e-1  pool           e-1      t-1      17      0         -
                         /infra/lb-monitor-profiles/h-1  monitor         h-1  monitor        h-1      t-1      17      0         -
                         /infra/lb-services/b-3          lb-service      b-3  load-balancer  b-3      t-1      17      0         -
                         /infra/lb-virtual-servers/l-3   virtual-server  l-3  listener       l-3      t-1      17      0         -
                         /infra/lb-pools/e-3             pool            e-3  pool           e-3      t-1      17      0         -
                         /infra/lb-monitor-profiles/h-3  monitor         h-3  monitor        h-3      t-1      17      0         -
                         /infra/lb-pools/e-2             pool            e-2  pool           e-2      t-2      17      0         -
                         /infra/lb-pools/e-4             pool            e-4  pool           e-4      t-1      17      0         going
            """),
    ),
)  # fmt: skip
