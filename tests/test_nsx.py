"""NSX as it is read: whose an object is, whole lists or gaps, one session, no haste; and that an act lands only on what
was seen.  The server is the simulator, which the real client of NSX finds to be one (test_nsx_simulator.py)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import tables
from cloudfsck.acts.nsx import Controller
from cloudfsck.acts.nsx_object import Create, Delete, repair
from cloudfsck.config import Nsx as Settings
from cloudfsck.model import Moved, Outcomeless, Piece, Refused, Row, Scope, Trouble
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import nsx as source
from cloudfsck.sources import nsxapi
from tests.bed.nsx import Nsx, tags

NET = "aaaaaaaa-0000-4000-8000-000000000001"
PORT = "bbbbbbbb-0000-4000-8000-000000000001"
ROUTER = "cccccccc-0000-4000-8000-000000000001"
GROUP = "dddddddd-0000-4000-8000-000000000001"
RULE = "eeeeeeee-0000-4000-8000-000000000001"
BALANCER = "ffffffff-0000-4000-8000-000000000001"
LISTENER = "ffffffff-0000-4000-8000-000000000002"
POOL = "ffffffff-0000-4000-8000-000000000003"
MONITOR = "ffffffff-0000-4000-8000-000000000004"
PROJECT = "0123456789abcdef0123456789abcdef"
SEGMENTS = "infra/segments"
PORTS = f"{SEGMENTS}/{NET}/ports"
BINDINGS = f"{PORTS}/{PORT}/port-security-profile-binding-maps"
BINDING_OF_ANY = f"{SEGMENTS}/*/ports/*/port-security-profile-binding-maps/*"


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSX_PASSWORD", Nsx.ADMIN[1])


@pytest.fixture
def nsx() -> Iterator[Nsx]:
    with Nsx(managers=2) as nsx:
        nsx.rate = 0
        yield nsx


def settings(nsx: Nsx, **more: Any) -> Settings:
    given = {"managers": nsx.urls, "user": "admin", "password_env": "NSX_PASSWORD", "rate": 100_000, "timeout": "5s"}
    return Settings.model_validate({**given, **more})


def owned(scope: str, id: str) -> list[dict[str, str]]:
    """The tags that the plugin gives what it makes for something of Neutron's."""
    return tags(**{scope: id}, os_project_id=PROJECT, os_project_name="demo", os_api_version="17.0.0")


def pieces(nsx: Nsx, scope: Scope | None = None, **more: Any) -> list[Piece]:
    return list(source.read(nsxapi.Cluster(settings(nsx, **more)), scope or Scope(), lambda what, done, total: None))


def read(nsx: Nsx, scope: Scope | None = None, **more: Any) -> dict[str, Row]:
    """What nsx_objects has, by path."""
    snapshot = Snapshot.create()
    try:
        assert snapshot.add(pieces(nsx, scope, **more)) == []
        return {row["path"]: row for row in snapshot.rows("SELECT * FROM nsx_objects")}
    finally:
        snapshot.close()


def why(nsx: Nsx, **more: Any) -> str:
    """The reason of the gap: it is one in every table, and no table has a row."""
    found = pieces(nsx, **more)
    assert [piece.table for piece in found] == [table.name for table in tables.TABLES if table.per == "nsx"]
    assert [piece.rows for piece in found] == [None] * len(found)
    (reason,) = {piece.why for piece in found}
    assert reason
    assert Nsx.ADMIN[1] not in reason
    return reason


def network(nsx: Nsx) -> None:
    """A network with one port that has a profile, a router, and a security group with a rule; all of the plugin."""
    nsx.load("infra/tier-1s", [{"id": ROUTER, "tags": owned("os_neutron_router_id", ROUTER)}])
    nsx.load("infra/dhcp-server-configs", [{"id": NET, "tags": owned("os_neutron_net_id", NET)}])
    dhcp = {"dhcp_config_path": f"/infra/dhcp-server-configs/{NET}"}
    nsx.load(SEGMENTS, [{"id": NET, "display_name": "net", **dhcp, "tags": owned("os_neutron_net_id", NET)}])
    port = {"id": PORT, "attachment": {"id": PORT}, "tags": owned("os_neutron_port_id", PORT)}
    nsx.load(PORTS, [{**port, "address_bindings": [{"ip_address": "10.0.0.3", "mac_address": "fa:16:3e:00:00:01"}]}])
    nsx.load("infra/segment-security-profiles", [{"id": "spoof"}])
    nsx.load(BINDINGS, [{"id": PORT, "segment_security_profile_path": "/infra/segment-security-profiles/spoof"}])
    nsx.load("infra/services", [{"id": RULE, "tags": owned("os_neutron_secgr_id", RULE)}])
    nsx.load("infra/domains/default/groups", [{"id": GROUP, "tags": owned("os_neutron_secg_id", GROUP)}])
    policies = "infra/domains/default/security-policies"
    nsx.load(policies, [{"id": GROUP, "tags": owned("os_neutron_secg_id", GROUP)}])
    group = f"/infra/domains/default/groups/{GROUP}"
    rule = {"id": RULE, "services": [f"/infra/services/{RULE}"], "destination_groups": [group]}
    nsx.load(f"{policies}/{GROUP}/rules", [rule])


