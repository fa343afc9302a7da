"""What Neutron's driver puts into the demo's OVN, with Neutron's notes of it; and what is wrong or looks so there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from cloudfsck.demo.cloud import ident
from cloudfsck.demo.network import EXTERNAL, Network, Port
from cloudfsck.demo.ovn import Northbound, Operation

#: How Neutron writes which revision of its own it has put there.
_REVISION = "neutron:revision_number"
#: A network whose newest change has not got to OVN yet, so that Neutron's maintenance will still see to it.
_LATE = ident("network", "lab")
_SUBNETS = "SELECT DISTINCT subnet_id, network_id FROM ipallocations"

Row = Mapping[str, Any]


def fill(northbound: Northbound, file: Path, net: Network) -> None:
    """Put all that Neutron has in `file` there, as the story in `net` has it."""
    with closing(sqlite3.connect(file)) as db, db:
        db.row_factory = sqlite3.Row
        # Neutron's own tables lack what cloudfsck does not read of them, and a subnet's revision is such a thing.
        db.execute(f"INSERT INTO subnets (id) SELECT subnet_id FROM ({_SUBNETS})")
        operations = [*_somebody_elses(), *_networks(db), *_security_groups(db), *_routers(db)]
        for row in db.execute("SELECT id FROM ports").fetchall():
            operations += _port(db, row["id"])
        for row in db.execute("SELECT id FROM floatingips").fetchall():
            operations += _floating_ip(db, row["id"])
        for port in net.kept:
            operations += _switch_port(_of_story(port), None)
        operations += [_away("Logical_Switch", "ports", ident("ovn", port)) for port in net.lost]
        northbound.transact(operations)


def follow(northbound: Northbound, db: sqlite3.Connection, kind: str, id: str) -> None:
    """Bring a port or a floating IP there up to date with Neutron's database, as its driver does after each change."""
    table, key = ("Logical_Switch_Port", "name") if kind == "ports" else ("NAT", "")
    where: list[Any] = [[key, "==", id]] if key else [["external_ids", "includes", ["map", [["neutron:fip_id", id]]]]]
    (found,) = northbound.transact([{"op": "select", "table": table, "where": where, "columns": ["_uuid"]}])
    new = [*(_port(db, id) if kind == "ports" else _floating_ip(db, id))]
    if found["rows"] and new and kind == "ports":
        northbound.transact([{"op": "update", "table": table, "where": where, "row": new[0]["row"]}])
        return
    parent, among = ("Logical_Switch", "ports") if kind == "ports" else ("Logical_Router", "nat")
    northbound.transact([*(_away(parent, among, row["_uuid"][1]) for row in found["rows"]), *new])


# ---------------------------------------------------------------------------------------------- what there is of each


def _networks(db: sqlite3.Connection) -> Iterator[Operation]:
    for row in _revised(db, "networks"):
        late = int(row["id"] == _LATE)
        marks = {"neutron:network_name": row["name"], _REVISION: row["revision_number"] - late}
        yield _insert("Logical_Switch", row["id"], name=f"neutron-{row['id']}", external_ids=_map(marks))
        _note(db, row, "networks", late)
    for row in db.execute(f"{_SUBNETS} WHERE network_id <> ?", [EXTERNAL]).fetchall():
        marks = {"subnet_id": row["subnet_id"], "neutron:network_id": row["network_id"], _REVISION: 0}
        (address,) = db.execute(
            "SELECT ip_address FROM ipallocations WHERE subnet_id = ?", [row["subnet_id"]]
        ).fetchone()
        first, second, *_ = address.split(".")
        yield _insert(
            "DHCP_Options", row["subnet_id"], cidr=f"{first}.{second}.0.0/16", external_ids=_map(marks),
            options=_map({"router": f"{first}.{second}.0.1", "lease_time": "43200"}),
        )  # fmt: skip


