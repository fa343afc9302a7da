"""The simulator of NSX-T answers as NSX does, which its real client finds too, and fails as it is ordered to."""

from __future__ import annotations

import base64
import http.client
import json
import math
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from tests.bed.nsx import MANAGER, POLICY, Manager, Nsx, client_python, tags
from tests.bed.programs import run

SEGMENTS = POLICY + "infra/segments"


class Client:
    """A client with a session, or with whatever headers it is given instead."""

    def __init__(self, manager: Manager, headers: dict[str, str] | None = None, context: Any = None) -> None:
        url = urlsplit(manager.url)
        self._secure, self._at, self._context = url.scheme == "https", url.netloc, context
        self.patience = 10.0
        self.headers = self.login(*Nsx.ADMIN) if headers is None else headers

    def login(self, user: str, password: str) -> dict[str, str]:
        form = f"j_username={user}&j_password={password}"
        status, body, headers = self._sent("POST", "api/session/create", form.encode(), {})
        assert status == 200, body
        return {"Cookie": headers["Set-Cookie"].partition(";")[0], "X-XSRF-TOKEN": headers["X-XSRF-TOKEN"]}

    def ask(self, method: str, path: str, body: Any = None, **more: str) -> tuple[int, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        headers = self.headers | {name.replace("_", "-"): value for name, value in more.items()}
        status, told, _ = self._sent(method, path, data, headers)
        return status, json.loads(told) if told else None

    def get(self, path: str) -> Any:
        status, told = self.ask("GET", path)
        assert status == 200, told
        return told

    def code(self, method: str, path: str, body: Any = None, **more: str) -> tuple[int, int]:
        """Status and error_code of what is refused."""
        status, told = self.ask(method, path, body, **more)
        return status, (told or {}).get("error_code", 0) if status >= 400 else 0

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """Every page of a list; raises AssertionError at one that is refused."""
        cursor = None
        while True:
            words = [f"{name}={value}" for name, value in query.items()] + ([f"cursor={cursor}"] if cursor else [])
            page = self.get(path + ("?" + "&".join(words) if words else ""))
            yield page
            cursor = page.get("cursor")
            if not cursor or cursor.startswith("0000"):
                return

    def ids(self, path: str, **query: Any) -> list[str]:
        return [one["id"] for page in self.pages(path, **query) for one in page["results"]]

    def _sent(self, method: str, path: str, data: bytes, headers: dict[str, str]) -> tuple[int, bytes, Any]:
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(self._at, timeout=self.patience, context=self._context)
            if self._secure
            else http.client.HTTPConnection(self._at, timeout=self.patience)
        )
        try:
            connection.request(method, "/" + path, data, headers)
            response = connection.getresponse()
            return response.status, response.read(), response.headers
        finally:
            connection.close()


@pytest.fixture
def nsx() -> Iterator[Nsx]:
    with Nsx() as nsx:
        nsx.rate = 0
        yield nsx


@pytest.fixture
def client(nsx: Nsx) -> Client:
    return Client(nsx.managers[0])


def named(count: int) -> list[dict[str, Any]]:
    return [{"id": f"n{i:05d}", "display_name": f"net {i:05d}"} for i in range(count)]


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_a_session_needs_its_cookie_and_its_token(nsx: Nsx, client: Client) -> None:
    assert client.get(MANAGER + "reverse-proxy/node/health") == {"healthy": True}
    assert client.get(MANAGER + "node/version")["product_version"] == nsx.version
    one = nsx.managers[0]
    bad_token = (403, 98)
    assert Client(one, {**client.headers, "X-XSRF-TOKEN": "other"}).code("GET", SEGMENTS) == bad_token
    assert Client(one, {"Cookie": client.headers["Cookie"]}).code("GET", SEGMENTS) == bad_token
    assert Client(one, {}).code("GET", SEGMENTS) == (403, 403)
    assert Client(one, basic(*nsx.ADMIN)).get(SEGMENTS)["results"] == []
    assert Client(one, basic("admin", "wrong")).code("GET", SEGMENTS) == (403, 403)
    status, told = Client(one, {}).ask("POST", "api/session/create", None)
    assert (status, told["error_code"], told["httpStatus"]) == (403, 403, "FORBIDDEN")
    nsx.expire_sessions()
    assert client.code("GET", SEGMENTS) == bad_token
    # Even with a password beside it: nsxlib sends both, and makes a new session then.
    assert Client(one, client.headers | basic(*nsx.ADMIN)).code("GET", SEGMENTS) == bad_token


def test_an_auditor_only_reads(nsx: Nsx) -> None:
    client = Client(nsx.managers[0], basic(*nsx.AUDITOR))
    assert client.get(SEGMENTS)["result_count"] == 0
    assert client.code("PATCH", SEGMENTS + "/a", {})[0] == 403
    assert nsx.writes == [("PATCH", f"/{SEGMENTS}/a")]
    assert nsx.get("infra/segments/a") is None