def shared_by(load_balancer: str) -> dict[str, str]:
    """The tag that a service has for each load balancer."""
    return {"scope": "loadbalancer_id", "tag": load_balancer}


def load_balancer(nsx: Nsx) -> None:
    """A load balancer with one listener, one pool and one monitor, as the plugin makes it on a router."""
    nsx.load("infra/tier-1s", [{"id": ROUTER, "tags": owned("os_neutron_router_id", ROUTER)}])
    # the first of those that shared it, which named it, is gone
    marks = [*owned("os_neutron_router_id", ROUTER), shared_by(BALANCER)]
    nsx.load("infra/lb-services", [{"id": NET, "connectivity_path": f"/infra/tier-1s/{ROUTER}", "tags": marks}])
    nsx.load("infra/lb-monitor-profiles", [{"id": MONITOR, "tags": owned("os_lbaas_hm_id", MONITOR)}])
    monitors = [f"/infra/lb-monitor-profiles/{MONITOR}"]
    nsx.load(
        "infra/lb-pools", [{"id": POOL, "active_monitor_paths": monitors, "tags": owned("os_lbaas_pool_id", POOL)}]
    )
    marks = [*owned("os_lbaas_listener_id", LISTENER), *tags(os_lbaas_lb_id=BALANCER, os_lbaas_lb_name="one")]
    refers = {"pool_path": f"/infra/lb-pools/{POOL}", "lb_service_path": f"/infra/lb-services/{NET}"}
    nsx.load("infra/lb-virtual-servers", [{"id": LISTENER, **refers, "tags": marks}])


# ------------------------------------------------------------------------------------------------ whose it is


def test_what_the_plugin_made_is_told_by_its_tags(nsx: Nsx) -> None:
    network(nsx)
    found = read(nsx)
    columns = ("parent", "kind", "thing", "neutron", "project", "plugin", "protected", "revision", "attachment")
    assert {path: tuple(row[name] for name in columns) for path, row in found.items()} == {
        f"/{SEGMENTS}/{NET}": (None, "segment", "network", NET, PROJECT, "17.0.0", None, 0, None),
        f"/{PORTS}/{PORT}": (f"/{SEGMENTS}/{NET}", "port", "port", PORT, PROJECT, "17.0.0", None, 0, PORT),
        f"/infra/dhcp-server-configs/{NET}": (None, "dhcp-server", "network", NET, PROJECT, "17.0.0", None, 0, None),
        f"/infra/tier-1s/{ROUTER}": (None, "router", "router", ROUTER, PROJECT, "17.0.0", None, 0, None),
        f"/infra/services/{RULE}": (None, "service", "rule", RULE, PROJECT, "17.0.0", None, 0, None),
        f"/infra/domains/default/groups/{GROUP}":
            (None, "group", "security-group", GROUP, PROJECT, "17.0.0", None, 0, None),
        f"/infra/domains/default/security-policies/{GROUP}":
            (None, "policy", "security-group", GROUP, PROJECT, "17.0.0", None, 0, None),
    }  # fmt: skip
    assert all(row["created"] is not None for row in found.values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tags": None}, {"neutron": None, "project": None, "plugin": None}),
        ({"tags": tags(os_neutron_net_id="not a UUID")}, {"neutron": None}),
        ({"tags": tags(os_neutron_net_id=NET) + tags(os_neutron_net_id=PORT)}, {"neutron": None}),
        ({"tags": tags(os_neutron_port_id=PORT)}, {"neutron": None}),
        ({"tags": tags(os_project_id="a") + tags(os_project_id="b")}, {"project": None}),
        ({"tags": ["no", "tags"]}, {"neutron": None}),
        ({"id": NET.upper(), "tags": tags(os_neutron_net_id=NET.upper())}, {"neutron": NET, "protected": None}),
        ({"id": PORT, "tags": tags(os_neutron_net_id=NET)},
         {"protected": "its id is not that of Neutron's object in its tags"}),
        ({"display_name": "Büro ☃ \n'; DROP"}, {"name": "Büro ☃ \n'; DROP"}),
        ({"_system_owned": True}, {"protected": "it is NSX's own"}),
        ({"marked_for_delete": True}, {"protected": "NSX is about to delete it"}),
        ({"tags": tags(os_neutron_id="NSX Neutron plugin")}, {"protected": "it is the plugin's own, and no network's"}),
        ({"_revision": None}, {"revision": None}),
        ({"_create_time": "yesterday"}, {"created": None}),
    ],
    ids=["none", "no UUID", "two nets", "another's", "two projects", "strings", "upper case", "another id", "Unicode",
         "system", "going", "plugin", "no revision", "no time"],
)  # fmt: skip
def test_strange_objects_are_taken_as_they_are(nsx: Nsx, given: dict[str, Any], expected: dict[str, Any]) -> None:
    nsx.load(SEGMENTS, [{"id": NET, **given}])
    (found,) = read(nsx).values()
    assert {name: found[name] for name in expected} == expected


