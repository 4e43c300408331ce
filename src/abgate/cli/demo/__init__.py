"""``abgate demo``: the whole story of an experiment, on servers of its own."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from abgate.bootstrap import StartError
from abgate.core.errors import InvalidInput

NEEDED = ("auth0", "httpx", "oidc_provider_mock")
"""The modules of the extra ``demo``. They are imported only when the demo runs: the server does without them."""


def demo(
    *,
    exit: Annotated[
        bool, typer.Option("--exit", help="End when the story is told; exit code 1 if what came out was not right.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port that abgate listens on; 0 takes a free one.")
    ] = 0,
    logins: Annotated[
        int, typer.Option("--logins", min=1, max=1_000_000, help="How many people log in, each on a device of theirs.")
    ] = 20_000,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Empty directory to keep everything in; unset, one that goes again."
        ),
    ] = None,
) -> None:
    """Run an experiment on login from flag to result: servers, the published clients, 20,000 logins, their events.

    Starts an OpenID provider and an abgate server, and leaves them up until Ctrl-C unless --exit is given.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise StartError(f"The demo needs {', '.join(missing)}, of the extra abgate[demo]: run make install.")
    if data is not None and data.exists() and not (data.is_dir() and not any(data.iterdir())):
        raise InvalidInput("--data", f"{data} must be an empty or a new directory: the story begins with nothing.")
    from abgate.cli.demo.story import tell

    if not tell(logins=logins, port=port, data=data, is_staying=not exit):
        raise typer.Exit(1)
