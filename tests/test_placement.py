"""Placement: acts through its API, each with the generation of the consumer that was seen."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudfsck.acts.allocation import Amount, Take
from cloudfsck.acts.domain import Pause
from cloudfsck.acts.placement import Placement
from cloudfsck.config import CloudApi
from cloudfsck.model import Moved, Outcomeless, Refused, Trouble
from tests import cinder_api

S = "33333333-0000-4000-8000-000000000003"
HERE = "44444444-0000-4000-8000-000000000004"
THERE = "55555555-0000-4000-8000-000000000005"
TAKEN = (Amount(THERE, "compute2", "VCPU", 2), Amount(THERE, "compute2", "MEMORY_MB", 512))
KEPT = (Amount(HERE, "compute1", "VCPU", 2), Amount(HERE, "compute1", "MEMORY_MB", 512))

WHOLE = Take(S, S, TAKEN, (), 3)
PART = Take(S, S, TAKEN, KEPT, 3)


def amounts(*providers: str) -> dict[str, Any]:
    return {provider: {"resources": {"VCPU": 2, "MEMORY_MB": 512}, "generation": 9} for provider in providers}


class Api(cinder_api.Api):
    """Placement as its API tells of it (placement/handlers/allocation.py): one consumer, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.consumer: dict[str, Any] = {}
        self.bodies: list[Any] = []
        self.full = False

    def has(self, *providers: str) -> None:
        self.consumer = {
            "allocations": amounts(*providers), "project_id": "p", "user_id": "u", "consumer_generation": 3,
        }  # fmt: skip

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        assert (path, self.headers[-1]["OpenStack-API-Version"]) == (f"/placement/allocations/{S}", "placement 1.28")
        if method == "GET":
            return 200, copy.deepcopy(self.consumer) or {"allocations": {}}
        assert method == "PUT", "a DELETE takes whatever is there"
        self.bodies.append(body)
        if body["consumer_generation"] != self.consumer.get("consumer_generation"):
            return _conflict("consumer generation conflict")
        if self.full:
            return _conflict("Unable to allocate inventory: ... exceed the capacity")
        if self.lazy:
            return 204, {}
        generation = (body["consumer_generation"] or 0) + 1
        self.consumer = {**copy.deepcopy(body), "consumer_generation": generation} if body["allocations"] else {}
        return 204, {}


def _conflict(why: str) -> tuple[int, Any]:
    return 409, {"errors": [{"status": 409, "title": "Conflict", "detail": why, "code": "placement.undefined_code"}]}


@pytest.fixture
def api() -> Iterator[Api]:
    with cinder_api.served(Api) as api:
        yield api


@pytest.fixture
def placement(api: Api, tmp_path: Path) -> Placement:
    clouds = cinder_api.clouds(tmp_path, api.url)
    settings = CloudApi.model_validate({"cloud": "here", "clouds_file": clouds, "timeout": "1s"})
    ticks = iter(range(10_000))
    return Placement(settings, lambda: float(next(ticks)), lambda seconds: None)


def test_a_consumer_that_has_nothing_then_is_none_and_has_it_again(api: Api, placement: Placement) -> None:
    api.has(THERE)
    before = api.consumer
    saw = placement.send(WHOLE)
    assert saw == {"project_id": "p", "user_id": "u", "generation": None}
    assert (api.consumer, api.bodies[-1]["allocations"]) == ({}, {})
    back = WHOLE.undo(saw)
    placement.send(back)
    assert api.consumer["allocations"] == {THERE: {"resources": before["allocations"][THERE]["resources"]}}
    assert (api.consumer["project_id"], api.consumer["user_id"]) == ("p", "u")
    with pytest.raises(Moved, match="by Placement's API, and had nothing"):
        placement.send(back)


def test_what_else_it_has_stays_and_what_was_taken_comes_back(api: Api, placement: Placement) -> None:
    api.has(HERE, THERE)
    saw = placement.send(PART)
    assert set(api.consumer["allocations"]) == {HERE}
    assert saw["generation"] == 4
    placement.send(PART.undo(saw))
    assert set(api.consumer["allocations"]) == {HERE, THERE}


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"consumer_generation": 4}, "has consumer_generation 4"),
        ({"allocations": amounts(HERE)}, "and had"),
        ({"allocations": amounts(HERE, THERE)}, "and had"),
        ({"allocations": {THERE: {"resources": {"VCPU": 2}}}}, "and had"),
        ({"allocations": {}}, "has nothing by Placement's API"),
        ({"allocations": None}, "has nothing by Placement's API"),
    ],
)
def test_whoever_came_first_has_won(api: Api, placement: Placement, now: dict[str, Any], why: str) -> None:
    api.has(THERE)
    api.consumer.update(now)
    with pytest.raises(Moved, match=why):
        placement.send(WHOLE)
    assert api.writes == []


def test_whoever_came_in_between_has_won_too(api: Api, placement: Placement) -> None:
    api.has(THERE)

    def changed(method: str, path: str) -> None:
        if method == "PUT":
            api.consumer["consumer_generation"] = 8

    api.before = changed
    with pytest.raises(Moved, match="has consumer_generation 8"):
        placement.send(WHOLE)
    assert api.consumer["allocations"] == amounts(THERE)


def test_room_that_is_anothers_by_then_is_refused(api: Api, placement: Placement) -> None:
    api.has(THERE)
    back = WHOLE.undo(placement.send(WHOLE))
    api.full = True
    with pytest.raises(Refused, match=r"exceed the capacity \(HTTP 409\)"):
        placement.send(back)


@pytest.mark.parametrize(
    ("fault", "raises", "why"),
    [
        (400, Refused, "refuses"), (403, Trouble, "does not let"), (404, Moved, "has it no more"),
        (500, Outcomeless, "may still be at it"), (503, Trouble, "cannot do it now"), (504, Outcomeless, "HTTP 504"),
        ("close", Outcomeless, "did not answer"), ("hang", Outcomeless, "did not answer"),
    ],
)  # fmt: skip
def test_each_answer_to_a_change_means_one_thing(
    api: Api, placement: Placement, fault: int | str, raises: type[Exception], why: str
) -> None:
    api.has(THERE)
    api.faults = {"PUT": [fault]}
    with pytest.raises(raises, match=why):
        placement.send(WHOLE)
    assert [method for method, _ in api.writes] == ["PUT"], "nothing is sent twice"


def test_a_yes_that_nothing_follows_is_no_outcome(api: Api, placement: Placement) -> None:
    api.has(THERE)
    api.lazy = True
    with pytest.raises(Outcomeless, match="it is still as it was"):
        placement.send(WHOLE)


def test_what_is_no_uuid_or_no_act_of_its_own_is_refused(placement: Placement) -> None:
    with pytest.raises(Refused, match="is no UUID"):
        placement.send(Take(S, "../resource_providers", TAKEN, (), 3))
    with pytest.raises(Refused, match="is nothing that Placement does"):
        placement.send(Pause("compute1", S, 7, True))
