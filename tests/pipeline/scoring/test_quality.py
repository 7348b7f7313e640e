"""The gates of a row by itself: both sides of each line."""

import pytest

from pipeline.scoring.quality import CONTROL, EMPTY, LANGUAGE, LEAK, LONG, bar, faults, language, leaks


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("What is 1 + 1? The answer is 2.", "2", "math"),
        ("What is 1 + 1? (Answer: 2)", "2", "math"),
        (r"What is 1 + 1? \boxed{2}", "2", "math"),
        ("Half of 8?\n#### 4", "4", "math"),
        ("Who wrote it? The correct answer is **Ada Lovelace**", "Ada Lovelace", "text"),
        (
            "Say why. It is because the moon pulls the water of the sea",
            "because the moon pulls the water of the sea",
            "text",
        ),
        ("Is 4 even? Solution: even", "even", "choice"),
        ("What is 2 + 2? The solution is 4.", "4", "math"),
        ("What is 2 + 2? The answer is 4 metres.", "4", "math"),
        ("Which is even?\nThe answer is B\nA. 3\nB. 4", "B", "choice"),
        ("Which is even? A. 4 B. 3 THE CORRECT CHOICE IS (A)", "A", "choice"),
    ],
)
def test_an_answer_that_the_question_says(question, answer, kind):
    assert leaks(question, answer, kind) and bar(question, answer, kind) == LEAK


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("Ben has 12 keys and loses 0 of them. How many has he?", "12", "math"),
        ("What is 1 + 1? The answer is 25.", "2", "math"),
        ("What is 1 + 1? The answer is 2.5, says Ben; is he right?", "2", "math"),
        ("If the answer is 2, what was the question?", "2", "math"),
        ("Is the number even or odd? The answer is odd or even.", "odd", "choice"),
        ("Give the answer as a fraction in lowest terms.", "1/2", "math"),
        ("Write f so that f(2) is 4.", "def f(x): return 2 * x", "code"),
        ("Which is even?\nA. 3\nB. 4", "B", "choice"),
        ("The answer is a positive integer. Which of these is it?\nA. 3\nB. 4", "A", "choice"),
        ("The answer is a positive integer. Which of these is it?\nA. 3\nB. 4", "B", "choice"),
        ("A result is A positive integer. Which is it?\nA. 3\nB. 4", "A", "choice"),
        ("The solution is 4 times as dense as water. How dense is it, in kg/l?", "4", "math"),
        ("A saline solution is 20 percent salt. How much salt, in g, is in 100 g of it?", "20", "math"),
    ],
)
def test_an_answer_that_it_does_not_say(question, answer, kind):
    assert not leaks(question, answer, kind) and bar(question, answer, kind) is None


@pytest.mark.parametrize("sign", ["\x00", "\x1b", "\x7f", "\ufffd", "\ue000", "\u202e"])
def test_signs_that_no_text_holds(sign):
    assert faults(f"How many{sign} are there?", "3", "math") == [CONTROL]
    assert faults("How many are there?", f"3{sign}", "math") == [CONTROL]


def test_signs_that_texts_hold():
    assert faults("How many\tare\r\nthere, 👩‍🔬 says? می‌خواهم ½ ∑", "3", "math") == []


def test_lengths():
    assert faults("Why?", "3", "math") == [EMPTY]
    assert faults("Compute 3.", "3", "math") == []
    assert faults("How many are there?", " ", "math") == [EMPTY]
    assert faults("How many? " + "x " * 10_000, "3", "math") == [LONG]
    assert faults("为什么天空是蓝的", "3", "math") == []


@pytest.mark.parametrize(
    ("text", "two"),
    [
        ("How many of the apples are in the basket that Ben has?", "en"),
        ("Wie viele Tage hat ein Jahr, das nicht durch 4 teilbar ist?", "de"),
        ("Combien de pommes sont dans le panier que Ben a sur la table?", "fr"),
        ("¿Cuántos días tiene un año que no es divisible por 4 en el calendario?", "es"),
        ("一个篮子里有多少个苹果，如果本拿走了三个？还剩几个？", "zh"),
        ("このかごには、りんごがいくつありますか。三つ取りました。", "ja"),
        ("Сколько яблок осталось в корзине, если взяли три?", "ru"),
        (r"$x^2 + y^2 = 4$, $x = 1$", None),
        ("3 + 4", None),
    ],
)
def test_the_language_of_a_text(text, two):
    assert language(text) == two
    expected = [] if two in (None, "en") else [LANGUAGE]
    assert faults(text, "3", "math", ["en"]) == expected and bar(text, "3", "math") is None
