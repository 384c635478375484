"""The sample application: one program that is every service of the testbed, and B' on a laptop.

Standard library only (gRPC needs grpcio and is imported when asked for), and nothing else of the repository: the
image holds this folder alone. A thread a connection: simple, and quick enough for 200 of them.
"""
