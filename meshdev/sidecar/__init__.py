"""What is put into a pod: how (join, on the laptop), the process in it (agent), and Envoy's configuration (envoy).

Kubernetes belongs in join alone; envoy is pure; agent knows the pod's kernel and the manager, nothing else.
"""
