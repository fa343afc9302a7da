"""Names of the dead: found, deleted through Designate's API, served by nobody, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import leftovers, names, places, ports
from testbed.api import Api
from testbed.cloud import Cloud
from testbed.node import await_true
from testbed.operator import Operator
from testbed.story import Story

OF_DELETED = "designate-record-of-deleted-server"
OF_FLOATING_IP = "designate-record-of-gone-floating-ip"


@pytest.fixture
def operator(cloud: Cloud, api: Api, tmp_path: Path, clouds: Path) -> Operator:
    names.forgotten(cloud, api)
    return Operator(cloud, tmp_path, skip={}, **{"write.designate": {"cloud": "admin", "clouds_file": str(clouds)}})


@pytest.fixture
def way_out(cloud: Cloud, api: Api) -> Iterator[None]:
    yield
    for number in (1, 2):
        for port in api.sdk.network.ports(name=f"front-{number}"):
            api.sdk.network.delete_port(port)
    ports.without_router(cloud, api)


def named(record: names.Record, name: str) -> bool:
    return record[0] == name


def comes_to(cloud: Cloud, zone: str, servers: list[set[names.Record]], what: str) -> None:
    await_true(what, lambda: names.zone(cloud, zone) == servers, 60)


def test_the_name_of_a_server_whose_deletion_was_not_heard(
    cloud: Cloud, api: Api, operator: Operator, story: Story
) -> None:
    leaked = names.record_leaked(cloud, api, "compute1", "leaked")
    before = names.zone(cloud, places.ZONE)
    without = [{record for record in one if not named(record, leaked.name)} for one in before]
    assert before != without
    story.made()
    assert operator.proven() == {OF_DELETED: {leaked.recordset}}
    story.fired(OF_DELETED)
    operator("repair", "--yes").came_to(1, {leaked.recordset: "done"})
    comes_to(cloud, places.ZONE, without, "no name server has it, and all else is as it was")
    assert operator.proven() == {}
    operator.undone()
    comes_to(cloud, places.ZONE, before, "both name servers have it again, record for record")
    assert operator.proven() == {}, "it is nobody's now"
    story.undone("both name servers say what they said")
    names.removed(api, leaked.name)
    comes_to(cloud, places.ZONE, without, "it is gone")
    story.repaired("deleted through Designate's API")
    story.agreed("both name servers: the rest of the zone is as it was")


@pytest.mark.long
def test_the_name_of_a_server_whose_deletion_was_forced(
    cloud: Cloud, api: Api, operator: Operator, story: Story
) -> None:
    server = leftovers.deleted_while_host_is_down(cloud, api, "compute1", "forced")
    ((_, _, _, recordset),) = names.records(cloud, server)
    story.made()
    found = operator.proven()
    assert found.pop(OF_DELETED) == {recordset}
    story.fired(OF_DELETED)
    assert set(found) == {"libvirt-domain-of-deleted-server"}, "a guest of it still runs"
    (told,) = (one for one in operator("check").data["findings"] if one["check"] == OF_DELETED)
    assert told["risk"] == "by-hand"
    for _ in range(2):  # paused, then stopped; the name goes when no host has the guest any more
        ran = operator("repair", "--yes")
        assert recordset not in ran.outcomes, ran.out
    assert set(operator("purge", "--yes").outcomes.values()) == {"done"}
    operator("repair", "--yes").came_to(1, {recordset: "done"})
    assert names.records(cloud, server) == []
    story.repaired("deleted through Designate's API, once the guest is gone")
    leftovers.archive(cloud)
    operator("repair", "--yes")
    operator("purge", "--yes")
    assert operator.proven() == {}


def test_the_name_of_a_floating_ip_that_is_gone(
    cloud: Cloud, api: Api, operator: Operator, story: Story, way_out: None
) -> None:
    left, stays = names.reverse_left(cloud, api, "front")
    zone = left.name.partition(".")[2]
    before = names.zone(cloud, zone)
    without = [{record for record in one if not named(record, left.name)} for one in before]
    assert before != without
    story.made()
    assert operator.proven() == {OF_FLOATING_IP: {left.recordset}}
    story.fired(OF_FLOATING_IP)
    operator("repair", "--yes").came_to(1, {left.recordset: "done"})
    comes_to(cloud, zone, without, "no name server has it, and all else is as it was")
    assert operator.proven() == {}
    operator.undone()
    comes_to(cloud, zone, before, "both name servers have it again, record for record")
    story.undone("both name servers say what they said")
    names.removed(api, left.name)
    names.removed(api, names.records(cloud, stays)[0][0])
    story.repaired("deleted through Designate's API")
    story.agreed("both name servers: the name of the other floating IP is as it was")
