"""A hypervisor with a kernel of its own: a real iSCSI and NVMe-oF initiator, with device mapper, multipathd and QEMU.

The other hypervisors of the bed share this machine's kernel, which may have no initiator, and whose devices are not to
be played with. This one is a virtual machine, by emulation alone: what KVM there is need not boot an unmodified kernel.
It is up in a quarter of a minute, and takes a gigabyte of memory.

The tests reach it over SSH at a port of the loopback; it reaches the portals of its array as 10.0.2.2. It has no disk:
its file system is the archive of `image`, in memory, and behind that a small one with its names and keys.

The kernel of this machine kills QEMU and all else that was started when the tests die.
"""

import contextlib
import json
import signal
import subprocess
import threading
import uuid as uuids
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import image
from .databases import free_port
from .hypervisors import DOMAIN, IMAGE, INSTANCES, LIBVIRTD, METADATA, QEMU, SSHD, SYSINFO, make_key
from .programs import ENVIRONMENT, Failed, await_true, end, need, program, run, serve
from .targets import Array

#: In MiB; the archive is in it twice while the kernel unpacks it.
MEMORY = 900
COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check net.ifnames=0 cryptomgr.notests"
)
#: Where the machine sees this one's loopback.
GATEWAY = "10.0.2.2"
#: Where it has its own services.
ADDRESS = "10.0.2.15"
#: How long each start of the machine may take, in seconds. Once in some ten times an emulated one stands still while
#: it starts: then it is started anew.
PATIENCE = (90, 120, 180)

INIT = """\
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/sshd /run/lock /run/multipath /run/libvirt
mount -t tmpfs tmpfs /var/lib/nova
mkdir -p /var/lib/nova/{tmp,instances/{_base,locks}}
hostname -F /etc/hostname
modprobe brd rd_nr=2 rd_size=16384
modprobe -a MODULES
mount -t configfs configfs /sys/kernel/config
/usr/lib/systemd/systemd-udevd --daemon
ip link set lo up
ip link set eth0 up
ip address add ADDRESS/24 dev eth0
ip route add default via 10.0.2.2
/usr/sbin/sshd -E /var/log/sshd.log
udevadm trigger --type=subsystems
udevadm trigger --type=devices
iscsid
multipathd
# libvirt closes every file number up to the limit before it starts a QEMU.
ulimit -n 4096
libvirtd --daemon --pid-file /run/libvirtd.pid
# The first to ask waits until libvirt has learnt what this QEMU can do: that is better done here.
virsh -q capabilities >/dev/null
udevadm settle -t 20
echo the initiator is up
# As process 1, bash reaps what ends.
while :; do sleep 1000; done
"""

SSH = """\
Host {host.name}
HostName {host.address}
Port {host.port}
User {host.user}
IdentityFile {host.write_key}
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {host.known_hosts}
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
BatchMode yes
LogLevel ERROR
ControlPath {way}
"""

#: A disk alone is no map, two paths are; and a path that is dead is known to be so within seconds.
MULTIPATH = """\
defaults {
    user_friendly_names no
    find_multipaths yes
    polling_interval 1
    max_polling_interval 2
}
blacklist {
    devnode "^(ram|loop|vd|nvme)"
}
"""

#: The times of open-iscsi's own configuration, shortened: a session whose target is away fails its disks after 2 s.
ISCSID = """
iscsid.startup = /usr/sbin/iscsid
node.session.timeo.replacement_timeout = 2
node.session.initial_login_retry_max = 1
node.conn[0].timeo.login_timeout = 10
node.session.scan = manual
node.startup = manual
"""

DISK = """\
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/>
      <source dev='{device}'/>
      <target dev='vd{letter}' bus='virtio'/>
      <serial>{volume}</serial>
    </disk>
"""

SERIAL = """\
    <serial type='file'>
      <source path='{path}'/>
      <target type='isa-serial' port='0'/>
    </serial>
"""

