"""What RBAC sees of a request: verb, API group, resource, namespace, name. Pure.

The same reading of the path as the API server's own (``k8s.io/apiserver/pkg/endpoints/request/requestinfo.go``), so
that an error can name the rule that is missing and a test can compare what the code asks with what ``rbac`` prints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, order=True)
class Access:
    """One authorization question. *resource* includes the subresource (``pods/portforward``); of what is no resource
    (``/api``) it is the path.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def sentence(self) -> str:
        """``create pods/portforward in namespace default``."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        where = f" in namespace {self.namespace}" if self.namespace else " in the whole cluster"
        return f"{self.verb} {resource}{where}"

    def rule(self) -> str:
        """The rule that allows it, as YAML for a Role (or a ClusterRole where there is no namespace)."""
        return f'- apiGroups: ["{self.group}"]\n  resources: ["{self.resource}"]\n  verbs: ["{self.verb}"]'


def access(method: str, path: str, query: Mapping[str, str]) -> Access:
    """The question that a request to *path* of the API puts to the authorizer."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    group, rest = (parts[1], parts[3:]) if parts[0] == "apis" else ("", parts[2:])
    if not rest:
        return Access(method.lower(), "", path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name = "/".join([rest[0], *rest[2:]]), rest[1] if len(rest) > 1 else ""
    verb = _VERBS.get(method)
    if verb is None:
        watching = query.get("watch") in {"1", "true"}
        verb = "get" if name else "watch" if watching else "list"
        # A list or watch of one object by field selector counts as one of that name.
        selector = query.get("fieldSelector", "")
        if not name and selector.startswith("metadata.name="):
            name = selector.removeprefix("metadata.name=")
    return Access(verb, group, resource, namespace, name)
