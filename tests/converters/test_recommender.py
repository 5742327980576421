"""A recommender on a pretrained language model, which training leaves unchanged to the bit."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from converters.recommender import load_recommender
from efficientids_flax.commands.program import main
from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.train import Trainer, train
from efficientids_flax.train.optimizer.create import create_optimizer
from efficientids_flax.train.run.config import read_config
from efficientids_flax.train.run.file_config import built
from efficientids_flax.tree import flatten
from tests.paths import RECORDINGS

FOLDER = (  # stored in bfloat16
    RECORDINGS / "huggingface" / "qwen3"
)
ITEMS, CLUSTERS, WIDTH, STEPS = 12, 3, 6, 5


def clustering() -> ClusteringInfo:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(CLUSTERS, WIDTH)).astype(np.float32)
    return ClusteringInfo.from_assignments(np.arange(ITEMS) % CLUSTERS, means=means)


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    is_item = np.array([[0, 1, 0, 1, 0, 1, 0, 0]] * 4)
    ids = np.where(is_item, rng.integers(0, ITEMS, is_item.shape), rng.integers(0, 41, (4, 8)))
    following = lambda value: np.pad(value[:, 1:], ((0, 0), (0, 1)))  # noqa: E731
    return {
        "ids": ids, "labels": following(ids), "weights": np.ones((4, 8), np.float32),
        "input_item_weights": is_item, "label_item_weights": following(is_item),
        "paddings": np.zeros((4, 8), np.int32),
    }  # fmt: skip


def recommender(**fields: Any) -> tuple[Any, dict[str, Any]]:
    return load_recommender(
        FOLDER, clustering(), item_embedding_dim=WIDTH, dtype="float32", **fields
    )


def bits(params: Any) -> dict[str, bytes]:
    leaves = flatten(params).items()
    return {path: np.asarray(leaf).tobytes() for path, leaf in leaves if "pretrained_lm" in path}


def test_the_language_model_stays_the_same_to_the_bit(tmp_path: Path) -> None:
    model, params = recommender()
    before = bits(params)
    optimizer = create_optimizer(1e-2, weight_decay=0.1, clip_grad_norm=0.5)
    trainer = Trainer(model, optimizer, tmp_path, progress="none", tensorboard=False, plot=False)
    state = trainer.create_train_state(jax.random.key(0), batch(), params=params)
    first = flatten(jax.tree.map(np.asarray, state.trained))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.frozen)} == {jnp.dtype("bfloat16")}
    given = flatten(params)
    for path, leaf in flatten(state.frozen).items():  # in memory once, not twice
        assert leaf.unsafe_buffer_pointer() == given[path].unsafe_buffer_pointer()
    assert {leaf.dtype for leaf in first.values()} == {np.dtype("float32")}
    assert {path.split("/")[0] for path in first} == {"item_embedding", "item_input_adapter"}
    size = sum(leaf.size for leaf in first.values())
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * size  # Adam's two, none for the language model

    state = trainer.train(state, [batch()], num_steps=STEPS)
    assert bits(state.params) == before
    assert all(np.any(leaf != first[path]) for path, leaf in flatten(state.trained).items())
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]
    # and in the checkpoint
    assert bits(trainer.restore(state).params) == before


RUN = """
model:
  kind: factory
  factory: converters.recommender:load_recommender
  options: {{name_or_path: {folder}, item_embedding_dim: {width}, lora: {{rank: 2}}}}
data: {{dir: {root}/data, batch_size: 4}}
optimizer: {{learning_rate: 0.01, strategy: frozen_pretrained}}
training: {{num_steps: {steps}, tensorboard: false, plot: false}}
checkpoint: {{dir: {root}/run}}
"""


def test_from_the_command_line_and_by_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "train.npz", **batch())  # pyright: ignore[reportArgumentType]
    clustering().save(tmp_path / "data" / "clustering.npz")
    path = tmp_path / "run.yaml"
    path.write_text(RUN.format(folder=FOLDER, root=tmp_path, width=WIDTH, steps=STEPS))
    found = CliRunner().invoke(main, ["train", "--config", str(path)])
    assert found.exit_code == 0, found.output

    config = built(read_config(path))
    assert config["model"].keys() == {"module", "params"}
    result = train(config)  # goes on where that one stands: at the end
    assert int(result.state.step) == STEPS
    assert bits(result.state.frozen) == bits(config["model"]["params"])
    assert all("lora" in path for path in bits(result.state.trained))
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.parametrize("freeze", [True, False])
def test_what_is_trained(freeze: bool) -> None:
    model, params = recommender(freeze_lm=freeze, lm_dtype="float32")
    trainer = Trainer(model, create_optimizer(1e-2), progress="none")
    state = trainer.create_train_state(jax.random.key(0), batch(), params=params)
    assert ("pretrained_lm" in state.trained) != freeze


def test_without_words_the_hidden_states_are_the_same_and_clusters_share_no_softmax() -> None:
    """Every item's score is unchanged, and the first softmax only has the clusters."""
    (model, params), (without, fewer) = recommender(), recommender(words=False)
    sample = batch()
    sample["weights"] = (sample["label_item_weights"] > 0).astype(np.float32)
    rest = jax.jit(partial(model.init, method="head_inputs"))(jax.random.key(0), sample)["params"]
    own = {name: part for name, part in rest.items() if name != "pretrained_lm"}
    assert set(fewer["pretrained_lm"]) == set(params["pretrained_lm"]) - {"lm_head"} | {"embedder"}

    def log_probs(module: Any, lm: Any) -> Any:
        given = {"params": {**own, "pretrained_lm": lm["pretrained_lm"]}}
        return jax.jit(partial(module.apply, method="log_probs"))(given, sample)

    words = model.config.backbone.vocab_size
    found, wanted = log_probs(without, fewer), log_probs(model, params)[..., words:]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(np.exp(found).sum(-1), 1.0, atol=1e-5)
    # The remaining probability of each position is divided among the items in the same way.
    np.testing.assert_allclose(found, jax.nn.log_softmax(wanted), rtol=1e-5, atol=1e-5)  # float32
