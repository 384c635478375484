"""What each check makes of what was found: pure functions from facts to findings, a file for each group of checks.

They read no clock and touch nothing: what they decide on is an argument, so that each decision is a line of a test.
"""