#: What nova-compute does of which only os-brick matters here: it attaches and detaches volumes, one request and one
#: answer a line. As root it needs no daemon of oslo.privsep beside it; lockutils knows the option lock_path.
NOVA_COMPUTE = """\
import json
import sys

import os_brick
from os_brick import privileged
from os_brick.initiator import connector
from oslo_concurrency import lockutils
from oslo_config import cfg
from oslo_log import log

log.register_options(cfg.CONF)
cfg.CONF(sys.argv[1:], project="nova", prog="nova-compute")
log.setup(cfg.CONF, "nova")
os_brick.setup(cfg.CONF)
for context in (privileged.default, privileged.brick_privsep_hide_output):
    context.set_client_mode(False)
print("ready", flush=True)
for line in sys.stdin:
    act, multipath, properties, device = json.loads(line)
    try:
        brick = connector.InitiatorConnector.factory(
            "ISCSI", "", use_multipath=multipath, device_scan_attempts=5, transport="default"
        )
        if act == "connect":
            answer = brick.connect_volume(properties)
        else:
            answer = brick.disconnect_volume(properties, device)
    except Exception as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
"""
NOVA = """\
[DEFAULT]
host = {name}
log_file = /var/log/nova-compute.log
debug = true
[oslo_concurrency]
lock_path = /var/lib/nova/tmp
"""

#: What `login` runs: a record and a session for each portal.
LOGIN = """\
set -e
for portal in {portals}; do
    iscsiadm -m node -T {target} -p $portal --op new >/dev/null
    iscsiadm -m node -T {target} -p $portal --login >/dev/null
done
"""
#: What `scan` runs: os-brick writes the same, for each session and LUN (linuxscsi.py: scan_iscsi).
SCAN = """\
for session in /sys/class/iscsi_session/session*; do
    [ "$(cat $session/targetname)" = {target} ] || continue
    above=$(dirname "$(readlink -f $session/device)")
    for lun in {luns}; do echo "0 0 $lun" >/sys/class/scsi_host/${{above##*/}}/scan; done
done
udevadm settle -t 20
"""
#: What `nvme` runs: the kernel's own target behind a port of its own, on a disk in memory, and then its own initiator.
NVME = """\
set -e
cd /sys/kernel/config/nvmet
mkdir subsystems/{target} subsystems/{target}/namespaces/1
echo 1 >subsystems/{target}/attr_allow_any_host
echo /dev/ram0 >subsystems/{target}/namespaces/1/device_path
echo {uuid} >subsystems/{target}/namespaces/1/device_uuid
echo 1 >subsystems/{target}/namespaces/1/enable
if mkdir ports/1 2>/dev/null; then
    echo tcp >ports/1/addr_trtype
    echo ipv4 >ports/1/addr_adrfam
    echo 127.0.0.1 >ports/1/addr_traddr
    echo 4420 >ports/1/addr_trsvcid
fi
ln -s /sys/kernel/config/nvmet/subsystems/{target} ports/1/subsystems/
echo transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn={target} >/dev/nvme-fabrics
udevadm settle -t 20
"""


