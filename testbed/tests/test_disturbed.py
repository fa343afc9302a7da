"""Neutron is restarted and OVN's leader moves, again and again, while cloudfsck checks and repairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed import northbound, oracles, ports
from testbed.api import Api
from testbed.cloud import Cloud
from testbed.disturbance import disturbed
from testbed.operator import Operator
from testbed.ports import LookAlikes
from testbed.story import Story

OF_DELETED = "neutron-port-of-deleted-server"
OVN = "ovn-port-left"
#: How often it is checked, and how often repaired at the most, while all that goes on.
CHECKS, REPAIRS = 3, 12


@pytest.mark.long
def test_nothing_wrong_is_said_and_nothing_is_half_done(
    cloud: Cloud, api: Api, tmp_path: Path, clouds: Path, story: Story, look_alikes: LookAlikes
) -> None:
    writes: dict[str, dict[str, Any]] = {
        "write.neutron": {"cloud": "admin", "clouds_file": str(clouds)},
        "write.ovn": {"northbound": [*northbound.REMOTES]},
    }
    before = look_alikes.now(api)
    of_deleted = {one.port for one in ports.deleted_in_the_database(cloud, api, "compute1", "port-8", count=3)}
    in_ovn = {ports.forgotten_by_neutron(cloud, api) for _ in range(3)}
    story.made()
    all_of_it = {(OF_DELETED, port) for port in of_deleted} | {(OVN, port) for port in in_ovn}
    (tmp_path / "one").mkdir()
    operator = Operator(cloud, tmp_path / "one", **writes)
    assert operator("check").found("proven") == all_of_it
    story.fired(OF_DELETED)
    story.fired(OVN)
    done: set[str] = set()
    unknown: set[str] = set()
    failed = 0
    with disturbed(cloud) as what:
        for _ in range(CHECKS):
            found = operator("check").found("proven", "unproven", "seen")
            assert found <= all_of_it
        for _ in range(REPAIRS):
            outcomes = operator("repair", "--yes").outcomes
            # Of what is not known nothing is tried again before it is; what is done is not done twice.
            assert not outcomes.keys() & (done | unknown)
            done |= {key for key, outcome in outcomes.items() if outcome == "done"}
            unknown |= {key for key, outcome in outcomes.items() if outcome == "unknown"}
            failed += len(outcomes) - len([one for one in outcomes.values() if one in ("done", "unknown")])
            # With what is not known its whole case is left alone.
            if done | unknown == of_deleted | in_ovn or (unknown and not outcomes):
                break
    story.repaired(
        f"{len(done)} done, {len(unknown)} unknown, {failed} failed with nothing changed, while"
        f" {', '.join(f'{name} died {what.count(name)} times' for name in sorted(set(what)))}"
    )
    # A neutron-api that died in the midst of a deletion leaves it to Neutron's maintenance, and so do we.
    ports.forgotten(cloud)
    # Another one, who knows nothing of this, finds what is left, and of what is not known which it was.
    (tmp_path / "two").mkdir()
    another = Operator(cloud, tmp_path / "two", **writes)
    left = {key for _, key in another("check").found("proven")}
    assert left <= (of_deleted | in_ovn) - done
    another("repair", "--yes").came_to(1 if left else 0, dict.fromkeys(left, "done"))
    ran = another("check")
    assert (ran.status, ran.data["findings"], ran.data["unknown"]) == (0, [], [])
    assert look_alikes.now(api) == before
    assert oracles.disagreements(cloud) == []
    story.agreed("OVN's synchronisation; the ports that nobody may touch are as they were")
