"""The manager's container *tunnel* (NET_ADMIN): TUN devices, addresses, forwarding, nft. No kubernetes, no grpc."""
