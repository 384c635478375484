"""What we put into a pod: how it gets there (join, on the laptop), the process in it (agent), and what Envoy is told.

Kubernetes belongs in join alone; envoy is pure; agent knows the pod's kernel and the manager, nothing else.
"""
