"""What this machine's own OpenStack configuration says, as a cloudfsck.toml to start from.  It takes no password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cloudfsck.model import Trouble
from cloudfsck.sources.database import Unreadable, place

#: Where nova.conf lies: in packages, and for Kolla.
PLACES = (
    Path("/etc/nova/nova.conf"),
    Path("/etc/kolla/nova-api/nova.conf"),
    Path("/etc/kolla/nova-conductor/nova.conf"),
)

_COPIED = ("service_down_time", "long_rpc_timeout", "maximum_instance_delete_attempts")


def options(path: Path) -> dict[tuple[str, str], str]:
    """The options of an oslo.config file by (section, name); of one that is given twice, the last.

    Raises Trouble if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}") from error
    found: dict[tuple[str, str], str] = {}
    section, key = "DEFAULT", ("", "")
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if line[0].isspace() and key[1]:
            found[key] += " " + line.strip()  # a value goes on, on lines that are indented
        elif header := re.match(r"\[([^\]]+)\]", line):
            section, key = header[1], ("", "")
        elif option := re.match(r"([^=:]+?)\s*[=:]\s*(.*)", line):
            key = (section, option[1].strip())
            found[key] = option[2].strip()
    return found


def nova(path: Path) -> dict[str, str]:
    """What cloudfsck.toml takes from a nova.conf.  Raises Trouble if it names no API database."""
    found = options(path)
    connection = found.get(("api_database", "connection"))
    if connection is None:
        raise Trouble(f"{path} has no [api_database] connection; give the nova.conf of nova-api or nova-conductor")
    settings = {"api_database": _reduced(path, connection)}
    own = found.get(("database", "connection"))
    if own is not None:
        settings["template"] = _reduced(path, own)
    settings |= {name: found["DEFAULT", name] for name in _COPIED if ("DEFAULT", name) in found}
    return settings


def _reduced(path: Path, connection: str) -> str:
    try:
        return place(connection)
    except Unreadable as error:
        raise Trouble(f"{path}: a database connection is not understood: {error}") from error


def toml(name: str, nova_settings: Mapping[str, str]) -> str:
    """The text of a configuration file for a cloud."""
    lines = "\n".join(
        f"{key} = {value}" if value.isdigit() else f'{key} = "{value}"' for key, value in nova_settings.items()
    )
    return f'''# cloudfsck: what to read, and how.  `cloudfsck doctor` says whether it can be.

[cloud]
name = "{name}"
state = "/var/lib/cloudfsck"            # sightings, holds, keeps, journals, snapshots

[nova]
{lines}

[read.database]                         # an account that can only read; `cloudfsck init` prints its GRANTs
user = "cloudfsck"
password_file = "/etc/cloudfsck/database-password"
# tls = true
# ca = "/etc/ssl/certs/ca.pem"

[read.ssh]                              # a key that may run our reading program on the hypervisors
user = "root"
key = "/etc/cloudfsck/read-key"
known_hosts = "/etc/cloudfsck/known_hosts"

# [write.ssh]                           # the second key, for the program that acts; only `repair`, `undo` and `purge`
# user = "root"                         # ever open it
# key = "/etc/cloudfsck/write-key"
# known_hosts = "/etc/cloudfsck/known_hosts"

[hosts]
address = "{{host}}"                      # or {{host_ip}}, or {{node}}
# inventory = ["old-compute-7"]         # hosts that Nova does not know any more, and that may still run something
# [hosts.gone]                          # hosts that are gone for good, each with the reason
# compute9 = "scrapped in 2025"
# [hosts.jump]                          # a jump host for each cell
# cell2 = "operator@bastion2"
'''
