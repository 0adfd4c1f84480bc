#!/usr/bin/env python3
"""Checks what `kubectl kustomize` makes of each directory here, and makes pods of it that podman can run.

    check.py validate FILE...      against the published schemas, and across files
    check.py pods FILE NAME...     prints as many pods of the workload in FILE, with these names, and the ConfigMaps
        --ca PEM                   what trust-manager would put into the ConfigMap `vouchsafe-ca`
        --host NAME=ADDRESS        a line for /etc/hosts, where the cluster would have DNS
        --replace OLD=NEW          replaces an argument of the tool

podman knows no Job, no CronJob and no native sidecar: `pods` takes the pod's template out of the resource, and has the
sidecar start with the tool instead of before it. Everything else stays as it is in the cluster.
"""

import argparse
import copy
import sys

import kubernetes_validate
import yaml

# The first with native sidecars and `preStop.sleep` switched on, and the newest that has schemas.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
# trust-manager's own kind has no schema there; `across` holds it to the ConfigMap that the pods mount.
OWN_KINDS = {"Bundle"}
# The profile `restricted` of the Pod Security Standards, and a root file system that cannot be written.
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def load(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document]


def name_of(resource):
    return f"{resource['kind']} {resource['metadata']['name']}"


def template(resource):
    """The template of a workload's pods; None for other resources."""
    spec = resource.get("spec", {})
    if resource["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template")


def validate(paths):
    resources = [resource for path in paths for resource in load(path)]
    for resource in resources:
        if resource["kind"] not in OWN_KINDS:
            for version in VERSIONS:
                kubernetes_validate.validate(resource, version, strict=True)
    problems = [problem for resource in resources for problem in alone(resource)] + list(across(resources))
    if problems:
        sys.exit("error: " + "\nerror: ".join(problems))
    print(f"{len(resources)} resources are valid for Kubernetes {' and '.join(VERSIONS)}")


def alone(resource):
    """What is promised of each pod."""
    pod = (template(resource) or {}).get("spec")
    if not pod:
        return
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{name_of(resource)} mounts a token"
    for container in pod["containers"] + pod.get("initContainers", []):
        name = f"{name_of(resource)}: container {container['name']}"
        context = container.get("securityContext", {})
        if not RESTRICTED.items() <= context.items() or not context.get("runAsUser"):
            yield f"{name} is not restricted"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{name} has no limit of memory"
        if any("subPath" in mount for mount in container.get("volumeMounts", [])):
            yield f"{name} mounts a single file, which never changes"
    if resource["metadata"].get("labels", {}).get("vouchsafe") == "sidecar":
        first = pod.get("initContainers", [{}])[0]
        if first.get("restartPolicy") != "Always" or "startupProbe" not in first:
            yield f"{name_of(resource)} has no native sidecar"


def across(resources):
    """References between resources, which no schema knows."""

    def of(*kinds):
        return [resource for resource in resources if resource["kind"] in kinds]

    pods = [pod for pod in map(template, resources) if pod]
    maps = {resource["metadata"]["name"] for resource in of("ConfigMap", "Bundle")}
    for volume in (volume for pod in pods for volume in pod["spec"].get("volumes", [])):
        if volume.get("configMap", {}).get("name") not in maps | {None}:
            yield f"nothing makes the ConfigMap of volume {volume['name']}"
    for bundle in of("Bundle"):
        path = f"/etc/{bundle['metadata']['name']}/{bundle['spec']['target']['configMap']['key']}"
        for config in of("ConfigMap"):
            if f'ca_bundle = "{path}"' not in config["data"]["vouchsafe.toml"]:
                yield f"{name_of(config)} does not trust {path}"
    for resource in of("Service", "PodDisruptionBudget", "NetworkPolicy"):
        selector = resource["spec"].get("selector") or resource["spec"]["podSelector"]
        selector = selector.get("matchLabels", selector)
        if not any(selector.items() <= pod["metadata"]["labels"].items() for pod in pods):
            yield f"{name_of(resource)} selects no pod"
    for scaler in of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        scaled = [each for each in of(target["kind"]) if each["metadata"]["name"] == target["name"]]
        if not scaled or "replicas" in scaled[0]["spec"]:
            yield f"{name_of(scaler)}: no {target['kind']} {target['name']} leaves the number of replicas to it"
        if scaler["spec"]["minReplicas"] < 2:
            yield f"{name_of(scaler)}: one replica cannot be replaced without a gap"


def pods(arguments):
    resources = load(arguments.file)
    workload = next(resource for resource in resources if template(resource))
    with open(arguments.ca, encoding="utf-8") as file:
        authority = {"ca-bundle.pem": file.read()}
    made = [resource for resource in resources if resource["kind"] == "ConfigMap"]
    made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vouchsafe-ca"}, "data": authority})
    for name in arguments.names:
        pod = copy.deepcopy(template(workload))
        spec = pod["spec"]
        pod.update(apiVersion="v1", kind="Pod")
        pod["metadata"]["name"] = name
        spec["containers"] = spec.pop("initContainers", []) + spec["containers"]
        for container in spec["containers"]:
            container.pop("restartPolicy", None)
            # podman would publish them on the host.
            container.pop("ports", None)
            for mount in container.get("volumeMounts", []):
                mount["name"] = f"{name}-{mount['name']}"
            container["imagePullPolicy"] = "Never"
            container["args"] = [arguments.replace.get(word, word) for word in container["args"]]
        # podman's volumes are the host's, and not the pod's: two pods with the same names would share them.
        for volume in spec["volumes"]:
            volume["name"] = f"{name}-{volume['name']}"
        hosts = {}
        for host, address in arguments.host:
            hosts.setdefault(address, []).append(host)
        spec["hostAliases"] = [{"ip": address, "hostnames": names} for address, names in hosts.items()]
        made.append(pod)
    yaml.safe_dump_all(made, sys.stdout, sort_keys=False)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("validate")
    command.add_argument("files", nargs="+")
    command = commands.add_parser("pods")
    command.add_argument("file")
    command.add_argument("names", nargs="+")
    command.add_argument("--ca", required=True)
    pair = lambda text: tuple(text.split("=", 1))
    command.add_argument("--host", action="append", type=pair, default=[])
    command.add_argument("--replace", action="append", type=pair, default=[])
    arguments = parser.parse_args()
    if arguments.command == "validate":
        validate(arguments.files)
    else:
        arguments.replace = dict(arguments.replace)
        pods(arguments)


main()
