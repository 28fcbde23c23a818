"""The served model names, and the OpenAI model that each stands for."""

from collections.abc import Mapping
from datetime import date, timedelta
from types import MappingProxyType

from app.core.errors.errors import RequestError
from app.core.tokenization import EncodingName
from app.features.llm.model_families import ModelFamily, base_model, family_of

SHOWN_CHARACTERS = 200
"""How much of a model's name a refusal repeats."""

NOTICE = timedelta(days=90)
"""How long before its end a model is warned of."""


_DEFAULT_SERVED = MappingProxyType({"gpt-4o-mini": "gpt-4o-mini"})


class Catalogue:
    """The names clients may use, each with the OpenAI model it stands for; None: every model under its own name.

    `described` has the families of models that the table lacks or has wrong, by their OpenAI name.
    """

    def __init__(
        self,
        served: Mapping[str, str] | None = _DEFAULT_SERVED,
        request_body_schema: Mapping[str, ModelFamily] = MappingProxyType({}),
    ) -> None:
        self._served = served
        self._described = request_body_schema
        # What clients may ask for is asked for again and again; without a list it could be anything.
        self._families = {name: self._family(name) for name in served or ()}

    @property
    def names(self) -> tuple[str, ...] | None:
        """The served names, the first for clients that name none; None: all that upstream has."""
        return None if self._served is None else tuple(self._served)

    def require_served(self, name: str) -> None:
        """Return if clients may ask for `name`, as far as that is known without asking upstream.

        Raises:
            RequestError: they may not.
        """
        if self._served is not None and name not in self._served:
            shown, aliases = name[:SHOWN_CHARACTERS], ", ".join(self._served)
            raise RequestError(f"The model `{shown}` does not exist. Valid aliases: {aliases}.", param="model")

    def upstream_model(self, name: str) -> str:
        """The OpenAI model that `name` stands for."""
        return name if self._served is None else self._served.get(name, name)

    def family(self, name: str) -> ModelFamily:
        """The family of the model that `name` stands for."""
        return self._families.get(name) or self._family(name)

    def _family(self, name: str) -> ModelFamily:
        model = self.upstream_model(name)
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

    def ending(self, today: date) -> dict[str, date]:
        """The served names whose model OpenAI shuts down within 90 days of `today`, or has shut down, with the day."""
        ends = {name: self.family(name).ends for name in self.names or ()}
        return {name: day for name, day in ends.items() if day and day - today <= NOTICE}
