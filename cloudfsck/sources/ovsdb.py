"""An OVSDB server, such as that of OVN's northbound database: it reads, in one transaction, from whoever leads.

It speaks JSON-RPC (RFC 7047) over a plain socket, not by the `ovs` package (4.0.0 was tried): that has no timeout for
an answer, keeps the TLS files once for the whole process, says no more of a TLS failure than EPERM, takes an answer for
broken (EILSEQ) when one of its characters comes in two pieces, and without its parser in C needs four times as long.
Its replica (the IDL) is slower still.

Of a server on `ssl:` it is verified that an authority in the CA file signed its certificate.  Which host that names is
not: OVSDB's certificates name none, and its own clients do not look either.

A follower, a relay, and a server cut off from its cluster may be behind, so none of them is read.  A leader that is cut
off steps down when its election timer ends; until then what it says may be old by as much.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from cloudfsck.model import Row
from cloudfsck.sources.database import Unreadable

Kind = Literal["atom", "set", "map"]

#: The tables of a database, and of each column what its values are made of.
Schema = Mapping[str, Mapping[str, Kind]]

#: A database larger than this is none of OVN's.
LARGEST = 1 << 30

_CHUNK = 1 << 18
_REMOTE = re.compile(
    r"(?P<how>tcp|ssl):(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>[0-9]{1,5})"
    r"|unix:(?P<path>/[^\0\n]+)"
)

#: Columns that every table has, and no schema names.
_EVERYWHERE: Mapping[str, Kind] = {"_uuid": "atom", "_version": "atom"}

#: Up to the next brace that stands in no string.  It never goes back, so that what is cut off costs no more than once.
_BRACE = re.compile(rb'(?:[^{}"]++|"(?:[^"\\]++|\\.)*+")*+[{}]', re.DOTALL)


@dataclass(frozen=True)
class Server:
    """Where a database is: the remotes of all members of its cluster, as OVSDB writes them.

    tcp:10.0.0.1:6641, ssl:[::1]:6641 or unix:/run/ovn/ovnnb_db.sock.  `timeout` is for one question to the cluster,
    from the first connection to the last answer.  Of an active server with a standby (no cluster) give only the address
    that moves with the active one: a standby does not say that it is one.
    """

    remotes: tuple[str, ...]
    timeout: dt.timedelta
    private_key: Path | None = None
    certificate: Path | None = None
    ca: Path | None = None

    def __str__(self) -> str:
        return ", ".join(self.remotes)


@dataclass(frozen=True)
class Query:
    """Rows of one table.  `columns` says of each what its values are made of, so that a set of one element is no atom.

    `where` are conditions in OVSDB's own notation: ("name", "==", "one"), ("_uuid", "==", uuid("...")).
    """

    table: str
    columns: Mapping[str, Kind]
    where: tuple[tuple[str, str, Any], ...] = ()


@dataclass(frozen=True)
class Rows:
    """The rows of a table that is there, each with its `_uuid`; `absent` are the columns that its schema lacks.

    Sets are lists, maps are dicts, references are the UUID as text.  A row has no key for a column that is absent.
    """

    rows: tuple[Row, ...]
    absent: frozenset[str]


def select(server: Server, database: str, queries: Sequence[Query]) -> tuple[Rows | None, ...]:
    """The answers to all queries, from one state of the database; None for a table that the server's schema lacks.

    Raises Unreadable.
    """
    with leader(server, database) as connection:
        schema = connection.schema(database)
        asked = [
            (query, _columns(connection, query, schema[query.table])) for query in queries if query.table in schema
        ]
        operations = [
            {
                "op": "select",
                "table": query.table,
                "where": [list(one) for one in query.where],
                "columns": list(columns),
            }
            for query, columns in asked
        ]
        found = iter(_found(connection, asked, connection.call("transact", [database, *operations])))
        if (flaw := connection.flaw(database)) is not None:
            raise Unreadable(f"{connection.place}: after {database} was read there, {flaw}")
    return tuple(next(found) if query.table in schema else None for query in queries)


def get_schema(server: Server, database: str) -> Schema:
    """The tables and columns that the server's schema has.  Raises Unreadable."""
    with leader(server, database) as connection:
        return connection.schema(database)


