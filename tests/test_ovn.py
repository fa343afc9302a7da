"""OVN's northbound database on a real server: what is read of it, and that an act lands only on what was seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import tables
from cloudfsck.acts import ovn_object
from cloudfsck.acts.ovn import Northbound
from cloudfsck.acts.ovn_port import Delete, Insert
from cloudfsck.config import Config, Ovn
from cloudfsck.model import Moved, Refused, Row, Trouble
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import Sources, ovn
from tests.bed import ovn as bed

pytestmark = pytest.mark.real

NET = "aaaaaaaa-0000-4000-8000-000000000001"
PORTS = [f"11111111-0000-4000-8000-{number:012d}" for number in range(3)]
SWITCH = f"neutron-{NET}"
ROUTER = "bbbbbbbb-0000-4000-8000-000000000001"
NATTING = "bbbbbbbb-0000-4000-8000-000000000002"
GROUP = "33333333-0000-4000-8000-000000000000"
FLOATING = "77777777-0000-4000-8000-000000000000"
SUBNET = "44444444-0000-4000-8000-000000000000"
DHCP = "88888888-0000-4000-8000-000000000000"

#: What else there is in the database hangs on one of these.
ROOTS = ("Logical_Switch", "Logical_Router", "Port_Group", "DHCP_Options")

#: What the rows of a snapshot's tables are put in order by.
BY = {"ovn_nats": "external_ip", "ovn_dhcp_options": "uuid"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bed.Northbound]:
    with bed.Northbound(tmp_path_factory.mktemp("nb")) as server:
        yield server


@pytest.fixture
def northbound(server: bed.Northbound) -> bed.Northbound:
    """One with a network of three ports, the first of which is down; beside them what is not Neutron's."""
    server.transact(*({"op": "delete", "table": name, "where": []} for name in ROOTS))
    server.fill(SWITCH, 3)
    server.fill_few("somebody-elses", ["provnet-1"])
    change(server, up=False)
    return server


def change(server: bed.Northbound, **columns: Any) -> None:
    where = [["name", "==", PORTS[0]]]
    server.transact({"op": "update", "table": "Logical_Switch_Port", "where": where, "row": columns})


def settings(server: bed.Northbound) -> Ovn:
    return Ovn.model_validate({"northbound": [server.tcp], "timeout": "5s"})


def read(server: bed.Northbound) -> dict[str, list[Row]]:
    snapshot = Snapshot.create()
    try:
        assert snapshot.add(ovn.read(settings(server))) == []
        names = [table.name for table in tables.TABLES if table.per == "ovn"]
        return {name: list(snapshot.rows(f"SELECT * FROM {name} ORDER BY {BY.get(name, 'name')}")) for name in names}
    finally:
        snapshot.close()


def act(server: bed.Northbound) -> Delete:
    (row,) = [row for row in read(server)["ovn_switch_ports"] if row["name"] == PORTS[0]]
    return Delete(
        row["device_id"], "Logical_Switch_Port", row["port"], row["name"], row["uuid"], row["switch"], row["revision"]
    )


def test_what_is_neutrons_is_told_from_what_is_not(northbound: bed.Northbound) -> None:
    change(northbound, enabled=False)
    found = read(northbound)
    assert [(row["name"], row["network"], row["ports"]) for row in found["ovn_switches"]] == [
        (SWITCH, NET, 3), ("somebody-elses", None, 1)
    ]  # fmt: skip
    columns = ("name", "port", "switch", "up", "enabled", "revision")
    assert [tuple(row[name] for name in columns) for row in found["ovn_switch_ports"]] == [
        (PORTS[0], PORTS[0], SWITCH, False, False, 4), (PORTS[1], PORTS[1], SWITCH, True, True, 4),
        (PORTS[2], PORTS[2], SWITCH, True, True, 4), ("provnet-1", None, "somebody-elses", False, True, None),
    ]  # fmt: skip
    assert found["ovn_switch_ports"][0]["device_owner"] == "compute:nova"
    assert {(row["parent"], row["tag"]) for row in found["ovn_switch_ports"]} == {(None, None)}
    change(northbound, parent_name=PORTS[1], tag=7)
    assert [(row["parent"], row["tag"]) for row in read(northbound)["ovn_switch_ports"]] == [
        (PORTS[1], 7), (None, None), (None, None), (None, None)
    ]  # fmt: skip
    assert (found["ovn_routers"], found["ovn_router_ports"], found["ovn_port_groups"]) == ([], [], [])
    assert (found["ovn_nats"], found["ovn_dhcp_options"]) == ([], [])


