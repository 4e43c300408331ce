from pathlib import Path

import pytest

from tests.cli.run import Run, files


def test_a_key_is_shown_once_and_its_hash_stored(run: Run, tmp_path: Path) -> None:
    made = run("keys", "create", "--kind", "server", "--name", "login pages", "--data", tmp_path)
    assert made.code == 0
    secret = made.out.strip()
    assert secret.startswith("abk_")
    assert "only its hash is stored" in made.err
    assert not any(secret.encode() in content for content in files(tmp_path).values())
    listed = run("keys", "list", "--data", tmp_path).out
    id, _at, kind, origins, name = listed.rstrip("\n").split("\t")
    assert (kind, origins, name) == ("server", "", "login pages")
    assert id in made.err
    assert secret not in listed


def test_a_client_key_has_origins(run: Run, tmp_path: Path) -> None:
    origins = ("--origin", "https://app.example.com", "--origin", "http://localhost:3000")
    assert run("keys", "create", "--kind", "client", *origins, "--data", tmp_path).code == 0
    assert "\tclient\thttps://app.example.com,http://localhost:3000\t" in run("keys", "list", "--data", tmp_path).out


def test_a_deleted_key_is_gone(run: Run, tmp_path: Path) -> None:
    run("keys", "create", "--kind", "server", "--data", tmp_path)
    id = run("keys", "list", "--data", tmp_path).out.split("\t")[0]
    assert run("keys", "delete", id, "--data", tmp_path).out == f"{id} is deleted.\n"
    assert "no runtime keys" in run("keys", "list", "--data", tmp_path).err
    again = run("keys", "delete", id, "--data", tmp_path)
    assert again.code != 0
    assert id in again.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--kind", "browser"), "server or client"),
        (("--kind", "server", "--origin", "https://app.example.com"), "for client keys"),
        (("--kind", "client", "--origin", "https://app.example.com/"), "no web origin"),
        (("--kind", "client", "--origin", "*"), "no web origin"),
        (("--kind", "client", "--origin", "null"), "no web origin"),
        (("--kind", "client", "--origin", "https://a.test https://b.test"), "no web origin"),
        (("--kind", "server", "--name", "a\nb"), "printable"),
        (("--kind", "server", "--tenant", "nobody"), "nobody"),
    ],
)
def test_what_makes_no_key_is_refused(run: Run, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    refused = run("keys", "create", *options, "--data", tmp_path)
    assert refused.code != 0
    assert (refused.out, words in refused.err) == ("", True), refused.err
