"""Ending a command with a code of its own when everything has been said."""


class Ended(Exception):  # noqa: N818 -- an end, not a fault
    """Nothing is to be told any more; the command ends with *exit_code*."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code
