"""Two weeks in the life of a tenant: an experiment in every state that a page must show, made up from a seed.

Configuration is written by the Management API's own functions, each at its moment in the past, and logins are put into
the event log as the server itself stores them; a running server enriches them and takes them to the lake. The numbers
are the same in every run, but for those that depend on the time of day.
"""

import heapq
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Engine

from abgate.analysis.analyst import SETTLING, Analyst
from abgate.core.bucketing import cumulative, pick, position_and_entry
from abgate.core.compiled import ExperimentDetails, Reason
from abgate.core.errors import Unavailable
from abgate.core.events import AuthEvent, Exposure, microseconds, to_timestamp
from abgate.core.ids import make_id, timestamp
from abgate.ingest.lake_appending import Tables, waiting
from abgate.management import bodies, experiments, feature_flags, metrics
from abgate.management.caller import Caller
from abgate.storage import event_log
from abgate.storage.changes import Author
from abgate.storage.engine import appending
from abgate.storage.lake import Lake
from abgate.storage.tenants import DEFAULT_TENANT

DAYS = 14
HOUR_US = 3_600_000_000
# Windows of an hour, a day and a week: nobody's closes within the two hours that a test may take.
SETTLED_HOURS = ((0, 2), (22, 24), (7 * 24 - 2, 7 * 24))
BROWSERS = (
    (40, {"device_type": "desktop", "browser": "Chrome", "platform": "Windows"}),
    (15, {"device_type": "desktop", "browser": "Firefox", "platform": "Linux"}),
    (25, {"device_type": "mobile", "browser": "Mobile Safari", "platform": "iOS"}),
    (20, {"device_type": "mobile", "browser": "Chrome Mobile", "platform": "Android"}),
)
COUNTRIES = ((40, "DE"), (35, "FR"), (15, "US"), (10, "JP"))
CLIENTS = ((70, "shop-web"), (30, "shop-app"))


class Truth(Struct, frozen=True):
    """What those with one variation do, in probabilities, and how many seconds they need."""

    login: float = 0.80
    wrong_password: float = 0.15
    lockout: float = 0.03
    passkey: float = 0.05
    seconds: float = 40.0


AS_EVER = Truth()
Step = Generator[float, Caller, None]
Leaves = Callable[[Mapping[str, str], str], bool]


class Moment(Caller, frozen=True):
    """A caller at a moment of the past, whose new ids are the same in every run."""

    numbers: Iterator[int]

    def new_id(self, prefix: str) -> str:
        return make_id(prefix, random.Random(next(self.numbers)).randbytes(32))


def fill(engine: Engine, lake: Lake, *, now: datetime, scale: float = 1.0) -> dict[str, str]:
    """Make every experiment, `scale` times as many subjects in each, and return their ids by their state."""
    story = _Story(engine, now, scale)
    steps = [
        story.shipping(), story.mismatched(), story.breaking(), story.beginning(), story.resting(), story.ended(),
        story.forced(), story.drafted(),
    ]  # fmt: skip
    numbers, analyst = count(1), Analyst(engine, lake)
    # Step by step in the order of their moments, as the change history has it.
    waiting = [(-next(step), place, step) for place, step in enumerate(steps)]
    heapq.heapify(waiting)
    while waiting:
        before, place, step = heapq.heappop(waiting)
        author = Author(DEFAULT_TENANT, "user:Ada", timestamp(now + timedelta(days=before)))
        try:
            after = step.send(Moment(engine, author, 2, lambda *_: None, analyst, numbers))
        except StopIteration:
            continue
        heapq.heappush(waiting, (-after, place, step))
    story.store()
    return story.ids


