"""What this machine must have before a cloud is started on it: rights, memory, room, packages, Python libraries."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from testbed import places
from testbed.node import Failed

#: GiB that must be free: what the cloud takes with a few guests, and room for its databases and images.
MEMORY, ROOM = 8, 6

#: Debian's own: Ceph's libraries are made for it.
PYTHON = "/usr/bin/python3"


def check(fresh: bool) -> None:
    """Raises Failed that says all that is missing, before anything is started; `fresh` if no cloud is up yet."""
    lacks = []
    if os.geteuid() != 0:
        lacks.append("it is made of namespaces and mounts: only root can make it")
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    memory = int(fields["MemAvailable"].split()[0]) / 2**20
    if fresh and memory < MEMORY:
        lacks.append(f"it needs {MEMORY} GiB of memory, and {memory:.1f} GiB are available")
    places.STATE.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(places.STATE).free / 2**30
    if fresh and room < ROOM:
        lacks.append(f"it needs {ROOM} GiB of room in {places.STATE}, and {room:.1f} GiB are free")
    if shutil.which("apt-get") is None:
        lacks.append("its servers are Debian's packages, and this machine has no apt-get")
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True
    )
    if os.geteuid() == 0 and tried.returncode:
        lacks.append(f"this machine lets root make no namespaces ({tried.stderr.strip()})")
    if lacks:
        raise Failed("no cloud can be made here:\n" + "\n".join(f"  {lack}" for lack in lacks))


def furnish(say: Callable[[str], None]) -> None:
    """Install what is missing: Debian packages, and the services in a virtual environment of their own."""
    wanted = [line for line in (places.HERE / "packages").read_text().split("\n") if line and not line.startswith("#")]
    found = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${db:Status-Status}=${Package}\n", *wanted],
        capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    missing = [name for name in wanted if f"installed={name}" not in found]
    if missing:
        say(f"installing {' '.join(missing)}")
        wait = "DPkg::Lock::Timeout=600"
        run("apt-get", "-o", wait, "update", "-qq")
        run("apt-get", "-o", wait, "install", "-qq", "--yes", "--no-install-recommends", *missing)
    lock = places.HERE / "requirements.txt"
    stamp = places.VENV / "lock.sha256"
    checksum = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != checksum:
        say(f"installing OpenStack in {places.VENV}")
        run(PYTHON, "-m", "venv", "--clear", str(places.VENV))
        run(str(places.VENV / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
            "--requirement", str(lock))  # fmt: skip
        stamp.write_text(checksum)


def run(*argv: str, timeout: float | None = None) -> None:
    """Run a command on this machine itself.  Raises Failed with the end of what it printed."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=timeout
    )
    if done.returncode:
        raise Failed(
            f"{' '.join(argv)[:200]} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
        )
