"""TUN devices: the contract, the Linux implementation, and a pair in memory for tests.

What a packet means is none of its business: bytes go in and out, each with its virtio-net header in front.
"""
