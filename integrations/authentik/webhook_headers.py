# ruff: noqa: F706  authentik indents an expression into a function
"""authentik webhook mapping for the headers of the notification transport that posts to abgate."""

return {"Authorization": "Bearer put a token or server key here that may create:logs"}
