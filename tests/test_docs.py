"""The documentation is of this program: generated pages are current, examples can be typed, the schema holds."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main

from cloudfsck import checks, cli, config, demo, tables
from docs import pages

REPO = Path(pages.__file__).parents[1]
DOCS = REPO / "docs"
WRITTEN = [*sorted(REPO.glob("*.md")), *sorted(DOCS.glob("*.md"))]
BY_HAND = [path for path in WRITTEN if path.name not in pages.PAGES]
SCHEMA: dict[str, Any] = json.loads((DOCS / "check.schema.json").read_text(encoding="utf-8"))

named = pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)


# --------------------------------------------------------------------------------------------- generated pages


def test_the_pages_are_current() -> None:
    assert pages.stale(DOCS) == []


def test_a_stale_page_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGES", {"a.md": lambda: "one\ntwo\n", "b.md": lambda: "", "c.md": lambda: "one\n"})
    (tmp_path / "a.md").write_text("one\nthree\n")
    (tmp_path / "c.md").write_text("one\ntwo\n")
    assert pages.stale(tmp_path) == [
        "a.md is stale from line 2 on: 'two'", "b.md is missing", "c.md is stale from line 2 on: 'it ends here'",
    ]  # fmt: skip
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    assert pages.main(["--check"]) == 1
    assert pages.main([]) == 0
    assert pages.main(["--check"]) == 0
    assert pages.main(["--chekc"]) == 2


def test_the_terminal_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    there = (DOCS / "cli.md").read_text(encoding="utf-8")
    for name, value in {"COLUMNS": "60", "TERM": "xterm-256color", "FORCE_COLOR": "1", "NO_COLOR": ""}.items():
        monkeypatch.setenv(name, value)
    assert pages.cli_page() == there


def test_every_check_is_there() -> None:
    for page in ("checks.md", "coverage.md"):
        anchors = set(headings(DOCS / page))
        assert set(checks.load()) <= anchors
    text = (DOCS / "checks.md").read_text(encoding="utf-8")
    for name, check in checks.load().items():
        assert [head for head, _ in pages.sections(check)] == [
            "Why it matters", "How it comes about", "What the repair does", "When not to repair",
        ], name  # fmt: skip
        for case in check.scenarios:
            assert pages.prose(case.title[1:]) in text


def test_every_table_column_and_view_is_there() -> None:
    anchors = set(headings(DOCS / "tables.md"))
    assert {table.name for table in tables.TABLES} <= anchors
    assert {view.name for view in pages.views()} <= anchors
    views = pages._engine().rows("SELECT view_name FROM duckdb_views() WHERE NOT internal")
    assert {row["view_name"] for row in views} == {view.name for view in pages.views()}
    text = (DOCS / "tables.md").read_text(encoding="utf-8")
    for table in tables.TABLES:
        section = text.split(f"\n## {table.name}\n")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [column.name for column in table.columns]


def test_every_command_is_there() -> None:
    anchors = {path.split(" ", 1)[-1] for path, _ in pages.helps()}
    assert {"cloudfsck", "check", "repair", "keep", "keep add"} <= anchors


def test_who_names_a_check_is_found_and_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text('TWICE = "runs-twice"\n')
    (tmp_path / "test_some.py").write_text(
        'from tests.words import TWICE\nBOTH: list[str] = [TWICE, "other"]\nLOOP = [LOOP]\n'
        "def test_by_constant(): run(BOTH)\n"
        'def test_by_word(): look("runs-twice")\n'
        'def test_of_another(): run("other", LOOP)\n'
        'def test_in_part(): look("runs-twice-a-day")\n'
    )
    tests = ("by_constant", "by_word", "of_another", "in_part")
    naming = [test for test in tests if "runs-twice" in pages.words_of(tmp_path, f"test_some.py::test_{test}")]
    assert naming == ["by_constant", "by_word"]
    with pytest.raises(ValueError, match="there is no such test"):
        pages.words_of(tmp_path, "test_some.py::test_gone")


# --------------------------------------------------------------------------------------------- what is written by hand


def fences(path: Path) -> Iterator[tuple[str, str]]:
    """Each fenced block of a page: its language, and its text."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def outside(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```\w*\n.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def headings(path: Path) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", outside(path), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles]


