"""Which committees a config may name: a judge can read the domain's texts, has a model, and shares it with no other."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.loading import validate
from pipeline.records import Failure

TEXT = yaml.safe_load((Path(__file__).parents[3] / "deploy" / "configs" / "text.yaml").read_text(encoding="utf-8"))
ENDPOINT = {"base_url": "http://x/v1", "model": "org/Some-Model"}


def with_judges(*verifiers: dict[str, Any], **committee: Any) -> dict[str, Any]:
    tree = deepcopy(TEXT)
    tree["committee"] = {"verifiers": list(verifiers), **committee}
    return tree


def program(**fields: Any) -> dict[str, Any]:
    return {"kind": "program", **ENDPOINT, **fields}


def model(**fields: Any) -> dict[str, Any]:
    return {"kind": "model", **ENDPOINT, **fields}


@pytest.mark.parametrize("kind", ["symbolic", "executing"])
@pytest.mark.parametrize("place", ["verifiers.0", "auditor"])
def test_a_judge_of_the_mini_language_is_refused_for_free_text(kind, place):
    judge = {"kind": kind}
    tree = (
        with_judges(judge, program(), model(model="other"))
        if place != "auditor"
        else with_judges(program(), model(model="other"), auditor=judge)
    )
    with pytest.raises(Failure, match=rf"committee\.{place}\.kind {kind}.*expected program .* or model"):
        validate(tree)
    validate({"domain": "mini", "committee": {"verifiers": [{"kind": "symbolic"}, {"kind": "executing"}]}})


@pytest.mark.parametrize(
    ("other", "auditor"),
    [
        (program(style="sympy"), None),
        (model(base_url="http://y/v1"), None),  # the same model, served elsewhere
        (model(model="some-model"), None),
        (program(model="another"), model(model="models/some-model/")),
    ],
)
def test_two_judges_of_one_model_are_refused_unless_that_is_said(other, auditor):
    judges = {"auditor": auditor} if auditor else {}
    with pytest.raises(Failure, match=r"are one model \(some-model\); .*allow_same_model: true"):
        validate(with_judges(program(), other, **judges))
    assert validate(with_judges(program(), other, **judges, allow_same_model=True)).committee.allow_same_model


def test_the_judges_pool_is_one_model():
    with pytest.raises(Failure, match="one model"):
        validate(with_judges({"kind": "model"}, {"kind": "model", "samples": 5}))
    validate(with_judges({"kind": "model"}, program(), model(model="other")))
    for judge in ({"path": "/models/Some-Model"}, {"endpoint": {"base_url": "http://y/v1", "model": "some-model"}}):
        with pytest.raises(Failure, match="one model"):
            validate(with_judges({"kind": "model"}, program(), judge=judge))


@pytest.mark.parametrize("name", [None, "", " "])
@pytest.mark.parametrize("kind", ["program", "model"])
def test_an_endpoint_without_a_model_is_refused(kind, name):
    judge = {"kind": kind, "base_url": "http://x/v1"} | ({"model": name} if name is not None else {})
    with pytest.raises(Failure, match=r"committee\.verifiers\.1\.model: required\. The model's name"):
        validate(with_judges(program(), judge))
