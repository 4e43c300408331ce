"""``abgate demo`` as people run it: a process with servers of its own, told to end in every way there is."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from abgate.cli import demo
from abgate.cli.demo.control import Running
from abgate.cli.demo.feed import Delivered
from abgate.cli.demo.traffic import Person
from abgate.cli.demo.verdict import checks, meaning_of

from .run import Run

COMMAND = (sys.executable, "-m", "abgate", "demo")
PATIENCE_S = 240


@contextmanager
def demonstrating(*arguments: object, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield process
    finally:
        # With SIGTERM it ends its servers as well.
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines) + (process.stderr.read() if process.stderr else ""))


def ports(told: str) -> list[int]:
    """The ports of the provider and of abgate."""
    return [int(port) for port in re.findall(r"http://(?:127\.0\.0\.1|localhost):(\d+)/(?:oauth2/)?authorize:", told)]


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Demos(NamedTuple):
    """Two demonstrations, and the directory that each is not to write to and to keep everything in."""

    ending: "subprocess.Popen[str]"
    not_written: Path
    staying: "subprocess.Popen[str]"
    kept: Path


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demos]:
    """Side by side, since each waits until the last login's window is over."""
    not_written, kept = tmp_path_factory.mktemp("mine"), tmp_path_factory.mktemp("kept") / "demo"
    # Settings of the user's own must not reach the demo's servers.
    mine = {
        "ABGATE_DATABASE": f"sqlite:///{not_written}/mine.db",
        "ABGATE_UPSTREAM_AUTHORIZE_URL": "https://mine.example",
    }
    with (
        demonstrating("--exit", "--logins", 300, **mine) as ending,
        demonstrating("--logins", 50, "--data", kept) as staying,
    ):
        yield Demos(ending, not_written, staying, kept)


def test_it_tells_the_whole_story_and_ends(demos: Demos) -> None:
    told, err = demos.ending.communicate(timeout=PATIENCE_S)
    assert demos.ending.returncode == 0, told + err
    for passage in (
        "oidc-provider-mock",
        "validate: not ready",
        "experiment_missing_allocations",
        "validate: ready",
        "experiment_active_limit_exceeded",
        "ramp advanced from 50% to 100%",
        "300/300",
        "all 300 followed their redirect to the provider",
        "95% interval",
        "300 of 300 assignments are those of the published SHA-256 formula",
        "Both servers have ended",
    ):
        assert passage in told, told
    assert "✗" not in told
    assert err == ""
    assert not any(is_open(port) for port in ports(told))
    assert list(demos.not_written.iterdir()) == []


