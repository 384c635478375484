"""Who waits for whom: finding a circle."""

from collections.abc import Mapping, Sequence


def cycle(waits_for: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of which each waits for the next one, and the last for the first; empty where there is no such circle."""
    done: set[str] = set()
    for start in waits_for:
        path: list[str] = []
        stack = [(start, iter(waits_for[start]))]
        path.append(start)
        while stack:
            name, rest = stack[-1]
            following = next((each for each in rest if each in waits_for and each not in done), None)
            if following is None:
                done.add(name)
                stack.pop()
                path.pop()
            elif following in path:
                return path[path.index(following) :]
            elif following is not None:
                path.append(following)
                stack.append((following, iter(waits_for[following])))
    return []
