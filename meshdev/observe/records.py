"""Access records as they may be shown."""

from dataclasses import replace

from meshdev.observe import masking
from meshdev.wire.access import MAX_AUTHORITY, MAX_PATH, AccessRecord


def masked(record: AccessRecord) -> AccessRecord:
    """Without values of credentials. One that is masked already stays as it is."""
    return replace(record, authority=masking.authority(record.authority), path=masking.text(record.path))


def cut(record: AccessRecord) -> AccessRecord:
    """With no more of its texts than a record has."""
    return replace(record, authority=record.authority[:MAX_AUTHORITY], path=record.path[:MAX_PATH])
