"""Skills and texts in any script."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Skill
from pipeline.skills import replies
from pipeline.skills.extraction import SkillLibrary, render
from pipeline.skills.scripts import is_cjk, length, skill_id


@pytest.mark.parametrize(
    ("title", "id"),
    [
        ("gcd", "gcd"),
        ("Greatest-Common Divisor", "greatest_common_divisor"),
        ("中国剩余定理", "中国剩余定理"),
        ("中国剩余定理（第二种形式）", "中国剩余定理_第二种形式"),
        ("抽屉原理：二", "抽屉原理_二"),
        ("鸽巢・原理", "鸽巢_原理"),
        ("ＧＣＤ 算法", "gcd_算法"),
        ("剰余の定理", "剰余の定理"),
        ("나머지 정리", "나머지_정리"),
        ("Теорема Виета", "теорема_виета"),
        ("théorème de Thalès", "théorème_de_thalès"),
        ("قانون الجيب", "قانون_الجيب"),
        ("../剩余", None),
        ("剩余/定理", None),
        ("剩余.定理", None),
        ("二" * 65, None),
        ("𠀀" * 51, None),  # more bytes than a folder's name may have
        ("3-剩余", None),
        ("。", None),
        ("", None),
    ],
)
def test_a_title_in_any_script_gives_an_id_that_is_a_name_of_a_folder(title, id):
    assert skill_id(title) == id


@given(st.text(max_size=80))
def test_any_id_is_one_word_that_stays_as_it_is(title):
    found = skill_id(title)
    if found is not None:
        assert found[0].isalpha() and re.fullmatch(r"\w+", found)
        assert not set(found) & set("./\\ -\n") and len(found.encode()) <= 200
        assert skill_id(found) == found


def test_a_skill_with_a_chinese_title_is_read_saved_and_loaded(tmp_path):
    skill = Skill(
        id="中国剩余定理", category="数论", intent="用若干余数求一个数", method="若干同余式。\n\n逐个合并。",
        difficulty="模数之间相互制约。", tool_hint="用枚举验证。", score=0.9, source="讲义.md",
    )  # fmt: skip
    read = replies.read(render(skill).replace("name: ", "name："), "讲义.md")
    assert (read.skills, read.faults) == ((skill,), ())
    SkillLibrary([skill]).save(tmp_path / "skills")
    assert list(SkillLibrary.load(tmp_path / "skills")) == [skill]


def test_lengths_know_signs_that_carry_more_than_a_letter():
    assert length("abc") == 3 and length("三角形") == 9 and length("삼각형") == 9
    assert is_cjk("三角形ABC的面积是多少？") and not is_cjk("The triangle 三 has area 3.")
