"""Acts through Cinder's API: what is compared before, what each answer means, and that nothing is sent twice."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloudfsck.acts.attachment import Complete, Delete, ResetStatus
from cloudfsck.acts.cinder import Cinder
from cloudfsck.acts.domain import Pause
from cloudfsck.config import CloudApi
from cloudfsck.model import Act, Moved, Outcomeless, Refused, Trouble
from tests import cinder_api
from tests.cinder_api import Api

V = "11111111-0000-4000-8000-000000000001"
A = "22222222-0000-4000-8000-000000000002"
S = "33333333-0000-4000-8000-000000000003"

DELETE = Delete(S, V, A, "attached", "2026-11-12 10:00:00", "2026-11-12 10:00:00", "2026-11-13 12:00:00")
COMPLETE = Complete(S, V, A, "attaching", "", "2026-11-12 10:00:00", "2026-11-13 12:00:00")
RESET = ResetStatus(V, "detaching", "detached", "available", "detached", "2026-11-13 12:00:00")
WAY = f"/volume/v3/{cinder_api.PROJECT}"


@pytest.fixture
def api() -> Iterator[Api]:
    with cinder_api.served() as api:
        yield api


class Clock:
    """A clock that only a wait moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def cinder(api: Api, tmp_path: Path) -> Cinder:
    return _cinder(cinder_api.clouds(tmp_path, api.url))


def _cinder(clouds: Path, cloud: str = "here") -> Cinder:
    clock = Clock()
    settings = CloudApi.model_validate({"cloud": cloud, "clouds_file": clouds, "timeout": "1s"})
    return Cinder(settings, clock.now, clock.sleep)


def _with(api: Api, act: Act) -> None:
    if act == DELETE:
        api.add(V, A, S, attached_at="2026-11-12T10:00:00.000000")
    elif act == COMPLETE:
        api.add(V, A, S, attach_status="attaching", status="attaching")
    else:
        api.add(V, None, None, status="detaching")


EACH = pytest.mark.parametrize(("act", "method"), [(DELETE, "DELETE"), (COMPLETE, "POST"), (RESET, "POST")])


# ------------------------------------------------------------------------------------------ well


def test_an_attachment_is_deleted_once_and_without_a_service_token(api: Api, cinder: Cinder) -> None:
    _with(api, DELETE)
    assert cinder.send(DELETE) == {"status": "in-use", "updated_at": "2026-11-13 12:00:00"}
    assert api.attachments == {}
    assert api.asked == [
        ("GET", f"{WAY}/attachments/{A}"), ("GET", f"{WAY}/volumes/{V}"), ("DELETE", f"{WAY}/attachments/{A}"),
        ("GET", f"{WAY}/attachments/{A}"), ("GET", f"{WAY}/volumes/{V}"),
    ]  # fmt: skip
    for headers in api.headers:
        assert headers["OpenStack-API-Version"] == "volume 3.27"
        assert headers["X-Auth-Token"] == cinder_api.TOKEN
        assert not any("service" in name.lower() for name in headers)


def test_an_attachment_is_completed_once_by_the_version_that_can(api: Api, cinder: Cinder) -> None:
    _with(api, COMPLETE)
    assert cinder.send(COMPLETE) == {"status": "in-use", "updated_at": "2026-11-13 12:00:00"}
    assert api.attachments[A]["status"] == "attached"
    assert api.writes == [("POST", f"{WAY}/attachments/{A}/action")]
    versions = {headers["OpenStack-API-Version"] for (method, _), headers in zip(api.asked, api.headers, strict=True)
                if method == "POST"}  # fmt: skip
    assert versions == {"volume 3.44"}


@pytest.mark.parametrize(
    ("kind", "name", "value", "said"),
    [
        ("attachments", "status", "attached", "has status 'attached'"),
        ("attachments", "instance", V, "has instance"),
        ("attachments", "attached_at", "2026-11-22T10:00:00.000000", "has attached_at '2026-11-22 10:00:00'"),
        ("volumes", "updated_at", "2026-11-13T12:00:01.5", "has updated_at '2026-11-13 12:00:01'"),
    ],
)
def test_one_that_is_not_as_it_was_is_not_completed(
    api: Api, cinder: Cinder, kind: str, name: str, value: object, said: str
) -> None:
    _with(api, COMPLETE)
    getattr(api, kind)[A if kind == "attachments" else V][name] = value
    with pytest.raises(Moved, match=re.escape(said)):
        cinder.send(COMPLETE)
    assert api.writes == []


def test_a_status_is_set_and_can_be_set_back(api: Api, cinder: Cinder) -> None:
    _with(api, RESET)
    saw = cinder.send(RESET)
    assert saw == {"status": "available", "updated_at": "2026-11-22 00:00:00"}
    back = RESET.undo(saw)
    assert back is not None
    assert cinder.send(back)["status"] == "detaching"
    assert api.writes == [("POST", f"{WAY}/volumes/{V}/action")] * 2


