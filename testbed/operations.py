"""What clients of the churn do with a server: operations, each from an ACTIVE server to an ACTIVE one, or to none."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from testbed import names, places
from testbed.api import Api, until
from testbed.cloud import Cloud
from testbed.node import Failed

#: What everything that is made here is called, so that all of it is found again.
PREFIX = "churn-"
#: Seconds that anything may take.  A soft reboot alone waits two minutes for a guest that does not listen.
PATIENCE = 400

HOST = "OS-EXT-SRV-ATTR:host"


#: Does something with a server; what it leaves is ACTIVE, or gone.  It returns what is worth noting of it.
Act = Callable[[Api, str, random.Random], str | None]


@dataclass(frozen=True)
class Operation:
    """`fake`: Nova's fake driver can do it too.  `fresh`: on a server that is still being built, made for it."""

    act: Act
    fake: bool = True
    fresh: bool = False


def becomes(api: Api, server: str, state: str, *instead: str) -> dict[str, Any]:
    """Wait until it is so.  Raises Failed at once if Nova has given up, and it is in ERROR or `instead` at rest."""
    found = api.becomes(server, state, "ERROR", *instead, seconds=PATIENCE)
    if found["status"] != state:
        raise Failed(f"it is {found['status']}, not {state}: {found.get('fault', {}).get('message', '')[:300]}")
    return found


def _linger(rng: random.Random, seconds: float = 8) -> None:
    """Stay as it is for a while, so that it is seen like this."""
    time.sleep(rng.uniform(0, seconds))


def _there_and_back(there: str, state: str, back: str, value: Any = None) -> Act:
    """An action and its opposite."""

    def act(api: Api, server: str, rng: random.Random) -> None:
        api.act(server, there, value)
        becomes(api, server, state, "ACTIVE")
        _linger(rng)
        api.act(server, back)
        becomes(api, server, "ACTIVE", state)

    return act


def _reboot(how: str) -> Act:
    def act(api: Api, server: str, rng: random.Random) -> None:
        api.act(server, "reboot", {"type": how})
        becomes(api, server, "ACTIVE")

    return act


def _move(api: Api, server: str, resize: bool) -> None:
    """Have it moved to the other host, with the other flavor if it is a resize."""
    if resize:
        now = api.server(server)["flavor"]["original_name"]
        other = "m1.bigger" if now == "m1.small" else "m1.small"
        api.act(server, "resize", {"flavorRef": api.sdk.compute.find_flavor(other, ignore_missing=False).id})
    else:
        api.act(server, "migrate")


def _moved(resize: bool, end: str) -> Act:
    def act(api: Api, server: str, rng: random.Random) -> None:
        _move(api, server, resize)
        becomes(api, server, "VERIFY_RESIZE", "ACTIVE")
        _linger(rng)
        api.act(server, end)
        becomes(api, server, "ACTIVE")

    return act


def _migrate_live(api: Api, server: str, rng: random.Random) -> None:
    before = api.server(server)[HOST]
    api.act(server, "os-migrateLive", {"host": None, "block_migration": "auto"})
    if becomes(api, server, "ACTIVE")[HOST] == before:
        raise Failed(f"it did not leave {before}")


def _abort_live(api: Api, server: str, rng: random.Random) -> str:
    """Call off a live migration, at whatever moment; Nova may say that it is too late."""
    found: list[dict[str, Any]] = []

    def under_way_or_over() -> bool:
        nonlocal found
        found = api.call("compute", "GET", f"/servers/{server}/migrations")["migrations"]
        return bool(found) or api.server(server)["status"] != "MIGRATING"

    api.act(server, "os-migrateLive", {"host": None, "block_migration": "auto"})
    until(f"the live migration of {server} is under way", under_way_or_over, PATIENCE)
    _linger(rng, 4)
    said = "it was over"
    if found:
        one = f"/servers/{server}/migrations/{found[0]['id']}"
        with suppress(Failed):
            said = api.call("compute", "GET", one)["migration"]["status"]
            api.call("compute", "DELETE", one)
            said = f"called off while {said}"
    becomes(api, server, "ACTIVE")
    return said


def _rebuild(api: Api, server: str, rng: random.Random) -> None:
    api.act(server, "rebuild", {"imageRef": api.server(server)["image"]["id"]})
    becomes(api, server, "ACTIVE")


