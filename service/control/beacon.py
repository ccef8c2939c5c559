"""What a controller that runs alone shows of itself: /metrics for Prometheus, /livez for whoever starts it again."""

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from prometheus_client import CONTENT_TYPE_LATEST

from service.domain.errors import PortInUse
from service.telemetry import Telemetry, exposition

__all__ = ["Beacon"]

PATIENCE_S = 10.0
"""A client that sends its request no faster is cut off."""


class Beacon:
    """A small server in a thread of its own.

    Parameters
    ----------
    host, port
        Where it listens; port 0 takes a free one.
    telemetry
        What is shown.
    is_alive
        Whether the controller still looks.

    Raises
    ------
    PortInUse
        If somebody else listens there.
    """

    def __init__(self, host: str, port: int, telemetry: Telemetry, *, is_alive: Callable[[], bool]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout: ClassVar[float | None] = PATIENCE_S
            server_version, sys_version = "retrue", ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, exposition(telemetry))
                elif path == "/livez":
                    is_well = is_alive()
                    word = b'{"status":"alive"}' if is_well else b'{"status":"stuck"}'
                    self._answer(200 if is_well else 503, "application/json", word)
                else:
                    self._answer(404, "text/plain; charset=utf-8", b"there are /metrics and /livez\n")

            def _answer(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_words: Any) -> None:
                """Say nothing: whoever scrapes comes every few seconds."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family: int = socket.AF_INET6 if ":" in host else socket.AF_INET

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            msg = f"{host}:{port} can't be listened on ({error.strerror}): set RETRUE_CONTROLLER_PORT to another port"
            raise PortInUse(msg, port=port) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="beacon", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
