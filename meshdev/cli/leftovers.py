"""What dead helpers left behind, read without any right: the helper's journal is open to its user."""


def find(uid: int) -> tuple[str, ...]:
    return ()


def wait_undone(uid: int, seconds: float) -> bool:
    return True
