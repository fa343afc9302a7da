"""Faults of the interrupted: a service dies in the midst of its work, and what it was at is half done.

Each is made as it happens.  What comes next in line is held first (SIGSTOP, a lock), so that the service surely stands
in the midst; then the service is killed, and the hold let go.  Nothing that died is started again here: `Cloud.start`,
`Cloud.nova_compute` and `all_serve` do that.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from testbed import places
from testbed.api import Api
from testbed.cloud import APIS, NORTHBOUND, SERVICES, Cloud
from testbed.leftovers import INSTANCES, VIRSH, state
from testbed.node import Failed, Node, await_true

SOCKET = "/run/mysqld/mysqld.sock"
#: The queue in which a call waits for the scheduler.
SCHEDULER = "scheduler"


# -- what every place says


@dataclass(frozen=True)
class Picture:
    """What every place says of one server; each field is sorted, and empty where a place has nothing.

    `rows` in the cells; `mapping` the cell that the API database names, "" while it names none, None without a mapping;
    `allocations` by whom and where; `ports` and `attachments` as Neutron and Cinder have them; `devices` the volumes in
    the block device mappings.
    """

    rows: tuple[str, ...] = ()
    mapping: str | None = None
    build_request: bool = False
    migrations: tuple[str, ...] = ()
    allocations: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()


def picture(cloud: Cloud, server: str) -> Picture:
    """Look at every place now."""
    told = _told(cloud, server)
    domains = [f"{host} {word}" for host, node in cloud.computes.items() if (word := state(node, server))]
    directories = [
        f"{host} {path.name.replace(server, 'UUID')}"
        for host, node in cloud.computes.items()
        for path in node.path(INSTANCES).glob(f"{server}*")
    ]
    mapping, build_request = told.pop("mapping"), bool(told.pop("build_request"))
    parts = {name: tuple(sorted(values)) for name, values in told.items()}
    return Picture(
        mapping=mapping[0] if mapping else None, build_request=build_request, domains=tuple(sorted(domains)),
        directories=tuple(sorted(directories)), **parts,
    )  # fmt: skip


def row(cloud: Cloud, server: str) -> str:
    """What the cells say of it: cell, vm_state, task_state, host."""
    return " and ".join(sorted(_told(cloud, server)["rows"]))


def _told(cloud: Cloud, server: str) -> dict[str, list[str]]:
    """What the databases say, by the names of a picture's fields."""
    queries = {
        "mapping": "SELECT coalesce(c.name, '') FROM nova_api.instance_mappings m LEFT JOIN nova_api.cell_mappings c"
                   f" ON c.id = m.cell_id WHERE m.instance_uuid = '{server}'",
        "build_request": f"SELECT id FROM nova_api.build_requests WHERE instance_uuid = '{server}'",
        "allocations": "SELECT DISTINCT concat(if(a.consumer_id = u.id, 'instance ', 'migration '), p.name) FROM"
                       f" (SELECT '{server}' AS id) u JOIN placement.allocations a ON a.consumer_id = u.id OR"
                       " a.consumer_id IN (SELECT uuid FROM nova_cell1.migrations WHERE instance_uuid = u.id)"
                       " JOIN placement.resource_providers p ON p.id = a.resource_provider_id",
        "ports": "SELECT concat_ws(' ', p.status, nullif(b.host, ''), b.vif_type) FROM neutron.ports p"
                 f" LEFT JOIN neutron.ml2_port_bindings b ON b.port_id = p.id WHERE p.device_id = '{server}'",
        "attachments": "SELECT concat(v.status, ': ', a.attach_status,"
                       " if(length(coalesce(a.connector, '{}')) > 2, ', connected', ''))"
                       " FROM cinder.volume_attachment a JOIN cinder.volumes v ON v.id = a.volume_id"
                       f" WHERE a.deleted = 0 AND a.instance_uuid = '{server}'",
    }  # fmt: skip
    for cell in ("cell0", *places.CELLS):
        queries[f"rows {cell}"] = (
            f"SELECT concat_ws(' ', '{cell}', vm_state, coalesce(task_state, '-'), coalesce(host, 'nowhere'),"
            f" if(deleted, '(deleted)', NULL)) FROM nova_{cell}.instances WHERE uuid = '{server}'"
        )
        queries[f"migrations {cell}"] = (
            "SELECT concat_ws(' ', migration_type, status, concat(source_compute, '>', dest_compute),"
            f" if(deleted, '(deleted)', NULL)) FROM nova_{cell}.migrations WHERE instance_uuid = '{server}'"
        )
        queries[f"devices {cell}"] = (
            f"SELECT volume_id FROM nova_{cell}.block_device_mapping WHERE instance_uuid = '{server}' AND NOT deleted"
            " AND destination_type = 'volume'"
        )
    text = " UNION ALL ".join(f"SELECT '{name}', q.* FROM ({query}) q" for name, query in queries.items())
    told: dict[str, list[str]] = {name.partition(" ")[0]: [] for name in queries}
    for name, value in cloud.sql("", text):
        told[name.partition(" ")[0]].append(value)
    return told


