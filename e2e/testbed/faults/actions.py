"""What a test may do with a request on its way to the API server."""

import threading

from e2e.testbed.interceptor import Action, Exchange, Lines, Reset


def reset(exchange: Exchange) -> None:
    """The connection is cut before the API server hears of the request."""
    raise Reset


def lose_answer(exchange: Exchange) -> None:
    """The request is carried out, and its answer lost."""
    exchange.read(exchange.forward())
    raise Reset


def cut_answer(exchange: Exchange) -> None:
    """The connection is cut in the middle of the answer's body."""
    answer = exchange.forward()
    data = exchange.read(answer)
    exchange.start({"Content-Type": "application/json", "Content-Length": str(len(data))}, answer.status)
    exchange.send(data[: len(data) // 2])
    raise Reset


def hang(exchange: Exchange) -> None:
    """No answer until the program gives up."""
    while not exchange.gone():
        pass
    raise Reset


def delay(seconds: float) -> Action:
    """The request arrives late."""

    def act(exchange: Exchange) -> None:
        exchange.wait(seconds)
        exchange.pass_on()

    return act


class Hold:
    """The request waits until the test releases it, even while its program is stopped."""

    def __init__(self) -> None:
        self.arrived, self.let_go = threading.Event(), threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        """Wait, and pass it on; cut the connection if the program has given up."""
        self.arrived.set()
        while not self.let_go.is_set():
            if exchange.gone():
                raise Reset
        exchange.pass_on()


def refuse(status: int, reason: str = "", message: str = "on command", retry_after: float | None = None) -> Action:
    """A Kubernetes Status instead of what was asked for."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason, "message": message}
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return lambda exchange: exchange.answer(status, body, headers)


def watch_lines(lines: Lines) -> Action:
    """A watch whose bytes are what `lines` makes of them."""
    return lambda exchange: exchange.pass_on(lines=lines)
