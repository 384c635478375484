"""``python -m tests.dashboard.remote URL``: the page in a browser, wherever this is run.

Each line of input is a JSON list, a function's body and its arguments; each line of output its value. ``null`` gives
what the browser complained about.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.dashboard.chromium import chromium, log


def main(url: str) -> None:
    """Until the input ends."""
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as driver:
        driver.get(url)
        for line in sys.stdin:
            asked = json.loads(line)
            answer = log(driver) if asked is None else driver.execute_script(*asked)
            print(json.dumps(answer), flush=True)


main(sys.argv[1])
