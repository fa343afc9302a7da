"""Which findings are proven: settled, believed, and found again by a second and a third reading.

A reading nominates; only a finding that stands in two more readings of its own places, equal in every column, is
proven.  It changes nothing but our own state.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloudfsck import checking
from cloudfsck.config import Config
from cloudfsck.model import Answer, Check, Finding, Gap, Hold, Scope
from cloudfsck.snapshot import Snapshot, same, tables_read
from cloudfsck.state import State, utcnow

#: Reads a scope twice, around the databases; see Sources.prove.
Prove = Callable[[Scope], tuple[Snapshot, Snapshot]]

#: Servers that one proof asks for.
AT_ONCE = 200

#: Below this many findings a check's share of what it looked at says nothing.
FEW = 5

_FOREIGN = """
    SELECT d.host, d.uuid, d.name, d.state,
           CASE WHEN d.nova THEN 'it carries the marks of a Nova, and its project has no server in this one'
                ELSE 'it does not carry the marks of Nova' END AS why
      FROM libvirt_domains d
     WHERE (NOT d.nova OR NOT EXISTS (SELECT 1 FROM nova_projects p WHERE p.project_id = d.project))
       AND NOT EXISTS (SELECT 1 FROM known_servers k WHERE k.server = d.uuid)
       AND NOT EXISTS (SELECT 1 FROM nova_build_requests r WHERE r.instance_uuid = d.uuid)
     ORDER BY ALL
"""

#: Rows of each cell that are remembered, to notice that a database was restored.
SAMPLE = 100


@dataclass(frozen=True)
class Acquitted:
    """Something that we hold and no finding speaks of; `certain` when its check could look at everything."""

    hold: Hold
    why: str
    certain: bool


@dataclass(frozen=True)
class Foreign:
    """A domain that is not this Nova's, so that no check judges it."""

    host: str
    uuid: str
    name: str | None
    state: str | None
    why: str


@dataclass(frozen=True)
class Verdict:
    """What a reading of the whole cloud came to.

    `due` are the (check, key) of held findings whose time on their rung is over and that were proven again;
    `acquitted` what we hold and no check condemns any more, with what is known of it; `stops` why nothing at all may be
    repaired; `gaps` everything that could not be read; `foreign` the domains that are not this Nova's.
    """

    run: str
    taken_at: dt.datetime
    answers: Mapping[str, Answer]
    findings: tuple[Finding, ...]
    due: frozenset[tuple[str, str]]
    acquitted: tuple[Acquitted, ...]
    stops: tuple[str, ...]
    gaps: tuple[Gap, ...]
    parts: int
    foreign: tuple[Foreign, ...]


def judge(
    checks: Mapping[str, Check], snapshot: Snapshot, run: str, state: State, config: Config, prove: Prove,
    progress: Callable[[str, int, int], None],
) -> Verdict:  # fmt: skip
    """Run the checks over a snapshot of the whole cloud and prove what they find."""
    answers = {}
    progress("checks", 0, len(checks))
    for done, answer in enumerate(checking.answers(checks, snapshot), start=1):
        answers[answer.check] = answer
        progress("checks", done, len(checks))
    found = [finding for answer in answers.values() for finding in answer.findings]
    judged = frozenset(name for name, answer in answers.items() if answer.unknown is None)
    first_seen = state.sight([finding for finding in found if finding.state != "held"], judged)
    clocks = snapshot.clocks()
    stops = _stops(snapshot, state, clocks)
    gaps = tuple(gap for _, gap in sorted(snapshot.heard().gaps.items()))
    state.note_reading(run, whole=not any(gap.table.startswith("nova_") for gap in gaps))

    _adopt(found, checks, state, run)
    findings: list[Finding] = []
    candidates: list[Finding] = []
    for name, answer in answers.items():
        too_many = over(name, checks[name], answer, state, config)
        for finding in answer.findings:
            finding = replace(finding, first_seen=first_seen.get((finding.check, finding.key)))
            if finding.state == "seen":
                why = too_many or unsettled(finding, checks[name], config, clocks)
                finding = replace(finding, why=why)
                if not why:
                    candidates.append(finding)
                    continue
            elif finding.state == "held" and overdue(finding, config) and not too_many:
                candidates.append(finding)
                continue
            findings.append(finding)
    due = set()
    for finding, stands in again(candidates, checks, prove, progress):
        if finding.state == "held":
            findings.append(finding)
            if stands:
                due.add((finding.check, finding.key))
        elif stands:
            findings.append(replace(finding, state="proven"))
        else:
            findings.append(replace(finding, why="it was not there, or not the same, when it was read again"))
    _remember(snapshot, state)
    findings.sort(key=lambda finding: (list(checks).index(finding.check), finding.key))
    parts = snapshot.db.execute("SELECT count(*) FROM ledger").fetchone()
    acquitted = tuple(_acquitted(snapshot, state, checks, findings, judged))
    return Verdict(
        run, utcnow(), answers, tuple(findings), frozenset(due), acquitted, stops, gaps, parts[0] if parts else 0,
        _foreign(snapshot),
    )  # fmt: skip


