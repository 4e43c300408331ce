"""Operations on feature flags and their variations."""

from typing import Annotated

from litestar.params import QueryParameter
from msgspec import UNSET

from abgate.core.errors import Conflict, NotFound, RuleBroken
from abgate.core.experiment import Experiment
from abgate.core.feature_flag import (
    MAX_VARIATIONS,
    FeatureFlag,
    FeatureFlagChanges,
    FeatureFlagStatus,
    FeatureFlagType,
    Variation,
    check_overrides,
    check_parameters,
    revise_feature_flag,
    revise_variation,
)
from abgate.management.answers import feature_flag_answer
from abgate.management.bodies import (
    CreateFeatureFlag,
    CreateVariation,
    FeatureFlagAnswer,
    FeatureFlagList,
    UpdateFeatureFlag,
    UpdateFeatureFlagStatus,
    UpdateVariation,
    VariationList,
)
from abgate.management.caller import Caller
from abgate.management.pagination import DEFAULT_TAKE, MAX_TAKE, from_checkpoint, to_checkpoint
from abgate.storage import experiments, feature_flags
from abgate.storage.rows import Stored


def list_feature_flags(
    caller: Caller,
    *,
    from_: Annotated[str | None, QueryParameter(name="from", description="The `next` of the page before.")] = None,
    take: Annotated[int, QueryParameter(name="take", ge=1, le=MAX_TAKE)] = DEFAULT_TAKE,
    type: Annotated[FeatureFlagType | None, QueryParameter(name="type")] = None,
    status: Annotated[FeatureFlagStatus | None, QueryParameter(name="status")] = None,
) -> FeatureFlagList:
    """List feature flags, newest first; archived ones only when asked for."""
    with caller.reading() as connection:
        page = feature_flags.list_page(
            connection, caller.tenant, type=type, status=status, after=from_checkpoint(from_), take=take
        )
    return FeatureFlagList(
        [feature_flag_answer(flag, caller.generation) for flag in page.values], to_checkpoint(page.next)
    )


def create_feature_flag(caller: Caller, data: CreateFeatureFlag) -> FeatureFlagAnswer:
    """Create a feature flag, a draft."""
    check_parameters(data.parameters)
    flag = FeatureFlag(
        id=caller.new_id("flg"),
        name=data.name,
        description=UNSET if data.description is None else data.description,
        parameters=data.parameters,
        created_at=caller.now,
        updated_at=caller.now,
    )
    with caller.writing() as connection:
        feature_flags.add(connection, caller.author, flag)
    return feature_flag_answer(flag, caller.generation)


def get_feature_flag(caller: Caller, id: str) -> FeatureFlagAnswer:
    """Return a feature flag."""
    with caller.reading() as connection:
        return feature_flag_answer(feature_flags.get(connection, caller.tenant, id).value, caller.generation)


def update_feature_flag(caller: Caller, id: str, data: UpdateFeatureFlag) -> FeatureFlagAnswer:
    """Change a feature flag: only the given fields, all of them or none."""
    return _revise(caller, id, data)


def update_feature_flag_status(caller: Caller, id: str, data: UpdateFeatureFlagStatus) -> FeatureFlagAnswer:
    """Move a feature flag to another status."""
    return _revise(caller, id, FeatureFlagChanges(status=data.status))


def delete_feature_flag(caller: Caller, id: str) -> None:
    """Delete a feature flag and its variations, unless an experiment that is not archived refers to it."""
    with caller.writing() as connection:
        try:
            flag = feature_flags.get(connection, caller.tenant, id).value
        except NotFound:
            return
        referring = experiments.referring_to_feature_flag(connection, caller.tenant, id)
        if referring:
            raise in_use(f"The feature flag {flag.name!r}", [stored.value for stored in referring])
        feature_flags.remove(connection, caller.author, flag)


def list_variations(caller: Caller, id: str) -> VariationList:
    """List every variation of a feature flag, oldest first."""
    with caller.reading() as connection:
        feature_flags.get(connection, caller.tenant, id)
        return VariationList(feature_flags.list_variations(connection, caller.tenant, id))


