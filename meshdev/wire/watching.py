"""Watching: what a session asks of the manager, and the records that it gets.

::

    session → manager  WATCH    {"id": …, "on": true, "all": true}                      again every RENEW_SECONDS
    manager → session  RECORDS  {"id": …, "pod": "b-1", "before": 24, "records": [{…}], "dropped": 3}

Both kinds of frame are optional: a manager that does not know the first skips it, and only who sent it gets the other.
"""

from typing import Final

from meshdev.wire.access import AccessRecords, Watch
from meshdev.wire.counts import COUNT
from meshdev.wire.intercepts import MAX_POD
from meshdev.wire.message import FLAT, field, message, nested
from meshdev.wire.objects import IDENTITY, ForPeople

#: How often a watch is renewed, in seconds: it holds for WATCH_SECONDS.
RENEW_SECONDS: Final = 3.0


@message()
class WatchClaim:
    """Somebody watches the requests of the pods that a claim reaches, or nobody does any more."""

    id: str = field(IDENTITY)
    watch: Watch = field(nested(Watch), key=FLAT)


@message()
class ClaimRecords:
    """Records of one pod that a watched claim reaches, each to one claim of a session.

    ``before`` counts the records that were sent of this pod before these, so that what got lost on the way is noticed.
    """

    id: str = field(IDENTITY)
    pod: str = field(ForPeople(MAX_POD))
    records: AccessRecords = field(nested(AccessRecords), key=FLAT)
    before: int = field(COUNT, default=0, sparse=True)
