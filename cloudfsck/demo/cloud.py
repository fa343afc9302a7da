"""The demo's story: which servers there are, what Nova thinks of them, and what the hosts really have.  Values only.

Most of it is healthy; some of it only looks wrong; and a little is broken, each piece in one way.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Literal

CELLS = {"cell1": ("compute1", "compute2", "compute3"), "cell2": ("compute4", "compute5")}
HOSTS = {host: cell for cell, hosts in CELLS.items() for host in hosts}
#: A hypervisor's own name is not what Nova calls its host.
NODES = {
    "compute1": "hv11.rack.example",
    "compute2": "hv12.rack.example",
    "compute3": "hv13.rack.example",
    "compute4": "hv21.rack.example",
    "compute5": "hv22.rack.example",
}
IRONIC = ("ironic1", "cell1", "8d0a5b34-7c0e-5b1c-9a57-2f6c1d3e4b5a")
#: Its nova-compute died two days ago, its host was declared dead, and two of its servers were evacuated.
DEAD = "compute2"

PROJECTS = ("shop", "media", "lab", "bank")
#: A project, and of what Cinder counts one more than it has: cinder-volume was killed in the midst of a deletion.
MISCOUNTED = ("media", "volumes")


def ident(*words: str) -> str:
    """A UUID that looks like any other and is the same in every demo."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "demo:" + "/".join(words)))


def project(name: str) -> str:
    return uuid.UUID(ident("project", name)).hex


IMAGE = ident("image", "debian")
RESCUE_IMAGE = ident("image", "rescue")


@dataclass(frozen=True)
class Guest:
    """A domain of a server on a host.  `up` is how many days ago its run began; None: it does not run."""

    host: str
    state: str = "running"
    reason: str = "booted"
    up: float | None = 20.0
    persistent: bool = True
    managed_save: bool = False
    job: str | None = None


@dataclass(frozen=True)
class Folder:
    """A server's directory on a host, with so many MiB really in its disk."""

    host: str
    suffix: str = ""
    mib: int = 0


@dataclass(frozen=True)
class Way:
    """How a volume is reached over iSCSI: by each of the portals, at that LUN of the target."""

    portals: tuple[str, ...]
    target: str
    lun: int
    wwid: str


@dataclass(frozen=True)
class Left:
    """What is left of a connection to a server's data volume on a host where nothing uses it."""

    host: str
    what: Literal["device", "session"]


@dataclass(frozen=True)
class Link:
    """What Neutron, or its OVN, has of a server's port that is not as usual."""

    #: Its owner made the port himself, so Nova never deletes it.
    own: bool = False
    #: It is still there, though Nova has deleted the server.
    left: bool = False
    #: It is gone, though Nova goes by it.
    lost: bool = False
    #: The host that it is bound to, if not the server's; and one where it has a binding that is not active.
    bound: str | None = None
    inactive: str | None = None
    #: OVN has kept it, though Neutron deleted it; or has lost it, and Neutron believes that it is there.
    ovn: Literal["kept", "lost"] | None = None


@dataclass(frozen=True)
class Migration:
    """A row of `migrations`, begun so many days ago."""

    kind: str
    status: str
    source: str
    dest: str
    days: float


