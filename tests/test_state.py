"""The state store: sightings, keeps, the lease, what stops repairs; on SQLite, and shared on a real server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudfsck.config import Cloud
from cloudfsck.model import Finding, Hold, Trouble
from cloudfsck.state import State, utcnow
from tests.bed import MariaDB, PostgreSQL


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(Cloud(name="x", state=tmp_path / "state"))


def found(key: str) -> Finding:
    return Finding("some-check", key, "ask", "seen", {"server": "s-1"})


def later(monkeypatch: pytest.MonkeyPatch, **time: float) -> None:
    now = utcnow() + dt.timedelta(**time)
    monkeypatch.setattr("cloudfsck.state.utcnow", lambda: now)


def test_a_sighting_lasts_while_it_is_found_and_ends_when_it_is_not(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = frozenset({"some-check"})
    first = state.sight([found("a")], judged)["some-check", "a"]
    later(monkeypatch, hours=2)
    assert state.sight([found("a")], judged)["some-check", "a"] == first
    state.sight([], frozenset())  # the check could not judge everything: nothing ends
    assert state.first_seen("some-check", "a") == first
    state.sight([], judged)
    assert state.first_seen("some-check", "a") is None
    assert state.sight([found("a")], judged)["some-check", "a"] > first


def test_what_was_found_counts_for_a_day(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.sight([found("a")], frozenset({"some-check"}))
    state.sight([], frozenset({"some-check"}))
    assert state.seen_today("some-check") == {"a"}
    later(monkeypatch, hours=25)
    assert state.seen_today("some-check") == frozenset()


def test_an_object_stands_on_one_rung(state: State) -> None:
    hold = Hold("some-check", "domain", "c1", "s-1", "paused", utcnow(), "run-1")
    state.hold(hold)
    stopped = Hold("some-check", "domain", "c1", "s-1", "stopped", utcnow(), "run-2")
    state.hold(stopped)
    assert state.holds() == [stopped]
    state.release("domain", "c1", "s-1")
    assert state.holds() == []


def test_a_keep_expires(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.keep("name", "db-*", "the DBAs look after these", utcnow() + dt.timedelta(days=1))
    (keep,) = state.keeps()
    assert keep.matches({"name": "db-1"}, ())
    assert not keep.matches({"name": "web-1"}, ())
    assert not keep.matches({"name": None}, ())
    later(monkeypatch, days=2)
    assert state.keeps() == []


def test_one_writer_at_a_time_and_each_has_a_higher_number(state: State) -> None:
    with state.lease() as first:
        with pytest.raises(Trouble, match="another cloudfsck is repairing this cloud"), state.lease():
            pass
        state.renew(first)
    with state.lease() as second:
        assert second.fence == first.fence + 1


def test_a_lease_that_ran_out_is_taken_over_and_its_owner_stops(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    with state.lease() as first:
        later(monkeypatch, minutes=6)
        with state.lease() as second:
            assert second.fence == first.fence + 1
            with pytest.raises(Trouble, match="our lease was lost"):
                state.renew(first)
            state.renew(second)


def test_a_clock_that_steps_back_is_noticed_until_it_catches_up(state: State) -> None:
    noon = dt.datetime(2026, 1, 1, 12)
    assert state.clocks({"cell:cell1": noon}) == {}
    assert state.clocks({"cell:cell1": noon - dt.timedelta(seconds=2)}) == {}
    back = noon - dt.timedelta(minutes=5)
    assert state.clocks({"cell:cell1": back}) == {"cell:cell1": (noon - dt.timedelta(seconds=2), back)}
    assert state.clocks({"cell:cell1": back}) != {}
    assert state.clocks({"cell:cell1": noon}) == {}


def test_accepting_a_restore_forgets_what_stopped_repairs(state: State) -> None:
    state.halt("in cell1 instance 7 is gone")
    state.halt("in cell1 instance 7 is gone")
    state.sample("cell1", [(7, "s-7")])
    state.note_reading("run-1", True)
    assert len(state.halts()) == 1
    assert len(state.accept_restore()) == 1
    assert (state.halts(), state.samples(), state.whole_readings()) == ([], [], 0)


def test_a_state_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Trouble, match=r"the state directory .*file/state cannot be used: Not a directory"):
        State(Cloud(name="x", state=tmp_path / "file" / "state"))


@pytest.fixture(params=[MariaDB, PostgreSQL], ids=["mariadb", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cloud]:
    with request.param(tmp_path / "server") as server:
        server.create("cloudfsck", None)
        if server.kind == "MariaDB":
            server.execute("", "CREATE USER keeper IDENTIFIED BY 'kept'")
            server.execute("", "GRANT ALL ON cloudfsck.* TO keeper")
            url = f"mysql+pymysql://keeper@127.0.0.1:{server.port}/cloudfsck"
        else:
            server.execute("", "CREATE ROLE keeper LOGIN PASSWORD 'kept'")
            server.execute("", "ALTER DATABASE cloudfsck OWNER TO keeper")
            url = f"postgresql+psycopg://keeper@127.0.0.1:{server.port}/cloudfsck"
        (tmp_path / "password").write_text("kept\n")
        yield Cloud(name="x", state=tmp_path / "state", store=url, store_password_file=tmp_path / "password")


@pytest.mark.real
def test_a_shared_store_has_one_writer_too(shared: Cloud) -> None:
    one, other = State(shared), State(shared)
    with one.lease() as lease:
        with pytest.raises(Trouble, match="another cloudfsck is repairing"), other.lease():
            pass
        one.renew(lease)
        one.hold(Hold("some-check", "domain", "c1", "s-1", "paused", utcnow(), "run-1"))
    assert [hold.server for hold in other.holds()] == ["s-1"]
    with other.lease() as second:
        assert second.fence == lease.fence + 1
    assert one.keep("host", "c1", "because", None)
    assert [keep.pattern for keep in other.keeps()] == ["c1"]
    one.sight([found("a")], frozenset({"some-check"}))
    assert other.seen_today("some-check") == {"a"}
    port = f"/infra/segments/{'a' * 36}/ports/{'b' * 36}"  # NSX's objects are known by their paths
    one.freeze("nsx", port, "run-1 was at it", utcnow() + dt.timedelta(minutes=15))
    assert set(other.frozen()) == {port}
    one.close()
    other.close()
