"""The one TOML file, read into typed and validated settings; a key that it does not know is an error.

It never holds a password: those come from files or the environment, at the moment they are needed.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import stat
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cloudfsck.model import Trouble

#: Where the file is looked for when -c does not say.
PLACES = (Path("cloudfsck.toml"), Path("/etc/cloudfsck/cloudfsck.toml"))

#: Why a check whose name begins with a service's is not made.
NO_SERVICE = {
    name: f"the configuration names no database of {name.capitalize()}'s ([{name}] database)"
    for name in ("cinder", "designate", "neutron", "placement")
}

#: Why a check of OVN is not made.
NO_OVN = (
    "the configuration does not name OVN's northbound database and Neutron's ([ovn] northbound, [neutron] database)"
)

#: Why a check of NSX is not made.  Only by its projects is one cloud told from another there.
NO_NSX = (
    "the configuration does not name NSX, and Neutron's and Keystone's databases ([nsx] managers, [neutron] database,"
    " [keystone] database)"
)

#: Why a check of zones of the cloud's own is not made, and why one of Designate's zones on their servers is not.
NO_ZONE = "the configuration names no zone of the cloud's own ([dns.zone.<zone>])"
NO_DNS = "the configuration names no DNS servers that have Designate's zones ([dns] servers)"
_ON_SERVERS = "-on-server"

#: Why a check of what gone projects have left is not made, and how such a check is named.
NO_KEYSTONE = "the configuration names no database of Keystone's ([keystone] database)"
_OF_PROJECTS = "-of-gone-project"

#: Why a check of load balancers is not made, and how such a check is named.
NO_OCTAVIA = "the configuration names no database of Octavia's ([octavia] database)"
_OF_LOAD_BALANCERS = "-load-balancer-"

#: How a check is named that asks Neutron about floating IPs or addresses, whoever told of them.
_OF_ADDRESSES = ("-of-gone-floating-ip", "-of-lost-address", "-of-nobodys-address", "-without-record")

#: Why a check of images on a storage backend is not made, and how such a check is named.
NO_BACKEND = "the configuration names no storage backend to list ([backend.<name>])"
_OF_IMAGES = re.compile(r"-image-of-|-without-image$")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> dt.timedelta:
    if isinstance(value, dt.timedelta):
        return value
    if value == 0:
        return dt.timedelta()
    found = re.fullmatch(r"(\d+)\s*([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a time is written as '30m', '12h', '1d', or 0")
    return dt.timedelta(seconds=int(found[1]) * _UNITS[found[2]])


Duration = Annotated[dt.timedelta, BeforeValidator(_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cloud(_Section):
    """`state` is the directory that holds what cloudfsck knows: sightings, holds, keeps, journals, snapshots.

    `store` is the URL of a database for sightings, holds, keeps and the lease, where several machines share them.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    state: Path
    store: str | None = None
    store_password_file: Path | None = None


class Login(_Section):
    """Who asks; the password stands in a file or in the environment."""

    user: str | None = None
    password_file: Path | None = None
    password_env: str | None = None

    def password(self) -> str | None:
        if self.password_file is not None:
            try:
                return self.password_file.read_text(encoding="utf-8").rstrip("\n")
            except OSError as error:
                raise Trouble(f"the password file {self.password_file} cannot be read: {error.strerror}") from error
        if self.password_env is not None:
            if self.password_env not in os.environ:
                raise Trouble(f"the environment has no {self.password_env}, which is to hold a password")
            return os.environ[self.password_env]
        return None


class Account(Login):
    """`tls` verifies the server's certificate against `ca`, or against the system's authorities."""

    tls: bool = False
    ca: Path | None = None


class Ssh(_Section):
    """`command`: the host's authorized_keys force our program for this key, so that nothing is sent but the request."""

    user: str = "root"
    key: Path
    known_hosts: Path
    connections: int = Field(default=50, ge=1, le=1000)
    timeout: Duration = dt.timedelta(seconds=60)
    command: bool = False


class Read(_Section):
    database: Account = Account()
    ssh: Ssh | None = None


class CloudApi(_Section):
    """`cloud` is the entry of clouds.yaml under which a service's API is spoken to, an administrator's; `clouds_file`
    that file, where it is not one of those that the openstack command reads.  `timeout` is for one answer."""

    cloud: str = Field(min_length=1)
    clouds_file: Path | None = None
    timeout: Duration = Field(default=dt.timedelta(seconds=120), gt=dt.timedelta(), le=dt.timedelta(minutes=3))


