"""Acts on what Neutron has for a server: a port away, or given back to its owner; a binding; a floating IP's way; and a
DHCP agent's port away.  `neutron.py` sends them, each with the revision that was seen (If-Match), and no host hears.

What Nova made is deleted, and what somebody made before the server was there is unbound, as Nova itself would have
(nova/network/neutron.py: deallocate_for_instance).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from cloudfsck.acts.hold import stands
from cloudfsck.model import Moved, Row, Undo
from cloudfsck.tables import NEUTRON


@dataclass(frozen=True)
class Delete:
    """Delete a port that Nova made for a server that is gone.

    `owner` is its device_owner, `bound_to` the host of its active binding ('' for none), `revision` what If-Match says;
    None: it is not compared.
    """

    kind: ClassVar[str] = "port.delete"
    what: ClassVar[str] = "port"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    server: str
    port: str
    owner: str
    bound_to: str
    revision: int | None

    @classmethod
    def of(cls, row: Row) -> Delete:
        """From a row with server, port, device_owner, bound_to and revision."""
        return cls(row["server"], row["port"], row["device_owner"] or "", row["bound_to"] or "", row["revision"])

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self, self.server, self.owner, self.bound_to)

    @property
    def command(self) -> str:
        return f"openstack port delete {self.port}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        _there(db, self, self.server, self.owner)
        _away(db, self.port)

    def __str__(self) -> str:
        return f"delete port {self.port} of server {self.server}"


@dataclass(frozen=True)
class DeleteDhcp:
    """Delete the port of a DHCP agent that is gone, or that does not serve the network any more.

    `device` is its device_id; the rest is as Delete has it.  An agent that is to serve the network makes a port anew.
    """

    kind: ClassVar[str] = "port.delete_dhcp"
    what: ClassVar[str] = "port"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    server: str
    port: str
    device: str
    owner: str
    bound_to: str
    revision: int | None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self, self.device, self.owner, self.bound_to)

    @property
    def command(self) -> str:
        return f"openstack port delete {self.port}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        _there(db, self, self.device, self.owner)
        _away(db, self.port)

    def __str__(self) -> str:
        return f"delete DHCP port {self.port}, which was bound to {self.bound_to}"


@dataclass(frozen=True)
class Unbind:
    """Take a port from a server that is gone, and leave it to its owner with its addresses; the fields are Delete's."""

    kind: ClassVar[str] = "port.unbind"
    what: ClassVar[str] = "port"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    server: str
    port: str
    owner: str
    bound_to: str
    revision: int | None

    @classmethod
    def of(cls, row: Row) -> Unbind:
        """From a row as Delete takes it."""
        return cls(**asdict(Delete.of(row)))

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        return _order(self, self.server, self.owner, self.bound_to)

    @property
    def command(self) -> str:
        return f"openstack port unset --device --device-owner --host {self.port}"

    def undo(self, saw: Row) -> Rebind:
        return Rebind(**{**asdict(self), "revision": _revision(saw)})

    def effect(self, db: Any) -> None:
        _there(db, self, self.server, self.owner)
        _bind(db, self.port, "", "", "")

    def __str__(self) -> str:
        return f"unbind port {self.port} from server {self.server}; it stays its owner's, with its addresses"


@dataclass(frozen=True)
class Rebind:
    """Give a port that was unbound back to its server, and bind it to the same host again.  The fields are Delete's."""

    kind: ClassVar[str] = "port.rebind"
    what: ClassVar[str] = "port"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    server: str
    port: str
    owner: str
    bound_to: str
    revision: int | None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        to = {"device_id": self.server, "device_owner": self.owner, "host": self.bound_to}
        return {**_order(self, "", "", ""), "to": to}

    @property
    def command(self) -> str:
        host = f" --host {self.bound_to}" if self.bound_to else ""
        return f"openstack port set --device {self.server} --device-owner {self.owner}{host} {self.port}"

    def undo(self, saw: Row) -> Unbind:
        return Unbind(**{**asdict(self), "revision": _revision(saw)})

    def effect(self, db: Any) -> None:
        _there(db, self, "", "")
        _bind(db, self.port, self.server, self.owner, self.bound_to)

    def __str__(self) -> str:
        return f"give port {self.port} back to server {self.server}"


@dataclass(frozen=True)
class DeleteBinding:
    """Delete the inactive binding of a port on a host to which its server did not go."""

    kind: ClassVar[str] = "port.delete_binding"
    what: ClassVar[str] = "binding"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "none"
    destroys: ClassVar[bool] = False
    server: str
    port: str
    bound_to: str
    active_on: str

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"device_id": self.server, "host": self.active_on}
        return {"do": self.kind, "server": self.server, "port": self.port, "host": self.bound_to, "was": was}

    @property
    def command(self) -> str:
        return f"openstack port binding delete --host {self.bound_to} {self.port}"

    def undo(self, saw: Row) -> None:
        return None

    def effect(self, db: Any) -> None:
        stands(db, self, self.what, None)
        given = {"port": self.port, "host": self.bound_to}
        here = "port_id = $port AND host = $host AND status = 'INACTIVE'"
        found = db.execute(f"SELECT count(*) FROM neutron_port_bindings WHERE {here}", given).fetchone()[0]
        active = db.execute(
            "SELECT list(host) FROM neutron_port_bindings WHERE port_id = ? AND status = 'ACTIVE'", [self.port]
        ).fetchone()[0]
        if found != 1 or active != [self.active_on]:
            raise Moved(f"{self}: its bindings are not as it expects")
        db.execute(f"DELETE FROM neutron_port_bindings WHERE {here}", given)

    def __str__(self) -> str:
        return (
            f"delete the inactive binding of port {self.port} on {self.bound_to}; the active one is on {self.active_on}"
        )


