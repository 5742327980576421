"""What a dotted name stands for, read from the sources: nothing is imported, so this is fast."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT

PACKAGES = ("efficientids_flax", "converters", "parity_tests")


@dataclass(frozen=True)
class Defined:
    """A definition: the module that has it, and its node there (None for a module itself)."""

    module: str
    node: ast.AST | None

    @property
    def docstring(self) -> str | None:
        """Its docstring; of an assignment the text below it."""
        if self.node is None:
            return ast.get_docstring(_tree(self.module))
        if isinstance(self.node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            return ast.get_docstring(self.node)
        body = _tree(self.module).body
        after = body[body.index(self.node) + 1 :] if self.node in body else []  # type: ignore[arg-type]
        if after and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant):
            return str(after[0].value.value)
        return None


def module_file(dotted: str) -> Path | None:
    """The file of a module or package, if there is one."""
    place = ROOT.joinpath(*dotted.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def is_module(dotted: str) -> bool:
    """Whether it is a module, a package, or a folder of modules."""
    return module_file(dotted) is not None or ROOT.joinpath(*dotted.split(".")).is_dir()


def all_of(package: str) -> list[str]:
    """`__all__` of a module; empty if it has none."""
    for node in _tree(package).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(one, ast.Name) and one.id == "__all__" for one in targets):
            return list(ast.literal_eval(node.value))  # type: ignore[union-attr]
    return []


def public_names(module: str) -> list[str]:
    """What its page in the reference shows: `__all__`, or what it defines without underscore."""
    return all_of(module) or [
        name
        for name, node in _definitions(module).items()
        if not name.startswith("_") and not isinstance(node, ast.Import | ast.ImportFrom)
    ]


def find(dotted: str) -> Defined | None:
    """What a dotted name stands for, or None."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if module_file(module) is None:
            if length == len(parts) and is_module(module):
                return Defined(module, None)
            continue
        found: Defined | None = Defined(module, None)
        for part in parts[length:]:
            found = found and _member(found, part)
        if found is not None:
            return found
    return None


def _member(of: Defined, name: str) -> Defined | None:
    if of.node is None:
        if module_file(of.module) is None:
            return None
        node = _definitions(of.module).get(name)
        if isinstance(node, ast.ImportFrom):
            (original,) = (one.name for one in node.names if (one.asname or one.name) == name)
            return find(f"{node.module}.{original}")
        if node is None and is_module(f"{of.module}.{name}"):
            return Defined(f"{of.module}.{name}", None)
        return Defined(of.module, node) if node is not None else None
    if not isinstance(of.node, ast.ClassDef):
        return None
    for node in of.node.body:
        if name in _names(node):
            return Defined(of.module, node)
    for node in ast.walk(of.node):  # self.name = ... in a method
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if stored and node.attr == name:
            return Defined(of.module, node)
    for base in of.node.bases:
        found = find(f"{of.module}.{ast.unparse(base)}")
        if found is not None and (inherited := _member(found, name)) is not None:
            return inherited
    return None


@cache
def _tree(module: str) -> ast.Module:
    path = module_file(module)
    return ast.parse(path.read_text()) if path else ast.Module([], [])


@cache
def _definitions(module: str) -> dict[str, ast.AST]:
    """The names of a module, those that only type checkers import too."""
    found: dict[str, ast.AST] = {}
    waiting = list(_tree(module).body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.If | ast.Try):
            waiting = [*node.body, *node.orelse, *waiting]
        else:
            found.update(dict.fromkeys(_names(node), node))
    return found


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [one.asname or one.name for one in node.names]
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) else []
    if isinstance(node, ast.TypeAlias) if hasattr(ast, "TypeAlias") else False:
        return [node.name.id]  # type: ignore[attr-defined]
    if isinstance(node, ast.Assign):
        return [
            one.id
            for target in node.targets
            for one in ast.walk(target)
            if isinstance(one, ast.Name)
        ]
    return []
