"""Which tests a change touches, and what is said of those that there was no time for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import quick

FILES = {
    "converters/__init__.py": "from converters.sizes import size\n",
    "converters/sizes.py": "def size(): return 1\n",
    "converters/other.py": "",
    "tests/converters/helper.py": "def helped(): import converters.other\n",
    "tests/converters/test_sizes.py": "from tests.converters.helper import helped\n",
    "tests/converters/test_direct.py": "def test(): from converters import sizes\n",
    "tests/converters/test_package.py": "import converters\n",
    "tests/converters/test_other.py": "from converters.other import this\n",
    "README.md": "",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path)
    return tmp_path


def git(place: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(place), *arguments], check=True, capture_output=True)


def commit(place: Path) -> None:
    git(place, "add", "-A")
    git(place, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all")


def touched(place: Path, *changed: str) -> list[str]:
    return [Path(name).stem.removeprefix("test_") for name in quick.affected(place, changed)]


def test_the_mirror_comes_first_and_re_exports_last(repository: Path):
    found = touched(repository, "converters/sizes.py")
    assert found == ["sizes", "direct", "package"]


def test_changed_tests_come_before_the_mirror(repository: Path):
    found = touched(repository, "tests/converters/test_package.py", "converters/other.py")
    assert found == ["package", "other"]


def test_a_helper_touches_the_tests_that_import_it(repository: Path):
    assert touched(repository, "tests/converters/helper.py") == ["sizes"]
    assert touched(repository, "README.md") == []


def test_what_changed(repository: Path):
    assert quick.changed_files(repository) == []
    (repository / "converters/other.py").write_text("this = 1\n")
    (repository / "new.py").write_text("")
    (repository / "converters/sizes.py").unlink()
    three = ["converters/other.py", "converters/sizes.py", "new.py"]
    assert quick.changed_files(repository) == three
    git(repository, "switch", "-qc", "branch")
    commit(repository)
    assert quick.changed_files(repository) == []
    assert quick.changed_files(repository, "main") == three


def test_a_module_of_this_repository():
    found = quick.affected(quick.ROOT, ["efficientids_flax/backbone/decoder.py"])
    assert found[0] == "tests/efficientids_flax/backbone/test_decoder.py"
    assert "tests/efficientids_flax/backbone/test_generate.py" in found


def test_tests_that_there_was_no_time_for_are_named(tmp_path: Path):
    """In a process of its own: pytest does not run inside of pytest."""
    head = "import time, pytest\n@pytest.mark.parametrize('n', range(5))\n"
    (tmp_path / "test_slow.py").write_text(head + "def test(n): time.sleep(3)\n")
    (tmp_path / "test_b.py").write_text("def test(): pass\n")
    code = "from tests.quick import Seen, run; run(['-n1', 'test_slow.py', 'test_b.py'], 5, Seen())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(quick.ROOT)},
    )  # fmt: skip
    assert "failed" not in done.stdout
    *_, slow, other = done.stdout.splitlines()
    assert "Left out when the time was over" in done.stdout
    assert re.fullmatch(r"  test_slow.py: [1-5] tests", slow)
    assert other == "  test_b.py: 1 tests"