def test_it_leaves_the_servers_up_with_lines_that_work_until_ctrl_c(demos: Demos) -> None:
    process = demos.staying
    told = read_until(process, "Ctrl-C ends")
    lines = re.search(r"^TOKEN=\S+\ncurl .+$", told, re.MULTILINE)
    assert lines is not None, told
    answer = subprocess.run(["sh", "-c", lines[0]], capture_output=True, check=True, timeout=PATIENCE_S)
    assert msgspec.json.decode(answer.stdout)["population"]["exposed"] == 50
    docs = re.search(r"http://\S+/docs", told)
    assert docs is not None
    assert httpx.get(docs[0]).status_code == 200
    link = re.search(r"^(http://\S+)/sign-in\?link=(\S+)&next=(/experiments/\S+)$", told, re.MULTILINE)
    assert link is not None, told
    with httpx.Client(base_url=link[1], follow_redirects=True, timeout=60) as visitor:
        page = visitor.post("/sign-in", data={"link": link[2], "next": link[3]})
        assert (page.status_code, page.url.path) == (200, link[3])
        assert "passkey-prompt-modal</bdi></h1>" in page.text
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert str(demos.kept) in out
    assert (demos.kept / "abgate.db").exists()
    assert not any(is_open(port) for port in ports(told))


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_its_servers_end_with_it_however_it_ends(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    # A directory that pytest removes: who is killed removes nothing.
    with demonstrating("--logins", 50_000, "--data", tmp_path / "demo") as process:
        told = read_until(process, "ramp advanced from 10% to 50%")
        assert all(is_open(port) for port in ports(told))
        assert len(ports(told)) == 2
        process.send_signal(sent)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code
    deadline = time.monotonic() + 30
    while any(is_open(port) for port in ports(told)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = subprocess.run(
            [*COMMAND, "--exit", "--port", str(port)], capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    assert told.returncode == 1
    assert f"127.0.0.1:{port}: Address already in use" in told.stderr
    assert told.stderr.count("\n") == 1


def test_data_must_be_empty(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    refused = run("demo", "--exit", "--data", tmp_path)
    assert refused.code == 2
    assert "must be an empty or a new directory" in refused.err


def test_what_is_not_installed_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NEEDED", ("auth0", "no_such_client"))
    refused = run("demo", "--exit")
    assert refused.code == 1
    assert "needs no_such_client" in refused.err
    assert "run make install" in refused.err


def test_what_came_out_wrong_is_its_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abgate.cli.demo.story.tell", lambda **_: False)
    assert run("demo", "--exit").code == 1


RUNNING = Running("exp_1", {"var_control": "control", "var_modal": "modal"})
CONTROL, MODAL = RUNNING.names
EVENTS = Delivered(sent=110, accepted=100, duplicates=10, sent_again=10)


def a_person(number: int) -> Person:
    device = f"device-{number}"
    digest = hashlib.sha256(f"exp_1:{device}".encode()).digest()
    variation_id = CONTROL if digest[0] < 128 else MODAL
    return Person(
        number=number,
        user_agent="curl/8.5.0",
        luck=0.5,
        slip=0.5,
        cookie=f"abgate_device={device}",
        variation_id=variation_id,
        is_early=number % 20 == 0,
        early_variation_id=variation_id if number % 200 == 0 else None,
        is_logged_in=number % 6 > 0,
    )


@pytest.fixture
def people() -> list[Person]:
    return [a_person(number) for number in range(4_000)]


def counted(people: list[Person]) -> dict[str, Any]:
    """What a server says that counts right."""
    variations = []
    for id in RUNNING.names:
        mine = [person for person in people if person.variation_id == id]
        succeeded = sum(person.is_logged_in for person in mine)
        variations.append({"variation_id": id, "n": len(mine), "value": succeeded / len(mine)})
    return {"population": {"exposed": len(people)}, "metrics": [{"variations": variations}]}


def broken(people: list[Person], results: dict[str, Any], delivered: Delivered = EVENTS) -> list[str]:
    return [check.text for check in checks(people, RUNNING, delivered, results) if not check.holds]


def test_what_is_right_passes_every_check(people: list[Person]) -> None:
    assert broken(people, counted(people)) == []


@pytest.mark.parametrize("lost", ["device", "success"])
def test_one_that_the_server_lost_is_noticed(people: list[Person], lost: str) -> None:
    results = counted(people)
    variation = results["metrics"][0]["variations"][1]
    if lost == "device":
        variation["n"] -= 1
    else:
        variation["value"] -= 1 / variation["n"]
    (text,) = broken(people, results)
    assert "by variation" in text


def test_one_that_took_no_part_is_noticed(people: list[Person]) -> None:
    people[7].variation_id = None
    assert any(text.startswith("3,999 of 4,000 logins took part") for text in broken(people, counted(people)))


def test_a_device_that_came_twice_is_noticed(people: list[Person]) -> None:
    people[7].cookie, people[7].variation_id = people[8].cookie, people[8].variation_id
    assert any("on 3,999 distinct devices" in text for text in broken(people, counted(people)))


def test_one_that_moved_is_noticed(people: list[Person]) -> None:
    people[200].variation_id = MODAL if people[200].variation_id == CONTROL else CONTROL
    texts = " ".join(broken(people, counted(people)))
    assert "3,999 of 4,000 assignments" in texts
    assert "19 of the 20 that took part at 10% kept" in texts


def test_a_share_that_is_off_is_noticed(people: list[Person]) -> None:
    # 47% of 4,000 happens by chance once in 10,000; 44% once in 10**14.
    for share, is_noticed in ((47, False), (44, True)):
        for person in people:
            person.variation_id = CONTROL if person.number % 100 < share else MODAL
        texts = broken(people, counted(people))
        assert any(text.startswith("devices in the control") for text in texts) is is_noticed


def test_events_that_were_lost_or_counted_twice_are_noticed(people: list[Person]) -> None:
    for delivered in (
        Delivered(sent=110, accepted=99, duplicates=10, sent_again=10, rejected=1),
        Delivered(sent=110, accepted=101, duplicates=9, sent_again=10),
    ):
        (text,) = broken(people, counted(people), delivered)
        assert "events were stored" in text


def results_of(variations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"analysis": {"alpha": 0.05}, "metrics": [{"variations": variations}]}


@pytest.mark.parametrize(
    ("effect", "interval", "p", "words"),
    [
        (
            0.03,
            [0.02, 0.04],
            1e-9,
            ("3.0 more log in", "1 of 1,000,000,000", "chance is a poor explanation", "holds the true"),
        ),
        (
            0.01,
            [-0.01, 0.02],
            0.4,
            ("1.0 more log in", "40 of 100", "it takes more logins", "misses, as one in twenty"),
        ),
        (-0.02, [-0.03, 0.04], 1e-20, ("2.0 fewer log in", "fewer than 1 of a million million")),
    ],
)
def test_the_meaning_is_said_in_words(effect: float, interval: list[float], p: float, words: tuple[str, ...]) -> None:
    control = {"variation_name": "control", "is_control": True}
    modal = {"variation_name": "modal", "is_control": False, "effect": effect, "interval": interval, "p_value": p}
    said = meaning_of(results_of([control, modal]), {"control": 0.82, "modal": 0.85})
    for each in words:
        assert each in said


def test_too_little_data_is_no_finding() -> None:
    variations = [{"variation_name": name, "is_control": name == "control"} for name in ("control", "modal")]
    said = meaning_of(results_of(variations) | {"why": "There are no failures."}, {"control": 0.82, "modal": 0.85})
    assert said == "Nothing can be said yet: There are no failures."
