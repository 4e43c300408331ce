"""The command line: abgate …."""

import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

import typer

from abgate.bootstrap import StartError, reason_of
from abgate.cli import (
    clients,
    demo,
    dev_cert,
    export_events,
    forget,
    import_events,
    keys,
    login_link,
    plan,
    preview,
    results,
    serve,
    simulate,
    tenants,
    token,
)
from abgate.core.errors import InvalidInput, Refusal, Unavailable
from abgate.settings import SettingsError
from abgate.vault import WrongSecret

app = typer.Typer(
    help="Controlled A/B tests on login. Settings are variables ABGATE_…; docs/settings.md lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("token")(token.token)
app.command("login-link")(login_link.login_link)
app.command("demo")(demo.demo)
app.command("preview")(preview.preview)
app.command("import")(import_events.import_events)
app.command("export")(export_events.export_events)
app.command("plan")(plan.plan)
app.command("simulate")(simulate.simulate)
app.command("results")(results.results)
app.command("forget")(forget.forget)
app.command("dev-cert")(dev_cert.dev_cert)
app.add_typer(clients.app, name="clients")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")


def main() -> None:
    """Run the command that the arguments name. What it cannot do is one line on stderr, with exit code 1 or 2."""
    if isinstance(sys.stdout, TextIOWrapper):
        # Where it cannot be UTF-8, better an odd character than none of what was asked for.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            _print_all()
    except (SettingsError, InvalidInput) as error:
        _fail(error, code=2)
    except Unavailable as error:
        _fail(f"{error} ({reason_of(error)})" if error.__cause__ else error, code=1)
    except (StartError, WrongSecret, Refusal) as error:
        _fail(error, code=1)
    except BrokenPipeError:
        # Whoever reads has enough, such as `head`.
        sys.exit(1)
    except OSError as error:
        named = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{named}{error.strerror or error}.", code=1)


def _print_all() -> None:
    """Write what was printed and is still held back, here, where a failure can be told. Raises OSError."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Else Python tries it once more at its end, and says so.
        with suppress(OSError):
            sys.stdout.close()
        raise


def _fail(error: Exception | str, *, code: int) -> NoReturn:
    print(f"abgate: {error}", file=sys.stderr)
    sys.exit(code)