@dataclass(frozen=True)
class Server:
    """A server as Nova has it, and what there is of it.  Times are days ago; `row` is the table its row stands in."""

    name: str
    cell: str
    host: str | None
    project: str = "shop"
    vm_state: str = "active"
    task_state: str | None = None
    power: int = 1
    created: float = 40.0
    deleted: float | None = None
    row: Literal["live", "deleted", "shadow", "purged", "none"] = "live"
    cleaned: int = 0
    root: Literal["image", "volume"] = "image"
    data_volume: bool = False
    #: What its volumes lie on: Ceph, Cinder's own targets by one way or by two, or an array with one target for all.
    storage: Literal["ceph", "target", "multipath", "array"] = "ceph"
    #: Whether every path to its volumes is dead.
    dead: bool = False
    #: Whether Cinder knows that its volumes are free again.
    freed: bool = False
    left: tuple[Left, ...] = ()
    link: Link = Link()
    #: Whether Placement has kept what it had, though Nova has deleted it.
    allocated: bool = False
    #: Whether Designate has a name for it, where that is not as usual.
    named: bool | None = None
    config_drive: bool = False
    uefi: bool = False
    launched_on: str | None = None
    node: str | None = None
    system_metadata: tuple[tuple[str, str], ...] = ()
    migrations: tuple[Migration, ...] = ()
    guests: tuple[Guest, ...] = ()
    folders: tuple[Folder, ...] = ()
    about: str = ""

    @property
    def uuid(self) -> str:
        return ident("server", self.name)

    @property
    def port(self) -> str:
        return ident("port", self.name)

    @property
    def mac(self) -> str:
        digits = uuid.UUID(self.port).hex
        return f"fa:16:3e:{digits[:2]}:{digits[2:4]}:{digits[4:6]}"

    @property
    def address(self) -> str:
        digits = uuid.UUID(self.port).bytes
        return f"10.{20 + PROJECTS.index(self.project)}.{digits[0]}.{10 + digits[1] % 240}"

    @property
    def runs(self) -> bool:
        """Whether a guest of it is up on the host where Nova has it; of bare metal Nova's word is all that there is."""
        if self.host == IRONIC[0]:
            return self.vm_state == "active"
        return self.vm_state != "building" and any(guest.host == self.host and guest.up for guest in self.guests)

    @property
    def linked(self) -> bool:
        """Whether Neutron has its port."""
        # One for which no host was found (cell0) never got any.
        has = self.row == "live" and self.vm_state != "deleted" and self.cell != "cell0"
        return self.link.left or (has and not self.link.lost)

    @property
    def volumes(self) -> dict[str, str]:
        """Its volumes by the name of their disks."""
        targets = ["vda"] * (self.root == "volume") + ["vdb"] * self.data_volume
        return {target: ident("volume", self.name, target) for target in targets}

    def way(self, target: str) -> Way | None:
        """How the volume of that disk is reached; None: not over iSCSI."""
        volume = self.volumes[target]
        wwid = "6001405" + uuid.UUID(volume).hex[:25]
        own = f"iqn.2010-10.org.openstack:volume-{volume}"
        match self.storage:
            case "target":
                return Way(("192.0.2.130:3260",), own, 0, wwid)
            case "multipath":
                return Way(("192.0.2.131:3260", "192.0.2.132:3260"), own, 0, wwid)
            case "array":
                array = "iqn.1992-08.com.netapp:sn.5f3a2c7e11d811ee:vs.4"
                return Way(("192.0.2.140:3260",), array, 1 + int(volume[:4], 16) % 200, wwid)
        return None


def _server(name: str, host: str, **facts: object) -> Server:
    """A server that is where Nova has it, in one of the usual states."""
    server = replace(Server(name, HOSTS[host], host, launched_on=host), **facts)  # type: ignore[arg-type]
    state, reason, up = {
        "active": ("running", "booted", 20.0),
        "rescued": ("running", "booted", 1.0),
        "paused": ("paused", "user", 20.0),
        "suspended": ("shut off", "saved", None),
    }.get(server.vm_state, ("shut off", "destroyed", None))
    guest = Guest(host, state, reason, up, managed_save=server.vm_state == "suspended")
    return replace(server, guests=server.guests or (guest,), folders=server.folders or (Folder(host),))


