"""TUN devices: the contract, the Linux implementation, and a pair in memory for tests."""
