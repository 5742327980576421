"""Texts and items as batches: every field against what each row says, and mistakes by name."""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.batch import check_batch
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.data import Example, load_tokenizer, titled
from efficientids_flax.data.interleave import PromptBuilder
from efficientids_flax.inference.ranker import Ranker

ITEMS, WORDS, BEGIN, END = 20, 9, 1, 2
CONFIG = EfficientIDSConfig(
    backbone=BackboneConfig(
        vocab_size=WORDS, num_layers=1, model_dims=4, hidden_dims=4, num_heads=1, num_kv_heads=1,
        head_dim=4,
    ),
    num_items=ITEMS, item_embedding_dim=4, full_softmax=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of words, written and read as every pretrained one."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = ["<unk>", "<s>", "</s>", "watched", "then", "next", "alien", "brazil", "cube"]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    # One that adds <s> by itself, as most do: the builder must not get it twice.
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BEGIN)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return load_tokenizer(folder)


def builder(tokenizer: Any, **fields: Any) -> PromptBuilder:
    return PromptBuilder(tokenizer, ITEMS, vocab_size=WORDS, **fields)


FILMS = ["alien", "brazil", "cube"]
EXAMPLES = [
    Example(["watched", *titled([0, 2], FILMS, "{title} {item} then "), "next"], [1]),
    Example([], ["alien", 0]),
]


