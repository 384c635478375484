"""The laptop's end of the tunnel: carriers, their pool, and whether it works.

No Kubernetes objects, no routes and no DNS: a function to dial and the queues of a device come in from outside.
"""
