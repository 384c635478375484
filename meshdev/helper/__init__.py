"""The root helper: a closed list of typed requests on its stdin, each undone at the end of the session.

It never uses the network, never parses a kubeconfig and keeps no TUN descriptor. Read it in this order: ``__main__``
(start), ``server`` (the loop), ``laptop`` (what each request does and how it is undone), then the parts.
"""
