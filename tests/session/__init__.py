"""Tests of meshdev.session: parts against real sockets, the rest on the testbed (tests/e2e)."""
