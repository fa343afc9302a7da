"""Every table of the snapshot: its columns, their types and what each means.  It declares; it never reads.

Of Nova's own tables console_auth_tokens is left out, which holds secrets, and what has been dead since Pike
(quota_usages and reservations, the quotas of cells).

A line of `columns` is `name TYPE sentence`.  A name that ends in `?` came with a later release of OpenStack and is NULL
where it is missing; any other column that a service's database lacks is a gap with that column's name.  Tables that are
read in parts start with the part's own column: `cell`, `host`, `backend` or `copy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Per = Literal[
    "cloud",
    "api",
    "cell",
    "cinder",
    "designate",
    "neutron",
    "neutron_nsx",
    "keystone",
    "octavia",
    "placement",
    "ovn",
    "nsx",
    "host",
    "backend",
    "copy",
]

#: The single part of each table that is read from Nova's API database, from Cinder's, Designate's, Neutron's,
#: Keystone's, Octavia's, Placement's, OVN's and NSX; what Neutron's plugin for NSX adds to Neutron's database is one of
#: its own, for only then is it there.
API = "nova_api"
CINDER = "cinder"
DESIGNATE = "designate"
NEUTRON = "neutron"
NEUTRON_NSX = "neutron_nsx"
KEYSTONE = "keystone"
OCTAVIA = "octavia"
PLACEMENT = "placement"
OVN = "ovn"
NSX = "nsx"

#: The single part of a table, by what it is read from; those of the services beside Nova are named as these are.
SINGLE: dict[Per, str] = {
    "cloud": "", "api": API, "cinder": CINDER, "designate": DESIGNATE, "neutron": NEUTRON, "neutron_nsx": NEUTRON_NSX,
    "keystone": KEYSTONE, "octavia": OCTAVIA, "placement": PLACEMENT, "ovn": OVN, "nsx": NSX,
}  # fmt: skip
SERVICES: tuple[Per, ...] = ("cinder", "designate", "neutron", "neutron_nsx", "keystone", "octavia", "placement")


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    text: str
    optional: bool


@dataclass(frozen=True)
class Table:
    """`key` names the columns that hold the UUID of a server, a volume or an attachment: a scoped reading asks for
    those rows alone; a table without one is read whole for its part.  `origin` is the table's name in the service's own
    database, `where` a filter that the source applies, as SQL that MariaDB, PostgreSQL and SQLite understand.  `late`
    marks a table that older releases do not have: there it is empty, not a gap.  `distinct` marks one that has each row
    of its columns once, taken of a service's table that another of ours reads as well.  `apart` names columns of JSON
    with secrets in them, of which the source keeps what stands in CONNECTION alone.  `few` marks one that is read whole
    in spite of its key, for there is little in it, and it acquits by more than its key.  `joined` is another table of
    the service's that has the rest of the columns, in the row whose `id` the table's STANDARD says.  `bare` names
    columns in which the service keeps UUIDs without dashes; here they have them.  `named` names columns of the key that
    hold names, addresses or projects (which have no dashes), and no UUIDs: they are asked for those alone, for the
    service may have no index of them.
    """

    name: str
    per: Per
    text: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    origin: str = ""
    where: str = ""
    late: bool = False
    distinct: bool = False
    apart: tuple[str, ...] = ()
    few: bool = False
    joined: str = ""
    bare: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    @property
    def narrow(self) -> bool:
        """Whether a scoped reading asks for some of its rows alone."""
        return bool(self.key) and not self.few

    @property
    def asked(self) -> tuple[Column, ...]:
        """The columns as the service has them, those of JSON in place of what is made of them."""
        made = {self.part, *(column.name for each in self.apart for column in taken(each))}
        columns = [column for column in self.columns if column.name not in made]
        return (*columns, *(Column(name, "VARCHAR", "A column of JSON.", False) for name in self.apart))

    @property
    def part(self) -> str | None:
        return self.per if self.per in ("cell", "host", "backend", "copy") else None


def _columns(text: str) -> list[Column]:
    fields = []
    for line in filter(str.strip, text.splitlines()):
        column, kind, sentence = line.split(maxsplit=2)
        fields.append(Column(column.rstrip("?"), kind, sentence.strip(), column.endswith("?")))
    return fields


def taken(column: str) -> list[Column]:
    """The columns that are made of a column of JSON."""
    return _columns(CONNECTION[column])


def _table(
    name: str, per: Per, text: str, columns: str, key: str = "", origin: str = "", where: str = "",
    late: bool = False, distinct: bool = False, apart: str = "", few: bool = False, joined: str = "", bare: str = "",
    named: str = "",
) -> Table:  # fmt: skip
    fields = []
    if per == "cell":
        fields.append(Column("cell", "VARCHAR", "The cell that the row was read from.", False))
    if per == "host":
        fields.append(Column("host", "VARCHAR", "The host as Nova names it ([DEFAULT] host of its nova.conf).", False))
    if per == "backend":
        fields.append(Column("backend", "VARCHAR", "The backend as our configuration names it.", False))
    if per == "copy":
        fields.append(Column("copy", "VARCHAR", "The zone on a server, as zone@server.", False))
    fields += _columns(columns)
    for column in apart.split():
        fields += taken(column)
    return Table(name, per, " ".join(text.split()), tuple(fields), tuple(key.split()), origin, where, late, distinct,
                 tuple(apart.split()), few, joined, tuple(bare.split()), tuple(named.split()))  # fmt: skip


#: The column of each of Neutron's resources that says which row of standardattributes is its own.
STANDARD = "standard_attr_id"

#: What is kept of a column of JSON that is taken apart at its source (sources/connection.py).
CONNECTION = {
    "connection_info": """
    connected      BOOLEAN    Whether it says how to reach the volume; NULL where it cannot be read.
    driver         VARCHAR    iscsi, rbd, nfs, fibre_channel, nvmeof, …
    places         VARCHAR[]  Where the volume is on its backend: iqn/lun, wwn/lun, nqn/uuid, pool/image, export/file.
    portals        VARCHAR[]  The addresses at which that is reached.
    multipath_id   VARCHAR    The WWID of its multipath map.
    device_path    VARCHAR    The device that it had when it was connected.
""",
    "connector": """
    connector_host VARCHAR    The host that it is connected to, by the connector; NULL where there is none.
    initiator      VARCHAR    That host's iSCSI name.
""",
    "block_device_mappings": """
    volumes        VARCHAR[]  The volumes that it is to have.
""",
    "network_info": """
    ports          VARCHAR[]  The Neutron ports that it had; NULL where it cannot be read.
    preserved      VARCHAR[]  Those of them that Nova did not make itself, and does not delete.
""",
}

_INSTANCES = """
    id            BIGINT     The row's number in its cell; part of the default domain name, no identity across cells.
    uuid          VARCHAR    The server.
    project_id    VARCHAR    Its owner.
    display_name  VARCHAR    The name that the owner gave it.
    hostname      VARCHAR    The name that the guest is given, of which names in the DNS are made.
    host          VARCHAR    The nova-compute that has it; keeps its last value when the server is deleted.
    node          VARCHAR    That host's hypervisor name.
    vm_state      VARCHAR    active, stopped, resized, deleted, …
    task_state    VARCHAR    What Nova is doing with it; NULL when nothing.
    power_state   INTEGER    0 none, 1 running, 3 paused, 4 shut down, 6 crashed, 7 suspended.
    launched_at   TIMESTAMP  When it first ran.
    launched_on   VARCHAR    The host on which it first ran.
    created_at    TIMESTAMP  When the row was made.
    updated_at    TIMESTAMP  When the row last changed; a deletion need not move it.
    deleted_at    TIMESTAMP  When it was deleted; also set by a soft delete, whose row still has deleted = 0.
    deleted       BIGINT     0 while it lives, the row's id when it is deleted.
    cleaned       BIGINT     1 when its host has removed its files.
    hidden?       BOOLEAN    The copy that a cross-cell resize keeps aside.
    compute_id?   BIGINT     The compute_nodes row that has it.
"""

_MIGRATIONS = """
    id               BIGINT     The row's number in its cell.
    uuid?            VARCHAR    The migration; also the consumer of its source's allocation.
    instance_uuid    VARCHAR    The server that moves.
    status           VARCHAR    accepted, pre-migrating, finished, confirmed, done, error, …
    migration_type?  VARCHAR    migration, resize, live-migration or evacuation.
    source_compute   VARCHAR    The host that it leaves.
    dest_compute     VARCHAR    The host that it goes to; NULL until it is chosen.
    source_node      VARCHAR    The hypervisor that it leaves.
    dest_node        VARCHAR    The hypervisor that it goes to.
    cross_cell_move? BOOLEAN    Whether it moves between cells.
    created_at       TIMESTAMP  When it began.
    updated_at       TIMESTAMP  When its status last changed.
    deleted_at       TIMESTAMP  When the row was deleted, with its server.
    deleted          BIGINT     0 while the row lives.
