"""What Nova, its cells and its hosts say differently of a server that lives: found, told, and put right by a person.

No program repairs any of it.  What cloudfsck tells a person to type is typed here, and OpenStack then agrees.
"""

from __future__ import annotations

import pytest

from testbed import contradictions, interrupted, leftovers, oracles
from testbed.api import Api, until
from testbed.cloud import Cloud
from testbed.leftovers import state
from testbed.operator import Operator
from testbed.person import types, types_sql
from testbed.story import Story


def told(operator: Operator, story: Story, check: str, key: str, beside: frozenset[str] = frozenset()) -> list[str]:
    """The commands of the one thing that was proven; but for checks `beside` it nothing else was found, and no act
    would be done."""
    data = operator("check").data
    assert data["unknown"] == []
    (found,) = (one for one in data["findings"] if one["check"] not in beside)
    assert {one["check"] for one in data["findings"]} == {check, *beside}
    assert (found["check"], found["key"], found["state"], found["risk"]) == (check, key, "proven", "by-hand"), found
    story.fired(check)
    assert operator("plan").data["acts"] == []
    commands: list[str] = found["commands"]
    return commands


def clean(operator: Operator) -> None:
    ran = operator("check")
    assert (ran.status, ran.data["findings"]) == (0, []), ran.out


def test_a_domain_undefined_by_hand(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = contradictions.undefined_by_hand(cloud, api, "compute1", "undefined-1")
    story.made()
    commands = told(operator, story, "libvirt-domain-missing", f"compute1/{server}")
    types(cloud, commands, "reboot --hard")
    until("Nova has made it again", lambda: state(cloud.computes["compute1"], server) == "running", 60)
    api.becomes(server, "ACTIVE")
    story.repaired("by the hard reboot that the finding names")
    clean(operator)
    api.delete(server)
    assert oracles.disagreements(cloud) == []
    story.agreed("the server runs and can be deleted; Placement's audit, OVN's synchronisation")


@pytest.mark.long
def test_a_guest_stopped_behind_nova(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = contradictions.stopped_behind_nova(cloud, api, "compute1", "stopped-1")
    story.made()
    told(operator, story, "libvirt-power-state-differs", f"compute1/{server}")
    leftovers.nova_compute_returns(cloud, api, "compute1")
    api.becomes(server, "SHUTOFF", seconds=180)
    story.repaired("by nova-compute itself, when it is back, as the finding says")
    clean(operator)
    api.act(server, "os-start")
    api.becomes(server, "ACTIVE")
    api.delete(server)
    story.agreed("the server can be started and deleted")


@pytest.mark.long
def test_a_server_never_reclaimed(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = contradictions.never_reclaimed(cloud, api, "compute1", "soft-1")
    story.made()
    commands = told(operator, story, "nova-soft-deleted-overdue", server)
    types(cloud, commands, "restore")
    api.becomes(server, "ACTIVE")
    story.undone("restored to its owner by the command that the finding names")
    clean(operator)
    api.delete(server)


def test_a_server_half_deleted(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = contradictions.half_deleted(cloud, api, "compute1", "half-1")
    story.made()
    clean(operator)  # the call of its deletion may still be under way
    told(operator.later(), story, "nova-server-half-deleted", server)
    leftovers.nova_compute_returns(cloud, api, "compute1")
    until("nova-compute has finished it", lambda: api.server(server) == {}, 60)
    clean(operator)
    story.repaired("by nova-compute itself, when it starts")


@pytest.mark.long
def test_a_server_mapped_to_another_cell(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = contradictions.mapped_to_another_cell(cloud, api, "compute1", "mapped-1")
    story.made()
    assert api.server(server) == {}
    types_sql(cloud, "nova_api", told(operator, story, "nova-mapping-to-wrong-cell", server))
    cloud.openstack(f"nova-manage --config-file /etc/nova/nova.conf cell_v2 verify_instance --uuid {server}")
    assert api.server(server)["status"] == "ACTIVE"
    story.repaired("by the SQL that the finding names")
    clean(operator)
    api.delete(server)
    story.agreed("nova-manage cell_v2 verify_instance; the API knows the server, and deletes it")


@pytest.mark.long
def test_a_mapping_without_a_server(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    hit = interrupted.boot_unsent(cloud, api, "compute1", "ghost-1")
    cloud.start("nova-api")
    api.call("compute", "DELETE", f"/servers/{hit.server}")
    story.made()
    types_sql(cloud, "nova_api", told(operator, story, "nova-mapping-without-server", hit.server))
    assert cloud.sql("nova_api", f"SELECT 1 FROM instance_mappings WHERE instance_uuid = '{hit.server}'") == []
    story.repaired("by the SQL that the finding names")
    clean(operator)


@pytest.mark.long
def test_a_host_that_nova_has_forgotten(cloud: Cloud, api: Api, operator: Operator, story: Story) -> None:
    server = contradictions.host_forgotten(cloud, api, "fake2", "scrapped-1")
    try:
        story.made()
        beside = frozenset({"placement-provider-of-deleted-node"})
        told(operator, story, "nova-server-on-unknown-host", server, beside)
    finally:
        contradictions.host_known_again(cloud, api, "fake2")
    clean(operator)
    api.delete(server)
    story.agreed("with its rows back the host serves again, and the server can be deleted")
