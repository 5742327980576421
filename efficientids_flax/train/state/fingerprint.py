"""The identity of a run: stored in its checkpoints, and compared when these are used.

A fingerprint is name -> (path -> plain value), with the names of `CHANGES`. Facts about the model
(`OF_MODEL`) are compared whenever a checkpoint is read, the others when training resumes. Facts
about the data are stored separately, by the cursor of each process.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from efficientids_flax.stored import ItemNames
from efficientids_flax.train.batches import is_placed, rows_of
from efficientids_flax.train.optimizer import injected
from efficientids_flax.train.options import CHANGES
from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.description import HELD, clusterings, code_of, described
from efficientids_flax.tree import flatten

Facts = dict[str, dict[str, Any]]
OF_MODEL = ("clustering", "catalogue", "model")
OF_DATA = ("rows", "batch_size", "tokenizer")
SAID = ("settings", "code")  # differences are reported but accepted; not in `CHANGES`
# Steps at which two schedules are compared.
SAMPLED = (0, *(number * 10**power for power in range(7) for number in (1, 2, 5)))
CLOSE = 1e-5  # tolerance relative to the highest rate, since devices round differently
SHOWN = 3  # most differences that a message lists


class RunMismatch(ValueError):
    """The checkpoint belongs to another run."""


def model_facts(model: Any) -> Facts:
    """Facts about a model: its settings, clustering, number of items."""
    told = described(model)
    items = [
        value for path, value in told.items() if path.rsplit(".", 1)[-1] == "num_items" and value
    ]
    settings = {path or "class": value for path, value in told.items() if not _apart(path)}
    found: Facts = {"model": settings}
    if tables := clusterings(model):
        found["clustering"] = {"digest": tables[0].digest(), "is": tables[0].summary()}
        items.append(tables[0].num_items)
    if items:
        found["catalogue"] = {"items": items[0]}
    return found


def run_facts(
    model: Any, optimizer: Any, learning_rate: Callable[[Any], Any] | float | None,
    state: TrainState, items: ItemNames | None = None,
) -> Facts:  # fmt: skip
    """Facts about everything but the data; of this only the names of the items."""
    made_of = getattr(optimizer, "made_of", None)
    found = model_facts(model)
    if items is not None and (digest := items.digest()):
        found.setdefault("catalogue", {})["ids"] = digest
    if made_of is None:
        # Its functions, which another release of optax may call otherwise.
        numbers = {f"hyperparams.{at}": _plain(value) for at, value in injected(state.opt_state)}
        found["optimizer"] = {**described(optimizer.update), **numbers, "optax": optax.__version__}
    else:
        found["optimizer"] = described(dict(made_of))
    found["frozen"] = dict.fromkeys(sorted(flatten(state.frozen)), "frozen")
    rates = _rates(learning_rate)
    if rates is not None:
        found["schedule"] = dict(zip(map(str, SAMPLED), rates, strict=True))
    if code := code_of(model):
        found["code"] = code
    return found


def _plain(value: Any) -> Any:
    return float(value) if jnp.ndim(value) == 0 else described(value)[""]


def loss_facts(loss_fn: Callable[..., Any] | None) -> dict[str, Any]:
    """Facts about a loss function; None: the model's own."""
    if loss_fn is None:
        return {"function": "the model's own"}
    told = described(loss_fn)
    return {path or "function": value for path, value in told.items()} | code_of(loss_fn)


def differences(then: Facts, now: Facts, names: Collection[str]) -> dict[str, str]:
    """Name -> the difference, in words; what one side does not know is not compared.

    If schedules differ only by a factor, the name is 'learning_rate', which is not in `CHANGES` and
    so never refused.
    """
    found = {}
    for name in names:
        if name in then and name in now:
            pairs = _differing(name, then[name], now[name])
            if name == "schedule" and pairs and _is_scaled(then[name], now[name]):
                one, other = (max(facts[name].values()) for facts in (then, now))
                found["learning_rate"] = (
                    f"learning_rate: its highest was {_short(one)}, is {_short(other)} from here on"
                )
            elif pairs:
                found[name] = _in_words(name, pairs, then, now)
    return found


def refuse(where: str, found: Mapping[str, str], allowed: Collection[str]) -> list[str]:
    """One line for each allowed difference.

    Raises:
        RunMismatch: there are differences that are not allowed; names each and how to allow it.
    """
    refused = [name for name in found if name in CHANGES and name not in allowed]
    if not refused:
        return [
            f"{text}: allowed, {CHANGES[name]}" if name in CHANGES else text
            for name, text in found.items()
        ]
    differ = "; ".join(found[name] for name in refused)
    flags = " ".join(f"--allow-change {name}" for name in refused)
    then = "; ".join(f"{name}: {CHANGES[name]}" for name in refused)
    raise RunMismatch(
        f"{where}: another run wrote this checkpoint: {differ}."
        f" Another directory begins anew; to use it all the same: {flags}"
        f" (allow_changes={refused}); then {then}"
    )


