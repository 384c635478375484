"""Pure wire formats: bytes in, values out. Nothing here does I/O, reads a clock or draws random numbers."""
