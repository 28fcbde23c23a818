"""Served model names, the OpenAI model of each, and what happens when OpenAI shuts that model down."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Literal

from app.core.errors.request_errors import RequestError
from app.core.tokenization import EncodingName
from app.features.llm.model_families import MODELS, ModelFamily, base_model, family_of, is_fine_tuned

logger = logging.getLogger(__name__)

SHOWN_CHARACTERS = 200
"""The maximum length of a model's name in an error."""

NOTICE = timedelta(days=90)
"""How long before a model's shutdown the operator is warned."""

RetiredModels = Literal["auto", "switch", "refuse"]
"""How requests for a model that OpenAI shut down are handled: see `RetirementPolicy.successor_of`."""

_DEFAULT_SERVED = MappingProxyType({"gpt-4o-mini": "gpt-4o-mini"})
_ALWAYS_REPLACED = "gpt-4o-mini"
_MOVE = "set DEFAULT_MODEL or SERVED_MODELS"


def utc_today() -> date:
    """Return today's date in UTC, by which OpenAI shuts models down."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class RetirementPolicy:
    """When a model counts as shut down, and how its requests are handled then."""

    mode: RetiredModels = "auto"
    on_openai: bool = False
    """Whether calls go to OpenAI itself. Other services do not follow OpenAI's shutdown dates."""
    today: Callable[[], date] = utc_today

    def successor_of(self, model: str, family: ModelFamily) -> str | None:
        """Return the model to use instead of one that was shut down; None: requests are rejected.

        `switch` uses every known successor, `auto` only that of gpt-4o-mini, which is cheaper.
        """
        is_replaced = self.mode == "switch" or (base_model(model) == _ALWAYS_REPLACED and not is_fine_tuned(model))
        return family.successor if is_replaced and self.mode != "refuse" else None


class Catalogue:
    """Maps the names that clients may use to OpenAI models; with None, every model is served under its own name.

    `described` maps OpenAI names to families, for models that `MODELS` lacks or has wrong.
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
        self._listed_dates: dict[str, date] = {}
        self._rejected: dict[str, str] = {}
        self.successors: dict[str, str] = {}
        """Served names whose model was shut down, with the OpenAI model used instead."""
        # Without a list, names are unbounded, so only successors are cached.
        self._families = {name: self._family_of(self.upstream_model(name)) for name in served or ()}

    @property
    def names(self) -> tuple[str, ...] | None:
        """The served names, the default first; None: all upstream models."""
        return None if self._served is None else tuple(self._served)

    def require_served(self, name: str) -> None:
        """Check that clients may use `name`, without a call to upstream.

        Raises:
            RequestError: they may not, or its model was shut down.
        """
        if self._served is not None and name not in self._served:
            shown, aliases = name[:SHOWN_CHARACTERS], ", ".join(self._served)
            raise RequestError(f"The model `{shown}` does not exist. Valid aliases: {aliases}.", param="model")
        if name in self._rejected:
            raise RequestError(self._rejected[name], param="model")

    def upstream_model(self, name: str) -> str:
        """Return the OpenAI model of `name`."""
        if name in self.successors:
            return self.successors[name]
        return name if self._served is None else self._served.get(name, name)

    def family(self, name: str) -> ModelFamily:
        """Return the model family of `name`."""
        return self._families.get(name) or self._family_of(self.upstream_model(name))

    def _family_of(self, model: str) -> ModelFamily:
        return self._described.get(model) or self._described.get(base_model(model)) or family_of(model)

    def encoding(self, name: str) -> EncodingName:
        """Return the encoding of the model of `name`.

        Raises:
            RequestError: it is not known.
        """
        known = self.family(name).encoding
        if known is None:
            raise RequestError(
                f"The tokenizer of the model `{name[:SHOWN_CHARACTERS]}` is not known to this server: "
                "its operator can name it in MODEL_FAMILIES.",
                param="model",
            )
        return known

    def may_be_unlisted(self, name: str) -> bool:
        """Whether upstream's model list may omit `name`: a model of MODEL_FAMILIES at a service other than OpenAI."""
        return not self._retirement.on_openai and self.upstream_model(name) in self._described

    def learn_shutdown_dates(self, dates: Mapping[str, date | None]) -> None:
        """Store the shutdown dates that OpenAI lists by model, and retire served models that are past theirs."""
        self._listed_dates = {model: day for model, day in dates.items() if day}
        for name in self.names or ():
            if self.upstream_model(name) in self._listed_dates and self.is_past_shutdown(name):
                self.retire(name)

    def shutdown_notices(self) -> list[str]:
        """Return a line for each served model that is past its shutdown date or within 90 days of it."""
        return [line for name in self.names or () if (line := self._notice(name))]

    def is_past_shutdown(self, name: str) -> bool:
        """Whether the model's shutdown date is known and past. That alone does not retire the model."""
        day = self._shutdown_date(name)
        return self._retirement.on_openai and day is not None and day <= self._retirement.today()

    def retire_not_found(self, name: str, model: str) -> bool:
        """Retire `name` if it is past its shutdown date, after OpenAI did not find `model`.

        Returns:
            Whether `name` now maps to another model than `model`.

        Raises:
            RequestError: the model was shut down, and requests for it are rejected.
        """
        if self.is_past_shutdown(name):
            self.retire(name)
            if name in self._rejected:
                logger.error("%s Requests for it are refused: %s", self._rejected[name], _MOVE)
                raise RequestError(self._rejected[name], param="model")
        return self.upstream_model(name) != model

    def rejections(self) -> list[str]:
        """Return the reason for each served name whose requests are rejected."""
        return list(self._rejected.values())

    def _shutdown_date(self, name: str) -> date | None:
        model = self.upstream_model(name)
        return self._listed_dates.get(model) or self._family_of(model).ends

    def retire(self, name: str) -> None:
        """Use the successor for `name`, whose model was shut down, or reject its requests from now on."""
        if name in self.successors or name in self._rejected or not self._may_retire(name):
            return
        model, day = self.upstream_model(name), self._shutdown_date(name)
        family = self._family_of(model)
        successor = self._retirement.successor_of(model, family)
        if successor is None:
            advice = f" Its successor is `{family.successor}`." if family.successor else ""
            self._rejected[name] = f"The model `{model[:SHOWN_CHARACTERS]}` was shut down by OpenAI on {day}.{advice}"
            return
        self.successors[name] = successor
        self._families[name] = self._family_of(successor)
        logger.warning(
            "OpenAI shut down %s (served as %r) on %s: requests go on with %s at its lowest effort. To choose another, "
            "%s; RETIRED_MODELS=refuse refuses them",
            *(model, name, day, successor, _MOVE),
        )

    def _may_retire(self, name: str) -> bool:
        # Without a list, clients may send any name, and memory must not grow with those.
        return self._served is not None or name in MODELS or name in self._listed_dates

    def _notice(self, name: str) -> str | None:
        day, today = self._shutdown_date(name), self._retirement.today()
        if name in self._rejected or day is None or day - today > NOTICE:
            return None
        successor = self.family(name).successor
        advice = f"{_MOVE} to {successor}" if successor else f"{_MOVE} to another model"
        verb = "shuts down" if day > today else "was to shut down"
        return f"OpenAI {verb} the model served as {name!r} on {day}: {advice}"
