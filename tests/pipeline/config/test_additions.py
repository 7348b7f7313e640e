"""One file and one entry: a verifier, an objective, a domain and a language are added, and used through a config."""

from __future__ import annotations

import asyncio
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors.committee import Committee
from pipeline import domains
from pipeline.config import DOMAINS, OBJECTIVES, VERIFIERS, Registry
from pipeline.config.loading import dump, load
from pipeline.records import Failure, Problem
from sandbox import Limits, Request, Slot, languages
from tests.actors.pools import handle
from tests.pipeline.config.additions import (
    DEFAULTS,
    DOMAIN,
    LANGUAGE,
    OBJECTIVE,
    VERIFIER,
    EchoConfig,
    EvenConfig,
    Put,
    riddles_config,
)
from tests.trainers.worlds import alone, batch_of, some_rollouts, totals_of
from trainers.objectives import make
from trainers.spec import TrainSpec

Register = Callable[[Registry[Any], type], None]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_verifier(put: Put, register: Register, tmp_path: Path) -> None:
    put("actors.verifiers.text.echo", VERIFIER)
    yaml = "domain: mini\ncommittee: {quorum: 1, required: 1, verifiers: [{kind: echo, word: owl}]}\n"
    file = written(tmp_path / "run.yaml", yaml)
    with pytest.raises(Failure, match=r"committee\.verifiers\.0\.kind: .*'executing'.*'echo'"):
        load(file)
    register(VERIFIERS, EchoConfig)
    committee = Committee(load(file).committee, handle(SimpleNamespace(run_batch=None), "run_batch"))

    async def decisions() -> list[str]:
        asked = [Problem.make("Which bird is an owl?", "an owl"), Problem.make("Which bird is a hen?", "a hen")]
        return [(await committee.judge(problem, None, ())).decision for problem in asked]

    assert asyncio.run(decisions()) == ["accepted", "rejected"]


def test_an_objective(put: Put, register: Register, tmp_path: Path) -> None:
    put("trainers.objectives.even", OBJECTIVE)
    file = written(tmp_path / "run.yaml", "domain: mini\nmgpo: {objective: {name: even, scale: 0.25}}\n")
    with pytest.raises(Failure, match=r"mgpo\.objective\.name: .*'mgpo'.*'even'"):
        load(file)
    register(OBJECTIVES, EvenConfig)
    config = load(file)
    assert load(written(tmp_path / "again.yaml", dump(config))) == config
    spec = TrainSpec(base_model=tmp_path, objective=config.mgpo.objective, lr=0.1, storage=tmp_path, name="mgpo")
    batch = batch_of(some_rollouts(3))
    zeros = torch.zeros_like(batch.tokens.engine_K)
    weights = make(spec.objective).weights(batch.tokens, zeros, zeros, totals_of(batch), alone)
    expected = [0.25 * r.terminal_reward for r in some_rollouts(3) for own in r.loss_mask if own]
    assert weights.tolist() == pytest.approx(expected)


def test_a_domain(put: Put, register: Register, tmp_path: Path) -> None:
    package = put("pipeline.domains.riddles", DOMAIN).parent
    written(package / "defaults.yaml", DEFAULTS)
    file = written(tmp_path / "run.yaml", "domain: riddles\nmgpo: {groups: 9}\n")
    with pytest.raises(Failure, match=r"domain\.kind: .*'mini', 'text'.*'riddles'"):
        load(file)
    register(DOMAINS, riddles_config(package))
    config = load(file, ["prober.n=8"])
    assert (config.mgpo.steps, config.mgpo.groups) == (7, 9)
    assert (config.prober.n, config.prober.k, config.prober.ladder[0].path) == (8, 3, "models/guesser")
    domain = domains.of(config.domain)
    assert domain.categories == ("animals", "weather") and domain.prompts.solver == "Solve it."
    assert load(written(tmp_path / "again.yaml", dump(config))) == config


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
def test_a_language(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put("sandbox.plain", LANGUAGE)
    with pytest.raises(ValueError, match=r"request\.language: 'plain'; expected python.* c\+\+"):
        Request("", language="plain")
    monkeypatch.setitem(languages.LANGUAGES, "plain", importlib.import_module("sandbox.plain").PLAIN)
    source = '#include <stdio.h>\nint main(void) { int class; scanf("%d", &class); printf("%d\\n", class * 2); }'
    with Slot(limits=Limits(wall_s=5.0, cpu_s=2.0, memory_mb=128)) as slot:
        result = slot.run(Request(source, language="plain", stdin="21"))
        assert (result.status, result.stdout) == ("ok", "42\n")  # `class` is a name in C, and none in C++
        assert slot.run(Request("int main(void) { return x; }", language="plain")).reason.startswith("does not compile")
