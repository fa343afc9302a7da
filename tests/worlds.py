"""The worlds that the laws are held against: every scenario, every innocent look-alike, and all of them as one cloud.

A world is built when it is first asked for, and the few that were asked for last are kept: the tests of one world
follow one another (conftest.py).  Who changes a world does so inside `supposing`.
"""

from __future__ import annotations

import re
import uuid
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


#: Each takes a few megabytes.
_KEPT = 16
_BUILT: dict[str, Snapshot] = {}


def built(world: str) -> Snapshot:
    """The snapshot of a world; only until _KEPT others were asked for."""
    snapshot = _BUILT.pop(world, None)
    if snapshot is None:
        snapshot = scenario.build(world)
        snapshot.db.execute("PRAGMA disable_optimizer")
    while len(_BUILT) >= _KEPT:
        _BUILT.pop(next(iter(_BUILT))).close()
    _BUILT[world] = snapshot
    return snapshot


@cache
def filled(world: str) -> frozenset[str]:
    """The tables of a world in which there is anything."""
    return frozenset(table for table, many in scenario.read(world).rows.items() if many)


#: Every world by its name: the innocent, the young and the scenarios.
ALL: dict[str, str] = {**INNOCENT, **YOUNG, **{title: case.world for title, (_, case) in SCENARIOS.items()}}


@cache
def together() -> tuple[Snapshot, ...]:
    """All worlds as a few large clouds: those of one configuration that have lost the same as one, those that were
    heard whole and are of no configuration first.

    No name of a host, a cell or a server occurs in two of them, so that they cannot touch each other.
    """
    alike: dict[object, list[scenario.World]] = {(): []}
    for number, text in enumerate(ALL.values()):
        world = _renamed(scenario.read(text), number)
        alike.setdefault(_kind(world), []).append(world)
    return tuple(scenario.fill(_merged(many)) for many in alike.values())


@cache
def asked(number: int) -> tuple[str, ...]:
    """The checks that have somebody to accuse in one of the clouds of `together`: the engine asks no other."""
    return tuple(name for name, check in CHECKS.items() if any(has_rows(together()[number], check.accused)))


def has_rows(snapshot: Snapshot, names: Iterable[str]) -> Iterator[bool]:
    """Whether there is anything, table by table."""
    for name in names:
        yield snapshot.db.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() is not None


def is_plain(text: str) -> bool:
    """Whether a world is one of the first cloud of `together`: of no configuration, and heard whole."""
    return _kind(scenario.read(text)) == ()


def _kind(world: scenario.World) -> object:
    """What worlds must have in common to be one cloud: Nova's settings, Keystone's catalog and projects, whether they
    have an NSX and ML2, and DHCP agents, what is lost that they all share, and whether all hosts and cells were heard
    that there are: where one was not, nothing is proven that rests on all."""
    shared = frozenset((table, part) for table, part in world.lost if tables.BY_NAME[table].part is None)
    of_all = ["settings", "keystone_services", "keystone_endpoints"]
    # Whose Keystone it is shows in its projects; those of NSX have no server, and one does not touch the other.
    of_all += [] if world.rows.get("nsx_objects") else ["keystone_projects"]
    settings = sorted(repr(row) for table in of_all for row in world.rows.get(table, ()))
    if world.rows.get("nsx_objects"):
        settings.append("NSX beside ML2" if world.rows.get("neutron_network_segments") else "NSX")
    if world.rows.get("neutron_dhcp_agent_networks"):
        settings.append("DHCP agents")
    there = {row.get("host") for row in world.rows.get("roster", ())} - world.parts["host"]
    there |= {row.get("cell") for row in world.rows["nova_cell_mappings"]} - world.parts["cell"]
    heard = not world.lost and not there
    return () if heard and not settings else (tuple(settings), shared, heard)


def _merged(worlds: list[scenario.World]) -> scenario.World:
    rows = scenario.Rows()
    for world in worlds:
        for table, many in world.rows.items():
            rows.setdefault(table, []).extend(many)
    if "settings" in rows:
        rows["settings"] = worlds[0].rows["settings"]
    clocks = {of: clock for world in worlds for of, clock in world.clocks.items()}
    return scenario.World(rows, frozenset().union(*(world.lost for world in worlds)), clocks)


def where(name: str) -> str:
    """The world to which a key or a host of `together` belongs."""
    found = re.search(r"w(\d{3})-", name)
    assert found, f"{name} has no world"
    return list(ALL)[int(found[1])]


def _prefix(number: int) -> str:
    return f"w{number:03}-"


#: Columns beside the keys in which there are names, by what a table is read from; and what of a path is one.
_NAMING: dict[tables.Per, tuple[str, ...]] = {
    "cell": ("hostname", "uuid", "hypervisor_hostname"),
    "cinder": ("project_id",),
    "designate": ("id", "zone_id", "name"),
    "neutron": ("project_id", "dns_domain", "subnet_id"),
    "neutron_nsx": ("phy_uuid",),
    "keystone": ("id",),
    "octavia": ("project_id",),
    "placement": ("uuid",),
    "nsx": ("id", "neutron", "project", "attachment"),
    "copy": ("hostname", "address", "pointer", "zone"),
}
_ID = re.compile(r"[a-z]{1,3}-\d+.*")