@dataclass(frozen=True)
class Disassociate:
    """Take a floating IP from a port; the address stays its owner's."""

    kind: ClassVar[str] = "floating_ip.disassociate"
    what: ClassVar[str] = "floating IP"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    server: str
    floating_ip: str
    port: str
    address: str
    revision: int | None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.floating_ip, self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"port_id": self.port, "fixed_ip_address": self.address, "revision": self.revision}
        return {"do": self.kind, "server": self.server, "floating_ip": self.floating_ip, "was": was}

    @property
    def command(self) -> str:
        return f"openstack floating ip unset --port {self.floating_ip}"

    def undo(self, saw: Row) -> Associate:
        return Associate(**{**asdict(self), "revision": _revision(saw)})

    def effect(self, db: Any) -> None:
        _lead(db, self, (self.port, self.address), (None, None))

    def __str__(self) -> str:
        return (
            f"take floating IP {self.floating_ip} from port {self.port} of server {self.server}; it stays its owner's"
        )


@dataclass(frozen=True)
class Associate:
    """Give a floating IP back to the port that it was taken from."""

    kind: ClassVar[str] = "floating_ip.associate"
    what: ClassVar[str] = "floating IP"
    host: ClassVar[str] = ""
    part: ClassVar[str] = NEUTRON
    rung: ClassVar[None] = None
    undoing: ClassVar[Undo] = "approximate"
    destroys: ClassVar[bool] = False
    server: str
    floating_ip: str
    port: str
    address: str
    revision: int | None

    @property
    def also(self) -> frozenset[str]:
        return frozenset({self.floating_ip, self.port})

    @property
    def order(self) -> Mapping[str, Any]:
        was = {"port_id": None, "fixed_ip_address": None, "revision": self.revision}
        to = {"port_id": self.port, "fixed_ip_address": self.address}
        return {"do": self.kind, "server": self.server, "floating_ip": self.floating_ip, "was": was, "to": to}

    @property
    def command(self) -> str:
        return f"openstack floating ip set --port {self.port} --fixed-ip-address {self.address} {self.floating_ip}"

    def undo(self, saw: Row) -> Disassociate:
        return Disassociate(**{**asdict(self), "revision": _revision(saw)})

    def effect(self, db: Any) -> None:
        _lead(db, self, (None, None), (self.port, self.address))

    def __str__(self) -> str:
        return f"give floating IP {self.floating_ip} back to port {self.port}"


def _order(act: Delete | DeleteDhcp | Unbind | Rebind, device: str, owner: str, host: str) -> Mapping[str, Any]:
    was = {"device_id": device, "device_owner": owner, "host": host, "revision": act.revision}
    return {"do": act.kind, "server": act.server, "port": act.port, "was": was}


def _revision(saw: Row) -> int | None:
    """The revision that an act has left."""
    found = saw.get("revision")
    return None if found is None else int(found)


def _there(db: Any, act: Delete | DeleteDhcp | Unbind | Rebind, device: str, owner: str) -> None:
    """Raises Moved unless the port is as it was."""
    stands(db, act, act.what, None)
    found = db.execute(
        "SELECT count(*) FROM neutron_ports WHERE id = $port AND device_id = $device"
        " AND coalesce(device_owner, '') = $owner AND ($revision IS NULL OR revision_number = $revision)",
        {"port": act.port, "device": device, "owner": owner, "revision": act.revision},
    ).fetchone()[0]
    if found != 1:
        raise Moved(f"{act}: {found} rows are as it expects, not one")


def _away(db: Any, port: str) -> None:
    for table in ("neutron_port_bindings", "neutron_ip_allocations", "neutron_allowed_address_pairs"):
        db.execute(f"DELETE FROM {table} WHERE port_id = ?", [port])
    db.execute("DELETE FROM neutron_ports WHERE id = ?", [port])


def _bind(db: Any, port: str, device: str, owner: str, host: str) -> None:
    # Neutron dates each change: what goes by it (OVN, ports of routers) has its time anew.
    db.execute(
        "UPDATE neutron_ports SET device_id = ?, device_owner = ?, revision_number = revision_number + 1,"
        " updated_at = greatest(updated_at, (SELECT max(now) FROM clocks WHERE table_name = 'neutron_ports'))"
        " WHERE id = ?",
        [device, owner, port],
    )
    db.execute("UPDATE neutron_port_bindings SET host = ? WHERE port_id = ? AND status = 'ACTIVE'", [host, port])


def _lead(
    db: Any, act: Disassociate | Associate, was: tuple[str | None, str | None], to: tuple[str | None, str | None]
) -> None:
    """Have a floating IP lead to another port and address.  Raises Moved unless it leads where it did."""
    stands(db, act, act.what, None)
    found = db.execute(
        "SELECT count(*) FROM neutron_floating_ips WHERE id = $id AND fixed_port_id IS NOT DISTINCT FROM $port"
        " AND fixed_ip_address IS NOT DISTINCT FROM $address AND ($revision IS NULL OR revision_number = $revision)",
        {"id": act.floating_ip, "port": was[0], "address": was[1], "revision": act.revision},
    ).fetchone()[0]
    if found != 1:
        raise Moved(f"{act}: {found} rows are as it expects, not one")
    db.execute(
        "UPDATE neutron_floating_ips SET fixed_port_id = ?, fixed_ip_address = ?, revision_number = revision_number + 1"
        " WHERE id = ?",
        [*to, act.floating_ip],
    )