def uuid(value: str) -> list[Any]:
    """A reference to a row, as OVSDB writes it."""
    return ["uuid", value]


def mapping(value: Mapping[Any, Any]) -> list[Any]:
    """A map, as OVSDB writes it."""
    return ["map", [[key, each] for key, each in value.items()]]


def several(values: Sequence[Any]) -> list[Any]:
    """A set, as OVSDB writes it."""
    return ["set", list(values)]


def plain(kind: Kind, value: Any) -> Any:
    """A value of OVSDB's as one of Python's.  Raises ValueError if it is none of this kind."""
    match kind, value:
        case "map", ["map", list(pairs)]:
            return {_atom(key): _atom(each) for key, each in map(_pair, pairs)}
        case "set", ["set", list(values)]:
            return [_atom(each) for each in values]
        case "set", _:
            return [_atom(value)]
        case "atom", _:
            return _atom(value)
    raise ValueError


def _pair(value: Any) -> tuple[Any, Any]:
    match value:
        case [key, each]:
            return key, each
    raise ValueError


def _atom(value: Any) -> Any:
    match value:
        case str() | int() | float():
            return value
        case ["uuid", str(text)]:
            return text
    raise ValueError


def _columns(connection: Connection, query: Query, has: Mapping[str, Kind]) -> dict[str, Kind]:
    """Of the columns asked for those that are there, and always the row's own UUID.

    Without it OVSDB takes rows that are alike for one.
    """
    have = {**has, **_EVERYWHERE}
    found: dict[str, Kind] = {"_uuid": "atom"}
    for column, kind in query.columns.items():
        if column in have and have[column] != kind:
            raise Unreadable(
                f"{connection.place}: column {column} of table {query.table} holds values of kind {have[column]}, and"
                f" {kind} is expected: this cloudfsck does not know its schema"
            )
        if column in have:
            found[column] = kind
    return found


def _found(connection: Connection, asked: Sequence[tuple[Query, Mapping[str, Kind]]], results: Any) -> list[Rows]:
    place = connection.place
    if not isinstance(results, list):
        raise Unreadable(f"{place}: its answer to a select is not understood")
    for result in results:
        if isinstance(result, dict) and result.get("error") is not None:
            raise Unreadable(f"{place}: it does not select: {said(result)}")
    if len(results) != len(asked):
        raise Unreadable(f"{place}: to {len(asked)} queries it gives {len(results)} answers")
    found = []
    for (query, columns), result in zip(asked, results, strict=True):
        rows: list[Row] = []
        column = "_uuid"
        try:
            for row in result["rows"]:
                given = {}
                for column, kind in columns.items():
                    given[column] = plain(kind, row[column])
                rows.append(given)
        except (KeyError, TypeError, ValueError):
            raise Unreadable(
                f"{place}: table {query.table} is not understood: its column {column} is missing, or not of its kind"
            ) from None
        found.append(Rows(tuple(rows), frozenset(query.columns) - frozenset(columns)))
    return found


# -- whoever leads


def leader(server: Server, database: str) -> Connection:
    """A connection to the first remote that leads (a server without a cluster does).  Raises Unreadable if none does.

    Each remote has its share of the time that is left, so that one that is silent leaves some to the others.
    """
    end = time.monotonic() + server.timeout.total_seconds()
    why: list[str] = []
    follows = False
    places = _places(server, end, why)
    tls = _tls(server) if any(place.how == "ssl" for place in places) else None
    for nth, place in enumerate(places):
        share = max(0.0, end - time.monotonic()) / (len(places) - nth)
        try:
            connection = _connect(place, tls, server.ca, share)
        except Unreadable as error:
            why.append(str(error))
            continue
        try:
            flaw = connection.flaw(database)
            if flaw is None:
                connection.lasts(end)
                return connection
            why.append(f"{place}: {flaw}")
            follows = True
        except Unreadable as error:
            why.append(str(error))
        except BaseException:
            connection.close()
            raise
        connection.close()
    told = "; ".join(why)
    if follows:
        told = f"nobody leads {database} among the remotes, which must be those of all its members: {told}"
    raise Unreadable(told)


