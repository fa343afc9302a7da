"""The demo's databases as SQLite files: the tables and columns that cloudfsck reads, and some secrets."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloudfsck import tables
from cloudfsck.demo import cloud, names, network, placement
from cloudfsck.demo.cloud import Server

#: What must never leave the databases; the tests look for them in everything that cloudfsck writes.
SECRETS = ("demo-secret", "demo-chap-secret")
CELL0 = "00000000-0000-0000-0000-000000000000"
_MAPPINGS = {"cell0": 1, "cell1": 2, "cell2": 3}
#: Columns that hold secrets, and that cloudfsck never reads or keeps.
_MORE = {
    "cell_mappings": ("database_connection", "transport_url"),
    "block_device_mapping": ("connection_info",),
    "shadow_block_device_mapping": ("connection_info",),
}
#: What stands in Neutron's table standardattributes, for every resource.
_STANDARD = {"revision_number": "INTEGER", "created_at": "DATETIME", "updated_at": "DATETIME"}
_TYPES = {"BIGINT": "INTEGER", "INTEGER": "INTEGER", "VARCHAR": "TEXT", "TIMESTAMP": "DATETIME", "BOOLEAN": "BOOLEAN"}

Row = dict[str, Any]
Rows = dict[str, list[Row]]


def write(folder: Path, servers: list[Server], net: network.Network, now: dt.datetime) -> dict[str, Path]:
    """Write a file for each of Nova's databases and of the other services' into `folder`; `now` is UTC, naive."""
    files = {name: folder / f"nova_{name}.sqlite" for name in ("api", *_MAPPINGS)}
    others: dict[tables.Per, Rows] = {
        "cinder": _cinder(servers, now),
        "neutron": _neutron(net, now),
        "designate": _designate(servers, now),
        "keystone": _keystone(),
        "placement": _placement(servers, now),
    }
    for per, rows in others.items():
        files[per] = folder / f"{per}.sqlite"
        _write(files[per], per, rows)
        with sqlite3.connect(files[per]) as db:
            db.execute("CREATE TABLE alembic_version (version_num TEXT)")
            db.execute("INSERT INTO alembic_version VALUES ('demo')")
        db.close()
    _write(files["api"], "api", _api(servers, now, files))
    for cell in _MAPPINGS:
        _write(files[cell], "cell", _cell(cell, servers, now))
    return files


def _write(file: Path, per: tables.Per, rows: Rows) -> None:
    standard: list[Row] = []
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA synchronous = OFF")
        for table in tables.TABLES:
            if table.per != per or not table.origin or table.distinct:
                continue  # what is distinct is of a table that another of ours has
            # Of the cell mappings, what we call a cell is worked out at their source.
            columns = {c.name: _TYPES[c.type] for c in table.asked if c.name != "cell"}
            columns |= dict.fromkeys(_MORE.get(table.origin, ()), "TEXT")
            own = rows.pop(table.origin, [])
            if table.joined:
                columns = {name: kind for name, kind in columns.items() if name not in _STANDARD}
                own = [_standard(row, table.origin, standard) for row in own]
            _table(db, table.origin, columns, own)
        if standard:
            _table(db, "standardattributes", {"id": "INTEGER", "resource_type": "TEXT", **_STANDARD}, standard)
        assert not rows, f"there are no tables {sorted(rows)}"
    db.close()


def _table(db: sqlite3.Connection, name: str, columns: dict[str, str], rows: list[Row]) -> None:
    key = ", PRIMARY KEY (id)" if "id" in columns else ""
    named = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    db.execute(f"CREATE TABLE {name} ({named}{key})")
    for row in rows:
        marks = ", ".join("?" * len(row))
        names = ", ".join(f'"{column}"' for column in row)
        db.execute(f"INSERT INTO {name} ({names}) VALUES ({marks})", list(row.values()))


def _standard(row: Row, kind: str, standard: list[Row]) -> Row:
    """A resource of Neutron's without what Neutron keeps of every resource in one table."""
    own = {name: value for name, value in row.items() if name not in _STANDARD}
    common = {name: value for name, value in row.items() if name in _STANDARD}
    standard.append({"id": len(standard) + 1, "resource_type": kind, **common})
    return {**own, tables.STANDARD: len(standard)}


