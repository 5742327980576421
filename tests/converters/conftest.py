"""Fixtures with local object stores; each server is started once."""

from collections.abc import Iterator

import pytest

from converters.stores.buckets import TIMEOUTS, environment
from tests.converters.stores.servers import S3, GoogleStorage, ObjectStore, as_google_does

SET_BY_THE_CODE = ("TENSORSTORE_GCS_HTTP_URL", "GOOGLE_AUTH_TOKEN_FOR_TESTING", *TIMEOUTS)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    server = S3()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gs_server() -> Iterator[ObjectStore]:
    with as_google_does():
        server = GoogleStorage()
        yield server
        server.stop()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> pytest.MonkeyPatch:
    """An environment without variables for object stores or credentials."""
    for name in {*environment(), *SET_BY_THE_CODE} - {"HOME"}:
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture
def s3(s3_server: ObjectStore, clean: pytest.MonkeyPatch) -> ObjectStore:
    return _use(s3_server, clean)


@pytest.fixture
def gs(gs_server: ObjectStore, clean: pytest.MonkeyPatch) -> ObjectStore:
    return _use(gs_server, clean)


@pytest.fixture(params=["s3", "gs"])
def remote(request: pytest.FixtureRequest) -> ObjectStore:
    """Each object store in turn, with the environment set to reach it."""
    return request.getfixturevalue(request.param)


def _use(server: ObjectStore, environment: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in server.variables.items():
        environment.setenv(name, value)
    return server
