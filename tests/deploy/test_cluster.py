"""What `deploy/` brings to a cluster, held against those who will read it: Kubernetes' schemas, KubeRay's, Ray's own
reading of both kinds of files, and our config, whose pools must find their nodes there.

KubeRay's schemas lie beside the checkout, in ../shared/kuberay. Nothing here starts a cluster.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from pipeline.config.loading import load
from pipeline.pools.nodes import of_pool
from pipeline.pools.room import Asked, NodeType, Offer, is_there
from pipeline.records import Failure

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERAY = ROOT.parent / "shared" / "kuberay"
VERSIONS = ("1.30", "1.37")
"""Of Kubernetes, the oldest and the newest that the manifests are held against."""
CONFIG = load(DEPLOY / "configs" / "qwen3-4b-cluster.yaml")
DOCUMENTS = {
    f"{file.name}:{document['kind']}:{document['metadata']['name']}": document
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
}
OF_KUBERAY = {name: d for name, d in DOCUMENTS.items() if d["apiVersion"].startswith("ray.io/")}
OF_KUBERNETES = {name: d for name, d in DOCUMENTS.items() if name not in OF_KUBERAY}
(CLUSTER,) = [d for d in OF_KUBERAY.values() if d["kind"] == "RayCluster"]
(JOB,) = [d for d in OF_KUBERAY.values() if d["kind"] == "RayJob"]
POLICIES = [d["spec"] for d in OF_KUBERNETES.values() if d["kind"] == "NetworkPolicy"]
RAY_UP = sorted((DEPLOY / "ray-up").glob("*.yaml"))


def groups() -> dict[str, dict[str, Any]]:
    """Pod templates of the cluster, by pool."""
    spec = CLUSTER["spec"]
    return {"head": spec["headGroupSpec"]["template"]} | {
        g["groupName"]: g["template"] for g in spec["workerGroupSpecs"]
    }


PODS = groups() | {"submitter": JOB["spec"]["submitterPodTemplate"]}


# ---------------------------------------------------------------- schemas


def closed(schema: Any) -> Any:
    """A schema of a custom resource, with unknown fields as errors."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        inner.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields", False)))
    return inner


def schema_of(kind: str) -> Any:
    file = KUBERAY / f"{kind.lower()}s.v1.schema.json"
    if not file.exists():
        pytest.skip(f"KubeRay's schemas are not beside this checkout ({KUBERAY})")
    whole = closed(json.loads(file.read_text(encoding="utf-8")))
    # Of the metadata of a whole document Kubernetes itself has the schema.
    whole["properties"]["metadata"] = {"type": "object"}
    return whole


def errors(document: dict[str, Any]) -> list[str]:
    found = jsonschema.Draft202012Validator(schema_of(document["kind"])).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OF_KUBERNETES)
def test_kubernetes_knows_every_field_of_its_manifests(name, version):
    kubernetes_validate.validate(OF_KUBERNETES[name], version, strict=True)


@pytest.mark.parametrize("name", OF_KUBERAY)
def test_kuberay_knows_every_field_of_its_manifests(name):
    assert errors(OF_KUBERAY[name]) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", PODS)
def test_kubernetes_knows_every_field_of_the_pods(name, version):
    template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": PODS[name]}
    kubernetes_validate.validate(template, version, strict=True)


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted path."""
    copy = deepcopy(document)
    node: Any = copy
    *to, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in to:
        node = node[part]
    node[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.headGroupSpec.replicas", 1),
        ("spec.workerGroupSpecs.0.maxReplicas", "3"),
        ("spec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.autoscalerOptions.version", "v3"),
        ("spec.workerGroupSpecs.1.template.spec.containers.0.securityContext.readonlyRootFilesystem", True),
        ("spec.headGroupSpec.template.spec.containers.0.livenessProbe.httpGet.route", "/"),
    ],
)
def test_a_field_that_kuberay_would_not_read_is_found(path, value):
    assert errors(CLUSTER) == [] and errors(changed(CLUSTER, path, value))


def test_a_field_that_kubernetes_would_not_read_is_found():
    policy = next(d for d in OF_KUBERNETES.values() if d["kind"] == "NetworkPolicy")
    for path, value in (("spec.policyType", ["Egress"]), ("spec.podSelector", [])):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(changed(policy, path, value), VERSIONS[0], strict=True)


def test_kuberay_accepts_what_its_schemas_do_not_say():
    """Of its operator's own checks, those that these files could fail."""
    for document in OF_KUBERAY.values():
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])?", document["metadata"]["name"])
    for spec in (CLUSTER["spec"], JOB["spec"]["rayClusterSpec"]):
        assert spec["authOptions"]["mode"] == "token" and spec["rayVersion"]
        assert all(pod["spec"].get("restartPolicy", "Never") == "Never" for pod in groups().values())  # autoscaler v2
        assert all("resources" not in group for group in spec["workerGroupSpecs"])  # rayStartParams has them
        assert all(0 <= g["minReplicas"] <= g["maxReplicas"] for g in spec["workerGroupSpecs"])
    assert JOB["spec"]["submissionMode"] == "K8sJobMode" and JOB["spec"]["ttlSecondsAfterFinished"] >= 0


