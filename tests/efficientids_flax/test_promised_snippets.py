"""What the documents that announced the package write, run as it stands there, in small."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from efficientids_flax.train.batches import ShuffledBatches


class Regression(nn.Module):
    """Takes its targets, as the detector of the first document does."""

    @nn.compact
    def __call__(self, images: jax.Array, training: bool = False, targets: Any = None) -> Any:
        error = nn.Dense(1)(images)[..., 0] - targets
        return {"loss": jnp.mean(error**2), "absolute": jnp.mean(jnp.abs(error))}


def custom_loss_fn(params, batch, model_state, rng, apply_fn):
    """Custom loss that unpacks your batch format."""
    images = batch["images"]
    targets = batch["targets"]

    output = apply_fn({"params": params}, images, training=True, targets=targets)

    loss = output["loss"]
    metrics = {k: v for k, v in output.items() if k != "loss"}

    return loss, metrics, model_state


def test_the_function_api(tmp_path):
    ConfigDict = pytest.importorskip("ml_collections").ConfigDict  # noqa: N806
    from efficientids_flax.train import train

    images = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    batches = [{"images": x, "targets": x.sum(axis=-1)} for x in images]

    def create_iterator(batches):
        return iter(batches)

    config = ConfigDict({
        "model": {
            "module": Regression(),
            "init_args": [images[0]],
            "init_kwargs": {"training": True, "targets": images[0, :, 0]},
        },
        "optimizer": {
            "learning_rate": 1e-5,
            "clip_norm": 1.0,
        },
        "data": {
            "train_iter_fn": lambda: create_iterator(batches),
        },
        "training": {
            "num_steps": 8,
        },
    })  # fmt: skip
    config.loss_fn = custom_loss_fn
    config.checkpoint = {
        "dir": str(tmp_path / "checkpoints"),
        "max_to_keep": 3,
        "restore": True,  # Resume from latest checkpoint
    }

    result = train(config)

    # Access final state
    final_params = result.state.params

    # Access training history
    training_losses = [m["loss"] for m in result.history]
    assert final_params["Dense_0"]["kernel"].shape == (3, 1)
    assert len(training_losses) == 8
    assert all("absolute" in step_metrics for step_metrics in result.history)
    config.training.num_steps = 10
    assert [m["loss"] for m in train(config).history][:8] == training_losses


def test_the_recommender(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from efficientids_flax import (
        ClusteringInfo,
        HierarchicalSoftmax,
        SimpleEfficientIDSModel,
        Trainer,
        create_embedding_initializer,
        create_optimizer,
    )

    clustering_info = ClusteringInfo.from_assignments(np.arange(20) % 4)
    MODEL_CONFIG = {  # noqa: N806
        'num_items': 20,
        'num_clusters': 4,
        'item_embedding_dim': 8,
        'model_dims': 16,
        'clustering_info': clustering_info,
    }  # fmt: skip
    HierarchicalSoftmax(
        num_items=20,
        num_clusters=4,
        item_embedding_dim=8,
        clustering_info=clustering_info,
        use_correction=True,
    )
    np.save("item_embeddings_metadata.npy", np.ones((20, 8), np.float32))
    embeddings = np.load("item_embeddings_metadata.npy")
    initializer = create_embedding_initializer(embeddings)
    model = SimpleEfficientIDSModel(**MODEL_CONFIG, item_embedding_init=initializer)
    optimizer = create_optimizer(
        learning_rate=1e-4,
        frozen_params=None,  # Train everything
    )
    rows = np.random.default_rng(0).integers(0, 20, (16, 6))
    arrays = {"ids": rows[:, :-1], "labels": rows[:, 1:], "weights": np.ones((16, 5))}
    train_dataset, eval_dataset = (
        ShuffledBatches(arrays, 8), ShuffledBatches(arrays, 8, epochs=1),
    )  # fmt: skip
    rng, sample_batch = jax.random.key(0), next(iter(train_dataset))

    trainer = Trainer(model, optimizer, checkpoint_dir="./checkpoints")
    state = trainer.create_train_state(rng, sample_batch)
    state = trainer.train(state, train_dataset, eval_dataset, num_steps=4)
    eval_metrics = trainer.evaluate(state, eval_dataset, num_eval_batches=100)

    assert 0 <= eval_metrics["eval_accuracy"] <= 1
    assert int(state.step) == 4


def test_the_metrics_of_a_loop_of_ones_own(tmp_path):
    pytest.importorskip("matplotlib")
    from efficientids_flax import TrainingMetrics

    metrics = TrainingMetrics()
    metrics.update({
        "train_loss": jnp.float32(0.5),
        "train_acc": np.float32(0.75),
        "val_loss": 0.25,
        "val_acc": 1,
    })  # fmt: skip
    assert metrics.history == {
        "train_loss": [0.5], "val_loss": [0.25], "train_acc": [0.75], "val_acc": [1.0],
    }  # fmt: skip
    metrics.plot(save_path=tmp_path / "training_curves.png")