def test_the_manager_api_has_its_own_ids_and_shadows_of_the_other(nsx: Nsx) -> None:
    nsx.load("logical-switches", [{"id": "s1", "tags": owned("os_neutron_net_id", NET)}])
    port = {"id": "p1", "logical_switch_id": "s1", "attachment": {"attachment_type": "VIF", "id": PORT}}
    nsx.load("logical-ports", [{**port, "tags": owned("os_neutron_port_id", PORT)}])
    shadow = owned("os_neutron_router_id", ROUTER) + tags(policyPath=f"/infra/tier-1s/{ROUTER}")
    nsx.load("logical-routers", [{"id": "r1", "tags": shadow}])
    nsx.load("ns-groups", [{"id": "g1", "tags": owned("os_neutron_secgr_id", GROUP)}])
    found = read(nsx, api="manager")
    assert {path: (row["kind"], row["parent"], row["neutron"]) for path, row in found.items()} == {
        "/logical-switches/s1": ("segment", None, NET),
        "/logical-ports/p1": ("port", "/logical-switches/s1", PORT),
        "/logical-routers/r1": ("router", None, ROUTER),
        "/ns-groups/g1": ("group", None, GROUP),
    }
    assert found["/logical-routers/r1"]["protected"] == "the Policy API made it, and deletes it"
    some = read(nsx, Scope(frozenset(), frozenset(), frozenset({"/logical-switches/s1"})), api="manager")
    assert some == {path: found[path] for path in ("/logical-switches/s1", "/logical-ports/p1")}


def test_of_whom_a_load_balancer_is_its_tags_tell(nsx: Nsx) -> None:
    load_balancer(nsx)
    found = {path: row for path, row in read(nsx).items() if "/lb-" in path}
    assert {path: (row["kind"], row["thing"], row["neutron"], row["protected"]) for path, row in found.items()} == {
        f"/infra/lb-services/{NET}": ("lb-service", "load-balancer", BALANCER, None),
        f"/infra/lb-virtual-servers/{LISTENER}": ("virtual-server", "listener", LISTENER, None),
        f"/infra/lb-pools/{POOL}": ("pool", "pool", POOL, None),
        f"/infra/lb-monitor-profiles/{MONITOR}": ("monitor", "monitor", MONITOR, None),
    }
    more = [shared_by(BALANCER), shared_by(NET), *owned("os_neutron_router_id", ROUTER)]
    nsx.change(f"infra/lb-services/{NET}", tags=more)
    assert read(nsx)[f"/infra/lb-services/{NET}"]["neutron"] is None, "two load balancers share it"
    nsx.load("loadbalancer/virtual-servers", [{"id": "v1", "tags": owned("os_lbaas_listener_id", LISTENER)}])
    nsx.load("loadbalancer/pools", [{"id": "p1", "tags": owned("os_lbaas_pool_id", POOL)}])
    nsx.load("loadbalancer/monitors", [{"id": "m1", "tags": owned("os_lbaas_hm_id", MONITOR)}])
    nsx.load("loadbalancer/services", [{"id": "s1", "tags": owned("os_neutron_router_id", ROUTER)}])
    assert {path: (row["kind"], row["neutron"]) for path, row in read(nsx, api="manager").items()} == {
        "/loadbalancer/virtual-servers/v1": ("virtual-server", LISTENER),
        "/loadbalancer/pools/p1": ("pool", POOL),
        "/loadbalancer/monitors/m1": ("monitor", MONITOR),
    }


