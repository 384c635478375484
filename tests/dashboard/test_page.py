"""What the page shows and does, in a real browser, behind the real server."""

from typing import Any

import pytest
from selenium.webdriver import Keys

from meshdev.errors import InterceptError
from tests.dashboard import synthetic
from tests.dashboard.chromium import until
from tests.dashboard.page import Page

SECOND = 1.0


def test_a_request_appears_within_a_second(page: Page) -> None:
    page.open()
    page.served.put("requests", synthetic.requests(1, path="/seen"))
    page.shows("/seen", "#rows tr", SECOND)
    page.served.put("requests", synthetic.requests(1, first=1, path="/newer"))
    page.shows("/newer", "#rows tr:first-child", SECOND)


def test_an_intercept_that_leaves_disappears(page: Page) -> None:
    page.open()
    assert page.texts(".intercept .name") == ["deployment/orders", "deployment/payments"]
    state = synthetic.small(synthetic.NOW + 1)
    page.served.put("state", {**state, "intercepts": state["intercepts"][1:]})
    until("it is gone", lambda: page.texts(".intercept .name") == ["deployment/payments"], SECOND)


def test_an_intercept_is_left_by_keyboard_alone(page: Page) -> None:
    page.open()
    page.served.refuse(InterceptError("it is gone already", hint="meshdev list"))
    page.tab_to(".leave")
    page.press(Keys.ENTER)
    page.shows("Leave deployment/orders?", "dialog[open] h2")
    assert page.focused == "Cancel"
    page.press(Keys.TAB, Keys.ENTER)
    page.shows("it is gone already. meshdev list", "dialog[open] .error")
    page.complains_only_of("409")
    page.served.refuse(None)
    page.press(Keys.ENTER)
    until("it was left", lambda: page.served.left == ["i1"])
    until("the question is gone", lambda: page.texts("dialog[open]") == [])
    assert page.focused == "Leave deployment/orders"
    page.press(Keys.ENTER)
    page.press(Keys.ESCAPE)
    until("Escape answers no", lambda: page.texts("dialog[open]") == [])
    assert page.served.left == ["i1"]
    page.served.put("state", {**synthetic.small(synthetic.NOW + 1), "intercepts": []})
    page.shows("Nothing is intercepted", "#intercepts-empty")
    until("the focus is on what is next", lambda: page.focused == "Intercepts")


def test_only_own_intercepts_can_be_left(page: Page) -> None:
    page.open()
    assert page.run("return [...document.querySelectorAll('.leave')].map((e) => e.checkVisibility())") == [True, False]


def test_reports_of_pods_are_shown(page: Page) -> None:
    page.open()
    page.click("#intercepts li:nth-child(2) summary")
    page.shows("nothing listens in the pod on 9000/tcp", "#intercepts .reports li")


def test_the_details_of_a_request_are_reached_by_keyboard_alone(page: Page) -> None:
    page.open()
    page.served.put("requests", synthetic.requests(9))
    until("all rows", lambda: len(page.texts("#rows tr")) == 9)
    page.tab_to("button.open")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    row = page.focused
    page.press(Keys.ENTER)
    page.shows("Request from", "#panel-title")
    fields = dict(zip(page.texts("#panel dt"), page.texts("#panel dd"), strict=True))
    assert fields["Path"] == row == "/api/orders/8790"
    assert fields["Status"] == "404 Not Found"
    assert fields["Client"] == "deployment/web (10.244.1.17)"
    assert fields["Trace"] == f"{6 + 0xA1B2C3:032x}"
    shown = {"time", "namespace", "target", "pod", "source", "protocol", "method", "authority", "path", "status"}
    shown |= {
        "duration_ms",
        "request_bytes",
        "response_bytes",
        "intercept",
        "holder",
        "served_by",
        "reason",
        "trace_id",
    }
    assert len(fields) == len(shown)
    assert page.text("#panel-why") == "An intercept matched, so the local program of ann@laptop answered."
    page.press(Keys.ESCAPE)
    until("it is closed", lambda: not page.visible("#panel"))
    assert page.focused == row


