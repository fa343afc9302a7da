"""`cloudfsck init`: what it takes from the services' own files, wherever they lie; what it asks; what it never shows.

The rules of oslo.config that are held here were compared with oslo.config 10 itself, on thousands of random files.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloudfsck import cli, config, demo, discover
from cloudfsck.model import Trouble
from cloudfsck.sources import schema
from cloudfsck.sources.database import Database, Login, Unreadable

SECRET = "s3cr3t"

NOVA = f"""
[DEFAULT]
transport_url = rabbit://nova:{SECRET}@mq1.example:5672,nova:{SECRET}@mq2.example:5672/nova
my_ip = 10.0.0.5
service_down_time = 120
[api_database]
connection = mysql+pymysql://nova_api:{SECRET}@db.example:3307/nova_api?charset=utf8
[database]
connection = mysql+pymysql://nova:{SECRET}@db.example/nova_cell0
"""
CINDER = f"[database]\nconnection = mysql+pymysql://cinder:{SECRET}@db.example/cinder\n"
NEUTRON = f"[database]\nconnection = postgresql+psycopg2://neutron:{SECRET}@pg.example/neutron\n"
KEYSTONE = f"[database]\nconnection = mysql+pymysql://keystone:{SECRET}@db.example/keystone\n"
OCTAVIA = f"[database]\nconnection = mysql+pymysql://octavia:{SECRET}@db.example/octavia\n"
PLACEMENT = f"[placement_database]\nconnection = mysql+pymysql://placement:{SECRET}@db.example/placement\n"
DESIGNATE = f"[storage:sqlalchemy]\nconnection = mysql+pymysql://designate:{SECRET}@db.example/designate\n"

ALL = {
    "etc/nova/nova.conf": NOVA,
    "etc/cinder/cinder.conf": CINDER,
    "etc/neutron/neutron.conf": NEUTRON,
    "etc/keystone/keystone.conf": KEYSTONE,
    "etc/octavia/octavia.conf": OCTAVIA,
    "etc/placement/placement.conf": PLACEMENT,
    "etc/designate/designate.conf": DESIGNATE,
}


def lay(root: Path, files: Mapping[str, str]) -> Path:
    """A file system with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def written(root: Path, *conf: Path) -> str:
    """The new file; no part of any password is in it."""
    text = discover.toml("prod", discover.look(root, discover.given(conf)))
    assert SECRET not in text
    return text


def loaded(text: str) -> config.Config:
    return config.parse(Path("/etc/cloudfsck/cloudfsck.toml"), text)


