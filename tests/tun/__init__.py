"""The queue contract without a kernel device."""
