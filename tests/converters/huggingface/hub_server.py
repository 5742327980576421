"""A local server with the parts of the HuggingFace hub's API that a download uses."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(folder: Path, name: str, token: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as the model `name`: (URL, the paths that were asked for).

    Args:
        folder: its files are those of branch `main`.
        name: OWNER/NAME.
        token: without it everything is answered by 401, as for a model that is not public.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        """Answers one request."""

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            asked.append(self.path)
            if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
                error = {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask for access"}
                self.reply(403, b"", error, body)
            elif self.path == f"/api/models/{name}/revision/main":
                files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                about = {"id": name, "modelId": name, "sha": COMMIT, "siblings": files}
                self.reply(200, json.dumps(about).encode(), {}, body)
            elif self.path.startswith(f"/api/models/{name}/tree/{COMMIT}"):
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": COMMIT}
                    for file in sorted(folder.iterdir())
                ]
                self.reply(200, json.dumps(tree).encode(), {}, body)
            elif self.path.startswith(f"/{name}/resolve/{COMMIT}/"):
                data = (folder / self.path.rpartition("/")[2]).read_bytes()
                etag = hashlib.sha256(data).hexdigest()
                self.reply(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body)
            else:
                self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

        def reply(self, code: int, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
