"""The cloud's APIs as a user or an administrator calls them, from this machine."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import openstack

from testbed import places
from testbed.cloud import Cloud
from testbed.node import Failed, await_true

CLOUDS = places.HERE / "etc/controller/openstack/clouds.yaml"
_NEWNET = 0x40000000


def enter_network(cloud: Cloud) -> None:
    """Move this thread, and all that it starts, into the controller's network: there the APIs are, and nowhere else."""
    with cloud.controller.path("/proc/1/ns/net").open() as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the controller's network")


class Api:
    """A user's connection.  Everything waits with a limit, and says what never came."""

    def __init__(self, user: str = "admin") -> None:
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(CLOUDS)
        self.sdk: Any = openstack.connect(cloud=user)
        self.sdk.compute.default_microversion = "2.95"
        self.sdk.block_storage.default_microversion = "3.70"
        self._ids: dict[tuple[str, str], str] = {}

    # -- servers

    def boot(self, name: str, host: str | None = None, flavor: str = "m1.small", wait: bool = True, **more: Any) -> str:
        """Make a server with a port on net0 and the Linux guest, on a host if one is named; its UUID.

        `more` goes into the request as it is.
        """
        body: dict[str, Any] = {
            "name": name, "flavorRef": self._id("flavor", flavor), "networks": [{"uuid": self._id("network", "net0")}],
            "imageRef": self._id("image", "linux"),
            "availability_zone": "fake" if host and host.startswith("fake") else "kvm",
        }  # fmt: skip
        if host:
            body["host"] = host
        body |= more
        made: str = self.call("compute", "POST", "/servers", {"server": body})["server"]["id"]
        if wait:
            self.becomes(made, "ACTIVE")
        return made

    def flavor(self, name: str) -> str:
        return self._id("flavor", name)

    def server(self, server: str) -> dict[str, Any]:
        """What Nova says of it; {} when it knows of none."""
        answer = self.sdk.compute.get(f"/servers/{server}")
        return {} if answer.status_code == 404 else self._good(answer)["server"]

    def act(self, server: str, action: str, value: Any = None) -> Any:
        """One of Nova's server actions; raises Failed with Nova's answer if it refuses."""
        return self.call("compute", "POST", f"/servers/{server}/action", {action: value})

    def becomes(self, server: str, *states: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until the server is in one of these states and nothing is under way; () waits until it is gone."""
        found: dict[str, Any] = {}

        def there() -> bool:
            nonlocal found
            found = self.server(server)
            if not states or not found:
                return not states and not found
            return found["status"] in states and not found["OS-EXT-STS:task_state"]

        try:
            until(f"server {server} is {' or '.join(states) or 'gone'}", there, seconds)
        except Failed as failed:
            task, fault = found.get("OS-EXT-STS:task_state"), found.get("fault", {}).get("message", "")
            raise Failed(f"{failed}; it is {found.get('status', 'gone')} ({task}) {fault[:300]}") from failed
        return found

    def arrives(self, server: str, host: str, seconds: float = 180) -> None:
        """Wait until Nova has an evacuated server on this host.

        It is stopped there a moment before: what one does with it then is sent to the dead host, and done when that
        comes back.
        """
        there = "OS-EXT-SRV-ATTR:host"
        until(f"server {server} is on {host}", lambda: bool(self.server(server).get(there) == host), seconds)

    def delete(self, server: str, wait: bool = True) -> None:
        """Delete it for good, at once."""
        self.act(server, "forceDelete")
        if wait:
            self.becomes(server)

    def ready(self, server: str, seconds: float = 60) -> None:
        """Wait until the guest says on its console that it is up."""

        def up() -> bool:
            return "GUEST-READY" in self.act(server, "os-getConsoleOutput", {})["output"]

        until(f"the guest of {server} is up", up, seconds)

    # -- hosts

    def compute_becomes(self, host: str, state: str, seconds: float = 90) -> None:
        """Wait until Nova thinks that nova-compute of the host is `up` or `down`."""
        until(f"nova-compute of {host} is {state}", lambda: bool(self._compute(host)["state"] == state), seconds)

    def last_heard(self, host: str) -> str:
        """When nova-compute of the host last reported: Nova's state goes on to be `up` for a while after its end."""
        return str(self._compute(host)["updated_at"])

    def force_down(self, host: str, down: bool) -> None:
        """Tell Nova that a host is down, as one does before an evacuation, or that it is not so any more."""
        self.call("compute", "PUT", f"/os-services/{self._compute(host)['id']}", {"forced_down": down})

    def _compute(self, host: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.call("compute", "GET", f"/os-services?binary=nova-compute&host={host}")[
            "services"
        ]
        return found[0]

    # -- volumes

    def volume(self, name: str, size: int = 1, **more: Any) -> str:
        made: str = self.call("block_storage", "POST", "/volumes", {"volume": {"name": name, "size": size, **more}})[
            "volume"
        ]["id"]
        self.volume_becomes(made, "available")
        return made

    def volume_state(self, volume: str) -> str | None:
        """Its status; None when Cinder knows of none."""
        answer = self.sdk.block_storage.get(f"/volumes/{volume}")
        return None if answer.status_code == 404 else self._good(answer)["volume"]["status"]

    def volume_becomes(self, volume: str, *states: str | None, seconds: float = 120) -> None:
        until(f"volume {volume} is {states}", lambda: self.volume_state(volume) in states, seconds)

    # -- by which all of it is done

    def call(self, service: str, method: str, path: str, body: Any = None) -> Any:
        """Call an API: the answer's JSON, None when it has none.  Raises Failed with what it answered."""
        return self._good(getattr(self.sdk, service).request(path, method, json=body))

    def _good(self, answer: Any) -> Any:
        if answer.status_code >= 400:
            raise Failed(f"{answer.request.method} {answer.url} -> {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def _id(self, kind: str, name: str) -> str:
        if (kind, name) not in self._ids:
            service = {"flavor": self.sdk.compute, "network": self.sdk.network, "image": self.sdk.image}[kind]
            self._ids[kind, name] = getattr(service, f"find_{kind}")(name, ignore_missing=False).id
        return self._ids[kind, name]


def until(what: str, true: Callable[[], bool], seconds: float, pause: float = 0.5) -> None:
    """Wait until something holds, asking every `pause` seconds.  Raises Failed that says what never did."""
    await_true(what, true, seconds, pause)
