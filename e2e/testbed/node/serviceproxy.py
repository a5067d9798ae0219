"""kube-proxy's part, in user space: connections to a Service's address are forwarded to one of its ready endpoints.

The whole range of Services' addresses is local to this machine, so a listener for each port of each Service is all there is.
"""

import asyncio
import contextlib
import random
from typing import Any

import structlog
from mirrorstream.kube.client import Client
from mirrorstream.kube.informer import Informer
from mirrorstream.kube.objects import json_objects

log = structlog.get_logger(__name__)
SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
OWNER = "kubernetes.io/service-name"
Address = tuple[str, int]
CONNECT_SECONDS = 5


def table(services: list[dict[str, Any]], slices: list[dict[str, Any]], kubernetes: Address) -> dict[Address, list[Address]]:
    """Where connections to each address of a Service may go; without a ready endpoint the address refuses them.

    `kubernetes` is kube-apiserver's address, for the Service default/kubernetes.
    """
    found: dict[Address, list[Address]] = {}
    for service in services:
        meta, spec = service["metadata"], service["spec"]
        address = spec.get("clusterIP", "")
        if address in ("", "None"):
            continue
        own = [s for s in slices if s["metadata"]["namespace"] == meta["namespace"] and _owner(s) == meta["name"]]
        for port in spec.get("ports") or []:
            if port.get("protocol", "TCP") != "TCP":
                continue
            if (meta["namespace"], meta["name"]) == ("default", "kubernetes"):
                endpoints = [kubernetes]
            else:
                endpoints = [end for s in own for end in _endpoints(s, port.get("name", ""))]
            if endpoints:
                found[address, port["port"]] = endpoints
    return found


def _owner(endpoint_slice: dict[str, Any]) -> str:
    return str((endpoint_slice["metadata"].get("labels") or {}).get(OWNER, ""))


def _endpoints(endpoint_slice: dict[str, Any], port_name: str) -> list[Address]:
    """The ready endpoints' addresses with the port of that name."""
    ports = [port["port"] for port in endpoint_slice.get("ports") or [] if (port.get("name") or "") == port_name]
    ready = [end for end in endpoint_slice.get("endpoints") or [] if (end.get("conditions") or {}).get("ready", True)]
    return [(end["addresses"][0], port) for end in ready for port in ports]


class ServiceProxy:
    """Listens wherever `table` says, and follows what changes there."""

    def __init__(self, client: Client, kubernetes: Address) -> None:
        self._kubernetes = kubernetes
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._services = Informer(client, SERVICES, json_objects, lambda change: self._notify(), name="services")
        self._slices = Informer(client, SLICES, json_objects, lambda change: self._notify(), name="endpointslices")
        self._served: dict[Address, list[Address]] = {}
        self._listeners: dict[Address, asyncio.Server] = {}

    def _notify(self) -> None:
        if self._loop:
            self._loop.call_soon_threadsafe(self._changed.set)

    async def run(self) -> None:
        """Work until the process ends."""
        self._loop = asyncio.get_running_loop()
        for informer in (self._services, self._slices):
            informer.start()
        while True:
            self._served = table(self._services.objects(), self._slices.objects(), self._kubernetes)
            for address in self._listeners.keys() - self._served.keys():
                self._listeners.pop(address).close()
            for address in self._served.keys() - self._listeners.keys():
                await self._listen(address)
            await self._changed.wait()
            self._changed.clear()

    async def _listen(self, address: Address) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._forward(address, reader, writer)

        try:
            self._listeners[address] = await asyncio.start_server(accept, *address, backlog=256)
        except OSError as error:
            log.error("cannot serve a Service", address=address, error=str(error))

    async def _forward(self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoints = self._served.get(address)
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError):
            if not endpoints:
                return
            chosen = random.choice(endpoints)
            async with asyncio.timeout(CONNECT_SECONDS):
                far_reader, far_writer = await asyncio.open_connection(*chosen)
            with contextlib.closing(far_writer):
                ways = [asyncio.create_task(_pump(*way)) for way in ((reader, far_writer), (far_reader, writer))]
                await asyncio.wait(ways)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward one way until its end, and say there that this was the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
