"""The served model names, the OpenAI model that each stands for, and what becomes of them when it ends."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Literal

from app.core.errors.errors import RequestError
from app.core.tokenization import EncodingName
from app.features.llm.model_families import MODELS, ModelFamily, base_model, family_of, is_fine_tuned

logger = logging.getLogger(__name__)

SHOWN_CHARACTERS = 200
"""How much of a model's name an error repeats."""

NOTICE = timedelta(days=90)
"""How long before a model's end the operator is warned."""

RetiredModels = Literal["auto", "switch", "refuse"]
"""What becomes of requests for a model that OpenAI shut down: see `RetirementPolicy.successor_of`."""

_DEFAULT_SERVED = MappingProxyType({"gpt-4o-mini": "gpt-4o-mini"})
_ALWAYS_REPLACED = "gpt-4o-mini"
_MOVE = "set DEFAULT_MODEL or SERVED_MODELS"


def utc_today() -> date:
    """The day that it is for OpenAI."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class RetirementPolicy:
    """When a model counts as shut down, and what happens then."""

    mode: RetiredModels = "auto"
    on_openai: bool = False
    """Whether calls go to OpenAI itself: no other service ends its models by OpenAI's dates."""
    today: Callable[[], date] = utc_today

    def successor_of(self, model: str, family: ModelFamily) -> str | None:
        """The model that requests for an ended one go on with; None: they are refused.

        `switch` goes on with every successor that is known, `auto` only for gpt-4o-mini, whose successor is cheaper.
        """
        is_replaced = self.mode == "switch" or (base_model(model) == _ALWAYS_REPLACED and not is_fine_tuned(model))
        return family.successor if is_replaced and self.mode != "refuse" else None


class Catalogue:
    """The names clients may use, each with the OpenAI model it stands for; None: every model under its own name.

    `described` has the families of models that the table lacks or has wrong, by their OpenAI name.
    """

    def __init__(
        self,
        served: Mapping[str, str] | None = _DEFAULT_SERVED,
        described: Mapping[str, ModelFamily] = MappingProxyType({}),
        retirement: RetirementPolicy | None = None,
    ) -> None:
        self._served = served
        self._described = described
        self._retirement = retirement or RetirementPolicy()
        self._openai_ends: dict[str, date] = {}
        self._refused: dict[str, str] = {}
        self.successors: dict[str, str] = {}
        """Served names whose model has ended, with the OpenAI model that they stand for now."""
        # Without a list of names it could be anything: then only successors are kept.
        self._families = {name: self._family_of(self.upstream_model(name)) for name in served or ()}

    @property
    def names(self) -> tuple[str, ...] | None:
        """The served names, the first for clients that name none; None: all that upstream has."""
        return None if self._served is None else tuple(self._served)

    def require_served(self, name: str) -> None:
        """Return if clients may ask for `name`, as far as that is known without asking upstream.

        Raises:
            RequestError: they may not, or its model has ended.
        """
        if self._served is not None and name not in self._served:
            shown, aliases = name[:SHOWN_CHARACTERS], ", ".join(self._served)
            raise RequestError(f"The model `{shown}` does not exist. Valid aliases: {aliases}.", param="model")
        if name in self._refused:
            raise RequestError(self._refused[name], param="model")

    def upstream_model(self, name: str) -> str:
        """The OpenAI model that `name` stands for."""
        if name in self.successors:
            return self.successors[name]
        return name if self._served is None else self._served.get(name, name)

    def family(self, name: str) -> ModelFamily:
        """The family of the model that `name` stands for."""
        return self._families.get(name) or self._family_of(self.upstream_model(name))

    def _family_of(self, model: str) -> ModelFamily:
        return self._described.get(model) or self._described.get(base_model(model)) or family_of(model)

    def encoding(self, name: str) -> EncodingName:
        """How text becomes token ids for the model that `name` stands for.

        Raises:
            RequestError: that is not known.
        """
        known = self.family(name).encoding
        if known is None:
            raise RequestError(
                f"The tokenizer of the model `{name[:SHOWN_CHARACTERS]}` is not known to this server: "
                "its operator can name it in MODEL_FAMILIES.",
                param="model",
            )
        return known

    def is_elsewhere(self, name: str) -> bool:
        """Whether `name` stands for a deployment of another service, which its list of models need not name."""
        return not self._retirement.on_openai and self.upstream_model(name) in self._described

    def learn_ends(self, ends: Mapping[str, date | None]) -> None:
        """Take over the shutdown dates that OpenAI lists by model, and retire served models that have ended by them."""
        self._openai_ends = {model: day for model, day in ends.items() if day}
        for name in self.names or ():
            if self.upstream_model(name) in self._openai_ends and self.has_passed(name):
                self.retire(name)

    def ending(self) -> list[str]:
        """A line for each served model that ends within 90 days, or was to have ended and has not been retired."""
        return [line for name in self.names or () if (line := self._notice(name))]

    def has_passed(self, name: str) -> bool:
        """Whether OpenAI's end of the model is known and past. Alone it is no reason to retire it."""
        day = self._end_of(name)
        return self._retirement.on_openai and day is not None and day <= self._retirement.today()

    def retire_not_found(self, name: str, model: str) -> bool:
        """Retire `name` if OpenAI, asked for `model`, does not find it after its end.

        Returns:
            Whether `name` stands for another model now.

        Raises:
            RequestError: the model has ended, and requests for it are refused.
        """
        if self.has_passed(name):
            self.retire(name)
            if name in self._refused:
                logger.error("%s Requests for it are refused: %s", self._refused[name], _MOVE)
                raise RequestError(self._refused[name], param="model")
        return self.upstream_model(name) != model

    def refusals(self) -> list[str]:
        """Why requests for the served names whose models have ended are refused."""
        return list(self._refused.values())

    def _end_of(self, name: str) -> date | None:
        model = self.upstream_model(name)
        return self._openai_ends.get(model) or self._family_of(model).ends

    def retire(self, name: str) -> None:
        """From now on requests for `name`, whose model has ended, go on with its successor or are refused."""
        if name in self.successors or name in self._refused or not self._is_kept(name):
            return
        model, day = self.upstream_model(name), self._end_of(name)
        family = self._family_of(model)
        successor = self._retirement.successor_of(model, family)
        if successor is None:
            advice = f" Its successor is `{family.successor}`." if family.successor else ""
            self._refused[name] = f"The model `{model[:SHOWN_CHARACTERS]}` was shut down by OpenAI on {day}.{advice}"
            return
        self.successors[name] = successor
        self._families[name] = self._family_of(successor)
        logger.warning(
            "OpenAI shut down %s (served as %r) on %s: requests go on with %s at its lowest effort. To choose another, "
            "%s; RETIRED_MODELS=refuse refuses them",
            *(model, name, day, successor, _MOVE),
        )

    def _is_kept(self, name: str) -> bool:
        # Clients may ask for any name where none is listed, and what is kept must not grow with what they ask for.
        return self._served is not None or name in MODELS or name in self._openai_ends

    def _notice(self, name: str) -> str | None:
        day, today = self._end_of(name), self._retirement.today()
        if name in self._refused or day is None or day - today > NOTICE:
            return None
        successor = self.family(name).successor
        advice = f"{_MOVE} to {successor}" if successor else f"{_MOVE} to another model"
        verb = "shuts down" if day > today else "was to shut down"
        return f"OpenAI {verb} the model served as {name!r} on {day}: {advice}"
