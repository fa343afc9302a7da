"""The configuration: bad input gets a sentence that names the file, the line and the key."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from cloudfsck import config
from cloudfsck.model import Trouble

GOOD = """
[cloud]
name = "x"
state = "state"

[nova]
api_database = "mysql://db/nova_api"

[hosts]
transport = "local"
"""


def load(tmp_path: Path, text: str, checks: frozenset[str] = frozenset()) -> config.Config:
    path = tmp_path / "cloudfsck.toml"
    path.write_text(text)
    return config.load(path, checks)


def test_what_is_not_said_has_a_default_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.cloud.state == tmp_path / "state"
    assert loaded.ladder.paused == dt.timedelta(days=1)
    assert loaded.proof.settle_factor == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[ladder]\npaused = '1 week'", r":13: ladder.paused: a time is written as '30m', '12h', '1d', or 0"),
        ("[ladder]\npaussed = '1d'", r":13: ladder.paussed: there is no such key; did you mean paused\?"),
        ("[laddr]\npaused = '1d'", r":12: laddr: there is no such key; did you mean ladder\?"),
        ("[host.c1]\nadress = 'x'", r":13: host.c1.adress: there is no such key; did you mean address\?"),
        ("[limits.no-check]\ncount = 1", r":12: limits.no-check: there is no such check; did you mean some-check\?"),
        ("[skip]\nother = 'x'", r":13: skip.other: there is no such check"),
        ("[proof]\nsettle_factor = -1", r":13: proof.settle_factor: .*greater than or equal to 0"),
        ("[cinder]\ndatabse = 'x'", r":12: cinder.database: is missing\n.*:13: cinder.databse: there is no such key"),
        ("[read.ssh]\nkey = 'k'", r":12: read.ssh.known_hosts: is missing"),
        ("[x", r"is not TOML: "),
        (
            "[dns.zone.'cloud.example']\nservers = ['ns']\nnames = ['{zone}']\nsubnets = ['10.0.0.0/8']",
            r":14: dns.zone.cloud.example.names.0: a name is written as {hostname}.{zone}",
        ),
        (
            "[dns.zone.'cloud.example']\nserver = ['ns']\nnames = ['{hostname}']\nsubnets = ['10.0.0.0/8']",
            r":13: dns.zone.cloud.example.server: there is no such key; did you mean servers",
        ),
        ("[dns]\nservers = ['ns:x']", r":13: dns.servers.0: a DNS server is written as 192.0.2.53, ns1.example:5353"),
        ("[write.dns]\nkey = 'k'", r":12: write.dns.key_file: is missing"),
    ],
)
def test_a_mistake_is_said_with_its_line(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(Trouble, match=said):
        load(tmp_path, GOOD + "\n" + more, frozenset({"some-check"}))


def test_hosts_by_ssh_need_a_key(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=r"hosts are reached by SSH, and there is no \[read.ssh\]"):
        load(tmp_path, GOOD.replace('transport = "local"', ""))


def test_a_host_of_its_own_overrides_the_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "\n[host.c1]\naddress = '10.0.0.1'\nport = 2222")
    assert (loaded.place("c1").address, loaded.place("c1").port) == ("10.0.0.1", 2222)
    assert (loaded.place("c2").address, loaded.place("c2").port) == ("{host}", 22)


def test_a_password_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="the password file .*none cannot be read: No such file"):
        config.Account(password_file=tmp_path / "none").password()
    with pytest.raises(Trouble, match="the environment has no CLOUDFSCK_NO_SUCH"):
        config.Account(password_env="CLOUDFSCK_NO_SUCH").password()
