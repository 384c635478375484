"""Tests of what touches the kernel: root, each in network and mount namespaces of its own."""
