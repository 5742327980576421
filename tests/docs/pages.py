"""The pages of the documentation as blocks: what is fenced, in order, with what is said before it.

How a block is written in Markdown says what becomes of it:

| fence | |
| --- | --- |
| ```` ```console ```` | commands after `$ `; what they print is compared with the lines below |
| `$ efficientids serve ... &` | there to be asked by `curl` until the end of the page |
| ```` ```python ```` | run in one namespace a page; with `>>>`, what it prints is compared |
| ```` ```text ```` | right below a block of Python: what that printed |
| any with `title="NAME"` | written to that file, for the blocks after it |
| below `<!-- not run: WHY -->` | parsed only |
| below `<!-- needs: A, B -->` | the page is skipped where these packages are not installed |
| below `<!-- exits with N -->` | the last command ends so; one that shows `Error:` ends with 1 |
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w+-]*)(?P<rest>[^`]*)$")
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
NEEDS = re.compile(r"<!-- needs: (.+?) -->")
EXITS = re.compile(r"<!-- exits with (\d+) -->")
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: path from the root of the repository.
        line: line of the fence, from 1.
        language: the word behind the backticks.
        text: what is between the fences, with a line break at its end.
        title: file to be written, if one is named.
        not_run: the reason why it is not run, if there is one.
        exits: exit code of the last command.
        needs: packages that it imports and that the project does not depend on.
        below: nothing stands between this block and the one before it.
    """

    page: str
    line: int
    language: str
    text: str
    title: str | None = None
    not_run: str | None = None
    exits: int = 0
    needs: tuple[str, ...] = ()
    below: bool = False

    @property
    def where(self) -> str:
        """`page:line`, as editors open it."""
        return f"{self.page}:{self.line}"


def all_pages() -> list[str]:
    """README.md and every page below docs/, as paths from the root."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(page.relative_to(ROOT)) for page in pages]


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return list(_blocks(page, (ROOT / page).read_text().splitlines()))


def prose_of(page: str) -> str:
    """The text of a page without its fenced blocks; their lines are left empty."""
    lines = (ROOT / page).read_text().splitlines()
    for block in blocks_of(page):
        for number in range(block.line - 1, block.line + block.text.count("\n") + 1):
            lines[number] = ""
    return "\n".join(lines)


def _blocks(page: str, lines: list[str]):
    number, before = 0, []
    after_block = False
    while number < len(lines):
        fence = FENCE.match(lines[number])
        if fence is None:
            if lines[number].strip():
                before, after_block = [*before[-1:], lines[number]], False
            else:
                before = before if _is_comment(before) else []
            number += 1
            continue
        start = number
        closing = re.compile(rf"^ *`{{{len(fence['ticks'])},}} *$")
        number += 1
        while number < len(lines) and not closing.match(lines[number]):
            number += 1
        if number == len(lines):
            raise ValueError(f"{page}:{start + 1}: the fence is not closed")
        inside = [line.removeprefix(fence["indent"]) for line in lines[start + 1 : number]]
        said = " ".join(line for line in before if line.strip().startswith("<!--"))
        not_run, exits = NOT_RUN.search(said), EXITS.search(said)
        needs = NEEDS.search(said)
        title = TITLE.search(fence["rest"])
        yield Block(
            page,
            start + 1,
            fence["language"],
            "".join(f"{line}\n" for line in inside),
            title[1] if title else None,
            not_run[1] if not_run else None,
            int(exits[1]) if exits else 0,
            tuple(needs[1].split(", ")) if needs else (),
            after_block,
        )
        before, after_block = [], True
        number += 1


def _is_comment(before: list[str]) -> bool:
    return bool(before) and before[-1].strip().startswith("<!--")
