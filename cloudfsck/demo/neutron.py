"""Stand in for Keystone, and for Neutron's API over the demo's own database: ports, their bindings and floating IPs.

What it changes goes on to the demo's OVN, which listens beside it (`ovn.py`); Designate and Placement answer where it
does (`designate.py`, `placement.py`).

It listens on the loopback while a command works on the demo, and as long as one likes when it is started itself:
`python -m cloudfsck.demo.neutron DIRECTORY`.  Each time clouds.yaml says where; in between nobody is there.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cloudfsck.demo import designate, northbound, ovn, placement, service
from cloudfsck.demo.service import Answer, Wrong

#: The administrator's, in clouds.yaml.
PASSWORD = "demo-api-secret"
#: Where nobody listens who is not root.
_NOBODY = "http://127.0.0.1:1"


class Neutron:
    """What its API answers and does; each request is one transaction, and what it changes goes on to OVN."""

    def __init__(self, file: Path, northbound: ovn.Northbound) -> None:
        self.file, self.northbound = file, northbound

    def answer(self, method: str, path: str, given: Mapping[str, Any], match: str | None) -> Answer:
        """`given` is the query of a GET, and the body of any other; `match` is the revision that If-Match names."""

        def follow(call: _Call) -> None:
            for kind, changed in dict.fromkeys(call.changed):
                northbound.follow(self.northbound, call.db, kind, changed)

        told = service.answer(self.file, _CALLS, method, path, lambda db: _Call(db, given, match), follow)
        unknown = f"the demo's Neutron does not know how to {method} {path}"
        return told or _wrong(404, "HTTPNotFound", unknown).answer


def _wrong(status: int, kind: str, message: str) -> Wrong:
    """A refusal as Neutron words it."""
    return Wrong((status, {"NeutronError": {"type": kind, "message": message, "detail": ""}}))


class _Call:
    def __init__(self, db: sqlite3.Connection, given: Mapping[str, Any], match: str | None) -> None:
        self.db, self.given, self.match = db, given, match
        self.changed: list[tuple[str, str]] = []

    # ------------------------------------------------------------------------------------------ ports

    def port(self, port: str) -> Answer:
        row = self._one("ports", port, "Port")
        active = self._rows("ml2_port_bindings", "port_id = ? AND status = 'ACTIVE'", port)
        binding = active[0] if active else {"host": "", "vif_type": "unbound", "vnic_type": "normal"}
        told = {name: row[name] for name in ("id", "project_id", "name", "network_id", "mac_address", "status",
                                             "device_owner", "device_id", "revision_number")}  # fmt: skip
        told |= {f"binding:{name}": binding[name] for name in ("vif_type", "vnic_type")}
        told |= {"binding:host_id": binding["host"], "binding:profile": {}}
        told["fixed_ips"] = [
            {name: each[name] for name in ("subnet_id", "ip_address")}
            for each in self._rows("ipallocations", "port_id = ?", port)
        ]
        told["allowed_address_pairs"] = [
            {name: each[name] for name in ("mac_address", "ip_address")}
            for each in self._rows("allowedaddresspairs", "port_id = ?", port)
        ]
        for trunk in self._rows("trunks", "port_id = ?", port):
            told["trunk_details"] = {"trunk_id": trunk["id"]}
        return 200, {"port": told}

    def change_port(self, port: str) -> Answer:
        row = self._as_matched("ports", port, "Port")
        change = self._body("port", "device_id", "device_owner", "binding:host_id")
        for name in change.keys() & {"device_id", "device_owner"}:
            self.db.execute(f"UPDATE ports SET {name} = ? WHERE id = ?", [change[name], port])
        if "binding:host_id" in change:
            host = change["binding:host_id"] or ""
            self.db.execute(
                "UPDATE ml2_port_bindings SET host = ?, vif_type = ? WHERE port_id = ? AND status = 'ACTIVE'",
                [host, "ovs" if host else "unbound", port],
            )
        self._revise("ports", row)
        return self.port(port)

    def delete_port(self, port: str) -> Answer:
        row = self._as_matched("ports", port, "Port")
        if self._rows("trunks", "port_id = ?", port) or self._rows("subports", "port_id = ?", port):
            raise _wrong(409, "PortInUse", f"Port {port} is in use by a trunk.")
        for leads in self._rows("floatingips", "fixed_port_id = ?", port):
            self._lead(leads["id"], None, None)
        for table in ("ml2_port_bindings", "ipallocations", "allowedaddresspairs"):
            self.db.execute(f"DELETE FROM {table} WHERE port_id = ?", [port])
        self.db.execute("DELETE FROM ports WHERE id = ?", [port])
        self.db.execute("DELETE FROM standardattributes WHERE id = ?", [row["standard_attr_id"]])
        self.changed.append(("ports", port))
        return 204, {}

    def bindings(self, port: str) -> Answer:
        self._one("ports", port, "Port")
        rows = self._rows("ml2_port_bindings", "port_id = ?", port)
        return 200, {"bindings": [{name: row[name] for name in ("host", "status", "vif_type")} for row in rows]}

    def delete_binding(self, port: str, host: str) -> Answer:
        row = self._one("ports", port, "Port")
        gone = self.db.execute("DELETE FROM ml2_port_bindings WHERE port_id = ? AND host = ?", [port, host])
        if gone.rowcount != 1:
            raise _wrong(404, "PortBindingNotFound", f"Binding for port {port} for host {host} could not be found.")
        self._revise("ports", row)
        return 204, {}

    # ------------------------------------------------------------------------------------------ floating IPs

    def floating_ips(self) -> Answer:
        rows = self._rows("floatingips", "fixed_port_id = ?", self.given.get("port_id", ""))
        return 200, {"floatingips": [self._told(row["id"]) for row in rows]}

    def floating_ip(self, floating_ip: str) -> Answer:
        return 200, {"floatingip": self._told(floating_ip)}

    def change_floating_ip(self, floating_ip: str) -> Answer:
        self._as_matched("floatingips", floating_ip, "Floating IP")
        change = self._body("floatingip", "port_id", "fixed_ip_address")
        port = change["port_id"]
        address = None
        if port is not None:
            self._one("ports", port, "Port")
            addresses = [row["ip_address"] for row in self._rows("ipallocations", "port_id = ?", port)]
            address = change.get("fixed_ip_address") or addresses[0]
            if address not in addresses:
                raise _wrong(400, "BadRequest", f"Port {port} does not have fixed IP {address}.")
        self._lead(floating_ip, port, address)
        return self.floating_ip(floating_ip)

    def _told(self, floating_ip: str) -> Mapping[str, Any]:
        row = self._one("floatingips", floating_ip, "Floating IP")
        told = {name: row[name] for name in ("id", "project_id", "floating_ip_address", "floating_network_id",
                                             "fixed_ip_address", "router_id", "status", "revision_number")}  # fmt: skip
        return {**told, "port_id": row["fixed_port_id"]}

    def _lead(self, floating_ip: str, port: str | None, address: str | None) -> None:
        """Have it lead to that port, by the router that the port's network has."""
        routers = self.db.execute(
            "SELECT r.router_id FROM routerports r JOIN ports i ON i.id = r.port_id JOIN ports p USING (network_id)"
            " WHERE r.port_type = 'network:router_interface' AND p.id = ?",
            [port],
        ).fetchall()
        if port is not None and not routers:
            raise _wrong(404, "ExternalGatewayForFloatingIPNotFound", f"No router leads from port {port} outside.")
        router = routers[0]["router_id"] if routers else None
        self.db.execute(
            "UPDATE floatingips SET fixed_port_id = ?, fixed_ip_address = ?, router_id = ?, status = ? WHERE id = ?",
            [port, address, router, "DOWN" if port is None else "ACTIVE", floating_ip],
        )
        self._revise("floatingips", self._one("floatingips", floating_ip, "Floating IP"))

    # ------------------------------------------------------------------------------------------ rows

    def _rows(self, table: str, condition: str, value: str) -> list[sqlite3.Row]:
        return self.db.execute(f"SELECT * FROM {table} WHERE {condition}", [value]).fetchall()

    def _one(self, table: str, id: str, what: str) -> sqlite3.Row:
        """A resource, with its revision."""
        found: sqlite3.Row | None = self.db.execute(
            f"SELECT t.*, s.revision_number FROM {table} t JOIN standardattributes s ON s.id = t.standard_attr_id"
            " WHERE t.id = ?",
            [id],
        ).fetchone()
        if found is None:
            raise _wrong(404, f"{what.replace(' ', '')}NotFound", f"{what} {id} could not be found.")
        return found

    def _as_matched(self, table: str, id: str, what: str) -> sqlite3.Row:
        row = self._one(table, id, what)
        if self.match not in (None, f"revision_number={row['revision_number']}"):
            raise _wrong(412, "RevisionNumberConstraintFailed",
                        f"Constrained to {self.match}, but current revision is {row['revision_number']}")  # fmt: skip
        return row

    def _body(self, name: str, *known: str) -> Mapping[str, Any]:
        change = self.given.get(name)
        if not isinstance(change, dict):
            raise _wrong(400, "HTTPBadRequest", f"There is no {name} in the request body.")
        if unknown := sorted(change.keys() - set(known)):
            raise _wrong(400, "HTTPBadRequest", f"Unrecognized attribute(s) '{', '.join(unknown)}'")
        return change

    def _revise(self, kind: str, row: sqlite3.Row) -> None:
        self.changed.append((kind, row["id"]))
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.000000")
        self.db.execute(
            "UPDATE standardattributes SET revision_number = revision_number + 1, updated_at = ? WHERE id = ?",
            [now, row["standard_attr_id"]],
        )


