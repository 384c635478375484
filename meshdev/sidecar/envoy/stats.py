"""Which of Envoy's statistics exist (each costs memory), and what they mean."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meshdev.sidecar.envoy import names
from meshdev.wire.agent import Counts, PodPort

_LISTENER: Final = rf"{names.LISTENER}_(?P<port>[0-9]+)(?P<udp>_udp)?"
_REQUESTS: Final = (
    rf"vhost\.{names.HOST}\.route\.(?P<id>[0-9a-f]+)(?P<fallen>_fallen)?\.upstream_rq_(?P<what>completed|5xx|retry)"
)
_HTTP: Final = rf"http\.{_LISTENER}\.downstream_rq_(?P<what>active|total)"
_TCP: Final = rf"tcp\.{_LISTENER}\.downstream_cx_(?P<what>active|total)"
_UDP: Final = rf"udp\.{_LISTENER}\.downstream_sess_(?P<what>active|total)"
_SNIFFED: Final = rf"listener\.{_LISTENER}\.downstream_pre_cx_(?P<what>timeout)"
_FAILED: Final = r"cluster\.flow_(?P<port>[0-9]+)(?P<udp>_udp)?\.upstream_cx_(?P<what>connect_fail)"

_ALL: Final = (_REQUESTS, _HTTP, _TCP, _UDP, _SNIFFED, _FAILED)

#: For the bootstrap: the others are not even made.
PATTERNS: Final = [{"safe_regex": {"regex": each}} for each in _ALL]

_READ: Final = [re.compile(each) for each in _ALL]