def line(text: str, *parts: str) -> str:
    """The only line that has all these parts in it."""
    found = [one for one in text.splitlines() if all(part in one for part in parts)]
    assert len(found) == 1, (parts, found)
    return found[0]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests has a home without a clouds.yaml."""
    monkeypatch.setenv("HOME", "/home/operator")


# ------------------------------------------------------------------------------------------ where the files are


def test_packages(tmp_path: Path) -> None:
    text = written(lay(tmp_path, ALL))
    found = loaded(text)
    assert found.nova.api_database == "mysql://db.example:3307/nova_api"
    assert found.nova.template == "mysql://db.example:3306/nova_cell0"
    assert (found.nova.service_down_time, found.nova.long_rpc_timeout, found.cloud.name) == (120, 1800, "prod")
    assert found.cinder == config.Service(database="mysql://db.example:3306/cinder")
    assert found.neutron == config.Service(database="postgresql://pg.example:5432/neutron")
    assert found.keystone == config.Service(database="mysql://db.example:3306/keystone")
    assert found.octavia == config.Service(database="mysql://db.example:3306/octavia")
    assert found.placement == config.Service(database="mysql://db.example:3306/placement")
    assert found.designate == config.Service(database="mysql://db.example:3306/designate")
    for name in ALL:
        assert f"# {tmp_path / name}" in text
    assert line(text, "service_down_time = 120 ").endswith(f"# {tmp_path}/etc/nova/nova.conf")
    assert "long_rpc_timeout" not in text
    assert "?" not in text.replace("could not find out stands here as a question", "")


def test_kolla(tmp_path: Path) -> None:
    """A copy of each service's file for each of its containers; a cell's conductor need not know the API database."""
    conductor = f"[database]\nconnection = mysql+pymysql://nova:{SECRET}@db2.example:3306/nova\n"
    root = lay(tmp_path, {
        "etc/kolla/nova-api/nova.conf": NOVA,
        "etc/kolla/nova-conductor/nova.conf": conductor,
        "etc/kolla/nova-compute/nova.conf": "[DEFAULT]\nmy_ip = 10.9.9.9\n",
        "etc/kolla/config/nova.conf": "[api_database]\nconnection = mysql://overrides.example/nova_api\n",
        "etc/kolla/cinder-api/cinder.conf": CINDER,
        "etc/kolla/neutron-server/neutron.conf": NEUTRON,
        "etc/kolla/keystone/keystone.conf": KEYSTONE,
        "etc/kolla/octavia-worker/octavia.conf": OCTAVIA,
        "etc/kolla/placement-api/placement.conf": PLACEMENT,
        "etc/kolla/designate-central/designate.conf": DESIGNATE,
    })  # fmt: skip
    text = written(root)
    found = loaded(text)
    assert found.nova.api_database == "mysql://db.example:3307/nova_api"
    services = (found.cinder, found.neutron, found.keystone, found.octavia, found.placement, found.designate)
    assert all(one is not None for one in services)
    line(text, "# ", "nova-conductor/nova.conf has the cell mysql://db2.example:3306/nova")
    assert discover.cells(discover.look(root, {})) == [
        "mysql://db.example:3306/nova_cell0",
        "mysql://db2.example:3306/nova",
    ]
    (root / "etc/kolla/nova-api/nova.conf").rename(root / "etc/kolla/nova.conf")
    lay(root, {"etc/kolla/nova-super-conductor/nova.conf": NOVA.replace("10.0.0.5", "10.0.0.6")})
    assert f"{root}/etc/kolla/nova-super-conductor/nova.conf" in line(written(root), "api_database =")


def test_openstack_ansible_from_the_host_of_its_containers(tmp_path: Path) -> None:
    """A container's /etc/nova is a link to a virtual environment of that container."""
    venv = "openstack/venvs/nova-31.0.0/etc/nova"
    api = "var/lib/lxc/infra1-nova-api-container-1a2b/rootfs"
    root = lay(tmp_path, {
        f"{api}/{venv}/nova.conf": NOVA,
        f"{venv}/nova.conf": NOVA.replace("db.example", "not-the-containers.example"),
        "var/lib/lxc/infra1-cinder-api-container-3c4d/rootfs/etc/cinder/cinder.conf": CINDER,
        "var/lib/lxc/infra1-utility-container-5e6f/config": "lxc.rootfs.path = dir:/elsewhere",
        "var/lib/lxc/lxc-monitord.log": "a file beside the containers",
    })  # fmt: skip
    (root / api / "etc").mkdir()
    for target in (f"../{venv}", f"/{venv}", f"/etc/../../{venv}"):
        link = root / api / "etc/nova"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        text = written(root)
        assert loaded(text).nova.api_database == "mysql://db.example:3307/nova_api"
        assert line(text, "api_database =").endswith(f"# {root}/{api}/{venv}/nova.conf")
    assert f"{root}/var/lib/lxc/infra1-cinder-api-container-3c4d/" in line(text, "mysql://db.example:3306/cinder")


def test_links_that_go_in_a_circle_are_said(tmp_path: Path) -> None:
    root = lay(tmp_path, ALL)
    (root / "etc/cinder/cinder.conf").unlink()
    (root / "etc/cinder/cinder.conf").symlink_to("/etc/cinder/cinder.conf")
    with pytest.raises(Trouble, match="/etc/cinder/cinder.conf cannot be read: too many links"):
        written(root)


def test_the_first_configuration_that_knows_the_api_database_is_believed(tmp_path: Path) -> None:
    """A compute's nova.conf beside Kolla's containers names no database, and says nothing about them."""
    root = lay(tmp_path, {
        "etc/nova/nova.conf": "[DEFAULT]\nmy_ip = 10.9.9.9\nservice_down_time = 1\n",
        "etc/kolla/nova-api/nova.conf": NOVA,
    })  # fmt: skip
    found = loaded(written(root))
    assert (found.nova.service_down_time, found.nova.api_database) == (120, "mysql://db.example:3307/nova_api")


def test_no_nova_conf_or_none_of_a_controller_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=f"no nova.conf in {tmp_path}/etc/nova, .*/etc/kolla/nova-api, .*/var/lib/lxc/"):
        written(tmp_path)
    lay(tmp_path, {"etc/nova/nova.conf": "[DEFAULT]\nhost = c1\n[api_database]\nconnection =\n"})
    with pytest.raises(Trouble, match=r"/nova.conf: no \[api_database\] connection is there; give the nova.conf of"):
        written(tmp_path)


# ------------------------------------------------------------------------------------------ which file wins


def connection(host: str) -> str:
    return f"[database]\nconnection = mysql://cinder:{SECRET}@{host}/cinder\n"


def cinder(root: Path, *conf: Path) -> str:
    """The host of Cinder's database, and the file that says so."""
    text = written(root, *conf)
    found = loaded(text).cinder
    assert found is not None
    said = next(one for one in text.splitlines() if one.startswith(f'database = "{found.database}"'))
    return f"{found.database.split('/')[2].split(':')[0]} {said.split(' # ')[1].removeprefix(f'{root}/etc/cinder/')}"