_ID = "([0-9a-f-]+)"
_CALLS: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", f"/ports/{_ID}", _Call.port),
    ("PUT", f"/ports/{_ID}", _Call.change_port),
    ("DELETE", f"/ports/{_ID}", _Call.delete_port),
    ("GET", f"/ports/{_ID}/bindings", _Call.bindings),
    ("DELETE", f"/ports/{_ID}/bindings/([^/]+)", _Call.delete_binding),
    ("GET", "/floatingips", _Call.floating_ips),
    ("GET", f"/floatingips/{_ID}", _Call.floating_ip),
    ("PUT", f"/floatingips/{_ID}", _Call.change_floating_ip),
)


# ---------------------------------------------------------------------------------------------- speaking HTTP


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            body = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            body = None
        parts = urlsplit(self.path)
        if not isinstance(body, dict):
            self._say(400, {"error": {"code": 400, "message": "The request is no JSON object."}})
        elif parts.path.startswith("/identity"):
            self._say(*self._keystone(body), X_Subject_Token=self.server.token)
        elif version := {"/network": "v2.0", "/dns": "v2"}.get(parts.path.rstrip("/")):
            links = [{"rel": "self", "href": f"{self.server.url}{parts.path.rstrip('/')}/{version}/"}]
            self._say(200, {"versions": [{"id": version, "status": "CURRENT", "links": links}]})
        elif self.headers.get("X-Auth-Token") != self.server.token:
            self._say(401, {"error": {"code": 401, "message": "The request you have made requires authentication."}})
        else:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            given = query if self.command == "GET" else body
            if parts.path.startswith("/dns/v2/"):
                managed = self.headers.get("X-Designate-Edit-Managed-Records") == "true"
                path = parts.path.removeprefix("/dns/v2")
                self._say(*self.server.designate.answer(self.command, path, given, managed))
            elif parts.path.startswith("/placement/"):
                path = parts.path.removeprefix("/placement")
                self._say(*self.server.placement.answer(self.command, path, given))
            else:
                path = parts.path.removeprefix("/network/v2.0")
                self._say(*self.server.neutron.answer(self.command, path, given, self.headers.get("If-Match")))

    def _keystone(self, body: Mapping[str, Any]) -> Answer:
        if self.command != "POST":
            links = [{"rel": "self", "href": f"{self.server.url}/identity/v3/"}]
            return 200, {"version": {"id": "v3.14", "status": "stable", "links": links}}
        try:
            user = body["auth"]["identity"]["password"]["user"]
            known = (user["name"], user["password"]) == ("admin", PASSWORD)
        except (KeyError, TypeError):
            known = False
        if not known:
            return 401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}
        now = dt.datetime.now(dt.UTC)
        endpoint = {"interface": "public", "region": "RegionOne", "region_id": "RegionOne"}
        return 201, {"token": {
            "methods": ["password"],
            "issued_at": f"{now:%Y-%m-%dT%H:%M:%S}.000000Z",
            "expires_at": f"{now + dt.timedelta(days=1):%Y-%m-%dT%H:%M:%S}.000000Z",
            "project": {"id": "admin", "name": "admin"},
            "user": {"id": "admin", "name": "admin"},
            "catalog": [
                {"type": kind, "name": name, "endpoints": [{**endpoint, "url": f"{self.server.url}/{kind}"}]}
                for kind, name in (("network", "neutron"), ("dns", "designate"), ("placement", "placement"))
            ],
        }}  # fmt: skip

    def _say(self, status: int, told: Mapping[str, Any], **headers: str) -> None:
        data = b"" if status == 204 else json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = any


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, place: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.neutron = Neutron(place / "databases" / "neutron.sqlite", ovn.of(place))
        self.designate = designate.Designate(place / "databases" / "designate.sqlite")
        self.placement = placement.Placement(place / "databases" / "placement.sqlite")
        self.token = secrets.token_urlsafe(24)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(place: Path) -> Iterator[str]:
    """Answer for the demo in `place`, as Neutron and as its OVN, until this ends.

    Its clouds.yaml names the port that the kernel has given.
    """
    server = _Server(place)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    # What the environment says of proxies is not for the loopback.
    os.environ["no_proxy"] = ",".join([*filter(None, map(os.environ.get, ("no_proxy", "NO_PROXY"))), "127.0.0.1"])
    try:
        clouds(place, server.url)
        with ovn.serving(server.neutron.northbound, ovn.socket(place)):
            yield server.url
    finally:
        clouds(place)
        server.shutdown()
        server.server_close()
        thread.join()


def clouds(place: Path, url: str = _NOBODY) -> Path:
    """Write clouds.yaml, and return its path; without a URL nobody answers there."""
    path = place / "clouds.yaml"
    path.touch(mode=0o600)
    path.write_text(f"""\
# The administrator of the demo.  Its Neutron, Designate and Placement listen only while a command of cloudfsck runs, or
# for longer by
# python -m cloudfsck.demo.neutron {place}
# and then this file says where.
clouds:
  demo:
    region_name: RegionOne
    auth:
      auth_url: {url}/identity/v3
      username: admin
      password: {PASSWORD}
      project_name: admin
      user_domain_id: default
      project_domain_id: default
""")
    return path


def main(argv: list[str]) -> int:
    """`argv`: the demo's directory.  It answers until it is interrupted.  Returns the exit status."""
    place = Path(argv[0] if argv else "demo").resolve()
    if not (place / "databases" / "neutron.sqlite").is_file():
        print(f"there is no demo in {place}: make one with `cloudfsck demo`", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serving(place) as url:
        places = f"its Designate at {url}/dns, its Placement at {url}/placement,"
        print(f"the demo's Neutron answers at {url}/network, {places}", flush=True)
        print(f"and its OVN at {ovn.socket(place)}; interrupt it to end them", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