class _Story:
    def __init__(self, engine: Engine, now: datetime, scale: float) -> None:
        self.ids: dict[str, str] = {}
        self._engine = engine
        self._now = microseconds(now)
        self._scale = scale
        self._exposures: list[Exposure] = []
        self._events: list[AuthEvent] = []

    def shipping(self) -> Step:
        caller = yield DAYS
        analysis = analysis_of(guardrails={"lockout_rate": 0.8, "failed_login_rate": 0.25})
        made = begin(
            caller, "passkey-prompt-modal", ["link", "modal"], analysis=analysis, levels=[10, 50, 100],
            description="Offered a passkey before the password field, more people log in.",
        )  # fmt: skip
        self.ids["ship"] = made.id
        for days, level in ((13.5, 50), (13, 100)):
            caller = yield days
            experiments.advance_ramp(caller, made.id, bodies.AdvanceRamp(level))
        better = Truth(login=0.86, wrong_password=0.11, lockout=0.02, passkey=0.16, seconds=31)
        self._log_in(made, 3000, [AS_EVER, better], days=(13, 0), forced=12)

    def mismatched(self) -> Step:
        caller = yield 10
        analysis = analysis_of(guardrails={"lockout_rate": 0.5})
        made = begin(caller, "magic-link-first", ["password", "magic-link"], flow="login", analysis=analysis)
        self.ids["srm"] = made.id

        def crashes(attributes: Mapping[str, str], variation: str) -> bool:
            return attributes["browser"] == "Mobile Safari" and variation == made.allocations[1].variation_id

        self._log_in(made, 2400, [AS_EVER, Truth(login=0.83)], days=(10, 0), leaves=crashes)

    def breaking(self) -> Step:
        caller = yield 9
        analysis = analysis_of(guardrails={"lockout_rate": 0.2, "failed_login_rate": 0.2})
        made = begin(
            caller, "stricter-password-rules", ["eight", "twelve"], flow="password_reset", analysis=analysis
        )  # fmt: skip
        self.ids["rollback"] = made.id
        worse = Truth(login=0.80, wrong_password=0.22, lockout=0.11)
        self._log_in(made, 2400, [AS_EVER, worse], days=(9, 0))

    def beginning(self) -> Step:
        caller = yield 1
        made = begin(caller, "sign-up-in-two-steps", ["one", "two"], flow="signup", levels=[5, 50, 100])
        self.ids["not_enough_data"] = made.id
        self._log_in(made, 7, [AS_EVER, AS_EVER], days=(1, 0), is_whole=True)

    def resting(self) -> Step:
        caller = yield 12
        made = begin(caller, "mfa-enrollment-nudge", ["skip", "nudge"], flow="mfa_enrollment", weights=[80, 20])
        self.ids["paused"] = made.id
        self._log_in(made, 1200, [AS_EVER, Truth(login=0.81)], days=(12, 8))
        caller = yield 8
        move(caller, made.id, "paused")
        caller = yield 7.9
        halves = [
            {"variation_id": each.variation_id, "weight": 50, "is_control": each.is_control}
            for each in made.allocations
        ]
        change = msgspec.convert({"allocations": halves, "status": "active"}, bodies.UpdateExperiment)
        made = experiments.update_experiment(caller, made.id, change)
        self._log_in(made, 1600, [AS_EVER, Truth(login=0.81)], days=(7.9, 2))
        caller = yield 2
        move(caller, made.id, "paused")

    def ended(self) -> Step:
        caller = yield 13
        made = begin(
            caller, "remember-this-device", ["off", "thirty-days", "ninety-days"], flow="mfa_challenge",
            weights=[34, 33, 33], analysis=analysis_of(guardrails={"lockout_rate": 0.8}),
        )  # fmt: skip
        self.ids["completed"] = made.id
        truths = [AS_EVER, Truth(login=0.89, lockout=0.012, seconds=33), Truth(login=0.81)]
        self._log_in(made, 3000, truths, days=(13, 1))
        caller = yield 1
        experiments.roll_out_variation(caller, made.id, bodies.RollOut(made.allocations[1].variation_id))

    def forced(self) -> Step:
        caller = yield 0.2
        made = begin(caller, "passkey-after-login", ["never", "once"], flow="passkey_enrollment")
        self.ids["forced_only"] = made.id
        self._log_in(made, 0, [AS_EVER, AS_EVER], days=(0.2, 0), forced=6)

    def drafted(self) -> Step:
        caller = yield 0.1
        self.ids["draft"] = draft(caller, "social-login-order", ["google-first", "apple-first"], flow="login").id

    def _log_in(
        self, made: bodies.ExperimentAnswer, subjects: int, truths: Sequence[Truth], *,
        days: tuple[float, float], leaves: Leaves = lambda _attributes, _variation: False, forced: int = 0,
        is_whole: bool = False,
    ) -> None:  # fmt: skip
        """Have so many subjects log in, evenly from `days[0]` days ago until `days[1]`."""
        chance = random.Random(made.name)
        wanted = subjects if is_whole else round(subjects * self._scale)
        start, end = (self._now - round(day * 24 * HOUR_US) for day in days)
        ends = cumulative([int(str(each.weight)) for each in made.allocations])
        for number in range(wanted):
            at = start + round((end - start) * (number + chance.random()) / wanted)
            if is_whole:
                at = self._now - 3 * HOUR_US - number
            if any(low * HOUR_US <= self._now - at < high * HOUR_US for low, high in SETTLED_HOURS):
                at -= 3 * HOUR_US
            if at < start:
                at = start + 60_000_000 + number
            device = f"{made.name}-{round(days[0])}-{number}"
            place = pick(position_and_entry(made.id, device)[0], ends)
            assert place is not None
            if not leaves(attributes := draw(chance), made.allocations[place].variation_id):
                self._person(chance, made, place, device, at, attributes, truths[place])
        for number in range(forced):
            at = self._now - 3 * HOUR_US + number
            self._expose(made, number % 2, f"tester-{made.name}-{number}", at, draw(chance), reason="forced")

    def _expose(
        self, made: bodies.ExperimentAnswer, place: int, device: str, at: int, attributes: Mapping[str, str],
        *, reason: Reason = "split",
    ) -> None:  # fmt: skip
        allocation = made.allocations[place]
        snapshot = allocation.variation_snapshot
        config: Any = {} if isinstance(snapshot, msgspec.UnsetType) else msgspec.to_builtins(snapshot.overrides)
        details = ExperimentDetails(
            experiment_id=made.id,
            variation_id=allocation.variation_id,
            is_control=allocation.is_control,
            allocation_strategy="percentage",
            config=config,
        )
        exposure = Exposure(
            at=at, experiment=details, reason=reason, subject=device, device=device, user_id=None,
            organization_id=None, transaction_id=None, snapshot_number=1, attributes=attributes,
        )  # fmt: skip
        self._exposures.append(exposure)

    def _person(
        self, chance: random.Random, made: bodies.ExperimentAnswer, place: int, device: str, at: int,
        attributes: Mapping[str, str], truth: Truth,
    ) -> None:  # fmt: skip
        self._expose(made, place, device, at, attributes)
        if chance.random() < truth.wrong_password:
            self._event("fp", device, at + 15_000_000, attributes)
        if chance.random() < truth.lockout:
            self._event("limit_wc", device, at + 40_000_000, attributes)
            return
        if chance.random() >= truth.login:
            return
        seconds = chance.lognormvariate(0, 0.6) * truth.seconds
        self._event("s", device, at + round(seconds * 1_000_000), attributes)
        if chance.random() < truth.passkey:
            self._event(
                "gd_enrollment_complete", device, at + 240_000_000, attributes,
                details={"authenticator": {"type": "passkey"}},
            )  # fmt: skip
        again = at + round((1 + chance.random() * 5) * 24 * HOUR_US)
        if again < self._now and chance.random() < 0.4:
            self._event("s", device, again, attributes)

    def _event(
        self, type_: str, device: str, at: int, attributes: Mapping[str, str], details: Mapping[str, Any] | None = None
    ) -> None:
        data = {
            "date": to_timestamp(at),
            "type": type_,
            "client_id": attributes["client_id"],
            "connection": "Username-Password-Authentication",
            "user_id": f"auth0|{device}",
            "details": {"device_id": device, **(details or {})},
        }
        number = len(self._events)
        self._events.append(
            AuthEvent(
                log_id=f"9{number:07}{type_}", at=at, type=type_, client_id=attributes["client_id"], device=device,
                user_id=f"auth0|{device}", data=data,
            )
        )  # fmt: skip

    def store(self) -> None:
        """Append it all, in the order in which it happened."""
        exposures = sorted(self._exposures, key=lambda each: each.at)
        events = sorted(self._events, key=lambda each: each.at)
        with appending(self._engine) as connection:
            event_log.add_exposures(connection, [(DEFAULT_TENANT, each) for each in exposures])
            event_log.add_rows(connection, [event_log.event_row(DEFAULT_TENANT, each) for each in events])


