"""Takes the pictures of docs/screenshots/: real servers in a real browser.

Argument: the folder for them. The README's three are of what a run of `abgate demo` leaves behind; all others are of
states that are made up from a seed, with two weeks of logins (tests/dashboard/states.py). Two runs differ in dates, and
the demo in identifiers and in who is given what.
"""

import io
import subprocess
import sys
import tempfile
from collections.abc import Iterable
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

from abgate.cli.demo.control import FLOW  # noqa: E402
from abgate.core.events import Exposure  # noqa: E402
from abgate.storage.engine import reading  # noqa: E402
from abgate.storage.lake import Lake  # noqa: E402
from abgate.storage.logged import LoggedEvent, list_events  # noqa: E402

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


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(prefix="abgate-screenshots-") as name:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        told, made_up = Path(name) / "demo", Path(name) / "states"
        subprocess.run([sys.executable, "-m", "abgate", "demo", "--exit", "--data", told], check=True)
        with running_server(told) as server:
            take_each(browser, server, of_demo(told), folder)
        with running_server(made_up, environment={"ABGATE_RATE_LIMIT": "0"}) as server:
            take_each(browser, server, of_states(made_up), folder)
        browser.close()


def of_demo(data: Path) -> list[Picture]:
    """Return the README's pictures: the demo's experiments, the one that ran, and one of its devices."""
    with opened(f"sqlite:///{data / 'abgate.db'}") as engine, reading(engine) as connection:
        exposure = one_with_a_slip(list_events(connection, after=0, take=5_000))
    return [
        Picture("experiments", "/", 620),
        Picture("experiment", f"/experiments/{exposure.experiment.experiment_id}", 1115),
        Picture("why", f"/why?flow={FLOW}&device={exposure.device}", 900),
    ]


def one_with_a_slip(events: Iterable[LoggedEvent]) -> Exposure:
    """Return the exposure of somebody with the treatment who mistyped the password, and then got in."""
    slipped = set()
    for event in events:
        if event.exposure is None or event.exposure.experiment.is_control:
            continue
        if event.type == "s" and event.device in slipped:
            return event.exposure
        if event.type == "fp":
            slipped.add(event.device)
    raise LookupError("nobody in the demo mistyped a password and then got in")


def of_states(data: Path) -> list[Picture]:
    """Make every state, beside the running server, and return a picture of each."""
    lake = Lake(str(data / "lake"))
    with opened(f"sqlite:///{data / 'abgate.db'}") as engine:
        ids = states.fill(engine, lake, now=datetime.now(UTC))
        states.settle(engine, lake)
    experiments = {state: f"/experiments/{id}" for state, id in ids.items()}
    return [
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


def take_each(browser: Browser, server: Server, pictures: Iterable[Picture], folder: Path) -> None:
    """Take these pictures, and print their sizes."""
    for picture in pictures:
        size = take(browser, server, picture, folder / f"{picture.name}.png")
        print(f"{picture.name}.png  {size / 1000:.0f} KB")


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