def _healthy() -> list[Server]:
    off = {"vm_state": "stopped", "power": 4}
    return [
        _server("web-1", "compute1"),
        _server("web-2", "compute1"),
        _server("web-3", "compute2"),
        _server("web-4", "compute3"),
        _server("db-1", "compute1", data_volume=True, storage="multipath"),
        _server("db-2", "compute3", root="volume"),
        _server("db-3", "compute4", root="volume", data_volume=True, storage="multipath"),
        _server("cache-1", "compute1", **off),
        _server("cache-2", "compute2"),
        _server("mail-1", "compute2", project="bank", **off),
        _server("mail-2", "compute3", project="bank", config_drive=True),
        _server("crm-1", "compute4", project="bank"),
        _server("crm-2", "compute5", project="bank"),
        _server("crm-4", "compute4", project="bank", vm_state="paused", power=3),
        _server("ledger-1", "compute1", project="bank", data_volume=True, storage="target"),
        _server("video-1", "compute3", project="media"),
        _server("video-2", "compute4", project="media"),
        _server("video-3", "compute5", project="media", config_drive=True),
        _server("archive-1", "compute5", project="media", root="volume", **off),
        _server("render-1", "compute3", project="media", uefi=True),
        _server("render-2", "compute4", project="media", uefi=True, **off),
        _server("ci-1", "compute1", project="lab", created=3.0),
        _server("ci-2", "compute2", project="lab", created=3.0),
        _server("ci-3", "compute4", project="lab", created=3.0),
        _server("ci-4", "compute5", project="lab", created=3.0),
        _server("git-1", "compute5", project="lab", data_volume=True, storage="array"),
        _server("test-1", "compute3", project="lab", vm_state="suspended", power=4),
        _server("test-2", "compute4", project="lab", **off),
        _server("wiki-1", "compute5", project="lab"),
        _server("vpn-1", "compute5", project="lab", config_drive=True),
        # It was live-migrated: `cleaned` and launched_on tell of it still.
        _server("web-5", "compute5", launched_on="compute4", cleaned=1,
                migrations=(Migration("live-migration", "completed", "compute4", "compute5", 9.0),)),
    ]  # fmt: skip


def _innocent() -> list[Server]:
    """What looks wrong, and is not."""
    return [
        _server("resized-1", "compute3", vm_state="resized", launched_on="compute1",
                migrations=(Migration("resize", "finished", "compute1", "compute3", 1.0),),
                guests=(Guest("compute3", up=1.0), Guest("compute1", "shut off", "destroyed", None)),
                folders=(Folder("compute3"), Folder("compute1", "_resize")),
                about="its resize waits to be confirmed: until then the source keeps a domain and a directory"),
        _server("moving-1", "compute4", task_state="migrating",
                migrations=(Migration("live-migration", "running", "compute4", "compute5", 0.0005),),
                guests=(Guest("compute4", job="Outgoing migration"),
                        Guest("compute5", "paused", "migrating", 0.0005, persistent=False, job="Incoming migration")),
                folders=(Folder("compute4"), Folder("compute5")),
                link=Link(inactive="compute5"),
                about="a live migration is under way: it has a domain and a binding of its port on both hosts"),
        _server("evacuated-1", "compute3", vm_state="stopped", power=4, launched_on=DEAD,
                migrations=(Migration("evacuation", "done", DEAD, "compute3", 2.0),),
                guests=(Guest("compute3", "shut off", "destroyed", None), Guest(DEAD)),
                folders=(Folder("compute3"), Folder(DEAD)),
                about="it was evacuated and not started yet: the guest on the old host is the only one that runs"),
        _server("softdeleted-1", "compute1", vm_state="soft-delete", power=4, deleted=0.4,
                system_metadata=(("old_vm_state", "active"),),
                about="its owner may still ask for it back"),
        _server("shelved-1", "compute4", vm_state="shelved", power=4,
                system_metadata=(("shelved_at", ""), ("shelved_image_id", ident("image", "shelved-1")))),
        Server("offloaded-1", "cell2", None, vm_state="shelved_offloaded", power=4,
               system_metadata=(("shelved_at", ""), ("shelved_host", "compute4")),
               data_volume=True,
               about="shelved: its image is left, and its volume is kept for it"),
        _server("proxy-1", "compute4", link=Link(own=True), about="its owner made its port himself"),
        Server("building-1", "", None, row="none", created=0.0002, about="asked for a moment ago, and in no cell yet"),
        _server("building-2", "compute5", vm_state="building", task_state="spawning", power=0, created=0.0007,
                guests=(Guest("compute5", "paused", "starting up", 0.0003),)),
        _server("rescued-1", "compute5", vm_state="rescued"),
        Server("failed-1", "cell0", None, vm_state="error", power=0, about="no host had room for it"),
        Server("metal-1", IRONIC[1], IRONIC[0], project="lab", node=IRONIC[2], launched_on=IRONIC[0],
               about="a bare metal server has no domain"),
        Server("gone-1", "cell1", "compute1", vm_state="deleted", power=0, deleted=6.0, row="deleted", cleaned=1,
               launched_on="compute1", about="deleted, and nothing is left of it"),
        Server("gone-2", "cell2", "compute5", vm_state="deleted", power=0, deleted=30.0, row="shadow", cleaned=1,
               launched_on="compute5", about="the same, archived since"),
    ]  # fmt: skip


