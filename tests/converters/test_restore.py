"""Outputs open in today's Orbax without arguments, on any devices, and train on in optax."""

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from converters import PlanOptions, convert, load_converted
from converters.conversion import ConvertOptions
from efficientids_flax.stored.optimizer_states import STATES, ShardedAdafactorState
from tests.converters import stored, synthetic

Recording = Callable[[str], Path]
BETAS = {"beta1": 0.9, "beta2": 0.99}
CASES = ("LlamaRepeat_gda", "LlamaBf16_ocdbt", "LlamaAdafactor_flax", "d_correction_frozen_lm")

# Restores an output in every way and prints a digest of each leaf.
SCRIPT = """
import hashlib, json, sys
from pathlib import Path
import jax, numpy as np, orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from converters import load_converted
from efficientids_flax.stored.load import flatten

devices = int(sys.argv[1])
assert jax.device_count() == devices

def digests(tree):
    return {
        name: hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
        for name, leaf in flatten(tree).items()
    }

mesh = Mesh(np.array(jax.devices()), ("x",))
def sharding(name, leaf):
    axis = next((i for i, size in enumerate(leaf.shape) if size % devices == 0), None)
    spec = PartitionSpec(*[None] * (axis or 0), *(["x"] if axis is not None else []))
    return NamedSharding(mesh, spec)

def opened(out):
    found = {"standard": {}, "pytree": {}}
    for item in ("params", "state"):
        with ocp.StandardCheckpointer() as checkpointer:
            found["standard"][item] = checkpointer.restore(out / item)
        with ocp.PyTreeCheckpointer() as checkpointer:
            found["pytree"][item] = checkpointer.restore(out / item)
    found = {way: digests(tree) for way, tree in found.items()}
    found["host"] = digests({"params": load_converted(out).params})
    sharded = load_converted(out, sharding)
    leaves = jax.tree.leaves(sharded.params)
    assert all(len(leaf.sharding.device_set) == devices for leaf in leaves)
    parts = [leaf for leaf in leaves if not leaf.sharding.is_fully_replicated]
    assert devices == 1 or parts, "nothing was split"
    for leaf in parts:
        assert leaf.addressable_shards[0].data.size * devices == leaf.size
    found["sharded"] = digests({"params": sharded.params})
    everywhere = load_converted(out, NamedSharding(mesh, PartitionSpec()))
    assert len(jax.tree.leaves(everywhere.params)[0].sharding.device_set) == devices
    found["replicated"] = digests({"params": everywhere.params})
    return found

print(json.dumps([opened(Path(out)) for out in sys.argv[2:]]))
"""


def converted(case: Path, out: Path, **options: Any) -> Path:
    overrides = {} if (case / "job_files").exists() else BETAS
    plan = PlanOptions(overrides=overrides)
    convert(case / "checkpoint", out, ConvertOptions(plan, **options))
    return out


OPENED = ("LlamaRepeat_gda", "LlamaBf16_ocdbt")


@pytest.fixture(scope="module")
def outs(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of a recording -> its conversion."""
    place = tmp_path_factory.mktemp("outs")
    return {name: converted(recording(name), place / name) for name in OPENED}


@pytest.fixture(scope="module")
def opened(outs: dict[str, Path]) -> Callable[[int], dict[str, Any]]:
    """`opened(devices)`: what one process prints of all conversions, by name."""

    @cache
    def run(devices: int) -> dict[str, Any]:
        flags = f"--xla_force_host_platform_device_count={devices}"
        end = subprocess.run(
            [*synthetic.command()[:3], "-c", SCRIPT, str(devices), *map(str, outs.values())],
            env=synthetic.environment(XLA_FLAGS=flags),
            capture_output=True,
            text=True,
            check=False,
        )
        assert end.returncode == 0, end.stderr
        assert "WARNING" not in end.stderr.upper(), end.stderr
        return dict(zip(outs, json.loads(end.stdout), strict=True))

    return run


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("name", OPENED)
def test_opens_on_any_number_of_devices(
    name: str, devices: int, outs: dict[str, Path], opened: Callable[[int], dict[str, Any]]
):
    wanted = stored.digests(outs[name])
    params = {target: digest for target, digest in wanted.items() if target.startswith("params/")}
    assert opened(devices)[name] == {
        "standard": wanted, "pytree": wanted, "host": params, "sharded": params,
        "replicated": params,
    }  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_plain_restore_gives_numpy_arrays_and_loading_gives_types(
    name: str, recording: Recording, tmp_path: Path
):
    out = converted(recording(name), tmp_path / "out")
    with ocp.StandardCheckpointer() as checkpointer:
        plain = checkpointer.restore(out / "params")
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(plain))
    params, state, config = load_converted(out)
    assert jax.tree.structure(params) == jax.tree.structure(plain)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, plain))
    assert state.step == (3 if name.startswith("d_") else 4)
    for transform, values in state.optimizer.items():
        assert type(values) is STATES[transform]
    assert config.model is not None
    assert config.optimizer is not None
    assert load_converted(out, optimizer=False).optimizer_state.optimizer == {}


def test_safetensors_load_as_the_same_tree(recording: Recording, tmp_path: Path):
    case = recording("LlamaAdafactor_flax")
    orbax = load_converted(converted(case, tmp_path / "orbax"))
    other = load_converted(converted(case, tmp_path / "safetensors", to="safetensors"))
    assert jax.tree.structure(other) == jax.tree.structure(orbax)
    assert jax.tree.all(jax.tree.map(np.array_equal, other, orbax))


def test_adam_goes_on(recording: Recording, tmp_path: Path):
    """The loaded moments are optax' own: an update gives what the closed form gives."""
    params, state, config = load_converted(converted(recording("LlamaRepeat_gda"), tmp_path / "o"))
    assert config.optimizer is not None
    beta1, beta2, epsilon = 0.9, 0.99, 1e-6
    assert (config.optimizer.beta1, config.optimizer.beta2) == (beta1, beta2)
    transform = optax.named_chain(
        ("adam", optax.scale_by_adam(beta1, beta2, epsilon)),
        ("schedule", optax.scale_by_schedule(lambda count: -0.01 * (count + 1))),
    )
    fresh = jax.jit(transform.init)(params)
    assert jax.tree.structure(fresh) == jax.tree.structure(state.optimizer)
    shapes = jax.tree.map(lambda leaf: (np.shape(leaf), np.asarray(leaf).dtype), fresh)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state.optimizer)

    gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), params)
    updates, after = jax.jit(transform.update)(gradients, state.optimizer, params)
    assert int(after["adam"].count) == int(after["schedule"].count) == 5

    def closed_form(mu: np.ndarray, nu: np.ndarray) -> np.ndarray:
        mean = (beta1 * mu + (1 - beta1) * 0.5) / (1 - beta1**5)
        square = (beta2 * nu + (1 - beta2) * 0.25) / (1 - beta2**5)
        return -0.05 * mean / (np.sqrt(square) + epsilon)

    wanted = jax.tree.map(closed_form, state.optimizer["adam"].mu, state.optimizer["adam"].nu)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), updates, wanted)


