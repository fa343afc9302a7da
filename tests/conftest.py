"""What every test shares: what a machine cannot do is left out and said, one line each; CI leaves nothing out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.bed import Missing

LEFT_OUT = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--left-out", choices=["say", "fail"], default="say",
        help="what to do where a real server cannot be had: say so in one line, or fail",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of one scenario follow one another, whatever they ask of it: its world is built once."""
    first: dict[str, int] = {}
    places = [place for place, item in enumerate(items) if _world(item) is not None]
    for place in places:
        first.setdefault(str(_world(items[place])), place)
    ordered = sorted((items[place] for place in places), key=lambda item: first[str(_world(item))])
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def _world(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    case = None if callspec is None else callspec.params.get("case")
    return None if case is None else getattr(case, "world", None)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, Any, Any]:
    """A fixture that raises Missing leaves out the tests that need it."""
    with _leaving_out(request.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """So does a test that starts a server itself."""
    with _leaving_out(item.config):
        return (yield)


@contextmanager
def _leaving_out(config: pytest.Config) -> Iterator[None]:
    try:
        yield
    except Missing as error:
        if config.getoption("--left-out") == "fail":
            raise
        config.stash[LEFT_OUT].add(str(error))
        pytest.skip(f"left out: {error}")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    left_out: set[str] = config.stash[LEFT_OUT]
    for why in sorted(left_out):
        terminalreporter.write_line(f"left out: {why}", yellow=True)
