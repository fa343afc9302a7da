"""The laws that every check obeys.  A check's author writes scenarios, never a test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import islice
from textwrap import dedent
from typing import Any

import pytest

from cloudfsck import acts, checking, plan, proof, tables
from cloudfsck.config import NO_BACKEND, NO_KEYSTONE, NO_NSX, Config
from cloudfsck.model import GIVEN, RISKS, Act, Finding, Moved, Scenario, Scope
from cloudfsck.scenario import NOW
from cloudfsck.snapshot import OWN, Snapshot, tables_read
from cloudfsck.sources import ENGINE
from tests import worlds
from tests.settled import keep, settled
from tests.worlds import CHECKS, INNOCENT, SCENARIOS, YOUNG

EACH_CHECK = pytest.mark.parametrize("name", CHECKS)
EACH_SCENARIO = pytest.mark.parametrize(
    ("name", "case"), [pytest.param(name, case, id=title) for title, (name, case) in SCENARIOS.items()]
)
EACH_FINDING = pytest.mark.parametrize(
    ("name", "case", "key"),
    [
        pytest.param(name, case, key, id=f"{title}: {key}")
        for title, (name, case) in SCENARIOS.items()
        for key in case.finds
    ],
)


#: A cloud of which nothing but Nova is named.
ALONE = Config.model_validate(
    {"cloud": {"name": "c", "state": "/s"}, "nova": {"api_database": "sqlite://"}, "hosts": {"transport": "local"}}
)


#: Into how many tests one is cut that takes minutes, so that several processors may share it.
SHARES = 8


def all_found(snapshot: Snapshot) -> dict[tuple[str, str], Finding]:
    answers = checking.run_all(CHECKS, snapshot)
    return {(name, found.key): found for name, answer in answers.items() for found in answer.findings}


# ----------------------------------------------------------------------------------- what a check says of itself


@EACH_CHECK
def test_explains_itself(name: str) -> None:
    title, blank, *rest = CHECKS[name].text.splitlines()
    assert title == CHECKS[name].title
    assert title.endswith(".")
    assert len(title) < 80
    assert blank == ""
    heads = [line for line in rest if line and line[0] != " "]
    assert heads == ["Why it matters", "How it comes about", "What the repair does", "When not to repair"]
    for line, after in zip(rest, [*rest[1:], ""], strict=True):
        if line in heads:
            assert after.startswith("    "), f"nothing is said under {line!r}"


#: How checks are named beside that which read of Neutron or of DNS servers, and are left out with those.
_NAMED = {
    "neutron": ("-of-gone-floating-ip", "-of-lost-address", "-of-nobodys-address", "-without-record"),
    "copy": ("-on-server",),
}


@EACH_CHECK
@pytest.mark.parametrize(
    ("per", "prefixes"),
    [
        ("cinder", ("cinder-",)),
        ("designate", ("designate-",)),
        ("placement", ("placement-",)),
        ("neutron", ("neutron-", "ovn-", "nsx-", "dns-name-")),
        ("ovn", ("ovn-",)),
        ("nsx", ("nsx-",)),
        ("copy", ("dns-",)),
    ],
)
def test_is_named_after_what_it_reads_beside_nova(name: str, per: str, prefixes: tuple[str, ...]) -> None:
    """Then it is left out where the configuration does not name that."""
    read = tables_read(CHECKS[name].query)
    about_it = name.startswith(prefixes) or name.endswith(_NAMED.get(per, ()))
    assert about_it == any(tables.BY_NAME[table].per == per for table in read)


@EACH_CHECK
def test_is_named_after_a_gone_project_if_it_reads_keystone(name: str) -> None:
    """Then it is left out where the configuration does not name Keystone's database; and so is all of NSX."""
    read = tables_read(CHECKS[name].query)
    why = ALONE.left_out([name]).get(name)
    assert why == NO_NSX or (why == NO_KEYSTONE) == any(tables.BY_NAME[table].per == "keystone" for table in read)