@dataclass(frozen=True)
class Hit:
    """What was hit: what every place said of the server when the service had died, and what its owner was told."""

    server: str
    seen: Picture
    volume: str = ""
    answer: str = ""


def booted(api: Api, name: str, host: str, **more: Any) -> str:
    """A server on a host that Nova thinks is up: else nova-api would delete it alone, and never tell the host.

    `more` goes into the request as it is.
    """
    api.compute_becomes(host, "up")
    server = api.boot(name, host, **more)
    api.compute_becomes(host, "up")
    return server


# -- deletions

#: What is held so that nova-compute stands in a deletion when the guest still runs, or is gone with its files.
HOLDS = {"runs": "libvirtd", "gone": "neutron-api"}


def delete_interrupted(cloud: Cloud, api: Api, host: str, name: str, guest: str) -> Hit:
    """nova-compute is killed while it deletes a server whose guest still `runs`, or is `gone` already."""
    node, server = cloud.computes[host], booted(api, name, host)
    with held(cloud.controller if guest == "gone" else node, HOLDS[guest]):
        api.delete(server, wait=False)
        if guest == "gone":
            await_true("the guest is gone", lambda: state(node, server) is None, 60)
            await_true("its files are gone", lambda: not node.path(f"{INSTANCES}/{server}").exists(), 60)
        else:
            await_logged(node, f"{server}] Terminating instance")
        die(node, "nova-compute")
    return Hit(server, picture(cloud, server))


def deleted_without_broker(cloud: Cloud, api: Api, host: str, names: tuple[str, str]) -> tuple[Hit, Hit]:
    """RabbitMQ dies, and two servers are deleted.

    nova-api calls the first deleting, and dies too while it waits for the broker to tell the host.  When it is asked
    for the second, no host has been heard of for so long that it takes all for down: it deletes the server alone as
    soon as the broker is back, and tells no host.
    """
    stuck, alone = (booted(api, name, host) for name in names)
    die(cloud.controller, "rabbitmq")
    with background(lambda: Api().delete(stuck, wait=False)) as answer:
        await_row(cloud, stuck, "deleting")
        die(cloud.controller, "nova-api")
    first = Hit(stuck, picture(cloud, stuck), answer=answer())
    cloud.start("nova-api")
    api.compute_becomes(host, "down")
    with background(lambda: Api().delete(alone, wait=False)) as answer:
        await_row(cloud, alone, "deleting")
        cloud.start("rabbitmq")
    api.becomes(alone)
    return first, Hit(alone, picture(cloud, alone), answer=answer())


def deleted_without(cloud: Cloud, api: Api, host: str, name: str, service: str) -> Hit:
    """A server with a volume is deleted while neutron-api or cinder-api is dead; Nova has done what it could."""
    server, volume = _with_volume(cloud, api, host, name)
    attach(cloud, api, server, volume)
    die(cloud.controller, service)
    api.delete(server, wait=False)
    # nova-compute tries to reach Neutron for half a minute, and fails; it does not care whether it reaches Cinder.
    await_row(cloud, server, f"error - {host}" if service == "neutron-api" else "(deleted)")
    return Hit(server, picture(cloud, server), volume)


# -- builds


def build_interrupted(cloud: Cloud, api: Api, host: str, name: str, guest: str) -> Hit:
    """nova-compute is killed while it builds a server: its guest has no `disk` yet, or is `paused` until its port is
    up."""
    node = cloud.computes[host]
    api.compute_becomes(host, "up")
    if guest == "disk":
        with image_locked(node, api.sdk.image.find_image("linux").id):
            server = api.boot(name, host, wait=False)
            disk = node.path(f"{INSTANCES}/{server}/disk.info")
            await_true("its disk is begun", lambda: disk.exists() or _failed(api, server), 180)
            die(node, "nova-compute")
    else:
        with held(node, "ovn-controller"):
            server = api.boot(name, host, wait=False)
            await_true("the guest is paused", lambda: state(node, server) == "paused", 90)
            die(node, "nova-compute")
    return Hit(server, picture(cloud, server))


