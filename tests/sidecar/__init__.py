"""Tests of the sidecar: Envoy's resources against a real Envoy on loopback, and the agent."""