def _damage() -> list[Server]:
    return [
        _server("billing-7", "compute1", project="bank", vm_state="deleted", power=0, deleted=3.0, row="deleted",
                guests=(Guest("compute1", up=33.0),),
                about="deleted three days ago while nova-compute could not hear it, and it still runs"),
        _server("crm-3", "compute4", project="bank", vm_state="deleted", power=0, deleted=12.0, row="shadow",
                guests=(Guest("compute4", up=35.0),),
                about="the same, but its row was archived: nothing of Nova's will ever look for it again"),
        _server("ledger-2", "compute3", project="bank", launched_on=DEAD,
                migrations=(Migration("evacuation", "done", DEAD, "compute3", 2.02),),
                guests=(Guest("compute3", up=2.0), Guest(DEAD, up=38.0)),
                folders=(Folder("compute3"), Folder(DEAD)),
                about="evacuated from a host that was not dead: it runs twice, and both copies write"),
        replace(
            _server("export-5", "compute3", project="media", vm_state="deleted", power=0, deleted=5.0, row="deleted",
                    folders=(Folder("compute3", mib=6),), system_metadata=(("clean_attempts", "5"),),
                    about="deleted five days ago; nova-compute could not remove its directory and has given up"),
            guests=()),
        replace(
            _server("thumbs-2", "compute4", project="media", vm_state="deleted", power=0, deleted=8.0, row="deleted",
                    cleaned=1, folders=(Folder("compute4", "_del", mib=3),),
                    about="nova-compute died while it removed its directory, which it had renamed"),
            guests=()),
        _server("web-8", "compute5", launched_on="compute4",
                migrations=(Migration("live-migration", "completed", "compute4", "compute5", 7.0),),
                guests=(Guest("compute5", up=7.0), Guest("compute4", "shut off", "migrated", None)),
                about="it was live-migrated, and somebody defined it on its old host again"),
        _server("orders-2", "compute5", launched_on="compute4", data_volume=True, storage="multipath",
                migrations=(Migration("live-migration", "completed", "compute4", "compute5", 8.0),),
                left=(Left("compute4", "device"),),
                about="it was live-migrated, and os-brick could not remove its volume's device on its old host"),
        Server("git-2", "cell2", "compute5", project="lab", vm_state="deleted", power=0, deleted=6.0, row="deleted",
               cleaned=1, launched_on="compute5", data_volume=True, storage="target", freed=True,
               left=(Left("compute5", "session"),),
               about="nova-compute was killed when it had removed the volume's device, before it logged out"),
        Server("batch-1", "cell1", "compute3", project="media", vm_state="deleted", power=0, deleted=4.0, row="deleted",
               cleaned=1, launched_on="compute3", link=Link(left=True),
               about="deleted, and the port that Nova made for it is left"),
        Server("api-3", "cell2", "compute5", vm_state="deleted", power=0, deleted=7.0, row="deleted", cleaned=1,
               launched_on="compute5", link=Link(own=True, left=True),
               about="the same, but its owner made the port, and a floating IP of his still leads to it"),
        Server("batch-2", "", None, project="media", row="purged", link=Link(left=True, bound="compute3"),
               about="purged from Nova's databases: a server group still names it, and a port"),
        _server("web-9", "compute5", launched_on="compute5",
                migrations=(Migration("live-migration", "error", "compute5", "compute4", 6.0),),
                link=Link(inactive="compute4"),
                about="its live migration failed, and its port is still ready for it on the other host"),
        Server("survey-1", "cell2", "compute4", project="lab", vm_state="deleted", power=0, deleted=11.0, row="deleted",
               cleaned=1, launched_on="compute4", named=True,
               about="deleted while designate-sink was down: its name is left, and leads to nobody"),
        _server("forum-1", "compute5", created=5.0, named=False,
                about="made while designate-central did not answer the sink: it has no name"),
        Server("batch-3", "cell1", "compute3", project="media", vm_state="deleted", power=0, deleted=9.0, row="deleted",
               cleaned=1, launched_on="compute3", link=Link(ovn="kept"),
               about="deleted with its port while OVN did not answer, and Neutron's note of the port is lost"),
        Server("batch-4", "cell1", "compute3", project="media", vm_state="deleted", power=0, deleted=9.5, row="shadow",
               cleaned=1, launched_on="compute3", allocated=True,
               about="deleted and archived while Placement did not answer: its place on the host is never free again"),
    ]  # fmt: skip


