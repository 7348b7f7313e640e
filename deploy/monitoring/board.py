"""The Grafana board of runs, as code. `python -m deploy.monitoring.board` writes board.json beside this file.

A row for each question that a user asks of a run: does it go on, does it learn, who is the bottleneck. Metrics of the
project's own are those of `pipeline.watch.figures`; those of Ray Serve and vLLM have their names from there.
"""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

FILE = Path(__file__).with_name("board.json")
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

_STAGE = '{run=~"$run", stage=~"$stage"}'
_RUN = '{run=~"$run"}'
_APP = '{application=~"($run)-.*"}'
_ENGINE = '{model_name=~"($run)-.*"}'


def _p(quantile: float, name: str, *by: str) -> str:
    sums = ", ".join(("le", *by))
    return f"histogram_quantile({quantile}, sum by ({sums}) (rate(ray_propose_{name}_seconds_bucket{_RUN}[5m])))"


ROWS: dict[str, dict[str, tuple[str, dict[str, str]]]] = {
    "Does it go on": {
        "Stages that run": ("none", {f"ray_propose_stage_running{_STAGE}": "{{run}} {{stage}}"}),
        "Attempts by how they ended, a second": (
            "ops",
            {
                f"rate(ray_propose_ledger_{end}_total{_STAGE}[5m])": f"{{{{stage}}}} {end}"
                for end in ("issued", "trained", "filtered", "failed")
            },
        ),
        "Tasks at each pool": ("none", {f"ray_propose_now_depth{_STAGE}": "{{stage}} {{of}}"}),
        "Without progress, and the watchdog's patience": (
            "s",
            {
                f"ray_propose_now_quiet_s{_STAGE}": "{{stage}} quiet",
                f"ray_propose_now_patience_s{_STAGE}": "{{stage}} patience",
                f"ray_propose_now_oldest_s{_STAGE}": "{{stage}} oldest task",
            },
        ),
        "Restarts of stages": ("none", {f"ray_propose_stage_restarts{_STAGE}": "{{stage}}"}),
        "Free on the disk of the run directory": ("bytes", {f"ray_propose_stage_disk_free_bytes{_STAGE}": "{{run}}"}),
    },
    "Is what it writes good": {
        "Accepted, submitted, undecided": (
            "percentunit",
            {
                f"ray_propose_step_{rate}_rate{_STAGE}": f"{{{{stage}}}} {rate}"
                for rate in ("accepted", "submitted", "undecided")
            },
        ),
        "Difficulty of accepted problems": (
            "percentunit",
            {
                f"ray_propose_step_difficulty{_STAGE}": "{{stage}} difficulty",
                f"ray_propose_step_unsolved_rate{_STAGE}": "{{stage}} never solved",
            },
        ),
        "Copies, pruned, failed tool calls": (
            "percentunit",
            {
                f"ray_propose_step_{rate}_rate{_STAGE}": f"{{{{stage}}}} {rate}"
                for rate in ("duplicate", "prune", "exec_error")
            },
        ),
        "Reward": ("none", {f"ray_propose_step_reward{_STAGE}": "{{stage}}"}),
    },
    "Does it learn": {
        "Loss": ("none", {f"ray_propose_train_loss{_STAGE}": "{{stage}}"}),
        "Entropy of the policy": ("none", {f"ray_propose_train_entropy{_STAGE}": "{{stage}}"}),
        "Divergence": (
            "none",
            {
                f"ray_propose_train_engine_kl{_STAGE}": "{{stage}} trainer from engine",
                f"ray_propose_train_ref_kl{_STAGE}": "{{stage}} policy from reference",
            },
        ),
        "A trainer's step": ("s", {f"ray_propose_train_time{_STAGE}": "{{stage}} {{of}}"}),
        "Staleness of rollouts": ("none", {f"ray_propose_step_staleness{_STAGE}": "{{stage}} {{of}} versions"}),
        "Weights, from trainer to all replicas": (
            "s",
            {
                f"ray_propose_weights_sync_s{_STAGE}": "{{stage}} all serve",
                f"ray_propose_weights_held_s{_STAGE}": "{{stage}} generation held",
            },
        ),
    },
    "Who is the bottleneck": {
        "Committee: time to a verdict": ("s", {_p(0.5, "judged"): "median", _p(0.95, "judged"): "95 %"}),
        "Verifiers: time to a vote, 95 %": ("s", {_p(0.95, "voted", "verifier"): "{{verifier}}"}),
        "Sandbox: runs, 95 %": (
            "s",
            {_p(0.95, "sandboxed"): "of a program", _p(0.95, "sandbox_waited"): "waited for its turn"},
        ),
        "Sandbox: runs by their end, a second": (
            "ops",
            {f"sum by (status) (rate(ray_propose_sandboxed_seconds_count{_RUN}[5m]))": "{{status}}"},
        ),
        "Replicas": (
            "none",
            {f"sum by (application) (ray_serve_deployment_replica_healthy{_APP})": "{{application}}"},
        ),
        "Calls in replicas": (
            "none",
            {f"sum by (application) (ray_serve_replica_processing_queries{_APP})": "{{application}}"},
        ),
    },
    "Engines": {
        "Tokens a second": (
            "none",
            {
                f"sum by (model_name) (rate(ray_vllm_generation_tokens_total{_ENGINE}[5m]))": "{{model_name}} sampled",
                f"sum by (model_name) (rate(ray_vllm_prompt_tokens_total{_ENGINE}[5m]))": "{{model_name}} read",
            },
        ),
        "Requests": (
            "none",
            {
                f"sum by (model_name) (ray_vllm_num_requests_running{_ENGINE})": "{{model_name}} running",
                f"sum by (model_name) (ray_vllm_num_requests_waiting{_ENGINE})": "{{model_name}} waiting",
            },
        ),
        "KV cache in use": (
            "percentunit",
            {f"max by (model_name) (ray_vllm_kv_cache_usage_perc{_ENGINE})": "{{model_name}}"},
        ),
        "Share of prompts that was in the prefix cache": (
            "percentunit",
            {
                f"sum by (model_name) (rate(ray_vllm_prefix_cache_hits_total{_ENGINE}[5m]))"
                f" / sum by (model_name) (rate(ray_vllm_prefix_cache_queries_total{_ENGINE}[5m]))": "{{model_name}}"
            },
        ),
        "Requests that were put off for lack of cache, a second": (
            "ops",
            {f"sum by (model_name) (rate(ray_vllm_num_preemptions_total{_ENGINE}[5m]))": "{{model_name}}"},
        ),
    },
    "What it costs": {
        "GPUs held by replicas, and workers of the trainer": (
            "none",
            {
                f"sum by (pool) (ray_propose_replica_gpus{_RUN})": "{{pool}}",
                f"sum by (run) (ray_propose_replica_gpus{_RUN})": "{{run}}, all replicas",
                f"ray_propose_train_workers{_STAGE}": "{{stage}} trainer",
            },
        ),
        "Lost with replicas that died, task-seconds a second": (
            "none",
            {f"rate(ray_propose_now_lost_s_total{_STAGE}[5m])": "{{stage}} {{of}}"},
        ),
        "Spent at endpoints": (
            "currencyUSD",
            {f"ray_propose_now_usd{_RUN}": "{{of}}", f"ray_propose_now_budget_usd{_RUN}": "{{of}} budget"},
        ),
        "Tokens of endpoints": (
            "none",
            {f"ray_propose_now_tokens{_RUN}": "{{of}}", f"ray_propose_now_budget_tokens{_RUN}": "{{of}} budget"},
        ),
    },
}
"""Row -> panel -> (unit, expression -> legend)."""