def test_momentum_goes_on(recording: Recording, tmp_path: Path):
    params, state, _ = load_converted(converted(recording("LlamaSgdm_ocdbt"), tmp_path / "out"))
    transform = optax.named_chain(
        ("momentum", optax.trace(0.9)),
        ("schedule", optax.scale_by_schedule(lambda count: -0.1 * count)),
    )
    assert jax.tree.structure(jax.eval_shape(transform.init, params)) == jax.tree.structure(
        state.optimizer
    )
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(transform.update)(gradients, state.optimizer, params)
    count = int(state.optimizer["schedule"].count)
    wanted = jax.tree.map(
        lambda trace: -0.1 * count * (1 + 0.9 * trace), state.optimizer["momentum"].trace
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, wanted)


def test_average_of_the_weights(recording: Recording, tmp_path: Path):
    case = recording("LlamaRepeatEma_v00flax_file")
    params, state, _ = load_converted(converted(case, tmp_path / "out"))
    ema = state.optimizer["ema"]
    assert isinstance(ema, optax.EmaState)
    assert jax.tree.structure(ema.ema) == jax.tree.structure(params)
    fresh = jax.eval_shape(optax.ema(0.99).init, params)
    assert jax.tree.structure(fresh) == jax.tree.structure(ema)


def test_frozen_parameters_have_no_state(recording: Recording, tmp_path: Path):
    """The moments are a subtree of the parameters, which `optax.masked`-like splits want."""
    case = recording("d_correction_frozen_lm")
    params, state, _ = load_converted(converted(case, tmp_path / "out"))
    moments = state.optimizer["sharded_adafactor"]
    assert isinstance(moments, ShardedAdafactorState)
    trained = set(params) - {"pretrained_lm"}
    for name in ("m", "m_scale", "vr", "vc", "v"):
        assert set(getattr(moments, name)) == trained
    for path, leaf in jax.tree_util.tree_leaves_with_path(moments.m):
        own = params
        for key in path:
            own = own[key.key]
        assert own.shape == leaf.shape
        assert leaf.dtype == np.int8
    schedule = optax.scale_by_schedule(lambda count: count)
    _, after = schedule.update({"w": jnp.ones(2)}, state.optimizer["schedule"])
    assert int(after.count) == int(state.optimizer["schedule"].count) + 1


def test_loading_what_is_no_conversion(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json; give the OUT directory"):
        load_converted(tmp_path)
    (tmp_path / "config.json").write_text('{"schema_version": 99}')
    with pytest.raises(ValueError, match="schema 99 is not 1"):
        load_converted(tmp_path)
    about = {"schema_version": 1, "family": "generic", "model": None, "optimizer": None}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(FileNotFoundError, match="has neither params/ nor"):
        load_converted(tmp_path)


def test_generic_trees_load_without_a_model(recording: Recording, tmp_path: Path):
    case = recording("BatchNormNonTrainable_ocdbt")
    params, state, config = load_converted(converted(case, tmp_path / "out"))
    assert config == ("generic", None, None, {})
    assert set(state.rest["collections"]["non_trainable"]) == {"moving_mean", "moving_variance"}
    assert params
    assert state.optimizer == {}
