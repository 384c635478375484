"""The process in the pod: it supervises Envoy and owns the nft table that redirects to it, as the manager asks for.

It knows nothing of Kubernetes. Its one connection is gRPC to the manager's control container (extra ``cluster``);
packets never pass through it.
"""