# ---------------------------------------------------------------- nodes, as Ray reads them


def of_kubernetes() -> list[NodeType]:
    named = CLUSTER | {"metadata": CLUSTER["metadata"]}
    types = _derive_autoscaling_config_from_ray_cr(named)["available_node_types"]
    return [NodeType(name, t["resources"], t["max_workers"]) for name, t in types.items()]


def of_ray_up(file: Path) -> list[NodeType]:
    config = prepared(file)
    types = config["available_node_types"]
    return [
        NodeType(n, t["resources"], 0 if n == config["head_node_type"] else t["max_workers"]) for n, t in types.items()
    ]


@cache
def _prepared(file: Path) -> dict[str, Any]:
    return prepare_config(yaml.safe_load(file.read_text(encoding="utf-8")))


def prepared(file: Path) -> dict[str, Any]:
    """As `ray up` reads it, over the defaults of Ray for that cloud; it fills in the files of the user itself."""
    return deepcopy(_prepared(file)) | {"cluster_synced_files": []}


OFFERS = {"kubernetes": of_kubernetes, **{file.name: (lambda f=file: of_ray_up(f)) for file in RAY_UP}}
POOLS = {
    "proposer": CONFIG.proposer.pool,
    "solve.base": CONFIG.solve.base.pool,
    "teacher": CONFIG.teacher.pool,
    "committee": CONFIG.committee.pool,
    "prober": CONFIG.prober.pool,
    "sandbox": CONFIG.sandbox.pool,
    **{f"prober.ladder.{i}": model.pool for i, model in enumerate(CONFIG.prober.ladder)},
}
TRAINER = {"CPU": CONFIG.trainer.num_cpus, "GPU": 1.0, **CONFIG.trainer.resources}
ASKED = [Asked(name, pool.max_replicas, of_pool(pool)) for name, pool in POOLS.items()]
ASKED.append(Asked("trainer", CONFIG.trainer.workers, TRAINER))


def test_every_model_and_pool_of_the_config_is_asked_for():
    def pools(node: Any, where: str = "") -> set[str]:
        if isinstance(node, list):
            return set().union(*(pools(item, f"{where}.{i}") for i, item in enumerate(node)))
        if not isinstance(node, dict):
            return set()
        own = {where} if "pool" in node else set()
        return own.union(*(pools(v, f"{where}.{k}".lstrip(".")) for k, v in node.items()))

    assert pools(CONFIG.model_dump(mode="json")) == set(POOLS)


@pytest.mark.parametrize("where", OFFERS)
@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.who)
def test_a_pool_finds_room_at_its_largest_on_nodes_of_its_own_kind_alone(where, asked):
    types = OFFERS[where]()
    assert is_there(asked, Offer([], types)) is False  # it would raise where it could never come
    (kind,) = [name for name in asked.each if name not in ("CPU", "GPU")]
    fitting = [t.name for t in types if all(t.resources.get(name, 0) >= amount for name, amount in asked.each.items())]
    assert fitting == [kind]
    with pytest.raises(Failure, match="can never offer"):
        is_there(asked, Offer([], [t for t in types if t.name != kind]))


