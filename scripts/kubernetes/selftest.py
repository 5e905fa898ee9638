"""That the check finds what is wrong: each of these changes to the files must be told, with the words beside it."""

import pathlib
import shutil
import tempfile

from files import Files

# (file, what is there, what is put in its place, words of the problem)
CHANGES = [
    ("worker.yaml", "terminationGracePeriodSeconds: 120", "terminationGracePeriod: 120", "terminationGracePeriod"),
    ("worker.yaml", "memory: 2Gi", "memory: [2]", "memory"),
    ("worker.yaml", "apiVersion: apps/v1", "apiVersion: apps/v1beta1", "Couldn't find schema"),
    ("worker.yaml", "maxSurge: 0", "maxSurge: 0\n      maxSurge: 1", "there twice"),
    ("worker.yaml", "name: wellspring-screens", "name: wellspring-screen", "no ConfigMap wellspring-screen,"),
    ("worker.yaml", "mountPath: /tmp", "mountPath: /tmp\n            - name: other\n              mountPath: /o", "volume other"),
    ("worker.yaml", "      readOnlyRootFilesystem: true", "      readOnlyRootFilesystem: false", "root file system"),
    ("worker.yaml", "--engine, wgpu", "--engine, metal", "invalid value 'metal'"),
    ("worker.yaml", "--device, gpu", "--devices, gpu", "unexpected argument '--devices'"),
    ("worker.yaml", "- name: WELLSPRING_INSTANCE", "- name: WELLSPRING_INSTANZ", "no variable WELLSPRING_INSTANZ"),
    ("config.yaml", "WELLSPRING_PREFIX:", "WELLSPRING_PREFIXES:", "no variable WELLSPRING_PREFIXES"),
    ("worker-budget.yaml", "matchLabels:\n      app.kubernetes.io/name: wellspring", "matchLabels:\n      app: w", "selects no pod"),
    ("batch.yaml", "--lane, batch", "--lane, night", "invalid value 'night'"),
    ("batch.yaml", "values: [75]", "values: [76]", "nothing of exit code 76"),
    ("batch.yaml", "podReplacementPolicy: Failed", "podReplacementPolicies: Failed", "podReplacementPolicies"),
    ("batch.yaml", "$(JOB)-$(INDEX)", "$(JOBS)-$(INDEX)", "uses $(JOBS)"),
    ("http/serve.yaml", "scheme: HTTPS", "schema: HTTPS", "schema"),
    ("http/serve.yaml", "path: /healthz", "path: /health", "a probe asks for /health,"),
    ("cpu/worker.yaml", "name: wellspring-worker", "name: wellspring-workers", "patches 0 resources"),
    ("kustomization.yaml", "  - config.yaml", "  - configs.yaml", "there is no configs.yaml"),
    ("keda/worker-scaler.yaml", "cooldownPeriod", "coolDownPeriod", "coolDownPeriod"),
    ("keda/worker-scaler.yaml", "excludePersistentLag", "excludePersistingLag", "no parameter excludePersistingLag"),
    ("keda/worker-scaler.yaml", "offsetResetPolicy: earliest", "offsetResetPolicy: first", "must be one of latest, earliest"),
    ("keda/worker-scaler.yaml", "consumerGroup: wellspring-worker\n", "consumerGroup: wellspring-workers\n", "not in wellspring-workers"),
    ("keda/worker-scaler.yaml", "topic: wellspring.tasks-batch", "topic: wellspring.batch", "wellspring.batch is none of them"),
    ("keda/worker-scaler.yaml", "maxReplicaCount: 32", "maxReplicaCount: 64", "has 32 partitions"),
]


def check(folder, problems_of, problems):
    """Every change by itself; `problems_of(files, problems)` is the whole check."""
    for name, old, new, words in CHANGES:
        with tempfile.TemporaryDirectory() as scratch:
            changed = pathlib.Path(scratch, "k8s")
            shutil.copytree(folder, changed)
            text = (changed / name).read_text()
            (changed / name).write_text(text.replace(old, new))
            found = []
            problems_of(Files(changed, found), found)
        if text.replace(old, new) == text:
            problems.append(f"the check's own test: {name} has no '{old}'")
        elif not any(words in problem for problem in found):
            problems.append(f"the check's own test: '{new}' in {name} was told as {found or 'nothing'}, not as '{words}'")
