"""Tests of meshdev.identity."""
