"""Carry out a plan: gate, act, verify, with the journal around each act.

It is handed the function that reads a scope, so that what it looks at again is what the checks look at.  It never
plans: an act that the checks would not plan now, on a fresh reading, is not done.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from cloudfsck import journal, plan, proof
from cloudfsck.config import Config
from cloudfsck.journal import Journal
from cloudfsck.model import Act, Check, Finding, Hold, Moved, Outcomeless, Refused, Row, Scope, Trouble
from cloudfsck.proof import Prove
from cloudfsck.snapshot import Snapshot
from cloudfsck.state import Lease, State, utcnow

#: Acts that one gate looks at together, so that what has moved since the plan costs no readings of its own.
BATCH = 25

#: How long an object is left alone when what became of an act on it is not known: longer than a program of ours lives.
FREEZE = dt.timedelta(minutes=15)

#: Reads a scope of the hosts, or of the one part that is named, and nothing else.
Look = Callable[[Scope, str], Snapshot]
Send = Callable[[Act, Lease], Mapping[str, Any]]


@dataclass(frozen=True)
class Done:
    """How one act of a plan ended."""

    entry: plan.Entry
    outcome: str
    why: str


@dataclass(frozen=True)
class Means:
    """What apply is handed: how to prove a scope, how to look at what acts change and no more, how to have one done."""

    prove: Prove
    look: Look
    send: Send


def apply(made: plan.Plan, checks: Mapping[str, Check], config: Config, state: State, means: Means) -> Iterator[Done]:
    """Do the acts of a plan, and yield how each ended.  Raises Trouble when the run must stop."""
    with state.lease() as lease:
        freeze_broken_off(state)
        book = Journal(state.folder, state.new_run(), {"plan": made.run, "purge": made.purge, "fence": lease.fence})
        try:
            for batch in _batches(made.entries):
                whys = _gate(batch, checks, config, state, means, made.purge) if len(batch) > 1 else {}
                for entry in batch:
                    # However long ago that was: what it lets through is read again right before its act.
                    why = whys.get(entry.number)
                    why = why or _gate([entry], checks, config, state, means, made.purge)[entry.number]
                    if why:
                        yield Done(entry, "moved", why)
                        continue
                    yield from _act(entry, book, lease, state, means)
        finally:
            book.close()


def _batches(entries: Sequence[plan.Entry]) -> Iterator[Sequence[plan.Entry]]:
    """What one gate looks at together: never what is only found once others are gone, with those."""
    for _, some in groupby(entries, lambda entry: plan.turn(entry.act)):
        same = list(some)
        for start in range(0, len(same), BATCH):
            yield same[start : start + BATCH]


def undo(entries: Sequence[journal.Entry], state: State, means: Means, *, named: bool = False) -> Iterator[Done]:
    """Take acts back, the last first, each guarded by what stands there now.

    What would run a guest again that runs elsewhere by now is taken back only where the act itself was `named`.
    """
    with state.lease() as lease:
        freeze_broken_off(state)
        book = Journal(state.folder, state.new_run(), {"undo": entries[0].run if entries else "", "fence": lease.fence})
        try:
            for number, entry in enumerate(reversed(entries), start=1):
                try:
                    back = entry.act.undo(entry.saw)
                except KeyError:  # what was saved is told by the host when the act is done, and it was not heard
                    back = None
                shown = plan.Entry(number, entry.check, entry.key, "ask", back or entry.act, _hosts(entry.act))
                why = "it cannot be undone" if back is None else _why_not_back(back, state, means, named)
                if back is None or why:
                    yield Done(shown, "refused", why)
                    continue
                adopted = _adopt(entry, state)
                for one in _act(shown, book, lease, state, means, undoes=entry.name):
                    yield one
                    if adopted and one.outcome != "done":
                        state.release(adopted.kind, adopted.host, adopted.server)
        finally:
            book.close()


def _adopt(entry: journal.Entry, state: State) -> Hold | None:
    """Hold what an act may have put on a rung, though its end was not heard, so that it can be taken back from there;
    the guard of the undo says whether it was."""
    act = entry.act
    held = {(hold.kind, hold.host, hold.server) for hold in state.holds()}
    if entry.outcome != "unknown" or act.rung is None or (act.what, act.host, act.server) in held:
        return None
    hold = Hold(
        entry.check,
        act.what,
        act.host,
        act.server,
        act.rung,
        utcnow(),
        entry.run,
        getattr(act, "entry", ""),
    )
    state.hold(hold)
    return hold


def _why_not_back(back: Act, state: State, means: Means, named: bool) -> str:
    """Why an act may not be taken back now; empty when it may."""
    if halts := state.halts():
        return halts[0]
    frozen = state.frozen()
    if whys := [frozen[one] for _, one in _objects(back) if one in frozen]:
        return whys[0]
    if back.kind not in ("domain.resume", "domain.start") or named:
        return ""
    everywhere = means.look(Scope(frozenset({back.server}), None), "")
    try:
        others = everywhere.rows(
            "SELECT host FROM libvirt_domains WHERE uuid = $server AND host <> $host AND state = 'running'"
            " UNION SELECT host FROM qemu_processes WHERE uuid = $server AND host <> $host ORDER BY host",
            {"server": back.server, "host": back.host},
        )
        gaps = [
            gap for (table, _), gap in everywhere.heard().gaps.items() if table in ("libvirt_domains", "qemu_processes")
        ]
    finally:
        everywhere.close()
    if others:
        where = ", ".join(row["host"] for row in others)
        return f"it runs on {where}, and two guests would write to the same disks; to do it all the same, name the act"
    if gaps:
        return f"it may run elsewhere: {gaps[0]}; to do it all the same, name the act"
    return ""


def freeze_broken_off(state: State) -> None:
    """Freeze what an earlier run was at when it died."""
    for entry in journal.broken_off(state.folder):
        _freeze(entry.act, state, "cloudfsck broke off in the midst of it")
        journal.settle(state.folder, entry)


def _objects(act: Act) -> list[tuple[str, str]]:
    """What an act is about, as the store freezes it: (where it is, its UUID)."""
    return [(act.host or act.part, one) for one in sorted({act.server, *act.also} - {""})]


def _hosts(act: Act) -> tuple[str, ...]:
    return (act.host,) if act.host else ()


def _seen(act: Act, means: Means) -> Snapshot:
    """What an act changes, as it is now, and no more: where it changes nothing on a host, its server may live on."""
    if act.host:
        return means.look(Scope(frozenset({act.server} - {""}), frozenset({act.host})), "")
    return means.look(Scope(frozenset(), frozenset(), act.also), act.part)


def _freeze(act: Act, state: State, why: str) -> None:
    for where, one in _objects(act):
        state.freeze(where, one, why, utcnow() + FREEZE)


def _thaw(act: Act, state: State) -> None:
    for where, one in _objects(act):
        state.thaw(where, one)


def _gate(
    entries: Sequence[plan.Entry], checks: Mapping[str, Check], config: Config, state: State, means: Means, purge: bool
) -> dict[int, str]:
    """Why each entry may not be done now; empty where it may.  Two fresh readings must agree on the finding, and the
    check must plan this very act for it."""
    asked = [_asked_for(entry) for entry in entries]
    before, after = means.prove(proof.scope(asked, checks))
    try:
        clocks = before.clocks()
        tagged = plan.tags(after)
        stands = proof.reread(asked, checks, lambda scope: (before, after))
    finally:
        before.close()
        after.close()
    stops = [*state.halts(), *(f"the clock of {part} stepped back" for part in state.clocks(clocks))]
    if stops:
        raise Trouble(f"nothing more is repaired: {stops[0]}")
    keeps, frozen = state.keeps(), state.frozen()
    exact_only = state.whole_readings() < 2
    verdicts = {}
    for entry, found in zip(entries, stands, strict=True):
        check = checks[entry.check]
        if found is None:
            why = "read again, its places do not show it any more, or not all of them answer"
        else:
            found = replace(found, first_seen=state.first_seen(entry.check, entry.key))
            why = _why_not(entry, found, check, config, clocks, purge) or plan.kept_or_frozen(
                found, keeps, tagged, frozen
            )
        if not why and exact_only and entry.act.undoing != "exact":
            why = "before the whole cloud was read twice, only what can be undone exactly is done"
        if not why and len(state.seen_today(entry.check)) > proof.most(entry.check, check, config):
            why = f"{entry.check} found too much in 24 hours"
        verdicts[entry.number] = why
    return verdicts


def _why_not(
    entry: plan.Entry, found: Finding, check: Check, config: Config, clocks: Mapping[str, dt.datetime], purge: bool
) -> str:
    """Why what two readings agree on does not bear the entry's act; empty when it does."""
    if found.risk == "by-hand":
        return f"by hand: {found.row['by_hand'] or 'no program repairs this'}"
    if found.state == "held":
        if not proof.overdue(found, config):
            return f"it stands {found.row['rung']}, and not yet long enough"
    elif why := proof.unsettled(found, check, config, clocks):
        return why
    if entry.act.destroys and not purge:
        return "only purge does this"
    if check.repair is None or entry.act not in list(check.repair(found.row)):
        return "it is not as it was when the plan was made"
    return ""


