"""What every section of a recipe is made of: strict scalars, read-only lists and mappings, and the base class.

The comment behind a field becomes its line in `docs/recipe.md` and in the JSON schema that editors read. Reading YAML, locating
mistakes and suggesting names is the loader's; nothing here opens a file or imports torch.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, Strict, model_validator

Scalar = str | int | float | bool


def _freeze(mapping: dict) -> MappingProxyType:
    return MappingProxyType(dict(mapping))


def mapping_of(value_type: Any) -> Any:
    """A read-only dict from string to `value_type`."""
    return Annotated[dict[str, value_type], AfterValidator(_freeze), PlainSerializer(dict)]


def sequence_of(item_type: Any) -> Any:
    """A YAML list, kept as a tuple."""
    return Annotated[tuple[item_type, ...], Strict(False)]


Strings = sequence_of(str)
StringMap = mapping_of(str)
Positive = Annotated[int, Field(gt=0)]
PositiveNumber = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonEmpty = Annotated[str, Field(min_length=1)]


class BrokenRule(ValueError):
    """Keys that are right one by one and do not go together. `at`: the keys concerned, from the section on."""

    def __init__(self, message: str, *at: str) -> None:
        super().__init__(message)
        self.at = at


def _revive(section: "type[Spec]", text: str) -> "Spec":
    return section.model_validate_json(text)


class Spec(BaseModel):
    """Base of every section: unknown keys refused, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, protected_namespaces=())

    # Rules between keys; each reads attributes and raises BrokenRule. The loader also asks them one by one.
    RULES: ClassVar[tuple[Callable[[Any], None], ...]] = ()

    def __deepcopy__(self, memo: dict) -> "Spec":
        return self  # nothing of it can change

    def __reduce__(self) -> tuple:
        # Read-only mappings cannot be pickled; workers of a curation get their specs this way.
        return _revive, (type(self), self.model_dump_json())

    @model_validator(mode="after")
    def _obey_rules(self) -> "Spec":
        for rule in self.RULES:
            rule(self)
        return self