def _security_groups(db: sqlite3.Connection) -> Iterator[Operation]:
    for row in _revised(db, "securitygroups"):
        name = f"pg_{row['id'].replace('-', '_')}"
        rules = []
        for rule in db.execute("SELECT id FROM securitygrouprules WHERE security_group_id = ?", [row["id"]]).fetchall():
            rules.append(ident("ovn", rule["id"]))
            yield _insert(
                "ACL", rule["id"], priority=1002, direction="from-lport", action="allow-related",
                match=f"inport == @{name} && ip4", external_ids=_map({"neutron:security_group_rule_id": rule["id"]}),
            )  # fmt: skip
        marks = {"neutron:security_group_id": row["id"], _REVISION: row["revision_number"]}
        yield _insert("Port_Group", row["id"], name=name, acls=_rows(*rules), external_ids=_map(marks))
        _note(db, row, "security_groups")


def _routers(db: sqlite3.Connection) -> Iterator[Operation]:
    for row in _revised(db, "routers"):
        marks = {"neutron:router_name": row["name"], "neutron:gw_port_id": row["gw_port_id"],
                 _REVISION: row["revision_number"]}  # fmt: skip
        name = f"neutron-{row['id']}"
        yield _insert("Logical_Router", row["id"], name=name, enabled=True, external_ids=_map(marks))
        _note(db, row, "routers")
        for port in _revised(db, "ports", "t.id IN (SELECT port_id FROM routerports WHERE router_id = ?)", row["id"]):
            gateway = port["device_owner"] == "network:router_gateway"
            marks = {"neutron:router_name": row["id"], "neutron:network_name": f"neutron-{port['network_id']}",
                     "neutron:is_ext_gw": str(gateway), _REVISION: port["revision_number"]}  # fmt: skip
            (address,) = _addresses(db, port["id"])
            yield from _insert_into(
                "Logical_Router", name, "ports", "Logical_Router_Port", f"lrp-{port['id']}", name=f"lrp-{port['id']}",
                mac=port["mac_address"], networks=f"{address}/{24 if gateway else 16}", external_ids=_map(marks),
            )  # fmt: skip
            _note(db, port, "router_ports")


def _port(db: sqlite3.Connection, id: str) -> Iterator[Operation]:
    """None if Neutron has it no more, and of a floating IP's own port, which never is in OVN."""
    found = _revised(db, "ports", "t.id = ?", id)
    if not found:
        db.execute("DELETE FROM ovn_revision_numbers WHERE resource_uuid = ?", [id])
    for row in found:
        if row["device_owner"] == "network:floatingip":
            continue
        more: dict[str, Any] = {}
        for each in db.execute(
            "SELECT t.port_id, segmentation_id FROM subports s JOIN trunks t ON t.id = s.trunk_id WHERE s.port_id = ?",
            [id],
        ):
            more = {"parent_name": each["port_id"], "tag": each["segmentation_id"]}
        if row["device_owner"] in ("network:router_interface", "network:router_gateway"):
            more = {"type": "router", "addresses": "router", "options": _map({"router-port": f"lrp-{id}"})}
        yield from _switch_port({**row, "addresses": _addresses(db, id)}, row["revision_number"], **more)
        _note(db, row, "ports")


def _switch_port(row: Row, revision: int | None, **more: Any) -> Iterator[Operation]:
    marks = {
        "neutron:port_name": row["name"], "neutron:device_id": row["device_id"],
        "neutron:device_owner": row["device_owner"], "neutron:project_id": row["project_id"],
        "neutron:network_name": f"neutron-{row['network_id']}", _REVISION: 4 if revision is None else revision,
    }  # fmt: skip
    home = row["network_id"]
    options = {} if home == EXTERNAL else {"dhcpv4_options": ["uuid", ident("ovn", ident("subnet", home))]}
    yield from _insert_into(
        "Logical_Switch", f"neutron-{home}", "ports", "Logical_Switch_Port", row["id"], **{
            "name": row["id"], "addresses": " ".join([row["mac_address"], *row["addresses"]]), "enabled": True,
            "up": row["status"] == "ACTIVE", "external_ids": _map(marks), **options, **more,
        },
    )  # fmt: skip