#: The device_id of a DHCP agent's port: the host, the network and the segment.
_DHCP = re.compile(r"dhcp([0-9a-f-]{36})-([a-z]-\d+)(-\d+)?")

#: What may stand before the name of a volume, of a network or segment, or of a server.
_BEFORE_NAMES = ("target:", "ovnmeta-", "made-by-cloudfsck-for-server:")


def _renamed(world: scenario.World, number: int) -> scenario.World:
    names = {
        word for table, many in world.rows.items() for row in many for column, word in row.items()
        if word is not None
        and (column in ("cell", "host", "backend", "cinder", "copy") or column in tables.BY_NAME[table].key
             or column in _NAMING.get(tables.BY_NAME[table].per, ()))
    }  # fmt: skip
    names |= {part for word in names if word.startswith("/") for part in word.split("/") if _ID.fullmatch(part)}
    of_dhcp = {_host_uuid(word): _host_uuid(_prefix(number) + word) for word in names}
    names |= {word.removeprefix(what) for word in names for what in _BEFORE_NAMES if word.startswith(what)}

    def rename(table: str, column: str, word: str | None) -> str | None:
        if word is None:
            return None
        if column == "cell_id" or (table, column) == ("nova_cell_mappings", "id"):
            return str(100 * number + int(word))
        for what in _BEFORE_NAMES:
            if word.startswith(what):
                return what + str(rename(table, column, word.removeprefix(what)))
        labels = word.split(".")
        zones = (".".join(labels[place:]) for place in range(1, len(labels) - 1) if word.endswith("."))
        if zone := next((one for one in zones if one in names), None):
            below = word.removesuffix(f".{zone}")  # a wildcard remains one
            return f"{'' if below.startswith('*') else _prefix(number)}{below}.{rename(table, column, zone)}"
        if column == "device_id" and (dhcp := _DHCP.fullmatch(word)):
            host, network, segment = dhcp.groups(default="")
            return f"dhcp{of_dhcp.get(host, host)}-{rename(table, '', network)}{segment}"
        if column in ("host", "cinder") and "@" in word:
            host, _, backend = word.partition("@")
            return f"{_prefix(number)}{host}@{_prefix(number)}{backend}"
        if word.startswith("/") and word in names:
            return "/".join(_prefix(number) + part if part in names else part for part in word.split("/"))
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


def _host_uuid(host: str) -> str:
    """How Neutron names a DHCP agent's host (neutron/common/utils.py: get_dhcp_agent_device_id)."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, host.split(".")[0]))


@contextmanager
def without(
    snapshot: Snapshot, parts: Iterable[tuple[str, str]], holding: frozenset[str] | None = None
) -> Iterator[None]:
    """The snapshot as it would be if these parts could not have been read.  `holding` are its tables in which there is
    anything, where that is known: no other needs to be emptied."""
    of_table: dict[str, list[str]] = {}
    for name, part in parts:
        of_table.setdefault(name, []).append(part)
    with snapshot.supposing():
        for name, lost in of_table.items():
            column = tables.BY_NAME[name].part
            if holding is not None and name not in holding:
                continue
            if column:
                snapshot.db.execute(f"DELETE FROM {name} WHERE {column} IN ?", [lost])
            else:
                snapshot.db.execute(f"DELETE FROM {name}")
        snapshot.db.execute(
            "UPDATE ledger SET whole = FALSE, why = 'blanked out'"
            " WHERE list_contains(?, table_name || chr(10) || part)",
            [[f"{name}\n{part}" for name, many in of_table.items() for part in many]],
        )
        yield


def parts(snapshot: Snapshot) -> Parts:
    return frozenset(snapshot.db.execute("SELECT table_name, part FROM ledger").fetchall())


def filled_parts(snapshot: Snapshot, names: Iterable[str]) -> Parts:
    """The parts in which there is anything at all."""
    found = set()
    for name in names:
        column = tables.BY_NAME[name].part
        part = f'"{column}"' if column else f"'{tables.SINGLE[tables.BY_NAME[name].per]}'"
        found |= {(name, part) for (part,) in snapshot.db.execute(f"SELECT DISTINCT {part} FROM {name}").fetchall()}
    return frozenset(found)


def contents(snapshot: Snapshot) -> dict[str, list[str]]:
    """Every row of every table that has any, without regard to order."""
    counts = " UNION ALL ".join(f"SELECT '{table.name}', count(*) FROM {table.name}" for table in tables.TABLES)
    return {
        name: sorted(map(repr, snapshot.db.execute(f"SELECT * FROM {name}").fetchall()))
        for name, count in snapshot.db.execute(counts).fetchall() if count
    }  # fmt: skip


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