def test_a_field_that_the_page_does_not_know_is_shown_all_the_same(page: Page) -> None:
    page.open()
    page.served.put("requests", synthetic.requests(1, weight={"grams": 3}))
    page.shows("orders", "#rows tr")
    page.click("#rows tr")
    page.shows('{"grams":3}', "#panel dd")


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        ("original", "deployment/orders answered in the cluster, as without meshdev: no header a."),
        (
            "fallback",
            (
                "An intercept matched, but the local program could not be reached, "
                "so deployment/orders answered in the cluster (no header a)."
            ),
        ),
        ("meshdev", "The sidecar answered with an error: no header a."),
    ],
)
def test_why_a_request_went_where_it_went(page: Page, by: str, sentence: str) -> None:
    page.open()
    page.served.put("requests", synthetic.requests(1, served_by=by, reason="no header a"))
    page.shows("orders", "#rows tr")
    page.click("#rows tr")
    page.shows(sentence, "#panel-why")


def test_the_table_is_held_while_somebody_looks(page: Page) -> None:
    page.open()
    page.served.put("requests", synthetic.requests(3))
    until("all rows", lambda: len(page.texts("#rows tr")) == 3)
    page.tab_to("button.open")
    page.served.put("requests", synthetic.requests(5, first=3))
    page.shows("Held while you look: 5 newer", "#held")
    assert len(page.texts("#rows tr")) == 3
    page.run("document.activeElement.blur()")
    until("it goes on", lambda: len(page.texts("#rows tr")) == 8)
    page.click("#pause")
    page.served.put("requests", synthetic.requests(5, first=8))
    page.shows("Paused: 5 newer", "#held")
    page.click("#pause")
    until("it goes on", lambda: len(page.texts("#rows tr")) == 13)


def test_the_filter_wants_all_words(page: Page) -> None:
    page.open()
    page.served.put("requests", synthetic.requests(27))
    until("all rows", lambda: len(page.texts("#rows tr")) == 27)
    page.find("#filter").send_keys("POST 502")
    until("those with both", lambda: len(page.texts("#rows tr")) == 3)
    assert all("502" in each for each in page.texts("#rows tr"))
    page.find("#filter").send_keys(" nowhere")
    page.shows("No request has all of these words.", "#requests-empty")


def test_requests_that_were_too_many_are_counted(page: Page) -> None:
    page.open()
    page.served.put("requests", {**synthetic.requests(1), "skipped": 1234})
    page.shows("1,234 more were too many to show", "#requests-count")


EVIL = "<img src=x onerror=\"window.hacked='yes'\"><script>window.hacked='yes'</script>"


def test_hostile_names_stay_text(page: Page) -> None:
    page.open()
    state = synthetic.small(synthetic.NOW + 1)
    state["nodes"][0]["name"] = state["session"]["context"] = state["health"][0]["detail"] = EVIL
    state["intercepts"][0].update(match=EVIL, target=EVIL, state=EVIL)
    page.served.put("state", {**state, "session": {**state["session"], "notes": [EVIL]}})
    others: dict[str, Any] = {"path": EVIL, "method": EVIL, "reason": EVIL, "authority": EVIL, EVIL: EVIL}
    page.served.put("requests", synthetic.requests(1, **others))
    page.shows(EVIL, "#rows td")
    page.click("#rows tr")
    page.shows(EVIL, "#panel dd")
    page.shows(EVIL, "#context")
    page.click(".leave")
    page.shows(EVIL, "dialog h2")
    assert page.run("return document.querySelectorAll('img, body script').length") == 0
    assert page.run("return window.hacked ?? 'no'") == "no"


