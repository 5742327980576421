"""The command: what it refuses, and how; test_listening.py runs it."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from efficientids_flax.serve import sockets
from efficientids_flax.serve.commands.serve import serve as command


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--max-k", 0), "--max-k"),
        (("--max-body", "1kB"), "--max-body"),
        (("--grace", 0), "--grace"),
        (("--port", 70000), "--port"),
    ],
)
def test_bad_usage(arguments: tuple[Any, ...], told: str):
    done = run("model", *arguments)
    assert done.exit_code == 2 and told in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "x"), "'x': expected NAME=FILE"),
        (("--set", "a b=x"), "set 'a b': expected a name of letters"),
        (("--hide", "a/b"), "set 'a/b': expected a name of letters"),
        (("--max-queue", 5), "--max-queue: 5 has no room for one request of 64"),
        (("--token-file", "nowhere"), "nowhere"),
        (("--host", "999.1.1.1"), "999.1.1.1:8000: cannot listen there"),
    ],
)
def test_bad_input(arguments: tuple[Any, ...], told: str):
    done = run("model", *arguments)
    assert (done.exit_code, "Traceback" in done.output) == (1, False), done.output
    assert told in done.output


def test_a_model_that_is_not_there(tmp_path: Path):
    done = run(tmp_path, "--port", 0)
    assert done.exit_code == 1
    assert "no config.json" in done.output


def test_a_port_that_is_taken():
    with sockets.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        done = run("model", "--port", port)
    assert done.exit_code == 1
    assert f"127.0.0.1:{port}: cannot listen there: Address already in use" in done.output


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = run("model")
    assert done.exit_code == 1
    assert "pip install 'efficientids-flax[serve]'" in done.output


def test_addresses():
    with socket.create_server(("127.0.0.1", 0)) as made:
        assert sockets.url_of(made) == f"http://127.0.0.1:{made.getsockname()[1]}"
