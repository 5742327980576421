"""How users' sequences become the rows of training, validation and test."""

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
    """How a directory of data becomes rows.

    Attributes:
        length: T of the rows; None: 50, or the longest stored example.
        windows, stride: how training rows are cut, see `Windows`.
        targets: what evaluations ask for, see `Asked`.
        exclude_seen: add to evaluation rows what the user has seen before them, see `Asked`.
        item_masks: add masks that mark each id as an item, for models with words.
        prompting: texts between the items; None: items alone.
        pack: put several training rows into one.
        overflow: for a stored example that is longer than T: 'error', or 'cut', which drops the
            oldest tokens of its prompt.
        share: (index, count) of processes: read only the shards of this process, and train on
            them; None: all.
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
    """The rows of each split that has events, and notes about what was left out.

    Args:
        sequences: sequences of all splits together, or of each split.
        reading: how they become rows.
        items: names of the items, for prompts.

    Returns:
        ('train', and possibly 'eval' and 'test' -> rows, notes).

    Raises:
        ValueError: there is nothing to train on, or a split gives no evaluation row.
    """
    length = reading.length or LENGTH
    prompting = reading.prompting
    # A prompt contains its window's items, whatever number of tokens that makes.
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