def _failed(api: Api, server: str) -> bool:
    """Never true: raises Failed once Nova has given up, with what it says."""
    said = api.server(server)
    if said["status"] == "ERROR":
        raise Failed(f"server {server} was not built: {said.get('fault', {}).get('message', 'Nova does not say why')}")
    return False


def boot_unsent(cloud: Cloud, api: Api, host: str, name: str) -> Hit:
    """nova-api is killed when it has written down a new server, and before it has told the conductor.

    It is started anew first: over a connection to the broker that it has already, the held broker would still get the
    message when it goes on.
    """
    die(cloud.controller, "nova-api")
    cloud.start("nova-api")
    with held(cloud.controller, "rabbitmq"), background(lambda: Api().boot(name, host, wait=False)) as answer:
        await_true("nova-api has written it down", lambda: _requested(cloud, name) is not None, 60)
        die(cloud.controller, "nova-api")
    server = _requested(cloud, name)
    assert server is not None
    return Hit(server, picture(cloud, server), answer=answer())


def boot_unscheduled(cloud: Cloud, api: Api, host: str, name: str) -> Hit:
    """The conductor is killed while it waits for the scheduler to choose a host, which it then does in vain."""
    with held(cloud.controller, "nova-scheduler"):
        server = api.boot(name, host, wait=False)
        await_true("the conductor asks the scheduler", lambda: counted(SCHEDULER, "messages_unacknowledged") > 0, 60)
        die(cloud.controller, "nova-super-conductor")
    await_true("the scheduler has claimed", lambda: bool(_told(cloud, server)["allocations"]), 60)
    return Hit(server, picture(cloud, server))


def boot_unmapped(cloud: Cloud, api: Api, host: str, name: str) -> Hit:
    """The conductor is killed when it has made the row in the cell, and before it says in which cell it is."""
    with contextlib.ExitStack() as lock:
        with held(cloud.controller, "nova-scheduler"):
            server = api.boot(name, host, wait=False)
            lock.enter_context(row_locked(cloud, "nova_api", "instance_mappings", f"instance_uuid = '{server}'"))
        waits = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE 'UPDATE"
        await_true("the conductor stands", lambda: bool(cloud.sql("", f"{waits} instance_mappings%'")), 120)
        die(cloud.controller, "nova-super-conductor")
    return Hit(server, picture(cloud, server))


def _requested(cloud: Cloud, name: str) -> str | None:
    """The server of this name that nova-api wants to be built."""
    query = f'SELECT instance_uuid FROM build_requests WHERE instance LIKE \'%"display_name": "{name}"%\''
    found = cloud.sql("nova_api", query)
    return found[0][0] if found else None


# -- migrations


def copy_interrupted(cloud: Cloud, api: Api, source: str, target: str, name: str) -> Hit:
    """nova-compute of the source is killed while it copies the disk for a resize, with the guest shut off."""
    with copying(cloud, api, source, target, name) as server:
        die(cloud.computes[source], "nova-compute")
    return Hit(server, picture(cloud, server))


def finish_interrupted(cloud: Cloud, api: Api, source: str, target: str, name: str) -> Hit:
    """nova-compute of the target is killed when the server is its own, and before it has made the guest."""
    there = cloud.computes[target]
    with contextlib.ExitStack() as libvirt:
        with copying(cloud, api, source, target, name) as server:
            libvirt.enter_context(held(there, "libvirtd"))
        await_row(cloud, server, f"resize_finish {target}")
        die(there, "nova-compute")
    return Hit(server, picture(cloud, server))


@contextlib.contextmanager
def copying(cloud: Cloud, api: Api, source: str, target: str, name: str) -> Iterator[str]:
    """A server in the midst of a resize, while its disk is copied."""
    there, here = cloud.computes[target], cloud.computes[source]
    server = booted(api, name, source)
    api.act(server, "resize", {"flavorRef": api.sdk.compute.find_flavor("m1.bigger").id})
    # The guest takes three seconds to be shut off: time to hold the target's sshd when the first call is over.
    await_true("the target is ready", lambda: there.path(f"{INSTANCES}/{server}").exists(), 120)
    await_true("and was left", lambda: "sshd: root" not in processes(there), 10)
    with held(there, "sshd"):
        await_true("the disk is copied", lambda: f"scp -r {INSTANCES}/{server}_resize" in processes(here), 60)
        yield server


# -- volumes