def test_a_scope_asks_for_its_objects_and_what_is_below_them_alone(nsx: Nsx) -> None:
    network(nsx)
    nsx.load("fabric/vifs", [{"external_id": "v", "lport_attachment_id": PORT, "owner_vm_id": "vm-1"}])
    whole = read(nsx)
    before = len(nsx.asked)
    gone = f"/{SEGMENTS}/{ROUTER}"
    ids = frozenset({f"/{SEGMENTS}/{NET}", gone, f"/fabric/vifs/{PORT}", NET, PORT, "/infra/../etc/passwd"})
    snapshot = Snapshot.create()
    assert snapshot.add(pieces(nsx, Scope(frozenset(), frozenset(), ids))) == []
    found = {row["path"]: row for row in snapshot.rows("SELECT * FROM nsx_objects")}
    assert found == {path: row for path, row in whole.items() if path.startswith(f"/{SEGMENTS}/{NET}")}
    assert [row["machine"] for row in snapshot.rows("SELECT machine FROM nsx_interfaces")] == ["vm-1"]
    assert snapshot.heard().lacks("nsx_objects", tables.NSX, [gone]) is None, "it was asked for, and is not there"
    assert snapshot.heard().lacks("nsx_objects", tables.NSX, [f"/infra/tier-1s/{ROUTER}"]) is not None
    snapshot.close()
    asked = [one.kind for one in nsx.asked[before:] if "session" not in one.kind]
    lists = [f"{SEGMENTS}/*/dhcp-static-binding-configs", f"{SEGMENTS}/*/ports"]
    assert sorted(asked) == ["fabric/vifs", f"{SEGMENTS}/*", f"{SEGMENTS}/*", *lists]


# ------------------------------------------------------------------------------------------------ whole, or a gap


def many(nsx: Nsx, count: int) -> None:
    nsx.load("infra/services", [{"id": f"n{number:05d}"} for number in range(count)])
    nsx.page_size = 1000


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("again", "stood in it twice"),
        ("no-cursor", "2000 of 2500 were in it"),
        ("null-cursor", "2000 of 2500 were in it"),
        ("bad-cursor", "The cursor is not valid"),
        ("half", "peer closed connection|Server disconnected|incomplete"),
        ("html", "answers what is no JSON"),
        ("close", "disconnected"),
        ("expire", "The X-XSRF-TOKEN is not valid"),
        (500, "Internal Server Error"),
        (503, "Service Unavailable"),
        (429, "Too Many Requests"),
        (403, "Forbidden"),
        (302, "sends us elsewhere"),
    ],
)
def test_a_list_that_breaks_off_is_a_gap(nsx: Nsx, monkeypatch: pytest.MonkeyPatch, does: Any, said: str) -> None:
    monkeypatch.setattr(nsxapi, "WAITS", (0.0,) * 7)
    many(nsx, 2500)
    nsx.fault(does, kind="infra/services", page=2, times=1000)
    assert any(part in why(nsx) for part in said.split("|"))
    nsx.faults.clear()
    assert len(read(nsx)) == 2500


@pytest.mark.parametrize("does", ["again", "no-cursor", "null-cursor", "half", "html", "close", "expire", 503, 429])
def test_what_goes_wrong_once_is_read_again(nsx: Nsx, monkeypatch: pytest.MonkeyPatch, does: Any) -> None:
    monkeypatch.setattr(nsxapi, "WAITS", (0.0,) * 7)
    many(nsx, 2500)
    nsx.fault(does, kind="infra/services", page=2)
    assert len(read(nsx)) == 2500
    assert nsx.faults[0].times == 0