@EACH_CHECK
def test_is_named_after_an_image_if_it_reads_a_storage_backend(name: str) -> None:
    """Then it is left out where the configuration names no backend."""
    read = tables_read(CHECKS[name].query)
    left_out = ALONE.left_out([name]).get(name) == NO_BACKEND
    assert left_out == any(tables.BY_NAME[table].per == "backend" for table in read)


@EACH_CHECK
def test_has_a_scenario_that_finds_and_one_that_does_not(name: str) -> None:
    assert {bool(case.finds) for case in CHECKS[name].scenarios} == {True, False}
    titles = [case.title for case in CHECKS[name].scenarios]
    assert len(set(titles)) == len(titles)


@EACH_CHECK
def test_its_limits_are_sane(name: str) -> None:
    check = CHECKS[name]
    assert check.risk in RISKS
    assert (check.repair is None) <= (check.risk == "by-hand"), "without a repair it is a person's"
    assert timedelta(0) < check.settle <= timedelta(days=7)
    assert 0 < check.limit <= 100
    assert 0 < check.share <= 0.25
    assert check.accused
    assert set(check.accused) <= tables_read(check.query)


@EACH_CHECK
def test_its_query_gives_every_column_that_the_engine_reads(name: str) -> None:
    cursor = worlds.built("").db.execute(CHECKS[name].query)
    columns = [column[0] for column in cursor.description or ()]
    assert columns[0] == "key"
    assert set(GIVEN) <= set(columns)
    assert len(set(columns)) == len(columns)


@EACH_CHECK
def test_it_finds_nothing_where_there_is_nobody_to_accuse(name: str) -> None:
    """So the engine need not ask then."""
    for number, snapshot in enumerate(worlds.together()):
        if name not in worlds.asked(number):
            continue
        with snapshot.supposing():
            for table in CHECKS[name].accused:
                snapshot.db.execute(f"DELETE FROM {table}")
            assert snapshot.rows(CHECKS[name].query) == []


# --------------------------------------------------------------------------------------- what it finds and plans


@EACH_SCENARIO
def test_finds_what_the_scenario_says(name: str, case: Scenario) -> None:
    answer = worlds.full(name, case.world)
    assert sorted(found.key for found in answer.findings) == sorted(case.finds)
    assert answer.unknown is None or "lost" in case.world


@EACH_SCENARIO
def test_plans_what_the_scenario_says(name: str, case: Scenario) -> None:
    planned = worlds.acts(CHECKS[name], worlds.full(name, case.world).findings)
    assert "\n".join(map(str, planned)) == dedent(case.plans).strip()


@EACH_SCENARIO
def test_an_act_can_be_written_down_and_read_again(name: str, case: Scenario) -> None:
    planned = worlds.acts(CHECKS[name], worlds.full(name, case.world).findings)
    for act in [*planned, *filter(None, map(undo, planned))]:
        assert acts.from_json(json.loads(json.dumps(acts.to_json(act)))) == act
        assert json.loads(json.dumps(act.order))["server"] == act.server
        assert "do" in act.order
        assert "\n" not in str(act)
        assert act.undoing in ("exact", "approximate", "none")
        assert (undo(act) is None) or act.undoing != "none"
        assert act.destroys <= (act.undoing != "exact"), "what destroys cannot be undone exactly"


def test_every_kind_of_act_has_its_place_in_a_plan() -> None:
    assert {kind.partition(".")[0] for kind in acts.KINDS} == set(plan._ORDER)


def undo(act: Act) -> Act | None:
    # What a service calls what was made, by the act's own effect.
    made = f"{getattr(act, 'zone', '')} {getattr(act, 'name', '')}"
    return act.undo({"saved": "/saved", "made": made})


# ---------------------------------------------------------------------------------------- after it has been done


@dataclass(frozen=True)
class Repaired:
    """What was planned in a world; every (check, key) that was found in it before; and what is found after it."""

    planned: list[Act]
    before: set[tuple[str, str]]
    after: dict[tuple[str, str], Finding]


