"""Runs on several devices, or in one of several processes; prints JSON. For test_processes.py.

spread_run.py devices
spread_run.py process INDEX COUNT PORT STEPS RUN...

Each RUN is DIRECTORY,STOP,EVALUATE and prints a line. The last process gets SIGTERM when it has
read STOP batches, unless that is 0; below 0 so many batches of an evaluation, after step 2. That
must be its last run: JAX tells processes of one signal. With EVALUATE 1 a run that came to its end
is evaluated.
"""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax


def item_run(mesh_sizes):
    """Losses of a few steps of the recommender, as a checkpoint would find it."""
    from efficientids_flax.core.clustering.tables import ClusteringInfo
    from efficientids_flax.core.simple_model import SimpleEfficientIDSModel
    from efficientids_flax.sharding import make_mesh
    from efficientids_flax.train.batches import ShuffledBatches
    from efficientids_flax.train.trainer import Trainer
    from tests.efficientids_flax.train.networks import ROWS

    rng = np.random.default_rng(0)
    ids = rng.integers(0, 32, (ROWS, 7), dtype=np.int32)
    data = {"ids": ids[:, :-1], "labels": ids[:, 1:], "weights": np.ones((ROWS, 6), np.float32)}
    clustering = ClusteringInfo.from_assignments(np.arange(32) // 8)
    model = SimpleEfficientIDSModel(
        num_items=32, item_embedding_dim=8, model_dims=16, num_heads=4, num_layers=1,
        clustering_info=clustering, dropout=0.1,
    )  # fmt: skip
    devices = jax.devices() if mesh_sizes else jax.devices()[:1]
    trainer = Trainer(
        model, optax.adamw(1e-2), mesh=make_mesh(**mesh_sizes, devices=devices), progress="none"
    )
    batches = ShuffledBatches(data, 16)
    state = trainer.create_train_state(jax.random.key(0), next(iter(batches)))
    table = state.trained["item_embedding"]["kernel"]
    state = trainer.train(state, batches, num_steps=6)
    found = trainer.evaluate(state, ShuffledBatches(data, 16, epochs=1))
    losses = [row["loss"] for row in trainer.history]
    return {"losses": [*losses, found["eval_loss"]], "split": len(table.sharding.device_set),
            "whole": table.is_fully_replicated}  # fmt: skip


def devices():
    meshes = {
        "one": {},
        "data": {"data": 8},
        "all": {"data": 2, "fsdp": 2, "tensor": 2},
    }
    return {name: item_run(sizes) for name, sizes in meshes.items()}


def process(directory: Path, steps: int, index: int, count: int, stop: int, evaluate: int):
    """A share of the data, a checkpoint together."""
    from efficientids_flax.sharding import make_mesh
    from efficientids_flax.train.batches import ShuffledBatches
    from tests.efficientids_flax.train.networks import DRAWN, Network, data, trainer

    batches = ShuffledBatches(data(), 8 // count, seed=3, process=(index, count))
    # The rows of a step are those of one process in another order; dropout goes by the place.
    network = Network(dropout=0.0, statistics=False, kernel_init=DRAWN)
    made = trainer(directory, network=network, save_every=20, mesh=make_mesh())
    state = made.create_train_state(jax.random.key(0), next(iter(batches)))

    def stopped():
        for number, batch in enumerate(batches):
            if number == stop and index == count - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)  # the processes hear of it within some steps
            yield batch

    refused = []
    if evaluate and count > 1:
        other = trainer(network=made.model, mesh=made.mesh)
        fresh = other.create_train_state(jax.random.key(0), next(iter(batches)))
        short = [{name: value[:1] for name, value in next(iter(batches)).items()}]
        later = [next(iter(batches)), *short]
        ends = itertools.islice(iter(batches), 2)  # cannot be read again
        for source in ([], short, later, broken(batches), ends):
            if fresh.step.is_deleted():
                fresh = other.create_train_state(jax.random.key(0), next(iter(batches)))
            try:
                other.train(fresh, source if index else batches, num_steps=4)
            except ValueError as error:
                refused.append(str(error))
        refused.append(int(other.last_state.step))
        try:
            other.evaluate(state, [*batches.once(), None] if index else batches)
        except ValueError as error:
            refused.append(str(error))
        for seed, rate in ((index, 1e-2), (0, 1e-2 * (1 + index))):
            unlike = trainer(network=made.model, mesh=made.mesh, optimizer=optax.adamw(rate))
            begun = unlike.create_train_state(jax.random.key(seed), next(iter(batches)))
            try:
                unlike.train(begun, batches, num_steps=4)
            except ValueError as error:
                refused.append(str(error))

    if stop < 0:
        return stopped_evaluation(made, state, batches, index == count - 1, -stop)
    state = made.train(state, stopped if stop else batches, num_steps=steps)
    evaluated = {}
    for rows in (1, 3, 13) if evaluate else ():  # some shares have fewer rows, one has none
        held = {name: value[:rows] for name, value in data(seed=5).items()}
        given = ShuffledBatches(held, 2, process=(index, count), drop_remainder=False)
        evaluated[rows] = made.evaluate(state, given)
    return {
        "evaluated": evaluated,
        "refused": refused,
        "losses": [row["loss"] for row in made.history],
        "parameters": [np.asarray(leaf).sum().item() for leaf in jax.tree.leaves(state.trained)],
        "checkpoints": sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit()),
    }


def broken(batches):
    """A function that reads two of them."""

    def source():
        yield from itertools.islice(batches, 2)
        raise OSError("no disk")

    return source


def stopped_evaluation(made, state, batches, told: bool, stop: int):
    """A signal amid a long evaluation: how many of its batches were read."""
    from dataclasses import replace

    from efficientids_flax.train.loop import Preempted

    read = []

    def evaluation():
        for number in range(400):
            read.append(number)
            if number == stop and told:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            yield {name: value[:4] for name, value in batches.arrays.items()}

    made.options = replace(made.options, eval_every=2)
    try:
        made.train(state, batches, evaluation, num_steps=8)
    except Preempted as end:
        return {"step": end.step, "read": len(read), "saved": end.saved}


def main(kind, *arguments):
    """Yields what each run found."""
    if kind == "devices":
        assert jax.device_count() == 8
        yield devices()
        return
    index, count, port, steps = map(int, arguments[:4])
    if count > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
    for run in arguments[4:]:
        directory, stop, evaluate = run.rsplit(",", 2)
        yield process(Path(directory), steps, index, count, int(stop), int(evaluate))


if __name__ == "__main__":
    for found in main(*sys.argv[1:]):
        sys.stdout.write(f"{json.dumps(found)}\n")
        sys.stdout.flush()
