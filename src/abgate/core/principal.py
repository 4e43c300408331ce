"""Who is asking: what a verified credential says."""

from msgspec import Struct

from abgate.core.errors import InsufficientScope


class Principal(Struct, frozen=True):
    """The bearer of a verified token or key: its tenant, its name in the change history, what it may do.

    `origins` are the web origins whose pages may act as it.
    """

    tenant: str
    actor: str
    scopes: frozenset[str]
    origins: frozenset[str] = frozenset()

    def require(self, scope: str) -> None:
        """Raise `InsufficientScope` unless `scope` was granted."""
        if scope not in self.scopes:
            raise InsufficientScope(scope)