class Ovn(_Section):
    """OVN's northbound database: `northbound` are the remotes of all members of its cluster, as ovn_nb_connection of
    Neutron's configuration has them (tcp:10.0.0.1:6641, ssl:[::1]:6641, unix:/run/ovn/ovnnb_db.sock).

    `timeout` is for all that is read of it at once.
    """

    northbound: list[str] = Field(min_length=1)
    private_key: Path | None = None
    certificate: Path | None = None
    ca: Path | None = None
    timeout: Duration = Field(default=dt.timedelta(seconds=60), gt=dt.timedelta())


class OvnRead(Ovn):
    """`alone` says that nothing but this Neutron writes what bears Neutron's marks there: that no other uses this OVN.
    Nothing in OVN tells it."""

    alone: bool = False


class Nsx(Login):
    """VMware NSX-T: `managers` are the URLs of all managers of its cluster, or of its virtual address.

    `api` is the one that Neutron's plugin uses: policy (core_plugin vmware_nsxp) or manager (vmware_nsxv3).  One logs
    in as `user`, or has a `certificate` with its `private_key`, which may stand in the same file.  `ca` is the
    authority that vouches for the managers, where the system's do not.  `timeout` is for one answer.  `rate` is how
    many requests we send in a second: NSX gives a client a hundred, and Neutron's own are to have room.
    """

    managers: list[Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]_-]+/?$")]] = Field(min_length=1)
    api: Literal["policy", "manager"] = "policy"
    certificate: Path | None = None
    private_key: Path | None = None
    ca: Path | None = None
    timeout: Duration = Field(default=dt.timedelta(seconds=60), gt=dt.timedelta(), le=dt.timedelta(minutes=10))
    rate: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _somebody(self) -> Nsx:
        if (self.user is None) == (self.certificate is None):
            raise ValueError("one of user and certificate says who asks")
        if self.user is not None and self.password_file is None and self.password_env is None:
            raise ValueError("password_file or password_env is missing: where the password of user is")
        return self


def _server(text: object) -> str:
    """A DNS server: an address or a name, with a port where that is not 53."""
    if isinstance(text, str) and (found := _SERVER.fullmatch(text)) and 0 < int(found["port"] or 53) < 65536:
        return text
    raise ValueError("a DNS server is written as 192.0.2.53, ns1.example:5353, or [2001:db8::53]:5353")


_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>\d{1,5}))?")

Server = Annotated[str, BeforeValidator(_server)]


def server_address(server: str) -> tuple[str, int]:
    """The host and the port of a DNS server that the configuration names."""
    found = _SERVER.fullmatch(server)
    assert found is not None
    return found["host"].strip("[]"), int(found["port"] or 53)


def _zone(text: object) -> str:
    name = text.lower().rstrip(".") + "." if isinstance(text, str) else ""
    if re.fullmatch(r"([a-z0-9_/-]{1,63}\.)+", name) is None or len(name) > 254:
        raise ValueError("the name of a zone is written as cloud.example, or 2.0.192.in-addr.arpa")
    return name


def _template(text: object) -> str:
    if isinstance(text, str) and text.count("{hostname}") == 1:
        rest = text.replace("{hostname}", "").replace("{zone}", "")
        if not re.search(r"[{}\s]", rest):
            return text.lower()
    raise ValueError("a name is written as {hostname}.{zone}; {hostname} stands in it once, and {zone} where one likes")


class Zone(_Section):
    """A zone of the cloud's own that Designate does not have.

    `servers` have it, and to the first of them changes are sent.  `names` says how its names of servers are made:
    {hostname} is the server's as Nova has it, {zone} this zone.  `subnets` are the addresses that servers of this cloud
    have.  What is of no such name or no such address is never judged.  Of a zone for reverse lookups the names are what
    its PTRs lead to.
    """

    servers: list[Server] = Field(min_length=1)
    names: list[Annotated[str, BeforeValidator(_template)]] = Field(min_length=1)
    subnets: list[IPv4Network | IPv6Network] = Field(min_length=1)


class Dns(_Section):
    """The DNS servers, which are asked for whole zones.  `servers` are those that have Designate's zones, `key_file`
    the TSIG key that they ask for, in a file as tsig-keygen writes it.  `timeout` is for one zone of one server."""

    servers: list[Server] = []
    key_file: Path | None = None
    timeout: Duration = Field(default=dt.timedelta(minutes=2), gt=dt.timedelta())
    zone: dict[Annotated[str, BeforeValidator(_zone)], Zone] = {}


