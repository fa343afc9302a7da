"""A small Keystone and Cinder on the loopback, which answer as they are told to: well, with a fault, late or never."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PASSWORD = "hunter2-in-clouds-yaml"
TOKEN = "gAAAA-a-token-that-nobody-may-keep"
CHAP = "chap-secret-of-the-target"
PROJECT = "0f" * 16


class Api:
    """`attachments` and `volumes` are what Cinder has, as its API tells them.  `faults` are given once each, in turn,
    to the next request of that method: a status, or 'hang', 'close'.  `asked` are all requests but Keystone's."""

    def __init__(self) -> None:
        self.attachments: dict[str, dict[str, Any]] = {}
        self.volumes: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, list[int | str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.words = "an explanation"
        self.keystone = 201
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.lazy = False  # say yes, and do nothing
        self.raw: str | None = None  # say this, whatever is asked
        self.let_go = threading.Event()
        self.url = ""

    def add(self, volume: str, attachment: str | None, server: str | None, **more: Any) -> None:
        told = {"id": volume, "status": "in-use", "attachments": [], "updated_at": "2026-11-13T12:00:00.000000"}
        self.volumes[volume] = told | {name: value for name, value in more.items() if name in told}
        if attachment is not None:
            self.attachments[attachment] = {
                "id": attachment, "status": more.get("attach_status", "attached"), "instance": server,
                "volume_id": volume, "attached_at": more.get("attached_at", ""), "detached_at": "",
                "connection_info": {"auth_password": CHAP},
            }  # fmt: skip

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """What Cinder answers, and does."""
        place, _, query = path.removeprefix(f"/volume/v3/{PROJECT}").partition("?")
        _, kind, *rest = place.split("/")
        if kind == "attachments" and not rest:
            volume = query.rpartition("volume_id=")[2]
            assert "all_tenants=1" in query
            return 200, {"attachments": [one for one in self.attachments.values() if one["volume_id"] == volume]}
        held: dict[str, dict[str, Any]] = {"attachments": self.attachments, "volumes": self.volumes}[kind]
        if rest[0] not in held:
            return 404, {"itemNotFound": {"code": 404, "message": f"{rest[0]} could not be found."}}
        one = held[rest[0]]
        if method == "GET":
            return 200, {kind.removesuffix("s"): one}
        if self.lazy:
            return 202, {}
        if method == "DELETE":
            del self.attachments[rest[0]]
            return 200, {"attachments": []}
        if body == {"os-complete": {}}:
            one["status"] = "attached"
            self.volumes[one["volume_id"]]["status"] = "in-use"
            return 204, {}
        one["status"] = body["os-reset_status"]["status"]
        one["updated_at"] = "2026-11-22T00:00:00.000000"
        return 202, {}

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path in self.asked if method != "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Api

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _said(self, status: int, told: Any, **headers: str) -> None:
        data = (told if isinstance(told, str) else json.dumps(told)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _any(self) -> None:
        api, method, path = self.api, self.command, self.path
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        if path.startswith("/identity"):
            if method == "POST":
                catalog = [
                    {"type": kind, "name": kind, "endpoints": [
                        {"interface": "public", "region": "One", "region_id": "One", "url": f"{api.url}{place}"}]}
                    for kind, place in (
                        ("block-storage", f"/volume/v3/{PROJECT}"), ("network", "/network"), ("dns", "/dns"),
                        ("placement", "/placement"),
                    )
                ]  # fmt: skip
                token = {"methods": ["password"], "catalog": catalog, "expires_at": "2999-01-01T00:00:00.000000Z",
                         "issued_at": "2026-01-01T00:00:00.000000Z", "project": {"id": PROJECT, "name": "admin"},
                         "user": {"id": "u", "name": "admin"}}  # fmt: skip
                said = {"error": {"code": api.keystone, "message": "This requires authentication."}}
                self._said(api.keystone, {"token": token} if api.keystone == 201 else said, X_Subject_Token=TOKEN)
            else:
                link = [{"rel": "self", "href": f"{api.url}/identity/v3/"}]
                self._said(200, {"version": {"id": "v3.14", "status": "stable", "links": link}})
            return
        api.asked.append((method, path))
        api.headers.append(dict(self.headers.items()))
        api.before(method, path)
        fault = api.faults.get(method, []).pop(0) if api.faults.get(method) else None
        if fault == "hang":
            api.let_go.wait(30)
            self.close_connection = True
        elif fault == "close":
            self.close_connection = True
        elif fault is not None:
            self._said(int(fault), {"fault": {"code": fault, "message": api.words}})
        elif api.raw is not None:
            self._said(200, api.raw)
        else:
            self._said(*api.answer(method, path, body))

    do_GET = do_POST = do_DELETE = do_PUT = _any


@contextmanager
def served(kind: type[Api] = Api) -> Iterator[Any]:
    api = kind()
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield api
    finally:
        api.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()


def clouds(folder: Path, url: str) -> Path:
    """A clouds.yaml with an administrator, whose retries must not be taken."""
    path = folder / "clouds.yaml"
    path.write_text(f"""\
clouds:
  here:
    region_name: One
    block_storage_status_code_retries: 3
    block_storage_connect_retries: 3
    auth:
      auth_url: {url}/identity/v3
      username: admin
      password: {PASSWORD}
      project_name: admin
      user_domain_id: default
      project_domain_id: default
""")
    path.chmod(0o600)
    return path
