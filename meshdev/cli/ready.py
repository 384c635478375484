"""``python -m meshdev.cli.ready``: wait until URLs answer and ports take connections, for ``run --wait-for``.

It is a program of its own because it has to be where the program of ``run`` will be: in another network, or behind a
proxy. The command starts it as it starts that one.
"""

import argparse
import http.client
import sys
import time
import urllib.error
import urllib.request
from typing import Final

from meshdev.cli.waiting import NOT_READY, WaitTarget, wait_target
from meshdev.processes.probe import ATTEMPT_SECONDS, PAUSE_SECONDS

#: What takes longer is told.
SILENT_SECONDS: Final = 1.0


def attempt(target: WaitTarget, proxy: str | None) -> str | None:
    """Why it is not ready; None where it is: 2xx and 3xx are, and a connection where there is no URL."""
    try:
        if target.url is None:
            _connect(target, proxy)
        else:
            proxies = {} if proxy is None else {"http": f"http://{proxy}", "https": f"http://{proxy}"}
            opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
            request = urllib.request.Request(target.url, headers={"User-Agent": "meshdev"})  # noqa: S310 -- http(s) only
            opener.open(request, timeout=ATTEMPT_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}"
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
    return None


def _connect(target: WaitTarget, proxy: str | None) -> None:
    connection = http.client.HTTPConnection(proxy or target.host, None if proxy else target.port, ATTEMPT_SECONDS)
    if proxy is not None:
        connection.set_tunnel(target.host, target.port)
    try:
        connection.connect()
    finally:
        connection.close()


def wait(target: WaitTarget, proxy: str | None, until: float) -> str | None:
    """Attempts until it is ready, or until that monotonic time; why it is not ready then."""
    shown, since = False, time.monotonic()
    while (problem := attempt(target, proxy)) is not None:
        now = time.monotonic()
        if now >= until:
            return problem
        if not shown and now - since > SILENT_SECONDS:
            shown = True
            print(f"meshdev: waiting for {target}: {problem}", file=sys.stderr, flush=True)
        time.sleep(PAUSE_SECONDS)
    return None


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy")
    parser.add_argument("seconds", type=float)
    parser.add_argument("targets", nargs="+", type=wait_target)
    asked = parser.parse_args(arguments)
    until = time.monotonic() + asked.seconds
    for target in asked.targets:
        if problem := wait(target, asked.proxy, until):
            print(f"meshdev: {target} is not ready after {asked.seconds:g} s: {problem}", file=sys.stderr)
            return NOT_READY
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