def test_later_files_win(tmp_path: Path) -> None:
    """oslo.config: the service's file, its program's; then what is in their directories, in the order of the names."""
    root = lay(tmp_path, {"etc/nova/nova.conf": NOVA})
    for name, host in (
        ("cinder.conf", "shared"),
        ("cinder-volume.conf", "volume"),
        ("cinder-api.conf", "api"),
        ("cinder.conf.d/10-b.conf", "ten"),
        ("cinder.conf.d/9-a.conf", "nine"),
        ("cinder-api.conf.d/1.conf", "last"),
    ):
        for ignored in ("cinder.conf.d/99.ini", "cinder.conf.d/.99.conf", "cinder-backup.conf"):
            lay(root, {f"etc/cinder/{ignored}": connection("ignored")})
        lay(root, {f"etc/cinder/{name}": connection(host)})
        assert cinder(root) == f"{host} {name}"


def test_a_program_with_a_file_of_its_own_does_not_speak_for_the_others(tmp_path: Path) -> None:
    root = lay(tmp_path, {
        "etc/nova/nova.conf": NOVA,
        "etc/cinder/cinder.conf": connection("shared"),
        "etc/cinder/cinder-api.conf": connection("api"),
    })  # fmt: skip
    text = written(root)
    line(text, f"# {root}/etc/cinder/cinder.conf says mysql://shared:3306/cinder: which of them is it?")
    lay(root, {"etc/cinder/cinder-api.conf": connection("shared")})
    assert "which of them" not in written(root)


def test_files_that_are_named(tmp_path: Path) -> None:
    """Later ones win, each with its directory; the standard places of that service are not looked at."""
    root = lay(tmp_path / "root", {**ALL, "etc/cinder/cinder.conf": connection("standard")})
    mine = lay(tmp_path / "mine", {
        "cinder.conf": f"{connection('one')}[DEFAULT]\nmy_ip = 10.0.0.1\n",
        "cinder-more.conf": "[database]\nconnection = mysql://c@$my_ip/cinder",
        "cinder.conf.d/a.conf": connection("dropped"),
        "nova.conf": NOVA.replace("db.example", "mine.example"),
        "nova_cell2.conf": NOVA.replace("db.example", "cell2.example"),
    })  # fmt: skip
    assert cinder(root, mine / "cinder.conf") == f"dropped {mine}/cinder.conf.d/a.conf"
    (mine / "cinder.conf.d/a.conf").unlink()
    assert cinder(root, mine / "cinder.conf", mine / "cinder-more.conf") == f"10.0.0.1 {mine}/cinder-more.conf"
    found = loaded(written(root, mine / "nova.conf", mine / "nova_cell2.conf"))
    assert found.nova.api_database == "mysql://cell2.example:3307/nova_api"
    assert found.cinder == config.Service(database="mysql://standard:3306/cinder")
    with pytest.raises(Trouble, match="/mine/cinder-none.conf cannot be read: No such file"):
        written(root, mine / "cinder-none.conf")
    for name in ("novas.conf", "clouds.yaml", "conf"):
        with pytest.raises(ValueError, match=f"{name} does not tell whose it is"):
            discover.given([Path(name)])


# ------------------------------------------------------------------------------------------ what a file says


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[DEFAULT]\nhost = h\n[database]\nconnection = mysql://$host/c", "mysql://h/c"),
        ("[DEFAULT]\nhost = h\n[database]\nconnection = mysql://${host}x/c", "mysql://hx/c"),
        ("[db]\nhost = h\n[database]\nconnection = mysql://$db.host/c", "mysql://h/c"),
        ("[DB]\nhost = h\n[database]\nconnection = mysql://${db.host}/c", "mysql://h/c"),
        ("[DEFAULT]\nhost = d\n[database]\nhost = own\nconnection = mysql://$host/c", "mysql://own/c"),
        ("[DEFAULT]\na = $b\nb = h\n[database]\nconnection = mysql://$a/c", "mysql://h/c"),
        ("[database]\nconnection = mysql://u:p$$w\\$x@h/c", "mysql://u:p$w$x@h/c"),
        ("[database]\nconnection = mysql://u:$unknown@h/c", "mysql://u:$unknown@h/c"),
        ("[DEFAULT]\na = $b\nb = $a\n[database]\nconnection = mysql://u:$a@h/c", "mysql://u:$a@h/c"),
        ("[database]\nconnection = 'mysql://h/c'", "mysql://h/c"),
        ('[Database]\nconnection: "mysql://h/c"', "mysql://h/c"),
        ("[database]\nconnection = mysql://one/c\nconnection = mysql://two/c", "mysql://two/c"),
        ("[database]\n# connection = mysql://one/c\n;connection = x\nother = y", None),
        ("[database]\nconnection =", None),
        ("[default]\nsql_connection = mysql://h/c", None),
        ("[DEFAULT]\nsql_connection = mysql://h/c", "mysql://h/c"),
        ("[sql]\nconnection = mysql://h/c", "mysql://h/c"),
        ("[DEFAULT]\nsql_connection = mysql://old/c\n[database]\nconnection = mysql://h/c", "mysql://h/c"),
        ("[database]\nother = a\n  b\n\nconnection = mysql://h/c", "mysql://h/c"),
        ("[database]\nconnection = mysql://h/\n  c", "mysql://h/\nc"),
    ],
)
def test_a_file_is_read_as_oslo_config_reads_it(tmp_path: Path, text: str, said: str | None) -> None:
    (tmp_path / "cinder.conf").write_text(text)
    conf = discover.look(tmp_path, {"cinder": [tmp_path / "cinder.conf"]}).confs["cinder"][0]
    found = conf.said(*discover._DATABASE["cinder"])
    assert (found and found.value) == said


