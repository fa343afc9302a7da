"""Worlds as text: what a line means, and what is refused."""

from __future__ import annotations

import datetime as dt
from textwrap import dedent

import pytest

from cloudfsck import scenario, tables
from cloudfsck.model import Gap
from cloudfsck.scenario import NOW
from tests import worlds
from tests.settled import keep, settled

WORLD = """
    hosts cell2             c1 c2
    clock cell:cell2        -5m
    lost  libvirt_domains   c2
    nova_instances          cell   uuid  host  deleted  deleted_at
                            cell1  s-1   c9    0        -
                            cell2  s-2   c1    7        -2h
    nova_instance_mappings  instance_uuid  cell_id
                            s-2            cell2
    instance_dirs           host  name  server  changed  open_by
                            c1    s-2   s-2     -1d      [4,5]
    libvirt_domains         host  uuid  state
                            c1    s-2   running
                            c2    s-2   running
    """


def test_a_word_stands_for_itself_a_dash_for_null_and_a_time_for_one_before_now() -> None:
    db = scenario.build(WORLD).db
    assert db.execute("SELECT cell, uuid, host, deleted, deleted_at FROM nova_instances ORDER BY cell").fetchall() == [
        ("cell1", "s-1", "c9", 0, None),
        ("cell2", "s-2", "c1", 7, NOW - dt.timedelta(hours=2)),
    ]
    assert db.execute("SELECT open_by FROM instance_dirs").fetchone() == ([4, 5],)


def test_the_newest_change_in_a_directory_is_when_it_changed() -> None:
    db = scenario.build(WORLD).db
    assert db.execute("SELECT changed, make_timestamp(newest // 1000) FROM instance_dirs").fetchone() == (
        NOW - dt.timedelta(days=1), NOW - dt.timedelta(days=1),
    )  # fmt: skip


def test_hosts_are_mapped_served_and_have_a_file_system_of_their_own() -> None:
    db = scenario.build(WORLD).db
    for fact in ("mapped_hosts WHERE cell = 'cell2'", "compute_services WHERE up", "instances_storage WHERE alone"):
        assert db.execute(f"SELECT host FROM {fact} ORDER BY host").fetchall() == [("c1",), ("c2",)], fact


def test_cells_are_named_in_a_world_and_numbered_in_nova() -> None:
    db = scenario.build(WORLD).db
    assert db.execute("SELECT id, cell FROM nova_cell_mappings ORDER BY id").fetchall() == [(1, "cell1"), (2, "cell2")]
    assert db.execute("SELECT server, cell FROM mapped_servers").fetchall() == [("s-2", "cell2")]


def test_a_clock_is_that_of_one_part() -> None:
    clocks = scenario.build(WORLD).clocks()
    assert clocks == {
        "cell:cell1": NOW, "cell:cell2": NOW - dt.timedelta(minutes=5), "host:c1": NOW, "host:c2": NOW,
        "api:nova_api": NOW, "cinder:cinder": NOW, "designate:designate": NOW, "neutron:neutron": NOW,
        "keystone:keystone": NOW, "octavia:octavia": NOW, "neutron_nsx:neutron_nsx": NOW, "ovn:ovn": NOW,
        "placement:placement": NOW, "nsx:nsx": NOW, "cloud:": NOW,
    }  # fmt: skip


def test_what_is_lost_is_a_gap_and_no_row() -> None:
    snapshot = scenario.build(WORLD)
    assert snapshot.heard().gaps == {("libvirt_domains", "c2"): Gap("libvirt_domains", "c2", "blanked out")}
    assert snapshot.db.execute("SELECT host FROM libvirt_domains").fetchall() == [("c1",)]


def test_what_is_not_named_was_read_and_is_empty() -> None:
    snapshot = scenario.build("")
    assert snapshot.heard().gaps == {}
    assert snapshot.heard().tables == {
        table.name for table in tables.TABLES if table.per not in ("host", "backend", "copy")
    }
    assert {name: len(rows) for name, rows in worlds.contents(snapshot).items()} == {"nova_cell_mappings": 1}


def test_blanking_a_part_is_the_same_as_losing_it() -> None:
    snapshot = scenario.build(WORLD)
    lost = scenario.build(dedent(WORLD) + "\nlost nova_instances cell2\n")
    with worlds.without(snapshot, [("nova_instances", "cell2")]):
        assert worlds.contents(snapshot) == worlds.contents(lost)
        assert snapshot.heard() == lost.heard()


@pytest.mark.parametrize(("line", "fault"), [
    ("nova_instances cell uuid\n  cell1", "2 columns, but 1 values"),
    ("nova_instances cell colour\n  cell1 red", "nova_instances has no colour"),
    ("clock cell:cell1 noon", "no time before NOW"),
])  # fmt: skip
def test_a_line_that_is_wrong_is_refused(line: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        scenario.read(line)


def test_a_table_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError, match="nova_toasters"):
        scenario.read("nova_toasters cell\n  cell1")


def test_an_innocent_world_says_what_it_is() -> None:
    for path in sorted(worlds.INNOCENT_FOLDER.rglob("*.txt")):
        says, world = worlds.split(path.read_text(encoding="utf-8"))
        assert says.endswith("."), path.name
        assert scenario.read(world).rows, path.name


def test_worlds_together_keep_out_of_each_other() -> None:
    """Whatever is found in all worlds as one cloud is what is found in each alone."""
    together: dict[str, set[tuple[str, str]]] = {}
    for number, snapshot in enumerate(worlds.together()):
        with snapshot.supposing():
            keep(snapshot)
            for name in worlds.asked(number):
                for row in snapshot.rows(settled(name)):
                    together.setdefault(worlds.where(row["key"]), set()).add((name, row["key"]))
    for title, (name, case) in worlds.SCENARIOS.items():
        found = {key for check, key in together.get(title, set()) if check == name}
        plain = {key.replace(f"w{list(worlds.ALL).index(title):03}-", "") for key in found}
        assert plain == set(case.finds), title
