"""The passthrough proxy at work in a pod: sockets, on the loop of the packet path (:mod:`meshdev.pump.loop`).

What the bytes mean, and where they go, is decided in :mod:`meshdev.sidecar.passthrough`. No asyncio here, no Kubernetes
and no gRPC: every piece of every connection of the app passes through this folder.
"""
