"""Tell the story on the testbed's laptop 1, as user *dev*.

Every command is shown as typed and run as shown; the first that does something else ends the story with exit code 1.
"""

import subprocess
import sys
import time
from typing import Final

from rich.console import Console
from rich.markup import escape

from demo.stage import Stage, StoryError
from demo.story import tell

_TESTBED: Final = (sys.executable, "-m", "tests.cluster")
_LAPTOP: Final = (*_TESTBED, "exec", "--laptop", "1", "--user", "dev", "--")


def pod_address(app: str) -> str:
    """The address of a pod, as the cluster's administrator sees it."""
    command = ("kubectl", "get", "pods", "-l", f"app={app}", "-o", "jsonpath={.items[0].status.podIP}")
    return subprocess.run([*_TESTBED, *command], capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Tell it, and how long it took."""
    console = Console(highlight=False)
    since = time.monotonic()
    try:
        tell(Stage(_LAPTOP, console), pod_address)
    except StoryError as error:
        console.print(f"\n[red]The story ends here: {escape(str(error))}[/]", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nThe story ends here: interrupted")
        return 130
    finally:
        subprocess.run([*_LAPTOP, "meshdev", "disconnect"], check=False, capture_output=True)
    console.print(f"\nThe end, after {time.monotonic() - since:.0f} s. The cluster stays up: `make down` removes it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
