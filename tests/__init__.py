"""Everything that checks meshdev. The folders mirror `meshdev/`; `cluster/` is the testbed program, `netns/` needs
root and makes namespaces, `e2e/` runs on the testbed. Nothing here is part of the installed package."""