def _ago(now: dt.datetime, days: float | None) -> str | None:
    """A date as OpenStack's SQLAlchemy writes it into SQLite."""
    return None if days is None else (now - dt.timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.000000")


def _numbered(rows: list[Row]) -> list[Row]:
    return [{"id": number, **row} for number, row in enumerate(rows, start=1)]


def _api(servers: list[Server], now: dt.datetime, files: dict[str, Path]) -> Rows:
    hosts = {**cloud.HOSTS, cloud.IRONIC[0]: cloud.IRONIC[1]}
    # Archiving takes a server's mapping and request away with its row; in older releases not its membership in a group.
    known = [server for server in servers if server.row not in ("shadow", "purged")]
    web = [server for server in servers if server.name in ("web-1", "web-4") or server.row == "purged"]
    return {
        "cell_mappings": [
            {"id": 1, "uuid": CELL0, "name": "cell0", "disabled": 0, "transport_url": "none:///",
             "database_connection": f"sqlite:///{files['cell0']}"},
            {"id": 2, "uuid": cloud.ident("cell", "cell1"), "name": "cell1", "disabled": 0,
             "transport_url": f"rabbit://openstack:{SECRETS[0]}@rabbit1.rack.example:5672/",
             "database_connection": f"sqlite:///{files['cell1']}"},
            {"id": 3, "uuid": cloud.ident("cell", "cell2"), "name": "cell2", "disabled": 0,
             "transport_url": f"rabbit://openstack:{SECRETS[0]}@rabbit2.rack.example:5672/",
             # Nova fills such a template in from its own connection string.
             "database_connection": f"{{scheme}}:///{files['cell2']}"},
        ],
        "instance_mappings": _numbered([
            {"instance_uuid": server.uuid, "cell_id": _MAPPINGS.get(server.cell),
             "project_id": cloud.project(server.project), "queued_for_delete": int(server.row == "deleted"),
             "created_at": _ago(now, server.created), "updated_at": _ago(now, server.deleted)}
            for server in known
        ]),
        "host_mappings": _numbered([{"host": host, "cell_id": _MAPPINGS[cell]} for host, cell in hosts.items()]),
        "build_requests": _numbered([
            {"instance_uuid": server.uuid, "project_id": cloud.project(server.project),
             "created_at": _ago(now, server.created), "updated_at": None}
            for server in servers if server.row == "none"
        ]),
        "request_specs": _numbered([{"instance_uuid": server.uuid} for server in known]),
        "instance_groups": [
            {"id": 1, "uuid": cloud.ident("group", "web"), "project_id": cloud.project("shop"), "name": "web"}],
        "instance_group_member": _numbered([{"instance_uuid": server.uuid, "group_id": 1} for server in web]),
    }  # fmt: skip


def _cell(cell: str, servers: list[Server], now: dt.datetime) -> Rows:
    number = cloud.numbers(servers)
    own = [server for server in servers if server.cell == cell]
    nodes = _compute_nodes(cell, now)
    rows: Rows = {"services": _services(cell, now), "compute_nodes": nodes}
    for shadow in (False, True):
        prefix = "shadow_" if shadow else ""
        some = [server for server in own if (server.row == "shadow") == shadow]
        rows[f"{prefix}instances"] = [_instance(server, number[server.name], nodes, now) for server in some]
        rows[f"{prefix}migrations"] = _numbered([row for server in some for row in _migrations(server, now)])
        rows[f"{prefix}instance_system_metadata"] = _numbered([
            {"instance_uuid": server.uuid, "key": key, "value": value or _ago(now, 1.0), "deleted": 0}
            for server in some for key, value in (("image_base_image_ref", cloud.IMAGE), *server.system_metadata)
        ])  # fmt: skip
        rows[f"{prefix}block_device_mapping"] = _numbered([row for server in some for row in _disks(server, now)])
    live = [server for server in own if server.row != "shadow"]
    rows["virtual_interfaces"] = [
        {"id": number[server.name], "uuid": server.port, "instance_uuid": server.uuid,
         "address": f"{server.mac}/{server.port}", "deleted": number[server.name] if server.row == "deleted" else 0}
        for server in live if server.host
    ]  # fmt: skip
    rows["instance_info_caches"] = _numbered([
        {"instance_uuid": server.uuid, "network_info": json.dumps(_network_info(server)),
         "deleted": number[server.name] if server.row == "deleted" else 0}
        for server in live
    ])  # fmt: skip
    rows["instance_actions"], rows["instance_actions_events"] = _actions(live, now)
    rows["tags"] = [{"resource_id": server.uuid, "tag": "production"} for server in live if server.project == "bank"]
    return rows


def _instance(server: Server, number: int, nodes: list[Row], now: dt.datetime) -> Row:
    node = server.node or cloud.NODES.get(server.host or "")
    days = [server.created, *(move.days for move in server.migrations)]
    changed = min(days) if server.deleted is None else server.deleted
    launched = None if server.launched_on is None or server.vm_state == "building" else server.created
    return {
        "id": number,
        "uuid": server.uuid,
        "project_id": cloud.project(server.project),
        "display_name": server.name,
        "hostname": server.name,
        "host": server.host,
        "node": node,
        "vm_state": server.vm_state,
        "task_state": server.task_state,
        "power_state": server.power,
        "launched_at": _ago(now, launched),
        "launched_on": server.launched_on,
        "created_at": _ago(now, server.created),
        "updated_at": _ago(now, changed),
        "deleted_at": _ago(now, server.deleted),
        "deleted": number if server.row in ("deleted", "shadow") else 0,
        "cleaned": server.cleaned,
        "hidden": 0,
        "compute_id": next((row["id"] for row in nodes if row["hypervisor_hostname"] == node), None),
    }


def _network_info(server: Server) -> list[dict[str, Any]]:
    """What Nova last knew of its ports.  Once it has given them back it knows of none."""
    if not server.linked and not server.link.lost:
        return []
    return [{"id": server.port, "address": server.mac, "preserve_on_delete": server.link.own, "active": server.runs,
             "network": {"id": cloud.ident("network", server.project), "label": f"{server.project}-net"}}]  # fmt: skip


def _migrations(server: Server, now: dt.datetime) -> Iterator[Row]:
    for move in server.migrations:
        # A live migration knows no nodes until it has begun; an evacuation's source keeps its own.
        yield {
            "uuid": cloud.ident("migration", server.name, move.kind),
            "instance_uuid": server.uuid,
            "status": move.status,
            "migration_type": move.kind,
            "source_compute": move.source,
            "dest_compute": move.dest,
            "source_node": cloud.NODES[move.source],
            "dest_node": cloud.NODES[move.dest],
            "cross_cell_move": 0,
            "created_at": _ago(now, move.days + 0.0003),
            "updated_at": _ago(now, move.days),
            "deleted_at": None,
            "deleted": 0,
        }


def _disks(server: Server, now: dt.datetime) -> Iterator[Row]:
    volumes = [("vda", 0)] * (server.root == "volume") + [("vdb", None)] * server.data_volume
    images = [("vda", 0)] * (server.root == "image")
    dead = server.row in ("deleted", "shadow")
    for nth, (target, boot) in enumerate([*images, *volumes]):
        volume = server.volumes[target] if (target, boot) in volumes else None
        info = {**_connection(server, target), "serial": volume} if volume else None
        yield {
            "uuid": cloud.ident("block device", server.name, target),
            "instance_uuid": server.uuid,
            "source_type": "volume" if volume else "image",
            "destination_type": "volume" if volume else "local",
            "volume_id": volume,
            "attachment_id": cloud.ident("attachment", server.name, target) if volume else None,
            "device_name": f"/dev/{target}",
            "boot_index": boot,
            "delete_on_termination": int(not volume),
            "no_device": 0,
            "created_at": _ago(now, server.created),
            "updated_at": _ago(now, server.created),
            "deleted_at": _ago(now, server.deleted) if dead else None,
            "deleted": nth + 1 if dead else 0,
            "connection_info": json.dumps(info) if info else None,
        }


def _connection(server: Server, target: str) -> dict[str, Any]:
    """What Cinder's driver says of how to reach a volume, as Nova keeps it."""
    volume = server.volumes[target]
    way = server.way(target)
    data: dict[str, Any] = {"volume_id": volume}
    if way is None:
        name = f"volumes/volume-{volume}"
        data |= {"name": name, "hosts": ["192.0.2.201"], "ports": ["6789"], "keyring": SECRETS[1]}
    else:
        login = {"auth_method": "CHAP", "auth_username": volume[:8], "auth_password": SECRETS[1]}
        data |= {"target_portal": way.portals[0], "target_iqn": way.target, "target_lun": way.lun, **login}
    if way is not None and len(way.portals) > 1:
        many = len(way.portals)
        data |= {"target_portals": way.portals, "target_iqns": [way.target] * many, "target_luns": [way.lun] * many}
    return {"driver_volume_type": "rbd" if way is None else "iscsi", "data": data}


def _cinder(servers: list[Server], now: dt.datetime) -> Rows:
    volumes: list[Row] = []
    attachments: list[Row] = []
    for server in servers:
        for target, volume in server.volumes.items():
            status, attach = ("in-use", "attached") if server.host else ("reserved", "reserved")
            if server.freed:
                status, attach = "available", "detached"
            dates = {"created_at": _ago(now, server.created), "updated_at": _ago(now, server.created), "deleted": 0}
            volumes.append({
                "id": volume, "project_id": cloud.project(server.project), "display_name": f"{server.name}-{target}",
                "host": f"controller@{server.storage}#volumes", "size": 1, "status": status, "attach_status": attach,
                "multiattach": 0, "bootable": int(target == "vda"), "use_quota": 1, **dates,
            })  # fmt: skip
            if server.freed:
                continue
            # One that is shelved away keeps its volume, and reaches it from nowhere.
            said = _connection(server, target)
            info = {"driver_volume_type": said["driver_volume_type"], **said["data"]} if server.host else None
            initiator = f"iqn.1993-08.org.debian:01:{cloud.ident('initiator', server.host or '')[:12]}"
            connector = {"host": server.host, "initiator": initiator} if server.host else None
            attachments.append({
                "id": cloud.ident("attachment", server.name, target), "volume_id": volume,
                "instance_uuid": server.uuid, "attached_host": connector and connector["host"],
                "mountpoint": f"/dev/{target}", "attach_status": attach, "attach_mode": "rw",
                "connection_info": json.dumps(info) if info else None,
                "connector": json.dumps(connector) if connector else None, **dates,
            })  # fmt: skip
    return {"volumes": volumes, "volume_attachment": attachments, "quota_usages": _counted(volumes, now)}


def _counted(volumes: list[Row], now: dt.datetime) -> list[Row]:
    """What Cinder counts of each project's: right, but of one where it was killed in the midst of a deletion."""
    usages: list[Row] = []
    for name in cloud.PROJECTS:
        there = sum(volume["project_id"] == cloud.project(name) for volume in volumes)
        for resource in ("volumes", "gigabytes"):
            counted = there + 1 if (name, resource) == cloud.MISCOUNTED else there
            usages.append({
                "id": len(usages) + 1, "project_id": cloud.project(name), "resource": resource, "in_use": counted,
                "reserved": 0, "created_at": _ago(now, 90), "updated_at": _ago(now, 3), "deleted": 0,
            })  # fmt: skip
    return usages


def _neutron(net: network.Network, now: dt.datetime) -> Rows:
    def common(days: float = 60.0, revision: int = 3) -> Row:
        return {"revision_number": revision, "created_at": _ago(now, days), "updated_at": _ago(now, days)}

    names = {network.EXTERNAL: "public", **{cloud.ident("network", name): f"{name}-net" for name in cloud.PROJECTS}}
    return {
        "networks": [
            {"id": one, "project_id": owner, "name": names.get(one, ""), "status": "ACTIVE", **common()}
            for one, owner in net.networks.items()
        ],
        "externalnetworks": [{"network_id": network.EXTERNAL}],
        "networksegments": [
            {"id": cloud.ident("segment", one), "network_id": one,
             "network_type": "flat" if one == network.EXTERNAL else "vxlan"}
            for one in net.networks
        ],
        "securitygroups": [
            {"id": one, "project_id": owner, "name": "default", **common()}
            for one, owner in net.security_groups.items()
        ],
        "securitygrouprules": [
            {"id": cloud.ident("rule", one), "security_group_id": one} for one in net.security_groups
        ],
        "ports": [
            {"id": port.id, "project_id": port.project, "name": port.name, "network_id": port.network,
             "mac_address": port.mac, "status": port.status, "device_owner": port.owner, "device_id": port.device,
             **common(port.days, 4)}
            for port in net.ports
        ],
        "ml2_port_bindings": [
            {"port_id": port.id, "host": one.host, "status": one.status, "vif_type": one.vif, "vnic_type": "normal"}
            for port in net.ports for one in port.bindings
        ],
        "ipallocations": [
            {"port_id": port.id, "ip_address": port.address, "subnet_id": cloud.ident("subnet", port.network),
             "network_id": port.network}
            for port in net.ports
        ],
        "allowedaddresspairs": [
            {"port_id": port.id, "mac_address": port.mac, "ip_address": port.beside}
            for port in net.ports if port.beside
        ],
        "routers": [
            {"id": one.id, "project_id": one.project, "name": one.name, "status": "ACTIVE",
             "gw_port_id": one.gateway.id, **common()}
            for one in net.routers
        ],
        "routerports": [
            {"router_id": one.id, "port_id": port.id, "port_type": port.owner}
            for one in net.routers for port in (one.gateway, one.interface)
        ],
        "floatingips": [
            {"id": one.id, "project_id": one.project, "floating_ip_address": one.port.address,
             "floating_network_id": one.port.network, "floating_port_id": one.port.id,
             "fixed_port_id": one.to and one.to.id, "fixed_ip_address": one.to and one.to.address,
             "router_id": one.router, "status": "ACTIVE" if one.to else "DOWN", **common()}
            for one in net.floating_ips
        ],
        "trunks": [
            {"id": cloud.ident("trunk", parent), "project_id": cloud.project("lab"), "name": "vpn-trunk",
             "port_id": parent, "status": "ACTIVE"}
            for parent in net.trunks
        ],
        "subports": [
            {"port_id": subport, "trunk_id": cloud.ident("trunk", parent), "segmentation_type": "vlan",
             "segmentation_id": 12}
            for parent, subport in net.trunks.items()
        ],
    }  # fmt: skip


def _designate(servers: list[Server], now: dt.datetime) -> Rows:
    def bare(id: str) -> str:
        """A UUID as Designate keeps it."""
        return id.replace("-", "")

    zone = bare(cloud.ident("zone", names.ZONE))
    told = names.names(servers)
    at_rest = {"status": "ACTIVE", "action": "NONE"}
    return {
        "zones": [
            {"id": zone, "name": names.ZONE, "type": "PRIMARY", "tenant_id": names.OWNER, "serial": 1764500000,
             "ttl": 3600, "deleted": "0", "created_at": _ago(now, 200.0), "updated_at": _ago(now, 0.1), **at_rest}
        ],
        "recordsets": [
            {"id": bare(one.id), "zone_id": zone, "name": one.name, "type": one.type, "tenant_id": one.owner,
             "created_at": _ago(now, one.days)}
            for one in told
        ],
        "records": [
            {"id": bare(cloud.ident("record", one.name, one.type)), "recordset_id": bare(one.id), "zone_id": zone,
             "data": one.data, "managed": int(bool(one.server) or one.type in ("SOA", "NS")),
             "managed_plugin_name": "nova_fixed" if one.server else None,
             "managed_resource_type": "instance" if one.server else None,
             "managed_resource_id": bare(one.server) or None, "created_at": _ago(now, one.days), **at_rest}
            for one in told
        ],
    }  # fmt: skip


def _placement(servers: list[Server], now: dt.datetime) -> Rows:
    providers = {uuid: number for number, uuid in enumerate(placement.PROVIDERS, start=1)}
    classes = {name: number for number, name in enumerate(placement.CLASSES)}
    told = list(placement.allocations(servers))
    return {
        "resource_providers": [
            {"id": number, "uuid": uuid, "name": placement.PROVIDERS[uuid], "root_provider_id": number,
             "created_at": _ago(now, 200.0)}
            for uuid, number in providers.items()
        ],
        "resource_classes": [{"id": number, "name": name} for name, number in classes.items()],
        "consumers": _numbered([{"uuid": one, "generation": 1} for one in dict.fromkeys(one.consumer for one in told)]),
        "allocations": _numbered([
            {"consumer_id": one.consumer, "resource_provider_id": providers[one.provider],
             "resource_class_id": classes[one.resource], "used": one.used, "created_at": _ago(now, one.days)}
            for one in told
        ]),
    }  # fmt: skip


def _keystone() -> Rows:
    domain: Row = {"id": network.DOMAIN, "name": "Default", "domain_id": "<<keystone.domain.root>>", "is_domain": 1,
                   "enabled": 1}  # fmt: skip
    projects = {"service": network.SERVICE, **{name: cloud.project(name) for name in cloud.PROJECTS}}
    service = cloud.ident("keystone service", "network")
    return {
        "project": [domain, *(
            {"id": one, "name": name, "domain_id": network.DOMAIN, "parent_id": network.DOMAIN, "is_domain": 0,
             "enabled": 1}
            for name, one in projects.items()
        )],
        "service": [{"id": service, "type": "network"}],
        "endpoint": [{"service_id": service, "region_id": "RegionOne", "enabled": 1}],
    }  # fmt: skip


def _services(cell: str, now: dt.datetime) -> list[Row]:
    ironic, ironic_cell, _ = cloud.IRONIC
    binaries = {"cell0": [("controller1", "nova-scheduler"), ("controller1", "nova-conductor")]}.get(
        cell, [(f"controller-{cell}", "nova-conductor")]
    )
    binaries += [(host, "nova-compute") for host in cloud.CELLS.get(cell, ())]
    binaries += [(ironic, "nova-compute")] * (cell == ironic_cell)
    return _numbered([
        {"uuid": cloud.ident("service", binary, host), "host": host, "binary": binary,
         "disabled": int(host == cloud.DEAD), "disabled_reason": "taken for dead" if host == cloud.DEAD else None,
         "last_seen_up": _ago(now, 2.03 if host == cloud.DEAD else 0.0), "forced_down": int(host == cloud.DEAD),
         "version": 68, "deleted": 0}
        for host, binary in binaries
    ])  # fmt: skip


def _compute_nodes(cell: str, now: dt.datetime) -> list[Row]:
    ironic, ironic_cell, node = cloud.IRONIC
    found = [
        {"uuid": cloud.ident("node", host), "host": host, "hypervisor_hostname": cloud.NODES[host],
         "hypervisor_type": "QEMU", "host_ip": f"192.0.2.{10 + list(cloud.HOSTS).index(host)}"}
        for host in cloud.CELLS.get(cell, ())
    ]  # fmt: skip
    if cell == ironic_cell:
        found.append({"uuid": node, "host": ironic, "hypervisor_hostname": node, "hypervisor_type": "ironic",
                      "host_ip": "192.0.2.99"})  # fmt: skip
    return _numbered([{**row, "created_at": _ago(now, 200.0), "deleted_at": None, "deleted": 0} for row in found])


def _actions(servers: list[Server], now: dt.datetime) -> tuple[list[Row], list[Row]]:
    """Every server was created once; the ones that are at something now have an action that is not finished."""
    actions: list[Row] = []
    events: list[Row] = []
    for server in servers:
        done = [("create", "compute__do_build_and_run_instance", server.created, True)]
        if server.task_state == "migrating":
            done.append(("live-migration", "compute_live_migration", server.migrations[0].days, False))
        elif server.task_state is not None:
            done = [("create", "compute__do_build_and_run_instance", server.created, False)]
        for action, event, days, over in done:
            times = {"start_time": _ago(now, days), "finish_time": _ago(now, days - 0.0001) if over else None}
            request = "req-" + cloud.ident("request", server.name, action)
            row: Row = {"instance_uuid": server.uuid, "action": action, "request_id": request}
            actions.append({"id": len(actions) + 1, **row, "updated_at": times["finish_time"], **times})
            row = {"event": event, "host": server.host, "result": "Success" if over else None}
            events.append({"id": len(events) + 1, "action_id": len(actions), **row, **times})
    return actions, events