@named
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", outside(path))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert not anchor or anchor in headings(there), target


@named
def test_an_anchor_is_not_there_twice(path: Path) -> None:
    anchors = headings(path)
    assert len(anchors) == len(set(anchors))


def typed() -> Iterator[tuple[str, str]]:
    """Every command of ours in a page that is written by hand, as (page, line)."""
    for path in BY_HAND:
        for _, text in fences(path):
            for line in text.splitlines():
                found = re.search(r"(?:^|[ /])cloudfsck +((?![#=]).*)$", line.strip().removeprefix("$ "))
                if found and re.match(r"(\$ |\S*/)?cloudfsck ", line.strip()):
                    yield path.name, found[1]
        for line in re.findall(r"`cloudfsck ([^`]+)`", outside(path)):
            yield path.name, " ".join(line.split())


def test_what_is_to_be_typed_exists() -> None:
    seen = set()
    for page, line in typed():
        words = shlex.split(line, comments=True)
        words = words[: next((place for place, word in enumerate(words) if word in "|;&&||>"), len(words))]
        command: Any = typer.main.get_command(cli.app)
        name = "cloudfsck"
        while words:
            word = words.pop(0)
            if word.startswith("-"):
                options = {option: one for one in command.params for option in one.opts}
                known = {*options, "--help"}
                assert word in known, f"{page}: {name} has no {word}: {line}"
                if word in options and not getattr(options[word], "is_flag", False):
                    assert words, f"{page}: {word} needs a value: {line}"
                    words.pop(0)
            elif getattr(command, "commands", None):
                assert word in command.commands, f"{page}: there is no command {word}: {line}"
                command, name = command.commands[word], f"{name} {word}"
        seen.add((page, name))
    assert ("README.md", "cloudfsck demo") in seen
    assert ("operating.md", "cloudfsck repair") in seen


def test_the_configuration_in_the_pages_is_right(tmp_path: Path) -> None:
    """All of it in operating.md, one block after the other, is one configuration."""
    text = "\n".join(block for language, block in fences(DOCS / "operating.md") if language == "toml")
    (tmp_path / "cloudfsck.toml").write_text(text, encoding="utf-8")
    settings = config.load(tmp_path / "cloudfsck.toml", frozenset(checks.load()))
    assert settings.write.ssh is not None
    given = {name for name, value in tomllib.loads(text).items() if isinstance(value, dict)}
    assert {"cloud", "nova", "read", "write", "hosts", "ladder", "limits", "skip"} <= given


# --------------------------------------------------------------------------------------------- the schema


