"""The recommender: what enters the decoder and what leaves it.

an id is a word or an item as its mask says                    `test_masks_say_*`, `test_masks_of_*`
a word is W[id] sqrt(D), tied or separate, scaled as the       `test_words_*`
  configuration says; an id >= V gives zeros
items are looked up clipped and not scaled; the placeholder    `test_items_*`, `test_placeholder_*`
  102 is row min(102, I - 1)
positions are added to both                                    `test_positions_*`
packed batches                                                 `test_packed_*`
a prefix is seen by all queries; else attention is causal      `test_prefix_*`, `test_causal`
words are scored by W h + b, whatever the wiring               `test_words_are_scored_*`
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.config import AdapterConfig
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.tree import flatten
from tests.efficientids_flax.core.model_cases import (
    CLOSE,
    ITEMS,
    MODEL,
    WIDTH,
    WORDS,
    backbone,
    batch,
    config,
    model,
    parameters,
    run,
    seen,
)

ROOT = MODEL**0.5


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def adapted(params, rows):
    layer = params["item_input_adapter"]["layers_0"]
    return gelu(np.asarray(rows) @ np.asarray(layer["kernel"], float) + np.asarray(layer["bias"]))


@pytest.fixture(scope="module")
def tiny():
    made = model()
    return made, parameters(made)


def test_parameters_are_those_of_the_table(tiny):
    made, params = tiny
    found = {path: leaf.shape for path, leaf in flatten(params).items()}
    assert found == parameter_shapes(made.config)


def test_parameters_of_the_other_wiring():
    made = model(
        backbone=backbone(scan_layers=True, tied_embeddings=False, lm_head_bias=True),
        input_adapter=AdapterConfig(num_layers=2, hidden_dims=5),
        input_adapter_everywhere=False,
        output_adapter=AdapterConfig(),
        trainable_cluster_embeddings=True,
    )
    shapes = jax.eval_shape(made.init, jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    found = {path: leaf.shape for path, leaf in flatten(shapes).items()}
    assert found == parameter_shapes(made.config)


def test_masks_say_what_an_id_is(tiny):
    made, params = tiny
    given = batch()
    found = seen(made, params, given)
    is_item = given["input_item_weights"][..., None] > 0
    want = np.where(is_item, found["item_inputs"][0], found["word_inputs"][0])
    np.testing.assert_array_equal(found["interleaved"][0], want)
    assert 0 < is_item.mean() < 1


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_masks_of_any_dtype_mean_the_same(tiny, dtype):
    made, params = tiny
    given = batch()
    masks = ("input_item_weights", "label_item_weights", "paddings")
    other = {**given, **{name: given[name].astype(dtype) for name in masks}}
    np.testing.assert_array_equal(
        run(made, params, given, "loss").loss, run(made, params, other, "loss").loss
    )


def test_items_are_adapted_and_not_scaled(tiny):
    made, params = tiny
    given = batch()
    found = seen(made, params, given)
    rows = np.asarray(params["item_embedding"]["kernel"]).T[np.minimum(given["ids"], ITEMS - 1)]
    np.testing.assert_array_equal(found["item_rows"][0], rows)
    np.testing.assert_allclose(found["item_inputs"][0], adapted(params, rows), **CLOSE)


def test_words_are_scaled_columns_of_the_head(tiny):
    made, params = tiny
    given = {**batch(), "ids": np.array([[0, 3, 10, 11, 102, 1]] * 2)}
    table = np.asarray(params["pretrained_lm"]["lm_head"]["kernel"]).T
    rows = np.concatenate([table, np.zeros((200, MODEL))])[given["ids"]]  # zeros from V on
    np.testing.assert_allclose(seen(made, params, given)["word_inputs"][0], rows * ROOT, **CLOSE)


@pytest.mark.parametrize(("scale", "factor"), [("none", 1.0), ("sqrt_dim", ROOT)])
def test_words_of_a_separate_table(scale, factor):
    made = model(backbone=backbone(tied_embeddings=False, embedding_scale=scale))
    params = parameters(made)
    given = batch()
    rows = np.asarray(params["pretrained_lm"]["embedder"]["embedding"])
    want = np.where((given["ids"] < WORDS)[..., None], rows[given["ids"] % WORDS], 0.0) * factor
    np.testing.assert_allclose(seen(made, params, given)["word_inputs"][0], want, **CLOSE)


def test_words_and_items_enter_a_decoder_that_would_scale_them_as_they_are():
    """Gemma's scales what it is given in place of ids; words are scaled already, items never."""
    made = model(backbone=backbone(scale_injected_embeddings=True, position_embedding="none"))
    found = seen(made, parameters(made), batch())
    np.testing.assert_array_equal(found["pretrained_lm"]["layer_input"][0], found["interleaved"][0])