def test_a_look_at_a_workload(page: Page) -> None:
    page.open()
    page.tab_to("#graph .node")
    page.press(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.focused == "deployment catalog, 2 of 2 ready, asked 30.7/s by 1 caller"
    page.press(Keys.ARROW_DOWN)
    assert page.focused == "deployment orders, 2 of 2 ready, intercepted, asked 13.3/s by 2 callers, asks 16.4/s of 3"
    page.shows("Intercepted by ann@laptop: x-user=ann", "#node-details")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_UP)
    page.shows("Intercepts deployment/orders: x-user=ann", "#node-details")
    page.press(Keys.ARROW_LEFT, Keys.ARROW_DOWN)
    page.shows("payments\t5.5/s\t41\u202fms\t✕ 4.2\u202f%", "#node-details tr")
    page.press(Keys.ENTER)
    page.shows("Show its requests", "#node-details button")
    page.tab_to("#node-details button", 1)
    page.press(Keys.ENTER)
    assert page.run("return document.getElementById('filter').value") == "deployment/orders"


def test_what_is_marked_in_the_topology(page: Page) -> None:
    page.open()
    box = "return document.querySelector(`[data-id='${arguments[0]}'] rect`).getAttribute('class')"
    assert page.run(box, "deployment/orders") == "node-box workload intercepted"
    assert page.run(box, "laptop/ann@laptop") == "node-box laptop"
    assert page.run(box, "address/others") == "node-box address"
    failing = page.run(
        "return [...document.querySelectorAll('#graph .edge.failing')].map((e) => getComputedStyle(e).strokeDasharray)"
    )
    assert failing == ["7px, 4px"]
    page.shows("5.5/s · 41\u202fms✕ 4.2\u202f%", ".label.failing")


PLACES = """
const nodes = [...document.querySelectorAll("#graph .node")];
return Object.fromEntries(nodes.map((node) => [node.dataset.id, node.getAttribute("transform")]));
"""


def test_nothing_moves_when_only_rates_change(page: Page) -> None:
    page.open()
    until("it is drawn", lambda: len(page.run(PLACES)) == 11)
    before = page.run(PLACES)
    state = synthetic.small(synthetic.NOW + 1)
    quiet = [{**edge, "rate": edge["rate"] * 7 % 5} for edge in reversed(state["edges"][2:])]
    page.served.put("state", {**state, "nodes": state["nodes"][::-1], "edges": quiet})
    page.shows("9 call paths", "#topology-count")
    assert page.run(PLACES) == before


def test_the_tunnel_over_five_minutes(page: Page) -> None:
    page.open()
    page.shows("82.2\u202fKiB/s", "#throughput .keys")
    assert page.texts("#throughput .chart text")[-6:] == ["−5 min", "", "−3 min", "", "−1 min", "now"]
    page.tab_to("#throughput .chart")
    page.press(Keys.HOME)
    page.shows("12:26:05: to cluster 66.7", "#throughput .for-readers")
    state = synthetic.small(synthetic.NOW + 1)
    state["tunnel"]["to_cluster"] = 9 * 2**20
    page.served.put("state", state)
    page.shows("16.0\u202fMiB/s", "#throughput .chart text")


def test_what_is_wrong_comes_first(page: Page) -> None:
    page.open()
    assert page.texts("#health b")[:2] == ["Intercept of deployment/orders", "Tunnel"]
    assert page.texts("#health .shape") == ["!", *"✓✓✓✓✓", "–"]
    assert page.text("#health .hint") == "start your program on that port"
    state = synthetic.small(synthetic.NOW + 1)
    page.served.put("state", {**state, "health": [each | {"check": "requests"} for each in state["health"]]})
    until("each is shown", lambda: page.texts("#health b") == ["Requests"] * 7)


def test_the_state_of_the_session(page: Page) -> None:
    page.open()
    assert [page.text(f"#{name}") for name in ("context", "namespace", "holder")] == ["staging", "shop", "ann@laptop"]
    state = synthetic.small(synthetic.NOW + 1)
    state["session"].update(state="degraded", notes=["another program changed resolv.conf", "it is put back"])
    page.served.put("state", state)
    page.shows("Degraded", "#state-text")
    page.shows("another program changed resolv.conf", "#banner-title")
    page.shows("it is put back", "#banner-text")
    assert page.driver.title == "shop · meshdev · Degraded"
