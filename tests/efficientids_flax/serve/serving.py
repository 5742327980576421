"""A server without a socket: its application, asked by an HTTP client of tests."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

import httpx

from efficientids_flax.serve.answers import Source
from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.service import MISTAKES, ReloadingError, Service, Settings
from efficientids_flax.serve.web import Secrets, make_app
from efficientids_flax.serve.web.tokens import _digest

ITEMS = 200
USER, ADMIN = "who-asks-1234", "who-changes-5678"
ADMIN_PATHS = [("POST", "/v1/reload"), ("PUT", "/v1/sets/x"), ("DELETE", "/v1/sets/x")]
LIMITS = Limits(
    max_batch=2, max_queue=16, max_histories=6, max_length=20, max_exclude=12, max_k=40,
    max_candidates=8, max_body=4096, max_set_body=8192, timeout=20.0,
)  # fmt: skip


def settings_for(model: Path, **given: Any) -> Settings:
    """With both tokens, and few and small shapes."""
    source = Source(str(model), max_history=5)
    secrets = Secrets(_digest(USER.encode()), _digest(ADMIN.encode()))
    return Settings(source, LIMITS, secrets, hidden=("sold-out",), **given)


class Served:
    """A service and its application on an event loop that runs while it is asked."""

    def __init__(self, settings: Settings, like: Self | None = None) -> None:
        self.settings, self._like = settings, like
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._start())
        return self

    async def _start(self) -> None:
        self.service = Service(self.settings)
        self.app = make_app(self.service, MISTAKES, ReloadingError)
        if self._like is not None:  # what it has compiled
            snapshot = self._like.service.snapshot
            assert snapshot is not None
            self.service.current.replace(snapshot.export)
        await self.service.start()
        snapshot = self.service.snapshot
        assert snapshot is not None
        snapshot.export.ranker.seconds = dict.fromkeys(snapshot.export.ranker.shapes.rows, 1.0)
        transport = httpx.ASGITransport(self.app)  # pyright: ignore[reportArgumentType]
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    def __exit__(self, *_: object) -> None:
        self.run(self.client.aclose())
        self.run(self.service.stop())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """On the loop."""
        return self._runner.run(work)

    def ask(self, method: str, path: str, *, token: str | None = USER, **given: Any) -> Any:
        """One request."""
        return self.run(self.asked(method, path, token=token, **given))

    async def asked(
        self, method: str, path: str, *, token: str | None = USER, **given: Any
    ) -> httpx.Response:
        """One request among others."""
        headers = dict(given.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return await self.client.request(method, path, headers=headers, **given)

    def recommend(self, *histories: Any, **given: Any) -> Any:
        """The results for histories of numbers."""
        asked = {"histories": [{"items": [f"tt{row:03d}" for row in one]} for one in histories]}
        answer = self.ask("POST", "/v1/recommend", json=asked | given)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]

    def figure(self, name: str) -> float:
        """One of the metrics."""
        lines = self.ask("GET", "/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
