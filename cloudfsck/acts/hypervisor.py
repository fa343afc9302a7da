"""Send an act to its host, where hand.py carries it out under the second key."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from cloudfsck import remote
from cloudfsck.config import Place, Ssh
from cloudfsck.model import Act, Moved, Outcomeless, Refused, Trouble
from cloudfsck.remote import Failure, Target


def send(act: Act, target: Target, place: Place, ssh: Ssh | None, cloud: str, fence: int) -> Mapping[str, Any]:
    """Have the act done, and return what was seen right after it.

    Raises Moved or Refused when nothing was changed, Trouble when it failed and changed nothing, and Outcomeless when
    what became of it is not known.
    """
    program = files("cloudfsck.acts").joinpath("hand.py").read_text(encoding="utf-8")
    request = {
        "version": 1,
        "cloud": cloud,
        "fence": fence,
        "state_dir": place.state_dir,
        "virsh": place.virsh,
        "proc": place.proc,
        "sys": place.sys,
        "dev": place.dev,
        "act": act.order,
    }
    ((_, answer),) = remote.ask([(target, request)], program, ssh)
    if isinstance(answer, Failure):
        if answer.sent:
            raise Outcomeless(answer.why)
        raise Trouble(answer.why)
    outcome, why = answer.get("outcome"), str(answer.get("why"))
    if outcome == "done":
        saw = answer.get("saw")
        return saw if isinstance(saw, Mapping) else {}
    if outcome == "moved":
        raise Moved(why)
    if outcome == "refused":
        raise Refused(why)
    if outcome == "failed" and answer.get("changed") is False:
        raise Trouble(why)
    raise Outcomeless(why)
