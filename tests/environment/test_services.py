"""The variables of Services."""

from meshdev.environment.services import LINK, service_variables
from tests.environment.making import service


def test_all_variables_of_a_service() -> None:
    made = service(
        "my-db",
        "10.96.0.9",
        {"name": "sql-main", "port": 5432, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    )
    assert service_variables([made]) == {
        "MY_DB_SERVICE_HOST": "10.96.0.9",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL_MAIN": "5432",
        "MY_DB_SERVICE_PORT_DNS": "53",
        "MY_DB_PORT": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.9",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.9:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.9",
    }
    assert all(LINK.fullmatch(name) for name in service_variables([made]))


def test_an_ipv6_address_is_in_brackets_in_urls() -> None:
    found = service_variables([service("a", "fd00::1", {"port": 80})])
    assert (found["A_SERVICE_HOST"], found["A_PORT"]) == ("fd00::1", "tcp://[fd00::1]:80")


def test_services_without_an_address_have_none() -> None:
    without = [service("a", "None", {"port": 80}), service("b", "", {"port": 80}), service("c", "10.96.0.1")]
    assert service_variables(without) == {}
