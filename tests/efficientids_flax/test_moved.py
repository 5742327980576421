"""Imports of places that modules and names had before."""

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from efficientids_flax import moved
from efficientids_flax.train.run import pipeline

DATA = Path(__file__).parents[1] / "data" / "moved"
SHOWN = {"efficientids_flax", "converters", "parity_tests"}


def listed(name: str) -> list[tuple[str, list[str]]]:
    """(module, public names that it had)."""
    lines = (DATA / name).read_text().splitlines()
    return [(line.split()[0], line.split()[1:]) for line in lines]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Old modules are forgotten again, also by the packages that they are in."""
    parents = [importlib.import_module(name) for name in SHOWN]
    yield
    for name in [name for name, one in sys.modules.items() if isinstance(one, moved._Moved)]:
        del sys.modules[name]
    for module in [*parents, *sys.modules.values()]:
        if module.__name__.partition(".")[0] in SHOWN:
            for name in [n for n, one in vars(module).items() if isinstance(one, moved._Moved)]:
                delattr(module, name)


def test_every_module_that_is_gone_has_its_names() -> None:
    modules = listed("modules.txt")
    assert {name for name, _ in modules} == moved._homes.keys()
    for module, names in modules:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = importlib.import_module(module)
        assert names == [name for name in names if hasattr(found, name)], module
        told = [str(one.message) for one in caught if issubclass(one.category, FutureWarning)]
        now = moved._homes[module]
        assert f"{module} is now {', '.join(now)}" in told
        for home in now:
            assert home in sys.modules


@pytest.mark.parametrize(("module", "names"), listed("names.txt"))
def test_names_that_left_a_module_are_found(module: str, names: list[str]) -> None:
    found = importlib.import_module(module)
    for name in names:
        with pytest.warns(FutureWarning, match=rf"^{module}.{name} is now [\w.]+\.{name}$"):
            value = getattr(found, name)
        assert value is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = found.nothing


def test_the_warning_names_the_line_of_the_import() -> None:
    with pytest.warns(FutureWarning) as caught:
        import efficientids_flax.train.pipeline  # pyright: ignore[reportMissingImports] # noqa: F401
    assert [Path(one.filename).name for one in caught] == [Path(__file__).name]
    with pytest.warns(FutureWarning) as caught:
        from efficientids_flax.train.step import make_step  # noqa: F401
    assert {Path(one.filename).name for one in caught} == {Path(__file__).name}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_old_module_is_the_new_one_under_another_name() -> None:
    old = importlib.import_module("efficientids_flax.train.pipeline")
    assert old.train_epochs is pipeline.train_epochs
    with mock.patch("efficientids_flax.train.pipeline.train_epochs", 3):
        assert pipeline.train_epochs == 3
    assert callable(pipeline.train_epochs)
    everything: dict[str, object] = {}
    exec("from efficientids_flax.train.train_state import *", everything)
    assert "TrainState" in everything
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from efficientids_flax.train.pipeline import nothing")
    with pytest.raises(AttributeError, match=r"is now [\w.]+\.run\.pipeline, and"):
        _ = old.nothing


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_function_that_an_old_module_was_called_like_can_still_be_called(tmp_path: Path) -> None:
    import converters

    importlib.import_module("converters.convert")
    from converters import ConversionError, convert

    with pytest.raises(ConversionError, match="nowhere"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    assert converters.convert is convert


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"efficientids_flax\.train\.nothing"):
        importlib.import_module("efficientids_flax.train.nothing")
    assert len([one for one in sys.meta_path if isinstance(one, moved._Finder)]) == 1
