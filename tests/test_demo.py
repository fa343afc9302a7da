"""The demo cloud is made whole, touches nothing else, and its stand-ins answer as the real programs do."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import config, demo
from cloudfsck.acts import ovn as sender
from cloudfsck.acts import ovn_port
from cloudfsck.demo import cloud, databases, hosts, kernel, names, network, neutron, ovn, virsh
from cloudfsck.model import Moved, Trouble
from cloudfsck.sources import nova, probe
from cloudfsck.sources import ovn as source
from cloudfsck.sources.database import Database, Login

ROOT = Path(demo.__file__).parents[1]
#: Taken from virsh 9.0.0 with libvirt 9.0.0 and QEMU 7.2, one command after the other on a host without domains.
RECORDED = Path(__file__).parent / "recordings"
GUEST = "b0b7c3d4-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo with all damage, which no test changes."""
    return demo.make(tmp_path_factory.mktemp("demo") / "cloud", by_hand=True).parent


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, of which each test may change what no other looks at."""
    return demo.make(tmp_path_factory.mktemp("demo") / "changed").parent


def send(python: str | None, program: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run one of the programs for hypervisors as it is run there: piped into python, its request before it."""
    assert python is not None
    text = f"REQUEST = {json.dumps({'version': 1, 'nonce': 'n1', **request})!r}\n" + (ROOT / program).read_text()
    done = subprocess.run([python, "-"], input=text, capture_output=True, text=True, check=True)
    found = re.search(r"^@@cloudfsck n1 begin@@\n(.*)\n@@cloudfsck n1 end@@$", done.stdout, re.MULTILINE)
    assert found, done.stderr
    answer: dict[str, Any] = json.loads(found[1])
    return answer


def reading(place: Path, **more: Any) -> dict[str, Any]:
    settings = config.load(place.parents[1] / "cloudfsck.toml").place(place.name)
    given = {
        "virsh": settings.virsh, "ovs_vsctl": settings.ovs_vsctl, "nova_conf": settings.nova_conf,
        "instances_path": settings.instances_path,
    }  # fmt: skip
    roots = {"proc": settings.proc, "sys": settings.sys, "dev": settings.dev}
    return send(settings.python, "sources/probe.py", {**given, **roots, "servers": None, **more})


def acting(place: Path, **act: Any) -> dict[str, Any]:
    settings = config.load(place.parents[1] / "cloudfsck.toml").place(place.name)
    roots = {"proc": settings.proc, "sys": settings.sys, "dev": settings.dev, "state_dir": settings.state_dir}
    given = {"virsh": settings.virsh, "cloud": "demo", "fence": 1}
    return send(settings.python, "acts/hand.py", {**given, **roots, "act": act})


def server(name: str) -> cloud.Server:
    return next(one for one in cloud.servers(by_hand=True) if one.name == name)


def only(rows: list[dict[str, Any]], uuid: str, key: str = "uuid") -> dict[str, Any]:
    (row,) = [row for row in rows if row[key] == uuid]
    return row


# -- making it


