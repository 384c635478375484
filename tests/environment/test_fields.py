"""fieldRef: of a pod that runs, and of a template."""

import pytest

from meshdev.environment.fields import field_value
from meshdev.environment.sources import ContainerView, UnreadableError
from tests.environment.making import METADATA, pod


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "0b1c"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", 'a "b"\n'),
        ("metadata.labels", 'app="web"\ntier="front"'),
        ("metadata.annotations", 'note="a \\"b\\"\\n"'),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "web"),
        ("status.podIP", "10.244.0.7"),
        ("status.podIPs", "10.244.0.7,fd00::7"),
        ("status.hostIP", "192.0.2.1"),
        ("status.hostIPs", "192.0.2.1,fd00::1"),
    ],
)
def test_fields_of_a_pod(path: str, value: str) -> None:
    assert field_value(path, pod({})) == value


@pytest.mark.parametrize(
    "path", ["", "metadata", "spec.containers", "status.phase", "metadata.labels['a'", "spec['a']"]
)
def test_what_the_kubelet_does_not_know(path: str) -> None:
    with pytest.raises(UnreadableError, match="knows no such field"):
        field_value(path, pod({}))


def test_a_template_knows_little() -> None:
    template = pod({}, live=False)
    known = {path: field_value(path, template) for path in ("metadata.namespace", "metadata.labels['app']")}
    assert known == {"metadata.namespace": "shop", "metadata.labels['app']": "web"}
    unknown = ("name", "uid", "labels", "annotations", "labels['pod-template-hash']")
    for path in (*(f"metadata.{name}" for name in unknown), "spec.nodeName", "status.podIP", "status.hostIPs"):
        with pytest.raises(UnreadableError, match="no pod runs"):
            field_value(path, template)


def test_what_only_the_kubelet_knows() -> None:
    with pytest.raises(UnreadableError, match="the kubelet knows it"):
        field_value("metadata.annotations['kubernetes.io/config.seen']", pod({}))


def test_a_pod_that_has_no_address_yet() -> None:
    view = ContainerView("shop", {"metadata": METADATA, "spec": {}}, {}, live=True)
    assert field_value("spec.serviceAccountName", view) == "default"
    for path in ("status.podIP", "status.podIPs", "spec.nodeName"):
        with pytest.raises(UnreadableError, match="no pod runs that has it"):
            field_value(path, view)


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("\a\b\f\n\r\t\v\\\"'", r"\a\b\f\n\r\t\v\\\"'"),
        ("\x00\x1b\x7f", r"\x00\x1b\x7f"),
        ("é世🙂", "é世🙂"),
        ("\u00a0\u200b\ue000", r"\u00a0\u200b\ue000"),
        ("\U0010ffff", r"\U0010ffff"),
    ],
)
def test_maps_are_quoted_as_go_does(value: str, quoted: str) -> None:
    view = ContainerView("shop", {"metadata": {"annotations": {"k": value}}, "spec": {}}, {}, live=True)
    assert field_value("metadata.annotations", view) == f'k="{quoted}"'
