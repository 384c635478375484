"""The session's DNS forwarder: which names the cluster answers (policy, pure) and the sockets around that.

Runs with the user's own rights: the helper opens port 53 and the marked sockets and passes them. Nothing here changes
the laptop's DNS settings, and nothing here knows Kubernetes.
"""
