"""Names of the dead: found, deleted through Designate's API, served by nobody, and put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed import leftovers, names, person, places, ports
from testbed.api import Api
from testbed.cloud import Cloud
from testbed.interrupted import booted
from testbed.node import await_true
from testbed.operator import Operator
from testbed.story import Story

OF_DELETED = "designate-record-of-deleted-server"
OF_FLOATING_IP = "designate-record-of-gone-floating-ip"
WITHOUT = "designate-server-without-record"
LOST = "designate-record-of-lost-address"
DIFFERS = "designate-zone-differs-on-server"
NOBODYS = "dns-name-of-nobodys-address"


@pytest.fixture
def settings(clouds: Path) -> dict[str, Mapping[str, Any]]:
    return {**names.READS, "write.designate": {"cloud": "admin", "clouds_file": str(clouds)}}


@pytest.fixture
def operator(cloud: Cloud, api: Api, tmp_path: Path, settings: dict[str, Mapping[str, Any]]) -> Operator:
    names.forgotten(cloud, api)
    return Operator(cloud, tmp_path, **settings)


@pytest.fixture
def owner(cloud: Cloud, api: Api, tmp_path: Path, settings: dict[str, Mapping[str, Any]]) -> Operator:
    """One who has a zone of his own besides, on one of those name servers."""
    names.forgotten(cloud, api)
    writes = {"write.dns": {"key_file": "/var/lib/bind/update.key"}}
    return Operator(cloud, tmp_path, **settings, **names.OWNS, **writes)


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
    operator.purges(f"compute1/{server}")
    operator("repair", "--yes").came_to(1, {recordset: "done"})
    assert names.records(cloud, server) == []
    story.repaired("deleted through Designate's API, once the guest is gone")
    leftovers.archive(cloud)
    operator("repair", "--yes")
    operator("purge", "--yes")
    assert operator.proven() == {}


@pytest.mark.long
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


@pytest.mark.long
def test_what_designate_did_not_answer_for(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    witness = booted(api, "witness", "compute1")  # it shows which names designate-sink makes
    await_true("it has a name", lambda: names.active(cloud, witness), 90)
    leaked, late = names.unheard(cloud, api, "compute1", "before", "after")
    zone = names.zone(cloud, places.ZONE)
    without = [{record for record in one if not named(record, leaked.name)} for one in zone]
    assert zone != without
    story.made()
    assert operator.proven() == {OF_DELETED: {leaked.recordset}, WITHOUT: {f"{late} {places.ZONE}"}}
    story.fired(OF_DELETED)
    operator("repair", "--yes").came_to(1, {leaked.recordset: "done", f"{late} {places.ZONE}": "done"})
    (port,) = api.sdk.network.ports(device_id=late)
    address = port.fixed_ips[0]["ip_address"]
    (ttl,) = {record[1] for one in without for record in one if named(record, f"witness.{places.ZONE}")}
    with_it = [{*one, (f"after.{places.ZONE}", ttl, "IN", "A", address)} for one in without]
    comes_to(cloud, places.ZONE, with_it, "one is gone and one is made on both, and all else is as it was")
    assert operator.proven() == {}
    operator.undone()
    comes_to(cloud, places.ZONE, zone, "both name servers say again what they said")
    story.undone("both name servers say what they said")
    names.removed(api, leaked.name)
    comes_to(cloud, places.ZONE, without, "one is gone, and the other one has no name")
    assert operator.proven() == {WITHOUT: {f"{late} {places.ZONE}"}}
    operator("repair", "--yes").came_to(1, {f"{late} {places.ZONE}": "done"})
    await_true("nothing is under way", lambda: names.at_rest(cloud), 60)
    api.delete(late)
    ((key,),) = [found for check, found in operator.proven().items() if check == OF_DELETED]
    operator("repair", "--yes").came_to(1, {key: "done"})
    comes_to(cloud, places.ZONE, without, "what we made is found by its mark when its server is gone")
    assert operator.proven() == {}
    api.delete(witness)
    story.repaired("deleted and made through Designate's API")
    story.agreed("both name servers: the rest of the zone is as it was")


@pytest.mark.long
def test_the_name_of_a_server_that_has_another_address(
    cloud: Cloud, api: Api, operator: Operator, story: Story
) -> None:
    server = booted(api, "mover", "compute1")
    await_true("it has a name", lambda: names.active(cloud, server), 90)
    ((name, old, _, recordset),) = names.records(cloud, server)
    address = names.readdressed(api, server)
    story.made()
    assert operator.proven() == {LOST: {recordset}}
    (told,) = (one for one in operator("check").data["findings"] if one["state"] == "proven")
    assert (told["evidence"]["wrong"], told["evidence"]["addresses"]) == ([old], [address])
    assert told["by_hand"] == "nobody has that address"
    story.fired(LOST)
    person.types(cloud, told["commands"], "openstack recordset set")
    await_true("it is sent out", lambda: names.at_rest(cloud), 60)
    said = [{record[3:] for record in one if named(record, name)} for one in names.zone(cloud, places.ZONE)]
    assert said == [{("A", address)}] * len(names.SERVERS)
    assert operator.proven() == {}, "it counts as the server's"
    api.delete(server)
    assert operator.proven() == {OF_DELETED: {recordset}}
    operator("repair", "--yes").came_to(1, {recordset: "done"})
    assert operator.proven() == {}
    story.repaired("with the command that it shows")


def test_a_zone_that_was_edited_on_one_name_server(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = booted(api, "true", "compute1")
    await_true("it has a name", lambda: names.active(cloud, server), 90)
    good = names.zone(cloud, places.ZONE)
    assert good[0] == good[1]
    names.edited(cloud, f"true.{places.ZONE}", "10.20.0.251")
    assert names.zone(cloud, places.ZONE) != good
    story.made()
    ran = operator("check")
    (found,) = (one for one in ran.data["findings"] if one["state"] == "proven")
    assert found["check"] == DIFFERS, ran.out
    second = f"{places.ADDRESS}:{names.SERVERS[1]}"
    assert found["evidence"]["name_servers"] == [second]
    assert len(found["evidence"]["differences"]) == 3, "one lacking, and two strange"
    story.fired(DIFFERS)
    operator("repair", "--yes").came_to(1, {found["key"]: "done"})
    comes_to(cloud, places.ZONE, good, "both name servers say the same again")
    assert operator.proven() == {}
    story.repaired("sent anew by Designate")
    story.agreed("both name servers: the whole zone is as it was")
    api.delete(server)


@pytest.mark.long
def test_a_zone_of_its_own(cloud: Cloud, api: Api, owner: Operator, story: Story) -> None:
    gone, lives = booted(api, "leaver", "compute1"), booted(api, "stayer", "compute1")
    addresses = [next(api.sdk.network.ports(device_id=one)).fixed_ips[0]["ip_address"] for one in (gone, lives)]
    names.update(
        cloud,
        f"update add leaver.legacy.test 77 A {addresses[0]}", f"update add stayer.legacy.test 77 A {addresses[1]}",
        "update add leaver.legacy.test 77 TXT of-nobodys-concern",
    )  # fmt: skip
    key = f"leaver.legacy.test. {addresses[0]}"
    before = names.zone(cloud, names.LEGACY)[:1]
    assert owner.proven() == {}
    api.delete(gone)
    story.made()
    assert owner.proven() == {NOBODYS: {key}}
    story.fired(NOBODYS)
    owner("repair", "--yes").came_to(1, {key: "done"})
    without = [{one for one in before[0] if one[:1] != ("leaver.legacy.test.",) or one[3] == "TXT"}]
    assert names.zone(cloud, names.LEGACY)[:1] == without != before
    owner.undone()
    assert names.zone(cloud, names.LEGACY)[:1] == before
    story.undone("the zone is as it was, record for record")
    owner("repair", "--yes").came_to(1, {key: "done"})
    names.update(cloud, "update delete leaver.legacy.test", "update delete stayer.legacy.test")
    story.repaired("taken away by a dynamic update")
    story.agreed("the rest of the zone is as it was")
    api.delete(lives)