def test_to_detached_is_said_only_where_it_changes() -> None:
    assert RESET.order["to"] == {"status": "available"}
    both = replace(RESET, attach_status="attached")
    assert both.order["to"] == {"status": "available", "attach_status": "detached"}


# ------------------------------------------------------------------------------------------ compare and swap


@pytest.mark.parametrize(
    ("kind", "name", "value", "said"),
    [
        ("attachments", "status", "detaching", f"{A} has status 'detaching' by Cinder's API, and had 'attached'"),
        ("attachments", "instance", None, "has instance None"),
        ("attachments", "volume_id", S, "has volume_id"),
        ("attachments", "attached_at", "2026-11-22T10:00:00.000000", "has attached_at '2026-11-22 10:00:00'"),
        ("attachments", "attached_at", "yesterday", "has attached_at 'yesterday'"),
        ("attachments", "attached_at", 7, "has attached_at ''"),
        ("volumes", "updated_at", "2026-11-13T12:00:01.5", "has updated_at '2026-11-13 12:00:01'"),
    ],
)  # fmt: skip
def test_an_attachment_that_is_not_as_it_was_is_left(
    api: Api, cinder: Cinder, kind: str, name: str, value: object, said: str
) -> None:
    _with(api, DELETE)
    getattr(api, kind)[A if kind == "attachments" else V][name] = value
    with pytest.raises(Moved, match=re.escape(said)):
        cinder.send(DELETE)
    assert api.writes == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("status", "in-use", "has status 'in-use'"),
        ("updated_at", None, "has updated_at ''"),
        ("attachments", [{"id": A}], "has an attachment"),
        ("attachments", None, "has an attachment"),
    ],
)
def test_a_volume_that_is_not_as_it_was_is_left(api: Api, cinder: Cinder, name: str, value: object, said: str) -> None:
    _with(api, RESET)
    api.volumes[V][name] = value
    with pytest.raises(Moved, match=re.escape(said)):
        cinder.send(RESET)
    assert api.writes == []


def test_a_volume_that_is_reserved_just_now_is_left(api: Api, cinder: Cinder) -> None:
    _with(api, RESET)
    api.add(V, A, S, attach_status="reserved", status="detaching")
    with pytest.raises(Moved, match="has an attachment"):
        cinder.send(RESET)
    assert api.writes == []


def test_what_is_gone_is_gone(api: Api, cinder: Cinder) -> None:
    with pytest.raises(Moved, match="has no attachment .* or does not show it to the cloud here .*could not be found"):
        cinder.send(DELETE)
    with pytest.raises(Moved, match="has no volume"):
        cinder.send(RESET)
    assert api.writes == []


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (replace(DELETE, attachment="../volumes/x"), "'../volumes/x' is no UUID"),
        (replace(RESET, volume="x"), "'x' is no UUID"),
        (Pause("c1", S, 1, True), "domain.pause is nothing that Cinder does"),
    ],
)
def test_what_is_no_order_for_cinder_is_refused(api: Api, cinder: Cinder, act: Act, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        cinder.send(act)
    assert api.asked == []


# ------------------------------------------------------------------------------------------ what each answer means


@EACH
@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (400, Refused, "Cinder refuses: because of this (HTTP 400)"),
        (401, Trouble, "does not let the cloud here of clouds.yaml ([write.cinder]) do this: because of this"),
        (403, Trouble, "does not let the cloud here of clouds.yaml ([write.cinder]) do this: because of this"),
        (404, Moved, "Cinder has it no more: because of this (HTTP 404)"),
        (409, Refused, "Cinder refuses: because of this (HTTP 409)"),
        (429, Trouble, "does not let"),
        (302, Trouble, "does not let"),
        (500, Outcomeless, "Cinder answered because of this (HTTP 500), and may still be at it"),
        (502, Outcomeless, "and may still be at it"),
        (504, Outcomeless, "and may still be at it"),
        (503, Trouble, "cannot do it now: because of this (HTTP 503)"),
        ("hang", Outcomeless, "Cinder did not answer"),
        ("close", Outcomeless, "Cinder did not answer"),
    ],
)  # fmt: skip
def test_what_the_answer_to_the_act_means(
    api: Api, cinder: Cinder, act: Act, method: str, fault: int | str, error: type[Exception], said: str
) -> None:
    _with(api, act)
    api.words = "because\n of this"
    api.faults[method] = [fault] * 3
    with pytest.raises(error, match=re.escape(said)):
        cinder.send(act)
    # keystoneauth asks for another token after 401 and sends it again, for nothing was done
    assert len(api.writes) == (2 if fault == 401 else 1)


