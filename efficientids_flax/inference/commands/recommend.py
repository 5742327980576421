"""The command `recommend`, which is `python -m efficientids_flax.inference` too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from efficientids_flax.commands import combined, command, echo, is_quiet
from efficientids_flax.commands.options import Ids, Texts, compute_dtype, count, max_history
from efficientids_flax.commands.options import clustering as clustering_option
from efficientids_flax.inference.commands.raw_ids import RawIds
from efficientids_flax.inference.commands.requests import (
    Request,
    masks_of,
    read_requests,
    request_problems,
)
from efficientids_flax.text import readable, table

if TYPE_CHECKING:
    from efficientids_flax.stored import ItemNames

SCORES = ("probability", "log-probability", "original")


class Scores(click.Choice[str]):
    """One of `SCORES`; `-` and `_` are alike."""

    def normalize_choice(self, choice: Any, ctx: click.Context | None) -> str:
        """As `SCORES` has it."""
        return str(super().normalize_choice(choice, ctx)).replace("_", "-")


OPTIONS = combined(
    click.option("--checkpoint", required=True, metavar="OUT", help="A converted recommender."),
    clustering_option,
    click.option("--input-items", type=Ids(), help='Item ids, oldest first: "1,2,3".'),
    click.option("--input-raw-ids", type=Texts(),
                 help='Ids of the catalogue: "tt1,tt2".'),
    click.option("--input-ids", type=Ids(), help="Words and items, with --item-mask."),
    click.option("--item-mask", type=Ids(), help="1 where --input-ids has an item, 0 for a word."),
    click.option("--input-file", metavar="FILE",
                 help='Many histories, one a line: 1,2,3 or {"items": [1, 2], "exclude": [7]} or '
                      '{"raw_ids": ["tt1"]} or {"ids": [5, 2], "item_mask": [0, 1]}. - is standard '
                      'input.'),
    count("--top-k", "How many items.", 10),
    click.option("--exclude-seen", is_flag=True, help="Leave out the items of the history."),
    click.option("--exclude", type=Ids(), default="", help="Items to leave out."),
    click.option("--exclude-raw-ids", type=Texts(), default="", help="Items to leave out, by ids "
                                                                     "of the catalogue."),
    max_history,
    click.option("--scores", type=Scores(SCORES), default="probability", show_default=True,
                 help="What is printed; 'original' also ranks by the original's evaluation "
                      "scores."),
    count("--clusters",
          "Approximate: search only the N best clusters of each history."),
    compute_dtype,
    count("--batch-size", "Histories at a time.", 64),
)  # fmt: skip


@command("recommend")
@OPTIONS
def recommend(checkpoint: str, clustering: str | None, as_json: bool, **given: Any) -> None:
    """Recommend the next items of a history, best first.

    With --json, one object for each history.
    """
    _check(given)
    from efficientids_flax.stored import read_item_names

    names = read_item_names(checkpoint)
    raw = RawIds(checkpoint, names)
    if given["exclude_raw_ids"]:
        given["exclude"] = given["exclude"] + raw.items(given["exclude_raw_ids"])
    requests = list(_requests(given, raw))
    if not requests:
        raise ValueError(f"{given['input_file']}: holds no history")
    fewer = 0
    for request, left in _answers(checkpoint, clustering, requests, given):
        name = given["scores"]
        echo(as_json, _json(request, left, name, names), _text(request, left, name, names))
        fewer += len(left) < given["top_k"]
    if fewer and not is_quiet():
        click.echo(_told_fewer(fewer, len(requests), given), err=True)


def _told_fewer(fewer: int, histories: int, given: dict[str, Any]) -> str:
    """That lists are shorter than was asked for, and why that may be."""
    of = f"{fewer} of {histories} histories have" if histories > 1 else "the history has"
    why = "the others are left out"
    if given["clusters"] is not None:
        why += f", or in none of the {given['clusters']} clusters that are looked at (--clusters)"
    return f"{of} fewer items than --top-k {given['top_k']}: {why}"


def _check(given: dict[str, Any]) -> None:
    """Raises UsageError if there is not one way in which histories are given."""
    ways = ("input_items", "input_ids", "input_file", "input_raw_ids")
    present = [name for name in ways if given[name] is not None]
    flags = [f"--{name.replace('_', '-')}" for name in (present or ways)]
    if len(present) != 1:
        raise click.UsageError(f"give one of {', '.join(flags)}")
    if (given["input_ids"] is None) != (given["item_mask"] is None):
        raise click.UsageError("--input-ids and --item-mask go together")


def _requests(given: dict[str, Any], raw: RawIds) -> Iterator[Request]:
    """The history of the command line, or those of the file."""
    if given["input_file"] is not None:
        yield from read_requests(given["input_file"], raw)
    elif given["input_raw_ids"] is not None:
        yield Request("", raw.items(given["input_raw_ids"]), None, [])
    else:
        ids = given["input_items"] if given["input_ids"] is None else given["input_ids"]
        yield Request("", ids, given["item_mask"], [])


def _answers(
    checkpoint: str,
    clustering: str | None,
    requests: list[Request],
    given: dict[str, Any],
) -> Iterator[tuple[Request, list[tuple[int, float]]]]:
    """Each request with its items and scores; all are looked at before the first is asked."""
    from efficientids_flax.inference.around import longer_than, trained_histories
    from efficientids_flax.inference.opening import open_recommender
    from efficientids_flax.inference.prompts import raise_problems
    from efficientids_flax.inference.ranker import Ranker
    from efficientids_flax.stored import read_prompted

    model, params = open_recommender(checkpoint, clustering, given["dtype"])
    prompted = read_prompted(checkpoint, model.config)
    words = None if prompted is None else prompted.words
    scoring = "original" if given["scores"] == "original" else "log_probs"
    most = [given["max_history"]] * len(requests)
    if given["max_history"] is None:
        histories = [request.ids for request in requests]
        most = trained_histories(model.config, histories, masks_of(requests), words)
        told = longer_than(most, histories)
        if told and not is_quiet():
            click.echo(told.replace("max_history", "--max-history"), err=True)
    raise_problems(request_problems(model.config, requests, {**given, "max_history": most}))
    ranker = Ranker(model, params, words)
    for start in range(0, len(requests), given["batch_size"]):
        part = requests[start : start + given["batch_size"]]
        found = ranker.recommend(
            [request.ids for request in part],
            given["top_k"],
            item_masks=masks_of(part),
            exclude_seen=given["exclude_seen"],
            exclude=[request.exclude + given["exclude"] for request in part],
            scoring=scoring,
            clusters=given["clusters"],
            max_history=most[start : start + given["batch_size"]],
        )
        for request, ids, scores in zip(part, found.ids, found.scores, strict=True):
            shown = np.exp(scores) if given["scores"] == "probability" else scores
            left = [(int(i), float(s)) for i, s in zip(ids, shown, strict=True) if i >= 0]
            yield request, left


def _json(
    request: Request, left: list[tuple[int, float]], name: str, names: ItemNames | None
) -> dict[str, Any]:
    about: dict[str, Any] = {"line": request.where} if request.where else {}
    about["items"] = [item for item, _ in left]
    if names is not None:
        about["item_ids"] = [names.ids[item] for item, _ in left]
        about["titles"] = [names.titles[item] for item, _ in left]
    about[name.replace("-", "_")] = [score for _, score in left]
    return about


def _text(
    request: Request, left: list[tuple[int, float]], name: str, names: ItemNames | None
) -> str:
    named = ("id", "title") if names is not None else ()
    rows = [("rank", "item", name, *named)]
    for rank, (item, score) in enumerate(left, 1):
        told = () if names is None else (names.ids[item], names.titles[item])
        texts = ("" if text is None else readable(str(text)) for text in told)
        rows.append((str(rank), str(item), f"{score:.6g}", *texts))
    return f"{request.where}\n{table(rows)}" if request.where else table(rows)