def paths(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def test_it_is_made_again_in_place_of_an_earlier_one(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    first = demo.make(place)
    was, text = paths(place), first.read_text()
    (place / "plan.json").write_text("of the user")
    (place / "state").mkdir()
    (place / "hosts/compute1/instances/extra").touch()
    assert demo.make(place) == first == place / "cloudfsck.toml"
    assert paths(place) == sorted([*was, "plan.json"])
    assert first.read_text() == text


def test_it_is_made_in_an_empty_directory(tmp_path: Path) -> None:
    assert demo.make(tmp_path).exists()


def test_nothing_of_anybody_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    with pytest.raises(Trouble, match="is not empty"):
        demo.make(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(Trouble, match="is not empty"):
        demo.make(tmp_path / "file")
    assert paths(tmp_path) == ["file", "hosts"]


def test_a_link_in_an_earlier_one_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    place = demo.make(tmp_path / "demo").parent
    (place / "state").symlink_to(tmp_path / "precious")
    demo.make(place)
    assert (tmp_path / "precious/file").exists()
    assert not (place / "state").exists()


def test_a_path_that_no_database_url_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="cannot hold '#' '\\?'"):
        demo.make(tmp_path / "what?#")
    with pytest.raises(Trouble, match="the socket of its OVN cannot have so long a path"):
        demo.make(tmp_path / ("long" * 25))
    assert paths(tmp_path) == []


def test_the_configuration_is_right_and_leads_to_the_cells(made: Path) -> None:
    settings = config.load(made / "cloudfsck.toml")
    assert settings.cloud.state == made / "state"
    cells = nova.cells(Database("nova_api", settings.nova.api_database), Login(), settings.nova.template)
    assert {cell.name: cell.url for cell in cells} == {
        name: f"sqlite:///{made}/databases/nova_{name}.sqlite" for name in ("cell0", "cell1", "cell2")
    }
    assert sorted(settings.host) == sorted(cloud.HOSTS)


def test_every_server_stands_where_the_story_says(made: Path) -> None:
    found = {}
    for cell in ("cell0", "cell1", "cell2"):
        with sqlite3.connect(made / f"databases/nova_{cell}.sqlite") as db:
            for table, row in (("instances", "live"), ("shadow_instances", "shadow")):
                for name, host, deleted in db.execute(f"SELECT display_name, host, deleted FROM {table}"):
                    found[name] = (cell, host, "deleted" if row == "live" and deleted else row)
        db.close()
    told = cloud.servers(by_hand=True)
    assert found == {one.name: (one.cell, one.host, one.row) for one in told if one.row not in ("purged", "none")}
    assert len({one.name for one in told}) == len(told)
    assert server("api-3").uuid == demo.SHOWN


def ports(place: Path) -> dict[str, dict[str, Any]]:
    with sqlite3.connect(place / "databases/neutron.sqlite") as db:
        db.row_factory = sqlite3.Row
        found = {row["id"]: dict(row) for row in db.execute(
            "SELECT p.*, revision_number, host FROM ports p JOIN standardattributes s ON s.id = p.standard_attr_id"
            " JOIN ml2_port_bindings b ON b.port_id = p.id AND b.status = 'ACTIVE'")}  # fmt: skip
    db.close()
    return found


def test_every_server_has_the_port_of_the_story(made: Path) -> None:
    told = {one.uuid: one for one in cloud.servers(by_hand=True)}
    found = {row["device_id"]: row for row in ports(made).values() if row["device_owner"] == "compute:nova"}
    assert set(found) == {one.uuid for one in told.values() if one.linked}
    for uuid, row in found.items():
        one = told[uuid]
        assert (row["id"], row["mac_address"]) == (one.port, one.mac)
        assert row["host"] == (one.link.bound or (cloud.IRONIC[2] if one.host == cloud.IRONIC[0] else one.host or ""))
        assert (row["status"] == "ACTIVE") == any(guest.host == one.host and guest.up for guest in one.guests) or (
            one.name in ("metal-1", "building-2")
        )


def test_no_address_is_given_twice(made: Path) -> None:
    net = network.network(cloud.servers(by_hand=True), by_hand=True)
    assert len({(port.network, port.address) for port in net.ports}) == len(net.ports)
    assert len({port.mac for port in net.ports}) == len(net.ports)
    assert len({port.id for port in net.ports}) == len(net.ports)


def test_secrets_stand_in_the_databases_alone(made: Path) -> None:
    password, chap, api = (secret.encode() for secret in (*databases.SECRETS, neutron.PASSWORD))
    holders: dict[bytes, set[str]] = {password: set(), chap: set(), api: set()}
    for path in made.rglob("*"):
        if path.is_file() and not path.is_symlink():
            for secret in holders:
                if secret in path.read_bytes():
                    holders[secret].add(path.name)
    assert holders == {
        password: {"nova_api.sqlite"},
        chap: {"cinder.sqlite", "nova_cell1.sqlite", "nova_cell2.sqlite"},
        api: {"clouds.yaml"},
    }
    assert (made / "clouds.yaml").stat().st_mode & 0o077 == 0


# -- reading it


@pytest.mark.parametrize("host", cloud.HOSTS)
def test_the_probe_reads_every_host_whole(made: Path, host: str) -> None:
    answer = reading(made / "hosts" / host)
    assert answer["failed"] == {}
    told = cloud.servers(by_hand=True)
    guests = {one.uuid: guest for one in told for guest in one.guests if guest.host == host}
    domains = {row["uuid"]: row for row in answer["domains"] if row["nova"]}
    assert {uuid: (row["state"], row["reason"]) for uuid, row in domains.items()} == {
        uuid: (guest.state.replace("shut off", "shutoff"), guest.reason) for uuid, guest in guests.items()
    }
    assert all(domains[uuid]["persistent"] == guest.persistent for uuid, guest in guests.items())
    assert all((domains[uuid]["job"] is not None) == (guest.job is not None) for uuid, guest in guests.items())
    own = {row["name"] for row in answer["domains"] if not row["nova"]}
    assert own == ({"router-vm"} if host == "compute3" else set())
    # Every guest that runs has a process, and it holds its disk open.
    running = {uuid for uuid, guest in guests.items() if guest.up is not None}
    assert {row["uuid"] for row in answer["processes"]} - {cloud.ident("domain", "router-vm")} == running
    entries = {row["name"]: row for row in answer["instances"]["entries"]}
    folders = {f"{one.uuid}{tree.suffix}": one for one in told for tree in one.folders if tree.host == host}
    assert set(entries) == {*folders, "_base", "compute_nodes", "locks", "snapshots"}
    for name, one in folders.items():
        held = one.uuid in running and (one.root == "image" or one.config_drive)
        assert bool(entries[name]["open_by"]) == held, one.name
    assert answer["instances"]["sharing"][0]["host"] == host
    images = answer["instances"]["images"]
    base = str(made / "hosts" / host / "instances/_base" / hosts.base_name(cloud.IMAGE))
    assert {image["backing"] for image in images if image["path"].endswith("/disk")} == {base}


@pytest.mark.parametrize("host", cloud.HOSTS)
def test_every_volume_has_the_devices_of_the_story(made: Path, host: str) -> None:
    storage = reading(made / "hosts" / host)["storage"]
    told = cloud.servers(by_hand=True)
    ways = {
        one.volumes[target]: (one, way)
        for one in told
        for target in one.volumes
        if (way := one.way(target)) and any(guest.host == host and guest.up for guest in one.guests)
    }
    left = {
        one.volumes["vdb"]: (one, way)
        for one in told
        for place in one.left
        if place == cloud.Left(host, "device") and (way := one.way("vdb"))
    }
    tops = [row for row in storage["devices"] if not any(other.startswith("dm-") for other in row["holders"])]
    assert {row["wwid"][-32:] for row in tops} == {way.wwid for _, way in [*ways.values(), *left.values()]}
    for row in tops:
        used, dead = next(
            (one.uuid, one.dead) for one, way in [*ways.values(), *left.values()] if row["wwid"][-32:] == way.wwid
        )
        is_left = row["wwid"][-32:] in {way.wwid for _, way in left.values()}
        assert row["guests"] == ([] if is_left else [used])
        assert bool(row["held_by"]) != is_left
        paths = [path for path in storage["devices"] if path["name"] in row["slaves"]] or [row]
        assert {path["state"] for path in paths} == {"transport-offline" if dead else "running"}
    empty = {session["target"] for session in storage["sessions"] if not session["devices"]}
    sessions = [one.way("vdb") for one in told if cloud.Left(host, "session") in one.left]
    assert empty == {way.target for way in sessions if way}


def test_the_probe_reads_what_it_is_asked_for(made: Path) -> None:
    one = server("ledger-2")
    answer = reading(made / "hosts/compute2", servers=[one.uuid])
    assert [row["uuid"] for row in answer["domains"]] == [one.uuid]
    assert [row["uuid"] for row in answer["processes"]] == [one.uuid]
    assert [row["name"] for row in answer["instances"]["entries"]] == [one.uuid]


def test_the_dates_are_those_of_the_story(made: Path) -> None:
    one = server("ledger-2")
    answer = reading(made / "hosts/compute3", servers=[one.uuid])
    assert answer["clock"] - answer["processes"][0]["started"] == pytest.approx(2 * 86400, abs=3600)
    (export,) = reading(made / "hosts/compute3", servers=[server("export-5").uuid])["instances"]["entries"]
    assert export["bytes"] > 6 * hosts.MIB


def test_an_image_says_what_it_stands_on(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.touch()
    hosts.qcow2(tmp_path / "disk", base, 1)
    hosts.qcow2(tmp_path / "alone", None, 0)
    assert probe.qcow2_backing(str(tmp_path / "disk")) == ("qcow2", str(base))
    assert probe.qcow2_backing(str(tmp_path / "alone")) == ("qcow2", None)
    assert virsh.backing_chain(str(tmp_path / "disk")) == [str(base)]


# -- acting on it


def test_a_domain_goes_down_its_ladder_and_back(changed: Path) -> None:
    place = changed / "hosts/compute1"
    one = server("billing-7").uuid
    before = only(reading(place)["domains"], one)
    was = {"id": before["id"], "state": "running", "persistent": True}

    def act(do: str, **more: Any) -> dict[str, Any]:
        answer = acting(place, do=f"domain.{do}", server=one, **more)
        assert answer["outcome"] == "done", answer
        saw: dict[str, Any] = answer["saw"]
        return saw

    def look() -> tuple[dict[str, Any], list[str]]:
        answer = reading(place, servers=[one])
        assert answer["failed"] == {}
        return only(answer["domains"], one), [row["uuid"] for row in answer["processes"]]

    act("pause", was=was)
    assert look()[0]["state"] == "paused"
    act("resume", was={"id": was["id"], "state": "paused"})
    assert look() == ({**before, "reason": "unpaused"}, [one])
    act("pause", was=was)
    act("stop", was={**was, "state": "paused"})
    assert (look()[0]["state"], look()[1]) == ("shutoff", [])
    act("start", was={"state": "shutoff"}, paused=True)
    again, processes = look()
    assert (again["state"], again["reason"], processes) == ("paused", "user", [one])
    assert again["id"] > before["id"]
    act("stop", was={**was, "id": again["id"], "state": "paused"})
    saw = act("undefine", was={"state": "shutoff", "xml_sha256": before["xml_sha256"]})
    assert reading(place, servers=[one])["domains"] == []
    act("define", saved=saw["saved"])
    assert look()[0]["xml_sha256"] == before["xml_sha256"]
    # What has moved on since is not touched.
    answer = acting(place, do="domain.pause", server=one, was=was)
    assert answer["outcome"] == "moved", answer


def test_a_domain_with_nvram_is_undefined_and_comes_back(changed: Path) -> None:
    place = changed / "hosts/compute4"
    one = server("render-2").uuid
    before = only(reading(place, servers=[one])["domains"], one)
    assert before["nvram"]
    nvram = Path(before["nvram"]).read_bytes()
    was = {"state": "shutoff", "xml_sha256": before["xml_sha256"]}
    saw = acting(place, do="domain.undefine", server=one, was=was)["saw"]
    assert not Path(before["nvram"]).exists()
    assert acting(place, do="domain.define", server=one, saved=saw["saved"])["outcome"] == "done"
    assert Path(before["nvram"]).read_bytes() == nvram


def test_a_directory_goes_into_quarantine_and_back_and_away(changed: Path) -> None:
    place = changed / "hosts/compute3"
    one = server("export-5").uuid
    path = str(place / "instances" / one)

    def quarantine() -> str:
        entry = only(reading(place, servers=[one])["instances"]["entries"], one, "server")
        was = {key: entry[key] for key in ("inode", "device", "newest", "files", "bytes")}
        name = f"1-1-{one}"
        answer = acting(place, do="directory.quarantine", server=one, path=path, was=was, entry=name)
        assert answer["outcome"] == "done", answer
        found = reading(place, servers=[one])["instances"]
        assert found["entries"] == []
        assert found["quarantine"][0]["manifest_ok"]
        return name

    inode = os.stat(path).st_ino
    entry = quarantine()
    answer = acting(place, do="directory.restore", server=one, path=path, entry=entry, was={"inode": inode})
    assert answer["outcome"] == "done", answer
    assert os.stat(path).st_ino == inode
    entry = quarantine()
    answer = acting(place, do="directory.remove", server=one, path=path, entry=entry, was={"inode": inode})
    assert answer["outcome"] == "done", answer
    assert reading(place, servers=[one])["instances"]["quarantine"] == []


def test_a_directory_in_use_is_refused(made: Path) -> None:
    place = made / "hosts/compute1"
    one = server("web-1").uuid
    entry = only(reading(place, servers=[one])["instances"]["entries"], one, "server")
    was = {key: entry[key] for key in ("inode", "device", "newest", "files", "bytes")}
    path = str(place / "instances" / one)
    answer = acting(place, do="directory.quarantine", server=one, path=path, was=was, entry=f"1-1-{one}")
    assert (answer["outcome"], answer["why"]) == ("refused", f"domain {one} exists on this host")


# -- the stand-in for Neutron


class Asking:
    """Who speaks to it as an administrator's client does."""

    def __init__(self, place: Path, url: str) -> None:
        self.place, self.url, self.token = place, url, ""
        self.headers: dict[str, str] = {}

    def __call__(self, method: str, path: str, body: Any = None, match: str | None = None) -> tuple[int, Any]:
        headers = {"X-Auth-Token": self.token, "Content-Type": "application/json", **self.headers}
        headers |= {"If-Match": match} if match else {}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(asked) as answer:
                self.token = answer.headers.get("X-Subject-Token") or self.token
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def of(self, method: str, path: str, *more: Any) -> tuple[int, Any]:
        return self(method, f"/network/v2.0{path}", *more)

    def log_in(self, password: str = neutron.PASSWORD) -> int:
        user = {"name": "admin", "password": password}
        return self("POST", "/identity/v3/auth/tokens", {"auth": {"identity": {"password": {"user": user}}}})[0]


@pytest.fixture
def asking(changed: Path) -> Iterator[Asking]:
    with demo.serving(changed) as url:
        assert f"auth_url: {url}/identity/v3" in (changed / "clouds.yaml").read_text()
        asking = Asking(changed, url)
        assert asking.log_in() == 201
        yield asking
    assert url not in (changed / "clouds.yaml").read_text()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)


def test_it_answers_nobody_without_a_token(asking: Asking) -> None:
    asking.token = ""
    assert asking.log_in("another") == 401
    assert asking("POST", "/identity/v3/auth/tokens", {"auth": []})[0] == 401
    asking.token = "another"
    assert asking.of("GET", "/floatingips")[0] == 401


def test_a_port_is_unbound_by_its_revision_and_bound_again(asking: Asking) -> None:
    one = server("web-2")
    status, told = asking.of("GET", f"/ports/{one.port}")
    was = told["port"]
    assert (status, was["device_id"], was["binding:host_id"], was["revision_number"]) == (200, one.uuid, one.host, 4)
    away = {"port": {"device_id": "", "device_owner": "", "binding:host_id": ""}}
    status, told = asking.of("PUT", f"/ports/{one.port}", away, "revision_number=3")
    assert (status, told["NeutronError"]["type"]) == (412, "RevisionNumberConstraintFailed")
    assert ports(asking.place)[one.port]["device_id"] == one.uuid
    status, told = asking.of("PUT", f"/ports/{one.port}", away, "revision_number=4")
    assert (status, told["port"]["binding:vif_type"], told["port"]["revision_number"]) == (200, "unbound", 5)
    back = {"port": {name: was[name] for name in away["port"]}}
    told = asking.of("PUT", f"/ports/{one.port}", back, "revision_number=5")[1]
    assert told["port"] == {**was, "revision_number": 6}
    assert asking.of("PUT", f"/ports/{one.port}", {"port": {"mac": "x"}})[0] == 400
    assert asking.of("PUT", f"/ports/{one.port}", {})[0] == 400


def test_a_floating_ip_is_taken_away_and_given_back(asking: Asking) -> None:
    one = server("web-1")
    (was,) = asking.of("GET", f"/floatingips?port_id={one.port}")[1]["floatingips"]
    assert (was["fixed_ip_address"], was["status"]) == (one.address, "ACTIVE")
    place = f"/floatingips/{was['id']}"
    told = asking.of("PUT", place, {"floatingip": {"port_id": None}})[1]["floatingip"]
    assert (told["port_id"], told["fixed_ip_address"], told["router_id"], told["status"]) == (None, None, None, "DOWN")
    lead = {"port_id": one.port, "fixed_ip_address": "192.0.2.1"}
    assert asking.of("PUT", place, {"floatingip": lead})[0] == 400
    assert asking.of("PUT", place, {"floatingip": {"port_id": server("ci-1").port}})[0] == 404  # no router there
    told = asking.of("PUT", place, {"floatingip": {**lead, "fixed_ip_address": one.address}})[1]["floatingip"]
    assert told == {**was, "revision_number": was["revision_number"] + 2}


def test_a_port_and_a_binding_go_with_what_hangs_on_them(asking: Asking) -> None:
    one, other = server("web-4"), server("moving-1")
    trunk = asking.of("DELETE", f"/ports/{server('vpn-1').port}")
    assert (trunk[0], trunk[1]["NeutronError"]["type"]) == (409, "PortInUse")
    (leads,) = asking.of("GET", f"/floatingips?port_id={one.port}")[1]["floatingips"]
    assert asking.of("DELETE", f"/ports/{one.port}") == (204, {})
    assert asking.of("GET", f"/ports/{one.port}")[0] == 404
    assert asking.of("GET", f"/floatingips/{leads['id']}")[1]["floatingip"]["port_id"] is None
    listed = asking.of("GET", f"/ports/{other.port}/bindings")[1]["bindings"]
    assert [(row["host"], row["status"]) for row in listed] == [("compute4", "ACTIVE"), ("compute5", "INACTIVE")]
    assert asking.of("DELETE", f"/ports/{other.port}/bindings/compute5") == (204, {})
    assert asking.of("DELETE", f"/ports/{other.port}/bindings/compute5")[0] == 404


def test_what_it_does_not_know_it_says(asking: Asking) -> None:
    assert asking.of("POST", "/ports", {})[0] == 404
    assert asking.of("GET", "/ports/1234")[1]["NeutronError"]["type"] == "PortNotFound"
    assert asking.of("PUT", "/ports/1234", [])[0] == 400


def test_names_go_and_come_and_what_the_sink_made_only_for_who_says_so(asking: Asking) -> None:
    zone = cloud.ident("zone", names.ZONE)
    place = f"/dns/v2/zones/{zone}/recordsets"
    (one,) = [one for one in names.names(list(cloud.servers(by_hand=True))) if one.server == server("survey-1").uuid]
    status, was = asking("GET", f"{place}/{one.id}")
    assert (status, was["name"], was["records"]) == (200, "survey-1.demo.example.", [one.data])
    assert asking("DELETE", f"{place}/{one.id}")[0] == 400, "it is the sink's"
    asking.headers["X-Designate-Edit-Managed-Records"] = "true"
    two = sorted(["192.0.2.1", one.data])
    assert asking("PUT", f"{place}/{one.id}", {"records": two})[1]["records"] == two
    assert asking("PUT", f"{place}/{one.id}", {"records": ["192.0.2.1"]})[1]["records"] == ["192.0.2.1"]
    assert asking("PUT", f"{place}/{one.id}", {"records": []})[0] == 400
    assert asking("DELETE", f"{place}/{one.id}")[0] == 202
    assert asking("GET", f"{place}/{one.id}")[0] == 404
    of_name = f"{place}?name={was['name']}&type=A"
    assert asking("GET", of_name) == (200, {"recordsets": []})
    back = {name: was[name] for name in ("name", "type", "ttl", "records")}
    made = asking("POST", place, back)[1]
    assert asking("GET", of_name)[1]["recordsets"] == [{**was, "id": made["id"]}]
    assert asking("POST", place, back)[0] == 409
    assert asking("POST", place, {"name": "x"})[0] == 400
    assert asking("GET", f"/dns/v2/zones/{zone}")[0] == 404, "it knows of recordsets alone"


def test_there_is_nothing_to_answer_for_without_a_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert neutron.main([str(tmp_path)]) == 1
    assert "there is no demo in" in capsys.readouterr().err


# -- the stand-in for OVN


def in_ovn(place: Path) -> dict[str, list[dict[str, Any]]]:
    """What the product reads there, by its own tables."""
    settings = config.load(place / "cloudfsck.toml").ovn
    assert settings is not None
    pieces = list(source.read(settings))
    assert [piece.why for piece in pieces if piece.why] == []
    return {piece.table: piece.rows.to_pylist() for piece in pieces}


def test_ovn_has_what_neutron_has_but_for_the_story(made: Path) -> None:
    net = network.network(cloud.servers(by_hand=True), by_hand=True)
    with demo.serving(made):
        found = in_ovn(made)
    assert not (made / "ovn/nb.sock").exists()
    (kept,), (lost,) = net.kept, net.lost
    of_neutron = {port.id: port for port in net.ports if port.owner != "network:floatingip"}
    there = {row["port"]: row for row in found["ovn_switch_ports"] if row["port"]}
    assert set(there) == (set(of_neutron) - {lost}) | {kept.id}
    for one, row in there.items():
        told = of_neutron.get(one, kept)
        assert (row["switch"], row["device_id"]) == (f"neutron-{told.network}", told.device)
        assert (row["up"], row["revision"]) == (told.status == "ACTIVE", 4)
    assert [row["name"] for row in found["ovn_switches"] if row["network"] is None] == ["kube-node-1"]
    assert {row["network"] for row in found["ovn_switches"]} - {None} == set(net.networks)
    assert {row["security_group"] for row in found["ovn_port_groups"]} == set(net.security_groups)
    assert {row["router"] for row in found["ovn_routers"]} == {one.id for one in net.routers}
    gateways = {row["port"] for row in found["ovn_router_ports"] if row["gateway"]}
    assert gateways == {one.gateway.id for one in net.routers}
    leading = {(one.id, one.port.address, one.to.id) for one in net.floating_ips if one.to}
    assert {(row["floating_ip"], row["external_ip"], row["port"]) for row in found["ovn_nats"]} == leading
    subnets = {cloud.ident("subnet", one) for one in net.networks if one != network.EXTERNAL}
    assert {row["subnet"] for row in found["ovn_dhcp_options"]} == {
        one for one in subnets if one != cloud.ident("subnet", cloud.ident("network", "trial"))
    }
    (trunk,) = net.trunks.items()
    assert [(row["parent"], row["port"], row["tag"]) for row in there.values() if row["parent"]] == [(*trunk, 12)]


def test_a_port_that_only_ovn_has_goes_and_comes_back_as_it_was(asking: Asking) -> None:
    settings = config.load(asking.place / "cloudfsck.toml").write.ovn
    assert settings is not None
    sending = sender.Northbound(settings)
    (one,) = network.network(cloud.servers(by_hand=False), by_hand=False).kept

    def look() -> list[dict[str, Any]]:
        return [row for row in in_ovn(asking.place)["ovn_switch_ports"] if row["port"] == one.id]

    (was,) = look()
    delete = ovn_port.Delete(one.device, "Logical_Switch_Port", one.id, one.id, was["uuid"], was["switch"], 4)
    with pytest.raises(Moved, match="is not as it was"):
        sending.send(dataclasses.replace(delete, revision=3))
    back = delete.undo(sending.send(delete))
    assert look() == []
    with pytest.raises(Moved, match="has no row"):
        sending.send(delete)
    sending.send(back)
    assert look() == [{**was, "uuid": look()[0]["uuid"]}]
    with pytest.raises(Moved, match="no longer as it was seen"):
        sending.send(back)


def test_what_neutron_changes_goes_on_to_ovn(asking: Asking) -> None:
    def look(port: str) -> dict[str, Any] | None:
        return next((row for row in in_ovn(asking.place)["ovn_switch_ports"] if row["port"] == port), None)

    def notes(id: str) -> list[tuple[str, int]]:
        with closing(sqlite3.connect(asking.place / "databases/neutron.sqlite")) as db:
            told = "SELECT resource_type, revision_number FROM ovn_revision_numbers WHERE resource_uuid = ?"
            return db.execute(told, [id]).fetchall()

    one, other = server("web-3"), server("mail-2")
    was = look(one.port)
    assert was is not None
    away = {"port": {"device_id": "", "device_owner": "", "binding:host_id": ""}}
    assert asking.of("PUT", f"/ports/{one.port}", away)[0] == 200
    assert look(one.port) == {**was, "device_id": "", "device_owner": "", "revision": 5}
    assert notes(one.port) == [("ports", 5)]
    (leads,) = asking.of("GET", f"/floatingips?port_id={other.port}")[1]["floatingips"]
    assert asking.of("DELETE", f"/ports/{other.port}") == (204, {})
    assert look(other.port) is None
    assert leads["id"] not in {row["floating_ip"] for row in in_ovn(asking.place)["ovn_nats"]}
    assert notes(other.port) == []
    assert notes(leads["id"]) == [("floatingips", leads["revision_number"] + 1)]


def test_a_transaction_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    northbound = ovn.Northbound(tmp_path / "northbound.json")
    switch = {"op": "insert", "table": "Logical_Switch", "row": {"name": "one"}}
    for operation, error in (
        ({"op": "abort"}, "not supported"),
        ({"op": "select", "table": "Mirror", "where": []}, "syntax error"),
        ({"op": "select", "table": "ACL", "where": [["priority", "<", 5]]}, "not supported"),
        ({**switch, "row": {"colour": "red"}}, "unknown column"),
        ({"op": "wait", "table": "Logical_Switch", "where": [], "columns": ["name"], "until": "==", "rows": []},
         "timed out"),
    ):  # fmt: skip
        assert northbound.transact([switch, operation])[-1]["error"] == error
    assert paths(tmp_path) == []
    northbound.transact([switch])
    assert "one" in (tmp_path / "northbound.json").read_text()


# -- the stand-in for the kernel


def removal(storage: dict[str, Any], name: str) -> dict[str, Any]:
    """The order that removes a map with all that it stands on."""
    device = only(storage["devices"], name, "name")
    told = ("name", "number", "wwid", "session", "places")
    paths = [{key: row[key] for key in told} for row in storage["devices"] if row["name"] in device["slaves"]]
    sessions = [
        {key: row[key] for key in ("session", "target", "portal")}
        for row in storage["sessions"]
        if row["session"] in {path["session"] for path in paths}
    ]
    was = {"number": device["number"], "wwid": device["wwid"], "paths": paths}
    return {"do": "device.remove", "server": "", "device": name, "sessions": sessions, "was": was}


def test_a_device_that_is_left_goes_with_its_paths_and_sessions(changed: Path) -> None:
    place = changed / "hosts/compute4"
    storage = reading(place)["storage"]
    (name,) = [row["name"] for row in storage["devices"] if row["kind"] == "multipath" and not row["guests"]]
    gone = {name, *only(storage["devices"], name, "name")["slaves"]}
    answer = acting(place, **removal(storage, name))
    assert answer["outcome"] == "done", answer
    assert set(answer["saw"]["removed"]) == gone
    assert set(answer["saw"]["sessions"].values()) == {"logged out"}
    after = reading(place)["storage"]
    assert after["devices"] == [row for row in storage["devices"] if row["name"] not in gone]
    assert after["sessions"] == [row for row in storage["sessions"] if not {*row["devices"]} & gone]
    assert not any(path.is_symlink() and not path.exists() for path in (place / "dev").rglob("*"))
    assert acting(place, **removal(storage, name))["outcome"] == "moved"


def test_a_session_without_a_device_is_logged_out_of(changed: Path) -> None:
    place = changed / "hosts/compute5"
    before = reading(place)["storage"]["sessions"]
    (left,) = [row for row in before if not row["devices"]]
    told = {key: left[key] for key in ("session", "target", "portal")}
    assert acting(place, do="session.logout", server="", **told)["outcome"] == "done"
    assert reading(place)["storage"]["sessions"] == [row for row in before if row != left]


def test_a_device_in_use_is_refused(made: Path) -> None:
    place = made / "hosts/compute1"
    storage = reading(place)["storage"]
    (name,) = [row["name"] for row in storage["devices"] if row["kind"] == "multipath"]
    answer = acting(place, **removal(storage, name))
    assert (answer["outcome"], answer["why"]) == ("refused", f"domain {server('db-1').uuid} uses /dev/{name}")
    label = only(storage["devices"], name, "name")["dm_name"]
    with pytest.raises(kernel.Wrong, match="map in use"):
        kernel.run(kernel.Storage(str(place)), "multipath", ["-f", label])
    assert reading(place)["storage"] == storage


def test_what_its_programs_do_not_know_they_say(made: Path) -> None:
    storage = kernel.Storage(str(made / "hosts/compute1"))
    for name, words, said in (
        ("iscsiadm", ["-m", "session", "-r", "99", "-u"], "No session found"),
        ("iscsiadm", ["-m", "node", "-T", "iqn.x", "-p", "192.0.2.1:3260", "-o", "delete"], "No records found"),
        ("multipath", ["-f", "nosuch"], "not a multipath device"),
        ("multipath", ["-F"], "does not know how to: -F"),
        ("blockdev", ["--flushbufs", "/dev/null"], "cannot open /dev/null"),
        ("tee", ["/tmp/other"], "does not know how to"),
    ):
        with pytest.raises(kernel.Wrong, match=said):
            kernel.run(storage, name, words)
    assert (
        kernel.run(storage, "iscsiadm", ["-m", "session"]).splitlines()[0].startswith("tcp: [1] 192.0.2.131:3260,1 iqn")
    )


def test_nothing_runs_where_this_machines_own_programs_would(changed: Path) -> None:
    place = changed / "hosts/compute2"
    (place / "bin/iscsiadm").unlink()
    words = [str(place / "bin/python3"), "-"]
    done = subprocess.run(words, input="\nprint('here')\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no iscsiadm: make the demo anew" in done.stderr


def test_a_guest_without_its_device_cannot_start(changed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = changed / "hosts/compute1"
    one = server("ledger-1").uuid
    run(place, ["-q", "destroy", one], capsys)
    (device,) = [path for _, path in virsh.Host(place).find(one).disks() if path.startswith("/dev/")]
    kernel.Storage(str(place)).remove_disk(str(place / "sys/block" / os.path.basename(device) / "device/delete"))
    assert f"Cannot access storage file '{device}'" in run(place, ["-q", "start", one], capsys)


# -- the stand-in for virsh


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without domains, and the definitions that the recordings name."""
    place = tmp_path / "host"
    for folder in ("libvirt", "proc"):
        (place / folder).mkdir(parents=True)
    (place / "proc/stat").write_text("btime 1700000000\n")
    (tmp_path / f"instances/{GUEST}").mkdir(parents=True)
    (tmp_path / "instances/_base").mkdir()
    (tmp_path / "instances/_base/base").touch()
    hosts.qcow2(tmp_path / f"instances/{GUEST}/disk", tmp_path / "instances/_base/base", 0)
    guest = recorded("virsh-9.0-inactive.xml", tmp_path)
    (tmp_path / "VARS.fd").touch()
    nvram = f"<nvram>{tmp_path}/VARS.fd</nvram>"
    (tmp_path / "guest.xml").write_text(guest)
    (tmp_path / "twin.xml").write_text(guest.replace("0001</uuid>", "0002</uuid>"))
    (tmp_path / "other.xml").write_text(guest.replace("<name>instance-00000001", "<name>other"))
    (tmp_path / "nvram.xml").write_text(guest.replace("<boot dev='hd'/>", f"{nvram}<boot dev='hd'/>"))
    monkeypatch.chdir(tmp_path)
    return place


def recorded(name: str, tmp_path: Path) -> str:
    return (RECORDED / name).read_text().replace("/var/lib/nova", str(tmp_path))


def run(place: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the stand-in does, written as the recording is: ! before an error's line, % for a line that has no end."""
    status = virsh.main([str(place), *words])
    out, err = capsys.readouterr()
    text = out if out.endswith("\n") or not out else out + "%\n"
    return text + "".join(f"! {line}\n" for line in err.splitlines()) + (f"[{status}]\n" if status else "")


def comparable(text: str) -> str:
    """Without how long the guest has run, and what libvirt says of a test bed that runs as root."""
    return re.sub(r"^(CPU time|Messages):.*\n", "", text, flags=re.MULTILINE)


def test_it_answers_as_virsh_does(empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transcript = recorded("virsh-9.0.txt", tmp_path)
    said = ""
    for line in re.findall(r"^\$ virsh (.*)$", transcript, re.MULTILINE):
        said += f"$ virsh {line}\n" + run(empty, shlex.split(line), capsys)
    assert comparable(said) == comparable(transcript)


def test_it_shows_a_definition_as_libvirt_does(empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = recorded("virsh-9.0-inactive.xml", tmp_path)
    run(empty, ["define", "guest.xml"], capsys)
    secret = run(empty, ["-q", "dumpxml", "--inactive", "--security-info", GUEST], capsys)
    assert secret == kept
    assert run(empty, ["-q", "dumpxml", GUEST], capsys) == kept.replace(" passwd='vncpass'", "")


def test_it_shows_a_run_as_libvirt_does(empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = ElementTree.fromstring(recorded("virsh-9.0-live.xml", tmp_path))
    run(empty, ["define", "guest.xml"], capsys)
    run(empty, ["start", "--paused", GUEST], capsys)
    shown = ElementTree.fromstring(run(empty, ["-q", "dumpxml", GUEST], capsys))

    def text(element: ElementTree.Element) -> str:
        return ElementTree.tostring(element, encoding="unicode")

    assert shown.attrib == {**live.attrib, "id": "1"}
    for path in ("devices/disk", "devices/interface", "devices/graphics", "metadata", "os"):
        assert [probe.xml_digest(text(one)) for one in shown.findall(path)] == [
            probe.xml_digest(text(one)) for one in live.findall(path)
        ]


def test_it_cannot_start_what_has_lost_its_disk(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(empty, ["define", "guest.xml"], capsys)
    disk = Path(f"instances/{GUEST}/disk").resolve()
    Path("instances/_base/base").unlink()
    assert run(empty, ["-q", "start", GUEST], capsys).splitlines()[1] == (
        f"! error: Cannot access backing file '{disk.parents[1]}/_base/base' of storage file '{disk}'"
        " (as uid:0, gid:0): No such file or directory"
    )
    disk.unlink()
    assert run(empty, ["-q", "start", GUEST], capsys).splitlines()[1] == (
        f"! error: Cannot access storage file '{disk}' (as uid:0, gid:0): No such file or directory"
    )


def test_it_takes_commands_on_standard_input(made: Path) -> None:
    lines = "list --all --uuid\ndomstate nosuch\nuri\nquit\n"
    words = [sys.executable, "-m", "cloudfsck.demo.virsh", str(made / "hosts/compute2"), "-q", "-r"]
    done = subprocess.run(words, input=lines, capture_output=True, text=True, cwd=ROOT.parent, check=True)
    assert done.stdout.startswith("virsh # list --all --uuid\n")
    assert done.stdout.endswith("virsh # domstate nosuch\nvirsh # uri\nqemu:///system\nvirsh # quit\n\n")
    assert server("ledger-2").uuid in done.stdout
    assert done.stderr == "error: failed to get domain 'nosuch'\n"


def test_a_saved_guest_is_restored_and_not_forgotten(changed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = changed / "hosts/compute3"
    one = server("test-1").uuid
    assert run(place, ["-q", "domstate", "--reason", one], capsys) == "shut off (saved)\n"
    said = "! error: Refusing to undefine while domain managed save image exists\n[1]\n"
    assert run(place, ["-q", "undefine", one], capsys) == said
    run(place, ["start", one], capsys)
    assert run(place, ["-q", "domstate", "--reason", one], capsys) == "running (restored)\n"
