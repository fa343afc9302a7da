"""The REST API of VMware NSX-T: one session with whichever manager answers, whole lists or none, and no haste.

What it goes by is what vmware-nsxlib does (cluster.py, client.py, lib.py).  A search is never used: its index is behind
what is there, and so proves nothing.
"""

from __future__ import annotations

import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloudfsck.config import Nsx
from cloudfsck.model import Trouble, Unheard, one_line
from cloudfsck.sources.database import Unreadable

if TYPE_CHECKING:  # it is imported when something is asked
    import httpx

Json = Mapping[str, Any]

POLICY = "/policy/api/v1"
MANAGER = "/api/v1"

#: Objects on a page: the most that NSX gives.
PAGE = 1000

#: How often a list is begun anew that changed while it was read.
TRIES = 3

#: The seconds before what was refused for haste is asked again; NSX counts by the second (client_api_rate_limit,
#: client_api_concurrency_limit), and others ask it too.
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0)

#: Of a cursor that leads nowhere (vmware_nsxlib/v3/client.py: NULL_CURSOR_PREFIX).
_NO_MORE = "0000"

_TOO_MANY, _BUSY = 429, 503

#: What is told of a session that is over: the XSRF token, or the cookie, is not known (client.py).
_OVER = frozenset({(403, 98), (403, 403)})
_NO_SESSION = 401

#: A path that leads through what is not there (client.py: 400/500012).
_NOWHERE = (400, 500012)


class _Hasty(Exception):
    """No session was made, for too much is asked at once."""


class _Changed(Exception):
    """A list that is not of one piece."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: Json

    @property
    def code(self) -> int:
        """NSX's own number of the error; 0: it says none."""
        code = self.body.get("error_code")
        return code if isinstance(code, int) else 0

    @property
    def words(self) -> str:
        """What NSX itself says of an error, in one line."""
        words = " ".join(str(self.body.get("error_message") or "").split())[:500]
        number = f"HTTP {self.status}" + (f", error {self.code}" if self.code else "")
        return f"{words} ({number})" if words else number


