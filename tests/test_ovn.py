"""OVN's northbound database on a real server: what is read of it, and that an act lands only on what was seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import tables
from cloudfsck.acts.ovn import Northbound
from cloudfsck.acts.ovn_port import Delete, Insert
from cloudfsck.config import Ovn
from cloudfsck.model import Moved, Refused, Row, Trouble
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import ovn
from tests.bed import ovn as bed

pytestmark = pytest.mark.real

NET = "aaaaaaaa-0000-4000-8000-000000000001"
PORTS = [f"11111111-0000-4000-8000-{number:012d}" for number in range(3)]
SWITCH = f"neutron-{NET}"
ROUTER = "bbbbbbbb-0000-4000-8000-000000000001"
GROUP = "33333333-0000-4000-8000-000000000000"


#: What else there is in the database hangs on one of these.
ROOTS = ("Logical_Switch", "Logical_Router", "Port_Group")


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
        return {name: list(snapshot.rows(f"SELECT * FROM {name} ORDER BY name")) for name in names}
    finally:
        snapshot.close()


def act(server: bed.Northbound) -> Delete:
    (row,) = [row for row in read(server)["ovn_switch_ports"] if row["name"] == PORTS[0]]
    return Delete(row["device_id"], row["port"], row["uuid"], row["switch"], row["revision"])


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
    assert (found["ovn_routers"], found["ovn_router_ports"], found["ovn_port_groups"]) == ([], [], [])


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

    def looked(self: Northbound, uuid: str) -> Any:
        found = look(self, uuid)
        change(northbound, addresses="fa:16:3e:00:00:09 10.0.0.9")
        return found

    monkeypatch.setattr(Northbound, "_row", looked)
    with pytest.raises(Moved, match="no longer as it was seen"):
        sender.send(delete)
    assert len(read(northbound)["ovn_switch_ports"]) == 4


def test_a_port_of_another_switch_is_left(northbound: bed.Northbound) -> None:
    delete = act(northbound)
    wrong = Delete(delete.server, delete.port, delete.row, "somebody-elses", delete.revision)
    with pytest.raises(Moved, match="has no port"):
        Northbound(settings(northbound)).send(wrong)
    assert len(read(northbound)["ovn_switch_ports"]) == 4


@pytest.mark.parametrize("columns", ["[]", "{}", '{"name": "another"}'])
def test_a_journal_that_says_nothing_brings_nothing_back(northbound: bed.Northbound, columns: str) -> None:
    with pytest.raises(Refused, match="does not say what"):
        Northbound(settings(northbound)).send(Insert("", PORTS[0], SWITCH, 4, columns))


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
