"""Models by name: which one is meant, whether a caller may have it, and the Strands model behind it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agent_mcp.errors import InvalidArgument, ModelNotAllowed, NoModel
from agent_mcp.model_params import ModelParams
from agent_mcp.models.building import Order, build
from agent_mcp.models.choice import Choice, automatic, ready
from agent_mcp.models.clients import Clients
from agent_mcp.models.effort import effort_fields
from agent_mcp.models.names import AUTO, ModelRef, is_covered, parse_model
from agent_mcp.models.providers import Surveyed, survey
from agent_mcp.tally import Tally

if TYPE_CHECKING:
    from strands.models.model import Model

_MOST_BUILT = 64
"""Models that are kept for the next turn, those that were used last: callers choose ids and parameters."""

__all__ = ["Choice", "ModelRef", "Models", "parse_model"]


class Models:
    """Finds and builds models.

    `default` is the operator's setting, `environ` where credentials are looked for, `allowed` patterns of the models
    that callers may name. Without patterns these are all models, or, if callers are `authenticated`, the default one.
    """

    def __init__(
        self,
        *,
        default: str,
        environ: Mapping[str, str],
        allowed: Sequence[str] = (),
        authenticated: bool = False,
        tally: Tally | None = None,
    ) -> None:
        self._default = default
        self._environ = environ
        self._allowed = tuple(allowed) or (() if authenticated else ("*",))
        self._clients = Clients()
        self._tally = tally or Tally()
        self._built: OrderedDict[tuple[ModelRef, str], Model] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, name: str) -> None:
        """Raises ModelNotAllowed where a caller may not name this model, InvalidArgument where it is none.

        The default model may always be named. Says nothing of whether the model can be asked.
        """
        if name == AUTO:
            return
        ref = parse_model(name)
        if any(is_covered(ref, pattern) for pattern in self._allowed):
            return
        if self._default != AUTO and is_covered(ref, self._default):
            return
        allowed = ", ".join(dict.fromkeys([*self._allowed, self._default]))
        raise ModelNotAllowed(
            f"The model {str(ref)[:100]!r} is not allowed here. Allowed: {allowed}. Leave model out for the server's "
            "default; the operator can allow more with AGENT_MCP_ALLOW_MODELS."
        )

    @staticmethod
    def check_params(name: str | None, params: ModelParams) -> None:
        """Raises InvalidArgument for a parameter that the named model is known not to have.

        Of the default model nothing is said here, for it may be another one tomorrow: an ask says it.
        """
        if name not in (None, AUTO, "inherit"):
            effort_fields(parse_model(name), params.get("reasoning_effort"))

    def choose(self, name: str | None) -> Choice:
        """The model for an agent that names `name`, or none. Blocking, asks nothing but an Ollama.

        Raises NoModel where none can be asked, InvalidArgument where the name is none.
        """
        if name is not None and name != AUTO:
            choice = Choice(ref=parse_model(name), why="the agent names it")
        elif self._default != AUTO:
            try:
                choice = Choice(ref=parse_model(self._default), why="AGENT_MCP_MODEL names it")
            except InvalidArgument as error:
                raise NoModel(f"AGENT_MCP_MODEL can't be used: {error.message}") from None
        else:
            choice = automatic(self._environ)
        return ready(choice, self._environ)

    def build(self, ref: ModelRef, params: ModelParams | None = None) -> Model:
        """The Strands model; for the same name and parameters the same object, while it is among those kept. Blocking.

        Raises InvalidArgument for an id or a parameter that the provider is known not to have.
        """
        given = params or {}
        key = (ref, json.dumps(given, sort_keys=True))
        with self._lock:
            if key not in self._built:
                order = Order(
                    model_id=ref.model_id,
                    params=given,
                    environ=self._environ,
                    clients=self._clients,
                    tally=self._tally,
                )
                self._built[key] = build(ref.provider, order)
                if len(self._built) > _MOST_BUILT:
                    self._built.popitem(last=False)
            self._built.move_to_end(key)
            return self._built[key]

    def survey(self) -> list[Surveyed]:
        """Each provider as it is here: whether it could be asked, and why or why not. Blocking."""
        return survey(self._environ)

    @property
    def is_connected(self) -> bool:
        """Whether there is anything to close."""
        return self._clients.is_open

    async def close(self) -> None:
        """Closes connections. To be awaited on the loop on which the models were used."""
        await self._clients.close()
