"""A stand-in for a W&B server, and a reader of the files that W&B writes; used by tests/logger and tests/e2e."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune.logger.wandb_history import read_records

KEY = "k" * 40


class StubServer(ThreadingHTTPServer):
    """Answers the queries that ``wandb.init`` and the upload make; ``silent`` makes it accept and never answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[str] = []
        self.silent = threading.Event()
        self.silent_after: str | None = None
        self.closed = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        """Refuse connections from now on; hanging requests are let go."""
        if not self.closed.is_set():
            self.closed.set()
            self.shutdown()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are expected here."""


class _Handler(BaseHTTPRequestHandler):
    server: StubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        text = body.decode(errors="replace")
        self.server.received.append(f"{self.path} {text}")
        if self.server.silent.is_set():
            self.server.closed.wait()
            return
        if not self.path.endswith("/graphql"):
            self._reply({})
            return
        if "Basic" in self.headers.get("Authorization", "") and not self._key_is_right():
            self._reply({"errors": [{"message": "permission denied"}]}, 401)
            return
        query = json.loads(text)
        operation, variables = query.get("operationName", ""), query.get("variables") or {}
        self._reply({"data": self._data(operation, variables)})
        if operation == self.server.silent_after:
            self.server.silent.set()

    do_PUT = do_POST

    def _key_is_right(self) -> bool:
        import base64

        return base64.b64decode(self.headers["Authorization"].split()[1]).decode() == f"api:{KEY}"

    def _data(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        if operation == "Viewer":
            teams = {"edges": []}
            return {
                "viewer": {"id": "VQ==", "username": "me", "entity": "me", "email": "", "flags": "{}", "teams": teams}
            }
        if operation == "RunResumeStatus":
            return {"model": None}
        if operation == "UpsertBucket":
            project = {"id": "p1", "name": "finetune", "entity": {"id": "e1", "name": "me"}}
            bucket = {"id": "r1", "name": variables.get("name"), "displayName": "x", "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": {**bucket, "description": "", "historyLineCount": 0}, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.server.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "r1", "uploadHeaders": [], "files": files}}
        return {}

    def _reply(self, answer: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    """A stub to which W&B's environment points, with the right key."""
    server = StubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def records(run_directory: Path, kind: str) -> list[Any]:
    """Records of one kind from every part of the run, in the order of the parts."""
    found = []
    for path in sorted(run_directory.glob("wandb/*run-*/run-*.wandb")):
        if path.parent.name != "latest-run":
            found += [
                getattr(record, kind) for record in read_records(path) if record.WhichOneof("record_type") == kind
            ]
    return found


def history(run_directory: Path) -> list[dict[str, Any]]:
    """The logged rows."""
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.item}
        for record in records(run_directory, "history")
    ]


def config(run_directory: Path) -> dict[str, Any]:
    """The run's configuration."""
    updates = [item for record in records(run_directory, "config") for item in record.update]
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in updates}


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The machine's W&B settings and credentials do not reach the tests."""
    monkeypatch.setenv("NETRC", str(folder / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(folder / "no-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(folder / "no-cache"))
