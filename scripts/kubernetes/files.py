"""The files of a kustomize folder: read strictly, components merged in as kustomize does."""

import copy
import pathlib

import yaml


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error; without it the first is lost in silence."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            key = self.construct_object(key, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} is there twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# Fields of kustomization files that are used here; others must be taught to `Files` first.
KUSTOMIZATION = {"apiVersion", "kind", "resources", "patches"}
# What identifies an item of a list in a strategic merge (Kubernetes' `patchMergeKey`); other lists are replaced.
MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath", "ports": "containerPort"}


def merge(base, patch, of=None):
    """`base` with a strategic merge patch: maps by key, null takes away, the lists above by their key."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = copy.deepcopy(base)
        for key, value in patch.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(merged[key], value, key) if key in merged else copy.deepcopy(value)
        return merged
    if isinstance(base, list) and isinstance(patch, list) and of in MERGE_KEYS:
        key = MERGE_KEYS[of]
        merged = {item[key]: item for item in copy.deepcopy(base)}
        for item in patch:
            merged[item[key]] = merge(merged[item[key]], item) if item[key] in merged else item
        return list(merged.values())
    return copy.deepcopy(patch)


def pod_of(document):
    """The pod that a Deployment or Job makes; None of other kinds."""
    return document.get("spec", {}).get("template", {}).get("spec")


def labels_of(document):
    return document["spec"]["template"]["metadata"]["labels"]


class Files:
    def __init__(self, folder, problems):
        self.folder = pathlib.Path(folder)
        self.problems = problems
        self.documents = {}
        for path in sorted(self.folder.rglob("*.yaml")):
            name = str(path.relative_to(self.folder))
            try:
                found = list(yaml.load_all(path.read_text(), StrictLoader))
            except yaml.YAMLError as error:
                problems.append(f"{name}: {error}")
                continue
            for document in found:
                if not isinstance(document, dict) or not {"apiVersion", "kind"} <= document.keys():
                    problems.append(f"{name}: a document without apiVersion and kind")
                    found = []
            self.documents[name] = found
        if not self.documents:
            problems.append(f"{self.folder}: no files")
        self._resources = dict(self._gather())

    def _gather(self):
        """(name, document) of every resource: as it is, and as each component that patches it makes it."""
        known = set()
        plain = {}
        patches = []
        for name, documents in self.documents.items():
            if not name.endswith("kustomization.yaml"):
                continue
            known.add(name)
            of = pathlib.PurePosixPath(name).parent
            for document in documents:
                for field in document.keys() - KUSTOMIZATION:
                    self.problems.append(f"{name}: {field} is not known to this check")
                for resource in document.get("resources", []):
                    known.add(str(of / resource))
                    if str(of / resource) not in self.documents:
                        self.problems.append(f"{name}: there is no {resource}")
                for patch in document.get("patches", []):
                    known.add(str(of / patch["path"]))
                    patches.append(str(of / patch["path"]))
        for name, documents in self.documents.items():
            if name.endswith("kustomization.yaml") or name in patches:
                continue
            for document in documents:
                # What is made anew each time is created by hand and is in no kustomization.
                if name not in known and "generateName" not in document["metadata"]:
                    self.problems.append(f"{name}: no kustomization.yaml has it")
                plain[name] = document
                yield name, document
        for name in patches:
            for patch in self.documents.get(name, []):
                same = [
                    document for document in plain.values()
                    if document["kind"] == patch["kind"] and document["metadata"].get("name") == patch["metadata"]["name"]
                ]
                if len(same) != 1:
                    self.problems.append(f"{name}: it patches {len(same)} resources")
                    continue
                yield name, merge(same[0], patch)

    def resources(self):
        return self._resources.items()

    def has(self, kind, name):
        return any(
            document["kind"] == kind and document["metadata"].get("name") == name for _, document in self.resources()
        )

    def of_kind(self, kind):
        return [(name, document) for name, document in self.resources() if document["kind"] == kind]
