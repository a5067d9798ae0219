"""The registries that recordings name: one that serves, and one for each way of failing."""

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from e2e.testbed.registries.registry import FAILURES, DeadPort, Registry, SilentPort
from e2e.testbed.registries.store import Base, Store
from e2e.testbed.simulator.settings import CONTRACT_PORTS
from e2e.testbed.support.certificates import server_context


class Registries:
    """All of them; `hosts` says where each one is. `ports` are theirs by name, free ones without.

    `servers` are those that serve at all; what fails there is theirs to change.
    """

    def __init__(self, ports: Mapping[str, int] | None = None, *, base: Base | None = None) -> None:
        self._ports, self._base = ports or {}, base
        self._exit = contextlib.ExitStack()
        self.hosts: dict[str, str] = {}
        self.stores: dict[str, Store] = {}
        self.servers: dict[str, Registry] = {}

    def __enter__(self) -> Self:
        with self._exit:
            for name in CONTRACT_PORTS:
                self._start(name, self._ports.get(name, 0))
            self._exit = self._exit.pop_all()
        return self

    def clear(self) -> None:
        """Remove all images."""
        for store in self.stores.values():
            store.clear()

    def _start(self, name: str, port: int) -> None:
        self.stores[name] = Store(self._base)
        if name == "dead":
            self.hosts[name] = self._exit.enter_context(DeadPort(port)).host
        elif name == "silent":
            self.hosts[name] = self._exit.enter_context(SilentPort(port)).host
        else:
            context = server_context() if name == "tls" else None
            registry = self._exit.enter_context(Registry(port=port, failure=FAILURES.get(name), context=context, base=self._base))
            self.stores[name] = registry.store
            self.servers[name] = registry
            self.hosts[name] = registry.host

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exit.close()
