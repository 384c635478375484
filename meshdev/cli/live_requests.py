"""The last requests of an intercept that is up, for the terminal of the command that holds it."""

from collections import deque
from collections.abc import Iterator
from typing import Final

from meshdev.cli import request_text
from meshdev.cli.event_stream import EventStream
from meshdev.errors import MeshdevError
from meshdev.state import Paths
from meshdev.wire.session_api import Failed, Note
from meshdev.wire.session_inspect import InspectedRequest, InspectRequest, Requests
from meshdev.wire.session_intercepts import InterceptStatus

#: How many are shown.
SHOWN: Final = 5


class LiveRequests:
    """Requests that the intercept claimed, without values of credentials. The session sends the last few, now and then.

    Readable (:meth:`fileno`) when there is something to :meth:`read`. ``over``: nothing more comes.
    """

    def __init__(self, paths: Paths, status: InterceptStatus) -> None:
        """Ask for them. Raises TunnelError where no session listens."""
        request = InspectRequest(target=status.target, namespace=status.namespace, follow=True, last=SHOWN)
        self._id = status.id
        self._last: deque[InspectedRequest] = deque(maxlen=SHOWN)
        self._events = EventStream(paths, request)
        self.fileno = self._events.fileno
        self.close = self._events.close
        self.over = False

    def read(self) -> Iterator[Note]:
        """Take what has arrived, and yield what is to be said about it."""
        try:
            events = self._events.read()
        except MeshdevError as error:
            events = [Failed.of(error)]
        for event in events:
            match event:
                case Requests(requests):
                    self._last.extend(each for each in requests if each.record.intercept == self._id)
                case Note():
                    yield event
                case Failed(message=message):
                    self.over = True
                    yield Note(f"requests are not shown: {message}")
                case _:
                    pass
        self.over |= self._events.ended

    def lines(self, columns: int) -> list[str]:
        """The last ones, the oldest first, each within so many *columns*."""
        return [request_text.fitting_line(each, columns) for each in self._last]
