"""The client of OVSDB: what it makes of whatever a server says, of a database that nobody leads, and of a race."""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cloudfsck.acts import ovsdb as acts
from cloudfsck.model import Moved, Outcomeless, Refused, Trouble
from cloudfsck.sources import ovsdb
from cloudfsck.sources.database import Unreadable
from cloudfsck.sources.ovsdb import Query, Rows, Server
from tests.bed import Missing
from tests.bed.ovn import DATABASE, Cluster, Northbound
from tests.bed.programs import await_true, run

SECONDS = dt.timedelta(seconds=5)
PORTS = Query("Port", {"name": "atom", "up": "set", "marks": "map"})
GUARD = acts.expect("Port", "p1", {"name": "one"})
WRITE = {"op": "update", "table": "Port", "where": [], "row": {"name": "two"}}

SCHEMA = {
    "tables": {
        "Port": {
            "columns": {
                "name": {"type": "string"}, "tag": {"type": {"key": "integer"}},
                "up": {"type": {"key": "boolean", "min": 0, "max": 1}},
                "peers": {"type": {"key": {"type": "uuid", "refTable": "Port"}, "min": 0, "max": "unlimited"}},
                "marks": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
            }
        },
        "Empty": {"columns": {"name": {"type": "string"}}},
    }
}  # fmt: skip

# --------------------------------------------------------------------------------------------------- a server of ours

Answer = Callable[[socket.socket, dict[str, Any]], bool]


@contextmanager
def peer(*answers: Answer) -> Iterator[Server]:
    """A server that hands each request to the first of `answers` that takes it (True), and closes when none does."""
    gate = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError), gate.accept()[0] as way:
                way.settimeout(10)
                for request in heard(way):
                    if not any(answer(way, request) for answer in answers):
                        break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Server((f"tcp:127.0.0.1:{gate.getsockname()[1]}",), SECONDS)
    finally:
        over.set()
        gate.shutdown(socket.SHUT_RDWR)
        gate.close()
        thread.join(15)
        assert not thread.is_alive()


def heard(way: socket.socket) -> Iterator[dict[str, Any]]:
    buffer = ""
    while chunk := way.recv(1 << 16):
        buffer += chunk.decode()
        with suppress(ValueError):
            while buffer:
                found, end = json.JSONDecoder().raw_decode(buffer)
                buffer = buffer[end:]
                yield found


def packed(request: dict[str, Any], result: Any, error: Any = None) -> bytes:
    return json.dumps({"id": request["id"], "result": result, "error": error}, ensure_ascii=False).encode()


def usual(way: socket.socket, request: dict[str, Any]) -> bool:
    """What every server says: how it stands to the database, and its schema."""
    if request["method"] == "get_schema":
        way.sendall(packed(request, SCHEMA))
    elif request["params"][0] == "_Server":
        way.sendall(packed(request, [{"rows": [of("NB")]}]))
    else:
        return False
    return True


def of(name: str, model: str = "clustered", connected: bool = True, leader: bool = True) -> dict[str, Any]:
    return {"name": name, "model": model, "connected": connected, "leader": leader}


def rows(*found: dict[str, Any]) -> Answer:
    """To every select, these rows."""

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        way.sendall(packed(request, [{"rows": list(found)} for _ in request["params"][1:]]))
        return True

    return answer


def says(what: bytes, after: Callable[[socket.socket], None] = lambda way: None) -> Answer:
    """To the real question, this; @ stands for the number of the request."""

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        way.sendall(what.replace(b"@", str(request["id"]).encode()))
        after(way)
        return False

    return answer


def results(*found: Any) -> Answer:
    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        way.sendall(packed(request, list(found)))
        return True

    return answer


ROW = {"_uuid": ["uuid", "p1"], "name": "one", "up": True, "marks": ["map", [["a", "b"]]]}

# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(("kind", "value", "is_"), [
    ("atom", "text", "text"), ("atom", 5, 5), ("atom", 0.5, 0.5), ("atom", False, False), ("atom", ["uuid", "x"], "x"),
    ("set", ["set", []], []), ("set", "one", ["one"]), ("set", ["uuid", "x"], ["x"]), ("set", True, [True]),
    ("set", ["set", ["a", "b"]], ["a", "b"]), ("set", ["set", [["uuid", "x"], ["uuid", "y"]]], ["x", "y"]),
    ("map", ["map", []], {}), ("map", ["map", [["a", "b"], ["c", ["uuid", "x"]]]], {"a": "b", "c": "x"}),
])  # fmt: skip
def test_values_are_pythons_own(kind: ovsdb.Kind, value: Any, is_: Any) -> None:
    found = ovsdb.plain(kind, value)
    assert (found, type(found)) == (is_, type(is_))