@pytest.mark.parametrize("where", OFFERS)
def test_all_pools_that_are_up_together_have_room_at_their_largest(where):
    """`solve` has taken the proposer down before its student comes."""
    offered: dict[str, float] = {}
    for kind in OFFERS[where]():
        for name, amount in kind.resources.items():
            offered[name] = offered.get(name, 0) + amount * kind.most
    for left_out in ("proposer", "solve.base"):
        wanted: dict[str, float] = {}
        for asked in ASKED:
            if asked.who != left_out:
                for name, amount in asked.each.items():
                    wanted[name] = wanted.get(name, 0) + amount * asked.count
        assert all(amount <= offered[name] + 1e-6 for name, amount in wanted.items()), (wanted, offered)


@pytest.mark.parametrize("where", OFFERS)
def test_the_head_does_no_work_and_nothing_waits_on_paid_nodes(where):
    head, *others = OFFERS[where]()
    assert head.resources["CPU"] == 0 and not head.resources.get("GPU") and len(others) == 5
    assert all(t.most >= 1 for t in others)
    if where == "kubernetes":
        assert all(group["minReplicas"] == 0 for group in CLUSTER["spec"]["workerGroupSpecs"])
    else:
        types = prepared(DEPLOY / "ray-up" / where)["available_node_types"]
        assert all(t["min_workers"] == 0 for t in types.values())


