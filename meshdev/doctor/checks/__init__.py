"""How the facts are found that the verdicts need: thin, a file for each group, no decisions.

Everything is read as the user who asks; nothing is changed and nobody is asked for a password.
"""
