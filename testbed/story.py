"""What was seen of a fault, for the table that `make test-cloud` ends with."""

from __future__ import annotations

import time


class Story:
    """The story of one fault, told as it goes on; it counts only if its test passed."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.seen: dict[str, list[str]] = {}
        self._made = time.monotonic()

    def made(self) -> None:
        """The fault is complete: from now on it may be found."""
        self._made = time.monotonic()

    def fired(self, check: str) -> None:
        self._add("fired", f"{check} after {time.monotonic() - self._made:.0f} s")

    def repaired(self, what: str) -> None:
        self._add("repaired", what)

    def undone(self, what: str) -> None:
        self._add("undone", what)

    def agreed(self, who: str) -> None:
        self._add("agreed", who)

    def _add(self, column: str, text: str) -> None:
        self.seen.setdefault(column, []).append(text)
