"""Real hypervisors on one machine: sshd, libvirtd and QEMU in namespaces; it never touches the machine's own libvirt.

Each hypervisor is a mount, UTS, PID, IPC and network namespace of its own, with bash as process 1. Inside, every path,
socket and host name is where a real host has it. /etc and /var/lib are overlays whose upper side is in memory, /root
and /run are empty file systems in memory, and what a test may look at afterwards is bound from the bed's directory.

The tests run outside. They reach hypervisor N of a bed at 10.231.X.N, port 22, over a veth pair of its own, whose outer
end cfsckX-N is 10.231.X.254. X is the first number whose link is free and whose subnet no route of this machine
overlaps. Nothing else of the machine's network changes: no bridge, no forwarding, no firewall rule. As every hypervisor
has its own network namespace, one server can run on two of them with the same tap device, as after a failed evacuation.

Process 1 ends when the pipe that the bed holds is closed: by the end of the tests, or by their death. Then the kernel
kills all within and takes the namespaces, mounts and links away. So no bed leaves anything for the next one to clean.
"""

import contextlib
import hashlib
import ipaddress
import json
import os
import stat
import struct
import subprocess
import uuid as uuids
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from .programs import ENVIRONMENT, Failed, Missing, await_true, need, program, run

INSTANCES = "/var/lib/nova/instances"
IMAGE = "70a599e0-31e7-49b7-b260-868f441e862b"
UNSHARE = ["--mount", "--uts", "--pid", "--ipc", "--net", "--fork", "--kill-child"]
PROGRAMS = ["unshare", "nsenter", "mount", "bash", "ip", "ss", "hostname"]
SERVERS = ["sshd", "ssh-keygen", "libvirtd", "virsh", "qemu-system-x86_64", "qemu-img"]
# virsh's words for a state, where they differ from libvirt's own names for it.
STATES = {"shut off": "shutoff", "idle": "blocked", "in shutdown": "shutdown", "no state": "nostate"}

# What is bound from the bed's directory: place on the hypervisor, name in the directory.
BOUND = {
    "/etc/libvirt": "etc-libvirt",
    "/etc/nova": "etc-nova",
    "/var/lib/libvirt": "lib-libvirt",
    "/var/log/libvirt": "log-libvirt",
    "/var/cache/libvirt": "cache-libvirt",
    "/var/lib/nova": "lib-nova",
    "/var/lib/cloudfsck": "lib-cloudfsck",
}

INIT = """
set -e
# libvirt closes every file number up to the limit before it starts a QEMU.
ulimit -n 4096
mount -t proc proc /proc
mount -t sysfs sysfs /sys
# The bed's directory is ".": the mounts below may cover the place where it is.
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/sshd /run/lock /run/libvirt /run/bed
for place in etc var/lib; do
    over=/run/bed/over/$place
    mkdir -p $over/upper $over/work
    mount -t overlay overlay -o lowerdir=/$place,upperdir=$over/upper,workdir=$over/work /$place
done
mount -t tmpfs -o mode=0700 tmpfs /root
mkdir -m 0700 /root/.ssh
: >/root/.bashrc
while read -r place name; do
    mkdir -p $place
    mount --bind ./$name $place
done <bound
# sshd without PAM refuses an account whose password is locked by an exclamation mark.
echo 'root:*:19000:0:99999:7:::' >/etc/shadow
echo mounted
read -r address
cp authorized_keys /root/.ssh/authorized_keys
cp sshd_config /etc/ssh/sshd_config
rm -f /etc/ssh/ssh_host_*
cp host_key /etc/ssh/ssh_host_ed25519_key
cp hosts machine-id hostname /etc/
hostname "$(cat hostname)"
cd /
# libvirt resolves names with AI_ADDRCONFIG: with only a tap's fe80:: as address, IPv4 is dropped.
for switch in /proc/sys/net/ipv6/conf/{all,default}/disable_ipv6; do
    if [ -e $switch ]; then echo 1 >$switch; fi
done
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up
/usr/sbin/sshd -E /var/log/libvirt/sshd.log
/usr/sbin/libvirtd --daemon --pid-file /run/libvirtd.pid
# The first to ask waits until libvirt has learnt what this QEMU can do: that is better done here.
virsh -q -c qemu:///system capabilities >/dev/null
echo up
# As process 1, bash reaps what qemu and libvirtd leave (libvirtd as process 1 does not: 16 s a domain).
while read -r; do :; done
"""

