"""The worlds that the laws are held against: every scenario, every innocent look-alike, and all of them as one cloud.

A world is built once.  Who changes it does so inside `supposing`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cloudfsck import checking, checks, scenario, tables
from cloudfsck.model import Act, Answer, Check, Finding, Scenario
from cloudfsck.snapshot import Snapshot

CHECKS: dict[str, Check] = checks.load()

SCENARIOS: dict[str, tuple[str, Scenario]] = {
    f"{name}: {case.title}": (name, case) for name, check in CHECKS.items() for case in check.scenarios
}

INNOCENT_FOLDER = Path(__file__).parent / "innocent"

#: Parts of the snapshot, as (table, part).
Parts = frozenset[tuple[str, str]]


def split(text: str) -> tuple[str, str]:
    """What the first lines (`# …`) of an innocent world say of it, and the world itself."""
    lines = text.splitlines()
    count = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.lstrip("# ") for line in lines[:count]), "\n".join(lines[count:])


def _worlds(folder: Path) -> dict[str, str]:
    return {path.stem: split(path.read_text(encoding="utf-8"))[1] for path in sorted(folder.glob("*.txt"))}


#: Worlds in which everything is well, or under way; and worlds in which what looks wrong is only too young.
INNOCENT: dict[str, str] = _worlds(INNOCENT_FOLDER)
YOUNG: dict[str, str] = _worlds(INNOCENT_FOLDER / "young")


@cache
def built(world: str) -> Snapshot:
    return scenario.build(world)


#: Every world by its name: the innocent, the young and the scenarios.
ALL: dict[str, str] = {**INNOCENT, **YOUNG, **{title: case.world for title, (_, case) in SCENARIOS.items()}}


@cache
def together() -> tuple[Snapshot, ...]:
    """All worlds as a few large clouds: those without settings of their own as one, and each of the others alone.

    No name of a host, a cell or a server occurs in two of them, so that they cannot touch each other.
    """
    apart, rows = [], scenario.Rows()
    clocks: dict[str, dt.datetime] = {}
    for number, text in enumerate(ALL.values()):
        world = _renamed(scenario.read(text), number)
        if "settings" in world.rows or world.lost:
            apart.append(scenario.fill(world))
            continue
        for table, many in world.rows.items():
            rows.setdefault(table, []).extend(many)
        clocks |= world.clocks
    return (scenario.fill(scenario.World(rows, clocks=clocks)), *apart)


def where(name: str) -> str:
    """The world to which a key or a host of `together` belongs."""
    return list(ALL)[int(name[1:4])]


def _prefix(number: int) -> str:
    return f"w{number:03}-"


def _renamed(world: scenario.World, number: int) -> scenario.World:
    names = {
        word for table, many in world.rows.items() for row in many for column, word in row.items()
        if word is not None and (column in ("cell", "host") or column in tables.BY_NAME[table].key)
    }  # fmt: skip

    def rename(table: str, column: str, word: str | None) -> str | None:
        if word is None:
            return None
        if column == "cell_id" or (table, column) == ("nova_cell_mappings", "id"):
            return str(100 * number + int(word))
        if word.startswith("target:"):
            return "target:" + str(rename(table, column, word.removeprefix("target:")))
        if word.startswith("["):
            return "[" + ",".join(str(rename(table, "", each)) for each in word[1:-1].split(",")) + "]"
        return _prefix(number) + word if word in names else word

    rows = {
        table: [{column: rename(table, column, word) for column, word in row.items()} for row in many]
        for table, many in world.rows.items()
    }
    lost = frozenset((table, rename("", "", part) or "") for table, part in world.lost)
    clocks = {of.replace(":", ":" + _prefix(number)): clock for of, clock in world.clocks.items()}
    return scenario.World(rows, lost, clocks)


@contextmanager
def without(snapshot: Snapshot, parts: Iterable[tuple[str, str]]) -> Iterator[None]:
    """The snapshot as it would be if these parts could not have been read."""
    of_table: dict[str, list[str]] = {}
    for name, part in parts:
        of_table.setdefault(name, []).append(part)
    with snapshot.supposing():
        for name, lost in of_table.items():
            column = tables.BY_NAME[name].part
            if column:
                snapshot.db.execute(f"DELETE FROM {name} WHERE {column} IN ?", [lost])
            else:
                snapshot.db.execute(f"DELETE FROM {name}")
            snapshot.db.execute(
                "UPDATE ledger SET whole = FALSE, why = 'blanked out' WHERE table_name = ? AND part IN ?", [name, lost]
            )
        yield


def parts(snapshot: Snapshot) -> Parts:
    return frozenset(snapshot.db.execute("SELECT table_name, part FROM ledger").fetchall())


def filled_parts(snapshot: Snapshot, names: Iterable[str]) -> Parts:
    """The parts in which there is anything at all."""
    found = set()
    for name in names:
        column = tables.BY_NAME[name].part
        single = {"api": tables.API, "cinder": tables.CINDER}.get(tables.BY_NAME[name].per, "")
        part = f'"{column}"' if column else f"'{single}'"
        found |= {(name, part) for (part,) in snapshot.db.execute(f"SELECT DISTINCT {part} FROM {name}").fetchall()}
    return frozenset(found)


def contents(snapshot: Snapshot) -> dict[str, list[str]]:
    """Every row of every table, without regard to order."""
    return {
        table.name: sorted(map(repr, snapshot.db.execute(f"SELECT * FROM {table.name}").fetchall()))
        for table in tables.TABLES
    }


def answer(name: str, snapshot: Snapshot) -> Answer:
    return checking.run(name, CHECKS[name], snapshot)


@cache
def full(name: str, world: str) -> Answer:
    """What a check says of a world as it is."""
    return answer(name, built(world))


def by_key(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.key)


def acts(check: Check, findings: Iterable[Finding]) -> list[Act]:
    """What the check would do about the findings, in the order of their keys."""
    if check.repair is None:
        return []
    able = (finding for finding in by_key(findings) if finding.row["by_hand"] is None and finding.state != "unproven")
    return [act for finding in able for act in check.repair(finding.row)]


def clear(row: Mapping[str, Any]) -> bool:
    """Whether a row of a query is a fault: not by hand, not held."""
    return row["by_hand"] is None and row["rung"] is None
