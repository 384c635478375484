"""Envoy's resources, and what a real Envoy does with them."""
