"""The ends of ``bench-steer``, each run inside a terminal's namespace: askers (ours, HTTP, gRPC) and servers.

The servers of the others hold the very same model file and answer the very same questions; theirs is the usual set-up
of a Flask and of a gRPC service: threads, connections kept open, no encryption. Ours has its keys on.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from hosts.inference.ports import Ports
from packets.events import silent
from packets.messages import Answer, Ask, encode_message
from packets.security.identity import Directory, Identity
from packets.security.keeper import Keeper
from packets.transfer.udp import now_us
from packets.wire import Flag, Header, PacketType, TrafficClass

WARM_S = 1.0
AGAIN_S, PATIENCE_S = 0.5, 10.0
HTTP_THREADS, GRPC_THREADS = 16, 8
METHOD = "/daitn.Model/Ask"


# --- ours -------------------------------------------------------------------------------------------------------------


class Line:
    """A person's own asker: queries to labels from a few ports, signed by the terminal's keys."""

    def __init__(self, address: str, keys: Path, directory: Path) -> None:
        identity = Identity.load(keys)
        self.address = address
        self.waiting: dict[int, float] = {}
        guard = Keeper(identity, Directory.load(directory))
        self.ports = Ports(address, guard, silent, lambda number: number in self.waiting)
        self.number = int(time.time() * 1000) & 0xFFF_FFFF

    def send(self, task: str, sample: list[float], label: int) -> int:
        self.number += 1
        header = Header(
            type=PacketType.QUERY, traffic_class=TrafficClass.QUERY, object_id=label, owner=self.address,
            transfer_id=self.number, timestamp_us=now_us(),
        )  # fmt: skip
        self.waiting[self.number] = time.perf_counter()
        self.header, self.body = header, encode_message(Ask(task=task, sample=sample))
        self.ports.send(header, self.body, label)
        return self.number

    def once(self, task: str, sample: list[float], label: int) -> float:
        """Ask one question; return the milliseconds until its answer."""
        number = self.send(task, sample, label)
        began = self.waiting[number]
        again_s, said = began + AGAIN_S, "nothing"
        while number in self.waiting:
            for header, message, peer in self.ports.wait(AGAIN_S):
                if header.transfer_id == number and isinstance(message, Answer):
                    del self.waiting[number]
                    self.ports.answers(label, peer[0])
                elif header.transfer_id == number:
                    said = str(message)
            if number in self.waiting and time.perf_counter() > again_s:
                again_s += AGAIN_S
                self.ports.send(msgspec.structs.replace(self.header, flags=Flag.REPEATED), self.body, label)
            if time.perf_counter() - began > PATIENCE_S:
                raise SystemExit(f"label {label:#x} did not answer: it said {said[:200]}")
        return (time.perf_counter() - began) * 1e3


def pairs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ask by turns: through the class's label, the model's label, and the MDFP's own address, again and again."""
    line, samples = Line(arguments.own, arguments.keys, arguments.directory), _samples(arguments)
    model, klass = arguments.label, arguments.class_label
    direct = Line(arguments.own, arguments.keys, arguments.directory)
    direct.ports.to = arguments.server
    line.once(arguments.task, samples[0], klass)
    took: dict[str, list[float]] = {"class": [], "model": [], "direct": []}
    for turn in range(arguments.count):
        sample = samples[turn % len(samples)]
        ways = [("class", line, klass), ("model", line, model), ("direct", direct, model)]
        for name, by, label in ways[turn % 3 :] + ways[: turn % 3]:
            took[name].append(by.once(arguments.task, sample, label))
    return {name: [round(statistics.median(v), 4), round(sorted(v)[int(len(v) * 0.95)], 4)] for name, v in took.items()}


