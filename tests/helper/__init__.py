"""The helper's files, without root: a folder of the test stands for /run/meshdev."""
