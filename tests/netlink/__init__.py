"""Netlink messages against bytes of the kernel, and hostile ones."""
