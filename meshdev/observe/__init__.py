"""PURE: what is told of requests while somebody watches: which values are masked, and why a request went where it went.

No I/O, no clock, and nothing of those who carry requests (sidecar, manager, session): all three of them use this.
"""