def _damage_by_hand() -> list[Server]:
    return [
        _server("queue-4", "compute4", guests=(Guest("compute4", up=10.0), Guest("compute5", up=0.5)),
                folders=(Folder("compute4"), Folder("compute5")),
                about="it runs on two hosts, and no record says which copy counts"),
        _server("render-9", "compute5", project="media", vm_state="deleted", power=0, deleted=4.0, row="deleted",
                guests=(Guest("compute5", "crashed", "panicked", 30.0),),
                about="deleted, and its guest has crashed: somebody may want to look at its memory"),
        replace(
            _server("web-6", "compute1", about="somebody took its domain for a leftover, and undefined it"), guests=()),
        _server("web-7", "compute3", guests=(Guest("compute3", "shut off", "crashed", None),),
                about="its guest is off, and Nova still calls it active"),
        Server("queue-5", "cell2", "compute4", vm_state="deleted", power=0, launched_on="compute4",
               about="nova-compute died at the very end of its deletion: the row is still there"),
        Server("git-3", "cell2", "compute5", project="lab", vm_state="deleted", power=0, deleted=9.0, row="deleted",
               cleaned=1, launched_on="compute5", data_volume=True, storage="array", freed=True,
               left=(Left("compute5", "device"),),
               about="a LUN of the array is left beside git-1's, and nothing says which volume it was"),
        _server("video-4", "compute4", project="media", data_volume=True, storage="multipath", dead=True,
                about="its volume's target is gone, and with it every path"),
        Server("reports-3", "cell1", "compute3", vm_state="deleted", power=0, deleted=6.0, row="deleted", cleaned=1,
               launched_on="compute3", data_volume=True,
               about="deleted while Cinder did not answer: its volume is still attached to it"),
        _server("crm-5", "compute4", project="bank", launched_on="compute5", link=Link(bound="compute5"),
                migrations=(Migration("live-migration", "completed", "compute5", "compute4", 5.0),),
                about="its live migration ended while Neutron did not answer: its traffic still goes to the old host"),
        _server("wiki-2", "compute5", project="lab", link=Link(lost=True),
                about="somebody deleted its port, and Nova has not noticed"),
        _server("wiki-3", "compute5", project="lab", link=Link(ovn="lost"),
                about="somebody deleted its port in OVN, and Neutron has not noticed"),
    ]  # fmt: skip


def servers(by_hand: bool) -> list[Server]:
    """Every server of the demo; `by_hand` adds damage that no program repairs, or only Cinder's API."""
    return _healthy() + _innocent() + _damage() + (_damage_by_hand() if by_hand else [])


def numbers(cloud: list[Server]) -> dict[str, int]:
    """The number of each server's row in its cell, which is part of its domain's name."""
    found: dict[str, int] = {}
    count: dict[str, int] = {}
    for server in cloud:
        if server.row not in ("purged", "none"):
            found[server.name] = count[server.cell] = count.get(server.cell, 0) + 1
    return found
