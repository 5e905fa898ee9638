"""What the files say of Wellspring against the program itself: options, variables, exit codes, topics, groups, paths.

A broker of its own, a server and a worker are started on this machine, with what the files tell them, and stopped again.
"""

import functools
import json
import os
import re
import select
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

from files import pod_of

# Longest wait for any one thing, s.
PATIENCE = 60
# Variables that others than clap read: the cache folder by the program, the driver's by NVIDIA's container runtime.
OTHERS = {"XDG_CACHE_HOME", "NVIDIA_DRIVER_CAPABILITIES"}


def settings_of(files, container):
    """The variables a container is given: (name, value), with None for a value that only Kubernetes knows."""
    for source in container.get("envFrom", []):
        for _, document in files.of_kind("ConfigMap"):
            if document["metadata"]["name"] == source.get("configMapRef", {}).get("name"):
                yield from document["data"].items()
    for variable in container.get("env", []):
        yield variable["name"], variable.get("value")


@functools.cache
def helped(wellspring, *arguments):
    """Why the program refuses the arguments, if it does, and its help on them on one line."""
    # Arguments before --help are checked, values too.
    tried = subprocess.run([wellspring, *arguments, "--help"], capture_output=True, text=True, timeout=PATIENCE)
    refused = tried.returncode != 0 and tried.stderr.strip().splitlines()[0]
    return refused, " ".join(tried.stdout.split())


def command_lines(files, wellspring, problems):
    """Every container's arguments and variables are the program's."""
    for name, document in files.resources():
        pod = pod_of(document)
        for container in pod["containers"] if pod else []:
            say = lambda text, name=name: problems.append(f"{name}: {text}")
            if "command" in container or not container.get("args"):
                say("give the program its arguments in `args`; its image has the command")
                continue
            refused, told = helped(wellspring, *container["args"])
            if refused:
                say(f"wellspring {' '.join(container['args'])}: {refused}")
                continue
            known = set(re.findall(r"\[env: ([A-Z0-9_]+)=", told))
            before = set()
            for variable, value in settings_of(files, container):
                used = set(re.findall(r"\$\((\w+)\)", value or ""))
                for missing in used - before:
                    say(f"{variable} uses $({missing}), which is not set before it")
                before.add(variable)
            helpers = {
                used for _, value in settings_of(files, container) for used in re.findall(r"\$\((\w+)\)", value or "")
            }
            for unknown in before - known - OTHERS - helpers:
                say(f"wellspring {container['args'][0]} reads no variable {unknown}")
            codes = [
                code
                for rule in document["spec"].get("podFailurePolicy", {}).get("rules", [])
                for code in rule.get("onExitCodes", {}).get("values", [])
            ]
            for code in codes:
                if f"exit with code {code}" not in told:
                    say(f"wellspring {container['args'][0]} says nothing of exit code {code}")


class Process:
    """A process of the program, its standard error joined to its output; ended with the block."""

    def __init__(self, *command, **variables):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("WELLSPRING_")}
        # The cache has the compiled shaders and the weights.
        environment.update(variables)
        self.shown = " ".join(command[1:2])
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.said = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def line(self, pattern):
        """The match of the first line that has `pattern`."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            ready, _, _ = select.select([self.process.stdout], [], [], 0.5)
            line = self.process.stdout.readline() if ready else None
            if line == "":
                break
            if line:
                self.said.append(line)
                if found := re.search(pattern, line):
                    return found
        raise RuntimeError(f"wellspring {self.shown} did not say '{pattern}' but:\n{''.join(self.said)}")

    def ended(self):
        """The exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(PATIENCE)


