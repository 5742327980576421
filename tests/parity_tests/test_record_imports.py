"""The recorder must not import the code that its recordings are compared with."""

import ast
from pathlib import Path

import pytest

from parity_tests import record

OURS = ("efficientids_flax", "converters", "parity_tests")
OWN = "parity_tests.record"
PROGRAMS = sorted(Path(record.__path__[0]).rglob("*.py"))


def imported(text):
    """Absolute names of the modules that a program of the package imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = OWN.split(".")[: 3 - node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def ours(text):
    return [
        name
        for name in imported(text)
        if name.split(".")[0] in OURS and not f"{name}.".startswith(f"{OWN}.")
    ]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_recording_imports_nothing_of_ours(program):
    assert ours(program.read_text()) == []


def test_imports_of_any_form_are_seen():
    assert len(PROGRAMS) > 10
    for line in (
        "import converters",
        "import numpy, efficientids_flax.losses as losses",
        "def late():\n    from parity_tests.readers import read",
        "from parity_tests import compare",
        "from .. import compare",
        "from ..readers import read",
    ):
        assert ours(line), line
    assert ours("from .capture import Run\nfrom . import archive\nimport converters_of") == []
