"""Two clouds on one NSX: what one of them has leaked there is found and deleted, and nothing of the other is touched.

NSX is the simulator; Neutron's and Keystone's databases are files, and the rest is a small demo cloud.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import checks
from cloudfsck.sources.nsx import KINDS
from tests import small
from tests.bed.nsx import Asked, Nsx, Refused, tags

#: What rests on Octavia too is not asked: the configuration here does not name it.
CHECKS = [name for name in checks.load() if name.startswith("nsx-") and "load-balancer" not in name]


def ident() -> str:
    return str(uuid.uuid4())


@dataclass
class Plugin:
    """Neutron with its plugin for NSX, of one cloud: what it makes stands in both, and what it leaks in NSX alone."""

    nsx: Nsx
    project: str = field(default_factory=lambda: uuid.uuid4().hex)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    loaded: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    leaked: set[str] = field(default_factory=set)

    def put(self, collection: str, scope: str, id: str, *, of: str = "", known: bool = True, **body: Any) -> str:
        """An object of what Neutron calls `of`, else by its own id.  What is not known is a leak."""
        marks = tags(**{scope: of or id}, os_project_id=self.project, os_project_name="one", os_api_version="17.0.0")
        self.below(collection, id, tags=marks, **body)
        if not known:
            self.leaked.add(f"/{collection}/{id}")
        return id

    def below(self, collection: str, id: str, **body: Any) -> None:
        """An object without the plugin's marks, as what belongs to another."""
        self.loaded.setdefault(collection, []).append({"id": id, **body})

    def row(self, table: str, id: str, **columns: Any) -> None:
        self.rows.setdefault(table, []).append({"id": id, "project_id": self.project, **columns})

    def network(self, ports: int, leaked_ports: int = 0, known: bool = True, router: str = "") -> str:
        """A segment, which has DHCP if it is on a router; all ports that Neutron has are some virtual machine's."""
        net = ident()
        segment = f"infra/segments/{net}"
        if known:
            self.row("networks", net)
        if router:
            self.put("infra/dhcp-server-configs", "os_neutron_net_id", net)
        of_router = {
            "connectivity_path": f"/infra/tier-1s/{router}", "dhcp_config_path": f"/infra/dhcp-server-configs/{net}",
        }  # fmt: skip
        self.put("infra/segments", "os_neutron_net_id", net, known=known, **(of_router if router else {}))
        for number in range(ports + leaked_ports):
            port, there = ident(), number < ports
            self.put(f"{segment}/ports", "os_neutron_port_id", port, known=there, attachment={"id": port})
            if there:
                self.row("ports", port, network_id=net, device_owner="", device_id="", mac_address=port)
                self.loaded.setdefault("fabric/vifs", []).append(
                    {"external_id": ident(), "lport_attachment_id": port, "owner_vm_id": ident()}
                )
            if number >= ports - 1:
                self.below(f"{segment}/ports/{port}/port-security-profile-binding-maps", port)
            if router and number < 2:
                self.put(f"{segment}/dhcp-static-binding-configs", "os_neutron_port_id", f"{port}-ipv4", of=port)
        return net

    def binding(self, net: str) -> None:
        """The DHCP binding of a port that is gone."""
        port = ident()
        at = f"infra/segments/{net}/dhcp-static-binding-configs"
        self.put(at, "os_neutron_port_id", f"{port}-ipv4", of=port, known=False)

    def group(self, service: str, known: bool = True) -> None:
        """A security group with a rule."""
        group, domain = ident(), "infra/domains/default"
        if known:
            self.row("securitygroups", group)
        for name in ("groups", "security-policies"):
            self.put(f"{domain}/{name}", "os_neutron_secg_id", group, known=known)
        rule = {"services": [f"/infra/services/{service}"], "destination_groups": [f"/{domain}/groups/{group}"]}
        self.below(f"{domain}/security-policies/{group}/rules", ident(), **rule)

    def router(self, known: bool = True) -> str:
        router = self.put("infra/tier-1s", "os_neutron_router_id", ident(), known=known)
        if known:
            self.row("routers", router)
        else:
            self.below(f"infra/tier-1s/{router}/locale-services", "default")
            self.below(f"infra/tier-1s/{router}/locale-services/default/interfaces", ident())
            self.below(f"infra/tier-1s/{router}/nat/USER/nat-rules", ident())
        return router

    def service(self, known: bool = True) -> str:
        rule = self.put("infra/services", "os_neutron_secgr_id", ident(), known=known)
        if known:
            self.row("securitygrouprules", rule)
        return rule

    def load(self) -> None:
        for collection, objects in self.loaded.items():
            self.nsx.load(collection, objects)

    @property
    def objects(self) -> int:
        return sum(len(many) for collection, many in self.loaded.items() if collection != "fabric/vifs")

    def write(self, folder: Path) -> None:
        """Neutron's database and Keystone's, with the tables that are read."""
        number = 0
        standard = []
        for many in self.rows.values():
            for row in many:
                number += 1
                row["standard_attr_id"] = number
                standard.append(
                    {"id": number, "revision_number": 1, "created_at": "2026-01-01", "updated_at": "2026-01-01"}
                )
        folder.mkdir(exist_ok=True)
        rows = {**self.rows, "standardattributes": standard}
        small.database(folder / "neutron.sqlite", ("neutron", "neutron_nsx"), rows)
        projects = [{"id": self.project, "name": "one", "enabled": True}]
        small.database(folder / "keystone.sqlite", ("keystone",), {"project": projects})


