"""Answers as Chinese and Japanese texts write them."""

from __future__ import annotations

import pytest

from actors.answers import compare
from actors.answers.canonical import canonical


@pytest.mark.parametrize(
    ("kind", "a", "b", "outcome"),
    [
        ("text", "水星。", "水星", "equal"),
        ("text", "水星", "金星", "different"),
        ("text", "水星，金星", "水星、金星", "equal"),
        ("choice", "（Ｂ）", "B", "equal"),
        ("choice", "是", "否", "different"),
        ("math", "是。", "yes", "equal"),
        ("math", "40．5", "40.5", "equal"),
        ("math", "40公里", "40", "equal"),
        ("math", "40 公里", "40 kilometres", "equal"),
        ("math", "40英里", "40公里", "different"),
        ("math", "3千克", "3000克", "equal"),
        ("math", "3平方米", "3 m^2", "equal"),
        ("math", "5元", "5", "equal"),
        ("math", "5个苹果", "5", "equal"),
        ("math", "5个", "6个", "different"),
        ("math", "5万", "5", "unknown"),  # another number than the 5 in it
        ("math", "5万元", "5", "unknown"),
        ("math", "3分之1", "3", "unknown"),
        ("math", "5或6", "5", "unknown"),
        ("math", "5m", "5", "unknown"),  # 5 metres, or 5 times m
    ],
)
def test_an_answer_means_the_same_in_any_script(kind, a, b, outcome):
    assert compare(kind, a, b) == compare(kind, b, a) == outcome


@pytest.mark.parametrize(
    ("kind", "text", "form"),
    [
        ("math", "40公里", "40 公里"),
        ("math", "40．5 公里", "40.5 公里"),
        ("math", "是。", "是"),
        ("math", "五", None),  # a number, or a name
        ("math", "5万", None),
        ("math", "5个", None),
        ("choice", "（Ｂ）", "B"),
        ("text", "水星", "水星"),
    ],
)
def test_an_answer_has_one_form_in_any_script(kind, text, form):
    assert canonical(kind, text) == form
    assert form is None or canonical(kind, form) == form
