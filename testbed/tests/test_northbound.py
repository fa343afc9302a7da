"""OVN against Neutron: what it lost, what it kept, what differs; found, and put right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed import northbound, oracles, person, places, ports
from testbed.api import Api, until
from testbed.cloud import Cloud
from testbed.interrupted import die
from testbed.northbound import Made
from testbed.operator import Operator
from testbed.story import Story

WRITES: Mapping[str, Mapping[str, Any]] = {"write.ovn": {"northbound": [*northbound.REMOTES]}}


#: What an account has that may reset Neutron's notes of what is in OVN.
RIGHTS = f"""
CREATE USER IF NOT EXISTS cloudfsck_write IDENTIFIED BY '{places.PASSWORD}';
GRANT SELECT (resource_uuid, resource_type, standard_attr_id, revision_number, updated_at),
    UPDATE (revision_number, updated_at) ON neutron.ovn_revision_numbers TO cloudfsck_write;
GRANT SELECT (id, revision_number) ON neutron.standardattributes TO cloudfsck_write;
"""


@pytest.fixture
def made(cloud: Cloud, api: Api) -> Iterator[Made]:
    made = northbound.made(api)
    yield made
    northbound.unmade(cloud, api, made)


def clean(operator: Operator) -> None:
    ran = operator("check")
    found = {(one["check"], one["key"], one["state"]) for one in ran.data["findings"]}
    assert (ran.status, found, ran.data["unknown"]) == (0, set(), [])


def maintained(cloud: Cloud) -> None:
    """Neutron's maintenance begins anew, which is when it looks first, and finds nothing more to do; it looks at
    nothing that was made within the last minute (neutron/db/ovn_revision_numbers_db.py: INCONSISTENCIES_OLDER_THAN)."""
    die(cloud.controller, ports.MAINTENANCE)
    cloud.start(ports.MAINTENANCE)
    open_ = "SELECT count(*) FROM ovn_revision_numbers WHERE revision_number < 0 OR standard_attr_id IS NULL"
    until("Neutron's maintenance is done", lambda: cloud.sql("neutron", open_) == [["0"]], 400)


@pytest.mark.long
def test_what_ovn_lost(cloud: Cloud, api: Api, tmp_path: Path, story: Story, made: Made) -> None:
    secret = tmp_path / "password"
    secret.write_text("secret")
    secret.chmod(0o600)
    cloud.sql("", RIGHTS)
    operator = Operator(
        cloud, tmp_path, **{"write.database": {"user": "cloudfsck_write", "password_file": str(secret)}}
    )
    northbound.lost(cloud, made)
    story.made()
    lost = {
        "ovn-port-missing": {made.port},
        "ovn-switch-missing": {made.other},
        "ovn-router-port-missing": {made.interface},
        "ovn-port-group-missing": {made.security_group},
    }
    assert operator.proven() == lost
    for check in lost:
        story.fired(check)
    assert oracles.disagreements(cloud) != []
    (group,) = (one for one in operator("check").data["findings"] if one["key"] == made.security_group)
    person.types_sql(cloud, "neutron", group["commands"])
    operator("repair", "--yes").came_to(1, dict.fromkeys((made.port, made.other, made.interface), "done"))
    clean(operator)
    maintained(cloud)
    clean(operator)
    story.repaired("Neutron's maintenance makes it again, once its note says that it never got there")
    assert oracles.disagreements(cloud) == []
    # Of a router whose ports are lost with it, what hangs on it comes after it.
    northbound.ovn(cloud, "lr-del", f"neutron-{made.router}")
    assert operator.proven() == {"ovn-router-missing": {made.router}}
    story.fired("ovn-router-missing")
    operator("repair", "--yes").came_to(1, {made.router: "done"})
    maintained(cloud)
    operator("repair", "--yes").came_to(1, {made.interface: "done"})
    maintained(cloud)
    clean(operator)
    assert oracles.disagreements(cloud) == []
    story.agreed("OVN's synchronisation")


def test_what_ovn_kept(cloud: Cloud, api: Api, tmp_path: Path, story: Story) -> None:
    operator = Operator(cloud, tmp_path, **WRITES)
    made, beside = northbound.made(api), northbound.made(api)
    northbound.kept(cloud, made)
    story.made()
    group = f"pg_{made.security_group.replace('-', '_')}"
    switches = {f"neutron-{made.network}", f"neutron-{made.other}"}
    options = northbound.dhcp_options(cloud, made.subnet)
    port, interface, router = made.port, f"lrp-{made.interface}", f"neutron-{made.router}"
    kept = {
        "ovn-port-left": {port, made.interface},
        "ovn-switch-left": switches,
        "ovn-router-left": {router},
        "ovn-router-port-left": {interface},
        "ovn-port-group-left": {group},
        "ovn-dhcp-options-left": {options},
    }
    assert operator.proven() == kept
    for check in kept:
        story.fired(check)
    assert oracles.disagreements(cloud) != []
    before = northbound.rows(cloud, beside)
    # Nothing in OVN says whose Neutron made it: without a word of ours that nobody else is there, it is a person's.
    repaired = operator("repair", "--yes")
    assert repaired.outcomes == {}, repaired.out
    operator.alone()
    # What hangs on something goes before it; what leads to a router goes by hand.
    assert operator("repair", "--yes").outcomes == dict.fromkeys((port, interface, f"neutron-{made.other}"), "done")
    (finding,) = (one for one in operator("check").data["findings"] if one["key"] == made.interface)
    assert finding["by_hand"] == "it is no server's port"
    northbound.types(cloud, finding["commands"], "lsp-del")
    operator("repair", "--yes").came_to(1, dict.fromkeys((router, group, options, f"neutron-{made.network}"), "done"))
    clean(operator)
    story.repaired("deleted from OVN under the whole row as it was read, what hangs on a thing before it")
    assert oracles.disagreements(cloud) == []
    assert northbound.rows(cloud, beside) == before
    northbound.unmade(cloud, api, beside)
    story.agreed("OVN's synchronisation; the same things of another network are as they were")


@pytest.mark.long
def test_what_differs_in_ovn(cloud: Cloud, api: Api, tmp_path: Path, story: Story, made: Made) -> None:
    operator = Operator(cloud, tmp_path)
    deaf = northbound.status_lost(cloud, api, "compute1", "port-6")
    northbound.older(cloud, made.other)  # no subnet has raised its revision
    northbound.moved(cloud, made.port, f"neutron-{made.other}")
    die(cloud.controller, ports.MAINTENANCE)
    gone = ports.own(api)
    northbound.deleted_by_hand(cloud, gone, "ports", noted=True)
    story.made()
    differs = {
        "ovn-port-up-differs": {deaf.port},
        "ovn-revision-differs": {f"{made.other}/networks"},
        "ovn-port-on-wrong-switch": {made.port},
        "ovn-change-overdue": {f"{gone}/ports"},
    }
    assert operator.proven() == differs
    for check in differs:
        story.fired(check)
    findings = {one["check"]: one["commands"] for one in operator("check").data["findings"]}
    person.types(cloud, findings["ovn-port-up-differs"], "--disable")
    ports.becomes(api, deaf.port, "ACTIVE")
    northbound.types(cloud, findings["ovn-revision-differs"], "ovn-nbctl set")
    northbound.types(cloud, findings["ovn-port-on-wrong-switch"], "ovn-nbctl lsp-del")
    for check in ("ovn-revision-differs", "ovn-port-on-wrong-switch"):
        person.types_sql(cloud, "neutron", findings[check])
    maintained(cloud)
    api.delete(deaf.server)
    clean(operator)
    story.repaired("by what the findings say, and by Neutron's maintenance, which does not run until then")
    assert oracles.disagreements(cloud) == []
    story.agreed("OVN's synchronisation")
