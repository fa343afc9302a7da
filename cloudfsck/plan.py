"""The acts that would repair what was proven, in order, as a file that a person can read and cut down.

A plan is made from findings alone and never acts; what it leaves out stands in it with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudfsck import acts, checking, files
from cloudfsck.model import Act, Check, Finding, Moved, Trouble
from cloudfsck.proof import Verdict
from cloudfsck.snapshot import Snapshot
from cloudfsck.state import Keep, utcnow

VERSION = 1

#: Domains go first: nothing is taken from under a guest.  What is in something goes before that itself, and the
#: count of it comes after.
_ORDER = (
    "domain", "device", "session", "attachment", "volume", "block_device", "floating_ip", "port", "ovn_port",
    "ovn_object", "ovn_note", "nsx_object", "recordset", "zone", "name", "directory", "allocation", "quota",
)  # fmt: skip

#: Values of an act that are lists; the act itself looks at what is in them.
LISTS = frozenset({"places", "paths", "sessions", "records", "kept", "taken", "addresses", "hostnames"})

#: What a finding may call an object that somebody may have marked, beside the column that says it of a server.
_CALLED = {
    "server": ("volume", "attachment", "port", "floating_ip"),
    "host": ("connected_to", "server_host", "bound_to"),
    "name": ("server_name", "volume_name"),
}


@dataclass(frozen=True)
class Entry:
    """`hosts` are those to be read again right before the act; None: all.  `also` are the UUIDs of volumes, attachments
    and other servers to be read with them."""

    number: int
    check: str
    key: str
    risk: str
    act: Act
    hosts: tuple[str, ...] | None
    also: tuple[str, ...] = ()

    @property
    def case(self) -> str:
        return self.act.server

    def __str__(self) -> str:
        return f"{self.number}. {self.act}"


@dataclass(frozen=True)
class LeftOut:
    check: str
    key: str
    why: str


@dataclass(frozen=True)
class Plan:
    """`leaves` is how many findings the acts would leave, played through on the snapshot; None: not played."""

    cloud: str
    made_at: str
    run: str
    purge: bool
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    stops: tuple[str, ...] = ()
    leaves: int | None = None


def make(
    verdict: Verdict, checks: Mapping[str, Check], cloud: str, *, purge: bool, keeps: Sequence[Keep],
    tags: Mapping[str, Sequence[str]] | None, frozen: Mapping[str, str], first_reading: bool,
) -> Plan:  # fmt: skip
    """What `repair` would do, or with `purge` what `purge` would: the last rungs, which destroy."""
    wanted: list[tuple[Finding, Act]] = []
    left: list[LeftOut] = []
    waiting: list[Finding] = []

    def want(finding: Finding, why: str) -> None:
        """Take the acts that repair a finding, unless there is a reason why not."""
        repair = checks[finding.check].repair
        for act in repair(finding.row) if not why and repair is not None else ():
            if act.destroys != purge:
                why = "" if purge or finding.state == "held" else "only purge does this"
            elif first_reading and act.undoing != "exact":
                why = "before the whole cloud was read twice, only what can be undone exactly is done"
            else:
                wanted.append((finding, act))
        if why:
            left.append(LeftOut(finding.check, finding.key, why))

    for finding in verdict.findings:
        if finding.state == "held" and (finding.check, finding.key) not in verdict.due:
            if finding.why:
                left.append(LeftOut(finding.check, finding.key, finding.why))
        elif finding.after and finding.state == "proven":
            waiting.append(finding)
        else:
            want(finding, _why_not(finding, keeps, tags, frozen))
    going = {one for _, act in wanted for one in act.also}
    for finding in waiting:
        why = kept_or_frozen(finding, keeps, tags, frozen)
        want(finding, why if why or finding.after <= going else _why_not(finding, keeps, tags, frozen))
    wanted.sort(key=lambda pair: (turn(pair[1]), pair[1].host, pair[1].server))
    acts_of: dict[Act, Finding] = {}
    for finding, act in wanted:
        acts_of.setdefault(act, finding)
    entries = [
        Entry(
            number, finding.check, finding.key, checks[finding.check].risk, act,
            None if finding.row["hosts"] is None else tuple(finding.row["hosts"]), tuple(sorted(finding.also)),
        )
        for number, (act, finding) in enumerate(acts_of.items(), start=1)
    ]  # fmt: skip
    if verdict.stops:
        left = [LeftOut(entry.check, entry.key, verdict.stops[0]) for entry in entries] + left
        entries = []
    return Plan(cloud, f"{utcnow()}Z", verdict.run, purge, tuple(entries), tuple(left), verdict.stops)


def turn(act: Act) -> tuple[int, int]:
    """What is sent before what; of one system an act may say more: what is below something goes before it."""
    return _ORDER.index(act.kind.split(".")[0]), getattr(act, "turn", 0)


def _why_not(
    finding: Finding, keeps: Sequence[Keep], tags: Mapping[str, Sequence[str]] | None, frozen: Mapping[str, str]
) -> str:
    """Why a finding is not repaired; empty when it is."""
    if why := kept_or_frozen(finding, keeps, tags, frozen):
        return why
    if finding.risk == "by-hand":
        return f"by hand: {finding.row['by_hand'] or 'no program repairs this'}"
    if finding.state not in ("proven", "held"):
        return f"{finding.state}: {finding.why}"
    return ""


def kept_or_frozen(
    finding: Finding, keeps: Sequence[Keep], tags: Mapping[str, Sequence[str]] | None, frozen: Mapping[str, str]
) -> str:
    """Whether somebody said that the object must never be touched, or an act on it ended nobody knows how."""
    if tags is None and any(keep.kind == "tag" for keep in keeps):
        return "a keep names a tag, and not every cell's tags could be read"
    ids = sorted({finding.server, *finding.also} - {""})
    marked = {tag for one in ids for tag in (tags or {}).get(one, ())}
    rows = [
        finding.row,
        *({column: finding.row.get(name)} for column, names in _CALLED.items() for name in names),
        *({"server": one} for one in ids),
    ]
    kept = next((keep for keep in keeps if any(keep.matches(row, marked) for row in rows)), None)
    if kept is not None:
        return str(kept)
    return next((frozen[one] for one in ids if one in frozen), "")


def tags(snapshot: Snapshot) -> dict[str, list[str]] | None:
    """The tags on servers, for the keeps that name one; None where not every cell's were read."""
    heard = snapshot.heard()
    if "nova_tags" not in heard.tables or any(table == "nova_tags" for table, _ in heard.gaps):
        return None
    found: dict[str, list[str]] = {}
    for server, tag in snapshot.db.execute("SELECT resource_id, tag FROM nova_tags").fetchall():
        found.setdefault(server, []).append(tag)
    return found


