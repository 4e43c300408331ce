"""What is changed at the pages: the rest stays, whoever may not is not asked to, and past experiments stay readable."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.contract.things import make_experiment, make_flag, make_segment, sent
from tests.dashboard.signed_in import signed_in
from tests.server import Server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with signed_in(server) as client:
        yield client


def fields_of(html: str) -> dict[str, str]:
    """Return what the form with this HTML sends when nothing is typed, but for text areas and what has no choice."""
    form = html[html.index('id="form"') :].partition("</form>")[0]
    sent = dict(re.findall(r'<input type="(?:hidden|text|range)"[^>]* name="([^"]+)"[^>]* value="([^"]*)"', form))
    sent |= dict(re.findall(r'<input type="radio" name="([^"]+)" value="([^"]*)" checked', form))
    sent |= dict.fromkeys(re.findall(r'<input type="checkbox" name="([^"]+)" checked', form), "on")
    for name, options in re.findall(r'<select[^>]* name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', options)
        assert chosen is not None, name
        sent[name] = chosen[1]
    return sent


def test_segments_keep_their_order_when_something_else_is_edited(client: httpx.Client, server: Server) -> None:
    with server.client() as api:
        flag = make_flag(api, variations=2, active=True)
        control, treatment = (each["id"] for each in flag["variations"])
        last, first = make_segment(api), make_segment(api)
        allocations = [
            {"variation_id": control, "is_fallback": True, "is_control": True},
            {"variation_id": control, "segment_id": last["id"], "priority": 20, "is_control": True},
            {"variation_id": treatment, "segment_id": first["id"], "priority": 10, "is_control": False},
        ]
        made = make_experiment(api, flag, allocation_strategy="segment", allocations=allocations)
        path = f"/experiments/{made['id']}"
        saved = client.post(f"{path}/edit", data=fields_of(client.get(f"{path}/edit").text) | {"description": "Why."})
        assert "Your changes were saved" in saved.text
        edited = sent(api, "GET", path)
    tried = sorted((each["priority"], each["segment_id"]) for each in edited["allocations"] if "segment_id" in each)
    assert [segment for _, segment in tried] == [first["id"], last["id"]]
    assert edited["description"] == "Why."


def test_metrics_are_chosen_in_the_form_of_an_experiment(client: httpx.Client, server: Server) -> None:
    given = fields_of(client.get("/experiments/new").text) | {"name": "judged by mine", "flag_name": "of mine"}
    unplanned = client.post("/experiments/new", data=given | {"name": "judged as ever", "flag_name": "of ever"})
    assert "Set how it is analyzed" not in unplanned.text
    of_nothing = {name: "" for name in given if re.fullmatch(r"metrics\.\d+\.role", name)}
    chosen = given | of_nothing | judged(given, "lockout_rate", "primary")
    chosen |= judged(given, "passkey_enrolled", "secondary")
    for wrong, words in (
        (judged(given, "login_success", "guardrail", "little"), 'margin-wrong">must be a percentage such as 10'),
        (judged(given, "login_success", "guardrail", "300"), 'margin-wrong">'),
        (judged(given, "lockout_rate", ""), 'id="metrics-wrong">exactly one metric must decide'),
        (judged(given, "time_to_login", "guardrail", "10"), 'role-wrong">a quantile cannot be a guardrail'),
    ):
        refused = client.post("/experiments/new", data=chosen | wrong)
        assert refused.status_code == 400
        assert words in refused.text
    made = client.post("/experiments/new", data=chosen | judged(given, "login_success", "guardrail", "2,5 %"))
    id = made.url.path.rpartition("/")[2]
    with server.client() as api:
        analysis = sent(api, "GET", f"/experiments/{id}/analysis")
        assert (analysis["primary"], analysis["secondary"]) == ("lockout_rate", ["passkey_enrolled"])
        assert analysis["guardrails"] == [{"metric": "login_success", "margin": 0.025}]

        sent(api, "PUT", f"/experiments/{id}/analysis", analysis | {"alpha": 0.01, "horizon": {"days": 14}})
        edited = fields_of(client.get(f"/experiments/{id}/edit").text)
        client.post(f"/experiments/{id}/edit", data=edited | judged(edited, "failed_login_rate", "guardrail", "10"))
        after = sent(api, "GET", f"/experiments/{id}/analysis")
    assert {"metric": "failed_login_rate", "margin": 0.1} in after["guardrails"]
    assert (after["alpha"], after["horizon"], after["primary"]) == (0.01, {"days": 14}, "lockout_rate")


def judged(form: dict[str, str], metric: str, role: str, margin: str = "") -> dict[str, str]:
    """Return what is typed to give a metric of the form this role."""
    (at,) = [name.removesuffix(".id") for name, value in form.items() if name.endswith(".id") and value == metric]
    return {f"{at}.role": role, f"{at}.margin": margin}


def test_what_somebody_else_saved_meanwhile_is_not_replaced_unseen(client: httpx.Client, server: Server) -> None:
    with server.client() as api:
        made, segment, flag = make_experiment(api), make_segment(api), make_flag(api, variations=1)
        rule = {"rules.0.0.attribute": "country", "rules.0.0.operator": "is", "rules.0.0.values": "DE"}
        variation = flag["variations"][0]
        of_flag = {"parameters.0.name": "prompt", "parameters.0.type": "string", "parameters.0.value": "off"}
        edits: list[tuple[str, str, str, str, dict[str, str]]] = [
            ("/experiments/{}/edit", made["id"], f"/experiments/{made['id']}", "name", {}),
            ("/segments/{}", segment["id"], f"/segments/{segment['id']}", "name", {"action": "save"} | rule),
            ("/feature-flags/{}", flag["id"], f"/feature-flags/{flag['id']}", "name", {"action": "save"} | of_flag),
            (
                "/feature-flags/{}", flag["id"], f"/feature-flags/{flag['id']}/variations/{variation['id']}",
                f"{variation['id']}.name", {"action": f"save-variation {variation['id']}"},
            ),
        ]  # fmt: skip
        for page, id, resource, name, typed in edits:
            path = page.format(id)
            opened = client.get(path).text
            form = next(each for each in opened.split("<form") if f'name="{name}"' in each)
            kept = fields_of('id="form"' + form)
            sent(api, "PATCH", resource, {"description": "Of somebody else."})
            refused = client.post(path, data=kept | typed | {name: "typed by me"})
            assert refused.status_code == 409, path
            assert "Somebody else changed this" in refused.text
            assert 'value="typed by me"' in refused.text
            assert sent(api, "GET", resource)["description"] == "Of somebody else."
            form = next(each for each in refused.text.split("<form") if f'name="{name}"' in each)
            again = fields_of('id="form"' + form)
            assert again["seen"] != kept["seen"]
            assert client.post(path, data=again | typed).status_code == 200
            assert sent(api, "GET", resource)["name"] == "typed by me"


def test_a_wrong_default_is_told_beside_its_own_field_when_a_parameter_before_it_is_taken_out(
    client: httpx.Client, server: Server
) -> None:
    with server.client() as api:
        flag = make_flag(api)
    typed = {"action": "save", "name": flag["name"]}
    typed |= {"parameters.0.name": "", "parameters.0.type": "string", "parameters.0.value": "off"}
    typed |= {"parameters.1.name": "count", "parameters.1.type": "number", "parameters.1.value": "many"}
    page = client.post(f"/feature-flags/{flag['id']}", data=typed)
    assert page.status_code == 400
    wrong = re.search(r'<input type="text" id="([^"]+)" name="[^"]+" value="many"[^>]* aria-invalid="true"', page.text)
    assert wrong is not None
    assert f'id="{wrong[1]}-wrong">must be a number' in page.text


def test_an_archived_experiment_is_shown_when_its_flag_is_gone(client: httpx.Client, server: Server) -> None:
    with server.client() as api:
        ended, never_begun = (make_experiment(api, status=status) for status in ("completed", "archived"))
        sent(api, "POST", f"/experiments/{ended['id']}/status", {"status": "archived"})
        for made in (ended, never_begun):
            sent(api, "DELETE", f"/feature-flags/{made['feature_flag_id']}", status=204)
            page = client.get(f"/experiments/{made['id']}")
            assert page.status_code == 200
            assert "which was deleted" in page.text
    assert client.get(f"/experiments/{ended['id']}/results").status_code == 200


def test_a_viewer_is_not_sent_to_forms(server: Server) -> None:
    with server.client() as api:
        flag = make_flag(api, variations=2)
        empty = make_experiment(api, allocations=[])
        segment = make_segment(api)
    with signed_in(server, role="viewer") as viewer:
        for path in ("/", f"/experiments/{empty['id']}", "/feature-flags", f"/feature-flags/{flag['id']}", "/segments"):
            page = viewer.get(path)
            assert page.status_code == 200
            assert not re.search(r'href="/(experiments|segments)/(new|[^"]*/edit)', page.text), path
        assert re.findall(r"<button[^>]*>([^<]*)", viewer.get(f"/segments/{segment['id']}").text) == ["Sign out"]


def test_a_digit_that_is_no_number_is_no_fault(client: httpx.Client, server: Server) -> None:
    with server.client() as api:
        made = make_experiment(api, status="active", levels=[5, 100])
    assert client.get("/logs?page=²").status_code == 200
    refused = client.post(f"/experiments/{made['id']}", data={"action": "advance", "level": "²"})
    assert refused.status_code == 400
