"""Tests of the demo's stage."""
