"""Zones as real servers tell them: whole and name by name, odd records, and every way in which one does not tell."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloudfsck.config import Dns, Zone
from cloudfsck.model import Piece, Scope
from cloudfsck.sources import dns
from tests import small
from tests.bed.names import Bind, PowerDns, Record, key_file

pytestmark = pytest.mark.real

ZONE = "cloud.test."
SECONDARY = "dns-zone-differs-on-secondary"
PLAIN: list[Record] = [(f"web-{number}.{ZONE}", "300", "A", f"10.0.0.{number}") for number in range(1, 4)]


def own(*servers: str) -> Zone:
    return Zone.model_validate(
        {"servers": servers or ("ns",), "names": ["{hostname}.{zone}"], "subnets": ["10.0.0.0/8", "fd00::/8"]}
    )


def copy(server: Bind | PowerDns, key: Path | None = None, seconds: float = 20, address: str = "") -> dns.Copy:
    at = address or server.address
    return dns.Copy(ZONE, at, key or server.transfer, seconds, own(at))


def read(one: dns.Copy, *names: str) -> dict[str, Piece]:
    scope = Scope(frozenset(names), None, frozenset({one.part})) if names else Scope()
    return {piece.table: piece for piece in dns.read([one], scope)}


def rows(one: dns.Copy, *names: str) -> list[dict[str, Any]]:
    pieces = read(one, *names)
    assert pieces["dns_records"].why is None, pieces["dns_records"].why
    found: list[dict[str, Any]] = pieces["dns_records"].rows.to_pylist()
    return found


def why(one: dns.Copy, *names: str) -> str:
    pieces = read(one, *names)
    assert {piece.rows for piece in pieces.values()} == {None}, "of neither table"
    (said,) = {piece.why for piece in pieces.values()}
    assert said is not None
    assert said.startswith(f"{one.server} does not tell {ZONE}: ")
    return said


@pytest.fixture(scope="module", params=[Bind, PowerDns])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind | PowerDns]:
    records = [
        *PLAIN,
        (f"WEB-4.{ZONE}", "60", "A", "10.0.0.4"),
        (f"six.{ZONE}", "300", "AAAA", "fd00:0:0::6"),
        (f"elsewhere.{ZONE}", "300", "A", "192.0.2.1"),
        (f"a.b.{ZONE}", "300", "A", "10.0.0.5"),
        (f"round.{ZONE}", "300", "A", "10.0.0.6"),
        (f"round.{ZONE}", "300", "A", "10.0.0.7"),
        (f"alias.{ZONE}", "300", "CNAME", f"Web-1.{ZONE}"),
        (f"*.apps.{ZONE}", "60", "A", "10.0.0.8"),
        (f"own.apps.{ZONE}", "60", "A", "10.0.0.9"),
        (f"web-1.{ZONE}", "300", "TXT", '"of; nobody\'s \\"concern\\""'),
        (ZONE, "300", "MX", f"10 mail.{ZONE}"),
    ]
    with request.param(tmp_path_factory.mktemp("dns"), {ZONE: records}) as made:
        yield made


def test_a_whole_zone_and_whose_its_names_are(server: Bind | PowerDns) -> None:
    found = {(row["name"], row["type"]): row for row in rows(copy(server)) if row["name"] != f"round.{ZONE}"}
    assert found[f"web-4.{ZONE}", "A"] == {
        "name": f"web-4.{ZONE}", "type": "A", "ttl": 60, "data": "10.0.0.4", "address": "10.0.0.4",
        "hostname": "web-4", "ours": True, "pointer": "4.0.0.10.in-addr.arpa.", "zone": ZONE,
    }  # fmt: skip
    assert found[f"six.{ZONE}", "AAAA"]["address"] == "fd00::6"
    assert found[f"elsewhere.{ZONE}", "A"]["ours"] is False
    assert found[f"a.b.{ZONE}", "A"]["hostname"] is None
    assert found[f"alias.{ZONE}", "CNAME"]["data"] == f"web-1.{ZONE}"
    assert (f"web-1.{ZONE}", "TXT") in found
    assert (ZONE, "SOA") not in found
    (zone,) = read(copy(server))["dns_zones"].rows.to_pylist()
    assert zone == {"zone": ZONE, "server": server.address, "serial": 1, "own": True, "first": True}


def test_some_names_say_what_the_whole_says_of_them(server: Bind | PowerDns) -> None:
    whole = rows(copy(server))
    for name in (f"web-1.{ZONE}", f"web-4.{ZONE}", f"round.{ZONE}", f"six.{ZONE}", f"alias.{ZONE}", f"no.{ZONE}"):
        asked = [row for row in whole if row["name"] == name and row["type"] in dns.TYPES]
        assert sorted(rows(copy(server), name), key=str) == sorted(asked, key=str), name
    assert rows(copy(server), f"other.apps.{ZONE}") == [], "a wildcard makes it"
    assert [row["data"] for row in rows(copy(server), f"own.apps.{ZONE}")] == ["10.0.0.9"]
    assert rows(copy(server), "web-1.other.test.") == [], "of another zone"
    assert len(rows(copy(server), ZONE)) == len(whole), "the zone's own name asks for all of it"


def test_odd_records(tmp_path: Path) -> None:
    long = ".".join(["l" * 63, "m" * 63, "n" * 63, "o" * 49])
    odd: list[Record] = [
        (f"\\195\\188ber.{ZONE}", "300", "A", "10.0.0.1"),
        (f"{long}.{ZONE}", "300", "A", "10.0.0.2"),
        (f"unknown.{ZONE}", "300", "TYPE65280", "\\# 4 0A000001"),
        (f"with\\.dot.{ZONE}", "300", "A", "10.0.0.3"),
        (f"text.{ZONE}", "300", "TXT", '"\\255\\254"'),
        (f"empty.{ZONE}", "300", "TXT", '""'),
    ]
    with Bind(tmp_path, {ZONE: [*PLAIN, *odd]}) as server:
        found = rows(copy(server))
        assert len(found) == len(PLAIN) + len(odd) + 2, "and NS, with its address"
        named = {row["name"]: row for row in found}
        assert named[f"{long}.{ZONE}"]["hostname"] is None
        assert named[f"unknown.{ZONE}"]["type"] == "TYPE65280"
        assert named[f"with\\.dot.{ZONE}"]["hostname"] is None
        assert named[f"\\195\\188ber.{ZONE}"]["hostname"] is None


@contextmanager
def cut(server: Bind, after: int) -> Iterator[str]:
    """A way to a server that breaks off once so many bytes of its answer came through."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", server.port)) as beyond:
                beyond.sendall(client.recv(65536))
                left = after
                while left > 0 and (data := beyond.recv(min(left, 65536))):
                    client.sendall(data)
                    left -= len(data)

    threading.Thread(target=serve, daemon=True).start()
    with closing(listener):
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_transfer_that_breaks_off_is_a_gap(tmp_path: Path) -> None:
    many: list[Record] = [(f"web-{n}.{ZONE}", "300", "A", f"10.1.{n >> 8}.{n & 255}") for n in range(5000)]
    with Bind(tmp_path, {ZONE: many}) as server:
        whole = len(rows(copy(server)))
        for after in (1, 1000, 70_000):
            with cut(server, after) as address:
                assert why(copy(server, address=address, seconds=5))
        with cut(server, 10_000_000) as address:
            assert len(rows(copy(server, address=address))) == whole