def played(made: Plan, checks: Mapping[str, Check], snapshot: Snapshot) -> Plan:
    """The plan with how many findings it would leave: its acts' effects on the snapshot, the checks run over that, and
    all of it taken back.  An act that cannot take effect, there or after the others, is left out."""
    entries: list[Entry] = []
    left: list[LeftOut] = []
    with snapshot.supposing():
        for entry in made.entries:
            try:
                entry.act.effect(snapshot.db)
                entries.append(entry)
            except Moved as error:
                left.append(LeftOut(entry.check, entry.key, f"it cannot be done now: {error}"))
        answers = checking.run_all(checks, snapshot).values()
    leaves = sum(finding.state != "held" for answer in answers for finding in answer.findings)
    return replace(made, entries=tuple(entries), left_out=(*made.left_out, *left), leaves=leaves)


def to_json(plan: Plan) -> dict[str, Any]:
    return {
        "schema_version": VERSION,
        "cloud": plan.cloud,
        "made_at": plan.made_at,
        "run": plan.run,
        "purge": plan.purge,
        "acts": [
            {
                "n": entry.number,
                "text": str(entry.act),
                "check": entry.check,
                "key": entry.key,
                "case": entry.case,
                "risk": entry.risk,
                "undo": entry.act.undoing,
                "hosts": None if entry.hosts is None else list(entry.hosts),
                "also": list(entry.also),
                "act": acts.to_json(entry.act),
            }
            for entry in plan.entries
        ],
        "leaves": plan.leaves,
        "left_out": [{"check": one.check, "key": one.key, "why": one.why} for one in plan.left_out],
        "stops": list(plan.stops),
    }


def save(plan: Plan, path: Path) -> None:
    try:
        files.write(path, json.dumps(to_json(plan), indent=2, default=str) + "\n")
    except OSError as error:
        raise Trouble(f"the plan cannot be written to {path}: {error.strerror}") from error


def load(path: Path, cloud: str, checks: Iterable[str]) -> Plan:
    """A plan that was saved, and perhaps cut down.  Raises Trouble if it is none, or of another cloud."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Trouble(f"the plan {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Trouble(f"the plan {path} is not JSON: {error}") from error
    try:
        if given["schema_version"] != VERSION:
            raise Trouble(f"the plan {path} was written by another version of cloudfsck; make a new one")
        if given["cloud"] != cloud:
            raise Trouble(f"the plan {path} is for the cloud {given['cloud']!r}, and this is {cloud!r}")
        known = set(checks)
        for one in given["acts"]:
            if one["check"] not in known:
                raise Trouble(f"the plan {path} names a check that does not exist: {one['check']}")
        entries = tuple(
            Entry(
                int(one["n"]), one["check"], one["key"], one["risk"], acts.from_json(one["act"]),
                None if one["hosts"] is None else tuple(one["hosts"]), tuple(one.get("also", ())),
            )
            for one in given["acts"]
        )  # fmt: skip
        if len({entry.number for entry in entries}) < len(entries):
            raise Trouble(f"the plan {path} has two acts of one number; each is known in the journal by its own")
        for one in given["acts"]:
            _typed(one)
        _ = [str(entry) for entry in entries]  # an act of the wrong values cannot say what it is
        left_out = tuple(LeftOut(one["check"], one["key"], one["why"]) for one in given["left_out"])
        stops = tuple(str(stop) for stop in given["stops"])
        return Plan(cloud, given["made_at"], given["run"], bool(given["purge"]), entries, left_out, stops)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Trouble(f"the plan {path} is not as cloudfsck writes it: {type(error).__name__} {error}") from error


def _typed(one: Mapping[str, Any]) -> None:
    """Raises TypeError if an act of a plan was edited into values of other types than those that `to_json` writes."""
    named = [one["check"], one["key"], one["risk"], *(one["hosts"] or ()), *one.get("also", ())]
    named += [one["act"][name] for name in ("host", "server") if name in one["act"]]
    if type(one["n"]) is not int or not all(isinstance(value, str) for value in named):
        raise TypeError(f"act {one['n']!r}")
    if isinstance(one["hosts"], str) or isinstance(one.get("also"), str):
        raise TypeError(f"act {one['n']!r}")
    if any(isinstance(value, list) and name not in LISTS for name, value in one["act"].items()):
        raise TypeError(f"act {one['n']!r}")
