"""Send a change of a DNS zone to the server that has it first (RFC 2136), with what must be true before as its
prerequisite: the name has just these records of that type, or none.  The server looks and changes in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.name
import dns.rcode
import dns.update

from cloudfsck.acts.recordset import TYPES
from cloudfsck.config import DnsWrite
from cloudfsck.model import Act, Moved, Outcomeless, Refused, Trouble, Unheard
from cloudfsck.sources.database import Unreadable
from cloudfsck.sources.dns import exchange, key

#: A prerequisite does not hold (RFC 2136, 3.2.5).
_MOVED = frozenset({dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN})

#: The server did not take it up.
_UNTOUCHED = frozenset({
    dns.rcode.REFUSED, dns.rcode.NOTAUTH, dns.rcode.NOTZONE, dns.rcode.NOTIMP, dns.rcode.FORMERR,
})  # fmt: skip


@dataclass(frozen=True)
class Updates:
    """The DNS servers, as [write.dns] says with which key zones are changed."""

    settings: DnsWrite

    def send(self, act: Act) -> Mapping[str, Any]:
        """Have the act done.

        Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
        Outcomeless when what became of it is not known.
        """
        order = act.order
        if order["do"] not in ("name.remove", "name.restore"):
            raise Refused(f"{order['do']} is nothing that is done to a zone")
        if order["type"] not in TYPES:
            raise Refused(f"a record of type {order['type']} is nothing that we change")
        zone, _, server = order["copy"].rpartition("@")
        name = f"{order['name']} {order['type']}"
        try:
            update = dns.update.UpdateMessage(zone)
            update.use_tsig(key(self.settings.key_file))
            was = order["records"] + order["kept"] if order["do"] == "name.remove" else order["kept"]
            if was:
                update.present(order["name"], order["type"], *was)
            else:
                update.absent(order["name"], order["type"])
            for one in order["records"]:
                if order["do"] == "name.remove":
                    update.delete(order["name"], order["type"], one)
                else:
                    update.add(order["name"], order["ttl"], order["type"], one)
        except Unreadable as error:
            raise Trouble(f"write.dns.key_file: {error}") from error
        except (dns.exception.DNSException, ValueError) as error:
            raise Refused(f"{name} is nothing that can be sent: {error}") from error
        try:
            answer = exchange(server, update, self.settings.timeout.total_seconds())
        except Unheard as error:
            if error.sent:
                raise Outcomeless(f"{server} was told of {name}, and {error}") from error
            raise Trouble(f"{server} was told nothing of {name}: {error}") from error
        code = answer.rcode()
        said = f"{server} answers {dns.rcode.to_text(code)}"
        if code in _MOVED:
            raise Moved(f"{name} is not as it was: {said}")
        if code in _UNTOUCHED:
            raise Trouble(f"{said}: it does not let this key change {zone}")
        if code != dns.rcode.NOERROR:
            raise Outcomeless(f"{said} to the change of {name}")
        return {}