SSHD = """\
Port 22
ListenAddress {address}
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile /run/sshd.pid
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 500
MaxSessions 100
Subsystem sftp /usr/lib/openssh/sftp-server
"""

QEMU = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""

LIBVIRTD = """\
host_uuid = "{host}"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

NOVA = """\
[DEFAULT]
host = {name}
my_ip = {address}
state_path = /var/lib/nova
instances_path = $state_path/instances

[libvirt]
virt_type = qemu
"""

# As nova 34 writes it; a port's interface and metadata, the disk and the marks of Nova are put in where they are asked.
DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
{metadata}\
  <memory unit='KiB'>1024</memory>
  <vcpu>1</vcpu>
{sysinfo}\
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <boot dev='hd'/>
{smbios}\
  </os>
  <features><acpi/><apic/></features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' index='0' model='none'/>
{devices}\
    <memballoon model='none'/>
  </devices>
</domain>
"""

METADATA = """\
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:package version="34.0.0"/>
      <nova:name>{display}</nova:name>
      <nova:creationTime>{created}</nova:creationTime>
      <nova:flavor name="m1.tiny" id="386a4286-a917-45b7-9c4b-f220ece51899">
        <nova:memory>1</nova:memory>
        <nova:disk>1</nova:disk>
        <nova:swap>0</nova:swap>
        <nova:ephemeral>0</nova:ephemeral>
        <nova:vcpus>1</nova:vcpus>
        <nova:extraSpecs/>
      </nova:flavor>
      <nova:image uuid="{image}">
        <nova:containerFormat>bare</nova:containerFormat>
        <nova:diskFormat>raw</nova:diskFormat>
        <nova:minDisk>1</nova:minDisk>
        <nova:minRam>0</nova:minRam>
        <nova:properties/>
      </nova:image>
      <nova:owner>
        <nova:user uuid="cf19bb1790134d8ebf9046fc1c5b40da">admin</nova:user>
        <nova:project uuid="{project}">demo</nova:project>
      </nova:owner>
      <nova:root type="image" uuid="{image}"/>
      <nova:ports>{ports}</nova:ports>
    </nova:instance>
  </metadata>
"""

SYSINFO = """\
  <sysinfo type='smbios'>
    <system>
      <entry name='manufacturer'>OpenStack Foundation</entry>
      <entry name='product'>OpenStack Nova</entry>
      <entry name='version'>34.0.0</entry>
      <entry name='serial'>{uuid}</entry>
      <entry name='uuid'>{uuid}</entry>
      <entry name='family'>Virtual Machine</entry>
    </system>
  </sysinfo>
"""

DISK = """\
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='{directory}/disk'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'>
      <log file='{directory}/console.log' append='off'/>
      <target type='isa-serial' port='0'/>
    </serial>
"""

INTERFACE = """\
    <interface type='ethernet'>
      <mac address='{mac}'/>
      <target dev='tap{short}'/>
      <model type='virtio'/>
      <mtu size='1442'/>
    </interface>
"""


