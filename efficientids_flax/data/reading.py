"""How rows are made of people's sequences: those of training, of validation, of the test."""

from collections.abc import Mapping
from dataclasses import dataclass

from efficientids_flax.data.rows import (
    HeldOut,
    ItemRows,
    PackedRows,
    Prompting,
    PromptRows,
    Rows,
    Sequences,
)
from efficientids_flax.data.rows.held_out import Asked, Targets
from efficientids_flax.data.rows.windows import Kind, WindowRows, Windows
from efficientids_flax.prepared_format import SPLITS, Split
from efficientids_flax.stored import ItemNames

EVALUATED: Mapping[str, Split] = {"eval": "valid", "test": "test"}
LENGTH = 50


@dataclass(frozen=True)
class Reading:
    """What is made of a directory.

    Attributes:
        length: T, of the rows; None: 50, or the longest example that is stored.
        windows, stride: of training, see `Windows`.
        targets: of evaluation, see `Asked`.
        exclude_seen: evaluation rows come with what a person had seen before them, see `Asked`.
        item_masks: say of each id that it is an item, for models that know words too.
        prompting: texts between the items; None: items alone.
        pack: several training rows in one.
        overflow: of a stored example that is longer than T: 'error', or 'cut', which drops the
            oldest of its prompt.
        share: (index, count) of processes: read the shards of this one alone, so that the rows of
            training are then its own; None: all.
        verify: compare the files of a prepared directory with its digests.
    """

    length: int | None = None
    windows: Kind = "all"
    stride: int | None = None
    targets: Targets = "all"
    exclude_seen: bool = False
    item_masks: bool = False
    prompting: Prompting | None = None
    pack: bool = False
    overflow: str = "error"
    share: tuple[int, int] | None = None
    verify: bool = False


def rows_of(
    sequences: Sequences | Mapping[Split, Sequences],
    reading: Reading,
    items: ItemNames | None = None,
) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """The rows of each split that has an event, and what is to be said of them.

    Args:
        sequences: of all splits together, or of each.
        reading: what is made of them.
        items: what they are called; prompts may name them.

    Returns:
        ('train', and perhaps 'eval' and 'test' -> rows, notes).

    Raises:
        ValueError: nothing to train on; a split whose events ask for nothing.
    """
    length = reading.length or LENGTH
    prompting = reading.prompting
    # A prompt takes its window's items, however many tokens they become.
    of_window = length if prompting is None or prompting.items is None else prompting.items
    given: Mapping[Split, Sequences]
    given = dict.fromkeys(SPLITS, sequences) if isinstance(sequences, Sequences) else sequences

    def made(of: WindowRows | HeldOut) -> Rows:
        if prompting is not None:
            return PromptRows(of, prompting, length, items and items.titles)
        return ItemRows(of) if reading.item_masks else of

    train = made(WindowRows(given["train"], Windows(of_window, reading.windows, reading.stride)))
    rows = {"train": PackedRows(train, length) if reading.pack else train}
    notes = list(rows["train"].notes)
    for name, split in EVALUATED.items():
        if split not in given or not given[split].count(split):
            notes.append(f"{split}: has no event; there is nothing to evaluate on")
            continue
        asked = Asked(split, of_window, reading.targets, reading.exclude_seen)
        rows[name] = made(HeldOut(given[split], asked))
        notes += rows[name].notes
    return rows, tuple(notes)