def answer(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "cloudfsck", "-c", str(path), *arguments, "--format", "json"],
        capture_output=True, text=True, cwd=REPO,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def validate(given: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(given)


def test_the_schema_is_one_and_describes_everything() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def walk(node: object, at: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(node, dict):
            yield at, node
            for name, under in node.items():
                yield from walk(under, f"{at}/{name}")

    for at, node in walk(SCHEMA, ""):
        for name, one in node.get("properties", {}).items():
            assert "description" in one or "description" in SCHEMA["$defs"][one["$ref"].split("/")[-1]], f"{at}/{name}"
        if node.get("type") == "object":
            assert at.endswith("/evidence") or node["additionalProperties"] is False, at
            assert set(node["required"]) == set(node["properties"]), at


def test_check_answers_by_the_schema_and_leaves_what_only_a_person_may_repair(tmp_path: Path) -> None:
    """Before a repair and after it, of a demo with damage that no program repairs."""
    path = demo.make(tmp_path / "demo", by_hand=True)
    status, before = answer(path, "check")
    assert status == 4
    validate(before)
    known = checks.load()
    assert {one["check"] for one in before["coverage"]} == set(known) - set(config.load(path).left_out(known))
    assert {one["check"] for one in before["findings"]} > {
        "neutron-binding-on-wrong-host",
        "neutron-port-of-gone-router",
        "neutron-ports-of-server-differ",
        "neutron-resource-of-gone-project",
        "ovn-port-missing",
    }
    by_hand = [one for one in before["findings"] if one["risk"] == "by-hand"]
    assert all(one["commands"] and not one["would"] for one in by_hand)
    assert any(one["by_hand"] for one in by_hand)

    status, done = answer(path, "repair", "--yes")
    assert status == 5
    refused = [one for one in done["acts"] if one["outcome"] != "done"]
    # The demo has no Cinder to ask: what needs one is refused.
    assert {(one["check"], one["outcome"]) for one in refused} == {("cinder-attachment-of-deleted-server", "refused")}
    assert all("[write.cinder]" in one["why"] for one in refused)
    status, after = answer(path, "check")
    assert status == 4
    validate(after)
    left = {one["check"] for one in after["findings"] if one["risk"] != "by-hand"}
    assert left == {"cinder-attachment-of-deleted-server"}
    # What cannot be undone stands on no rung: it is gone.
    restless = (
        "cinder-device-",
        "cinder-quota-",
        "cinder-session-",
        "designate-",
        "neutron-",
        "ovn-port-",
        "placement-",
    )
    gone = [one for one in done["acts"] if one["check"].startswith(restless)]
    assert len(after["held"]) == len(done["acts"]) - len(refused) - len(gone)

    # One of the held servers lives again, one host's libvirt cannot be asked, and one check is skipped.
    held = next(one for one in after["held"] if one["evidence"].get("cell") == "cell1")
    with sqlite3.connect(path.parent / "databases/nova_cell1.sqlite") as db:
        db.execute("UPDATE instances SET deleted = 0, deleted_at = NULL WHERE uuid = ?", [held["server"]])
    db.close()
    (path.parent / "hosts/compute5/virsh").unlink()
    skipped = next(name for name in checks.load() if name != held["check"])
    with path.open("a", encoding="utf-8") as file:
        file.write(f'\n[skip]\n{skipped} = "told to"\n')
    status, worse = answer(path, "check")
    assert status & 8
    validate(worse)
    assert {"check": skipped, "why": "told to"} in worse["skipped"]
    assert {one["check"] for one in worse["skipped"]} == set(config.load(path).left_out(known))
    assert held["server"] in {one["server"] for one in worse["acquitted"]}
    assert {"compute5"} == {one["part"] for one in worse["unknown"]}


def test_a_property_that_is_not_described_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        validate({**_empty(), "new": 1})
    with pytest.raises(jsonschema.ValidationError, match="is a required property"):
        validate({name: value for name, value in _empty().items() if name != "stops"})


def _empty() -> dict[str, Any]:
    lists = ("findings", "held", "acquitted", "unknown", "coverage", "skipped", "stops")
    taken = {"run": "20260101T120000Z-0123ab", "taken_at": "2026-01-01T12:00:00Z", "snapshot": "/x.duckdb"}
    return {"schema_version": 1, "cloud": "prod", **taken, **{name: [] for name in lists}}


def test_the_report_says_what_the_schema_says() -> None:
    """The names that `check_json` writes are those of the schema, whether or not a demo shows them."""
    source = ast.parse((REPO / "cloudfsck/report.py").read_text(encoding="utf-8"))
    for function, wanted in (
        ("check_json", SCHEMA),
        ("_finding", SCHEMA["$defs"]["finding"]),
        ("_held", SCHEMA["$defs"]["held"]),
    ):
        body = next(node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == function)
        given = next(node.value for node in body.body if isinstance(node, ast.Return))
        assert isinstance(given, ast.Dict)
        assert {ast.literal_eval(key) for key in given.keys if key is not None} == set(wanted["properties"]), function
