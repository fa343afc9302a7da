"""Send an act to Placement's API, with the generation of the consumer that was seen: who changed it first has won.

Never the DELETE that Placement has as well, which names no generation and takes whatever is there by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudfsck.acts.api import Api, refuse_no_uuid
from cloudfsck.config import CloudApi
from cloudfsck.model import Act, Moved, Refused

#: The first in which a consumer has a generation (Rocky), and the one that Nova writes with (nova/scheduler/client/
#: report.py: CONSUMER_GENERATION_VERSION).
_VERSION = "1.28"


@dataclass
class Placement:
    """Placement's API, as [write.placement] says who speaks to it."""

    settings: CloudApi
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(
            self.settings, "Placement", "write.placement", "placement", version=_VERSION,
            now=self.now, sleep=self.sleep,
        )  # fmt: skip

    def send(self, act: Act) -> Mapping[str, Any]:
        """Have the act done, and return what was seen: the consumer's project and user, and its generation afterwards.

        Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
        Outcomeless when what became of it is not known.
        """
        order = act.order
        refuse_no_uuid(order, "consumer")
        if order["do"] not in ("allocation.take", "allocation.give"):
            raise Refused(f"{order['do']} is nothing that Placement does")
        place, what = f"/allocations/{order['consumer']}", f"consumer {order['consumer']}"

        def unchanged() -> Mapping[str, Any]:
            # Of a consumer that it does not know Placement tells that it has nothing.
            told = self.api.found(place, what).body
            if _had(told) != order["was"]:
                raise Moved(
                    f"{what} has {_had(told) or 'nothing'} by Placement's API, and had {order['was'] or 'nothing'}"
                )
            self.api.as_expected(what, {"consumer_generation": order["generation"]}, told)
            return told

        told = unchanged()
        body = {
            "allocations": {provider: {"resources": amounts} for provider, amounts in order["to"].items()},
            "project_id": told.get("project_id", order.get("project_id")),
            "user_id": told.get("user_id", order.get("user_id")),
            "consumer_generation": order["generation"],
        }
        try:
            answer = self.api.write("PUT", place, body, unchanged)
        except Refused:
            unchanged()  # if somebody was first, that is why
            raise
        self.api.wait(f"{answer.status} to the change", lambda: _had(self.api.read(place).body) == order["to"])
        return {
            "project_id": body["project_id"], "user_id": body["user_id"],
            "generation": self.api.read(place).body.get("consumer_generation"),
        }  # fmt: skip


def _had(told: Mapping[str, Any]) -> Mapping[str, Mapping[str, int]] | None:
    """What a consumer has, by provider and resource class; None where Placement did not say."""
    given = told.get("allocations")
    if not isinstance(given, Mapping):
        return None
    return {provider: each.get("resources", {}) for provider, each in given.items()}
