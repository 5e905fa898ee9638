"""Resources against the schemas of Kubernetes and KEDA."""

import functools
import json

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import yaml

# The schemas of a version are some megabytes of JSON, which the library would read anew for every resource.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

# The oldest Kubernetes that has all that is used (a Job's failures by index, switched on since), and the newest known.
KUBERNETES = ("1.29", "1.37")


def strict(schema):
    """An OpenAPI schema of a CustomResourceDefinition in which unknown fields are errors, as Kubernetes' own are here."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    properties = schema.get("properties")
    # A property may itself be called `properties`.
    if isinstance(properties, dict) and schema.get("type") == "object":
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


def scaled_object_schema(folder):
    definition = yaml.safe_load((folder / "keda.sh_scaledobjects.yaml").read_text())
    version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1alpha1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    # Kubernetes knows these, the definition does not.
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    return schema


def trigger(found, scalers):
    """What is wrong with a trigger by KEDA's list of scalers and their parameters."""
    known = {scaler["type"]: scaler["parameters"] for scaler in scalers["scalers"]}
    if found["type"] not in known:
        yield f"KEDA has no scaler {found['type']}"
        return
    parameters = {}
    for parameter in known[found["type"]]:
        if parameter.get("metadataVariableReadable"):
            parameters[parameter["name"]] = parameter
        if parameter.get("envVariableReadable"):
            parameters[parameter["name"] + "FromEnv"] = {**parameter, "allowedValue": None}
    for key, value in found["metadata"].items():
        if key not in parameters:
            yield f"the scaler {found['type']} has no parameter {key}"
        elif (allowed := parameters[key].get("allowedValue")) and value not in allowed:
            yield f"{key} is {value}; it must be one of {', '.join(allowed)}"
        elif parameters[key].get("default") in ("true", "false") and value not in ("true", "false"):
            yield f"{key} is {value}; it must be true or false"
    for parameter in known[found["type"]]:
        given = {parameter["name"], parameter["name"] + "FromEnv"} & found["metadata"].keys()
        if not parameter.get("optional") and "default" not in parameter and not given:
            yield f"the scaler {found['type']} needs {parameter['name']}"


def where(error):
    return ".".join(str(part) for part in error.path) or "the document"


def check(files, keda, problems):
    scaled = jsonschema.Draft202012Validator(scaled_object_schema(keda))
    scalers = json.loads((keda / "scalers-schema.json").read_text())
    for name, document in files.resources():
        if document["apiVersion"].startswith("keda.sh/"):
            problems += [f"{name}: {where(error)}: {error.message}" for error in scaled.iter_errors(document)]
            for found in document["spec"]["triggers"]:
                problems += [f"{name}: {text}" for text in trigger(found, scalers)]
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                problems.append(f"{name}: Kubernetes {version}: {where(error)}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                problems.append(f"{name}: {error.message}")
