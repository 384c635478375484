"""What is put into a pod: how (join, on the laptop), and what runs there.

The agent (``agent``) runs the passthrough worker (``worker``, which decides by ``passthrough``) and Envoy, configured
by ``envoy``. Kubernetes belongs in join alone; envoy and passthrough are pure; agent knows the pod's kernel and the
manager, nothing else.
"""