@dataclass
class Cluster:
    """The managers of one NSX.  Several threads may ask it at once.

    Each manager has sessions of its own; we stay with one as long as it answers.  What is open is closed with this.
    """

    settings: Nsx
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _sessions: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    _refused: str = field(default="", init=False)
    _at: int = field(default=0, init=False)
    _next: float = field(default=0.0, init=False)
    _client: httpx.Client | None = field(default=None, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def send(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Json | None = None) -> Answer:
        """Ask one manager after another.  What may change something is sent again only where it was refused for haste,
        or did not leave us.  Raises Unheard."""
        for wait in WAITS:
            at = self._at
            answer = self._of_any(method, path, query, body)
            # Who is too busy to answer may have passed it on all the same: only reading is harmless.
            if answer.status != _TOO_MANY and not (answer.status == _BUSY and method == "GET"):
                return answer
            if answer.status == _BUSY:
                self._leave(at)
            self.sleep(wait)
        return self._of_any(method, path, query, body)

    def one(self, path: str) -> Json | None:
        """An object; None if there is none.  Raises Unreadable."""
        answer = self._told(path)
        return None if answer.status == 404 else self._sound(path, answer).body

    def all(self, path: str, query: Mapping[str, str] | None = None, *, below: bool = False) -> list[Json]:
        """All objects of a list, each once.  Raises Unreadable unless it is whole and of one piece.

        `below` says that it is the list of what another object has, which may be gone: then there are none.
        """
        why = ""
        for _ in range(TRIES):
            try:
                return self._whole(path, dict(query or {}), below)
            except _Changed as error:
                why = str(error)
        raise Unreadable(f"NSX's list {path} was read {TRIES} times, and {why}")

    def _whole(self, path: str, query: dict[str, str], below: bool) -> list[Json]:
        found: dict[str, Json] = {}
        count: object = None
        seen: set[str] = set()
        cursor = ""
        while True:
            answer = self._told(path, {**query, "page_size": str(PAGE), **({"cursor": cursor} if cursor else {})})
            if below and not seen and (answer.status == 404 or (answer.status, answer.code) == _NOWHERE):
                return []
            page = self._sound(path, answer).body
            results = page.get("results", [])
            if not isinstance(results, list) or not all(isinstance(one, Mapping) for one in results):
                raise Unreadable(f"NSX's list {path} is none: {str(page)[:100]}")
            if not seen and not cursor:
                count = page.get("result_count")
            for one in results:
                name = _identity(one)
                if name in found:
                    raise _Changed(f"{name} stood in it twice")
                found[name] = one
            cursor = str(page.get("cursor") or "")
            if not cursor or cursor.startswith(_NO_MORE):
                break
            if cursor in seen:
                raise _Changed("its pages went in a circle")
            seen.add(cursor)
        if not isinstance(count, int):
            raise Unreadable(f"NSX does not say how many are in its list {path}, and so whether that is all")
        if count != len(found):
            raise _Changed(f"{len(found)} of {count} were in it")
        return list(found.values())

    def _told(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        try:
            return self.send("GET", path, query)
        except Unheard as error:
            raise Unreadable(f"NSX: {error}") from error
        except Trouble as error:  # of the password, or of the certificate
            raise Unreadable(str(error)) from error

    def _sound(self, path: str, answer: Answer) -> Answer:
        if answer.status != 200:
            raise Unreadable(f"NSX does not tell us {path}: {answer.words}")
        return answer

    def _of_any(self, method: str, path: str, query: Mapping[str, str] | None, body: Json | None) -> Answer:
        whys = []
        for _ in self.settings.managers:
            at = self._at
            try:
                return self._of(self.settings.managers[at].rstrip("/"), method, path, query, body)
            except Unheard as error:
                whys.append(error)
                self._leave(at)
                if error.sent and method != "GET":
                    break
        raise Unheard("; ".join(map(str, whys)), any(error.sent for error in whys))

    def _leave(self, at: int) -> None:
        """Ask the next manager from now on, unless another thread has moved on already."""
        with self._lock:
            if at == self._at:
                self._at = (at + 1) % len(self.settings.managers)

    def _of(self, url: str, method: str, path: str, query: Mapping[str, str] | None, body: Json | None) -> Answer:
        """Ask one manager in a session, and once more in a new one where that was over."""
        try:
            session = self._session(url)
            answer = self._ask(url, method, path, query, body, session)
            if session and (answer.status == _NO_SESSION or (answer.status, answer.code) in _OVER):
                with self._lock:
                    if self._sessions.get(url) == session:
                        del self._sessions[url]
                answer = self._ask(url, method, path, query, body, self._session(url))
        except _Hasty as error:
            return Answer(_TOO_MANY, {"error_message": str(error)})
        return answer

    def _session(self, url: str) -> dict[str, str]:
        """The headers of a session with a manager, which is made where there is none; empty for a certificate.

        Raises Trouble if we are not let in.  That is tried once: after five times NSX locks the account.
        """
        if self.settings.user is None:
            return {}
        with self._lock:
            if self._refused:
                raise Trouble(self._refused)
            if url not in self._sessions:
                form = {"j_username": self.settings.user, "j_password": self.settings.password() or ""}
                with _hearing(url):
                    response = self._http().post(f"{url}/api/session/create", data=form)
                cookie, token = response.cookies.get("JSESSIONID"), response.headers.get("X-XSRF-TOKEN")
                why = Answer(response.status_code, _body(response, {})).words
                if response.status_code in (_TOO_MANY, _BUSY):
                    raise _Hasty(why)
                if response.status_code >= 500:
                    raise Unheard(f"{url} makes no session: {why}", sent=False)
                if response.status_code != 200 or not cookie or not token:
                    self._refused = f"{url} does not let {self.settings.user} in: {why}"
                    raise Trouble(self._refused)
                self._sessions[url] = {"Cookie": f"JSESSIONID={cookie}", "X-XSRF-TOKEN": token}
            return self._sessions[url]

    def _ask(
        self, url: str, method: str, path: str, query: Mapping[str, str] | None, body: Json | None,
        session: Mapping[str, str],
    ) -> Answer:  # fmt: skip
        """One request to one manager."""
        self._take_turn()
        headers = {**session, "Accept": "application/json"}
        if method != "GET":
            headers["X-Allow-Overwrite"] = "true"  # what Neutron's plugin made under its certificate is its own
        with _hearing(url):
            at = url + quote(path)
            response = self._http().request(method, at, params=query, json=body, headers=headers)
        if 300 <= response.status_code < 400:
            raise Unheard(f"{url} sends us elsewhere (HTTP {response.status_code})", sent=True)
        return Answer(response.status_code, _body(response, None if response.status_code == 200 else {}))

    def _take_turn(self) -> None:
        """Wait until it is our turn, so that no more than `rate` are sent in a second."""
        with self._lock:
            turn = max(self.now(), self._next)
            self._next = turn + 1 / self.settings.rate
        if (wait := turn - self.now()) > 0:
            self.sleep(wait)

    def _http(self) -> httpx.Client:
        """Raises Trouble if the certificates that the configuration names are of no use."""
        import httpx

        with self._lock:
            if self._client is None:
                settings = self.settings
                try:
                    trust = ssl.create_default_context(cafile=settings.ca)
                    if settings.certificate is not None:
                        trust.load_cert_chain(settings.certificate, settings.private_key)
                except OSError as error:  # ssl.SSLError is one
                    named = [settings.ca, settings.certificate, settings.private_key]
                    files = ", ".join(str(one) for one in named if one is not None)
                    raise Trouble(f"the certificates for NSX are of no use ({files}): {error}") from error
                timeout = settings.timeout.total_seconds()
                self._client = httpx.Client(verify=trust, timeout=timeout, trust_env=False, follow_redirects=False)
                # Managers on one address would get each other's cookies; ours are headers of each request.
                self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
                weakref.finalize(self, self._client.close)
            return self._client


def _identity(one: Json) -> str:
    """By what an object of a list is told from another; a virtual interface has no id (VirtualNetworkInterface)."""
    parts = ("external_id", "owner_vm_id", "lport_attachment_id")
    return str(one.get("id") or " ".join(str(one.get(part)) for part in parts))


def _body(response: httpx.Response, nothing: Json | None) -> Json:
    """What an answer says; `nothing` where it says nothing, as that to a DELETE.  Raises Unheard if it is no JSON."""
    try:
        told = response.json() if response.content else {}
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, Mapping):
        return told
    if nothing is None:
        raise Unheard(f"{response.url.host} answers what is no JSON: is it an NSX?", sent=True)
    return nothing


@contextmanager
def _hearing(url: str) -> Iterator[None]:
    """Say of what httpx raises whether our request may have arrived."""
    import httpx

    try:
        yield
    except httpx.TransportError as error:
        before = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        raise Unheard(f"{url}: {one_line(error)}", sent=not before) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unheard(f"{url}: {one_line(error)}", sent=True) from error
