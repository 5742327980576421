"""The wheel holds all that a user needs, and its commands run outside of the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from efficientids_flax.commands.program import COMMANDS
from tests.paths import ROOT

# Each command's help, from the unpacked wheel alone: the repository is not on the path.
SCRIPT = """
import sys
wheel, repository, *names = sys.argv[1:]
sys.path = [wheel, *(p for p in sys.path if p not in ("", repository))]
from click.testing import CliRunner
from efficientids_flax.commands.program import main
import efficientids_flax
assert efficientids_flax.__file__.startswith(wheel), efficientids_flax.__file__
for name in names:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, (name, result.output, result.exception)
for name in efficientids_flax.__all__:
    getattr(efficientids_flax, name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = place.glob("*.whl")
    return file


def test_what_is_in_it(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (scripts,) = [name for name in names if name.endswith("entry_points.txt")]
        entries = archive.read(scripts).decode()
    assert sum(info.file_size for info in zipfile.ZipFile(wheel).infolist()) < 4 << 20
    assert not [name for name in names if "/record/" in name or "/recordings/" in name]
    assert "efficientids = efficientids_flax.commands.program:main" in entries
    for package in ("efficientids_flax", "converters", "parity_tests"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        inside = {file for file in files if "/record/" not in file}
        assert inside <= set(names)


def test_every_command_and_name_works_from_it(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    end = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, str(tmp_path / "unpacked"), str(ROOT), *COMMANDS],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert end.returncode == 0, end.stderr
