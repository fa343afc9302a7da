"""What is counted wrongly: allocations of nobody, and of the wrong node; what Cinder counts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from testbed import capacity, leftovers, oracles, places
from testbed.api import Api, until
from testbed.cloud import Cloud
from testbed.node import Failed
from testbed.operator import Operator
from testbed.person import types
from testbed.story import Story

OF_DELETED = "placement-allocation-of-deleted-server"
OF_MIGRATION = "placement-allocation-of-ended-migration"
ON_WRONG_NODE = "placement-allocation-on-wrong-node"
MISSING = "placement-allocation-missing"
OF_DELETED_NODE = "placement-provider-of-deleted-node"


@pytest.fixture
def administrator(cloud: Cloud, tmp_path: Path, clouds: Path) -> Operator:
    """One whose configuration names an administrator of Placement."""
    return Operator(cloud, tmp_path, **{"write.placement": {"cloud": "admin", "clouds_file": str(clouds)}})


def clean(operator: Operator) -> None:
    ran = operator("check")
    assert (ran.status, ran.data["findings"]) == (0, []), ran.out


def big(api: Api, cloud: Cloud, host: str) -> str:
    """A flavor for which a host has room once, and not twice; its owner may have it."""
    owner = f"/os-quota-sets/{api.sdk.current_project_id}"
    api.call("compute", "PUT", owner, {"quota_set": {"ram": -1}})
    inventories = f"/resource_providers/{capacity.provider(cloud, host)}/inventories"
    memory = api.call("placement", "GET", inventories)["inventories"]["MEMORY_MB"]
    ram = int(min((memory["total"] - memory["reserved"]) * memory["allocation_ratio"] * 0.6, memory["max_unit"]))
    name = f"big-{ram}"
    found = api.sdk.compute.find_flavor(name) or api.sdk.compute.create_flavor(name=name, ram=ram, vcpus=1, disk=1)
    return str(found.id)


def test_what_a_deleted_server_has_keeps_another_from_its_place(
    cloud: Cloud, api: Api, administrator: Operator, story: Story
) -> None:
    flavor = big(api, cloud, "fake1")
    server = capacity.deleted_without_placement(cloud, api, "fake1", "capacity-1", flavorRef=flavor)
    story.made()
    assert administrator.proven() == {OF_DELETED: {server}}
    story.fired(OF_DELETED)
    before = capacity.allocated(api, server)
    assert set(before) == {capacity.provider(cloud, "fake1")}
    with pytest.raises(Failed, match="No valid host"):
        api.boot("capacity-2", "fake1", flavorRef=flavor)
    (refused,) = (one.id for one in api.sdk.compute.servers(name="capacity-2"))
    api.delete(refused)
    administrator("repair", "--yes").came_to(1, {server: "done"})
    assert capacity.allocated(api, server) == {}
    clean(administrator)
    story.repaired("freed through Placement's API, with the consumer's generation")
    administrator.undone()
    assert capacity.allocated(api, server) == before
    assert administrator.proven() == {OF_DELETED: {server}}
    story.undone("the same is allocated as before")
    administrator("repair", "--yes").came_to(1, {server: "done"})
    api.delete(api.boot("capacity-2", "fake1", flavorRef=flavor))
    clean(administrator)
    assert oracles.disagreements(cloud) == []
    story.agreed("another server finds its place; Placement's audit finds nothing")


@pytest.mark.long
def test_what_a_confirmed_migration_still_has(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    server, migration = capacity.confirmed_without_placement(cloud, api, "compute1", "capacity-3")
    story.made()
    own = capacity.allocated(api, server)
    assert administrator.proven() == {OF_MIGRATION: {migration}}
    story.fired(OF_MIGRATION)
    before = capacity.allocated(api, migration)
    administrator("repair", "--yes").came_to(1, {migration: "done"})
    assert (capacity.allocated(api, migration), capacity.allocated(api, server)) == ({}, own)
    clean(administrator)
    administrator.undone()
    assert capacity.allocated(api, migration) == before
    story.undone("the same is allocated as before")
    administrator("repair", "--yes").came_to(1, {migration: "done"})
    clean(administrator)
    story.repaired("freed through Placement's API; the server has what it had")
    assert oracles.disagreements(cloud) == []
    api.delete(server)
    story.agreed("Placement's audit")


@pytest.mark.long
def test_what_an_evacuated_server_has_of_a_host_that_never_comes_back(
    cloud: Cloud, api: Api, administrator: Operator, story: Story
) -> None:
    old, new = (capacity.provider(cloud, host) for host in ("compute1", "compute2"))
    server = capacity.evacuated_for_good(cloud, api, "compute1", "compute2", "capacity-4")
    try:
        story.made()
        assert set(capacity.allocated(api, server)) == {old, new}
        assert administrator.proven() == {ON_WRONG_NODE: {server}, OF_DELETED_NODE: {old}}
        for check in (ON_WRONG_NODE, OF_DELETED_NODE):
            story.fired(check)
        administrator("repair", "--yes").came_to(5, {server: "done"})
        assert set(capacity.allocated(api, server)) == {new}
        administrator.undone()
        assert set(capacity.allocated(api, server)) == {old, new}
        story.undone("it has of both what it had")
        administrator("repair", "--yes").came_to(5, {server: "done"})
        (finding,) = administrator("check").data["findings"]
        types(cloud, finding["commands"], "provider delete")
        clean(administrator)
        story.repaired("freed through Placement's API; the provider deleted by what the finding says")
        assert oracles.disagreements(cloud) == []
        story.agreed("Placement's audit")
    finally:
        capacity.known_again(cloud, api, "compute1")
    api.delete(server)
    # nova-compute has made the provider anew, and removed what was evacuated from it.
    clean(administrator)


def test_a_cell_that_does_not_answer(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    """Nova's audit takes what its servers have for orphans, and deletes it if it is told to.  We name none of them."""
    server = api.boot("capacity-5", "fake2")
    with capacity.cell_down(cloud, "cell2"):
        assert server in capacity.audit(cloud)
        ran = administrator("check")
        assert (ran.status, ran.data["findings"]) == (8, []), ran.out
        assert administrator("repair", "--yes").outcomes == {}
        assert capacity.allocated(api, server)
        capacity.audit(cloud, "--delete", "--resource_provider", capacity.provider(cloud, "fake2"))
    assert capacity.allocated(api, server) == {}, "a server that runs has nothing"
    story.made()
    until("all cells answer", lambda: administrator("check").status != 8, 60)
    (finding,) = administrator("check").data["findings"]
    assert (finding["check"], finding["key"], finding["state"]) == (MISSING, server, "proven")
    story.fired(MISSING)
    types(cloud, finding["commands"], "allocations --instance")
    assert capacity.allocated(api, server)
    clean(administrator)
    story.repaired("given anew by what the finding says")
    assert oracles.disagreements(cloud) == []
    api.delete(server)
    leftovers.archive(cloud)
    story.agreed("Placement's audit, with all cells there")


