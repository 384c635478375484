"""nginx and wrk, here on loopback, and what wrk prints."""

import os
import socket

import pytest

from bench import fast, tools
from bench.client import Pressed

PRINTED = """Running 1s test @ http://10.244.0.7:8090/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   246.00us  193.00us   4.47ms   87.30%
    Req/Sec    59.83k     6.02k   69.94k    60.00%
  Latency Distribution
     50%  207.00us
     75%  318.00us
     90%  424.00us
     99%    1.01ms
  59529 requests in 1.00s, 9.65MB read
{trouble}Requests/sec:  59411.73
Transfer/sec:      9.63MB
"""


def test_what_wrk_prints_is_read() -> None:
    assert fast.parse(PRINTED.format(trouble=""), 0.5) == Pressed(59529, 0, {}, {}, 59411.73, 0.207, 1.01, 0.5)


def test_errors_are_counted_by_kind() -> None:
    trouble = "  Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 7\n"
    came = fast.parse(PRINTED.format(trouble=trouble), 0.5)
    assert (came.errors, came.wrong) == (11, {"read errors": 3, "timeout errors": 1, "another status": 7})


def test_other_text_is_no_figure() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        fast.parse("unable to connect to 10.244.0.7:8090 Connection refused\n", 0.5)


@pytest.mark.netns
def test_nginx_is_served_and_pressed_on() -> None:
    tools.main()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with fast.server(os.getpid(), ports=(address[1],)):
        came = fast.press(os.getpid(), address, connections=2, seconds=1)
        assert came.requests > 100
        assert came.wrong == {}
        assert 0 < came.cores < 2
        assert fast.body(os.getpid(), address) > 0
