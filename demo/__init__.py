"""``make demo``: the story of one connection, told with the commands a user would type."""