def repair(snapshot: Snapshot, planned: list[Act]) -> dict[tuple[str, str], Finding]:
    """What all checks find after these acts."""
    with snapshot.supposing():
        for act in planned:
            act.effect(snapshot.db)
        return all_found(snapshot)


@cache
def repaired_together() -> dict[str, Repaired]:
    """The repair of every scenario of the first cloud of `worlds.together`, all at once: to ask all checks costs the
    same for one world as for all of them.  Each is judged by what is found in its own world."""
    snapshot = worlds.together()[0]
    before = in_each_world(all_found(snapshot))
    plans = {
        title: worlds.acts(CHECKS[name], [found for (check, _), found in before[title].items() if check == name])
        for title, (name, case) in SCENARIOS.items() if worlds.is_plain(case.world)
    }  # fmt: skip
    after = in_each_world(repair(snapshot, [act for planned in plans.values() for act in planned]))
    return {title: Repaired(planned, set(before[title]), after[title]) for title, planned in plans.items()}


def in_each_world(found: dict[tuple[str, str], Finding]) -> dict[str, dict[tuple[str, str], Finding]]:
    apart: dict[str, dict[tuple[str, str], Finding]] = {world: {} for world in worlds.ALL}
    for (check, key), finding in found.items():
        apart[worlds.where(key)][check, key] = finding
    return apart


def repaired_alone(name: str, case: Scenario) -> Repaired:
    planned = worlds.acts(CHECKS[name], worlds.full(name, case.world).findings)
    if not planned:
        return Repaired([], set(), {})
    before = {(check, found.key) for check in CHECKS for found in worlds.full(check, case.world).findings}
    return Repaired(planned, before, repair(worlds.built(case.world), planned))


@EACH_SCENARIO
def test_the_repair_leaves_nothing_and_breaks_nothing(name: str, case: Scenario) -> None:
    at_once = repaired_together() if worlds.is_plain(case.world) else {}
    done = at_once.get(f"{name}: {case.title}") or repaired_alone(name, case)
    planned, before, after = done.planned, done.before, done.after
    assert len(planned) == len(worlds.acts(CHECKS[name], worlds.full(name, case.world).findings))
    if not planned:
        return
    case_of = {one for act in planned for one in (act.server, *getattr(act, "also", ()))} - {""}
    new = [found for at, found in after.items() if at not in before]
    assert [found for found in new if case_of.isdisjoint({found.server, *found.also})] == []
    left = [found for (check, _), found in after.items() if check == name]
    assert [found.key for found in left if worlds.clear(found.row)] == []
    for act in planned:
        of_it = [
            found for found in left
            if found.server == act.server and found.row.get("host", "") == act.host and found.row["by_hand"] is None
        ]  # fmt: skip
        if act.rung is None:
            assert of_it == [], "what is gone for good is found no more"
        else:
            assert [found.row["rung"] for found in of_it] == [act.rung], "what stands on a rung is held, on that rung"


@EACH_SCENARIO
def test_undoing_in_reverse_restores_everything(name: str, case: Scenario) -> None:
    snapshot = worlds.built(case.world)
    planned = worlds.acts(CHECKS[name], worlds.full(name, case.world).findings)
    if not planned:
        return
    before = worlds.contents(snapshot)
    with snapshot.supposing():
        for act in planned:
            act.effect(snapshot.db)
        for act in reversed(planned):
            back = undo(act)
            assert (back is None) == (act.undoing == "none")
            if back is not None:
                back.effect(snapshot.db)
        if all(act.undoing == "exact" for act in planned):
            assert worlds.contents(snapshot) == before
    assert worlds.contents(snapshot) == before, "supposing takes everything back"


