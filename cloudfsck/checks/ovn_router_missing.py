"""Neutron believes that a router is in OVN, and it is not there.

Why it matters
    Its networks reach neither each other nor the outside, and no floating IP of theirs is reached.
How it comes about
    Somebody removed it from the northbound database, or that was restored from an older backup.  Neutron's maintenance
    looks only at what it has noted itself, and there the router is up to date.  A router of another provider (a flavor)
    has no such note (neutron/services/ovn_l3/service_providers/ovn.py: is_ovn_provider_router).
What the repair does
    There is none yet.  Once Neutron's notes say that the router, its ports and its floating IPs never got there, its
    maintenance makes them within five minutes, in this order; extra routes come back with the next change of the router.
    `neutron-ovn-db-sync-util` in repair mode would do so for everything that differs, and delete what it does not know.
When not to repair
    While OVN is being restored.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    router = row["router"]
    yield f"as an administrator: openstack router show {router}"
    yield f"where OVN's northbound database is: ovn-nbctl --columns=name,external_ids find Logical_Router name=neutron-{router}"
    hang = (
        f"(resource_type = 'routers' AND resource_uuid = '{router}')"
        f" OR (resource_type = 'router_ports' AND resource_uuid IN (SELECT port_id FROM routerports WHERE router_id = '{router}'))"
        f" OR (resource_type = 'floatingips' AND resource_uuid IN (SELECT id FROM floatingips WHERE router_id = '{router}'))"
    )
    yield f"in Neutron's database, if it is not there: SELECT * FROM ovn_revision_numbers WHERE {hang};"
    yield f"in the same session: UPDATE ovn_revision_numbers SET revision_number = -1 WHERE {hang};"
    yield (
        "as an administrator, when it is there, if it has extra routes: openstack router set"
        f" --description 'routes again' {router}"
    )


CHECK = Check(
    text=__doc__,
    accused=("neutron_routers",),
    query="""
        SELECT n.id AS key, NULL AS server, n.id AS router, n.name, n.project_id AS project, n.status,
               n.revision_number AS revision, n.updated_at, [n.id] AS also, [] AS hosts, [] AS cells,
               greatest(n.created_at, n.updated_at, r.updated_at) AS since, 'neutron:neutron' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM neutron_routers n
          JOIN neutron_ovn_revisions r ON r.resource_uuid = n.id AND r.resource_type = 'routers'
         WHERE r.revision_number = n.revision_number
           AND NOT EXISTS (SELECT 1 FROM ovn_routers o WHERE o.router = n.id)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "it is not there", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number  created_at  updated_at
                             r-1  p-1         r     ACTIVE  3                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   r-1            routers        1                 3                -9d
            """,
            finds=("r-1",)),
        Scenario(
            "it is there; Neutron knows that it is not; it is of another provider", """
            hosts cell1      c1
            neutron_routers  id   project_id  name  status  revision_number  created_at  updated_at
                             r-1  p-1         r     ACTIVE  3                -9d         -9d
                             r-2  p-1         r     ACTIVE  4                -9d         -5m
                             r-3  p-1         hw    ACTIVE  3                -9d         -9d
            neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  updated_at
                                   r-1            routers        1                 3                -9d
                                   r-2            routers        2                 3                -9d
                                   r-3            networks       3                 3                -9d
            ovn_routers      uuid  name         router  ports  revision
                             u-1   neutron-r-1  r-1     0      3
            """),
    ),
)  # fmt: skip
