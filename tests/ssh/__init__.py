"""Tests of meshdev.ssh without a server."""