@pytest.mark.parametrize(("kind", "value"), [
    ("atom", None), ("atom", ["set", ["a"]]), ("atom", {}), ("atom", ["uuid", 5]), ("set", ["map", []]), ("set", None),
    ("set", ["set", "ab"]), ("set", ["set", [None]]), ("map", "text"), ("map", ["set", []]), ("map", ["map", [["a"]]]),
    ("map", ["map", ["ab"]]), ("map", ["map", [["a", None]]]),
])  # fmt: skip
def test_a_value_of_another_kind_is_none(kind: ovsdb.Kind, value: Any) -> None:
    with pytest.raises(ValueError):
        ovsdb.plain(kind, value)


def test_what_we_write_we_read() -> None:
    assert ovsdb.plain("map", ovsdb.mapping({"a": "b"})) == {"a": "b"}
    assert ovsdb.plain("set", ovsdb.several([ovsdb.uuid("x")])) == ["x"]
    assert ovsdb.plain("atom", ovsdb.uuid("x")) == "x"


# ------------------------------------------------------------------------------------------------------------ reading


def test_a_source_only_selects() -> None:
    source = Path(ovsdb.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'"op": "(\w+)"', source)) == {"select"}


def test_the_rows_of_each_query_and_what_is_not_there() -> None:
    queries = (Query("Port", {**PORTS.columns, "dhcp": "set"}), Query("Mirror", {"name": "atom"}), Query("Empty", {}))

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        port, empty = request["params"][1:]
        assert port == {"op": "select", "table": "Port", "where": [], "columns": ["_uuid", "name", "up", "marks"]}
        assert empty["columns"] == ["_uuid"]
        return results({"rows": [ROW]}, {"rows": []})(way, request)

    with peer(usual, answer) as server:
        found = ovsdb.select(server, "NB", queries)
    row = {"_uuid": "p1", "name": "one", "up": [True], "marks": {"a": "b"}}
    assert found == (Rows((row,), frozenset({"dhcp"})), None, Rows((), frozenset()))


def test_a_condition_goes_to_the_server() -> None:
    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        assert request["params"][1]["where"] == [["name", "==", "one"]]
        return rows(ROW)(way, request)

    with peer(usual, answer) as server:
        (found,) = ovsdb.select(server, "NB", [Query("Port", PORTS.columns, (("name", "==", "one"),))])
    assert found is not None
    assert len(found.rows) == 1


def test_the_schema_says_what_a_column_is_made_of() -> None:
    with peer(usual) as server:
        schema = ovsdb.get_schema(server, "NB")
    assert schema["Port"] == {"name": "atom", "tag": "atom", "up": "set", "peers": "set", "marks": "map"}


def test_a_column_that_became_something_else_is_said() -> None:
    with (
        peer(usual) as server,
        pytest.raises(Unreadable, match=r"column up of table Port .* kind set, and atom is exp"),
    ):
        ovsdb.select(server, "NB", [Query("Port", {"up": "atom"})])


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("together", [False, True])
def test_an_answer_is_whole_however_it_is_split(size: int, together: bool) -> None:
    hard = {**ROW, "name": 'ä"}{"\\{ß€', "marks": ["map", [["}\\", "{\"id\":1}"], ["\n", "\\\""]]]}  # fmt: skip

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        told = packed(request, [{"rows": [hard]}])
        if together:
            told = b' \n{"method": "update3", "params": [], "id": null}' + told + b"\n"
        for start in range(0, len(told), size):
            way.sendall(told[start : start + size])
            if size == 7:
                time.sleep(0.001)
        return True

    with peer(usual, answer) as server:
        (found,) = ovsdb.select(server, "NB", [PORTS])
    assert found is not None
    assert found.rows[0]["name"] == hard["name"]
    assert found.rows[0]["marks"] == {"}\\": '{"id":1}', "\n": '\\"'}