def test_routers_and_groups_are_told_by_their_marks(northbound: bed.Northbound) -> None:
    northbound.fill_router(ROUTER, PORTS[1:], NET)
    northbound.fill_group(GROUP)
    gateway = [["name", "==", f"lrp-{PORTS[2]}"]]
    to = [
        "map",
        [["neutron:is_ext_gw", "True"], ["neutron:router_name", f"neutron-{ROUTER}"], ["neutron:network_name", "x"]],
    ]
    northbound.transact(
        {"op": "update", "table": "Logical_Router_Port", "where": gateway, "row": {"external_ids": to}},
        {"op": "insert", "table": "Logical_Router", "row": {"name": "kube"}},
        {"op": "insert", "table": "Port_Group", "row": {"name": "neutron_pg_drop"}},
    )
    found = read(northbound)
    assert [(row["name"], row["router"], row["ports"], row["revision"]) for row in found["ovn_routers"]] == [
        ("kube", None, 0, None), (f"neutron-{ROUTER}", ROUTER, 2, 3)
    ]  # fmt: skip
    columns = ("name", "router", "port", "network", "gateway", "revision")
    assert [tuple(row[name] for name in columns) for row in found["ovn_router_ports"]] == [
        (f"lrp-{PORTS[1]}", f"neutron-{ROUTER}", PORTS[1], NET, False, 3),
        (f"lrp-{PORTS[2]}", f"neutron-{ROUTER}", PORTS[2], None, True, None),
    ]  # fmt: skip
    assert [(row["name"], row["security_group"], row["ports"]) for row in found["ovn_port_groups"]] == [
        ("neutron_pg_drop", None, 0), (f"pg_{GROUP.replace('-', '_')}", GROUP, 0)
    ]  # fmt: skip


def test_rules_and_options_are_told_with_what_has_them(northbound: bed.Northbound) -> None:
    northbound.fill_router(ROUTER, PORTS[1:], NET)
    northbound.fill_floating_ip(FLOATING, ROUTER, PORTS[0])
    northbound.fill_dhcp(DHCP, SUBNET, NET)
    northbound.fill_dhcp(f"{DHCP[:-1]}1", SUBNET, NET, PORTS[0])
    northbound.transact({
        "op": "insert", "table": "DHCP_Options", "uuid": f"{DHCP[:-1]}2",
        "row": {"cidr": "fd00::/64", "external_ids": ["map", [["ls", "kube"]]]},
    })  # fmt: skip
    change(northbound, dhcpv4_options=["uuid", f"{DHCP[:-1]}1"], dhcpv6_options=["uuid", f"{DHCP[:-1]}2"])
    found = read(northbound)
    columns = ("type", "router", "external_ip", "logical_ip", "floating_ip", "port", "revision")
    assert [tuple(row[name] for name in columns) for row in found["ovn_nats"]] == [
        ("snat", f"neutron-{ROUTER}", "192.0.2.1", "10.0.0.0/8", None, None, None),
        ("dnat_and_snat", f"neutron-{ROUTER}", "192.0.2.10", "10.0.0.1", FLOATING, PORTS[0], 2),
    ]  # fmt: skip
    of_options = ("subnet", "port", "network", "cidr", "ports", "revision")
    assert [tuple(row[name] for name in of_options) for row in found["ovn_dhcp_options"]] == [
        (SUBNET, None, NET, "10.0.0.0/8", 0, 0), (SUBNET, PORTS[0], NET, "10.0.0.0/8", 1, 0),
        (None, None, None, "fd00::/64", 1, None),
    ]  # fmt: skip


def test_a_port_is_deleted_and_comes_back_as_it_was(northbound: bed.Northbound) -> None:
    everything = {"op": "select", "table": "Logical_Switch_Port", "where": [["name", "==", PORTS[0]]]}
    own = ("_uuid", "_version", "up")

    def row() -> list[dict[str, Any]]:
        (found,) = northbound.transact(everything)
        return [{name: value for name, value in one.items() if name not in own} for one in found["rows"]]

    before, sender = row(), Northbound(settings(northbound))
    delete = act(northbound)
    saw = sender.send(delete)
    assert row() == []
    assert [one["ports"] for one in read(northbound)["ovn_switches"]] == [2, 1]
    back = delete.undo(json.loads(json.dumps(saw)))
    sender.send(back)
    assert row() == before
    assert [one["ports"] for one in read(northbound)["ovn_switches"]] == [3, 1]
    with pytest.raises(Moved):
        sender.send(back)
    with pytest.raises(Moved):
        sender.send(delete)