@pytest.mark.parametrize(("paging", "count", "pages"), [("key", 2500, 3), ("offset", 2499, 6)])
def test_a_list_that_changes_while_it_is_read_has_all_that_stays(nsx: Nsx, paging: Any, count: int, pages: int) -> None:
    many(nsx, 2500)
    nsx.paging = paging
    nsx.fault(lambda: nsx.remove("infra/services/n00010"), kind="infra/services", page=2)
    found = read(nsx)
    assert len(found) == count
    assert {f"/infra/services/n{number:05d}" for number in range(2500) if number != 10} <= set(found)
    assert nsx.counts["GET", "infra/services"] == pages


def test_a_manager_that_hangs_is_left_for_the_next(nsx: Nsx) -> None:
    many(nsx, 10)
    nsx.fault("hang", kind="infra/services")
    assert len(read(nsx, timeout="1s")) == 10
    assert [one.manager for one in nsx.asked if one.kind == "infra/services"] == [1] or nsx.asked[-1].manager == 1


def test_the_other_manager_is_asked_when_one_is_down(nsx: Nsx) -> None:
    many(nsx, 10)
    nsx.managers[0].down()
    assert len(read(nsx)) == 10
    nsx.managers[1].down()
    reason = why(nsx)
    assert nsx.managers[0].url in reason
    assert nsx.managers[1].url in reason


