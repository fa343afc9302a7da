"""A machine of the cloud: namespaces of its own for processes, mounts, network, host name and IPC, all of them ended by
ending one process.

Within, every path, socket and host name is where a real host has it, and nothing that is done there reaches this
machine: /etc, /opt, /root and /var/lib are overlays in memory, /run is empty, and data and logs are bound from the
testbed's directory.  The computes' process namespaces lie within the controller's, so that its end is the end of all.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from testbed import places

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {
    "PATH": f"{places.OPENSTACK}/bin:{SEARCH}",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONWARNINGS": "ignore",
}

INIT = """
set -e
# libvirt closes every file number up to the limit before it starts a QEMU.
ulimit -n 4096
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/lock /run/testbed
# Our own directory is ".": what is mounted now may cover the place where it is.
for place in etc opt root var/lib; do
    over=/run/over/$place
    mkdir -p $over/upper $over/work
    mount -t overlay overlay -o lowerdir=/$place,upperdir=$over/upper,workdir=$over/work /$place
done
mount --bind ./log /var/log
while read -r name place; do
    mkdir -p "$place"
    mount --bind "./$name" "$place"
done <bound
mkdir -p $OPENSTACK
mount --bind "$VENV" $OPENSTACK
cp -r ./etc/. /etc/
rm -rf /root/.ssh
mkdir -m 0700 /root/.ssh
: >/root/.bashrc
# sshd without PAM refuses an account whose password is locked by an exclamation mark.
echo 'root:*:19000:0:99999:7:::' >/etc/shadow
hostname "$(cat /etc/hostname)"
# libvirt resolves names with AI_ADDRCONFIG: with only a tap's fe80:: as address, IPv4 is dropped.
for switch in /proc/sys/net/ipv6/conf/{all,default}/disable_ipv6; do
    if [ -e $switch ]; then echo 1 >$switch; fi