@EACH_SCENARIO
def test_no_act_lands_twice(name: str, case: Scenario) -> None:
    snapshot = worlds.built(case.world)
    planned = worlds.acts(CHECKS[name], worlds.full(name, case.world).findings)
    for act in [*planned, *filter(None, map(undo, planned))]:
        with snapshot.supposing():
            if act not in planned:
                acts_of = [other for other in planned if other.server == act.server and other.host == act.host]
                for other in acts_of:
                    other.effect(snapshot.db)
            act.effect(snapshot.db)
            after = worlds.contents(snapshot)
            with pytest.raises(Moved):
                act.effect(snapshot.db)
            assert worlds.contents(snapshot) == after


@EACH_SCENARIO
def test_an_act_that_meets_another_rung_changes_nothing(name: str, case: Scenario) -> None:
    snapshot = worlds.built(case.world)
    for act in worlds.acts(CHECKS[name], worlds.full(name, case.world).findings):
        with snapshot.supposing():
            snapshot.db.execute("DELETE FROM holds WHERE server = ?", [act.server])
            snapshot.db.execute(
                "INSERT INTO holds (kind, host, server, rung) VALUES (?, ?, ?, 'another')",
                [act.what, act.host, act.server],
            )
            before = worlds.contents(snapshot)
            with pytest.raises(Moved):
                act.effect(snapshot.db)
            assert worlds.contents(snapshot) == before


# -------------------------------------------------------------------------------------------- what was not heard


def assert_less(name: str, world: str, lost: Iterable[tuple[str, str]]) -> None:
    """What the check says without these parts is no more than it said with them, and it says that they are lost."""
    snapshot, full = worlds.built(world), worlds.full(name, world).findings
    lost = list(lost)
    known = {found.key: found for found in full}
    read = tables_read(CHECKS[name].query)
    with worlds.without(snapshot, lost, worlds.filled(world)):
        answer = worlds.answer(name, snapshot)
    said = {(gap.table, gap.part) for gap in answer.unknown.gaps} if answer.unknown else set()
    assert said >= {(table, part) for table, part in lost if table in read}
    for found in answer.findings:
        if found.state == "unproven":
            continue
        assert found.key in known, f"without {lost}, {name} finds {found.key}"
        whole = known[found.key]
        assert verdict(found) == verdict(whole), f"{name}, {found.key}, without {lost}"


def verdict(found: Finding) -> tuple[Any, ...]:
    """All that the engine goes by, and what would be done; what is only told may be less where less was seen."""
    row = found.row
    would = CHECKS[found.check].repair
    planned = list(would(row)) if would and row["by_hand"] is None else []
    return (found.state, planned, *(row[column] for column in GIVEN if column not in ("hosts", "cells")))


def losses(snapshot: Snapshot, read: Iterable[str]) -> list[list[tuple[str, str]]]:
    """Every part that is not empty, all that are empty at once, every table, every host and cell, and everything."""
    read = {*read, "roster"}
    mine = frozenset(at for at in worlds.parts(snapshot) if at[0] in read)
    filled = worlds.filled_parts(snapshot, read)
    found = {frozenset([at]) for at in filled | {("roster", "")}} | {mine, mine - filled}
    found |= {frozenset(at for at in mine if at[0] == table) for table in {table for table, _ in filled}}
    found |= {frozenset(at for at in mine if at[1] == part) for part in {part for _, part in filled}}
    return sorted(map(sorted, found))


@EACH_SCENARIO
def test_seeing_less_never_finds_more(name: str, case: Scenario) -> None:
    snapshot = worlds.built(case.world)
    for lost in losses(snapshot, tables_read(CHECKS[name].query)):
        assert_less(name, case.world, lost)


@EACH_SCENARIO
def test_a_host_that_was_not_asked_is_missed(name: str, case: Scenario) -> None:
    """A host of the roster of which the ledger knows nothing acquits nobody, and is not taken for an empty one."""
    snapshot = worlds.built(case.world)
    full = {found.key: found for found in worlds.full(name, case.world).findings}
    with snapshot.supposing():
        snapshot.db.execute("INSERT INTO roster (host, live, libvirt) VALUES ('c99', TRUE, TRUE)")
        for found in worlds.answer(name, snapshot).findings:
            rests_on_all = full[found.key].row["hosts"] is None
            assert (found.state == "unproven") == (rests_on_all or full[found.key].state == "unproven"), found.key


