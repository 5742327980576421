"""A training pipeline in epochs: an NNX classifier, validated each epoch, tested at the end.

    python examples/pipeline.py [--epochs 10] [--optimizer sgd --learning-rate 0.05]

Learns synthetic clusters whose best possible accuracy is known; takes seconds on a CPU. If run
again with more `--epochs`, it continues from its last checkpoint. The curves need `pip install
'efficientids-flax[plots]'`. `pipeline.ipynb` is the same as a notebook.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from efficientids_flax import TrainingMetrics
from efficientids_flax.train import PipelineConfig, train_epochs

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ClassifierConfig:
    """A classifier's sizes."""

    input_dim: int = 784
    hidden_dims: tuple[int, ...] = (256, 128)
    output_dim: int = 10
    dropout_rate: float = 0.1


class SimpleClassifier(nnx.Module):
    """Linear layers with ReLU and dropout; `train()` and `eval()` switch dropout on and off."""

    def __init__(self, config: ClassifierConfig, *, rngs: nnx.Rngs) -> None:
        layers = []
        width = config.input_dim
        for hidden_dim in config.hidden_dims:
            layers.append(nnx.Linear(width, hidden_dim, rngs=rngs))
            layers.append(nnx.relu)
            layers.append(nnx.Dropout(rate=config.dropout_rate, rngs=rngs))
            width = hidden_dim
        layers.append(nnx.Linear(width, config.output_dim, rngs=rngs))
        self.net = nnx.Sequential(*layers)

    def __call__(self, x: Any) -> Any:
        """Float [B, input_dim] -> logits [B, output_dim]."""
        return self.net(x)


def clusters(
    config: ClassifierConfig, rows: Sequence[int], seed: int = 0, spread: float = 0.14
) -> tuple[list[Arrays], float]:
    """Points around one centre per class: (data of each split, best accuracy on the last split).

    Assigning each point to the nearest true centre is the best possible classifier.
    """
    rng = np.random.default_rng(seed)
    centres = spread * rng.normal(size=(config.output_dim, config.input_dim))
    splits = []
    for count in rows:
        y = rng.integers(0, config.output_dim, count)
        x = centres[y] + rng.normal(size=(count, config.input_dim))
        splits.append({"x": x.astype(np.float32), "y": y.astype(np.int32)})
    x, y = splits[-1]["x"], splits[-1]["y"]
    nearest = np.argmin(np.sum(centres**2, axis=1) - 2 * x @ centres.T, axis=1)
    return splits, float(np.mean(nearest == y))


def loss_fn(
    params: Any, batch: Mapping[str, Any], model_state: Any, rng: Any, apply_fn: Any
) -> tuple[Any, dict[str, Any], Any]:
    """Cross entropy, and the accuracy as a metric."""
    logits = apply_fn({"params": params, **model_state}, batch["x"], rngs={"dropout": rng})
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch["y"])
    return jnp.mean(losses), {"accuracy": accuracy}, model_state


def by_epoch(history: Sequence[Mapping[str, float]], steps: int) -> TrainingMetrics:
    """Summarise a history with `steps` steps per epoch: one value per epoch."""
    metrics = TrainingMetrics()
    for first in range(0, len(history), steps):
        rows = history[first : first + steps]
        metrics.update(
            {
                "train_loss": np.mean([row["loss"] for row in rows]),
                "train_acc": np.mean([row["accuracy"] for row in rows]),
                "val_loss": rows[-1]["eval_loss"],
                "val_acc": rows[-1]["eval_accuracy"],
            }
        )
    return metrics


@click.command()
@click.option("--epochs", default=10, show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--optimizer", default="adam", show_default=True, help="adam, adamw, sgd, adafactor.")
@click.option("--scheduler", default="cosine", show_default=True, help="Or linear, exponential.")
@click.option("--rows", default=1000, show_default=True, help="Of training data.")
@click.option("--output-dir", default="runs/pipeline", show_default=True, metavar="DIR")
@click.option("--seed", default=0, show_default=True)
def main(
    epochs: int,
    batch_size: int,
    learning_rate: float,
    optimizer: str,
    scheduler: str,
    rows: int,
    output_dir: str,
    seed: int,
) -> None:
    """Train, validate each epoch, stop early, test the best epoch, draw the curves."""
    epoch_steps = rows // batch_size
    config = PipelineConfig(
        name="pipeline",
        batch_size=batch_size,
        num_epochs=epochs,
        learning_rate=learning_rate,
        optimizer_type=optimizer,
        checkpoint_dir=output_dir,
        save_frequency=5,
        scheduler_type=scheduler,
        warmup_steps=epochs * epoch_steps // 10,
        total_steps=epochs * epoch_steps,
        # Used by the optimizers and schedules that have them.
        decay_steps=100,
        decay_rate=0.96,
        beta1=0.9,
        beta2=0.999,
        momentum=0.9,
        weight_decay=1e-4,
        early_stopping_patience=3,
        seed=seed,
    )
    model_config = ClassifierConfig()
    (train, val, test), best = clusters(model_config, (rows, 200, 200), seed)
    model = SimpleClassifier(model_config, rngs=nnx.Rngs(seed))
    try:
        result = train_epochs(
            config, model, train, val, test, loss_fn=loss_fn,
            allow_changes=("schedule",),  # more epochs than before stretch the schedule
        )  # fmt: skip
    except (ValueError, OSError, FloatingPointError) as error:
        raise click.ClickException(str(error)) from error
    metrics = by_epoch(result.history, epoch_steps)
    for epoch, values in enumerate(zip(*metrics.history.values(), strict=True), start=1):
        named = dict(zip(metrics.history, values, strict=True))
        click.echo(f"Epoch {epoch}/{epochs}")
        click.echo("  Train - Loss: {train_loss:.4f}, Acc: {train_acc:.4f}".format(**named))
        click.echo("  Val   - Loss: {val_loss:.4f}, Acc: {val_acc:.4f}".format(**named))
    click.echo(f"Test loss: {result.test['test_loss']:.4f}")
    click.echo(f"Test accuracy: {result.test['test_accuracy']:.4f}, {best:.4f} at best")
    curves = Path(output_dir) / "curves.png"
    metrics.plot(save_path=curves)
    click.echo(f"Curves: {curves}")


if __name__ == "__main__":
    main()
