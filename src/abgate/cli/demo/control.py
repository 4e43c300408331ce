"""The experiment of the demo, made with the published Auth0 client exactly as one would with Auth0."""

from collections.abc import Mapping
from importlib.metadata import version

import httpx
from auth0.management import AllocationRequestItem, Auth0, FeatureFlagConfigParam, SegmentMatchConditions, SegmentRule
from msgspec import Struct

from abgate.cli.demo.narrator import Narrator

CONTROL, MODAL = "control", "modal"
LEVELS = (10, 50, 100)
FLOW = "authentication"
WINDOW_S = 15
"""How long after their first look at the login page someone's login counts: nobody is counted before that is over."""
MARGIN = 0.1
"""How much more often, as a share, passwords may be mistyped with the modal."""
CLIENT = f"auth0-python {version('auth0-python')}"


class Running(Struct, frozen=True):
    """The running experiment, and the names of its variations by their ids; the control comes first."""

    id: str
    names: Mapping[str, str]

    @property
    def control_id(self) -> str:
        """The id of the control."""
        return next(iter(self.names))


class ControlPlane:
    """What someone does who has an experiment in mind, one call after the other."""

    def __init__(self, url: str, token: str, narrator: Narrator) -> None:
        """Work on the server at `url`."""
        # The client's own class under `ManagementClient`, which would insist on https. A proxy in the environment is
        # for the world outside, not for this machine.
        api = Auth0(base_url=f"{url}/api/v2", token=token, httpx_client=httpx.Client(trust_env=False, timeout=60))
        self._experimentation = api.experimentation
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(
            base_url=f"{url}/api/v2/experimentation", headers=headers, trust_env=False, timeout=60
        )
        self._narrator = narrator

    def start_experiment(self) -> Running:
        """Make flag, variations, segment and experiment, mend what validation finds missing, and activate."""
        say = self._narrator.say
        flags, experiments = self._experimentation.feature_flags, self._experimentation.experiments
        flag = flags.create(
            name="passkey-prompt",
            description="How the login page offers a passkey.",
            parameters={
                "style": FeatureFlagConfigParam(type="string", value="link"),
                "can_skip": FeatureFlagConfigParam(type="boolean", value=True),
            },
        )
        control = flags.variations.create(flag.id, name=CONTROL, overrides={})
        modal = flags.variations.create(flag.id, name=MODAL, overrides={"style": {"value": "modal"}})
        say(f"flag [b]passkey-prompt[/] (style = link, can_skip = true), variations [b]{CONTROL}[/] as it is "
            f"and [b]{MODAL}[/] with style = modal")  # fmt: skip
        experiment = experiments.create(
            name="passkey-prompt-modal", feature_flag_id=flag.id, authentication_flow=FLOW, levels=LEVELS
        )
        say(
            f"experiment [b]passkey-prompt-modal[/] ({experiment.id}), ramp {' → '.join(f'{each}%' for each in LEVELS)}"
        )
        self._validate(experiment.id)
        flags.update(flag.id, status="active")
        allocations = [
            AllocationRequestItem(variation_id=control.id, weight=50, is_control=True),
            AllocationRequestItem(variation_id=modal.id, weight=50, is_control=False),
        ]
        experiments.update(experiment.id, allocations=allocations)
        say("flag activated, half of the devices allocated to each variation")
        self._measure(experiment.id)
        self._validate(experiment.id)
        active = experiments.update(experiment.id, status="active")
        say(f"activated: status {active.status}, current_level {active.current_level}%")
        self._plan_next(flag.id, control.id, modal.id)
        return Running(experiment.id, {control.id: CONTROL, modal.id: MODAL})

    def _measure(self, id: str) -> None:
        """Say what the experiment is judged by: something of abgate's own, which no published client has."""
        primary = self._add_metric("quick_login", "Devices that log in", "s", "increase")
        guardrail = self._add_metric("wrong_password", "Devices that mistype their password", "fp", "decrease")
        # The bots among these browsers log in like everybody else.
        analysis = {
            "primary": primary,
            "guardrails": [{"metric": guardrail, "margin": MARGIN}],
            "bots": "include",
        }
        self._http.put(f"/experiments/{id}/analysis", json=analysis).raise_for_status()
        self._narrator.say(
            f"judged by the metric [b]quick_login[/]: an `s` event within {WINDOW_S} seconds; guarded by "
            f"[b]wrong_password[/], an `fp` event, of which there may be {MARGIN:.0%} more"
        )

    def _add_metric(self, name: str, whose: str, type_: str, direction: str) -> str:
        metric = {
            "name": name,
            "description": f"{whose} within {WINDOW_S} seconds of their first look at the login page.",
            "kind": "proportion",
            "events": {"types": [type_]},
            "window": WINDOW_S,
            "direction": direction,
        }
        made = self._http.post("/metrics", json=metric).raise_for_status().json()
        return str(made["id"])

    def advance_ramp(self, id: str) -> None:
        """Raise the ramp to its end, level by level."""
        for level in LEVELS[1:]:
            step = self._experimentation.experiments.advance_ramp(id, target_level=level)
            self._narrator.say(f"ramp advanced from {step.from_level}% to {step.to_level}%")

    def _plan_next(self, flag_id: str, control_id: str, modal_id: str) -> None:
        segment = self._experimentation.segments.create(
            name="handheld", rules=[SegmentRule(match=SegmentMatchConditions(device_type=["mobile", "tablet"]))]
        )
        draft = self._experimentation.experiments.create(
            name="passkey-prompt-handheld",
            feature_flag_id=flag_id,
            authentication_flow=FLOW,
            allocation_strategy="segment",
            allocations=[
                AllocationRequestItem(variation_id=modal_id, segment_id=segment.id, priority=1, is_control=False),
                AllocationRequestItem(variation_id=control_id, is_fallback=True, is_control=True),
            ],
        )
        self._narrator.say(
            "a draft of the next experiment, for segment [b]handheld[/] (device_type is mobile or tablet), must wait:"
        )
        self._validate(draft.id)

    def _validate(self, id: str) -> None:
        readiness = self._experimentation.experiments.validate(id)
        if readiness.is_valid:
            self._narrator.say("validate: [green]ready[/]")
            return
        self._narrator.say("validate: [yellow]not ready[/]")
        for error in readiness.errors or []:
            self._narrator.detail(f"{error.code}: {error.message}")
