"""Apply: gates, keeps, freezes, the journal, a kill at every step, undo."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import acts, apply, journal, plan
from cloudfsck.acts.attachment import Delete, ResetStatus
from cloudfsck.acts.domain import Pause
from cloudfsck.journal import Journal
from cloudfsck.model import Act, Moved, Outcomeless, Refused, Scope, Trouble
from cloudfsck.snapshot import Snapshot
from cloudfsck.state import State
from tests.tiny import CHECKS, Cloud


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is done."""


def test_repairs_step_by_step_to_the_end_and_holds_in_between(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, ladder={"paused": 0, "stopped": 0})
    assert cloud.faults() == {"c1/s-1": "proven", "c2/s-3": "proven"}
    assert cloud.apply(cloud.plan()) == [("done", "s-1"), ("done", "s-3")]
    assert cloud.states() == {"s-1": "paused", "s-2": "running", "s-3": "paused"}
    assert cloud.faults() == {}
    assert {hold.rung for hold in cloud.state.holds()} == {"paused"}
    assert cloud.apply(cloud.plan()) == [("done", "s-1"), ("done", "s-3")]
    assert cloud.states() == {"s-1": "shutoff", "s-2": "running", "s-3": "shutoff"}
    assert [str(entry.act) for entry in cloud.plan().entries] == []  # only purge goes on
    assert cloud.apply(cloud.plan(purge=True)) == [("done", "s-1"), ("done", "s-3")]
    assert cloud.states() == {"s-2": "running"}
    assert cloud.state.holds() == []


def test_what_stands_on_a_rung_waits_for_its_time(cloud: Cloud) -> None:
    cloud.apply(cloud.plan())
    cloud.judge()
    assert cloud.plan().entries == ()


def test_before_a_second_whole_reading_only_exact_undoes(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, ladder={"paused": 0})
    first = cloud.plan()
    assert [entry.act.undoing for entry in first.entries] == ["exact", "exact"]
    cloud.apply(first)
    cloud.state.accept_restore()  # forgets the readings
    made = cloud.plan()
    assert made.entries == ()
    assert {one.why for one in made.left_out} == {
        "before the whole cloud was read twice, only what can be undone exactly is done"
    }


def test_gate_refuses_what_is_gone_or_in_flight_by_now(cloud: Cloud) -> None:
    made = cloud.plan()
    cloud.truth.db.execute("DELETE FROM libvirt_domains WHERE uuid = 's-1'")
    cloud.truth.db.execute("INSERT INTO nova_build_requests (instance_uuid) VALUES ('s-3')")
    assert cloud.apply(made) == [("moved", "s-1"), ("moved", "s-3")]
    assert cloud.sent == []


def test_gate_refuses_what_is_not_as_it_was_planned(cloud: Cloud) -> None:
    made = cloud.plan()
    cloud.truth.db.execute("UPDATE libvirt_domains SET id = 70 WHERE uuid = 's-1'")
    assert cloud.apply(made) == [("moved", "s-1"), ("done", "s-3")]
    assert [act.server for act in cloud.sent] == ["s-3"]


def test_gate_refuses_when_someone_who_could_acquit_is_not_heard_any_more(cloud: Cloud) -> None:
    made = cloud.plan()
    cloud.truth.db.execute("UPDATE ledger SET whole = FALSE, why = 'lost' WHERE table_name = 'nova_migrations'")
    assert cloud.apply(made) == [("moved", "s-1"), ("moved", "s-3")]


def test_an_act_written_into_a_plan_by_hand_is_not_done(cloud: Cloud, tmp_path: Path) -> None:
    made = cloud.plan()
    healthy = replace(made.entries[0], act=Pause("c1", "s-2", 8, True), key="c1/s-2")
    plan.save(replace(made, entries=(healthy,)), tmp_path / "plan.json")
    assert cloud.apply(plan.load(tmp_path / "plan.json", "tiny", ["libvirt-domain-of-deleted-server"])) == [
        ("moved", "s-2")
    ]
    borrowed = replace(made.entries[0], act=Pause("c1", "s-2", 8, True))  # under the key of a real finding
    assert cloud.apply(replace(made, entries=(borrowed,))) == [("moved", "s-2")]
    assert cloud.sent == []


@pytest.mark.parametrize(
    ("kind", "pattern"), [("id", "s-3"), ("project", "p-2"), ("host", "c2"), ("name", "db-*"), ("tag", "precious")]
)
def test_a_keep_is_honoured_in_the_plan_and_at_the_act(cloud: Cloud, kind: str, pattern: str) -> None:
    made = cloud.plan()
    number = cloud.state.keep(kind, pattern, "because", None)
    assert cloud.apply(made) == [("done", "s-1"), ("moved", "s-3")]
    assert [one.why for one in cloud.plan().left_out] == [f"kept ({kind} {pattern}): because"]
    assert cloud.state.unkeep(number)
    assert cloud.apply(cloud.plan()) == [("done", "s-3")]


