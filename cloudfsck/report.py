"""What a reading, a plan or a run came to, as JSON and as text that a person can act on.  It decides nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from cloudfsck import acts, plan
from cloudfsck.config import Config
from cloudfsck.journal import Entry
from cloudfsck.model import ALSO, BACKENDS, GIVEN, Act, Check, Finding, Gap, Row
from cloudfsck.proof import Foreign, Verdict, words
from cloudfsck.state import utcnow

VERSION = 1

#: How many domains that are none of ours are named in the text.
NAMED = 10

_COLOURS = {"proven": "bold red", "seen": "yellow", "unproven": "magenta", "held": "cyan"}
#: Evidence that only a program reads.
_DETAIL = frozenset({"inode", "device", "newest", "uid", "gid", "mode", "xml_sha256", "run"})
_ENDS = {"done": "green", "moved": "yellow", "refused": "yellow", "failed": "bold red", "unknown": "bold magenta"}


# ------------------------------------------------------------------------------------------------ JSON


def check_json(verdict: Verdict, checks: Mapping[str, Check], config: Config, snapshot: str) -> dict[str, Any]:
    """The answer of `check`; docs/check.schema.json says what each part means."""
    return {
        "schema_version": VERSION,
        "cloud": config.cloud.name,
        "run": verdict.run,
        "taken_at": _time(verdict.taken_at),
        "snapshot": snapshot,
        "findings": findings_json([one for one in verdict.findings if one.state != "held"], checks),
        "held": [_held(one, checks[one.check], verdict, config) for one in verdict.findings if one.state == "held"],
        "acquitted": [
            {"kind": one.hold.kind, "host": one.hold.host, "server": one.hold.server, "rung": one.hold.rung,
             "since": _time(one.hold.since), "run": one.hold.run, "why": one.why}
            for one in verdict.acquitted
        ],
        "unknown": [
            {"check": name, "table": gap.table, "part": gap.part, "why": gap.why}
            for name, answer in verdict.answers.items()
            if answer.unknown
            for gap in answer.unknown.gaps
        ],
        "gaps": [{"table": gap.table, "part": gap.part, "why": gap.why} for gap in verdict.gaps],
        "foreign": [vars(domain) for domain in verdict.foreign],
        "coverage": [
            {"check": name, "title": checks[name].title, "risk": checks[name].risk, "parts": answer.parts,
             "heard": answer.heard, "looked_at": answer.looked_at}
            for name, answer in verdict.answers.items()
        ],
        "skipped": [{"check": name, "why": why} for name, why in sorted(config.left_out(checks).items())],
        "gone": [{"host": name, "why": why} for name, why in sorted(config.hosts.gone.items())],
        "stops": list(verdict.stops),
    }  # fmt: skip


def findings_json(findings: Sequence[Finding], checks: Mapping[str, Check]) -> list[dict[str, Any]]:
    return [_finding(one, checks[one.check]) for one in findings]


def checks_json(checks: Mapping[str, Check]) -> list[dict[str, Any]]:
    return [
        {"check": name, "title": check.title, "risk": check.risk, "settle_seconds": int(check.settle.total_seconds()),
         "limit": check.limit, "share": check.share, "text": check.text.strip(), "accused": list(check.accused)}
        for name, check in checks.items()
    ]  # fmt: skip


def done_json(entry: plan.Entry, outcome: str, why: str) -> dict[str, Any]:
    return {
        "n": entry.number,
        "text": str(entry.act),
        "check": entry.check,
        "key": entry.key,
        "outcome": outcome,
        "why": why,
    }


def _finding(finding: Finding, check: Check) -> dict[str, Any]:
    row = finding.row
    return {
        "check": finding.check,
        "key": finding.key,
        "state": finding.state,
        "why": finding.why or None,
        "risk": finding.risk,
        "by_hand": row["by_hand"],
        "server": finding.server,
        "since": _time(row["since"]),
        "first_seen": _time(finding.first_seen),
        "rests_on": {"hosts": row["hosts"], "cells": row["cells"]},
        "evidence": {name: _plain(value) for name, value in finding.evidence.items()},
        "would": [{"text": str(act), "undo": act.undoing} for act in steps(finding, check)],
        "commands": commands(finding, check),
    }


def _held(finding: Finding, check: Check, verdict: Verdict, config: Config) -> dict[str, Any]:
    row = finding.row
    return {
        "check": finding.check,
        "key": finding.key,
        "server": finding.server,
        "rung": row["rung"],
        "since": _time(row["rung_since"]),
        "until": _time(_until(row, config)),
        "due": (finding.check, finding.key) in verdict.due,
        "next": [{"text": str(act), "undo": act.undoing, "purge": act.destroys} for act in steps(finding, check)],
        "evidence": {name: _plain(value) for name, value in finding.evidence.items()},
    }


def steps(finding: Finding, check: Check) -> list[Act]:
    """What the repair of a finding would do next; nothing where only a person may."""
    if check.repair is None or finding.risk == "by-hand":
        return []
    return list(check.repair(finding.row))


def commands(finding: Finding, check: Check) -> list[str]:
    """What a person would type, and where, who decides what no program may."""
    if finding.risk != "by-hand":
        return []
    if check.commands is not None:
        return list(check.commands(finding.row))
    return [f"on {act.host}: {act.command}" for act in check.repair(finding.row)] if check.repair else []


def _until(row: Row, config: Config) -> dt.datetime:
    since: dt.datetime = row["rung_since"] or utcnow()  # a broken quarantine does not say since when
    return since + config.ladder.time(str(row["rung"]))


def _time(value: object) -> str | None:
    return f"{value.replace(microsecond=0).isoformat()}Z" if isinstance(value, dt.datetime) else None


def _plain(value: Any) -> Any:
    return _time(value) if isinstance(value, dt.datetime) else value


# ------------------------------------------------------------------------------------------------ text


def check_text(verdict: Verdict, checks: Mapping[str, Check], config: Config) -> Text:
    """What is wrong, where, since when, how sure, and what would be done."""
    faults = [finding for finding in verdict.findings if finding.state != "held"]
    held = [finding for finding in verdict.findings if finding.state == "held"]
    lines: list[Text] = []
    for name, check in checks.items():
        mine = [finding for finding in faults if finding.check == name]
        if mine:
            lines.append(Text.assemble((check.title, "bold"), (f"  [{name}]", "dim")))
            lines += [line for finding in mine for line in _fault(finding, check)]
            lines.append(Text())
    if held:
        lines.append(Text("Held, where cloudfsck has put it:", "bold"))
        lines += [_hold(finding, checks[finding.check], verdict, config) for finding in held]
        lines.append(Text())
    if verdict.acquitted:
        lines.append(Text("Held, and no longer condemned:", "bold yellow"))
        lines += [
            Text(f"  {one.hold.rung:12}{one.hold.host}/{one.hold.server}  {one.why}") for one in verdict.acquitted
        ]
        lines.append(Text())
    if verdict.gaps:
        lines.append(Text("Could not be read, and nothing is said of what rests on it:", "bold magenta"))
        lines += [*gaps_text(verdict.gaps), Text()]
    lines += [Text(f"Nothing is repaired: {stop}", "bold red") for stop in verdict.stops]
    left_out = config.left_out(checks)
    for why in dict.fromkeys(left_out.values()):
        names = sorted(name for name, reason in left_out.items() if reason == why)
        lines.append(Text(f"Skipped: {', '.join(names)}: {why}", "dim"))
    lines += [Text(f"Not asked: {name}, gone: {why}", "dim") for name, why in sorted(config.hosts.gone.items())]
    if verdict.foreign:
        lines.append(_foreign(verdict.foreign))
    lines.append(_sum(verdict, faults, held, config))
    return Text("\n").join(lines)


def _fault(finding: Finding, check: Check) -> list[Text]:
    row = finding.row
    since = row["since"] or finding.first_seen
    age = f", for {words(utcnow() - since)}" if since else ""
    lines = [
        Text.assemble(
            "  ", (finding.state, _COLOURS[finding.state]), f"{age}  ", (finding.key, "bold"), f"  {_called(row)}"
        ),
        Text(f"    {_facts(row)}", "dim"),
    ]
    if finding.why:
        lines.append(Text(f"    {finding.why}", "magenta" if finding.state == "unproven" else "yellow"))
    if finding.risk == "by-hand":
        why = row["by_hand"] or "no program repairs this"
        lines.append(Text(f"    by hand: {why}"))
        lines += [Text(f"    whoever is sure may type, {command}") for command in commands(finding, check)]
    for act in steps(finding, check):
        lines.append(Text.assemble("    would ", str(act), (f"  ({finding.risk}; undo {act.undoing})", "dim")))
    return lines


def _hold(finding: Finding, check: Check, verdict: Verdict, config: Config) -> Text:
    row = finding.row
    left = _until(row, config) - utcnow()
    act = next(iter(steps(finding, check)), None)
    then = f"{'purge' if act and act.destroys else 'repair'} would {act}" if act else "only a person goes on from here"
    if (finding.check, finding.key) not in verdict.due and left <= dt.timedelta():
        then = finding.why or "its proof was not found again"
    when = "now" if left <= dt.timedelta() else f"in {words(left)}"
    return Text.assemble((f"  {row['rung']:12}", "cyan"), (finding.key, "bold"), f"  {_called(row)}; {when} {then}")


def _called(row: Row) -> str:
    name = row.get("name")
    project = row.get("project")
    return " ".join(filter(None, [str(name) if name else "", f"of project {project}" if project else ""]))


def _facts(row: Row) -> str:
    """The evidence in one line, without what the line above says."""
    said = {"key", "name", "project", *GIVEN, ALSO, BACKENDS, *_DETAIL}
    if str(row["server"]) not in str(row["key"]):
        said.discard("server")
    shown = ((name, _plain(value)) for name, value in row.items() if name not in said and value not in (None, []))
    return ", ".join(f"{name} {_told(value)}" for name, value in shown)


def _told(value: Any) -> str:
    """A value in words: of a list each, and of a thing in it what it has."""
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return " ".join(map(_told, value.values())) if isinstance(value, dict) else str(value)


def gaps_text(gaps: Iterable[Gap]) -> list[Text]:
    """One line a part and reason, however many tables it cost."""
    parts: dict[tuple[str, str], list[str]] = {}
    for gap in gaps:
        parts.setdefault((gap.part or "roster", gap.why), []).append(gap.table)
    lines = []
    for (part, why), names in sorted(parts.items()):
        cost = ", ".join(names) if len(names) < 4 else f"{len(names)} tables"
        lines.append(Text.assemble("  ", (part, "bold"), f"  {why}  ", (f"({cost})", "dim")))
    return lines


def _foreign(domains: Sequence[Foreign]) -> Text:
    named = [f"{one.host}/{one.name or one.uuid}" for one in domains[:NAMED]]
    are = "is" if len(domains) == 1 else "are"
    more = ", …" if len(domains) > NAMED else ""
    return Text(
        f"{_count(len(domains), 'domain')} {are} not known to this Nova, and not judged: {', '.join(named)}{more}",
        "dim",
    )


def _sum(verdict: Verdict, faults: Sequence[Finding], held: Sequence[Finding], config: Config) -> Text:
    proven = sum(finding.state == "proven" for finding in faults)
    clean = not faults and not verdict.gaps
    found = f"{_count(len(faults), 'finding')}, {proven} proven" if faults else "clean" if clean else "no finding"
    parts = f"{verdict.parts - len(verdict.gaps)} of {verdict.parts} parts read"
    said = "; ".join(filter(None, [found, f"{len(held)} held" if held else "", parts]))
    return Text(f"{config.cloud.name}: {said}", "bold green" if clean else "bold")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plan_text(made: plan.Plan) -> Text:
    lines = [
        Text.assemble(str(entry), (f"  ({entry.risk}; undo {entry.act.undoing}) [{entry.check}]", "dim"))
        for entry in made.entries
    ] or [Text("Nothing to do.")]
    lines += [Text(f"left out  {one.key}  [{one.check}]  {one.why}", "dim") for one in made.left_out]
    lines += [Text(f"Nothing is repaired: {stop}", "bold red") for stop in made.stops]
    if made.leaves is not None:
        lines.append(
            Text(f"{_count(len(made.entries), 'act')}; {_count(made.leaves, 'finding')} would be left", "bold")
        )
    return Text("\n").join(lines)


def done_text(entry: plan.Entry, outcome: str, why: str) -> Text:
    return Text.assemble((f"{outcome:8}", _ENDS[outcome]), str(entry), f"  {why}" if why else "")


def runs_text(entries: Mapping[str, Sequence[Entry]]) -> Text:
    return rows_text([
        {"run/act": entry.name, "outcome": entry.outcome or "broke off", "act": str(entry.act),
         "undone by": entry.undone_by}
        for acts_of_run in entries.values()
        for entry in acts_of_run
    ])  # fmt: skip


def runs_json(entries: Mapping[str, Sequence[Entry]]) -> list[dict[str, Any]]:
    return [
        {"run": entry.run, "n": entry.number, "check": entry.check, "key": entry.key, "text": str(entry.act),
         "act": acts.to_json(entry.act), "outcome": entry.outcome, "why": entry.why, "undone_by": entry.undone_by}
        for many in entries.values()
        for entry in many
    ]  # fmt: skip


def rows_text(rows: Sequence[Row]) -> Text:
    """A table as wide as its values: nothing is folded or cut, so that it can be piped on."""
    if not rows:
        return Text("nothing")
    cells = [list(rows[0]), *(["-" if value is None else str(_plain(value)) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return Text("\n").join([Text(lines[0], "dim"), *map(Text, lines[1:])])


def rows_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{name: _plain(value) for name, value in row.items()} for row in rows]