done
ip link set lo up
cd /
touch /run/testbed/made
# As process 1, bash reaps what the services leave behind.
while :; do sleep 1000 & wait $! || true; done
"""


class Failed(Exception):
    """Something of the testbed did not come up or failed; the text holds its name and what it printed last."""


class Node:
    """A machine.  `bound` are the directories whose contents outlive the namespaces: place within -> name outside."""

    def __init__(self, name: str, hostname: str, bound: Mapping[str, str], within: Node | None = None) -> None:
        self.name = name
        self.hostname = hostname
        self.directory = places.NODES / name
        self._bound = bound
        self._within = within
        self._launched: subprocess.Popen[bytes] | None = None  # by this program; the node outlives it

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    # -- how it comes and goes

    @property
    def pid(self) -> int | None:
        """Process 1 of the node as this machine numbers it; None when the node is down."""
        try:
            pid, started = (self.directory / "pid").read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if start_of(int(pid)) == started else None

    def launch(self, configuration: Path, words: Mapping[str, str]) -> None:
        """Make the namespaces.  `configuration` is laid over /etc; @WORD@ in it is replaced by the word's value."""
        for name in ("log", "etc", *self._bound.values()):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for source in (path for path in configuration.rglob("*") if path.is_file()):
            text = source.read_text()
            for word, value in words.items():
                text = text.replace(f"@{word}@", value)
            self.furnish(str(source.relative_to(configuration)), text)
        self.furnish("hostname", f"{self.hostname}\n")
        (self.directory / "init").write_text(INIT)
        (self.directory / "bound").write_text("".join(f"{name} {place}\n" for place, name in self._bound.items()))
        outer = self._within
        enter = ["nsenter", "--target", str(outer._up()), "--net", "--pid", "--"] if outer else []
        unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--net", "--fork", "--kill-child"]
        with (self.directory / "init.log").open("wb") as log:
            made = self._launched = subprocess.Popen(
                [*enter, *unshare, "bash", "init"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, start_new_session=True,
                env={**ENVIRONMENT, "VENV": str(places.VENV), "OPENSTACK": places.OPENSTACK},
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while (pid := _init_below(made.pid)) is None or not Path(f"/proc/{pid}/root/run/testbed/made").exists():
            if made.poll() is not None or time.monotonic() > deadline:
                made.kill()
                raise Failed(f"{self.name}: its namespaces cannot be made: {(self.directory / 'init.log').read_text()}")
            time.sleep(0.02)
        (self.directory / "pid").write_text(f"{pid} {start_of(pid)}")

    def furnish(self, path: str, text: str) -> None:
        """Write a file below /etc, before the launch."""
        target = self.directory / "etc" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def end(self) -> None:
        """End every process of the node at once, as a power cut does; its mounts and links go with them."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGKILL)
            await_true(f"{self.name} is gone", lambda: start_of(pid) is None, 60)
        if self._launched is not None:  # its parent, which ends with it
            self._launched.wait(60)
            self._launched = None
        (self.directory / "pid").unlink(missing_ok=True)

    def _up(self) -> int:
        pid = self.pid
        if pid is None:
            raise Failed(f"{self.name} is not up")
        return pid

    # -- what is done within

    def path(self, path: str) -> Path:
        """A path of the node, from outside.  An absolute symbolic link below it leads to this machine's files."""
        return Path(f"/proc/{self._up()}/root") / path.lstrip("/")

    def command(self, argv: Sequence[str]) -> list[str]:
        """A command that runs another within the node."""
        pid = str(self._up())
        return ["nsenter", "--target", pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/", "--", *argv]

    def run(
        self, *argv: str, input: str | None = None, check: bool = True, timeout: float = 120,
        environment: Mapping[str, str] = {},
    ) -> str:  # fmt: skip
        """Run a program to its end and return what it printed.  Raises Failed with both of its streams."""
        try:
            done = subprocess.run(
                self.command(argv), input=input, stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True, text=True, errors="replace", timeout=timeout, env={**ENVIRONMENT, **environment},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.name}: {' '.join(argv)[:300]} did not end in {timeout:.0f} s") from error
        if check and done.returncode:
            said = f"{done.stdout[-2000:]}{done.stderr[-4000:]}".strip()
            raise Failed(f"{self.name}: {' '.join(argv)[:300]} ended with {done.returncode}: {said}")
        return done.stdout

    def serve(self, name: str, *argv: str, environment: Mapping[str, str] = {}) -> None:
        """Start a service in a session of its own, unless it runs.  It prints to /var/log/testbed/NAME.log."""
        if self.serves(name):
            return
        self.path("/var/log/testbed").mkdir(exist_ok=True)
        script = 'echo $$ >/run/testbed/$0.pid; exec "$@" >>/var/log/testbed/$0.log 2>&1 </dev/null'
        words = ["setsid", "--fork", "bash", "-c", script, name, *argv]
        self.path(f"/run/testbed/{name}.pid").unlink(missing_ok=True)
        self.run(*words, environment=environment)
        await_true(f"{name} of {self.name} is started", lambda: self._number(name) is not None, 10)

    def serves(self, name: str) -> bool:
        number = self._number(name)
        return number is not None and self._state(number) not in (None, "Z")

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM, patience: float = 20) -> None:
        """End a service: asked, and killed with all of its session when it does not end in time."""
        number = self._number(name)
        if number is None:
            return
        whole = f"-{number}" if how == signal.SIGKILL else str(number)
        self.run("kill", f"-{how.name.removeprefix('SIG')}", "--", whole, check=False)
        with contextlib.suppress(Failed):
            await_true("it ends", lambda: not self._group(number), patience)
        if self._group(number):
            self.run("kill", "-KILL", "--", f"-{number}", check=False)
            await_true(f"{name} of {self.name} ends", lambda: not self._group(number), 10)
        self.path(f"/run/testbed/{name}.pid").unlink(missing_ok=True)

    def log(self, name: str, lines: int = 20) -> str:
        """The last that a service printed, or wrote to a log of its own name."""
        texts = []
        for path in sorted((self.directory / "log").rglob(f"{name}*.log")):
            texts.append(f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
        return "\n".join(texts)

    def _number(self, name: str) -> int | None:
        """The process of a service, as the node numbers it."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.path(f"/run/testbed/{name}.pid").read_text())
        return None

    def _group(self, number: int) -> list[str]:
        """What is left of a service: one that is dying keeps its port until its last thread has gone."""
        found = (line.split() for line in self.run("ps", "-e", "-o", "pgid=,pid=").splitlines())
        return [pid for group, pid in found if group == str(number)]

    def _state(self, number: int) -> str | None:
        with contextlib.suppress(OSError):
            return self.path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        return None


def start_of(pid: int) -> str | None:
    """When a process started, in ticks since the boot: with its number, who it is.  None if there is none."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None


def await_true(what: str, true: Callable[[], bool], seconds: float, pause: float = 0.05) -> None:
    """Wait until something holds, asking every `pause` seconds.  Raises Failed that says what never did."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(pause)


def _init_below(pid: int) -> int | None:
    """The process 1 of namespaces below a process: it is the first bash."""
    for child in _children(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text().strip() == "bash":
                return child
        if (found := _init_below(child)) is not None:
            return found
    return None


def _children(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    yield int(entry.name)
