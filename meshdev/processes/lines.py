"""The output of several programs as lines, each with the name of its program before it."""

from typing import Final

#: A line without an end in so many bytes is cut there.
MAX_LINE: Final = 64 << 10

#: Of terminals (ECMA-48, 8.3.117): cyan, yellow, green, magenta, blue; no red, which is for errors.
_COLORS: Final = (36, 33, 32, 35, 34)


class PrefixedLines:
    """Bytes of one program in, whole lines with its name out. A line that is not whole yet is kept."""

    def __init__(self, name: str, width: int, color: int | None = None) -> None:
        """*color*: the number of the program, where names are to be coloured."""
        prefix = f"{name:<{width}} | "
        if color is not None:
            prefix = f"\x1b[{_COLORS[color % len(_COLORS)]}m{prefix}\x1b[0m"
        self._prefix = prefix.encode()
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that *data* completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE:
            lines.append(self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]
        return [self._line(line) for line in lines]

    def end(self) -> list[bytes]:
        """What is left when no more comes."""
        rest, self._rest = self._rest, b""
        return [self._line(rest)] if rest else []

    def _line(self, line: bytes) -> bytes:
        # A progress bar draws over itself by carriage returns: what stands there in the end is what is shown.
        return self._prefix + line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n"