def groups(address):
    """The consumer groups that the broker knows: Kafka's ListGroups (key 16), version 0."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as broker:
        request = struct.pack(">hhih", 16, 0, 1, -1)
        broker.sendall(struct.pack(">i", len(request)) + request)
        stream = broker.makefile("rb")
        (size,) = struct.unpack(">i", stream.read(4))
        answer = stream.read(size)
    _, error, count = struct.unpack_from(">ihi", answer)
    if error:
        raise RuntimeError(f"the broker answers ListGroups with error {error}")
    at, found = 10, set()
    for _ in range(count):
        texts = []
        for _ in range(2):
            (length,) = struct.unpack_from(">h", answer, at)
            texts.append(answer[at + 2 : at + 2 + length].decode())
            at += 2 + length
        found.add(texts[0])
    return found


@functools.cache
def observed(wellspring, prefix, paths):
    """What the program is seen to do with this prefix: groups, topics by name, problems; and with requests for `paths`."""
    problems = []
    with tempfile.TemporaryDirectory() as folder, Process(
        wellspring, "broker", "--data", f"{folder}/broker", "--listen", "127.0.0.1:0"
    ) as broker:
        address = broker.line(r"^listening on (\S+)")[1]
        of = {"WELLSPRING_KAFKA": address, "WELLSPRING_PREFIX": prefix}
        with Process(wellspring, "worker", "--device", "cpu", **of) as worker:
            worker.line(r"^worker ")
            give_up = time.monotonic() + PATIENCE
            found, since = set(), time.monotonic()
            # A worker joins one for each lane; all are there when there are some and no further ones come.
            while (not found or time.monotonic() < since + 2) and time.monotonic() < give_up:
                if (now := groups(address)) != found:
                    found, since = now, time.monotonic()
                time.sleep(0.1)
            if worker.ended() != 0:
                problems.append(f"a worker that was asked to end ended with {worker.process.returncode}")
        described = subprocess.run(
            [wellspring, "--quiet", "topics", "describe", "--json"], env={**os.environ, **of},
            capture_output=True, text=True, check=True, timeout=PATIENCE,
        )
        topics = {topic["name"]: topic for topic in map(json.loads, described.stdout.splitlines())}
        with Process(
            wellspring, "serve", "--no-worker", "--out", f"{folder}/results", WELLSPRING_HTTP="127.0.0.1:0", **of
        ) as serve:
            address = serve.line(r"by HTTP at (\S+)")[1]
            for path in paths:
                try:
                    urllib.request.urlopen(f"http://{address}{path}", timeout=10).close()
                except OSError as error:
                    problems.append(f"a probe asks for {path}, which is answered with: {error}")
            if serve.ended() != 0:
                problems.append(f"`wellspring serve` ended with {serve.process.returncode}")
    return found, topics, problems


def on_kafka(files, wellspring, problems):
    """Topics, groups, partitions and probes."""
    [(_, settings)] = files.of_kind("ConfigMap")
    probed = {
        probe["httpGet"]["path"]
        for _, document in files.resources() if pod_of(document)
        for container in pod_of(document)["containers"]
        for kind in ("readinessProbe", "livenessProbe", "startupProbe")
        if "httpGet" in (probe := container.get(kind, {}))
    }
    found, topics, seen = observed(wellspring, settings["data"]["WELLSPRING_PREFIX"], tuple(sorted(probed)))
    problems += seen
    for name, document in files.of_kind("ScaledObject"):
        scaler(files, name, document, topics, found, problems)


def scaler(files, name, document, topics, found, problems):
    """A ScaledObject scales what reads that topic in that group, and no further than its partitions go."""
    say = lambda text: problems.append(f"{name}: {text}")
    target = document["spec"]["scaleTargetRef"]
    container = target.get("envSourceContainerName")
    deployments = [d for _, d in files.of_kind("Deployment") if d["metadata"]["name"] == target["name"]]
    if not any(c["name"] == container for d in deployments for c in pod_of(d)["containers"]):
        say(f"there is no Deployment {target['name']} with a container {container}")
        return
    if any("replicas" in deployment["spec"] for deployment in deployments):
        say(f"{target['name']} has `replicas`, which would undo what was scaled whenever it is applied")
    given = {
        variable for d in deployments for c in pod_of(d)["containers"] for variable, _ in settings_of(files, c)
    }
    for trigger in document["spec"]["triggers"]:
        asked = trigger["metadata"]
        if asked["bootstrapServersFromEnv"] not in given:
            say(f"the container is not given {asked['bootstrapServersFromEnv']}")
        if asked["consumerGroup"] not in found:
            say(f"workers are in the groups {', '.join(sorted(found)) or 'of nobody'}, not in {asked['consumerGroup']}")
        if asked["topic"] not in topics:
            say(f"topics are {', '.join(topics)}; {asked['topic']} is none of them")
            continue
        partitions = topics[asked["topic"]]["partitions"]
        for where, number in (
            ("maxReplicaCount", document["spec"]["maxReplicaCount"]),
            ("activationLagThreshold", int(asked["activationLagThreshold"])),
        ):
            if number != partitions:
                say(f"{where} is {number}; {asked['topic']} has {partitions} partitions")


def check(files, wellspring, problems):
    command_lines(files, wellspring, problems)
    if not problems:
        on_kafka(files, wellspring, problems)
