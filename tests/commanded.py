"""The command line in this very process, asking a real application without a socket between them."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.__main__ import main
from service.client import Retrue
from tests.asgi import Client

__all__ = ["Command", "Nobody", "Ran", "Wire"]


class Wire(httpx.BaseTransport):
    """Carries a client's requests to an application."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.sent: list[httpx.Request] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        """Sees each request first; may answer it, or break the connection."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.sent.append(request)
        answer = self.before(request)
        if answer is not None:
            return answer
        path = request.url.raw_path.decode("ascii")
        # Whatever the tests call the service, it is this machine that is asked.
        sent = dict(request.headers) | {"host": "localhost"}
        found = self._client.request(request.method, path, content=request.content, headers=sent)
        headers = {name: value for name, value in found.headers.items() if name not in {"content-encoding"}}
        return httpx.Response(found.status_code, headers=headers, content=found.content)


class Nobody(httpx.BaseTransport):
    """A connection that nobody takes."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        msg = "nobody listens"
        raise httpx.ConnectError(msg, request=request)


@dataclass(frozen=True)
class Ran:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The documents on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """Runs `retrue` with some words, in an empty folder and without any ``RETRUE_`` variable."""

    def __init__(
        self,
        http: httpx.BaseTransport,
        folder: Path,
        *,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name in [name for name in os.environ if name.startswith(("RETRUE_", "_RETRUE_", "_TYPER_"))]:
            monkeypatch.delenv(name)
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr("service.commands.output.Retrue", partial(Retrue, http=http))
        monkeypatch.setattr("service.client.transport.FIRST_PAUSE_S", 0.0)
        self.folder, self.http = folder, http
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str, stdin: str | bytes = "") -> Ran:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = self._capsys.readouterr()
        return Ran(int(ended.value.code or 0), said.out, said.err)
