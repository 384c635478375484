"""The agent in the pod: it runs the passthrough worker and Envoy, and redirects to them what the manager asks for.

It knows nothing of Kubernetes. Sessions attest it on the pod's 127.0.0.1; its own connections are gRPC to the manager's
control container (extra ``cluster``), and probes of relays. Packets never pass through it.
"""