def _volume(meanwhile: Act | None) -> Act:
    """Attach a volume, do something with the server that has it, and detach it: Nova asks the guest again and again
    until it lets go."""

    def act(api: Api, server: str, rng: random.Random) -> None:
        volume = api.volume(f"{PREFIX}{server[:8]}")
        attachments = f"/servers/{server}/os-volume_attachments"
        api.call("compute", "POST", attachments, {"volumeAttachment": {"volumeId": volume}})
        api.volume_becomes(volume, "in-use", seconds=PATIENCE)
        if meanwhile is None:
            _linger(rng)
        else:
            meanwhile(api, server, rng)
        api.call("compute", "DELETE", f"{attachments}/{volume}")
        api.volume_becomes(volume, "available", seconds=PATIENCE)
        api.call("block_storage", "DELETE", f"/volumes/{volume}")
        api.volume_becomes(volume, None, seconds=PATIENCE)

    return act


def _retype(api: Api, server: str, rng: random.Random) -> None:
    """Give another type to a volume that the server uses, and then, free, one of another backend: Cinder makes a new
    volume there, copies, and lets them change places."""
    volume = api.volume(f"{PREFIX}{server[:8]}", volume_type="rbd")
    attachments = f"/servers/{server}/os-volume_attachments"

    def retype(name: str, policy: str, state: str) -> None:
        asked = {"new_type": name, "migration_policy": policy}
        place = f"/volumes/{volume}"
        api.call("block_storage", "POST", f"{place}/action", {"os-retype": asked})
        until(
            f"volume {volume} is of type {name}",
            lambda: bool(api.call("block_storage", "GET", place)["volume"]["volume_type"] == name),
            PATIENCE,
        )
        api.volume_becomes(volume, state, seconds=PATIENCE)

    api.call("compute", "POST", attachments, {"volumeAttachment": {"volumeId": volume}})
    api.volume_becomes(volume, "in-use", seconds=PATIENCE)
    retype("rbd, too", "never", "in-use")
    _linger(rng)
    api.call("compute", "DELETE", f"{attachments}/{volume}")
    api.volume_becomes(volume, "available", seconds=PATIENCE)
    retype("rbd2", "on-demand", "available")
    _linger(rng)
    api.call("block_storage", "DELETE", f"/volumes/{volume}")
    api.volume_becomes(volume, None, seconds=PATIENCE)


def _snapshot(api: Api, server: str, rng: random.Random) -> None:
    image = api.act(server, "createImage", {"name": f"{PREFIX}{server[:8]}"})["image_id"]
    becomes(api, server, "ACTIVE")
    until(f"image {image} is active", lambda: bool(api.sdk.image.get_image(image).status == "active"), PATIENCE)
    api.sdk.image.delete_image(image)


def _restore(api: Api, server: str, rng: random.Random) -> None:
    api.call("compute", "DELETE", f"/servers/{server}")
    becomes(api, server, "SOFT_DELETED", "ACTIVE")
    _linger(rng)
    api.act(server, "restore")
    becomes(api, server, "ACTIVE", "SOFT_DELETED")


def delete(api: Api, server: str, rng: random.Random) -> None:
    api.act(server, "forceDelete")
    api.becomes(server, seconds=PATIENCE)


def _delete_twice(api: Api, server: str, rng: random.Random) -> None:
    """As a user deletes it, and for good before it could be restored.

    Not at once: Nova forgets both when the second comes amid the first, and the server is `deleting` for ever
    (nova/compute/api.py: _delete ignores the second, after it has changed the task_state that the first expects).
    """
    api.call("compute", "DELETE", f"/servers/{server}")
    becomes(api, server, "SOFT_DELETED", "ACTIVE")
    delete(api, server, rng)


def _delete_building(api: Api, server: str, rng: random.Random) -> str:
    _linger(rng)
    found = api.server(server)
    delete(api, server, rng)
    return f"deleted while {found.get('status')} ({found.get('OS-EXT-STS:task_state')})"


def _delete_resized(api: Api, server: str, rng: random.Random) -> None:
    """Delete what waits to be confirmed.

    Not what is still being copied: then Nova loses the directory on the other host, and that is no innocent life.  Its
    nova-compute looks for such every five minutes, among the migrations that are not deleted, and the server's deletion
    has deleted its migrations (nova/compute/manager.py: _cleanup_incomplete_migrations; nova/db/main/api.py:
    instance_destroy).
    """
    _move(api, server, rng.random() < 0.5)
    becomes(api, server, "VERIFY_RESIZE", "ACTIVE")
    _linger(rng)
    delete(api, server, rng)


