"""Which proxy counts: the rules of golang.org/x/net/http/httpproxy, one by one."""

import pytest

from meshdev.kube.proxies import from_environment, with_port


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("k.corp", "", False),
        ("k.corp", "*.corp", True),
        ("k.corp", ".corp", True),
        ("k.corp", "corp", True),
        ("corp", "corp", True),
        ("corp", ".corp", False),
        ("corp", "*.corp", False),
        ("K.Corp", "k.CORP", True),
        ("xcorp", "corp", False),
        ("k.corp", "k.corp:6443", True),
        ("k.corp", "k.corp:443", False),
        ("k.corp", ":6443", False),
        ("k.corp", " , k.corp ,", True),
        ("k.corp", "*", True),
        ("k.corp", "a,*,b", True),
        ("k.corp", "10.0.0.0/33,k.corp/24", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.9/24", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:6443", True),
        ("10.1.2.3", "10.1.2.3:1", False),
        ("10.1.2.3", "2.3", False),
        ("10.1.2.3", "::/0", False),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("fd00::1", "fd00::/8", True),
        ("fd00::1", "fd00::1", True),
        ("fd00::1", "[fd00::1]:6443", True),
        ("fd00::1", "[fd00::1]:1", False),
        ("localhost", "", True),
        ("LOCALHOST", "", True),
        ("127.9.9.9", "", True),
        ("::1", "", True),
        ("localhost.corp", "", False),
    ],
)
def test_no_proxy(host: str, no_proxy: str, direct: bool) -> None:
    found = from_environment("https", host, 6443, {"HTTPS_PROXY": "http://p", "no_proxy": no_proxy})
    assert found == (None if direct else "http://p")


@pytest.mark.parametrize(
    ("scheme", "environment", "proxy"),
    [
        ("https", {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        ("https", {"HTTPS_PROXY": "p"}, "http://p"),
        ("https", {"HTTPS_PROXY": "[::1"}, "http://[::1"),
        ("https", {"HTTPS_PROXY": "", "https_proxy": "socks5://q"}, "socks5://q"),
        ("https", {"HTTPS_PROXY": "http://p", "https_proxy": "http://q"}, "http://p"),
        ("https", {"HTTP_PROXY": "http://p", "ALL_PROXY": "http://p"}, None),
        ("http", {"HTTP_PROXY": "http://p", "HTTPS_PROXY": "http://q"}, "http://p"),
    ],
)
def test_whose_variable_counts(scheme: str, environment: dict[str, str], proxy: str | None) -> None:
    assert from_environment(scheme, "k", 443, environment) == proxy


def test_ports_of_proxies() -> None:
    given = ("http://p", "http://u:w@p:", "socks5://p", "socks5h://[::1]", "http://p:3128", "ftp://p")
    full = ("http://p:80", "http://u:w@p:80", "socks5://p:1080", "socks5h://[::1]:1080", "http://p:3128", "ftp://p")
    assert tuple(map(with_port, given)) == full
