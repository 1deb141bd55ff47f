"""Checks the manifests of deploy/kubernetes:

    python check.py BINARY

Schemas: those of Kubernetes, strictly, in the oldest version that the manifests are for and in the newest;
those of the custom resources, cut down to the fields in use, are in custom_resources.json. Beyond schemas:
what fits together, and that BINARY starts with the container's arguments and has the metrics that are named.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import jsonschema
import yaml
from kubernetes_validate.utils import ValidationError, latest_version, validate

HERE = Path(__file__).parent
MANIFESTS = HERE.parents[1] / "deploy" / "kubernetes"
CUSTOM_RESOURCES = json.loads((HERE / "custom_resources.json").read_text())
OLDEST_VERSION = "1.30"


def check(condition, problem):
    if not condition:
        sys.exit(f"tests/deploy: {problem}")


def render(folder):
    """Returns the manifests of a kustomization, or the base's files if there is no kustomize."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            output = subprocess.run([*command, folder], capture_output=True, text=True)
            check(output.returncode == 0, f"{folder.name}: {output.stderr}")
            return list(yaml.safe_load_all(output.stdout))
    print(f"tests/deploy: neither kubectl nor kustomize found: the base's files stand in for {folder.name}")
    files = sorted((MANIFESTS / "base").glob("*.yaml"))
    return [yaml.safe_load(file.read_text()) for file in files if file.name != "kustomization.yaml"]


def check_schema(name, manifest):
    kind = f"{manifest['apiVersion']} {manifest['kind']}"
    try:
        if kind in CUSTOM_RESOURCES:
            jsonschema.validate(manifest["spec"], CUSTOM_RESOURCES[kind])
            return
        for version in (OLDEST_VERSION, latest_version()):
            validate(manifest, version, strict=True)
    except (jsonschema.ValidationError, ValidationError) as error:
        sys.exit(f"tests/deploy: {name}: {kind}: {'.'.join(map(str, error.path))}: {error.message}")


def of_kind(manifests, kind):
    return [manifest["spec"] for manifest in manifests if manifest["kind"] == kind]


def check_selectors(name, manifests):
    """Every selector selects the pods: an empty one would select all pods of a namespace, or none."""
    (deployment,) = of_kind(manifests, "Deployment")
    labels = deployment["template"]["metadata"]["labels"]
    for kind, field in [
        ("Deployment", "selector"),
        ("Service", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
        ("PodMonitor", "selector"),
    ]:
        for spec in of_kind(manifests, kind):
            selector = spec.get(field, {})
            selected = selector.get("matchLabels") if kind != "Service" else selector
            check(selected == labels, f"{name}: {kind} selects {selected}, expected {labels}")


def check_pod(name, manifests):
    (deployment,) = of_kind(manifests, "Deployment")
    pod = deployment["template"]["spec"]
    (server,) = pod["containers"]
    for container in [server, *pod.get("initContainers", [])]:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        place = f"{name}: {container['name']}"
        check(requests == limits, f"{place}: requests are {requests}, limits {limits}")
        check(re.fullmatch("[0-9]+", requests["cpu"]), f"{place}: {requests['cpu']} CPUs are not whole cores")
        read_only = container["securityContext"]["readOnlyRootFilesystem"]
        check(read_only, f"{place}: the root file system is writable")
    grace = int(server["args"][server["args"].index("--grace") + 1])
    grace += server["lifecycle"]["preStop"]["sleep"]["seconds"]
    given = pod["terminationGracePeriodSeconds"]
    check(given > grace, f"{name}: terminationGracePeriodSeconds is {given}, but stopping takes {grace}")


def check_program(binary, manifests):
    """Starts the program with the container's arguments, probes it, and looks for the query's metrics."""
    (deployment,) = of_kind(manifests, "Deployment")
    (server,) = deployment["template"]["spec"]["containers"]
    with tempfile.TemporaryDirectory() as folder:
        keys = f"{folder}/keys.toml"
        command = [binary, "keys", "add", "prometheus", "--keys", keys]
        key = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        replacements = {"/keys/keys.toml": keys, "0.0.0.0": "127.0.0.1"}
        arguments = [replacements.get(argument, argument) for argument in server["args"]]
        log = Path(folder, "log")
        with log.open("wb") as stderr:
            process = subprocess.Popen([binary, *arguments, "--port", str(port)], stderr=stderr)
        try:
            health = server["readinessProbe"]["httpGet"]["path"]
            deadline = time.monotonic() + 30
            while not is_healthy(f"http://127.0.0.1:{port}{health}"):
                running = process.poll() is None and time.monotonic() < deadline
                check(running, f"{arguments}: the server is not ready: {log.read_text()}")
                time.sleep(0.05)
            headers = {"Authorization": f"Bearer {key}"}
            with urlopen(Request(f"http://127.0.0.1:{port}/metrics", headers=headers)) as response:
                metrics = response.read().decode()
        finally:
            process.kill()
            process.wait()
    for scaled in of_kind(manifests, "ScaledObject"):
        names = re.findall(r"hornbook_\w+", scaled["triggers"][0]["metadata"]["query"])
        for name in names:
            check(re.search(rf"^{name}\{{", metrics, re.M), f"/metrics has no {name}")


def is_healthy(url):
    try:
        with urlopen(url, timeout=5) as response:
            return response.status == 200
    except URLError:
        return False


def main():
    for name in ("base", "example"):
        manifests = render(MANIFESTS / name)
        for manifest in manifests:
            check_schema(name, manifest)
        check_selectors(name, manifests)
        check_pod(name, manifests)
    check_program(sys.argv[1], manifests)
    kinds = ", ".join(manifest["kind"] for manifest in manifests)
    print(f"tests/deploy: Kubernetes {OLDEST_VERSION} and {latest_version()}: {kinds}")


main()