def test_who_does_not_tell_says_why(server: Bind | PowerDns, tmp_path: Path) -> None:
    wrong = key_file(tmp_path, "transfer", "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc=")
    for key in (wrong, server.update):
        assert "key" in (said := why(copy(server, key))) or "refuses" in said or "TSIG" in said
        assert "\n" not in said
    (tmp_path / "no.key").write_text("secret")
    assert "holds no key as tsig-keygen writes it" in why(copy(server, tmp_path / "no.key"))
    assert "cannot be read" in why(copy(server, tmp_path / "none.key"))
    strange = dns.Copy("lame.test.", server.address, server.transfer, 20, own(server.address))
    for names in ((), ("web-1.lame.test.",)):
        (lame,) = {piece.why for piece in read(strange, *names).values()}
        assert lame is not None
        assert lame.startswith(f"{server.address} does not tell lame.test.: "), "a lame server"


def test_a_server_that_is_away_or_asleep(tmp_path: Path) -> None:
    with Bind(tmp_path, {ZONE: PLAIN}) as server:
        server.pause()
        assert "was not done in 2 s" in why(copy(server, seconds=2))
        assert "no answer came in 2 s" in why(copy(server, seconds=2), f"web-1.{ZONE}")
        server.pause(False)
        server.stop()
        for names in ((), (f"web-1.{ZONE}",)):
            assert "it cannot be reached: Connection refused" in why(copy(server), *names)
    assert "cannot be reached" in why(dns.Copy(ZONE, "no-such-host.invalid", None, 5, own("x")), f"web-1.{ZONE}")


