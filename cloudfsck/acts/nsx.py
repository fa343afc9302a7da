"""Send an act to NSX: read the object once more, keep all that it is, then delete it, or put it back.

NSX deletes whatever its revision is, so that is compared right before; nothing of ours is faster than somebody who
changes a leftover in that moment.  What belongs to an object and has no use without it goes before it, as Neutron's
plugin itself would have it (vmware_nsx/plugins/nsx_p/plugin.py), and comes back if the object then has to stay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudfsck.config import Nsx
from cloudfsck.model import Act, Moved, Outcomeless, Refused, Trouble, Unheard
from cloudfsck.sources import nsx
from cloudfsck.sources.database import Unreadable
from cloudfsck.sources.nsxapi import Answer, Cluster, Json

#: How long an id may still be taken by what was deleted before (error 500045), and how long NSX may be too busy.
LASTS = 60.0

_PENDING_DELETE = 500045

#: By the kind of an object what belongs to it and the plugin deletes with it, in that order.
_WITH_IT: Mapping[str, Sequence[str]] = {
    "port": (
        "port-security-profile-binding-maps", "port-discovery-profile-binding-maps", "port-qos-profile-binding-maps",
    ),
    "segment": (
        "segment-security-profile-binding-maps", "segment-discovery-profile-binding-maps",
        "segment-qos-profile-binding-maps",
    ),
    "router": ("nat/USER/nat-rules", "static-routes", "locale-services/*/interfaces", "locale-services"),
}  # fmt: skip

#: What the Manager API deletes only when told so: a port that has an id attached to it, which all of Neutron's have;
#: a section with its rules.  Never what would take more with it than we saw.
_TOLD = {"/logical-ports/": {"detach": "true"}, "/firewall/sections/": {"cascade": "true"}}

#: What only NSX itself writes into an object.
_NSXS_OWN = frozenset({
    "marked_for_delete", "overridden", "owner_id", "parent_path", "path", "realization_id", "relative_path",
    "remote_path", "unique_id",
})  # fmt: skip

_GONE = 404


@dataclass(frozen=True)
class Controller:
    """NSX, as [write.nsx] says who writes to it."""

    settings: Nsx
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _cluster: Cluster = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cluster", Cluster(self.settings))

    def send(self, act: Act) -> Mapping[str, Any]:
        """Have the act done, and return what was seen: the object as it was, and what belonged to it.

        Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
        Outcomeless when what became of it is not known.
        """
        order = act.order
        if order["do"] == "nsx_object.delete":
            return self._delete(order)
        if order["do"] == "nsx_object.create":
            return self._create(order)
        raise Refused(f"{order['do']} is nothing that NSX does")

    def _delete(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        path, was = order["path"], order["was"]
        if order["api"] != self.settings.api:
            raise Refused(f"[write.nsx] api is {self.settings.api}, and {path} is of the {order['api']} API")
        kind = _kind(self.settings.api, path, was["kind"])
        try:
            body = self._as_it_was(kind, path, was)
            if kind.name == "port":
                self._refuse_used(body)
            children = list(self._below(path, _WITH_IT.get(kind.name, ()))) if order["api"] == "policy" else []
            for other in nsx.below(self.settings.api, kind):
                if found := nsx.list_below(self._cluster, other, path, body):
                    raise Refused(f"NSX has {len(found)} objects below {path}, as {other.name} {found[0].get('id')}")
        except Unreadable as error:
            raise Trouble(f"nothing was sent: {error}") from error
        self._away(path, body, children)
        return {"was": body, "children": [{"path": place, "body": one} for place, one in children]}

    def _as_it_was(self, kind: nsx.Kind, path: str, was: Mapping[str, Any]) -> Json:
        body = self._cluster.one(self._url(path))
        if body is None:
            raise Moved(f"NSX has no {path} any more")
        now = nsx.row(kind, body, None)
        found = {"neutron": now["neutron"], "revision": now["revision"]}
        expected = {name: was[name] for name in found}
        if found != expected or now["protected"] is not None:
            raise Moved(f"NSX's {path} is not as it was: {found}, {now['protected'] or 'and was ' + str(expected)}")
        return body

    def _refuse_used(self, body: Json) -> None:
        """Raises Refused if a virtual machine has the port."""
        attachment = body.get("attachment")
        attached = attachment.get("id") if isinstance(attachment, Mapping) else None
        if attached and (found := nsx.interfaces(self._cluster, str(attached))):
            raise Refused(f"the virtual machine {found[0].get('owner_vm_id')} has the port")

    def _below(self, path: str, lists: Sequence[str]) -> Iterator[tuple[str, Json]]:
        """What belongs to an object, with its paths."""
        for name in lists:
            above, star, rest = name.partition("/*/")
            if star:
                for one in self._cluster.all(self._url(f"{path}/{above}"), below=True):
                    yield from self._below(f"{path}/{above}/{one['id']}", [rest])
                continue
            for one in self._cluster.all(self._url(f"{path}/{name}"), below=True):
                yield f"{path}/{name}/{one['id']}", one

    def _away(self, path: str, body: Json, children: Sequence[tuple[str, Json]]) -> None:
        """Delete it after what belongs to it; put that back if it stays."""
        gone: list[tuple[str, Json]] = []
        try:
            for place, one in children:
                self._delete_one(place, one)
                gone.append((place, one))
            self._delete_one(path, body)
        except (Refused, Trouble, Moved) as error:
            for place, one in reversed(gone):
                try:
                    self._put(place, one)
                except (Refused, Trouble, Outcomeless) as other:
                    raise Outcomeless(f"{error}; and then {place} did not come back: {other}") from error
            raise
        except Outcomeless as error:
            if gone:
                lost = ", ".join(place for place, _ in gone)
                raise Outcomeless(f"{error}; {lost} of it is deleted") from error
            raise

    def _delete_one(self, path: str, body: Json) -> None:
        ends = self.now() + LASTS
        told = next((query for start, query in _TOLD.items() if path.startswith(start)), None)
        unheard = False
        while True:
            try:
                answer = self._cluster.send("DELETE", self._url(path), told)
            except Unheard as error:
                if not error.sent and unheard:
                    raise Outcomeless(f"NSX did not answer, and then: {error}") from error
                if not error.sent:
                    raise Trouble(f"nothing was sent to NSX: {error}") from error
                answer = Answer(503, {"error_message": str(error)})
            # What was not answered may have been done after we looked.
            if answer.status in (200, 204) or (answer.status == _GONE and unheard):
                return
            if answer.status == _GONE:
                raise Moved(f"NSX has no {path} any more")
            if answer.status < 500:
                if answer.status in (401, 403, 429):
                    raise Trouble(f"NSX does not let us delete {path}: {answer.words}")
                raise Refused(f"NSX refuses to delete {path}: {answer.words}")
            # It may have been passed on all the same: what is there now tells.
            if self._is_gone(path, body, answer):
                return
            unheard = True
            if self.now() >= ends:
                raise Trouble(f"NSX cannot delete {path} now: {answer.words}")
            self.sleep(1)

    def _is_gone(self, path: str, body: Json, answer: Answer) -> bool:
        """Raises Outcomeless unless the object is gone, or just as it was."""
        try:
            now = self._cluster.one(self._url(path))
        except Unreadable as error:
            raise Outcomeless(f"NSX answered {answer.words}, and then: {error}") from error
        if now is None:
            return True
        if now.get("marked_for_delete") or now.get("_revision") != body.get("_revision"):
            raise Outcomeless(f"NSX answered {answer.words}, and may still be at it")
        return False

    def _create(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        path = order["path"]
        _kind("policy", path, order["kind"])
        body, children = _bodies(path, order["bodies"])
        if self.settings.api != "policy":
            raise Refused("only what the Policy API deletes can be put back under its own id")
        try:
            if self._cluster.one(self._url(path)) is not None:
                raise Moved(f"NSX has a {path} again")
        except Unreadable as error:
            raise Trouble(f"nothing was sent: {error}") from error
        self._put(path, body)
        for place, one in reversed(children):
            try:
                self._put(place, one)
            except (Refused, Trouble) as error:
                raise Outcomeless(f"{path} is back, and {place} of it is not: {error}") from error
        return {}

    def _put(self, path: str, body: Json) -> None:
        """Make an object as it was; NSX refuses it where there is one already, for it comes without a revision."""
        given = {name: value for name, value in body.items() if not name.startswith("_") and name not in _NSXS_OWN}
        ends = self.now() + LASTS
        while True:
            try:
                answer = self._cluster.send("PUT", self._url(path), body=given)
            except Unheard as error:
                if error.sent:
                    raise Outcomeless(f"NSX did not answer: {error}") from error
                raise Trouble(f"nothing was sent to NSX: {error}") from error
            if answer.status in (200, 201):
                return
            if answer.status >= 500:
                raise Outcomeless(f"NSX answered {answer.words}, and may still be at it")
            if answer.code != _PENDING_DELETE or self.now() >= ends:
                raise Refused(f"NSX refuses to make {path}: {answer.words}")
            self.sleep(1)

    def _url(self, path: str) -> str:
        return nsx.BASE[self.settings.api] + path


def _bodies(path: str, told: str) -> tuple[Json, list[tuple[str, Json]]]:
    """An object and what belonged to it, with its paths, as the journal has them.  Raises Refused if it does not."""
    given = json.loads(told)
    match given:
        case {"body": {"id": str(id)}, "children": [*children]} if path.endswith(f"/{id}") and all(
            isinstance(one, dict) and isinstance(one.get("body"), dict) and str(one.get("path")).startswith(f"{path}/")
            for one in children
        ):
            return given["body"], [(one["path"], one["body"]) for one in children]
    raise Refused(f"the journal does not say what NSX's {path} was")


def _kind(api: str, path: str, name: str) -> nsx.Kind:
    """Raises Refused if the path is none of an object of that kind; what stands in it goes into a URL."""
    for kind in nsx.KINDS[api]:
        if kind.name == name and kind.pattern.fullmatch(path):
            return kind
    raise Refused(f"{path!r} is no {name} of NSX")
