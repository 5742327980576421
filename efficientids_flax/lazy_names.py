"""Imports the names of a package when they are first used."""

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any


def lazy_names(package: str) -> Callable[[str], Any]:
    """A `__getattr__` for a package that imports the names below its `if TYPE_CHECKING:` on use.

    So names are listed only once, for readers, type checkers and this function.

    Args:
        package: `__name__` of the package.
    """

    def find(name: str) -> Any:
        if name.startswith("__") or name not in _homes(package):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(_homes(package)[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find


@cache
def _homes(package: str) -> dict[str, str]:
    """Name -> module, from the package's imports below `if TYPE_CHECKING:`."""
    spec = sys.modules[package].__spec__
    assert spec is not None
    source = getattr(spec.loader, "get_source")(package)  # noqa: B009 (not all loaders have it)
    return {
        name.name: found.module or ""
        for found in _imports(ast.parse(source))
        for name in found.names
    }


def _imports(module: ast.Module) -> Iterator[ast.ImportFrom]:
    for block in module.body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            yield from (line for line in block.body if isinstance(line, ast.ImportFrom))
