"""`make quick`: lints and tests what a change touched, for about a minute.

Changed is what differs from HEAD (or from where this branch left `--base`), new files too. Tests
run in this order, until the time is over:

1. changed test files
2. those that mirror a changed module: `tests/<path>/test_<name>.py`
3. those that import a changed module or helper
4. those that import a package that hands on what a changed module defines

The names of those left out are printed; `make test` runs all. Unlike pytest-testmon this needs no
first run under coverage.
"""

import ast
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
CODE = ("efficientids_flax", "converters", "parity_tests")
END = "QUICK_END"  # variable with the time when no more tests are begun


def changed_files(root: Path, base: str | None = None) -> list[str]:
    """What differs from HEAD, or from the last commit shared with `base`; new files too."""

    def git(*arguments: str) -> list[str]:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    since = git("merge-base", base, "HEAD")[0] if base else "HEAD"
    new = git("ls-files", "--others", "--exclude-standard")
    return sorted({*git("diff", "--name-only", "--no-renames", since), *new})


def test_files(root: Path) -> list[str]:
    """Every test file, as a path from the root."""
    found = [path for top in ("tests", "parity_tests") for path in (root / top).rglob("test_*.py")]
    return sorted(path.relative_to(root).as_posix() for path in found)


def module_of(path: str) -> str:
    """Dotted name of a Python file."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports anywhere: of modules, and of what it takes from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def affected(root: Path, changed: Iterable[str]) -> list[str]:
    """Test files that a change touches, nearest first."""
    tests = test_files(root)
    python = [path for path in changed if path.endswith(".py")]
    modules = {module_of(path) for path in python}
    mirrors = {
        (Path("tests") / path).with_name(f"test_{Path(path).name}").as_posix() for path in python
    }
    handing_on = {
        module_of(file.relative_to(root).as_posix())
        for top in CODE
        for file in (root / top).rglob("__init__.py")
        if imports(file) & modules
    }
    of_tests = {test: imports(root / test) for test in tests}
    tiers = [
        (test for test in tests if test in python),
        (test for test in tests if test in mirrors),
        (test for test in tests if of_tests[test] & modules),
        (test for test in tests if of_tests[test] & handing_on),
    ]
    return list(dict.fromkeys(test for tier in tiers for test in tier))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol() -> bool | None:
    """Passes over a test when the time is over; in the processes that run them (`-p`)."""
    return True if time.time() > float(os.environ.get(END, "inf")) else None


class Seen:
    """Remembers which tests did not run."""

    def __init__(self) -> None:
        self.left: dict[str, None] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.left = self.left or dict.fromkeys(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.left.pop(report.nodeid, None)

    def left_out(self) -> Counter[str]:
        """File -> how many of its tests did not run."""
        return Counter(name.partition("::")[0] for name in self.left)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--base", help="A revision: all that this branch changed since it left it.")
@click.option("--seconds", default=45.0, show_default=True, help="When no more tests are begun.")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def main(base: str | None, seconds: float, pytest_arguments: tuple[str, ...]) -> None:
    """Lint and test what a change touched."""
    changed = changed_files(ROOT, base)
    there = [path for path in changed if path.endswith(".py") and (ROOT / path).is_file()]
    ends = [
        subprocess.run([sys.executable, "-m", "ruff", *command, *there], check=False).returncode
        for command in (["check"], ["format", "--check"])
        if there
    ]
    files, seen = affected(ROOT, changed), Seen()
    click.echo(f"{len(changed)} changed files, {len(files)} test files that they touch")
    for path in changed:
        if Path(path).name == "conftest.py" or not path.endswith((".py", ".md")):
            click.echo(f"{path}: which tests it touches is not known here; `make test` runs all")
    if files:
        ends.append(run([*pytest_arguments, *files], seconds, seen))
    sys.exit(any(ends))


def run(arguments: list[str], seconds: float, seen: Seen) -> int:
    """Runs tests in the order of their files, until the time is over, and says what is left."""
    os.environ[END] = str(time.time() + seconds)
    options = ["-q", "-p", "tests.quick", "-n", "auto", "--dist", "loadfile"]
    end = pytest.main([*options, "--no-loadscope-reorder", *arguments], plugins=[seen])
    if seen.left:
        click.echo("\nLeft out when the time was over; `make test` runs all:")
        for name, count in seen.left_out().items():
            click.echo(f"  {name}: {count} tests")
    return end


if __name__ == "__main__":
    main()