def test_an_option_is_looked_for_by_all_its_names_in_the_last_file_first(tmp_path: Path) -> None:
    root = lay(tmp_path, {
        "etc/nova/nova.conf": NOVA,
        "etc/cinder/cinder.conf": connection("current-name"),
        "etc/cinder/cinder.conf.d/a.conf": "[DEFAULT]\nsql_connection = mysql://old-name/cinder\n",
    })  # fmt: skip
    assert cinder(root) == "old-name cinder.conf.d/a.conf"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"[database\nconnection = {SECRET}", r"cinder.conf:1: a line that begins with \[ is no \[section\]"),
        ("[]", r"cinder.conf:1: a line that begins with \[ is no \[section\]"),
        (f"[database]\n\n{SECRET}", r"cinder.conf:3: a line is neither \[section\] nor name = value"),
        (f"[database]\n= {SECRET}", r"cinder.conf:2: a line is neither \[section\] nor name = value"),
        (f"connection = {SECRET}", r"cinder.conf:1: an option stands before the first \[section\]"),
        (f"[database]\n  {SECRET}", "cinder.conf:2: an indented line continues nothing"),
        (f"[database]\na = b\n\n  {SECRET}", "cinder.conf:4: an indented line continues nothing"),
        (f"[database]\na = b\n# c\n  {SECRET}", "cinder.conf:4: an indented line continues nothing"),
        (f"[database]\nconnection = oracle://u:{SECRET}@h/c", r"connection is not understood: its URL is not one of"),
        (f"[database]\nconnection = mysql://u:{SECRET}@{SECRET}@h/c", "connection is not understood: its URL does not"),
        (f"[database]\nconnection = mysql://u:{SECRET}@h", "connection is not understood: its URL names no database"),
        (f"[database]\nconnection = mysql://u:{SECRET}@$my_ip/c", r"refers with a \$ to an option that no file says"),
        (f"[database]\nconnection = mysql://u:{SECRET}@h/${{db}}?x=$y", r"refers with a \$ to an option that no file"),
        (f"[database]\nconnection = mysql://u:p${SECRET}@h:a/c", "connection is not understood: its URL does not have"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_said_without_showing_it(tmp_path: Path, text: str, said: str) -> None:
    root = lay(tmp_path, {**ALL, "etc/cinder/cinder.conf": text})
    with pytest.raises(Trouble, match=said) as caught:
        written(root)
    assert str(caught.value).startswith(f"{root}/etc/cinder/cinder.conf:")
    assert SECRET not in str(caught.value)


def test_a_password_may_hold_a_reference_that_nobody_resolves(tmp_path: Path) -> None:
    root = lay(tmp_path, {**ALL, "etc/cinder/cinder.conf": f"[database]\nconnection = mysql://c:a${SECRET}@h/c?x=$y\n"})
    assert loaded(written(root)).cinder == config.Service(database="mysql://h:3306/c")


def test_a_number_that_is_none_is_said(tmp_path: Path) -> None:
    root = lay(tmp_path, {**ALL, "etc/nova/nova.conf": NOVA.replace("= 120", "= soon")})
    with pytest.raises(Trouble, match=r"nova.conf: \[DEFAULT\] service_down_time is no number"):
        written(root)


@pytest.mark.parametrize(("given", "means"), [("604800", 604800), ("-1", 0), ("0", 0)])
def test_when_soft_deleted_servers_are_reclaimed_is_known(tmp_path: Path, given: str, means: int) -> None:
    """Nova never reclaims unless it is told to: what a nova.conf does not say is known as well."""
    silent = written(lay(tmp_path / "silent", ALL))
    assert loaded(silent).nova.reclaim_instance_interval == 0
    assert "default" in line(silent, "reclaim_instance_interval")
    said = NOVA.replace("= 120", f"= 120\nreclaim_instance_interval = {given}")
    text = written(lay(tmp_path / "told", {**ALL, "etc/nova/nova.conf": said}))
    assert loaded(text).nova.reclaim_instance_interval == means
    assert line(text, "reclaim_instance_interval").endswith("/etc/nova/nova.conf")


def test_an_interval_that_is_none_is_said(tmp_path: Path) -> None:
    said = NOVA.replace("= 120", "= 120\nreclaim_instance_interval = a week")
    root = lay(tmp_path, {**ALL, "etc/nova/nova.conf": said})
    with pytest.raises(Trouble, match=r"nova.conf: \[DEFAULT\] reclaim_instance_interval is no number of seconds"):
        written(root)


def test_what_cannot_be_read_is_never_taken_for_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lay(tmp_path, ALL)
    (root / "etc/designate/designate.conf").unlink()
    (root / "etc/designate/designate.conf").mkdir()
    with pytest.raises(Trouble, match=f"^{root}/etc/designate/designate.conf cannot be read: Is a directory$"):
        written(root)
    (root / "etc/designate/designate.conf").rmdir()

    # root may read everything, and the tests may run as root
    def refusing(call: Any, name: str) -> Any:
        def refused(path: Any, *args: Any, **options: Any) -> Any:
            if str(path).endswith(name):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *args, **options)

        return refused

    said = "cannot be read: Permission denied; run it as root, or let --root name a copy$"
    for of, call, name in ((Path, "read_text", "etc/cinder/cinder.conf"), (Path, "stat", "etc/nova/nova.conf"),
                           (os, "listdir", "etc/cinder/cinder.conf.d"), (os, "listdir", "var/lib/lxc")):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(of, call, refusing(getattr(of, call), name))
            with pytest.raises(Trouble, match=f"^{root}/{name} {said}"):
                written(root)


