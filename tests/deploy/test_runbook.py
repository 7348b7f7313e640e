"""What runs on a cluster that `deploy/` makes: programs in the sandbox's pod, the job's entrypoint, the images, the
commands of the runbook. What the manifests say: `test_cluster.py`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.scripts.scripts import cli as ray_cli

from deploy.kubernetes import rayjob
from pipeline.commands.groups.base import MEANS, RETRY
from pipeline.config.loading import load
from tests.deploy.test_cluster import CLUSTER, CONFIG, DEPLOY, JOB, PODS, RAY_UP, ROOT
from tests.deploy.test_docs import parsed

DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the sandbox


@pytest.mark.skipif(os.geteuid() != 0, reason="another platform can be simulated by root alone")
def test_the_sandbox_reaches_the_level_of_the_config_under_the_context_of_its_pod():
    """No capabilities, no_new_privs, an ordinary user and the runtime's filter are what `k8s-restricted` simulates."""
    context = PODS["sandbox"]["spec"]["containers"][0]["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]} and context["allowPrivilegeEscalation"] is False
    code = f"""
from sandbox import Request, Slot
with Slot(minimum={CONFIG.sandbox.minimum!r}) as slot:
    print(slot.run(Request("print(6 * 7)")).stdout)
"""
    command = [sys.executable, "-m", "tests.sandbox.simulate", "k8s-restricted", "--", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "42"), done.stderr


# ---------------------------------------------------------------- the job


def test_the_job_is_what_its_code_says_on_the_same_cluster():
    assert rayjob.FILE.read_text() == rayjob.text(), "run `python -m deploy.kubernetes.rayjob`"
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]