def _act(
    entry: plan.Entry, book: Journal, lease: Lease, state: State, means: Means, undoes: str | None = None
) -> Iterator[Done]:
    """Do one act and verify it.  Raises Trouble when it failed, or did something else than it declares: then the whole
    run stops."""
    act = entry.act
    expected = _seen(act, means)
    try:
        gaps = expected.heard().gaps
        if gaps:
            yield Done(entry, "moved", f"{act.host or act.part} does not answer any more: {next(iter(gaps.values()))}")
            return
        try:
            act.effect(expected.db)
        except Moved as error:
            yield Done(entry, "moved", str(error))
            return
        state.renew(lease)
        _freeze(act, state, f"run {book.run} was at it")
        book.begin(entry.number, entry.check, entry.key, act, undoes)
        try:
            saw = means.send(act, lease)
        except (Moved, Refused) as error:
            outcome = "moved" if isinstance(error, Moved) else "refused"
            _thaw(act, state)
            book.end(entry.number, outcome, str(error), {})
            yield Done(entry, outcome, str(error))
            return
        except Trouble as error:
            _thaw(act, state)
            book.end(entry.number, "failed", str(error), {})
            yield Done(entry, "failed", str(error))
            raise Trouble(f"{entry} failed, and nothing was changed by it: {error}") from error
        except Outcomeless as error:
            _freeze(act, state, str(error))
            book.end(entry.number, "unknown", str(error), {})
            about = " and ".join(one for _, one in _objects(act))
            yield Done(entry, "unknown", f"{error}; nothing is sent to {about} before {FREEZE} have passed")
            return
        _move(entry, state, book.run)
        book.end(entry.number, "done", "", saw)
        try:
            difference = _difference(act, expected, _seen(act, means))
        except Exception:
            yield Done(entry, "done", "")
            raise
        if not difference:
            _thaw(act, state)
        else:
            _freeze(act, state, f"it did not do what it declares: {difference}")
        yield Done(entry, "done", "")  # whoever listens may stop here, with nothing left open
        if difference:
            raise Trouble(f"{entry} did not do what it declares, and the run stops: {difference}")
    finally:
        expected.close()


