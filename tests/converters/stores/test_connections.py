"""Object stores that refuse, fail or do not answer: one clear line, soon."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from converters.stores import connections
from converters.stores.open import open_store
from converters.stores.protocol import MissingKeyError, StorageError
from tests.converters import synthetic
from tests.converters.stores.servers import ObjectStore

SOON = 20  # seconds; a command takes some of them to start on a busy machine
QUICK = {"max_retries": 2, "initial_delay": "1ms", "max_delay": "2ms"}
PATIENT = {"max_retries": 9, "initial_delay": "1ms", "max_delay": "2ms"}
# What Google tells of a file that was written; of S3's answers only the headers count.
WRITTEN = b'{"name": "a", "bucket": "b", "generation": "1", "metageneration": "1", "size": "0"}'
LOG = re.compile(r"^[IWE]\d{4} .*\n", re.MULTILINE)  # a line of TensorStore's own


class Server:
    """Gives the same answer to every request, except to the next `failures` ones.

    Attributes:
        status: of the answer.
        body: of the answer.
        failures: requests that are answered with 503 first.
        requests: methods and paths of those that came.
        credentials: header of the last one.
    """

    def __init__(self) -> None:
        self.status, self.body, self.failures = 200, b"", 0
        self.requests: list[str] = []
        self.credentials = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append(f"{self.command} {self.path}")
                outer.credentials = self.headers.get("Authorization", "")
                outer.failures -= 1
                self.send_response(503 if outer.failures >= 0 else outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.send_header("ETag", '"tag"')
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(outer.body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 (the base's names)

            def log_request(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        serve = partial(self._server.serve_forever, poll_interval=0.01)
        self._thread = threading.Thread(target=serve)
        self._thread.start()

    def refuse(self, url: str, status: int, code: str) -> None:
        """Refuse all requests as the real server of this URL does."""
        self.status = status
        if url.startswith("s3:"):
            self.body = f"<Error><Code>{code}</Code><Message>Told</Message></Error>".encode()
        else:
            self.body = json.dumps({"error": {"code": status, "message": code}}).encode()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, server: Server, clean: pytest.MonkeyPatch) -> str:
    """URL of a bucket at `server`, of each kind in turn.

    Its name is new: TensorStore keeps an open `gs://` bucket, whatever the environment says.
    """
    clean.setenv("AWS_ENDPOINT_URL", server.url)
    clean.setenv("AWS_ACCESS_KEY_ID", "key")
    clean.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    clean.setenv("STORAGE_EMULATOR_HOST", server.url)
    clean.setattr(connections, "FIRST_RETRIES", QUICK)
    clean.setattr(connections, "LATER_RETRIES", PATIENT)
    return f"{request.param}://bucket-{server.url.rpartition(':')[2]}"


@pytest.mark.parametrize(
    ("status", "code", "cause"),
    [
        (403, "AccessDenied", r"access denied \(.*AccessDenied.*\); the .* may not do this in"),
        (401, "Unauthorized", r"access (denied|needs credentials)"),
        (400, "ExpiredToken", r"ExpiredToken"),
        (503, "SlowDown", r"bucket-\d+ answers 503: .*SlowDown"),
    ],
)
def test_refused(bucket: str, server: Server, status: int, code: str, cause: str):
    server.refuse(bucket, status, code)
    store = open_store(f"{bucket}/place")
    calls = {
        "list": [store.keys, store.children, lambda: store.delete("")],
        "read": [lambda: store.read("a"), lambda: store.size("a"), lambda: store.exists("a")],
        "write": [lambda: store.write("a", b"data")],
    }
    for verb, actions in calls.items():
        for action in actions:
            match = rf"^{bucket}/place(/a)?: cannot (list|{verb}): .*{cause}"
            with pytest.raises(StorageError, match=match) as told:
                action()
            assert "\n" not in str(told.value) and "http_response" not in str(told.value)


def test_refused_list_is_no_empty_one(bucket: str, server: Server):
    """TensorStore takes it for an empty list for `gs://`."""
    server.refuse(bucket, 403, "AccessDenied")
    with pytest.raises(StorageError, match="cannot list: access denied"):
        open_store(bucket).keys()


def test_failures_are_waited_out_once_it_has_answered(bucket: str, server: Server):
    server.failures = 3
    store = open_store(bucket)
    with pytest.raises(StorageError, match="answers 503"):
        store.write("a", b"")
    assert len(server.requests) == 3
    server.body = WRITTEN
    store.write("a", b"")
    server.failures = 6
    server.requests.clear()
    store.write("a", b"")
    assert len(server.requests) == 7


def test_credentials_of_a_profile(clean: pytest.MonkeyPatch, server: Server, tmp_path: Path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[profile work]\nregion = eu-north-1\n")
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = one\naws_secret_access_key = x\n"
        "[work]\naws_access_key_id = two\naws_secret_access_key = y\n"
    )
    clean.setenv("HOME", str(tmp_path))
    clean.setenv("AWS_ENDPOINT_URL", server.url)
    clean.setenv("AWS_REGION", "eu-west-1")
    (tmp_path / "others").write_text(
        "[default]\naws_access_key_id = three\naws_secret_access_key = z\n"
    )
    for variable, value, key in (
        ("AWS_PROFILE", "", "one"),
        ("AWS_PROFILE", "work", "two"),
        ("AWS_PROFILE", "default", "one"),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "others"), "three"),
        ("AWS_ACCESS_KEY_ID", "four", "three"),  # useless without its secret
        ("AWS_SECRET_ACCESS_KEY", "w", "four"),
    ):
        clean.setenv(variable, value)
        # Each bucket is new: TensorStore keeps an open one, whatever the environment says.
        open_store(f"s3://{variable.lower().replace('_', '-')}-{key}").write("a", b"")
        assert f"Credential={key}/" in server.credentials
        assert "/eu-west-1/s3/" in server.credentials


def test_no_real_credentials_for_an_emulator(
    clean: pytest.MonkeyPatch, server: Server, tmp_path: Path
):
    clean.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    clean.setenv("STORAGE_EMULATOR_HOST", server.url)
    server.body = WRITTEN
    open_store(f"gs://bucket-{server.url.rpartition(':')[2]}").write("a", b"")
    assert server.credentials == "Bearer emulator"


def test_missing_bucket(remote: ObjectStore):
    store = open_store(f"{remote.scheme}://no-such-bucket/place")
    line = rf"^{store.url}(/a)?: cannot \w+: there is no bucket {remote.scheme}://no-such-bucket"
    with pytest.raises(StorageError, match=line):
        store.keys()
    with pytest.raises(StorageError, match=line):
        store.write("a", b"")


def test_missing_bucket_is_no_missing_file(s3: ObjectStore):
    for action in ("read", "size", "exists"):
        store = open_store("s3://no-such-bucket/place")
        with pytest.raises(StorageError, match="place/a: cannot read: there is no bucket") as told:
            getattr(store, action)("a")
        assert not isinstance(told.value, MissingKeyError)


def test_files_of_a_bucket_that_may_not_be_listed(s3: ObjectStore, monkeypatch):
    url = s3.bucket()
    s3.put(f"{url}/a", b"data")
    store = open_store(url)

    def refused(*arguments: object) -> None:
        raise StorageError("no") from ValueError("PERMISSION_DENIED: AccessDenied")

    monkeypatch.setattr(connections.Connection, "list", refused)
    assert not store.exists("b") and store.read("a") == b"data"


@pytest.mark.parametrize("name", ["s3", "gs"])
def test_command_tells_a_missing_bucket(name: str, request, job: Path, tmp_path: Path):
    remote: ObjectStore = request.getfixturevalue(name)
    missing = f"{remote.scheme}://no-such-bucket/place"
    for places in ((missing, tmp_path / "out"), (job, missing)):
        end = synthetic.run(*places)
        assert (end.returncode, end.stdout) == (1, "")
        lines = LOG.sub("", end.stderr)
        assert re.fullmatch(rf"Error: {missing}.* there is no bucket .*\n", lines), lines
    assert not list(tmp_path.iterdir())


def test_command_tells_missing_credentials(clean, server: Server, tmp_path: Path):
    server.refuse("s3://bucket", 403, "AccessDenied")
    started = time.monotonic()
    end = synthetic.run("s3://bucket/x", tmp_path / "out", env={"AWS_ENDPOINT_URL": server.url})
    assert time.monotonic() - started < SOON
    assert (end.returncode, end.stdout) == (1, "")
    assert end.stderr == (
        "Error: s3://bucket/x: cannot list: access needs credentials and none were found; set "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE\n"
    )


@pytest.mark.parametrize(
    ("url", "variable"),
    [("s3://bucket/x", "AWS_ENDPOINT_URL"), ("gs://bucket/x", "STORAGE_EMULATOR_HOST")],
)
def test_command_tells_of_a_server_that_is_not_there(clean, url: str, variable: str, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening: connections are refused
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        started = time.monotonic()
        end = synthetic.run(url, tmp_path / "out", env={variable: endpoint})
    assert time.monotonic() - started < SOON
    line = rf"Error: {url}: cannot list: no answer from {endpoint}: .*Check {variable} and the net"
    assert end.returncode == 1 and re.search(line, end.stderr), end.stderr


def test_command_tells_of_an_address_that_swallows_all(clean, tmp_path: Path):
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filling in (first, second):  # further connections are not answered
            filling.setblocking(False)
            filling.connect_ex(full.getsockname())
        endpoint = f"http://127.0.0.1:{full.getsockname()[1]}"
        started = time.monotonic()
        end = synthetic.run(
            "s3://bucket/x",
            tmp_path / "out",
            env={"AWS_ENDPOINT_URL": endpoint, "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "1"},
        )
    assert time.monotonic() - started < SOON
    assert end.returncode == 1
    assert re.search(rf"no answer from {endpoint}: CURL error Timeout", end.stderr), end.stderr


@pytest.fixture
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = synthetic.random_params(count=1, rows=2, columns=3)
    return synthetic.write_job(tmp_path_factory.mktemp("job") / "job", params)