def _interface(api: Api, server: str, rng: random.Random) -> None:
    """Nova makes a port for it, and deletes it again."""
    network = api.sdk.network.find_network("net0").id
    asked = {"interfaceAttachment": {"net_id": network}}
    port = api.call("compute", "POST", f"/servers/{server}/os-interface", asked)["interfaceAttachment"]["port_id"]
    _linger(rng)
    api.call("compute", "DELETE", f"/servers/{server}/os-interface/{port}")
    until(f"port {port} is gone", lambda: not _neutron(api, "ports", f"id={port}"), PATIENCE)


def _port(meanwhile: Act | None) -> Act:
    """A port of the user's own, with a subport on a trunk; attach it, do something with the server that has it, detach
    it, and away with all."""

    def act(api: Api, server: str, rng: random.Random) -> None:
        network = api.sdk.network.find_network("net0").id
        own, sub = (_made(api, "ports", server, network_id=network) for _ in range(2))
        trunk = _made(api, "trunks", server, port_id=own)
        below = {"sub_ports": [{"port_id": sub, "segmentation_type": "vlan", "segmentation_id": 7}]}
        _attach(api, server, own)
        api.call("network", "PUT", f"/trunks/{trunk}/add_subports", below)
        if meanwhile is None:
            _linger(rng)
        else:
            meanwhile(api, server, rng)
        api.call("network", "PUT", f"/trunks/{trunk}/remove_subports", {"sub_ports": [{"port_id": sub}]})
        _detach(api, server, own)
        for kind, one in (("trunks", trunk), ("ports", own), ("ports", sub)):
            api.call("network", "DELETE", f"/{kind}/{one}")

    return act


def _way_out(api: Api, server: str, rng: random.Random) -> None:
    """A network with a subnet and a router of its own, a security group, a floating IP that leads to the server and has
    a name; away with it, in the order in which Neutron lets it go."""
    outside = api.sdk.network.find_network("ext").id
    network = _made(api, "networks", server)
    subnet = _made(
        api, "subnets", server, network_id=network, ip_version=4, cidr=f"10.{rng.randrange(100, 200)}.0.0/24"
    )
    router = _made(api, "routers", server, external_gateway_info={"network_id": outside})
    group = _made(api, "security-groups", server)
    api.call("network", "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = _made(api, "ports", server, network_id=network, security_groups=[group])
    _attach(api, server, port)
    leads = {"floatingip": {"floating_network_id": outside, "port_id": port, "description": PREFIX}}
    address = api.call("network", "POST", "/floatingips", leads)["floatingip"]["id"]
    names.points(api, address, f"{PREFIX}{server[:8]}.{places.ZONE}")
    _linger(rng)
    if rng.random() < 0.5:
        api.call("network", "PUT", f"/floatingips/{address}", {"floatingip": {"port_id": None}})
        _linger(rng, 4)
    names.points(api, address, None)
    api.call("network", "DELETE", f"/floatingips/{address}")
    _detach(api, server, port)
    api.call("network", "DELETE", f"/ports/{port}")
    api.call("network", "PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": subnet})
    for kind, one in (("routers", router), ("security-groups", group), ("networks", network)):
        api.call("network", "DELETE", f"/{kind}/{one}")


def _name(api: Api, server: str, rng: random.Random) -> None:
    """A name in the zone that Designate does not have, given and taken away as one does who keeps his own names."""
    port = _neutron(api, "ports", f"device_id={server}")[0]
    name = f"{api.server(server)['name']}.{names.LEGACY}"
    record = f"{name} 60 A {port['fixed_ips'][0]['ip_address']}"
    cloud = Cloud()
    names.update(cloud, f"update add {record}")
    _linger(rng)
    names.update(cloud, f"update delete {record}")


def _attach(api: Api, server: str, port: str) -> None:
    asked = {"interfaceAttachment": {"port_id": port}}
    api.call("compute", "POST", f"/servers/{server}/os-interface", asked)