def test_a_large_answer_in_many_pieces_takes_no_longer_than_in_few() -> None:
    many = [{**ROW, "_uuid": ["uuid", str(number)], "name": "x" * 1000} for number in range(5000)]

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        told = packed(request, [{"rows": many}])
        for start in range(0, len(told), 1500):
            way.sendall(told[start : start + 1500])
        return True

    with peer(usual, answer) as server:
        started = time.monotonic()
        (found,) = ovsdb.select(server, "NB", [PORTS])
        assert time.monotonic() - started < 10, "what comes in pieces is not gone through again with each"
    assert found is not None
    assert len(found.rows) == 5000


def test_who_is_asked_whether_it_is_there_says_so() -> None:
    echoed: list[dict[str, Any]] = []

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        if "method" not in request:
            echoed.append(request)
            return rows(ROW)(way, {**request, "id": asked[0], "params": [0, 0]})
        asked.append(request["id"])
        way.sendall(b'{"method": "echo", "params": ["still there?"], "id": "echo"}')
        return True

    def first(way: socket.socket, request: dict[str, Any]) -> bool:
        return "method" in request and usual(way, request)

    asked: list[int] = []
    with peer(first, answer) as server:
        ovsdb.select(server, "NB", [PORTS])
    assert echoed == [{"id": "echo", "result": ["still there?"], "error": None}]


