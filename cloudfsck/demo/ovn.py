"""Stand in for the OVSDB server of OVN's northbound database, which is one JSON file: what Neutron, and cloudfsck, ask.

It listens on a unix socket together with the demo's Neutron (`neutron.py`), and remembers between two runs.
"""

from __future__ import annotations

import json
import socketserver
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import AF_UNIX
from socket import socket as Socket
from typing import Any

from cloudfsck.model import Trouble

NAME = "OVN_Northbound"

Row = dict[str, Any]
Operation = Mapping[str, Any]

#: The columns of OVN's schema that matter here: those that end in * hold sets, in % maps, all others one value.
_SCHEMA = {
    "Logical_Switch": "name ports* other_config% external_ids%",
    "Logical_Switch_Port": "name type options% parent_name* tag* addresses* port_security* up* enabled* dhcpv4_options*"
    " dhcpv6_options* external_ids%",
    "Logical_Router": "name ports* nat* enabled* options% external_ids%",
    "Logical_Router_Port": "name mac networks* options% external_ids%",
    "Port_Group": "name ports* acls* external_ids%",
    "ACL": "priority direction match action external_ids%",
    "NAT": "type external_ip logical_ip external_mac* logical_port* external_ids%",
    "DHCP_Options": "cidr options% external_ids%",
}
_EMPTY = {"*": ["set", []], "%": ["map", []]}
#: What a row of these refers to goes with the last that has it; and what is gone is taken out of these.
_OWNED = {
    "Logical_Switch_Port": ("Logical_Switch", "ports"),
    "Logical_Router_Port": ("Logical_Router", "ports"),
    "NAT": ("Logical_Router", "nat"),
    "ACL": ("Port_Group", "acls"),
}
_WEAK = (
    ("Port_Group", "ports"),
    ("Logical_Switch_Port", "dhcpv4_options"),
    ("Logical_Switch_Port", "dhcpv6_options"),
)
#: A longer path is none for a socket (unix(7)).
_LONGEST = 107


class Wrong(Exception):
    """An operation that fails, as OVSDB says so; then nothing of its transaction is done."""

    def __init__(self, error: str, details: str) -> None:
        super().__init__(error)
        self.told = {"error": error, "details": details}


class Northbound:
    """The rows of each table by their UUID; each transaction reads them, and writes them if it changes them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """What each operation says; the last of these is the error if one fails."""
        with self._lock:
            text = self.file.read_text(encoding="utf-8") if self.file.exists() else "{}"
            transaction = _Transaction(json.loads(text))
            told: list[Any] = []
            try:
                for operation in operations:
                    told.append(transaction.do(operation))
            except Wrong as error:
                return [*told, error.told]
            if any(operation["op"] in ("insert", "update", "mutate", "delete") for operation in operations):
                transaction.collect()
                self.file.write_text(json.dumps(transaction.tables, indent=1), encoding="utf-8")
            return told


class _Transaction:
    def __init__(self, tables: dict[str, dict[str, Row]]) -> None:
        self.tables = {name: tables.get(name, {}) for name in _SCHEMA}
        self.named: dict[str, str] = {}

    def do(self, operation: Operation) -> Row:
        if operation["op"] == "commit":
            return {}
        if operation["op"] not in ("select", "wait", "insert", "update", "mutate", "delete"):
            raise Wrong("not supported", f"the demo's OVN does not know how to {operation['op']}")
        if operation["table"] not in _SCHEMA:
            raise Wrong("syntax error", f"No table named {operation['table']}.")
        told: Row = getattr(self, operation["op"])(self.tables[operation["table"]], operation)
        return told

    def select(self, rows: dict[str, Row], given: Operation) -> Row:
        wanted = given.get("columns") or ["_uuid", *_columns(given["table"])]
        found = [{"_uuid": ["uuid", one], **rows[one]} for one in self._where(rows, given)]
        return {"rows": [{column: row[column] for column in wanted} for row in found]}

    def wait(self, rows: dict[str, Row], given: Operation) -> Row:
        found = self.select(rows, given)["rows"]
        wanted = [{name: self._normal(value) for name, value in row.items()} for row in given["rows"]]
        if (sorted(map(_text, found)) == sorted(map(_text, wanted))) != (given["until"] == "=="):
            raise Wrong("timed out", '"wait" timed out')
        return {}

    def insert(self, rows: dict[str, Row], given: Operation) -> Row:
        new = given.get("uuid") or str(uuid.uuid4())
        if new in rows:
            raise Wrong("duplicate uuid", f"This UUID would duplicate a UUID already present: {new}.")
        if "uuid-name" in given:
            self.named[given["uuid-name"]] = new
        rows[new] = {**_columns(given["table"]), **self._row(given)}
        return {"uuid": ["uuid", new]}

    def update(self, rows: dict[str, Row], given: Operation) -> Row:
        found = self._where(rows, given)
        for one in found:
            rows[one] |= self._row(given)
        return {"count": len(found)}

    def mutate(self, rows: dict[str, Row], given: Operation) -> Row:
        found = self._where(rows, given)
        for column, mutator, value in given["mutations"]:
            for one in found:
                has, some = _members(rows[one][column]), _members(self._normal(value))
                kept = [each for each in has if each not in some]
                rows[one][column] = self._normal(["set", kept + (some if mutator == "insert" else [])])
        return {"count": len(found)}

    def delete(self, rows: dict[str, Row], given: Operation) -> Row:
        found = self._where(rows, given)
        for one in found:
            del rows[one]
        return {"count": len(found)}

    def collect(self) -> None:
        """What nothing has any more is gone, and nothing refers to it."""
        for table, (parent, column) in _OWNED.items():
            had = {one[1] for row in self.tables[parent].values() for one in _members(row[column])}
            self.tables[table] = {one: row for one, row in self.tables[table].items() if one in had}
        there = {one for rows in self.tables.values() for one in rows}
        for table, column in _WEAK:
            for row in self.tables[table].values():
                row[column] = self._normal(["set", [one for one in _members(row[column]) if one[1] in there]])

    def _where(self, rows: dict[str, Row], given: Operation) -> list[str]:
        found = list(rows)
        for column, how, value in given["where"]:
            if how not in ("==", "includes"):
                raise Wrong("not supported", f"the demo's OVN does not know the condition {how}")
            wanted = self._normal(value)
            has = {one: ["uuid", one] if column == "_uuid" else rows[one][column] for one in found}
            found = [
                one for one in found
                if has[one] == wanted
                or (how == "includes" and all(each in _members(has[one]) for each in _members(wanted)))
            ]  # fmt: skip
        return found

    def _row(self, given: Operation) -> Row:
        if unknown := sorted(given["row"].keys() - _columns(given["table"]).keys()):
            raise Wrong("unknown column", f"No column {unknown[0]} in table {given['table']}.")
        return {name: self._normal(value) for name, value in given["row"].items()}

    def _normal(self, value: Any) -> Any:
        """OVSDB's one way to write a value: sets and maps in order, a set of one as that, and rows by their UUID."""
        match value:
            case ["set" | "map" as kind, list(many)]:
                each = sorted(map(self._normal, many), key=_text)
                return each[0] if kind == "set" and len(each) == 1 else [kind, each]
            case ["named-uuid", str(name)]:
                return ["uuid", self.named[name]]
        return value


