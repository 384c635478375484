"""Trust anchors: the self-signed certificates of agents that sessions vouch for. Pure.

Of several anchors with the same subject BoringSSL looks at one, so a certificate that is not made as agents make theirs
could shut out another agent: it is none. What an agent's own key signs is let through, but no session names that key.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.identity.keys import trust_anchor_id
from meshdev.manager.control.edges import NamedAgent
from meshdev.wire.intercepts import AttestedAgent

#: Anchors at a time, of all sessions: the first handshake with another set of 1,024 costs 57 ms (docs/design/0023).
MAX_ANCHORS: Final = 1280

#: A session sends its agents again and again; to look at one certificate takes 0.2 ms.
_checked = lru_cache(maxsize=4096)(trust_anchor_id)


def named_agents(agents: Iterable[AttestedAgent]) -> tuple[list[NamedAgent], str]:
    """Those whose certificate can be an anchor, and what is wrong with one of the others: its session's fault."""
    found, fault = [], ""
    for each in agents:
        try:
            key = _checked(each.certificate)
        except ProtocolError as error:
            fault = f"the agent of pod {each.pod} is not taken: {error.message}"
            continue
        found.append(NamedAgent(key, each.proof, each.pod, each.uid, each.certificate))
    return found, fault


def select(by_session: Mapping[object, Iterable[tuple[str, bytes]]]) -> dict[str, bytes]:
    """One certificate for each key, at most :data:`MAX_ANCHORS`: each session's in turn, so that none has all room."""
    found: dict[str, bytes] = {}
    for row in zip_longest(*by_session.values()):
        for key, certificate in filter(None, row):
            if len(found) == MAX_ANCHORS and key not in found:
                return found
            found[key] = certificate
    return found
