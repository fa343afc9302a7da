"""Send an act to Cinder's API, as the administrator that [write.cinder] names, and never with a service token.

With one Cinder would not ask Nova whether the server has the attachment (cinder/volume/api.py:
attachment_deletion_allowed); without one it does, and refuses.  clouds.yaml is read by openstacksdk, as the openstack
command reads it; nothing is sent twice, whatever that file says of retries.
"""

from __future__ import annotations

import datetime as dt
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudfsck.config import CinderApi
from cloudfsck.model import Act, Moved, Outcomeless, Refused, Trouble

if TYPE_CHECKING:  # it takes a second to import, and is when something is sent
    from keystoneauth1.adapter import Adapter

#: The first microversion that has attachments (cinder/api/microversions.py: NEW_ATTACH).
ATTACHMENTS = "3.27"

#: The first that completes one (NEW_ATTACH_COMPLETION).
COMPLETION = "3.44"

#: How long an attachment may take to be gone, or a volume to have its new state, once Cinder has said yes.
LASTS = 60.0

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SECRETS = ("password", "secret", "token", "passcode")

#: What the API answers where nothing was done: it did not let us, or did not get to it.
_UNTOUCHED = frozenset({401, 403, 405, 406, 408, 413, 429})


class _Unheard(Exception):
    """No answer, or none of use; `sent` says whether the request may have arrived."""

    def __init__(self, why: str, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


@dataclass(frozen=True)
class _Answer:
    status: int
    body: Mapping[str, Any]

    @property
    def words(self) -> str:
        """What Cinder itself says, in one line: its faults are {"itemNotFound": {"code": 404, "message": "..."}}."""
        said = next((one.get("message") for one in self.body.values() if isinstance(one, Mapping)), None)
        words = " ".join(str(said).split())[:500] if said else ""
        return f"{words} (HTTP {self.status})" if words else f"HTTP {self.status}"


@dataclass
class Cinder:
    """Cinder's API.  The account is looked up in clouds.yaml when the first act is sent, and not before."""

    settings: CinderApi
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _adapter: Adapter | None = field(default=None, init=False)

    @property
    def who(self) -> str:
        return f"the cloud {self.settings.cloud} of clouds.yaml ([write.cinder])"

    def send(self, act: Act) -> Mapping[str, Any]:
        """Have the act done, and return what was seen right after it: the volume's status and updated_at.

        Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
        Outcomeless when what became of it is not known.
        """
        order = act.order
        for name in ("volume", "attachment"):
            if name in order and not _UUID.fullmatch(str(order[name])):
                raise Refused(f"{order[name]!r} is no UUID")
        if order["do"] == "attachment.delete":
            return self._delete(order)
        if order["do"] == "attachment.complete":
            return self._complete(order)
        if order["do"] == "volume.reset_status":
            return self._reset(order)
        raise Refused(f"{order['do']} is nothing that Cinder does")

    # ------------------------------------------------------------------------------------------ the acts

    def _delete(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        place = f"/attachments/{order['attachment']}"
        self._as_it_was(order)
        answer = self._write("DELETE", place, None, lambda: self._as_it_was(order))
        self._wait(f"{answer.status} to the deletion", lambda: self._read(place).status == 404)
        return self._saw(order["volume"])

    def _complete(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        place = f"/attachments/{order['attachment']}"
        self._as_it_was(order)
        body: Mapping[str, Any] = {"os-complete": {}}
        answer = self._write("POST", f"{place}/action", body, lambda: self._as_it_was(order), COMPLETION)

        def complete() -> bool:
            return _of(self._read(place), "attachment").get("status") == "attached"

        self._wait(f"{answer.status} to the completion", complete)
        return self._saw(order["volume"])

    def _reset(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        place = f"/volumes/{order['volume']}"
        self._as_it_was(order)
        answer = self._write(
            "POST", f"{place}/action", {"os-reset_status": order["to"]}, lambda: self._as_it_was(order)
        )
        to = order["to"]["status"]
        self._wait(f"{answer.status} to the new status", lambda: _of(self._read(place), "volume").get("status") == to)
        return self._saw(order["volume"])

    def _as_it_was(self, order: Mapping[str, Any]) -> None:
        """Raises Moved unless the API tells of the act's objects what the act expects."""
        was = order["was"]
        if "attachment" in order:
            place = f"/attachments/{order['attachment']}"
            told = _of(self._found(place, f"attachment {order['attachment']}"), "attachment")
            now = {name: told.get(name) for name in ("status", "instance", "volume_id")}
            now["attached_at"] = _second(told.get("attached_at"))
            _compare(f"attachment {order['attachment']}", {name: was[name] for name in now}, now)
            changed = was["volume_updated_at"]
        else:
            changed = was["updated_at"]
        told = _of(self._found(f"/volumes/{order['volume']}", f"volume {order['volume']}"), "volume")
        said = f"volume {order['volume']}"
        if changed is not None:
            _compare(said, {"updated_at": changed}, {"updated_at": _second(told.get("updated_at"))})
        if "attachment" not in order:
            _compare(said, {"status": was["status"]}, {"status": told.get("status")})
            listed = self._found(f"/attachments?all_tenants=1&volume_id={order['volume']}", said)
            if told.get("attachments") != [] or listed.body.get("attachments") != []:
                raise Moved(f"{said} has an attachment, by Cinder's API")

    def _saw(self, volume: str) -> Mapping[str, Any]:
        """The volume after the act; nothing where it cannot be read: the act is done all the same."""
        try:
            told = _of(self._read(f"/volumes/{volume}"), "volume")
        except _Unheard:
            return {}
        return {"status": told.get("status"), "updated_at": _second(told.get("updated_at"))}

    def _wait(self, after: str, done: Callable[[], bool]) -> None:
        """Raises Outcomeless if it is not so in time."""
        ends = self.now() + LASTS
        while True:
            try:
                if done():
                    return
                why = "it is still as it was"
            except _Unheard as error:
                why = str(error)
            if self.now() >= ends:
                raise Outcomeless(f"Cinder answered {after}, and {LASTS:.0f} s later {why}")
            self.sleep(1)

    # ------------------------------------------------------------------------------------------ the wire

    def _found(self, place: str, what: str) -> _Answer:
        """What is read before anything is sent.  Raises Moved where there is no such thing, and Trouble where the API
        does not say."""
        try:
            answer = self._read(place)
        except _Unheard as error:
            raise Trouble(f"Cinder's API could not be read as {self.who}: {error}") from error
        if answer.status == 404:
            raise Moved(f"Cinder has no {what}, or does not show it to {self.who}: {answer.words}")
        if answer.status != 200:
            raise Trouble(f"Cinder does not show {what} to {self.who}: {answer.words}")
        return answer

    def _write(
        self,
        method: str,
        place: str,
        body: Mapping[str, Any] | None,
        unchanged: Callable[[], None],
        version: str = ATTACHMENTS,
    ) -> _Answer:
        """Send it once.  `unchanged` raises whatever it likes where the object is not as it was, or cannot be read."""
        try:
            answer = self._ask(method, place, body, version)
        except _Unheard as error:
            if error.sent:
                raise Outcomeless(f"Cinder did not answer: {error}") from error
            raise Trouble(f"nothing was sent to Cinder as {self.who}: {error}") from error
        if answer.status in (200, 202, 204):
            return answer
        if answer.status == 404:
            raise Moved(f"Cinder has it no more: {answer.words}")
        if answer.status in (400, 409):
            raise Refused(f"Cinder refuses: {answer.words}")
        if answer.status in _UNTOUCHED or 300 <= answer.status < 400:
            raise Trouble(f"Cinder does not let {self.who} do this: {answer.words}")
        if answer.status == 503:  # of Cinder that could not ask Nova, or of a balancer, which may have passed it on
            try:
                unchanged()
            except (Moved, Trouble) as error:
                raise Outcomeless(f"Cinder answered {answer.words}, and then: {error}") from error
            raise Trouble(f"Cinder, or who stands before it, cannot do it now: {answer.words}")
        raise Outcomeless(f"Cinder answered {answer.words}, and may still be at it")

    def _read(self, place: str) -> _Answer:
        return self._ask("GET", place, None)

    def _ask(self, method: str, place: str, body: Mapping[str, Any] | None, version: str = ATTACHMENTS) -> _Answer:
        """One request, sent once.  Raises _Unheard, or Trouble if clouds.yaml is of no use."""
        adapter = self._adapter = self._adapter or _adapter(self.settings)
        with _hearing():
            response = adapter.request(
                place, method, json=body, microversion=version, raise_exc=False, redirect=False, log=False,
                connect_retries=0, status_code_retries=0,
            )  # fmt: skip
        try:
            told = response.json()
        except (ValueError, RecursionError):
            told = {}
        return _Answer(response.status_code, told if isinstance(told, Mapping) else {})


@contextmanager
def _hearing() -> Iterator[None]:
    """Say of what keystoneauth raises whether our request may have arrived."""
    import requests
    from keystoneauth1 import exceptions

    try:
        yield
    except (exceptions.ConnectFailure, exceptions.ConnectTimeout) as error:
        cause = error.__context__
        before = isinstance(cause, requests.exceptions.ConnectTimeout)
        reason = getattr(cause.args[0], "reason", None) if cause is not None and cause.args else None
        # urllib3: NewConnectionError, NameResolutionError, ConnectTimeoutError
        before = before or type(reason).__name__ in ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")
        raise _Unheard(_line(error), sent=not before) from error
    except (exceptions.HttpError, exceptions.CatalogException, exceptions.AuthPluginException) as error:
        # Of Keystone, for our own request raises none of them: without a token it is never sent.
        raise _Unheard(_line(error), sent=False) from error
    except (exceptions.ClientException, requests.exceptions.RequestException) as error:
        raise _Unheard(_line(error), sent=True) from error


def _adapter(settings: CinderApi) -> Adapter:
    """Raises Trouble if clouds.yaml does not name such a cloud, or lets everybody read its password."""
    import yaml
    from keystoneauth1.adapter import Adapter
    from keystoneauth1.exceptions import ClientException
    from openstack.config import OpenStackConfig
    from openstack.exceptions import SDKException

    named = settings.clouds_file
    if named is not None and not named.is_file():
        raise Trouble(f"write.cinder.clouds_file: there is no file {named}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openstacksdk warns of what it sets itself
            found = OpenStackConfig(config_files=None if named is None else [str(named)], load_envvars=named is None)
            if settings.cloud not in found.get_cloud_names():
                where = named or found.config_filename or "none is where the openstack command looks for it"
                raise Trouble(f"write.cinder.cloud: clouds.yaml ({where}) has no cloud {settings.cloud!r}")
            for path in (found.config_filename, found.secure_config_filename):
                if path:
                    _refuse_open_secrets(Path(path), settings.cloud)
            region = found.get_one(cloud=settings.cloud)
            session = region.get_session()
    except (SDKException, ClientException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        said = f"write.cinder: the cloud {settings.cloud!r} of clouds.yaml is of no use: {_line(error)}"
        raise Trouble(said) from error
    session.timeout = settings.timeout.total_seconds()
    service = "block-storage"
    return Adapter(
        session, service_type=region.get_service_type(service), service_name=region.get_service_name(service),
        interface=region.get_interface(service), region_name=region.get_region_name(service),
        endpoint_override=region.get_endpoint(service),
    )  # fmt: skip


def _refuse_open_secrets(path: Path, cloud: str) -> None:
    """As cloudfsck.toml: a file that holds a password is for its owner and its group alone."""
    import yaml

    if not path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    entry = given.get("clouds", {}).get(cloud) if isinstance(given, Mapping) else None
    if _secret(entry):
        raise Trouble(f"{path} holds a password (clouds.{cloud}), and everybody can read it: chmod o= {path}")


def _secret(given: object) -> bool:
    if not isinstance(given, Mapping):
        return False
    return any(
        _secret(value) or (bool(value) and any(word in str(name).lower() for word in _SECRETS))
        for name, value in given.items()
    )


def _of(answer: _Answer, name: str) -> Mapping[str, Any]:
    """The object in an answer; nothing where it is none."""
    found = answer.body.get(name)
    return found if isinstance(found, Mapping) else {}


def _compare(what: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, value in was.items():
        if now[name] != value:
            raise Moved(f"{what} has {name} {now[name]!r} by Cinder's API, and had {value!r}")


def _second(told: object) -> str:
    """A time as acts have it, of one as the API tells it: '2026-01-31T12:00:00.000000', UTC; None or '' for none."""
    if not isinstance(told, str) or not told:
        return ""
    try:
        when = dt.datetime.fromisoformat(told)
    except ValueError:
        return told
    if when.tzinfo is not None:
        when = when.astimezone(dt.UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}"


def _line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:500]
