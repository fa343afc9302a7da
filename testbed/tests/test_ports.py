"""Ports that were left, bindings that nobody needs, floating IPs that lead nowhere: found, and put right by Neutron."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudfsck.acts.neutron import Neutron
from cloudfsck.acts.port import Delete
from cloudfsck.config import CloudApi
from cloudfsck.model import Moved
from testbed import interrupted, leftovers, northbound, oracles, person, ports
from testbed.api import Api
from testbed.cloud import Cloud
from testbed.operator import Operator
from testbed.ports import LookAlikes
from testbed.story import Story

OF_DELETED = "neutron-port-of-deleted-server"
OF_UNKNOWN = "neutron-port-of-unknown-server"
FLOATING_IP = "neutron-floating-ip-of-deleted-server"
BINDING = "neutron-binding-left"
OVN = "ovn-port-left"
DIRECTORY = "nova-directory-of-deleted-server"


@pytest.fixture
def administrator(cloud: Cloud, tmp_path: Path, clouds: Path) -> Operator:
    """One whose configuration names an administrator of Neutron."""
    return Operator(cloud, tmp_path, **{"write.neutron": {"cloud": "admin", "clouds_file": str(clouds)}})


@pytest.fixture
def way_out(cloud: Cloud, api: Api) -> Iterator[None]:
    yield
    ports.without_router(cloud, api)


def clean(operator: Operator) -> None:
    ran = operator("check")
    assert (ran.status, ran.data["findings"]) == (0, []), ran.out


@pytest.mark.long
def test_a_port_of_a_server_deleted_in_the_database(
    cloud: Cloud, api: Api, administrator: Operator, story: Story, clouds: Path
) -> None:
    (left,) = ports.deleted_in_the_database(cloud, api, "compute1", "port-1")
    beside = ports.own(api, "beside")
    story.made()
    assert administrator.proven() == {OF_DELETED: {left.port}}
    story.fired(OF_DELETED)
    # Whoever changed it in between has won, even right before our deletion.
    port = ports.show(api, left.port)
    act = Delete(left.server, left.port, port["device_owner"], port["binding:host_id"], port["revision_number"] - 1)
    with pytest.raises(Moved, match="has revision"):
        Neutron(CloudApi(cloud="admin", clouds_file=clouds)).send(act)
    assert administrator.proven() == {OF_DELETED: {left.port}}
    administrator("repair", "--yes").came_to(1, {left.port: "done"})
    clean(administrator)
    story.repaired("deleted through Neutron's API, with its revision")
    assert ports.ports(api, left.server) == []
    assert ports.show(api, beside)["name"] == "beside"
    api.call("network", "DELETE", f"/ports/{beside}")
    assert oracles.disagreements(cloud) == []
    story.agreed("OVN's synchronisation, Placement's audit; another port is as it was")


@pytest.mark.long
def test_a_port_of_a_server_that_never_came_to_be(
    cloud: Cloud, api: Api, administrator: Operator, story: Story, look_alikes: LookAlikes
) -> None:
    before = look_alikes.now(api)
    (purged,) = ports.deleted_in_the_database(cloud, api, "compute1", "port-9")
    leftovers.archive(cloud)
    leftovers.purge(cloud)
    left = ports.made_too_late(cloud, api, "compute1", "port-7")
    # Before nova-compute has cleaned up, or cannot any more, all that is left of the server is innocent.
    leftovers.nova_compute_returns(cloud, api, "compute1")
    leftovers.archive(cloud)
    story.made()
    administrator.later()
    # Of the one that is purged Nova has never heard: nothing proves whose it was, and no program touches it.
    directory = f"compute1/{left.server}"
    assert administrator.proven() == {OF_DELETED: {left.port}, DIRECTORY: {directory}, OF_UNKNOWN: {purged.port}}
    for check in (OF_DELETED, DIRECTORY, OF_UNKNOWN):
        story.fired(check)
    administrator("repair", "--yes").came_to(5, {left.port: "done", directory: "done"})
    assert ports.show(api, left.port)["device_id"] == ""
    assert set(administrator("purge", "--yes").outcomes.values()) == {"done"}
    (finding,) = administrator("check").data["findings"]
    person.types(cloud, finding["commands"], "openstack port unset")
    clean(administrator)
    story.repaired(
        "taken from the server, of the unknown one by what the finding says, and both keep their addresses; "
        "the directory is quarantined, removed"
    )
    assert (ports.show(api, purged.port)["device_id"], ports.show(api, purged.port)["device_owner"]) == ("", "")
    for port in (left.port, purged.port):
        api.call("network", "DELETE", f"/ports/{port}")
    assert look_alikes.now(api) == before
    assert oracles.disagreements(cloud) == []
    story.agreed("OVN's synchronisation; a user's, keepalived's, a trunk's, a load balancer's ports are as they were")


def test_a_port_that_was_not_given_back(
    cloud: Cloud, api: Api, administrator: Operator, story: Story, way_out: None
) -> None:
    left = ports.not_given_back(cloud, api, "compute1", "port-2")
    address = ports.floating_ip(api, left.port)
    story.made()
    assert administrator.proven() == {OF_DELETED: {left.port}, FLOATING_IP: {address}}
    story.fired(OF_DELETED)
    story.fired(FLOATING_IP)
    before = ports.show(api, left.port)
    assert administrator.proven() == {OF_DELETED: {left.port}, FLOATING_IP: {address}}
    administrator("repair", "--yes").came_to(1, {left.port: "done", address: "done"})
    clean(administrator)
    story.repaired("the port is its owner's again, with its address; the floating IP leads nowhere")
    now = ports.show(api, left.port)
    assert (now["device_id"], now["device_owner"], now["fixed_ips"]) == ("", "", before["fixed_ips"])
    kept = api.call("network", "GET", f"/floatingips/{address}")["floatingip"]
    assert kept["port_id"] is None
    administrator.undone()
    back = ports.show(api, left.port)
    same = ("device_id", "device_owner", "binding:host_id", "fixed_ips")
    assert {name: back[name] for name in same} == {name: before[name] for name in same}
    assert administrator.proven() == {OF_DELETED: {left.port}, FLOATING_IP: {address}}
    story.undone("both lead where they did")
    administrator("repair", "--yes").came_to(1, {left.port: "done", address: "done"})
    server = api.boot("port-2", "compute2", networks=[{"port": left.port}])
    api.ready(server)
    clean(administrator)
    api.delete(server)
    api.call("network", "DELETE", f"/ports/{left.port}")
    ports.without_router(cloud, api)
    assert oracles.disagreements(cloud) == []
    story.agreed("the port serves another server; OVN's synchronisation")


@pytest.mark.long
def test_a_binding_that_a_migration_left(
    cloud: Cloud, api: Api, administrator: Operator, story: Story, clouds: Path
) -> None:
    left = ports.binding_left(cloud, api, "compute1", "compute2", "port-3")
    story.made()
    administrator.later()
    assert administrator.proven() == {BINDING: {f"{left.port}/compute2"}}
    story.fired(BINDING)
    assert administrator.proven() == {BINDING: {f"{left.port}/compute2"}}
    (refused,) = administrator("repair", "--yes").data["acts"]
    assert (refused["outcome"], "disallowed by policy" in refused["why"]) == ("failed", True)
    administrator.configure(**{"write.neutron": {"cloud": "service", "clouds_file": str(clouds)}})
    administrator.later()
    administrator("repair", "--yes").came_to(1, {f"{left.port}/compute2": "done"})
    clean(administrator)
    story.repaired("the inactive binding is deleted")
    api.act(left.server, "os-migrateLive", {"host": "compute2", "block_migration": "auto"})
    api.arrives(left.server, "compute2")
    api.becomes(left.server, "ACTIVE")
    assert interrupted.row(cloud, left.server) == "cell1 active - compute2"
    api.delete(left.server)
    assert oracles.disagreements(cloud) == []
    story.agreed("the server moves live to that host; OVN's synchronisation")


@pytest.mark.long
def test_a_port_that_ovn_kept(cloud: Cloud, api: Api, tmp_path: Path, story: Story) -> None:
    operator = Operator(cloud, tmp_path, **{"write.ovn": {"northbound": [*northbound.REMOTES]}})
    beside = ports.own(api)
    port = ports.forgotten_by_neutron(cloud, api)
    story.made()
    assert operator.proven() == {OVN: {port}}
    story.fired(OVN)
    assert oracles.disagreements(cloud) != []
    assert operator.proven() == {OVN: {port}}
    there = northbound.ovn(cloud, "list", "Logical_Switch_Port", port)
    operator("repair", "--yes").came_to(1, {port: "done"})
    clean(operator)
    assert oracles.disagreements(cloud) == []
    story.repaired("deleted from OVN under the whole row as it was read")
    operator.undone()
    again = northbound.ovn(cloud, "list", "Logical_Switch_Port", port)
    assert own_lines(again) == own_lines(there)
    story.undone("the same row is there again")
    assert operator.proven() == {OVN: {port}}
    operator("repair", "--yes").came_to(1, {port: "done"})
    clean(operator)
    assert ports.show(api, beside)["id"] == beside
    api.call("network", "DELETE", f"/ports/{beside}")
    assert oracles.disagreements(cloud) == []
    story.agreed("OVN's synchronisation finds no difference; another port is as it was")


def own_lines(said: str) -> list[str]:
    """What ovn-nbctl lists of a row, but for its UUID."""
    return [line for line in said.splitlines() if not line.startswith("_uuid")]
