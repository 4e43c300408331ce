"""A function that is generated for one experiment: its text, and the constants that the text mentions.

**No value becomes part of the text.** Names, texts, bounds and outcomes are bound as constants, which the text calls
``c0``, ``c1``, …; everything else in it is a fragment that stands in `abgate.core.decider` or `abgate.core.predicates`.
The function has no builtins, and reaches nothing but its arguments and its constants.
"""

from collections.abc import Callable
from typing import Any


class Source:
    """The text of a function so far, line by line."""

    def __init__(self, name: str, *parameters: str) -> None:
        self._name = name
        self._lines = [f"def {name}({', '.join(parameters)}):"]
        self._variables: dict[str, str] = {}
        self.constants: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The whole function."""
        return "\n".join(self._lines)

    def line(self, text: str, *, indent: int = 1) -> None:
        """Add a line of the function's body."""
        self._lines.append("    " * indent + text)

    def constant(self, value: object) -> str:
        """Return the name by which the text mentions the value."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def attribute(self, name: str) -> str:
        """Return the variable that holds the attribute of this name; it is read before its first use."""
        variable = self._variables.get(name)
        if variable is None:
            variable = self._variables[name] = f"a{len(self._variables)}"
            self.line(f"{variable} = attributes.get({self.constant(name)})")
        return variable

    def compiled(self) -> Callable[..., Any]:
        """Return the function."""
        namespace: dict[str, Any] = {"__builtins__": {}, **self.constants}
        exec(compile(self.text, f"<{self._name}>", "exec"), namespace)  # noqa: S102 - no value is in the text: see above
        made: Callable[..., Any] = namespace[self._name]
        return made
