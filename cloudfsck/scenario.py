"""Read a scenario's world, written as plain text tables, into a snapshot.

A line at the outer margin opens a table: its name, then its columns.  A deeper line is a row of it.  Words stand for
themselves, `-` for NULL, `[a,b]` for a list, and -2h (s, m, h, d) for a time that long before NOW.  More lines:

    hosts cell1  c1 c2        c1 and c2 are hosts of cell1: mapped, with a live nova-compute, compute node and a disk
                              of their own
    lost  libvirt_domains c2  that part of that table could not be read
    clock host:c2  -5m        the clock of c2 is five minutes slow; cell:cell1 is the clock of a cell's database

What is not named was read, and is empty.  The cells that are named are Nova's cells; the newest change in a directory
is when it changed.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent

import pyarrow as pa

from cloudfsck import tables
from cloudfsck.model import Piece
from cloudfsck.snapshot import Snapshot

#: The moment at which every scenario plays.
NOW = dt.datetime(2026, 1, 1, 12, 0, 0)

_EPOCH = dt.datetime(1970, 1, 1)
_AGO = re.compile(r"-(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Rows = dict[str, list[dict[str, str | None]]]


@dataclass(frozen=True)
class World:
    """What a world says: the rows of its tables, the parts of tables that are lost, and the clocks that are wrong."""

    rows: Rows
    lost: frozenset[tuple[str, str]] = frozenset()
    clocks: Mapping[str, dt.datetime] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, frozenset[str]]:
        """The parts in which its tables come, by what they are parts of."""
        cells, hosts = _parts(self.rows, "cell") or {"cell1"}, _parts(self.rows, "host")
        return {
            **{per: frozenset({part}) for per, part in tables.SINGLE.items()},
            "cell": frozenset(cells),
            "host": frozenset(hosts),
            "backend": frozenset(_parts(self.rows, "backend")),
            "copy": frozenset(_parts(self.rows, "copy")),
        }


def build(world: str) -> Snapshot:
    return fill(read(world))


def fill(world: World) -> Snapshot:
    """The snapshot of a world that was read."""
    snapshot = Snapshot.create()
    snapshot.add(_piece(table, part, world) for table in tables.TABLES for part in sorted(world.parts[table.per]))
    return snapshot


def read(world: str) -> World:
    """A world from its text.  Raises ValueError on a line that is none of the above."""
    rows: Rows = {}
    lost = set()
    clocks = {}
    table, columns = "", [""]
    for line in filter(str.strip, dedent(world).splitlines()):
        words = line.split()
        if line[0] == " ":
            if len(words) != len(columns):
                raise ValueError(f"{len(columns)} columns, but {len(words)} values: {line.strip()}")
            rows[table].append({name: None if word == "-" else word for name, word in zip(columns, words, strict=True)})
        elif words[0] == "hosts":
            _hosts(rows, words[1], words[2:])
        elif words[0] == "lost":
            lost.add((words[1], words[2] if len(words) > 2 else ""))
        elif words[0] == "clock":
            clocks[words[1]] = _time(words[2])
        else:
            table, *columns = words
            known = {column.name for column in tables.BY_NAME[table].columns}
            if not set(columns) <= known:
                raise ValueError(f"{table} has no {', '.join(sorted(set(columns) - known))}")
            rows.setdefault(table, [])
    _map_cells(rows)
    for row in rows.get("instance_dirs", []):
        if row.get("changed") and not row.get("newest"):
            row["newest"] = str(1000 * ((_time(str(row["changed"])) - _EPOCH) // dt.timedelta(microseconds=1)))
    return World(rows, frozenset(lost), clocks)


def _hosts(rows: Rows, cell: str, names: list[str]) -> None:
    def put(table: str, **row: str | None) -> None:
        rows.setdefault(table, []).append(row)

    for name in names:
        put("nova_host_mappings", host=name, cell_id=cell)
        put("nova_services", cell=cell, host=name, binary="nova-compute", last_seen_up="-1s", forced_down="false",
            deleted="0")  # fmt: skip
        put("nova_compute_nodes", cell=cell, id=str(len(rows.get("nova_compute_nodes", [])) + 1), host=name,
            hypervisor_hostname=name, hypervisor_type="QEMU", deleted="0")  # fmt: skip
        put("hypervisors", host=name, hostname=name)
        put("instances_paths", host=name, path="/i", real="/i", fstype="ext4", local="true")


def _map_cells(rows: Rows) -> None:
    """Cells are named by their names everywhere in a world; here they get the numbers that Nova gives them."""
    numbers = {name: str(number) for number, name in enumerate(sorted(_parts(rows, "cell") or {"cell1"}), start=1)}
    rows.setdefault("nova_cell_mappings", [
        {"id": number, "uuid": name, "name": name, "cell": name} for name, number in numbers.items()
    ])  # fmt: skip
    for table in ("nova_host_mappings", "nova_instance_mappings"):
        for row in rows.get(table, []):
            cell = row.get("cell_id")
            if cell is not None:
                row["cell_id"] = numbers[cell]


def _parts(rows: Rows, per: str) -> set[str]:
    return {
        part for name, many in rows.items() if tables.BY_NAME[name].per == per for row in many if (part := row.get(per))
    }


def _piece(table: tables.Table, part: str, world: World) -> Piece:
    clock = world.clocks.get(f"{table.per}:{part}", NOW)
    if (table.name, part) in world.lost:
        return Piece(table.name, part, None, "blanked out", clock, NOW, NOW)
    mine = [row for row in world.rows.get(table.name, []) if not table.part or row[table.part] == part]
    names = [column.name for column in table.columns if column.name != table.part]
    columns = {name: pa.array([value(row.get(name)) for row in mine], pa.string()) for name in names}
    return Piece(table.name, part, pa.table(columns), None, clock, NOW, NOW)


def value(word: str | None) -> str | None:
    """What DuckDB is given for a word of a world."""
    return str(_time(word)) if word and _AGO.fullmatch(word) else word


def _time(word: str) -> dt.datetime:
    ago = _AGO.fullmatch(word)
    if ago is None:
        raise ValueError(f"{word!r} is no time before NOW, like -2h")
    return NOW - dt.timedelta(**{_UNITS[ago[2]]: int(ago[1])})


def plain(text: str) -> str:
    """A query or a world as it would be written at the margin."""
    return dedent(text).strip()