def test_tls_with_a_certificate_of_a_principal_identity(tmp_path: Path) -> None:
    with Nsx(tmp_path, tls=True) as nsx:
        trusting = ssl.create_default_context(cafile=nsx.ca)
        assert Client(nsx.managers[0], context=trusting).get(SEGMENTS)["results"] == []
        assert Client(nsx.managers[0], {}, trusting).code("GET", SEGMENTS) == (403, 403)
        known = ssl.create_default_context(cafile=nsx.ca)
        known.load_cert_chain(nsx.certificate, nsx.key)
        principal = Client(nsx.managers[0], {}, known)
        assert principal.ask("PATCH", SEGMENTS + "/a", {"display_name": "one"})[0] == 200
        assert principal.get(SEGMENTS + "/a")["_create_user"] == nsx.PRINCIPAL
        with pytest.raises(ssl.SSLError):
            Client(nsx.managers[0], context=ssl.create_default_context())
        # What the principal made, the administrator has to want to overwrite.
        admin = Client(nsx.managers[0], context=trusting)
        assert admin.code("DELETE", SEGMENTS + "/a") == (403, 289)
        assert admin.ask("DELETE", SEGMENTS + "/a", X_Allow_Overwrite="true")[0] == 200


def test_pages_end_as_they_do_there(nsx: Nsx, client: Client) -> None:
    nsx.load("infra/segments", named(2500))
    pages = [*client.pages(SEGMENTS)]
    assert [len(page["results"]) for page in pages] == [1000, 1000, 500]
    assert [page.get("result_count") for page in pages] == [2500, None, None]
    assert "cursor" not in pages[-1]
    nsx.last_cursor = "null"
    assert [*client.pages(SEGMENTS, page_size=1000)][-1]["cursor"].startswith("0000")
    nsx.last_cursor = "empty"
    assert [*client.pages(SEGMENTS, page_size=1000)][-1]["cursor"] == ""
    assert client.ids(SEGMENTS, page_size=999) == [one["id"] for one in named(2500)]
    assert client.code("GET", SEGMENTS + "?page_size=1001") == (400, 255)
    assert client.code("GET", SEGMENTS + "?cursor=0004abcd") == (400, 255)
    assert client.code("GET", SEGMENTS + "?page_sise=10") == (400, 255)
    assert nsx.counts["GET", "infra/segments"] == 3 * 4 + 3


def test_fifty_thousand_objects_load_and_are_listed_in_seconds(nsx: Nsx, client: Client) -> None:
    begun = time.monotonic()
    nsx.load("infra/segments", [{"id": f"s{i}", "display_name": f"s{i}"} for i in range(500)])
    for i in range(500):
        scope = tags(os_neutron_port_id=f"p{i}", os_project_id="1", os_project_name="one", os_api_version="17.0.0")
        nsx.load(f"infra/segments/s{i}/ports", (
            {"id": f"p{i}-{j}", "tags": scope, "attachment": {"id": f"p{i}-{j}", "type": "PARENT"}} for j in range(60)
        ))  # fmt: skip
    switches = ({"display_name": f"ls {i}", "tags": tags(os_neutron_net_id="n")} for i in range(20000))
    nsx.load("logical-switches", switches)
    assert len(client.ids(MANAGER + "logical-switches")) == 20000
    assert sum(len(client.ids(f"{SEGMENTS}/s{i}/ports")) for i in range(500)) == 30000
    assert nsx.counts["GET", "logical-switches"] == 20
    assert nsx.counts["GET", "infra/segments/*/ports"] == 500
    assert time.monotonic() - begun < 30


def test_a_list_that_changes_meanwhile(nsx: Nsx, client: Client) -> None:
    nsx.load("infra/segments", named(10))
    nsx.fault(lambda: nsx.remove("infra/segments/n00001"), kind="infra/segments", page=2)
    assert client.ids(SEGMENTS, page_size=5) == [f"n{i:05d}" for i in range(10)], "by name nothing is skipped"
    nsx.paging = "offset"
    nsx.fault(lambda: nsx.remove("infra/segments/n00002"), kind="infra/segments", page=2)
    assert "n00006" not in client.ids(SEGMENTS, page_size=5), "by offset one is, though it was there all the time"
    nsx.fault(lambda: nsx.load("infra/segments", [{"id": "a", "display_name": "a"}]), kind="infra/segments", page=2)
    assert len(client.ids(SEGMENTS, page_size=5)) == 9, "and here one comes twice"


def test_faults_amid_a_list(nsx: Nsx, client: Client) -> None:
    everything = [f"n{i:05d}" for i in range(10)]
    nsx.load("infra/segments", named(10))
    nsx.fault(503, kind="infra/segments", page=2)
    with pytest.raises(AssertionError, match="SERVICE_UNAVAILABLE"):
        client.ids(SEGMENTS, page_size=4)
    nsx.fault("expire", kind="infra/segments", page=3)
    with pytest.raises(AssertionError, match="FORBIDDEN"):
        client.ids(SEGMENTS, page_size=4)
    client.headers = client.login(*nsx.ADMIN)
    nsx.fault("again", kind="infra/segments", page=2)
    assert client.ids(SEGMENTS, page_size=4) == everything[:4] + everything
    nsx.fault("again", kind="infra/segments", page=3)
    assert client.ids(SEGMENTS, page_size=4) == everything[:8] + everything[4:]
    losses: tuple[Literal["no-cursor", "null-cursor"], ...] = ("no-cursor", "null-cursor")
    for lost in losses:
        nsx.fault(lost, kind="infra/segments", page=2)
        assert client.ids(SEGMENTS, page_size=4) == everything[:8]
    nsx.fault("bad-cursor", kind="infra/segments", page=2)
    with pytest.raises(AssertionError, match="cursor is not valid"):
        client.ids(SEGMENTS, page_size=4)
    nsx.fault("half", kind="infra/segments", page=2)
    with pytest.raises(http.client.IncompleteRead):
        client.ids(SEGMENTS, page_size=4)
    nsx.fault("html", kind="infra/segments")
    with pytest.raises(ValueError):
        client.ids(SEGMENTS)
    nsx.fault("hang")
    client.patience = 0.2
    with pytest.raises(TimeoutError):
        client.ids(SEGMENTS)
    nsx.fault("close")
    with pytest.raises(http.client.RemoteDisconnected):
        client.ids(SEGMENTS)
    assert client.ids(SEGMENTS) == everything, "each fault was for one request"