class DnsWrite(_Section):
    """The TSIG key with which changes of the cloud's own zones are sent (RFC 2136)."""

    key_file: Path
    timeout: Duration = Field(default=dt.timedelta(seconds=30), gt=dt.timedelta())


class Write(_Section):
    """`database` is the account for what has no API; it is one for all databases, as that of [read.database] is."""

    ssh: Ssh | None = None
    cinder: CloudApi | None = None
    neutron: CloudApi | None = None
    designate: CloudApi | None = None
    placement: CloudApi | None = None
    ovn: Ovn | None = None
    nsx: Nsx | None = None
    dns: DnsWrite | None = None
    database: Account | None = None


class Nova(_Section):
    """`cells` lists the cells' databases by hand; without it they are found from cell_mappings.

    `template` fills in the cell mappings that are URL templates; without it the API database's own URL does.
    Without `reclaim_instance_interval` it is not known, and no soft-deleted server is called overdue.
    """

    api_database: str
    cells: dict[str, str] | None = None
    template: str | None = None
    service_down_time: int = 60
    long_rpc_timeout: int = 1800
    maximum_instance_delete_attempts: int = 5
    reclaim_instance_interval: int | None = Field(default=None, ge=0)


class Service(_Section):
    """A service beside Nova; `database` is where its database is, never an account."""

    database: str


#: A name that no program takes for an option.
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.+/-]*$")]


class Backend(_Section):
    """A storage backend that is listed: pools of Ceph's RBD, or a volume group of LVM's.

    `host` is where that is asked: a machine that is reached as the hypervisors are, with a section [host.<name>] of its
    own where it needs one; or "here".  `user` is Ceph's, `conf` the file of the cluster where it is not Ceph's default.
    `cinder_backend` says whose volumes of Cinder's are kept there, by the name of the backend in cinder.conf; of LVM's
    with the host before it (host@backend), for each host has its own.  Without it no volume is called missing.
    """

    kind: Literal["rbd", "lvm"]
    host: str = Field(min_length=1)
    pools: list[_Word] = []
    group: _Word | None = None
    user: _Word = "cloudfsck"
    conf: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9_.+/-]+$")
    cinder_backend: str | None = Field(default=None, pattern=r"^[^@#]+(@[^@#]+)?$")

    @model_validator(mode="after")
    def _fits(self) -> Backend:
        if self.kind == "rbd" and not self.pools:
            raise ValueError("pools is missing: the pools that are listed")
        if self.kind == "lvm" and self.group is None:
            raise ValueError("group is missing: the volume group that is listed")
        if other := {"rbd": {"group"}, "lvm": {"pools", "user", "conf"}}[self.kind] & self.model_fields_set:
            raise ValueError(f"{sorted(other)[0]} is not for {self.kind}")
        if self.kind == "lvm" and self.cinder_backend is not None and "@" not in self.cinder_backend:
            raise ValueError(f"cinder_backend is written host@{self.cinder_backend}: each host has a group of its own")
        return self


class Place(_Section):
    """How one host is reached and where things are on it; what is not said here is as [hosts] says.

    `hostname` is the name by which the machine itself answers, where that is not the one that Nova knows it by.
    """

    address: str | None = None
    hostname: str | None = None
    port: int | None = None
    transport: Literal["ssh", "local"] | None = None
    instances_path: str | None = None
    nova_conf: list[str] | None = None
    virsh: list[str] | None = None
    ovs_vsctl: list[str] | None = None
    python: str | None = None
    proc: str | None = None
    sys: str | None = None
    dev: str | None = None
    state_dir: str | None = None
    cell: str | None = None


class Hosts(_Section):
    """`address` is a template with {host} and {host_ip}.  `jump` names a jump host (user@host:port) for each cell.

    `inventory` lists hosts that may hold something though Nova does not know them; `gone` those that exist no more,
    each with the reason why they need not be asked.  An empty `ovs_vsctl` says that they have no Open vSwitch.
    """

    address: str = "{host}"
    port: int = 22
    transport: Literal["ssh", "local"] = "ssh"
    instances_path: str | None = None
    nova_conf: list[str] | None = None
    virsh: list[str] | None = None
    ovs_vsctl: list[str] | None = None
    python: str = "python3"
    proc: str = "/proc"
    sys: str = "/sys"
    dev: str = "/dev"
    state_dir: str = "/var/lib/cloudfsck"
    jump: dict[str, str] = {}
    inventory: list[str] = []
    gone: dict[str, str] = {}


