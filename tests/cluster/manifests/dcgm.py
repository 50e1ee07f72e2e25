"""Speaks for GPUs that are only said to be there, in the format of NVIDIA's dcgm-exporter 4.

Each GPU belongs to the pod that asked for it, from when the pod is scheduled until it ends. What a GPU measures is said by
the ConfigMap `dcgm-values`: a key is NAMESPACE.POD or the beginning of one, the longest that fits counts; its value is JSON,
{"DCGM_FI_DEV_GPU_UTIL": percent, "DCGM_FI_DEV_FB_USED": MiB}. What is not said is 0.
"""

import json
import os
import ssl
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

NODE = os.environ["NODE_NAME"]
NAMESPACE = os.environ["NAMESPACE"]
GPUS = 8
MEMORY_MIB = 40960
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"
TRUST = ssl.create_default_context(cafile=ACCOUNT + "ca.crt")
HELP = {
    "DCGM_FI_DEV_GPU_UTIL": "GPU utilization (in %).",
    "DCGM_FI_DEV_FB_FREE": "Framebuffer memory free (in MiB).",
    "DCGM_FI_DEV_FB_USED": "Framebuffer memory used (in MiB).",
}

# Who has each GPU: the pod's UID, or nothing.
owners = [None] * GPUS
lock = Lock()


def ask(path):
    """Returns what the API server answers, or nothing where the object is not there."""
    with open(ACCOUNT + "token") as token:
        headers = {"Authorization": "Bearer " + token.read()}
    request = urllib.request.Request("https://kubernetes.default.svc" + path, headers=headers)
    try:
        with urllib.request.urlopen(request, context=TRUST, timeout=3) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return {}
        raise


def claims():
    """Returns namespace, pod and container by UID of the pod, with the number of its GPUs, the oldest first."""
    pods = ask(f"/api/v1/pods?fieldSelector=spec.nodeName={NODE}")["items"]
    alive = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    found = {}
    for pod in sorted(alive, key=lambda pod: pod["metadata"]["creationTimestamp"]):
        for container in pod["spec"]["containers"]:
            count = int(container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))
            if count:
                meta = pod["metadata"]
                found[meta["uid"]] = ((meta["namespace"], meta["name"], container["name"]), count)
    return found


def assign(found):
    """Takes GPUs from pods that ended, and gives free ones to those that lack theirs."""
    for number, owner in enumerate(owners):
        if owner not in found:
            owners[number] = None
    for uid, (_, count) in found.items():
        for _ in range(count - owners.count(uid)):
            if None in owners:
                owners[owners.index(None)] = uid


def values_of(said, namespace, pod):
    """Returns what the longest fitting key says."""
    name = f"{namespace}.{pod}"
    keys = [key for key in said if name.startswith(key)]
    return json.loads(said[max(keys, key=len)]) if keys else {}


def exposition():
    said = ask(f"/api/v1/namespaces/{NAMESPACE}/configmaps/dcgm-values").get("data") or {}
    found = claims()
    with lock:
        assign(found)
        holders = [found[owner][0] if owner else None for owner in owners]
    lines = []
    for metric, meaning in HELP.items():
        lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge"]
        lines += [line(metric, number, holder, said) for number, holder in enumerate(holders)]
    return "\n".join(lines) + "\n"


def line(metric, number, holder, said):
    labels = {
        "gpu": number,
        "UUID": f"GPU-00000000-0000-0000-0000-00000000000{number}",
        "pci_bus_id": f"00000000:0{number}:00.0",
        "device": f"nvidia{number}",
        "modelName": "NVIDIA A100-SXM4-40GB",
        "Hostname": NODE,
        "DCGM_FI_DRIVER_VERSION": "570.133.20",
    }
    values = {}
    if holder:
        namespace, pod, container = holder
        labels |= {"container": container, "namespace": namespace, "pod": pod}
        values = values_of(said, namespace, pod)
    used = values.get("DCGM_FI_DEV_FB_USED", 0)
    value = MEMORY_MIB - used if metric == "DCGM_FI_DEV_FB_FREE" else values.get(metric, 0)
    inside = ",".join(f'{name}="{text}"' for name, text in labels.items())
    return f"{metric}{{{inside}}} {value}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.answer(200, "OK")
        elif self.path == "/metrics":
            try:
                self.answer(200, exposition())
            except (OSError, ValueError) as error:
                self.answer(500, f"{error}\n")
        else:
            self.answer(404, "ask for /metrics\n")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Keeps quiet about each scrape."""


ThreadingHTTPServer(("", 9400), Handler).serve_forever()
