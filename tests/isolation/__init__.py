"""Tests of meshdev.isolation, with the real kernel: as a user without rights, also where root runs them."""
