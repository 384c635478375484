"""nginx and wrk: the machine's, or those of Debian's packages, unpacked into the testbed's cache and not installed.

``python -m bench.tools`` fetches them; on a laptop of the testbed, which has no internet, they are only found.
"""

import os
import shutil
from collections.abc import Mapping
from typing import Final

from tests.cluster.packages import unpacked

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"


def nginx() -> str:
    """The program."""
    return shutil.which("nginx", path=_PATH) or str(unpacked("nginx") / "usr/sbin/nginx")


def wrk() -> tuple[str, Mapping[str, str]]:
    """The program and its environment: the package's library lies beside it."""
    found = shutil.which("wrk", path=_PATH)
    if found:
        return found, os.environ
    root = unpacked("wrk", "libluajit-5.1-2")
    folders = ":".join(str(folder) for folder in (root / "usr/lib").glob("*-linux-gnu*"))
    return str(root / "usr/bin/wrk"), {**os.environ, "LD_LIBRARY_PATH": folders}


def main() -> None:
    """Fetch what is missing."""
    nginx()
    wrk()


if __name__ == "__main__":
    main()
