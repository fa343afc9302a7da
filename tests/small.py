"""A demo cloud as small as one can be, so that a test may make many: two hosts, six servers, two faults, no OVN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cloudfsck import checks, demo
from cloudfsck.demo import cloud

HOSTS = {"compute1": "cell1", "compute3": "cell1"}
#: A guest that still runs, and a directory that is left; all others are healthy.
ZOMBIE, LEFTOVER = "billing-7", "export-5"
CHECKS = ("libvirt-domain-of-deleted-server", "nova-directory-of-deleted-server")
_NAMES = ("web-1", "web-4", "cache-1", "mail-2", ZOMBIE, LEFTOVER)


def server(name: str) -> cloud.Server:
    return next(one for one in cloud.servers(by_hand=False) if one.name == name)


def make(place: Path, hosts: Mapping[str, str] = HOSTS) -> Path:
    """Make it, and return its configuration: it knows no waiting, and no share of faults is too large for it."""
    chosen = [one for one in map(server, _NAMES) if one.host in hosts]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cloud, "HOSTS", hosts)
        patched.setattr(cloud, "CELLS", {"cell1": tuple(hosts)})
        patched.setattr(cloud, "servers", lambda by_hand: chosen)
        path = demo.make(place)
    text = path.read_text()
    for section in ("ovn", "write.ovn"):
        before, _, after = text.partition(f"[{section}]\n")
        text = before + after.partition("\n\n")[2]
    for rung, time in (("paused", "1d"), ("stopped", "7d"), ("quarantined", "7d")):
        text = text.replace(f'{rung} = "{time}"', f"{rung} = 0")
    for name in CHECKS:
        text += f"\n[limits.{name}]\nshare = 1.0\n"
    text += "\n[skip]\n" + "".join(f'{name} = "of no interest here"\n' for name in checks.load() if name not in CHECKS)
    path.write_text(text)
    return path
