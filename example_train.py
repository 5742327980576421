"""Trains the small recommender, on prepared data or on a process whose optimum is known.

    python example_train.py                                        # synthetic, a few minutes
    python example_train.py --data_dir data/ml1m_processed --num_steps 10000 --batch_size 16

`--data_dir` holds what `efficientids_flax.data.files` describes. Run again with a larger
`--num_steps` it goes on from its last checkpoint.
"""

from typing import Any

import click

from efficientids_flax.commands import command, echo
from efficientids_flax.commands.options import allow_change
from efficientids_flax.data.files import DataDirectory, next_items, read_data
from efficientids_flax.data.markov import MarkovItems
from efficientids_flax.text import metrics_text

LENGTH = 20  # items of a synthetic sequence that predict the next
TRAINING, HELD_OUT = 20_000, 500  # synthetic sequences
EVALUATED = ("recall_at_1", "recall_at_5", "recall_at_10", "ndcg_at_5", "ndcg_at_10")


def synthetic(seed: int) -> tuple[DataDirectory, dict[str, float]]:
    """Sequences of a random process, and what the process itself reaches on the test ones."""
    process = MarkovItems.random(seed=seed)
    rows = {"train": TRAINING, "eval": HELD_OUT, "test": HELD_OUT}
    drawn = {
        split: process.sequences(count, LENGTH + 1, seed=seed + 1 + index)
        for index, (split, count) in enumerate(rows.items())
    }
    splits = {split: next_items(sequences) for split, sequences in drawn.items()}
    return DataDirectory(splits, process.clustering), process.best_metrics(drawn["test"])


def configuration(
    data: DataDirectory, batch_size: int, full_softmax: bool, model: dict[str, Any], sections: Any
) -> dict[str, Any]:
    """The run as `train` takes it."""
    from efficientids_flax.train.batches import ShuffledBatches
    from efficientids_flax.train.run import SimpleSection

    # With the correction the hierarchical scores rank as the probabilities do; without, as the
    # original's, which come out 7 % lower here.
    section = SimpleSection(full_softmax=full_softmax, use_correction=not full_softmax, **model)
    held_out = {"shuffle": False, "drop_remainder": False, "epochs": 1}
    made = {"train_iter_fn": ShuffledBatches(data.splits["train"], batch_size)}
    for split in data.splits.keys() - {"train"}:
        made[f"{split}_iter_fn"] = ShuffledBatches(data.splits[split], batch_size, **held_out)
    return {"model": section.made(data.clustering), "data": made, **sections}


@command("example_train.py")
@click.option("--data-dir", metavar="DIR", help="Prepared data; synthetic without it.")
@click.option("--num-steps", default=1000, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--learning-rate", "--lr", default=3e-3, show_default=True)
@click.option("--warmup-steps", type=int, help="100, or a tenth of a short run.")
@click.option("--weight-decay", default=1e-4, show_default=True)
@click.option("--grad-clip", default=1.0, show_default=True)
@click.option("--log-every", default=10, show_default=True)
@click.option("--checkpoint-every", default=500, show_default=True)
@click.option("--max-checkpoints", default=3, show_default=True)
@click.option("--output-dir", default="runs/example", show_default=True, metavar="DIR")
@click.option("--seed", default=0, show_default=True)
@click.option("--model-dims", default=64, show_default=True)
@click.option("--item-embedding-dim", default=64, show_default=True)
@click.option("--num-layers", default=1, show_default=True)
@click.option("--num-heads", default=4, show_default=True)
@allow_change
@click.option("--full-softmax", is_flag=True, help="One softmax over all items, no clusters.")
def main(
    data_dir: str | None,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int | None,
    weight_decay: float,
    grad_clip: float,
    log_every: int,
    checkpoint_every: int,
    max_checkpoints: int,
    output_dir: str,
    seed: int,
    allowed: tuple[str, ...],
    full_softmax: bool,
    as_json: bool,
    **model: Any,
) -> None:
    """Train the small recommender and test it."""
    import jax

    from efficientids_flax.host_memory import keep_freed_memory
    from efficientids_flax.train.run import train

    if jax.default_backend() == "cpu":
        keep_freed_memory()
    optimum: dict[str, float] = {}
    if data_dir is None:
        data, optimum = synthetic(seed)
    else:
        data = read_data(data_dir)
    sections = {
        "optimizer": {
            "learning_rate": learning_rate,
            "warmup_steps": warmup_steps,
            "weight_decay": weight_decay,
            "clip_norm": grad_clip,
        },
        "training": {
            "num_steps": num_steps,
            "log_every": log_every,
            "eval_every": max(num_steps // 10, 1),
            "seed": seed,
            "allow_changes": list(allowed),
        },
        "checkpoint": {
            "dir": output_dir,
            "save_every": checkpoint_every,
            "max_to_keep": max_checkpoints,
        },
    }
    result = train(configuration(data, batch_size, full_softmax, model, sections))
    lines = [metrics_text(result.test)]
    for name in EVALUATED if optimum else ():
        reached, best = result.test[f"test_{name}"], optimum[name]
        lines.append(f"{name:14} {reached:.4f} of {best:.4f} at best: {reached / best:.1%}")
    echo(as_json, result.test, "\n".join(lines))


if __name__ == "__main__":
    main()
