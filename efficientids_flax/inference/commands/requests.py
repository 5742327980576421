"""The requests of the command `recommend`: histories, from the command line or a file."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from efficientids_flax.commands.options import numbers
from efficientids_flax.inference.commands.raw_ids import RawIds


class Request(NamedTuple):
    """One history, and where it came from."""

    where: str
    ids: list[int]
    mask: list[int] | None
    exclude: list[int]


KEYS = ("items", "ids", "item_mask", "exclude", "raw_ids", "exclude_raw_ids")
RAW = {"raw_ids": "items", "exclude_raw_ids": "exclude"}  # what stands for what, by other names


def read_requests(path: str, raw: RawIds) -> Iterator[Request]:
    """The histories of a file.

    Args:
        path: `-` is standard input; UTF-8, perhaps with a byte order mark.
        raw: finds items by their raw ids.

    Raises:
        ValueError: naming the line that is none.
    """
    with click.open_file(path, "rb") as file:
        for number, content in enumerate(file, start=1):
            try:
                line = content.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line:
                    yield _request(f"{path}:{number}", line, raw)
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: is not UTF-8: {error}") from error
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}:{number}: {error}") from error


def _request(where: str, line: str, raw: RawIds) -> Request:
    if line[0] not in "[{":
        return Request(where, numbers(line), None, [])
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if isinstance(found, list):
        found = {"items": found}
    if unknown := sorted(found.keys() - {*KEYS}):
        raise ValueError(f"{unknown[0]}: unknown key; known are {', '.join(KEYS)}")
    for name, instead in RAW.items():
        value = found.pop(name, None)
        if value is None:
            continue
        if not isinstance(value, list) or any(type(one) not in (str, int) for one in value):
            raise ValueError(f"{name}: found {value!r}, expected a list of texts")
        if instead in found and instead != "exclude":
            raise ValueError(f"found {instead} and {name}; expected one of them")
        found[instead] = [*found.get(instead, []), *raw.items(value)]
    for name, value in found.items():
        if not isinstance(value, list) or any(type(number) is not int for number in value):
            raise ValueError(f"{name}: found {value!r}, expected a list of whole numbers")
    exclude = found.pop("exclude", [])
    if found.keys() == {"items"}:
        return Request(where, found["items"], None, exclude)
    if found.keys() == {"ids", "item_mask"}:
        return Request(where, found["ids"], found["item_mask"], exclude)
    raise ValueError(
        f"found {', '.join(sorted(found)) or 'no ids'}; expected items, or ids and item_mask"
    )


def masks_of(requests: list[Request]) -> list[list[int] | None] | None:
    """Which ids are items, where any history has words too; None for one of items alone."""
    masks = [request.mask for request in requests]
    return None if all(mask is None for mask in masks) else masks


def request_problems(config: Any, requests: list[Request], given: dict[str, Any]) -> list[str]:
    """What is wrong with requests, with their lines in place of numbers of histories."""
    from efficientids_flax.inference.prompts import exclude_problems, history_problems

    problems = history_problems(
        config,
        [request.ids for request in requests],
        masks_of(requests),
        exclude=[request.exclude for request in requests],
        max_history=given["max_history"],
    )
    named = exclude_problems([given["exclude"]], config.num_items)

    def place(found: re.Match[str]) -> str:
        return requests[int(found[1])].where or "the history"

    found = [re.sub(r"^history (\d+)", place, problem) for problem in problems]
    return found + [problem.replace("history 0: ", "--", 1) for problem in named]