def test_positions_are_added_to_words_and_items(tiny):
    made, params = tiny
    found = seen(made, params, batch())
    added = found["pretrained_lm"]["layer_input"][0] - found["interleaved"][0]
    half = MODEL // 2
    angles = np.arange(6)[:, None] * 1e4 ** (-np.arange(half) / (half - 1))
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    np.testing.assert_allclose(added, np.broadcast_to(waves, added.shape), atol=2e-6)


def at_target(ids):
    given = batch()
    given["input_item_weights"][:] = 1
    given["ids"] = np.asarray(given["ids"] % ITEMS)
    given["ids"][:, 2] = ids
    return given


def test_placeholder_is_the_last_row_of_a_small_table(tiny):
    made, params = tiny
    by_placeholder = run(made, params, at_target(102), "scores")
    np.testing.assert_array_equal(by_placeholder, run(made, params, at_target(ITEMS - 1), "scores"))
    assert not np.allclose(by_placeholder, run(made, params, at_target(0), "scores"))


def test_placeholder_gives_its_row_no_gradient(tiny):
    made, params = tiny

    def gradient(given):
        score = lambda p: made.apply({"params": p}, given, method="head_inputs").hidden.sum()  # noqa: E731
        return jax.jit(jax.grad(score))(params)["item_embedding"]["kernel"]

    last = np.asarray(gradient(at_target(ITEMS - 1))) - np.asarray(gradient(at_target(102)))
    assert np.abs(last[:, -1]).max() > 1e-3
    np.testing.assert_allclose(last[:, :-1], 0, atol=1e-5)


def test_placeholder_has_a_row_of_its_own_in_a_large_table():
    made = EfficientIDSModel(
        config(num_items=110, num_clusters=None, full_softmax=True, placeholder_item_id=102)
    )
    params = parameters(made)
    given = {name: batch()[name] for name in ("ids", "paddings", "input_item_weights")}
    given = {**given, "ids": np.full((2, 6), 102), "input_item_weights": np.ones((2, 6), int)}
    inputs = run(made, params, given, "head_inputs", mutable=["intermediates"])
    rows = inputs[1]["intermediates"]["item_rows"][0]
    kernel = np.asarray(params["item_embedding"]["kernel"])
    np.testing.assert_array_equal(np.asarray(rows)[0, 0], kernel[:, 102])


def test_causal(tiny):
    made, params = tiny
    given, later = batch(), batch()
    later["ids"] = np.array(later["ids"])
    later["ids"][:, 3] = (later["ids"][:, 3] + 1) % WORDS
    before, after = (np.asarray(run(made, params, x, "scores")) for x in (given, later))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3] - after[:, 3]).max() > 1e-3


def test_prefix_is_seen_by_the_queries_before_it():
    made = model(backbone=backbone(attention_mask="prefix"))
    params = parameters(made)
    given = {**batch(), "inputs_indicator": np.array([[1, 1, 0, 0, 0, 0]] * 2)}
    before = run(made, params, given, "scores")
    for place, seen_by_first in ((1, True), (2, False)):
        other = {**given, "ids": np.array(given["ids"])}
        other["ids"][:, place] = (other["ids"][:, place] + 1) % WORDS
        moved = np.abs(run(made, params, other, "scores")[:, 0] - before[:, 0]).max() > 1e-4
        assert moved == seen_by_first


