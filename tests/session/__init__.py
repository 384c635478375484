"""The session, against stand-ins for what it talks to."""
