"""Acts through Neutron's API: what is compared before, which revision is sent, and what each answer means."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudfsck.acts.domain import Pause
from cloudfsck.acts.neutron import Neutron
from cloudfsck.acts.port import Associate, Delete, DeleteBinding, DeleteDhcp, Disassociate, Rebind, Unbind
from cloudfsck.config import CloudApi
from cloudfsck.model import Act, Moved, Outcomeless, Refused, Trouble
from tests import cinder_api

P = "11111111-0000-4000-8000-000000000001"
F = "22222222-0000-4000-8000-000000000002"
S = "33333333-0000-4000-8000-000000000003"

DELETE = Delete(S, P, "compute:nova", "c1", 4)
DHCP = DeleteDhcp("", P, "dhcp-device", "network:dhcp", "net1", 4)
UNBIND = Unbind(S, P, "compute:nova", "c1", 4)
REBIND = Rebind(S, P, "compute:nova", "c1", 5)
BINDING = DeleteBinding(S, P, "c2", "c1")
AWAY = Disassociate(S, F, P, "10.0.0.1", 2)
BACK = Associate(S, F, P, "10.0.0.1", 3)
ACTS: tuple[Act, ...] = (DELETE, UNBIND, BINDING, AWAY)


class Api(cinder_api.Api):
    """Neutron as its API tells of it: one port, its bindings, one floating IP."""

    def __init__(self) -> None:
        super().__init__()
        self.port: dict[str, Any] | None = {
            "id": P, "device_id": S, "device_owner": "compute:nova", "binding:host_id": "c1", "binding:profile": {},
            "revision_number": 4,
        }  # fmt: skip
        self.bindings = [{"host": "c1", "status": "ACTIVE"}, {"host": "c2", "status": "INACTIVE"}]
        self.floating_ip: dict[str, Any] = {
            "id": F, "port_id": P, "fixed_ip_address": "10.0.0.1", "revision_number": 2
        }  # fmt: skip
        self.matched: list[str | None] = []
        self.bodies: list[Any] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path in ("/network", "/network/"):
            link = [{"rel": "self", "href": f"{self.url}/network/v2.0/"}]
            return 200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": link}]}
        place, _, query = path.removeprefix("/network/v2.0").partition("?")
        if method != "GET":
            self.matched.append(self.headers[-1].get("If-Match"))
            self.bodies.append(body)
        if place == "/floatingips":
            mine = f"port_id={self.floating_ip['port_id']}" == query
            return 200, {"floatingips": [self.floating_ip] if mine else []}
        if place == f"/floatingips/{F}":
            return self._changed("floatingip", self.floating_ip, body)
        if self.port is None:
            return 404, {"NeutronError": {"type": "PortNotFound", "message": f"Port {P} could not be found."}}
        if place == f"/ports/{P}/bindings":
            return 200, {"bindings": self.bindings}
        if place.startswith(f"/ports/{P}/bindings/"):
            self.bindings = [one for one in self.bindings if one["host"] != place.rpartition("/")[2]]
            return 204, {}
        if method == "DELETE":
            self.port = None
            return 204, {}
        return self._changed("port", self.port, body)

    def _changed(self, kind: str, one: dict[str, Any], body: Any) -> tuple[int, Any]:
        if body is not None and not self.lazy:
            wanted = self.matched[-1]
            if wanted is not None and wanted != f"revision_number={one['revision_number']}":
                return 412, {"NeutronError": {"message": "the revision is another"}}
            one.update(body[kind], revision_number=one["revision_number"] + 1)
            if kind == "floatingip" and one["port_id"] is None:
                one["fixed_ip_address"] = None
        return 200, {kind: copy.deepcopy(one)}


@pytest.fixture
def api() -> Iterator[Api]:
    with cinder_api.served(Api) as api:
        yield api


@pytest.fixture
def neutron(api: Api, tmp_path: Path) -> Neutron:
    clouds = cinder_api.clouds(tmp_path, api.url)
    settings = CloudApi.model_validate({"cloud": "here", "clouds_file": clouds, "timeout": "1s"})
    ticks = iter(range(10_000))
    return Neutron(settings, lambda: float(next(ticks)), lambda seconds: None)


def with_floating_ip_elsewhere(api: Api) -> None:
    api.floating_ip["port_id"] = None


# ------------------------------------------------------------------------------------------ well


def test_a_port_is_deleted_once_and_by_its_revision(api: Api, neutron: Neutron) -> None:
    with_floating_ip_elsewhere(api)
    was = neutron.send(DELETE)["was"]
    assert was["device_id"] == S, "all of it is kept in the journal"
    assert api.port is None
    assert [method for method, _ in api.writes] == ["DELETE"]
    assert api.matched == ["revision_number=4"]
    assert not any("service" in name.lower() for headers in api.headers for name in headers)


def test_a_dhcp_port_is_deleted_as_it_was_and_not_once_its_agent_has_it_again(api: Api, neutron: Neutron) -> None:
    with_floating_ip_elsewhere(api)
    assert api.port is not None
    api.port |= {"device_id": "reserved_dhcp_port", "device_owner": "network:dhcp", "binding:host_id": "net1"}
    with pytest.raises(Moved, match="reserved_dhcp_port"):
        neutron.send(DHCP)
    api.port["device_id"] = "dhcp-device"
    assert neutron.send(DHCP)["was"]["device_id"] == "dhcp-device"
    assert api.port is None
    assert api.matched == ["revision_number=4"]


def test_a_port_is_unbound_and_bound_again(api: Api, neutron: Neutron) -> None:
    assert api.port is not None
    api.port["binding:profile"] = {"pci_slot": "0000:03:00.1", "capabilities": ["switchdev"]}
    saw = neutron.send(UNBIND)
    assert (api.port["device_id"], api.port["device_owner"], api.port["binding:host_id"]) == ("", "", "")
    assert api.port["binding:profile"] == {"capabilities": ["switchdev"]}, "what is of the host goes, the rest stays"
    assert saw["revision"] == 5
    back = UNBIND.undo(saw)
    assert back == REBIND
    neutron.send(back)
    assert (api.port["device_id"], api.port["device_owner"], api.port["binding:host_id"]) == (S, "compute:nova", "c1")
    assert api.matched == ["revision_number=4", "revision_number=5"]


def test_of_a_profile_that_says_nothing_of_the_host_nothing_is_sent(api: Api, neutron: Neutron) -> None:
    neutron.send(UNBIND)
    assert api.bodies == [{"port": {"device_id": "", "device_owner": "", "binding:host_id": ""}}]


def test_an_inactive_binding_is_deleted(api: Api, neutron: Neutron) -> None:
    neutron.send(BINDING)
    assert api.bindings == [{"host": "c1", "status": "ACTIVE"}]


def test_a_floating_ip_is_taken_away_and_given_back(api: Api, neutron: Neutron) -> None:
    saw = neutron.send(AWAY)
    assert (api.floating_ip["port_id"], api.floating_ip["fixed_ip_address"]) == (None, None)
    back = AWAY.undo(saw)
    assert back == BACK
    neutron.send(back)
    assert (api.floating_ip["port_id"], api.floating_ip["fixed_ip_address"]) == (P, "10.0.0.1")


# ------------------------------------------------------------------------------------------ not as it was


@pytest.mark.parametrize("act", [DELETE, UNBIND])
@pytest.mark.parametrize(
    ("name", "value"),
    [("device_id", P), ("device_owner", "network:dhcp"), ("binding:host_id", "c9"), ("revision_number", 5)],
)
def test_a_port_that_is_not_as_it_was_is_left(api: Api, neutron: Neutron, act: Act, name: str, value: Any) -> None:
    with_floating_ip_elsewhere(api)
    assert api.port is not None
    api.port[name] = value
    with pytest.raises(Moved, match=str(value)):
        neutron.send(act)
    assert api.writes == []


def test_a_port_is_not_deleted_from_under_a_floating_ip_or_a_trunk(api: Api, neutron: Neutron) -> None:
    with pytest.raises(Moved, match="a floating IP leads to port"):
        neutron.send(DELETE)
    with_floating_ip_elsewhere(api)
    assert api.port is not None
    api.port["trunk_details"] = {"trunk_id": F}
    with pytest.raises(Moved, match="has a trunk"):
        neutron.send(DELETE)
    assert api.writes == []


@pytest.mark.parametrize(
    "bindings",
    [
        [{"host": "c1", "status": "ACTIVE"}],
        [{"host": "c1", "status": "INACTIVE"}, {"host": "c2", "status": "ACTIVE"}],
    ],
)
def test_a_binding_that_is_active_or_gone_is_left(api: Api, neutron: Neutron, bindings: list[dict[str, str]]) -> None:
    api.bindings = bindings
    with pytest.raises(Moved, match="no inactive binding"):
        neutron.send(BINDING)
    assert api.writes == []


def test_a_floating_ip_that_leads_elsewhere_is_left(api: Api, neutron: Neutron) -> None:
    with pytest.raises(Moved, match="revision 2"):
        neutron.send(replace(AWAY, revision=1))
    api.floating_ip["port_id"] = S
    with pytest.raises(Moved, match="has port_id"):
        neutron.send(AWAY)
    assert api.writes == []


@pytest.mark.parametrize("act", [DELETE, UNBIND, AWAY])
def test_who_changes_it_right_before_has_won(api: Api, neutron: Neutron, act: Act) -> None:
    if act == DELETE:
        with_floating_ip_elsewhere(api)
    api.faults = {"DELETE": [412], "PUT": [412]}
    with pytest.raises(Moved, match="changed since"):
        neutron.send(act)


def test_without_a_revision_nothing_is_sent(api: Api, neutron: Neutron) -> None:
    assert api.port is not None
    api.port["revision_number"] = None
    with pytest.raises(Refused, match="tells no revision"):
        neutron.send(UNBIND)
    assert api.writes == []


def test_what_is_none_of_neutrons_is_refused(neutron: Neutron) -> None:
    with pytest.raises(Refused, match="nothing that Neutron does"):
        neutron.send(Pause("c1", S, 7, True))
    with pytest.raises(Refused, match="is no UUID"):
        neutron.send(replace(UNBIND, port="../../x"))


# ------------------------------------------------------------------------------------------ what is answered


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (400, Refused), (401, Trouble), (403, Trouble), (404, Moved), (409, Refused), (429, Trouble),
        (500, Outcomeless), (502, Outcomeless), (503, Trouble), ("hang", Outcomeless), ("close", Outcomeless),
    ],
)  # fmt: skip
def test_each_answer_is_taken_as_what_it_is(
    api: Api, neutron: Neutron, act: Act, fault: int | str, raised: type[Exception]
) -> None:
    if act == DELETE:
        with_floating_ip_elsewhere(api)
    # A token that is refused is asked for again, once.
    api.faults = {"DELETE": [fault] * 2, "PUT": [fault] * 2}
    with pytest.raises(raised):
        neutron.send(act)
    assert len(api.writes) == (2 if fault == 401 else 1), "it is sent once"


def test_a_yes_without_a_deed_leaves_the_outcome_open(api: Api, neutron: Neutron) -> None:
    api.lazy = True
    with pytest.raises(Outcomeless, match="still as it was"):
        neutron.send(AWAY)
