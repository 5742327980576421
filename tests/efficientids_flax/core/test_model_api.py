"""The recommender as the seed API has it: arguments, frozen and foreign decoders, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone import Decoder
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.tree import flatten
from tests.efficientids_flax.compiled import applied
from tests.efficientids_flax.core.model_cases import (
    CLOSE,
    CLUSTERS,
    ITEMS,
    WIDTH,
    backbone,
    batch,
    clustering,
    config,
    model,
    parameters,
    run,
)


@pytest.fixture(scope="module")
def tiny():
    made = model()
    return made, parameters(made)


def seed_arguments(given):
    return {
        "input_ids": np.where(given["input_item_weights"], 0, given["ids"]),
        "item_ids": np.where(given["input_item_weights"], given["ids"], 0),
        "item_mask": given["input_item_weights"],
        "paddings": given["paddings"],
    }


def test_seed_api_is_the_batch_with_other_names(tiny):
    made, params = tiny
    given = batch()
    labels = {
        "labels": given["labels"],
        "weights": given["weights"],
        "label_item_mask": given["label_item_weights"],
    }
    outputs = applied(made, {"params": params}, **seed_arguments(given), **labels, training=True)
    np.testing.assert_allclose(outputs["loss"], run(made, params, given, "loss").loss, rtol=1e-6)
    assert "scores" not in outputs
    served = applied(made, {"params": params}, **seed_arguments(given))
    assert set(served) == {"scores"}
    np.testing.assert_allclose(served["scores"], run(made, params, given, "scores"), **CLOSE)
    best = applied(made, {"params": params}, **seed_arguments(given), top_k=3)
    np.testing.assert_array_equal(best["items"], np.argsort(-served["scores"], -1)[..., :3])
    both = applied(made, {"params": params}, **seed_arguments(given), **labels)
    assert {"loss", "scores"} <= set(both)


def test_training_without_labels_predicts_the_next_position(tiny):
    made, params = tiny
    given = batch()
    following = lambda name: np.pad(given[name][:, 1:], ((0, 0), (0, 1)))  # noqa: E731
    explicit = {
        **given,
        "labels": following("ids"),
        "label_item_weights": following("input_item_weights"),
        "weights": np.array([[1, 1, 1, 0, 0, 0]] * 2, np.float32),
    }
    seeds = seed_arguments(given)
    outputs = jax.jit(lambda p: made.apply({"params": p}, **seeds, training=True))(params)
    np.testing.assert_allclose(outputs["loss"], run(made, params, explicit, "loss").loss, rtol=1e-6)


def test_a_frozen_decoder_passes_gradients_on(tiny):
    made, params = tiny
    frozen = model(freeze_lm=True)
    free, stopped = (
        jax.jit(jax.grad(lambda p, one=one: one.apply({"params": p}, batch(), method="loss").loss))(
            params
        )
        for one in (made, frozen)
    )
    for path, leaf in flatten(stopped).items():
        if path.startswith("pretrained_lm/"):
            assert not np.any(leaf), path
        else:
            np.testing.assert_allclose(leaf, flatten(free)[path], rtol=1e-5, atol=1e-7)
    found = jax.eval_shape(frozen.init, jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    assert flatten(found).keys() == flatten(params).keys()


@pytest.mark.parametrize("freeze", [False, True])
def test_a_decoder_of_the_callers_own(tiny, freeze):
    made, params = tiny
    made = model(freeze_lm=freeze)
    own = {name: leaf for name, leaf in params.items() if name != "pretrained_lm"}
    arguments = seed_arguments(batch())

    @jax.jit
    def loss(own, decoder):
        bound = Decoder(made.config.backbone).bind({"params": decoder})
        return made.apply({"params": own}, **arguments, training=True, pretrained_lm_module=bound)[
            "loss"
        ]

    want = applied(made, {"params": params}, **arguments, training=True)["loss"]
    np.testing.assert_allclose(loss(own, params["pretrained_lm"]), want, rtol=1e-6)
    gradient = jax.jit(jax.grad(loss, argnums=1))(own, params["pretrained_lm"])
    moved = any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert moved == (not freeze)


def test_parameters_leave_out_a_decoder_that_is_given(tiny):
    made, params = tiny
    bound = Decoder(made.config.backbone).bind({"params": params["pretrained_lm"]})
    found = jax.eval_shape(
        lambda key: made.init(key, jnp.zeros((1, 2), int), pretrained_lm_module=bound),
        jax.random.key(0),
    )
    assert set(found["params"]) == {"item_embedding", "item_input_adapter"}


def test_a_module_that_is_no_bound_decoder(tiny):
    made, params = tiny
    ids = jnp.zeros((1, 2), int)
    other = Decoder(backbone(vocab_size=5)).bind({"params": {}})
    for given, sentence in (
        ("gpt2", "pretrained_lm_module: found str, expected a Decoder bound"),
        (Decoder(backbone()), "found one without parameters"),
        (other, "vocab_size: found 5, the model has 11"),
    ):
        with pytest.raises(ValueError, match=sentence):
            made.apply({"params": params}, ids, pretrained_lm_module=given)


def test_rematerialised_layers_give_the_same(tiny):
    made, params = tiny
    other = model(remat="nothing_saveable")
    loss, again = (
        jax.jit(
            jax.value_and_grad(lambda p, m=m: m.apply({"params": p}, batch(), method="loss").loss)
        )(params)
        for m in (made, other)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), loss, again)


def test_seed_fields_make_the_configuration():
    made = EfficientIDSModel(
        model_name="some/model",
        num_items=ITEMS,
        num_clusters=CLUSTERS,
        item_embedding_dim=WIDTH,
        clustering_info=clustering(),
        freeze_lm=True,
        use_correction=True,
        backbone=backbone(),
    )
    assert made.config == config(use_correction=True)
    assert made.clone().config == made.config
    trained = EfficientIDSModel(
        num_items=ITEMS,
        item_embedding_dim=WIDTH,
        clustering_info=clustering(means=False),
        backbone=backbone(),
    )
    assert trained.config == config(trainable_cluster_embeddings=True)


def test_a_model_name_is_a_folder_with_a_configuration(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2,'
        ' "n_positions": 16, "architectures": ["GPT2LMHeadModel"]}'
    )
    made = EfficientIDSModel(
        model_name=str(tmp_path),
        num_items=ITEMS,
        item_embedding_dim=WIDTH,
        clustering_info=clustering(),
    )
    assert (made.config.backbone.vocab_size, made.config.backbone.model_dims) == (11, 8)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_items": None}, "EfficientIDSModel: 1 problem:\n  num_items: missing"),
        ({"backbone": None}, "missing model_name or backbone"),
        ({"num_items": 12}, "num_items: the clustering has 13, the model 12"),
        ({"num_clusters": 3}, "num_clusters: the clustering has 4, the model 3"),
        ({"item_embedding_dim": 7}, "means: the clustering's have width 6"),
        ({"clustering_info": None}, "clustering_info: missing"),
        ({"config": config(), "use_correction": True}, "use_correction: found True, the config"),
        ({"config": config(), "num_items": 5}, "num_items: found 5, the configuration says 13"),
        ({"item_embedding_init": np.zeros((ITEMS, 5))}, "the table has 13 of width 6"),
    ],
)
def test_what_does_not_fit_is_told_when_it_is_built(changes, sentence):
    known = {
        "num_items": ITEMS,
        "item_embedding_dim": WIDTH,
        "clustering_info": clustering(),
        "backbone": backbone(),
    }
    with pytest.raises(ValueError, match=sentence):
        EfficientIDSModel(**{**known, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"item_ids": None}, "item_ids: missing; item_ids and item_mask go together"),
        ({"item_mask": None}, "item_mask: missing"),
        ({"item_ids": np.zeros((2, 5), int)}, r"item_ids: found \[2, 5\], expected \[2, 6\]"),
        (
            {"item_ids": np.full((2, 6), 14), "item_mask": np.ones((2, 6), int)},
            "item_ids: found 14",
        ),
        ({"input_ids": np.full((2, 6), 14), "item_mask": np.zeros((2, 6))}, "input_ids: found 14"),
        ({"labels": np.zeros((2, 6), int)}, "label_item_mask: missing"),
        ({"positions": np.zeros((2, 5), int)}, r"positions: found \[2, 5\]"),
        ({"item_ids": np.full((2, 6), 2**32)}, "item_ids: found 4294967296"),
        ({"weights": np.ones((2, 6)), "training": True}, "weights: given without the labels"),
        ({"label_item_mask": np.ones((2, 6))}, "label_item_mask: given without the labels"),
        ({"top_k": 3, "training": True}, "top_k: found 3; in training there are no scores"),
    ],
)
def test_arguments_that_are_wrong_are_named(tiny, changes, sentence):
    made, params = tiny
    with pytest.raises(ValueError, match=sentence):
        made.apply({"params": params}, **{**seed_arguments(batch()), **changes})