def flood(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keep ``window`` queries in flight among the labels given; return the answers a second."""
    line, samples = Line(arguments.own, arguments.keys, arguments.directory), _samples(arguments)
    labels: list[int] = arguments.labels
    in_flight = dict.fromkeys(labels, 0)
    of: dict[int, int] = {}
    for label in labels:
        line.once(arguments.task, samples[0], label)
    answered, began = 0, time.perf_counter()
    end, counted_from = began + WARM_S + arguments.seconds, began + WARM_S
    share = max(1, arguments.window // len(labels))
    while (now := time.perf_counter()) < end:
        for label in labels:
            while in_flight[label] < share:
                of[line.send(arguments.task, samples[line.number % len(samples)], label)] = label
                in_flight[label] += 1
        for header, message, _ in line.ports.wait(0.05):
            if header.transfer_id not in of:
                continue
            label = of.pop(header.transfer_id)
            line.waiting.pop(header.transfer_id, None)
            in_flight[label] -= 1
            if isinstance(message, Answer) and time.perf_counter() > counted_from:
                answered += 1
        for number in [n for n, at in line.waiting.items() if now - at > AGAIN_S]:
            line.waiting.pop(number)
            in_flight[of.pop(number)] -= 1
    return {"per_s": answered / arguments.seconds}


def _samples(arguments: argparse.Namespace) -> list[list[float]]:
    found: list[list[float]] = json.loads(arguments.samples.read_text())
    return found


# --- the others -------------------------------------------------------------------------------------------------------


class Endpoint:
    """The same model behind an ordinary service."""

    def __init__(self, spec: Path, model: Path) -> None:
        import torch

        from hosts.learning.task import bytes_to_model, load_task
        from hosts.learning.task_spec import TaskSpec

        torch.set_num_threads(1)
        self.task = load_task(msgspec.json.decode(spec.read_bytes(), type=TaskSpec))
        self.model = bytes_to_model(self.task, model.read_bytes())
        self.model.eval()

    def answer(self, sample: list[float]) -> dict[str, Any]:
        label, confidence = self.task.ask(self.model, sample)
        return {"answer": label, "confidence": confidence}


def serve_http(arguments: argparse.Namespace) -> dict[str, Any]:
    """Flask on werkzeug's threaded server, connections kept open."""
    from flask import Flask, request
    from werkzeug.serving import WSGIRequestHandler, make_server

    endpoint, app = Endpoint(arguments.spec, arguments.model), Flask("model")
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    WSGIRequestHandler.log_request = lambda *_, **__: None  # type: ignore[method-assign]

    @app.post("/ask")
    def ask() -> Any:
        return endpoint.answer(request.get_json()["sample"])

    server = make_server(arguments.server, arguments.port, app, threaded=True)
    print("ready", flush=True)
    server.serve_forever()
    return {}


def ask_http(arguments: argparse.Namespace) -> dict[str, Any]:
    """Threads with a connection each; answers a second."""
    samples, counts = _samples(arguments), [0] * HTTP_THREADS
    began = time.perf_counter()
    end, counted_from = began + WARM_S + arguments.seconds, began + WARM_S

    def work(number: int) -> None:
        connection, turn = http.client.HTTPConnection(arguments.server, arguments.port, timeout=10), number
        while time.perf_counter() < end:
            turn += 1
            body = json.dumps({"sample": samples[turn % len(samples)]})
            connection.request("POST", "/ask", body, {"Content-Type": "application/json"})
            assert json.loads(connection.getresponse().read())["answer"]
            if time.perf_counter() > counted_from:
                counts[number] += 1

    with ThreadPoolExecutor(HTTP_THREADS) as pool:
        list(pool.map(work, range(HTTP_THREADS)))
    return {"per_s": sum(counts) / arguments.seconds}


def serve_grpc(arguments: argparse.Namespace) -> dict[str, Any]:
    """A gRPC service of one method; messages are msgpack, as ours are."""
    import grpc  # type: ignore[import-untyped]

    endpoint = Endpoint(arguments.spec, arguments.model)

    def ask(body: bytes, _: Any) -> bytes:
        return msgspec.msgpack.encode(endpoint.answer(msgspec.msgpack.decode(body)))

    service, method = METHOD[1:].split("/")
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(ask)})
    server = grpc.server(ThreadPoolExecutor(GRPC_THREADS))
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"{arguments.server}:{arguments.port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()
    return {}


def ask_grpc(arguments: argparse.Namespace) -> dict[str, Any]:
    """Calls in flight on one channel, as many as ours; answers a second."""
    import grpc

    samples = _samples(arguments)
    room, counted, lock = threading.Semaphore(arguments.window), [0], threading.Lock()
    began = time.perf_counter()
    end, counted_from = began + WARM_S + arguments.seconds, began + WARM_S

    def done(future: Any) -> None:
        room.release()
        assert msgspec.msgpack.decode(future.result())["answer"]
        if counted_from < time.perf_counter() < end:
            with lock:
                counted[0] += 1

    with grpc.insecure_channel(f"{arguments.server}:{arguments.port}") as channel:
        call, turn = channel.unary_unary(METHOD), 0
        while time.perf_counter() < end:
            room.acquire(timeout=5.0)
            turn += 1
            call.future(msgspec.msgpack.encode(samples[turn % len(samples)])).add_done_callback(done)
        for _ in range(arguments.window):
            room.acquire(timeout=5.0)
    return {"per_s": counted[0] / arguments.seconds}


MODES = {
    "pairs": pairs, "flood": flood, "serve_http": serve_http, "ask_http": ask_http, "serve_grpc": serve_grpc,
    "ask_grpc": ask_grpc,
}  # fmt: skip


def main() -> None:
    """Be one of the ends; the result is the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=MODES)
    for name in ("own", "server", "task"):
        parser.add_argument(f"--{name}", default="")
    for name in ("keys", "directory", "samples", "spec", "model"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("label", "class-label", "count", "port", "window"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--labels", type=int, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    print(json.dumps(MODES[arguments.mode](arguments)), flush=True)


if __name__ == "__main__":
    main()
