"""Tests of the testbed's pure parts and of the sample application; they need neither root nor a running cluster."""
