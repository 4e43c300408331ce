"""The page of one experiment: what it says, what it did, and what can be done with it."""

from datetime import datetime
from typing import Any, get_args
from urllib.parse import urlencode

from litestar import Response
from msgspec import UNSET, Struct

from abgate.analysis.answers import Dimension
from abgate.asgi import STATUSES
from abgate.core.errors import InvalidInput, NotFound, Refusal, Unavailable
from abgate.dashboard import results_view, timeline
from abgate.dashboard.figures import figures_of
from abgate.dashboard.rendering import download, redirect, render
from abgate.dashboard.visits import Visit
from abgate.management import experiments, feature_flags
from abgate.management.bodies import AdvanceRamp, ExperimentAnswer, FeatureFlagAnswer, RollOut, UpdateExperimentStatus
from abgate.management.results import get_results

MAX_ENTRIES = 200
ASK_AGAIN = "load delay:3s"
DONE = {
    "created": "The draft was created. Nothing happens to any login before you activate it.",
    "activated": "The experiment is running: the next login is answered by it.",
    "paused": "The experiment is paused. Logins that are under way keep their variation.",
    "advanced": "The ramp was raised. Whoever took part keeps their variation.",
    "completed": "The experiment is completed.",
    "archived": "The experiment is archived.",
    "rolled-out": "The experiment is completed, and its feature flag serves this variation to everyone.",
    "saved": "Your changes were saved.",
}
STATUS_OF = {
    "activate": ("active", "activated"),
    "pause": ("paused", "paused"),
    "complete": ("completed", "completed"),
    "archive": ("archived", "archived"),
}


def show_experiment(visit: Visit, id: str) -> Response[str]:
    """Show the experiment; what takes counting is loaded right after."""
    return _show(visit, id)


def show_results(visit: Visit, id: str) -> Response[str]:
    """Show what the experiment's numbers say; when too many ask for some, have the page ask again."""
    experiment = experiments.get_experiment(visit.caller, id)
    asked = _asked(visit)
    try:
        results = results_view.as_json(get_results(visit.caller, id, dimension=asked.dimension))
    except Unavailable as refusal:
        return render(
            visit,
            "results_awaited.html",
            experiment=experiment,
            query=asked.query,
            reason=refusal.message,
            trigger=ASK_AGAIN,
        )
    arms = results_view.arms(results)
    metric = results_view.chosen_metric(results, asked.metric)
    answer = render(
        visit,
        "experiment_results.html",
        experiment=experiment,
        results=results,
        arms=arms,
        decision=results_view.decision(results),
        metric=metric,
        dimensions=get_args(Dimension),
        figures=figures_of(results, arms, metric),
        query=asked.query,
    )
    if "choose" in visit.query:
        answer.headers["HX-Push-Url"] = f"/experiments/{id}{asked.query}"
    return answer


def show_progress(visit: Visit, id: str) -> Response[str]:
    """Show how far the results are that are being computed; what is shown stays when another process computes them."""
    progress = visit.caller.analyst.progress(visit.caller.tenant, id, dimension=_asked(visit).dimension)
    if progress is None:
        return Response("", status_code=204)
    seconds = (datetime.fromisoformat(visit.caller.now) - progress.began).total_seconds()
    return render(visit, "results_progress.html", progress=progress, seconds=max(0, round(seconds)))


def download_figure(visit: Visit, id: str, file: str) -> Response[str]:
    """Give the numbers of one figure as CSV."""
    experiment = experiments.get_experiment(visit.caller, id)
    asked = _asked(visit)
    results = results_view.as_json(get_results(visit.caller, id, dimension=asked.dimension))
    figures = figures_of(results, results_view.arms(results), results_view.chosen_metric(results, asked.metric))
    name = file.removesuffix(".csv")
    if name == file or name not in figures:
        raise NotFound("figure", file[:100])
    return download(f"{experiment.name}-{file}", figures[name].as_csv())


def show_decision(visit: Visit, id: str) -> Response[str]:
    """Show the decision in a word; when too many ask for one, have the page ask again."""
    try:
        made = results_view.decision(results_view.as_json(get_results(visit.caller, id)))
    except Unavailable:
        return render(visit, "decision_awaited.html", id=id, trigger=ASK_AGAIN)
    return render(visit, "decision_word.html", decision=made)


def act_on_experiment(visit: Visit, id: str) -> Response[str]:
    """Do what the pressed button says, and show the page again."""
    action = visit.form.get("action", "")
    try:
        done = _act(visit, id, action)
    except Refusal as refusal:
        return _show(visit, id, refused=refusal.message, status=STATUSES[type(refusal)])
    return redirect(visit, "/?done=deleted" if done == "deleted" else f"/experiments/{id}?done={done}")


class _Asked(Struct, frozen=True):
    """What the results are looked at by."""

    metric: str
    dimension: Dimension | None

    @property
    def query(self) -> str:
        """The same as the query of an address, empty when nothing was asked for."""
        given = {"metric": self.metric, "dimension": self.dimension}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"?{query}" if query else ""


def _asked(visit: Visit) -> _Asked:
    wanted = visit.query.get("dimension")
    dimension = next((each for each in get_args(Dimension) if each == wanted), None)
    return _Asked(visit.query.get("metric", "")[:256], dimension)


def _act(visit: Visit, id: str, action: str) -> str:
    caller = visit.caller
    if action in STATUS_OF:
        status, done = STATUS_OF[action]
        experiments.update_experiment_status(caller, id, UpdateExperimentStatus(status))  # type: ignore[arg-type]
        return done
    if action == "advance":
        level = visit.form.get("level", "")
        experiments.advance_ramp(caller, id, AdvanceRamp(int(level) if level.isdecimal() else -1))
        return "advanced"
    if action == "roll-out":
        experiments.roll_out_variation(caller, id, RollOut(visit.form.get("variation", "")))
        return "rolled-out"
    if action == "delete":
        visit.principal.require("delete:experimentation")
        experiments.delete_experiment(caller, id)
        return "deleted"
    raise InvalidInput("action", "is none that an experiment knows")


def _show(visit: Visit, id: str, *, refused: str = "", status: int = 200) -> Response[str]:
    experiment = experiments.get_experiment(visit.caller, id)
    flag = _flag(visit, experiment)
    listed = [] if flag is None else feature_flags.list_variations(visit.caller, flag.id).variations
    variations = {each.id: each for each in listed}
    history = experiments.list_experiment_history(visit.caller, id, take=MAX_ENTRIES)
    served = None if flag is None else variations.get(flag.served_variation_id or "")
    return render(
        visit,
        "experiment.html",
        status=status,
        experiment=experiment,
        flag=flag,
        variations=variations,
        served=served,
        next_level=_next_level(experiment),
        readiness=None if experiment.status == "archived" else experiments.validate_experiment(visit.caller, id),
        query=_asked(visit).query,
        entries=[timeline.entry_of(each) for each in history.changes],
        done=DONE,
        refused=refused,
    )


def _flag(visit: Visit, experiment: ExperimentAnswer) -> FeatureFlagAnswer | None:
    """Return the experiment's feature flag; of one that is archived it may have been deleted."""
    try:
        return feature_flags.get_feature_flag(visit.caller, experiment.feature_flag_id)
    except NotFound:
        return None


def _next_level(experiment: ExperimentAnswer) -> int | None:
    level: Any = experiment.current_level
    if experiment.levels is UNSET or level is None:
        return None
    return next((each for each in experiment.levels if each > level), None)
