"""Keys, certificates and proofs: who is who between agents, control, relays and sessions (docs/security.md).

``fingerprints``, ``edges``, ``tls`` and ``engine`` are standard library: the laptop imports them. ``keys`` and
``authority`` need the library ``cryptography``, which only the manager's image has. Nothing here knows Kubernetes, gRPC
or a protocol.
"""
