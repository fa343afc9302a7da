"""A small damaged cloud in a folder, for those who have none at hand: no server, no root, no network.

The services' databases are SQLite files, each hypervisor is a folder with domains, disks, processes, iSCSI sessions and
devices, and stand-ins answer for virsh, iscsiadm, multipath, the APIs of Neutron, Designate and Placement, and OVN.
`cloud.py`, `network.py`, `names.py` and `northbound.py` tell what is wrong in it, and what only looks so.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cloudfsck.model import Trouble

#: A server of which many places tell (api-3 of the story).
SHOWN = "6876620e-4b3d-5446-8377-de13c1a13c28"
_MARK = ".cloudfsck-demo"
_OURS = ("cloudfsck.toml", "clouds.yaml", "databases", "hosts", "ovn", "state")


def make(directory: Path, *, by_hand: bool = False) -> Path:
    """Make the demo cloud in `directory`, in place of an earlier one, and return the path of its configuration.

    `by_hand` adds damage that no program repairs, or only Cinder's API.  Raises Trouble if something else is in the
    directory.
    """
    # Not at the top: `python -m cloudfsck.demo.virsh` imports this package first, and answers in an instant.
    from cloudfsck.demo import cloud, databases, hosts, network, neutron, northbound, ovn

    place = directory.resolve()
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0)
    if bad := sorted(set(str(place)) & set("{}?#%\n")):
        raise Trouble(f"the demo cannot be made in {place}: a database URL cannot hold {' '.join(map(repr, bad))}")
    socket = ovn.socket(place)
    try:
        _clear(place)
        servers = cloud.servers(by_hand)
        (place / "databases").mkdir()
        net = network.network(servers, by_hand)
        files = databases.write(place / "databases", servers, net, now)
        socket.parent.mkdir()
        northbound.fill(ovn.of(place), files["neutron"], net)
        places = hosts.write(place / "hosts", servers, now)
        configuration = place / "cloudfsck.toml"
        configuration.write_text(_configuration(files, places, neutron.clouds(place), socket), encoding="utf-8")
    except OSError as error:
        raise Trouble(f"the demo cannot be made in {place}: {error.strerror}: {error.filename}") from error
    return configuration


def serving(directory: Path) -> AbstractContextManager[str]:
    """Have Neutron's API answer for the demo in `directory`, at the URL that is given, and its OVN beside it."""
    from cloudfsck.demo import neutron

    return neutron.serving(directory.resolve())


@contextmanager
def standing_in(directory: Path) -> Iterator[None]:
    """While a command works on the demo in `directory`, have its Neutron and its OVN answer, unless they do already.

    Where there is no demo nothing is done.
    """
    if not (directory / _MARK).is_file():
        yield
        return
    from cloudfsck.demo import ovn

    if ovn.listens(ovn.socket(directory.resolve())):
        yield
        return
    with serving(directory):
        yield


def _clear(place: Path) -> None:
    """Make room.  Only what an earlier demo made is ever removed."""
    mark = place / _MARK
    if place.exists() and not mark.is_file() and (not place.is_dir() or any(place.iterdir())):
        raise Trouble(f"{place} is not empty, and no demo that cloudfsck made: name another directory")
    place.mkdir(parents=True, exist_ok=True)
    mark.write_text("cloudfsck demo made this directory, and replaces it when it is run again.\n")
    for name in _OURS:
        path = place / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _configuration(files: dict[str, Path], places: dict[str, Path], clouds: Path, socket: Path) -> str:
    text = f"""\
# The configuration of the demo cloud.  A real one looks the same; `cloudfsck init` writes it.

[cloud]
name = "demo"
# What cloudfsck itself knows: sightings, what it holds, journals, snapshots.
state = "state"

[nova]
# Nova's API database.  The cells are found from its cell_mappings.  With a real cloud this is
# mysql://nova-db.example/nova_api, and [read.database] names a read-only account.
api_database = {_quoted(f"sqlite:///{files['api']}")}
# Nova's own service_down_time is 60 seconds.  Nothing beats in the demo: this keeps its services up for ten years.
service_down_time = 315360000

[cinder]
# Without it nothing is said of volumes.
database = {_quoted(f"sqlite:///{files['cinder']}")}

[neutron]
# Without it nothing is said of ports, floating IPs and routers.
database = {_quoted(f"sqlite:///{files['neutron']}")}

# OVN's northbound database is held against Neutron's.  The demo's own listens while a command runs.
[ovn]
northbound = [{_quoted(f"unix:{socket}")}]

# Who may write there: what Neutron has forgotten is deleted.
[write.ovn]
northbound = [{_quoted(f"unix:{socket}")}]

[keystone]
# Its projects tell whose what Neutron has is.
database = {_quoted(f"sqlite:///{files['keystone']}")}

# Ports are repaired through Neutron's API, as an administrator whom clouds.yaml names.  The demo's own listens while a
# command runs, and while `python -m cloudfsck.demo.neutron` does.
[write.neutron]
cloud = "demo"
clouds_file = {_quoted(str(clouds))}

[designate]
# Without it nothing is said of the names that Designate keeps.
database = {_quoted(f"sqlite:///{files['designate']}")}

# Names are repaired through Designate's API, as an administrator too.  The demo's own listens where its Neutron does.
[write.designate]
cloud = "demo"
clouds_file = {_quoted(str(clouds))}

[placement]
# Without it nothing is said of what is allocated to whom.
database = {_quoted(f"sqlite:///{files['placement']}")}

# Allocations are repaired through Placement's API.  The demo's own listens where its Neutron does.
[write.placement]
cloud = "demo"
clouds_file = {_quoted(str(clouds))}

# What no API changes is changed in the database itself, by an account that may change just that.  SQLite has none.
[write.database]

# What only Cinder's API may change is found here, and refused: the demo has no such API.  With a real cloud this names
# an administrator's entry of clouds.yaml:
# [write.cinder]
# cloud = "admin"

[hosts]
# A real cloud's hosts are reached by SSH: transport = "ssh", and [read.ssh] names a key that may only read.
transport = "local"

# How long what was found stands on each rung before the next step.  Set 0 to see the next step at once.
[ladder]
paused = "1d"
stopped = "7d"
quarantined = "7d"

[proof]
# A fault has to last before it is believed, and all files here were made just now.  Leave this out on a real cloud.
settle_factor = 0
"""
    for host, place in places.items():
        text += f"""
# Each host is a folder here.  A real host needs no section of its own.
[host.{host}]
python = {_quoted(str(place / "bin/python3"))}
virsh = [{_quoted(str(place / "virsh"))}]
ovs_vsctl = []
nova_conf = [{_quoted(str(place / "nova.conf"))}]
proc = {_quoted(str(place / "proc"))}
sys = {_quoted(str(place / "sys"))}
dev = {_quoted(str(place / "dev"))}
state_dir = {_quoted(str(place / "cloudfsck"))}
"""
    return text


def _quoted(text: str) -> str:
    """A TOML string; its escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)
