"""The packet pump that both ends of the tunnel share: an epoll loop between TUN queues and byte streams. No Kubernetes, no policy."""
