"""What a cloud's own configuration files say, as a cloudfsck.toml to start from.  It takes no account and no password.

The files are read as oslo.config reads them (oslo_config/cfg.py and iniparser.py), and looked for where packages,
Kolla-Ansible and OpenStack-Ansible put them.  What they do not say, the new file asks.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudfsck.model import Trouble
from cloudfsck.sources.database import Unreadable, place

#: The services, and of each the programs that open its database.  A program may have files of its own beside the
#: service's; and Kolla's containers, each with its copy of the service's file in /etc/kolla, are named for them
#: (kolla-ansible, ansible/roles/*/tasks/config.yml).
PROGRAMS = {
    "nova": ("nova-api", "nova-super-conductor", "nova-conductor"),
    "cinder": ("cinder-api", "cinder-scheduler", "cinder-volume"),
    "neutron": ("neutron-server", "neutron-rpc-server"),
    "keystone": ("keystone",),
    "octavia": ("octavia-api", "octavia-worker", "octavia-housekeeping", "octavia-health-manager"),
    "placement": ("placement-api",),
    "designate": ("designate-central",),
}

#: Where OpenStack-Ansible's containers are on their host (lxc_container_create, lxc_container_rootfs_directory).
_CONTAINERS = "/var/lib/lxc"

Name = tuple[str, str]

#: What oslo.db called [database] connection as well, until its release 15.
_OLD: tuple[Name, ...] = (("DEFAULT", "sql_connection"), ("database", "sql_connection"), ("sql", "connection"))
_API: tuple[Name, ...] = (("api_database", "connection"),)
_MAIN: tuple[Name, ...] = (("database", "connection"), *_OLD)

#: The options that name a service's database, the first being what it is called today.
_DATABASE: Mapping[str, tuple[Name, ...]] = {
    "cinder": _MAIN,
    "neutron": _MAIN,
    "keystone": _MAIN,
    "octavia": _MAIN,
    # It starts with nothing else (placement/conf/database.py: required).  Only up to Rocky, as a part of Nova, did it
    # go on in [api_database].
    "placement": (("placement_database", "connection"),),
    "designate": (("storage:sqlalchemy", "connection"), *_OLD),
}

_NORTHBOUND: Name = ("ovn", "ovn_nb_connection")

#: Where Neutron's plugin for NSX says where that is, by the API that it uses (vmware_nsx/common/config.py).
_MANAGERS: Mapping[str, Name] = {"policy": ("nsx_p", "nsx_api_managers"), "manager": ("nsx_v3", "nsx_api_managers")}

#: $name, ${name}, $section.name; and $$ or \$, which is a plain $ (ConfigOpts._substitute).
_REFERENCE = re.compile(r"[$\\]\$|\$(?:([_a-z][._a-z0-9]*)|\{([_a-z][._a-z0-9]*)\})", re.IGNORECASE)

_COPIED = ("service_down_time", "long_rpc_timeout", "maximum_instance_delete_attempts")
_RECLAIM = "reclaim_instance_interval"


@dataclass(frozen=True)
class Said:
    """What a configuration says of one thing, and the file that says so."""

    value: str
    file: Path


@dataclass(frozen=True)
class Conf:
    """What one program reads: its files, of which the later win, each with its options by (section, name)."""

    files: tuple[tuple[Path, Mapping[Name, str]], ...]

    def said(self, *names: Name) -> Said | None:
        """The value of an option that has these names, with what it refers to filled in; None if it has none."""
        found = self._found(names)
        if found is None:
            return None
        value = self._filled_in(found.value, names[0][0], frozenset({names[0]}))
        return Said(value, found.file) if value else None

    def _found(self, names: Sequence[Name]) -> Said | None:
        for file, options in reversed(self.files):
            for name in names:
                if name in options:
                    return Said(options[name], file)
        return None

    def _filled_in(self, value: str, section: str, above: frozenset[Name]) -> str:
        """The value without its $references; one that no file says stays: its default is known to the service alone."""

        def meant(reference: re.Match[str]) -> str:
            key = reference[1] or reference[2]
            if key is None:
                return "$"
            group, _, name = key.partition(".")
            # In the section that it names, or else in the option's own; then in [DEFAULT] (ConfigOpts.StrSubWrapper).
            for at in (_option(group, name) if name else (section, key), ("DEFAULT", key)):
                found = self._found([at])
                if found is not None and at not in above:
                    return self._filled_in(found.value, at[0], above | {at})
            return reference[0]

        return _REFERENCE.sub(meant, value)


@dataclass(frozen=True)
class Found:
    """`confs` has the configurations of each service's programs, the one to be believed first; `looked` says where they
    were looked for.  `clouds` has the names in each clouds.yaml."""

    confs: Mapping[str, tuple[Conf, ...]]
    looked: Mapping[str, str]
    clouds: Mapping[Path, tuple[str, ...]]

    @property
    def files(self) -> list[Path]:
        """Every file that was read, once."""
        read = [file for confs in self.confs.values() for conf in confs for file, _ in conf.files]
        return list(dict.fromkeys([*read, *self.clouds]))


# ------------------------------------------------------------------------------------------ where they are


def given(paths: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """The files of each service, by what their names begin with.  Raises ValueError for one that tells none."""
    found: dict[str, tuple[Path, ...]] = {}
    for path in paths:
        service = re.split(r"[^a-z]", path.name, maxsplit=1)[0]
        if service not in PROGRAMS:
            raise ValueError(
                f"{path} does not tell whose it is: its name begins with none of {', '.join(PROGRAMS)},"
                " as nova.conf and nova-cell2.conf do"
            )
        found[service] = (*found.get(service, ()), path)
    return found


def look(root: Path, named: Mapping[str, Sequence[Path]]) -> Found:
    """What can be read below `root`; of a service whose files are `named`, those and their .d directories instead.

    Raises Trouble if a file or directory cannot be read, or is not understood.
    """
    # A container's own /etc is a place like the host's.
    roots = [root, *(_inside(root, f"{_CONTAINERS}/{name}/rootfs") for name in _names(_inside(root, _CONTAINERS)))]
    confs: dict[str, tuple[Conf, ...]] = {}
    looked = {}
    for service, programs in PROGRAMS.items():
        if service in named:
            confs[service] = (
                _conf([([path], _dropped_in(Path("/"), f"{path.absolute()}.d")) for path in named[service]]),
            )
            looked[service] = ", ".join(map(str, named[service]))
            continue
        kolla = [f"/etc/kolla/{program}" for program in programs]
        folders = [(root, f"/etc/{service}"), *((root, folder) for folder in kolla)]
        folders += [(container, f"/etc/{service}") for container in roots[1:]]
        confs[service] = tuple(conf for at, folder in folders for conf in _confs(at, folder, service))
        places = [f"/etc/{service}", *kolla, f"{_CONTAINERS}/*/rootfs/etc/{service}"]
        looked[service] = ", ".join(str(root / place.lstrip("/")) for place in places)
    home = f"{Path.home()}/.config/openstack"
    yamls = [_inside(at, f"{folder}/clouds.yaml") for at in roots for folder in (home, "/etc/openstack", "/etc/kolla")]
    return Found(confs, looked, {path: _clouds(path) for path in yamls if _there(path)})


def _confs(root: Path, folder: str, service: str) -> Iterator[Conf]:
    """The configurations in a folder: of each program that has files of its own there, then of all others."""
    shared = _layer(root, f"{folder}/{service}")
    for program in PROGRAMS[service]:
        own = _layer(root, f"{folder}/{program}")
        if any(own) and own != shared:  # Keystone's program is named as the service is
            yield _conf([shared, own])
    if any(shared):
        yield _conf([shared])


def _layer(root: Path, stem: str) -> tuple[list[Path], list[Path]]:
    """The file, and the files of its directory, that oslo.config looks for under a name (find_config_files, _dirs)."""
    file = _inside(root, f"{stem}.conf")
    return [file] if _there(file) else [], _dropped_in(root, f"{stem}.conf.d")


def _dropped_in(root: Path, folder: str) -> list[Path]:
    names = [name for name in _names(_inside(root, folder)) if name.endswith(".conf") and not name.startswith(".")]
    return [_inside(root, f"{folder}/{name}") for name in names]


def _conf(layers: Sequence[tuple[Sequence[Path], Sequence[Path]]]) -> Conf:
    """First all files, then those of all directories, so that these win (ConfigOpts._parse_config_files)."""
    files = [file for own, _ in layers for file in own] + [file for _, dropped in layers for file in dropped]
    return Conf(tuple((file, options(file)) for file in files))


def _inside(root: Path, path: str) -> Path:
    """Where `path` is for whoever has `root` as its /: the absolute link of a container does not lead out of it.

    Raises Trouble if its links go in a circle.
    """
    left, at, links = path.split("/"), list[str](), 0
    while left:
        step = left.pop(0)
        if step == "..":
            at = at[:-1]
        elif step not in ("", "."):
            try:
                link = os.readlink(root.joinpath(*at, step))
            except OSError:  # it is no link; or whoever opens it will say why that cannot be done
                at.append(step)
                continue
            links += 1
            if links > 40:  # as many as Linux follows
                raise Trouble(f"{root.joinpath(*path.split('/'))} cannot be read: too many links")
            at = [] if link.startswith("/") else at
            left = [*link.split("/"), *left]
    return root.joinpath(*at)


def _there(path: Path) -> bool:
    """Whether there is such a file.  Raises Trouble if that cannot be told."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


