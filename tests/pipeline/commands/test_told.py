"""What commands print for people: results, gains in words, the ledger's table, durations."""

import pytest

from pipeline.commands import ledger, measured, summary, tables


def test_a_result_is_told_a_line_a_value_within_78_columns(tmp_path):
    measures = {f"mean@{k}": {"value": 0.26667, "interval": [0.16665675424391124, 0.375]} for k in (1, 2)}
    result = {
        "problems": 60, "score": None, "left_out": {}, "by_step": {"1": 0.5, "2": 1 / 3},
        "before": {"mean": 0.26667, "measures": measures}, "files": ["/x/a", "b"],
        "many": {f"name {i}": i for i in range(20)},
    }  # fmt: skip
    told = tables.outline(result, lambda text: text.removeprefix("/x/")).splitlines()
    assert told[:10] == [
        "problems  60",
        "score     -",
        "left_out  -",
        "by_step   1 0.5, 2 0.3333",
        "before",
        "  mean      0.2667",
        "  measures",
        "    mean@1  value 0.2667, interval 0.1667 to 0.375",
        "    mean@2  value 0.2667, interval 0.1667 to 0.375",
        "files     a, b",
    ]
    assert told[10:13] == ["many", "  name 0   0", "  name 1   1"] and len(told) == 31


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [((0.4, 0.04), (0.5, 0.04), "it got better"), ((0.5, 0.04), (0.4, 0.04), "it got worse"),
     ((0.4, 0.08), (0.5, 0.08), "no change is shown")],
)  # fmt: skip
def test_a_change_within_chance_is_none(before, after, said):
    intervals = [[m - half, m + half] for m, half in (before, after)]
    gain = after[0] - before[0]
    assert said in (told := summary._gain(gain, summary._apart(gain, *intervals), False))
    assert "compared with itself" not in told
    assert "compared with itself" in summary._gain(gain, [gain - 0.1, gain + 0.1], True)


def account(**totals):
    rows = [{"step": n, "checkpointed": n < 2, "attempts": {1: 8, 2: 1}, **totals} for n in (1, 2)]
    checkpoints = [{"step": 1, "rollouts": 8}]
    return {"steps": rows, "totals": totals, "checkpoints": checkpoints, "trained_twice": 0, "taught": 99999}


def test_the_ledger_is_a_row_a_stage_within_sixty_columns():
    totals = {"tasks": 99999, "issued": 999999, "trained": 999999, "filtered": 99999, "failed": 99999, "live": 99}
    totals |= {"interrupted": 4, "not_needed": 99999}
    found = {"stages": {"synthesize": account(**totals), "mgpo": account(**totals)}, "findings": []}
    short, long = ledger.render(found), ledger.render(found, steps=True)
    assert [line.split()[0] for line in short.splitlines()[:3]] == ["stage", "synthesize", "mgpo"]
    assert len([line for line in long.splitlines() if line.startswith("mgpo ")]) == 3
    assert max(map(len, (short + "\n" + long).splitlines())) <= 60
    assert all(word in short for word in ("issued ", "trained ", "filtered ", "failed ", "live "))
    assert "2·" in long and "1·" not in long and "in no checkpoint yet" in long and "in no checkpoint" not in short
    assert "mgpo: 2 attempts issued again" in short and "everything adds up" in short
    assert ledger.render({"stages": {}, "findings": []}) == "no stage has issued an attempt yet"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3660, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds, told):
    assert tables.duration(seconds) == told


def test_what_models_have_on_a_benchmark_is_a_table(tmp_path):
    def of(mean, **counts):
        measures = {"mean@2": {"value": mean}, "best@2": {"value": 0.5}} | counts
        return {"mean": mean, "interval": [mean - 0.1, mean + 0.1], "measures": measures}

    pair = {
        "verdict": "b is better",
        "problems": 60,
        "difference": 0.25,
        "interval": [0.1, 0.4],
        "better": 9,
        "worse": 2,
    }
    result = {
        "problems": 60, "samples": 2, "before": None, "after": None, "score": None, "left_out": {"kind OT": 3},
        "models": {"a": of(0.25, samples=120, truncated=4, no_answer=1, unknown=0), "b": of(0.5)},
        "pairs": {"a ~ b": pair}, "answers": ["/x/1/answers.jsonl", "/x/2/answers.jsonl"],
    }  # fmt: skip
    assert measured.render(result, lambda path: str(path).removeprefix("/x/")).splitlines() == [
        "60 problems, 2 answers each; left out: 3 kind OT",
        "model   mean   95 % interval  Best-of-n  samples  cut off  no answer  not judged",
        "a      25.0%  15.0% to 35.0%      50.0%      120        4          1           0",
        "b      50.0%  40.0% to 60.0%      50.0%        -        -          -           -",
        "a ~ b: b is better (+25.0 points, 95 % interval +10.0 to +40.0; 9 problems better, 2 worse, of 60)",
        "answers of a  1/answers.jsonl",
        "answers of b  2/answers.jsonl",
    ]
    assert "answers of" not in measured.render(result | {"answers": []}, str), "none were kept"


def test_a_result_with_examples_tells_each_in_a_line():
    told = tables.outline({"examples": {"copies": [{"question": "a\nb", "answer": "1"}] * 2}, "none": []}, str)
    assert told.splitlines() == [
        "examples", "  copies", "    question a b, answer 1", "    question a b, answer 1", "none      -",
    ]  # fmt: skip


def test_a_pool_is_told_with_the_field_that_makes_it():
    from pipeline.config import Config
    from pipeline.pools import catalogue

    config = Config(domain="mini")
    assert catalogue.told(config, "solver-0") == "solver-0 (prober.ladder.0)"
    assert catalogue.told(config, "student") == "student (solve.base)"
    assert catalogue.told(config, "sandbox") == "sandbox"
