"""A storage array: iSCSI targets as Cinder names them, behind portals of which each can be cut off by itself.

tgtd serves the targets, in userspace and on the loopback. Each portal is a relay of our own before it, so that a path
dies as paths do: the connections that are open break, and new ones are refused.
"""

import contextlib
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .databases import free_port
from .programs import ENVIRONMENT, Failed, await_true, end, need, run, serve

PREFIX = "iqn.2010-10.org.openstack:volume-"
MIB = 1 << 20


class Portal:
    """A relay on a loopback port of its own to a server's port."""

    def __init__(self, server: int) -> None:
        self.port = free_port()
        self._server = server
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.unblock()

    def unblock(self) -> None:
        """Take connections, at the port it always had."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._start(self._accept, self._listener)

    def block(self) -> None:
        """Break every connection, and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            ends = [*self._open, *([listener] if listener else [])]
            threads, self._threads = self._threads, []
        for each in ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        if listener is not None:
            listener.close()

    def _start(self, work: Callable[..., None], *given: socket.socket) -> None:
        thread = threading.Thread(target=work, args=given, name=f"portal {self.port}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                inner, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:
                    inner.close()
                    return
                try:
                    outer = socket.create_connection(("127.0.0.1", self._server))
                except OSError:
                    inner.close()
                    continue
                self._open |= {inner, outer}
                self._start(self._relay, inner, outer)

    def _relay(self, inner: socket.socket, outer: socket.socket) -> None:
        """Carry both ways until one side ends."""
        back = threading.Thread(target=_carry, args=(outer, inner), daemon=True)
        back.start()
        _carry(inner, outer)
        back.join()
        with self._lock:
            self._open -= {inner, outer}
        inner.close()
        outer.close()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while got := source.recv(1 << 16):
            sink.sendall(got)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class Array:
    """The array as a context manager; it has `portals`, and makes targets."""

    def __init__(self, directory: Path, portals: int = 2) -> None:
        self.directory = directory.resolve()
        self.portals: tuple[Portal, ...] = ()
        self._count = portals
        self._socket = self.directory / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        self._targets: dict[str, int] = {}
        self._made = 0

    def __enter__(self) -> Self:
        need("array", "tgtd", "tgtadm", "setpriv", root=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        try:
            serving = ["env", f"TGT_IPC_SOCKET={self._socket}", "tgtd", "-f", "--iscsi", f"portal=127.0.0.1:{port}"]
            self._process = serve(serving, self.directory / "log")
            await_true("tgtd answers", self._answers)
            self.portals = tuple(Portal(port) for _ in range(self._count))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop()

    def target(self, volume: str, size: int = 64 * MIB, account: tuple[str, str] | None = None) -> str:
        """Export a volume as Cinder's LVM driver does: a target of its own, LUN 1. Returns its IQN.

        `account` is the name and the password that CHAP asks for; without one anybody may log in.
        """
        name = self.shared_target(PREFIX + volume, [1], size)
        if account is not None:
            user, password = account
            words = ["tgtadm", "--lld", "iscsi", "--mode", "account", "--op", "new", "--user", user]
            run([*words, "--password", password], environment=self._environment)
            self._manage("account", "bind", name, "--user", user)
        return name

    def shared_target(self, name: str, luns: Sequence[int], size: int = 64 * MIB) -> str:
        """Export volumes as most arrays do: one target, a LUN for each. Returns its IQN, which is the name given.

        A LUN of 256 and more is reached by flat space addressing, where the kernel knows it by 16384 more (os_brick/
        initiator/linuxscsi.py: lun_for_addressing). Raises ValueError for one that it cannot have: 0 is tgtd's own, and
        in what it reports of its LUNs there are ten bits for each (tgt: usr/spc.c, spc_report_luns).
        """
        if wrong := [lun for lun in luns if not 1 <= lun <= 1023]:
            raise ValueError(f"tgtd has no such LUNs: {wrong}")
        # A number is never used twice, for the WWIDs are made of it.
        self._made += 1
        self._targets[name] = self._made
        self._manage("target", "new", name, "--targetname", name)
        for lun in luns:
            self.add_lun(name, lun, size)
        self._manage("target", "bind", name, "--initiator-address", "ALL")
        return name

    def add_lun(self, name: str, lun: int, size: int = 64 * MIB) -> None:
        """Map one more volume of `size` bytes to a target."""
        disk = self.disk(name, lun)
        with disk.open("wb") as file:
            file.truncate(size)
        self._manage("logicalunit", "new", name, "--lun", str(lun), "--backing-store", str(disk))

    def disk(self, name: str, lun: int = 1) -> Path:
        """The file in which the data of a LUN is."""
        return self.directory / f"{self._targets[name]}-{lun}"

    def remove_lun(self, name: str, lun: int) -> None:
        """Unmap a volume, whoever uses it."""
        self._manage("logicalunit", "delete", name, "--lun", str(lun))

    def remove_target(self, name: str) -> None:
        """Unexport a target by force: its connections break, and there is none of that name any more."""
        self._manage("target", "delete", name, "--force")
        del self._targets[name]

    def _manage(self, mode: str, act: str, name: str, *more: str) -> None:
        words = ["tgtadm", "--lld", "iscsi", "--mode", mode, "--op", act, "--tid", str(self._targets[name]), *more]
        run(words, environment=self._environment)

    @property
    def _environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "TGT_IPC_SOCKET": str(self._socket)}

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Failed(f"tgtd ended: {(self.directory / 'log').read_text()[-500:]}")
        asking = ["tgtadm", "--mode", "sys", "--op", "show"]
        return "State: ready" in run(asking, check=False, environment=self._environment)

    def _stop(self) -> None:
        for portal in self.portals:
            portal.block()
        if self._process is not None:
            # It waits for those that are logged in; there is nothing to be kept.
            end(self._process, signal.SIGKILL)
            self._process = None
