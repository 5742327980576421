"""Completion works in a bash that has run the line of the documentation."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "how-to" / "complete-commands.md"
ASK = """
complete -p efficientids >/dev/null || exit 1
ask() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  "$function" "$1"; echo "${COMPREPLY[@]}"
}
function=$(complete -p efficientids | sed 's/.*-F \\([^ ]*\\).*/\\1/')
ask efficientids conv
ask efficientids convert --over
ask efficientids convert --to s
"""


def test_bash_completes():
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    (line,) = re.findall(r"^eval .*bash_source.*$", PAGE.read_text(), re.M)
    here = f"PATH={Path(sys.executable).parent}:$PATH\n"
    done = subprocess.run(
        [bash, "--norc", "-c", here + line + ASK],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if "Shell completion is not supported" in done.stderr:
        pytest.skip("this bash is older than 4.4")
    assert done.stdout.splitlines() == [
        "convert convert-hf convert-clustering", "--overwrite", "safetensors",
    ], done.stderr  # fmt: skip
