"""Fixtures of the parity suites."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parity_tests.cases import unpack


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`converted(name, overrides)`: a recorded checkpoint as our converter writes it, without the
    optimizer; `overrides` are configuration values, as `--set` gives them.
    """
    from converters import convert_paxml_checkpoint

    done: dict[str, Path] = {}

    def find(name: str, overrides: dict[str, Any] | None = None) -> Path:
        if name not in done:
            place = tmp_path_factory.mktemp(name)
            source = unpack(name, place / "recorded") / "checkpoint"
            convert_paxml_checkpoint(
                source, place / "out", optimizer="none", overrides=overrides or {}
            )
            done[name] = place / "out"
        return done[name]

    return find
