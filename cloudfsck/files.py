"""A file that is there whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write it aside, and give it its name when it is whole.  Raises OSError; then what was there before still is."""
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink()
        raise