@pytest.mark.parametrize(
    "columns",
    [
        {"up": True},
        {"external_ids": ["map", [["neutron:port_name", ""], ["neutron:revision_number", "5"]]]},
        {"external_ids": ["map", [["neutron:revision_number", "4"]]]},
    ],
    ids=["up", "revision", "no mark"],
)
def test_a_port_that_is_not_as_it_was_is_left(northbound: bed.Northbound, columns: dict[str, Any]) -> None:
    delete = act(northbound)
    change(northbound, **columns)
    with pytest.raises(Moved, match="is not as it was"):
        Northbound(settings(northbound)).send(delete)
    assert len(read(northbound)["ovn_switch_ports"]) == 4


def test_what_changes_between_the_last_look_and_the_act_is_left(
    northbound: bed.Northbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete, sender = act(northbound), Northbound(settings(northbound))
    look = Northbound._row

    def looked(self: Northbound, table: str, uuid: str) -> Any:
        found = look(self, table, uuid)
        change(northbound, addresses="fa:16:3e:00:00:09 10.0.0.9")
        return found

    monkeypatch.setattr(Northbound, "_row", looked)
    with pytest.raises(Moved, match="no longer as it was seen"):
        sender.send(delete)
    assert len(read(northbound)["ovn_switch_ports"]) == 4


def test_a_port_of_another_switch_is_left(northbound: bed.Northbound) -> None:
    delete = act(northbound)
    wrong = dataclasses.replace(delete, parent="somebody-elses")
    with pytest.raises(Moved, match="has no switch port .* of switch somebody-elses any more"):
        Northbound(settings(northbound)).send(wrong)
    assert len(read(northbound)["ovn_switch_ports"]) == 4


@pytest.mark.parametrize("columns", ["[]", "{}", '{"name": "another"}'])
def test_a_journal_that_says_nothing_brings_nothing_back(northbound: bed.Northbound, columns: str) -> None:
    with pytest.raises(Refused, match="does not say what"):
        Northbound(settings(northbound)).send(Insert("", "Logical_Switch_Port", PORTS[0], PORTS[0], SWITCH, 4, columns))


LRP = f"lrp-{PORTS[1]}"
PG = f"pg_{GROUP.replace('-', '_')}"

#: The tables of what may be deleted beside a switch's port, each with the name of what the fixture below makes.
OBJECTS = {
    "Logical_Router_Port": LRP, "Logical_Router": f"neutron-{ROUTER}", "Logical_Switch": "neutron-empty",
    "Port_Group": PG, "NAT": FLOATING, "DHCP_Options": DHCP,
}  # fmt: skip

#: Those whose rows have no name, and keep their UUID.
NAMELESS = {"NAT", "DHCP_Options"}


def it(table: str) -> list[Any]:
    """The condition that leads to what the fixture below makes."""
    name = OBJECTS[table]
    return [["_uuid", "==", ["uuid", name]] if table in NAMELESS else ["name", "==", name]]


@pytest.fixture
def routed(northbound: bed.Northbound) -> bed.Northbound:
    """The same with a switch that has no ports, a router with one port, a security group with one rule, DHCP options
    that no port has, and another router with NAT rules for a floating IP and for its gateway."""
    northbound.fill_router(ROUTER, [PORTS[1]], NET)
    northbound.fill_router(NATTING, [], NET)
    northbound.fill_floating_ip(FLOATING, NATTING, PORTS[0])
    northbound.fill_dhcp(DHCP, SUBNET, NET)
    northbound.fill_group(GROUP)
    marks = ["map", [["neutron:network_name", "net0"], ["neutron:revision_number", "2"]]]
    empty = {"name": "neutron-empty", "external_ids": marks, "other_config": ["map", [["mcast_snoop", "false"]]]}
    northbound.transact({"op": "insert", "table": "Logical_Switch", "row": empty})
    return northbound


def of(server: bed.Northbound, table: str) -> Delete | ovn_object.Delete:
    """The act that deletes what there is of a table."""
    name = OBJECTS[table]
    if table == "Logical_Router_Port":
        (row,) = read(server)["ovn_router_ports"]
        return Delete("", table, row["port"], name, row["uuid"], row["router"], row["revision"])
    place = ovn_object.PLACES[table]
    (row,) = [row for row in read(server)[place.table] if row[place.key] == name]
    parent = row[place.parent] if place.parent else None
    return ovn_object.Delete(table, name, row["uuid"], row[place.column], row["revision"], parent)


def rows(server: bed.Northbound, table: str, where: list[Any]) -> list[dict[str, Any]]:
    """What a table has, but for what no two rows have in common."""
    (found,) = server.transact({"op": "select", "table": table, "where": where})
    return [
        {name: value for name, value in one.items() if name not in ("_uuid", "_version", "acls")}
        for one in found["rows"]
    ]


@pytest.mark.parametrize("table", OBJECTS)
def test_an_object_is_deleted_and_comes_back_as_it_was(routed: bed.Northbound, table: str) -> None:
    named = it(table)
    sender = Northbound(settings(routed))
    if table == "Logical_Router":
        sender.send(of(routed, "Logical_Router_Port"))
    before, rules = rows(routed, table, named), rows(routed, "ACL", [])
    assert (len(before), len(rules)) == (1, 1)
    delete = of(routed, table)
    saw = sender.send(delete)
    assert rows(routed, table, named) == []
    assert rows(routed, "ACL", []) == ([] if table == "Port_Group" else rules)
    if table == "Logical_Router_Port":
        assert [one["ports"] for one in read(routed)["ovn_routers"]] == [0, 0]
    if table == "NAT":
        assert [one["type"] for one in read(routed)["ovn_nats"]] == ["snat"], "its other rules stay"
    back = delete.undo(json.loads(json.dumps(saw)))
    sender.send(back)
    assert rows(routed, table, named) == before
    assert rows(routed, "ACL", []) == rules
    if table == "Logical_Router_Port":
        assert [one["ports"] for one in read(routed)["ovn_routers"]] == [1, 0]
    if table == "NAT":
        assert [one["router"] for one in read(routed)["ovn_nats"]] == [f"neutron-{NATTING}"] * 2
    with pytest.raises(Moved):
        sender.send(back)
    if table in NAMELESS:
        sender.send(delete)  # it is the very same row again
    with pytest.raises(Moved):
        sender.send(delete)


@pytest.mark.parametrize("table", OBJECTS)
@pytest.mark.parametrize("marks", [["neutron:revision_number", "9"], ["somebody", "else"]], ids=["revision", "no mark"])
def test_an_object_that_is_not_as_it_was_is_left(routed: bed.Northbound, table: str, marks: list[str]) -> None:
    delete = of(routed, table)
    now = {"external_ids": ["map", [marks]]}
    routed.transact({"op": "update", "table": table, "where": it(table), "row": now})
    with pytest.raises(Moved, match="is not as it was"):
        Northbound(settings(routed)).send(delete)
    assert len(rows(routed, table, it(table))) == 1


@pytest.mark.parametrize(
    ("table", "column", "of_table", "row"),
    [
        ("Logical_Router", "ports", "", {}),
        ("Logical_Router", "nat", "NAT", {"type": "snat", "external_ip": "192.0.2.1", "logical_ip": "10.0.0.0/8"}),
        ("Logical_Router_Port", "gateway_chassis", "Gateway_Chassis", {"name": "c", "chassis_name": "c"}),
        ("Logical_Switch", "acls", "ACL", {"priority": 1, "direction": "to-lport", "action": "drop", "match": "ip4"}),
        ("Port_Group", "ports", "Logical_Switch_Port", {}),
    ],
    ids=["a router's port", "a router's NAT", "a gateway", "a switch's rule", "a group's port"],
)
def test_an_object_on_which_something_hangs_is_left(
    routed: bed.Northbound, table: str, column: str, of_table: str, row: dict[str, Any]
) -> None:
    named = [["name", "==", OBJECTS[table]]]
    if row:
        put = [[column, "insert", ["set", [["named-uuid", "more"]]]]]
        routed.transact(
            {"op": "insert", "table": of_table, "row": row, "uuid-name": "more"},
            {"op": "mutate", "table": table, "where": named, "mutations": put},
        )
    elif of_table:
        (found,) = routed.transact({"op": "select", "table": of_table, "where": [["name", "==", PORTS[0]]]})
        routed.transact({"op": "update", "table": table, "where": named, "row": {column: found["rows"][0]["_uuid"]}})
    delete = of(routed, table)
    with pytest.raises(Refused, match=f"{OBJECTS[table]} still has {column}"):
        Northbound(settings(routed)).send(delete)
    assert len(rows(routed, table, named)) == 1


def test_a_group_whose_rules_change_meanwhile_is_left(routed: bed.Northbound, monkeypatch: pytest.MonkeyPatch) -> None:
    delete, look = of(routed, "Port_Group"), Northbound._row

    def looked(self: Northbound, table: str, uuid: str) -> Any:
        found = look(self, table, uuid)
        if table == "ACL":
            routed.transact({"op": "update", "table": "ACL", "where": [], "row": {"action": "drop"}})
        return found

    monkeypatch.setattr(Northbound, "_row", looked)
    with pytest.raises(Moved, match="the row of ACL"):
        Northbound(settings(routed)).send(delete)
    assert len(rows(routed, "Port_Group", [])) == 1


@pytest.mark.parametrize("column", ["dhcpv4_options", "dhcpv6_options"])
def test_options_that_a_port_has_are_left(routed: bed.Northbound, column: str) -> None:
    delete = of(routed, "DHCP_Options")
    change(routed, **{column: ["uuid", DHCP]})
    with pytest.raises(Moved, match="Logical_Switch_Port"):
        Northbound(settings(routed)).send(delete)
    assert len(rows(routed, "DHCP_Options", [])) == 1
    assert [row["ports"] for row in read(routed)["ovn_dhcp_options"]] == [1], "nor is the port's reference lost"


def test_a_rule_of_another_router_or_floating_ip_is_left(routed: bed.Northbound) -> None:
    delete, sender = of(routed, "NAT"), Northbound(settings(routed))
    assert isinstance(delete, ovn_object.Delete)
    with pytest.raises(Moved, match=f"no NAT rule {FLOATING} of router somebody-elses any more"):
        sender.send(dataclasses.replace(delete, parent="somebody-elses"))
    with pytest.raises(Moved, match="is not as it was"):
        sender.send(dataclasses.replace(delete, of="another"))
    assert len(rows(routed, "NAT", [])) == 2


def test_a_rule_does_not_come_back_beside_another_of_its_floating_ip(routed: bed.Northbound) -> None:
    """Neutron has made one since, as older releases do, with a UUID of its own."""
    delete, sender = of(routed, "NAT"), Northbound(settings(routed))
    back = delete.undo(json.loads(json.dumps(sender.send(delete))))
    marks = ["map", [["neutron:fip_id", FLOATING], ["neutron:revision_number", "9"]]]
    row = {"type": "dnat_and_snat", "external_ip": "192.0.2.10", "logical_ip": "10.0.0.7", "external_ids": marks}
    put = [["nat", "insert", ["set", [["named-uuid", "new"]]]]]
    routed.transact(
        {"op": "insert", "table": "NAT", "uuid-name": "new", "row": row},
        {"op": "mutate", "table": "Logical_Router", "where": [["name", "==", f"neutron-{NATTING}"]], "mutations": put},
    )
    with pytest.raises(Moved, match="the row of NAT"):
        sender.send(back)
    assert len(rows(routed, "NAT", [])) == 2


@pytest.mark.parametrize("columns", ["[]", "{}"])
def test_a_journal_that_says_nothing_of_a_rule_is_refused(routed: bed.Northbound, columns: str) -> None:
    router = f"neutron-{NATTING}"
    with pytest.raises(Refused, match=f"does not say what OVN's NAT rule {FLOATING} was"):
        Northbound(settings(routed)).send(ovn_object.Insert("NAT", FLOATING, FLOATING, 2, columns, "{}", router))


@pytest.mark.parametrize(("columns", "owned"), [("{}", '{"acls": []}'), (f'{{"name": "{PG}"}}', "{}")])
def test_a_journal_that_says_nothing_of_an_object_is_refused(routed: bed.Northbound, columns: str, owned: str) -> None:
    with pytest.raises(Refused, match="does not say what"):
        Northbound(settings(routed)).send(ovn_object.Insert("Port_Group", PG, GROUP, None, columns, owned))


@pytest.mark.parametrize(("section", "value"), [({}, None), ({"alone": False}, 0), ({"alone": True}, 1)])
def test_whose_ovn_it_is_the_configuration_says(section: dict[str, bool], value: int | None) -> None:
    named = {"ovn": {"northbound": ["unix:/nowhere"], **section}} if section else {}
    sources = Sources(Config.model_validate({
        "cloud": {"name": "c", "state": "/s"}, "nova": {"api_database": "sqlite://"}, "hosts": {"transport": "local"},
        **named,
    }))  # fmt: skip
    (piece,) = [piece for piece in sources._own() if piece.table == "settings"]
    assert {row["name"]: row["value"] for row in piece.rows.to_pylist()}.get("ovn_alone") == value


def test_a_server_that_is_away_is_a_gap_and_nothing_is_sent(tmp_path: Path) -> None:
    with bed.Northbound(tmp_path / "nb") as server:
        server.fill(SWITCH, 3)
        change(server, up=False)
        delete, where = act(server), settings(server)
    pieces = list(ovn.read(where))
    assert {piece.table for piece in pieces} == {table.name for table in tables.TABLES if table.per == "ovn"}
    assert all(piece.rows is None and piece.why and "6641" not in piece.why for piece in pieces)
    with pytest.raises(Trouble, match="nothing was sent"):
        Northbound(where).send(delete)
