"""One keep-alive HTTP connection, as thin as can be: a bench's client must not be what is measured."""

import asyncio

__all__ = ["Connection"]

_END = b"\r\n\r\n"


class Connection:
    """Sends one request at a time to `host`:`port`; opens itself when it is needed, and anew after an error.

    Parameters
    ----------
    host, port
        Of the service.
    idle_s
        A connection that was silent for longer is opened anew: the service may be closing it at this very moment.
    """

    def __init__(self, host: str, port: int, *, idle_s: float = 3.0) -> None:
        self._host, self._port, self._idle_s = host, port, idle_s
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._used_at = 0.0

    async def post(self, path: str, body: bytes, *, method: str = "POST", headers: str = "") -> tuple[int, bytes]:
        """Return status and body of the answer.

        Raises
        ------
        OSError
            If nobody listens, or the connection breaks before the answer is whole.
        """
        try:
            reader, writer = await self._opened()
            head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await self._answer(reader)
        except asyncio.IncompleteReadError as error:
            self.close()
            msg = "the connection ended before the answer"
            raise ConnectionResetError(msg) from error
        except BaseException:
            self.close()
            raise
        self._used_at = asyncio.get_running_loop().time()
        return answer

    def close(self) -> None:
        """Close it; the next request opens another one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._writer is not None and asyncio.get_running_loop().time() - self._used_at > self._idle_s:
            self.close()
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self._reader, self._writer

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = await reader.readuntil(_END)
        fields = {name.strip().lower(): value.strip() for name, _, value in map(_parted, head.split(b"\r\n")[1:])}
        body = await reader.readexactly(int(fields.get(b"content-length", 0)))
        if fields.get(b"connection", b"").lower() == b"close":
            self.close()
        return int(head[9:12]), body


def _parted(line: bytes) -> tuple[bytes, bytes, bytes]:
    return line.partition(b":")
