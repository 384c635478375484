"""PURE: a container's environment variables and the files of its mounted volumes, as the kubelet makes them.

From the objects of the API as they were read; what could not be read is a value here, too, and is named in the result.
No I/O and no clock: :mod:`meshdev.kube.workload_sources` reads, :mod:`meshdev.cli` prints and writes.
"""
