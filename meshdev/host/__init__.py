"""PURE: what shall be changed on the laptop and how it is undone. No I/O, no clock: values in, decisions out."""
