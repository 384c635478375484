"""TUN devices: the contract, the Linux implementation, and a pair in memory for tests.

It does not interpret packets: bytes go in and out, each packet with a virtio-net header in front.
"""