COUNTED = "cinder-quota-differs"
#: What the example of [write.database] in docs/operating.md grants.
RIGHTS = f"""
CREATE USER IF NOT EXISTS cloudfsck_write IDENTIFIED BY '{places.PASSWORD}';
GRANT SELECT (id, project_id, resource, in_use, reserved, updated_at, deleted), UPDATE (in_use, reserved)
    ON cinder.quota_usages TO cloudfsck_write;
GRANT SELECT (usage_id, deleted) ON cinder.reservations TO cloudfsck_write;
"""


@pytest.fixture
def accountant(cloud: Cloud, tmp_path: Path) -> Operator:
    """One who may write what Cinder counts, and nothing else."""
    secret = tmp_path / "password"
    secret.write_text(places.PASSWORD)
    secret.chmod(0o600)
    cloud.sql("", RIGHTS)
    return Operator(cloud, tmp_path, **{"write.database": {"user": "cloudfsck_write", "password_file": str(secret)}})


def usages(cloud: Cloud, project: str) -> dict[str, str]:
    """What Cinder counts of a project, by the number of the row."""
    counted = f"SELECT id, in_use FROM quota_usages WHERE project_id = '{project}' AND NOT deleted"
    return dict(cloud.sql("cinder", counted))


def keys(cloud: Cloud, project: str, *resources: str) -> set[str]:
    counted = "SELECT id FROM quota_usages WHERE project_id = '{}' AND resource = '{}' AND NOT deleted"
    return {
        f"{project} {resource} {number}" for resource in resources
        for ((number,),) in [cloud.sql("cinder", counted.format(project, resource))]
    }  # fmt: skip


@pytest.mark.long
def test_a_deletion_that_was_not_counted(cloud: Cloud, api: Api, accountant: Operator, story: Story) -> None:
    project = capacity.deletion_not_counted(cloud, api, "capacity-6")
    wrong = keys(cloud, project, "volumes", "gigabytes", "volumes_rbd", "gigabytes_rbd")
    before = usages(cloud, project)
    assert oracles.disagreements(cloud) != []
    story.made()
    assert accountant.proven() == {COUNTED: wrong}
    story.fired(COUNTED)
    accountant("repair", "--yes").came_to(1, dict.fromkeys(wrong, "done"))
    assert oracles.disagreements(cloud) == []
    accountant.undone()
    assert usages(cloud, project) == before
    story.undone("Cinder counts as before")
    accountant("repair", "--yes").came_to(1, dict.fromkeys(wrong, "done"))
    clean(accountant)
    story.repaired("counted anew in Cinder's database, each row as it was seen")
    assert oracles.disagreements(cloud) == []
    story.agreed("Cinder's quota check")


@pytest.mark.long
def test_counting_while_ten_clients_make_and_delete_volumes(
    cloud: Cloud, api: Api, accountant: Operator, story: Story
) -> None:
    """No request fails, and at rest the count is right."""
    project = capacity.deletion_not_counted(cloud, api, "capacity-7")
    wrong = keys(cloud, project, "volumes", "gigabytes", "volumes_rbd", "gigabytes_rbd")
    story.made()
    enough = Event()

    def client(number: int) -> int:
        """Make and delete volumes until it is enough; how many."""
        mine, made = Api(), 0
        while not enough.is_set():
            volume = mine.volume(f"client-{number}-{made}")
            mine.call("block_storage", "DELETE", f"/volumes/{volume}")
            mine.volume_becomes(volume, None)
            made += 1
        return made

    with ThreadPoolExecutor(10) as pool:
        clients = [pool.submit(client, number) for number in range(10)]
        runs = [accountant("repair", "--yes") for _ in range(8)]
        enough.set()
        made = [one.result() for one in clients]  # raises what Cinder refused
    assert min(made) > 0
    counted = {key for ran in runs for key, outcome in ran.outcomes.items() if outcome == "done"}
    assert counted <= wrong
    assert {outcome for ran in runs for outcome in ran.outcomes.values()} <= {"done", "moved"}
    # Whatever was not counted amid all that is counted now.
    left = accountant.proven()
    assert left == ({COUNTED: wrong - counted} if wrong - counted else {})
    story.fired(COUNTED)
    if left:
        accountant("repair", "--yes")
    clean(accountant)
    assert oracles.disagreements(cloud) == []
    story.repaired(f"{len(counted)} of {len(wrong)} amid {sum(made)} volumes of ten clients, the rest at rest")
    story.agreed("Cinder's quota check")