def board() -> Dashboard:
    made = (
        Dashboard("propose: runs")
        .uid("propose-runs")
        .tags(["propose", "ray"])
        .refresh("30s")
        .time("now-3h", "now")
        .with_variable(DatasourceVariable("datasource").type("prometheus"))
        .with_variable(_choice("run", "label_values(ray_propose_stage_running, run)"))
        .with_variable(_choice("stage", 'label_values(ray_propose_stage_running{run=~"$run"}, stage)'))
    )
    for row, panels in ROWS.items():
        made = made.with_row(Row(row))
        for title, (unit, expressions) in panels.items():
            made = made.with_panel(_panel(title, unit, expressions))
    return made


def _choice(name: str, query: str) -> QueryVariable:
    ever = VariableRefresh.ON_TIME_RANGE_CHANGED
    return QueryVariable(name).query(query).datasource(_SOURCE).refresh(ever).multi(True).include_all(True)


def _panel(title: str, unit: str, expressions: dict[str, str]) -> Panel:
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    panel = Panel().title(title).unit(unit).datasource(_SOURCE).height(8).span(8).legend(legend).fill_opacity(5)
    for n, (expression, told) in enumerate(expressions.items()):
        panel = panel.with_target(Dataquery().expr(expression).legend_format(told).ref_id(chr(ord("A") + n)))
    return panel


def text() -> str:
    return JSONEncoder(sort_keys=True, indent=1).encode(board().build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