@pytest.mark.parametrize(("said", "why"), [
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no OVSDB server answers there"),
    (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS: write ssl:"),
    (b"[]", "no OVSDB server answers there"),
    (b'{"id": @, "result": [,], "error": null}', "no JSON"),
    (b'{"id": @, "result": "\xff", "error": null}', "no JSON"),
    (b'{"id": @, "result": "\\ud800", "error": null}', "no JSON"),
    pytest.param(b'{"id": @, "result": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "no JSON", id="deep"),
    pytest.param(b'{"id": @, "result": ' + b"1" * 5000 + b"}", "no JSON", id="huge"),
    (b'{"id": 99, "result": [], "error": null}', "no answer to transact"),
    (b'{"id": @, "error": null}', "no answer to transact"),
    (b'{"id": @, "result": null, "error": null}', "is not understood"),
    (b'{"id": @, "result": [], "error": null}', "to 1 queries it gives 0 answers"),
    (b'{"id": @, "result": [null], "error": null}', "table Port is not understood"),
    (b'{"id": @, "result": [{"rows": [{"_uuid": ["uuid", "x"]}]}], "error": null}', "its column name is missing"),
    (b'{"id": @, "result": [{"rows": [{"_uuid": ["uuid", "x"], "name": ["set", []]}]}], "error": null}', "column name"),
    (b'{"id": @, "result": [{"rows": 5}], "error": null}', "table Port is not understood"),
    (b'{"id": @, "result": [{"error": "unknown column", "details": "of\\u001b[2J it"}], "error": null}',
     r"it does not select: unknown column: of\?\[2J it"),
    (b'{"id": @, "result": null, "error": {"error": "syntax error", "details": "no"}}', "refuses transact: syntax err"),
    (b'{"id": @, "result": null, "error": "canceled"}', "refuses transact: canceled"),
    (b'{"id": @, "result": [{"rows": [', r"cut off after \d+ bytes"),
    (b"", "it hangs up without an answer"),
])  # fmt: skip
def test_whatever_it_says_is_told_in_one_sentence(said: bytes, why: str) -> None:
    with peer(usual, says(said)) as server, pytest.raises(Unreadable, match=why) as told:
        ovsdb.select(server, "NB", [PORTS])
    assert server.remotes[0] in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("first", [
    {"tables": None}, {}, [], {"tables": {"Port": {"columns": {"name": {"type": {"min": 0}}}}}},
    {"tables": {"Port": {"columns": {"name": {}}}}}, {"tables": {"Port": {"columns": {"name": {"type": 5}}}}},
])  # fmt: skip
def test_a_schema_that_is_none_is_told(first: Any) -> None:
    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        if request["method"] == "get_schema":
            way.sendall(packed(request, first))
            return True
        return usual(way, request)

    with peer(answer) as server, pytest.raises(Unreadable, match="its schema of NB is not understood"):
        ovsdb.get_schema(server, "NB")


# --------------------------------------------------------------------------------------------------------------- time


def test_a_timeout_is_over_all() -> None:
    """Also for a server that does nothing but ask whether we are still there."""
    over = threading.Event()

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        with suppress(OSError):
            while not over.wait(0.05):
                way.sendall(b'{"method": "echo", "params": [], "id": "echo"}')
        return False

    with peer(usual, answer) as server:
        started = time.monotonic()
        with pytest.raises(Unreadable, match=r"no answer within 0\.[5-6] s"):
            ovsdb.select(Server(server.remotes, dt.timedelta(seconds=0.6)), "NB", [PORTS])
        assert time.monotonic() - started < 9
        over.set()


def test_one_that_is_silent_leaves_time_for_the_next() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, peer(usual, rows(ROW)) as server:
        remotes = (f"tcp:127.0.0.1:{silent.getsockname()[1]}", *server.remotes)
        started = time.monotonic()
        ovsdb.select(Server(remotes, dt.timedelta(seconds=1)), "NB", [PORTS])
        assert 0.4 < time.monotonic() - started < 1


def test_a_name_that_nobody_resolves_takes_no_longer_either(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(10) and [])
    started = time.monotonic()
    with pytest.raises(Unreadable, match=r"tcp:nb\.example:6641: its name is not resolved: no answer within"):
        ovsdb.get_schema(Server(("tcp:nb.example:6641",), dt.timedelta(seconds=0.4)), "NB")
    over.set()
    assert time.monotonic() - started < 9


def test_a_name_may_stand_for_all_members(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        refusing = gone.getsockname()
    with peer(usual) as server:
        port = int(server.remotes[0].rpartition(":")[2])
        addresses = [(socket.AF_INET, 1, 6, "", refusing), (socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        assert ovsdb.get_schema(Server(("tcp:nb.example:6641",), SECONDS), "NB")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses[:1])
        with pytest.raises(Unreadable, match=r"tcp:nb\.example:6641 \(127\.0\.0\.1\): the connection is refused"):
            ovsdb.get_schema(Server(("tcp:nb.example:6641",), SECONDS), "NB")


# ----------------------------------------------------------------------------------------------------- where and whom


@pytest.mark.parametrize("remote", [
    "", "nb.example", "10.0.0.1:6641", "tcp:10.0.0.1", "tcp:10.0.0.1:0", "tcp:10.0.0.1:65536", "tcp:::1:6641",
    "http:10.0.0.1:6641", "unix:relative", "ptcp:6641", "tcp:10.0.0.1:6641,tcp:10.0.0.2:6641", "tcp:a b:6641",
    "tcp:a\0b:6641", "unix:/a\0b",
])  # fmt: skip
def test_a_remote_that_is_none_is_refused(remote: str) -> None:
    with pytest.raises(Unreadable, match="is no remote: write tcp:"):
        ovsdb.get_schema(Server((remote,), SECONDS), "NB")


def test_without_a_remote_nobody_is_asked() -> None:
    with pytest.raises(Unreadable, match="no OVSDB server is named"):
        ovsdb.get_schema(Server((), SECONDS), "NB")


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "sock", "No such file"), (tmp_path / ("x" * 200), "too long")):
        with pytest.raises(Unreadable, match=f"it cannot be reached: .*{why}"):
            ovsdb.get_schema(Server((f"unix:{path}",), SECONDS), "NB")


def test_an_address_of_ipv6() -> None:
    with pytest.raises(Unreadable, match=r"^tcp:\[::1\]:1: (the connection is refused|it cannot be reached)"):
        ovsdb.get_schema(Server(("tcp:[::1]:1",), SECONDS), "NB")


def test_files_for_tls_that_are_none(tmp_path: Path) -> None:
    remotes = ("ssl:127.0.0.1:6641",)
    rubbish, absent = tmp_path / "rubbish", tmp_path / "absent"
    rubbish.write_text("no certificate")
    for server, why in (
        (Server(remotes, SECONDS), "ssl: needs the file of the authority"),
        (Server(remotes, SECONDS, ca=absent), f"{absent}, a file for TLS, cannot be read: No such file"),
        (Server(remotes, SECONDS, ca=rubbish), f"{rubbish} holds no certificate of an authority"),
        (Server(remotes, SECONDS, private_key=rubbish, ca=rubbish), "a private key its certificate"),
    ):
        with pytest.raises(Unreadable, match=why):
            ovsdb.get_schema(server, "NB")


@pytest.mark.parametrize(("standing", "why"), [
    ([of("NB", leader=False)], "nobody leads NB among the remotes.* it is a follower in its cluster"),
    ([of("NB", "relay", leader=False)], "it is a relay, and may be behind"),
    ([of("NB", connected=False)], "it is cut off from its cluster"),
    ([of("_Server"), of("SB")], "it has no database NB, but SB"),
    ([of("_Server")], "it has no database NB, but none"),
    ([{"name": "NB"}], r"what it says of itself \(database _Server\) is not understood"),
    (None, "is not understood"),
])  # fmt: skip
def test_only_who_leads_is_read(standing: Any, why: str) -> None:
    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        return results({"rows": standing})(way, request)

    with peer(answer) as server, pytest.raises(Unreadable, match=why):
        ovsdb.select(server, "NB", [PORTS])


def test_who_lost_the_lead_meanwhile_is_not_believed() -> None:
    stands = iter([True, False])

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        if request["params"][0] == "_Server":
            return results({"rows": [of("NB", leader=next(stands))]})(way, request)
        return usual(way, request) or rows(ROW)(way, request)

    with peer(answer) as server, pytest.raises(Unreadable, match="after NB was read there, it is a follower"):
        ovsdb.select(server, "NB", [PORTS])


def test_every_remote_is_tried_and_each_has_its_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        refusing = f"tcp:127.0.0.1:{gone.getsockname()[1]}"

    def follower(way: socket.socket, request: dict[str, Any]) -> bool:
        return results({"rows": [of("NB", leader=False)]})(way, request)

    with peer(follower) as one, peer(usual) as other:
        assert ovsdb.get_schema(Server((refusing, *one.remotes, *other.remotes), SECONDS), "NB")
        with pytest.raises(
            Unreadable, match=f"{refusing}: the connection is refused.*{one.remotes[0]}: it is a follower"
        ):
            ovsdb.get_schema(Server((refusing, *one.remotes), SECONDS), "NB")


# ------------------------------------------------------------------------------------------------------------ writing


def test_a_write_asks_for_what_it_expects_and_lasts() -> None:
    sent: list[Any] = []

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        sent.extend(request["params"])
        return results({}, {"count": 1}, {})(way, request)

    with peer(usual, answer) as server:
        assert acts.transact(server, "NB", [GUARD, WRITE]) == ({}, {"count": 1})
    guard = {
        "op": "wait", "timeout": 0, "table": "Port", "where": [["_uuid", "==", ["uuid", "p1"]]], "columns": ["name"],
        "until": "==", "rows": [{"name": "one"}],
    }  # fmt: skip
    assert sent == ["NB", guard, WRITE, {"op": "commit", "durable": True}]


@pytest.mark.parametrize("operations", [[], [WRITE], [{**GUARD, "timeout": 10}, WRITE], [{"op": "wait"}, WRITE]])
def test_a_write_that_expects_nothing_is_none_of_ours(operations: Sequence[acts.Operation]) -> None:
    with pytest.raises(ValueError, match="expects something"):
        acts.transact(Server(("tcp:127.0.0.1:1",), SECONDS), "NB", operations)


@pytest.mark.parametrize(("said", "kind", "why"), [
    ([{"error": "timed out", "details": "\"wait\" timed out"}, None, None], Moved, "the row of Port in NB is no"),
    ([{}, {"error": "timed out"}, None], Refused, "NB is not changed: timed out"),
    ([{}, {"error": "permission error", "details": "RBAC"}, None], Refused, "is not changed: permission error: RBAC"),
    ([{}, {"count": 1}, {}, {"error": "constraint violation", "details": "two"}], Refused, "constraint violation: two"),
    ([{}, {"count": 1}, {}, {"error": "cluster error", "details": "x"}], Outcomeless, "not known whether NB was ch"),
    ([{}, {"count": 1}], Outcomeless, "does not answer to each act"),
    ([{}, None, {}], Outcomeless, "does not answer to each act"),
    (None, Outcomeless, "does not answer to each act"),
])  # fmt: skip
def test_what_became_of_a_write(said: Any, kind: type[Exception], why: str) -> None:
    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        way.sendall(packed(request, said))
        return True

    with peer(usual, answer) as server, pytest.raises(kind, match=why):
        acts.transact(server, "NB", [GUARD, WRITE])


@pytest.mark.parametrize(("error", "kind"), [
    ("canceled", Outcomeless), ({"error": "syntax error"}, Refused), ({"error": "timed out"}, Refused),
])  # fmt: skip
def test_a_request_that_is_refused_as_a_whole(error: Any, kind: type[Exception]) -> None:
    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        way.sendall(packed(request, None, error))
        return True

    with peer(usual, answer) as server, pytest.raises(kind):
        acts.transact(server, "NB", [GUARD, WRITE])


@pytest.mark.parametrize("said", [b"", b'{"id": @, "result": [{}', b"rubbish"])
def test_after_it_was_sent_nobody_knows(said: bytes) -> None:
    with peer(usual, says(said)) as server, pytest.raises(Outcomeless, match="not known whether NB was changed: tcp:"):
        acts.transact(server, "NB", [GUARD, WRITE])


def test_a_server_that_never_answers_leaves_it_open() -> None:
    over = threading.Event()

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        over.wait(10)
        return False

    with peer(usual, answer) as server:
        with pytest.raises(Outcomeless, match="no answer within"):
            acts.transact(Server(server.remotes, dt.timedelta(seconds=0.3)), "NB", [GUARD, WRITE])
        over.set()


def test_where_nobody_leads_nothing_is_sent() -> None:
    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        assert request["params"][0] == "_Server"
        return results({"rows": [of("NB", leader=False)]})(way, request)

    with peer(answer) as server, pytest.raises(Trouble, match="nothing was sent: nobody leads NB"):
        acts.transact(server, "NB", [GUARD, WRITE])


@pytest.mark.parametrize("stays", [True, False])
def test_a_race_is_lost_for_sure_only_with_one_who_led_all_along(stays: bool) -> None:
    """One who lost the lead has sent it twice: the second time it meets what the first may have changed."""
    stands = iter([True, False])

    def answer(way: socket.socket, request: dict[str, Any]) -> bool:
        if request["params"][0] != "_Server":
            return results({"error": "timed out"}, None, None)(way, request)
        try:
            return (
                results({"rows": [of("NB", leader=next(stands))]})(way, request) if not stays else usual(way, request)
            )
        except StopIteration:
            return False

    with peer(answer) as server, pytest.raises(Moved if stays else Outcomeless):
        acts.transact(server, "NB", [GUARD, WRITE])


# ------------------------------------------------------------------------------------------------------- real servers

SWITCHES = Query("Logical_Switch", {"name": "atom", "ports": "set", "external_ids": "map", "newest": "set"})
SWITCH_PORTS = Query("Logical_Switch_Port", {
    "name": "atom", "type": "atom", "addresses": "set", "up": "set", "enabled": "set", "tag": "set",
    "external_ids": "map", "options": "map", "dhcpv4_options": "set",
})  # fmt: skip
NEW = Query("Newest_Table", {"name": "atom"})


@pytest.fixture(scope="module")
def northbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Northbound]:
    with Northbound(tmp_path_factory.mktemp("nb")) as found:
        found.fill("neutron-network", 5000)
        yield found


def secure(northbound: Northbound, who: str, ca: Path) -> Server:
    made = northbound.certificates
    return Server((northbound.ssl,), SECONDS, made.key(who), made.certificate(who), ca)


def read(server: Server, *queries: Query) -> list[Rows]:
    found = [one for one in ovsdb.select(server, DATABASE, queries) if one is not None]
    assert len(found) == len(queries)
    return found


@pytest.mark.real
@pytest.mark.parametrize("how", ["unix", "tcp", "ssl"])
def test_five_thousand_ports(northbound: Northbound, how: str) -> None:
    server = Server((getattr(northbound, how),), SECONDS)
    if how == "ssl":
        server = secure(northbound, "client", northbound.certificates.ca)
    switches, ports, new = ovsdb.select(server, DATABASE, [SWITCHES, SWITCH_PORTS, NEW])
    assert switches is not None
    assert ports is not None
    assert new is None
    assert switches.absent == {"newest"}
    assert (len(ports.rows), ports.absent) == (5000, frozenset())
    assert sorted(switches.rows[0]["ports"]) == sorted(row["_uuid"] for row in ports.rows)
    one = next(row for row in ports.rows if row["name"].endswith("-000000000007"))
    assert (one["up"], one["tag"], one["dhcpv4_options"]) == ([True], [], [])
    assert one["addresses"] == ["fa:16:3e:00:00:00 10.0.0.7"]
    assert one["external_ids"]["neutron:device_owner"] == "compute:nova"
    assert one["options"] == {"requested-chassis": "host-7"}


@pytest.mark.real
def test_what_is_read_is_in_the_real_schema(northbound: Northbound) -> None:
    schema = ovsdb.get_schema(Server((northbound.unix,), SECONDS), DATABASE)
    assert SWITCH_PORTS.columns.items() <= schema["Logical_Switch_Port"].items()
    assert schema["NB_Global"]["nb_cfg"] == "atom"


@pytest.mark.real
def test_nothing_asked_for_is_nothing_found(northbound: Northbound) -> None:
    assert ovsdb.select(Server((northbound.unix,), SECONDS), DATABASE, []) == ()
    (found,) = read(Server((northbound.unix,), SECONDS), Query("NAT", {"type": "atom"}))
    assert found.rows == ()


@pytest.mark.real
def test_rows_that_are_alike_are_all_found(northbound: Northbound) -> None:
    (ports,) = read(Server((northbound.tcp,), SECONDS), Query("Logical_Switch_Port", {"type": "atom"}))
    assert len(ports.rows) == 5000


@pytest.mark.real
def test_tls_is_verified_both_ways(northbound: Northbound, tmp_path: Path) -> None:
    made = northbound.certificates
    locked = tmp_path / "locked.key"
    run(["openssl", "pkey", "-in", made.key("client"), "-aes256", "-passout", "pass:word", "-out", locked])
    wrong = northbound.tcp.replace("tcp:", "ssl:")
    for server, why in (
        (secure(northbound, "client", made.stranger), "its certificate is not accepted: .*stranger.pem must hold"),
        # What it says before it hangs up, it may take along.
        (secure(northbound, "intruder", made.ca), r"accept our certificate|it refuses us \("),
        (
            Server((northbound.ssl,), SECONDS, ca=made.ca),
            r"accept our certificate|it refuses us \(.*certificate required",
        ),
        (Server((northbound.ssl,), SECONDS, locked, made.certificate("client"), made.ca), "or the key has a password"),
        (
            Server((northbound.ssl,), SECONDS, made.key("intruder"), made.certificate("client"), made.ca),
            "is no certific",
        ),
        (Server((wrong,), SECONDS, ca=made.ca), "TLS fails .* does it speak TLS on this port"),
        (Server((northbound.ssl.replace("ssl:", "tcp:"),), SECONDS), "does it want TLS|it speaks TLS"),
    ):
        with pytest.raises(Unreadable, match=why):
            ovsdb.get_schema(server, DATABASE)


@pytest.mark.real
def test_another_database_is_not_there(northbound: Northbound) -> None:
    with pytest.raises(Unreadable, match="it has no database OVN_Southbound, but OVN_Northbound"):
        ovsdb.get_schema(Server((northbound.tcp,), SECONDS), "OVN_Southbound")


@pytest.mark.real
def test_a_real_server_that_does_nothing(northbound: Northbound) -> None:
    northbound.pause()
    try:
        with pytest.raises(Unreadable, match="no answer within"):
            ovsdb.get_schema(Server((northbound.tcp,), dt.timedelta(seconds=0.5)), DATABASE)
    finally:
        northbound.resume()


def removal(server: Server, name: str) -> list[acts.Operation]:
    """Take a port out of its switch, as it is seen now."""
    queries = [Query("Logical_Switch_Port", SWITCH_PORTS.columns, (("name", "==", name),)), SWITCHES]
    (port,), switches = (found.rows for found in read(server, *queries))
    switch = next(row for row in switches if port["_uuid"] in row["ports"])
    marks = ovsdb.mapping(port["external_ids"])
    return [
        acts.expect("Logical_Switch_Port", port["_uuid"], {"name": name, "external_ids": marks}),
        {
            "op": "mutate", "table": "Logical_Switch", "where": [["_uuid", "==", ovsdb.uuid(switch["_uuid"])]],
            "mutations": [["ports", "delete", ovsdb.several([ovsdb.uuid(port["_uuid"])])]],
        },
    ]  # fmt: skip


def named(server: Server, name: str) -> Sequence[Any]:
    return read(server, Query("Logical_Switch_Port", {"external_ids": "map"}, (("name", "==", name),)))[0].rows


@pytest.mark.real
def test_a_guarded_write(northbound: Northbound) -> None:
    northbound.fill_few("neutron-small", ["stays", "goes"])
    server = secure(northbound, "client", northbound.certificates.ca)
    stays, goes = (removal(server, name) for name in ("stays", "goes"))
    assert acts.transact(server, DATABASE, goes) == ({}, {"count": 1})
    assert not named(server, "goes")
    with pytest.raises(Moved, match="the row of Logical_Switch_Port in OVN_Northbound is no longer as it was seen"):
        acts.transact(server, DATABASE, goes)

    where = [["name", "==", "stays"]]
    change = ["external_ids", "insert", ["map", [["neutron:revision_number", "9"]]]]
    northbound.transact({"op": "mutate", "table": "Logical_Switch_Port", "where": where, "mutations": [change]})
    with pytest.raises(Moved):
        acts.transact(server, DATABASE, stays)
    assert named(server, "stays")[0]["external_ids"] == {"neutron:revision_number": "9"}


@pytest.mark.real
def test_a_write_that_the_schema_forbids_writes_nothing(northbound: Northbound) -> None:
    server = Server((northbound.unix,), SECONDS)
    northbound.fill_few("neutron-kept", ["kept"])
    guard = removal(server, "kept")[0]
    insert = {"op": "insert", "table": "Address_Set", "row": {"name": "one"}}
    with pytest.raises(Refused, match="OVN_Northbound is not changed: constraint violation"):
        acts.transact(server, DATABASE, [guard, insert, insert])
    with pytest.raises(Refused, match="unknown column"):
        acts.transact(server, DATABASE, [guard, insert, {**insert, "row": {"no_such": "column"}}])
    assert read(server, Query("Address_Set", {"name": "atom"}))[0].rows == ()


@pytest.mark.real
def test_a_cluster_is_read_and_written_where_it_is_led(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        server = Server(cluster.remotes, SECONDS)
        leader = cluster.leader()
        leader.fill_few("neutron-small", ["one", "two"])
        assert len(named(server, "one")) == 1
        acts.transact(server, DATABASE, removal(server, "one"))
        for follower in (member for member in cluster.members if member is not leader):
            with pytest.raises(Unreadable, match="nobody leads OVN_Northbound.*it is a follower"):
                ovsdb.get_schema(Server((follower.tcp,), SECONDS), DATABASE)

        leader.stop(signal.SIGKILL)
        next_leader = cluster.leader()
        assert next_leader is not leader
        assert (len(named(server, "one")), len(named(server, "two"))) == (0, 1)
        operations = removal(server, "two")

        next_leader.stop(signal.SIGKILL)
        with pytest.raises(Unreadable, match="nobody leads OVN_Northbound among the remotes"):
            named(server, "two")
        alone = next(member for member in cluster.members if member not in (leader, next_leader))
        await_true("the last one knows that it is alone", lambda: cut_off(Server((alone.tcp,), SECONDS)))
        with pytest.raises(Trouble, match="nothing was sent"):
            acts.transact(server, DATABASE, operations)


def cut_off(server: Server) -> bool:
    with pytest.raises(Unreadable) as told:
        ovsdb.get_schema(server, DATABASE)
    return "it is cut off from its cluster" in str(told.value)


@pytest.mark.real
def test_a_leader_that_loses_the_others_in_a_write_leaves_it_open(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        leader = cluster.leader()
        leader.fill_few("neutron-small", ["one"])
        server = Server((leader.tcp,), dt.timedelta(seconds=3))
        operations = removal(server, "one")
        others = [member for member in cluster.members if member is not leader]
        for other in others:
            other.pause()
        with pytest.raises(Outcomeless, match="not known whether OVN_Northbound was changed"):
            acts.transact(server, DATABASE, operations)
        for other in others:
            other.resume()


def test_a_machine_without_ovn_leaves_it_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.bed.ovn.SCHEMA", tmp_path / "nowhere")
    with pytest.raises(Missing, match="OVN"), Northbound(tmp_path / "nb"):
        pass