def _move(entry: plan.Entry, state: State, run: str) -> None:
    """Note the rung on which the act left its object."""
    act = entry.act
    if act.rung is None:
        state.release(act.what, act.host, act.server)
    else:
        since = dt.datetime.fromisoformat(str(since)) if (since := getattr(act, "stood_since", None)) else utcnow()
        state.hold(Hold(entry.check, act.what, act.host, act.server, act.rung, since, run, getattr(act, "entry", "")))


#: What an act declares of the places that it touches, and what a fresh reading must show.
_DECLARED = {
    "libvirt_domains": "host, uuid, state, persistent",
    "qemu_processes": "host, uuid",
    "instance_dirs": "host, name, kind, inode",
    "quarantine": "host, entry, server, inode, was_path",
    "block_devices": "host, name, number",
    "iscsi_sessions": "host, session, target",
    "cinder_volumes": "id, status, attach_status",
    "cinder_volume_attachment": "id, volume_id, instance_uuid, attach_status",
    "server_volumes": "cell, id, server, volume, attachment",
    "neutron_ports": "id, device_id, device_owner",
    "neutron_port_bindings": "port_id, host, status",
    "neutron_floating_ips": "id, fixed_port_id, fixed_ip_address",
    "neutron_ovn_revisions": "resource_type, resource_uuid, standard_attr_id, revision_number",
    "designate_records": "recordset_id, data",
    "placement_allocations": "consumer_id, resource_provider_id, resource_class_id, used",
    "cinder_quota_usages": "id, in_use, reserved",
    "dns_records": "copy, name, type, ttl, data",
    "ovn_switch_ports": "name, switch",
    "ovn_router_ports": "name, router",
    "ovn_switches": "name",
    "ovn_routers": "name",
    "ovn_port_groups": "name",
    "ovn_nats": "uuid, router, floating_ip",
    "ovn_dhcp_options": "uuid, subnet",
    "nsx_objects": "path, parent, neutron",
}

