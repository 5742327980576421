"""Compares a TimesFM forecast with transformers' port of it, in one run with the same weights.

    python -m benchmarks.forecast_hf

32 series of 512 points are forecast 128 points ahead, by a model of the size of the public 200M one
with random weights, which `convert-hf --reverse` writes to a folder. Both take turns, so that other
load affects both; medians count. Memory is measured in a process that runs only one of them, from
the point where the weights are loaded.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measure import memory

SERIES, CONTEXT, HORIZON, WIDTH = 32, 512, 128, 1280
Forecaster = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument(
        "--memory", metavar="WAY", help="measure the memory of one way alone; needs --folder"
    )
    parser.add_argument("--folder", help="folder of the weights; made if missing")
    given = parser.parse_args()
    if given.memory:
        print(json.dumps(_alone(given.memory, Path(given.folder))))
        return
    with tempfile.TemporaryDirectory() as place:
        root = Path(given.folder or place)
        _write(root, given.layers)
        _compare(root, given.rounds)


def _write(root: Path, layers: int) -> None:
    """Write a model with random weights, in our form and in that of transformers."""
    from converters.huggingface import export_pretrained
    from efficientids_flax.config import TimesFMConfig
    from efficientids_flax.forecast import TimesFM
    from efficientids_flax.parameters import parameter_shapes
    from efficientids_flax.stored import save_model
    from efficientids_flax.tree import unflatten

    config = TimesFMConfig(
        layers, WIDTH, WIDTH, 16, WIDTH // 16, 32, 128, context_length=CONTEXT,
        statistics="centred", tolerance=1e-6,
    )  # fmt: skip
    random = np.random.default_rng(0)
    leaves = {
        path: (random.standard_normal(shape, np.float32) * (0.02 if len(shape) > 1 else 0.1))
        for path, shape in parameter_shapes(config).items()
    }
    save_model(root / "ours", TimesFM(config), unflatten(leaves))
    export_pretrained(root / "ours", root / "transformers")


def _compare(root: Path, rounds: int) -> None:
    from benchmarks.turns import turns  # imports JAX, which the process of transformers must not

    ways = {"ours": _ours(root)[0], "transformers": _other(root)[0]}
    series = _series()
    answers = {name: run(series) for name, run in ways.items()}
    times = turns({name: partial(run, series) for name, run in ways.items()}, rounds)
    gap = np.max(np.abs(answers["ours"] - answers["transformers"]))
    share = gap / np.max(np.abs(answers["transformers"]))
    print(f"largest difference: {share:.1e} of the largest value")
    for name, found in times.items():
        print(f"{name:14s}{median(found):8.3f} s   ({min(found):.3f} to {max(found):.3f})")
    print(f"ratio         {median(times['ours']) / median(times['transformers']):8.2f}")
    for name in ways:
        call = [sys.executable, "-m", "benchmarks.forecast_hf", "--memory", name]
        told = subprocess.run([*call, "--folder", str(root)], capture_output=True, check=True)
        found = json.loads(told.stdout.splitlines()[-1])
        print(
            f"{name:14s}{found['peak']:8.0f} MB at the peak of a forecast, {found['before']:.0f} MB"
            f" before it; weights {found['weights']:.0f} MB"
        )


def _series() -> np.ndarray:
    """Synthetic series: waves with noise, float32 [32, 512]."""
    random = np.random.default_rng(0)
    waves = np.sin(np.arange(CONTEXT) / random.uniform(3, 40, (SERIES, 1)))
    return (waves + 0.2 * random.standard_normal((SERIES, CONTEXT))).astype(np.float32)


def _ours(root: Path) -> tuple[Forecaster, int]:
    """Our forecaster, and the bytes of its weights."""
    import jax

    from efficientids_flax import load_model
    from efficientids_flax.forecast import TimesFM, forecast

    model, params, _ = load_model(root / "ours")
    assert isinstance(model, TimesFM)

    def run(series: np.ndarray) -> np.ndarray:
        return forecast(model, params, series, HORIZON).mean

    return run, sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def _other(root: Path) -> tuple[Forecaster, int]:
    import torch
    from transformers import TimesFmModelForPrediction

    model = TimesFmModelForPrediction.from_pretrained(root / "transformers").eval()

    def run(series: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            past: Any = list(torch.from_numpy(series))
            found = model(past_values=past, freq=[0] * len(series))
        assert found.mean_predictions is not None
        return found.mean_predictions[:, :HORIZON].numpy()

    return run, sum(value.numel() * value.element_size() for value in model.state_dict().values())


def _alone(name: str, root: Path) -> dict[str, float]:
    """Memory in MB before a first forecast, and its peak during it, compilation included."""
    run, size = (_ours if name == "ours" else _other)(root)
    gc.collect()
    before = memory("VmRSS") / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    run(_series())
    return {"peak": memory("VmHWM") / 1e6, "before": before, "weights": size / 1e6}


if __name__ == "__main__":
    main()