def draw(chance: random.Random) -> dict[str, str]:
    """Return the attributes of a login."""
    (attributes,) = chance.choices([each for _, each in BROWSERS], [weight for weight, _ in BROWSERS])
    (country,) = chance.choices([each for _, each in COUNTRIES], [weight for weight, _ in COUNTRIES])
    (client,) = chance.choices([each for _, each in CLIENTS], [weight for weight, _ in CLIENTS])
    return attributes | {"country": country, "client_id": client}


def analysis_of(*, guardrails: Mapping[str, float]) -> bodies.SetAnalysis:
    """Return an analysis by logins, with these guardrails and their margins."""
    body = {
        "primary": "login_success",
        "secondary": ["time_to_login_mean", "time_to_login", "wrong_password_rate", "passkey_enrolled"],
        "guardrails": [{"metric": metric, "margin": margin} for metric, margin in guardrails.items()],
    }
    return msgspec.convert(body, bodies.SetAnalysis)


def draft(
    caller: Caller, name: str, variations: Sequence[str], *, flow: str = "authentication",
    weights: Sequence[int] = (50, 50), analysis: bodies.SetAnalysis | None = None, **fields: Any,
) -> bodies.ExperimentAnswer:  # fmt: skip
    """Make a draft between the variations, whose first is the control, with a flag of its own."""
    parameters = {"style": {"type": "string", "value": variations[0]}}
    body = {"name": f"{name}-flag", "parameters": parameters}
    flag = feature_flags.create_feature_flag(caller, msgspec.convert(body, bodies.CreateFeatureFlag))
    allocations = []
    for place, variation in enumerate(variations):
        overrides = {"style": {"value": variation}} if place else {}
        wanted = msgspec.convert({"name": variation, "overrides": overrides}, bodies.CreateVariation)
        made = feature_flags.create_variation(caller, flag.id, wanted)
        allocations.append({"variation_id": made.id, "weight": weights[place], "is_control": place == 0})
    feature_flags.update_feature_flag_status(caller, flag.id, bodies.UpdateFeatureFlagStatus("active"))
    given = {"name": name, "feature_flag_id": flag.id, "authentication_flow": flow, "allocations": allocations}
    experiment = experiments.create_experiment(caller, msgspec.convert(given | fields, bodies.CreateExperiment))
    if analysis is not None:
        metrics.set_analysis(caller, experiment.id, analysis)
    return experiment


def begin(caller: Caller, name: str, variations: Sequence[str], **fields: Any) -> bodies.ExperimentAnswer:
    """Make an experiment as `draft` does, and activate it."""
    return move(caller, draft(caller, name, variations, **fields).id, "active")


def move(caller: Caller, id: str, status: str) -> bodies.ExperimentAnswer:
    """Move an experiment to another status."""
    return experiments.update_experiment_status(
        caller, id, msgspec.convert({"status": status}, bodies.UpdateExperimentStatus)
    )


def settle(engine: Engine, lake: Lake, *, patience_s: float = 300.0) -> None:
    """Wait until a running server has taken everything to the lake, and answers from there."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            # What is younger is not read yet.
            tables = Tables(*(lake.read(name, datetime.now(UTC) - 2 * SETTLING) for name in ("exposures", "events")))
            if waiting(engine, tables).end.is_in(tables):
                return
        except Unavailable:
            pass
        assert time.monotonic() < deadline, "the lake does not follow"
        time.sleep(0.2)
