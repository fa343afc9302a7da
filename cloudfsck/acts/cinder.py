"""Send an act to Cinder's API, and never with a service token.

With one Cinder would not ask Nova whether the server has the attachment (cinder/volume/api.py:
attachment_deletion_allowed); without one it does, and refuses.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudfsck.acts.api import Api, refuse_no_uuid
from cloudfsck.config import CloudApi
from cloudfsck.model import Act, Moved, Refused, Unheard

#: The first microversion that has attachments (cinder/api/microversions.py: NEW_ATTACH).
ATTACHMENTS = "3.27"

#: The first that completes one (NEW_ATTACH_COMPLETION).
COMPLETION = "3.44"


@dataclass
class Cinder:
    """Cinder's API, as [write.cinder] says who speaks to it."""

    settings: CloudApi
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(
            self.settings, "Cinder", "write.cinder", "block-storage", ATTACHMENTS, now=self.now, sleep=self.sleep
        )

    def send(self, act: Act) -> Mapping[str, Any]:
        """Have the act done, and return what was seen right after it: the volume's status and updated_at.

        Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
        Outcomeless when what became of it is not known.
        """
        order = act.order
        refuse_no_uuid(order, "volume", "attachment")
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
        answer = self.api.write("DELETE", place, None, lambda: self._as_it_was(order))
        self.api.wait(f"{answer.status} to the deletion", lambda: self.api.read(place).status == 404)
        return self._saw(order["volume"])

    def _complete(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        place = f"/attachments/{order['attachment']}"
        self._as_it_was(order)
        body: Mapping[str, Any] = {"os-complete": {}}
        answer = self.api.write("POST", f"{place}/action", body, lambda: self._as_it_was(order), COMPLETION)

        def complete() -> bool:
            return self.api.read(place).of("attachment").get("status") == "attached"

        self.api.wait(f"{answer.status} to the completion", complete)
        return self._saw(order["volume"])

    def _reset(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        place = f"/volumes/{order['volume']}"
        self._as_it_was(order)
        answer = self.api.write(
            "POST", f"{place}/action", {"os-reset_status": order["to"]}, lambda: self._as_it_was(order)
        )
        to = order["to"]["status"]
        self.api.wait(
            f"{answer.status} to the new status", lambda: self.api.read(place).of("volume").get("status") == to
        )
        return self._saw(order["volume"])

    def _as_it_was(self, order: Mapping[str, Any]) -> None:
        """Raises Moved unless the API tells of the act's objects what the act expects."""
        was = order["was"]
        if "attachment" in order:
            place = f"/attachments/{order['attachment']}"
            told = self.api.found(place, f"attachment {order['attachment']}").of("attachment")
            now = {name: told.get(name) for name in ("status", "instance", "volume_id")}
            now["attached_at"] = _second(told.get("attached_at"))
            self.api.as_expected(f"attachment {order['attachment']}", {name: was[name] for name in now}, now)
            changed = was["volume_updated_at"]
        else:
            changed = was["updated_at"]
        told = self.api.found(f"/volumes/{order['volume']}", f"volume {order['volume']}").of("volume")
        said = f"volume {order['volume']}"
        if changed is not None:
            self.api.as_expected(said, {"updated_at": changed}, {"updated_at": _second(told.get("updated_at"))})
        if "attachment" not in order:
            self.api.as_expected(said, {"status": was["status"]}, {"status": told.get("status")})
            listed = self.api.found(f"/attachments?all_tenants=1&volume_id={order['volume']}", said)
            if told.get("attachments") != [] or listed.body.get("attachments") != []:
                raise Moved(f"{said} has an attachment, by Cinder's API")

    def _saw(self, volume: str) -> Mapping[str, Any]:
        """The volume after the act; nothing where it cannot be read: the act is done all the same."""
        try:
            told = self.api.read(f"/volumes/{volume}").of("volume")
        except Unheard:
            return {}
        return {"status": told.get("status"), "updated_at": _second(told.get("updated_at"))}


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
