"""Speak to the API of an OpenStack service, as the administrator that [write.<service>] names, and never with a service
token.

clouds.yaml is read by openstacksdk, as the openstack command reads it; nothing is sent twice, whatever that file says
of retries.
"""

from __future__ import annotations

import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudfsck.config import CloudApi
from cloudfsck.model import UUID, Moved, Outcomeless, Refused, Trouble, Unheard, one_line

if TYPE_CHECKING:  # it takes a second to import, and is when something is sent
    from keystoneauth1.adapter import Adapter

#: How long what was asked for may take, once the service has said yes.
LASTS = 60.0

_SECRETS = ("password", "secret", "token", "passcode")

#: What an API answers where nothing was done: it did not let us, or did not get to it.
_UNTOUCHED = frozenset({401, 403, 405, 406, 408, 413, 429})


@dataclass(frozen=True)
class Answer:
    status: int
    body: Mapping[str, Any]

    @property
    def words(self) -> str:
        """What the service itself says, in one line: its faults are {"itemNotFound": {"code": 404, "message": "..."}},
        {"NeutronError": {"type": "PortNotFound", "message": "..."}}, or Placement's {"errors": [{"detail": "..."}]}."""
        faults = [fault for one in self.body.values() for fault in (one if isinstance(one, list) else [one])]
        said = next((one.get("message", one.get("detail")) for one in faults if isinstance(one, Mapping)), None)
        words = " ".join(str(said).split())[:500] if said else ""
        return f"{words} (HTTP {self.status})" if words else f"HTTP {self.status}"

    def of(self, name: str) -> Mapping[str, Any]:
        """The object in it; nothing where it is none."""
        found = self.body.get(name)
        return found if isinstance(found, Mapping) else {}


