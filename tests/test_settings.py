"""Settings: read from the environment and options, refused by name and rule, and listed in one table."""

import re
from pathlib import Path

import pytest

from abgate.settings import Settings, SettingsError, is_domain, meaning, read_settings, to_environment, variable

TABLE = Path(__file__).parents[1] / "docs" / "settings.md"


def refusal(environment: dict[str, str], **options: object) -> str:
    with pytest.raises(SettingsError) as raised:
        read_settings(environment, **options)
    return str(raised.value)


def test_the_table_has_every_setting_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| (`ABGATE_.*?`) \| (.*?) \| ?(.*) \|$", TABLE.read_text("utf-8"), re.MULTILINE)
    defaults = {name: str(getattr(Settings(), name)) for name in Settings.__struct_fields__}
    expected = [
        (f"`{variable(name)}`", f"`{default}`" if default else "", meaning(name)) for name, default in defaults.items()
    ]
    assert rows == expected


def test_without_an_environment_every_setting_has_its_default() -> None:
    assert read_settings({}) == Settings()


def test_an_empty_variable_counts_as_unset() -> None:
    assert read_settings({"ABGATE_RATE_LIMIT": "", "ABGATE_DOMAIN": "", "ABGATE_PORT": ""}) == Settings()


def test_variables_are_read_by_type() -> None:
    settings = read_settings({"ABGATE_API_GENERATION": "1", "ABGATE_PORT": "0", "ABGATE_DOMAIN": "abgate.test:8443"})
    assert (settings.api_generation, settings.port, settings.domain) == (1, 0, "abgate.test:8443")


def test_options_win_over_the_environment_and_none_is_no_option() -> None:
    environment = {"ABGATE_PORT": "9000", "ABGATE_HOST": "0.0.0.0"}
    settings = read_settings(environment, port=9001, host=None)
    assert (settings.port, settings.host) == (9001, "0.0.0.0")


