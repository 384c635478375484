"""The laptop's end of the tunnel: carriers, their pool, and the state of the connection. No Kubernetes objects, no devices."""
