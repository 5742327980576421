"""The command: parse, load, recommend, print."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
import numpy as np

SCORES = ("probability", "log-probability", "original")


class Request(NamedTuple):
    """One history, and where it came from."""

    where: str
    ids: list[int]
    mask: list[int] | None
    exclude: list[int]


class Ids(click.ParamType):
    """Numbers with commas between them."""

    name = "ids"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """The numbers of a text; an empty text has none."""
        if isinstance(value, list):
            return value
        try:
            return _numbers(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    }
)
@click.option("--checkpoint", required=True, metavar="OUT", help="A converted recommender.")
@click.option("--clustering", metavar="FILE", help="Its clustering; OUT/clustering.npz otherwise.")
@click.option("--input-items", type=Ids(), help='Item ids, oldest first: "1,2,3".')
@click.option("--input-ids", type=Ids(), help="Words and items, with --item-mask.")
@click.option("--item-mask", type=Ids(), help="1 where --input-ids has an item, 0 for a word.")
@click.option(
    "--input-file",
    metavar="FILE",
    help='Many histories, one a line: 1,2,3 or {"items": [1, 2], "exclude": [7]} or '
    '{"ids": [5, 2], "item_mask": [0, 1]}. - is standard input.',
)
@click.option(
    "--top-k", type=click.IntRange(min=1), default=10, show_default=True, help="How many items."
)
@click.option("--exclude-seen", is_flag=True, help="Leave out the items of the history.")
@click.option("--exclude", type=Ids(), default="", help="Further items to leave out.")
@click.option("--max-history", type=click.IntRange(min=1), help="Use only so many of the last ids.")
@click.option(
    "--scores",
    type=click.Choice(SCORES),
    default="probability",
    show_default=True,
    help="What is printed; 'original' also ranks by the original's evaluation scores.",
)
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16", "float16")),
    help="Of the computation; as configured otherwise.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Histories at a time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a history.")
def main(checkpoint: str, clustering: str | None, as_json: bool, **given: Any) -> None:
    """Print the items that come next after a history, best first."""
    single = _checked(given)
    try:
        requests = [single] if single else list(_read(given["input_file"]))
        if not requests:
            raise ValueError(f"{given['input_file']}: holds no history")
        for line in _answers(checkpoint, clustering, requests, as_json, given):
            click.echo(line)
    except (OSError, ValueError, MemoryError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def _checked(given: dict[str, Any]) -> Request | None:
    """The history of the command line; None where there is a file."""
    ways = ("input_items", "input_ids", "input_file")
    present = [name for name in ways if given[name] is not None]
    flags = [f"--{name.replace('_', '-')}" for name in (present or ways)]
    if len(present) != 1:
        raise click.UsageError(f"give one of {', '.join(flags)}")
    if (given["input_ids"] is None) != (given["item_mask"] is None):
        raise click.UsageError("--input-ids and --item-mask go together")
    if present == ["input_file"]:
        return None
    return Request("", given[present[0]], given["item_mask"], [])


def _read(path: str) -> Iterator[Request]:
    """The histories of a file.

    Raises:
        ValueError: naming the line that is none.
    """
    with click.open_file(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _request(f"{path}:{number}", line.strip())
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}:{number}: {error}") from error


def _request(where: str, line: str) -> Request:
    if line[0] not in "[{":
        return Request(where, _numbers(line), None, [])
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if isinstance(found, list):
        found = {"items": found}
    if unknown := sorted(found.keys() - {"items", "ids", "item_mask", "exclude"}):
        raise ValueError(f"{unknown[0]}: unknown key; known are items, ids, item_mask, exclude")
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


def _answers(
    checkpoint: str,
    clustering: str | None,
    requests: list[Request],
    as_json: bool,
    given: dict[str, Any],
) -> Iterator[str]:
    """The lines to print; all requests are looked at before the first."""
    from efficientids_flax.backbone import Decoder
    from efficientids_flax.inference.prompts import raise_problems
    from efficientids_flax.inference.ranker import Ranker
    from efficientids_flax.stored import load_model

    model, params, _ = load_model(checkpoint, clustering, dtype=given["dtype"])
    if isinstance(model, Decoder):
        raise ValueError(f"{checkpoint}: is a language model; it has no items to recommend")
    scoring = "original" if given["scores"] == "original" else "log_probs"
    raise_problems(_problems(model.config, requests, given))
    ranker = Ranker(model, params)
    for start in range(0, len(requests), given["batch_size"]):
        part = requests[start : start + given["batch_size"]]
        found = ranker.recommend(
            [request.ids for request in part],
            given["top_k"],
            item_masks=_masks(part),
            exclude_seen=given["exclude_seen"],
            exclude=[request.exclude + given["exclude"] for request in part],
            scoring=scoring,
            max_history=given["max_history"],
        )
        show = _json if as_json else _text
        for request, ids, scores in zip(part, found.ids, found.scores, strict=True):
            shown = np.exp(scores) if given["scores"] == "probability" else scores
            left = [(int(i), float(s)) for i, s in zip(ids, shown, strict=True) if i >= 0]
            yield show(request, left, given["scores"])


def _masks(requests: list[Request]) -> list[list[int]] | None:
    if all(request.mask is None for request in requests):
        return None
    return [[1] * len(one.ids) if one.mask is None else one.mask for one in requests]


def _problems(config: Any, requests: list[Request], given: dict[str, Any]) -> list[str]:
    """What is wrong with requests, with their lines in place of numbers of histories."""
    from efficientids_flax.inference.prompts import exclude_problems, history_problems

    problems = history_problems(
        config,
        [request.ids for request in requests],
        _masks(requests),
        exclude=[request.exclude for request in requests],
        max_history=given["max_history"],
    )
    named = exclude_problems([given["exclude"]], config.num_items)

    def place(found: re.Match[str]) -> str:
        return requests[int(found[1])].where or "the history"

    found = [re.sub(r"^history (\d+)", place, problem) for problem in problems]
    return found + [problem.replace("history 0: ", "--", 1) for problem in named]


def _json(request: Request, left: list[tuple[int, float]], name: str) -> str:
    about: dict[str, Any] = {"line": request.where} if request.where else {}
    about["items"] = [item for item, _ in left]
    about[name.replace("-", "_")] = [score for _, score in left]
    return json.dumps(about)


def _text(request: Request, left: list[tuple[int, float]], name: str) -> str:
    rows = [("rank", "item", name)]
    rows += [(str(rank), str(item), f"{score:.6g}") for rank, (item, score) in enumerate(left, 1)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([request.where, *lines] if request.where else lines)


def _numbers(text: str) -> list[int]:
    found = []
    for part in text.split(",") if text.strip() else []:
        try:
            found.append(int(part))
        except ValueError as error:
            raise ValueError(f"{part.strip()!r} is not a whole number, in {text!r}") from error
    return found
