"""Send an act to Neutron's API, each with the revision of what it changes (If-Match): who changed it first has won."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudfsck.acts.api import Api, refuse_no_uuid
from cloudfsck.config import CloudApi
from cloudfsck.model import Act, Moved, Refused, Unheard

#: What a binding's profile says of the host that it was on (nova/network/neutron.py: _get_new_binding_profile and
#: _unbind_ports): the rest is the owner's.
_OF_HOST = frozenset({
    "pci_vendor_info", "pci_slot", "physical_network", "card_serial_number", "vf_num", "pf_mac_address",
    "device_mac_address", "arq_uuid", "allocation", "migrating_to",
})  # fmt: skip


@dataclass
class Neutron:
    """Neutron's API, as [write.neutron] says who speaks to it."""

    settings: CloudApi
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(
            self.settings, "Neutron", "write.neutron", "network", major="2", now=self.now, sleep=self.sleep
        )  # fmt: skip

    def send(self, act: Act) -> Mapping[str, Any]:
        """Have the act done, and return what was seen: the revision afterwards, and the object as it was.

        Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
        Outcomeless when what became of it is not known.
        """
        order = act.order
        refuse_no_uuid(order, "port", "floating_ip")
        match order["do"]:
            case "port.delete" | "port.delete_dhcp":
                return self._delete(order)
            case "port.unbind" | "port.rebind":
                return self._bind(order)
            case "port.delete_binding":
                return self._delete_binding(order)
            case "floating_ip.disassociate" | "floating_ip.associate":
                return self._lead(order)
        raise Refused(f"{order['do']} is nothing that Neutron does")

    # ------------------------------------------------------------------------------------------ the acts

    def _delete(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        place = f"/ports/{order['port']}"
        port = self._port(order)
        leads = self.api.found(f"/floatingips?port_id={order['port']}", f"floating IPs of port {order['port']}")
        if leads.body.get("floatingips") != []:
            raise Moved(f"a floating IP leads to port {order['port']}, by Neutron's API")
        if port.get("trunk_details"):
            raise Moved(f"port {order['port']} has a trunk, by Neutron's API")
        answer = self.api.write(
            "DELETE", place, None, lambda: self._port(order), headers=_if_match(port["revision_number"])
        )
        self.api.wait(f"{answer.status} to the deletion", lambda: self.api.read(place).status == 404)
        return {"was": port}

    def _bind(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        place = f"/ports/{order['port']}"
        port = self._port(order)
        to = order.get("to", {"device_id": "", "device_owner": "", "host": ""})
        profile = port.get("binding:profile") or {}
        kept = {name: value for name, value in profile.items() if name not in _OF_HOST}
        change: dict[str, Any] = {
            "device_id": to["device_id"], "device_owner": to["device_owner"], "binding:host_id": to["host"],
        }  # fmt: skip
        if not to["device_id"] and kept != profile:
            # Neutron may let services alone change it (neutron/conf/policies/port.py): then the port waits.
            change["binding:profile"] = kept
        answer = self.api.write(
            "PUT", place, {"port": change}, lambda: self._port(order),
            headers=_if_match(port["revision_number"]),
        )  # fmt: skip

        def bound() -> bool:
            return bool(self.api.read(place).of("port").get("device_id") == to["device_id"])

        self.api.wait(f"{answer.status} to the change", bound)
        return {"was": port, **self._revision(place, "port")}

    def _delete_binding(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        port, host = order["port"], order["host"]
        what = f"binding of port {port} on {host}"

        def unchanged() -> None:
            told = self.api.found(f"/ports/{port}", f"port {port}").of("port")
            self.api.as_expected(f"port {port}", {"device_id": order["was"]["device_id"]}, told)
            self.api.as_expected(f"port {port}", {"binding:host_id": order["was"]["host"]}, told)
            listed = self.api.found(f"/ports/{port}/bindings", what).body.get("bindings")
            mine = [one for one in listed if one.get("host") == host] if isinstance(listed, list) else []
            if [one.get("status") for one in mine] != ["INACTIVE"]:
                raise Moved(f"Neutron has no inactive {what}")

        unchanged()
        answer = self.api.write("DELETE", f"/ports/{port}/bindings/{host}", None, unchanged)

        def gone() -> bool:
            listed = self.api.read(f"/ports/{port}/bindings").body.get("bindings")
            return isinstance(listed, list) and all(one.get("host") != host for one in listed)

        self.api.wait(f"{answer.status} to the deletion", gone)
        return {}

    def _lead(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        place = f"/floatingips/{order['floating_ip']}"
        what = f"floating IP {order['floating_ip']}"

        def unchanged() -> Mapping[str, Any]:
            told = self.api.found(place, what).of("floatingip")
            self.api.as_expected(what, {name: order["was"][name] for name in ("port_id", "fixed_ip_address")}, told)
            _compare_revision(what, order["was"]["revision"], told)
            return told

        told = unchanged()
        change = order.get("to", {"port_id": None})
        answer = self.api.write(
            "PUT", place, {"floatingip": change}, unchanged,
            headers=_if_match(told["revision_number"]),
        )  # fmt: skip

        def leads() -> bool:
            return bool(self.api.read(place).of("floatingip").get("port_id") == change["port_id"])

        self.api.wait(f"{answer.status} to the change", leads)
        return {"was": told, **self._revision(place, "floatingip")}

    # ------------------------------------------------------------------------------------------ what is there

    def _port(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """The port by the API.  Raises Moved unless it is as the act expects."""
        what = f"port {order['port']}"
        told = self.api.found(f"/ports/{order['port']}", what).of("port")
        was = order["was"]
        self.api.as_expected(what, {name: was[name] for name in ("device_id", "device_owner")}, told)
        self.api.as_expected(
            what, {"binding:host_id": was["host"]}, {**told, "binding:host_id": told.get("binding:host_id") or ""}
        )
        _compare_revision(what, was["revision"], told)
        return told

    def _revision(self, place: str, kind: str) -> Mapping[str, Any]:
        """The revision after the act; nothing where it cannot be read: the act is done all the same."""
        try:
            return {"revision": self.api.read(place).of(kind).get("revision_number")}
        except Unheard:
            return {}


def _compare_revision(what: str, was: int | None, now: Mapping[str, Any]) -> None:
    found = now.get("revision_number")
    if not isinstance(found, int):
        raise Refused(f"Neutron tells no revision of {what}: without one a change that comes between goes unnoticed")
    if was is not None and found != was:
        raise Moved(f"{what} has revision {found} by Neutron's API, and had {was}")


def _if_match(revision: int) -> Mapping[str, str]:
    return {"If-Match": f"revision_number={revision}"}
