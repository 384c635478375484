"""What session and helper share: the version, limits, fields of several messages, heartbeat times."""

from ipaddress import IPv4Network
from typing import Final, Literal

from meshdev.wire import values
from meshdev.wire.codecs import Codec, Many, Parsed, Text, itself
from meshdev.wire.values import IPAddress

VERSION: Final = 1
LINE_LIMIT: Final = 256 * 1024
MAX_ROUTES: Final = 8192
MAX_REFUSED: Final = 64
MAX_NAMES: Final = 32
#: systemd-resolved accepts 1,024 a link (resolved-link.h: LINK_SEARCH_DOMAINS_MAX).
MAX_DOMAINS: Final = 768
#: Sentences on current and repaired problems in one heartbeat.
MAX_PROBLEMS: Final = 8
MAX_UPSTREAMS: Final = 8
#: One for each former resolver, and one for containers.
MAX_LISTENERS: Final = MAX_UPSTREAMS + 1
#: Relay ports that forward to programs of this machine: more than a manager gives one session.
MAX_RELAYS: Final = 256
#: SCM_MAX_FD of Linux include/net/scm.h is 253; no answer of ours comes near it.
MAX_FDS: Final = 64
#: Characters of a text for people.
MAX_SENTENCE: Final = 4096

ADDRESS: Final[Codec[IPAddress]] = Parsed(values.address)
NAME: Final = Parsed(values.name)
NAMES: Final = Many(NAME, MAX_NAMES, distinct=itself)
ROUTES: Final[Codec[tuple[IPv4Network, ...]]] = Many(Parsed(values.route), MAX_ROUTES, distinct=itself)
SERVERS: Final = Many(ADDRESS, MAX_UPSTREAMS, distinct=itself)
SENTENCE: Final = Text(MAX_SENTENCE)
SENTENCES: Final = Many(SENTENCE, MAX_PROBLEMS)

Integration = Literal["resolved", "redirect", "file"]
INTEGRATIONS: Final[tuple[Integration, ...]] = ("resolved", "redirect", "file")

#: The session's heartbeat, and the silence after which the helper withdraws DNS (docs/design/0005), in seconds.
BEAT_SECONDS: Final = 1.0
BEAT_LIMIT_SECONDS: Final = 3.0
