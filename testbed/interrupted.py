"""Faults of the interrupted: a service dies in the midst of its work, and what it was at is half done.

Each is made as it happens.  What comes next in line is held first (SIGSTOP, a lock), so that the service surely stands
in the midst; then the service is killed and the hold let go.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from testbed import places
from testbed.api import Api
from testbed.cloud import Cloud
from testbed.node import Node, await_true

VIRSH = ("virsh", "-q", "-c", "qemu:///system")
INSTANCES = "/var/lib/nova/instances"


# -- what every place says


@dataclass(frozen=True)
class Picture:
    """What every place says of one server; each field is sorted, and empty where a place has nothing.

    `rows` in the cells, `mapping` the cell that the API database names ("" for none yet, None when there is no
    mapping), `allocations` by whom and where, `ports` and `attachments` as Neutron and Cinder have them, `devices` the
    volumes in the block device mappings.
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
    found = _asked(cloud, server)
    domains, directories = [], []
    for host, node in cloud.computes.items():
        if server in node.run(*VIRSH, "list", "--all", "--uuid").split():
            domains.append(f"{host} {node.run(*VIRSH, 'domstate', server).strip()}")
        directories += [f"{host} {path.name}" for path in node.path(INSTANCES).glob(f"{server}*")]
    mapping = found.pop("mapping")
    return Picture(
        mapping=mapping[0] if mapping else None, build_request=bool(found.pop("build_request")),
        domains=tuple(sorted(domains)), directories=tuple(sorted(name.replace(server, "UUID") for name in directories)),
        **{name: tuple(sorted(values)) for name, values in found.items()},
    )  # fmt: skip


def _asked(cloud: Cloud, server: str) -> dict[str, list[str]]:
    """The databases' part of the picture."""
    queries = {
        "mapping": "SELECT coalesce(c.name, '') FROM nova_api.instance_mappings m LEFT JOIN nova_api.cell_mappings c"
                   f" ON c.id = m.cell_id WHERE m.instance_uuid = '{server}'",
        "build_request": f"SELECT id FROM nova_api.build_requests WHERE instance_uuid = '{server}'",
        "allocations": "SELECT DISTINCT concat(if(a.consumer_id = u.id, 'instance ', 'migration '), p.name) FROM"
                       f" (SELECT '{server}' AS id) u JOIN placement.allocations a ON a.consumer_id = u.id OR"
                       " a.consumer_id IN (SELECT uuid FROM nova_cell1.migrations WHERE instance_uuid = u.id)"
                       " JOIN placement.resource_providers p ON p.id = a.resource_provider_id",
        "ports": "SELECT concat_ws(' ', p.status, b.host, b.vif_type) FROM neutron.ports p"
                 f" LEFT JOIN neutron.ml2_port_bindings b ON b.port_id = p.id WHERE p.device_id = '{server}'",
        "attachments": "SELECT concat_ws(' ', v.status, v.attach_status, a.attach_status,"
                       " if(length(coalesce(a.connector, '{}')) > 2, 'connected', 'unconnected'))"
                       " FROM cinder.volume_attachment a JOIN cinder.volumes v ON v.id = a.volume_id"
                       f" WHERE a.deleted = 0 AND a.instance_uuid = '{server}'",
    }  # fmt: skip
    for cell in ("cell0", *places.CELLS):
        queries[f"rows {cell}"] = (
            f"SELECT concat_ws(' ', '{cell}', vm_state, coalesce(task_state, '-'), coalesce(host, 'nowhere'),"
            f" if(deleted, 'deleted', NULL)) FROM nova_{cell}.instances WHERE uuid = '{server}'"
        )
        queries[f"migrations {cell}"] = (
            "SELECT concat_ws(' ', migration_type, status, concat(source_compute, '>', dest_compute),"
            f" if(deleted, 'deleted', NULL)) FROM nova_{cell}.migrations WHERE instance_uuid = '{server}'"
        )
        queries[f"devices {cell}"] = (
            "SELECT concat_ws(' ', volume_id, if(attachment_id IS NULL, 'unattached', 'attached'))"
            f" FROM nova_{cell}.block_device_mapping WHERE instance_uuid = '{server}' AND NOT deleted"
            " AND destination_type = 'volume'"
        )
    text = " UNION ALL ".join(f"SELECT '{name}', q.* FROM ({query}) q" for name, query in queries.items())
    found: dict[str, list[str]] = {name.partition(" ")[0]: [] for name in queries}
    for name, value in cloud.sql("", text):
        found[name.partition(" ")[0]].append(value)
    return found


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