class Initiator:
    """The virtual hypervisor and its `array`, as a context manager; `name` is its host name."""

    address = "127.0.0.1"
    user = "root"
    instances = INSTANCES

    def __init__(self, directory: Path, name: str = "compute1", portals: int = 2) -> None:
        self.name = name
        self.directory = directory.resolve()
        self.port = 0
        self.uuid = str(uuids.uuid4())
        self.read_key = self.directory / "read_key"
        self.write_key = self.directory / "write_key"
        self.known_hosts = self.directory / "known_hosts"
        self.console = self.directory / "console"
        self._ssh = self.directory / "ssh_config"
        self.array = Array(self.directory / "array", portals)
        self._machine: subprocess.Popen[bytes] | None = None
        self._way: subprocess.Popen[bytes] | None = None
        self._compute: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        need("initiator", "qemu-system-x86_64", "ssh", "ssh-keygen", "setpriv", root=True)
        base = image.base()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.array.__enter__()
        try:
            self._start(base)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop()

    # -- what tests do with it

    def run(self, command: str, input: str | None = None, check: bool = True) -> str:
        """Run a line of bash on it as root, and return what it printed."""
        return run(["ssh", "-F", self._ssh, self.name, command], input, check, timeout=120)

    def portal(self, number: int) -> str:
        """The address of one of the array's portals, as the machine reaches it."""
        return f"{GATEWAY}:{self.array.portals[number].port}"

    def login(self, target: str, portals: Sequence[int] = (0,), luns: Iterable[int] = (1,)) -> list[str]:
        """Log in to a target through these portals, and find these LUNs as os-brick does. Returns the disks' names.

        Two portals are two paths, of which multipathd makes a map; on return the map is there.
        """
        before = set(self.disks())
        self.run(LOGIN.format(target=target, portals=" ".join(map(self.portal, portals))))
        self.scan(target, luns)
        disks = sorted(set(self.disks()) - before)
        if len(portals) > 1:
            await_true(
                f"{disks} are in maps", lambda: set(disks) <= {path for one in self.maps().values() for path in one}
            )
        return disks

    def connection(
        self,
        volume: str,
        target: str,
        portals: Sequence[int] = (0,),
        lun: int = 1,
        account: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """How a volume is reached, as Cinder tells Nova (cinder/volume/targets/iscsi.py: _get_iscsi_properties)."""
        at = [self.portal(number) for number in portals]
        said: dict[str, Any] = {"target_discovered": False, "target_iqn": target, "target_portal": at[0]}
        said["target_lun"] = lun
        if len(at) > 1:
            said |= {"target_iqns": [target] * len(at), "target_portals": at, "target_luns": [lun] * len(at)}
        if lun > 255:
            said["addressing_mode"] = "SAM2"
        if account is not None:
            said |= {"auth_method": "CHAP", "auth_username": account[0], "auth_password": account[1]}
        return said | {
            "volume_id": volume, "discard": False, "qos_specs": None, "access_mode": "rw", "encrypted": False,
            "cacheable": False,
        }  # fmt: skip

    def start_compute(self) -> None:
        """Start its nova-compute, with its number in a file; it takes half a minute to be ready, and `attach` waits."""
        command = (
            "echo $$ >/run/nova-compute.pid; export PYTHONWARNINGS=ignore;"
            " exec /usr/bin/python3 /usr/bin/nova-compute --config-file=/etc/nova/nova.conf"
        )
        with (self.directory / "nova-compute.log").open("ab") as log:
            self._compute = subprocess.Popen(
                [program("ssh"), "-F", self._ssh, self.name, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, env=ENVIRONMENT, start_new_session=True,
            )  # fmt: skip

    def attach(self, connection: Mapping[str, Any]) -> dict[str, Any]:
        """Have nova-compute connect a volume by os-brick, with as many paths as it is said to have.

        Returns what os-brick says of the device (`path`, and `multipath_id` of a map).  Raises Failed if it could not.
        """
        self.ask("connect", connection)
        said = self.answer()
        assert said is not None
        return said

    def detach(self, connection: Mapping[str, Any], device: Mapping[str, Any]) -> None:
        """Have nova-compute disconnect what `attach` has connected and told of."""
        self.ask("disconnect", connection, device)
        self.answer()

    def ask(self, act: str, connection: Mapping[str, Any], device: Mapping[str, Any] | None = None) -> None:
        """Have nova-compute begin; `answer` waits for the end."""
        assert self._compute is not None
        assert self._compute.stdin is not None
        self._compute.stdin.write(json.dumps([act, "target_portals" in connection, connection, device]) + "\n")
        self._compute.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """What came of what nova-compute was asked first of all that it was not heard of yet."""
        assert self._compute is not None
        assert self._compute.stdout is not None
        # os-brick has time limits of its own; what takes longer than this hangs.
        watchdog = threading.Timer(300, self._compute.kill)
        watchdog.start()
        line = self._compute.stdout.readline()
        if line == "ready\n":
            line = self._compute.stdout.readline()
        watchdog.cancel()
        said: dict[str, Any] | None = json.loads(line) if line else {"error": "it has ended"}
        if said and "error" in said:
            log = self.run("tail -n 40 /var/log/nova-compute.log", check=False)
            raise Failed(f"nova-compute: {said['error']}: {(self.directory / 'nova-compute.log').read_text()}{log}")
        return said

    def scan(self, target: str, luns: Iterable[int]) -> None:
        """Look for LUNs in every session of a target; on return what is there has its names in /dev."""
        self.run(SCAN.format(target=target, luns=" ".join(map(str, luns))))

    def logout(self, target: str) -> None:
        """End every session of a target, whoever uses its disks: open-iscsi does not ask."""
        self.run(
            f"iscsiadm -m node -T {target} --logout >/dev/null; iscsiadm -m node -T {target} --op delete"
            "; udevadm settle -t 20"
        )

    def nvme(self, target: str, uuid: str) -> None:
        """Connect a namespace of this uuid, of a subsystem of this NQN; it is served by the same machine, over TCP."""
        self.run(NVME.format(target=target, uuid=uuid))

    def hold(self, device: str) -> int:
        """Have a process hold a device open, and return its number; `kill` ends it."""
        return int(self.run(f"exec 7<{device}; sleep infinity >/dev/null 2>&1 & echo $!"))

    def kill(self, pid: int) -> None:
        self.run(f"kill -9 {pid}; while [ -e /proc/{pid} ]; do sleep 0.1; done")

    def disks(self) -> list[str]:
        """The names of its SCSI disks."""
        return sorted(self.run("cd /sys/block; ls -d sd* 2>/dev/null", check=False).split())

    def maps(self) -> dict[str, list[str]]:
        """The multipath maps by their names, each with the names of its paths."""
        said = self.run("multipathd show maps json")
        return {
            each["sysfs"]: sorted(path["dev"] for group in each["path_groups"] for path in group["paths"])
            for each in json.loads(said)["maps"]
        }

    def guest(
        self, uuid: str, name: str, disks: Mapping[str, str], display: str | None = None, serial: str | None = None
    ) -> None:
        """Start a domain as Nova makes it; `disks` are Cinder's volumes by their ids, each with its device.

        It is paused; with `serial` it runs, boots from the first of its disks, and what it says at its serial port is
        in that file.
        """
        devices = "".join(
            DISK.format(device=device, volume=volume, letter=chr(ord("a") + number))
            for number, (volume, device) in enumerate(disks.items())
        )
        project = "8ca28ab4b3fb4b3a90d2547da35db857"
        metadata = METADATA.format(
            display=display or name, created="2026-01-05 10:00:00", image=IMAGE, project=project, ports=""
        )
        xml = DOMAIN.format(
            name=name, uuid=uuid, metadata=metadata, sysinfo=SYSINFO.format(uuid=uuid),
            smbios="    <smbios mode='sysinfo'/>\n", devices=devices + (SERIAL.format(path=serial) if serial else ""),
        )  # fmt: skip
        if serial:
            # Little memory, but enough for a BIOS; and of disks it has only those that stand in the order of booting.
            xml = xml.replace("<memory unit='KiB'>1024<", "<memory unit='KiB'>8192<").replace("<boot dev='hd'/>", "")
            for number in range(len(disks)):
                target = f"<target dev='vd{chr(ord('a') + number)}'"
                xml = xml.replace(target, f"<boot order='{number + 1}'/>{target}")
        how = "" if serial else "--paused "
        self.run(f"cat >/tmp/{uuid}.xml; virsh -q 'define /tmp/{uuid}.xml; start {how}{uuid}'", xml)
        if serial:
            # The machine has one processor, and a BIOS that waits for a disk waits busily.
            self.run(
                f"for task in /proc/$(cat /run/libvirt/qemu/{name}.pid)/task/*; do renice -n 10 -p ${{task##*/}}; done"
            )

    def remove_guest(self, uuid: str) -> None:
        self.run(f"virsh -q 'destroy {uuid}; undefine {uuid}'")

    # -- how it comes and goes

    def _start(self, base: Path) -> None:
        self.port = free_port()
        keys = make_key(self.read_key) + make_key(self.write_key)
        host_key = make_key(self.directory / "host_key")
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {host_key}")
        self._ssh.write_text(SSH.format(host=self, way=self.directory / "way"))
        whole = self.directory / "image"
        with whole.open("wb") as file, base.open("rb") as first:
            while some := first.read(1 << 24):
                file.write(some)
            image.write(file, self._own(keys))
        machine: list[str | Path] = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-m", str(MEMORY),
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", f"file:{self.console}",
            "-kernel", image.kernel(), "-initrd", whole, "-append", COMMAND_LINE, "-device", "virtio-rng-pci",
            "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:{self.address}:{self.port}-{ADDRESS}:22",
        ]  # fmt: skip
        for patience in PATIENCE[:-1]:
            with contextlib.suppress(Failed):
                self._boot(machine, patience)
                break
        else:
            self._boot(machine, PATIENCE[-1])
        # QEMU has read it, and a quarter of a gigabyte is not kept for every run of the tests.
        whole.unlink()
        # One connection for all commands: a new one costs an emulated processor most of a second.
        self._way = serve(["ssh", "-F", self._ssh, "-M", "-N", self.name], self.directory / "ssh.log")
        await_true(f"{self.name} answers", lambda: (self.directory / "way").exists(), 60)

    def _boot(self, machine: Sequence[str | Path], patience: float) -> None:
        """Start the virtual machine; what does not come up in time is ended."""
        self.console.write_bytes(b"")
        self._machine = serve(machine, self.directory / "machine.log")
        try:
            await_true(f"{self.name} is up", self._is_up, patience)
        except Failed:
            end(self._machine, signal.SIGKILL)
            raise

    def _own(self, keys: str) -> dict[str, image.Entry]:
        """The files that only this one has."""
        iscsid = Path("/etc/iscsi/iscsid.conf").read_text()
        named = {line.partition("=")[0].strip() for line in ISCSID.strip().splitlines()}
        kept = [line for line in iscsid.splitlines() if line.partition("=")[0].strip() not in named]
        files = {
            "etc/hostname": f"{self.name}\n",
            "etc/hosts": f"127.0.0.1 localhost\n{ADDRESS} {self.name}\n",
            "etc/machine-id": f"{self.uuid.replace('-', '')}\n",
            "etc/ssh/sshd_config": SSHD.format(address=ADDRESS),
            "etc/ssh/ssh_host_ed25519_key": (self.directory / "host_key").read_text(),
            "root/.ssh/authorized_keys": keys,
            "etc/iscsi/initiatorname.iscsi": f"InitiatorName=iqn.1993-08.org.debian:01:{self.name}\n",
            "etc/iscsi/iscsid.conf": "\n".join(kept) + ISCSID,
            "etc/multipath.conf": MULTIPATH,
            "etc/libvirt/qemu.conf": QEMU,
            "etc/libvirt/libvirtd.conf": LIBVIRTD.format(host=self.uuid),
            "etc/nova/nova.conf": NOVA.format(name=self.name),
            "usr/bin/nova-compute": NOVA_COMPUTE,
        }
        init = INIT.replace("ADDRESS", ADDRESS).replace("MODULES", " ".join(image.MODULES))
        return {"init": (init.encode(), True), **{name: (text.encode(), False) for name, text in files.items()}}

    def _is_up(self) -> bool:
        assert self._machine is not None
        said = self.console.read_text(errors="replace")
        if self._machine.poll() is not None or "Kernel panic" in said:
            log = (self.directory / "machine.log").read_text(errors="replace")
            raise Failed(f"{self.name} did not come up: {log[-500:]}{said[-1500:]}")
        return "the initiator is up" in said

    def _stop(self) -> None:
        for process in (self._compute, self._way, self._machine):
            if process is not None:
                end(process, signal.SIGKILL)
        if self._compute is not None:
            for pipe in (self._compute.stdin, self._compute.stdout):
                assert pipe is not None
                pipe.close()
        self._compute = self._way = self._machine = None
        self.array.__exit__(None, None, None)
