"""The testbed: a real Kubernetes (one node or two), two laptops and a small internet, in namespaces of this machine.

`python -m tests.cluster up` builds and starts it, `exec` runs a command on a laptop, `down` undoes everything but the
cache. The program uses only the standard library, so that it runs before anything is installed. No address of the
cluster is ever used outside of the namespaces: a packet for it would leave the machine.
"""
