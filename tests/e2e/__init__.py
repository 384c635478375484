"""Tests on the testbed: each promise to a user, on a real cluster."""
