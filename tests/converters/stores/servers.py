"""Local object stores: moto's S3 server and gcp-storage-emulator, in threads."""

import itertools
import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import quote

import pytest

_numbers = itertools.count(1)


class ObjectStore(Protocol):
    """A server; its objects are read and written without the code under test.

    Attributes:
        scheme: of its URLs.
        endpoint: its address.
        variables: what users set in the environment to reach it.
    """

    scheme: str
    endpoint: str
    variables: dict[str, str]

    def bucket(self) -> str:
        """URL of a new, empty bucket."""
        ...

    def put(self, url: str, data: bytes) -> None:
        """Store an object."""
        ...

    def objects(self, url: str) -> dict[str, bytes]:
        """All objects below a URL, by the rest of their names."""
        ...

    def stop(self) -> None:
        """Stop the server."""
        ...


class S3:
    """moto's S3, without its server that looks for each request's service, and logs it."""

    scheme = "s3"

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.variables = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-west-1",
        }

    def bucket(self) -> str:
        name = f"bucket-{next(_numbers)}"
        self._request("PUT", name)
        return f"s3://{name}"

    def put(self, url: str, data: bytes) -> None:
        self._request("PUT", quote(url.removeprefix("s3://")), data)

    def objects(self, url: str) -> dict[str, bytes]:
        from moto.s3.models import s3_backends

        name, _, prefix = url.removeprefix("s3://").partition("/")
        (account,) = [a for a in s3_backends.values() if name in a["aws"].buckets]
        found = account["aws"].buckets[name].keys
        return _below(prefix, {key: found[key].value for key in list(found)})

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _request(self, method: str, path: str, data: bytes = b"") -> None:
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.endpoint}/{path}", data, headers, method=method)
        urllib.request.urlopen(request).close()


class GoogleStorage:
    """gcp-storage-emulator."""

    scheme = "gs"

    def __init__(self) -> None:
        from gcp_storage_emulator.server import create_server

        self._server = create_server("127.0.0.1", 0, in_memory=True)
        self._server.start()
        port = self._server._api._httpd.server_address[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.variables = {"STORAGE_EMULATOR_HOST": self.endpoint}

    def bucket(self) -> str:
        from gcp_storage_emulator.handlers.buckets import create_bucket

        name = f"bucket-{next(_numbers)}"
        create_bucket(name, self._server._storage)
        return f"gs://{name}"

    def put(self, url: str, data: bytes) -> None:
        name, _, key = url.removeprefix("gs://").partition("/")
        query = f"uploadType=media&name={quote(key, safe='')}"
        where = f"{self.endpoint}/upload/storage/v1/b/{name}/o?{query}"
        headers = {"Content-Type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(where, data, headers)).close()

    def objects(self, url: str) -> dict[str, bytes]:
        name, _, prefix = url.removeprefix("gs://").partition("/")
        storage = self._server._storage
        keys = list(storage.objects.get(name, {}))
        return _below(prefix, {key: storage.get_file(name, key) for key in keys})

    def stop(self) -> None:
        self._server.stop()


@contextmanager
def as_google_does() -> Iterator[None]:
    """Let gcp-storage-emulator do three things as Google's servers do.

    It fails on empty objects, does not tell the generation of what it gives (without which
    TensorStore reads no OCDBT database), and saves the state of all buckets after each request.
    """
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects
    from gcp_storage_emulator.storage import Storage

    upload, download = objects._media_upload, objects.download

    def media_upload(request: Any, response: Any, storage: Any) -> Any:
        if request.data is None:
            request._data = b""
        return upload(request, response, storage)

    def download_with_generation(request: Any, response: Any, storage: Any) -> None:
        download(request, response, storage)
        found = storage.objects.get(request.params["bucket_name"], {})
        if request.params["object_id"] in found:
            described = found[request.params["object_id"]]
            response["x-goog-generation"] = described["generation"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "_media_upload", media_upload)
        patch.setattr(objects, "download", download_with_generation)
        patch.setattr(Storage, "_write_config_to_file", lambda self: None)
        patch.setattr(server.RequestHandler, "disable_nagle_algorithm", True)
        patch.setattr(server.server.HTTPServer, "request_queue_size", 128)
        yield


def _below(prefix: str, objects: dict[str, bytes]) -> dict[str, bytes]:
    start = f"{prefix}/" if prefix else ""
    return {key[len(start) :]: data for key, data in objects.items() if key.startswith(start)}
