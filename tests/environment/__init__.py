"""Variables and files of containers: pure, and against a real shell and python-dotenv."""
