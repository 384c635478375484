"""Tests of the passthrough proxy between real sockets."""
