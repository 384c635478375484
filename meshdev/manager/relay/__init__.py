"""The container *relay*: workloads' Envoys come here by TLS, and reach the laptop that their requests are claimed for.

A process on the loop of the packet path (:mod:`meshdev.pump.loop`), without a capability. The order of a connection is
what makes Envoy fall back to the original: the server name of the ClientHello says which relay is meant, the client's
key is looked at, and then the laptop is connected. It is TLS 1.2, where the server's Finished is the last message:
until that is sent Envoy takes a reset for a failure to connect, and sends the request to the original instead. A client
of TLS 1.3 is done before the server has seen its certificate.
"""
