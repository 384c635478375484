"""Tests of the pure wire formats: both directions against literal bytes, and what a peer may not send."""
