"""PURE: what to change on the laptop and how to undo it. No I/O, no clock: values in, decisions out."""
