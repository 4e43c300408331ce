"""Who gets to the pages, and what each role may do there."""

import threading

import httpx
import pytest

from abgate.dashboard import assets
from tests.dashboard.signed_in import begin, login_link, signed_in
from tests.server import Server


def test_who_is_not_signed_in_is_asked_to_and_comes_back_to_the_page(server: Server) -> None:
    answer = httpx.get(f"{server.url}/experiments/new")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/experiments/new")
    assert "abgate login-link" in httpx.get(f"{server.url}/sign-in").text


def test_whoever_follows_a_link_to_a_search_comes_back_to_what_it_asks_for(server: Server) -> None:
    asked = "/logs?q=type%3As+AND+user_id%3A%22auth0%7C1%22&page=2"
    asking = httpx.get(f"{server.url}{asked}").headers["location"]
    assert "next=/logs%3Fq%3D" in asking
    given = httpx.URL(asking).params["next"]
    assert given == asked
    assert begin(login_link(server), next=given).headers["location"] == asked
    printed = server.command("login-link", *server.storage, "--to", asked).strip()
    assert httpx.URL(printed).params["next"] == asked


def test_the_command_prints_a_link_that_leads_to_a_page(server: Server) -> None:
    options = ("--role", "viewer", "--name", "Grace", "--to", "/experiments/new")
    link = server.command("login-link", *server.storage, *options).strip()
    assert link.startswith(f"{server.url}/sign-in?link=")
    assert link.endswith("&next=/experiments/new")
    page = httpx.get(link).text
    assert "signs you in as <bdi>Grace</bdi>, with the role <strong>viewer</strong>" in page


def test_a_link_works_once_also_for_many_who_use_it_at_the_same_moment(server: Server) -> None:
    link = login_link(server)
    for _ in range(2):
        # Chats and mail programs look at links before people do.
        assert "signs you in as <bdi>Ada</bdi>" in httpx.get(link).text
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(begin(link))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [303, *[400] * 7]
    refused = httpx.get(link)
    assert refused.status_code == 400
    assert "used already" in refused.text


def test_an_expired_link_signs_nobody_in(server: Server) -> None:
    link = login_link(server, expires_at="2026-01-02T03:04:05.679Z")
    assert httpx.get(link).status_code == 400
    assert begin(link).status_code == 400


def test_the_cookie_is_kept_from_scripts_and_other_sites(server: Server) -> None:
    cookie = begin(login_link(server)).headers["set-cookie"]
    assert cookie.startswith("abgate_session=ses_")
    for attribute in ("HttpOnly", "Path=/", "SameSite=lax", "Max-Age=43200"):
        assert attribute in cookie


def test_over_https_the_cookie_is_bound_to_the_host(server: Server) -> None:
    # As a proxy on this host says it.
    cookie = begin(login_link(server), headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
    assert cookie.startswith("__Host-abgate_session=ses_")
    assert "Secure" in cookie


@pytest.mark.parametrize(
    "to", ["//elsewhere.example/", "https://elsewhere.example/", "/\\elsewhere.example", "x:1", "/?a\r\nb"]
)
def test_signing_in_leads_to_no_other_site(server: Server, to: str) -> None:
    assert begin(login_link(server), next=to).headers["location"] == "/"


def test_a_forged_or_foreign_cookie_signs_nobody_in(server: Server) -> None:
    cookie = begin(login_link(server)).cookies["abgate_session"]
    id, _, mac = cookie.partition(".")
    for forged in (id, f"{id}.", f"{id}.{mac[:-2]}xx", f"ses_{'1' * 22}.{mac}", f"{id}.\u00e9", "."):
        answer = httpx.get(server.url, headers={"Cookie": f"abgate_session={forged}".encode()})
        assert answer.status_code == 303


def test_a_stranger_s_form_is_small(server: Server) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for size, status in ((16 * 1024, 400), (16 * 1024 + 2, 413)):
        assert httpx.post(f"{server.url}/sign-in", content=b"a&" * (size // 2), headers=form).status_code == status


def test_signing_out_ends_the_session_for_every_copy_of_the_cookie(server: Server) -> None:
    with signed_in(server) as client:
        cookies = {"abgate_session": client.cookies["abgate_session"]}
        client.post("/sign-out")
    assert httpx.get(server.url, headers={"Cookie": f"abgate_session={cookies['abgate_session']}"}).status_code == 303


def test_a_form_from_elsewhere_changes_nothing(server: Server) -> None:
    with signed_in(server) as client:
        csrf = client.headers.pop("X-CSRF-Token")
        refused = [
            client.post("/sign-out"),
            client.post("/sign-out", data={"csrf": "x" + csrf}),
            client.post("/sign-out", data={"csrf": csrf}, headers={"Sec-Fetch-Site": "cross-site"}),
            client.post("/sign-out", data={"csrf": csrf}, headers={"Sec-Fetch-Site": "same-site"}),
        ]
        assert [answer.status_code for answer in refused] == [400] * 4
        assert "Running now" in client.get("/").text
        assert client.post("/sign-out", data={"csrf": csrf}).url.path == "/sign-in"


def test_a_form_of_an_ended_session_changes_nothing_and_is_not_lost(server: Server) -> None:
    for headers in ({}, {"HX-Request": "true"}):
        answer = httpx.post(f"{server.url}/experiments/new", data={"name": "typed"}, headers=headers)
        assert answer.status_code == 401
        assert "HX-Refresh" not in answer.headers, "which would empty the form"
    assert httpx.get(f"{server.url}/why", headers={"HX-Request": "true"}).headers["HX-Refresh"] == "true"
    with signed_in(server) as client:
        of_before = client.headers.pop("X-CSRF-Token")
    with signed_in(server) as client:
        client.headers["X-CSRF-Token"] = of_before
        assert client.post("/sign-out").status_code == 400
        assert client.post("/sign-out", headers={"Sec-Fetch-Site": "same-origin"}).url.path == "/sign-in"


def test_every_page_forbids_what_it_does_not_load(server: Server) -> None:
    with signed_in(server) as client:
        answers = [client.get(path) for path in ("/", "/sign-in", "/experiments/exp_1")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["%00", "x" * 5000, "..%2froutes.py", "%2fetc%2fpasswd", "vendor", "none.js"])
def test_there_is_no_other_file_than_those_of_the_pages(server: Server, name: str) -> None:
    before = server.log.read_text()
    assert httpx.get(f"{server.url}{assets.PATH}/abgate.css").status_code == 200
    assert httpx.get(f"{server.url}{assets.PATH}/{name}").status_code == 404
    assert server.log.read_text() == before


def test_without_a_provider_there_is_no_such_way_in(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/sign-in/openid").status_code == 404
        assert client.get("/sign-in/openid/callback?code=1&state=2").status_code == 400
        assert "Sign in with" not in client.get("/sign-in").text