class Proof(_Section):
    """`settle_factor` multiplies how long a fault must last; 0 is for clouds made for testing."""

    settle_factor: float = Field(default=1.0, ge=0)


class Ladder(_Section):
    """How long an object stands on each rung before the next step."""

    paused: Duration = dt.timedelta(days=1)
    stopped: Duration = dt.timedelta(days=7)
    quarantined: Duration = dt.timedelta(days=7)

    def time(self, rung: str) -> dt.timedelta:
        found: dt.timedelta = getattr(self, rung)
        return found


class Limit(_Section):
    """How many findings of a check, and which share of what it looked at, are too many to be believed."""

    count: int | None = Field(default=None, ge=0)
    share: float | None = Field(default=None, ge=0, le=1)


class Config(_Section):
    cloud: Cloud
    nova: Nova
    cinder: Service | None = None
    neutron: Service | None = None
    keystone: Service | None = None
    octavia: Service | None = None
    ovn: OvnRead | None = None
    nsx: Nsx | None = None
    placement: Service | None = None
    designate: Service | None = None
    dns: Dns = Dns()
    backend: dict[str, Backend] = {}
    read: Read = Read()
    write: Write = Write()
    hosts: Hosts = Hosts()
    host: dict[str, Place] = {}
    proof: Proof = Proof()
    ladder: Ladder = Ladder()
    limits: dict[str, Limit] = {}
    skip: dict[str, str] = {}

    @model_validator(mode="after")
    def _reachable(self) -> Config:
        if self.hosts.transport == "ssh" and self.read.ssh is None:
            raise ValueError("hosts are reached by SSH, and there is no [read.ssh] with a key")
        for name, backend in self.backend.items():
            if backend.host != "here" and self.place(backend.host).transport == "ssh" and self.read.ssh is None:
                raise ValueError(f"backend.{name} is reached by SSH, and there is no [read.ssh] with a key")
        return self

    def left_out(self, checks: Iterable[str]) -> dict[str, str]:
        """Which of these checks are not made, and why: those of [skip], and those of a service or of backends
        that are not named."""
        unnamed = {
            name: why
            for service, why in NO_SERVICE.items() if getattr(self, service) is None
            for name in checks if name.startswith(f"{service}-")
        }  # fmt: skip
        if self.ovn is None or self.neutron is None:
            unnamed |= {name: NO_OVN for name in checks if name.startswith("ovn-")}
        if self.neutron is None:
            unnamed |= {name: NO_SERVICE["neutron"] for name in checks if name.endswith(_OF_ADDRESSES)}
        if self.neutron is None:
            unnamed |= {name: NO_SERVICE["neutron"] for name in checks if name.startswith("dns-name-")}
        if not self.dns.zone:
            unnamed |= {name: NO_ZONE for name in checks if name.startswith("dns-")}
        if not self.dns.servers:
            unnamed |= {name: NO_DNS for name in checks if name.endswith(_ON_SERVERS)}
        if self.octavia is None:
            unnamed |= {name: NO_OCTAVIA for name in checks if _OF_LOAD_BALANCERS in name}
        if self.nsx is None or self.neutron is None or self.keystone is None:
            unnamed |= {name: NO_NSX for name in checks if name.startswith("nsx-")}
        if self.keystone is None:
            unnamed |= {name: NO_KEYSTONE for name in checks if name.endswith(_OF_PROJECTS)}
        unlisted = {name: NO_BACKEND for name in checks if not self.backend and _OF_IMAGES.search(name)}
        return {**unnamed, **unlisted, **self.skip}

    def place(self, host: str) -> Place:
        """How `host` is reached, with the defaults of [hosts] filled in; `address` is still a template."""
        own = self.host.get(host, Place())
        return Place(**{
            name: value if (value := getattr(own, name)) is not None else getattr(self.hosts, name, None)
            for name in Place.model_fields
        })  # fmt: skip