def _names(folder: Path) -> list[str]:
    """What is in a directory, sorted; nothing if there is none.  Raises Trouble if that cannot be told."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> Trouble:
    advice = "; run it as root, or let --root name a copy" if isinstance(error, PermissionError) else ""
    return Trouble(f"{path} cannot be read: {error.strerror}{advice}")


# ------------------------------------------------------------------------------------------ what they say


def options(path: Path) -> dict[Name, str]:
    """The options of an oslo.config file by (section, name); of one that is given twice, the last.

    Raises Trouble if the file cannot be read, or where oslo.config would not go on.  It shows no line: there may be a
    password in it.
    """
    found: dict[Name, str] = {}
    section, key = "", ("", "")
    for number, line in enumerate(_text(path).split("\n"), start=1):
        line = line.rstrip()
        if not line:
            key = ("", "")
        elif line[0] in " \t":
            if not key[1]:
                raise _wrong(path, number, "an indented line continues nothing")
            found[key] += "\n" + line.lstrip()
        elif line.startswith("["):
            if not line.endswith("]") or len(line) == 2:
                raise _wrong(path, number, "a line that begins with [ is no [section]")
            section, key = line[1:-1], ("", "")
        elif not line.startswith(("#", ";")):
            sign = re.search("[=:]", line)
            if sign is None or not line[: sign.start()].strip():
                raise _wrong(path, number, "a line is neither [section] nor name = value")
            if not section:
                raise _wrong(path, number, "an option stands before the first [section]")
            key = _option(section, line[: sign.start()].strip())
            value = line[sign.end() :].strip()
            found[key] = value[1:-1] if value and value[0] == value[-1] and value[0] in "\"'" else value
        else:
            key = ("", "")
    return found


def _wrong(path: Path, number: int, why: str) -> Trouble:
    return Trouble(f"{path}:{number}: {why}; no service starts with that")


def _option(section: str, name: str) -> Name:
    """oslo.config takes sections in any case, but for [DEFAULT]."""
    return section if section == "DEFAULT" else section.lower(), name


def _clouds(path: Path) -> tuple[str, ...]:
    """The names under `clouds:`, where that is written one to a line; nothing below them is looked at."""
    names: list[str] = []
    depth: int | None = None
    for line in _text(path).splitlines():
        bare = line.lstrip(" ")
        if not bare or bare.startswith("#"):
            continue
        if bare == line:
            depth = 0 if re.fullmatch(r"clouds:\s*(#.*)?", line) else None
            continue
        if depth == 0:
            depth = len(line) - len(bare)
        key = re.match(r"""(["']?)([\w.@+-]+)\1:(?:\s|$)""", bare)
        if depth == len(line) - len(bare) and key:
            names.append(key[2])
    return tuple(names)


def _databases(confs: Sequence[Conf], names: Sequence[Name]) -> list[Said]:
    """The databases that the configurations name by such an option, each once, the one to be believed first."""
    found: dict[str, Said] = {}
    for conf in confs:
        said = conf.said(*names)
        if said is not None:
            where = _reduced(said, names[0])
            found.setdefault(where, Said(where, said.file))
    return list(found.values())


def _reduced(said: Said, name: Name) -> str:
    section, option = name
    # Behind the last @ there is no account, whose $ is none of our business.
    if "$" in said.value.partition("?")[0].rpartition("@")[2]:
        raise Trouble(
            f"{said.file}: [{section}] {option} refers with a $ to an option that no file says;"
            " give a file that does with --conf"
        )
    try:
        return place(said.value)
    except Unreadable as error:
        raise Trouble(f"{said.file}: [{section}] {option} is not understood: {error}") from error


def _brokers(url: str) -> str | None:
    """The driver and the hosts of a transport_url (oslo_messaging/transport.py, TransportURL.parse).

    None if what passes for a host may be a piece of a password.
    """
    parts = re.fullmatch(r"([a-z0-9+]+)://([^/?#]*)([^@]*)", url)
    if parts is None:
        return None
    pieces = [piece.rpartition("@") for piece in parts[2].split(",") if piece]
    hosts = [host for _, _, host in pieces]
    if len({at for _, at, _ in pieces}) != 1:
        return None
    if not all(re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d+)?", host) for host in hosts):
        return None
    return f"{parts[1]}://{','.join(hosts)}"


# ------------------------------------------------------------------------------------------ as a configuration


def cells(found: Found) -> list[str]:
    """The databases of cells that some nova.conf names."""
    return [said.value for said in _databases(found.confs["nova"], _MAIN)]


def toml(name: str, found: Found) -> str:
    """The text of a configuration file for a cloud.

    Raises Trouble if no nova.conf names the API database, or if what a file says is not understood.
    """
    clouds = [
        _note(f"{path} names {', '.join(names)}" if names else f"{path}: which clouds does it name?")
        for path, names in found.clouds.items()
    ]
    chosen = _chosen(found)
    sections = [
        "\n".join(["[cloud]", f"name = {_quoted(name)}", _line("state", "/var/lib/cloudfsck", _ABOUT_STATE), *clouds]),
        "\n".join(["[nova]", *_nova(found, chosen)]),
        *("\n".join(_service(found, service)) for service in _DATABASE),
        *("\n".join(lines) for lines in [list(_ovn(found)), list(_nsx(found)), list(_dns(found))] if lines),
    ]
    return _FILE.format(sections="\n\n".join(sections), address=_address(chosen))


def _chosen(found: Found) -> Conf:
    """The configuration from which Nova's options are taken: it must know the API database."""
    for conf in found.confs["nova"]:
        if conf.said(*_API):
            return conf
    if not found.confs["nova"]:
        raise Trouble(f"there is no nova.conf in {found.looked['nova']}; --conf names one, --root another place")
    files = ", ".join(str(conf.files[0][0]) for conf in found.confs["nova"])
    raise Trouble(f"{files}: no [api_database] connection is there; give the nova.conf of nova-api or nova-conductor")


def _nova(found: Found, chosen: Conf) -> Iterator[str]:
    confs = found.confs["nova"]
    yield from _first("api_database", _databases(confs, _API))
    template = _databases([chosen], _MAIN)
    if template:
        yield _line("template", template[0].value, f"{template[0].file}, for cell mappings that are templates")
    else:
        question = f"{chosen.files[0][0]} has no [database] connection: is any cell mapping a template?"
        yield _note(_line("template", "mysql://HOST/nova", question))
    for cell in _databases(confs, _MAIN):
        if cell.value not in {said.value for said in template}:
            yield _note(f"{cell.file} has the cell {cell.value}")
    for option in _COPIED:
        said = chosen.said(("DEFAULT", option))
        if said is not None and not re.fullmatch(r"\d+", said.value):
            raise Trouble(f"{said.file}: [DEFAULT] {option} is no number of seconds or attempts")
        if said is not None:
            yield _line(option, int(said.value), str(said.file))
    yield _reclaim(chosen)
    yield from _messages([chosen])


def _reclaim(chosen: Conf) -> str:
    """When soft-deleted servers are reclaimed: never, unless the file says otherwise (nova/conf/compute.py)."""
    said = chosen.said(("DEFAULT", _RECLAIM))
    if said is None:
        return _line(_RECLAIM, 0, f"Nova's own default: {chosen.files[0][0]} does not say")
    if not re.fullmatch(r"-?\d+", said.value):
        raise Trouble(f"{said.file}: [DEFAULT] {_RECLAIM} is no number of seconds")
    return _line(_RECLAIM, max(0, int(said.value)), str(said.file))


def _service(found: Found, service: str) -> Iterator[str]:
    names, confs = _DATABASE[service], found.confs[service]
    if service == "placement" and not confs:
        confs = found.confs["nova"]  # of which it was a part until Rocky, and some left it its options there
    databases = _databases(confs, names)
    if databases:
        yield f"[{service}]"
        yield from _first("database", databases)
        yield from _messages(found.confs[service])
        return
    if found.confs[service]:
        files = ", ".join(str(conf.files[0][0]) for conf in found.confs[service])
        question = f"[{names[0][0]}] connection is not in {files}: where is {service.capitalize()}'s database?"
    else:
        question = (
            f"no {service}.conf was found in {found.looked[service]}: is there a {service.capitalize()}, and where is"
            " its database?"
        )
    yield _note(f"[{service}]  # {question}")
    yield _note(f'database = "mysql://HOST/{service}"')


def _ovn(found: Found) -> Iterator[str]:
    """OVN's northbound database, where Neutron says that it uses one; the key that opens it is Neutron's, not ours."""
    conf = next((conf for conf in found.confs["neutron"] if conf.said(_NORTHBOUND)), None)
    said = None if conf is None else conf.said(_NORTHBOUND)
    if conf is None or said is None:
        return
    yield "[ovn]"
    remotes = ", ".join(_quoted(remote.strip()) for remote in said.value.split(","))
    yield f"{f'northbound = [{remotes}]':<39} {_note(str(said.file))}"
    if "ssl:" in said.value:
        for key in ("private_key", "certificate", "ca"):
            yield _note(_line(key, f"/etc/cloudfsck/ovn-{key}.pem", "it asks for a certificate: which is ours?"))
    yield _note(f"{'alone = true':<37} {_note('does no other Neutron use it?')}")


def _dns(found: Found) -> Iterator[str]:
    """The DNS servers, where there is a Designate, which does not know the key that they ask for."""
    if found.confs["designate"]:
        yield _note("[dns]  # the servers that have Designate's zones, and the key that may transfer them")
        yield _note('servers = ["HOST"]')
        yield _note(f"key_file = {_quoted('/etc/cloudfsck/transfer.key')}")


def _nsx(found: Found) -> Iterator[str]:
    """NSX's managers, where Neutron says that it uses them; the account by which it does is Neutron's, not ours."""
    for api, name in _MANAGERS.items():
        said = next((said for conf in found.confs["neutron"] if (said := conf.said(name))), None)
        if said is None:
            continue
        managers = [one.strip() for one in said.value.split(",") if one.strip()]
        urls = ", ".join(_quoted(one if "://" in one else f"https://{one}") for one in managers)
        yield _note("[nsx]  # which account may read it?")
        yield _note(f"managers = [{urls}]  # {said.file}")
        yield _note(f"api = {_quoted(api)}")
        yield _note(_line("user", "audit", "or certificate and private_key"))
        yield _note(f"password_file = {_quoted('/etc/cloudfsck/nsx-password')}")
        return


def _first(key: str, databases: Sequence[Said]) -> Iterator[str]:
    """The database that is believed; and the others, as questions."""
    yield _line(key, databases[0].value, str(databases[0].file))
    for other in databases[1:]:
        yield _note(f"{other.file} says {other.value}: which of them is it?")


def _messages(confs: Sequence[Conf]) -> Iterator[str]:
    said = next((said for conf in confs if (said := conf.said(("DEFAULT", "transport_url")))), None)
    if said is not None:
        hosts = _brokers(said.value)
        yield _note(
            f"its messages go through {hosts} ({said.file})" if hosts
            else f"transport_url of {said.file} is not understood: which hosts do its messages go through?"
        )  # fmt: skip


def _address(chosen: Conf) -> str:
    """How hosts are reached: by the addresses that Nova knows of them, its my_ip, where that is said at all."""
    said = chosen.said(("DEFAULT", "my_ip"))
    try:
        own = None if said is None else ipaddress.ip_address(said.value)
    except ValueError:
        own = None
    if said is None or own is None or own.is_loopback or own.is_unspecified:
        file = chosen.files[0][0]
        return _line("address", "{host}", f"do Nova's names of its hosts resolve? {file} says no address (my_ip)")
    return _line("address", "{host_ip}", f"my_ip of each host's nova.conf, as in {said.file}; or {{host}}, or {{node}}")


def _line(key: str, value: str | int, comment: str) -> str:
    shown = value if isinstance(value, int) else _quoted(value)
    return f"{f'{key} = {shown}':<39} {_note(comment)}"


def _note(text: str) -> str:
    return f"# {' '.join(text.splitlines())}"


def _quoted(text: str) -> str:
    """A TOML string; its escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)


_ABOUT_STATE = "sightings, holds, keeps, journals, snapshots"

_FILE = """\
# cloudfsck: what to read, and how.  `cloudfsck doctor` says whether it can be.
# What `cloudfsck init` could not find out stands here as a question.

{sections}

[read.database]                         # an account that can only read; `cloudfsck init` prints its GRANTs
user = "cloudfsck"
password_file = "/etc/cloudfsck/database-password"
# tls = true
# ca = "/etc/ssl/certs/ca.pem"

[read.ssh]                              # a key that may run our reading program on the hypervisors
user = "root"
key = "/etc/cloudfsck/read-key"
known_hosts = "/etc/cloudfsck/known_hosts"

# [write.ssh]                           # the second key, for the program that acts; only `repair`, `undo` and `purge`
# user = "root"                         # ever open it
# key = "/etc/cloudfsck/write-key"
# known_hosts = "/etc/cloudfsck/known_hosts"

[hosts]
{address}
# inventory = ["old-compute-7"]         # hosts that Nova does not know any more, and that may still run something
# [hosts.gone]                          # hosts that are gone for good, each with the reason
# compute9 = "scrapped in 2025"
# [hosts.jump]                          # a jump host for each cell
# cell2 = "operator@bastion2"
"""
