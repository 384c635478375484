"""Who may ask the dashboard: decided before anything else is done with a request.

The server is reached by every program and user of this machine, and by every web page that a browser of this machine
shows. What keeps them out:

* other users and programs do not know the token;
* a page from elsewhere that has a name of its own lead to 127.0.0.1 (DNS rebinding) shows that name in Host;
* one that asks for 127.0.0.1 itself shows where it is from in Origin and Sec-Fetch-Site (Fetch Metadata, W3C), may not
  send Authorization without a preflight, which is refused, and cannot read the answer.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

#: By which names the page may be asked for, before the port.
NAMES: Final = ("127.0.0.1", "localhost")

#: On every answer. No script, style or connection but the server's own; nothing inline; nobody frames it; no copy is
#: kept; and no window or page of another origin gets hold of this one.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "meshdev",
}

#: All values of a header with that name, in order.
HeaderValues = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class ErrorAnswer:
    """Goes back where a request is refused. *code*, *message* and *hint* are those of the JSON object."""

    status: HTTPStatus
    code: str
    message: str
    hint: str | None = None


_HOST: Final = ErrorAnswer(
    HTTPStatus.MISDIRECTED_REQUEST, "host", "this page is served to 127.0.0.1 and localhost only"
)
_SITE: Final = ErrorAnswer(HTTPStatus.FORBIDDEN, "origin", "requests of other sites are refused")
_TOKEN: Final = ErrorAnswer(
    HTTPStatus.UNAUTHORIZED, "token", "the token is missing or wrong", "open the URL that meshdev dashboard prints"
)
_TYPE: Final = ErrorAnswer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "type", "the body has to be application/json")


class Guard:
    """Decides for the server at *port* whose token is *token*."""

    def __init__(self, port: int, token: str) -> None:
        self._hosts = frozenset(f"{name}:{port}" for name in NAMES)
        self._authorization = f"Bearer {token}".encode()

    def refuses_file(self, values: HeaderValues) -> ErrorAnswer | None:
        """The page's own files: they hold no secret, so whoever opens the URL needs no token yet.

        A link from elsewhere may open the page (the command does so, from a file); nothing but that may be embedded.
        """
        opens = (*values("Sec-Fetch-Mode"), *values("Sec-Fetch-Dest")) == ("navigate", "document")
        return self._host(values) or (None if opens else self._site(values))

    def refuses(self, values: HeaderValues) -> ErrorAnswer | None:
        """Everything else."""
        return self._host(values) or self._site(values) or self._token(values)

    @staticmethod
    def refuses_type(values: HeaderValues) -> ErrorAnswer | None:
        """A body: one that a form of another site can send without a preflight is never this (Fetch, section 2.2.2)."""
        types = [each.partition(";")[0].strip().lower() for each in values("Content-Type")]
        return None if types == ["application/json"] else _TYPE

    def _host(self, values: HeaderValues) -> ErrorAnswer | None:
        hosts = values("Host")
        return None if len(hosts) == 1 and hosts[0].lower() in self._hosts else _HOST

    @staticmethod
    def _site(values: HeaderValues) -> ErrorAnswer | None:
        own = f"http://{values('Host')[0].lower()}"
        sites, origins = values("Sec-Fetch-Site"), values("Origin")
        return None if {*sites} <= {"none", "same-origin"} and {*origins} <= {own} else _SITE

    def _token(self, values: HeaderValues) -> ErrorAnswer | None:
        given = values("Authorization")
        right = len(given) == 1 and hmac.compare_digest(given[0].encode("utf-8", "replace"), self._authorization)
        return None if right else _TOKEN
