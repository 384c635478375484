"""Where clients in the cluster ask for an intercepted port, and which protocol they would speak there. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from meshdev.intercept.spec import Port
from meshdev.kube.ports import declared, target_of
from meshdev.wire.modes import Mode

Object = Mapping[str, Any]

#: What appProtocol of Services and names of ports declare (``grpc``, ``grpc-api``), as a URL's scheme; the longest
#: first. "tcp" stands for all that curl cannot speak.
_WORDS: Final = {
    "kubernetes.io/h2c": "h2c",
    "kubernetes.io/ws": "http",
    "websocket": "http",
    "grpc-web": "http",
    "https": "https",
    "http2": "h2c",
    "http": "http",
    "grpc": "grpc",
    "h2c": "h2c",
    "ws": "http",
    # As Istio reads names, and what images of these programs call their ports.
    **dict.fromkeys(
        ("tcp", "tls", "mysql", "mongo", "mongodb", "redis", "postgres", "postgresql", "amqp", "kafka"), "tcp"
    ),
}
#: Numbers of IANA's registry, or of common use, where nothing is declared.
_HTTP_NUMBERS: Final = frozenset({80, 3000, 5000, 8000, 8008, 8080, 8081, 8088, 8888})
_TLS_NUMBERS: Final = frozenset({443, 8443})
#: Databases, caches, brokers, mail, remote shells: no request of theirs is HTTP's.
_OTHER_NUMBERS: Final = frozenset(
    {21, 22, 25, 53, 110, 143, 389, 465, 587, 636, 993, 995, 1433, 1521, 1883, 2181, 3306, 4222, 5432, 5671, 5672}
    | {6379, 6432, 8883, 9042, 9092, 11211, 26257, 27017, 61616}
)


def url_of(pod: Object, services: Iterable[Object], ports: Sequence[Port], mode: Mode) -> str | None:
    """A URL of one of the intercepted TCP *ports*, one that speaks HTTP if there is one; None where no Service leads
    to any. The scheme is ``http``, ``https``, ``h2c``, ``grpc``, or ``tcp`` for a protocol that is none of these.
    """
    there = tuple(services)
    found = [url for port in ports if port.transport == "tcp" if (url := _url(pod, there, port, mode)) is not None]
    return min(found, key=lambda url: url.startswith("tcp:"), default=None)


def _url(pod: Object, services: Sequence[Object], port: Port, mode: Mode) -> str | None:
    known = tuple(declared(pod))
    names = [name for number, transport, name in known if (number, transport) == (port.remote, "tcp")]
    for service in services:
        for each in service["spec"].get("ports") or []:
            if target_of(each, known) != (port.remote, "tcp"):
                continue
            headless = service["spec"].get("clusterIP") == "None"  # its name resolves to the pods
            number = port.remote if headless else each["port"]
            words = [each.get("appProtocol") or "", each.get("name") or "", *names]
            scheme = _scheme(port, words, {port.remote, number}, mode)
            host = f"{service['metadata']['name']}.{service['metadata']['namespace']}"
            usual = {"http": 80, "https": 443}.get(scheme)
            return f"{scheme}://{host}/" if number == usual else f"{scheme}://{host}:{number}/"
    return None


def _scheme(port: Port, words: Sequence[str], numbers: set[int], mode: Mode) -> str:
    """The first that is declared: by the user (``/http``), by the Service, by the container, by the number."""
    declared_scheme = _declared_scheme(*words)
    if port.protocol == "http":
        return declared_scheme if declared_scheme in {"h2c", "grpc"} else "http"
    if declared_scheme is not None:
        return declared_scheme
    if numbers & _HTTP_NUMBERS:
        return "http"
    if numbers & _TLS_NUMBERS:
        return "https"
    if numbers & _OTHER_NUMBERS or mode.takes_bytes:
        return "tcp"
    return "http"  # a match is of HTTP's requests


def _declared_scheme(protocol: str, *names: str) -> str | None:
    if protocol:
        return _WORDS.get(protocol.lower(), "tcp")
    found = (scheme for name in names for word, scheme in _WORDS.items() if name == word or name.startswith(f"{word}-"))
    return next(found, None)
