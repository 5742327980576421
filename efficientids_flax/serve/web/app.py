"""The application: the paths and their handlers. `Guard` wraps it."""
# No postponed annotations here: FastAPI reads request models, which are created at run time.

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from efficientids_flax.serve.answers import (
    SET_NAME,
    BusyError,
    Current,
    Gathering,
    Snapshot,
    TooManySetsError,
)
from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.web import asking, messages
from efficientids_flax.serve.web.guard import Guard
from efficientids_flax.serve.web.metrics import CONTENT_TYPE as METRICS
from efficientids_flax.serve.web.metrics import Metrics
from efficientids_flax.serve.web.pages import describe, documentation, start_page
from efficientids_flax.serve.web.problems import (
    CONTENT_TYPE,
    Field,
    ProblemError,
    of_validation,
)
from efficientids_flax.serve.web.tokens import Secrets

TOLD = {  # status of a problem -> description in OpenAPI
    400: "The request is no JSON, or no HTTP.", 401: "A token is needed.",
    403: "The token may not do this.", 404: "There is no such thing.",
    408: "The request was not complete in time.", 409: "It cannot be done now.",
    413: "The body is too large.", 415: "The body is not of JSON.",
    422: "A field is wrong; errors names it.",
    429: "Too much is waiting; Retry-After says when to come again.",
    503: "Not ready, or no answer in time.",
}  # fmt: skip
ASKED = (400, 401, 408, 413, 415, 422, 429, 503)
CHANGED = (400, 401, 403, 408, 409, 413, 415, 422, 429, 503)


class Served(Protocol):
    """What the application needs of a server; see `Service`."""

    current: Current
    gathering: Gathering
    metrics: Metrics
    answering: bool
    ready: bool
    settings: Any

    async def reload(self) -> Snapshot:
        """See `Service`."""
        ...


