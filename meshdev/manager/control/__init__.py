"""The manager's container *control* (no capability): what live sessions claim, served to the sidecars that consent.

``core`` decides and does no I/O; ``edges``, ``pods``, ``certificates`` and ``permissions`` are its parts. ``container``
puts the process together: ``tunnel_client`` and ``relay_client`` talk to the other containers, ``service`` to sidecars
by gRPC, whose TLS is in ``credentials``. No pyroute2, no TUN.
"""
