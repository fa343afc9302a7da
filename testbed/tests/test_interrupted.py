"""What a service leaves half done when it dies in the midst: as each place has it, and as cloudfsck judges it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from testbed import interrupted
from testbed.api import Api, until
from testbed.cloud import Cloud
from testbed.interrupted import Hit, Picture, picture
from testbed.leftovers import INSTANCES, VIRSH
from testbed.operator import Operator

DELETED = "libvirt-domain-of-deleted-server"
DIRECTORY = "nova-directory-of-deleted-server"
RESIZE = "nova-resize-directory-left"
MAPPING = "nova-mapping-without-server"
ALLOCATION = "placement-allocation-missing"
PORTS = "neutron-ports-of-server-differ"
MISSING = "libvirt-domain-missing"
ATTACHMENT = "cinder-attachment-of-deleted-server"
HALF_ATTACHED = "cinder-attachment-half-done"
STATUS = "cinder-volume-status-differs"

#: A server that runs on compute1, one that was deleted there, and one that Nova's API has forgotten.
RUNS = Picture(
    rows=("cell1 active - compute1",), mapping="cell1", allocations=("instance compute1",),
    ports=("ACTIVE compute1 ovs",), domains=("compute1 running",), directories=("compute1 UUID",),
)  # fmt: skip
GONE = Picture(rows=("cell1 deleted - compute1 (deleted)",), mapping="cell1")
ASKED = Picture(mapping="", build_request=True)


@dataclass(frozen=True)
class Judged:
    """What cloudfsck says of a server: the checks that have proven something, what it would do, and what stops it."""

    proven: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()


#: Nothing is found: rightly, since something is under way or will mend itself; or because no check asks for it as yet.
INNOCENT = UNASKED = Judged()


def judged(operator: Operator, *ids: str) -> Judged:
    """Check and plan; whatever is found of these servers and volumes must be proven."""
    check, plan = operator("check").data, operator("plan").data
    found = [one for one in check["findings"] if one["server"] in ids or one["key"] in ids]
    assert {one["state"] for one in found} <= {"proven"}, found
    acts = [one["text"].replace(one["case"], "UUID") for one in plan["acts"] if one["case"] in ids]
    return Judged(tuple(sorted(one["check"] for one in found)), tuple(acts), (*check["stops"], *plan["stops"]))


def repaired(operator: Operator, server: str) -> None:
    """cloudfsck itself takes what was left, down to the end of its ladder."""
    for command in ("repair", "purge"):
        ran = operator(command, "--yes")
        assert {one["outcome"] for one in ran.data["acts"] if server in one["key"]} == {"done"}, (ran.out, ran.err)


def back(cloud: Cloud, api: Api, host: str) -> None:
    cloud.nova_compute(host)
    api.compute_becomes(host, "up")


# -- deletions


@pytest.mark.parametrize("guest", ["runs", pytest.param("gone", marks=pytest.mark.long)])
def test_delete_interrupted(cloud: Cloud, api: Api, operator: Operator, guest: str) -> None:
    hit = interrupted.delete_interrupted(cloud, api, "compute1", f"delete-{guest}", guest)
    half = dataclasses.replace(RUNS, rows=("cell1 active deleting compute1",))
    assert hit.seen == (half if guest == "runs" else dataclasses.replace(half, domains=(), directories=()))
    assert judged(operator, hit.server) == INNOCENT
    back(cloud, api, "compute1")
    api.becomes(hit.server)
    assert picture(cloud, hit.server) == GONE


@pytest.mark.long
def test_deleted_without_broker(cloud: Cloud, api: Api, operator: Operator) -> None:
    stuck, alone = interrupted.deleted_without_broker(cloud, api, "compute1", ("broker-stuck", "broker-alone"))
    half = dataclasses.replace(RUNS, rows=("cell1 active deleting compute1",))
    assert stuck.seen == half
    assert "ConnectFailure" in stuck.answer
    assert alone.answer == "accepted"
    # nova-compute removes the directory some minutes later, under the guest that runs.
    zombie = dataclasses.replace(GONE, domains=RUNS.domains)
    assert dataclasses.replace(alone.seen, directories=()) == zombie
    api.compute_becomes("compute1", "up")
    assert judged(operator, alone.server) == Judged((DELETED,), ("pause domain UUID on compute1; its memory is kept",))
    api.delete(stuck.server, wait=False)  # "already in deleting state": accepted, and nothing is done
    assert picture(cloud, stuck.server) == half
    assert judged(operator.later(), stuck.server) == UNASKED
    api.act(stuck.server, "os-resetState", {"state": "error"})
    api.delete(stuck.server)
    assert picture(cloud, stuck.server) == GONE
    for command in ("destroy", "undefine"):
        cloud.computes["compute1"].run(*VIRSH, command, alone.server)
    cloud.computes["compute1"].run("rm", "-rf", f"{INSTANCES}/{alone.server}")
    assert picture(cloud, alone.server) == GONE


@pytest.mark.long
def test_deleted_without_neutron(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.deleted_without(cloud, api, "compute1", "no-neutron", "neutron-api")
    assert hit.seen == dataclasses.replace(
        RUNS, rows=("cell1 error - compute1",), attachments=("in-use: attached, connected",), devices=(hit.volume,),
        domains=(), directories=(),
    )  # fmt: skip
    cloud.start("neutron-api")
    assert judged(operator, hit.server) == UNASKED
    api.delete(hit.server)
    assert picture(cloud, hit.server) == GONE
    assert api.volume_state(hit.volume) == "available"
    delete_volume(api, hit)


@pytest.mark.long
def test_deleted_without_cinder(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.deleted_without(cloud, api, "compute1", "no-cinder", "cinder-api")
    assert hit.seen == dataclasses.replace(GONE, attachments=("in-use: attached, connected",))
    cloud.start("cinder-api")
    assert judged(operator, hit.server) == Judged((ATTACHMENT,))
    (command,) = (
        command.partition(": openstack ")[2]
        for one in operator("check").data["findings"]
        for command in one["commands"]
        if "attachment delete" in command
    )
    cloud.controller.run("bash", "-ec", f"openstack --os-cloud admin {command}")
    api.volume_becomes(hit.volume, "available")
    assert picture(cloud, hit.server) == GONE
    delete_volume(api, hit)


def delete_volume(api: Api, hit: Hit) -> None:
    api.call("block_storage", "DELETE", f"/volumes/{hit.volume}")
    api.volume_becomes(hit.volume, None)


# -- builds


@pytest.mark.long
@pytest.mark.parametrize("guest", ["disk", "paused"])
def test_build_interrupted(cloud: Cloud, api: Api, operator: Operator, guest: str) -> None:
    hit = interrupted.build_interrupted(cloud, api, "compute1", f"build-{guest}", guest)
    half = dataclasses.replace(
        RUNS, rows=("cell1 building spawning compute1",), ports=hit.seen.ports,
        domains=("compute1 paused",) if guest == "paused" else (),
    )  # fmt: skip
    assert hit.seen == half
    assert judged(operator, hit.server) == INNOCENT
    back(cloud, api, "compute1")
    api.becomes(hit.server, "ERROR")
    failed = picture(cloud, hit.server)
    assert failed == dataclasses.replace(half, rows=("cell1 error - compute1",), ports=failed.ports)
    assert judged(operator.later(), hit.server) == INNOCENT
    api.delete(hit.server)
    assert picture(cloud, hit.server) == GONE


@pytest.mark.long
def test_boot_unsent(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.boot_unsent(cloud, api, "compute1", "boot-unsent")
    assert hit.seen == ASKED
    assert "ConnectFailure" in hit.answer
    cloud.start("nova-api")
    assert api.server(hit.server)["OS-EXT-STS:task_state"] == "scheduling"
    assert judged(operator, hit.server) == UNASKED
    forget(cloud, api, operator, hit.server)


@pytest.mark.long
def test_boot_unscheduled(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.boot_unscheduled(cloud, api, "compute1", "boot-unscheduled")
    assert hit.seen == dataclasses.replace(ASKED, allocations=("instance compute1",))
    cloud.start("nova-super-conductor")
    assert judged(operator, hit.server) == UNASKED
    forget(cloud, api, operator, hit.server)


@pytest.mark.long
def test_boot_unmapped(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.boot_unmapped(cloud, api, "compute1", "boot-unmapped")
    ghost = Picture(rows=("cell1 building scheduling nowhere",), mapping="")
    assert hit.seen == dataclasses.replace(ghost, build_request=True, allocations=("instance compute1",))
    cloud.start("nova-super-conductor")
    assert judged(operator, hit.server) == UNASKED
    api.call("compute", "DELETE", f"/servers/{hit.server}")
    assert api.server(hit.server) == {}
    # The API has forgotten it, and the row in the cell lives on where nobody looks.
    assert picture(cloud, hit.server) == ghost
    assert judged(operator, hit.server) == UNASKED
    cell = "(SELECT id FROM cell_mappings WHERE name = 'cell1')"
    cloud.sql("nova_api", f"UPDATE instance_mappings SET cell_id = {cell} WHERE instance_uuid = '{hit.server}'")
    api.act(hit.server, "os-resetState", {"state": "error"})
    api.delete(hit.server)
    assert picture(cloud, hit.server) == dataclasses.replace(GONE, rows=("cell1 deleted - nowhere (deleted)",))


def forget(cloud: Cloud, api: Api, operator: Operator, server: str) -> None:
    """Delete a server that was never made.  Its mapping stays without a cell, and no command of Nova's removes it."""
    api.call("compute", "DELETE", f"/servers/{server}")
    assert api.server(server) == {}
    assert picture(cloud, server) == Picture(mapping="")
    assert judged(operator, server) == Judged((MAPPING,))
    for table in ("instance_mappings", "request_specs"):
        cloud.sql("nova_api", f"DELETE FROM {table} WHERE instance_uuid = '{server}'")


