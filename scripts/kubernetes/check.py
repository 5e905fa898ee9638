"""Checks the Kubernetes files of Wellspring; scripts/kubernetes/check runs it and says why.

Schemas (`schemas.py`), what the files say of one another (here), what they say of the program (`program.py`), and that all of
this finds mistakes (`selftest.py`). All problems are told, one a line, with the file; the exit code is 1 where there is one.
"""

import argparse
import pathlib
import sys

import program
import schemas
import selftest
from files import Files, labels_of, pod_of


def selects(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def references(files, problems):
    """ConfigMaps, secrets, claims, volumes and selectors lead somewhere."""
    readme = (files.folder / "README.md").read_text()
    pods = [(name, labels_of(document)) for name, document in files.resources() if pod_of(document)]
    for name, document in files.resources():
        say = lambda text, name=name: problems.append(f"{name}: {text}")
        kind, spec = document["kind"], document.get("spec", {})
        match = spec.get("selector", {})
        match = match.get("matchLabels", match)
        if kind in ("PodDisruptionBudget", "Service"):
            if not any(selects(match, labels) for _, labels in pods):
                say(f"its selector {match} selects no pod")
        pod = pod_of(document)
        if not pod:
            continue
        labels = labels_of(document)
        if kind == "Deployment" and not selects(match, labels):
            say(f"its selector {match} does not select its own pods {labels}")
        for spread in pod.get("topologySpreadConstraints", []):
            if not selects(spread["labelSelector"]["matchLabels"], labels):
                say("its topology spread does not count its own pods")
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        for missing in mounted - volumes.keys():
            say(f"volume {missing} is mounted and not there")
        for unused in volumes.keys() - mounted:
            say(f"volume {unused} is mounted nowhere")
        wanted = [("ConfigMap", v["configMap"]["name"]) for v in volumes.values() if "configMap" in v]
        wanted += [("Secret", v["secret"]["secretName"]) for v in volumes.values() if "secret" in v]
        wanted += [
            ("PersistentVolumeClaim", v["persistentVolumeClaim"]["claimName"])
            for v in volumes.values() if "persistentVolumeClaim" in v
        ]
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                for key, of in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    if key in source:
                        wanted.append((of, source[key]["name"]))
        for of, called in wanted:
            if not files.has(of, called) and f"`{called}`" not in readme:
                say(f"there is no {of} {called}, and README.md does not say that the operator makes it")


def sound(files, problems):
    """What an operator relies on and no schema asks for."""
    for name, document in files.resources():
        pod = pod_of(document)
        if not pod:
            continue
        say = lambda text, name=name: problems.append(f"{name}: {text}")
        if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
            say("it may run as root")
        if pod.get("automountServiceAccountToken") is not False:
            say("it is given a token of the cluster that it has no use for")
        if document["kind"] == "Job":
            rules = pod.get("restartPolicy")
            if rules != "Never":
                say(f"a pod failure policy needs restartPolicy Never, not {rules}")
        for container in pod["containers"]:
            context = container.get("securityContext", {})
            if context.get("readOnlyRootFilesystem") is not True or context.get("allowPrivilegeEscalation") is not False:
                say(f"container {container['name']} may write to its root file system, or gain privileges")
            if context.get("capabilities", {}).get("drop") != ["ALL"]:
                say(f"container {container['name']} keeps capabilities")
            limits, requests = container["resources"].get("limits", {}), container["resources"].get("requests", {})
            if "memory" not in limits or "memory" not in requests or "cpu" not in requests:
                say(f"container {container['name']} does not say what it needs")
            if limits.get("nvidia.com/gpu") != requests.get("nvidia.com/gpu"):
                say(f"container {container['name']} must ask for as many GPUs as it is limited to")


def main():
    parser = argparse.ArgumentParser()
    for option in ("--files", "--keda", "--wellspring"):
        parser.add_argument(option, type=pathlib.Path, required=True)
    arguments = parser.parse_args()

    def problems_of(files, problems):
        schemas.check(files, arguments.keda, problems)
        references(files, problems)
        sound(files, problems)
        # The program is asked only about files that are well formed.
        if not problems:
            program.check(files, str(arguments.wellspring), problems)

    problems = []
    files = Files(arguments.files, problems)
    problems_of(files, problems)
    if not problems:
        selftest.check(arguments.files, problems_of, problems)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        sys.exit(f"{len(problems)} problems in {arguments.files}")
    print(f"{len(files.resources())} Kubernetes resources agree with their schemas and the program")


if __name__ == "__main__":
    main()