@EACH
@pytest.mark.parametrize("fault", [401, 403, 406, 500, 503, "hang", "close"])
def test_what_cannot_be_read_is_not_acted_upon(
    api: Api, cinder: Cinder, act: Act, method: str, fault: int | str
) -> None:
    _with(api, act)
    api.faults["GET"] = [fault] * 2
    with pytest.raises(Trouble, match=r"the cloud here of clouds.yaml \(\[write.cinder\]\)"):
        cinder.send(act)
    assert api.writes == []


def test_a_503_of_one_who_passed_it_on_leaves_the_outcome_open(api: Api, cinder: Cinder) -> None:
    _with(api, DELETE)
    api.faults["DELETE"] = [503]
    api.before = lambda method, path: api.attachments.clear() if method == "DELETE" else None
    with pytest.raises(Outcomeless, match=r"HTTP 503\), and then: Cinder has no attachment"):
        cinder.send(DELETE)


@EACH
def test_a_yes_without_a_deed_leaves_the_outcome_open(api: Api, cinder: Cinder, act: Act, method: str) -> None:
    _with(api, act)
    api.lazy = True
    with pytest.raises(Outcomeless, match="Cinder answered 202 to .*, and 60 s later it is still as it was"):
        cinder.send(act)
    assert len(api.writes) == 1


@EACH
def test_while_it_waits_it_takes_no_silence_for_an_end(api: Api, cinder: Cinder, act: Act, method: str) -> None:
    _with(api, act)

    def later(method: str, path: str) -> None:
        if method != "GET":
            api.faults["GET"] = [500, "close", 503]

    api.before = later
    assert "status" in cinder.send(act)
    assert api.faults["GET"] == []


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Trouble, match="could not be read as the cloud here .*onnect"):
        _cinder(cinder_api.clouds(tmp_path, f"http://127.0.0.1:{port}")).send(DELETE)


def test_cinder_is_gone_between_the_look_and_the_act(api: Api, cinder: Cinder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything was sent: nothing was done."""
    _with(api, DELETE)
    cinder._as_it_was(DELETE.order)
    assert cinder.api._adapter is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        cinder.api._adapter.endpoint_override = f"http://127.0.0.1:{free.getsockname()[1]}/v3"
    monkeypatch.setattr(cinder, "_as_it_was", lambda order: None)
    with pytest.raises(Trouble, match="nothing was sent to Cinder"):
        cinder.send(DELETE)


@pytest.mark.parametrize("garbage", ["", "[]", '{"attachment": 7}', "null", "{}", "[" * 100_000, "<html>"])
def test_an_answer_that_is_none(api: Api, cinder: Cinder, garbage: str) -> None:
    _with(api, DELETE)
    api.raw = garbage
    with pytest.raises(Moved, match="has status None by Cinder's API"):
        cinder.send(DELETE)
    assert api.writes == []


# ------------------------------------------------------------------------------------------ clouds.yaml


def test_no_account_that_keystone_knows(api: Api, cinder: Cinder) -> None:
    api.keystone = 401
    with pytest.raises(Trouble, match="as the cloud here .*requires authentication") as raised:
        cinder.send(DELETE)
    assert cinder_api.PASSWORD not in str(raised.value)
    assert api.asked == []


def test_a_password_that_everybody_can_read_is_refused(api: Api, tmp_path: Path) -> None:
    path = cinder_api.clouds(tmp_path, api.url)
    path.chmod(0o644)
    with pytest.raises(Trouble) as raised:
        _cinder(path).send(DELETE)
    said = f"{path} holds a password (clouds.here), and everybody can read it: chmod o= {path}"
    assert str(raised.value) == said
    assert api.asked == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clouds: {there: {}}", r"write.cinder.cloud: clouds.yaml \(.*\) has no cloud 'here'"),
        ("clouds: {here: {auth: {password: x}}}", "the cloud 'here' of clouds.yaml is of no use: .*auth_url"),
        ("clouds: [", r"write.cinder.cloud: clouds.yaml \(.*\) has no cloud 'here'"),
        ("clouds: 7", "write.cinder"),
        ("clouds: {here: 7}", "write.cinder"),
        ("[]", "write.cinder"),
        ("", "write.cinder.cloud: clouds.yaml"),
        ("\x00", "write.cinder"),
    ],
)  # fmt: skip
def test_a_clouds_yaml_that_is_of_no_use(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "clouds.yaml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(Trouble, match=said):
        _cinder(path).send(DELETE)


def test_a_clouds_yaml_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="write.cinder.clouds_file: there is no file .*nowhere"):
        _cinder(tmp_path / "nowhere").send(DELETE)


def test_clouds_yaml_is_found_as_the_openstack_command_finds_it(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with(api, DELETE)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cinder_api.clouds(tmp_path, api.url)))
    Cinder(CloudApi(cloud="here")).send(DELETE)
    assert api.attachments == {}