# ------------------------------------------------------------------------------------------ what it asks


def test_a_service_that_is_not_found_is_a_question(tmp_path: Path) -> None:
    text = written(lay(tmp_path, {"etc/nova/nova.conf": NOVA}))
    found = loaded(text)
    services = (found.cinder, found.neutron, found.keystone, found.octavia, found.placement, found.designate)
    assert services == (None, None, None, None, None, None)
    asked = line(text, "# [designate]  # no designate.conf was found in ", f"{tmp_path}/etc/designate, ")
    assert f"{tmp_path}/etc/kolla/designate-central, {tmp_path}/var/lib/lxc/*/rootfs/etc/designate: " in asked
    assert asked.endswith("is there a Designate, and where is its database?")
    # whoever answers takes the signs away
    answered = text.replace("# [designate]", "[designate]").replace(
        '# database = "mysql://HOST/desi', 'database = "mysql://d/desi'
    )
    assert loaded(answered).designate == config.Service(database="mysql://d/designate")


@pytest.mark.parametrize(
    ("service", "section"),
    [("cinder", "database"), ("neutron", "database"), ("keystone", "database"), ("octavia", "database"),
     ("placement", "placement_database"), ("designate", "storage:sqlalchemy")],
)  # fmt: skip
def test_a_file_that_names_no_database_is_a_question(tmp_path: Path, service: str, section: str) -> None:
    name = f"etc/{service}/{service}.conf"
    text = written(lay(tmp_path, {**ALL, name: "[DEFAULT]\ndebug = true\n[api_database]\nconnection = mysql://h/x"}))
    assert getattr(loaded(text), service) is None
    line(text, f"# [{service}]  # [{section}] connection is not in {tmp_path}/{name}: where is")


def test_placement_in_novas_own_file(tmp_path: Path) -> None:
    """Until Rocky it was a part of Nova.  Today's goes by placement.conf alone, and never by Nova's API database."""
    root = lay(tmp_path, {"etc/nova/nova.conf": NOVA + PLACEMENT})
    text = written(root)
    assert loaded(text).placement == config.Service(database="mysql://db.example:3306/placement")
    assert line(text, "/placement").endswith(f"# {root}/etc/nova/nova.conf")
    lay(root, {"etc/placement/placement.conf": "[DEFAULT]\n"})
    assert loaded(written(root)).placement is None


def test_nova_without_a_database_of_its_own_is_a_question(tmp_path: Path) -> None:
    text = written(lay(tmp_path, {"etc/nova/nova.conf": NOVA.replace("[database]", "[elsewhere]")}))
    assert loaded(text).nova.template is None
    line(text, "# template = ", "nova.conf has no [database] connection: is any cell mapping a template?")