class Hypervisor:
    """One host with sshd, libvirtd and QEMU; `root` is its / as seen from here."""

    port = 22
    instances = INSTANCES

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.address = ""
        self.directory = directory
        self.uuid = str(uuids.uuid4())
        self._pid = 0
        self._init: subprocess.Popen[str] | None = None

    def __repr__(self) -> str:
        return f"<Hypervisor {self.name} {self.address}>"

    # -- what tests do with it

    @property
    def pid(self) -> int:
        """Process 1 of the hypervisor, as this machine numbers it."""
        return self._pid

    @property
    def root(self) -> Path:
        """Its / from outside. An absolute symbolic link below it leads to this machine's files: beware."""
        return Path(f"/proc/{self._pid}/root")

    def path(self, path: str) -> Path:
        """A path of the hypervisor, from outside."""
        return self.root / path.lstrip("/")

    def run(self, argv: Sequence[str], input: str | None = None, check: bool = True) -> str:
        """Run a program on it as root, not over SSH, and return what it printed."""
        enter = ["nsenter", "--target", str(self._pid), "--mount", "--uts", "--ipc", "--net", "--pid"]
        return run([*enter, "--", *argv], input, check, {**ENVIRONMENT, "HOME": "/root"})

    def virsh(self, *commands: str) -> str:
        """Run virsh commands, each a line as one would type it, in one virsh."""
        return self.run(["virsh", "-q", "-c", "qemu:///system", "; ".join(commands)])

    def write_file(self, path: str, text: str, mode: int | None = None) -> None:
        """Write a file on it, and the directories above it that are absent."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        if mode is not None:
            target.chmod(mode)

    def define(
        self,
        uuid: str,
        name: str,
        *,
        nova: bool = True,
        disk: bool = True,
        start: Literal["running", "paused", "no"] = "running",
        persistent: bool = True,
        ports: Sequence[str] = (),
        devices: str = "",
        display: str | None = None,
        project: str = "8ca28ab4b3fb4b3a90d2547da35db857",
        created: str = "2026-01-05 10:00:00",
    ) -> None:
        """Make a domain as Nova does, with its directory; `name` is libvirt's (instance-0000000a), `display` Nova's.

        `ports` are Neutron's uuids: each becomes an interface with its tap device. `devices` is XML put in as it is.
        """
        if start == "no" and not persistent:
            raise ValueError("a transient domain exists only while it runs")
        directory = f"{INSTANCES}/{uuid}"
        inside = "".join(INTERFACE.format(mac=mac(port), short=port[:11]) for port in ports) + devices
        if disk:
            self.make_directory(uuid)
            inside = DISK.format(directory=directory) + inside
        metadata = METADATA.format(
            display=escape(display or name),
            created=created,
            image=IMAGE,
            project=project,
            ports="".join(f'<nova:port uuid="{port}"/>' for port in ports),
        )
        xml = DOMAIN.format(
            name=escape(name),
            uuid=uuid,
            metadata=metadata if nova else "",
            sysinfo=SYSINFO.format(uuid=uuid) if nova else "",
            smbios="    <smbios mode='sysinfo'/>\n" if nova else "",
            devices=inside,
        )
        paused = " --paused" if start == "paused" else ""
        if not persistent:
            self.run(["virsh", "-q", "-c", "qemu:///system", f"create /dev/stdin{paused}"], xml)
        else:
            starting = "" if start == "no" else f"; start {uuid}{paused}"
            self.run(["virsh", "-q", "-c", "qemu:///system", f"define /dev/stdin{starting}"], xml)

    def make_directory(self, server: str) -> None:
        """Make a server's directory with a qcow2 disk on an image in _base, as Nova does; a domain is not needed."""
        base = f"{INSTANCES}/_base/{hashlib.sha1(IMAGE.encode()).hexdigest()}"
        if not self.path(base).exists():
            with self.path(base).open("wb") as image:
                image.write(b"an image of the test bed")
                image.truncate(1 << 20)
        disk = f"{INSTANCES}/{server}/disk"
        self.write_file(f"{INSTANCES}/{server}/disk.info", json.dumps({disk: "qcow2"}))
        self.write_file(f"{INSTANCES}/{server}/console.log", "")
        self.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, disk])

    def states(self) -> dict[str, str]:
        """Every domain's uuid and state, in libvirt's names: running, paused, shutoff, crashed …"""
        found = self.virsh("list --all --uuid").split()
        if not found:
            return {}
        said = [line for line in self.virsh(*(f"domstate {uuid}" for uuid in found)).splitlines() if line]
        return {uuid: STATES.get(state, state) for uuid, state in zip(found, said, strict=True)}

    def facts(self, uuid: str) -> dict[str, Any]:
        """Everything of one server here: its domain, its process, every file in its directories and below its disks."""
        domain: dict[str, Any] | None = None
        if uuid in self.virsh("list --all --uuid").split():
            commands = f"dumpxml {uuid} --inactive --security-info", f"dominfo {uuid}", f"domstate {uuid} --reason"
            xml, end, info = self.virsh(*commands).partition("</domain>\n")
            xml += end
            if "Persistent:     no" in info:
                xml = as_defined(xml)
            kept = ("Id:", "Name:", "State:", "Persistent:", "Autostart:", "Managed save:")
            lines = [line for line in info.splitlines() if line.startswith(kept)]
            domain = {"xml": xml, "info": lines, "reason": info.strip().splitlines()[-1]}
        files: dict[str, Any] = {}
        for top in sorted(self.path(INSTANCES).glob(f"{uuid}*")):
            for path in [top, *sorted(top.rglob("*"))]:
                files[str(path.relative_to(self.root))] = measure(path)
                for image in self._backing(path):
                    files[str(image.relative_to(self.root))] = measure(image)
        return {"domain": domain, "processes": self._processes(uuid), "files": files}

    def fingerprint(self, *uuids: str) -> str:
        """A digest of the facts of these servers: equal if and only if nothing of them was changed."""
        facts = {uuid: self.facts(uuid) for uuid in uuids}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def stop_libvirtd(self) -> None:
        """Stop libvirtd; the QEMUs run on."""
        pid = self.path("/run/libvirtd.pid").read_text().strip()
        self.run(["kill", pid])
        await_true(f"libvirtd of {self.name} ends", lambda: not self.path(f"/proc/{pid}").exists())

    def start_libvirtd(self) -> None:
        """Start libvirtd again; on return it answers, and has adopted the QEMUs."""
        self.run(["bash", "-c", "ulimit -n 4096; exec libvirtd --daemon --pid-file /run/libvirtd.pid"])

    def off(self, how: Literal["refused", "silent", "hung"] = "refused") -> None:
        """Make sshd unreachable at once, open sessions too.

        refused: sshd is dead, connections are refused. silent: packets vanish, as with a host without power.
        hung: the kernel accepts connections, but sshd says nothing.
        """
        if how == "silent":
            self.run(["ip", "link", "set", "eth0", "down"])
        else:
            self._signal_sshd("STOP" if how == "hung" else "KILL")

    def on(self) -> None:
        """Make sshd reachable again, whatever had made it not so."""
        self.run(["ip", "link", "set", "eth0", "up"])
        self._signal_sshd("CONT")
        if not self._listens():
            self.run(["/usr/sbin/sshd", "-E", "/var/log/libvirt/sshd.log"])
        # sshd goes into the background first, and listens then.
        await_true(f"sshd of {self.name} listens", self._listens)

    # -- how it comes and goes

    def _launch(self) -> None:
        """Start process 1 in its namespaces; it makes its file systems, and then waits for its network."""
        for name in BOUND.values():
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "init").write_text(INIT)
        (self.directory / "bound").write_text("".join(f"{place} {name}\n" for place, name in BOUND.items()))
        with (self.directory / "init.log").open("wb") as log:
            self._init = subprocess.Popen(
                [program("unshare"), *UNSHARE, "bash", "init"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.directory,
                env={**ENVIRONMENT, "HOME": "/root"},
                # A Ctrl-C at the terminal goes to the tests alone; they stop their hypervisors in order.
                start_new_session=True,
            )

    def _furnish(self, hosts: str, keys: str) -> None:
        """Write the files that depend on its address, and let it go on."""
        files = {
            "hosts": hosts,
            "hostname": f"{self.name}\n",
            "machine-id": f"{self.uuid.replace('-', '')}\n",
            "authorized_keys": keys,
            "sshd_config": SSHD.format(address=self.address),
            "etc-libvirt/qemu.conf": QEMU,
            "etc-libvirt/libvirtd.conf": LIBVIRTD.format(host=self.uuid),
            "etc-nova/nova.conf": NOVA.format(name=self.name, address=self.address),
            "lib-nova/compute_id": self.uuid,
        }
        for name, text in files.items():
            (self.directory / name).write_text(text)
        for name in ("_base", "locks"):
            (self.directory / "lib-nova/instances" / name).mkdir(parents=True, exist_ok=True)
        assert self._init is not None
        assert self._init.stdin is not None
        self._init.stdin.write(f"{self.address}\n")
        self._init.stdin.flush()

    def _heard(self, word: str) -> None:
        """Wait until process 1 says that it is so far."""
        assert self._init is not None
        assert self._init.stdout is not None
        if self._init.stdout.readline().strip() != word:
            said = " ".join((self.directory / "init.log").read_text().split())
            if "unshare failed" in said or "Operation not permitted" in said or "permission denied" in said:
                raise Missing(f"hypervisors: this machine lets root make no namespaces or mounts ({said})")
            raise Failed(f"{self.name} did not come so far as {word!r}: {said}")

    def _find_process_1(self) -> None:
        assert self._init is not None
        children = [pid for pid, parent in parents() if parent == self._init.pid]
        if len(children) != 1:
            raise Failed(f"{self.name}: unshare has {len(children)} children instead of one")
        self._pid = children[0]

    def _stop(self) -> None:
        if self._init is None:
            return
        with contextlib.suppress(OSError):
            assert self._init.stdin is not None
            self._init.stdin.close()
        try:
            self._init.wait(10)
        except subprocess.TimeoutExpired:
            # unshare takes no SIGTERM; when it is killed, --kill-child kills process 1, and with it all the rest.
            self._init.kill()
            self._init.wait()
        assert self._init.stdout is not None
        self._init.stdout.close()
        self._init = None
        self._pid = 0

    def _listens(self) -> bool:
        return "LISTEN" in self.run(["ss", "-Hltn", "sport = :22"])

    def _signal_sshd(self, signal: Literal["KILL", "STOP", "CONT"]) -> None:
        """Send a signal to every sshd, the sessions' too, until each has taken it: a listener may fork meanwhile."""

        def taken() -> bool:
            left = [pid for pid, argv in self._inside() if argv[0].split(":")[0].rpartition("/")[2] == "sshd"]
            if signal != "KILL":
                left = [pid for pid in left if (self._stat(pid)[0] == "T") != (signal == "STOP")]
            if left:
                self.run(["kill", f"-{signal}", *left], check=False)
            return not left

        await_true(f"every sshd of {self.name} takes SIG{signal}", taken)

    def _stat(self, pid: str) -> list[str]:
        """The fields of /proc/PID/stat from the state on; of a process that has ended, a state of its own."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return self.path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return ["gone"]

    def _inside(self) -> Iterator[tuple[str, list[str]]]:
        """Every process of the hypervisor: its number there, its arguments."""
        for entry in self.path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    yield entry.name, (entry / "cmdline").read_text(errors="replace").split("\0")

    def _processes(self, uuid: str) -> list[list[str]]:
        """The QEMUs of a server: number and time of start."""
        found = []
        for pid, argv in self._inside():
            if "-uuid" in argv and argv[argv.index("-uuid") + 1] == uuid:
                found.append([pid, *self._stat(pid)[19:20]])
        return sorted(found)

    def _backing(self, path: Path) -> Iterator[Path]:
        """The chain of backing files that a qcow2 file names in its header."""
        while not path.is_symlink() and path.is_file():
            with path.open("rb") as file:
                header = file.read(20)
                if len(header) < 20 or header[:4] != b"QFI\xfb":
                    return
                offset, size = struct.unpack(">QI", header[8:20])
                if not offset:
                    return
                file.seek(offset)
                path = self.path(os.path.join("/", path.parent.relative_to(self.root), file.read(size).decode()))
            if path.exists():
                yield path


class Hypervisors:
    """Several hypervisors as a context manager; iterate over them, or ask for one by its name."""

    def __init__(self, directory: Path, names: Sequence[str] = ("hv1", "hv2", "hv3", "hv4", "hv5")) -> None:
        if len(set(names)) != len(names) or not 0 < len(names) < 250:
            raise ValueError(f"hypervisors need names of their own: {', '.join(names)}")
        self.directory = directory.resolve()
        self.read_key = self.directory / "read_key"
        self.write_key = self.directory / "write_key"
        self.known_hosts = self.directory / "known_hosts"
        self._hosts = {name: Hypervisor(name, self.directory / name) for name in names}
        self._links: list[str] = []

    def __enter__(self) -> Self:
        need("hypervisors", *PROGRAMS, *SERVERS, root=True)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop()

    def __iter__(self) -> Iterator[Hypervisor]:
        return iter(self._hosts.values())

    def __getitem__(self, name: str) -> Hypervisor:
        return self._hosts[name]

    def __len__(self) -> int:
        return len(self._hosts)

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for host in self:
            host.directory.mkdir(exist_ok=True)
            host._launch()
        keys = make_key(self.read_key) + make_key(self.write_key)
        host_keys = {host.name: make_key(host.directory / "host_key") for host in self}
        for host in self:
            host._heard("mounted")
            host._find_process_1()
        self._connect()
        self.known_hosts.write_text("".join(f"{host.name},{host.address} {host_keys[host.name]}" for host in self))
        hosts = "127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in self)
        for host in self:
            host._furnish(hosts, keys)
        for host in self:
            host._heard("up")
            await_true(f"sshd of {host.name} listens", host._listens)

    def _connect(self) -> None:
        """Give each hypervisor its link, in the first subnet that nobody uses."""
        first, *others = self
        for number in free_numbers():
            # The kernel makes a link name once: to make the first one is to own the number.
            if self._link(number, 1, first):
                for position, host in enumerate(others, 2):
                    if not self._link(number, position, host):
                        raise Failed(f"the link cfsck{number}-{position} exists already")
                return
        raise Missing("hypervisors: routes or links of this machine use all of 10.231.0.0/16")

    def _link(self, number: int, position: int, host: Hypervisor) -> bool:
        """Make one link; False if its name is taken."""
        link, address, outer = f"cfsck{number}-{position}", f"10.231.{number}.{position}", f"10.231.{number}.254"
        inner = f"02:c5:0f:5c:{number:02x}:{position:02x}"
        made = f"link add {link} type veth peer name eth0 address {inner} netns {host.pid}"
        try:
            run(["ip", *made.split()])
        except Failed as failed:
            if "File exists" in str(failed):
                return False
            raise
        self._links.append(link)
        host.address = address
        # The neighbour is set for good: so a host that is silent is silent, and not "no route to host" after 3 s.
        batch = f"""
            address add {outer}/32 peer {address} dev {link}
            link set {link} up
            neighbour replace {address} lladdr {inner} dev {link} nud permanent
            """
        run(["ip", "-batch", "-"], batch)
        return True

    def _stop(self) -> None:
        for host in self:
            host._stop()
        for link in self._links:
            # The kernel takes it away with the namespace, but a while later than this.
            run(["ip", "link", "delete", link], check=False)
        self._links = []


def free_numbers() -> Iterator[int]:
    """The numbers X whose subnet 10.231.X.0/24 overlaps no route of this machine, but for its default route."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    taken = [ipaddress.ip_network(route["dst"]) for route in routes if route["dst"] != "default"]
    for number in range(256):
        subnet = ipaddress.ip_network(f"10.231.{number}.0/24")
        if not any(subnet.overlaps(network) for network in taken):
            yield number


def make_key(path: Path) -> str:
    """Make a key pair, and return its public half as a line."""
    for old in (path, path.with_name(path.name + ".pub")):
        old.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path])
    return path.with_name(path.name + ".pub").read_text()


def mac(port: str) -> str:
    """A MAC address in Neutron's range, always the same for a port."""
    digest = hashlib.sha256(port.encode()).hexdigest()
    return f"fa:16:3e:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def measure(path: Path) -> list[Any]:
    """What a file is: kind and mode, owner, group, time of change, and its bytes or what it points to."""
    found = path.lstat()
    content = ""
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(found.st_mode):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    return [stat.filemode(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns, content]


def as_defined(xml: str) -> str:
    """A transient domain's XML without what libvirt only found out: a restart of libvirtd finds out more, or less."""
    domain = ElementTree.fromstring(xml)
    for parent in list(domain.iter()):
        for found in [child for child in parent if child.tag in ("alias", "backingStore")]:
            parent.remove(found)
        if parent.tag == "source":
            parent.attrib.pop("index", None)
    return ElementTree.canonicalize(ElementTree.tostring(domain, encoding="unicode"), strip_text=True)


def parents() -> Iterator[tuple[int, int]]:
    """Every process of this machine and its parent."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
