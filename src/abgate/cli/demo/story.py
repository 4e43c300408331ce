"""The story that the demo tells, chapter by chapter."""

import math
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from auth0.management.core.api_error import ApiError
from msgspec import Struct

from abgate.cli.demo.children import Child, DemoStopped, make_login_link, make_token, running_abgate, running_provider
from abgate.cli.demo.control import CLIENT, CONTROL, LEVELS, MODAL, WINDOW_S, ControlPlane, Running
from abgate.cli.demo.feed import Delivered, deliver, make_events
from abgate.cli.demo.narrator import Narrator
from abgate.cli.demo.traffic import Browsers, Person, make_people, make_query
from abgate.cli.demo.verdict import FALSE_ALARM, Check, checks, meaning_of, primary_of, successes_of, table_of
from abgate.runtime.attributes import of_user_agent

RATES = {CONTROL: 0.82, MODAL: 0.85}
"""The truth: who gets this variation logs in with this probability."""
SEED = 20_260_601
COUNTED_WITHIN_S = 180.0
EARLY = 20
"""One person in so many opens the login page while the ramp is at its first level."""

HTTP_FAULTS = (httpx.HTTPError, ConnectionError, TimeoutError, ApiError)


class Servers(Struct, frozen=True):
    """The two servers, and how to speak to them."""

    provider: Child
    abgate: Child
    token: str

    @property
    def url(self) -> str:
        """Where abgate is: as the tenant's domain, so that tokens and addresses are alike."""
        return f"http://localhost:{self.abgate.port}"

    @property
    def authorize_url(self) -> str:
        """The provider's authorization endpoint."""
        return _authorize_url(self.provider)


def tell(*, logins: int, port: int, data: Path | None, is_staying: bool) -> bool:
    """Tell the story and return whether all came out right; with `is_staying`, wait for Ctrl-C at the end.

    Raises `StartError`.
    """
    narrator = Narrator()
    narrator.console.print("[bold]abgate demo[/]: an experiment on login, from its flag to its result")
    with ExitStack() as running:
        running.enter_context(_ending_on_signals())
        directory = running.enter_context(_directory(data))
        servers = _start(narrator, running, directory, port)
        try:
            experiment, is_right = _Story(narrator, servers, logins).run()
        except (DemoStopped, *HTTP_FAULTS) as fault:
            reason = _why(fault, servers)
            for child in (servers.provider, servers.abgate):
                narrator.quote(child.name, child.last_lines)
            raise DemoStopped(reason) from fault
        if is_staying:
            _stay(narrator, servers, experiment, directory)
    kept = "" if data is None else f"; everything they stored is in {data}"
    narrator.pause()
    narrator.say(f"Both servers have ended{kept}.")
    return is_right


def _start(narrator: Narrator, running: ExitStack, directory: Path, port: int) -> Servers:
    narrator.chapter("Two servers")
    provider = running.enter_context(running_provider(directory))
    narrator.say(f"oidc-provider-mock  {_authorize_url(provider)}: the OpenID provider where people log in")
    settings = {"ABGATE_MODE": "development", "ABGATE_UPSTREAM_AUTHORIZE_URL": _authorize_url(provider)}
    abgate = running.enter_context(running_abgate(directory, port=port, environment=settings))
    servers = Servers(provider, abgate, make_token(directory))
    abgate.wait_until(lambda: _is_ready(servers))
    narrator.say(f"abgate              {servers.url}/authorize: in front of it; its data is in {directory}")
    return servers


