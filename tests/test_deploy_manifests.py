"""The folders in deploy/: valid for every Kubernetes of today, restricted, and in agreement with the service."""

from __future__ import annotations

import os
import re
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from service.processes.draining import HANDOVER_S
from service.processes.resources import Resources, Share, share
from service.settings import Settings
from tests.conftest import REPOSITORY
from tests.manifests import DEPLOY, OVERLAYS, Manifest, custom_schema, needs, one, render

KUBERNETES = ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36"]
CUSTOM = ("gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com", "serving.kserve.io")
FOLDERS = [f"overlays/{name}" for name in OVERLAYS] + ["jobs"]
WITH_DEPLOYMENT = [folder for folder in FOLDERS if folder not in ("overlays/kserve", "jobs")]
# Beyond what is counted, for a node that is busy: the last metrics, the batcher, Python's own end.
SPARE_S = 5


def is_custom(resource: Manifest) -> bool:
    return resource["apiVersion"].split("/")[0] in CUSTOM


def pod(resources: list[Manifest]) -> dict[str, Any]:
    """The spec of the pods that a folder runs."""
    if any(r["kind"] == "ServingRuntime" for r in resources):
        runtime: dict[str, Any] = one(resources, "ServingRuntime")["spec"]
        return runtime | {
            "terminationGracePeriodSeconds": one(resources, "InferenceService")["spec"]["predictor"][
                "terminationGracePeriodSeconds"
            ]
        }
    (controller,) = [r for r in resources if r["kind"] in ("Deployment", "Job")]
    spec: dict[str, Any] = controller["spec"]["template"]["spec"]
    return spec


def settings_of(resources: list[Manifest]) -> Settings:
    """The settings that a server starts with, as the container's variables and arguments give them."""
    container = pod(resources)["containers"][0]
    variables = {"DIGITSERVE_DRAIN_DELAY_S": "5"}  # the image's own
    for source in container.get("envFrom", []):
        variables |= one(resources, "ConfigMap", source["configMapRef"]["name"])["data"]
    variables |= {variable["name"]: variable["value"] for variable in container.get("env", [])}
    known = {"DIGITSERVE_" + name.upper() for name in Settings.__dataclass_fields__}
    assert variables.keys() <= known, f"no settings: {variables.keys() - known}"
    # KServe fills in its templates.
    arguments = [argument.replace("{{.Name}}", "digits") for argument in container["args"][1:]]
    flags = dict(argument.removeprefix("--").split("=") for argument in arguments)
    return Settings.load({name.replace("-", "_"): value for name, value in flags.items()}, variables)


def amount(text: str) -> float:
    """A quantity of Kubernetes' as a number: "500m" is 0.5, "256Mi" as many bytes."""
    number, unit = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 0.001, "Mi": 1 << 20, "Gi": 1 << 30}[unit]


