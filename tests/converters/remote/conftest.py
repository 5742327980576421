"""Fixtures with object stores; each server is started once."""

from collections.abc import Iterator

import pytest
from servers import S3, GoogleStorage, ObjectStore, as_google_does

# What a developer's own environment may say, and what is set by the code under test.
_AWS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3",
        "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE")  # fmt: skip
_GOOGLE = ("TENSORSTORE_GCS_HTTP_URL", "GOOGLE_AUTH_TOKEN_FOR_TESTING",
           "GOOGLE_APPLICATION_CREDENTIALS")  # fmt: skip


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
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that names no object store and no credentials."""
    names = (*_AWS, *_GOOGLE, "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
             "AWS_REGION", "STORAGE_EMULATOR_HOST")  # fmt: skip
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is restored even if it is set later
        monkeypatch.delenv(name)
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
    """Each object store in turn, reachable by the environment."""
    return request.getfixturevalue(request.param)


def _use(server: ObjectStore, environment: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in server.variables.items():
        environment.setenv(name, value)
    return server
