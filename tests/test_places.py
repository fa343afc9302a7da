"""A volume in its five places: what the checks say of every combination of there and not there."""

from __future__ import annotations

from functools import cache

import pytest

from cloudfsck import checks
from cloudfsck.model import Finding
from docs import places
from docs.places import PLACES, Combination, combinations

CHECKS = checks.load()

#: The places beside the build request, in their order, and which checks must speak then.  For a server that lives:
LIVING = {
    "cell Cinder guest host": "",
    "cell Cinder guest": "device-without-path",
    "cell Cinder host": "volume-missing-in-guest",
    "cell Cinder": "volume-missing-in-guest",
    "cell guest host": "block-device-without-attachment",
    "cell guest": "block-device-without-attachment",
    "cell host": "block-device-without-attachment volume-missing-in-guest",
    "cell": "block-device-without-attachment volume-missing-in-guest",
    "Cinder guest host": "attachment-unknown-to-nova volume-unknown-to-nova",
    "Cinder guest": "attachment-unknown-to-nova volume-unknown-to-nova",
    "Cinder host": "attachment-unknown-to-nova",
    "Cinder": "attachment-unknown-to-nova",
    "guest host": "volume-unknown-to-nova",
    "guest": "volume-unknown-to-nova",
    "host": "device-left",
    "": "",
}

#: And for one that is deleted, where a guest is a domain that should not be there at all.  A block device mapping alone
#: says nothing: nova-compute left it when it deleted the server, and nobody reads it any more.
DELETED = {
    there: " ".join(
        ["attachment-of-deleted-server"] * ("Cinder" in there)
        + ["domain-of-deleted-server"] * ("guest" in there)
        + ["device-left"] * (there in ("cell host", "host"))
    )
    for there in LIVING
}


@cache
def judged() -> dict[Combination, list[Finding]]:
    return places.judged(CHECKS)


def told(one: Combination) -> str:
    return " ".join(sorted(found.check.partition("-")[2] for found in judged()[one]))


def words(one: Combination) -> str:
    return " ".join(place for place in PLACES[1:] if place in one.there)


def test_every_combination_is_there_once() -> None:
    assert len({(one.lives, one.there) for one in combinations()}) == len(combinations()) == 2 * 2 ** len(PLACES)


@pytest.mark.parametrize("one", combinations(), ids=lambda one: f"{'lives' if one.lives else 'deleted'}: {one.there}")
def test_the_verdict_of_each_combination(one: Combination) -> None:
    building = "API database" in one.there
    assert told(one) == ("" if building else (LIVING if one.lives else DELETED)[words(one)])
