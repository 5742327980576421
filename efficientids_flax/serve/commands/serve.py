"""The command `serve`."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from efficientids_flax.commands import combined, command, echo, is_quiet, verbosity
from efficientids_flax.commands.options import Real, Size, compute_dtype, max_history
from efficientids_flax.commands.options import clustering as clustering_option
from efficientids_flax.serve.limits import Limits

if TYPE_CHECKING:
    from efficientids_flax.serve.service import Settings

DEFAULT = Limits()
SWITCH = 0.0005  # seconds; Python's own is 5 ms
COUNT = click.IntRange(min=1)
SECONDS = Real(min=0, min_open=True)


def limit(flag: str, kind: Any, told: str) -> Any:
    """An option that is a field of `Limits`."""
    value = getattr(DEFAULT, flag.lstrip("-").replace("-", "_"))
    shown: Any = f"{value >> 20}MiB" if isinstance(kind, Size) else True
    return click.option(flag, type=kind, default=value, show_default=shown, help=told)


OPTIONS = combined(
    clustering_option,
    click.option("--items", metavar="FILE",
                 help="Ids and titles of items: items.parquet of a prepared directory, or an "
                      "items.jsonl (default: OUT's own)."),
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at."),
    click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
                 help="Port to listen at; 0 for a free one."),
    click.option("--set", "sets", multiple=True, metavar="NAME=FILE",
                 help="A named set of items: a file with one id a line. Repeatable."),
    click.option("--hide", "hidden", multiple=True, metavar="NAME",
                 help="Never recommend items of this set. Repeatable."),
    click.option("--token-file", metavar="FILE",
                 help="Token for requests (default: EFFICIENTIDS_TOKEN)."),
    click.option("--admin-token-file", metavar="FILE",
                 help="Token for changes (default: EFFICIENTIDS_ADMIN_TOKEN)."),
    click.option("--grace", type=SECONDS, default=20.0, show_default=True,
                 help="Seconds to finish requests after SIGTERM."),
    max_history,
    compute_dtype,
    limit("--max-batch", COUNT, "Histories computed at once."),
    limit("--max-delay-ms", Real(min=0), "Milliseconds a history waits for others."),
    limit("--max-queue", COUNT, "Most waiting histories; beyond, requests get 429."),
    limit("--max-histories", COUNT, "Most histories of a request."),
    limit("--max-length", COUNT, "Most ids of a history."),
    limit("--max-exclude", COUNT, "Most excluded items of a history."),
    limit("--max-k", COUNT, "Most recommended items of a history."),
    limit("--max-candidates", COUNT, "Most scored items of a history."),
    limit("--max-body", Size(), "Largest request."),
    limit("--max-set-body", Size(), "Largest request that sets a set."),
    limit("--max-connections", COUNT, "Most connections."),
    limit("--timeout", SECONDS, "Seconds that a request may take."),
)  # fmt: skip


@command("serve")
@click.argument("checkpoint", metavar="OUT")
@OPTIONS
def serve(checkpoint: str, as_json: bool, **given: Any) -> None:
    """Serve recommendations over HTTP.

    OUT is a converted recommender, or the output of `export`. /docs lists the paths. SIGHUP loads
    OUT again; SIGTERM answers all requests and ends. With --json, log lines are JSON.
    """
    _check_installed()
    from efficientids_flax.serve.logs import start_logs
    from efficientids_flax.serve.sockets import allow_connections, bind, url_of

    settings = settings_of(checkpoint, given)
    levels = {-1: logging.WARNING, 0: logging.INFO, 1: logging.INFO}
    start_logs(as_json=as_json, level=levels.get(verbosity(), logging.DEBUG))
    allow_connections(settings.limits.max_connections)
    listener = bind(given["host"], given["port"])
    url = url_of(listener)
    local = given["host"] in ("127.0.0.1", "localhost", "::1")
    if settings.secrets.user is None and not local and not is_quiet():
        click.echo(f"warning: {given['host']}: whoever reaches this address may ask: there is no "
                   "token", err=True)  # fmt: skip
    echo(as_json, {"url": url, "pid": os.getpid()}, f"{checkpoint}: listening at {url}")
    sys.stdout.flush()
    _run(settings, listener, given["grace"])


def settings_of(checkpoint: str, given: dict[str, Any]) -> Settings:
    """What the options say."""
    from efficientids_flax.serve.answers import Source
    from efficientids_flax.serve.service import Settings, named_files, set_name
    from efficientids_flax.serve.web import read_secrets

    limits = Limits(**{one.name: given[one.name] for one in fields(Limits) if one.name in given})
    source = Source(
        checkpoint, given["clustering"], given["items"], given["dtype"], given["max_history"]
    )
    secrets = read_secrets(given["token_file"], given["admin_token_file"])
    hidden = tuple(map(set_name, given["hidden"]))
    return Settings(source, limits, secrets, named_files(given["sets"]), hidden)


def _run(settings: Settings, listener: Any, grace: float) -> None:
    """Serve until it is told to end."""
    import asyncio
    import importlib.util

    from efficientids_flax.serve.listening import listen

    # The device's thread would wait that long for the event loop's, several times a batch.
    sys.setswitchinterval(SWITCH)
    factory = None
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        factory = uvloop.new_event_loop

    async def serving() -> None:
        if not await listen(settings, listener, grace=grace):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # a model that is still being loaded would have to be waited for

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serving())


def _check_installed() -> None:
    """Raise `ImportError` that names the extra, if it is not installed."""
    try:
        import fastapi
        import prometheus_client
        import uvicorn
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed: pip install 'efficientids-flax[serve]'"
        ) from error
    del fastapi, prometheus_client, uvicorn
