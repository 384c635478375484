"""docs/schemas: made of what the code declares (``python -m tests.schemas``), and held against what commands print."""
