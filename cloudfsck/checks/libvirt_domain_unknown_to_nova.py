"""A domain has Nova's marks and a project of this Nova, which does not know it.

Why it matters
    No row of Nova's says whose it is: nobody is asked about it, nothing removes it, and it takes memory and disk and
    may answer on an address that now belongs to somebody else.
How it comes about
    The server was deleted while its host was away, archived, and then `nova-manage db purge` removed its last row.  Or
    Nova's databases were restored from a backup that is older than the server: then the domain is newer than the
    database, and an owner misses it.  Or another cloud's Nova uses the same hosts and the same projects.
What the repair does
    There is none: without a row nobody can prove that the server was deleted.  Find its owner by the project and the
    name that stand in its metadata.  Whoever decides that it may go saves its definition, suspends it, which keeps its
    memory, and waits for somebody to miss it.
When not to repair
    After a database was restored: every server made since the backup looks like this, and is needed.  While two clouds
    share the host.
"""

from cloudfsck.model import Check, Scenario

CHECK = Check(
    text=__doc__,
    accused=("libvirt_domains",),
    query="""
        SELECT d.host || '/' || d.uuid AS key, d.uuid AS server, d.nova_name AS name, d.project, d.host,
               d.name AS domain, d.state, d.id AS run, d.persistent, d.xml_sha256, d.created,
               'nova-compute looks only for servers that have a row' AS nova_will,
               [d.host] AS hosts, NULL AS cells, NULL AS since, NULL AS clock,
               'no row of Nova''s says whether it was deleted' AS by_hand, NULL AS rung, NULL AS rung_since
          FROM libvirt_domains d
         WHERE d.nova
           AND d.job IS NULL
           AND EXISTS (SELECT 1 FROM nova_projects p WHERE p.project_id = d.project)
           AND NOT EXISTS (SELECT 1 FROM known_servers k WHERE k.server = d.uuid)
           AND NOT EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = d.uuid)
    """,
    commands=lambda row: [
        f"on {row['host']}: virsh dumpxml --security-info {row['server']} > {row['server']}.xml",
        *([f"on {row['host']}: virsh suspend {row['server']}"] if row["state"] == "running" else []),
    ],
    scenarios=(
        Scenario(
            "purged, and still there on two hosts", """
            hosts cell1             c1 c2
            nova_projects           project_id
                                    p-1
            nova_instance_mappings  instance_uuid  cell_id  project_id
                                    s-2            cell1    p-1
            nova_instances          cell   uuid  host  deleted  vm_state
                                    cell1  s-2   c1    0        active
            libvirt_domains         host  uuid  state    id  persistent  nova  project
                                    c1    s-1   running  7   true        true  p-1
                                    c1    s-2   running  8   true        true  p-1
                                    c2    s-1   shutoff  -   true        true  p-1
            """,
            finds=("c1/s-1", "c2/s-1")),
        Scenario(
            "Nova knows it by any row at all, or is at it", """
            hosts cell1             c1
            nova_projects           project_id
                                    p-1
            nova_instance_mappings  instance_uuid  cell_id  project_id
                                    s-1            cell1    p-1
            nova_build_requests     id  instance_uuid  project_id
                                    1   s-2            p-1
            nova_instances          cell   uuid  host  deleted  deleted_at  vm_state
                                    cell1  s-3   c1    3        -9d         deleted
                                    cell1  s-6   c1    0        -           active
            nova_shadow_instances   cell   uuid  host  deleted  deleted_at  vm_state
                                    cell1  s-4   c1    4        -9d         deleted
            nova_migrations         cell   id  instance_uuid  status     deleted
                                    cell1  5   s-5            migrating  0
            libvirt_domains         host  uuid  state    id  persistent  nova  project
                                    c1    s-1   running  1   true        true  p-1
                                    c1    s-2   running  2   true        true  p-1
                                    c1    s-3   shutoff  -   true        true  p-1
                                    c1    s-4   shutoff  -   true        true  p-1
                                    c1    s-5   running  5   true        true  p-1
                                    c1    s-6   running  6   true        true  p-1
            """),
        Scenario(
            "no marks of Nova's, a project that this Nova does not have, or none; a libvirt job runs on it", """
            hosts cell1      c1
            nova_projects    project_id
                             p-1
            libvirt_domains  host  uuid  state    id  persistent  nova   project  job
                             c1    x-1   running  1   true        false  p-1      -
                             c1    x-2   running  2   true        true   p-9      -
                             c1    x-3   running  3   true        true   -        -
                             c1    x-4   running  4   true        true   p-1      migration
                             c1    x-5   running  5   true        -      p-1      -
            """),
    ),
)  # fmt: skip