def test_an_unknown_outcome_freezes_the_case_and_nothing_is_sent_again(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(act: Act) -> None:
        if act.server == "s-1":
            raise Outcomeless("the connection broke")

    cloud.after_send = lose
    assert cloud.apply(cloud.plan()) == [("unknown", "s-1"), ("done", "s-3")]
    made = cloud.plan()
    assert made.entries == ()
    assert "not known" in made.left_out[0].why
    cloud.after_send = lambda act: None
    _pass(monkeypatch, apply.FREEZE)
    assert [str(entry.act) for entry in cloud.plan().entries] == ["hold domain s-1 on c1 as it is, paused"]
    assert cloud.apply(cloud.plan()) == [("done", "s-1")]
    assert cloud.faults() == {}


def test_a_race_that_the_host_sees_is_lost_by_us(cloud: Cloud) -> None:
    def race(act: Act) -> None:
        raise Moved("its id is 70") if act.server == "s-1" else Refused("a job runs")

    cloud.before_send = race
    assert cloud.apply(cloud.plan()) == [("moved", "s-1"), ("refused", "s-3")]
    assert cloud.state.holds() == []


def test_a_failure_stops_the_run(cloud: Cloud) -> None:
    def fail(act: Act) -> None:
        raise Trouble("no space left")

    cloud.before_send = fail
    with pytest.raises(Trouble, match="failed, and nothing was changed by it: no space left"):
        cloud.apply(cloud.plan())
    (entry,) = _journal(cloud)
    assert (entry.outcome, entry.why) == ("failed", "no space left")


def test_an_act_that_does_something_else_stops_the_run_and_is_frozen(cloud: Cloud) -> None:
    def spoil(act: Act) -> None:
        cloud.truth.db.execute("UPDATE libvirt_domains SET state = 'crashed' WHERE uuid = ?", [act.server])

    cloud.after_send = spoil
    with pytest.raises(Trouble, match="did not do what it declares.*should be c1 s-1 paused"):
        cloud.apply(cloud.plan())
    assert list(cloud.state.frozen()) == ["s-1"]
    assert len(cloud.sent) == 1


def test_undo_takes_back_the_last_first_and_only_once(cloud: Cloud) -> None:
    before = cloud.states()
    cloud.apply(cloud.plan())
    (run,) = journal.runs(cloud.state.folder)
    done = list(apply.undo(journal.read(cloud.state.folder, run), cloud.state, cloud.means))
    assert [(one.outcome, str(one.entry.act)) for one in done] == [
        ("done", "resume domain s-3 on c2"), ("done", "resume domain s-1 on c1"),
    ]  # fmt: skip
    assert cloud.states() == before
    assert cloud.state.holds() == []
    assert [entry.undone_by is not None for entry in journal.read(cloud.state.folder, run)] == [True, True]
    again = list(apply.undo(journal.read(cloud.state.folder, run), cloud.state, cloud.means))
    assert [one.outcome for one in again] == ["moved", "moved"]


def test_undo_of_a_stop_brings_back_the_rung_and_its_time(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, ladder={"paused": 0})
    cloud.apply(cloud.plan())
    paused = {hold.server: hold.since for hold in cloud.state.holds()}
    cloud.judge()
    cloud.apply(cloud.plan())
    last = journal.runs(cloud.state.folder)[-1]
    entries = [entry for run in journal.runs(cloud.state.folder) for entry in journal.read(cloud.state.folder, run)
               if entry.act.kind == "domain.stop"]  # fmt: skip
    assert last
    assert {one.outcome for one in apply.undo(entries, cloud.state, cloud.means)} == {"done"}
    assert {hold.server: hold.since for hold in cloud.state.holds()} == paused
    assert set(cloud.states().values()) == {"running", "paused"}


def test_undo_does_not_trample_what_happened_since(cloud: Cloud) -> None:
    cloud.apply(cloud.plan())
    cloud.truth.db.execute("UPDATE libvirt_domains SET state = 'running', id = 99 WHERE uuid = 's-1'")
    (run,) = journal.runs(cloud.state.folder)
    done = list(apply.undo(journal.read(cloud.state.folder, run), cloud.state, cloud.means))
    assert [(one.outcome, one.entry.act.server) for one in done] == [("done", "s-3"), ("moved", "s-1")]


def test_a_hold_ends_when_the_object_is_gone_or_acquitted(cloud: Cloud) -> None:
    cloud.apply(cloud.plan())
    cloud.truth.db.execute("UPDATE ledger SET started = '2999-01-01', finished = '2999-01-01', clock = '2999-01-01'")
    cloud.truth.db.execute("DELETE FROM libvirt_domains WHERE uuid = 's-1'")
    cloud.truth.db.execute("UPDATE nova_instances SET deleted = 0, deleted_at = NULL WHERE uuid = 's-3'")
    verdict = cloud.judge()
    assert [(one.hold.server, one.why.split(";")[0]) for one in verdict.acquitted] == [
        ("s-3", "nothing condemns it any more")
    ]
    assert [hold.server for hold in cloud.state.holds()] == ["s-3"]


STEPS = 8


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(STEPS))
def test_a_kill_at_any_step_loses_nothing_and_sends_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    """Killed right before or after the nth thing that leaves the process: a line of the journal, an order to a host,
    a write to the store.  Then the run is begun again, and again when the freeze is over."""
    cloud = Cloud(tmp_path)
    made = cloud.plan()
    count = 0

    def at(original: Any) -> Any:
        def stepping(*given: Any, **named: Any) -> Any:
            nonlocal count
            mine, count = count, count + 1
            if mine == step and not after:
                raise Killed
            result = original(*given, **named)
            if mine == step and after:
                raise Killed
            return result

        return stepping

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_write", at(Journal._write))
        patched.setattr(State, "hold", at(State.hold))
        patched.setattr(cloud, "send", at(cloud.send))
        with pytest.raises(Killed):
            cloud.apply(made)
    assert count <= STEPS + 1
    cloud.apply(made)
    assert len(cloud.sent) == len({act.server for act in cloud.sent}), "an act was sent twice"
    assert not list(journal.broken_off(cloud.state.folder))
    _pass(monkeypatch, apply.FREEZE)
    cloud.apply(cloud.plan())
    assert cloud.faults() == {}
    assert cloud.states() == {"s-1": "paused", "s-2": "running", "s-3": "paused"}
    assert {hold.server for hold in cloud.state.holds()} == {"s-1", "s-3"}


