"""Tests of the passthrough proxy's pure core."""
