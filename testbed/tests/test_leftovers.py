"""What hosts keep when Nova has let go of it: found, repaired rung by rung, taken back; and OpenStack's tools agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from testbed import leftovers, oracles
from testbed.api import Api, until
from testbed.cloud import Cloud
from testbed.leftovers import state
from testbed.operator import Operator
from testbed.story import Story
from tests.real_cloud import Ran

DELETED = "libvirt-domain-of-deleted-server"
ARCHIVED = "libvirt-domain-of-archived-server"
TWICE = "libvirt-server-runs-twice"
UNKNOWN = "libvirt-domain-unknown-to-nova"
MISPLACED = "libvirt-domain-on-wrong-host"
DIRECTORY = "nova-directory-of-deleted-server"
MISPLACED_DIRECTORY = "nova-directory-on-wrong-host"
HALF_REMOVED = "nova-del-directory-left"


@dataclass(frozen=True)
class Neighbour:
    """A server that has nothing to do with it, and must not feel anything of it."""

    server: str
    host: str
    run: str


@pytest.fixture(autouse=True)
def neighbours(cloud: Cloud, api: Api) -> Iterator[tuple[Neighbour, ...]]:
    """A live server on each host; after each test they run as they ran, and Nova can still work with them."""
    made = []
    for host, node in cloud.computes.items():
        server = api.boot(f"neighbour-{host}", host)
        made.append(Neighbour(server, host, node.run(*leftovers.VIRSH, "domid", server).strip()))
    yield tuple(made)
    for one in made:
        assert cloud.computes[one.host].run(*leftovers.VIRSH, "domid", one.server).strip() == one.run
        api.act(one.server, "reboot", {"type": "HARD"})
        api.becomes(one.server, "ACTIVE")
        api.delete(one.server)


def proven(ran: Ran) -> set[tuple[str, str]]:
    """What a check has proven, when it read everything and found nothing else."""
    found = ran.found("proven")
    assert ran.data["unknown"] == []
    assert len(ran.data["findings"]) == len(found), ran.out
    return found


def the_directory_goes(cloud: Cloud, operator: Operator, story: Story, fault: tuple[str, str]) -> None:
    """Into quarantine, back with every byte, into quarantine again, and away."""
    key = fault[1]
    host, server = key.split("/")
    node, place = cloud.computes[host], f"/var/lib/nova/instances/{server}"
    sums = ("find", place, "-type", "f", "-exec", "sha256sum", "{}", "+")
    files = node.run(*sums)
    story.made()
    assert proven(operator("check")) == {fault}
    story.fired(DIRECTORY)
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert not node.path(place).exists()
    operator.undone()
    assert node.run(*sums) == files
    story.undone("quarantined: every byte is back")
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert set(operator("purge", "--yes").outcomes.values()) == {"done"}
    story.repaired("quarantined, removed")
    ran = operator("check")
    assert (ran.status, ran.held, ran.data["findings"]) == (0, {}, [])


def test_a_server_deleted_while_its_host_is_down(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = leftovers.deleted_while_host_is_down(cloud, api, "compute1", "deleted-1")
    node, key = cloud.computes["compute1"], f"compute1/{server}"
    assert state(node, server) == "running"
    story.made()
    assert oracles.unknown_guests(cloud, "compute1") == 1
    assert proven(operator("check")) == {(DELETED, key)}
    story.fired(DELETED)

    # Paused and taken back: the guest never stopped.
    run = node.run(*leftovers.VIRSH, "domid", server)
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert state(node, server) == "paused"
    assert operator("check").status == 0
    operator.undone()
    assert (state(node, server), node.run(*leftovers.VIRSH, "domid", server)) == ("running", run)
    story.undone("paused: the same guest runs on")

    # Paused again; then stopped, when the whole cloud has been read twice; and at last undefined.
    operator("repair", "--yes").came_to(1, {key: "done"})
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert state(node, server) == "shut off"
    operator.purges(key)
    assert state(node, server) is None
    story.repaired("paused, stopped, undefined")
    assert oracles.unknown_guests(cloud, "compute1") == 0
    # Its directory is nova-compute's to remove, which tries for a while; until the row is archived.
    assert operator("check").status == 0
    leftovers.archive(cloud)
    the_directory_goes(cloud, operator, story, (DIRECTORY, key))
    assert oracles.disagreements(cloud) == []
    story.agreed("Placement's audit, Cinder's quota check, OVN's synchronisation; the neighbours work")


@pytest.mark.long
def test_a_server_archived_while_its_host_is_down(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = leftovers.deleted_while_host_is_down(cloud, api, "compute2", "archived-1", leftovers.archive)
    node, key = cloud.computes["compute2"], f"compute2/{server}"
    story.made()
    assert proven(operator("check")) == {(ARCHIVED, key)}
    story.fired(ARCHIVED)

    operator("repair", "--yes").came_to(1, {key: "done"})
    assert state(node, server) == "paused"
    operator.undone()
    assert state(node, server) == "running"
    operator("repair", "--yes")
    operator("check")
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert state(node, server) == "shut off"
    operator.undone()  # as a guest that was just switched on, waiting
    assert state(node, server) == "paused"
    operator("repair", "--yes").came_to(1, {key: "done"})
    operator.purges(key)
    assert state(node, server) is None
    operator.undone()  # defined again from what was saved
    assert state(node, server) == "shut off"
    operator("purge", "--yes").came_to(1, {key: "done"})
    story.repaired("paused, stopped, undefined")
    story.undone("paused, stopped, undefined: each once")

    # Its directory is left: Nova has forgotten the server, and nobody will ever remove it.
    the_directory_goes(cloud, operator, story, (DIRECTORY, key))
    assert oracles.disagreements(cloud) == []
    story.agreed("Placement's audit, Cinder's quota check, OVN's synchronisation; the neighbours work")


@pytest.mark.long
def test_a_server_evacuated_from_a_host_that_lives(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = leftovers.evacuated_from_a_host_that_lives(cloud, api, "compute1", "compute2", "twice-1")
    old, new, key = cloud.computes["compute1"], cloud.computes["compute2"], f"compute1/{server}"
    try:
        assert (state(old, server), state(new, server)) == ("running", "running")
        story.made()
        assert proven(operator("check")) == {(TWICE, key)}
        story.fired(TWICE)
        plan = operator.folder / "plan.json"
        operator("plan", "-o", str(plan))
        operator("repair", str(plan), "--yes").came_to(1, {key: "done"})
        assert (state(old, server), state(new, server)) == ("paused", "running")
        run = operator("undo").data[-1]["run"]
        # Undone by its own name alone: two guests on the same disks are nothing that a whole run takes back.
        assert operator("undo", run, "--yes").outcomes == {key: "refused"}
        assert operator("undo", f"{run}/1", "--yes").outcomes == {key: "done"}
        assert (state(old, server), state(new, server)) == ("running", "running")
        story.undone("paused: both run")
        operator("repair", "--yes").came_to(1, {key: "done"})
        story.repaired("the copy left behind is paused")
    finally:
        leftovers.nova_compute_returns(cloud, api, "compute1")
    # nova-compute of the source is back: it removes what we had paused, and the evacuation is over.
    until("the old guest is gone", lambda: state(old, server) is None, 60)
    assert state(new, server) == "running"
    ran = operator("check")
    assert (ran.status, ran.held) == (0, {})
    api.delete(server)
    story.agreed("nova-compute of the source removed the paused copy and closed the evacuation")
    assert oracles.disagreements(cloud) == []
    story.agreed("Placement's audit, Cinder's quota check, OVN's synchronisation; the neighbours work")


@pytest.mark.long
def test_a_server_deleted_while_it_is_resized(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = leftovers.deleted_while_it_is_resized(cloud, api, "compute1", "resized-1")
    place = cloud.computes["compute2"].path(f"/var/lib/nova/instances/{server}")
    until("the copy is at its end", lambda: api.server(server) == {}, 60)
    assert place.exists()
    the_directory_goes(cloud, operator, story, (DIRECTORY, f"compute2/{server}"))
    assert oracles.disagreements(cloud) == []
    story.agreed("Placement's audit, Cinder's quota check, OVN's synchronisation; the neighbours work")


@pytest.mark.long
def test_a_server_purged_while_its_host_is_down(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = leftovers.deleted_while_host_is_down(
        cloud, api, "compute1", "purged-1", leftovers.archive, leftovers.purge
    )
    node, key = cloud.computes["compute1"], f"compute1/{server}"
    story.made()
    ran = operator("check")
    assert proven(ran) == {(UNKNOWN, key)}
    story.fired(UNKNOWN)
    # Nobody can prove that it was deleted: no program touches it.
    assert operator("plan").data["acts"] == []
    assert operator("repair", "--yes").data["acts"] == []
    (suspend,) = (command for command in ran.data["findings"][0]["commands"] if "virsh suspend" in command)
    node.run("bash", "-ec", suspend.partition(": ")[2])
    assert state(node, server) == "paused"
    story.repaired("paused by the command that the finding names")
    for command in ("destroy", "undefine"):
        node.run(*leftovers.VIRSH, command, server)
    # Its directory says nothing of whose it was, and Nova has nothing to say of it either.
    assert proven(operator("check")) == set()
    node.run("rm", "-r", f"{leftovers.INSTANCES}/{server}")
    assert oracles.disagreements(cloud) == []
    story.agreed("Placement's audit, Cinder's quota check, OVN's synchronisation; the neighbours work")


@pytest.mark.long
def test_what_was_kept_of_a_server_that_moved(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = leftovers.put_back_by_hand(cloud, api, "compute1", "compute2", "kept-1")
    old, new, key = cloud.computes["compute1"], cloud.computes["compute2"], f"compute1/{server}"
    run = new.run(*leftovers.VIRSH, "domid", server)
    story.made()
    assert proven(operator("check")) == {(MISPLACED, key)}
    story.fired(MISPLACED)
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert operator("check").held == {(MISPLACED, key): "stopped"}
    operator.undone()
    operator("repair", "--yes").came_to(1, {key: "done"})
    operator("purge", "--yes").came_to(1, {key: "done"})
    assert state(old, server) is None
    operator.undone()
    assert state(old, server) == "shut off"
    operator("purge", "--yes").came_to(1, {key: "done"})
    story.undone("held, undefined: each once")
    assert proven(operator("check")) == {(MISPLACED_DIRECTORY, key)}
    story.fired(MISPLACED_DIRECTORY)
    place = old.path(f"{leftovers.INSTANCES}/{server}")
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert not place.exists()
    operator.undone()
    assert place.exists()
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert set(operator("purge", "--yes").outcomes.values()) == {"done"}
    story.repaired("held, undefined; quarantined, removed")
    ran = operator("check")
    assert (ran.status, ran.held, ran.data["findings"]) == (0, {}, [])
    # The guest never noticed, and can go home.
    assert new.run(*leftovers.VIRSH, "domid", server) == run
    api.act(server, "os-migrateLive", {"host": "compute1", "block_migration": "auto"})
    api.arrives(server, "compute1")
    api.becomes(server, "ACTIVE")
    api.delete(server)
    assert oracles.disagreements(cloud) == []
    story.agreed("it moves live back to the old host; Placement's audit, OVN's synchronisation; the neighbours work")


@pytest.mark.long
def test_a_directory_removed_half_way(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = leftovers.deleted_half_way(cloud, api, "compute1", "half-removed-1")
    node = cloud.computes["compute1"]
    place = node.path(f"{leftovers.INSTANCES}/{server}_del")
    assert place.exists()
    assert operator("check").data["findings"] == []  # it is being deleted, and nova-compute tries again
    leftovers.nova_compute_returns(cloud, api, "compute1")
    until("nova-compute has finished it", lambda: not place.exists() and api.server(server) == {}, 120)
    assert operator("check").status == 0
    story.repaired("by nova-compute itself, when it starts")