class _Story:
    """What is told once both servers are up."""

    def __init__(self, narrator: Narrator, servers: Servers, logins: int) -> None:
        self._narrator = narrator
        self._servers = servers
        self._people = make_people(logins, seed=SEED)
        self._early = self._people[::EARLY]

    def run(self) -> tuple[Running, bool]:
        """Tell it, and return the experiment and whether all came out right."""
        self._narrator.chapter(f"An experiment, made with the published client {CLIENT}")
        control_plane = ControlPlane(self._servers.url, self._servers.token, self._narrator)
        running = control_plane.start_experiment()
        self._narrator.chapter(f"{len(self._people):,} logins")
        self._log_in(control_plane, running)
        self._narrator.chapter("The events that follow")
        delivered = self._deliver()
        self._narrator.chapter("The results")
        results = self._get_results(running)
        self._narrator.chapter("Is it right?")
        return running, self._check(checks(self._people, running, delivered, results))

    def _log_in(self, control_plane: ControlPlane, running: Running) -> None:
        self._narrator.say(_devices(self._people))
        # Who takes no part gets what the control gets.
        rates: dict[str | None, float] = {None: RATES[CONTROL]}
        rates.update((id, RATES[name]) for id, name in running.names.items())
        browsers = Browsers(self._servers.url, self._servers.authorize_url, rates)
        with self._narrator.bar(f"login page opened, ramp at {LEVELS[0]}%", len(self._early)) as advance:
            browsers.look(self._early, advance)
        for person in self._early:
            person.is_early, person.early_variation_id = True, person.variation_id
        enrolled = sum(person.variation_id is not None for person in self._early)
        self._narrator.say(
            f"{enrolled:,} of these {len(self._early):,} devices take part; the others see the login page as ever"
        )
        control_plane.advance_ramp(running.id)
        # Who looked early first, so that their login is within the metric's window as well.
        in_turn = sorted(self._people, key=lambda person: not person.is_early)
        with self._narrator.bar("logged in at the provider", len(in_turn)) as advance:
            browsers.log_in(in_turn, advance)
        succeeded = sum(person.is_logged_in for person in self._people)
        self._narrator.say(
            f"all {len(self._people):,} followed their redirect to the provider: {succeeded:,} came back with a code, "
            f"{len(self._people) - succeeded:,} with access_denied"
        )

    def _deliver(self) -> Delivered:
        events = make_events(self._people)
        types = Counter(str(event["data"]["type"]) for event in events)
        self._narrator.say(", ".join(f"{count:,} of type {type_}" for type_, count in types.most_common()))
        with self._narrator.bar("posted to /runtime/v1/events", len(events)) as advance:
            return deliver(events, self._servers.url, self._servers.token, advance)

    def _get_results(self, running: Running) -> dict[str, Any]:
        path = _results_path(running)
        self._wait_for_windows()
        self._narrator.say(f"GET {path}")
        results = self._wait_for_results(path)
        self._narrator.show(table_of(results, RATES))
        self._narrator.say(meaning_of(results, RATES))
        return results

    def _wait_for_windows(self) -> None:
        """Wait until nobody's login could count any more: results leave out whose window is still open."""
        last = max(person.asked_at for person in self._people if person.asked_at is not None)
        left = math.ceil(WINDOW_S - (datetime.now(UTC) - last).total_seconds()) + 1
        with self._narrator.bar(f"seconds until the last one's {WINDOW_S} are over", max(0, left)) as advance:
            for _ in range(left):
                time.sleep(1)
                advance(1)

    def _wait_for_results(self, path: str) -> dict[str, Any]:
        """Return the results once they hold every event: what is stored is enriched and in the lake a moment later."""
        headers = {"Authorization": f"Bearer {self._servers.token}"}
        succeeded = sum(person.is_logged_in for person in self._people)
        give_up_at = time.monotonic() + COUNTED_WITHIN_S
        with httpx.Client(base_url=self._servers.url, headers=headers, trust_env=False, timeout=60) as client:
            while True:
                results: dict[str, Any] = client.get(path).raise_for_status().json()
                counted = sum(successes_of(each) for each in primary_of(results))
                is_whole = counted >= succeeded and not results["population"]["open_windows"]
                if is_whole or time.monotonic() > give_up_at:
                    return results
                time.sleep(0.5)

    def _check(self, made: Iterable[Check]) -> bool:
        is_right = True
        for check in made:
            self._narrator.say(f"[green]✓[/] {check.text}" if check.holds else f"[bold red]✗ {check.text}[/]")
            is_right = is_right and check.holds
        self._narrator.say(f"[dim](a check on a share fails by chance at most once in {1 / FALSE_ALARM:,.0f} demos)[/]")
        return is_right


def _stay(narrator: Narrator, servers: Servers, running: Running, directory: Path) -> None:
    narrator.chapter("Yours")
    narrator.say(f"abgate   {servers.url}")
    narrator.say(f"its API  {servers.url}/docs")
    narrator.say("a login, a token, and the results by it:")
    narrator.pause()
    narrator.copyable(f"{servers.url}/authorize?{make_query('you')}")
    narrator.copyable(f"TOKEN={servers.token}")
    narrator.copyable(f'curl -s -H "Authorization: Bearer $TOKEN" {servers.url}{_results_path(running)}')
    narrator.pause()
    narrator.say("its page, in a browser; this link signs you in, once:")
    narrator.pause()
    narrator.copyable(make_login_link(directory, f"/experiments/{running.id}"))
    narrator.pause()
    narrator.say("[b]Ctrl-C ends both servers.[/]")
    try:
        while servers.provider.is_running and servers.abgate.is_running:
            time.sleep(0.5)
    except KeyboardInterrupt:
        return
    ended = servers.abgate if servers.provider.is_running else servers.provider
    raise DemoStopped(f"{ended.name} ended by itself: {ended.last_line}")


def _why(fault: Exception, servers: Servers) -> str:
    # A server that was killed is gone only a moment after its connections.
    time.sleep(0.5)
    gone = [child.name for child in (servers.abgate, servers.provider) if not child.is_running]
    if gone:
        return f"{' and '.join(gone)} ended in the middle of the demo."
    return str(fault) if isinstance(fault, DemoStopped) else f"A request failed: {fault!r}"


def _is_ready(servers: Servers) -> bool:
    try:
        return httpx.get(f"{servers.url}/readyz", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _authorize_url(provider: Child) -> str:
    return f"http://127.0.0.1:{provider.port}/oauth2/authorize"


def _results_path(running: Running) -> str:
    return f"/api/v2/experimentation/experiments/{running.id}/results"


def _devices(people: Sequence[Person]) -> str:
    """Say which devices the people have, as abgate itself reads their user agents."""
    types = Counter(of_user_agent(person.user_agent).get("device_type", "unknown") for person in people)
    shares = ", ".join(f"{count / len(people):.0%} {type_}" for type_, count in types.most_common())
    kinds = len({person.user_agent for person in people})
    return f"{len(people):,} people with a device each, of {kinds} real user agents: {shares}"


@contextmanager
def _directory(data: Path | None) -> Iterator[Path]:
    """Give the directory of the servers' data and logs; one that was not asked for goes again."""
    if data is not None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield data
        return
    made = Path(tempfile.mkdtemp(prefix="abgate-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Have what ends a process without a word end the demo in order, its servers first."""

    came: list[int] = []

    def end(number: int, _frame: object) -> None:
        # Ctrl-C is the one way out that leads through event loops as well.
        came.append(number)
        signal.raise_signal(signal.SIGINT)

    # A shell starts what it runs in the background deaf to Ctrl-C.
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: end, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    except KeyboardInterrupt:
        if came:
            sys.exit(128 + came[0])
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
