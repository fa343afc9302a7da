"""Every condition of every query and view is one whose loss some world notices.

A mutant is a query or view without one of its conditions (of a WHERE, ON, HAVING or FILTER), one side of an OR, one
branch of a CASE or one branch of a UNION.  All worlds together are one cloud; a mutant under which every check says the
same of it as before survives, and fails the test: either a world is missing, or the condition is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

import duckdb
import pytest
from sqlglot import exp

from cloudfsck.snapshot import Snapshot
from tests import worlds
from tests.settled import VIEWS, keep, loose, names, query, settle, settled
from tests.worlds import CHECKS

#: Conditions that no world can notice, each with the reason.
EQUIVALENT: dict[tuple[str, str], str] = {
    (
        "held_domains",
        "h.kind = 'domain'  [in and d.state = CASE h.rung WHEN 'paused' THEN 'paused' "
        "WHEN 'stopped' THEN 'shutoff' END]",
    ): "only a domain can stand on a rung named paused or stopped",
    (
        "domain_obstacles",
        "NOT h.rung IS NULL  [in and NOT EXISTS(SELECT 1 FROM held_domains AS o "
        "WHERE o.host = d.host AND o.server = d.uuid)]",
    ): "without a rung the sentence is NULL, and NULL is no obstacle; it only keeps the view small",
}

Outcome = list[tuple[object, ...]]

#: How much memory a mutant may take, and none on disk; all worlds together take a tenth of it.
LIMIT = "1500MB"

#: And how many rows it may give.
MOST = 100_000


@dataclass(frozen=True)
class Mutant:
    """One condition less in a query or view; `without` says which."""

    of: str
    without: str
    sql: str


def mutants(of: str, tree: exp.Expr) -> Iterator[Mutant]:
    for number, without, change in losses(tree):
        copy = tree.copy()
        twin = next(islice(copy.walk(), number, None))
        yield Mutant(of, without, settle(change(twin, copy), loose(of)))


def losses(tree: exp.Expr) -> Iterator[tuple[int, str, Change]]:
    """What a query may be without: the number of the node that changes, the words for it, and the change."""
    for number, node in enumerate(tree.walk()):
        for without, change in _changes(node):
            yield number, without, change


class Change:
    """Replace a node by one of its own parts, or by a value."""

    def __init__(self, keep: str | None = None, value: exp.Expr | None = None, branch: int | None = None) -> None:
        self.keep, self.value, self.branch = keep, value, branch

    def __call__(self, node: exp.Expr, root: exp.Expr) -> exp.Expr:
        if self.branch is not None:
            branches = node.args["ifs"]
            if len(branches) > 1:
                branches.pop(self.branch)
                return root
            new = node.args.get("default") or exp.Null()
        elif self.keep is not None:
            new = node.args[self.keep]
            if isinstance(node, exp.SetOperation) and node.args.get("with_"):
                new.set("with_", node.args["with_"])
        else:
            assert self.value is not None
            new = self.value.copy()
        if node is root:
            return new
        node.replace(new)
        return root


def _changes(node: exp.Expr) -> Iterator[tuple[str, Change]]:
    if isinstance(node, exp.And | exp.Or):
        yield f"{_short(node.expression)}  [in {node.key} {_short(node.this)}]", Change(keep="this")
        yield f"{_short(node.this)}  [in {node.key} {_short(node.expression)}]", Change(keep="expression")
    elif isinstance(node, exp.SetOperation):
        yield f"the branch {_short(node.expression)}", Change(keep="this")
        yield f"the branch {_short(node.this)}", Change(keep="expression")
    elif isinstance(node, exp.Case):
        for number, branch in enumerate(node.args["ifs"]):
            yield f"the case {_short(branch)}", Change(branch=number)
    if _is_whole_condition(node) and not isinstance(node, exp.And):
        yield f"{_short(node)}  [all of its {node.parent.key if node.parent else ''}]", Change(value=exp.true())


def _is_whole_condition(node: exp.Expr) -> bool:
    parent = node.parent
    if isinstance(parent, exp.Where | exp.Having):
        return node.arg_key == "this"
    return isinstance(parent, exp.Join) and node.arg_key == "on"


def _short(node: exp.Expr) -> str:
    text = node.sql(dialect="duckdb")
    return text if len(text) <= 110 else f"{text[:70]} … {text[-36:]}"


@cache
def clouds() -> tuple[Snapshot, ...]:
    """All worlds, with what their views say kept: a mutant changes few of them."""
    for snapshot in worlds.together():
        snapshot.db.execute(f"SET memory_limit = '{LIMIT}'; SET max_temp_directory_size = '0B'")
        keep(snapshot)
    return worlds.together()


def outcome(snapshot: Snapshot, sql: str) -> Outcome:
    """Each row of a query: what the engine goes by, and the evidence, on which two readings must agree."""
    rows = snapshot.db.execute(sql).fetchmany(MOST)
    return [("more than all worlds have",)] if len(rows) == MOST else sorted(rows, key=repr)


@cache
def before(name: str, number: int) -> Outcome:
    """What a check, or a view, says of one of the clouds as it is."""
    return outcome(clouds()[number], CHECKS[name].query if name in CHECKS else f"SELECT * FROM {name}")


def noticed(mutant: Mutant, readers: list[str]) -> bool:
    """Whether some world notices.  A view that says what it said before changes no answer, and nobody is asked; else
    its readers are asked in their order, and who noticed becomes the first of them: for the next mutant too, perhaps.
    """
    for number, snapshot in enumerate(clouds()):
        if mutant.of in VIEWS and not _differs(snapshot, mutant.sql, before(mutant.of, number)):
            continue
        for name in [name for name in readers if name in worlds.asked(number)]:
            if _differs(snapshot, _asking(name, mutant.of, mutant.sql), before(name, number)):
                assert _understood(name, mutant.of, number), f"{name} does not say what it says, with its views settled"
                readers.remove(name)
                readers.insert(0, name)
                return True
    return False


def _asking(name: str, of: str, sql: str) -> str:
    """The query of a check in which one query or view is another."""
    if of == name:
        return sql
    read = [view for view in loose(of) if view in names(query(name))]
    ctes = [f"{view} AS NOT MATERIALIZED ({sql if view == of else settled(view, of)})" for view in read]
    return f"WITH {', '.join(ctes)} SELECT * FROM ({settled(name, of)})"


@cache
def _understood(name: str, of: str, number: int) -> bool:
    """Whether a check says of one of the clouds what it always says, when it is asked as for a mutant."""
    return outcome(clouds()[number], _asking(name, of, settled(of, of))) == before(name, number)


def _differs(snapshot: Snapshot, sql: str, expected: Outcome) -> bool:
    try:
        return outcome(snapshot, sql) != expected
    except duckdb.Error:
        return True  # it does not even run, or not in LIMIT: without a condition everything is joined with everything


@pytest.mark.parametrize("name", CHECKS)
def test_the_parser_understands_the_queries(name: str) -> None:
    for number in range(len(clouds())):
        assert name not in worlds.asked(number) or _understood(name, name, number)


@pytest.mark.parametrize("of", [*CHECKS, *VIEWS])
def test_some_world_notices_the_loss_of_each_condition(of: str) -> None:
    tree = VIEWS[of] if of in VIEWS else query(of)
    readers = [name for name in CHECKS if of in names(query(name))] if of in VIEWS else [of]
    assert readers, f"no check reads {of}"
    survivors = [
        mutant.without for mutant in mutants(of, tree)
        if (of, mutant.without) not in EQUIVALENT and not noticed(mutant, readers)
    ]  # fmt: skip
    assert not survivors, f"nobody misses in {of}:\n" + "\n".join(f"  {without}" for without in survivors)


def test_what_is_said_to_be_equivalent_is_a_mutant() -> None:
    trees = {**{of: query(of) for of in CHECKS}, **VIEWS}
    every = {(of, without) for of, tree in trees.items() for _, without, _ in losses(tree)}
    assert set(EQUIVALENT) <= every
    assert all(len(reason) > 20 for reason in EQUIVALENT.values())