# -- migrations


@pytest.mark.long
def test_copy_interrupted(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.copy_interrupted(cloud, api, "compute1", "compute2", "copy")
    half = Picture(
        rows=("cell1 active resize_migrating compute1",), mapping="cell1",
        migrations=("resize migrating compute1>compute2",), allocations=("instance compute2", "migration compute1"),
        ports=hit.seen.ports, domains=("compute1 shut off",),
        directories=("compute1 UUID_resize", "compute2 UUID"),
    )  # fmt: skip
    assert hit.seen == half
    assert judged(operator, hit.server) == INNOCENT
    back(cloud, api, "compute1")
    interrupted.await_row(cloud, hit.server, "active - compute1")
    # nova-compute fails to take the migration back, and calls the server active all the same.
    stuck = picture(cloud, hit.server)
    assert stuck == dataclasses.replace(
        half, rows=("cell1 active - compute1",), ports=stuck.ports, directories=("compute1 UUID", "compute2 UUID")
    )
    assert judged(operator.later(), hit.server) == UNASKED
    api.delete(hit.server)
    left = dataclasses.replace(
        GONE, migrations=("resize migrating compute1>compute2 (deleted)",), allocations=("migration compute1",)
    )
    assert picture(cloud, hit.server) == dataclasses.replace(left, directories=("compute2 UUID",))
    quarantine = "quarantine /var/lib/nova/instances/UUID on compute2 (4.0 KiB)"
    assert judged(operator, hit.server) == Judged((DIRECTORY,), (quarantine,))
    repaired(operator, hit.server)
    assert picture(cloud, hit.server) == left
    release(cloud, api, hit.server)


@pytest.mark.long
def test_finish_interrupted(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.finish_interrupted(cloud, api, "compute1", "compute2", "finish")
    half = Picture(
        rows=("cell1 active resize_finish compute2",), mapping="cell1",
        migrations=("resize post-migrating compute1>compute2",), ports=hit.seen.ports,
        allocations=("instance compute2", "migration compute1"), domains=("compute1 shut off",),
        directories=("compute1 UUID_resize", "compute2 UUID"),
    )  # fmt: skip
    assert hit.seen == half
    back(cloud, api, "compute2")
    assert dataclasses.replace(picture(cloud, hit.server), ports=half.ports) == half
    assert judged(operator, hit.server) == INNOCENT
    # What an operator does then leaves the source as it is, and Nova has no idea of it.
    api.act(hit.server, "os-resetState", {"state": "active"})
    api.act(hit.server, "reboot", {"type": "HARD"})
    api.becomes(hit.server, "ACTIVE")
    assert picture(cloud, hit.server).domains == ("compute1 shut off", "compute2 running")
    assert judged(operator.later(), hit.server) == UNASKED
    api.delete(hit.server)
    left = dataclasses.replace(
        GONE, rows=("cell1 deleted - compute2 (deleted)",), allocations=("migration compute1",),
        migrations=("resize post-migrating compute1>compute2 (deleted)",), directories=("compute1 UUID_resize",),
    )  # fmt: skip
    assert picture(cloud, hit.server) == dataclasses.replace(left, domains=("compute1 shut off",))
    hold = "hold domain UUID on compute1 as it is, stopped"
    assert DELETED in judged(operator, hit.server).proven
    assert hold in judged(operator, hit.server).acts
    repaired(operator, hit.server)
    assert picture(cloud, hit.server) == left
    (found,) = judged(operator, hit.server).proven
    assert found == RESIZE
    repaired(operator, hit.server)
    assert picture(cloud, hit.server) == dataclasses.replace(left, directories=())
    release(cloud, api, hit.server)


def release(cloud: Cloud, api: Api, server: str) -> None:
    """Give up what Placement holds for the server's migration."""
    for (migration,) in cloud.sql("nova_cell1", f"SELECT uuid FROM migrations WHERE instance_uuid = '{server}'"):
        api.call("placement", "DELETE", f"/allocations/{migration}")
    assert picture(cloud, server).allocations == ()


# -- volumes


@pytest.mark.long  # Nova tries again after a minute
def test_attach_interrupted_at_cinder(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.attach_interrupted(cloud, api, "compute1", "attach-cinder", "cinder-volume")
    assert hit.seen == dataclasses.replace(RUNS, attachments=("reserved: reserved",), devices=(hit.volume,))
    cloud.start("cinder-volume")
    assert judged(operator, hit.server) == INNOCENT
    # cinder-api waits a minute for the call that died; then nova-compute asks again.
    api.volume_becomes(hit.volume, "in-use", seconds=180)
    free(cloud, api, hit)


@pytest.mark.long
def test_attach_interrupted_at_nova(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.attach_interrupted(cloud, api, "compute1", "attach-nova", "nova-compute")
    half = dataclasses.replace(RUNS, attachments=("attaching: attaching, connected",), devices=(hit.volume,))
    assert hit.seen == half
    back(cloud, api, "compute1")
    assert picture(cloud, hit.server) == half
    assert not interrupted.uses(cloud.computes["compute1"], hit.server, hit.volume)
    assert judged(operator.later(), hit.server, hit.volume) == Judged((HALF_ATTACHED,))
    # Nova cannot detach what it has no connection of; only the server's end is the end of it.
    api.delete(hit.server)
    assert picture(cloud, hit.server) == GONE
    api.volume_becomes(hit.volume, "available")
    delete_volume(api, hit)


def test_detach_interrupted_at_cinder(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.detach_interrupted(cloud, api, "compute1", "detach-cinder", "cinder-volume")
    half = dataclasses.replace(RUNS, attachments=("detaching: attached, connected",), devices=(hit.volume,))
    assert hit.seen == half
    assert judged(operator, hit.server) == INNOCENT
    cloud.start("cinder-volume")
    # nova-compute asks five times, a minute each.
    api.volume_becomes(hit.volume, "available", seconds=180)
    until("Nova lets go of it", lambda: picture(cloud, hit.server) == RUNS, 30)
    api.delete(hit.server)
    delete_volume(api, hit)


@pytest.mark.long
def test_detach_interrupted_at_nova(cloud: Cloud, api: Api, operator: Operator) -> None:
    hit = interrupted.detach_interrupted(cloud, api, "compute1", "detach-nova", "nova-compute")
    half = dataclasses.replace(RUNS, attachments=("detaching: attached, connected",), devices=(hit.volume,))
    assert hit.seen == half
    back(cloud, api, "compute1")
    assert picture(cloud, hit.server) == half
    assert interrupted.uses(cloud.computes["compute1"], hit.server, hit.volume)
    assert judged(operator.later(), hit.server, hit.volume) == Judged((STATUS,))
    api.call("block_storage", "POST", f"/volumes/{hit.volume}/action", {"os-reset_status": {"status": "in-use"}})
    free(cloud, api, hit)


def free(cloud: Cloud, api: Api, hit: Hit) -> None:
    """What is in use after all is taken from the guest as ever."""
    until("the guest has it", lambda: interrupted.uses(cloud.computes["compute1"], hit.server, hit.volume), 60)
    interrupted.detach(cloud, api, hit.server, hit.volume)
    until("Nova lets go of it", lambda: picture(cloud, hit.server) == RUNS, 30)
    api.delete(hit.server)
    delete_volume(api, hit)


# -- databases


def test_restored_cell(cloud: Cloud, api: Api, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The dangerous one: a guest runs that no cell knows, and a server is back that has none."""
    early, fresh = (Operator(cloud, tmp_path_factory.mktemp(name)) for name in ("early", "fresh"))
    deleted = interrupted.booted(api, "restored-deleted", "compute1")
    assert early("check").data["stops"] == []
    backup = interrupted.dump(cloud, "nova_cell1")
    made = interrupted.booted(api, "restored-made", "compute1")
    api.delete(deleted)
    assert operator("check").data["stops"] == []
    before = interrupted.restore(cloud, "nova_cell1", backup)
    try:
        assert picture(cloud, made) == dataclasses.replace(RUNS, rows=())
        assert picture(cloud, deleted) == Picture(rows=RUNS.rows, mapping="cell1")
        assert (api.server(made), api.server(deleted)["status"]) == ({}, "ACTIVE")
        for command in (("check",), ("plan",), ("repair", "--yes")):
            ran = operator(*command)
            assert ran.status & 8
            assert not ran.status & 1
            assert any("its database was restored" in why for why in ran.data["stops"]), ran.out
        assert ran.data["acts"] == []
        # Who checked before the backup, or never, has nothing to tell it by, and must not need it.
        for one in (early, fresh):
            plan = one("plan").data
            assert plan["stops"] == []
            assert not {made, deleted} & {act["case"] for act in plan["acts"]}
            left = [left["check"] for left in plan["left_out"] if made in left["key"] or deleted in left["key"]]
            # A person sees that the one that is back has no domain, no port and no place, and the other nothing but a
            # mapping.
            assert sorted(left) == [MISSING, PORTS, MAPPING, ALLOCATION]
    finally:
        interrupted.restore(cloud, "nova_cell1", before)
    assert operator("plan").data["stops"] != []  # until a person says that it is known
    operator("accept-restore", form=None)
    assert judged(operator, made, deleted) == INNOCENT
    assert picture(cloud, made) == RUNS
    api.delete(made)
    assert picture(cloud, made) == picture(cloud, deleted) == GONE