#: Of what is read whole for its host, or of OVN, only what the act takes away or puts back: all else comes and goes
#: with other volumes, ports and networks.  Of Neutron's notes of OVN only the act's own: it writes others meanwhile.
_TAKEN = {
    "block_devices": "name || ' ' || coalesce(wwid, '')",
    "iscsi_sessions": "session || ' ' || target",
    "neutron_ovn_revisions": "resource_type || ' ' || resource_uuid",
    "designate_records": "recordset_id",
    "placement_allocations": "consumer_id",
    "cinder_quota_usages": "id::VARCHAR",
    "dns_records": "name || ' ' || type",
    **dict.fromkeys(("ovn_switch_ports", "ovn_router_ports", "ovn_switches", "ovn_routers", "ovn_port_groups"), "name"),
    **dict.fromkeys(("ovn_nats", "ovn_dhcp_options"), "uuid"),
}


def _difference(act: Act, expected: Snapshot, found: Snapshot) -> str:
    """What a fresh reading shows otherwise than the acts' effects declare; empty when they agree."""
    try:
        gaps = found.heard().gaps
        if gaps:
            return f"it could not be read: {next(iter(gaps.values()))}"
        for table, columns in _DECLARED.items():
            query = f"SELECT DISTINCT {columns} FROM {table}"
            if table in _TAKEN:
                query += f" WHERE list_contains($things, {_TAKEN[table]})"
            given = {"things": sorted(getattr(act, "things", ()))} if table in _TAKEN else None
            should, does = (taken.rows(f"{query} ORDER BY ALL", given) for taken in (expected, found))
            if should != does and not _went_on(act, table, found):
                return f"{table} is {_said(does)}, and should be {_said(should)}"
        return ""
    finally:
        found.close()


def _went_on(act: Act, table: str, found: Snapshot) -> bool:
    """Whether that whose work the act only sets off has done it before we looked; the act itself knows by what."""
    went_on = getattr(act, "went_on", None)
    return went_on is not None and bool(went_on(table, found.db))


def _said(rows: Sequence[Row]) -> str:
    return "; ".join(" ".join(str(value) for value in row.values()) for row in rows) or "empty"


def _asked_for(entry: plan.Entry) -> Finding:
    """The finding that an entry stands for, as far as its key and its act tell: enough to know what to read again."""
    row = {"server": entry.act.server, "hosts": entry.hosts, "also": entry.also}
    return Finding(entry.check, entry.key, "ask", "seen", row)
