"""`rayjob.yaml`: one run on a cluster of its own. Written by `python -m deploy.kubernetes.rayjob`.

Invariant: its cluster is that of `raycluster.yaml`, to the letter.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

FILE = Path(__file__).with_name("rayjob.yaml")
CLUSTER = Path(__file__).with_name("raycluster.yaml")

HEAD = """\
# One run on a cluster of its own, which KubeRay starts and takes down. Made by `python -m deploy.kubernetes.rayjob`:
# the cluster is that of raycluster.yaml.
#
#   kubectl create -f deploy/kubernetes/rayjob.yaml
#
# Made again after it was deleted, it goes on with the run: a run is known by its directory and its config.
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: propose
  namespace: propose
spec:
  # job.sh begins again where the exit code is 75, on the same cluster. KubeRay tells no exit code from another, and
  # begins again with a new cluster: for what ends without one, as with its head. A wrong config (2) ends twice at once.
  entrypoint: >-
    /propose/deploy/job.sh run /propose/deploy/configs/qwen3-4b-cluster.yaml
    --run-dir /shared/runs/qwen3-4b-cluster
  backoffLimit: 1
  submissionMode: K8sJobMode
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 600                        # to look at Ray's dashboard
  submitterConfig: {backoffLimit: 2}
  submitterPodTemplate:
    metadata:
      labels: {app.kubernetes.io/part-of: propose, propose/pool: submitter}
    spec:
      enableServiceLinks: false
      automountServiceAccountToken: false
      restartPolicy: Never
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 1000
        seccompProfile: {type: RuntimeDefault}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 1Gi}
      containers:
        - name: ray-job-submitter
          image: registry.example/propose:cpu
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          env:
            - {name: HOME, value: /tmp}
          resources:
            requests: {cpu: 500m, memory: 1Gi}
            limits: {cpu: "1", memory: 1Gi}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
  rayClusterSpec:
"""


def text() -> str:
    _, _, spec = CLUSTER.read_text(encoding="utf-8").partition("\nspec:\n")
    return HEAD + textwrap.indent(spec, "  ")


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
