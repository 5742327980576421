"""DuckDB in this process: what does not fit into its memory goes to a folder."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import ibis
import pyarrow as pa

from efficientids_flax.prepare.engines.tables import BATCH


class Embedded:
    """An `Engine`.

    Args:
        place: a folder for what does not fit, emptied by nobody.
        memory: bytes that DuckDB may take.
        threads: at once; None: all cores.
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
        self._connection = duckdb.connect(str(place / "tables.duckdb"), config=settings)

    def view(self, name: str, file: Path) -> None:
        quoted = str(file).replace("'", "''")
        self._connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{quoted}')")

    def keep(self, name: str, expression: Any) -> None:
        self._connection.execute(f"CREATE TABLE {name} AS {_sql(expression)}")

    def drop(self, name: str) -> None:
        self._connection.execute(f"DROP TABLE {name}")

    def row(self, expression: Any) -> dict[str, Any]:
        found = self._connection.sql(_sql(expression)).limit(1)
        return (
            {} if not (rows := found.fetchall()) else dict(zip(found.columns, rows[0], strict=True))
        )

    def batches(self, expression: Any) -> Iterator[pa.RecordBatch]:
        with self._connection.cursor() as cursor:
            yield from cursor.sql(_sql(expression)).to_arrow_reader(BATCH)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._connection.close()


def _sql(expression: Any) -> str:
    return str(ibis.to_sql(expression, dialect="duckdb"))