@dataclass(frozen=True)
class _Place:
    """One address of a remote."""

    remote: str
    how: str
    family: socket.AddressFamily
    address: Any

    def __str__(self) -> str:
        host = str(self.address[0]) if isinstance(self.address, tuple) else ""
        return self.remote if host in self.remote else f"{self.remote} ({host})"


def _places(server: Server, end: float, why: list[str]) -> list[_Place]:
    """Every address of every remote: the name of a service may stand for all members of a cluster."""
    if not server.remotes:
        raise Unreadable("no OVSDB server is named: give the remotes of all its members, as tcp:10.0.0.1:6641")
    found: list[_Place] = []
    for nth, remote in enumerate(server.remotes):
        match = _REMOTE.fullmatch(remote)
        if match is None or (match["port"] is not None and not 0 < int(match["port"]) < 65536):
            raise Unreadable(f"{remote!r} is no remote: write tcp:10.0.0.1:6641, ssl:[::1]:6641 or unix:/absolute/path")
        if match["path"] is not None:
            found.append(_Place(remote, "unix", socket.AF_UNIX, match["path"]))
            continue
        # Half of the time, at most, goes into finding out whom to ask.
        seconds = max(0.0, end - time.monotonic()) / (2 * (len(server.remotes) - nth))
        try:
            addresses = _resolved(match["v6"] or match["host"], int(match["port"]), seconds)
        except OSError as error:
            why.append(f"{remote}: its name is not resolved: {error.strerror or error}")
            continue
        found += [_Place(remote, match["how"], family, address) for family, address in addresses]
    return found


