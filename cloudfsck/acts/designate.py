"""Send an act to Designate's API, which has no revision to name: what is changed is read again right before.

A recordset is named by its zone and its id, and whoever sends another list of its records wins; in between is one round
trip (designate/api/v2/controllers/zones/recordsets.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from cloudfsck.acts.api import Api, refuse_no_uuid
from cloudfsck.acts.recordset import TYPES
from cloudfsck.config import CloudApi
from cloudfsck.model import Act, Moved, Refused, Trouble

#: As an administrator of all projects, also of what is managed (designate/api/middleware.py).
_POWERS = {"X-Auth-All-Projects": "true", "X-Designate-Edit-Managed-Records": "true"}


@dataclass
class Designate:
    """Designate's API, as [write.designate] says who speaks to it."""

    settings: CloudApi
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(
            self.settings, "Designate", "write.designate", "dns", major="2", headers=_POWERS,
            now=self.now, sleep=self.sleep,
        )  # fmt: skip

    def send(self, act: Act) -> Mapping[str, Any]:
        """Have the act done, and return what was seen: the recordset as it was.

        Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
        Outcomeless when what became of it is not known.
        """
        order = act.order
        if order["do"] == "zone.refresh":
            refuse_no_uuid(order, "zone")
            return self._refresh(order)
        refuse_no_uuid(order, "zone", "recordset")
        if order["do"] not in ("recordset.remove", "recordset.restore", "recordset.make"):
            raise Refused(f"{order['do']} is nothing that Designate does")
        if order["was"]["type"] not in TYPES:
            raise Refused(f"a record of type {order['was']['type']} is nothing that we change")
        if not order["was"]["records"]:
            return self._create(order)
        return self._change(order)

    def _change(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give a recordset other records, or delete it."""
        place = f"/zones/{order['zone']}/recordsets/{order['recordset']}"
        what = f"recordset {order['recordset']} of {order['was']['name']}"
        records = order["to"]["records"]

        def unchanged() -> Mapping[str, Any]:
            told = self.api.found(place, what).body
            self.api.as_expected(what, order["was"], {**told, "records": _records(told)})
            if (told.get("status"), told.get("action")) != ("ACTIVE", "NONE"):
                raise Moved(f"{what} is {told.get('status')}, {told.get('action')}: something is under way with it")
            return told

        told = unchanged()
        if not records:
            answer = self.api.write("DELETE", place, None, unchanged)
            self.api.wait(f"{answer.status} to the deletion", lambda: self.api.read(place).status == 404)
        else:
            answer = self.api.write("PUT", place, {"records": records}, unchanged)
            self.api.wait(f"{answer.status} to the change", lambda: _records(self.api.read(place).body) == records)
        return {"was": told}

    def _refresh(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change the TTL of a zone to what it is."""
        place, was = f"/zones/{order['zone']}", order["was"]

        def unchanged() -> None:
            self.api.as_expected(f"zone {was['name']}", was, self.api.found(place, f"zone {order['zone']}").body)

        unchanged()
        answer = self.api.write("PATCH", place, {"ttl": was["ttl"]}, unchanged)

        def taken_up() -> bool:
            return self.api.read(place).body.get("serial") not in (None, was["serial"])

        self.api.wait(f"{answer.status} to the change", taken_up)
        return {}

    def _create(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a recordset that was deleted anew, unless there is one of its name and type by now."""
        to = order["to"]
        place = f"/zones/{order['zone']}/recordsets"
        of_name = f"{place}?{urlencode({'name': to['name'], 'type': to['type']})}"

        def unchanged() -> None:
            listed = self.api.found(of_name, f"zone {order['zone']}").body.get("recordsets")
            if not isinstance(listed, list):
                raise Trouble(f"Designate tells no recordsets of zone {order['zone']}")
            if listed:
                raise Moved(f"Designate has {to['name']} {to['type']} already")

        def made() -> bool:
            listed = self.api.read(of_name).body.get("recordsets")
            return isinstance(listed, list) and [_records(one) for one in listed] == [to["records"]]

        unchanged()
        answer = self.api.write("POST", place, to, unchanged)
        self.api.wait(f"{answer.status} to the creation", made)
        return {"made": answer.body.get("id")}


def _records(told: Mapping[str, Any]) -> list[str]:
    found = told.get("records")
    return sorted(map(str, found)) if isinstance(found, list) else []
