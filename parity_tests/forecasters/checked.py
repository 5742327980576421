"""Compares a forecaster with everything that was recorded, in the order of computation."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import OptimizerConfig, TimesFMConfig
from efficientids_flax.forecast import Statistics
from efficientids_flax.stored import OptimizerState
from parity_tests.compare import Difference, distance, judged, tolerance
from parity_tests.forecasters.recorded import ForecasterRecording
from parity_tests.forecasters.rows import LIMIT, allowed_rows, compared_rows, missing
from parity_tests.forecasters.run import Runner, layer_of, ours_of
from parity_tests.forecasters.trained import check_step

# fmt: off
INNER = ("_rms_norm", "_query_scaled", "_attention_probs", "_attention", "_ff_layer_norm",
         "_ff_layer", "")
ORDER = ("normalised_patches", "input_ff_layer", "after_position", "freq_emb", "hidden_0",
         "transformer_input", "patched_padding")
# Words in a decode's name or description -> options of `decode`.
NUMBERS = (
    (re.compile(r"output_patch_len (\d+)"), "step_length"),
    (re.compile(r"max_len (\d+)"),          "max_length"),
)
# Patterns of the names of forecasts -> options of `forecast`.
CALLS = (
    (re.compile(r"forecast|forward"),                  {}),
    (re.compile(r"(?:\w+_)?on_context"),               {"on_context": True}),
    (re.compile(r"(?:\w+_)?truncate_negative"),        {"truncate_negative": True}),
    (re.compile(r"(?:\w+_)?normalize"),                {"normalize": True}),
    (re.compile(r"(?:\w+_)?median"),                   {"point": "median"}),
    (re.compile(r"(?:\w+_)?mean"),                     {"point": "mean"}),
)
# fmt: on
_WINDOW = re.compile(r"(?:\w+_)?window_(\d+)")
_LENGTH = re.compile(r"(?:\w+_)?context_len_(half|\d+)")
_TOLD_LENGTH = re.compile(r"forecast_context_len=(\d+)")


def check_forecaster(
    config: TimesFMConfig,
    params: Mapping[str, Any],
    recording: ForecasterRecording,
    optimizer: OptimizerConfig | None = None,
    state: OptimizerState | None = None,
) -> list[Difference]:
    """Compare everything that was recorded.

    The pass is run with the recorded statistics, so that all other computations are held to 1e-5 in
    every row. The statistics are compared separately.

    Args:
        config, params: the model.
        recording: the recording of its original.
        optimizer, state: optimizer of a fine-tuned model, for its next step.

    Returns:
        One entry per recorded value; for an unknown name, the entry says so.
    """
    run = Runner(config, params, recording)
    arrays = recording.arrays
    found: list[Difference] = []
    for section, train in (("fwd", False), ("eval_mode", False), ("training_mode", True),
                           ("fwd_training_mode", True)):  # fmt: skip
        found += _pass(run, section, train)
    for name in recording.groups("decode"):
        found += _decode(run, name)
    for name in recording.groups("api/"):
        found += _forecast(run, name)
    found += _losses(run)
    if recording.after:
        found += check_step(run, recording, optimizer, state)
    known = {item.name for item in found} | {"in/input_ts"}
    left = [name for name in arrays if name not in known and not _is_input(name)]
    found += [
        missing(Difference(name.partition("/")[0], name, "", "activations", "ok",
                           arrays[name].shape), "no such name is known of a forecaster")
        for name in left
    ]  # fmt: skip
    return found


def _is_input(name: str) -> bool:
    return name.startswith(("in/", "api/in/")) or name == "loss/future_values"


def _statistics(run: Runner, section: str) -> Statistics | None:
    """The recorded statistics of the batch, from this pass or another; None if there are none."""
    arrays = run.recording.arrays
    for place in (section, "fwd", "eval_mode"):
        if f"{place}/mu" in arrays and f"{place}/sigma" in arrays:
            return Statistics(*(jnp.asarray(arrays[f"{place}/{n}"]) for n in ("mu", "sigma")))
    return None


def _pass(run: Runner, section: str, train: bool) -> list[Difference]:
    arrays = run.recording.arrays
    own = [name for name in arrays if name.startswith(f"{section}/") and "loss" not in name]
    inside = [name for name in arrays if name.startswith("mid/")] if section == "fwd" else []
    if not own and not inside:
        return []
    found: list[Difference] = []
    given = _statistics(run, section)
    values = run.inside(given, train)
    if f"{section}/mu" in arrays:
        found += _of_statistics(run, section)
    allowed: Any = LIMIT
    if given is None:  # our statistics are used, which may differ from the original's
        allowed = allowed_rows(np.square(values["mu"] / values["sigma"]))
    for name in sorted(inside, key=_flow):
        short = name.removeprefix("mid/")
        base = Difference("fwd", name, ours_of(short) or "", "activations", "ok",
                          arrays[name].shape, layer_of(short))  # fmt: skip
        if base.ours not in values:
            found.append(missing(base, "our model notes no such value"))
        else:
            found.append(compared_rows(base, values[base.ours], arrays[name], allowed))
    for name in ("output_tokens", "output_ts"):
        full = f"{section}/{name}"
        if full in arrays:
            base = Difference(section, full, name, "activations", "ok", arrays[full].shape)
            found.append(compared_rows(base, values[name], arrays[full], allowed))
    return found


def _flow(name: str) -> tuple[int, int, str]:
    short = name.removeprefix("mid/")
    if short in ORDER:
        return 0, ORDER.index(short), ""
    # A layer's inner values come before its output; layers in order, the horizon block last.
    layer = layer_of(short)
    if layer is None:
        return (
            (1, len(INNER) * int(short[7:]), "") if short.startswith("hidden_") else (2, 0, short)
        )
    end = short.removeprefix(f"layer_{layer}")
    return 1, len(INNER) * layer + (INNER.index(end) if end in INNER else 0), short


def _of_statistics(run: Runner, section: str) -> list[Difference]:
    """Compare mean and deviation as our own rule computes them."""
    arrays = run.recording.arrays
    ours = run.statistics()
    found = []
    for name, allowed in (
        ("mu", LIMIT),
        ("sigma", allowed_rows(np.square(arrays[f"{section}/mu"] / arrays[f"{section}/sigma"]))),
    ):
        full = f"{section}/{name}"
        base = Difference(section, full, name, "metrics", "ok", arrays[full].shape)
        found.append(compared_rows(base, ours[name], arrays[full], allowed))
    return found


def _decode(run: Runner, name: str) -> list[Difference]:
    recorded, told = _parts(run, name), run.recording.told.get(name, "")
    length, patch = run.inputs[0].shape[1], run.config.patch_length
    options: dict[str, Any] = {"max_length": length}
    options |= {key: int(n[1]) for pattern, key in NUMBERS if (n := pattern.search(told))}
    if "step_of_one_patch" in name:
        options.setdefault("step_length", patch)
    if "half_context" in name and not NUMBERS[1][0].search(told):
        options["max_length"] = length // 2
    options["on_context"] = "on_context" in name
    first = next(iter(recorded.values()))
    horizon = first.shape[1] - (length - patch if options["on_context"] else 0)
    ours, ratios = run.decoded(options, horizon)
    allowed = allowed_rows(ratios)
    both = {"mean": ours[..., 0], "full": ours}
    return [
        compared_rows(_base("decode", f"{name}/{part}", values), both[part], values, allowed)
        for part, values in recorded.items()
    ]


def _forecast(run: Runner, name: str) -> list[Difference]:
    arrays, config = run.recording.arrays, run.config
    recorded = _parts(run, name)
    call = name.removeprefix("api/")
    options = _options(call, run)
    if options is None:
        return [missing(_base("api", f"{name}/{part}", values), f"no such call is known: {call}")
                for part, values in recorded.items()]  # fmt: skip
    freq = options.pop("freq", arrays.get("api/in/freq"))
    first = next(iter(recorded.values()))
    before = config.context_length - config.patch_length if "on_context" in options else 0
    found, ratios = run.forecasts(options, first.shape[1] - before, freq)
    allowed = allowed_rows(ratios) * (2 if "window_size" in options else 1)  # a sum of two
    mine = {"mean": found.mean, "full": found.quantiles}
    result = []
    for part, theirs in recorded.items():
        base = _base("api", f"{name}/{part}", theirs)
        own = theirs[..., 1:] if part == "full" else theirs
        result.append(compared_rows(base, np.asarray(mine[part]), own, allowed))
    return result


def _parts(run: Runner, name: str) -> dict[str, np.ndarray]:
    """The recorded parts of a run: its means, everything, or both."""
    arrays = run.recording.arrays
    places = {part: f"{name}/{part}" for part in ("mean", "full")}
    return {part: arrays[place] for part, place in places.items() if place in arrays}


def _options(call: str, run: Runner) -> dict[str, Any] | None:
    """Options of `forecast` for a recorded call; None if the name is unknown."""
    if found := _WINDOW.fullmatch(call):
        return {"window_size": int(found[1]), "freq": None}
    if found := _LENGTH.fullmatch(call):
        told = _TOLD_LENGTH.search(run.recording.told.get("api", ""))
        half = int(told[1]) if told else run.config.context_length // 2
        return {"context_length": half if found[1] == "half" else int(found[1])}
    return next((dict(o) for pattern, o in CALLS if pattern.fullmatch(call)), None)


def _losses(run: Runner) -> list[Difference]:
    """Compare the losses of a fine-tuned model: of the next training step, and in evaluation."""
    found = []
    arrays = run.recording.arrays
    for name, train in (("loss", True), ("eval_mode/loss", False)):
        if name in arrays and "actual_ts" in run.batch:
            base = Difference(name.rpartition("/")[0] or "step", name, "loss", "loss", "ok")
            gap = distance(run.loss(train), np.asarray(arrays[name]))
            found.append(judged(base, gap, tolerance("loss", "float32")))
    if "loss/loss" in arrays:
        base = Difference("loss", "loss/loss", "", "loss", "ignored")
        note = "transformers' own loss, which is not that of the original"
        found.append(replace(base, note=note))
    return found


def _base(section: str, name: str, values: np.ndarray) -> Difference:
    # Not an activation: the tolerance depends on the statistics of each row.
    return Difference(section, name, name.rpartition("/")[2], "metrics", "ok", values.shape)
