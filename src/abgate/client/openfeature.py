"""An OpenFeature provider on top of the client: ``pip install 'abgate[openfeature]'``."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import (
    FlagNotFoundError,
    ProviderNotReadyError,
    TargetingKeyMissingError,
    TypeMismatchError,
)
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata

from abgate.client.client import Client

T = TypeVar("T")


class AbgateProvider(AbstractProvider):
    """Evaluates in process; the keys and the context are those of OFREP.

    The provider does not close the client: whoever made it does.
    """

    def __init__(self, client: Client, *, ready_s: float = 5.0) -> None:
        """Evaluate by `client`; `initialize` waits so long for its first snapshot."""
        super().__init__()
        self._client = client
        self._ready_s = ready_s
        self._is_late = False
        client.on_change(self._tell)

    def get_metadata(self) -> Metadata:
        """Return the provider's name."""
        return Metadata(name="abgate")

    def initialize(self, evaluation_context: EvaluationContext) -> None:  # noqa: ARG002  # as the SDK calls it
        """Wait for the first snapshot. Raises `ProviderNotReadyError`; once it is there, the provider says so."""
        if not self._client.wait_until_ready(self._ready_s):
            self._is_late = True
            raise ProviderNotReadyError("The server gave no snapshot in time.")

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,  # noqa: ARG002  # the SDK gives it when this raises
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Evaluate a parameter that is true or false."""
        return self._resolve(flag_key, evaluation_context, bool)

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,  # noqa: ARG002  # the SDK gives it when this raises
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """Evaluate a parameter that is a string."""
        return self._resolve(flag_key, evaluation_context, str)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,  # noqa: ARG002  # the SDK gives it when this raises
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """Evaluate a parameter that is a whole number."""
        details = self._resolve(flag_key, evaluation_context, float)
        if not details.value.is_integer():
            raise TypeMismatchError(f"{flag_key} is no whole number.")
        return FlagResolutionDetails(
            int(details.value), reason=details.reason, variant=details.variant, flag_metadata=details.flag_metadata
        )

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,  # noqa: ARG002  # the SDK gives it when this raises
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """Evaluate a parameter that is a number."""
        return self._resolve(flag_key, evaluation_context, float)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],  # noqa: ARG002
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """Evaluate a flag, or a parameter that is an object or, under `value`, an array."""
        return self._resolve(flag_key, evaluation_context, dict)

    def _resolve(self, key: str, context: EvaluationContext | None, type_: type[T]) -> FlagResolutionDetails[T]:
        if self._client.snapshot is None:
            raise ProviderNotReadyError("There is no snapshot yet.")
        if context is None or not context.targeting_key:
            raise TargetingKeyMissingError("The targeting key is the device.")
        attributes: dict[str, Any] = {**context.attributes, "targetingKey": context.targeting_key}
        found = self._client.evaluate(key, attributes)
        if found is None:
            raise FlagNotFoundError(f"There is no flag, or no parameter of one, with the key {key}.")
        if not isinstance(found.value, type_):
            raise TypeMismatchError(f"{key} is of another type.")
        return FlagResolutionDetails(
            found.value,
            reason=Reason(found.reason),
            variant=found.variant,
            flag_metadata=dict(found.metadata),
        )

    def _tell(self) -> None:
        if self._is_late:
            self._is_late = False
            self.emit_provider_ready(ProviderEventDetails())
        self.emit_provider_configuration_changed(ProviderEventDetails())
