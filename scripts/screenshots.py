"""Takes the pictures of docs/screenshots/: a real server with two weeks of logins behind it, in a real browser.

Argument: the folder for them. What is on them is made up from a seed (tests/dashboard/states.py), so that two runs
differ in dates and little else.
"""

import io
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import opened  # noqa: E402
from tests.contract.test_openfeature_web import CHROMIUM, OPTIONS  # noqa: E402
from tests.dashboard import states  # noqa: E402
from tests.dashboard.signed_in import login_link  # noqa: E402
from tests.server import Server, running_server  # noqa: E402

from abgate.storage.lake import Lake  # noqa: E402

WIDE, NARROW = 1280, 390
# Pages have few colours and no gradients: nobody sees the difference, and a picture is a third as large.
COLORS = 64
MAX_BYTES = 200_000
PATIENCE_MS = 120_000


class Picture(Struct, frozen=True):
    """One picture: its name, the page, how much of it, and how it looks."""

    name: str
    path: str
    height: int
    scheme: str = "light"
    width: int = WIDE


def pictures(ids: Mapping[str, str]) -> list[Picture]:
    """Return every picture to take."""
    experiments = {state: f"/experiments/{id}" for state, id in ids.items()}
    return [
        Picture("experiments", "/", 620),
        Picture("experiment", experiments["ship"], 1420),
        Picture("why", "/why?flow=authentication&device=passkey-prompt-modal-13-400", 900),
        Picture("experiment-dark", f"{experiments['ship']}?dimension=browser", 3200, scheme="dark"),
        Picture("mismatch", experiments["srm"], 2900),
        Picture("broken-guardrail", experiments["rollback"], 1500),
        Picture("too-little-data", experiments["not_enough_data"], 1700),
        Picture("paused", experiments["paused"], 1500, scheme="dark"),
        Picture("completed", experiments["completed"], 1700),
        Picture("forced-only", experiments["forced_only"], 1500),
        Picture("phone", experiments["ship"], 1800, width=NARROW),
        Picture("new-experiment", "/experiments/new", 1500),
        Picture("settings", "/settings", 1500),
    ]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="abgate-screenshots-") as name:
        data = Path(name)
        with running_server(data, environment={"ABGATE_RATE_LIMIT": "0"}) as server:
            lake = Lake(str(data / "lake"))
            with opened(f"sqlite:///{data / 'abgate.db'}") as engine:
                ids = states.fill(engine, lake, now=datetime.now(UTC))
                states.settle(engine, lake)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
                for picture in pictures(ids):
                    size = take(browser, server, picture, folder / f"{picture.name}.png")
                    print(f"{picture.name}.png  {size / 1000:.0f} KB")
                browser.close()


def take(browser: Browser, server: Server, picture: Picture, file: Path) -> int:
    """Take one picture, and return its size in bytes."""
    context = browser.new_context(
        viewport={"width": picture.width, "height": 900},
        color_scheme="dark" if picture.scheme == "dark" else "light",
        locale="en-GB",
        timezone_id="Europe/Paris",
    )
    page = context.new_page()
    page.goto(login_link(server))
    page.get_by_role("button", name="Sign in").click()
    page.goto(server.url + picture.path)
    wait_until_drawn(page)
    taken = page.screenshot(full_page=True)
    context.close()
    image = Image.open(io.BytesIO(taken)).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, picture.height)))
    image.quantize(COLORS, dither=Image.Dither.NONE).save(file, optimize=True)
    size = file.stat().st_size
    assert size < MAX_BYTES, f"{file} has {size} bytes"
    return size


def wait_until_drawn(page: Page) -> None:
    """Wait for what is loaded after the page, and for its charts."""
    for waiting in ("[aria-busy]", "[hx-trigger^=load]", "figure[data-chart]:not(:has(svg))"):
        expect(page.locator(waiting)).to_have_count(0, timeout=PATIENCE_MS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
