"""Agents that sessions name, on their way to control, no faster than it can take them.

control looks at the request of each and issues a certificate for it (0.2 ms in all), and serves nobody meanwhile.
"""

from typing import Final

from meshdev.manager.tunnel.control_socket import ControlSocket
from meshdev.manager.tunnel.held import HeldIntercept, Holder
from meshdev.pump.loop import Loop
from meshdev.rate import TokenBucket
from meshdev.wire import intercepts
from meshdev.wire.intercepts import Agents

#: Agents of one session that may be named at once and then a second, each as often as it is named otherwise than
#: before: all of two large claims, and five percent of control's time.
MAX_NAMED: Final = 2 * intercepts.MAX_AGENTS
NAMED_PER_SECOND: Final = 256.0
_RETRY_SECONDS: Final = 0.05


class Naming:
    """Sends parts of claims; belongs to the loop's thread. What is overdue is replaced by what is newer."""

    def __init__(self, loop: Loop, control: ControlSocket) -> None:
        self._loop = loop
        self._control = control

    def pace(self) -> TokenBucket:
        """That of a new holder."""
        return TokenBucket(NAMED_PER_SECOND, MAX_NAMED, self._loop.clock())

    def send(self, holder: Holder, held: HeldIntercept, part: int, more: int) -> None:
        """Send the part as it is by then, as soon as *more* of its agents may be named."""
        held.overdue[part] = held.overdue.get(part, 0) + more
        if holder.catching_up is None:
            self._catch_up(holder)

    def send_all(self, holder: Holder, held: HeldIntercept) -> None:
        """The same with all parts: control may have forgotten them."""
        for part, agents in held.agents.items():
            self.send(holder, held, part, len(agents))

    def send_withdrawn(self, held: HeldIntercept) -> None:
        """Where it is claimed again before control has read that, it begins without the agents that it had."""
        held.overdue.clear()
        for part in held.agents:
            self._control.send_latest(held.part_key(part), Agents(held.alias, part, ()))

    @staticmethod
    def forget(holder: Holder) -> None:
        """Its session has ended."""
        if holder.catching_up is not None:
            holder.catching_up.cancel()

    def _catch_up(self, holder: Holder) -> None:
        holder.catching_up = None
        for held in holder.held.values():
            for part, more in list(held.overdue.items()):
                agents = held.agents[part]
                if not holder.naming.take(self._loop.clock(), max(1, min(more, len(agents)))):
                    holder.catching_up = self._loop.call_later(_RETRY_SECONDS, lambda: self._catch_up(holder))
                    return
                del held.overdue[part]
                self._control.send_latest(held.part_key(part), Agents(held.alias, part, agents))