def make_app(served: Served, mistakes: tuple[type[Exception], ...], busy: type[Exception]) -> Guard:
    """Build the ASGI application of a server.

    Args:
        served: what answers.
        mistakes: exceptions that `reload` raises if an export is invalid; the text says why.
        busy: the exception that it raises if a reload is already running.
    """
    limits: Limits = served.settings.limits
    secrets: Secrets = served.settings.secrets
    models = messages.requests_for(limits)
    app = FastAPI(title="efficientids", version="1", openapi_url=None)  # pages of our own
    _handle_errors(app)
    described: dict[int, dict[str, Any]] = {}

    def present() -> Snapshot:
        found = served.current.snapshot
        if found is None or not served.answering:
            raise ProblemError(503, "not ready: see /readyz", headers={"Retry-After": "5"})
        return found

    async def answered(
        request: Request, read: Callable[[Snapshot], list[Any]], count: int
    ) -> Response:
        snapshot = present()
        request.scope["about"] = {"histories": count}
        try:
            answers = await served.gathering.ask(snapshot, read(snapshot))
        except BusyError as error:
            raise _busy(error) from None
        return _json(asking.results(answers, snapshot))

    @app.post("/v1/recommend", **_told(messages.Results, ASKED), operation_id="recommend",
              summary="The best next items of histories")  # fmt: skip
    async def recommend(request: Request, body: models.recommend) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        hidden = served.settings.hidden
        return await answered(
            request,
            lambda snapshot: asking.recommended(body, snapshot, limits, hidden),
            len(body.histories),
        )

    @app.post("/v1/score", **_told(messages.Results, ASKED), operation_id="score",
              summary="The log-probabilities of given items")  # fmt: skip
    async def score(request: Request, body: models.score) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        return await answered(
            request, lambda snapshot: asking.scored(body, snapshot, limits), len(body.histories)
        )

    @app.get("/v1/model", **_told(messages.About, (401, 503)), operation_id="model",
             summary="What is served")  # fmt: skip
    async def model() -> Response:
        return _json(_about(present(), limits))

    @app.get("/v1/sets", **_told(messages.Sets, (401, 503)), operation_id="list_sets",
             summary="The named sets of items")  # fmt: skip
    async def list_sets() -> Response:
        return _json({"sets": {name: len(rows) for name, rows in present().sets.items()}})

    named = Path(pattern=f"^{SET_NAME}$")

    @app.put("/v1/sets/{name}", **_told(messages.Sets, CHANGED), operation_id="put_set",
             summary="Put a set in place of the one of its name")  # fmt: skip
    async def put_set(body: models.put_set, name: str = named) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        present()
        try:
            rows = asking.rows_of(body.items)
            count = await asyncio.to_thread(served.current.put, name, rows)
        except TooManySetsError as error:
            raise ProblemError(409, str(error)) from None
        return _json({"sets": {name: count}})

    @app.delete("/v1/sets/{name}", **_told(None, (401, 403, 404, 422, 503), 204),
                operation_id="remove_set", summary="Remove a set")  # fmt: skip
    async def remove_set(name: str = named) -> Response:
        present()
        if not await asyncio.to_thread(served.current.remove, name):
            raise ProblemError(404, f"{name!r}: there is no such set",
                               [Field("there is no such set", parameter="name")])  # fmt: skip
        return Response(status_code=204)

    @app.post("/v1/reload", **_told(messages.About, (401, 403, 409, 503)), operation_id="reload",
              summary="Load what is at the model's place now, and answer from it")  # fmt: skip
    async def reload() -> Response:
        present()
        try:
            return _json(_about(await served.reload(), limits))
        except busy as error:
            raise ProblemError(409, str(error)) from None
        except mistakes as error:
            raise ProblemError(409, f"kept the old export: {error}") from error

    @app.get("/healthz", **_told(None), operation_id="healthz", summary="Whether it runs")
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz", **_told(None, (503,)), operation_id="readyz",
             summary="Whether all is compiled")  # fmt: skip
    async def readyz() -> Response:
        generation = present().generation
        if not served.ready:
            raise ProblemError(503, "about to end")
        return _json({"status": "ready", "generation": generation})

    @app.get("/metrics", operation_id="metrics", summary="Figures for Prometheus",
             response_class=Response, responses={200: {"content": {"text/plain": {}}}})  # fmt: skip
    async def metrics() -> Response:
        return Response(served.metrics.text(), headers={"content-type": METRICS})

    def openapi() -> dict[str, Any]:
        snapshot = present()
        if snapshot.generation not in described:
            described.clear()
            described[snapshot.generation] = describe(app, snapshot)
        return described[snapshot.generation]

    @app.get("/openapi.json", include_in_schema=False)
    async def schema() -> Response:
        return _json(openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return documentation(openapi(), str(request.base_url).rstrip("/"), secrets)

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return start_page()

    def check_room() -> None:
        try:
            served.gathering.check_room(1)
        except BusyError as error:
            raise _busy(error) from None

    return Guard(app, limits, secrets, served.metrics, check_room)


def _busy(error: BusyError) -> ProblemError:
    return ProblemError(429, str(error), headers={"Retry-After": str(error.retry_after)})


def _about(snapshot: Snapshot, limits: Limits) -> dict[str, Any]:
    return {
        "generation": snapshot.generation,
        "items": snapshot.export.catalogue.num_items,
        "named": snapshot.export.catalogue.named,
        "max_history": snapshot.export.max_history,
        "limits": vars(limits),
    }


def _json(found: Any) -> Response:
    return Response(json.dumps(found), media_type="application/json")


def _told(model: Any, problems: tuple[int, ...] = (), status: int = 200) -> dict[str, Any]:
    """The OpenAPI description of a path's answers, as arguments of a route."""
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    wrong: dict[int | str, Any] = {
        code: {"description": TOLD[code], "content": content} for code in problems
    }
    return {"response_model": model, "responses": wrong, "status_code": status}


def _handle_errors(app: FastAPI) -> None:
    """Answer all errors with problem documents."""

    def answer(request: Request, problem: ProblemError) -> Response:
        return Response(
            problem.document(request.scope.get("request_id")),
            problem.status,
            problem.headers,
            CONTENT_TYPE,
        )

    async def problem(request: Request, error: Any) -> Response:
        return answer(request, error)

    async def invalid(request: Request, error: Any) -> Response:
        return answer(request, of_validation(error.errors()))

    async def http(request: Request, error: Any) -> Response:
        detail = {
            400: "the body is no JSON",
            404: f"there is nothing at {request.url.path[:200]}",
            405: f"{request.method[:20]} is not possible here",
        }.get(error.status_code) or str(error.detail)
        return answer(request, ProblemError(error.status_code, detail, (), error.headers))

    handlers: list[tuple[Any, Callable[[Request, Any], Awaitable[Response]]]] = [
        (ProblemError, problem), (RequestValidationError, invalid), (HTTPException, http),
    ]  # fmt: skip
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)
