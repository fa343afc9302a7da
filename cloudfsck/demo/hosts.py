"""The demo's hypervisors as folders: nova.conf, instances with disk images, domains, a /proc with processes, and the
sysfs and /dev of what they are connected to."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import random
import shlex
import struct
import sys
from pathlib import Path

from cloudfsck.demo import cloud, kernel, virsh
from cloudfsck.demo.cloud import Folder, Guest, Server, Way

MIB = 1 << 20
_CLUSTER = 1 << 16
#: How long ago each host was started.
_BOOTED_DAYS = 100


def write(folder: Path, servers: list[Server], now: dt.datetime) -> dict[str, Path]:
    """Make a folder for every host of the cloud; `now` is UTC, naive.  Returns the hosts' folders."""
    places = {host: folder / host for host in cloud.HOSTS}
    number = cloud.numbers(servers)
    for host, place in places.items():
        _host(place, host, now)
    for server in servers:
        for tree in server.folders:
            _instance_directory(places[tree.host] / "instances", server, tree, now)
    # The longest run has the smallest id.
    runs = [(guest, server) for server in servers for guest in server.guests]
    for guest, server in sorted(runs, key=lambda run: -(run[0].up or 0)):
        devices = _connected(places[guest.host], server) if guest.up is not None else {}
        _domain(places[guest.host], server, guest, number[server.name], now, devices)
    for server in servers:
        for left in server.left:
            way = server.way("vdb")
            assert way is not None
            if left.what == "device":
                _device(places[left.host], way, up=True)
            else:
                kernel.Storage(str(places[left.host])).session(way.target, way.portals[0])
    _operators_own(places["compute3"], now)
    return places


def _host(place: Path, host: str, now: dt.datetime) -> None:
    folders = ("instances/_base", "instances/locks", "instances/snapshots", "proc", "locks", "bin")
    for name in ("libvirt/nvram", *folders, "cloudfsck"):
        (place / name).mkdir(parents=True)
    kernel.Storage(str(place)).make()
    # What nova-compute itself keeps there.
    instances = str(place / "instances").replace("$", "$$")
    (place / "nova.conf").write_text(
        f"[DEFAULT]\nhost = {host}\nstate_path = {str(place).replace('$', '$$')}\ninstances_path = {instances}\n"
        f"[oslo_concurrency]\nlock_path = {str(place / 'locks').replace('$', '$$')}\n"
    )
    # os-brick made it when it first connected a volume.
    (place / "locks" / "os-brick-connect_volume").touch()
    (place / "compute_id").write_text(cloud.ident("node", host) + "\n")
    seen = now.replace(tzinfo=dt.UTC).timestamp() - 1200
    (place / "instances" / "compute_nodes").write_text(json.dumps({host: seen}))
    (place / "instances" / "locks" / f"nova-{base_name(cloud.IMAGE)}").touch()
    for image in (cloud.IMAGE, cloud.RESCUE_IMAGE):
        with _base(place, image).open("wb") as file:
            file.write(random.Random(image).randbytes(_CLUSTER))
            file.truncate(16 * MIB)
    _program(place / "virsh", "virsh", place)
    for name in kernel.PROGRAMS:
        _program(place / "bin" / name, "kernel", place, name)
    proc = place / "proc"
    boot = int(now.replace(tzinfo=dt.UTC).timestamp()) - _BOOTED_DAYS * 86400
    (proc / "stat").write_text(f"cpu  1 0 1 1 0 0 0 0 0 0\nbtime {boot}\nprocesses 4711\n")
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text(cloud.ident("boot", host) + "\n")
    (proc / "sys/kernel/hostname").write_text(cloud.NODES[host] + "\n")
    _process(proc / "1", "systemd", "/sbin/init")
    _process(proc / str(kernel.MULTIPATHD), "multipathd", "/sbin/multipathd", "-d", "-s")
    if host != cloud.DEAD:
        words = ("/usr/bin/python3", "/usr/bin/nova-compute", "--config-file", str(place / "nova.conf"))
        _process(proc / "800", "nova-compute", *words)


def _program(script: Path, module: str, *words: object) -> None:
    """A stand-in on a host, by the name under which cloudfsck runs it there."""
    # Imported, not run as a file: it is called often, and an import is compiled once.
    folder = str(Path(kernel.__file__).resolve().parent)
    start = f"import sys; sys.path.append({folder!r}); import {module}; sys.exit({module}.main(sys.argv[1:]))"
    command = [sys.executable, "-I", "-S", "-c", start, *map(str, words)]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    script.chmod(0o755)


