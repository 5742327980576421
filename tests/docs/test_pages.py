"""Every command and snippet of the documentation is run, and does what its page shows."""

import os
import signal
from pathlib import Path

import pytest

from tests.docs.likeness import alike
from tests.docs.pages import all_pages, blocks_of
from tests.docs.run_page import PageError, commands_of, furnish, run_page

PAGES = [page for page in all_pages() if blocks_of(page)]


@pytest.fixture
def furnished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A directory to run a page in; the environment and the signals are as before after it."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    before, handlers = dict(os.environ), {s: signal.getsignal(s) for s in (2, 15)}
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("furnished")
def test_a_page_does_what_it_says(page: str):
    blocks = blocks_of(page)
    for package in {name for block in blocks for name in block.needs}:
        pytest.importorskip(package, reason=f"make torch installs {package}")
    run_page(blocks)


SHOWN = """\
checkpoint: 39 leaves, 445.07 kB
out: written in 0.2 s
...
loss 7.998  rate 0.0002005  52,613 tokens/s
lm/logits    3x16x32   6.0e-07  1.2e-07  1e-05   5  ok
"""
PRINTED = """\
checkpoint: 39 leaves, 445.07 kB
out: written in 11.9 s
a line
another
loss 7.996  rate 0.0002004  613 tokens/s
lm/logits  3x16x32  7.0e-07  3.2e-07  1e-05  12  ok
"""


def test_times_last_digits_and_rounding_noise_may_differ():
    assert alike(SHOWN, PRINTED)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("39 leaves", "38 leaves"),
        ("445.07 kB", "445.57 kB"),
        ("loss 7.996", "loss 7.99"),
        ("loss 7.996", "loss 7.9"),
        ("written", "not written"),
        ("0.0002004", "0.0003004"),
        ("12  ok", "12  DIFFERS"),
        ("3.2e-07  1e-05", "3.2e-07  1e-04"),
        ("lm/logits", "lm/log_probs"),
        ("checkpoint: 39", "note: something\ncheckpoint: 39"),
        ("lm/logits", "a line more\nlm/logits"),
    ],
)
def test_anything_else_may_not(right: str, wrong: str):
    assert right in PRINTED
    if right == "lm/logits" and "\n" in wrong:
        shown = SHOWN.replace("...\n", "")
        assert not alike(shown, PRINTED)
        return
    assert not alike(SHOWN, PRINTED.replace(right, wrong))


def test_a_block_that_is_neither_run_nor_excused_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("Look:\n\n```sh\nrm -rf /\n```\n")
    with pytest.raises(PageError, match=r"page.md:3: a block of 'sh' is not run"):
        run_page(blocks_of(str(page)))


def test_what_is_not_run_is_parsed(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a bucket -->\n```console\n$ convert-paxml a b --no-such-flag\n```\n"
    )
    with pytest.raises(PageError, match="--no-such-flag"):
        run_page(blocks_of(str(page)))


def test_commands_go_on_behind_a_backslash(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ ls \\\n    -a\nsomething\n$ cat x\n```\n")
    (block,) = blocks_of(str(page))
    assert commands_of(block) == [("ls     -a", "something\n"), ("cat x", "")]