def test_too_many_requests(nsx: Nsx) -> None:
    client = Client(nsx.managers[0], basic(*nsx.ADMIN))
    nsx.rate = 5
    codes = [client.code("GET", SEGMENTS) for _ in range(7)]
    assert codes == [(200, 0)] * 5 + [(429, 102)] * 2
    nsx.rate, nsx.concurrency, nsx.delay = 0, 2, 0.5
    found: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda: found.append(client.code("GET", SEGMENTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(200, 0), (200, 0), (503, 101), (503, 101)]
    limits = client.get(MANAGER + "node/services/http")["service_properties"]
    assert limits == {"client_api_rate_limit": 0, "client_api_concurrency_limit": 2}


def test_managers_share_objects_and_not_sessions() -> None:
    with Nsx(managers=3) as nsx:
        one, two, _ = (Client(manager) for manager in nsx.managers)
        assert one.ask("PATCH", SEGMENTS + "/a", {"display_name": "one"})[0] == 200
        assert two.get(SEGMENTS + "/a")["display_name"] == "one"
        assert Client(nsx.managers[2], one.headers).code("GET", SEGMENTS) == (403, 98)
        assert len(one.get(MANAGER + "cluster/nodes")["results"]) == 3
        nsx.managers[0].down()
        with pytest.raises(ConnectionRefusedError):
            one.get(SEGMENTS)
        assert two.get(SEGMENTS + "/a")["id"] == "a"
        nsx.managers[0].up()
        assert one.code("GET", SEGMENTS) == (403, 98), "a manager that was away knows no session any more"
        nsx.managers[1].healthy = False
        assert two.get(MANAGER + "reverse-proxy/node/health") == {"healthy": False}
        assert [asked.manager for asked in nsx.asked if asked.kind == "infra/segments/*"] == [0, 1, 1]


def test_a_put_needs_the_newest_revision(nsx: Nsx, client: Client) -> None:
    assert client.ask("PUT", SEGMENTS + "/a", {"display_name": "one", "tags": tags(os_neutron_net_id="a")})[0] == 200
    seen = client.get(SEGMENTS + "/a")
    assert (seen["_revision"], seen["path"], seen["resource_type"]) == (0, "/infra/segments/a", "Segment")
    assert client.ask("PATCH", SEGMENTS + "/a", {"description": "more"}) == (200, None)
    assert client.code("PUT", SEGMENTS + "/a", seen) == (412, 604)
    nsx.stale = 409
    assert client.code("PUT", SEGMENTS + "/a", seen) == (409, 604)
    seen = client.get(SEGMENTS + "/a")
    assert (seen["description"], seen["_revision"], seen["display_name"]) == ("more", 1, "one")
    del seen["description"]
    status, told = client.ask("PUT", SEGMENTS + "/a", seen)
    assert (status, told["_revision"], "description" in told) == (200, 2, False)
    nsx.change("infra/segments/a", display_name="somebody else's")
    assert client.code("PUT", SEGMENTS + "/a", told)[0] == 409
    assert client.code("PUT", MANAGER + "logical-switches/none", {"_revision": 0}) == (404, 202)
    assert client.code("GET", SEGMENTS + "/none") == (404, 600)
    assert client.code("GET", POLICY + "infra/segmentz")[0] == 404


def test_a_segment_goes_after_its_ports(nsx: Nsx, client: Client) -> None:
    profile = POLICY + "infra/segment-security-profiles/p"
    assert client.code("PATCH", SEGMENTS + "/none/ports/p", {}) == (400, 500012)
    for path, body in {
        profile: {},
        POLICY + "infra/tier-1s/r": {},
        POLICY + "infra/dhcp-server-configs/a": {},
        SEGMENTS + "/a": {"connectivity_path": "/infra/tier-1s/r", "dhcp_config_path": "/infra/dhcp-server-configs/a"},
        SEGMENTS + "/a/ports/p": {"attachment": {"id": "p"}},
        SEGMENTS + "/a/ports/p/port-security-profile-binding-maps/m": {
            "segment_security_profile_path": "/infra/segment-security-profiles/p"
        },
        SEGMENTS + "/a/dhcp-static-binding-configs/p-ipv4": {"ip_address": "10.0.0.2"},
    }.items():
        assert client.ask("PATCH", path, body) == (200, None)
    assert client.code("DELETE", SEGMENTS + "/a") == (400, 503040)
    in_use = (400, 500030)
    assert client.code("DELETE", SEGMENTS + "/a/ports/p") == in_use
    assert client.code("DELETE", profile) == in_use
    assert client.code("DELETE", POLICY + "infra/tier-1s/r") == in_use
    assert client.code("DELETE", POLICY + "infra/dhcp-server-configs/a") == in_use
    for path in (
        SEGMENTS + "/a/ports/p/port-security-profile-binding-maps/m",
        SEGMENTS + "/a/ports/p",
    ):
        assert client.ask("DELETE", path) == (200, None)
    assert client.code("DELETE", SEGMENTS + "/a") == in_use, "the DHCP binding is still there"
    for path in (
        SEGMENTS + "/a/dhcp-static-binding-configs/p-ipv4",
        SEGMENTS + "/a",
        POLICY + "infra/dhcp-server-configs/a",
        POLICY + "infra/tier-1s/r",
        profile,
    ):
        assert client.ask("DELETE", path) == (200, None)
    assert client.code("DELETE", SEGMENTS + "/a") == (404, 600)


def test_a_router_goes_after_what_is_on_it(nsx: Nsx, client: Client) -> None:
    router = POLICY + "infra/tier-1s/r"
    client.ask("PATCH", SEGMENTS + "/a", {})
    below = [
        "/locale-services/r-0/interfaces/i",
        "/locale-services/r-0",
        "/nat/USER/nat-rules/n",
        "/static-routes/s",
    ]
    assert client.ask("PATCH", router, {})[0] == 200
    for path in (below[1], below[0], *below[2:]):
        body = {"segment_path": "/infra/segments/a"} if "interfaces" in path else {}
        assert client.ask("PATCH", router + path, body) == (200, None)
    assert client.get(router + "/nat/USER/nat-rules")["results"][0]["parent_path"] == "/infra/tier-1s/r/nat/USER"
    assert client.code("DELETE", SEGMENTS + "/a") == (400, 500030)
    assert client.code("DELETE", router + "/locale-services/r-0") == (400, 500030)
    for path in below:
        assert client.code("DELETE", router) == (400, 500030)
        assert client.ask("DELETE", router + path)[0] == 200
    assert client.ask("DELETE", router)[0] == 200


def test_a_policy_has_its_rules_within_it(nsx: Nsx, client: Client) -> None:
    domain = POLICY + "infra/domains/default"
    policy, group, service = f"{domain}/security-policies/g", f"{domain}/groups/g", POLICY + "infra/services/r"
    rule = {"id": "r", "source_groups": ["/infra/domains/default/groups/g"], "destination_groups": ["ANY"],
            "services": ["/infra/services/r"]}  # fmt: skip
    assert client.code("PATCH", policy, {"rules": [rule]}) == (400, 500012)
    assert nsx.get("infra/domains/default/security-policies/g") is None, "it is not there without its rule either"
    client.ask("PATCH", group, {"expression": []})
    client.ask("PATCH", service, {"service_entries": [{"id": "e", "l4_protocol": "TCP"}]})
    assert client.ask("PATCH", policy, {"scope": ["/infra/domains/default/groups/g"], "rules": [rule]}) == (200, None)
    assert [one["id"] for one in client.get(policy)["rules"]] == ["r"]
    assert "rules" not in client.get(f"{domain}/security-policies")["results"][0]
    assert client.get(f"{policy}/rules/r")["path"] == "/infra/domains/default/security-policies/g/rules/r"
    assert client.get(POLICY + "infra/services")["results"][0]["service_entries"][0]["l4_protocol"] == "TCP"
    assert client.code("DELETE", group) == (400, 500030)
    assert client.code("DELETE", service) == (400, 500030)
    seen = client.get(policy)
    assert client.ask("PUT", policy, {**seen, "rules": []})[1]["rules"] == []
    assert client.ask("DELETE", service)[0] == 200
    client.ask("PATCH", f"{policy}/rules/other", {"source_groups": ["ANY"]})
    assert client.ask("DELETE", policy)[0] == 200, "its rules go with it"
    assert client.ask("DELETE", group)[0] == 200


def test_a_load_balancer_goes_from_its_servers_down(nsx: Nsx, client: Client) -> None:
    below = {
        "lb-virtual-servers/v": {
            "lb_service_path": "/infra/lb-services/s",
            "pool_path": "/infra/lb-pools/p",
            "application_profile_path": "/infra/lb-app-profiles/a",
        },
        "lb-services/s": {"connectivity_path": "/infra/tier-1s/r"},
        "lb-pools/p": {"active_monitor_paths": ["/infra/lb-monitor-profiles/m"]},
        "lb-app-profiles/a": {"resource_type": "LBFastTcpProfile"},
        "lb-monitor-profiles/m": {"resource_type": "LBTcpMonitorProfile"},
        "tier-1s/r": {},
    }
    for path, body in reversed(below.items()):
        assert client.ask("PATCH", f"{POLICY}infra/{path}", body) == (200, None)
    assert client.get(POLICY + "infra/lb-app-profiles")["results"][0]["resource_type"] == "LBFastTcpProfile"
    for path in [*below][1:3] + [*below][4:]:
        assert client.code("DELETE", f"{POLICY}infra/{path}") == (400, 500030)
    for path in below:
        assert client.ask("DELETE", f"{POLICY}infra/{path}") == (200, None)


def test_what_is_deleted_keeps_its_id_for_a_while(nsx: Nsx, client: Client) -> None:
    client.ask("PATCH", SEGMENTS + "/a", {"tags": tags(os_neutron_net_id="a")})
    first = client.get(SEGMENTS + "/a")
    nsx.pending_delete = math.inf
    assert client.ask("DELETE", SEGMENTS + "/a")[0] == 200
    assert client.code("PATCH", SEGMENTS + "/a", first) == (400, 500045)
    assert client.ids(SEGMENTS) == []
    marked = client.get(SEGMENTS + "?include_mark_for_delete_objects=true")["results"]
    assert [(one["id"], one["marked_for_delete"]) for one in marked] == [("a", True)]
    nsx.end_pending()
    assert client.ask("PATCH", SEGMENTS + "/a", first)[0] == 200
    again = client.get(SEGMENTS + "/a")
    assert (again["tags"], again["_revision"]) == (first["tags"], 0)
    assert again["unique_id"] != first["unique_id"]


def test_the_manager_api_deletes_by_force_when_told_so(nsx: Nsx, client: Client) -> None:
    status, switch = client.ask("POST", MANAGER + "logical-switches", {"display_name": "one"})
    assert (status, switch["_revision"]) == (201, 0)
    assert client.code("POST", MANAGER + "logical-ports", {"logical_switch_id": "none"}) == (404, 202)
    attachment = {"attachment_type": "VIF", "id": "neutron-port"}
    port = {"logical_switch_id": switch["id"], "attachment": attachment}
    port = client.ask("POST", MANAGER + "logical-ports", port)[1]
    assert client.ids(MANAGER + "logical-ports", attachment_type="VIF", attachment_id="neutron-port") == [port["id"]]
    assert client.ids(MANAGER + "logical-ports", logical_switch_id="other") == []
    in_use = (400, 500030)
    assert client.code("DELETE", f"{MANAGER}logical-ports/{port['id']}") == in_use
    for arguments in ("", "?detach=true", "?cascade=true"):
        assert client.code("DELETE", f"{MANAGER}logical-switches/{switch['id']}{arguments}") == in_use
    assert client.ask("DELETE", f"{MANAGER}logical-switches/{switch['id']}?detach=true&cascade=true")[0] == 200
    assert client.ids(MANAGER + "logical-ports") == [], "the ports are gone with it"

    router = client.ask("POST", MANAGER + "logical-routers", {"router_type": "TIER1"})[1]["id"]
    assert client.ids(MANAGER + "logical-routers", router_type="TIER0") == []
    leg = client.ask("POST", MANAGER + "logical-router-ports", {"logical_router_id": router})[1]["id"]
    assert client.ask("POST", f"{MANAGER}logical-routers/{router}/nat/rules", {"action": "SNAT"})[0] == 201
    assert client.code("DELETE", f"{MANAGER}logical-routers/{router}") == in_use
    assert client.ask("DELETE", f"{MANAGER}logical-router-ports/{leg}")[0] == 200
    assert client.ask("DELETE", f"{MANAGER}logical-routers/{router}")[0] == 200

    group = client.ask("POST", MANAGER + "ns-groups", {"display_name": "g"})[1]["id"]
    body = {"display_name": "s", "applied_tos": [{"target_id": group, "target_type": "NSGroup"}], "rules": [{}]}
    at = f"{MANAGER}firewall/sections"
    section = client.ask("POST", at + "?operation=insert_bottom&action=create_with_rules", body)[1]
    assert len(client.get(f"{at}/{section['id']}/rules")["results"]) == 1
    assert client.code("POST", f"{at}/{section['id']}/rules", {"_revision": section["_revision"] - 1}) == (412, 604)
    assert client.ask("POST", f"{at}/{section['id']}/rules", {"_revision": section["_revision"]})[0] == 201
    assert client.code("DELETE", f"{MANAGER}ns-groups/{group}") == in_use
    assert client.code("DELETE", f"{at}/{section['id']}") == in_use
    assert client.ask("DELETE", f"{at}/{section['id']}?cascade=true")[0] == 200
    assert client.ask("DELETE", f"{MANAGER}ns-groups/{group}?force=true")[0] == 200

    server = client.ask("POST", MANAGER + "dhcp/servers", {"ipv4_dhcp_server": {}})[1]["id"]
    assert client.ask("POST", f"{MANAGER}dhcp/servers/{server}/static-bindings", {"ip_address": "10.0.0.2"})[0] == 201
    assert client.ask("DELETE", f"{MANAGER}dhcp/servers/{server}")[0] == 200


def test_a_virtual_interface_is_only_read(nsx: Nsx, client: Client) -> None:
    nsx.load("fabric/vifs", [{"external_id": "v", "owner_vm_id": "vm", "lport_attachment_id": "neutron-port"}])
    found = client.get(MANAGER + "fabric/vifs?lport_attachment_id=neutron-port")["results"]
    assert [one["owner_vm_id"] for one in found] == ["vm"]
    assert "id" not in found[0]
    assert client.code("DELETE", MANAGER + "fabric/vifs/v") == (405, 405)


def test_policy_objects_have_shadows_in_the_manager_api(nsx: Nsx, client: Client) -> None:
    nsx.shadows = True
    client.ask("PATCH", SEGMENTS + "/a", {"display_name": "one", "tags": tags(os_neutron_net_id="a")})
    client.ask("PATCH", SEGMENTS + "/a/ports/p", {"attachment": {"id": "p"}})
    (switch,) = client.get(MANAGER + "logical-switches")["results"]
    assert switch["tags"] == [*tags(os_neutron_net_id="a"), *tags(policyPath="/infra/segments/a")]
    assert client.ids(MANAGER + "logical-ports", logical_switch_id=switch["id"])
    realized = POLICY + "infra/realized-state/realized-entities?intent_path=/infra/segments/a"
    (entity,) = client.get(realized)["results"]
    assert (entity["state"], entity["realization_specific_identifier"]) == ("REALIZED", switch["id"])
    nsx.realization["/infra/segments/a"] = "ERROR"
    assert client.get(realized)["results"][0]["state"] == "ERROR"
    path = f"{MANAGER}logical-switches/{switch['id']}?detach=true&cascade=true"
    assert client.code("DELETE", path) == (403, 289)
    client.ask("DELETE", SEGMENTS + "/a/ports/p")
    client.ask("DELETE", SEGMENTS + "/a")
    assert client.ids(MANAGER + "logical-switches") == []


def test_the_search_is_behind_when_told_so(nsx: Nsx, client: Client) -> None:
    nsx.load("infra/segments", [one | {"tags": tags(os_neutron_net_id=one["id"])} for one in named(30)])
    asking = POLICY + r"search/query?query=resource_type:Segment%20AND%20tags.scope:os\-neutron\-net\-id&sort_by=id"
    page = client.get(asking + "&page_size=20")
    assert (len(page["results"]), page["result_count"], page["cursor"]) == (20, 30, "20")
    page = client.get(asking + "&page_size=20&cursor=20")
    assert (len(page["results"]), page["result_count"], page["cursor"]) == (10, 30, "30")
    nsx.freeze_search()
    nsx.remove("infra/segments/n00003")
    assert client.get(asking)["result_count"] == 30
    nsx.fault((400, 60576), kind="search/query")
    assert client.code("GET", asking) == (400, 60576)
    nsx.thaw_search()
    assert client.get(asking)["result_count"] == 29


def test_what_breaks_in_a_test_is_not_swallowed() -> None:
    nsx = Nsx()
    nsx.fault(lambda: print(1 / 0))

    def ask() -> None:
        with nsx, pytest.raises(http.client.RemoteDisconnected):
            Client(nsx.managers[0]).get(SEGMENTS)

    with pytest.raises(ZeroDivisionError):
        ask()


DRIVER = r"""
import json, sys, warnings
warnings.simplefilter("ignore")
from vmware_nsxlib.v3 import client_cert, config, exceptions, policy
from vmware_nsxlib.v3.policy import constants

asked = json.load(sys.stdin)
said = {}

def refused(call, *args, **named):
    try:
        call(*args, **named)
    except exceptions.NsxLibException as error:
        return [type(error).__name__, int(getattr(error, "error_code", None) or 0)]
    return "let pass"

class Certificate(client_cert.ClientCertProvider):
    def __init__(self):
        super().__init__(asked["pem"])

def made(**more):
    return policy.NsxPolicyLib(config.NsxLibConfig(**{
        "nsx_api_managers": asked["urls"], "insecure": False, "ca_file": asked["ca"], "username": asked["user"],
        "password": asked["password"], "retries": 0, "max_attempts": 6, "plugin_scope": "os-neutron-id",
        "plugin_tag": "NSX Neutron plugin", "plugin_ver": "17.0.0", "realization_max_attempts": 2,
        "realization_wait_sec": 0.1, "allow_passthrough": True, **more}))

lib = made()
said["version"] = lib.get_version()
said["partial"] = lib.policy_api.partial_updates_supported()
said["health"] = lib.client._conn.health

tags = lib.nsx_api.logical_switch.build_v3_tags_payload(
    {"id": "net-0", "project_id": "p"}, "os-neutron-net-id", "project")
for i in range(5):
    lib.segment.create_or_overwrite(f"net {i}", segment_id=f"net-{i}", transport_zone_id="tz", tags=tags)
said["tags"] = lib.segment.get("net-0")["tags"]
said["segments"] = [one["id"] for one in lib.segment.list()]
lib.segment_port.create_or_overwrite("port", "net-0", port_id="port", attachment_type="PARENT", vif_id="port", tags=[
    {"scope": "os-neutron-port-id", "tag": "port"}, {"scope": "os-security-group", "tag": "sg"}])
lib.segment_port_security_profiles.create_or_overwrite(
    "map", "net-0", "port", "map", segment_security_profile_id="sec", spoofguard_profile_id="spoof")
said["port"] = lib.segment_port.get("net-0", "port")["attachment"]
lib.tier1.create_or_overwrite("router", tier1_id="router", tags=[{"scope": "os-neutron-router-id", "tag": "router"}])
lib.tier1.create_locale_service("router")
lib.tier1.add_segment_interface("router", "leg", "net-1", [])
lib.tier1_nat_rule.create_or_overwrite("nat", "router", nat_rule_id="nat", source_network="10.0.0.0/24",
    translated_network="192.0.2.1", action="SNAT")
lib.group.create_or_overwrite("sg", "default", group_id="sg", cond_val="os-security-group|sg",
    cond_key=constants.CONDITION_KEY_TAG, cond_member_type=constants.CONDITION_MEMBER_PORT,
    tags=[{"scope": "os-neutron-secg-id", "tag": "sg"}])
lib.service.create_or_overwrite("rule", service_id="rule", protocol="tcp", dest_ports=["22"])
rule = lib.comm_map.build_entry("rule", "default", "sg", "rule", source_groups=["sg"], dest_groups=["sg"],
    service_ids=["rule"], scope=["sg"], direction="IN")
lib.comm_map.create_with_entries("sg", "default", map_id="sg", entries=[rule],
    tags=[{"scope": "os-neutron-secg-id", "tag": "sg"}])
found = lib.comm_map.get("default", "sg")
said["policy"] = [found["tags"], [one["id"] for one in found["rules"]]]
lib.comm_map.update_entries_logged("default", "sg", True)
said["logged"] = lib.comm_map.get("default", "sg")["rules"][0]["logged"]
said["realized"] = lib.segment.get_realized_state("net-0")
lib.segment.wait_until_state_successful("net-0")

old = lib.segment.get("net-0")
lib.segment.update("net-0", description="new")
said["stale"] = refused(lib.client.update, "infra/segments/net-0", old)
said["updated"] = lib.segment.get("net-0")["description"]
said["fresh"] = lib.client.update("infra/segments/net-0", lib.segment.get("net-0"))["_revision"]
group = lib.group.get("default", "sg")
said["stale group"] = refused(lib.client.update, "infra/domains/default/groups/sg", {**group, "_revision": 7})

said["orders"] = [
    refused(lib.segment.delete, "net-0"), refused(lib.segment.delete, "net-1"), refused(lib.tier1.delete, "router"),
    refused(lib.group.delete, "default", "sg"), refused(lib.service.delete, "rule"),
    refused(lib.segment_port.delete, "net-0", "port"), refused(lib.segment.get, "none"),
    refused(lib.client.patch, "infra/segments/none/ports/port", {}),
]
said["found"] = len(lib.search_all_by_tags(
    [{"scope": "os\\-neutron\\-net\\-id", "tag": "net\\-0"}], resource_type="Segment"))

lib.comm_map.delete("default", "sg")
lib.group.delete("default", "sg")
lib.service.delete("rule")
lib.tier1.remove_segment_interface("router", "leg")
lib.tier1_nat_rule.delete("router", "nat")
lib.tier1.delete_locale_service("router")
lib.tier1.delete("router")
lib.segment_port_security_profiles.delete("net-0", "port", "map")
lib.segment_port.delete("net-0", "port")
for i in range(5):
    lib.segment.delete(f"net-{i}")
said["pending"] = refused(lib.client.patch, "infra/segments/net-0", {})
lib.segment.create_or_overwrite("again", segment_id="net-0", transport_zone_id="tz")
lib.segment.delete("net-0")
said["left"] = [len(lib.segment.list()), len(lib.tier1.list()), len(lib.group.list("default"))]

nsx = lib.nsx_api
switches = [nsx.logical_switch.create(f"ls {i}", "tz", tags)["id"] for i in range(5)]
said["switches"] = len(nsx.logical_switch.list()["results"])
port = nsx.logical_port.create(switches[0], "vif", tags=tags)
said["by attachment"] = nsx.logical_port.get_by_attachment("VIF", "vif")["result_count"]
nsx.logical_port.update(port["id"], "vif", name="renamed")
said["renamed"] = nsx.logical_port.get(port["id"])["display_name"]
said["stale port"] = refused(nsx.client.update, "logical-ports/" + port["id"], port)
router = nsx.logical_router.create("router", tags)
leg = nsx.logical_router_port.create(router["id"], "leg", [], "LogicalRouterDownLinkPort", port["id"], None)
nsx.logical_router.add_nat_rule(router["id"], "SNAT", "192.0.2.1")
group = nsx.ns_group.create("group", "", tags)
section = nsx.firewall_section.create_empty("section", "", [group["id"]], tags)
nsx.firewall_section.add_rules([nsx.firewall_section.get_rule_dict("rule")], section["id"])
said["rules"] = len(nsx.firewall_section.get_rules(section["id"])["results"])
nsx.firewall_section.update(section["id"], rules=[nsx.firewall_section.get_rule_dict("other")])
said["other rules"] = [one["display_name"] for one in nsx.firewall_section.get_rules(section["id"])["results"]]
server = nsx.dhcp_server.create("profile", "10.0.0.2", tags=tags)
nsx.dhcp_server.create_binding(server["id"], "fa:16:3e:00:00:01", "10.0.0.3")
said["vif"] = nsx.vif.get_by_owner_vm_id("vm")["results"][0]["lport_attachment_id"]
said["manager orders"] = [
    refused(nsx.client.delete, "logical-switches/" + switches[0]),
    refused(nsx.client.delete, "logical-ports/" + port["id"]),
    refused(nsx.logical_router.delete, router["id"]),
    refused(nsx.client.delete, "ns-groups/" + group["id"]),
    refused(nsx.client.delete, "firewall/sections/" + section["id"]),
    refused(nsx.logical_switch.get, "none"),
]
nsx.dhcp_server.delete(server["id"])
nsx.firewall_section.delete(section["id"])
nsx.ns_group.delete(group["id"])
nsx.logical_router_port.delete(leg["id"])
nsx.logical_router.delete(router["id"])
nsx.logical_port.delete(port["id"])
for switch in switches:
    nsx.logical_switch.delete(switch)
said["manager left"] = [
    len(nsx.client.list(path)["results"])
    for path in ("logical-switches", "logical-ports", "logical-routers", "ns-groups", "firewall/sections")]

said["wrong password"] = refused(
    lambda: made(password="wrong", max_attempts=2, allow_passthrough=False, enable_health_check=False).segment.list())
# The test has put a fault into each of these: 429, 503, a session that ends amid it, a manager that goes down.
said["despite faults"] = [[one["id"] for one in lib.tier0.list()] for _ in range(4)]
by_certificate = made(client_cert_provider=Certificate, username=None, password=None)
by_certificate.segment.create_or_overwrite("mine", segment_id="mine", transport_zone_id="tz")
said["owner"] = lib.segment.get("mine")["_create_user"]
said["not mine"] = refused(lib.client.delete, "infra/segments/mine")
print(json.dumps(said))
"""


@pytest.mark.real
def test_the_real_client_finds_it_an_nsx(tmp_path: Path) -> None:
    python = client_python()
    with Nsx(tmp_path, managers=2, tls=True) as nsx:
        nsx.rate, nsx.page_size, nsx.pending_delete = 0, 2, 1
        zone = "infra/sites/default/enforcement-points/default/transport-zones"
        nsx.load(zone, [{"id": "tz", "display_name": "tz"}])
        nsx.load("infra/segment-security-profiles", [{"id": "sec"}])
        nsx.load("infra/spoofguard-profiles", [{"id": "spoof"}])
        nsx.load("fabric/vifs", [{"external_id": "v", "owner_vm_id": "vm", "lport_attachment_id": "port"}])
        nsx.load("infra/tier-0s", [{"id": str(number)} for number in range(5)])
        end = threading.Thread(target=nsx.managers[1].down)
        nsx.fault(429, kind="infra/tier-0s", times=2)
        nsx.fault(503, kind="infra/tier-0s", page=2)
        nsx.fault("expire", kind="infra/tier-0s", page=3)
        nsx.fault(end.start, kind="infra/tier-0s", page=3)
        pem = tmp_path / "both.pem"
        pem.write_text(nsx.certificate.read_text() + nsx.key.read_text())
        user, password = nsx.ADMIN
        asked = {"urls": nsx.urls, "ca": str(nsx.ca), "pem": str(pem), "user": user, "password": password}
        said = json.loads(run([python, "-c", DRIVER], input=json.dumps(asked)))
        end.join()
        assert [fault.times for fault in nsx.faults] == [0] * 4
        listed = [one.page for one in nsx.asked if (one.kind, one.status) == ("infra/segments", 200)]
        assert listed == [1, 2, 3, 1], "five on three pages, and at the end none"
        assert nsx.counts["GET", "logical-switches"] == 3 + 1
        assert {one.status for one in nsx.asked if one.kind == "infra/tier-0s"} == {200, 403, 429, 503}
    in_use = ["ResourceInUse", 500030]
    assert said == {
        "version": nsx.version,
        "partial": True,
        "health": "GREEN",
        "tags": tags(os_neutron_net_id="net-0", os_project_id="p", os_project_name="project", os_api_version="17.0.0"),
        "segments": [f"net-{number}" for number in range(5)],
        "port": {"id": "port", "type": "PARENT"},
        "policy": [tags(os_neutron_secg_id="sg"), ["rule"]],
        "logged": True,
        "realized": "REALIZED",
        "stale": ["StaleRevision", 604],
        "updated": "new",
        "fresh": 2,
        "stale group": ["StaleRevision", 604],
        "orders": [
            ["NsxSegemntWithVM", 503040],
            *[in_use] * 5,
            ["ResourceNotFound", 600],
            ["NsxInvalidPath", 500012],
        ],
        "found": 5,
        "pending": ["NsxPendingDelete", 0],
        "left": [0, 0, 0],
        "switches": 5,
        "by attachment": 1,
        "renamed": "renamed",
        "stale port": ["StaleRevision", 604],
        "rules": 1,
        "other rules": ["other"],
        "vif": "port",
        "manager orders": [*[in_use] * 5, ["BackendResourceNotFound", 202]],
        "manager left": [0] * 5,
        "wrong password": ["InvalidCredentials", 403],
        "despite faults": [["0", "1", "2", "3", "4"]] * 4,
        "owner": nsx.PRINCIPAL,
        "not mine": ["ManagerError", 289],
    }