def test_a_row_by_hand(tokenizer: Any) -> None:
    found = builder(tokenizer).batch(EXAMPLES, length=13)
    # <s> watched alien [0] then cube [2] then next | [1] </s>
    expected = {
        "ids":                [1, 3, 6, 0, 4, 8, 2, 4, 5, 1, 2, 0, 0],
        "input_item_weights": [0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0],
        "inputs_indicator":   [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
        "labels":             [3, 6, 0, 4, 8, 2, 4, 5, 1, 2, 0, 0, 0],
        "label_item_weights": [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        "weights":            [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0],
        "paddings":           [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        "segment_ids":        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
        "segment_pos":        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0],
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name][0].tolist() == values, name
    check_batch(CONFIG, found, labels=True)


def test_the_placeholder_stands_for_the_answer(tokenizer: Any) -> None:
    found = builder(tokenizer, placeholder=17).batch(EXAMPLES)
    own = builder(tokenizer).batch(EXAMPLES)
    answers = (own["input_item_weights"] > 0) & (own["inputs_indicator"] == 0)
    assert (found["ids"][answers] == 17).all()
    assert (found["ids"][~answers] == own["ids"][~answers]).all()
    np.testing.assert_array_equal(found["labels"], own["labels"])


PARTS = st.one_of(st.sampled_from(FILMS), st.integers(0, ITEMS - 1))
EXAMPLE = st.builds(
    Example, st.lists(PARTS, max_size=6), st.lists(PARTS, min_size=1, max_size=3)
)  # fmt: skip


@settings(deadline=None, max_examples=60, derandomize=True)
@given(examples=st.lists(EXAMPLE, min_size=1, max_size=6), layout=st.sampled_from("LRP"))
def test_rows_say_the_same_on_either_side_and_packed(
    tokenizer: Any, examples: list[Example], layout: str
) -> None:
    """Each example's tokens, wherever they lie: its segment is what it is alone."""
    length = 16
    chosen = builder(tokenizer, padding="left" if layout == "L" else "right")
    found = chosen.batch(examples, length, pack=layout == "P")
    check_batch(CONFIG, found, labels=True)
    assert all(not values[found["paddings"] > 0].any() for name, values in found.items()
               if name != "paddings")  # fmt: skip
    rows = []
    for row, segments in enumerate(found["segment_ids"]):
        for segment in range(1, segments.max() + 1):
            here = segments == segment
            assert np.diff(np.flatnonzero(here)).max(initial=1) == 1
            rows.append({name: values[row][here].tolist() for name, values in found.items()})
    alone = [builder(tokenizer).batch([example]) for example in examples]
    wanted = [{name: values[0].tolist() for name, values in one.items()} for one in alone]
    for row in [*rows, *wanted]:
        row.pop("segment_ids")
    assert sorted(map(str, rows)) == sorted(map(str, wanted))
    if layout == "P":
        assert len(found["ids"]) <= len(examples)


def test_what_is_cut_is_the_oldest_of_the_prompt(tokenizer: Any) -> None:
    found = builder(tokenizer).batch(EXAMPLES[:1], 6, overflow="cut")
    assert found["ids"][0].tolist() == [1, 2, 4, 5, 1, 2]  # <s> [2] then next [1] </s>
    assert found["segment_pos"][0].tolist() == list(range(6))
    with pytest.raises(ValueError, match="example 0: 11 tokens, length is 6; overflow='cut'"):
        builder(tokenizer).batch(EXAMPLES, 6)
    with pytest.raises(ValueError, match="example 0: 3 tokens without its prompt, length is 2"):
        builder(tokenizer).batch(EXAMPLES[:1], 2, overflow="cut")


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("placeholder", [None, 17])
def test_prompts_ask_behind_their_last_token(
    tokenizer: Any, padding: str, placeholder: int | None
) -> None:
    made = builder(tokenizer, padding=padding, placeholder=placeholder)
    found = made.prompts([["watched", 3, 5], [7]])
    rows = np.arange(2)
    assert found.batch["ids"][rows, found.last].tolist() == [5, 7]
    assert found.batch["input_item_weights"][rows, found.last].tolist() == [1, 1]
    assert found.batch["segment_pos"][rows, found.last].tolist() == [3, 1]
    assert found.seen.tolist() == [[3, 5], [7, -1]]
    behind = (found.batch["paddings"] == 0) & (found.batch["inputs_indicator"] == 0)
    assert found.batch["ids"][behind].tolist() == ([] if placeholder is None else [17, END] * 2)
    check_batch(CONFIG, found.batch)


def test_prompts_are_ranked_as_histories_are(tokenizer: Any) -> None:
    """With the original's words around them, they are the original's sequences."""
    model = EfficientIDSModel(config=CONFIG)
    one = np.zeros((1, 1), np.int32)
    params = model.init(jax.random.key(0), one, one, one)["params"]
    ranker = Ranker(model, params)
    made = builder(tokenizer, begin=(0,), end=(1,), placeholder=CONFIG.placeholder_item_id)
    found = ranker.rank(made.prompts([["alien", 3, "cube", 5], [7]]), k=4, exclude_seen=True)
    histories, masks = [[6, 3, 8, 5], [7]], [[0, 1, 0, 1], [1]]
    wanted = ranker.recommend(histories, k=4, item_masks=masks, exclude_seen=True)
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)


def test_words_around_an_example(tokenizer: Any) -> None:
    found = builder(tokenizer, begin=(), end=(4, 2)).batch([Example([3], [5])])
    assert found["ids"][0].tolist() == [3, 5, 4, 2]


def test_every_mistake_is_named(tokenizer: Any) -> None:
    wrong: list[Example] = [
        Example(["watched", 20, -1], [1.5, True]),  # pyright: ignore[reportArgumentType]
        Example(["watched"]),
    ]
    with pytest.raises(ValueError, match="examples: 5 problems:") as error:
        builder(tokenizer).batch(wrong)
    for sentence in (
        "example 0, prompt part 1: item 20 is outside of [0, 20)",
        "example 0, prompt part 2: item -1 is outside of [0, 20)",
        "example 0, answer part 0: found 1.5, expected a text or an item id",
        "example 0, answer part 1: found True, expected a text or an item id",
        "example 1: has no answer",
    ):
        assert sentence in str(error.value)
    small = PromptBuilder(tokenizer, ITEMS, vocab_size=6)
    with pytest.raises(ValueError, match=r"the tokenizer's word 6 is outside of \[0, 6\), the mod"):
        small.prompts([["alien"]])
    with pytest.raises(ValueError, match="pack: needs a length, and padding on the right"):
        builder(tokenizer).batch(EXAMPLES, pack=True)
    with pytest.raises(ValueError, match="example 0: is empty"):
        builder(tokenizer, begin=()).prompts([[]])
    with pytest.raises(ValueError, match="padding: expected 'right' or 'left', found 'both'"):
        builder(tokenizer, padding="both")


def test_titles() -> None:
    assert titled([0, 2], FILMS) == ["alien ", 0, ", cube ", 2, ", "]
    assert titled([7], {7: "heat"}, "{item}: {title}") == [7, ": heat"]
    with pytest.raises(ValueError, match="titles: there is none of item 3"):
        titled([3], FILMS)
    with pytest.raises(ValueError, match=r"form: found \{year\}, expected \{title\} and \{item\}"):
        titled([0], FILMS, "{title} {year}")


def test_a_tokenizer_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_tokenizer(tmp_path / "nothing")
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="holds no tokenizer that transformers can read"):
        load_tokenizer(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'efficientids-flax\[hf\]'"):
        load_tokenizer(tmp_path)