# ------------------------------------------------------------------------------------------- scoped equals whole


@contextmanager
def scoped(world: str, scope: Scope) -> Iterator[Snapshot]:
    """A world as a reading of the scope gives it.  Of libvirt's tables such a reading gives more: all of a domain
    that has a volume which was asked for; a check cannot rest on that, for it asks for the domain's server then."""
    ids = sorted(scope.ids or ())
    snapshot, filled = worlds.built(world), worlds.filled(world)
    read = {table.name for table in tables.TABLES if table.per == "cloud" or scope.reads(table.name)} | ENGINE
    narrow = [table.name for table in tables.TABLES if table.narrow]
    with snapshot.supposing():
        snapshot.db.execute("DELETE FROM ledger WHERE table_name NOT IN ?", [sorted(read)])
        for name in filled - read:
            snapshot.db.execute(f"DELETE FROM {name}")
        snapshot.db.execute("UPDATE ledger SET keys = ? WHERE table_name IN ?", [ids, narrow])
        parts = {"host": scope.hosts, "backend": scope.backends, "copy": scope.copies}
        for part, asked in parts.items():
            if asked is not None:
                snapshot.db.execute("DELETE FROM ledger WHERE per = ? AND part NOT IN ?", [part, sorted(asked)])
        for table in tables.TABLES:
            if table.name not in filled:
                continue
            if table.narrow:
                any_key = " OR ".join(f"coalesce({column} IN $ids, FALSE)" for column in table.key)
                snapshot.db.execute(f"DELETE FROM {table.name} WHERE NOT ({any_key})", {"ids": ids})
            asked = parts.get(table.per)
            if asked is not None:
                snapshot.db.execute(f"DELETE FROM {table.name} WHERE {table.per} NOT IN ?", [sorted(asked)])
        yield snapshot


@EACH_FINDING
def test_scoped_equals_whole(name: str, case: Scenario, key: str) -> None:
    (whole,) = (found for found in worlds.full(name, case.world).findings if found.key == key)
    with scoped(case.world, proof.scope([whole], CHECKS)) as snapshot:
        again = [found for found in worlds.answer(name, snapshot).findings if found.key == key]
        assert [(dict(found.row), found.state) for found in again] == [(dict(whole.row), whole.state)]


@cache
def asked_for_another(name: str, world: str) -> dict[str, str]:
    """The state of each finding of a check if every table with a key was asked for another server."""
    snapshot = worlds.built(world)
    with snapshot.supposing():
        snapshot.db.execute(
            "UPDATE ledger SET keys = ['another'] WHERE table_name IN ?", [[t.name for t in tables.TABLES if t.key]]
        )
        return {found.key: found.state for found in worlds.answer(name, snapshot).findings}


@EACH_FINDING
def test_a_reading_that_was_asked_for_another_server_proves_nothing(name: str, case: Scenario, key: str) -> None:
    states = asked_for_another(name, case.world)
    if any(tables.BY_NAME[table].key for table in tables_read(CHECKS[name].query)):
        assert states.get(key, "unproven") == "unproven"
    else:
        (whole,) = (found for found in worlds.full(name, case.world).findings if found.key == key)
        assert not whole.server, "who is no server's is asked for by no server"
        assert not whole.also


# ----------------------------------------------------------------------------------------------- innocent worlds


@pytest.fixture(scope="module")
def accused() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Every finding in every innocent world that stands on no rung, by the world's name."""
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {world: [] for world in worlds.ALL}
    for number, snapshot in enumerate(worlds.together()):
        with snapshot.supposing():
            keep(snapshot)
            for name in worlds.asked(number):
                for row in snapshot.rows(settled(name)):
                    if row["rung"] is None:
                        found[worlds.where(row["key"])].append((name, row))
    return found


