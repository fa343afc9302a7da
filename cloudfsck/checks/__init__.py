"""Every file in this folder is one check, named after the file.  There is no other register."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from cloudfsck.model import Check


def load() -> dict[str, Check]:
    """Every check by its name; a file that cannot be loaded breaks the run loudly."""
    names = sorted(module.name for module in iter_modules(__path__))
    return {name.replace("_", "-"): import_module(f"{__name__}.{name}").CHECK for name in names}
