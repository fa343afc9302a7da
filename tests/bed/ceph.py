"""A Ceph of one monitor and one OSD on a file, with pools for RBD: real listings, watchers, snapshots and clones.

There is no manager: RBD does without. The two servers listen on the loopback, and the kernel kills them when the tests
die.
"""

import json
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .databases import free_port
from .programs import ENVIRONMENT, await_true, end, need, run, serve

CONF = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = v2:127.0.0.1:{port}
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv6 = false
keyring = {folder}/$cluster.$name.keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd crush update on start = true
mon allow pool size one = true
mon allow pool delete = true
mon data avail crit = 1
mon data avail warn = 2
auth allow insecure global id reclaim = false
run dir = {folder}
pid file = {folder}/$name.pid
admin socket =
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
crash dir = {folder}
rbd default features = 61
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = 4294967296
bluestore block create = true
osd memory target = 939524096
osd max object name len = 256
osd max object namespace len = 64
"""

#: The rights of docs/operating.md.
READER = "profile rbd-read-only"


class Ceph:
    """The cluster as a context manager: `conf` is its file, `reader` a user that may only read `pools`."""

    reader = "cloudfsck"

    def __init__(self, directory: Path, pools: Sequence[str] = ("volumes", "vms")) -> None:
        self.directory = directory.resolve()
        self.pools = tuple(pools)
        self.conf = self.directory / "ceph.conf"
        self._servers: list[subprocess.Popen[bytes]] = []
        self._holders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        need("ceph", "ceph", "ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool", "rbd", "setpriv", root=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop()

    # -- what tests do with it

    def ceph(self, *words: str, input: str | None = None) -> str:
        """What the command says, as the cluster's administrator."""
        return run(["ceph", "--conf", self.conf, *words], input, environment=self.environment, timeout=60)

    def rbd(self, *words: str) -> str:
        """The same of rbd."""
        return run(["rbd", "--conf", self.conf, *words], environment=self.environment, timeout=60)

    def image(self, name: str, size: str = "16M") -> str:
        """Make an image POOL/NAME, and return that."""
        self.rbd("create", name, "--size", size)
        return name

    def watch(self, name: str) -> subprocess.Popen[bytes]:
        """Have somebody use an image; on return it has a watcher.  `end` of programs lets go of it."""
        bench = ["rbd", "--conf", str(self.conf), "bench", name, "--io-type", "write", "--io-total", "1T",
                 "--io-size", "4K", "--io-threads", "1"]  # fmt: skip
        holder = serve(["nice", "-n", "19", *bench], self.directory / "watchers.log")
        self._holders.append(holder)
        await_true(f"{name} is used", lambda: "watcher=" in self.rbd("status", name))
        return holder

    @property
    def environment(self) -> Mapping[str, str]:
        """Where Ceph's Python warns of nothing."""
        return {**ENVIRONMENT, "PYTHONWARNINGS": "ignore"}

    # -- how it comes and goes

    def _start(self) -> None:
        port, fsid = free_port(), str(uuid.uuid4())
        here = self.directory
        self.conf.write_text(CONF.format(fsid=fsid, port=port, folder=here))
        admin, mon = here / "ceph.client.admin.keyring", here / "ceph.mon.a.keyring"
        every = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"]
        run(["ceph-authtool", "--create-keyring", mon, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"])
        run(["ceph-authtool", "--create-keyring", admin, "--gen-key", "-n", "client.admin", *every])
        run(["ceph-authtool", mon, "--import-keyring", admin])
        given: list[str | Path] = ["--addv", "a", f"v2:127.0.0.1:{port}", "--fsid", fsid, here / "monmap"]
        run(["monmaptool", "--create", "--clobber", *given])
        files: list[str | Path] = ["--monmap", here / "monmap", "--keyring", mon]
        run(["ceph-mon", "--conf", self.conf, "--mkfs", "-i", "a", *files], environment=self.environment)
        self._serve("ceph-mon", "a")
        key = run(["ceph-authtool", "--gen-print-key"]).strip()
        osd = str(uuid.uuid4())
        number = self.ceph("osd", "new", osd, "-i", "-", input=json.dumps({"cephx_secret": key})).strip()
        keyring = here / f"ceph.osd.{number}.keyring"
        run(["ceph-authtool", "--create-keyring", keyring, "--name", f"osd.{number}", "--add-key", key])
        (here / "osd").mkdir(exist_ok=True)
        run(["ceph-osd", "--conf", self.conf, "-i", number, "--mkfs", "--osd-uuid", osd], environment=self.environment)
        self._serve("ceph-osd", number)
        for pool in self.pools:
            self.ceph("osd", "pool", "create", pool, "8", "8")
            self.ceph("osd", "pool", "application", "enable", pool, "rbd")
        rights = ", ".join(f"{READER} pool={pool}" for pool in self.pools)
        said = self.ceph("auth", "get-or-create", f"client.{self.reader}", "mon", READER, "osd", rights)
        keys = here / f"ceph.client.{self.reader}.keyring"
        keys.touch(mode=0o600)
        keys.write_text(said)

    def _serve(self, program: str, name: str) -> None:
        words = [program, "--conf", str(self.conf), "-f", "-i", name]
        self._servers.append(serve(words, self.directory / f"{program}.out"))

    def _stop(self) -> None:
        for process in (*self._holders, *reversed(self._servers)):
            end(process, signal.SIGKILL)
        self._holders, self._servers = [], []
