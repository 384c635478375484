"""The packet loop's thread, bound to a block of asyncio code: it never outlives the block."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from meshdev.pump.loop import Loop


@contextmanager
def packet_thread(loop: Loop) -> Iterator[asyncio.Future[None]]:
    """Run *loop* in a thread of its own; yields a future that completes, or raises, when the loop does.

    At the block's end the loop is stopped, its thread joined (the caller's event loop waits for one round of it, not
    for a peer) and *loop* closed, so that all that was posted has run.
    """
    with ThreadPoolExecutor(1, "packets") as executor:
        try:
            yield asyncio.get_running_loop().run_in_executor(executor, loop.run)
        finally:
            loop.stop()
            executor.shutdown()
            loop.close()
