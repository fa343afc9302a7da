"""A zone of a cloud's own on a real BIND and a real PowerDNS: what leads to nobody is found and taken away; all else
stays, also what somebody changes meanwhile; and it is put back record for record.

Nova's and Neutron's databases are files, and the rest is a small demo cloud.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import checks
from tests import small
from tests.bed.names import Bind, PowerDns, Record, key_file

ZONE, REVERSE = "cloud.test.", "10.in-addr.arpa."
NOBODYS = "dns-name-of-nobodys-address"
ANOTHERS = "dns-name-of-deleted-server-on-anothers-address"
CHECKS = [name for name in checks.load() if name.startswith("dns-")]

pytestmark = pytest.mark.real


def ident() -> str:
    return str(uuid.uuid4())


@dataclass
class Names:
    """What a cloud of so many servers has in the DNS, with what is wrong in it."""

    instances: list[tuple[str, str, bool]] = field(default_factory=list)
    ports: list[tuple[str, str, str]] = field(default_factory=list)
    forward: list[Record] = field(default_factory=list)
    reverse: list[Record] = field(default_factory=list)
    stale: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    number: int = 0

    def address(self) -> str:
        self.number += 1
        return ".".join(map(str, (10, self.number >> 16, self.number >> 8 & 255, self.number & 255)))

    def server(self, name: str, live: bool = True) -> str:
        """A server and its address, which is free where it does not live."""
        server, address = ident(), self.address()
        self.instances.append((server, name, live))
        if live:
            self.ports.append((ident(), server, address))
        return address

    def named(self, name: str, address: str, ttl: str = "300") -> None:
        self.forward.append((f"{name}.{ZONE}", ttl, "A", address))

    @property
    def told(self) -> set[tuple[str, str]]:
        """What is left to a person."""
        return {(ANOTHERS, key) for key in self.doubled}

    def pointer(self, name: str, address: str) -> str:
        at = ".".join(reversed(address.split("."))) + ".in-addr.arpa."
        self.reverse.append((at, "300", "PTR", f"{name}.{ZONE}"))
        return at


def populate(size: int) -> Names:
    """`size` records: of a hundred one is stale, two in a thousand are second names of somebody's address, and five in
    a hundred are somebody else's."""
    names = Names()
    for number in range(size // 100):
        match number % 4:  # a name of a deleted server, with and without its PTR; and one too many of a live one's
            case 0 | 1:
                address = names.server(f"dead-{number}", live=False)
                names.named(f"dead-{number}", address, ttl="77")
                names.stale.add(f"dead-{number}.{ZONE} {address}")
                if number % 4:
                    names.stale.add(f"{names.pointer(f'dead-{number}', address)} dead-{number}.{ZONE}")
            case 2:
                names.named(f"two-{number}", names.server(f"two-{number}"))
                names.named(f"two-{number}", address := names.address())
                names.stale.add(f"two-{number}.{ZONE} {address}")
            case 3:
                names.named(f"late-{number}", address := names.server(f"late-{number}", live=False))
                names.stale.add(f"late-{number}.{ZONE} {address}")
    for number in range(size // 500):
        address = names.server(f"new-{number}")
        names.server(f"old-{number}", live=False)
        for name in ("new", "old"):
            names.named(f"{name}-{number}", address)
        names.doubled.add(f"old-{number}.{ZONE} {address}")
    for number in range(size // 100):
        names.named(f"printer-{number}", f"192.168.{number >> 8 & 255}.{number & 255}")
        names.named(f"Web-{number}.legacy", names.address())
        names.forward.append((f"alias-{number}.{ZONE}", "300", "CNAME", f"new-0.{ZONE}"))
        names.forward.append((f"dead-{number}.{ZONE}", "300", "TXT", f'"of {number}; nobody\'s"'))
        names.named(f"round-{number // 5}", f"172.16.{number >> 8 & 255}.{number & 255}")
    names.forward.append((f"*.apps.{ZONE}", "60", "A", "10.255.0.1"))
    for number in range(size - len(names.forward)):
        address = names.server(f"web-{number}")
        names.named(f"web-{number}", address)
        if number % 100 == 0:
            names.pointer(f"web-{number}", address)
    return names


def neutron(path: Path, names: Names) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "ports": [{"id": port, "device_id": server, "device_owner": "compute:nova", "standard_attr_id": number}
                  for number, (port, server, _) in enumerate(names.ports, start=1)],
        "ipallocations": [{"port_id": port, "ip_address": address, "subnet_id": "subnet"}
                          for port, _, address in names.ports],
        "standardattributes": [{"id": number} for number in range(1, len(names.ports) + 1)],
    }  # fmt: skip
    small.database(path, ("neutron",), rows)


def nova(databases: Path, names: Names) -> None:
    with closing(sqlite3.connect(databases / "nova_cell1.sqlite")) as db, db:
        db.executemany(
            "INSERT INTO instances (id, uuid, hostname, vm_state, deleted, deleted_at, launched_at, created_at) VALUES"
            " (?, ?, ?, ?, ?, ?, datetime('2026-01-01', '+' || ? || ' minutes'), '2026-01-01')",
            (
                (1000 + number, server, name, "active" if live else "deleted", 0 if live else 1000 + number,
                 None if live else "2026-02-02", number)
                for number, (server, name, live) in enumerate(names.instances)
            ),
        )  # fmt: skip
        db.execute("CREATE INDEX instances_uuid ON instances (uuid)")


def user(folder: Path, names: Names, server: Bind | PowerDns, **more: str) -> small.User:
    neutron(folder / "neutron.sqlite", names)
    sections = {
        "dns": f'key_file = "{server.transfer}"\n',
        "write.dns": f'key_file = "{server.update}"\n',
    } | {
        f'dns.zone."{zone}"': f'servers = ["{server.address}"]\nnames = ["{template}"]\nsubnets = ["10.0.0.0/8"]\n'
        for zone, template in ((ZONE, "{hostname}.{zone}"), (REVERSE, f"{{hostname}}.{ZONE}"))
    } | more  # fmt: skip
    made = small.User(folder, {"neutron": folder / "neutron.sqlite"}, CHECKS, sections)
    nova(made.configuration.parent / "databases", names)
    return made


def all_of(server: Bind | PowerDns) -> set[tuple[str, ...]]:
    return server.records(ZONE) | server.records(REVERSE)


def without(records: set[tuple[str, ...]], keys: set[str]) -> set[tuple[str, ...]]:
    """What remains where only these are taken away."""
    return {one for one in records if f"{one[0]} {one[4]}" not in keys}


@pytest.fixture(params=[Bind, PowerDns])
def kind(request: pytest.FixtureRequest) -> type[Bind | PowerDns]:
    made: type[Bind | PowerDns] = request.param
    return made


@pytest.mark.parametrize("size", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_what_leads_to_nobody_is_taken_away_and_put_back(
    tmp_path: Path, kind: type[Bind | PowerDns], size: int
) -> None:
    names = populate(size)
    with kind(tmp_path / "dns", {ZONE: names.forward, REVERSE: names.reverse}) as server:
        cloudfsck = user(tmp_path, names, server)
        ran = cloudfsck("check")
        assert ran.data["unknown"] == [], ran.out
        assert ran.found("proven") == {(NOBODYS, key) for key in names.stale} | names.told
        before = all_of(server)
        plan = tmp_path / "plan.json"
        assert cloudfsck("plan", "-o", str(plan)).status == 4
        assert len(json.loads(plan.read_text())["acts"]) == len(names.stale)

        changed = sorted(key for key in names.stale if key.startswith(("dead", "late")))[:3]
        first, second, third = (key.partition(" ")[0] for key in changed)
        server.change(f"update add {first} 77 A 10.254.0.1")
        server.change(f"update delete {second} A", f"update add {second} 77 A 10.254.0.2")
        server.change(f"update delete {third} A")
        between = all_of(server)
        assert between != before
        ran = cloudfsck("repair", str(plan), "--yes")
        ran.came_to(1 | 4, {key: "moved" if key in changed else "done" for key in names.stale})
        assert all_of(server) == without(between, names.stale - set(changed))

        ran = cloudfsck("undo", cloudfsck("undo").data[-1]["run"], "--yes")
        assert set(ran.outcomes.values()) == {"done"}, ran.out
        assert all_of(server) == between


def test_names_and_pointers_that_do_not_lead_to_each_other_are_told(
    tmp_path: Path, kind: type[Bind | PowerDns]
) -> None:
    names = Names()
    for number in range(6):
        names.named(f"web-{number}", address := names.server(f"web-{number}"))
        names.pointer(f"web-{number}", address)
    names.named("lone", lone := names.server("lone"))
    gone = names.pointer("gone", names.server("nameless"))
    named = {one[0].removesuffix(f".{ZONE}") for one in names.forward}
    (nameless,) = (server for server, name, _ in names.instances if name not in named)
    with kind(tmp_path / "dns", {ZONE: names.forward, REVERSE: names.reverse}) as server:
        ran = user(tmp_path, names, server)("check")
        assert ran.data["unknown"] == [], ran.out
        assert ran.found("proven") == {
            ("dns-name-without-pointer", f"lone.{ZONE} {lone}"),
            ("dns-name-does-not-lead-back", f"{gone} gone.{ZONE}"),
            ("dns-name-of-server-missing", f"{nameless} {ZONE} {names.ports[-1][2]}"),
        }


def test_a_server_that_dies_before_the_repair_is_told_nothing(tmp_path: Path, kind: type[Bind | PowerDns]) -> None:
    names = populate(400)
    with kind(tmp_path / "dns", {ZONE: names.forward, REVERSE: names.reverse}) as server:
        cloudfsck = user(tmp_path, names, server)
        cloudfsck.proven()
        before = all_of(server)
        plan = tmp_path / "plan.json"
        cloudfsck("plan", "-o", str(plan))
        server.stop()
        ran = cloudfsck("repair", str(plan), "--yes")
        assert set(ran.outcomes.values()) == {"moved"}, ran.out
        ran = cloudfsck("check")
        assert ran.status & 8
        assert "it cannot be reached: Connection refused" in ran.out
        server.start()
        assert all_of(server) == before


def test_a_key_that_may_not_changes_nothing(tmp_path: Path) -> None:
    names = populate(400)
    with Bind(tmp_path / "dns", {ZONE: names.forward, REVERSE: names.reverse}) as server:
        cloudfsck = user(tmp_path, names, server, **{"write.dns": f'key_file = "{server.transfer}"\n'})
        cloudfsck.proven()
        before = all_of(server)
        ran = cloudfsck("repair", "--yes")
        assert ran.status & 8
        assert "REFUSED: it does not let this key change" in ran.err + ran.out
        assert all_of(server) == before


def test_a_wrong_secret_is_said(tmp_path: Path, kind: type[Bind | PowerDns]) -> None:
    names = populate(400)
    with kind(tmp_path / "dns", {ZONE: names.forward, REVERSE: names.reverse}) as server:
        wrong = key_file(tmp_path, "transfer", "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc=")
        cloudfsck = user(tmp_path, names, server, dns=f'key_file = "{wrong}"\n')
        ran = cloudfsck("check")
        assert ran.status & 8
        assert ran.data["findings"] == []
        told = {gap["why"] for gap in ran.data["unknown"] if gap["table"] == "dns_records"}
        assert len(told) == 2, "of each zone"
        assert all("key" in why or "TSIG" in why for why in told), told
