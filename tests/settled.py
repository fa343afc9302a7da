"""What the views say of a snapshot, kept as tables.

DuckDB plans a query with every view that it reads, and those of theirs, and needs far longer for that than to answer
in a world as small as ours.  Where many queries are asked of one snapshot, the views are asked once.
"""

from __future__ import annotations

from collections.abc import Container
from functools import cache
from importlib.resources import files

from sqlglot import exp, parse, parse_one

from cloudfsck.snapshot import Snapshot
from tests.worlds import CHECKS

#: In their order: each reads only what stands before it.
VIEWS: dict[str, exp.Expr] = {
    created.this.name: created.expression
    for created in parse(files("cloudfsck").joinpath("views.sql").read_text(encoding="utf-8"), dialect="duckdb")
    if isinstance(created, exp.Create)
}


def keep(snapshot: Snapshot) -> None:
    """Keep what the views say now, until the end of the transaction if there is one."""
    snapshot.db.execute("CREATE SCHEMA IF NOT EXISTS settled")
    for view in VIEWS:
        snapshot.db.execute(f"CREATE OR REPLACE TABLE settled.{view} AS {settled(view)}")


@cache
def settled(name: str, of: str = "") -> str:
    """A check or a view that reads what was kept; but for one view and all that read that, which it reads as views."""
    return settle((VIEWS[name] if name in VIEWS else query(name)).copy(), loose(of))


def settle(tree: exp.Expr, but: Container[str]) -> str:
    """A query, whose tree this spends, that reads what was kept in place of the views, but for some of these."""
    for table in tree.find_all(exp.Table):
        if table.name in VIEWS and table.name not in but:
            table.set("db", exp.to_identifier("settled"))
    return tree.sql(dialect="duckdb", copy=False)


@cache
def loose(of: str) -> tuple[str, ...]:
    """A view and all that read it; of a check, none.  In their order, so that each reads only what stands before it."""
    return tuple(view for view in VIEWS if of in VIEWS and (view == of or of in names(VIEWS[view])))


def names(tree: exp.Expr) -> set[str]:
    """The views of ours that a query reads, through other views too."""
    direct = {table.name for table in tree.find_all(exp.Table)} & set(VIEWS)
    return direct | {deeper for view in direct for deeper in names(VIEWS[view])}


@cache
def query(name: str) -> exp.Expr:
    return parse_one(CHECKS[name].query, dialect="duckdb")
