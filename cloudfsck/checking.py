"""Run a check over a snapshot.  Pure: the same snapshot gives the same answer.

A finding stands only on what was heard: each row says which hosts and cells could acquit it, and unless every table
that the query reads was read whole there, the finding is unproven.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudfsck import tables
from cloudfsck.model import ALSO, BACKENDS, GIVEN, Answer, Check, Finding, Gap, Row, State, Trouble, Unknown, copies
from cloudfsck.snapshot import Heard, Snapshot, tables_read

Known = Mapping[tables.Per, list[str]]


def run(name: str, check: Check, snapshot: Snapshot) -> Answer:
    """The answer of one check.  Raises Trouble if the query is not one that can be trusted."""
    return run_all({name: check}, snapshot)[name]


def run_all(checks: Mapping[str, Check], snapshot: Snapshot) -> dict[str, Answer]:
    return {answer.check: answer for answer in answers(checks, snapshot)}


def answers(checks: Mapping[str, Check], snapshot: Snapshot) -> Iterator[Answer]:
    """The answer of each check in turn; what all of them need to know of the snapshot is asked once."""
    heard = snapshot.heard()
    known = _known(snapshot, heard)
    rows: dict[str, int] = {}
    for table in {table for check in checks.values() for table in check.accused}:
        rows[table] = int(snapshot.rows(f"SELECT count(*) AS rows FROM {table}")[0]["rows"])
    for name, check in checks.items():
        yield _answer(name, check, snapshot, heard, known, sum(rows[table] for table in check.accused))


def _answer(name: str, check: Check, snapshot: Snapshot, heard: Heard, known: Known, looked_at: int) -> Answer:
    read = tables_read(check.query)
    gaps = _gaps(read, heard)
    expected = sum(len(heard.parts(table)) or 1 for table in read)
    findings: list[Finding] = []
    if looked_at and not read - heard.tables:  # where there is nobody to accuse, there is nothing to ask
        for row in snapshot.rows(check.query):
            missing = [column for column in GIVEN if column not in row]
            if missing:
                raise Trouble(f"the query of {name} does not select {', '.join(missing)}")
            findings.append(_finding(name, check, row, read, heard, known))
    unknown = Unknown(name, tuple(gaps)) if gaps else None
    return Answer(name, tuple(findings), unknown, looked_at, expected, expected - len(gaps))


def _gaps(read: frozenset[str], heard: Heard) -> list[Gap]:
    """What the check could not look at."""
    never = [Gap(table, "", "was not read") for table in sorted(read - heard.tables)]
    return never + [gap for (table, _), gap in sorted(heard.gaps.items()) if table in read]


def _known(snapshot: Snapshot, heard: Heard) -> Known:
    """The hosts and cells that there are, whether or not anybody asked them."""
    known: dict[tables.Per, set[str]] = {
        "host": {row["host"] for row in snapshot.rows("SELECT host FROM roster WHERE libvirt")},
        "cell": {row["cell"] for row in snapshot.rows("SELECT cell FROM nova_cell_mappings")},
    }
    for table in tables.TABLES:
        if table.per in known:
            known[table.per] |= heard.parts(table.name)
    return {per: sorted(parts) for per, parts in known.items()}


def _finding(name: str, check: Check, row: Row, read: frozenset[str], heard: Heard, known: Known) -> Finding:
    lacking = _lacking(row, read, heard, known)
    held = row["rung"] is not None
    state: State = "unproven" if lacking else "held" if held else "seen"
    why = ""
    if lacking:
        others = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        why = f"who could acquit it was not heard: {lacking[0]}{others}"
    risk = "by-hand" if row["by_hand"] is not None else check.risk
    return Finding(name, str(next(iter(row.values()))), risk, state, row, why)


def _lacking(row: Row, read: frozenset[str], heard: Heard, known: Known) -> list[Gap]:
    """Every part that could acquit the row and was not heard, on any of the tables that the query reads."""
    # What is nobody's is asked for by no UUID, and no keyed table can speak for it.
    ids = {str(one) for one in (row["server"], *(row.get(ALSO) or ())) if one is not None} or {""}
    lacking = []
    for table in sorted(read):
        parts = _parts(tables.BY_NAME[table].per, row, heard, known)
        if parts is None:
            per = tables.BY_NAME[table].per
            lacking.append(Gap(table, "", f"it is not known which {per}s there are, and every one counts"))
            continue
        lacking += [gap for part in parts if (gap := heard.lacks(table, part, ids))]
    return lacking


def _parts(per: tables.Per, row: Row, heard: Heard, known: Known) -> list[str] | None:
    """The parts of a table that the row rests on; None when they cannot be named."""
    if per in tables.SINGLE:
        return [tables.SINGLE[per]]
    if per == "backend":
        return sorted(row[BACKENDS])
    if per == "copy":
        return sorted(copies(row[ALSO]))
    named = row["hosts"] if per == "host" else row["cells"]
    if named is not None and None not in named:
        return sorted(named)
    everybody = known[per]
    listed = heard.lacks("roster", "", ()) if per == "host" else heard.lacks("nova_cell_mappings", tables.API, ())
    return everybody if everybody and listed is None else None
