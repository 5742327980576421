"""Names of a package that are imported when they are first used."""

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any


def lazy_names(package: str) -> Callable[[str], Any]:
    """A package's `__getattr__`: imports what stands below its `if TYPE_CHECKING:`, name by name.

    So the names stand there once, for people, for type checkers and for this.

    Args:
        package: its `__name__`.
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
    """Name -> module that has it, of the package's imports for type checkers."""
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
