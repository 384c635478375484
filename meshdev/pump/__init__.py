"""The packet pump that both ends of the tunnel share: an epoll loop between TUN queues and byte streams.

No Kubernetes and no policy here: who may send what is decided by the owners of the pumps.
"""
