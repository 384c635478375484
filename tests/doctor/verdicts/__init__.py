"""What each check makes of what was found: pure."""
