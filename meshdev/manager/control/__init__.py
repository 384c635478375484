"""The manager's container *control* (no capability): what live sessions claim, served to the sidecars that prove it.

``core`` decides and does no I/O, ``pods`` and ``xds`` are its parts; ``link`` talks to the container *tunnel*,
``service`` to sidecars by gRPC. No pyroute2, no TUN.
"""