def find(path: Path | None) -> Path:
    """The configuration file to read.  Raises Trouble if there is none."""
    if path is not None:
        if not path.exists():
            raise Trouble(f"there is no configuration file {path}; `cloudfsck init` writes one")
        return path
    for place in PLACES:
        if place.exists():
            return place
    places = " nor ".join(map(str, PLACES))
    raise Trouble(f"there is no configuration: neither {places}; `cloudfsck init` writes one, -c names another")


def load(path: Path, checks: frozenset[str] = frozenset()) -> Config:
    """Read and validate; relative paths are relative to the file.  `checks` are the names that may be limited or
    skipped.  Raises Trouble that names the file, the line and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Trouble(f"{path} is not TOML: {error}") from error
    return parse(path, text, checks)


def parse(path: Path, text: str, checks: frozenset[str] = frozenset()) -> Config:
    """The same of a text that is to stand at `path`."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Trouble(f"{path} is not TOML: {error}") from error
    _refuse_open_secrets(path, raw)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise Trouble("\n".join(_sentence(path, text, fault) for fault in error.errors())) from error
    for section, names in (("limits", config.limits), ("skip", config.skip)):
        for name in names:
            if checks and name not in checks:
                raise Trouble(f"{path}:{_line(text, (section, name))}: {section}.{name}: there is no such check"
                              f"{_guess(name, checks)}")  # fmt: skip
    return _at(config, path.resolve().parent)


#: A password in a URL, however it is written; {password} in a template is none.
_PASSWORD = re.compile(r"://[^/:]*:(?!\{\w+\}@)[^@]+@")


def _refuse_open_secrets(path: Path, raw: object, key: str = "") -> None:
    """A file in which a URL has a password must be for its owner and its group alone."""
    if isinstance(raw, dict):
        for name, value in raw.items():
            _refuse_open_secrets(path, value, f"{key}.{name}" if key else str(name))
    elif isinstance(raw, str) and _PASSWORD.search(raw):
        with suppress(OSError):  # a text that is still to be written there
            if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
                raise Trouble(f"{path} holds a password ({key}), and everybody can read it: chmod o= {path}")


def _at(config: Config, folder: Path) -> Config:
    """The same configuration with its relative paths resolved against the folder of its file."""

    def resolve(section: _Section) -> _Section:
        changed: dict[str, object] = {}
        for name in type(section).model_fields:
            value = getattr(section, name)
            if isinstance(value, Path) and not value.is_absolute():
                changed[name] = folder / value
            elif isinstance(value, _Section):
                changed[name] = resolve(value)
        return section.model_copy(update=changed)

    resolved = resolve(config)
    assert isinstance(resolved, Config)
    return resolved


def _sentence(path: Path, text: str, fault: object) -> str:
    assert isinstance(fault, dict)
    loc = tuple(str(step) for step in fault["loc"])
    key = ".".join(loc)
    said = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        said = "there is no such key" + _guess(loc[-1], _siblings(loc))
    elif fault["type"] == "missing":
        said = "is missing"
    at = f"{path}:{line}" if (line := _line(text, loc)) else str(path)
    return f"{at}: {key}: {said}" if key else f"{at}: {said}"


def _siblings(loc: tuple[str, ...]) -> frozenset[str]:
    model: type[BaseModel] | None = Config
    for step in loc[:-1]:
        field = model.model_fields.get(step) if model else None
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return frozenset(model.model_fields) if model else frozenset()


def _guess(name: str, known: frozenset[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _line(text: str, loc: tuple[str, ...]) -> int | None:
    """The line on which a key stands, as well as plain TOML lets one tell."""
    section: tuple[str, ...] = ()
    header = None
    for number, line in enumerate(text.splitlines(), start=1):
        opened = re.match(r"\s*\[([^\[\]]+)\]", line)
        if opened:
            section = _steps(opened[1])
            if section == loc:
                return number
            if loc[: len(section)] == section:
                header = number
            continue
        key = re.match(r"""\s*["']?([A-Za-z0-9_.-]+)["']?\s*=""", line)
        if key and (*section, *key[1].split(".")) == loc[: len(section) + len(key[1].split("."))]:
            return number
    return header


def _steps(header: str) -> tuple[str, ...]:
    """The keys of a table's header: dns.zone."cloud.example" -> dns, zone, cloud.example."""
    with suppress(tomllib.TOMLDecodeError):
        found, steps = tomllib.loads(f"[{header}]"), []
        while found:
            ((step, found),) = found.items()
            steps.append(step)
        return tuple(steps)
    return ()
