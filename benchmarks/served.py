"""A recommender with random parameters, a server process for it, and requests to it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import http_load as load
from benchmarks.measure import PROGRAM

K, SEEN = 10, True
ADMIN = "bench-admin-token"


@dataclass(frozen=True)
class Size:
    """Sizes of the recommender: items, decoder width, layers, history length."""

    items: int = 20_000
    dims: int = 256
    layers: int = 4
    length: int = 64


def make_model(place: Path, size: Size) -> None:
    """Write a recommender with random parameters."""
    import jax
    import jax.numpy as jnp

    from benchmarks.clusterings import clustering
    from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
    from efficientids_flax.core.models import EfficientIDSModel
    from efficientids_flax.stored import save_model

    backbone = BackboneConfig(
        vocab_size=256, num_layers=size.layers, model_dims=size.dims, hidden_dims=4 * size.dims,
        num_heads=4, num_kv_heads=4, head_dim=size.dims // 4,
    )  # fmt: skip
    config = EfficientIDSConfig(
        num_items=size.items, item_embedding_dim=64, num_clusters=round(size.items**0.5),
        trainable_cluster_embeddings=True, backbone=backbone, trained_length=size.length,
    )  # fmt: skip
    model = EfficientIDSModel(config, clustering(size.items, round(size.items**0.5), "log-normal"))
    one = jnp.zeros((1, 1), jnp.int32)
    batch = {"ids": one, "input_item_weights": one, "inputs_indicator": one}
    params = jax.jit(lambda key: model.init(key, batch, method="head_inputs")["params"])(
        jax.random.key(0)
    )
    save_model(place, model, params)


def histories(count: int, size: Size, seed: int = 0) -> list[list[int]]:
    """Random histories of all lengths up to the longest that is used."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(size.length // 4, size.length - 3, count)
    return [rng.integers(0, size.items, length).tolist() for length in lengths]


def asked(history: list[int]) -> bytes:
    """A request for one history."""
    body = {"histories": [{"items": history}], "k": K, "exclude_seen": SEEN}
    return load.request("/v1/recommend", body)


@contextlib.contextmanager
def server(model: Path, *options: str, log: Path | None = None) -> Iterator[tuple[Any, int]]:
    """Run a server; gives (process, port) once it is ready."""
    process, port = start(model, *options, log=log)
    try:
        wait_ready(port)
        yield process, port
    finally:
        process.kill()
        process.communicate()


def start(model: Path, *options: str, log: Path | None = None) -> tuple[Any, int]:
    """Start a server; gives (process, port), which is not ready yet."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(model.parent / "compiled"),
             "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip
    with contextlib.ExitStack() as stack:
        written = subprocess.DEVNULL if log is None else stack.enter_context(log.open("ab"))
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", str(model), "--port", "0", "--json", *options],
            stdout=subprocess.PIPE, stderr=written,
            env={**cache, **os.environ, "EFFICIENTIDS_ADMIN_TOKEN": ADMIN},
        )  # fmt: skip
    assert process.stdout is not None
    return process, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])


def wait_ready(port: int) -> None:
    """Wait until the server has compiled everything."""

    async def ready() -> bool:
        client = load.Client(port)
        status, _ = await client.ask(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        client.close()
        return status == 200

    until = time.monotonic() + 300
    while not asyncio.run(ready()):
        if time.monotonic() > until:
            raise TimeoutError("the server is not ready after 300 s")
        time.sleep(0.1)


def run(work: Any) -> Any:
    """Run a coroutine on a fast event loop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def memory(process: Any) -> float:
    """Memory of a process in bytes."""
    import psutil

    return float(psutil.Process(process.pid).memory_info().rss)