def test_packed_rows_score_as_rows_of_their_own(tiny):
    made, params = tiny
    one, other = batch(1, 6, seed=1), batch(1, 6, seed=2)
    fields = ("ids", "input_item_weights", "paddings")
    packed = {n: np.concatenate([one[n][:, :4], other[n][:, :4]], axis=1) for n in fields}
    packed["segment_ids"] = np.array([[1, 1, 1, 1, 2, 2, 2, 2]])
    packed["segment_pos"] = np.array([[0, 1, 2, 3, 0, 1, 2, 3]])
    got = run(made, params, packed, "scores")[0]
    for given, part in ((one, got[:4]), (other, got[4:])):
        np.testing.assert_allclose(part, run(made, params, given, "scores")[0, :4], **CLOSE)


@pytest.mark.parametrize("everywhere", [True, False])
def test_words_are_scored_by_the_hidden_state(everywhere):
    adapter = None if everywhere else AdapterConfig()
    made = model(
        backbone=backbone(lm_head_bias=True, logits_divisor=2.0),
        input_adapter_everywhere=everywhere,
        output_adapter=adapter,
        scale_before_logits=True,
    )
    params = parameters(made)
    inputs = run(made, params, batch(), "head_inputs")
    head = params["pretrained_lm"]["lm_head"]
    want = (np.asarray(inputs.hidden) * MODEL**-0.5 @ np.asarray(head["kernel"]) + head["bias"]) / 2
    np.testing.assert_allclose(inputs.word_logits, want, **CLOSE)
    assert inputs.query.shape[-1] == (MODEL if everywhere else WIDTH)


def test_words_without_a_head_enter_and_take_no_part_in_the_softmax():
    """A body (of a text embedder, say) is all that a recommender needs."""
    body = model(backbone=backbone(lm_head=False, tied_embeddings=False))
    params = parameters(body)
    assert "lm_head" not in params["pretrained_lm"]
    given = batch()
    scores = run(body, params, given, "scores")
    with_head = model(backbone=backbone(tied_embeddings=False))
    more = {"lm_head": {"kernel": jnp.ones((MODEL, WORDS))}, **params["pretrained_lm"]}
    np.testing.assert_allclose(
        scores, run(with_head, {**params, "pretrained_lm": more}, given, "scores"), **CLOSE
    )
    assert run(body, params, given, "log_probs").shape[-1] == ITEMS
    given["weights"] = given["weights"] * given["label_item_weights"]
    given["labels"] = given["labels"] * given["label_item_weights"]
    out = run(body, params, given, "loss")
    log_probs = np.asarray(run(body, params, given, "log_probs"))
    chosen = np.take_along_axis(log_probs, given["labels"][..., None], -1)[..., 0]
    want = -(chosen * given["weights"]).sum() / given["weights"].sum()
    np.testing.assert_allclose(out.loss, want, **CLOSE)
    words = batch() | {"weights": np.ones_like(given["weights"])}
    with pytest.raises(ValueError, match="an item: there are no words"):
        body.apply({"params": params}, words, method="loss")


def test_methods_agree(tiny):
    """The loss is the mean of served log-probabilities; scores are the evaluation's items."""
    made, params = tiny
    given = batch()
    out = run(made, params, given, "loss")
    log_probs = np.asarray(run(made, params, given, "log_probs"))
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)
    classes = given["labels"] + WORDS * given["label_item_weights"]
    chosen = np.take_along_axis(log_probs, classes[..., None], -1)[..., 0]
    np.testing.assert_allclose(
        out.loss, -(chosen * given["weights"]).sum() / given["weights"].sum(), **CLOSE
    )
    np.testing.assert_allclose(
        run(made, params, given, "evaluation_logits")[..., WORDS:],
        run(made, params, given, "scores"),
        **CLOSE,
    )