def _apart(path: str) -> bool:
    """Whether a setting of a model has a name of its own, or says nothing of what it computes."""
    if ".prompt" in path:
        return True  # how it is asked, not what it computes
    return path.rsplit(".", 1)[-1] in (
        "num_items",
        "clustering_info",
        "remat",
        "item_embedding_init",
    )


def _rates(learning_rate: Callable[[Any], Any] | float | None) -> list[float] | None:
    """The rates at the steps of `SAMPLED`; None: unknown."""
    if learning_rate is None:
        return None
    if not callable(learning_rate):
        return [float(learning_rate)] * len(SAMPLED)
    try:
        found = np.asarray(learning_rate(jnp.asarray(SAMPLED, jnp.int32)), np.float64)
    except Exception:  # a function of the caller's that takes one number alone
        found = np.zeros(())
    if found.shape != (len(SAMPLED),):
        try:
            found = np.asarray([float(learning_rate(jnp.int32(step))) for step in SAMPLED])
        except Exception:  # or none that is there outside of a step
            return None
    return [float(rate) for rate in found]


def _is_scaled(then: Mapping[str, float], now: Mapping[str, float]) -> bool:
    """Whether one schedule is the other times a number."""
    one, other = np.asarray(list(then.values())), np.asarray(list(now.values()))
    if one.shape != other.shape or one.max() <= 0 or other.max() <= 0:
        return False
    return bool(np.abs(one / one.max() - other / other.max()).max() <= CLOSE)


def _differing(
    name: str, then: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """(path, value then, value now) of each that differs."""
    if then.get("optax") != now.get("optax"):
        return []
    paths = [*then, *(path for path in now if path not in then)]
    if name in ("catalogue", "model", "rows", "tokenizer", "optimizer"):
        # A field that one of them does not have at all: of another release, or another kind.
        shared = {_field(path) for path in then} & {_field(path) for path in now}
        paths = [path for path in paths if _field(path) in shared]
    if _holds(then) != _holds(now):
        paths = [path for path in paths if HELD not in path.split(".")]
    if name in ("loss", "code"):
        known = then.get("python") == now.get("python")
        paths = [path for path in paths if path != "python" and (known or path != "code")]
    if name == "clustering":
        paths = ["digest"]
    near = CLOSE * max(map(abs, [*then.values(), *now.values()])) if name == "schedule" else None
    found = []
    for path in paths:
        one, other = then.get(path), now.get(path)
        same = one == other if near is None else abs((one or 0.0) - (other or 0.0)) <= near
        if not same:
            found.append((path, one, other))
    return found


def _holds(facts: Mapping[str, Any]) -> bool:
    return any(HELD in path.split(".") for path in facts)


def _field(path: str) -> str:
    return path.partition(".")[0]


def _in_words(
    name: str, pairs: list[tuple[str, Any, Any]], then: Facts, now: Facts
) -> str:  # fmt: skip
    if name == "clustering":
        return (
            f"clustering: the checkpoint was trained with another ({then[name]['is']}, digest"
            f" {then[name]['digest']}) than this one ({now[name]['is']}, digest"
            f" {now[name]['digest']})"
        )
    if name == "frozen":
        thawed = [path for path, one, _ in pairs if one]
        frozen = [path for path, _, other in pairs if other]
        parts = [
            f"{word}: {', '.join(paths[:SHOWN])}{more(paths)}"
            for word, paths in (("trained now", thawed), ("frozen now", frozen))
            if paths
        ]
        return f"frozen: {'; '.join(parts)}"
    if name == "code":
        return "code: the model's code has changed since; the checkpoint goes on with the new code"
    if name == "schedule":
        pairs = [("learning_rate at step " + path, one, other) for path, one, other in pairs]
    if name in ("batch_size", "catalogue"):
        path, one, other = pairs[0]
        if path == "ids":
            one, other = f"items with the ids of digest {one}", f"those of {other}"
        of = " items" if path == "items" else ""
        return f"{name}: the checkpoint has {one}{of}, this run {other}"
    told = [
        f"{path or 'its function'} was {_short(one)}, is {_short(other)}"
        for path, one, other in pairs[:SHOWN]
    ]
    return f"{name}: {', '.join(told)}{more(pairs)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def more(found: Collection[Any]) -> str:
    """' and N more' for those beyond the first `SHOWN`; empty if there are none."""
    return f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""


def rows_of_all(batch: Any) -> int | None:
    """Rows of a batch, of all processes together; None: it has none."""
    rows = rows_of(batch)
    return rows if rows is None or is_placed(batch) else rows * jax.process_count()