def create_variation(caller: Caller, id: str, data: CreateVariation) -> Variation:
    """Create a variation of a feature flag."""
    with caller.writing() as connection:
        flag = feature_flags.get(connection, caller.tenant, id).value
        check_overrides(data.overrides, flag.parameters)
        if len(feature_flags.list_variations(connection, caller.tenant, id)) >= MAX_VARIATIONS:
            raise RuleBroken(
                f"A feature flag has at most {MAX_VARIATIONS} variations. Delete one first.",
                code="variation_limit_exceeded",
            )
        variation = Variation(
            id=caller.new_id("var"),
            feature_flag_id=flag.id,
            name=data.name,
            description=UNSET if data.description is None else data.description,
            overrides=data.overrides,
            created_at=caller.now,
            updated_at=caller.now,
        )
        feature_flags.add_variation(connection, caller.author, variation)
    return variation


def get_variation(caller: Caller, id: str, vid: str) -> Variation:
    """Return a variation of a feature flag."""
    with caller.reading() as connection:
        feature_flags.get(connection, caller.tenant, id)
        return feature_flags.get_variation(connection, caller.tenant, id, vid).value


def update_variation(caller: Caller, id: str, vid: str, data: UpdateVariation) -> Variation:
    """Change a variation: only the given fields, all of them or none."""
    with caller.writing() as connection:
        flag = feature_flags.get(connection, caller.tenant, id).value
        stored = feature_flags.get_variation(connection, caller.tenant, id, vid)
        revised = revise_variation(stored.value, data, parameters=flag.parameters, now=caller.now)
        if revised is not stored.value:
            feature_flags.save_variation(connection, caller.author, stored, revised)
    return revised


def delete_variation(caller: Caller, id: str, vid: str) -> None:
    """Delete a variation that no experiment uses and that is not served, unless it is the flag's last."""
    with caller.writing() as connection:
        flag = feature_flags.get(connection, caller.tenant, id).value
        try:
            variation = feature_flags.get_variation(connection, caller.tenant, id, vid).value
        except NotFound:
            return
        referring = experiments.referring_to_feature_flag(connection, caller.tenant, id)
        using = [stored.value for stored in referring if _allocates(stored, vid)]
        if using:
            raise in_use(f"The variation {variation.name!r}", using)
        if flag.served_variation_id == vid:
            raise Conflict(
                f"The variation {variation.name!r} is the one that its feature flag serves. "
                "Set the flag's served_variation_id to another one or to null first.",
                code="in_use",
            )
        if len(feature_flags.list_variations(connection, caller.tenant, id)) == 1:
            raise RuleBroken(
                f"{variation.name!r} is the feature flag's last variation. Create another one first.",
                code="feature_flag_requires_variations",
            )
        feature_flags.remove_variation(connection, caller.author, variation)


def in_use(what: str, using: list[Experiment]) -> Conflict:
    """Return the refusal to delete `what` while these experiments use it."""
    named = ", ".join(f"{experiment.name!r} ({experiment.id}, {experiment.status})" for experiment in using[:3])
    more = f" and {len(using) - 3} more" if len(using) > 3 else ""
    return Conflict(f"{what} is used by {named}{more}. Archive or delete what uses it first.", code="in_use")


def _allocates(stored: Stored[Experiment], variation_id: str) -> bool:
    return any(allocation.variation_id == variation_id for allocation in stored.value.allocations)


def _revise(caller: Caller, id: str, flag_changes: FeatureFlagChanges) -> FeatureFlagAnswer:
    with caller.writing() as connection:
        stored = feature_flags.get(connection, caller.tenant, id)
        variations = feature_flags.list_variations(connection, caller.tenant, id)
        revised = revise_feature_flag(stored.value, flag_changes, variations=variations, now=caller.now)
        if revised is not stored.value:
            feature_flags.save(connection, caller.author, stored, revised)
        if revised.status != stored.value.status:
            referring = experiments.referring_to_feature_flag(connection, caller.tenant, id)
            experiments.revalidate(connection, caller.tenant, referring)
    return feature_flag_answer(revised, caller.generation)