def chosen_by(resources: list[Manifest]) -> Share:
    """The workers and threads that a server starts in the container's limits, on however large a node."""
    settings, limits = settings_of(resources), pod(resources)["containers"][0]["resources"]["limits"]
    room = Resources(bound=64, cpu_limit=amount(limits["cpu"]), memory_limit=int(amount(limits["memory"])))
    return share(room, workers=settings.workers, threads=settings.threads, decode_threads=settings.decode_threads)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_is_strictly_valid(folder: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for resource in render(folder):
        if not is_custom(resource):
            for version in KUBERNETES:
                validator.validate(resource, version, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_custom_resources_fit_their_schemas(folder: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for resource in filter(is_custom, render(folder)):
        jsonschema.Draft202012Validator(custom_schema(resource)).validate(resource)


def test_an_overlay_of_ones_own_as_the_documentation_has_it(tmp_path: Path) -> None:
    validator, yaml = pytest.importorskip("kubernetes_validate"), pytest.importorskip("yaml")
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    (written,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert "kind: Kustomization" in written
    (tmp_path / "kustomization.yaml").write_text(written.replace("../..", os.path.relpath(DEPLOY, tmp_path)))
    rendered = subprocess.run([needs("kubectl"), "kustomize", tmp_path], capture_output=True, text=True)
    assert rendered.returncode == 0, rendered.stderr
    resources = list(yaml.safe_load_all(rendered.stdout))
    for resource in resources:
        if not is_custom(resource):
            validator.validate(resource, KUBERNETES[-1], strict=True)
    (server, *_) = pod(resources)["containers"]
    assert server["image"] == "REGISTRY/digitserve:0.1.0" and server["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_validators_see_what_is_wrong() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    jsonschema = pytest.importorskip("jsonschema")
    scaler = one(render("overlays/cpu"), "HorizontalPodAutoscaler")
    with pytest.raises(validator.ValidationError):
        validator.validate(scaler | {"spec": scaler["spec"] | {"minReplica": 2}}, "1.34", strict=True)
    route = one(render("overlays/gateway"), "GRPCRoute")
    with pytest.raises(jsonschema.ValidationError):
        wrong = route | {"spec": route["spec"] | {"hosts": ["a"]}}
        jsonschema.Draft202012Validator(custom_schema(route)).validate(wrong)


@pytest.mark.parametrize("folder", [*WITH_DEPLOYMENT, "overlays/kserve"])
def test_the_grace_period_adds_up(folder: str) -> None:
    """Whoever is killed in the middle of its drain has lost calls that it had accepted."""
    resources = render(folder)
    spec, settings = pod(resources), settings_of(resources)
    (server, *_) = spec["containers"]
    before = server.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needed = before + settings.drain_delay_s + settings.drain_timeout_s + HANDOVER_S + SPARE_S
    assert needed <= spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("folder", [*WITH_DEPLOYMENT, "overlays/kserve"])
def test_workers_and_threads_follow_the_limits(folder: str) -> None:
    """On a GPU one worker does it all."""
    resources = render(folder)
    assert chosen_by(resources) == (Share(1, 1, 4) if folder == "overlays/gpu" else Share(1, 1, 1))
    assert settings_of(resources).workers == (1 if folder == "overlays/gpu" else "auto")


@pytest.mark.parametrize("folder", [each for each in WITH_DEPLOYMENT if each not in ("overlays/dev", "overlays/keda")])
def test_pods_are_added_before_the_event_loops_fill_a_core_each(folder: str) -> None:
    """Each worker has one, and one whose loop is full uses little more than that core: beyond it, none would come."""
    resources = render(folder)
    (metric,) = one(resources, "HorizontalPodAutoscaler")["spec"]["metrics"]
    container = next(c for c in pod(resources)["containers"] if c["name"] == metric["containerResource"]["container"])
    used = metric["containerResource"]["target"]["averageUtilization"] / 100
    workers = chosen_by(resources).workers
    assert used * amount(container["resources"]["requests"]["cpu"]) <= 0.9 * workers


@pytest.mark.parametrize("folder", [*WITH_DEPLOYMENT, "overlays/kserve"])
def test_s8_all_but_the_developers_server_are_in_production(folder: str) -> None:
    settings = settings_of(render(folder))
    assert settings.profile == ("default" if folder == "overlays/dev" else "production")
    assert settings.log_format == ("text" if folder == "overlays/dev" else "json")


def test_the_tokens_are_read_where_the_secret_is_mounted() -> None:
    resources = render("overlays/tokens")
    (server, *_), volumes = pod(resources)["containers"], pod(resources)["volumes"]
    mounted = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    (name,) = [
        volume["name"] for volume in volumes if volume.get("secret", {}).get("secretName") == "digitserve-tokens"
    ]
    assert settings_of(resources).token_file == f"{mounted[name]}/tokens"


@pytest.mark.parametrize("folder", FOLDERS)
def test_s10_pods_are_restricted(folder: str) -> None:
    """As the Pod Security Standard "restricted" demands, and a read-only root and no token beyond it."""
    resources = render(folder)
    spec = pod(resources)
    for container in chain(spec["containers"], spec.get("initContainers", [])):
        security = spec.get("securityContext", {}) | container["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
    holders = [spec, *(r["spec"]["predictor"] for r in resources if r["kind"] == "InferenceService")]
    assert any(holder.get("automountServiceAccountToken") is False for holder in holders)


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_lies_in_one_namespace(folder: str) -> None:
    names = {r["metadata"].get("namespace") for r in render(folder) if r["kind"] not in ("Namespace", "PriorityClass")}
    assert names == {"digitserve"}


@pytest.mark.parametrize("folder", WITH_DEPLOYMENT)
def test_names_point_at_what_is_there(folder: str) -> None:
    """Ports by their names, in Services, probes and openings of the network; Services by their selectors."""
    resources = render(folder)
    spec = pod(resources)
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    ports = {port["name"]: port["containerPort"] for container in containers for port in container["ports"]}
    for volume in spec.get("volumes", []):
        assert "configMap" not in volume or one(resources, "ConfigMap", volume["configMap"]["name"])
    labels = one(resources, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for service in (r["spec"] for r in resources if r["kind"] == "Service"):
        assert service["selector"].items() <= labels.items()
        for port in service["ports"]:
            assert port["targetPort"] in ports
            # Behind a headless Service callers reach the pods' own ports.
            assert service.get("clusterIP") != "None" or port["port"] == ports[port["targetPort"]]
    for policy in (r["spec"] for r in resources if r["kind"] == "NetworkPolicy"):
        for opening in policy.get("ingress", []):
            assert {port["port"] for port in opening["ports"]} <= ports.keys()
    for monitor in (r["spec"] for r in resources if r["kind"] == "ServiceMonitor"):
        headless = one(resources, "Service", "digitserve")
        assert monitor["selector"]["matchLabels"].items() <= headless["metadata"]["labels"].items()
        assert {e["port"] for e in monitor["endpoints"]} <= {port["name"] for port in headless["spec"]["ports"]}


def test_a_job_has_as_many_shards_as_completions() -> None:
    job = one(render("jobs"), "Job")["spec"]
    arguments = job["template"]["spec"]["containers"][0]["args"]
    assert f"--shard=$(INDEX)/{job['completions']}" in arguments and "--out=/results/$(INDEX).jsonl" in arguments
    (container,) = one(render("overlays/cpu"), "Deployment")["spec"]["template"]["spec"]["containers"]
    address = next(argument for argument in arguments if argument.startswith("--address="))
    assert address == f"--address={one(render('overlays/cpu'), 'Service', 'digitserve')['metadata']['name']}:8001"
    assert 8001 in {port["containerPort"] for port in container["ports"]}


def test_the_gpu_overlay_asks_for_one_gpu_and_no_less() -> None:
    resources = render("overlays/gpu")
    settings, (container,) = settings_of(resources), pod(resources)["containers"]
    assert (settings.device, settings.on_device_missing, settings.workers) == ("cuda", "fail", 1)
    assert settings.max_run_images <= settings.max_queue_images
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith(":gpu")
