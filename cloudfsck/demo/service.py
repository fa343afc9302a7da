"""What the stand-ins for services have in common: each answers requests over its own database, one transaction each."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

#: The status and the body.
Answer = tuple[int, Mapping[str, Any]]

Request = TypeVar("Request")


class Wrong(Exception):
    """A request that is refused, with what the service says of it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer))
        self.answer = answer


def answer(
    file: Path, calls: Sequence[tuple[str, str, Callable[..., Answer]]], method: str, path: str,
    begin: Callable[[sqlite3.Connection], Request], done: Callable[[Request], None] = lambda request: None,
) -> Answer | None:  # fmt: skip
    """Answer by the one of `calls` (method, pattern of a path, what is done with the request and the pattern's groups)
    that is meant; None: none is.  `done` is called once all is written."""
    for wanted, pattern, act in calls:
        if wanted == method and (found := re.fullmatch(pattern, path)):
            with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as db:
                db.row_factory = sqlite3.Row
                db.execute("BEGIN" if method == "GET" else "BEGIN IMMEDIATE")
                request = begin(db)
                try:
                    told = act(request, *found.groups())
                except Wrong as error:
                    return error.answer
                db.execute("COMMIT")
                done(request)
                return told
    return None