def attach_interrupted(cloud: Cloud, api: Api, host: str, name: str, service: str) -> Hit:
    """cinder-volume is killed while it makes the connection, or nova-compute before the guest has the volume."""
    node, controller = cloud.computes[host], cloud.controller
    server, volume = _with_volume(cloud, api, host, name)
    with held(controller, "ceph-mon") if service == "cinder-volume" else held(node, "libvirtd"):
        _volumes(api, server, "POST", "", {"volumeAttachment": {"volumeId": volume}})
        if service == "cinder-volume":
            await_true("cinder-volume asks Ceph", lambda: "ceph mon dump" in processes(controller), 60)
            die(controller, service)
        else:
            await_true("it is connected", lambda: _attachment(cloud, server) == "attaching: attaching, connected", 60)
            die(node, service)
    return Hit(server, picture(cloud, server), volume)


def detach_interrupted(cloud: Cloud, api: Api, host: str, name: str, service: str) -> Hit:
    """cinder-volume is killed before it gives up the connection, or nova-compute before it takes the volume away."""
    node, controller = cloud.computes[host], cloud.controller
    server, volume = _with_volume(cloud, api, host, name)
    attach(cloud, api, server, volume)
    with held(controller, service) if service == "cinder-volume" else held(node, "libvirtd"):
        _volumes(api, server, "DELETE", f"/{volume}")
        if service == "cinder-volume":
            await_true("the guest has lost it", lambda: not uses(node, server, volume), 90)
            die(controller, service)
        else:
            await_logged(node, f"Detaching volume {volume}")
            die(node, service)
    return Hit(server, picture(cloud, server), volume)


def attach_uncompleted(cloud: Cloud, api: Api, host: str, name: str) -> Hit:
    """The guest has the volume, and cinder-api and nova-compute die before anyone has told Cinder that it is done."""
    node, controller = cloud.computes[host], cloud.controller
    server, volume = _with_volume(cloud, api, host, name)
    mine = f"volume_id = '{volume}' AND NOT deleted AND connection_info LIKE '%auth_enabled%'"
    told, noted = (f"SELECT id FROM {table} WHERE {mine}" for table in ("volume_attachment", "block_device_mapping"))
    with contextlib.ExitStack() as until_dead:
        with held(node, "libvirtd"):
            _volumes(api, server, "POST", "", {"volumeAttachment": {"volumeId": volume}})
            await_true("Cinder has told how to reach it", lambda: bool(cloud.sql("cinder", told)), 60)
            until_dead.enter_context(row_locked(cloud, "cinder", "volume_attachment", mine))
        await_true("the guest has it", lambda: uses(node, server, volume), 60)
        await_true("Nova has noted how to reach it", lambda: bool(cloud.sql("nova_cell1", noted)), 60)
        die(node, "nova-compute")
        die(controller, "cinder-api")
    return Hit(server, picture(cloud, server), volume)


def detach_unrecorded(cloud: Cloud, api: Api, host: str, name: str) -> Hit:
    """Guest and Cinder have let go of the volume, and Nova dies before it has deleted its own row of it."""
    node, controller = cloud.computes[host], cloud.controller
    server, volume = _with_volume(cloud, api, host, name)
    attach(cloud, api, server, volume)
    with row_locked(cloud, "nova_cell1", "block_device_mapping", f"volume_id = '{volume}' AND NOT deleted"):
        _volumes(api, server, "DELETE", f"/{volume}")
        api.volume_becomes(volume, "available")
        die(node, "nova-compute")
        die(controller, "nova-conductor-cell1")
    return Hit(server, picture(cloud, server), volume)


def attach(cloud: Cloud, api: Api, server: str, volume: str) -> None:
    """Give a volume to a guest."""
    _volumes(api, server, "POST", "", {"volumeAttachment": {"volumeId": volume}})
    api.volume_becomes(volume, "in-use")


def detach(cloud: Cloud, api: Api, server: str, volume: str) -> None:
    """Take a volume from a guest."""
    _volumes(api, server, "DELETE", f"/{volume}")
    api.volume_becomes(volume, "available")


def uses(node: Node, server: str, volume: str) -> bool:
    """Whether the domain has the volume's disk."""
    return volume in node.run(*VIRSH, "domblklist", server)


def _with_volume(cloud: Cloud, api: Api, host: str, name: str) -> tuple[str, str]:
    """A server whose guest answers, and a volume beside it."""
    server, volume = booted(api, name, host), api.volume(name)
    api.ready(server)
    return server, volume


def _volumes(api: Api, server: str, method: str, path: str, body: Any = None) -> None:
    api.call("compute", method, f"/servers/{server}/os-volume_attachments{path}", body)