def _process(folder: Path, name: str, *words: str) -> None:
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text(f"{name}\n")
    (folder / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
    (folder / "stat").write_text(f"{folder.name} ({name}) S 0 1 1 " + "0 " * 48 + "\n")
    (folder / "environ").write_bytes(b"")
    (folder / "maps").write_text("")
    for link in ("cwd", "root"):
        (folder / link).symlink_to("/")


def _connected(place: Path, server: Server) -> dict[str, str]:
    """What its host gives a server for those of its volumes that are devices there, by their disks."""
    ways = {target: way for target in server.volumes if (way := server.way(target)) is not None}
    return {target: _device(place, way, up=not server.dead) for target, way in ways.items()}


def _device(place: Path, way: Way, up: bool) -> str:
    """Connect a volume, as os-brick does, and return the path that it gives Nova."""
    storage = kernel.Storage(str(place))
    disks = [storage.disk(storage.session(way.target, portal, up), way.lun, way.wwid, 1024) for portal in way.portals]
    return "/dev/" + (disks[0] if len(disks) == 1 else storage.map(disks, way.wwid, 1024))


def base_name(image: str) -> str:
    """What Nova calls an image in its cache."""
    return hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()


def _base(place: Path, image: str) -> Path:
    return place / "instances" / "_base" / base_name(image)


def _instance_directory(instances: Path, server: Server, tree: Folder, now: dt.datetime) -> None:
    here = instances / f"{server.uuid}{tree.suffix}"
    here.mkdir()
    base = instances / "_base" / base_name(cloud.IMAGE)
    kinds = {}
    if server.root == "image":
        qcow2(here / "disk", base, tree.mib)
        kinds["disk"] = "qcow2"
    if server.vm_state == "rescued":
        qcow2(here / "disk.rescue", instances / "_base" / base_name(cloud.RESCUE_IMAGE), 0)
        kinds["disk.rescue"] = "qcow2"
    if server.config_drive:
        (here / "disk.config").write_bytes(b"\0" * 32768 + b"\1CD001\1\0" + b"\0" * 2040)
        kinds["disk.config"] = "raw"
    (here / "disk.info").write_text(json.dumps({str(here / name): kind for name, kind in kinds.items()}))
    (here / "console.log").write_text(f"[    0.000000] Linux version 6.1.0\n{server.name} login: \n")
    for path in here.iterdir():  # what a file takes on disk is settled only when it has been written back
        with path.open("rb") as file:
            os.fsync(file.fileno())
    touched = server.created if server.deleted is None else server.deleted + 1
    when = now.replace(tzinfo=dt.UTC).timestamp() - touched * 86400
    for path in (*here.iterdir(), here):
        os.utime(path, (when, when))


def qcow2(path: Path, backing: Path | None, mib: int) -> None:
    """A qcow2 image of 1 GiB on a backing file, with so many MiB really written."""
    name = os.fsencode(backing) if backing else b""
    written = mib * MIB // _CLUSTER
    assert len(name) <= 1023, f"the path is too long for a qcow2 image: {backing}"
    assert written <= _CLUSTER // 8
    # Clusters: header, refcount table, refcount block, L1 table, L2 table, data.
    clusters = 5 + written
    extension = struct.pack(">II", 0xE2792ACA, 3) + b"raw" + b"\0" * 5 if name else b""
    end = struct.pack(">II", 0, 0)
    at = 104 + len(extension) + len(end) if name else 0
    # Magic, version, backing file, cluster bits, size, encryption, L1 table, refcount table, snapshots, features, …
    fields = (b"QFI\xfb", 3, at, len(name), 16, 1 << 30, 0, 2, 3 * _CLUSTER, _CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104)
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", *fields)
    copied = 1 << 63
    with path.open("wb") as file:
        file.write(header + extension + end + name)
        file.seek(_CLUSTER)
        file.write(struct.pack(">Q", 2 * _CLUSTER))
        file.seek(2 * _CLUSTER)
        file.write(struct.pack(">H", 1) * clusters)
        file.seek(3 * _CLUSTER)
        file.write(struct.pack(">Q", 4 * _CLUSTER | copied))
        file.seek(4 * _CLUSTER)
        file.write(b"".join(struct.pack(">Q", (5 + n) * _CLUSTER | copied) for n in range(written)))
        file.seek(5 * _CLUSTER)
        file.write(random.Random(path.name).randbytes(written * _CLUSTER))
        file.truncate(clusters * _CLUSTER)


def _domain(place: Path, server: Server, guest: Guest, number: int, now: dt.datetime, devices: dict[str, str]) -> None:
    name = f"instance-{number:08x}"
    host = virsh.Host(place)
    domain = virsh.Domain(
        name, server.uuid, _xml(place, server, name, now, devices), None, guest.state, guest.reason, guest.persistent,
        managed_save=guest.managed_save, job=guest.job,
    )  # fmt: skip
    if server.uefi:
        (place / "libvirt/nvram" / f"{name}_VARS.fd").write_bytes(b"_FVH" * 1024)
    if guest.up is not None:
        started = now.replace(tzinfo=dt.UTC).timestamp() - guest.up * 86400
        host.begin(domain, guest.state, guest.reason, started)
    host.save(domain)


def _xml(place: Path, server: Server, name: str, now: dt.datetime, devices: dict[str, str]) -> str:
    """The definition that Nova gives a server, as libvirt shows it."""
    here = place / "instances" / server.uuid
    created = (now - dt.timedelta(days=server.created)).strftime("%Y-%m-%d %H:%M:%S")
    disks = []
    if server.vm_state == "rescued":
        disks.append(_file_disk(here / "disk.rescue", "vda"))
        disks.append(_file_disk(here / "disk", "vdb"))
    elif server.root == "image":
        disks.append(_file_disk(here / "disk", "vda"))
    for target, volume in server.volumes.items():
        disks.append(_volume_disk(volume, target, devices.get(target)))
    if server.config_drive:
        disks.append(_file_disk(here / "disk.config", "sda", "raw", "cdrom"))
    nvram = virsh.escape(str(place / "libvirt/nvram" / f"{name}_VARS.fd"))
    firmware = (
        f"    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>\n    <nvram>{nvram}</nvram>\n"
    )
    root = f'<nova:root type="image" uuid="{cloud.IMAGE}"/>' if server.root == "image" else '<nova:root type="volume"/>'
    return f"""<domain type='kvm'>
  <name>{name}</name>
  <uuid>{server.uuid}</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:package version="32.0.0"/>
      <nova:name>{server.name}</nova:name>
      <nova:creationTime>{created}</nova:creationTime>
      <nova:flavor name="m1.small">
        <nova:memory>2048</nova:memory>
        <nova:disk>1</nova:disk>
        <nova:swap>0</nova:swap>
        <nova:ephemeral>0</nova:ephemeral>
        <nova:vcpus>1</nova:vcpus>
      </nova:flavor>
      <nova:owner>
        <nova:user uuid="{cloud.project(server.project + "-user")}">{server.project}</nova:user>
        <nova:project uuid="{cloud.project(server.project)}">{server.project}</nova:project>
      </nova:owner>
      {root}
      <nova:ports>
        <nova:port uuid="{server.port}">
          <nova:ip type="fixed" address="{server.address}" ipVersion="4"/>
        </nova:port>
      </nova:ports>
    </nova:instance>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>1</vcpu>
  <sysinfo type='smbios'>
    <system>
      <entry name='manufacturer'>OpenStack Foundation</entry>
      <entry name='product'>OpenStack Nova</entry>
      <entry name='version'>32.0.0</entry>
      <entry name='serial'>{server.uuid}</entry>
      <entry name='uuid'>{server.uuid}</entry>
      <entry name='family'>Virtual Machine</entry>
    </system>
  </sysinfo>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
{firmware if server.uefi else ""}    <boot dev='hd'/>
    <smbios mode='sysinfo'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>{"preserve" if server.name == "render-9" else "destroy"}</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
{"".join(disks)}    <interface type='ethernet'>
      <mac address='{server.mac}'/>
      <target dev='tap{server.port[:11]}'/>
      <model type='virtio'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x03' function='0x0'/>
    </interface>
    <serial type='pty'>
      <log file='{virsh.escape(str(here / "console.log"))}' append='off'/>
      <target type='isa-serial' port='0'>
        <model name='isa-serial'/>
      </target>
    </serial>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'>
      <listen type='address' address='127.0.0.1'/>
    </graphics>
    <memballoon model='virtio'>
      <stats period='10'/>
    </memballoon>
  </devices>
</domain>
"""


def _file_disk(path: Path, target: str, kind: str = "qcow2", device: str = "disk") -> str:
    bus = "sata" if target.startswith("sd") else "virtio"
    return f"""    <disk type='file' device='{device}'>
      <driver name='qemu' type='{kind}' cache='none'/>
      <source file='{virsh.escape(str(path))}'/>
      <target dev='{target}' bus='{bus}'/>
    </disk>
"""


def _volume_disk(volume: str, target: str, device: str | None) -> str:
    if device is not None:
        return f"""    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/>
      <source dev='{device}'/>
      <target dev='{target}' bus='virtio'/>
      <serial>{volume}</serial>
    </disk>
"""
    return f"""    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
      <source protocol='rbd' name='volumes/volume-{volume}'>
        <host name='192.0.2.200' port='6789'/>
      </source>
      <target dev='{target}' bus='virtio'/>
      <serial>{volume}</serial>
    </disk>
"""


def _operators_own(place: Path, now: dt.datetime) -> None:
    """A domain that somebody made with virt-install: none of Nova's, and none of ours."""
    disk = place / "images" / "router-vm.qcow2"
    disk.parent.mkdir()
    qcow2(disk, None, 0)
    xml = f"""<domain type='kvm'>
  <name>router-vm</name>
  <uuid>{cloud.ident("domain", "router-vm")}</uuid>
  <memory unit='KiB'>524288</memory>
  <currentMemory unit='KiB'>524288</currentMemory>
  <vcpu placement='static'>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
{_file_disk(disk, "vda")}    <interface type='bridge'>
      <mac address='52:54:00:12:34:56'/>
      <source bridge='br-mgmt'/>
      <model type='virtio'/>
    </interface>
  </devices>
</domain>
"""
    host = virsh.Host(place)
    domain = virsh.Domain("router-vm", cloud.ident("domain", "router-vm"), xml, autostart=True)
    host.begin(domain, "running", "booted", now.replace(tzinfo=dt.UTC).timestamp() - 90 * 86400)
    host.save(domain)
