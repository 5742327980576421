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
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.]*\w)|\d+\.?\d*(?=s\b)")
VARIES_AFTER = re.compile(r"^ ?(s|ms|us|min|h)\b|^ ?[\w.]*/s\b|^:\d\d left|^ left")
VARIES_BEFORE = re.compile(r'(per_second|seconds|time|mfu)"?: $|\d:$')
PARITY_ROW = re.compile(
    r"^(?P<name>(?:\S+ )?\S+ (?:\S+)) (?P<abs>\S+) (?P<rel>\S+) (?P<allowed>\S+) (?P<ulps>\d+) ok$"
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
        return all(rows[0][part] == rows[1][part] for part in ("name", "allowed"))
    if "..." in shown:
        return _elided_alike(shown, printed)
    return _parts_alike(shown, printed)


def _elided_alike(shown: str, printed: str) -> bool:
    """The pieces between `...` come in their order; the first begins the line, the last ends it."""
    first, *rest = shown.split("...")
    return any(
        _parts_alike(first, printed[:end]) and _rest_alike(rest, printed[end:])
        for end in range(len(printed) + 1)
    )


def _rest_alike(pieces: list[str], printed: str) -> bool:
    piece, *rest = pieces
    if not rest:
        return not piece or any(
            _parts_alike(piece, printed[start:]) for start in range(len(printed))
        )
    return any(
        _parts_alike(piece, printed[start:end]) and _rest_alike(rest, printed[end:])
        for start in range(len(printed) + 1)
        for end in range(start, len(printed) + 1)
    )


def _parts_alike(shown: str, printed: str) -> bool:
    if shown == printed:
        return True
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    pairs = zip(NUMBER.finditer(shown), NUMBER.finditer(printed), strict=True)
    return all(_number_alike(one, other) for one, other in pairs)


def _number_alike(shown: re.Match[str], printed: re.Match[str]) -> bool:
    if shown[0] == printed[0]:
        return True
    if VARIES_AFTER.search(shown.string[shown.end() :]):
        return True
    if VARIES_BEFORE.search(shown.string[: shown.start()]):
        return True
    one, other = (float(number[0].replace(",", "")) for number in (shown, printed))
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