"""

_SYSTEM_METADATA = """
    id             BIGINT   The row's number.
    instance_uuid  VARCHAR  The server.
    key            VARCHAR  clean_attempts, old_vm_state, shelved_at, shelved_host or shelved_image_id.
    value          VARCHAR  Its value.
    deleted        BIGINT   0 while the row lives.
"""

_SYSTEM_METADATA_KEYS = "'clean_attempts', 'old_vm_state', 'shelved_at', 'shelved_host', 'shelved_image_id'"

_BLOCK_DEVICES = """
    id                     BIGINT     The row's number.
    uuid?                  VARCHAR    The mapping.
    instance_uuid          VARCHAR    The server.
    source_type            VARCHAR    blank, image, snapshot or volume.
    destination_type       VARCHAR    local or volume.
    volume_id              VARCHAR    The Cinder volume, if it is one.
    attachment_id?         VARCHAR    Its Cinder attachment; NULL for one made before Queens.
    device_name            VARCHAR    /dev/vda, …
    boot_index             INTEGER    0 for the root disk.
    delete_on_termination  BOOLEAN    Whether the volume dies with the server.
    no_device              BOOLEAN    Whether the mapping suppresses a device of the image.
    created_at             TIMESTAMP  When it was made.
    updated_at             TIMESTAMP  When it last changed.
    deleted_at             TIMESTAMP  When it was deleted.
    deleted                BIGINT     0 while the row lives.
