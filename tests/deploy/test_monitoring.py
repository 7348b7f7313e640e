"""Board and alerts name only metrics that exist, with tags that these have, and say what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from deploy.monitoring import board
from pipeline.watch.figures import ALL

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDER = DEPLOY / "monitoring"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
OURS = {name: {*meter.tags, *["le"] * name.endswith("_bucket")} for meter in ALL for name in meter.scraped}
KINDS = {name: meter.kind for meter in ALL for name in meter.scraped}
VARIABLES = {"run", "stage"}

SELECTOR = re.compile(r"\b(ray_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
STRING = re.compile(r'"[^"]*"')


def panels() -> dict[str, list[str]]:
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in json.loads(board.FILE.read_text())["panels"]
        if panel["type"] != "row"
    }


EXPRESSIONS = [e for expressions in panels().values() for e in expressions] + [rule["expr"] for rule in RULES]


def foreign(name: str) -> set[str] | None:
    """The tags of a metric of Ray Serve's or vLLM's, if their installed sources name it."""
    short = name.removeprefix("ray_")
    for prefix, package, tags in (
        ("serve_", "ray/serve", {"application", "deployment", "replica"}),
        ("vllm_", "vllm/v1/metrics", {"model_name", "engine", "ReplicaId", "le"}),
    ):
        if short.startswith(prefix):
            top, _, below = package.partition("/")
            root = Path(find_spec(top).origin).parent / below  # type: ignore[union-attr, arg-type]
            named = short.replace("vllm_", "vllm:", 1).removesuffix("_total").removesuffix("_bucket")
            if any(f'"{named}"' in file.read_text() for file in root.rglob("*.py")):
                return tags
    return None


def wrong(expression: str) -> list[str]:
    """What of an expression names something that there is not."""
    found, known = [], set()
    for name, matchers in SELECTOR.findall(STRING.sub(lambda s: s[0].replace("{", "<").replace("}", ">"), expression)):
        tags = OURS.get(name) or foreign(name)
        if tags is None:
            found.append(f"no metric {name}")
            continue
        known |= tags
        matched = re.findall(r"(\w+)\s*[=!]", STRING.sub('""', matchers))
        found += [f"{name} has no tag {tag}" for tag in matched if tag not in tags]
    for group in GROUPED.findall(expression):
        found += [f"no tag {tag}" for tag in re.findall(r"\w+", group) if tag not in known]
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_name_metrics_and_tags_that_there_are(expression):
    assert SELECTOR.search(expression) and wrong(expression) == []
    assert set(re.findall(r"\$(\w+)", expression)) <= VARIABLES


def test_the_walk_finds_what_there_is_not():
    assert wrong("ray_propose_step_acepted_rate") == ["no metric ray_propose_step_acepted_rate"]
    assert wrong('ray_propose_step_reward{pool="x"}') == ["ray_propose_step_reward has no tag pool"]
    assert wrong("sum by (le) (rate(ray_propose_judged_seconds_count[5m]))") == ["no tag le"]
    assert wrong("rate(ray_propose_ledger_issued[5m])") == ["no metric ray_propose_ledger_issued"]
    assert wrong("ray_vllm_no_such_thing") == ["no metric ray_vllm_no_such_thing"]


def test_counters_are_rates_and_gauges_are_not():
    for expression in EXPRESSIONS:
        rated = set(re.findall(r"rate\((\w+)", expression))
        ours = [name for name, _ in SELECTOR.findall(expression) if name in KINDS]
        assert all((KINDS[name] != "gauge") == (name in rated) for name in ours)


def test_the_board_is_what_its_code_says():
    assert board.FILE.read_text() == board.text(), "run `python -m deploy.monitoring.board`"
    assert panels() == {title: list(e) for row in board.ROWS.values() for title, (_, e) in row.items()}


def test_each_alert_says_what_happened_and_what_to_do_and_so_does_the_page():
    page = (DEPLOY / "MONITORING.md").read_text()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "warn")
        assert re.search(r"\{\{ \$labels\.(run|application) \}\}", rule["annotations"]["summary"])
        assert f"| `{rule['alert']}` | {rule['annotations']['do']} |" in page
    assert len(re.findall(r"^\| `Propose", page, re.MULTILINE)) == len(RULES)


@pytest.fixture
def promtool(tmp_path) -> str:
    """Debian's, unpacked beside the test where it is not installed."""
    if found := shutil.which("promtool"):
        return found
    for command in (["apt-get", "download", "prometheus"], ["sh", "-c", "dpkg-deb -x prometheus_*.deb ."]):
        if shutil.which(command[0]) is None or subprocess.run(command, cwd=tmp_path, capture_output=True).returncode:
            pytest.skip("promtool: neither installed nor to be had with apt-get")
    return str(tmp_path / "usr" / "bin" / "promtool")


@pytest.mark.slow
def test_prometheus_takes_the_rules_and_staged_troubles_raise_their_alerts(promtool, tmp_path):
    def run(*arguments: str) -> None:
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, cwd=FOLDER)
        assert done.returncode == 0, done.stdout + done.stderr

    run("check", "rules", "alerts.yml")
    run("check", "config", "prometheus.yml")
    staged = yaml.safe_load((Path(__file__).parent / "alerts_test.yml").read_text())
    notes = {rule["alert"]: rule for rule in RULES}
    for test in staged["tests"]:
        for asked in test["alert_rule_test"]:
            assert asked["alertname"] in notes
    # promtool compares annotations too, which the other tests look at: rules without them.
    bare = [{k: v for k, v in rule.items() if k != "annotations"} for rule in RULES]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "propose", "rules": bare}]}))
    (tmp_path / "test.yml").write_text(yaml.safe_dump(staged))
    run("test", "rules", str(tmp_path / "test.yml"))
