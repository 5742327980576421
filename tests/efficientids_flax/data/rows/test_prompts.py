"""Prompts: token by token what the original's sequence builder made, which its recordings hold."""

from typing import Any

import numpy as np
import pytest

from efficientids_flax.data import Example, PromptBuilder
from efficientids_flax.data.rows import HeldOut, PackedRows, Prompting, PromptRows, Sequences
from efficientids_flax.data.rows.held_out import Asked
from efficientids_flax.data.rows.windows import WindowRows, Windows
from tests.efficientids_flax.data.sequences import recorded, unpacked

T, ITEMS, PLACEHOLDER = 24, 61, 102
ORIGINAL: dict[str, Any] = {"begin": (0,), "end": (1,), "placeholder": PLACEHOLDER}


class Words:
    """A tokenizer of numbers; counts the texts that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, Any]:
        assert not add_special_tokens
        self.asked += texts
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def example(row: dict[str, list[int]]) -> Example:
    """Texts and items that a recorded row stands for."""
    parts: dict[int, list[Any]] = {1: [], 0: []}
    for place in range(1, len(row["ids"]) - 1):  # without <sos> and <eos>
        item = row["input_item_weights"][place]
        target = row["labels"][place - 1] if item else None
        parts[row["inputs_indicator"][place]].append(target if item else str(row["ids"][place]))
    return Example(parts[1], parts[0])


@pytest.mark.parametrize("name", ["interleaved", "packed"])
def test_the_builder_makes_the_recorded_batch(name: str):
    """Every field of every position; packed ones land in the rows that the recording has."""
    wanted = recorded(name)
    examples = [example(row) for row in unpacked(wanted)]
    builder = PromptBuilder(Words(), ITEMS, **ORIGINAL)
    found = builder.batch(examples, T, pack=name == "packed")
    names = found.keys() & wanted.keys()
    assert len(names) >= 7
    for field in names:
        np.testing.assert_array_equal(found[field], wanted[field], err_msg=field)
    assert builder.sizes(examples) == [len(row["ids"]) for row in unpacked(wanted)]
    # prefix_lengths, which need not be made: the tokens of the prompts.
    lengths = wanted["prefix_lengths"]
    if lengths.ndim == 1:
        assert lengths.tolist() == found["inputs_indicator"].sum(axis=1).tolist()


def test_histories_become_the_recorded_rows():
    """Rows 0 and 2 of the recording: <sos> 51, each item followed by 58, the target, <eos>."""
    wanted = recorded("interleaved")
    people = [
        [i for i, is_item in zip(row["labels"], row["label_item_weights"], strict=True) if is_item]
        for row in unpacked(wanted)
    ]
    history = [
        [i for i, kind, prompt in zip(
            row["ids"], row["input_item_weights"], row["inputs_indicator"], strict=True
        ) if kind and prompt]
        for row in unpacked(wanted)
    ]  # fmt: skip
    chosen = [0, 2]
    events = [history[row] + people[row] for row in chosen]
    users = np.repeat([0, 1], [len(one) for one in events])
    items = np.concatenate(events)
    told = Prompting(Words(), form="{item} 58 ", before="51", **ORIGINAL)

    train = Sequences.of_events(users, items, np.zeros(len(users), int), ITEMS)
    rows = PromptRows(WindowRows(train, Windows(T, "last")), told, T)
    splits = np.concatenate([[0] * (len(one) - 1) + [2] for one in events])
    tested = HeldOut(Sequences.of_events(users, items, splits, ITEMS),
                     Asked("test", T, exclude_seen=True))  # fmt: skip
    asked = PromptRows(tested, told, T).arrays()
    assert np.all(asked.pop("exclude") < 0)  # the rows hold all that was seen
    for found in (rows.arrays(), asked):
        for field in found.keys() & wanted.keys():
            np.testing.assert_array_equal(found[field], wanted[field][chosen], err_msg=field)
    assert rows.sizes.tolist() == [len(unpacked(wanted)[row]["ids"]) for row in chosen]
    packed = PackedRows(rows, T)
    assert (packed.num_rows, packed.efficiency) == (1, pytest.approx(20 / 24))
    assert packed.arrays()["segment_ids"][0].tolist() == [1] * 8 + [2] * 12 + [0] * 4


def test_texts_are_tokenised_once_and_titles_named():
    users, items = np.zeros(4, int), np.array([2, 0, 2, 1])
    made = WindowRows(Sequences.of_events(users, items, users, 3), Windows(8, "prefixes"))
    words = Words()
    rows = PromptRows(made, Prompting(words, "{title} {item} ", after="9"), 8, ["5", "6", "7 7"])
    first = rows.take(np.array([2]))["ids"][0].tolist()
    assert first == [7, 7, 2, 5, 0, 7, 7, 2, 9, 1][-8:]  # the oldest is cut off
    asked = len(words.asked)
    rows.take(np.array([2, 2]))
    assert len(words.asked) == asked == len(set(words.asked))
    with pytest.raises(ValueError, match=r"form: .* by their titles, and 1 have none, item 1 for"):
        PromptRows(made, Prompting(words), 8, ["5", None, "7"])
    with pytest.raises(ValueError, match=r"test: a prompt asks for one item, .* targets 'first'"):
        several = Sequences.of_events(users, items, np.array([0, 0, 2, 2]), 3)
        PromptRows(HeldOut(several, Asked("test", 8)), Prompting(words, form="{item}"), 8)


def every(form: str = "8 {item} {title} ", **given: Any) -> Prompting:
    return Prompting(Words(), form, before="9", begin=(3,), end=(), learn="every", **given)


def test_every_item_is_learned_in_the_place_where_the_last_one_is_asked():
    """3 9 8 item TITLE 8 item TITLE 8 item: the items behind the first are labels, no word is."""
    people = np.zeros(5, int), np.array([2, 0, 1, 2, 0]), np.array([0, 0, 0, 1, 2])
    sequences = Sequences.of_events(*people, 3)
    titles = ["5", "6", "7 7"]
    train = PromptRows(WindowRows(sequences, Windows(4, "all")), every(), 12, titles)
    row = {name: values[0].tolist() for name, values in train.arrays().items()}
    assert row["ids"] == [3, 9, 8, 2, 7, 7, 8, 0, 5, 8, 1, 0]
    assert row["input_item_weights"] == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0]
    assert row["weights"] == row["label_item_weights"] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0]
    assert [row["labels"][place] for place in (6, 9)] == [0, 1]
    assert train.notes == () and train.sizes.tolist() == [11]
    # The row of the test has the same before its item, and asks for that one alone.
    test = PromptRows(HeldOut(sequences, Asked("test", 3)), every(), 16, titles)
    asked = {name: values[0].tolist() for name, values in test.arrays().items()}
    assert asked["ids"] == [3, 9, 8, 0, 5, 8, 1, 6, 8, 2, 7, 7, 8, 0, 0, 0]
    assert np.flatnonzero(asked["weights"]).tolist() == [12] and asked["labels"][12] == 0
    # What a person has seen and the row has not is told beside it.
    within = HeldOut(sequences, Asked("test", 3, exclude_seen=True))
    for length, wanted in ((16, [2]), (7, [2, 0, 1])):
        row = PromptRows(within, every(), length, titles).arrays()
        assert row["exclude"][row["exclude"] >= 0].tolist() == wanted
    # What does not fit loses its oldest items and labels, and is counted; never its last one.
    short = PromptRows(WindowRows(sequences, Windows(4, "all")), every(), 4, titles)
    assert short.arrays()["ids"].tolist() == [[3, 5, 8, 1]]
    assert short.arrays()["weights"].tolist() == [[0, 0, 1, 0]]
    assert short.notes == (
        "train: 1 of 1 prompts have more than 4 tokens, up to 11, and are cut (a larger length"
        " keeps them, or fewer items of a history)",
    )


def test_an_item_is_not_told_by_its_title():
    with pytest.raises(ValueError, match=r"form: .* has the title before its item, which learn"):
        every("{title} {item}")
    with pytest.raises(ValueError, match=r"form: .* has \{item\} 2 times; learn 'every' needs"):
        every("{item} {item}")
    with pytest.raises(ValueError, match=r"after: '4' stands only before the last item"):
        every(after="4")
    with pytest.raises(ValueError, match=r"placeholder: 2 would hide the items"):
        every(placeholder=2)
    people = np.zeros(3, int), np.array([0, 1, 2]), np.zeros(3, int)
    windows = WindowRows(Sequences.of_events(*people, 3), Windows(4, "prefixes"))
    with pytest.raises(ValueError, match=r"windows: 'prefixes' has a row for each item"):
        PromptRows(windows, every("{item}"), 8)
