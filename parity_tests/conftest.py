"""Fixtures of the parity suites, and options to run them on a checkpoint of your own."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from parity_tests.cases import checkpoint_of, recordings
from parity_tests.readers import read
from parity_tests.recording import Recording

# Settings that a checkpoint does not show without its job's dump, and that the reader misses.
SETTINGS: dict[str, dict[str, Any]] = {
    "k_adam": {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-6},
    "GptJ": {
        "activation": "gelu_tanh",
        "norm_epsilon": 1e-5,
        "norm_scale_plus_one": False,
        "rotary.pairing": "interleaved",
        "rotary.fraction": 0.5,
        "position_embedding": "none",
        "embedding_scale": "none",
        "attention_logit_cap": None,
        "final_logit_cap": None,
    },
    "QInt4Asymmetric": {"norm_epsilon": 1e-5},
    "QInt4PackedInt8LinearOnly": {"norm_epsilon": 1e-5},
}
QUANTIZED = ("QInt4",)  # how the names of recordings begin whose weights are quantized
OWN_TEST = "test_own_values_agree"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--out` and `--against`."""
    group = parser.getgroup("parity", "a checkpoint of your own, in place of the bundled ones")
    group.addoption("--out", metavar="DIR", help="a converted checkpoint")
    group.addoption("--against", metavar="DIR", help="the recording to compare it with")


def pytest_configure(config: pytest.Config) -> None:
    """Require both options or none."""
    if bool(config.getoption("--out")) != bool(config.getoption("--against")):
        raise pytest.UsageError("--out and --against belong together")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a checkpoint of your own, run only its test; without one, run all others."""
    own = bool(config.getoption("--out"))
    others = [item for item in items if item.name.startswith(OWN_TEST) != own]
    items[:] = [item for item in items if item.name.startswith(OWN_TEST) == own]
    config.hook.pytest_deselected(items=others)


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], Recording]:
    """`recorded(name)`: a bundled recording, read once."""
    return cache(lambda name: read(recordings()[name]))


@pytest.fixture(scope="session")
def converted(
    tmp_path_factory: pytest.TempPathFactory, recorded: Callable[[str], Recording]
) -> Callable[[str], Path]:
    """`converted(name)`: the checkpoint of a bundled recording, converted by our converter."""
    from converters import convert_paxml_checkpoint

    done: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in done:
            place = tmp_path_factory.mktemp(name)
            checkpoint = checkpoint_of(recordings()[name], place / "recorded")
            convert_paxml_checkpoint(
                checkpoint,
                place / "out",
                overrides=SETTINGS.get(name, {}),
                optimizer="convert" if recorded(name).steps else "none",
                dequantize=name.startswith(QUANTIZED),
            )
            done[name] = place / "out"
        return done[name]

    return find