def _attachment(cloud: Cloud, server: str) -> str:
    return " and ".join(_told(cloud, server)["attachments"])


# -- databases


def dump(cloud: Cloud, database: str) -> str:
    """A backup of a database, as a nightly job makes it."""
    return cloud.controller.run("mariadb-dump", f"--socket={SOCKET}", "--single-transaction", database)


def restore(cloud: Cloud, database: str, backup: str) -> str:
    """Bring a database back from a backup while its services run; returns a backup of how it was before."""
    before = dump(cloud, database)
    cloud.sql(database, backup)
    return before


# -- how a service is held, and dies


def send(node: Node, name: str, how: signal.Signals) -> None:
    """A signal to a service and all of its workers."""
    number = node.path(f"/run/testbed/{name}.pid").read_text().strip()
    node.run("kill", f"-{how.name.removeprefix('SIG')}", "--", f"-{number}")


@contextlib.contextmanager
def held(node: Node, name: str) -> Iterator[None]:
    """A service that takes calls and answers none, until the end of the block or its own."""
    send(node, name, signal.SIGSTOP)
    try:
        yield
    finally:
        if node.serves(name):
            send(node, name, signal.SIGCONT)


@contextlib.contextmanager
def image_locked(node: Node, image: str) -> Iterator[None]:
    """The lock under which nova-compute makes a disk from an image (nova/virt/libvirt/imagebackend.py: cache)."""
    name = hashlib.sha1(image.encode()).hexdigest()
    node.run("mkdir", "-p", f"{INSTANCES}/locks")
    with node.path(f"{INSTANCES}/locks/nova-{name}").open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def row_locked(cloud: Cloud, database: str, table: str, where: str) -> Iterator[None]:
    """A transaction of somebody else's that has a row locked."""
    client = cloud.controller.command(["mariadb", "-N", "-B", "--unbuffered", f"--socket={SOCKET}", database])
    with subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(f"BEGIN; SELECT id FROM {table} WHERE {where} FOR UPDATE;\n")
        session.stdin.flush()
        assert session.stdout.readline().strip()
        yield


def waiting(cloud: Cloud) -> int:
    """How many transactions wait for a row that another has locked."""
    return len(cloud.sql("", "SELECT trx_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"))


def die(node: Node, name: str) -> None:
    """Kill a service and all of its workers at once."""
    node.stop(name, signal.SIGKILL)


def all_serve(cloud: Cloud) -> None:
    """Start again whatever has died on the controller."""
    northbound = (f"ovn-{name}" for name in NORTHBOUND)
    for name in (*northbound, "rabbitmq", *(f"{api}-api" for api in APIS), *SERVICES, "designate-sink"):
        if not cloud.controller.serves(name):
            cloud.start(name)


# -- how one waits for the moment


@contextlib.contextmanager
def background(call: Callable[[], object]) -> Iterator[Callable[[], str]]:
    """Do something beside the block, which ends no sooner; yields what tells how it ended."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)

        def answer() -> str:
            error = future.exception()
            return f"{type(error).__name__}: {error}" if error else "accepted"

        yield answer


def await_row(cloud: Cloud, server: str, words: str) -> None:
    await_true(f"the row of {server} says {words}", lambda: words in row(cloud, server), 120)


def await_logged(node: Node, words: str) -> None:
    log = node.path("/var/log/nova/nova-compute.log")
    await_true(f"nova-compute says {words}", lambda: words in log.read_text(errors="replace"), 60)


def processes(node: Node) -> str:
    """The command lines of a node, and of those within it."""
    return node.run("ps", "-eo", "args")


def messages(queue: str) -> list[str]:
    """What lies in a queue, left where it is."""
    how = {"count": 100, "ackmode": "ack_requeue_true", "encoding": "auto"}
    return [one["payload"] for one in broker("POST", f"queues/%2F/{queue}/get", how)]


def counted(queue: str, what: str) -> int:
    """A number of a queue as RabbitMQ counts it every five seconds; 0 when there is no such queue."""
    return sum(one.get(what, 0) for one in broker("GET", "queues/%2F") if one["name"] == queue)


def broker(method: str, path: str, body: object = None) -> Any:
    """Ask RabbitMQ's management, from the controller's network."""
    word = base64.b64encode(f"openstack:{places.PASSWORD}".encode()).decode()
    asked = urllib.request.Request(
        f"http://{places.ADDRESS}:15672/api/{path}", method=method, data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Basic {word}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(asked, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None