"""

_STANDARD = """
        standard_attr_id  BIGINT     Its row in standardattributes.
        revision_number   BIGINT     Grows with every change (the API's If-Match).
        created_at        TIMESTAMP  When it was made.
        updated_at        TIMESTAMP  When it last changed.
"""

TABLES: tuple[Table, ...] = (
    _table(
        "roster",
        "cloud",
        """The hosts that could hold anything: live and deleted compute_nodes, host_mappings, and the inventory of the
        configuration.  Whole only when every cell could be asked.""",
        """
        host             VARCHAR  The host as Nova names it.
        cell             VARCHAR  Its cell; NULL when no database says so.
        node             VARCHAR  Its hypervisor's name.
        hypervisor_type  VARCHAR  QEMU, ironic, …; NULL when only the inventory or host_mappings know it.
        live             BOOLEAN  Whether a compute_nodes row of it lives.
        libvirt          BOOLEAN  Whether it is to be asked for domains and directories.
        """,
    ),
    _table(
        "settings",
        "cloud",
        """What Nova's own configuration says and no database holds, as [nova] of our configuration gives it:
        service_down_time, long_rpc_timeout, maximum_instance_delete_attempts and reclaim_instance_interval.  And
        ovn_alone, 0 or 1: whether this Neutron uses its OVN alone, as alone in [ovn] says; and nsx_policy, 0 or 1:
        whether its plugin for NSX uses the Policy API, as api in [nsx] says.""",
        """
        name   VARCHAR  The option.
        value  BIGINT   Its value; times in seconds.  NULL: not known.
        """,
    ),
    _table(
        "holds",
        "cloud",
        "What stands on a rung of its ladder because we put it there; from our state store.",
        """
        check_name VARCHAR  The check whose repair put it there.
        kind     VARCHAR    domain, or what its directory is: directory, resize or del.
        host     VARCHAR    Where it is.
        server   VARCHAR    Whose it was.
        rung     VARCHAR    paused, stopped or quarantined.
        since    TIMESTAMP  Since when.
        run      VARCHAR    The run that did it.
        entry    VARCHAR    A directory's quarantine entry, a paused domain's id, a stopped one's xml_sha256.
        """,
        key="server",
    ),
    _table(
        "nova_cell_mappings",
        "api",
        "The cells.  Their connection strings are not kept: they hold passwords.",
        """
        id        BIGINT   The row's number.
        uuid      VARCHAR  The cell.
        name      VARCHAR  Its name in Nova.
        cell      VARCHAR  What we call it: its name, or its UUID where the name is missing or not unique.
        disabled? BOOLEAN  Whether new servers are kept from it.
        """,
        origin="cell_mappings",
    ),
    _table(
        "nova_instance_mappings",
        "api",
        "Which cell a server is in.  Archiving a server removes its mapping.",
        """
        id                  BIGINT     The row's number.
        instance_uuid       VARCHAR    The server.
        cell_id             BIGINT     nova_cell_mappings.id; NULL while it is being scheduled.
        project_id          VARCHAR    Its owner.
        queued_for_delete?  BOOLEAN    A hint only; it can be stale.
        created_at          TIMESTAMP  When the server was asked for.
        updated_at          TIMESTAMP  When the mapping last changed.
        """,
        key="instance_uuid",
        origin="instance_mappings",
    ),
    _table(
        "nova_projects",
        "api",
        "The projects that have servers in this Nova; it tells its domains from those of another cloud's.",
        """
        project_id  VARCHAR  The project.
        """,
        origin="instance_mappings",
        distinct=True,
    ),
    _table(
        "nova_host_mappings",
        "api",
        "Which cell a host is in.",
        """
        id       BIGINT   The row's number.
        host     VARCHAR  The host.
        cell_id  BIGINT   nova_cell_mappings.id.
        """,
        origin="host_mappings",
    ),
    _table(
        "nova_build_requests",
        "api",
        "Servers that are asked for and not yet scheduled.",
        """
        id             BIGINT     The row's number.
        instance_uuid  VARCHAR    The server.
        project_id     VARCHAR    Its owner.
        created_at     TIMESTAMP  When it was asked for.
        updated_at     TIMESTAMP  When the request last changed.
        """,
        key="instance_uuid",
        origin="build_requests",
        apart="block_device_mappings",
        few=True,
    ),
    _table(
        "nova_request_specs",
        "api",
        "Servers whose scheduling request is kept; removed with the mapping.",
        """
        id             BIGINT   The row's number.
        instance_uuid  VARCHAR  The server.
        """,
        key="instance_uuid",
        origin="request_specs",
    ),
    _table(
        "nova_instance_groups",
        "api",
        "Server groups.",
        """
        id          BIGINT   The row's number.
        uuid        VARCHAR  The group.
        project_id  VARCHAR  Its owner.
        name        VARCHAR  Its name.
        """,
        origin="instance_groups",
    ),
    _table(
        "nova_instance_group_members",
        "api",
        "Which servers are in a server group.",
        """
        id             BIGINT   The row's number.
        instance_uuid  VARCHAR  The server.
        group_id       BIGINT   nova_instance_groups.id.
        """,
        key="instance_uuid",
        origin="instance_group_member",
    ),
    _table(
        "nova_instance_group_policies",
        "api",
        "What each server group asks of the scheduler.",
        """
        id        BIGINT   The row's number.
        group_id  BIGINT   nova_instance_groups.id.
        policy    VARCHAR  affinity, anti-affinity, …
        """,
        origin="instance_group_policy",
    ),
    _table(
        "nova_flavors",
        "api",
        "Flavors.",
        """
        id            BIGINT   The row's number.
        flavorid      VARCHAR  The flavor as the API knows it.
        name          VARCHAR  Its name.
        vcpus         BIGINT   Processors.
        memory_mb     BIGINT   Memory, MiB.
        root_gb       BIGINT   Root disk, GiB.
        ephemeral_gb  BIGINT   Ephemeral disk, GiB.
        swap          BIGINT   Swap, MiB.
        disabled      BOOLEAN  Whether it may be used no more.
        is_public     BOOLEAN  Whether every project may use it.
        """,
        origin="flavors",
    ),
    _table(
        "nova_quotas",
        "api",
        "Limits of projects.",
        """
        id          BIGINT   The row's number.
        project_id  VARCHAR  The project.
        resource    VARCHAR  instances, cores, ram, …
        hard_limit  BIGINT   The limit; -1 for none.
        """,
        origin="quotas",
    ),
    _table(
        "nova_project_user_quotas",
        "api",
        "Limits of users within projects.",
        """
        id          BIGINT   The row's number.
        project_id  VARCHAR  The project.
        user_id     VARCHAR  The user.
        resource    VARCHAR  instances, cores, ram, …
        hard_limit  BIGINT   The limit; -1 for none.
        """,
        origin="project_user_quotas",
    ),
    _table(
        "nova_quota_classes",
        "api",
        "Limits for whoever has none of his own.",
        """
        id          BIGINT   The row's number.
        class_name  VARCHAR  default.
        resource    VARCHAR  instances, cores, ram, …
        hard_limit  BIGINT   The limit; -1 for none.
        """,
        origin="quota_classes",
    ),
    _table("nova_instances", "cell", "Servers, live and deleted.", _INSTANCES, key="uuid", origin="instances"),
    _table(
        "nova_shadow_instances",
        "cell",
        "Servers that were archived (nova-manage db archive_deleted_rows).",
        _INSTANCES,
        key="uuid",
        origin="shadow_instances",
    ),
    _table(
        "nova_migrations",
        "cell",
        "Migrations, resizes, live migrations and evacuations.",
        _MIGRATIONS,
        key="instance_uuid",
        origin="migrations",
    ),
    _table(
        "nova_shadow_migrations",
        "cell",
        "The same, archived.",
        _MIGRATIONS,
        key="instance_uuid",
        origin="shadow_migrations",
    ),
    _table(
        "nova_services",
        "cell",
        "Nova's services.",
        """
        id            BIGINT     The row's number.
        uuid?         VARCHAR    The service.
        host          VARCHAR    Where it runs.
        binary        VARCHAR    nova-compute, nova-conductor, …
        disabled      BOOLEAN    Whether the scheduler leaves it out.
        disabled_reason VARCHAR  Why.
        last_seen_up  TIMESTAMP  Its last heartbeat.
        forced_down   BOOLEAN    Whether an operator declared it dead (before an evacuation).
        version       BIGINT     The service version that it reports.
        report_count  BIGINT     Its heartbeats; the number only grows.
        deleted       BIGINT     0 while the row lives.
        """,
        origin="services",
    ),
    _table(
        "nova_compute_nodes",
        "cell",
        "Hypervisors, live and deleted.",
        """
        id                   BIGINT     The row's number.
        uuid?                VARCHAR    The node; also its resource provider in Placement.
        host                 VARCHAR    The nova-compute that runs it.
        hypervisor_hostname  VARCHAR    The node's own name.
        hypervisor_type      VARCHAR    QEMU, ironic, …
        host_ip              VARCHAR    Its address as Nova knows it.
        created_at           TIMESTAMP  When it appeared.
        deleted_at           TIMESTAMP  When it was removed.
        deleted              BIGINT     0 while the row lives.
        """,
        origin="compute_nodes",
    ),
    _table(
        "nova_instance_actions",
        "cell",
        "Actions on servers that have not finished.",
        """
        id             BIGINT     The row's number.
        instance_uuid  VARCHAR    The server.
        action         VARCHAR    reboot, live-migration, …
        request_id     VARCHAR    The API request.
        start_time     TIMESTAMP  When it began.
        finish_time    TIMESTAMP  When it ended; Nova does not always say.
        updated_at     TIMESTAMP  When the row last changed.
        """,
        key="instance_uuid",
        origin="instance_actions",
        where="id IN (SELECT action_id FROM instance_actions_events WHERE finish_time IS NULL)",
    ),
    _table(
        "nova_instance_actions_events",
        "cell",
        "Steps of those actions that have not finished.",
        """
        id           BIGINT     The row's number.
        action_id    BIGINT     nova_instance_actions.id.
        event        VARCHAR    compute_reboot_instance, …
        host?        VARCHAR    Where it runs.
        start_time   TIMESTAMP  When it began.
        finish_time  TIMESTAMP  When it ended; NULL while it runs, or since its service died.
        result       VARCHAR    Success or Error.
        """,
        origin="instance_actions_events",
        where="finish_time IS NULL",
    ),
    _table(
        "nova_instance_system_metadata",
        "cell",
        "The few keys of a server's system metadata that tell where it stands.",
        _SYSTEM_METADATA,
        key="instance_uuid",
        origin="instance_system_metadata",
        where=f"{{key}} IN ({_SYSTEM_METADATA_KEYS})",
    ),
    _table(
        "nova_shadow_instance_system_metadata",
        "cell",
        "The same, archived.",
        _SYSTEM_METADATA,
        key="instance_uuid",
        origin="shadow_instance_system_metadata",
        where=f"{{key}} IN ({_SYSTEM_METADATA_KEYS})",
    ),
    _table(
        "nova_block_device_mapping",
        "cell",
        "The disks of servers.  Deleted rows are not read.",
        _BLOCK_DEVICES,
        key="instance_uuid volume_id",
        origin="block_device_mapping",
        where="deleted = 0",
        apart="connection_info",
    ),
    _table(
        "nova_shadow_block_device_mapping",
        "cell",
        "The same, archived.",
        _BLOCK_DEVICES,
        key="instance_uuid volume_id",
        origin="shadow_block_device_mapping",
    ),
    _table(
        "nova_instance_extra",
        "cell",
        "Servers with a migration context: a resize or evacuation has begun and has not been cleaned up after.",
        """
        id                 BIGINT     The row's number.
        instance_uuid      VARCHAR    The server.
        migration_context  VARCHAR    What it needs on either host, as JSON.
        updated_at         TIMESTAMP  When the row last changed.
        deleted            BIGINT     0 while the row lives.
        """,
        key="instance_uuid",
        origin="instance_extra",
        where="migration_context IS NOT NULL",
    ),
    _table(
        "nova_instance_faults",
        "cell",
        "What went wrong with servers, as their owners are told.",
        """
        id             BIGINT     The row's number.
        instance_uuid  VARCHAR    The server.
        code           BIGINT     An HTTP status.
        message        VARCHAR    The sentence.
        host           VARCHAR    Where it happened.
        created_at     TIMESTAMP  When.
        deleted        BIGINT     0 while the row lives.
        """,
        key="instance_uuid",
        origin="instance_faults",
    ),
    _table(
        "nova_instance_id_mappings",
        "cell",
        "Numbers that the EC2 API gave servers.",
        """
        id       BIGINT   The number.
        uuid     VARCHAR  The server.
        deleted  BIGINT   0 while the row lives.
        """,
        key="uuid",
        origin="instance_id_mappings",
    ),
    _table(
        "nova_pci_devices",
        "cell",
        "Devices of hosts that are passed through to servers.",
        """
        id               BIGINT   The row's number.
        compute_node_id  BIGINT   nova_compute_nodes.id.
        address          VARCHAR  The device.
        status           VARCHAR  available, claimed, allocated, …
        instance_uuid    VARCHAR  The server that has it.
        deleted          BIGINT   0 while the row lives.
        """,
        key="instance_uuid",
        origin="pci_devices",
    ),
    _table(
        "nova_virtual_interfaces",
        "cell",
        "The network interfaces that Nova gave servers.",
        """
        id             BIGINT   The row's number.
        uuid           VARCHAR  The Neutron port.
        instance_uuid  VARCHAR  The server.
        address        VARCHAR  The MAC address.
        deleted        BIGINT   0 while the row lives.
        """,
        key="instance_uuid",
        origin="virtual_interfaces",
    ),
    _table(
        "nova_instance_info_caches",
        "cell",
        "What Nova last knew of the ports of each server; of one that it has deleted, too, until it is archived.",
        """
        id             BIGINT   The row's number.
        instance_uuid  VARCHAR  The server.
        deleted        BIGINT   0 while the row lives.
        """,
        key="instance_uuid",
        origin="instance_info_caches",
        apart="network_info",
    ),
    _table(
        "nova_tags",
        "cell",
        "Tags that owners and operators put on servers.",
        """
        resource_id  VARCHAR  The server.
        tag          VARCHAR  The tag.
        """,
        key="resource_id",
        origin="tags",
        late=True,
    ),
    _table(
        "nova_share_mapping",
        "cell",
        "Manila shares attached to servers.",
        """
        id             BIGINT   The row's number.
        instance_uuid  VARCHAR  The server.
        share_id       VARCHAR  The share.
        status         VARCHAR  attaching, active, …
        """,
        key="instance_uuid",
        origin="share_mapping",
        late=True,
    ),
    _table(
        "cinder_volumes",
        "cinder",
        "The volumes, live and deleted.  provider_auth is not read: it holds CHAP secrets.",
        """
        id                VARCHAR    The volume.
        _name_id          VARCHAR    The one that it is named after on its backend, if that is another.
        project_id        VARCHAR    Its owner.
        display_name      VARCHAR    The name that the owner gave it.
        host              VARCHAR    The backend that has it: host@backend#pool.
        size              BIGINT     GiB.
        status            VARCHAR    available, reserved, attaching, in-use, detaching, error, deleting, …
        attach_status     VARCHAR    detached, reserved, attaching, attached, detaching, error_attaching, …
        migration_status  VARCHAR    migrating, completing, success, …; target:<volume>: made to replace it.
        volume_type_id    VARCHAR    Its type.
        previous_status   VARCHAR    What it was before it was backed up or extended.
        multiattach       BOOLEAN    Whether several servers may have it at once.
        bootable          BOOLEAN    Whether a server may boot from it.
        use_quota?        BOOLEAN    Whether it counts for its owner; one of Cinder's own does not.
        created_at        TIMESTAMP  When it was asked for.
        updated_at        TIMESTAMP  When the row last changed.
        deleted_at        TIMESTAMP  When it was deleted.
        deleted           BOOLEAN    Whether it is deleted.
        """,
        key="id _name_id project_id",
        named="project_id",
        origin="volumes",
    ),
    _table(
        "cinder_volume_admin_metadata",
        "cinder",
        "What Cinder notes of a volume for itself: attached_mode, readonly.",
        """
        id          BIGINT     The row's number.
        volume_id   VARCHAR    The volume.
        key         VARCHAR    attached_mode, readonly, …
        value       VARCHAR    rw or ro, True or False, …
        created_at  TIMESTAMP  When it was noted.
        updated_at  TIMESTAMP  When the row last changed.
        deleted     BOOLEAN    Whether it is deleted.
        """,
        key="volume_id",
        origin="volume_admin_metadata",
        where="NOT deleted",
    ),
    _table(
        "cinder_volume_attachment",
        "cinder",
        "What each volume is attached to, or reserved for.  Deleted rows are not read.",
        """
        id             VARCHAR    The attachment.
        volume_id      VARCHAR    The volume.
        instance_uuid  VARCHAR    The server; NULL where a host has it, as while an image is copied.
        attached_host  VARCHAR    The host that it was last connected to, by the connector of that time.
        mountpoint     VARCHAR    /dev/vdb, …
        attach_status  VARCHAR    reserved, attaching, attached, detaching, error_attaching, …
        attach_mode    VARCHAR    rw, ro or null.
        attach_time    TIMESTAMP  When it was attached.
        detach_time    TIMESTAMP  When it was detached.
        created_at     TIMESTAMP  When it was reserved.
        updated_at     TIMESTAMP  When the row last changed.
        deleted_at     TIMESTAMP  When it was deleted.
        deleted        BOOLEAN    Whether it is deleted.
        """,
        key="volume_id instance_uuid id attached_host",
        origin="volume_attachment",
        where="NOT deleted",
        apart="connection_info connector",
    ),
    _table(
        "cinder_workers",
        "cinder",
        "What a service of Cinder is at; the row is gone when it is done.",
        """
        id             BIGINT     The row's number.
        resource_type  VARCHAR    Volume, Snapshot, Backup, …
        resource_id    VARCHAR    The volume, snapshot or backup.
        status         VARCHAR    creating, deleting, extending, …
        service_id     BIGINT     The service that does it; NULL until one has begun.
        updated_at     TIMESTAMP  When it began, or last said so.
        deleted        BOOLEAN    Whether it is deleted.
        """,
        key="resource_id",
        origin="workers",
    ),
    _table(
        "cinder_snapshots",
        "cinder",
        "The snapshots of volumes.  Deleted rows are not read.",
        """
        id           VARCHAR    The snapshot.
        volume_id    VARCHAR    The volume that it is of.
        project_id   VARCHAR    Its owner.
        status       VARCHAR    available, creating, deleting, error, backing-up, …
        volume_size  BIGINT     GiB.
        use_quota?   BOOLEAN    Whether it counts for its owner; one of Cinder's own does not.
        updated_at   TIMESTAMP  When the row last changed.
        deleted      BOOLEAN    Whether it is deleted.
        """,
        key="id volume_id project_id",
        named="project_id",
        origin="snapshots",
        where="NOT deleted",
    ),
    _table(
        "cinder_backups",
        "cinder",
        "The backups of volumes.  Deleted rows are not read.",
        """
        id          VARCHAR    The backup.
        volume_id   VARCHAR    The volume that it is of.
        project_id  VARCHAR    Its owner.
        status      VARCHAR    available, creating, restoring, deleting, error, …
        size        BIGINT     GiB.
        updated_at  TIMESTAMP  When the row last changed.
        deleted     BOOLEAN    Whether it is deleted.
        """,
        key="id volume_id project_id",
        named="project_id",
        origin="backups",
        where="NOT deleted",
    ),
    _table(
        "cinder_groups",
        "cinder",
        "Groups of volumes.  Deleted rows are not read.",
        """
        id          VARCHAR    The group.
        project_id  VARCHAR    Its owner.
        status      VARCHAR    available, creating, deleting, error, …
        updated_at  TIMESTAMP  When the row last changed.
        deleted     BOOLEAN    Whether it is deleted.
        """,
        key="id project_id",
        named="project_id",
        origin="groups",
        where="NOT deleted",
    ),
    _table(
        "cinder_volume_types",
        "cinder",
        "The types of volumes.  Deleted rows are not read.",
        """
        id       VARCHAR  The type.
        name     VARCHAR  Its name, by which what is counted of it is called: volumes_<name>.
        deleted  BOOLEAN  Whether it is deleted.
        """,
        origin="volume_types",
        where="NOT deleted",
    ),
    _table(
        "cinder_quota_usages",
        "cinder",
        "How much of what each project has, as Cinder keeps count of it.",
        """
        id          BIGINT     The row's number.
        project_id  VARCHAR    The project.
        resource    VARCHAR    volumes, gigabytes, snapshots, backups, backup_gigabytes, groups, volumes_<type>, …
        in_use      BIGINT     How much it has.
        reserved    BIGINT     How much is being made.
        created_at  TIMESTAMP  When it was first counted.
        updated_at  TIMESTAMP  When the count last changed.
        deleted     BOOLEAN    Whether it is deleted.
        """,
        key="project_id",
        origin="quota_usages",
        where="NOT deleted",
    ),
    _table(
        "cinder_reservations",
        "cinder",
        "What is being made or deleted, and not counted yet.",
        """
        id          BIGINT     The row's number.
        usage_id    BIGINT     The row of quota_usages.
        project_id  VARCHAR    The project.
        delta       BIGINT     How much more there is to be.
        expire      TIMESTAMP  When Cinder gives it up.
        deleted     BOOLEAN    Whether it is deleted.
        """,
        key="project_id",
        origin="reservations",
        where="NOT deleted",
    ),
    _table(
        "designate_zones",
        "designate",
        "DNS zones that Designate has and is not rid of yet (designate/storage/sqlalchemy/tables.py).",
        """
        id           VARCHAR    The zone.
        name         VARCHAR    Its name, with the dot at the end.
        type         VARCHAR    PRIMARY; SECONDARY: Designate has a copy of somebody else's; CATALOG.
        tenant_id    VARCHAR    Its owner.
        status       VARCHAR    ACTIVE, PENDING: not all name servers have it as it is to be; ERROR.
        action       VARCHAR    NONE, or what is under way: CREATE, UPDATE, DELETE.
        serial       BIGINT     Its serial, by Designate.
        ttl          BIGINT     How many seconds its records may be remembered that do not say so themselves.
        deleted      VARCHAR    0 while it is not deleted.
        created_at   TIMESTAMP  When it was asked for.
        updated_at   TIMESTAMP  When the row last changed.
        """,
        origin="zones",
        where="deleted = '0'",
        bare="id",
    ),
    _table(
        "designate_recordsets",
        "designate",
        "Sets of DNS records, each of one name and type.  Designate keeps no row of what it has deleted.",
        """
        id           VARCHAR    The recordset.
        zone_id      VARCHAR    Its zone.
        name         VARCHAR    The name, with the dot at the end.
        type         VARCHAR    A, AAAA, PTR, …
        ttl          BIGINT     How many seconds it may be remembered; NULL: as long as the zone says.
        tenant_id    VARCHAR    Its owner; NULL: designate-sink made it.
        description  VARCHAR    What the owner says of it.
        created_at   TIMESTAMP  When it was asked for.
        updated_at   TIMESTAMP  When the row last changed.
        """,
        key="id zone_id",
        origin="recordsets",
        bare="id zone_id",
    ),
    _table(
        "designate_records",
        "designate",
        """The records in those sets.  What Designate or its sink made for somebody else is `managed`, and says for
        whom; so are a zone's own SOA and NS, which are nobody's.""",
        """
        id                       VARCHAR    The record.
        recordset_id             VARCHAR    The set.
        zone_id                  VARCHAR    The zone.
        data                     VARCHAR    What it says: an address, a name.
        managed                  BOOLEAN    Whether only an administrator may change it.
        managed_plugin_name      VARCHAR    What made it: nova_fixed, neutron_floatingip; NULL: Designate itself.
        managed_resource_type    VARCHAR    What it was made for: instance, floatingip, ptr:floatingip.
        managed_resource_id      VARCHAR    Which one.
        managed_resource_region  VARCHAR    Of which region, of a ptr:floatingip.
        managed_extra            VARCHAR    Of a ptr:floatingip, the address.
        status                   VARCHAR    ACTIVE, PENDING, ERROR.
        action                   VARCHAR    NONE, or what is under way: CREATE, UPDATE, DELETE.
        created_at               TIMESTAMP  When it was asked for.
        updated_at               TIMESTAMP  When the row last changed.
        """,
        key="recordset_id zone_id managed_resource_id",
        origin="records",
        bare="id recordset_id zone_id managed_resource_id",
    ),
    _table(
        "neutron_ports",
        "neutron",
        "Ports.  Neutron keeps no row of what it has deleted.",
        f"""
        id                VARCHAR    The port.
        project_id        VARCHAR    Its owner; empty for what Neutron made for itself.
        name              VARCHAR    The name that the owner gave it.
        network_id        VARCHAR    Its network.
        mac_address       VARCHAR    Its MAC address.
        status            VARCHAR    ACTIVE, DOWN, BUILD or ERROR.
        device_owner      VARCHAR    What has it: compute:<zone>, network:dhcp, …; empty: nothing.
        device_id         VARCHAR    Which of those: for compute: the server.
        {_STANDARD}
        """,
        key="id device_id",
        origin="ports",
        joined="standardattributes",
    ),
    _table(
        "neutron_port_bindings",
        "neutron",
        "On which host each port is bound, as its owner asked; during a live migration on two.",
        """
        port_id    VARCHAR  The port.
        host       VARCHAR  The host; empty while it is bound to none.
        status     VARCHAR  ACTIVE or INACTIVE.
        vif_type   VARCHAR  ovs, bridge, …; unbound, or binding_failed.
        vnic_type  VARCHAR  normal, direct, …
        """,
        key="port_id",
        origin="ml2_port_bindings",
    ),
    _table(
        "neutron_ip_allocations",
        "neutron",
        "The addresses of ports.",
        """
        port_id     VARCHAR  The port.
        ip_address  VARCHAR  The address.
        subnet_id   VARCHAR  Its subnet.
        network_id  VARCHAR  Its network.
        """,
        key="port_id ip_address",
        origin="ipallocations",
        named="ip_address",
    ),
    _table(
        "neutron_allowed_address_pairs",
        "neutron",
        "Addresses that a port may use beside its own: what keepalived and the like move about.",
        """
        port_id      VARCHAR  The port.
        mac_address  VARCHAR  The MAC address.
        ip_address   VARCHAR  The address, or a network of them.
        """,
        key="port_id",
        origin="allowedaddresspairs",
        few=True,
    ),
    _table(
        "neutron_tags",
        "neutron",
        "Tags that owners put on ports.",
        """
        standard_attr_id  BIGINT   neutron_ports.standard_attr_id.
        tag               VARCHAR  The tag.
        """,
        origin="tags",
        where="standard_attr_id IN (SELECT p.standard_attr_id FROM ports p)",
    ),
    _table(
        "neutron_floating_ips",
        "neutron",
        "Floating IPs.",
        f"""
        id                   VARCHAR    The floating IP.
        project_id           VARCHAR    Its owner.
        floating_ip_address  VARCHAR    The address; it is its owner's until he gives it back.
        floating_network_id  VARCHAR    The external network that it is of.
        floating_port_id     VARCHAR    The port that keeps the address.
        fixed_port_id        VARCHAR    The port that it leads to; NULL: none.
        fixed_ip_address     VARCHAR    Which of that port's addresses.
        router_id            VARCHAR    The router that translates it.
        status               VARCHAR    ACTIVE, DOWN or ERROR.
        {_STANDARD}
        """,
        key="id floating_port_id fixed_port_id router_id floating_ip_address",
        origin="floatingips",
        joined="standardattributes",
        named="floating_ip_address",
    ),
    _table(
        "neutron_routers",
        "neutron",
        "Routers.",
        f"""
        id          VARCHAR    The router.
        project_id  VARCHAR    Its owner.
        name        VARCHAR    The name that the owner gave it.
        status      VARCHAR    ACTIVE, ALLOCATING or ERROR.
        gw_port_id  VARCHAR    The port by which it reaches an external network.
        {_STANDARD}
        """,
        key="id gw_port_id",
        origin="routers",
        joined="standardattributes",
    ),
    _table(
        "neutron_router_ports",
        "neutron",
        "Which ports are a router's.",
        """
        router_id  VARCHAR  The router.
        port_id    VARCHAR  The port.
        port_type  VARCHAR  The device_owner of it.
        """,
        key="router_id port_id",
        origin="routerports",
    ),
    _table(
        "neutron_router_routes",
        "neutron",
        "The extra routes of routers.",
        """
        router_id    VARCHAR  The router.
        destination  VARCHAR  Where the route leads.
        nexthop      VARCHAR  By which address.
        """,
        key="router_id",
        origin="routerroutes",
    ),
    _table(
        "neutron_networks",
        "neutron",
        "Networks.",
        f"""
        id          VARCHAR    The network.
        project_id  VARCHAR    Its owner.
        name        VARCHAR    The name that the owner gave it.
        status      VARCHAR    ACTIVE, DOWN, BUILD or ERROR.
        {_STANDARD}
        """,
        key="id",
        origin="networks",
        joined="standardattributes",
    ),
    _table(
        "neutron_external_networks",
        "neutron",
        "Networks that lead out, whose ports are routers' and floating IPs'.",
        """
        network_id  VARCHAR  The network.
        """,
        key="network_id",
        origin="externalnetworks",
    ),
    _table(
        "neutron_security_groups",
        "neutron",
        "Security groups.",
        f"""
        id          VARCHAR    The security group.
        project_id  VARCHAR    Its owner.
        name        VARCHAR    The name that the owner gave it; default: Neutron made it for the project.
        {_STANDARD}
        """,
        key="id",
        origin="securitygroups",
        joined="standardattributes",
    ),
    _table(
        "neutron_security_group_rules",
        "neutron",
        "The rules of security groups.",
        """
        id                 VARCHAR  The rule.
        security_group_id  VARCHAR  Its security group.
        """,
        key="id security_group_id",
        origin="securitygrouprules",
    ),
    _table(
        "neutron_trunks",
        "neutron",
        "Trunks.",
        """
        id          VARCHAR  The trunk.
        project_id  VARCHAR  Its owner.
        name        VARCHAR  The name that the owner gave it.
        port_id     VARCHAR  Its parent port.
        status      VARCHAR  ACTIVE, DOWN, BUILD, DEGRADED or ERROR.
        """,
        key="id port_id",
        origin="trunks",
    ),
    _table(
        "neutron_subports",
        "neutron",
        "The ports of trunks beside their parents.",
        """
        port_id            VARCHAR  The port.
        trunk_id           VARCHAR  The trunk.
        segmentation_type  VARCHAR  vlan, or inherit.
        segmentation_id    BIGINT   Its number there.
        """,
        key="port_id trunk_id",
        origin="subports",
    ),
    _table(
        "neutron_network_segments",
        "neutron",
        "The segments of networks.",
        """
        id            VARCHAR  The segment.
        network_id    VARCHAR  Its network.
        network_type  VARCHAR  geneve, vxlan, vlan, flat or local.
        """,
        origin="networksegments",
    ),
    _table(
        "neutron_agents",
        "neutron",
        "Neutron's agents.  An administrator deletes the row of one that is gone; one that lives makes it anew.",
        """
        id      VARCHAR  The agent.
        binary  VARCHAR  neutron-dhcp-agent, neutron-l3-agent, neutron-openvswitch-agent, …
        host    VARCHAR  The host that it is on, as its own neutron.conf names it.
        """,
        origin="agents",
    ),
    _table(
        "neutron_dhcp_agent_networks",
        "neutron",
        "Which DHCP agents serve which networks.",
        """
        network_id     VARCHAR  The network.
        dhcp_agent_id  VARCHAR  The agent: neutron_agents.id.
        """,
        key="network_id",
        origin="networkdhcpagentbindings",
        few=True,
    ),
    _table(
        "neutron_subnets",
        "neutron",
        "Subnets.",
        """
        id          VARCHAR  The subnet.
        network_id  VARCHAR  Its network.
        cidr        VARCHAR  Its addresses: 10.0.0.0/24.
        """,
        key="id",
        origin="subnets",
    ),
    _table(
        "neutron_network_domains",
        "neutron",
        "Networks whose ports Neutron itself gives names, through its driver for Designate (its DNS integration).",
        """
        network_id  VARCHAR  The network.
        dns_domain  VARCHAR  The zone in which the names are.
        """,
        key="network_id",
        origin="networkdnsdomains",
    ),
    _table(
        "neutron_ovn_revisions",
        "neutron",
        """What of Neutron's is to be in OVN, and in which revision it is there; its maintenance goes by that every five
        minutes.""",
        """
        resource_uuid     VARCHAR    The port, network, router, …
        resource_type     VARCHAR    ports, networks, routers, router_ports, security_groups, floatingips, …
        standard_attr_id  BIGINT     Its row in standardattributes; NULL: Neutron has deleted it, and OVN has not yet.
        revision_number   BIGINT     The revision that is in OVN; -1: none yet.
        created_at        TIMESTAMP  When it was first to be there.
        updated_at        TIMESTAMP  When it was last put there.
        """,
        key="resource_uuid",
        origin="ovn_revision_numbers",
        late=True,
    ),
    *(
        _table(
            f"neutron_lbaas_{name}s",
            "neutron",
            f"The {what} of Neutron-LBaaS, which were Neutron's own before Octavia; NSX's are marked like Octavia's.",
            """
            id  VARCHAR  The object.
            """,
            key="id",
            origin=f"lbaas_{origin}s",
            late=True,
        )
        for name, origin, what in (
            ("load_balancer", "loadbalancer", "load balancers"),
            ("listener", "listener", "listeners"),
            ("pool", "pool", "pools"),
            ("health_monitor", "healthmonitor", "health monitors"),
        )
    ),
    _table(
        "neutron_nsx_networks",
        "neutron_nsx",
        "On what of NSX a provider network lies (vmware_nsx/db/nsx_models.py: TzNetworkBinding).",
        """
        network_id    VARCHAR  The network.
        binding_type  VARCHAR  geneve, vlan, l3_ext, …; nsx-net: on a segment that was there before it.
        phy_uuid      VARCHAR  The transport zone, the tier-0 router, or that segment.
        """,
        key="network_id",
        origin="tz_network_bindings",
        few=True,
    ),
    *(
        _table(
            f"neutron_nsx_{name}_mappings",
            "neutron_nsx",
            f"Under which id the Manager API of NSX has a {what} of Neutron's; the Policy API needs none.",
            """
            neutron_id  VARCHAR  What Neutron calls it.
            nsx_id      VARCHAR  What NSX calls it.
            """,
            key="neutron_id nsx_id",
            origin=f"neutron_nsx_{name}_mappings",
            few=True,
        )
        for name, what in (("network", "network"), ("router", "router"), ("security_group", "security group"))
    ),
    _table(
        "neutron_nsx_port_mappings",
        "neutron_nsx",
        "Under which id the Manager API of NSX has a port of Neutron's; the Policy API needs none.",
        """
        neutron_id   VARCHAR  What Neutron calls it.
        nsx_port_id  VARCHAR  What NSX calls it.
        """,
        key="neutron_id nsx_port_id",
        origin="neutron_nsx_port_mappings",
        few=True,
    ),
    _table(
        "keystone_projects",
        "keystone",
        """Projects, and domains, which are projects too.  Keystone keeps no row of what it has deleted, and has its
        projects in no other place (keystone/resource/backends).""",
        """
        id         VARCHAR  The project.
        name       VARCHAR  Its name, within its domain.
        domain_id  VARCHAR  Its domain.
        parent_id  VARCHAR  The project or domain that it is under.
        is_domain  BOOLEAN  Whether it is a domain.
        enabled    BOOLEAN  Whether anybody may do anything in it.
        """,
        origin="project",
    ),
    _table(
        "keystone_services",
        "keystone",
        "The services of Keystone's catalog.",
        """
        id    VARCHAR  The service.
        type  VARCHAR  network, compute, …
        """,
        origin="service",
    ),
    _table(
        "keystone_endpoints",
        "keystone",
        "Where those services are, in each region.",
        """
        service_id  VARCHAR  The service.
        region_id   VARCHAR  The region.
        enabled     BOOLEAN  Whether the catalog shows it.
        """,
        origin="endpoint",
    ),
    _table(
        "octavia_load_balancers",
        "octavia",
        """Load balancers (octavia/db/models.py).  The row of one that was deleted stays, as DELETED, until Octavia's
        housekeeper purges it, after a week if not told otherwise.""",
        """
        id                   VARCHAR    The load balancer.
        project_id           VARCHAR    Its owner.
        name                 VARCHAR    The name that the owner gave it.
        provider             VARCHAR    Whose driver makes it: amphora, ovn, vmwareedge for NSX, …
        provisioning_status  VARCHAR    ACTIVE, ERROR, DELETED, or PENDING_CREATE, _UPDATE, _DELETE: it is under way.
        created_at           TIMESTAMP  When it was asked for.
        updated_at           TIMESTAMP  When the row last changed.
        """,
        key="id",
        origin="load_balancer",
        few=True,
    ),
    *(
        _table(
            f"octavia_{name}s",
            "octavia",
            f"The {what} of load balancers.  Octavia keeps no row of what it has deleted.",
            f"""
            id                   VARCHAR    The {what[:-1]}.
            {of}     VARCHAR    What it is of.
            name                 VARCHAR    The name that the owner gave it.
            provisioning_status  VARCHAR    As of its load balancer.
            created_at           TIMESTAMP  When it was asked for.
            updated_at           TIMESTAMP  When the row last changed.
            """,
            key=f"id {of}",
            origin=name,
        )
        for name, what, of in (
            ("listener", "listeners", "load_balancer_id"),
            ("pool", "pools", "load_balancer_id"),
            ("health_monitor", "health monitors", "pool_id"),
        )
    ),
    _table(
        "placement_providers",
        "placement",
        "Resource providers: compute nodes, what is inside of them (NUMA nodes, network cards), shared storage.",
        """
        id                 BIGINT     The row's number.
        uuid               VARCHAR    The provider; a compute node has the UUID that Nova gave it.
        name               VARCHAR    Its name; of a compute node its hypervisor's.
        root_provider_id?  BIGINT     What it is inside of in the end; its own number where it is inside of nothing.
        created_at         TIMESTAMP  When it was made.
        """,
        origin="resource_providers",
    ),
    _table(
        "placement_resource_classes",
        "placement",
        "What can be allocated.",
        """
        id    BIGINT   The row's number.
        name  VARCHAR  VCPU, MEMORY_MB, DISK_GB, …, or CUSTOM_….
        """,
        origin="resource_classes",
    ),
    _table(
        "placement_allocations",
        "placement",
        "What is allocated to whom.  A row is never changed: with each change all of a consumer's are made anew.",
        """
        id                    BIGINT     The row's number.
        consumer_id           VARCHAR    A server, or a migration, for what its server has where it came from.
        resource_provider_id  BIGINT     placement_providers.id.
        resource_class_id     BIGINT     placement_resource_classes.id.
        used                  BIGINT     How much, in the unit of the class.
        created_at            TIMESTAMP  When it was allocated.
        """,
        key="consumer_id",
        origin="allocations",
    ),
    _table(
        "placement_consumers",
        "placement",
        "Who has something allocated.",
        """
        id                 BIGINT  The row's number.
        uuid               VARCHAR The consumer.
        generation?        BIGINT  Grows with each change of what it has; who changes it names the one that he saw.
        consumer_type_id?  BIGINT  placement_consumer_types.id; NULL: nobody has said, as Nova never does.
        """,
        key="uuid",
        origin="consumers",
        late=True,
    ),
    _table(
        "placement_consumer_types",
        "placement",
        "What a consumer may be.",
        """
        id    BIGINT   The row's number.
        name  VARCHAR  INSTANCE, MIGRATION, …
        """,
        origin="consumer_types",
        late=True,
    ),
    _table(
        "ovn_switches",
        "ovn",
        "Logical switches of OVN's northbound database.",
        """
        uuid      VARCHAR  The row.
        name      VARCHAR  Its name: neutron-<network>, or neutron-<segment>, if it is Neutron's.
        revision  BIGINT   The revision of the network that Neutron has put there.
        network   VARCHAR  The network or segment in its name, where Neutron has marked it; NULL: it is not Neutron's.
        ports     BIGINT   How many ports it has.
        """,
        key="uuid name network",
        few=True,
    ),
    _table(
        "ovn_switch_ports",
        "ovn",
        "Ports of those switches.",
        """
        uuid          VARCHAR  The row.
        name          VARCHAR  Its name: the port, if it is Neutron's.
        revision      BIGINT   The revision of the port that Neutron has put there.
        switch        VARCHAR  The name of its switch.
        type          VARCHAR  Empty for a server's; router, localnet, localport, …
        up            BOOLEAN  Whether a host has it.
        enabled       BOOLEAN  Whether it is to work: Neutron's admin_state_up.
        parent        VARCHAR  Of a trunk's subport the name of the parent's port, whose host it comes by.
        tag           BIGINT   The VLAN that is its own there.
        port          VARCHAR  The port, where Neutron has marked it; NULL: it is not Neutron's.
        device_owner  VARCHAR  As in neutron_ports.
        device_id     VARCHAR  As in neutron_ports.
        """,
        key="uuid name switch port device_id",
        few=True,
    ),
    _table(
        "ovn_routers",
        "ovn",
        "Logical routers of OVN's northbound database.",
        """
        uuid      VARCHAR  The row.
        name      VARCHAR  Its name: neutron-<router>, if it is Neutron's.
        revision  BIGINT   The revision of the router that Neutron has put there.
        router    VARCHAR  The router in its name, where Neutron has marked it; NULL: it is not Neutron's.
        ports     BIGINT   How many ports it has.
        """,
        key="uuid name router",
        few=True,
    ),
    _table(
        "ovn_router_ports",
        "ovn",
        "Ports of those routers.",
        """
        uuid      VARCHAR  The row.
        name      VARCHAR  Its name: lrp-<port>, if it is Neutron's.
        revision  BIGINT   The revision of the port that Neutron has put there.
        router    VARCHAR  The name of its router.
        port      VARCHAR  The port in its name, where Neutron has marked it; NULL: it is not Neutron's.
        network   VARCHAR  The network of the port, where Neutron has marked it.
        gateway   BOOLEAN  Whether it leads to an external network, by Neutron's mark.
        """,
        key="uuid name router port network",
        few=True,
    ),
    _table(
        "ovn_port_groups",
        "ovn",
        "Port groups of OVN's northbound database, one for each security group.",
        """
        uuid            VARCHAR  The row.
        name            VARCHAR  Its name: pg_<security group>, if it is Neutron's.
        revision        BIGINT   The revision of the security group that Neutron has put there.
        security_group  VARCHAR  The security group, where Neutron has marked it; NULL: it is of none.
        ports           BIGINT   How many ports are in it.
        """,
        key="uuid name security_group",
        few=True,
    ),
    _table(
        "ovn_nats",
        "ovn",
        "What the routers of OVN's northbound database translate.",
        """
        uuid         VARCHAR  The row; newer Neutrons give it the UUID of its floating IP.
        revision     BIGINT   The revision of the floating IP that Neutron has put there.
        router       VARCHAR  The name of its router.
        type         VARCHAR  dnat_and_snat for a floating IP; snat for all that leaves by the gateway; dnat.
        external_ip  VARCHAR  The address outside.
        logical_ip   VARCHAR  The address, or the network, inside.
        floating_ip  VARCHAR  The floating IP, where Neutron has marked it; NULL: it is of none.
        port         VARCHAR  The port that it leads to, by Neutron's mark.
        """,
        key="uuid router floating_ip port",
        few=True,
    ),
    _table(
        "ovn_dhcp_options",
        "ovn",
        "What OVN answers to DHCP: to a subnet's ports, or to one port that has options of its own.",
        """
        uuid      VARCHAR  The row.
        revision  BIGINT   The revision of the subnet that Neutron has put there.
        subnet    VARCHAR  The subnet, where Neutron has marked it; NULL: it is not Neutron's.
        port      VARCHAR  The port whose own they are; NULL: they are the subnet's.
        network   VARCHAR  The network, by Neutron's mark, which older releases did not write.
        cidr      VARCHAR  The addresses that they are for.
        ports     BIGINT   How many ports of switches refer to them.
        """,
        key="uuid subnet port network",
        few=True,
    ),
    _table(
        "nsx_objects",
        "nsx",
        "What NSX has, of the kinds that Neutron's plugin makes, whoever made it.",
        """
        path        VARCHAR    Its path in the API that the plugin uses.
        parent      VARCHAR    The path of what it belongs to, as a port to its segment.
        kind        VARCHAR    segment, port, router, group, policy, service, dhcp-server, virtual-server, pool, …
        id          VARCHAR    Its id in NSX; of the Policy API that of Neutron's object.
        name        VARCHAR    The name that it is shown by.
        thing       VARCHAR    What of Neutron's or Octavia's it is of, by its tags: network, rule, listener, …
        neutron     VARCHAR    Which of those; NULL: no tag says so, or more than one does.
        project     VARCHAR    Whose that is (the tag os-project-id).
        plugin      VARCHAR    The version of the plugin that made it (os-api-version); NULL: no plugin did.
        protected   VARCHAR    Why no program may touch it; NULL: one may.
        revision    BIGINT     It changes with every change; NULL: NSX tells none.
        attachment  VARCHAR    What is attached to a port: the id of a virtual interface.
        created     TIMESTAMP  When it was made.
        changed     TIMESTAMP  When it was last changed.
        """,
        key="path parent",
    ),
    _table(
        "nsx_interfaces",
        "nsx",
        "The virtual interfaces of virtual machines on the transport nodes of NSX.",
        """
        path        VARCHAR  /fabric/vifs/ and what it is attached to.
        attachment  VARCHAR  What it is attached to: for one of Neutron's the port.
        machine     VARCHAR  The virtual machine.
        mac         VARCHAR  Its MAC address.
        """,
        key="path",
    ),
    _table(
        "dns_zones",
        "copy",
        """DNS zones as their servers have them: Designate's on each server of [dns] servers, and those of
        [dns.zone] on each of their own.""",
        """
        zone     VARCHAR  Its name, with the dot at the end.
        server   VARCHAR  The server, as the configuration names it.
        serial   BIGINT   The serial that the server tells.
        own      BOOLEAN  Whether [dns.zone] says which of its names and addresses are the cloud's.
        first    BOOLEAN  Whether it is the server to which changes of the zone are sent.
        """,
    ),
    _table(
        "dns_records",
        "copy",
        """The records in those zones, but for the SOA.  Names are in lower case and end with a dot.  A reading of some
        names alone has their A, AAAA, CNAME and PTR, and none that a wildcard may have made.""",
        """
        name      VARCHAR  The name.
        type      VARCHAR  A, AAAA, PTR, …
        ttl       BIGINT   How many seconds it may be remembered.
        data      VARCHAR  What it says, as zone files do.
        address   VARCHAR  The address in it: of an A or AAAA what it says, of a PTR what its name says.
        hostname  VARCHAR  Whose name it is, by [dns.zone] names; NULL: none of those.
        ours      BOOLEAN  Whether the address is of one of the zone's subnets ([dns.zone] subnets).
        pointer   VARCHAR  The name of the address for reverse lookups.
        zone      VARCHAR  The zone.
        """,
        key="name zone",
    ),
    _table(
        "hypervisors",
        "host",
        "What a host says of itself.",
        """
        hostname   VARCHAR    Its own name.
        boot_id    VARCHAR    Changes with every boot.
        seconds    DOUBLE     What our questions cost it.
        """,
    ),
    _table(
        "libvirt_domains",
        "host",
        "Every domain that libvirt knows there, active or only defined.",
        """
        uuid          VARCHAR  The domain; for one of Nova's, the server.
        name          VARCHAR  instance-0000002a, …; no identity.
        id            BIGINT   libvirt's number for this run; NULL when it does not run.
        state         VARCHAR  running, paused, shutoff, crashed, pmsuspended, blocked, shutdown or nostate.
        reason        VARCHAR  libvirt's reason for the state.
        persistent    BOOLEAN  Whether it is defined; one that is not is gone once it stops.
        autostart     BOOLEAN  Whether it starts with the host.
        managed_save  BOOLEAN  Whether its memory is saved on disk.
        nova          BOOLEAN  Whether it carries Nova's marks (metadata, sysinfo).
        nova_name     VARCHAR  The server's name as Nova wrote it there.
        project       VARCHAR  The owner as Nova wrote it there.
        created       VARCHAR  When Nova wrote the domain (UTC).
        memory_kib    BIGINT   Its memory, KiB.
        vcpus         INTEGER  Its processors.
        job           VARCHAR  The libvirt job that runs on it (a migration, say); NULL: none.
        hostdevs      INTEGER  Devices of the host passed through to it.
        nvram         VARCHAR  Its NVRAM file.
        tpm           BOOLEAN  Whether it has a TPM.
        xml_sha256    VARCHAR  Digest of its definition.
        """,
        key="uuid",
    ),
    _table(
        "libvirt_disks",
        "host",
        "The disks of those domains, live and in the definition.",
        """
        uuid    VARCHAR    The domain.
        config  VARCHAR    live, persistent or both.
        target  VARCHAR    vda, …
        type    VARCHAR    file, block, network, …
        device  VARCHAR    disk, cdrom, …
        source  VARCHAR    The path, or pool/image of a network disk.
        serial  VARCHAR    The Cinder volume, for one of those; after it was moved it may still be another's.
        alias   VARCHAR    The Cinder volume in the alias ua-<volume>, which later releases of Nova give it.
        stored  VARCHAR    The volume whose name on its backend the source has: its _name_id where it has one.
        backing VARCHAR[]  The backing chain that the XML shows.
        """,
        key="uuid serial alias stored",
    ),
    _table(
        "libvirt_interfaces",
        "host",
        "The network interfaces of those domains.",
        """
        uuid    VARCHAR  The domain.
        config  VARCHAR  live, persistent or both.
        mac     VARCHAR  The MAC address.
        target  VARCHAR  The tap device.
        port    VARCHAR  The Neutron port, from Nova's metadata.
        """,
        key="uuid port",
    ),
    _table(
        "ovs_interfaces",
        "host",
        """The interfaces of Open vSwitch that bear a port, whether a domain of libvirt's has them or not; none where it
        is not installed.""",
        """
        bridge    VARCHAR  The bridge that it is in.
        name      VARCHAR  tap…, vhu…, …
        iface_id  VARCHAR  The Neutron port (external_ids:iface-id).
        mac       VARCHAR  The MAC address (attached-mac).
        vm        VARCHAR  The server (vm-uuid).
        ofport    BIGINT   Its OpenFlow port; -1: it has none; NULL: not yet.
        error     VARCHAR  Why it does not work: its device is gone, say.
        """,
        key="iface_id vm",
    ),
    _table(
        "qemu_processes",
        "host",
        "Every QEMU process there, whether libvirt knows it or not.",
        """
        uuid     VARCHAR    The domain that it runs.
        pid      BIGINT     The process.
        name     VARCHAR    The guest's name on its command line.
        started  TIMESTAMP  When it started.
        unnamed  INTEGER    Files that it holds open and whose names are gone.
        """,
        key="uuid",
    ),
    _table(
        "instances_paths",
        "host",
        "Nova's instances_path on each host.",
        """
        path       VARCHAR  As Nova sees it.
        real       VARCHAR  Where it is on the host (Kolla keeps it in a container's volume).
        path_from  VARCHAR  The file that says so.
        inode      UBIGINT  Its inode.
        device     UBIGINT  st_dev.
        fsid       VARCHAR  The file system's own number.
        fstype     VARCHAR  ext4, nfs4, …
        mount      VARCHAR  What is mounted there.
        local      BOOLEAN  Whether that kind of file system cannot be shared with another host.
        """,
    ),
    _table(
        "instances_path_sharing",
        "host",
        "Hosts that wrote their name into the compute_nodes file of the instances_path.",
        """
        other  VARCHAR    The host that wrote.
        seen   TIMESTAMP  When it last did.
        """,
    ),
    _table(
        "instance_dirs",
        "host",
        "Every entry of the instances_path.",
        """
        name     VARCHAR    The entry.
        kind     VARCHAR    instance, resize, del, base, quarantine or other.
        server   VARCHAR    The server that it is named for.
        path     VARCHAR    Where it is on the host.
        inode    UBIGINT    Its inode.
        device   UBIGINT    Its file system.
        bytes    BIGINT     What it really takes (blocks, not lengths).
        files    BIGINT     How many files are in it.
        newest   BIGINT     The newest change of anything in it, ns since 1970.
        changed  TIMESTAMP  The same, as a date.
        uid      BIGINT     Its owner.
        gid      BIGINT     Its group.
        mode     BIGINT     Its mode.
        symlink  BOOLEAN    Whether it is a symbolic link.
        open_by  BIGINT[]   Processes that have a file open in it.
        """,
        key="server",
    ),
    _table(
        "disk_images",
        "host",
        "Disk images in those directories, and what they stand on.",
        """
        path            VARCHAR  The image.
        server          VARCHAR  The server in whose directory it lies.
        format          VARCHAR  qcow2 or raw.
        bytes           BIGINT   What it really takes.
        inode           UBIGINT  Its inode.
        backing         VARCHAR  The file that it needs beneath it.
        backing_server  VARCHAR  The server in whose directory that lies.
        """,
        key="server backing_server",
    ),
    _table(
        "quarantine",
        "host",
        "Directories that we moved aside, in .cloudfsck of the instances_path.",
        """
        entry        VARCHAR    The name of the entry.
        server       VARCHAR    The server.
        path         VARCHAR    Where the directory is now.
        was_path     VARCHAR    Where it was.
        inode        UBIGINT    Its inode.
        bytes        BIGINT     What it really takes.
        files        BIGINT     How many files are in it.
        newest       BIGINT     The newest change of anything in it, ns since 1970.
        at           TIMESTAMP  When it was moved.
        manifest_ok  BOOLEAN    Whether its manifest can be read.
        """,
        key="server",
    ),
    _table(
        "base_images",
        "host",
        "Nova's cache of images: the files in _base of the instances_path.",
        """
        name     VARCHAR    The file: the SHA-1 of an image's id, swap_…, ephemeral_….
        path     VARCHAR    Where it is on the host.
        inode    UBIGINT    Its inode.
        bytes    BIGINT     What it really takes.
        changed  TIMESTAMP  When it last changed; nova-compute touches those in use.
        users    VARCHAR[]  The images on that host that have it as their backing file, those in quarantine too.
        open_by  BIGINT[]   Processes that have it open.
        """,
    ),
    _table(
        "swtpm_states",
        "host",
        "What libvirt keeps of guests' emulated TPMs, in its swtpm directory.",
        """
        server   VARCHAR    The server that it is named for.
        path     VARCHAR    Where it is on the host.
        bytes    BIGINT     What it really takes.
        changed  TIMESTAMP  The newest change of anything in it.
        """,
        key="server",
    ),
    _table(
        "nvram_files",
        "host",
        "What libvirt keeps of guests' UEFI variables, in its qemu/nvram directory.",
        """
        path     VARCHAR    Where it is on the host.
        name     VARCHAR    The file: libvirt names it after the domain, <name>_VARS.fd.
        bytes    BIGINT     What it really takes.
        changed  TIMESTAMP  When it last changed.
        used_by  VARCHAR[]  The domains there that it is named after, or that name it; of all domains, at any time.
        """,
    ),
    _table(
        "iscsi_sessions",
        "host",
        "The iSCSI sessions of the host, as its kernel has them; the dead ones too.",
        """
        session     VARCHAR    session1, …; another one bears the name after the next login.
        target      VARCHAR    The IQN.
        portal      VARCHAR    The address: ip:port, or [ip]:port.
        state       VARCHAR    LOGGED_IN, FAILED or FREE.
        connection  VARCHAR    up, failed, down, …; NULL where the kernel does not say.
        devices     VARCHAR[]  Its SCSI devices: sda, …
        volume      VARCHAR    The volume in the target's name: a _name_id, where the volume has one.
        """,
    ),
    _table(
        "nvme_controllers",
        "host",
        "The NVMe controllers that the host reaches over a fabric.",
        """
        name        VARCHAR    nvme1, …
        target      VARCHAR    The NQN of the subsystem.
        transport   VARCHAR    tcp, rdma, fc or loop.
        address     VARCHAR    Where it is reached, as the kernel writes it.
        state       VARCHAR    live, connecting, deleting, dead, …
        namespaces  VARCHAR[]  Its namespaces: nvme1n1, …
        """,
    ),
    _table(
        "block_devices",
        "host",
        """The block devices that come to the host over a network, and all that stands on them; a map, a crypt or an LVM
        device that stands on nothing any more is there as well.""",
        """
        name      VARCHAR    sdb, dm-3, nvme1n1, rbd0, …; another device may bear it later.
        kind      VARCHAR    scsi, multipath, crypt, lvm, nvme, rbd, md, partition, dm for another map, or other.
        number    VARCHAR    Its numbers, major:minor.
        bytes     BIGINT     Its size.
        wwid      VARCHAR    Its own identity, by its backend; of a map its UUID.
        dm_name   VARCHAR    The name of a map, as in /dev/mapper.
        state     VARCHAR    Of a SCSI device running, transport-offline, …; of a map active or suspended.
        session   VARCHAR    The iSCSI session, NVMe controller or FC remote port that it comes by.
        places    VARCHAR[]  Where it is, in the words of cinder_volume_attachment; a map is where its paths are.
        volume    VARCHAR    The volume in the name of its target or image: a _name_id, where the volume has one.
        slaves    VARCHAR[]  The devices that it stands on; of a partition, its disk.
        holders   VARCHAR[]  The devices that stand on it; of its partitions, those that something uses.
        links     VARCHAR[]  Every name in /dev that leads to it.
        mounts    VARCHAR[]  Where it is mounted, in any mount namespace there; swap: as swap space.
        held_by   VARCHAR[]  Processes that have it open, pid and command; 0: the kernel.  Not multipathd, on a path.
        guests    VARCHAR[]  Domains that have it as a disk, be they only defined, of all there; NULL: not known.
        """,
    ),
    _table(
        "network_mounts",
        "host",
        """The file systems of other machines that are mounted on the host, NFS and the like: an instances_path may be
        on one, and Nova mounts those of volumes that are files.""",
        """
        point    VARCHAR    Where it is mounted, as the processes of its mount namespace see it.
        source   VARCHAR    What is mounted: server:/export.
        fstype   VARCHAR    nfs4, ceph, fuse.glusterfs, …
        held_by  VARCHAR[]  Processes that have a file in it, pid and command.
        guests   VARCHAR[]  Domains that have a disk in it, be they only defined, of all there; NULL: not known.
        """,
    ),
    _table(
        "backends",
        "backend",
        "The storage backends that are listed, as [backend] of our configuration names them.",
        """
        kind    VARCHAR    rbd or lvm.
        pools   VARCHAR[]  The pools, or the volume group, that are listed.
        cinder  VARCHAR    The backend of Cinder's that keeps its volumes there: backend, or host@backend; NULL: none.
        listed  BIGINT     How many images are in its pools, whatever they are named.
        volumes BIGINT     How many of them are named as Cinder names its volumes.
        """,
    ),
    _table(
        "backend_images",
        "backend",
        """The images on a storage backend that are named as Cinder names its volumes and Nova its servers' disks, by
        their names alone.  Others are not listed: snapshots, the bases of backups, Glance's images.""",
        """
        pool    VARCHAR  The pool, or the volume group.
        name    VARCHAR  The image.
        volume  VARCHAR  The volume in its name; a _name_id, where the volume has one.
        server  VARCHAR  The server that its name begins with.
        trash   VARCHAR  Its id in the pool's trash, where it is there.
        """,
        key="volume server",
    ),
    _table(
        "backend_image_uses",
        "backend",
        """What there is to know of those images beside their names.  Ceph is asked image by image, so only those are
        read that a reading asks for: a whole one those whose server or volume is deleted.  None in the trash.""",
        """
        pool        VARCHAR    The pool, or the volume group.
        name        VARCHAR    The image.
        volume      VARCHAR    The volume in its name; a _name_id, where the volume has one.
        server      VARCHAR    The server that its name begins with.
        bytes       BIGINT     Its size, as its user sees it.
        created_at  TIMESTAMP  When it was made, by the backend's clock.
        parent      VARCHAR    What it stands on: pool/image@snapshot.
        snapshots   VARCHAR[]  Its snapshots.
        children    VARCHAR[]  The images that stand on it: pool/image.
        watchers    VARCHAR[]  Who has it open: addresses of Ceph's clients; of a group of LVM's the machine itself.
        """,
        key="volume server",
    ),
)

BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}
