"""The same numbers on eight devices as on one, however the model is split among them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Largest part of the parameters that one of eight devices may hold: an eighth, a quarter of what
# tensor parallelism splits, ... and the norms, biases and heads that stay whole.
SHARE = {"data": 1.0, "fsdp": 0.14, "tensor": 0.32, "all": 0.3, "expert": 0.2}
CASES = [
    ("language_model", "all"),
    ("mixture", "expert"),
    ("full_softmax", "all"),
    *(("recommender", mesh) for mesh in ("data", "fsdp", "tensor", "all")),
]


@pytest.fixture(scope="module")
def found():
    # Nothing here is slow to run, only to compile.
    flags = (
        "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1 "
        "--xla_llvm_disable_expensive_passes=true"
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("eight_devices.py"))],
        # Devices wait for each other in XLA's threads: of as few as devices all may wait for ever.
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": "32"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(("model", "mesh"), CASES)
def test_numbers_do_not_depend_on_the_mesh(found, model, mesh):
    # Loss, logits or entropies, every gradient. Sums are taken in another order: a few roundings of
    # 6e-8 of the largest magnitude, times what a softmax amplifies.
    assert found[f"{model}/{mesh}"]["worst"] < 1e-5


@pytest.mark.parametrize(("model", "mesh"), CASES)
def test_parameters_and_rows_are_split(found, model, mesh):
    assert found[f"{model}/{mesh}"]["share"] <= SHARE[mesh]
    rows = {"data": 1, "fsdp": 1, "tensor": 4, "all": 2, "expert": 2}
    assert found[f"{model}/{mesh}"]["rows"] == rows[mesh]


def test_metrics_of_lists_do_not_depend_on_the_devices(found):
    assert found["lists"] is True


def test_a_search_does_not_depend_on_the_devices(found):
    assert found["searched"] is True