@pytest.mark.parametrize("world", INNOCENT)
def test_the_innocent_are_left_alone(world: str, accused: dict[str, list[tuple[str, dict[str, Any]]]]) -> None:
    assert [(name, row["key"]) for name, row in accused[world]] == []


@pytest.mark.parametrize("world", YOUNG)
def test_the_young_are_given_time(world: str, accused: dict[str, list[tuple[str, dict[str, Any]]]]) -> None:
    assert accused[world], "it is innocent without its youth, and belongs among the others"
    for name, row in accused[world]:
        if row["by_hand"] is None:
            assert row["since"] is None or NOW - row["since"] < CHECKS[name].settle, (name, row["key"])


@pytest.mark.parametrize("share", range(SHARES))
def test_the_innocent_stay_so_when_less_is_seen(share: int) -> None:
    """Each world loses one part after the other, and all of them at once: nobody is accused for what was not heard.

    All worlds lose something at the same time, which costs one query for all of them; whatever is found then is judged
    in its own world.
    """
    suspects: set[tuple[str, str, Worlds]] = set()
    for number, snapshot in enumerate(worlds.together()):
        homes = {worlds.where(part) for table, part in worlds.parts(snapshot) if tables.BY_NAME[table].per == "host"}
        if homes <= set(SCENARIOS):
            continue
        read = {name: tables_read(CHECKS[name].query) for name in worlds.asked(number)}
        for lost in islice(rounds(snapshot, frozenset().union(*read.values())), share, None, SHARES):
            with worlds.without(snapshot, lost):
                keep(snapshot)
                touched = [name for name in read if any(table in read[name] for table, _ in lost)]
                for name in touched:
                    for row in snapshot.rows(settled(name)):
                        world = worlds.where(row["key"])
                        if world in SCENARIOS:
                            continue
                        own = {at for at in lost if at[0] in read[name] and own_part(at[1], world)}
                        if not own:
                            continue
                        alone = frozenset((table, re.sub(r"^w\d+-", "", part)) for table, part in own)
                        suspects.add((name, world, alone))
    for name, world, lost in sorted(suspects, key=repr):
        assert_less(name, worlds.ALL[world], sorted(lost))


Worlds = frozenset[tuple[str, str]]


def own_part(part: str, world: str) -> bool:
    """Whether a part of `together` is one of this world's, or one that all share."""
    return re.match(r"w\d+-", part) is None or worlds.where(part) == world


def rounds(snapshot: Snapshot, read: Iterable[str]) -> Iterator[Worlds]:
    filled = sorted(worlds.filled_parts(snapshot, read))
    for per in ("api", "cloud"):
        yield from (frozenset([at]) for at in filled if tables.BY_NAME[at[0]].per == per)
    filled = [at for at in filled if not re.match(r"w\d+-", at[1]) or worlds.where(at[1]) not in SCENARIOS]
    queues: dict[str, list[tuple[str, str]]] = {}
    for table, part in filled:
        if tables.BY_NAME[table].per in ("cell", "host"):
            queues.setdefault(worlds.where(part), []).append((table, part))
    for turn in range(max(map(len, queues.values()), default=0)):
        yield frozenset(queue[turn] for queue in queues.values() if turn < len(queue))
    for per in ("cell", "host"):
        of_kind = [at for at in filled if tables.BY_NAME[at[0]].per == per]
        yield frozenset(of_kind)
        for table in sorted({table for table, _ in of_kind}):
            yield frozenset(at for at in of_kind if at[0] == table)


# ---------------------------------------------------------------------------------------------------- the engine


def test_no_check_reads_what_only_the_engine_may() -> None:
    for check in CHECKS.values():
        assert not set(tables_read(check.query)) & OWN
        assert set(tables_read(check.query)) <= set(tables.BY_NAME)


def test_a_check_is_told_apart_by_its_file() -> None:
    names = list(CHECKS)
    assert names == sorted(names)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", name) for name in names)
