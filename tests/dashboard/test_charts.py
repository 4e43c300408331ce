"""What charts draw of the first few subjects."""

import json
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.contract.things import make_experiment
from tests.dashboard.signed_in import open_pages
from tests.server import Server

DRAW = """async (figure) => {
  const path = [...document.scripts].map((each) => each.src).find((each) => each.endsWith("/abgate.js"));
  const { drawCharts } = await import(path.replace("abgate.js", "charts.js"));
  document.querySelector("main").innerHTML = figure;
  drawCharts(document);
  return [...document.querySelectorAll("svg [text-anchor=end] text")].map((each) => each.textContent);
}"""


@pytest.mark.parametrize(
    ("counts", "ticks"), [((1, 0), ["0", "1"]), ((1, 1), ["0", "1", "2"]), ((3, 1), ["0", "1", "2", "3", "4"])]
)
def test_subjects_by_day_are_counted_by_whole_ones(
    browser: Browser, server: Server, counts: tuple[int, int], ticks: list[str]
) -> None:
    with server.client() as api:
        made = make_experiment(api)
    page = open_pages(browser, server)
    page.goto(f"{server.url}/experiments/{made['id']}")
    rows: list[dict[str, Any]] = [
        {"day": "2026-01-02", "n": n, "label": color, "color": color}
        for n, color in zip(counts, ("control", "treatment"), strict=True)
    ]
    data = json.dumps({"rows": rows})
    script = f'<script type="application/json">{data}</script>'
    figure = f'<figure data-chart="days">{script}<div class="drawn"></div></figure>'
    assert page.evaluate(DRAW, figure) == ticks
    page.context.close()
