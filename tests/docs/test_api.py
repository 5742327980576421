"""Every public name has a docstring, and a place in the reference."""

import ast
import re
import subprocess
import sys

import pytest

from tests.docs.names import PACKAGES, all_of, find, public_names
from tests.docs.pages import ROOT, all_pages
from tests.docs.test_paths import imported, sources

PUBLIC = (
    "efficientids_flax",
    "efficientids_flax.backbone",
    "efficientids_flax.cluster",
    "efficientids_flax.config",
    "efficientids_flax.core",
    "efficientids_flax.data",
    "efficientids_flax.embed",
    "efficientids_flax.evaluation",
    "efficientids_flax.forecast",
    "efficientids_flax.inference",
    "efficientids_flax.prepare",
    "efficientids_flax.search",
    "efficientids_flax.settings",
    "efficientids_flax.stored",
    "efficientids_flax.train",
    "converters",
    "converters.huggingface",
    "parity_tests",
)
API = ROOT / "docs" / "reference" / "api"
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.M)


def shown() -> list[str]:
    """The modules that the pages of the reference show."""
    pages = (page.read_text() for page in sorted(API.glob("*.md")))
    return [name for page in pages for name in DIRECTIVE.findall(page)]


def home(dotted: str) -> str:
    """The name under the module that defines it."""
    found = find(dotted)
    return dotted if found is None else f"{found.module}.{dotted.rpartition('.')[2]}"


def test_every_public_package_is_shown():
    assert not set(PUBLIC) - set(shown())


def test_what_is_shown_is_shown_once_and_there():
    names = shown()
    assert len(names) == len(set(names))
    assert not [name for name in names if find(name) is None]


def is_value(dotted: str) -> bool:
    """Whether it is a constant or an alias of a type, which a comment may explain as well."""
    found = find(dotted)
    return found is not None and isinstance(found.node, ast.Assign | ast.AnnAssign)


def test_every_public_name_has_a_docstring():
    names = [
        f"{module}.{name}"
        for module in {*PUBLIC, *shown()}
        for name in public_names(module)
        if module in PUBLIC or not is_value(f"{module}.{name}")
    ]
    without = [name for name in names if not ((found := find(name)) and found.docstring)]
    assert not without, "\n".join(sorted(without))


def test_what_the_pages_import_is_shown():
    """Whoever looks up a name that a page imports finds it in the reference."""
    there = {f"{module}.{name}" for module in shown() for name in public_names(module)}
    there |= set(shown())
    homes = {(one.module, id(one.node)) for one in map(find, there) if one is not None}
    missing = {
        f"{where}: {name}"
        for page in all_pages()
        for name, where in imported(page)
        if (found := find(name)) is not None and (found.module, id(found.node)) not in homes
    }
    assert not missing, "\n".join(sorted(missing))


def test_the_built_site_has_every_public_name():
    """As `make docs` builds it, in its place; skipped where its packages are not installed.

    Pages are built again where they changed; all of them where a docstring may have.
    """
    pytest.importorskip("zensical", reason="make docs installs what builds the site")
    site = ROOT / "build" / "site"
    front = site / "index.html"
    built = front.stat().st_mtime if front.exists() else 0.0
    stale = [path for path in sources() if path.stat().st_mtime > built]
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", *(["--clean"] if stale else [])],
        check=False, cwd=ROOT, env={"PYTHONPATH": str(ROOT / "docs" / "extensions")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ids = {name for page in (site / "reference" / "api").rglob("index.html")
           for name in re.findall(r'id="([\w.]+)"', page.read_text())}  # fmt: skip
    names = [f"{module}.{name}" for module in PUBLIC for name in all_of(module)]
    missing = [name for name in names if not {name, home(name)} & ids]
    assert not missing, "\n".join(missing)
    elsewhere = [
        f"{page.relative_to(site)}: {link}"
        for page in site.rglob("*.html")
        for link in re.findall(r'(?:src|href)="(https?://[^"]*)"', page.read_text())
        if link.endswith((".js", ".css", ".woff2")) or "fonts." in link
    ]
    assert not elsewhere, "\n".join(elsewhere)


def test_the_packages_are_the_ones_of_the_project():
    assert {name.split(".")[0] for name in PUBLIC} == set(PACKAGES)
