"""Placement has a server's resources allocated to somebody unknown to Nova.

Why it matters
    The scheduler takes them for used: new servers are refused with "No valid host" by hosts that have room.
How it comes about
    The server was deleted while Placement did not answer, and its rows are purged by now; or Nova's databases were
    restored from a backup that is older than the server.
What the repair does
    There is none: who a consumer is Placement does not know, and other services than Nova have some too.  Whoever knows
    that it was a server has the consumer have nothing (shown with the finding).
When not to repair
    While a cell's database is being restored, or another service (Blazar, Zun, a Nova of another region that shares this
    Placement) has the consumer.
"""

from collections.abc import Iterable

from cloudfsck.acts import allocation
from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    consumer = row["consumer"]
    yield f"as an administrator: openstack resource provider allocation show {consumer}"
    for host in row["guests_on"]:
        yield f"on {host}: virsh dominfo {consumer}"
    yield f"as an administrator, once it is known that nobody has it: {allocation.unset(consumer)}"


CHECK = Check(
    text=__doc__,
    accused=("placement_allocations",),
    query="""
        SELECT c.consumer AS key, NULL AS server, c.consumer, c.amounts, c.type, c.changed AS allocated_at,
               coalesce((SELECT list(DISTINCT t.trace ORDER BY t.trace) FROM traces_of_servers t WHERE t.server = c.consumer), []) AS traces,
               coalesce(v.on_hosts, []) AS guests_on, [c.consumer] AS also,
               c.hosts, NULL AS cells, c.changed AS since, 'placement:placement' AS clock,
               NULL AS by_hand, NULL AS rung, NULL AS rung_since
          FROM consumers c
          LEFT JOIN consumer_guests v ON v.consumer = c.consumer
         WHERE coalesce(c.type, 'INSTANCE') IN ('INSTANCE', 'MIGRATION')
           AND len(list_filter(c.amounts, lambda one: one.resource IN ('VCPU', 'PCPU', 'MEMORY_MB'))) > 0
           AND NOT EXISTS (SELECT 1 FROM known_servers k WHERE k.server = c.consumer)
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = c.consumer)
           AND NOT EXISTS (SELECT 1 FROM nova_migrations m WHERE m.uuid = c.consumer)
           AND NOT EXISTS (SELECT 1 FROM nova_shadow_migrations m WHERE m.uuid = c.consumer)
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "this Nova has a trace of it, or none; a guest is there; it is called a server, or a migration", """
            hosts cell1      c1
            roster           host  cell   live  libvirt
                             c1    cell1  true  true
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted
                                cell1  r-1   c1    n-1                  0
            nova_request_specs  id   instance_uuid
                                241  s-1
            libvirt_domains  host  uuid  state    nova  id
                             c1    s-2   running  true  1
            qemu_processes   host  uuid  pid
                             c1    s-2   11
            placement_resource_classes  id   name
                                        241  VCPU
                                        242  PCPU
                                        243  MEMORY_MB
            placement_providers  id   uuid  name  root_provider_id
                                 241  r-1   n-1   241
            placement_consumer_types  id   name
                                      241  INSTANCE
                                      242  MIGRATION
            placement_consumers  id   uuid  generation  consumer_type_id
                                 241  s-1   4           -
                                 242  s-2   4           241
                                 243  s-3   4           242
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   241  s-1          241                   241                1     -9d
                                   242  s-2          241                   242                1     -9d
                                   243  s-3          241                   243                1     -9d
            """,
            finds=("s-1", "s-2", "s-3")),
        Scenario(
            "Nova knows it, alive, deleted, archived, mapped, asked for, as a migration; or it is no server's", """
            hosts cell1      c1
            nova_compute_nodes  cell   uuid  host  hypervisor_hostname  deleted
                                cell1  r-11  c1    n-11                 0
            nova_instances   cell   uuid  host  deleted  deleted_at
                             cell1  s-1   c1    0        -
                             cell1  s-2   c1    2        -2h
            nova_shadow_instances  cell   uuid  host  deleted  deleted_at
                                   cell1  s-3   c1    3        -2h
            nova_instance_mappings  instance_uuid  cell_id
                                    s-1            cell1
                                    s-4            cell1
            nova_build_requests  id  instance_uuid  volumes
                                 1   s-5            []
            nova_migrations  cell   id  uuid  instance_uuid  status   migration_type  source_compute  dest_compute  updated_at  deleted
                             cell1  16  u-6   s-1            running  live-migration  c1              c2            -2d         0
            nova_shadow_migrations  cell   id  uuid  instance_uuid  status     migration_type  source_compute  dest_compute  updated_at  deleted
                                    cell1  17  u-7   s-3            completed  live-migration  c1              c2            -10m        3
            placement_resource_classes  id   name
                                        251  VCPU
                                        252  CUSTOM_RESERVATION
            placement_providers  id   uuid  name  root_provider_id
                                 251  r-11  n-11  251
            placement_consumer_types  id   name
                                      251  RESERVATION
            placement_consumers  id   uuid  generation  consumer_type_id
                                 258  s-8   4           -
                                 259  s-9   4           251
            placement_allocations  id   consumer_id  resource_provider_id  resource_class_id  used  created_at
                                   251  s-1          251                   251                1     -9d
                                   252  s-2          251                   251                1     -9d
                                   253  s-3          251                   251                1     -9d
                                   254  s-4          251                   251                1     -9d
                                   255  s-5          251                   251                1     -9d
                                   256  u-6          251                   251                1     -10m
                                   257  u-7          251                   251                1     -10m
                                   258  s-8          251                   252                1     -9d
                                   259  s-9          251                   251                1     -9d
            """),
    ),
)  # fmt: skip
