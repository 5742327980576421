"""Whether what a command printed is what its page shows.

Words are compared exactly, and so are whole numbers. What cannot be the same twice may differ:

* times and rates: a number with a unit of time behind it, or under a name that says so;
* the last printed digit of a decimal fraction, by `LAST_DIGITS`, or where more digits are printed
  than float32 has, `RELATIVE`;
* rounding noise: differences that both are below `NOISE`, and the columns of a row of
  `parity` that measure one;
* runs of spaces, which align columns.

A line `...` on the page stands for any lines, and `...` in a line for any characters.
"""

import re

LAST_DIGITS = 3
FLOAT32, RELATIVE = 8, 5e-6
NOISE = 1.1e-5
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\.?\w)")
ANY_NUMBER = r"([-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)"
VARIES_AFTER = re.compile(r"^ ?(s|ms|us|min|h)\b|^ ?[\w.]*/s\b|^:\d\d left|^ left")
VARIES_BEFORE = re.compile(r'(per_second|seconds|time|mfu)"?: $|\d:$')
PARITY_ROW = re.compile(
    r"^(?P<name>(?:\S+ )?\S+ \S+) \S+ \S+ (?P<allowed>\S+) \S+ (?P<verdict>ok|DIFFERS.*)$"
)


def alike(shown: str, printed: str) -> bool:
    """Whether the printed text is the shown one, up to what may differ."""
    return _lines_alike(_cleaned(shown), _cleaned(printed))


def _cleaned(text: str) -> list[str]:
    return [re.sub(r"[ \t]+", " ", line.rstrip()) for line in text.strip("\n").split("\n")]


def _lines_alike(shown: list[str], printed: list[str]) -> bool:
    """Match line by line; `reached` are the lines that may have been printed so far."""
    reached = {0}
    for line in shown:
        if line.strip() == "...":
            reached = set(range(min(reached), len(printed) + 1))
        else:
            reached = {n + 1 for n in reached if n < len(printed) and line_alike(line, printed[n])}
        if not reached:
            return False
    return len(printed) in reached


def line_alike(shown: str, printed: str) -> bool:
    """Whether two lines are alike."""
    rows = PARITY_ROW.match(shown.strip()), PARITY_ROW.match(printed.strip())
    if rows[0] and rows[1]:
        return all(rows[0][part] == rows[1][part] for part in ("name", "allowed", "verdict"))
    if shown == printed:
        return True
    found = _pattern(shown).fullmatch(printed)
    if found is None:
        return False
    return all(map(_number_alike, NUMBER.finditer(shown), found.groups()))


def _pattern(shown: str) -> re.Pattern[str]:
    """The words of a line, with any characters for `...` and any number for a number."""
    words = NUMBER.split(shown)
    escaped = (".*?".join(re.escape(piece) for piece in part.split("...")) for part in words)
    return re.compile(ANY_NUMBER.join(escaped))


def _number_alike(shown: re.Match[str], printed: str) -> bool:
    if shown[0] == printed:
        return True
    if VARIES_AFTER.search(shown.string[shown.end() :]):
        return True
    if VARIES_BEFORE.search(shown.string[: shown.start()]):
        return True
    one, other = (float(number.replace(",", "")) for number in (shown[0], printed))
    if max(abs(one), abs(other)) < NOISE:
        return True
    if not re.search(r"[.eE]", shown[0]):
        return False
    mantissa, _, exponent = shown[0].lower().partition("e")
    digits = len(mantissa.partition(".")[2])
    if len(mantissa.replace(".", "").lstrip("-+0")) > FLOAT32:
        return abs(one - other) <= RELATIVE * abs(one)
    unit = 10.0 ** (int(exponent or 0) - digits)
    return abs(one - other) <= LAST_DIGITS * 1.001 * unit