def test_two_api_databases_are_a_question(tmp_path: Path) -> None:
    text = written(lay(tmp_path, {
        "etc/nova/nova.conf": NOVA,
        "etc/kolla/nova-api/nova.conf": NOVA.replace("3307", "3308"),
    }))  # fmt: skip
    assert loaded(text).nova.api_database == "mysql://db.example:3307/nova_api"
    line(text, "/etc/kolla/nova-api/nova.conf says mysql://db.example:3308/nova_api: which of them is it?")


@pytest.mark.parametrize(
    ("my_ip", "address"),
    [("10.0.0.5", "{host_ip}"), ("fd00::5", "{host_ip}"), ("127.0.0.1", "{host}"), ("0.0.0.0", "{host}"),
     ("$unknown", "{host}"), ("", "{host}")],
)  # fmt: skip
def test_the_address_of_a_host(tmp_path: Path, my_ip: str, address: str) -> None:
    """What Nova notes as host_ip is each host's my_ip; a loopback address, or nothing, leads nowhere."""
    text = written(lay(tmp_path, {"etc/nova/nova.conf": NOVA.replace("10.0.0.5", my_ip)}))
    assert loaded(text).hosts.address == address
    assert ("do Nova's names of its hosts resolve?" in line(text, "address = ")) == (address == "{host}")


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        (f"rabbit://u:{SECRET}@mq1:5672,u:{SECRET}@mq2:5672//vhost?ssl=1", "rabbit://mq1:5672,mq2:5672"),
        (f"rabbit://u:{SECRET}@[fd00::1]:5672/", "rabbit://[fd00::1]:5672"),
        (f"rabbit://u:x@{SECRET}@mq/", "rabbit://mq"),
        ("rabbit://mq:5672/", "rabbit://mq:5672"),
        (f"rabbit://u:{SECRET}/x@mq/", None),
        (f"rabbit://u:1,{SECRET}@mq/", None),
        (f"rabbit://u:1?{SECRET}@mq/", None),
        (f"rabbit://u:1#{SECRET}@mq/", None),
        (f"rabbit://u:{SECRET}@$my_host/", None),
        (f"u:{SECRET}@mq", None),
        ("rabbit://", None),
    ],
)
def test_the_hosts_of_messages_are_told_only_where_they_are_no_password(
    tmp_path: Path, url: str, hosts: str | None
) -> None:
    text = written(lay(tmp_path, {**ALL, "etc/cinder/cinder.conf": f"[DEFAULT]\ntransport_url = {url}\n{CINDER}"}))
    path = f"{tmp_path}/etc/cinder/cinder.conf"
    if hosts is not None:
        line(text, f"# its messages go through {hosts} ({path})")
    else:
        line(text, f"# transport_url of {path} is not understood: which hosts do its messages go through?")
    line(text, "# its messages go through rabbit://mq1.example:5672,mq2.example:5672 ", "/etc/nova/nova.conf")


def test_the_names_of_clouds(tmp_path: Path) -> None:
    clouds = f"""---
# clouds:
cache:
  no: {SECRET}
clouds:
  # the admin's
  kolla-admin:
    auth:
      password: {SECRET}
      text: |
        inner:
          {SECRET}: x
  "quoted": &x
    auth: {{}}
  one-line: {{auth: {{password: {SECRET}}}}}

other:
  not-a-cloud: x
"""
    root = lay(tmp_path, {
        **ALL,
        "etc/kolla/clouds.yaml": clouds,
        "etc/openstack/clouds.yaml": f"clouds: {{a: {{password: {SECRET}}}}}",
        "var/lib/lxc/utility/rootfs/home/operator/.config/openstack/clouds.yaml": "clouds:\n    default:\n",
    })  # fmt: skip
    text = written(root)
    line(text, f"# {root}/etc/kolla/clouds.yaml names kolla-admin, quoted, one-line")
    line(text, f"# {root}/etc/openstack/clouds.yaml: which clouds does it name?")
    line(text, "utility/rootfs/home/operator/.config/openstack/clouds.yaml names default")
    assert loaded(text).cloud.name == "prod"


# ------------------------------------------------------------------------------------------ the command