@dataclass
class Api:
    """The API of one service.  The account is looked up in clouds.yaml when it is first asked, and not before.

    `name` is the service's as a person says it, `section` the part of our configuration that names the account, and
    `kind` the type under which Keystone's catalog has it; `version` is the microversion that is spoken where no other
    is asked for, and `major` the version of the API where the catalog need not say it.  `headers` go with each request.
    """

    settings: CloudApi
    name: str
    section: str
    kind: str
    version: str | None = None
    major: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _adapter: Adapter | None = field(default=None, init=False)

    @property
    def who(self) -> str:
        return f"the cloud {self.settings.cloud} of clouds.yaml ([{self.section}])"

    def wait(self, after: str, done: Callable[[], bool]) -> None:
        """Raises Outcomeless if it is not so in time."""
        ends = self.now() + LASTS
        while True:
            try:
                if done():
                    return
                why = "it is still as it was"
            except Unheard as error:
                why = str(error)
            if self.now() >= ends:
                raise Outcomeless(f"{self.name} answered {after}, and {LASTS:.0f} s later {why}")
            self.sleep(1)

    def found(self, place: str, what: str) -> Answer:
        """What is read before anything is sent.  Raises Moved where there is no such thing, and Trouble where the API
        does not say."""
        try:
            answer = self.read(place)
        except Unheard as error:
            raise Trouble(f"{self.name}'s API could not be read as {self.who}: {error}") from error
        if answer.status == 404:
            raise Moved(f"{self.name} has no {what}, or does not show it to {self.who}: {answer.words}")
        if answer.status != 200:
            raise Trouble(f"{self.name} does not show {what} to {self.who}: {answer.words}")
        return answer

    def as_expected(self, what: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raises Moved unless what the API tells of an object is what the act expects."""
        for name, value in was.items():
            if now.get(name) != value:
                raise Moved(f"{what} has {name} {now.get(name)!r} by {self.name}'s API, and had {value!r}")

    def write(
        self,
        method: str,
        place: str,
        body: Mapping[str, Any] | None,
        unchanged: Callable[[], object],
        version: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send it once.  `unchanged` raises whatever it likes where the object is not as it was, or cannot be read."""
        try:
            answer = self._ask(method, place, body, version or self.version, headers)
        except Unheard as error:
            if error.sent:
                raise Outcomeless(f"{self.name} did not answer: {error}") from error
            raise Trouble(f"nothing was sent to {self.name} as {self.who}: {error}") from error
        if answer.status in (200, 201, 202, 204):
            return answer
        if answer.status == 412:
            raise Moved(f"{self.name} says that it was changed since: {answer.words}")
        if answer.status == 404:
            raise Moved(f"{self.name} has it no more: {answer.words}")
        if answer.status in (400, 409):
            raise Refused(f"{self.name} refuses: {answer.words}")
        if answer.status in _UNTOUCHED or 300 <= answer.status < 400:
            raise Trouble(f"{self.name} does not let {self.who} do this: {answer.words}")
        if (
            answer.status == 503
        ):  # of a service that could not ask another, or of a balancer, which may have passed it on
            try:
                unchanged()
            except (Moved, Trouble) as error:
                raise Outcomeless(f"{self.name} answered {answer.words}, and then: {error}") from error
            raise Trouble(f"{self.name}, or who stands before it, cannot do it now: {answer.words}")
        raise Outcomeless(f"{self.name} answered {answer.words}, and may still be at it")

    def read(self, place: str) -> Answer:
        return self._ask("GET", place, None, self.version)

    def _ask(
        self, method: str, place: str, body: Mapping[str, Any] | None, version: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """One request, sent once.  Raises Unheard, or Trouble if clouds.yaml is of no use."""
        adapter = self._adapter = self._adapter or _adapter(self)
        with _hearing():
            response = adapter.request(
                place, method, json=body, microversion=version, headers={**self.headers, **(headers or {})},
                raise_exc=False, redirect=False, log=False, connect_retries=0, status_code_retries=0,
            )  # fmt: skip
        try:
            told = response.json()
        except (ValueError, RecursionError):
            told = {}
        return Answer(response.status_code, told if isinstance(told, Mapping) else {})


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
        raise Unheard(one_line(error), sent=not before) from error
    except (exceptions.HttpError, exceptions.CatalogException, exceptions.AuthPluginException) as error:
        # Of Keystone, for our own request raises none of them: without a token it is never sent.
        raise Unheard(one_line(error), sent=False) from error
    except (exceptions.ClientException, requests.exceptions.RequestException) as error:
        raise Unheard(one_line(error), sent=True) from error


def _adapter(api: Api) -> Adapter:
    """Raises Trouble if clouds.yaml does not name such a cloud, or lets everybody read its password."""
    import yaml
    from keystoneauth1.adapter import Adapter
    from keystoneauth1.exceptions import ClientException
    from openstack.config import OpenStackConfig
    from openstack.exceptions import SDKException

    settings, named = api.settings, api.settings.clouds_file
    if named is not None and not named.is_file():
        raise Trouble(f"{api.section}.clouds_file: there is no file {named}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openstacksdk warns of what it sets itself
            found = OpenStackConfig(config_files=None if named is None else [str(named)], load_envvars=named is None)
            if settings.cloud not in found.get_cloud_names():
                where = named or found.config_filename or "none is where the openstack command looks for it"
                raise Trouble(f"{api.section}.cloud: clouds.yaml ({where}) has no cloud {settings.cloud!r}")
            for path in (found.config_filename, found.secure_config_filename):
                if path:
                    _refuse_open_secrets(Path(path), settings.cloud)
            region = found.get_one(cloud=settings.cloud)
            session = region.get_session()
    except (SDKException, ClientException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        said = f"{api.section}: the cloud {settings.cloud!r} of clouds.yaml is of no use: {one_line(error)}"
        raise Trouble(said) from error
    session.timeout = settings.timeout.total_seconds()
    return Adapter(
        session, service_type=region.get_service_type(api.kind), service_name=region.get_service_name(api.kind),
        interface=region.get_interface(api.kind), region_name=region.get_region_name(api.kind),
        endpoint_override=region.get_endpoint(api.kind), version=api.major,
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


def refuse_no_uuid(order: Mapping[str, Any], *names: str) -> None:
    """Raises Refused if what an order has under one of the names would say something else in a URL than whose it is."""
    for name in names:
        if name in order and not UUID.fullmatch(str(order[name])):
            raise Refused(f"{order[name]!r} is no UUID")
