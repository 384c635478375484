"""Tests of the commands: real processes, a small session that speaks the real protocol."""