def again(
    findings: Sequence[Finding], checks: Mapping[str, Check], prove: Prove,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Iterable[tuple[Finding, bool]]:  # fmt: skip
    """Read the places of each finding again, twice, and say whether it stands in both readings as it was."""
    for start in range(0, len(findings), AT_ONCE):
        progress("proof", start, len(findings))
        some = findings[start : start + AT_ONCE]
        for finding, row in zip(some, reread(some, checks, prove), strict=True):
            yield finding, row is not None and same(row.row, finding.row)
    if findings:
        progress("proof", len(findings), len(findings))


def reread(findings: Sequence[Finding], checks: Mapping[str, Check], prove: Prove) -> list[Finding | None]:
    """Each finding as two fresh readings of its places agree on it; None where they do not, or do not prove it."""
    before, after = prove(scope(findings, checks))
    try:
        stand: list[Finding | None] = []
        asked = {finding.check: checks[finding.check] for finding in findings}
        readings = [
            {
                (name, one.key): one
                for name, answer in checking.run_all(asked, snapshot).items()
                for one in answer.findings
                if one.state != "unproven"
            }
            for snapshot in (before, after)
        ]
        for finding in findings:
            one, other = (found.get((finding.check, finding.key)) for found in readings)
            stand.append(one if one and other and same(one.row, other.row) else None)
        return stand
    finally:
        before.close()
        after.close()


def scope(findings: Iterable[Finding], checks: Mapping[str, Check]) -> Scope:
    """Everything that could accuse or acquit these findings.

    What is no server's is asked for by what it names: whatever else is no server's, as a port that nothing has, says
    nothing of it, and there may be many.
    """
    findings = list(findings)
    servers = frozenset(finding.server for finding in findings if finding.server or not finding.also)
    hosts: frozenset[str] | None = frozenset()
    for finding in findings:
        named = finding.row["hosts"]
        hosts = None if named is None or hosts is None else hosts | frozenset(named)
    also = frozenset(one for finding in findings for one in finding.also)
    backends = frozenset(one for finding in findings for one in finding.backends)
    queries = {checks[finding.check].query for finding in findings}
    read = frozenset(table for query in queries for table in tables_read(query))
    return Scope(servers, hosts, also, backends, read)


def unsettled(finding: Finding, check: Check, config: Config, clocks: Mapping[str, dt.datetime]) -> str:
    """Why the finding is too young to be believed; empty when it is not.  An age comes from the clock that wrote the
    date, and from our own only where there is no date."""
    needed = check.settle * config.proof.settle_factor
    since, whose = finding.row["since"], finding.row["clock"]
    if since is None:
        if finding.first_seen is None:
            return "it was never seen before" if needed else ""
        age = utcnow() - finding.first_seen
    elif whose in clocks:
        age = clocks[whose] - since
    else:
        return f"the clock of {whose}, which dated it, was not read or stepped back"
    return "" if age >= needed else f"it is {words(age)} old, and counts after {words(needed)}"


def overdue(finding: Finding, config: Config) -> bool:
    """Whether a held finding has stood on its rung for its time."""
    since: dt.datetime | None = finding.row["rung_since"]
    return since is not None and utcnow() - since >= config.ladder.time(str(finding.row["rung"]))


def over(name: str, check: Check, answer: Answer, state: State, config: Config) -> str:
    """Why the check finds too much to be believed; empty when it does not."""
    limit = config.limits.get(name)
    count = most(name, check, config)
    share = check.share if limit is None or limit.share is None else limit.share
    now = {finding.key for finding in answer.findings if finding.state != "held"}
    many = len(now | state.seen_today(name))
    if many > count:
        return (f"{name} found {many} in 24 hours, and more than {count} means an outage or a fault of ours:"
                f" none is repaired (limits.{name}.count)")  # fmt: skip
    if many > FEW and many > share * answer.looked_at:
        return (f"{name} found {many} of {answer.looked_at}, and more than {share:.0%} means an outage or a fault of"
                f" ours: none is repaired (limits.{name}.share)")  # fmt: skip
    return ""


def most(name: str, check: Check, config: Config) -> int:
    """How many findings of a check in 24 hours are believed."""
    limit = config.limits.get(name)
    return check.limit if limit is None or limit.count is None else limit.count


def _adopt(found: Iterable[Finding], checks: Mapping[str, Check], state: State, run: str) -> None:
    """Hold again what lies in quarantine though no record says so: its act never came to an end that we saw."""
    known = {(hold.host, hold.entry) for hold in state.holds()}
    for finding in found:
        row = finding.row
        quarantined = finding.state == "held" and bool(row.get("entry")) and row["rung_since"] is not None
        if quarantined and (row["host"], row["entry"]) not in known:
            since = row["rung_since"].replace(microsecond=0)
            repair = checks[finding.check].repair
            for act in repair(row) if repair is not None else ():
                state.hold(Hold(
                    finding.check, act.what, row["host"], finding.server, "quarantined", since, run, row["entry"]
                ))  # fmt: skip


def _acquitted(
    snapshot: Snapshot, state: State, checks: Mapping[str, Check], findings: Sequence[Finding], judged: frozenset[str]
) -> Iterable[Acquitted]:
    """What we hold and no finding speaks of.  Where the object is gone, or somebody moved it on, the hold is over."""
    # A finding may speak of the server's row alone, and then condemns no domain.
    of_domains = [finding for finding in findings if "libvirt_domains" in checks[finding.check].accused]
    condemned = {(str(finding.row.get("host")), finding.server) for finding in of_domains}
    aside = {(str(finding.row.get("host")), finding.row.get("entry")) for finding in findings}
    heard = snapshot.heard()
    found = snapshot.db.execute("SELECT min(started) FROM ledger").fetchone()
    began = found[0] if found else None
    for hold in state.holds():
        if began is None or hold.since >= began:
            continue  # made while, or after, this was read
        # of a server's directories one may be condemned, and another not
        if (hold.host, hold.server) in condemned if hold.kind == "domain" else (hold.host, hold.entry) in aside:
            continue
        table = "libvirt_domains" if hold.kind == "domain" else "quarantine"
        if gap := heard.lacks(table, hold.host, [hold.server]):
            yield Acquitted(hold, f"nothing is known of it now: {gap}", False)
        elif _stands(snapshot, hold) and hold.check not in judged:
            yield Acquitted(hold, "nothing is known of it now: its check could not look at everything", False)
        elif _stands(snapshot, hold):
            yield Acquitted(
                hold, "nothing condemns it any more; `cloudfsck undo` lists the acts that put it there", True
            )
        else:
            state.release(hold.kind, hold.host, hold.server)


def _foreign(snapshot: Snapshot) -> tuple[Foreign, ...]:
    """The domains that this Nova does not know and that are not marked as its own; none are named where what was not
    heard may know them."""
    unheard = {table for table, _ in snapshot.heard().gaps} & tables_read(_FOREIGN) - {"libvirt_domains"}
    return () if unheard else tuple(Foreign(**row) for row in snapshot.rows(_FOREIGN))


def _stands(snapshot: Snapshot, hold: Hold) -> bool:
    """Whether the object is where we put it."""
    if hold.kind == "domain":
        query, name = "SELECT count(*) FROM held_domains WHERE host = ? AND server = ?", hold.server
    else:
        query, name = "SELECT count(*) FROM quarantine WHERE host = ? AND entry = ?", hold.entry
    found = snapshot.db.execute(query, [hold.host, name]).fetchone()
    return bool(found and found[0])


def _stops(snapshot: Snapshot, state: State, clocks: dict[str, dt.datetime]) -> tuple[str, ...]:
    """Why nothing may be repaired in this cloud now."""
    for why in _restored(snapshot, state):
        state.halt(why)
    stops = [f"{why}; `cloudfsck accept-restore` takes the databases as they are now" for why in state.halts()]
    skewed = snapshot.db.execute(
        "SELECT DISTINCT part FROM ledger WHERE per IN ('api', 'cell')"
        " AND (clock < started - INTERVAL 5 MINUTE OR clock > finished + INTERVAL 5 MINUTE) ORDER BY part"
    ).fetchall()
    stops += [f"the clock of {part} and ours differ by more than five minutes" for (part,) in skewed]
    for part, (before, now) in sorted(state.clocks(clocks).items()):
        if part.startswith("host:"):  # only what this host dated is in doubt
            clocks.pop(part, None)
            continue
        stops.append(f"the clock of {part} stepped back from {before:%Y-%m-%d %H:%M:%S} to {now:%Y-%m-%d %H:%M:%S} UTC")

    def count(query: str) -> int:
        found = snapshot.db.execute(query).fetchone()
        return int(found[0]) if found else 0

    gaps = {table for table, _ in snapshot.heard().gaps}
    servers = count("SELECT count(*) FROM nova_instances")
    if not servers and "nova_instances" not in gaps and count("SELECT count(*) FROM libvirt_domains WHERE nova"):
        stops.append("Nova's databases hold no server at all, and the hypervisors run some")
    live = count("SELECT count(*) FROM live_servers")
    if live and not count("SELECT count(*) FROM nova_instance_mappings") and "nova_instance_mappings" not in gaps:
        stops.append(f"Nova's API database maps no server at all, and the cells hold {live}")
    return tuple(stops)


def _restored(snapshot: Snapshot, state: State) -> Iterable[str]:
    """Signs that a cell's database was restored: an id with another UUID, or a row that is gone without having been
    purged.  (`nova-manage db purge` takes the oldest shadow rows first, and never an id above all that are left, but
    for the very last servers; then a person must say that it was a purge.)"""
    gone = snapshot.db.execute("SELECT cell, max(id) FROM (SELECT cell, id FROM nova_instances UNION ALL"
                               " SELECT cell, id FROM nova_shadow_instances) GROUP BY cell").fetchall()  # fmt: skip
    highest = dict(gone)
    heard = snapshot.heard()
    yield from _fallen(snapshot, state)
    for cell, number, uuid, taken_at in state.samples():
        if heard.lacks("nova_instances", cell, [uuid]) or heard.lacks("nova_shadow_instances", cell, [uuid]):
            continue
        row = snapshot.db.execute(
            "SELECT max(uuid) FROM nova_instances WHERE cell = $cell AND id = $id",
            {"cell": cell, "id": number},
        ).fetchone()
        now = row[0] if row else None
        if now == uuid:
            continue
        if now is not None:
            yield f"in {cell} instance {number} is {now}, and was {uuid}: its database was restored"
            return
        given = {"cell": cell, "uuid": uuid, "taken": taken_at}
        archived, older = snapshot.db.execute(
            "SELECT count(*) FILTER (uuid = $uuid), count(*) FILTER (deleted_at < $taken) FROM nova_shadow_instances"
            " WHERE cell = $cell", given,
        ).fetchone() or (0, 0)  # fmt: skip
        if archived:
            continue
        if number > (highest.get(cell) or 0) or older:
            yield f"in {cell} instance {number} ({uuid}) is gone, not archived, not purged: its database was restored"
            return


def _fallen(snapshot: Snapshot, state: State) -> Iterable[str]:
    """Marks that fell: the heartbeats of a service, or the highest migration, in a cell that did not purge since."""
    heights = _heights(snapshot)
    for cell, name, height, taken_at in state.marks():
        now = heights.get(cell, {}).get(name)
        if now is None or now >= height:
            continue
        older = snapshot.db.execute(
            "SELECT count(*) FROM nova_shadow_migrations WHERE cell = $cell AND deleted_at < $taken",
            {"cell": cell, "taken": taken_at},
        ).fetchone()
        if name != "migrations" or (older and older[0]):
            yield f"in {cell} {name} fell from {height} to {now}: its database was restored"
            return


def _heights(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    """What only grows, by cell: the heartbeats of each service, and the highest migration."""
    rows = snapshot.db.execute(
        "SELECT cell, 'heartbeats of ' || \"binary\" || ' on ' || host || ' (' || id || ')', report_count"
        " FROM nova_services WHERE report_count NOTNULL AND id NOTNULL AND host NOTNULL"
        " UNION ALL SELECT cell, 'migrations', max(id)"
        " FROM (SELECT cell, id FROM nova_migrations UNION ALL SELECT cell, id FROM nova_shadow_migrations)"
        " WHERE id NOTNULL GROUP BY cell"
    ).fetchall()
    heights: dict[str, dict[str, int]] = {}
    for cell, name, height in rows:
        heights.setdefault(cell, {})[name] = height
    return heights


def _remember(snapshot: Snapshot, state: State) -> None:
    """Keep a sample of every cell that was read: the newest rows, and others by chance; and what only grows."""
    heard = snapshot.heard()
    for cell, heights in _heights(snapshot).items():
        state.mark(cell, dict(sorted(heights.items(), key=lambda mark: mark[0] != "migrations")[:SAMPLE]))
    for cell in heard.parts("nova_instances"):
        if heard.lacks("nova_instances", cell, [""]):
            continue
        given = {"cell": cell, "n": SAMPLE // 2, "seed": random.random()}
        rows = snapshot.db.execute(
            "(SELECT id, uuid FROM nova_instances WHERE cell = $cell ORDER BY id DESC LIMIT $n)"
            " UNION (SELECT id, uuid FROM nova_instances WHERE cell = $cell ORDER BY hash(id, $seed) LIMIT $n)", given,
        ).fetchall()  # fmt: skip
        state.sample(cell, rows)


def words(age: dt.timedelta) -> str:
    """A time as a person would say it: 90 s -> '1 min'."""
    seconds = int(age.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