def test_the_entrypoint_is_a_command_of_ours_in_the_image_on_storage_that_all_nodes_see():
    script, *words = shlex.split(JOB["spec"]["entrypoint"])
    assert not set("|&;<>()$`") & set(JOB["spec"]["entrypoint"])  # KubeRay pastes it into a shell's line
    image = Path("/propose")
    file = ROOT / Path(script).relative_to(image)
    assert file.is_file() and os.access(file, os.X_OK)
    name, params = parsed(words)
    assert name == "run" and (ROOT / Path(params["name"]).relative_to(image)).is_file()
    assert str(params["run_dir"]).startswith("/shared/")
    assert load(ROOT / Path(params["name"]).relative_to(image)) == CONFIG
    assert JOB["spec"]["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


def job(tmp_path: Path, codes: list[int], **env: str) -> tuple[int, list[str]]:
    """Exit code of job.sh over a `propose` that ends with these codes in turn, the last of them for ever; its calls."""
    calls = tmp_path / "calls"
    (tmp_path / "propose").write_text(
        f'#!/bin/bash\ncodes=({" ".join(map(str, codes))})\ntouch {calls}\nn=$(wc -l <{calls})\necho "$@" >>{calls}\n'
        f"exit ${{codes[$((n < {len(codes)} ? n : {len(codes) - 1}))]}}\n"
    )
    (tmp_path / "propose").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PROPOSE_PAUSE_S": "0"} | env
    done = subprocess.run([DEPLOY / "job.sh", "run", "a b.yaml"], env=env, capture_output=True, text=True, timeout=30)
    return done.returncode, calls.read_text().splitlines()


@pytest.mark.parametrize("code", sorted(MEANS))
def test_a_job_is_begun_again_for_the_exit_code_that_says_so_and_for_no_other(tmp_path, code):
    ended, calls = job(tmp_path, [code, 0])
    assert (ended, len(calls)) == ((0, 2) if code == RETRY else (code, 1))
    assert set(calls) == {"run a b.yaml"}


def test_a_job_gives_up_after_so_many_tries_with_the_code_of_the_last(tmp_path):
    assert job(tmp_path, [RETRY], PROPOSE_TRIES="3") == (RETRY, ["run a b.yaml"] * 3)


@pytest.mark.parametrize("when", ["while it works", "while it pauses"])
def test_a_job_that_is_stopped_is_not_begun_again(tmp_path, when):
    working = when == "while it works"
    script = f"#!/bin/bash\necho begun\n{'sleep 0.5' if working else ':'}\nexit {RETRY}\n"
    (tmp_path / "propose").write_text(script)
    (tmp_path / "propose").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PROPOSE_PAUSE_S": "60"}
    with subprocess.Popen(
        [DEPLOY / "job.sh", "run"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        if not working:
            assert "the next one in 60 s" in process.stderr.readline()
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == (RETRY if working else 130) and out == ""


# ---------------------------------------------------------------- the images


def test_the_images_that_are_named_are_those_that_the_dockerfile_says_how_to_make():
    tags = re.findall(r"^#   docker build .*--target cluster --build-arg DEVICE=(\w+) -t (\S+) \.$", DOCKERFILE, re.M)
    assert dict(tags) == {"cpu": "registry.example/propose:cpu", "gpu": "registry.example/propose:gpu"}
    named = {image for pod in PODS.values() for image in (pod["spec"]["containers"][0]["image"],)}
    for file in RAY_UP:
        named |= set(re.findall(r"_image: (\S+)", file.read_text()))
    assert named == set(dict(tags).values())


def stage(name: str) -> str:
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.S | re.M)
    assert found, name
    return found.group(1)


def test_the_image_of_a_node_has_what_those_who_start_it_use():
    cluster = stage("cluster")
    installed = set(re.search(r"--no-install-recommends (.*?) *\\\n", cluster).group(1).split())
    # setup.sh, the sandbox's C++; KubeRay's probes for earlier Rays; `ray up`.
    assert {"libnuma1", "g++", "wget", "rsync"} <= installed
    assert "ENTRYPOINT" not in cluster  # `ray up` starts `bash`
    assert re.search(r"^ENV PATH=/propose/.venv/bin:\$PATH", cluster, re.M) and "/etc/profile.d/" in cluster
    assert "WORKDIR /propose\nCOPY . .\n" in cluster
    users = re.findall(r"^USER (\S+)$", cluster, re.M)
    contexts = [pod["spec"]["securityContext"] for pod in PODS.values()]
    assert {f"{c['runAsUser']}:{c['runAsGroup']}" for c in contexts} == {users[-1]} and users[-1] != "0:0"
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"deploy", "pipeline", "actors", "trainers", "sandbox", "pyproject.toml"} & set(ignored)
    assert 'ENTRYPOINT ["./deploy/run.sh"]' in stage("alone") and "FROM cluster AS alone" in DOCKERFILE


# ---------------------------------------------------------------- the runbook


PAGE = (DEPLOY / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"^    ((?:kubectl|ray|docker|export) .*)$", PAGE, re.M)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("ray ")])
def test_every_command_of_rays_in_the_runbook_is_one(line):
    group: Any = ray_cli
    name, *words = shlex.split(line)
    while hasattr(group, "commands"):
        name, words = words[0], words[1:]
        group = group.commands[name]
    params = group.make_context(name, list(words)).params
    if "cluster_config_file" in params:
        assert (ROOT / params["cluster_config_file"]).is_file()
    if "--" in words:
        assert words[words.index("--") + 1 :] == shlex.split(JOB["spec"]["entrypoint"])


@pytest.mark.parametrize("line", [line for line in LINES if "kubectl " in line])
def test_every_object_that_the_runbook_names_is_one_of_the_manifests(line):
    cluster, one_run = CLUSTER["metadata"]["name"], JOB["metadata"]["name"]
    said = re.search(r"kubectl [^|)]*", line).group(0)
    assert all((ROOT / file).is_file() for file in re.findall(r"-f (\S+)", said))
    if "-f " not in said:
        assert said.split()[1:3] == ["-n", CLUSTER["metadata"]["namespace"]]
    known = {
        r"service/(\S+)": f"{cluster}-head-svc",
        r"get secret (\S+)": cluster,
        r"job-name=(\S+)": one_run,
        r"delete rayjob (\S+)": one_run,
        r"delete raycluster (\S+)": cluster,
        r"secret generic (\S+)": PODS["head"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"],
        r"--container (\S+)": PODS["head"]["spec"]["containers"][0]["name"],
    }
    for pattern, name in known.items():
        assert all(found == name for found in re.findall(pattern, said))
    if " -- propose " in said:
        name, params = parsed(shlex.split(said)[shlex.split(said).index("--") + 2 :])
        assert name == "status" and params["name"] in JOB["spec"]["entrypoint"]


def test_the_runbook_makes_the_images_that_the_dockerfile_does():
    assert [line for line in LINES if line.startswith("docker build")] == [
        line for line in re.findall(r"^#   (docker build .*)$", DOCKERFILE, re.M) if "--target" in line
    ]
    assert len([line for line in LINES if line.startswith("ray ")]) >= 6
