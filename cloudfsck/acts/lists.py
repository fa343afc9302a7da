"""Fields of acts that are lists: in an act, which is frozen, each is a tuple of values of one kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any


def tuple_of(value: Any, name: str, kind: type[Any]) -> None:
    """Make a field a tuple of its kind, from what JSON or a row has for it.  Raises TypeError if it is none."""
    given = getattr(value, name)
    if not isinstance(given, Iterable) or isinstance(given, (str, Mapping)):
        raise TypeError(f"{name} is no list")
    made = []
    for one in given:
        if isinstance(one, Mapping) and kind is not str:
            one = kind(**{field.name: one[field.name] for field in fields(kind) if field.name in one})
        if not isinstance(one, kind):
            raise TypeError(f"{name} has {one!r} in it")
        made.append(one)
    object.__setattr__(value, name, tuple(made))