def test_three_servers_with_three_answers(tmp_path: Path) -> None:
    other: list[Record] = [*PLAIN[:2], (f"web-3.{ZONE}", "300", "A", "10.0.0.33")]
    with (
        Bind(tmp_path / "one", {ZONE: PLAIN}) as first,
        Bind(tmp_path / "two", {ZONE: other}) as second,
        Bind(tmp_path / "three", {ZONE: PLAIN[:2]}) as third,
        Bind(tmp_path / "four", {ZONE: ()}, primary=first.address) as secondary,
    ):
        second.change(f"zone {ZONE}", f"update add web-9.{ZONE} 300 A 10.0.0.9")  # and so its serial is the later one
        servers = [one.address for one in (first, second, third, secondary)]
        zone = f'servers = {servers}\nnames = ["{{hostname}}.{{zone}}"]\nsubnets = ["10.0.0.0/8"]\n'.replace("'", '"')
        sections = {"dns": f'key_file = "{first.transfer}"\n', f'dns.zone."{ZONE}"': zone}
        user = small.User(tmp_path, {}, [SECONDARY], sections)
        ran = user("check")
        assert ran.data["unknown"] == []
        found = {one["key"]: one for one in ran.data["findings"]}
        assert set(found) == {f"{ZONE}@{second.address}", f"{ZONE}@{third.address}"}
        assert "later" in found[f"{ZONE}@{second.address}"]["evidence"].get("by_hand", "later")
        assert found[f"{ZONE}@{third.address}"]["evidence"]["differences"] == [f"lacks web-3.{ZONE} A 10.0.0.3"]
        said = user("doctor").out
        assert f"{ZONE}@{secondary.address}" in said


def test_what_is_written_wrongly_is_said(tmp_path: Path) -> None:
    def refused(**settings: object) -> str:
        with pytest.raises(ValueError, match="dns|servers|zone") as caught:
            Dns.model_validate(settings)
        return str(caught.value)

    good = {"servers": ["192.0.2.53"], "names": ["{hostname}.{zone}"], "subnets": ["10.0.0.0/8"]}
    assert set(Dns.model_validate({"zone": {"Cloud.Test": good}}).zone) == {"cloud.test."}
    assert "a DNS server is written as" in refused(servers=["192.0.2.53:99999"])
    assert "a DNS server is written as" in refused(servers=["-f"])
    assert "the name of a zone is written as" in refused(zone={"a b": good})
    assert "a name is written as" in refused(zone={"cloud.test": {**good, "names": ["{zone}"]}})
    assert "subnets" in refused(zone={"cloud.test": {**good, "subnets": ["10.0.0.1/8"]}})
