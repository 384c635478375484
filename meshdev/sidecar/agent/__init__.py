"""The process in the pod: it supervises Envoy, owns the nft table that redirects to it, and obeys the manager.

It knows nothing of Kubernetes. Its one connection is gRPC to the manager's control container (extra ``cluster``);
packets never pass through it.
"""
