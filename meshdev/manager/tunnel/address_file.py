"""The addresses that sessions had, kept for the next process of this pod.

Tracked connections belong to the pod's network and survive a restart of the container; so does this file, in the
pod's memory volume. It holds digests of 128 random bits, no secrets. At best: without it a restarted container knows
of no former session.
"""

import json
import logging
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

PATH: Final = Path("/run/meshdev/addresses.json")
_MAX_BYTES: Final = 1 << 20


def read(path: Path) -> dict[IPv4Address, bytes]:
    """Address and proof of each session that an earlier process knew; nothing where the file cannot be used."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
        return {IPv4Address(address): bytes.fromhex(proof) for address, proof in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be used: %s", path, error)
        return {}


def write(path: Path, known: Mapping[IPv4Address, bytes]) -> None:
    """Replace the file as a whole."""
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(json.dumps({str(address): proof.hex() for address, proof in known.items()}))
        fresh.replace(path)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)
