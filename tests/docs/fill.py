"""Fills in what the commands of a page print: `python -m tests.docs.fill docs/tutorial.md`.

Write a line `?` where the output of a command, of a session (`>>>`), or of the Python above a block
of text belongs; `? 3 4` keeps the first three lines and the last four. Run from the root of the
repository; the page runs in a directory of its own, as its test does, but compiled as users
compile.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

from tests.docs import run_page
from tests.docs.pages import ROOT, Block, blocks_of
from tests.docs.run_page import FILLED


def shortened(printed: str, mark: re.Match[str]) -> str:
    """The first and the last lines, as the mark says, with `...` between them."""
    lines = [line.rstrip() for line in printed.rstrip("\n").split("\n")]
    if mark[1] is None or len(lines) <= int(mark[1]) + int(mark[2]):
        return "\n".join(lines)
    return "\n".join([*lines[: int(mark[1])], "...", *lines[len(lines) - int(mark[2]) :]])


def fill(page: str) -> None:
    """Run a page, and write it anew with the outputs in the places of `?`."""
    text = (ROOT / page).read_text()
    found: list[tuple[Block, str, str]] = []

    def note(block: Block, shown: str, printed: str, what: str) -> None:
        if FILLED.fullmatch(shown.strip()):
            found.append((block, what, printed))
        else:
            compare(block, shown, printed, what)

    compare, run_page.compare = run_page.compare, note
    blocks = blocks_of(page)
    with tempfile.TemporaryDirectory() as place:
        run_page.furnish(Path(place))
        os.chdir(place)
        try:
            run_page.run_page(blocks)
        finally:
            lines = text.split("\n")
            for block, _, printed in found:
                for number in range(block.line, len(lines)):
                    if mark := FILLED.fullmatch(lines[number].strip()):
                        lines[number] = shortened(printed, mark)
                        break
            (ROOT / page).write_text("\n".join(lines))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        fill(name)