class User(small.User):
    """Who runs cloudfsck on the one cloud."""

    def __init__(self, folder: Path, nsx: Nsx, plugin: Plugin) -> None:
        plugin.write(folder)
        services = {service: folder / f"{service}.sqlite" for service in ("neutron", "keystone")}
        keys = f'managers = {json.dumps(nsx.urls)}\nuser = "admin"\npassword_env = "NSX_PASSWORD"\nrate = 100_000\n'
        sections = {"nsx": keys, "write.nsx": keys}
        super().__init__(folder, services, CHECKS, sections, NSX_PASSWORD=Nsx.ADMIN[1])


@pytest.fixture
def nsx() -> Iterator[Nsx]:
    with Nsx(managers=3) as nsx:
        nsx.rate = 0
        yield nsx


def populate(plugin: Plugin, size: int) -> None:
    """Some `size` objects of every kind, of which one in a hundred is a leak."""
    for number in range(size // 100):
        leaks = number % 8
        routers = [plugin.router() for _ in range(5)]
        net = plugin.network(33, leaked_ports=int(leaks == 0), router=routers[0])
        services = [plugin.service() for _ in range(21)]
        for service in services[:12]:
            plugin.group(service)
        match leaks:
            case 1:
                plugin.network(0, known=False)
            case 2:
                plugin.network(0, leaked_ports=1, known=False)
            case 3:
                plugin.router(known=False)
            case 4:
                plugin.group(services[0], known=False)
            case 5:
                plugin.service(known=False)
            case 6:
                plugin.binding(net)
    plugin.load()


def kind(path: str) -> str:
    """The last list in a path."""
    return path.split("/")[-2]


#: How many requests a reading of a leak takes where it is more than one: a port's interface is asked for, and what a
#: segment has of ports.
READING = {"ports": 2, "segments": 2}

#: And how many the act itself reads: once more all of that, and the lists of what belongs to it and goes with it.
ACT = {"ports": 2 + 3, "segments": 2 + 3, "tier-1s": 1 + 5}


def rereads(path: str) -> int:
    """How many requests it takes to read again one leak that is repaired: its finding is proven by two readings, gated
    by two with others, and by two of its own right before its act; then it is looked at, with what is below it; the act
    looks itself; and then whether it is gone is looked at."""
    below = kind(path) == "segments"
    return 6 * READING.get(kind(path), 1) + 1 + below + ACT.get(kind(path), 1) + 1


def pages(nsx: Nsx) -> int:
    """How many pages all lists have that are read, and those of what segments have."""
    below = []
    for one in nsx.all("infra/segments"):
        segment = f"infra/segments/{one['id']}"
        below += [f"{segment}/ports"]
        below += [f"{segment}/dhcp-static-binding-configs"] if "dhcp_config_path" in one else []
    top = [kind.list.removeprefix("/") for kind in KINDS["policy"] if kind.parent is None]
    return sum(max(1, -(-len(nsx.all(name)) // 1000)) for name in [*top, *below, "fabric/vifs"])


def dies(nsx: Nsx, managers: Iterable[int], method: str, after: int, done: bool = True) -> list[threading.Thread]:
    """Let managers die amid one of the requests to come, when so many were answered, and nobody hears whether it was
    `done`.  A manager is dead, with what it was doing, when its thread has ended."""
    deaths = [threading.Thread(target=nsx.managers[number].down) for number in managers]

    def does() -> None:
        nonlocal after
        after -= 1
        if after >= 0:
            nsx.fault(does, method=method)
            return
        for death in deaths:
            death.start()
        for number in managers:
            nsx.managers[number].deaf.wait()
        if not done:
            raise Refused(503, 503, "This manager is about to die.")

    nsx.fault(does, method=method)
    return deaths


def within(key: str, paths: set[str]) -> bool:
    """Whether that is one of these, or below one."""
    parts = f"/{key}".split("/")
    return any("/".join(parts[:length]) in paths for length in range(3, len(parts) + 1))


def of(asked: Iterable[Asked], *methods: str) -> list[Asked]:
    """What was asked so, and not refused for haste."""
    return [one for one in asked if one.status != 429 and one.method in methods]


@pytest.mark.parametrize(("size", "refuses"), [(2_000, 10), pytest.param(50_000, 50, marks=pytest.mark.long)])
def test_what_one_of_two_clouds_leaked_is_deleted_and_nothing_else(
    tmp_path: Path, nsx: Nsx, size: int, refuses: int
) -> None:
    ours, others = Plugin(nsx), Plugin(nsx)
    for plugin in (ours, others):
        populate(plugin, size // 2)
    nsx.load("infra/segments", [{"id": "uplink"}])  # an administrator's own
    nsx.load("infra/segments/uplink/ports", [{"id": "edge"}])
    nsx.load("infra/tier-1s", [{"id": "transit", "tags": tags(os_project_id=ours.project)}])
    nsx.refuses = refuses
    user = User(tmp_path / "ours", nsx, ours)
    assert ours.objects + others.objects == pytest.approx(size, rel=0.05)
    assert len(ours.leaked) == pytest.approx(ours.objects / 100, rel=0.3)
    before = nsx.contents()
    gone = {key for key in before if within(key, ours.leaked)}
    by_themselves = {key for key in gone if kind(key) != "rules"}  # a policy's rules are a part of it

    assert user.proven() == ours.leaked
    assert 429 in {one.status for one in nsx.asked}
    proofs = 2 * sum(READING.get(kind(path), 1) for path in ours.leaked)
    assert len(of(nsx.asked, "GET")) <= pages(nsx) + proofs

    dies(nsx, [0], "GET", after=len(of(nsx.asked, "GET")) // 2)
    asked = len(nsx.asked)
    assert user.proven() == ours.leaked, "the other managers tell the same"
    assert {one.manager for one in nsx.asked[asked:]} == {0, 1}
    assert nsx.writes == []

    at_most = pages(nsx) + len(by_themselves) + sum(map(rereads, ours.leaked))
    at_most += 2 * 2 + 2  # sessions with two managers, to read and to write; what became of the deletion that broke off
    nsx.fault(429, method="DELETE", times=3)
    dies(nsx, [1], "DELETE", after=len(by_themselves) // 2)
    asked = len(nsx.asked)
    ran = user("repair", "--yes")
    ran.came_to(1, dict.fromkeys(ours.leaked, "done"))
    now = nsx.asked[asked:]
    assert {one.manager for one in now} == {1, 2}
    assert {one.method for one in now if one.status == 429} >= {"GET", "DELETE"}
    deleted = [one.target.removeprefix("/policy/api/v1/") for one in of(now, "DELETE") if one.status == 200]
    assert sorted(deleted) == sorted(by_themselves), "each once"
    assert {method for method, _ in nsx.writes} == {"DELETE"}
    assert len(of(now, "GET", "POST", "DELETE")) <= at_most, "pages, repairs, what is read again for them, and sessions"

    assert nsx.contents() == {key: one for key, one in before.items() if key not in gone}
    nsx.refuses = 0
    ran = user("check")
    assert (ran.status, ran.data["findings"]) == (0, []), ran.out
    assert User(tmp_path / "others", nsx, others).proven() == others.leaked, "what the other cloud has leaked is there"


def without_its_own(contents: dict[str, str]) -> dict[str, Any]:
    """The objects but for what NSX itself writes into them, which what was put back has anew."""
    whole = {key: json.loads(one) for key, one in contents.items()}
    return {
        key: {name: value for name, value in one.items() if name[0] != "_" and name != "unique_id"}
        for key, one in whole.items()
    }


def test_what_nsx_has_no_time_for_to_the_end_is_left_whole(tmp_path: Path, nsx: Nsx) -> None:
    ours = Plugin(nsx)
    ours.network(1, leaked_ports=1)
    ours.router(known=False)
    ours.load()
    user = User(tmp_path, nsx, ours)
    assert user.proven() == user.proven() == ours.leaked
    before = nsx.contents()
    (port,) = (path for path in ours.leaked if kind(path) == "ports")
    nsx.fault(429, method="DELETE", kind="infra/segments/*/ports/*", times=1000)
    user("repair", "--yes").came_to(8, {port: "failed"})
    assert [method for method, _ in nsx.writes if method == "PUT"] == ["PUT"], "what belonged to it was put back"
    assert without_its_own(nsx.contents()) == without_its_own(before)
    nsx.faults.clear()
    user("repair", "--yes").came_to(1, dict.fromkeys(ours.leaked, "done"))


@pytest.mark.parametrize("done", [True, False])
def test_an_nsx_that_dies_amid_a_repair_is_not_guessed_about(tmp_path: Path, nsx: Nsx, done: bool) -> None:
    ours = Plugin(nsx)
    ours.network(1, leaked_ports=1)
    router = f"/infra/tier-1s/{ours.router(known=False)}"
    ours.load()
    user = User(tmp_path, nsx, ours)
    assert user.proven() == user.proven() == ours.leaked
    before = nsx.contents()
    (port,) = ours.leaked - {router}
    deaths = dies(nsx, range(3), "DELETE", after=1, done=done)  # what belongs to the port is gone by then
    user("repair", "--yes").came_to(8 + 4, {port: "unknown", router: "moved"})
    for death in deaths:
        death.join()
    gone = {key for key in before if within(key, {port})} - ({port.removeprefix("/")} if not done else set())
    assert nsx.contents() == {key: one for key, one in before.items() if key not in gone}
    for manager in nsx.managers:
        manager.up()
    assert user.proven() == ours.leaked - ({port} if done else set())
    user("repair", "--yes").came_to(1 if done else 1 + 4, {router: "done"})


def test_what_nsx_lost_of_neutrons_is_told(tmp_path: Path, nsx: Nsx) -> None:
    ours = Plugin(nsx)
    net, lost = ours.network(1), ours.network(0)
    ours.group(ours.service())
    ours.router()
    ours.load()
    user = User(tmp_path, nsx, ours)
    assert user.proven() == set()
    group, router = ours.rows["securitygroups"][0]["id"], ours.rows["routers"][0]["id"]
    for path in (f"segments/{lost}", f"domains/default/groups/{group}", f"tier-1s/{router}"):
        nsx.remove(f"infra/{path}")
    assert user.proven() == {lost, group, router}
    (port,) = (row["id"] for row in ours.rows["ports"])
    nsx.remove(f"infra/segments/{net}/ports/{port}")
    assert user.proven() == {lost, group, router}, "a port that no server has may be anybody's"


@pytest.mark.parametrize("does", ["no-cursor", "html", 500])
def test_what_of_nsx_was_not_read_is_unknown(tmp_path: Path, nsx: Nsx, does: Any) -> None:
    ours = Plugin(nsx)
    ours.network(1, leaked_ports=1)
    ours.router(known=False)
    ours.load()
    nsx.load("infra/services", [{"id": f"s{number:04d}"} for number in range(1100)])
    nsx.fault(does, kind="infra/services", times=1000)
    ran = User(tmp_path, nsx, ours)("check")
    assert {one["state"] for one in ran.data["findings"]} <= {"unproven"}, ran.out
    assert {one["check"] for one in ran.data["unknown"]} == set(CHECKS)
    assert ran.status == 8, ran.out
