"""DuckDB in this process; what exceeds its memory limit is spilled to a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import ibis
import pyarrow as pa

from efficientids_flax.prepare.engines.tables import BATCH, EngineError

_ = ibis.duckdb  # import Ibis' SQL backend now, not at the first expression
QUIET = "SET enable_progress_bar = false"  # it would print to standard output; set per connection


class Embedded:
    """DuckDB as an `Engine`.

    Args:
        place: a folder for spilled data; the caller removes it.
        memory: memory limit of DuckDB in bytes.
        threads: number of threads; None: all cores.
    """

    def __init__(self, place: Path, memory: int, threads: int | None = None) -> None:
        settings: dict[str, Any] = {
            "memory_limit": f"{memory >> 20}MiB",
            "temp_directory": str(place / "spilled"),
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
        }
        if threads is not None:
            settings["threads"] = str(threads)
        with _told():
            self._connection = duckdb.connect(str(place / "tables.duckdb"), config=settings)
            self._connection.execute(QUIET)

    def view(self, name: str, file: Path) -> None:
        quoted = str(file).replace("'", "''")
        self._run(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{quoted}')")

    def keep(self, name: str, expression: Any) -> None:
        self._run(f"CREATE TABLE {name} AS {_sql(expression)}")

    def drop(self, name: str) -> None:
        self._run(f"DROP TABLE {name}")

    def row(self, expression: Any) -> dict[str, Any]:
        with _told():
            found = self._connection.sql(_sql(expression)).limit(1)
            rows = found.fetchall()
        return dict(zip(found.columns, rows[0], strict=True)) if rows else {}

    def batches(self, expression: Any) -> Iterator[pa.RecordBatch]:
        with _told(), self._connection.cursor() as cursor:
            cursor.execute(QUIET)
            yield from cursor.sql(_sql(expression)).to_arrow_reader(BATCH)

    def _run(self, statement: str) -> None:
        with _told():
            self._connection.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._connection.close()


@contextmanager
def _told() -> Iterator[None]:
    """Raise errors of DuckDB as `EngineError`."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        told = str(error).split("\n", 1)[0].rstrip(".")
        raise EngineError(f"duckdb: {told}; give more `memory`, or room on the disk") from error
    except duckdb.Error as error:
        raise EngineError(f"duckdb: {error}") from error


def _sql(expression: Any) -> str:
    return str(ibis.to_sql(expression, dialect="duckdb"))