def init(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """What `init` prints; it must have gone well."""
    assert cli.app(["init", "-o", str(folder / "new.toml"), *arguments], standalone_mode=False) == 0
    return "".join(capsys.readouterr())


def test_init_writes_the_configuration_and_the_grants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conductor = f"[database]\nconnection = mysql://nova:{SECRET}@db2.example/nova_cell1\n"
    root = lay(tmp_path / "root", {**ALL, "etc/kolla/nova-conductor/nova.conf": conductor})
    said = init(capsys, tmp_path, "--root", str(root), "--name", "prod")
    for name in ALL:
        assert f"  {root / name}\n" in said
    assert "cells that are not in it, on other servers for example, need the same there as the last one" in said
    assert config.load(tmp_path / "new.toml").cloud.name == "prod"
    grants = (tmp_path / "new-grants.sql").read_text()
    assert SECRET not in said + grants + (tmp_path / "new.toml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new-grants.sql", "new.toml", "root"]

    _, *parts = re.split(r"^-- (\S+ at \S+)$", grants, flags=re.MULTILINE)
    blocks = dict(zip(parts[::2], parts[1::2], strict=True))
    assert list(blocks) == [
        "nova_api at db.example:3307", "cinder at db.example:3306", "designate at db.example:3306",
        "neutron at pg.example:5432", "keystone at db.example:3306", "octavia at db.example:3306",
        "placement at db.example:3306",
        "nova_cell0 at db.example:3306", "nova_cell1 at db2.example:3306",
    ]  # fmt: skip
    for service in ("cinder", "keystone", "octavia", "placement", "designate"):
        mine = blocks[f"{service} at db.example:3306"]
        assert f"GRANT SHOW VIEW ON `{service}`.* TO 'cloudfsck'@'%';" in mine
        assert f"ON `{service}`.`alembic_version` TO ''cloudfsck''@''%''" in mine
        assert f"WHERE table_schema = '{service}' AND table_name = 'alembic_version'" in mine
        assert "AND column_name IN ('version_num')" in mine
        tables = {"cinder": 11, "designate": 4, "keystone": 4, "octavia": 5, "placement": 6}
        assert mine.count("PREPARE") == tables[service]
    assert '\\connect "neutron"' in blocks["neutron at pg.example:5432"]
    assert "('alembic_version', ARRAY['version_num'])" in blocks["neutron at pg.example:5432"]
    assert "('ports', ARRAY['id', 'project_id', " in blocks["neutron at pg.example:5432"]
    for cell in ("nova_cell0 at db.example:3306", "nova_cell1 at db2.example:3306"):
        assert f"ON `{cell.split()[0]}`.`instances` TO" in blocks[cell]
    # on each server, who makes the account comes before who gives it rights
    assert grants.count("CREATE USER") == 3
    assert grants.count("CREATE ROLE") == 1


def test_init_that_knows_no_cell_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = lay(tmp_path / "root", {"etc/nova/nova.conf": NOVA.replace("[database]", "[elsewhere]")})
    said = init(capsys, tmp_path, "--root", str(root))
    assert "no nova.conf names a cell's database" in said
    assert "`instances`" not in (tmp_path / "new-grants.sql").read_text()


def test_init_takes_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = lay(tmp_path / "mine", {"nova.conf": NOVA, "nova-more.conf": "[DEFAULT]\nservice_down_time = 7\n"})
    (tmp_path / "root").mkdir()
    init(capsys, tmp_path, "--root", str(tmp_path / "root"), "--conf", str(mine / "nova.conf"),
         "--conf", str(mine / "nova-more.conf"))  # fmt: skip
    assert config.load(tmp_path / "new.toml").nova.service_down_time == 7


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        ({"etc/cinder/cinder.conf": "junk"}, [], "cinder.conf:1: a line is neither"),
        ({"etc/nova/nova.conf": "[DEFAULT]\n"}, [], r"no \[api_database\] connection"),
        ({}, ["--name", "two words"], r"/new.toml:\d+: cloud.name: "),
        ({"new-grants.sql/file": ""}, ["-o", "{root}/new.toml"], "new-grants.sql cannot be written: Is a directory"),
        ({}, ["-o", "{root}/none/new.toml"], "new-grants.sql cannot be written: No such file"),
        ({}, ["-o", "{root}/etc/nova/nova.conf/new.toml"], "new-grants.sql cannot be written: Not a directory"),
        ({}, ["-o", "{root}/etc/nova/nova.conf"], "nova.conf exists; move it away"),
    ],
)
def test_init_writes_all_or_nothing(
    tmp_path: Path, files: dict[str, str], arguments: list[str], said: str
) -> None:  # fmt: skip
    root = lay(tmp_path, {**ALL, **files})
    before = sorted(tmp_path.rglob("*"))
    given = [argument.format(root=root) for argument in arguments]
    with pytest.raises(Trouble, match=said):
        cli.app(["init", "--root", str(root), "-o", str(tmp_path / "new.toml"), *given], standalone_mode=False)
    assert sorted(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------------ doctor


def service_database(path: Path, *revisions: str, table: str = "alembic_version") -> Path:
    with sqlite3.connect(path) as db:
        db.execute(f"CREATE TABLE {table} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        db.executemany(f"INSERT INTO {table} VALUES (?)", [[revision] for revision in revisions])
    db.close()
    return path


def doctor(path: Path, capsys: pytest.CaptureFixture[str], status: int) -> dict[str, dict[str, str]]:
    assert cli.app(["-c", str(path), "doctor", "--format", "json"], standalone_mode=False) == status
    rows = json.loads(capsys.readouterr().out)
    return {row["where"].split()[0]: row for row in rows if row["what"] == "database"}


def test_doctor_reads_the_clock_and_the_schema_of_each_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = demo.make(tmp_path / "cloud")
    databases = path.parent / "databases"
    with closing(sqlite3.connect(databases / "designate.sqlite")) as db, db:  # two branches of one schema
        db.execute("DELETE FROM alembic_version")
        db.executemany("INSERT INTO alembic_version VALUES (?)", [["5c85685d616d"], ["0e6eff810791"]])
    text = path.read_text()
    found = doctor(path, capsys, 0)
    services = {"cinder", "designate", "keystone", "neutron", "placement"}
    assert set(found) == {"nova_api", "cell0", "cell1", "cell2", *services}
    assert found["cinder"]["says"].startswith("its clock says ")
    assert found["cinder"]["says"].endswith(" UTC; its schema is at demo")
    assert found["designate"]["says"].endswith("; its schema is at 0e6eff810791 and 5c85685d616d")
    assert "schema" not in found["cell1"]["says"]

    service_database(tmp_path / "empty")
    service_database(tmp_path / "other", "x", table="migrate_version")
    text = text.replace(f"{databases}/placement.sqlite", f"{tmp_path}/other")
    text = text.replace("cinder.sqlite", "none/cinder.sqlite")
    text = text.replace(f"{databases}/designate.sqlite", f"{tmp_path}/empty")
    path.write_text(text.replace(f"sqlite:///{databases}/neutron.sqlite", f"mysql+pymysql://neutron:{SECRET}@db"))
    path.chmod(0o600)  # a password stands in it
    found = doctor(path, capsys, 8)
    assert {name for name, row in found.items() if row["state"] == "fault"} == {
        "cinder", "neutron", "placement", "designate",
    }  # fmt: skip
    assert "unable to open database file" in found["cinder"]["says"]
    assert found["neutron"]["says"] == "neutron: its URL names no database"
    assert found["placement"]["says"].endswith(": table alembic_version is missing")
    assert found["designate"]["says"].endswith(": table alembic_version is empty: no migration has made this schema")


def test_a_revision_is_read_from_the_table_that_is_granted(tmp_path: Path) -> None:
    asked = schema.columns(Database("keystone", "sqlite:////nowhere", Login()))
    assert asked["alembic_version"] == ["version_num"]
    database = Database("cinder", f"sqlite:///{service_database(tmp_path / 'db', 'b', 'a')}", Login())
    with database.open() as reading:
        assert schema.revisions(reading) == ["a", "b"]
    with pytest.raises(Unreadable, match="cinder: its URL"), Database("cinder", "junk", Login()).open():
        pass


def test_where_ovn_is_neutron_says(tmp_path: Path) -> None:
    more = "[ovn]\novn_nb_connection = ssl:10.0.0.1:6641, ssl:[fd00::2]:6641\novn_nb_private_key = /etc/neutron/key\n"
    text = written(lay(tmp_path, {**ALL, "etc/neutron/neutron.conf": NEUTRON + more}))
    assert 'northbound = ["ssl:10.0.0.1:6641", "ssl:[fd00::2]:6641"] # ' in text
    assert '# private_key = "/etc/cloudfsck/ovn-private_key.pem"' in text
    assert "/etc/neutron/key" not in text, "that is Neutron's own"
    found = config.parse(tmp_path / "x.toml", text).ovn
    assert found is not None
    assert found.northbound == ["ssl:10.0.0.1:6641", "ssl:[fd00::2]:6641"]
    assert not found.alone, "it is asked, and nobody has answered"
    asked = text.replace("# alone = true", "alone = true")
    told = config.parse(tmp_path / "x.toml", asked).ovn
    assert told is not None
    assert told.alone
    assert "[ovn]" not in written(lay(tmp_path / "without", ALL))


@pytest.mark.parametrize(("section", "api"), [("nsx_p", "policy"), ("nsx_v3", "manager")])
def test_where_nsx_is_neutron_says_and_who_reads_it_is_asked(tmp_path: Path, section: str, api: str) -> None:
    more = f"[{section}]\nnsx_api_managers = 10.0.0.11, https://nsx2.example\nnsx_api_password = hunter2\n"
    text = written(lay(tmp_path, {**ALL, "etc/neutron/neutron.conf": NEUTRON + more}))
    assert "hunter2" not in text
    assert config.parse(tmp_path / "x.toml", text).nsx is None
    lines = text[text.index("# [nsx]") :].splitlines()[:5]
    meant = "\n".join(line.removeprefix("# ") for line in lines)
    found = config.parse(tmp_path / "x.toml", text + "\n" + meant).nsx
    assert found is not None
    assert (found.managers, found.api) == (["https://10.0.0.11", "https://nsx2.example"], api)