def _detach(api: Api, server: str, port: str) -> None:
    """Nova takes a port of the user's from the server, and it stays the user's."""
    api.call("compute", "DELETE", f"/servers/{server}/os-interface/{port}")
    until(f"port {port} is free", lambda: bool(_neutron(api, "ports", f"id={port}&device_id=")), PATIENCE)


def _made(api: Api, kind: str, server: str, **body: Any) -> str:
    """Make a network, port or the like for a server, and return its UUID."""
    one = kind.removesuffix("s").replace("-", "_")
    asked = {one: {"name": f"{PREFIX}{server[:8]}", **body}}
    made: str = api.call("network", "POST", f"/{kind}", asked)[one]["id"]
    return made


def _neutron(api: Api, kind: str, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.call("network", "GET", f"/{kind}?{query}")[kind.replace("-", "_")]
    return found


def away_with_networks(api: Api) -> Iterator[tuple[str, Callable[[], object]]]:
    """What deletes each thing of networks that the churn has left, in an order in which Neutron lets it go."""
    for one in _neutron(api, "floatingips", f"description={PREFIX}"):
        yield f"floating IP {one['id']}", partial(api.call, "network", "DELETE", f"/floatingips/{one['id']}")
    ours = {kind: [one for one in _neutron(api, kind, "fields=id&fields=name") if one["name"].startswith(PREFIX)]
            for kind in ("trunks", "routers", "ports", "networks", "security-groups")}  # fmt: skip
    for router in ours["routers"]:
        for port in _neutron(api, "ports", f"device_id={router['id']}&device_owner=network:router_interface"):
            leave = f"/routers/{router['id']}/remove_router_interface"
            yield f"port {port['id']}", partial(api.call, "network", "PUT", leave, {"port_id": port["id"]})
    for kind, left in ours.items():
        for one in left:
            yield f"{kind} {one['id']}", partial(api.call, "network", "DELETE", f"/{kind}/{one['id']}")


OPERATIONS: Mapping[str, Operation] = {
    "reboot, soft": Operation(_reboot("SOFT")),
    "reboot, hard": Operation(_reboot("HARD")),
    "stop, start": Operation(_there_and_back("os-stop", "SHUTOFF", "os-start")),
    "pause, unpause": Operation(_there_and_back("pause", "PAUSED", "unpause")),
    "suspend, resume": Operation(_there_and_back("suspend", "SUSPENDED", "resume")),
    "rescue, unrescue": Operation(_there_and_back("rescue", "RESCUE", "unrescue", {})),
    "shelve, offload, unshelve": Operation(_there_and_back("shelve", "SHELVED_OFFLOADED", "unshelve")),
    "resize, confirm": Operation(_moved(True, "confirmResize"), fake=False),
    "resize, revert": Operation(_moved(True, "revertResize"), fake=False),
    "migrate, confirm": Operation(_moved(False, "confirmResize"), fake=False),
    "migrate, revert": Operation(_moved(False, "revertResize"), fake=False),
    "live migration": Operation(_migrate_live, fake=False),
    "live migration, aborted": Operation(_abort_live, fake=False),
    "rebuild": Operation(_rebuild),
    "volume, attach, detach": Operation(_volume(None), fake=False),
    "volume, live migration": Operation(_volume(_migrate_live), fake=False),
    "volume, shelve": Operation(_volume(_there_and_back("shelve", "SHELVED_OFFLOADED", "unshelve")), fake=False),
    "volume, resize": Operation(_volume(_moved(True, "confirmResize")), fake=False),
    "volume, retype": Operation(_retype, fake=False),
    "interface, attach, detach": Operation(_interface, fake=False),
    "port, attach, detach": Operation(_port(None), fake=False),
    "port, live migration": Operation(_port(_migrate_live), fake=False),
    "port, resize": Operation(_port(_moved(True, "confirmResize")), fake=False),
    "port, shelve": Operation(_port(_there_and_back("shelve", "SHELVED_OFFLOADED", "unshelve")), fake=False),
    "network, router, floating IP": Operation(_way_out, fake=False),
    "name of its own": Operation(_name),
    "snapshot": Operation(_snapshot, fake=False),
    "soft delete, restore": Operation(_restore, fake=False),
    "delete": Operation(delete),
    "soft delete, delete": Operation(_delete_twice),
    "delete while building": Operation(_delete_building, fresh=True),
    "resize, delete": Operation(_delete_resized, fake=False),
}