def test_a_wrong_password_is_tried_once(nsx: Nsx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSX_PASSWORD", "wrong")
    assert "does not let admin in" in why(nsx)
    assert nsx.counts["POST", "api/session/create"] == 1, "after five NSX locks the account"
    monkeypatch.delenv("NSX_PASSWORD")
    assert "the environment has no NSX_PASSWORD" in why(nsx)


def test_a_client_that_asks_too_much_waits(nsx: Nsx) -> None:
    many(nsx, 10)
    nsx.load(SEGMENTS, [{"id": f"s{number}"} for number in range(60)])
    slept: list[float] = []
    cluster = nsxapi.Cluster(settings(nsx, rate=50), now=lambda: 0.0, sleep=slept.append)
    for _ in range(5):
        cluster.all("/policy/api/v1/infra/services")
    assert slept == pytest.approx([0.02, 0.04, 0.06, 0.08]), "fifty in a second, one after the other"
    nsx.rate = 40
    assert len(read(nsx)) == 70, "and where it is too fast all the same, it asks again"
    assert 429 in {one.status for one in nsx.asked}


def test_a_certificate_needs_no_session(tmp_path: Path) -> None:
    with Nsx(tmp_path, tls=True) as nsx:
        many(nsx, 3)
        files = {"certificate": str(nsx.certificate), "private_key": str(nsx.key), "ca": str(nsx.ca)}
        known: dict[str, Any] = {"user": None, "password_env": None, **files}
        assert len(read(nsx, **known)) == 3
        assert {one.user for one in nsx.asked} == {Nsx.PRINCIPAL}
        assert "certificate verify failed" in why(nsx, **{**known, "ca": None})
        assert "are of no use" in why(nsx, **{**known, "private_key": "/does/not/exist"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "one of user and certificate says who asks"),
        ({"user": "a", "certificate": "/c"}, "one of user and certificate says who asks"),
        ({"user": "a"}, "password_file or password_env is missing"),
        ({"user": "a", "password_env": "P", "managers": []}, "managers"),
        ({"user": "a", "password_env": "P", "managers": ["nsx.example"]}, "managers"),
        ({"user": "a", "password_env": "P", "api": "polcy"}, "'policy' or 'manager'"),
        ({"user": "a", "password_env": "P", "rate": 0}, "rate"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings.model_validate({"managers": ["https://nsx.example"], **given})


# ------------------------------------------------------------------------------------------------ acts


def act(nsx: Nsx, path: str, **more: Any) -> Delete:
    row = read(nsx, **more)[path]
    (delete,) = repair({**row, "server": None, "api": more.get("api", "policy")})
    return delete


def send(nsx: Nsx, act: Delete | Create, **more: Any) -> Any:
    return Controller(settings(nsx, **more), sleep=lambda seconds: None).send(act)


def everything(nsx: Nsx) -> dict[str, Any]:
    """Every object of the Policy API by its path, but for what NSX itself writes into it."""
    own = ("unique_id", "path")
    domain = "infra/domains/default"
    kinds = [
        SEGMENTS, PORTS, BINDINGS, "infra/dhcp-server-configs", "infra/tier-1s", "infra/services", f"{domain}/groups",
        f"{domain}/security-policies", f"{domain}/security-policies/{GROUP}/rules",
    ]  # fmt: skip
    return {
        str(one["path"]): {name: value for name, value in one.items() if not name.startswith("_") and name not in own}
        for kind in kinds for one in nsx.all(kind)
    }  # fmt: skip


def test_everything_is_deleted_in_its_turn_and_comes_back_as_it_was(nsx: Nsx) -> None:
    network(nsx)
    nsx.load(f"infra/tier-1s/{ROUTER}/locale-services", [{"id": "l"}])
    nsx.load(f"infra/tier-1s/{ROUTER}/locale-services/l/interfaces", [{"id": "i"}])
    nsx.load(f"infra/tier-1s/{ROUTER}/nat/USER/nat-rules", [{"id": "n"}])
    before = everything(nsx)
    nsx.pending_delete = 0.3
    paths = sorted(read(nsx))
    made = sorted((act(nsx, path) for path in paths), key=lambda one: one.turn)
    assert [one.of for one in made] == ["port", "segment", "dhcp-server", "policy", "group", "service", "router"]
    undone = []
    for one in made:
        saw = json.loads(json.dumps(send(nsx, one)))
        back = one.undo(saw)
        assert back is not None
        undone.append(back)
        with pytest.raises(Moved):
            send(nsx, one)
    assert everything(nsx) == {}
    assert nsx.get(f"infra/tier-1s/{ROUTER}/locale-services/l") is None
    for back in reversed(undone):
        Controller(settings(nsx)).send(back)
        with pytest.raises(Moved, match="again"):
            send(nsx, back)
    assert everything(nsx) == before
    assert nsx.get(f"infra/tier-1s/{ROUTER}/locale-services/l/interfaces/i") is not None
    assert nsx.get(f"infra/tier-1s/{ROUTER}/nat/USER/nat-rules/n") is not None


def test_a_load_balancer_goes_in_its_turn_and_comes_back(nsx: Nsx) -> None:
    load_balancer(nsx)
    kinds = ["infra/lb-services", "infra/lb-virtual-servers", "infra/lb-pools", "infra/lb-monitor-profiles"]

    def there() -> dict[str, Any]:
        return {
            str(one["path"]): {name: value for name, value in one.items() if name[0] != "_" and name != "unique_id"}
            for kind in kinds for one in nsx.all(kind)
        }  # fmt: skip

    before = there()
    made = sorted((act(nsx, path) for path in read(nsx)), key=lambda one: one.turn)
    assert [one.of for one in made] == ["virtual-server", "pool", "monitor", "lb-service", "router"]
    for early in made[1:]:
        with pytest.raises(Refused, match="referenced by"):
            send(nsx, early)
    assert there() == before
    undone = [one.undo(json.loads(json.dumps(send(nsx, one)))) for one in made]
    assert there() == {}
    for back in reversed(undone):
        assert back is not None
        send(nsx, back)
    assert there() == before


def test_the_manager_api_keeps_what_a_load_balancer_needs(nsx: Nsx) -> None:
    nsx.load("loadbalancer/monitors", [{"id": "m1", "tags": owned("os_lbaas_hm_id", MONITOR)}])
    pool = {"id": "p1", "active_monitor_ids": ["m1"], "tags": owned("os_lbaas_pool_id", POOL)}
    nsx.load("loadbalancer/pools", [pool])
    server = {"id": "v1", "pool_id": "p1", "tags": owned("os_lbaas_listener_id", LISTENER)}
    nsx.load("loadbalancer/virtual-servers", [server])
    nsx.load("loadbalancer/services", [{"id": "s1", "virtual_server_ids": ["v1"]}])
    for path in ("/loadbalancer/monitors/m1", "/loadbalancer/pools/p1", "/loadbalancer/virtual-servers/v1"):
        with pytest.raises(Refused, match="in use"):
            send(nsx, act(nsx, path, api="manager"), api="manager")


@pytest.mark.parametrize(
    "change",
    [
        lambda nsx: nsx.change(f"{PORTS}/{PORT}", display_name="new"),
        lambda nsx: nsx.load(PORTS, [{"id": PORT, "tags": owned("os_neutron_port_id", NET)}]),
        lambda nsx: nsx.change(f"{PORTS}/{PORT}", marked_for_delete=True, _revision=0),
        lambda nsx: nsx.remove(f"{PORTS}/{PORT}"),
    ],
    ids=["revision", "tags", "going", "gone"],
)  # fmt: skip
def test_what_is_not_as_it_was_is_left(nsx: Nsx, change: Callable[[Nsx], None]) -> None:
    network(nsx)
    delete = act(nsx, f"/{PORTS}/{PORT}")
    change(nsx)
    with pytest.raises(Moved):
        send(nsx, delete)
    assert nsx.writes == []


def test_a_port_that_a_virtual_machine_has_is_left(nsx: Nsx) -> None:
    network(nsx)
    delete = act(nsx, f"/{PORTS}/{PORT}")
    nsx.load("fabric/vifs", [{"external_id": "v", "lport_attachment_id": PORT, "owner_vm_id": "vm-1"}])
    with pytest.raises(Refused, match="the virtual machine vm-1 has the port"):
        send(nsx, delete)
    assert nsx.writes == []


def test_what_has_something_below_it_is_left(nsx: Nsx) -> None:
    network(nsx)
    with pytest.raises(Refused, match="1 objects below"):
        send(nsx, act(nsx, f"/{SEGMENTS}/{NET}"))
    assert nsx.writes == []


def test_what_others_refer_to_stays_with_all_that_belongs_to_it(nsx: Nsx) -> None:
    network(nsx)
    nsx.load(f"infra/tier-1s/{ROUTER}/locale-services", [{"id": "l"}])
    nsx.load(f"infra/tier-1s/{ROUTER}/static-routes", [{"id": "s", "network": "10.0.0.0/8"}])
    nsx.change(f"{SEGMENTS}/{NET}", connectivity_path=f"/infra/tier-1s/{ROUTER}")
    with pytest.raises(Refused, match="refuses to delete"):
        send(nsx, act(nsx, f"/infra/tier-1s/{ROUTER}"))
    assert nsx.get(f"infra/tier-1s/{ROUTER}/locale-services/l") is not None
    route = nsx.get(f"infra/tier-1s/{ROUTER}/static-routes/s")
    assert route is not None
    assert route["network"] == "10.0.0.0/8"
    with pytest.raises(Refused, match="refuses to delete"):
        send(nsx, act(nsx, f"/infra/domains/default/groups/{GROUP}"))


@pytest.mark.parametrize("does", [429, 503, "half", "expire"])
def test_what_nsx_is_too_busy_for_is_done_once(nsx: Nsx, monkeypatch: pytest.MonkeyPatch, does: Any) -> None:
    monkeypatch.setattr(nsxapi, "WAITS", (0.0,) * 7)
    network(nsx)
    delete = act(nsx, f"/{SEGMENTS}/{NET}/ports/{PORT}")
    nsx.fault(does, method="DELETE", kind=f"{SEGMENTS}/*/ports/*")
    assert send(nsx, delete)["was"]["id"] == PORT
    assert nsx.get(f"{PORTS}/{PORT}") is None
    assert [one.status for one in nsx.asked if one.method == "DELETE" and one.status == 200].count(200) == 2


@pytest.mark.parametrize("does", ["close", "hang"])
def test_a_deletion_without_an_answer_is_looked_at(nsx: Nsx, does: Any) -> None:
    network(nsx)
    delete = act(nsx, f"/{PORTS}/{PORT}")

    def done_and_silent() -> None:
        nsx.remove(f"{PORTS}/{PORT}")
        nsx.fault(does, method="DELETE", kind=f"{SEGMENTS}/*/ports/*")

    nsx.fault(done_and_silent, method="DELETE", kind=BINDING_OF_ANY)
    with pytest.raises((Moved, Outcomeless)):
        send(nsx, delete, timeout="1s")
    network(nsx)
    nsx.fault(does, method="DELETE", kind=f"{SEGMENTS}/*/ports/*")
    assert send(nsx, act(nsx, f"/{PORTS}/{PORT}"), timeout="1s")["was"]["id"] == PORT
    assert nsx.get(f"{PORTS}/{PORT}") is None


def test_a_deletion_that_is_done_late_is_done(nsx: Nsx) -> None:
    network(nsx)
    delete = act(nsx, f"/{PORTS}/{PORT}")
    nsx.fault("close", method="DELETE", kind=f"{SEGMENTS}/*/ports/*")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        nsx.remove(f"{PORTS}/{PORT}")  # after it was looked at, and before it is sent again

    assert Controller(settings(nsx), sleep=sleep).send(delete)["was"]["id"] == PORT
    assert slept == [1]


def test_a_deletion_that_cannot_be_sent_again_may_be_done_yet(nsx: Nsx) -> None:
    network(nsx)
    delete = act(nsx, f"/{PORTS}/{PORT}")
    nsx.fault("close", method="DELETE", kind=f"{SEGMENTS}/*/ports/*")

    def sleep(seconds: float) -> None:
        for manager in nsx.managers:
            manager.down()

    with pytest.raises(Outcomeless, match=f"NSX did not answer.*{BINDINGS}/{PORT} of it is deleted"):
        Controller(settings(nsx), sleep=sleep).send(delete)


def test_what_becomes_of_a_deletion_may_not_be_known(nsx: Nsx) -> None:
    network(nsx)
    delete = act(nsx, f"/{PORTS}/{PORT}")

    def silent() -> None:
        nsx.fault("close", method="DELETE", kind=f"{SEGMENTS}/*/ports/*")
        nsx.fault(500, kind=f"{SEGMENTS}/*/ports/*", times=100)

    nsx.fault(silent, method="DELETE", kind=BINDING_OF_ANY)
    with pytest.raises(Outcomeless, match=f"{BINDINGS}/{PORT} of it is deleted"):
        send(nsx, delete)


def test_who_may_only_read_changes_nothing(nsx: Nsx, monkeypatch: pytest.MonkeyPatch) -> None:
    network(nsx)
    monkeypatch.setenv("NSX_PASSWORD", Nsx.AUDITOR[1])
    with pytest.raises(Trouble, match="does not let us delete"):
        send(nsx, act(nsx, f"/infra/services/{RULE}"), user=Nsx.AUDITOR[0])
    assert nsx.get(f"infra/services/{RULE}") is not None
    nsx.managers[0].down()
    delete = act(nsx, f"/infra/services/{RULE}")
    nsx.managers[1].down()
    with pytest.raises(Trouble, match="nothing was sent"):
        send(nsx, delete)


@pytest.mark.parametrize(
    "path", ["/infra/segments/..", "/infra/segments/a/b", "/infra", "infra/segments/a", "/infra/segments/a?x=1"]
)
def test_a_path_that_is_none_is_refused(nsx: Nsx, path: str) -> None:
    network(nsx)
    delete = replace(act(nsx, f"/{SEGMENTS}/{NET}"), path=path)
    with pytest.raises((Refused, Moved)):
        send(nsx, delete)
    assert nsx.writes == []


@pytest.mark.parametrize(
    "bodies", ["{}", "[]", '{"body": {"id": "x"}, "children": []}', '{"body": {}, "children": [1]}']
)
def test_a_journal_that_says_nothing_brings_nothing_back(nsx: Nsx, bodies: str) -> None:
    with pytest.raises(Refused, match="does not say what"):
        send(nsx, Create("", f"/{SEGMENTS}/{NET}", "segment", NET, bodies))
    assert nsx.writes == []


def test_the_manager_api_deletes_what_it_has_made(nsx: Nsx) -> None:
    nsx.load("logical-switches", [{"id": "s1", "tags": owned("os_neutron_net_id", NET)}])
    port = {"id": "p1", "logical_switch_id": "s1", "attachment": {"attachment_type": "VIF", "id": PORT}}
    nsx.load("logical-ports", [{**port, "tags": owned("os_neutron_port_id", PORT)}])
    nsx.load("firewall/sections", [{"id": "f1", "tags": owned("os_neutron_secgr_id", GROUP)}])
    nsx.load("firewall/sections/f1/rules", [{"id": "1"}])
    with pytest.raises(Refused, match="1 objects below"):
        send(nsx, act(nsx, "/logical-switches/s1", api="manager"), api="manager")
    with pytest.raises(Refused, match="api is policy"):
        send(nsx, act(nsx, "/logical-switches/s1", api="manager"))
    for path in ("/logical-ports/p1", "/logical-switches/s1", "/firewall/sections/f1"):
        delete = act(nsx, path, api="manager")
        saw = send(nsx, delete, api="manager")
        assert saw["was"]["id"] == path.rpartition("/")[2]
        assert (delete.undoing, delete.undo(saw)) == ("none", None)
    assert read(nsx, api="manager") == {}
