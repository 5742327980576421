"""A model is asked with the prompts of its training, token by token, without a tokenizer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, PromptConfig
from efficientids_flax.data.rows import HeldOut, Prompting, PromptRows, Sequences
from efficientids_flax.data.rows.held_out import Asked
from efficientids_flax.inference.around import trained_history
from efficientids_flax.inference.prompts import make_prompts
from efficientids_flax.stored import Prompted, read_item_words, read_prompted
from efficientids_flax.stored.item_words import write_item_words

ITEMS, LENGTH = 5, 40
TITLES = ["10 11", "12", "13 14 15", "16", "17"]


class Joined:
    """A tokenizer to which a text that ends in 7 and goes on with 8 is one word, 78."""

    bos_token_id, eos_token_id = 1, 2

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, Any]:
        assert not add_special_tokens
        whole = [text.replace("7 8", "78") for text in texts]
        return {"input_ids": [[int(word) for word in text.split()] for text in whole]}


def asked(prompting: Prompting, length: int = LENGTH, items: int = 6) -> PromptRows:
    """Three people; the last event of each is held out."""
    people = [[0, 1, 2, 3, 4, 0, 2, 1], [3, 2], [1, 1, 4]]
    users = np.repeat([0, 1, 2], [len(one) for one in people])
    splits = np.concatenate([[0] * (len(one) - 1) + [2] for one in people])
    sequences = Sequences.of_events(users, np.concatenate(people), splits, ITEMS)
    return PromptRows(HeldOut(sequences, Asked("test", items)), prompting, length, TITLES)


def config(prompted: Prompted, length: int = LENGTH) -> EfficientIDSConfig:
    backbone = BackboneConfig(
        vocab_size=200,
        model_dims=8,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=8,
        hidden_dims=8,
    )
    return EfficientIDSConfig(
        ITEMS, 4, num_clusters=2, backbone=backbone, trained_length=length, prompt=prompted.config
    )


FORMS = {
    "items alone": Prompting(Joined(), "{item}", begin=(), end=()),
    "title before": Prompting(Joined(), "8 {title} 9 {item} 7 ", before="3", after="4 5"),
    "title behind": Prompting(Joined(), "8 {item} {title} 7 ", before="3 7", end=()),
    "a placeholder": Prompting(Joined(), "{title} {item} ", begin=(0,), end=(1,), placeholder=3),
    "every item": Prompting(Joined(), "8 {item} {title} 7 ", before="3", end=(), learn="every"),
}


@pytest.mark.parametrize("length", [LENGTH, 14], ids=["whole", "cut"])
@pytest.mark.parametrize("name", FORMS)
def test_what_asks_is_what_was_evaluated(name: str, length: int):
    rows = asked(FORMS[name], length)
    wanted, prompted = rows.arrays(), rows.prompted()
    of = rows.of
    assert isinstance(of, HeldOut)
    places = zip(of.begins, of.targets, strict=True)
    histories = [of.sequences.items[begin:end] for begin, end in places]
    found = make_prompts(config(prompted, length), histories, max_history=6, words=prompted.words)
    for row, history in enumerate(histories):
        (place,) = np.flatnonzero(wanted["weights"][row] * wanted["label_item_weights"][row])
        assert found.last[row] == place
        for field in ("ids", "input_item_weights", "inputs_indicator"):
            np.testing.assert_array_equal(
                found.batch[field][row, : place + 1], wanted[field][row, : place + 1], field
            )
        assert found.seen[row][found.seen[row] >= 0].tolist() == history.tolist()
    if rows.prompting.placeholder is not None:
        time = min(length, found.batch["ids"].shape[1])
        np.testing.assert_array_equal(found.batch["ids"][:3, :time], wanted["ids"][:, :time])


def test_words_are_kept_in_a_file(tmp_path):
    rows = asked(FORMS["title behind"])
    prompted, model = rows.prompted(), config(rows.prompted())
    assert prompted.words is not None
    write_item_words(tmp_path, prompted.words)
    found = read_prompted(tmp_path, model)
    assert found is not None and found.config == prompted.config
    assert found.words is not None and vars(found.words) == vars(prompted.words)
    assert trained_history(model, found.words) == 6
    # Of items so many are used; words and items of one's own are as many ids as fit the row.
    with pytest.warns(UserWarning, match="1 of 2 histories have more than the 6 ids"):
        made = make_prompts(
            model, [[1] * 9, [9, 1] * 5], [None, [0, 1] * 5], words=found.words
        )  # fmt: skip
    assert [int(row.sum()) for row in made.batch["input_item_weights"]] == [6, 5]
    with pytest.raises(ValueError, match=r"item_words.npz: words of 5 items, the model has 6"):
        read_prompted(tmp_path, replace(model, num_items=6))
    (tmp_path / "item_words.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"item_words.npz: is no file of words around items"):
        read_item_words(tmp_path)
    (tmp_path / "item_words.npz").unlink()
    with pytest.raises(ValueError, match=r"trained on prompts with words .* is not there"):
        read_prompted(tmp_path, model)


def test_prompts_that_are_not_known_are_not_guessed():
    both = asked(Prompting(Joined(), "{title} {item} {title} ")).prompted()
    assert both == Prompted(PromptConfig(item_words=True))  # whose words are in no file
    with pytest.raises(ValueError, match=r"words: .* they are not given"):
        make_prompts(config(both), [[1, 2]])
    given = make_prompts(config(both), [[9, 2]], [[0, 1]])  # one's own words are taken as they are
    assert given.batch["ids"][0, :2].tolist() == [9, 2]
    empty = config(Prompted(PromptConfig()))
    with pytest.raises(ValueError, match=r"is empty, and so is the prompt"):
        make_prompts(empty, [[]])
