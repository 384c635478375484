"""The agent in the pod: it runs the passthrough worker and Envoy, and redirects to them what the manager asks for.

It knows nothing of Kubernetes. Its one connection is gRPC to the manager's control container (extra ``cluster``);
packets never pass through it.
"""
