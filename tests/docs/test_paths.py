"""What the documentation and the docstrings name is there: files, folders, modules, tests."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.names import PACKAGES, find
from tests.docs.pages import ROOT, all_pages, blocks_of, prose_of

FOLDERS = (*PACKAGES, "benchmarks", "docs", "examples", "requirements", "tests")
TOP = "|".join(FOLDERS)
PATH = re.compile(rf"(?<![\w./:-])(?:\.\./)*((?:{TOP})/[\w./+-]*)")
FILE = re.compile(r"(?<![\w./<>{}*:-])((?:[\w-]+/)*[\w-]+\.py)\b")
DOTTED = re.compile(rf"(?<![\w./-])((?:{TOP})(?:\.[A-Za-z_]\w*)+)(?![\w/])")
TEST = re.compile(r"`(test_\w+)")
ONLY_LOOKS_LIKE_ONE = {"test_iter_fn"}
# In the sources of PAXml, saxml and transformers.
ELSEWHERE = ("praxis/", "paxml/", "saxml/", "modeling_rope_utils.py")
SUFFIXES = (".py", ".md", ".json", ".txt", ".pkl", ".npz", ".png", ".toml", ".yaml", ".xz")


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Every docstring of a file, with its place."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                line = getattr(node, "lineno", 1)
                yield f"{path.relative_to(ROOT)}:{line}", text


def sources() -> list[Path]:
    folders = [ROOT / folder for folder in (*PACKAGES, "benchmarks", "examples", "docs")]
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]


def missing_paths(text: str, beside: Path, known: set[str]) -> Iterator[str]:
    """Paths in a text that are not there."""
    for found in PATH.finditer(text):
        path = found[1].rstrip("./-")
        if not exists(path):
            yield path
    for found in FILE.finditer(text):
        path = found[1]
        if path.startswith((*(f"{folder}/" for folder in FOLDERS), *ELSEWHERE)) or path in known:
            continue
        if not any(is_below(place, path) for place in (beside, *map(ROOT.joinpath, FOLDERS), ROOT)):
            yield path


def exists(path: str) -> bool:
    """Whether it is there; of `recordings/outputs/b_` and the like a beginning is enough."""
    return (ROOT / path).exists() or (
        not path.endswith(SUFFIXES) and any((ROOT / path).parent.glob(f"{Path(path).name}*"))
    )


def is_below(place: Path, path: str) -> bool:
    """Whether a file of this name is in the folder; without a slash, in any below it too."""
    if "/" in path or place == ROOT:
        return (place / path).is_file()
    return any(True for _ in place.rglob(path))


def missing_names(text: str) -> Iterator[str]:
    """Dotted names in a text that stand for nothing."""
    for found in DOTTED.finditer(text):
        name = found[1]
        if not name.endswith(tuple(suffix[1:] for suffix in SUFFIXES)) and find(name) is None:
            yield name


@cache
def texts() -> dict[str, tuple[str, Path, set[str]]]:
    """place -> (text, the folder that it is in, the files that it makes itself)."""
    found: dict[str, tuple[str, Path, set[str]]] = {}
    for page in [*all_pages(), "CONTRIBUTING.md"]:
        made = {block.title for block in blocks_of(page) if block.title}
        found[page] = ((ROOT / page).read_text(), (ROOT / page).parent, made)
    for path in sources():
        for place, text in docstrings(path):
            found[place] = (text, path.parent, set())
    return found


def test_paths_are_there():
    missing = [
        f"{place}: {path}"
        for place, (text, beside, made) in texts().items()
        for path in missing_paths(text, beside, made)
    ]
    assert not missing, "\n".join(missing)


def test_dotted_names_stand_for_something():
    missing = [
        f"{place}: {name}" for place, (text, *_) in texts().items() for name in missing_names(text)
    ]
    assert not missing, "\n".join(missing)


def imported(page: str) -> Iterator[tuple[str, str]]:
    """What the Python of a page imports from our packages, and where."""
    for block in blocks_of(page):
        if block.language != "python":
            continue
        code = "\n".join(line.removeprefix(">>> ") for line in block.text.splitlines()
                         if ">>>" not in block.text or line.startswith(">>> "))  # fmt: skip
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                yield from ((f"{node.module}.{one.name}", block.where) for one in node.names)


@pytest.mark.parametrize("page", all_pages())
def test_what_a_page_imports_is_there(page: str):
    missing = [f"{where}: {name}" for name, where in imported(page) if find(name) is None]
    assert not missing, "\n".join(missing)


def test_named_tests_are_there():
    files = [path for top in ("tests", "parity_tests") for path in (ROOT / top).rglob("test_*.py")]
    there = {path.stem for path in files} | {
        name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    missing = [
        f"{page}: {name}"
        for page in all_pages()
        for name in TEST.findall(prose_of(page))
        if name not in there | ONLY_LOOKS_LIKE_ONE
    ]
    assert not missing, "\n".join(missing)


LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", all_pages())
def test_links_lead_somewhere(page: str):
    """The site is built from docs/ alone: its pages link to nothing outside of it."""
    folder = (ROOT / page).parent
    home = ROOT if page == "README.md" else ROOT / "docs"
    wrong = []
    for target in LINK.findall(prose_of(page)):
        path = target.partition("#")[0]
        if "://" in target or not path:
            continue
        place = (folder / path).resolve()
        if not place.exists() or not place.is_relative_to(home):
            wrong.append(f"{page}: {target}")
    assert not wrong, "\n".join(wrong)


def test_a_missing_file_is_found():
    text = "see `converters/nowhere.py`, tests/nothing/ and core/nothing.py, or no_file.py"
    assert list(missing_paths(text, ROOT, set())) == [
        "converters/nowhere.py", "tests/nothing", "core/nothing.py", "no_file.py",
    ]  # fmt: skip
    assert not list(missing_paths("`tests/docs/names.py`, names.py, run.py", ROOT, {"run.py"}))


def test_a_missing_name_is_found():
    text = "efficientids_flax.train.Trainer.fit, converters.no and parity_tests.cases.unpack"
    assert list(missing_names(text)) == ["efficientids_flax.train.Trainer.fit", "converters.no"]
