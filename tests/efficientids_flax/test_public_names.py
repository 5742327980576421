"""The public names of the package: all there, and imported only when they are used."""

import subprocess
import sys
from pathlib import Path

import pytest

import efficientids_flax

LARGE = ("jax", "flax", "optax", "orbax", "tensorstore", "transformers", "torch")


def imported_by(code: str) -> set[str]:
    """Which large packages a fresh interpreter has imported after this code."""
    code += f"\nimport sys; print(*[name for name in {LARGE} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", efficientids_flax.__all__)
def test_a_name_is_what_its_home_defines(name: str):
    value = getattr(efficientids_flax, name)
    assert value.__name__ == name
    home = "converters." if name == "convert_paxml_checkpoint" else "efficientids_flax."
    assert value.__module__.startswith(home)


def test_names_are_listed_once_and_in_order():
    names = efficientids_flax.__all__
    assert list(names) == sorted(set(names))
    assert set(names) <= set(dir(efficientids_flax))


def test_no_submodule_takes_the_place_of_a_name():
    """An imported submodule becomes an attribute of the package, and hides `__getattr__`."""
    folder = Path(efficientids_flax.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(efficientids_flax.__all__)


def test_importing_the_package_imports_nothing_large():
    assert imported_by("import efficientids_flax, efficientids_flax.config") == set()
    code = "from efficientids_flax import BackboneConfig, ClusteringInfo, estimate_memory"
    assert imported_by(code) == set()


def test_converting_imports_no_jax():
    """The converters come with their name alone, and need neither JAX nor Orbax."""
    code = "import sys, efficientids_flax; assert 'converters' not in sys.modules"
    assert imported_by(code) == set()
    code = "from efficientids_flax import convert_paxml_checkpoint"
    assert not imported_by(code) & {"jax", "flax", "optax", "orbax", "transformers", "torch"}


def test_using_a_model_imports_no_torch_and_no_transformers():
    code = "from efficientids_flax import EfficientIDSModel, Decoder, recommend, load_model"
    found = imported_by(code)
    assert "jax" in found
    assert not found & {"transformers", "torch"}


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="'efficientids_flax' has no attribute 'EfficientIds'"):
        _ = efficientids_flax.EfficientIds  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ImportError, match="cannot import name 'EfficientIds'"):
        exec("from efficientids_flax import EfficientIds")