def _resolved(host: str, port: int, seconds: float) -> list[tuple[socket.AddressFamily, Any]]:
    """Raises OSError."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
        numeric = True
    except ValueError:
        numeric = False
    found: list[tuple[socket.AddressFamily, Any]] = []
    failed: list[OSError] = []

    def look() -> None:
        try:
            found.extend((one[0], one[4]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)
        except UnicodeError:
            failed.append(OSError("it is no name of a host"))

    if numeric:
        look()
    else:
        # The resolver takes no timeout.
        thread = threading.Thread(target=look, name="resolver", daemon=True)
        thread.start()
        thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise OSError(f"no answer within {seconds:.1f} s")
    return list(found)


def _tls(server: Server) -> ssl.SSLContext:
    if server.ca is None:
        raise Unreadable(f"{server}: ssl: needs the file of the authority (CA) that signed the servers' certificates")
    if (server.private_key is None) != (server.certificate is None):
        raise Unreadable(f"{server}: a certificate needs its private key, and a private key its certificate")
    for path in (server.ca, server.certificate, server.private_key):
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            raise Unreadable(f"{path}, a file for TLS, cannot be read: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(server.ca)
    except ssl.SSLError:
        raise Unreadable(f"{server.ca} holds no certificate of an authority (PEM)") from None
    try:
        if server.certificate is not None:
            # Without an answer OpenSSL would ask for the key's password at the terminal.
            context.load_cert_chain(server.certificate, server.private_key, password="")
    except (ssl.SSLError, ValueError):
        raise Unreadable(
            f"{server.certificate} is no certificate (PEM) of the private key {server.private_key}, or the key has a"
            " password"
        ) from None
    return context


def _connect(place: _Place, tls: ssl.SSLContext | None, ca: Path | None, seconds: float) -> Connection:
    end = time.monotonic() + seconds
    plain_socket = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        plain_socket.settimeout(max(0.001, seconds))
        plain_socket.connect(place.address)
        if place.how == "ssl":
            assert tls is not None
            plain_socket.settimeout(max(0.001, end - time.monotonic()))
            return Connection(str(place), tls.wrap_socket(plain_socket), ca, end)
        return Connection(str(place), plain_socket, ca, end)
    except OSError as error:
        plain_socket.close()
        raise Unreadable(_reason(str(place), error, ca, seconds)) from None
    except BaseException:
        plain_socket.close()
        raise


class Connection:
    """An open connection to one server; `place` is how a sentence calls it.  It answers when the server asks whether it
    is still there."""

    def __init__(self, place: str, opened: socket.socket, ca: Path | None, end: float) -> None:
        self.place = place
        self._socket = opened
        self._ca = ca
        self._started = time.monotonic()
        self._end = end
        self._buffer = bytearray()
        self._looked = 0
        self._depth = 0
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def lasts(self, end: float) -> None:
        """From now on it has until then."""
        self._end = end

    def flaw(self, database: str) -> str | None:
        """Why the database must not be read here; None: it may.  Raises Unreadable, also if it is not there."""
        columns = ["name", "model", "connected", "leader"]
        operation = {"op": "select", "table": "Database", "where": [], "columns": columns}
        results = self.call("transact", ["_Server", operation])
        try:
            known = {str(row["name"]): row for row in results[0]["rows"]}
            if database not in known:
                others = ", ".join(sorted(known.keys() - {"_Server"}))
                raise Unreadable(
                    f"{self.place}: it has no database {database}, but {said(others or 'none')}: is it the right port?"
                )
            model, connected, leads = (known[database][column] for column in columns[1:])
        except (KeyError, TypeError, IndexError):
            raise Unreadable(f"{self.place}: what it says of itself (database _Server) is not understood") from None
        if connected is not True:
            return f"it is cut off from its cluster, and what it has of {database} may be old"
        if leads is not True:
            what = "a relay" if model == "relay" else "a follower in its cluster"
            return f"it is {what}, and may be behind"
        return None

    def schema(self, database: str) -> Schema:
        """Raises Unreadable."""
        told = self.call("get_schema", [database])
        try:
            return {
                str(table): {str(column): _kind(one["type"]) for column, one in has["columns"].items()}
                for table, has in told["tables"].items()
            }
        except (KeyError, TypeError, AttributeError):
            raise Unreadable(f"{self.place}: its schema of {database} is not understood") from None

    def call(self, method: str, params: Sequence[Any]) -> Any:
        """The result.  Raises Unreadable, also if the server says that there is none."""
        reply = self.ask(method, params)
        if reply.get("error") is not None:
            raise Unreadable(f"{self.place}: it refuses {method}: {said(reply['error'])}")
        return reply["result"]

    def ask(self, method: str, params: Sequence[Any]) -> Mapping[str, Any]:
        """The reply: its `error` is None, or its `result`.  Raises Unreadable if there is none that is whole."""
        self._asked += 1
        self._send({"method": method, "params": list(params), "id": self._asked})
        while True:
            message = self._receive()
            if "method" in message:
                if message["method"] == "echo":
                    self._send({"result": message.get("params"), "error": None, "id": message.get("id")})
            elif message.get("id") == self._asked and "result" in message:
                return message
            else:
                raise Unreadable(f"{self.place}: what it says is no answer to {method}")

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(json.dumps(message).encode())
        except OSError as error:
            raise self._unreadable(error) from None

    def _receive(self) -> dict[str, Any]:
        while (frame := self._frame()) is None:
            try:
                self._socket.settimeout(self._left())
                chunk = self._socket.recv(_CHUNK)
            except OSError as error:
                raise self._unreadable(error) from None
            if not chunk:
                if self._buffer:
                    told = f"its answer is cut off after {len(self._buffer)} bytes: look into its log"
                elif self._asked > 1:
                    told = "it hangs up without an answer: look into its log"
                elif self.place.startswith("ssl:"):
                    told = "it hangs up at once: does it accept our certificate?"
                else:
                    told = "it hangs up at once: does it want TLS (ssl:)?"
                raise Unreadable(f"{self.place}: {told}")
            self._buffer += chunk
            if len(self._buffer) > LARGEST:
                raise Unreadable(f"{self.place}: its answer is larger than {LARGEST} bytes")
        try:
            message = json.loads(frame)
            if rb"\ud" in frame.lower():
                json.dumps(message, ensure_ascii=False).encode()  # half a character is none
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"{self.place}: its answer is no JSON: {error}") from None
        assert isinstance(message, dict)
        return message

    def _frame(self) -> bytes | None:
        """The next whole message of what has come, None: there is more to come.

        Its end is where the braces even out.  To try to read it with each piece that comes would take a time that grows
        with the square of its size.
        """
        if self._depth == 0:
            del self._buffer[: len(self._buffer) - len(self._buffer.lstrip())]
            if self._buffer and self._buffer[:1] != b"{":
                told = (
                    "it speaks TLS: write ssl:" if self._buffer[:2] == b"\x15\x03" else "no OVSDB server answers there"
                )
                raise Unreadable(f"{self.place}: {told}")
        while match := _BRACE.match(self._buffer, self._looked):
            self._looked = match.end()
            self._depth += 1 if self._buffer[self._looked - 1 : self._looked] == b"{" else -1
            if self._depth == 0:
                frame = bytes(self._buffer[: self._looked])
                del self._buffer[: self._looked]
                self._looked = 0
                return frame
        return None

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _unreadable(self, error: OSError) -> Unreadable:
        return Unreadable(_reason(self.place, error, self._ca, self._end - self._started))


def _kind(of: Any) -> Kind:
    """Of a column's type in a schema.  Raises KeyError or TypeError."""
    if isinstance(of, str):
        return "atom"
    if "value" in of:
        return "map"
    of["key"]  # what has none is no type
    return "atom" if (of.get("min", 1), of.get("max", 1)) == (1, 1) else "set"