@pytest.mark.parametrize("file", RAY_UP, ids=lambda file: file.name)
def test_ray_accepts_its_cluster_files(file):
    validate_config(prepared(file))
    wrong = prepared(file)
    wrong["docker"]["worker_images"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        validate_config(wrong)


def test_every_place_that_names_a_version_of_ray_names_the_one_that_is_pinned():
    pinned = re.search(r'"ray\[[^]]*\]==([0-9.]+)"', (ROOT / "pyproject.toml").read_text()).group(1)
    assert pinned == ray.__version__ == CLUSTER["spec"]["rayVersion"]


# ---------------------------------------------------------------- pods


@pytest.mark.parametrize("name", PODS)
def test_pods_are_as_closed_as_the_namespace_wants_them(name):
    """Pod Security's level `restricted`, and more: no token of Kubernetes, no writable root, memory that is kept."""
    (namespace,) = [d for d in OF_KUBERNETES.values() if d["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = PODS[name]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
    assert {kind for volume in spec["volumes"] for kind in volume} <= {"name", "emptyDir", "persistentVolumeClaim"}
    whole = spec["securityContext"]
    assert whole["runAsNonRoot"] is True and whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec.get("automountServiceAccountToken", name == "head") is (name == "head")  # its autoscaler needs one
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests["memory"] == limits["memory"]
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert (
        CLUSTER["spec"]["autoscalerOptions"]["securityContext"]
        == PODS["head"]["spec"]["containers"][0]["securityContext"]
    )


@pytest.mark.parametrize("name", groups())
def test_probes_ask_what_rays_agent_answers_without_a_token(name):
    (container,) = PODS[name]["spec"]["containers"]
    source = (Path(ray.__file__).parent / "dashboard" / "http_server_agent.py").read_text()
    open_paths = re.search(r"^PUBLIC_EXACT_PATHS = \[(.*?)\]", source, re.S | re.M).group(1)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert f'"{asked["path"]}"' in open_paths and asked["port"] == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT


def test_all_nodes_see_the_run_the_models_and_the_replies_at_the_same_place():
    (claim,) = [d["metadata"]["name"] for d in OF_KUBERNETES.values() if d["kind"] == "PersistentVolumeClaim"]
    for pod in groups().values():
        volumes = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert mounted["/shared"] == claim
        assert {e["name"]: e["value"] for e in container["env"]}["HF_HOME"].startswith("/shared/")
    for file in RAY_UP:
        options = prepared(file)["docker"]["run_options"]
        assert "--volume=/shared:/shared" in options and "--env=HF_HOME=/shared/hf" in options
    paths = [CONFIG.replies, *CONFIG.acquire.corpus, CONFIG.evaluate.benchmark]
    assert all(path.startswith("/shared/") for path in paths)


def test_keys_are_where_the_driver_is_and_nowhere_else():
    """It gives them to the replicas that ask endpoints."""
    assert [name for name, pod in PODS.items() if "envFrom" in pod["spec"]["containers"][0]] == ["head"]
    assert "secret" not in json.dumps([pod for name, pod in PODS.items() if name != "head"]).lower()


def spot(pod: dict[str, Any]) -> str:
    rules = pod["spec"]["affinity"]["nodeAffinity"]
    return "never" if "requiredDuringSchedulingIgnoredDuringExecution" in rules else "preferred"


def test_what_a_run_cannot_lose_is_kept_from_spot_machines():
    assert {n for n, pod in groups().items() if spot(pod) == "never"} == {"head", "trainer"}
    for name, pod in groups().items():
        keys = {t["key"] for t in pod["spec"].get("tolerations", [])}
        assert ("cloud.google.com/gke-spot" in keys) is (spot(pod) == "preferred"), name
        kept = pod["metadata"].get("annotations", {}).get("cluster-autoscaler.kubernetes.io/safe-to-evict")
        assert (kept == "false") is (spot(pod) == "never")
    for file in RAY_UP:
        types = prepared(file)["available_node_types"]
        paid_less = {n for n, t in types.items() if re.search(r"spot", json.dumps(t["node_config"]), re.I)}
        assert paid_less == set(types) - {"head", "trainer"}


def test_gpus_images_and_tolerations_go_together():
    for name, pod in PODS.items():
        (container,) = pod["spec"]["containers"]
        limits = container["resources"]["limits"]
        gpus = int(limits.get("nvidia.com/gpu", 0))
        assert container["image"].endswith(":gpu" if gpus else ":cpu")
        assert any(t["key"] == "nvidia.com/gpu" for t in pod["spec"].get("tolerations", [])) is bool(gpus)
        assert (name in ("policy", "prober", "trainer")) is bool(gpus)
    for file in RAY_UP:
        config = prepared(file)
        for kind in config["available_node_types"].values():
            image = kind.get("docker", {}).get("worker_image", config["docker"]["worker_image"])
            assert image.endswith(":gpu" if kind["resources"].get("GPU") else ":cpu")


# ---------------------------------------------------------------- network


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    by = {"In": lambda have, values: have in values, "NotIn": lambda have, values: have not in values}
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items()) and all(
        by[e["operator"]](labels.get(e["key"]), e["values"]) for e in selector.get("matchExpressions", [])
    )


def rules(name: str, direction: str) -> list[dict[str, Any]] | None:
    """What a pod may reach, or who may reach it; None where anybody may."""
    labels = PODS[name]["metadata"]["labels"]
    mine = [p for p in POLICIES if direction.title() in p["policyTypes"] and selects(p["podSelector"], labels)]
    return [rule for policy in mine for rule in policy.get(direction, [])] if mine else None


@pytest.mark.parametrize("name", PODS)
def test_only_who_asks_endpoints_reaches_the_world_and_nobody_what_a_cloud_tells_its_machines(name):
    out = rules(name, "egress")
    assert out is not None
    blocks = [to["ipBlock"] for rule in out for to in rule["to"] if "ipBlock" in to]
    assert bool(blocks) is (name in ("head", "judging"))
    assert all("169.254.0.0/16" in block["except"] for block in blocks)
    within = [
        to["podSelector"] for rule in out for to in rule["to"] if "namespaceSelector" not in to and "podSelector" in to
    ]
    assert all(any(selects(to, pod["metadata"]["labels"]) for to in within) for pod in PODS.values())
    assert any({"port": 53, "protocol": "UDP"} in rule.get("ports", []) for rule in out)  # names


@pytest.mark.parametrize("name", PODS)
def test_only_the_cluster_itself_the_operator_and_prometheus_come_in(name):
    into = rules(name, "ingress")
    assert into is not None
    others = [(rule, by) for rule in into for by in rule["from"] if "namespaceSelector" in by]
    ports = {port["port"] for rule, _ in others for port in rule["ports"]}
    declared = {p["containerPort"] for p in PODS[name]["spec"]["containers"][0].get("ports", [])}
    assert ports == ({8265, 8080} if name == "head" else {8080})
    assert name == "submitter" or ports <= declared
    assert all("namespaceSelector" in by or selects(by["podSelector"], PODS[name]["metadata"]["labels"])
               for rule in into for by in rule["from"])  # fmt: skip