def test_settings_survive_the_environment_of_a_worker() -> None:
    settings = read_settings(
        {
            "ABGATE_DATABASE": "postgresql://abgate:secret@db/abgate",
            "ABGATE_TRUSTED_ISSUER": "https://id.example/",
            "ABGATE_TRUSTED_AUDIENCE": "abgate",
            "ABGATE_SECRET": "s" * 32,
            "ABGATE_FAST_HTTP": "false",
        },
        port=1234,
        workers=3,
    )
    assert read_settings(to_environment(settings)) == settings


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ABGATE_PORT": "http"}, ["ABGATE_PORT", "'http'", "whole number from 0 to 65535"]),
        ({"ABGATE_PORT": "65536"}, ["ABGATE_PORT", "from 0 to 65535"]),
        ({"ABGATE_PORT": "tcp://10.0.0.1:80"}, ["ABGATE_PORT", "enableServiceLinks: false"]),
        ({"ABGATE_WORKERS": "0"}, ["ABGATE_WORKERS", "from 1 to 256"]),
        ({"ABGATE_RATE_LIMIT": "-1"}, ["ABGATE_RATE_LIMIT", "from 0 to 1000000"]),
        ({"ABGATE_RATE_LIMIT": "1.5"}, ["ABGATE_RATE_LIMIT", "whole number"]),
        ({"ABGATE_FAST_HTTP": "perhaps"}, ["ABGATE_FAST_HTTP", "must be true or false"]),
        ({"ABGATE_API_GENERATION": "3"}, ["ABGATE_API_GENERATION", "one of 1, 2"]),
        ({"ABGATE_MODE": "dev"}, ["ABGATE_MODE", "one of production, development"]),
        ({"ABGATE_FORCED_ASSIGNMENT": "yes"}, ["ABGATE_FORCED_ASSIGNMENT", "one of open, signed, off"]),
        ({"ABGATE_SECRET": "short"}, ["ABGATE_SECRET", "at least 32 characters", "openssl rand"]),
        ({"ABGATE_DATABASE": "mysql://db"}, ["ABGATE_DATABASE", "postgresql:// or sqlite:///"]),
        ({"ABGATE_DATABASE": "sqlite://"}, ["ABGATE_DATABASE", "postgresql:// or sqlite:///"]),
        ({"ABGATE_DOMAIN": "https://abgate.test"}, ["ABGATE_DOMAIN", "without https://"]),
        ({"ABGATE_UPSTREAM_AUTHORIZE_URL": "/authorize"}, ["ABGATE_UPSTREAM_AUTHORIZE_URL", "absolute http or https"]),
        ({"ABGATE_UPSTREAM_AUTHORIZE_URL": "javascript:alert(1)"}, ["absolute http or https"]),
        ({"ABGATE_UPSTREAM_AUTHORIZE_URL": "https://id.test/a#b"}, ["without a user or a fragment"]),
        ({"ABGATE_UPSTREAM_AUTHORIZE_URL": "https://you:pw@id.test/"}, ["without a user or a fragment"]),
        ({"ABGATE_UPSTREAM_AUTHORIZE_URL": "https://id.test:99999/"}, ["absolute http or https"]),
        ({"ABGATE_TRUSTED_ISSUER": "id.test"}, ["ABGATE_TRUSTED_ISSUER", "absolute https URL"]),
        ({"ABGATE_TRUSTED_ISSUER": "https://id.test/?a=b"}, ["without a user, a query"]),
        ({"ABGATE_TRUSTED_ISSUER": "http://id.test"}, ["must be https", "development mode"]),
        ({"ABGATE_TRUSTED_ISSUER": "https://id.test"}, ["needs ABGATE_TRUSTED_AUDIENCE"]),
        ({"ABGATE_TRUSTED_AUDIENCE": "abgate"}, ["needs ABGATE_TRUSTED_ISSUER"]),
        ({"ABGATE_TLS_CERT": "cert.pem"}, ["ABGATE_TLS_CERT", "needs ABGATE_TLS_KEY"]),
        ({"ABGATE_TLS_KEY": "key.pem"}, ["ABGATE_TLS_KEY", "needs ABGATE_TLS_CERT"]),
        ({"ABGATE_HOST": "a\nb"}, ["ABGATE_HOST", "control characters"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_variable_and_rule(environment: dict[str, str], said: list[str]) -> None:
    message = refusal(environment)
    assert [part for part in said if part not in message] == []
    assert "\n" not in message


def test_a_wrong_option_is_refused_by_the_options_name() -> None:
    assert refusal({}, port=70000).startswith("--port is '70000': must be a whole number")


@pytest.mark.parametrize("name", ["ABGATE_SECRET", "ABGATE_DATABASE"])
def test_a_refusal_repeats_no_password(name: str) -> None:
    assert "hunter2" not in refusal({name: "mysql://abgate:hunter2@db"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ABGATE_DOMIAN", "ABGATE_DOMAIN"),
        ("ABGATE_RATELIMIT", "ABGATE_RATE_LIMIT"),
        ("ABGATE_GEOIP", "ABGATE_GEOIP_DATABASE"),
        ("ABGATE_FORCED", "ABGATE_FORCED_ASSIGNMENT"),
        ("ABGATE_port", "ABGATE_PORT"),
    ],
)
def test_a_misspelt_variable_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    assert f"{name} is no setting. Did you mean {meant}?" in refusal({name: "1"})


@pytest.mark.parametrize(
    "name",
    # Of the tests and benchmarks, of clients of abgate, and what Kubernetes sets beside a Service named abgate.
    [
        *("ABGATE_VECTORS", "ABGATE_TEST_PORT", "ABGATE_BENCH_DATABASE"),
        *("ABGATE_URL", "ABGATE_TOKEN", "ABGATE_CLIENT_ID"),
        *("ABGATE_SERVICE_HOST", "ABGATE_PORT_80_TCP"),
    ],
)
def test_variables_of_others_are_left_alone(name: str) -> None:
    assert read_settings({name: "anything"}) == Settings()


@pytest.mark.parametrize("issuer", ["http://localhost:9000", "http://127.0.0.1:9000/", "http://[::1]:9000"])
def test_an_issuer_on_this_host_may_speak_plain_http(issuer: str) -> None:
    environment = {"ABGATE_TRUSTED_ISSUER": issuer, "ABGATE_TRUSTED_AUDIENCE": "abgate"}
    assert read_settings(environment).trusted_issuer == issuer


def test_an_issuer_may_speak_plain_http_in_development() -> None:
    environment = {"ABGATE_TRUSTED_ISSUER": "http://keycloak:8080/realms/a", "ABGATE_TRUSTED_AUDIENCE": "abgate"}
    assert read_settings(environment | {"ABGATE_MODE": "development"}).trusted_audience == "abgate"


@pytest.mark.parametrize(
    "domain", ["localhost", "localhost:8000", "ab.example.com", "127.0.0.1:80", "[::1]:8000", "a_b:65535", "1"]
)
def test_domains(domain: str) -> None:
    assert is_domain(domain)


@pytest.mark.parametrize(
    "text",
    ["", "a b", "A.test", "a.test/", "a.test:0", "a.test:65536", "a.test:", ":80", "-a", "a\n", "::1", "a@b", "é.test"],
)
def test_what_is_no_domain(text: str) -> None:
    assert not is_domain(text)


def test_the_database_is_sqlite_in_the_data_directory_unless_another_is_set() -> None:
    assert read_settings({"ABGATE_DATA": "/var/lib/abgate"}).database_url == "sqlite:////var/lib/abgate/abgate.db"
    assert read_settings({"ABGATE_DATABASE": "postgresql://db/a"}).database_url == "postgresql://db/a"


@pytest.mark.parametrize(
    ("mode", "forced", "policy"),
    [("production", "", "signed"), ("development", "", "open"), ("development", "off", "off"), ("", "open", "open")],
)
def test_who_may_force_an_assignment(mode: str, forced: str, policy: str) -> None:
    settings = read_settings({"ABGATE_MODE": mode, "ABGATE_FORCED_ASSIGNMENT": forced})
    assert settings.forced_assignment_policy == policy
