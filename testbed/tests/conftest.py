"""The cloud that `make cloud` brought up, its API, and one who runs cloudfsck on it."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from testbed import initial, interrupted, leftovers, places, ports
from testbed.api import CLOUDS, Api, enter_network
from testbed.cloud import Cloud
from testbed.operator import Operator
from testbed.ports import LookAlikes
from testbed.story import Story

_STORIES: list[Story] = []

#: Bindings are between services: no administrator may change one who is none (neutron/conf/policies/port_bindings.py).
SERVICE = f"""
  service:
    auth:
      auth_url: http://{places.ADDRESS}:5000/v3
      username: nova
      password: {places.PASSWORD}
      project_name: service
      user_domain_name: Default
      project_domain_name: Default
    region_name: RegionOne
"""


#: How long each log of the cloud was when a test began.
_BEGAN = pytest.StashKey[dict[Path, int]]()

#: What a service logs that tells why a test failed, and how much of it is shown.
_TELLING = re.compile(r" (ERROR|CRITICAL|WARNING) |Filter \S+ returned 0 hosts|Terminating|Took .* to (build|destroy)")
_LINES = 12


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test that failed, what the services logged while it ran."""
    report = yield
    if report.failed and report.when == "call":
        began = item.stash.get(_BEGAN, {})
        for path in _logs():
            log = path.read_bytes()[began.get(path, 0) :].decode(errors="replace")
            lines = (line[:400] for line in log.splitlines() if _TELLING.search(line) and "deprecated" not in line)
            if said := list(lines):
                report.sections.append((f"log {path.relative_to(places.NODES)}", "\n".join(said[-_LINES:])))
    return report


def _logs() -> list[Path]:
    return sorted(places.NODES.glob("*/log/**/*.log"))


@pytest.fixture
def story(request: pytest.FixtureRequest) -> Story:
    _STORIES.append(Story(request.node.name.removeprefix("test_").replace("_", " ")))
    return _STORIES[-1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _STORIES:
        terminalreporter.section("faults")
    for story in _STORIES:
        terminalreporter.line(story.fault)
        for column, seen in story.seen.items():
            terminalreporter.line(f"    {column:<9} {'; '.join(seen)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The SDK warns of what it will remove from itself, wherever it uses that."""
    for item in items:
        for category in ("PendingDeprecationWarning", "openstack.warnings.OpenStackDeprecationWarning"):
            item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))


@pytest.fixture(scope="session")
def cloud() -> Cloud:
    cloud = Cloud()
    if cloud.controller.pid is None:
        pytest.exit("the cloud is down: `make cloud` brings it up", returncode=8)
    enter_network(cloud)
    initial.configure(cloud)
    return cloud


@pytest.fixture(scope="session")
def api(cloud: Cloud) -> Api:
    return Api()


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest, cloud: Cloud, api: Api) -> Iterator[None]:
    """Whatever became of a fault, the next test finds every service at work."""
    request.node.stash[_BEGAN] = {path: path.stat().st_size for path in _logs()}
    yield
    interrupted.all_serve(cloud)
    leftovers.whole_again(cloud, api)


@pytest.fixture
def operator(cloud: Cloud, tmp_path: Path) -> Operator:
    return Operator(cloud, tmp_path)


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """An administrator's clouds.yaml, in a file that others cannot read, with an account of a service's beside it."""
    path = tmp_path / "clouds.yaml"
    path.write_text(CLOUDS.read_text() + SERVICE)
    path.chmod(0o600)
    return path


@pytest.fixture
def look_alikes(api: Api) -> Iterator[LookAlikes]:
    made = ports.look_alikes(api, "compute2", "port-5")
    yield made
    ports.without_look_alikes(api, made)
