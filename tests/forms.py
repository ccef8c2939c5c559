"""Somebody who uses the console as a browser without scripts does: opens a page, fills in its form, sends it."""

from html.parser import HTMLParser
from typing import Any

import httpx
from typing_extensions import override

from tests.asgi import Client

__all__ = ["Operator", "Page"]

APART = {"p", "li", "dt", "dd", "th", "td", "h1", "h2", "div", "section", "option", "label", "summary", "a"}
"""Elements that stand apart from what is before them."""


class Page(HTMLParser):
    """What stands in a page: its elements with attributes, the fields of its form, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.fields: dict[str, str] = {}
        self.words = ""
        self.feed(text)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        if tag == "input" and given.get("type") == "hidden":
            self.fields[given["name"]] = given["value"]
        if tag == "option" and ("selected" in given or "to" not in self.fields):
            self.fields["to"] = given["value"]
        if tag in APART:
            self.words += " "

    @override
    def handle_data(self, data: str) -> None:
        self.words += data

    @property
    def links(self) -> list[str]:
        """Where its links lead."""
        return [given["href"] for tag, given in self.elements if tag == "a"]

    @property
    def said(self) -> str:
        """Its text, each run of white space one space."""
        return " ".join(self.words.split())


class Operator:
    """One browser: it keeps its cookie."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.cookies: dict[str, str] = {}

    def open(self, path: str, *, status: int = 200) -> Page:
        """Return a page."""
        response = self._client.get(path, headers=self._headers())
        self._keep(response)
        assert response.status_code == status, response.text
        return Page(response.text)

    def send(self, path: str, **fields: Any) -> httpx.Response:
        """Send fields as they are, without having opened the form."""
        response = self._client.post(path, data=fields, headers=self._headers())
        self._keep(response)
        return response

    def press(self, path: str, **filled: Any) -> httpx.Response:
        """Open a form, fill it in and send it."""
        return self.send(path.partition("?")[0], **{**self.open(path).fields, **filled})

    def _headers(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}

    def _keep(self, response: httpx.Response) -> None:
        self._client.forget_cookies()  # they are this browser's, not the client's
        for header in response.headers.get_list("set-cookie"):
            name, _, rest = header.partition("=")
            self.cookies[name] = rest.partition(";")[0]
