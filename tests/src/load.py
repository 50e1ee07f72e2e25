"""Asks models from a pod, no request tried again, and counts what came of it.

Arguments: the Service with an address, the headless one, and a JSON list of clients {"name", "kind", "model"}. Kinds:
fresh, HTTP with a connection for each request; kept, HTTP on connections that are kept for a while; grpc, one channel to all
addresses of the headless Service, in turns. Lines of standard input say what to do from then on:

  free N    N callers for each client, each of which asks again as soon as it is answered; 0: none
  rate R    R requests a second in all, at random, the clients in turns, whether or not those before are answered
  together N    N requests of each client at once, now

Prints a line when every client was answered once, and a report in JSON when its input has ended.
"""

import http.client
import json
import queue
import random
import sys
import threading
import time

import numpy
import tritonclient.grpc as triton

# Less than the time for which a replica goes on answering once it has left its Service, as a client with a pool has to be set.
KEEP_SECONDS = 3

host, headless = sys.argv[1:3]
question = json.dumps({"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]}]})
given = triton.InferInput("INPUT", [2], "FP32")
given.set_data_from_numpy(numpy.array([1.5, 2.5], dtype=numpy.float32))
sent = {}
sent_lock = threading.Lock()


def by_http(connection, model):
    connection.request("POST", f"/v2/models/{model}/infer", question, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} {body[:200]}")


def fresh(model):
    def once():
        connection = http.client.HTTPConnection(host, 8000, timeout=60)
        try:
            by_http(connection, model)
        finally:
            connection.close()

    return lambda: once


def kept(model):
    """Each caller has a connection of its own."""

    def caller():
        state = {}

        def once():
            if "until" in state and time.monotonic() > state["until"]:
                state.pop("connection").close()
                del state["until"]
            if "until" not in state:
                state["connection"] = http.client.HTTPConnection(host, 8000, timeout=60)
                state["until"] = time.monotonic() + KEEP_SECONDS
            try:
                by_http(state["connection"], model)
            except BaseException:
                state.pop("connection").close()
                del state["until"]
                raise

        return once

    return caller


def grpc(model):
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.enable_retries", 0)]
    client = triton.InferenceServerClient(f"dns:///{headless}:8001", channel_args=options)
    return lambda: lambda: client.infer(model, [given], client_timeout=60)


class Client:
    def __init__(self, name, kind, model):
        self.name = name
        self.caller = {"fresh": fresh, "kept": kept, "grpc": grpc}[kind](model)
        self.good, self.failed, self.lock = 0, [], threading.Lock()
        self.orders, self.idle = queue.SimpleQueue(), 0
        self.wanted, self.threads = 0, []

    def ask(self, once):
        with sent_lock:
            second = int(time.time())
            sent[second] = sent.get(second, 0) + 1
        try:
            once()
        except BaseException as error:
            with self.lock:
                self.failed.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}"[:300])
        else:
            with self.lock:
                self.good += 1

    def start(self, work, *args):
        thread = threading.Thread(target=work, args=args)
        self.threads.append(thread)
        thread.start()

    def free(self, number):
        before, self.wanted = self.wanted, number
        for index in range(before, number):
            self.start(self.ask_freely, index)

    def ask_freely(self, index):
        once = self.caller()
        while index < self.wanted:
            self.ask(once)

    def order(self):
        """Has somebody ask who is idle, or else somebody new."""
        with self.lock:
            self.idle -= 1
            is_busy = self.idle < 0
            if is_busy:
                self.idle = 0
        if is_busy:
            self.start(self.obey)
        self.orders.put(True)

    def obey(self):
        once = self.caller()
        while self.orders.get():
            self.ask(once)
            with self.lock:
                self.idle += 1

    def end(self):
        self.wanted = 0
        for _ in self.threads:
            self.orders.put(False)
        for thread in self.threads:
            thread.join()

    def until_answered(self):
        """The node forwards to the first replica a moment after that is ready."""
        once = self.caller()
        for _ in range(300):
            try:
                return once()
            except Exception:
                time.sleep(0.1)
        once()


class Arrivals(threading.Thread):
    """Orders requests at random moments, as many clients together do."""

    def __init__(self, clients):
        super().__init__(daemon=True)
        self.clients, self.rate, self.news = clients, 0.0, threading.Event()
        self.ended = False

    def run(self):
        chance, turn, due = random.Random(1), 0, time.monotonic()
        while not self.ended:
            if self.rate == 0.0:
                self.news.wait()
                self.news.clear()
                due = time.monotonic()
                continue
            due += chance.expovariate(self.rate)
            if self.news.wait(max(0.0, due - time.monotonic())):
                self.news.clear()
                due = time.monotonic()
                continue
            self.clients[turn % len(self.clients)].order()
            turn += 1

    def change(self, rate):
        self.rate = rate
        self.news.set()


clients = [Client(**client) for client in json.loads(sys.argv[3])]
for client in clients:
    client.until_answered()
arrivals = Arrivals(clients)
arrivals.start()
print("answered", flush=True)
for line in sys.stdin:
    verb, number = line.split()
    if verb == "free":
        for client in clients:
            client.free(int(number))
    elif verb == "together":
        for client in clients:
            for _ in range(int(number)):
                client.order()
    else:
        arrivals.change(float(number))
arrivals.ended = True
arrivals.change(0.0)
arrivals.join()
for client in clients:
    client.end()
report = {client.name: {"good": client.good, "failed": client.failed} for client in clients}
print(json.dumps({"clients": report, "sent": sent}))
