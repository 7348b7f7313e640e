"""What `propose model` does: the proposer or the solver that a run trained, told of in a card, and put in a folder that
transformers and vLLM load, with that card beside the weights.

Invariant: of a checkpoint goes out what its manifests vouch for, and nothing of the trainer's own state.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline import report
from pipeline.commands import target
from pipeline.config import Config, ModelConfig
from pipeline.dataset import model_card, origin, push
from pipeline.dataset.model_card import Figure
from pipeline.records import Failure
from pipeline.scoring import measures
from pipeline.store import manifest
from pipeline.store.files import replace, whole_folder
from pipeline.store.rundir import RunDir

Which = Literal["proposer", "solver"]
_TRAINED: dict[Which, tuple[str, ...]] = {"proposer": ("mgpo", "sft"), "solver": ("solve",)}
"""Stages that leave it, the last one first."""


def card_of(place: str, which: Which, license: str | None) -> str:
    run, config = RunDir.read(target.existing(place))
    stage, result = _trained(run, which)
    return model_card.text(_about(run, config, which, stage, result, license))


def export(
    place: str, out: Path, which: Which, license: str | None, to: str | None = None, private: bool = True
) -> dict[str, Any]:
    """Write the model and its card into a folder, and put that on the Hub under the name `to`."""
    token = push.token_for(to, "model") if to else None  # before anything is written
    run, config = RunDir.read(target.existing(place))
    stage, result = _trained(run, which)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(f"{out}: holds something; expected a folder that is new or empty")
    checkpoint = Path(result["checkpoint"])
    names = _vouched(checkpoint)
    with whole_folder(out, stays=lambda name: False) as folder:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint / name, folder / name)
        replace(folder / "README.md", model_card.text(_about(run, config, which, stage, result, license)))
        files = sorted({*names, "README.md"})
        manifest.seal_folder(folder, "model", files, which=which, stage=stage)
    address = push.push_model(out, to, token, private) if to and token else None
    return {
        "model": which, "stage": stage, "checkpoint": str(checkpoint), "out": str(out),
        "files": sorted([*files, "manifest.json"]), "pushed": address,
    }  # fmt: skip


def _trained(run: RunDir, which: Which) -> tuple[str, Mapping[str, Any]]:
    """The last stage that trained it, and what that left."""
    for stage in _TRAINED[which]:
        if (done := run.result(stage)) is not None:
            return stage, done["result"]
    first = _TRAINED[which][-1]
    raise Failure(f"{run.root}: no {which} is trained there; run `propose {first} {run.root}` first")


def _vouched(checkpoint: Path) -> list[str]:
    """The files of the model itself, each as it was written. Raises Damage for the first that is not."""
    names: set[str] = set()
    for ranks in sorted(checkpoint.glob("trainer/manifest-*.json")):
        for name, entry in manifest.listed(ranks, manifest.read(ranks)).items():
            if not name.startswith("trainer/"):
                manifest.check(checkpoint / name, entry)
                names.add(name)
    if "config.json" not in names:
        raise Failure(f"{checkpoint}: no model that a manifest vouches for; see `propose verify`")
    return sorted(names)


def _about(
    run: RunDir, config: Config, which: Which, stage: str, result: Mapping[str, Any], license: str | None
) -> model_card.About:
    known = report.summary(run)
    base, what, data, results, words = (
        _proposer(run, config, stage, known) if which == "proposer" else _solver(run, config, known, result)
    )
    prompts = origin.prompts_digest(run)
    return model_card.About(
        name=f"{config.name}, {which}", what=what, base=origin.named(base), license=license, data=data,
        training=_training(run, config, stage, result), results=results, words=words,
        made_by=origin.made_by(config) | ({"prompts": prompts} if prompts else {}),
        source_license=config.acquire.license,
    )  # fmt: skip


_Told = tuple[ModelConfig, str, list[str], list[Figure], str | None]


def _proposer(run: RunDir, config: Config, stage: str, known: Mapping[str, Any]) -> _Told:
    taught = ", ".join(origin.public(teacher.called) for _, teacher in config.teacher.each().values())
    how = "by SFT, then by what its own problems were worth (MGPO)" if stage == "mgpo" else "by SFT"
    sft = (run.result("sft") or {"result": {}})["result"]
    places = [place if isinstance(place, str) else place.path for place in config.acquire.corpus]
    data = [
        f"SFT: {sft.get('accepted')} accepted of {sft.get('trajectories')} trajectories, by {taught}."
        if config.sft.data is None
        else f"SFT: {sft.get('accepted')} trajectories of {origin.public(config.sft.data)}.",
        f"Skills: read from {', '.join(map(origin.public, places))}.",
    ]
    done = run.result("mgpo")
    if done is not None:
        data.append(f"MGPO: {done['result'].get('episodes')} episodes of its own, judged by the committee and probers.")
    mine = stage == "mgpo" and config.synthesize.proposer is None  # else another one wrote the data set
    on = f"{config.domain.model_dump()['kind']}: what it wrote for the data set"
    pass_at_k = f"Pass@{config.prober.k} of the prober on what was accepted (lower: harder)"
    results = [
        Figure(name, known[key] if mine else None, known[f"{key}_interval"] if mine else None, on)
        for name, key in (("validity: accepted of judged", "validity"), (pass_at_k, "mean_pass_at_k"))
    ]
    return (
        config.proposer,
        f"An agent that writes hard, verified problems with tools, trained {how}.",
        data,
        results,
        None,
    )


def _solver(run: RunDir, config: Config, known: Mapping[str, Any], result: Mapping[str, Any]) -> _Told:
    source = f"{result.get('problems')} problems"
    if not config.solve.on_own_data or config.solve.mixture:
        files = [(s.path, s.weight) for s in config.solve.mixture] or [(config.solve.data, 1.0)]
        named = [origin.public(path) if path else "the run's own data set" for path, _ in files]
        weights = f" (weights {', '.join(f'{weight:g}' for _, weight in files)})" if len(files) > 1 else ""
        source += f" of {', '.join(named)}{weights}."
    else:
        written = (run.result("synthesize") or {"result": {}})["result"].get("episodes")
        source += f", written by {origin.models(config)['proposer']} and accepted by a committee"
        source += f", of {written} episodes." if written else "."
    asked = config.evaluate
    on = f"{asked.preset or origin.public(asked.benchmark)}, Mean@{asked.samples}"
    alone = bool(asked.alone())
    results = [
        Figure(name, None if alone else known[key], None if alone else known[f"{key}_interval"], on)
        for name, key in (("before training", "solver_before"), ("after training", "solver_after"))
    ]
    evaluated = run.result("evaluate")
    paired = evaluated["result"].get("paired") if evaluated else None
    words = f"Each problem compared with itself: {measures.verdict(paired, 'the trained model')}." if paired else None
    warm = result.get("warmup")
    first = f"SFT on {warm['solutions']} worked solutions and then by " if warm else ""
    what = f"A model that solves problems, trained by {first}reinforcement on verified answers."
    return config.solve.base, what, [source], results, words


def _training(run: RunDir, config: Config, stage: str, result: Mapping[str, Any]) -> dict[str, Any]:
    section = getattr(config, stage)
    objective = section.objective.model_dump(mode="json") if stage != "sft" else {"name": "sft"}
    told = {"objective": objective.pop("name"), **{f"objective.{k}": v for k, v in objective.items()}}
    told |= {"stage": stage, "optimizer steps": result.get("steps"), "learning rate": section.lr}
    names = {"sft": ("batch", "epochs"), "mgpo": ("groups", "group_size"), "solve": ("problems", "group_size")}
    told |= {name.replace("_", " "): getattr(section, name) for name in names[stage]}
    return told | {"seed": config.seed}
