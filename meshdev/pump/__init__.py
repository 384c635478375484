"""The packet pump that both ends of the tunnel share: an epoll loop between TUN queues and byte streams.

No Kubernetes and no policy here: the owners of the pumps decide who may send what.
"""