def _columns(table: str) -> Row:
    """Each column with the value that it has when none is given."""
    return {name.rstrip("*%"): _EMPTY.get(name[-1], "") for name in _SCHEMA[table].split()}


def _members(value: Any) -> list[Any]:
    return list(value[1]) if isinstance(value, list) and value[0] in ("set", "map") else [value]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# ---------------------------------------------------------------------------------------------- speaking JSON-RPC


def _schema() -> Row:
    kinds: dict[str, Any] = {
        "*": {"key": "string", "min": 0, "max": "unlimited"},
        "%": {"key": "string", "value": "string", "min": 0, "max": "unlimited"},
    }
    return {"name": NAME, "version": "7.0.0", "tables": {
        table: {"columns": {name.rstrip("*%"): {"type": kinds.get(name[-1], "string")} for name in columns.split()}}
        for table, columns in _SCHEMA.items()
    }}  # fmt: skip


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        text = ""
        with suppress(ConnectionError):
            while chunk := self.request.recv(1 << 16):
                text = (text + chunk.decode()).lstrip()
                with suppress(ValueError):  # the rest of it is still to come
                    while text:
                        request, end = json.JSONDecoder().raw_decode(text)
                        text = text[end:].lstrip()
                        self.request.sendall(json.dumps({**self._answer(request), "id": request["id"]}).encode())

    def _answer(self, request: Mapping[str, Any]) -> Row:
        match request["method"], request["params"]:
            case "echo", params:
                return {"result": params, "error": None}
            case "list_dbs", _:
                return {"result": [NAME, "_Server"], "error": None}
            case "get_schema", [str(name)] if name == NAME:
                return {"result": _schema(), "error": None}
            case "transact", ["_Server", *operations]:
                itself = {"name": NAME, "model": "standalone", "connected": True, "leader": True}
                return {"result": [{"rows": [itself]} for _ in operations], "error": None}
            case "transact", [str(name), *operations] if name == NAME:
                return {"result": self.server.northbound.transact(operations), "error": None}
        return {"result": None, "error": {"error": "unknown method or database", "details": str(request["method"])}}


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, northbound: Northbound, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.northbound = northbound


def of(place: Path) -> Northbound:
    """That of the demo in `place`."""
    return Northbound(place / "ovn" / "northbound.json")


def socket(place: Path) -> Path:
    """Where it listens.  Raises Trouble where that is no path for a socket."""
    path = place / "ovn" / "nb.sock"
    if len(str(path).encode()) > _LONGEST:
        raise Trouble(f"the demo cannot be made in {place}: the socket of its OVN cannot have so long a path")
    return path


def listens(path: Path) -> bool:
    """Whether somebody answers there already."""
    with Socket(AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


@contextmanager
def serving(northbound: Northbound, path: Path) -> Iterator[None]:
    """Answer at the socket until this ends."""
    path.unlink(missing_ok=True)
    server = _Server(northbound, path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        path.unlink(missing_ok=True)
        thread.join()
