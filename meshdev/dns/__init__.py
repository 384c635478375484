"""The session's DNS forwarder: which names the cluster answers (policy, pure) and the sockets around that.

Runs as the user: the helper opens port 53 and the marked sockets and passes them. Nothing here changes the laptop's DNS
settings or uses the Kubernetes API.
"""