def test_the_steps_are_all_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, count = Cloud(tmp_path), 0

    def counting(original: Any) -> Any:
        def step(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            return original(*given, **named)

        return step

    made = cloud.plan()
    monkeypatch.setattr(Journal, "_write", counting(Journal._write))
    monkeypatch.setattr(State, "hold", counting(State.hold))
    monkeypatch.setattr(cloud, "send", counting(cloud.send))
    cloud.apply(made)
    assert count == STEPS + 1  # the head of the journal, and four for each of two acts


def test_a_torn_line_of_the_journal_says_nothing(cloud: Cloud) -> None:
    cloud.apply(cloud.plan())
    (run,) = journal.runs(cloud.state.folder)
    path = cloud.state.folder / "journal" / f"{run}.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at": "2026-01-01 00:00:00Z", "event": "begin", "n": 3, "che')
    assert [entry.outcome for entry in journal.read(cloud.state.folder, run)] == ["done", "done"]


def test_every_act_is_in_the_journal_with_what_was_seen(cloud: Cloud) -> None:
    cloud.apply(cloud.plan())
    (run,) = journal.runs(cloud.state.folder)
    lines = [json.loads(line) for line in (cloud.state.folder / "journal" / f"{run}.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["run", "begin", "done", "begin", "done"]
    assert acts.from_json(lines[1]["act"]) == cloud.sent[0]
    assert lines[2]["saw"] == {"saved": "/var/lib/cloudfsck/domains/x"}


def test_plans_are_refused_in_a_sentence(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    known = ["libvirt-domain-of-deleted-server"]
    plan.save(cloud.plan(), path)
    whole = json.loads(path.read_text())
    for spoilt, said in (
        ({**whole, "cloud": "other"}, "is for the cloud 'other', and this is 'tiny'"),
        ({**whole, "schema_version": 99}, "another version"),
        ({**whole, "acts": [{**whole["acts"][0], "check": "nope"}]}, "names a check that does not exist: nope"),
        (
            {**whole, "acts": [{**whole["acts"][0], "act": {"act": "domain.explode"}}]},
            "there is no act 'domain.explode'",
        ),
        ({**whole, "acts": [{**whole["acts"][0], "act": {"act": "domain.pause"}}]}, "is not as cloudfsck writes it"),
        ({"schema_version": 1}, "is not as cloudfsck writes it: KeyError 'cloud'"),
    ):
        path.write_text(json.dumps(spoilt))
        with pytest.raises(Trouble, match=said):
            plan.load(path, "tiny", known)
    path.write_text("{")
    with pytest.raises(Trouble, match="is not JSON"):
        plan.load(path, "tiny", known)


def _journal(cloud: Cloud) -> list[journal.Entry]:
    (run,) = journal.runs(cloud.state.folder)
    return journal.read(cloud.state.folder, run)


def _pass(monkeypatch: pytest.MonkeyPatch, time: dt.timedelta) -> None:
    """Let the time pass."""
    later = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0) + time + dt.timedelta(minutes=1)
    for module in ("state", "apply", "proof"):
        monkeypatch.setattr(f"cloudfsck.{module}.utcnow", lambda: later)


def test_tags_that_could_not_be_read_keep_everything_where_a_keep_names_one(cloud: Cloud) -> None:
    cloud.state.keep("tag", "precious", "because", None)
    made = cloud.plan()
    assert [entry.act.server for entry in made.entries] == ["s-1"]
    cloud.truth.db.execute("UPDATE ledger SET whole = FALSE, why = 'lost' WHERE table_name = 'nova_tags'")
    assert cloud.plan().entries == ()
    assert cloud.apply(made) == [("moved", "s-1")]


def test_what_is_under_way_is_frozen_for_other_machines_too(cloud: Cloud) -> None:
    frozen: list[dict[str, str]] = []
    cloud.before_send = lambda act: frozen.append(cloud.state.frozen())
    cloud.apply(cloud.plan())
    assert [list(one) for one in frozen] == [["s-1"], ["s-3"]]
    assert cloud.state.frozen() == {}


def test_undo_is_gated_by_halts_and_freezes(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.apply(cloud.plan())
    (run,) = journal.runs(cloud.state.folder)
    entries = journal.read(cloud.state.folder, run)
    cloud.state.freeze("c1", "s-1", "nobody knows", dt.datetime(2999, 1, 1))
    assert [one.outcome for one in apply.undo(entries, cloud.state, cloud.means)] == ["done", "refused"]
    cloud.state.halt("in cell1 instance 7 is gone")
    again = list(apply.undo(entries, cloud.state, cloud.means))
    assert {one.outcome for one in again} == {"refused"}
    assert "instance 7 is gone" in again[0].why


def test_a_guest_that_runs_elsewhere_is_started_again_only_by_its_name(cloud: Cloud) -> None:
    cloud.apply(cloud.plan())
    cloud.truth.db.execute("INSERT INTO libvirt_domains (host, uuid, state) VALUES ('c2', 's-1', 'running')")
    (run,) = journal.runs(cloud.state.folder)
    entries = [entry for entry in journal.read(cloud.state.folder, run) if entry.act.server == "s-1"]
    (done,) = apply.undo(entries, cloud.state, cloud.means)
    assert (done.outcome, done.why.split(",")[0]) == ("refused", "it runs on c2")
    (done,) = apply.undo(entries, cloud.state, cloud.means, named=True)
    assert done.outcome == "done"


def _lost_and_undone(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, when: str) -> list[str]:
    """Lose the connection `before_send` or `after_send` of each act; how they end when they are thawed and undone."""

    def lose(act: Act) -> None:
        raise Outcomeless("the connection broke")

    monkeypatch.setattr(cloud, when, lose)
    cloud.apply(cloud.plan())
    monkeypatch.setattr(cloud, when, lambda act: None)
    _pass(monkeypatch, apply.FREEZE)
    (run,) = journal.runs(cloud.state.folder)
    return [one.outcome for one in apply.undo(journal.read(cloud.state.folder, run), cloud.state, cloud.means)]


def test_an_act_whose_end_was_not_heard_can_be_taken_back(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _lost_and_undone(cloud, monkeypatch, "after_send") == ["done", "done"]
    assert set(cloud.states().values()) == {"running"}
    assert cloud.state.holds() == []


def test_an_act_that_was_not_done_after_all_leaves_no_hold_behind(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _lost_and_undone(cloud, monkeypatch, "before_send") == ["moved", "moved"]
    assert cloud.state.holds() == []


def test_a_plan_with_one_number_twice_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    plan.save(cloud.plan(), tmp_path / "plan.json")
    whole = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**whole, "acts": [whole["acts"][0]] * 2}))
    with pytest.raises(Trouble, match="two acts of one number"):
        plan.load(tmp_path / "plan.json", "tiny", ["libvirt-domain-of-deleted-server"])


# ------------------------------------------------------------------------------------------ acts on no host

ORPHANS = """
    hosts cell1      c1
    nova_instances   cell   id  uuid  host  deleted  deleted_at  display_name  project_id
                     cell1  1   s-1   c1    1        -2d         web-1         p-1
                     cell1  2   s-2   c1    0        -           web-2         p-1
    nova_instance_mappings  instance_uuid  cell_id
                            s-1            cell1
                            s-2            cell1
    nova_tags        cell   resource_id  tag
                     cell1  s-1          precious
    cinder_volumes   id   status     attach_status  display_name  project_id  deleted  updated_at
                     v-1  in-use     attached       data          p-1         false    -9d
                     v-2  detaching  detached       swap          p-2         false    -9d
    cinder_volume_attachment  id   volume_id  instance_uuid  connector_host  attach_status  attach_time  updated_at
                              a-1  v-1        s-1            c1              attached       -9d          -9d
"""
ATTACHMENT, VOLUME = "cinder-attachment-of-deleted-server", "cinder-volume-status-differs"


@pytest.fixture
def orphans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud with what is Cinder's alone; the other checks would take their time, and find nothing."""
    monkeypatch.setattr("tests.tiny.CHECKS", {name: CHECKS[name] for name in (ATTACHMENT, VOLUME)})
    cloud = Cloud(tmp_path, ORPHANS)
    cloud.judge()
    return cloud


def test_acts_through_an_api_go_the_way_of_all_acts(orphans: Cloud) -> None:
    assert orphans.faults() == {"a-1": "proven", "v-2": "proven"}
    made = orphans.plan()
    assert [(entry.act.kind, entry.act.host, entry.risk, entry.act.undoing) for entry in made.entries] == [
        ("attachment.delete", "", "ask", "none"), ("volume.reset_status", "", "ask", "approximate"),
    ]  # fmt: skip
    assert [entry.also for entry in made.entries] == [("a-1", "s-1", "v-1"), ("v-2",)]
    assert [outcome for outcome, _ in orphans.apply(made)] == ["done", "done"]
    assert orphans.faults() == {}
    assert orphans.state.holds() == []
    assert orphans.state.frozen() == {}
    volumes = orphans.truth.rows("SELECT id, status, attach_status FROM cinder_volumes ORDER BY id")
    assert [(row["status"], row["attach_status"]) for row in volumes] == [("available", "detached")] * 2


def test_only_the_places_of_the_act_are_looked_at_and_asked_for(
    orphans: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attachment's server may live, and be given other volumes meanwhile."""
    looked: list[tuple[Scope, str]] = []
    proved: list[Scope] = []

    def look(scope: Scope, part: str) -> Snapshot:
        looked.append((scope, part))
        return orphans.copy()

    def prove(scope: Scope) -> tuple[Snapshot, Snapshot]:
        proved.append(scope)
        return orphans.copy(), orphans.copy()

    monkeypatch.setattr(orphans, "look", look)
    monkeypatch.setattr(orphans, "prove", prove)
    made = orphans.plan()
    del proved[:]
    orphans.apply(made)
    nobody: frozenset[str] = frozenset()
    first, second = (Scope(nobody, nobody, frozenset(also)) for also in ({"v-1", "a-1"}, {"v-2"}))
    assert looked == [(first, "cinder")] * 2 + [(second, "cinder")] * 2
    assert proved[-1] == Scope(nobody, None, frozenset({"v-2"}), nobody, proved[-1].tables)
    assert proved[-1].reads("cinder_volumes")
    assert not proved[-1].reads("neutron_ports"), "its check does not"
    assert proved[-2].ids == frozenset({"s-1", "v-1", "a-1"})


@pytest.mark.parametrize(
    ("kind", "pattern", "kept"),
    [
        ("id", "v-1", "a-1"), ("id", "a-1", "a-1"), ("id", "s-1", "a-1"), ("id", "v-2", "v-2"), ("host", "c1", "a-1"),
        ("name", "web-*", "a-1"), ("name", "data", "a-1"), ("name", "swap", "v-2"), ("project", "p-1", "a-1"),
        ("tag", "precious", "a-1"),
    ],
)  # fmt: skip
def test_a_keep_of_any_of_its_objects_is_honoured(orphans: Cloud, kind: str, pattern: str, kept: str) -> None:
    made = orphans.plan()
    orphans.state.keep(kind, pattern, "because", None)
    outcomes = dict(zip(["a-1", "v-2"], [outcome for outcome, _ in orphans.apply(made)], strict=True))
    assert outcomes == {"a-1": "done", "v-2": "done"} | {kept: "moved"}
    assert [(one.key, one.why) for one in orphans.plan().left_out] == [(kept, f"kept ({kind} {pattern}): because")]


def test_a_lost_answer_freezes_the_volume_and_its_server(orphans: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(act: Act) -> None:
        raise Outcomeless("Cinder did not answer")

    orphans.before_send = lose
    done = list(apply.apply(orphans.plan(), CHECKS, orphans.config, orphans.state, orphans.means))
    assert [one.outcome for one in done] == ["unknown", "unknown"]
    assert "nothing is sent to a-1 and s-1 and v-1 before 0:15:00 have passed" in done[0].why
    assert sorted(orphans.state.frozen()) == ["a-1", "s-1", "v-1", "v-2"]
    orphans.before_send = lambda act: None
    made = orphans.plan()
    assert made.entries == ()
    assert all(
        "what became of an act on cinder is not known (Cinder did not answer)" in one.why for one in made.left_out
    )
    _pass(monkeypatch, apply.FREEZE)
    assert [outcome for outcome, _ in orphans.apply(orphans.plan())] == ["done", "done"]
    assert orphans.faults() == {}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE cinder_volume_attachment SET attach_status = 'detaching'",
        "UPDATE cinder_volume_attachment SET attach_time = attach_time + INTERVAL 1 HOUR",
        "UPDATE cinder_volume_attachment SET updated_at = updated_at + INTERVAL 1 HOUR",
        "UPDATE cinder_volumes SET updated_at = updated_at + INTERVAL 1 HOUR",
        "DELETE FROM cinder_volume_attachment",
        "UPDATE nova_instances SET deleted = 0, deleted_at = NULL",
        "INSERT INTO libvirt_disks (host, uuid, target, device, serial) VALUES ('c1', 's-2', 'vdb', 'disk', 'v-1')",
        "UPDATE ledger SET whole = FALSE, why = 'lost' WHERE table_name = 'libvirt_disks'",
        "UPDATE ledger SET whole = FALSE, why = 'lost' WHERE table_name = 'cinder_volumes'",
    ],
)
def test_the_gate_holds_for_them_too(orphans: Cloud, change: str) -> None:
    made = orphans.plan()
    orphans.truth.db.execute(change)
    assert orphans.apply(replace(made, entries=made.entries[:1])) == [("moved", "s-1")]
    assert orphans.sent == []


def test_what_cinder_did_beside_it_stops_the_run(orphans: Cloud) -> None:
    def spoil(act: Act) -> None:
        orphans.truth.db.execute("UPDATE cinder_volumes SET status = 'error' WHERE id = 'v-1'")

    orphans.after_send = spoil
    with pytest.raises(Trouble, match="did not do what it declares.*cinder_volumes is v-1 error detached"):
        orphans.apply(orphans.plan())
    assert sorted(orphans.state.frozen()) == ["a-1", "s-1", "v-1"]


def test_a_deleted_attachment_does_not_come_back_and_a_status_does(orphans: Cloud) -> None:
    orphans.apply(orphans.plan())
    entries = _journal(orphans)
    assert [type(entry.act) for entry in entries] == [Delete, ResetStatus]
    done = list(apply.undo(entries, orphans.state, orphans.means))
    assert [(one.outcome, one.why) for one in done] == [("done", ""), ("refused", "it cannot be undone")]
    assert orphans.faults() == {"v-2": "proven"}
    orphans.state.freeze("cinder", "v-2", "nobody knows", dt.datetime(2999, 1, 1))
    assert apply._why_not_back(entries[1].act, orphans.state, orphans.means, False).endswith("2999-01-01 00:00:00 UTC")


def test_a_status_that_cinder_would_not_set_is_not_promised_back() -> None:
    assert ResetStatus("v", "in-use", "detached", "available", "detached", "").undo({}) is None
    back = ResetStatus("v", "reserved", "reserved", "available", "detached", "").undo({"updated_at": "x"})
    assert back == ResetStatus("v", "available", "detached", "reserved", "detached", "x")


# ------------------------------------------------------------------------------------------ acts that set others off

LOST = """
    hosts cell1      c1
    neutron_ports    id   device_owner  device_id  status  network_id  revision_number  created_at  updated_at
                     p-1  compute:nova  s-1        ACTIVE  n-1         4                -9d         -9d
    neutron_ovn_revisions  resource_uuid  resource_type  standard_attr_id  revision_number  created_at  updated_at
                           p-1            ports          1                 4                -9d         -9d
                           p-2            ports          2                 7                -9d         -9d
    ovn_switches     uuid  name         network  ports  revision
                     u-1   neutron-n-1  n-1      0      2
"""
MISSING = "ovn-port-missing"
NOTE = "UPDATE neutron_ovn_revisions SET revision_number"


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud with a port that OVN has lost."""
    monkeypatch.setattr("tests.tiny.CHECKS", {MISSING: CHECKS[MISSING]})
    cloud = Cloud(tmp_path, LOST)
    for _ in range(2):
        cloud.judge()
    return cloud


def _others(cloud: Cloud, *statements: str) -> None:
    """What others do between the act and the look after it."""

    def do(act: Act) -> None:
        for statement in statements:
            cloud.truth.db.execute(statement)

    cloud.after_send = do


@pytest.mark.parametrize("statements", [
    (),
    (f"{NOTE} = 4, updated_at = updated_at + INTERVAL 1 SECOND WHERE resource_uuid = 'p-1'",),
    (f"{NOTE} = 5, updated_at = updated_at + INTERVAL 1 SECOND WHERE resource_uuid = 'p-1'",),
    (f"{NOTE} = 8 WHERE resource_uuid = 'p-2'",),
    ("DELETE FROM neutron_ovn_revisions WHERE resource_uuid = 'p-2'",),
])  # fmt: skip
def test_whether_the_maintenance_was_quicker_is_all_the_same(lost: Cloud, statements: tuple[str, ...]) -> None:
    made = lost.plan()
    assert [str(entry.act) for entry in made.entries] == [
        "have Neutron make port p-1 in OVN again: its note of revision 4"
    ]
    _others(lost, *statements)
    assert lost.apply(made) == [("done", "s-1")]
    assert lost.state.frozen() == {}


@pytest.mark.parametrize("statement", [
    f"{NOTE} = 4, updated_at = updated_at - INTERVAL 9 DAY",  # as it was: nothing was done at all
    f"{NOTE} = 3, updated_at = updated_at + INTERVAL 1 SECOND",
    "UPDATE neutron_ovn_revisions SET standard_attr_id = NULL",
    "DELETE FROM neutron_ovn_revisions",
])  # fmt: skip
def test_a_note_that_is_neither_reset_nor_neutrons_own_stops_the_run(lost: Cloud, statement: str) -> None:
    _others(lost, f"{statement} WHERE resource_uuid = 'p-1'")
    with pytest.raises(Trouble, match=r"did not do what it declares.*neutron_ovn_revisions is .* be ports p-1 1 -1"):
        lost.apply(lost.plan())
    assert sorted(lost.state.frozen()) == ["p-1", "s-1"]


def test_what_neutron_has_made_of_it_is_not_taken_back(lost: Cloud) -> None:
    lost.apply(lost.plan())
    entries = _journal(lost)
    lost.truth.db.execute(f"{NOTE} = 4, updated_at = updated_at + INTERVAL 1 SECOND WHERE resource_uuid = 'p-1'")
    (done,) = apply.undo(entries, lost.state, lost.means)
    assert (done.outcome, "0 notes are as it expects, not one" in done.why) == ("moved", True)
    lost.truth.db.execute(f"{NOTE} = -1 WHERE resource_uuid = 'p-1'")
    (done,) = apply.undo(entries, lost.state, lost.means)
    assert done.outcome == "done"
    assert lost.faults() == {"p-1": "proven"}


def test_their_plan_goes_to_a_file_and_back(orphans: Cloud, tmp_path: Path) -> None:
    made = orphans.plan()
    path = tmp_path / "plan.json"
    plan.save(made, path)
    assert plan.load(path, "tiny", [ATTACHMENT, VOLUME]).entries == made.entries
    whole = json.loads(path.read_text())
    for spoilt in ({"also": "a-1"}, {"also": [7]}, {"also": None}, {"act": {**whole["acts"][0]["act"], "server": 7}}):
        path.write_text(json.dumps({**whole, "acts": [{**whole["acts"][0], **spoilt}]}))
        with pytest.raises(Trouble, match="is not as cloudfsck writes it"):
            plan.load(path, "tiny", [ATTACHMENT, VOLUME])


@pytest.mark.parametrize("step", range(7))
def test_a_kill_at_any_step_sends_nothing_twice_through_an_api(
    orphans: Cloud, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    cloud = orphans
    made, count = cloud.plan(), 0

    def at(original: Any) -> Any:
        def stepping(*given: Any, **named: Any) -> Any:
            nonlocal count
            mine, count = count, count + 1
            result = original(*given, **named)
            if mine == step:
                raise Killed
            return result

        return stepping

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_write", at(Journal._write))
        patched.setattr(cloud, "send", at(cloud.send))
        with pytest.raises(Killed):
            cloud.apply(made)
    cloud.apply(made)
    assert len(cloud.sent) == len(set(cloud.sent)), "an act was sent twice"
    assert not list(journal.broken_off(cloud.state.folder))
    _pass(monkeypatch, apply.FREEZE)
    cloud.apply(cloud.plan())
    assert len(cloud.sent) == len(set(cloud.sent)) == 2
    assert cloud.faults() == {}


# ------------------------------------------------------------------------------------------ what is below others

BELOW = """
    hosts cell1      c1
    keystone_projects  id   name
                       t-1  one
    nsx_objects  path                           parent               kind     id   thing    neutron  project  plugin  revision
                 /infra/segments/n-1            -                    segment  n-1  network  n-1      t-1      17      0
                 /infra/segments/n-1/ports/p-1  /infra/segments/n-1  port     p-1  port     p-1      t-1      17      0
                 /infra/segments/n-1/ports/p-2  /infra/segments/n-1  port     p-2  port     p-2      t-1      17      0
"""  # noqa: E501
PORT, SEGMENT = "nsx-port-left", "nsx-segment-left"
PORTS = ["/infra/segments/n-1/ports/p-1", "/infra/segments/n-1/ports/p-2"]


@pytest.fixture
def stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud with what is NSX's alone, read once."""
    monkeypatch.setattr("tests.tiny.CHECKS", {name: CHECKS[name] for name in (PORT, SEGMENT)})
    cloud = Cloud(tmp_path, BELOW)
    cloud.judge()
    return cloud


def planned(cloud: Cloud) -> list[str]:
    return [entry.key for entry in cloud.plan().entries]


def test_what_is_below_something_goes_first_and_that_in_the_same_run(stacked: Cloud) -> None:
    assert set(stacked.faults().values()) == {"proven"}
    made = plan.played(stacked.plan(), {name: CHECKS[name] for name in (PORT, SEGMENT)}, stacked.truth)
    assert [(entry.key, entry.risk) for entry in made.entries] == [
        (PORTS[0], "ask"), (PORTS[1], "ask"), ("/infra/segments/n-1", "ask")
    ]  # fmt: skip
    assert made.leaves == 0
    assert [outcome for outcome, _ in stacked.apply(made)] == ["done"] * 3
    assert stacked.faults() == {}


def test_what_something_is_left_on_is_left(stacked: Cloud) -> None:
    stacked.state.keep("id", PORTS[1], "ours", None)
    assert planned(stacked) == PORTS[:1]
    assert {one.key: one.why for one in stacked.plan().left_out} == {
        PORTS[1]: f"kept (id {PORTS[1]}): ours",
        "/infra/segments/n-1": f"by hand: what is on it goes first: {PORTS[0]}",
    }
    stacked.state.unkeep(1)
    stacked.state.keep("id", "/infra/segments/n-1", "ours", None)
    assert planned(stacked) == PORTS


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO neutron_ports (id) VALUES ('p-2')",
        "UPDATE nsx_objects SET revision = NULL WHERE id = 'n-1'",
        "UPDATE nsx_objects SET revision = NULL WHERE id = 'p-2'",
        "UPDATE nsx_objects SET protected = 'it is NSX''s own' WHERE id = 'p-2'",
    ],
)
def test_what_is_not_to_go_or_has_to_stay_itself_holds_what_is_above_it(stacked: Cloud, change: str) -> None:
    stacked.truth.db.execute(change)
    assert set(planned(stacked)) < set(PORTS) or "n-1" in change
    assert "/infra/segments/n-1" not in planned(stacked)


def test_what_comes_below_something_meanwhile_holds_it(stacked: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stacked.plan()
    given = "path, parent, kind, id, thing, neutron, project, plugin, revision"
    new = "'/infra/segments/n-1/ports/p-3', '/infra/segments/n-1', 'port', 'p-3', 'port', 'p-3', 't-1', '17', 0"

    def prove(scope: Scope) -> tuple[Snapshot, Snapshot]:
        if scope.also == {"/infra/segments/n-1", "n-1"}:
            stacked.truth.db.execute(f"INSERT INTO nsx_objects ({given}) VALUES ({new})")
        return stacked.copy(), stacked.copy()

    monkeypatch.setattr(stacked, "prove", prove)
    done = list(apply.apply(made, CHECKS, stacked.config, stacked.state, stacked.means))
    assert [one.outcome for one in done] == ["done", "done", "moved"]
    assert done[2].why == f"by hand: what is on it goes first: {PORTS[0][:-1]}3"


def test_of_a_plan_that_was_cut_down_no_more_is_done(stacked: Cloud) -> None:
    made = stacked.plan()
    made = replace(made, entries=made.entries[1:])
    assert [outcome for outcome, _ in stacked.apply(made)] == ["done", "moved"]


def test_a_gate_looks_at_no_more_than_it_has_to(stacked: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long acts take: at what is gated together, and then at each right before its act."""
    monkeypatch.setattr("time.monotonic", iter(range(0, 10**9, 3600)).__next__)
    made = stacked.plan()
    proved: list[Scope] = []

    def prove(scope: Scope) -> tuple[Snapshot, Snapshot]:
        proved.append(scope)
        return stacked.copy(), stacked.copy()

    monkeypatch.setattr(stacked, "prove", prove)
    stacked.apply(made)
    assert [len(one.also & {*PORTS, "/infra/segments/n-1"}) for one in proved] == [2, 1, 1, 1]