def _of_story(port: Port) -> Row:
    return {
        "id": port.id, "name": port.name, "device_id": port.device, "device_owner": port.owner,
        "project_id": port.project, "network_id": port.network, "mac_address": port.mac, "status": port.status,
        "addresses": [port.address],
    }  # fmt: skip


def _floating_ip(db: sqlite3.Connection, id: str) -> Iterator[Operation]:
    for row in _revised(db, "floatingips", "t.id = ?", id):
        if row["router_id"] is not None:
            router = f"neutron-{row['router_id']}"
            marks = {"neutron:fip_id": id, "neutron:fip_port_id": row["fixed_port_id"], "neutron:router_name": router,
                     _REVISION: row["revision_number"]}  # fmt: skip
            yield from _insert_into(
                "Logical_Router", router, "nat", "NAT", id, type="dnat_and_snat",
                external_ip=row["floating_ip_address"], logical_ip=row["fixed_ip_address"],
                logical_port=row["fixed_port_id"], external_ids=_map(marks),
            )  # fmt: skip
        _note(db, row, "floatingips")


def _somebody_elses() -> Iterator[Operation]:
    """A switch of another system's, which bears none of Neutron's marks."""
    yield _insert("Logical_Switch", "kube-node-1", name="kube-node-1")
    yield from _insert_into(
        "Logical_Switch", "kube-node-1", "ports", "Logical_Switch_Port", "kube-dns", name="kube-system_dns",
        addresses="0a:58:0a:f4:00:03 10.244.0.3", up=True, external_ids=_map({"namespace": "kube-system"}),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- rows


def _revised(db: sqlite3.Connection, table: str, condition: str = "TRUE", *given: str) -> list[dict[str, Any]]:
    rows = db.execute(
        f"SELECT t.*, s.revision_number, s.updated_at FROM {table} t JOIN standardattributes s"
        f" ON s.id = t.standard_attr_id WHERE {condition}",
        given,
    ).fetchall()
    return [dict(row) for row in rows]


def _addresses(db: sqlite3.Connection, port: str) -> list[str]:
    return [row["ip_address"] for row in db.execute("SELECT ip_address FROM ipallocations WHERE port_id = ?", [port])]


def _note(db: sqlite3.Connection, row: Row, kind: str, late: int = 0) -> None:
    """Neutron notes which revision is there."""
    changed = db.execute(
        "UPDATE ovn_revision_numbers SET revision_number = ?, updated_at = ?"
        " WHERE resource_uuid = ? AND resource_type = ?",
        [row["revision_number"] - late, row["updated_at"], row["id"], kind],
    )
    if changed.rowcount == 0:
        db.execute(
            "INSERT INTO ovn_revision_numbers (resource_uuid, resource_type, standard_attr_id, revision_number,"
            " created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
            [row["id"], kind, row["standard_attr_id"], row["revision_number"] - late, row["updated_at"],
             row["updated_at"]],
        )  # fmt: skip


def _insert(table: str, of: str, **columns: Any) -> Operation:
    return {"op": "insert", "table": table, "uuid": ident("ovn", of), "row": columns}


def _insert_into(parent: str, whose: str, among: str, table: str, of: str, **columns: Any) -> Iterator[Operation]:
    """It, and among what its switch or router has."""
    yield _insert(table, of, **columns)
    put = [[among, "insert", _rows(ident("ovn", of))]]
    yield {"op": "mutate", "table": parent, "where": [["name", "==", whose]], "mutations": put}


def _away(parent: str, among: str, row: str) -> Operation:
    return {
        "op": "mutate", "table": parent, "where": [[among, "includes", _rows(row)]],
        "mutations": [[among, "delete", _rows(row)]],
    }  # fmt: skip


def _rows(*uuids: str) -> list[Any]:
    return ["set", [["uuid", one] for one in uuids]]


def _map(values: Mapping[str, Any]) -> list[Any]:
    return ["map", [[name, str(value)] for name, value in values.items()]]