# -- what goes wrong, in one sentence


def said(error: Any) -> str:
    """What a server says of an error, on one line, with nothing in it that a terminal would obey."""
    text = json.dumps(error, ensure_ascii=False)
    if isinstance(error, str):
        text = error
    elif isinstance(error, dict) and isinstance(error.get("error"), str):
        details = error.get("details")
        text = f"{error['error']}: {details}" if isinstance(details, str) else error["error"]
    text = " ".join(text.split())
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:500]


def _reason(place: str, error: OSError, ca: Path | None, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"{place}: no answer within {seconds:.1f} s: is it the right port, and is the timeout long enough?"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"{place}: its certificate is not accepted: {error.verify_message}: {ca} must hold the authority that"
            " signed it (which host it names is not looked at)"
        )
    if isinstance(error, ssl.SSLError):
        reason = re.sub(r" *\(_ssl\.c:\d+\)", "", error.reason or str(error.args[-1])).replace("_", " ").lower()
        if "alert" in reason:
            return f"{place}: it refuses us ({reason}): are certificate and private key those that it demands?"
        return f"{place}: TLS fails ({reason}): does it speak TLS on this port, and accept our certificate?"
    if isinstance(error, ConnectionRefusedError):
        return f"{place}: the connection is refused: does ovsdb-server run, and does it listen there?"
    if isinstance(error, ConnectionError):
        hint = "does it accept our certificate?" if place.startswith("ssl:") else "look into its log"
        return f"{place}: the connection broke: {error.strerror or error}: {hint}"
    return f"{place}: it cannot be reached: {error.strerror or error}"
