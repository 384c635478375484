"""Checks of `doctor`: what they find, and how they are run."""
