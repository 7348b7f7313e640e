"""The config tree: what is accepted, and what a user reads when it is not."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Config, MGPOConfig
from pipeline.config.loading import dump, load, validate
from pipeline.records import Failure
from pipeline.store.identity import changed


def message(*overrides):
    with pytest.raises(Failure) as caught:
        load(None, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("trainr.workers=2", ["trainr", "unknown field", "trainer"]),
        ("trainer.worker=2", ["trainer.worker:", "unknown field", "workers"]),
        ("trainer.workers=two", ["trainer.workers", "whole number", "'two'"]),
        ("trainer.workers=0", ["trainer.workers", "at least 1", "0"]),
        ("trainer.zero_stage=7", ["trainer.zero_stage", "0, 1, 2, 3", "7"]),
        ("trainer=3", ["trainer", "3"]),
        ("trainer.lora=16", ["trainer.lora", "rank, alpha, dropout, targets or null", "16"]),
        ("trainer.lora.rank=0", ["trainer.lora.rank", "at least 1", "0"]),
        ("trainer.lora.dropout=1", ["trainer.lora.dropout", "below 1", "1"]),
        ("trainer.lora.targets=[]", ["trainer.lora.targets", "at least 1"]),
        ("trainer={lora: {}, reference: sharded}", ["trainer", "reference (sharded)", "no second copy", "whole"]),
        ("trainer.min_workers=2", ["trainer", "min_workers (2)", "at most workers (1)"]),
        ("trainer={workers: 4, min_workers: 2}", ["trainer", "min_workers (2)", "whoever uses it", "{trainer: 1}"]),
        (
            "trainer={workers: 4, min_workers: 2, resources: {t: 1}, lora: {dropout: 0.1}}",
            ["trainer", "lora.dropout (0.1)", "min_workers null"],
        ),
        ("mgpo.lr=.nan", ["mgpo.lr", "finite", "nan"]),
        ("mgpo.lr=.inf", ["mgpo.lr", "finite", "inf"]),
        ("sandbox.minimum=none", ["sandbox.minimum", "'strong+'", "'none'"]),
        ("prober.k=16", ["prober", "k (16)", "n (16)"]),
        ("mgpo.objective.tau_pos=2", ["mgpo.objective:", "tau_neg (1.05)", "tau_pos (2.0)"]),
        ("mgpo.objective.name=ppo", ["mgpo.objective.name", "'mgpo'", "'grpo'", "'ppo'"]),
        ("mgpo.objective.clip_low=1", ["mgpo.objective.clip_low: unknown field", "tau_pos"]),
        ("teacher.kind=human", ["teacher.kind", "'openai'", "'human'"]),
        ("committee.verifiers.2.sample=9", ["committee.verifiers.2.sample: unknown field", "samples"]),
        ("committee.verifiers.7.samples=9", ["committee.verifiers.7.samples", "list of 3"]),
        ("committee.required=4", ["committee", "required (4)", "(3)"]),
        ("committee.quorum=4", ["committee", "quorum (4)", "(3)"]),
        ("committee.verifiers.2.majority=0.5", ["committee.verifiers.2.majority", "0.5"]),
        ("prober.ladder.0.engine.dtype=int4", ["prober.ladder.0.engine.dtype", "'float32'", "'int4'"]),
        ("mgpo.curriculum.max_skills=1", ["mgpo.curriculum", "max_skills (1)", "min_skills (2)"]),
        ("proposer.pool.min_replicas=3", ["proposer.pool", "max_replicas (1)", "min_replicas (3)"]),
        ("proposer.pool.target_ongoing=65", ["proposer.pool", "target_ongoing (65)", "max_ongoing (64)"]),
        ("proposer_pool.min_replicas=3", ["proposer_pool: is called proposer.pool now"]),
        ("teacher.kind=mini", ["teacher.kind", "'mini' is called 'scripted' now"]),
        ("prober.pool.num_gpus=1", ["prober", "pool.num_gpus (1)", "ladder.N.pool.num_gpus"]),
        ("mgpo.objective.name=sft", ["mgpo.objective", "another objective"]),
        ("episode.limits.max_tokens=2000", ["episode.limits.max_tokens (2000)", "max_model_len (1024)"]),
        ("domain=maths", ["domain.kind", "'mini', 'text'", "'maths'"]),
        ("proposer.engine.weight_transport=nccl", ["proposer.engine.weight_transport nccl", "trainer.use_gpu"]),
        ("synthesize.difficulty=[{low: 0.5, high: 0.5, share: 1}]", ["synthesize.difficulty.0", "low (0.5)", "high"]),
        ("synthesize.difficulty=[{low: 0, high: 1, share: 0}]", ["synthesize.difficulty.0", "share (0)"]),
        (
            "synthesize.difficulty=[{low: 0.4, high: 1, share: 0.2}, {low: 0, high: 0.5, share: 0.2}]",
            ["synthesize", "0 to 0.5 and 0.4 to 1 overlap"],
        ),
        (
            "synthesize.difficulty=[{low: 0, high: 0.5, share: 0.7}, {low: 0.5, high: 1, share: 0.4}]",
            ["synthesize", "difficulty: shares add up to 1.1", "1 at most"],
        ),
        ("synthesize.categories={maths: 0.7, code: 0.7}", ["synthesize", "categories: shares add up to 1.4"]),
        ("synthesize.target_hours=0", ["synthesize.target_hours", "0"]),
        ("synthesize.never_solved=drop", ["synthesize.never_solved", "'aside'", "'drop'"]),
        ("name.first=x", ["name", "text"]),
        ("trainer.workers", ["trainer.workers", "dotted.field=value"]),
        ("=2", ["dotted.field=value"]),
        ("name=[", ["name", "YAML"]),
    ],
)
def test_one_line_names_the_field_the_value_and_what_is_accepted(override, parts):
    text = message(override)
    for part in parts:
        assert part in text


IPC = ("trainer.use_gpu=true", "proposer.engine.weight_transport=ipc")


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (("proposer.pool.num_gpus=0.5",), None),
        (("proposer.pool.num_gpus=1",), "num_gpus 1; expected a share below 1, of the one GPU"),
        ((), "num_gpus 0"),
        (("proposer.pool.num_gpus=0.5", "proposer.pool.max_replicas=2"), "one replica"),
        (("proposer.pool.num_gpus=0.5", "trainer.workers=2"), "one worker"),
        (("proposer.pool.num_gpus=0.5", "proposer.engine.tensor_parallel_size=2"), "tensor_parallel_size 1"),
        (("proposer.engine.weight_transport=nccl", "proposer.pool.num_gpus=2", "proposer.pool.max_replicas=8"), None),
        (("proposer.engine.weight_transport=nccl", "proposer.pool.num_gpus=0.5"), "num_gpus 0.5; expected 1 or more"),
        (("proposer.engine.weight_transport=sharded_rdt", "trainer.workers=4"), None),
        (("proposer.engine.weight_transport=object_store", "solve.base.engine.weight_transport=ipc"), "solve.base"),
    ],
)
def test_a_transport_that_cannot_reach_the_replicas_is_refused(given, refused):
    if refused is None:
        load(None, [*IPC, *given])
    else:
        assert refused in message(*IPC, *given)


def test_an_engine_is_given_the_gpus_that_it_is_split_over():
    split = ("solve.base.engine.tensor_parallel_size=2", "solve.base.pool.num_gpus=")
    load(None, [split[0], f"{split[1]}2"])
    load(None, [split[0], f"{split[1]}0"])
    assert "solve.base: engine.tensor_parallel_size (2)" in message(split[0], f"{split[1]}1")


ONE = "prober.ladder=[{path: m, pool: {min_replicas: 0}}]"
JUDGE = "committee.judge={path: j, pool: {min_replicas: 0}}"
WAITED = ("prober.timeout_s=901", "committee.verifiers.2.timeout_s=901")


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ((ONE, *WAITED), None),
        ((ONE, *WAITED, "prober.timeout_s=900"), ["prober.timeout_s (900)", "prober.ladder.0.pool", "than its start"]),
        ((ONE, *WAITED, "committee.verifiers.2.timeout_s=900"), ["committee.verifiers.2.timeout_s (900)"]),
        ((ONE, "committee.judge={path: j}", "prober.timeout_s=901"), None),
        ((JUDGE,), ["committee.verifiers.2.timeout_s", "committee.judge"]),
        ((JUDGE, WAITED[1]), None),
        (("committee.judge={path: j, pool: {min_replicas: 0, start_timeout_s: 9}}",), None),
        (("prober.ladder=[{endpoint: {base_url: 'http://x/v1', model: m}, pool: {min_replicas: 0}}]",), None),
        (("evaluate.model={path: m, pool: {min_replicas: 0}}", "watchdog_s=901"), None),
        (("evaluate.model={path: m, pool: {min_replicas: 0}}", "watchdog_s=900"), ["watchdog_s (900)"]),
        (("synthesize.proposer={path: m, pool: {min_replicas: 0}}",), None),
        (("sandbox.pool.min_replicas=0",), ["sandbox.pool.min_replicas (0): expected 1 or more"]),
        (("proposer.pool.min_replicas=0",), ["proposer.pool.min_replicas (0)", "in training"]),
        (("solve.base.pool.min_replicas=0",), ["solve.base.pool.min_replicas (0)", "in training"]),
        (("committee.pool.min_replicas=-1",), ["committee.pool.min_replicas", "-1"]),
    ],
)
def test_a_pool_may_be_empty_where_who_asks_waits_until_it_has_started(given, refused):
    if refused is None:
        load(None, given)
    else:
        assert all(part in message(*given) for part in refused)


@pytest.mark.parametrize("field", ["proposer.pool.resources", "trainer.resources"])
def test_custom_resources_have_names_that_ray_has_not_taken(field):
    load(None, [f"{field}={{spot: 0.01, big: 2}}"])
    for wrong, said in (("GPU: 1", "num_gpus"), ("CPU: 1", "num_cpus"), ("memory: 1", "another"), ("spot: -1", "-1")):
        assert said in message(f"{field}={{{wrong}}}")


SELECTORS = [
    "spot",
    "!spot",
    "in(H100, H200)",
    "!in(a,b)",
    "-spot",
    "in()",
    "in(a,",
    "!!a",
    "a b",
    "in (a)",
    "a" * 64,
    "or(a)",
]


@pytest.mark.parametrize("field", ["proposer.pool.labels", "trainer.labels"])
@pytest.mark.parametrize(
    "key", ["market", "ray.io/accelerator-type", "cloud.example.com/zone", "-market", "a/b/c", "x y"]
)
@pytest.mark.parametrize("value", SELECTORS)
def test_labels_are_what_ray_takes_for_a_selector(field, key, value):
    from ray._private.label_utils import validate_label_selector

    given = [f"{field}={json.dumps({key: value})}"]
    if validate_label_selector({key: value}) is None:
        assert load(None, given).trainer.labels == ({key: value} if field == "trainer.labels" else {})
    else:
        assert field in message(*given)


def test_where_a_trainer_works_makes_no_other_run():
    assert changed(load(), load(None, ["trainer.labels={market: '!spot'}", "proposer.pool.labels={zone: a}"])) == []
    placed = load(None, ["trainer.resources={trainer: 1}"])
    assert placed.trainer.resources == {"trainer": 1} and changed(load(), placed) == []


def test_several_errors_are_listed():
    with pytest.raises(Failure, match=r"^config: 2 errors\n  trainer\.workers: .*\n  sft\.lr: .*$"):
        load(None, ["trainer.workers=0", "sft.lr=-1"])
    with pytest.raises(Failure, match=r"^config: 7 errors\n  proposer: required\. The agent"):
        load(None, ["domain.kind=text"])


def test_an_override_below_a_value_of_the_file_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("domain: mini\nname: x\n")
    with pytest.raises(Failure, match="name is a value"):
        load(path, ["name.first=y"])


def test_part_of_a_section_of_several_kinds_keeps_the_default_kind():
    objective = load(None, ["mgpo.objective.tau_pos=0.9"]).mgpo.objective
    assert objective == MGPOConfig(tau_pos=0.9)
    assert load(None, ["mgpo.objective.name=grpo", "mgpo.objective.kl=0.1"]).mgpo.objective.name == "grpo"


def test_a_section_given_in_part_keeps_the_default_it_has_there():
    """The episode's sampling has another token limit than sampling in general; the temperature must not reset it."""
    episode = load(None, ["episode.sampling.temperature=0.5"]).episode
    assert episode == Config(domain="mini").episode.model_copy(update={"sampling": episode.sampling})
    assert episode.sampling.max_tokens == Config(domain="mini").episode.sampling.max_tokens
    assert load(None, ["proposer.engine.max_num_seqs=8"]).proposer.path == Config(domain="mini").proposer.path
    assert load(None, ["teacher.kind=scripted"]).teacher == Config(domain="mini").teacher


def test_an_override_inside_a_default_list_keeps_its_other_entries():
    before, after = (
        Config(domain="mini").committee.verifiers,
        load(None, ["committee.verifiers.2.samples=9"]).committee.verifiers,
    )
    assert after[2].samples == 9
    assert after[:2] == before[:2] and after[2] == before[2].model_copy(update={"samples": 9})


def test_an_override_of_what_an_alias_repeats_changes_it_there_alone(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "domain: mini\nproposer: {engine: &e {max_model_len: 1024}}\nsolve: {base: {path: m, engine: *e}}\n"
    )
    config = load(path, ["solve.base.engine.max_model_len=512"])
    assert (config.proposer.engine.max_model_len, config.solve.base.engine.max_model_len) == (1024, 512)


def test_overrides_win_over_the_file_and_the_last_one_wins(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("domain: mini\ntrainer: {workers: 2, threads: 3}\nseed: 5\n")
    config = load(path, ["trainer.workers=4", "trainer.workers=3"])
    assert (config.trainer.workers, config.trainer.threads, config.seed) == (3, 3, 5)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "seed: 1"])
def test_a_file_says_its_domain(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(Failure, match=r"c\.yaml: domain: required\. Expected mini\b.*\btext\b.*\)$"):
        load(path)
    path.write_text(f"{text.removesuffix('{}')}\ndomain: mini\n")
    assert load(path) == Config(domain="mini", seed=load(path).seed) == load(path, ["domain.kind=mini"])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(Failure, match=r"absent\.yaml: No such file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(Failure, match="Is a directory"):
        load(tmp_path)
    broken = tmp_path / "broken.yaml"
    broken.write_text("trainer:\n  workers: [1\nseed: 2\n")
    with pytest.raises(Failure, match=r"broken\.yaml:3:\d+: not YAML"):
        load(broken)
    broken.write_text("- 1\n")
    with pytest.raises(Failure, match="list, expected a mapping"):
        load(broken)
    broken.write_bytes(b"name: \xff\n")
    with pytest.raises(Failure, match=r"broken\.yaml"):
        load(broken)


def test_a_file_s_error_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("domain: mini\nsft: {lr: fast}\n")
    with pytest.raises(Failure, match=r"mine\.yaml: sft\.lr: .*'fast'"):
        load(path)


names = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
tree = st.fixed_dictionaries(
    {"domain": st.sampled_from(["mini", {"kind": "mini"}])},
    optional={
        "name": names,
        "seed": st.integers(-(2**40), 2**40),
        "system_prompt": st.none() | names,
        "trainer": st.fixed_dictionaries(
            {}, optional={"workers": st.integers(1, 64), "zero_stage": st.sampled_from([0, 1, 2, 3])}
        ),
        "mgpo": st.fixed_dictionaries(
            {},
            optional={
                "lr": st.floats(1e-12, 1),
                "objective": st.one_of(
                    st.fixed_dictionaries({}, optional={"omega": st.floats(0, 10), "ratio": st.just("action")}),
                    st.fixed_dictionaries({"name": st.just("grpo")}, optional={"kl": st.floats(0, 1)}),
                ),
            },
        ),
        "acquire": st.fixed_dictionaries({"corpus": st.lists(names, min_size=1, max_size=3)}),
        "prober": st.fixed_dictionaries(
            {},
            optional={
                "ladder": st.lists(st.fixed_dictionaries({"path": names}), min_size=1, max_size=3, unique_by=str)
            },
        ),
        "sandbox": st.fixed_dictionaries(
            {"pool": st.fixed_dictionaries({"resources": st.dictionaries(names, st.floats(0, 4), max_size=2)})}
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(tree)
def test_what_is_dumped_loads_to_the_same(tmp_path_factory, tree):
    config = validate(tree)
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump(config))
    assert load(path) == config


def leaves(section, where=()):
    for name, value in section.items():
        yield from leaves(value, (*where, name)) if isinstance(value, dict) else [((*where, name), value)]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_setting_a_field_to_its_own_value_changes_nothing(data):
    """Every field can be reached by its dotted name."""
    path, value = data.draw(st.sampled_from(list(leaves(Config(domain="mini").model_dump(mode="json")))))
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
    assert load(None, [f"{'.'.join(path)}={text}"]) == Config(domain="mini")


def test_the_field_s_meaning_is_in_the_schema():
    """`propose config show` explains fields from here."""
    assert "Pass@k" in Config.model_json_schema()["$defs"]["ProberConfig"]["properties"]["k"]["description"]


def test_the_config_of_the_mini_world_is_the_defaults():
    assert load(Path(__file__).parents[3] / "deploy" / "configs" / "mini.yaml") == Config(domain="mini")


@pytest.mark.parametrize(
    "sets, why",
    [
        (["acquire.min_category=1"], "acquire.min_category .1.: a task combines mgpo.curriculum.min_skills .2."),
        (["acquire.min_category=2", "mgpo.curriculum.min_skills=3"], "never offered; expected at least that, or null"),
        (["teacher={kind: mixture, of: []}"], "teacher"),
        (["teacher={kind: mixture, of: [{weight: 0, teacher: {kind: scripted}}]}"], "weight"),
        (["teacher={kind: mixture, of: [{teacher: {kind: scripted, pool: {max_replicas: 3}}}]}"], "of.0.teacher.pool"),
        (["teacher={kind: mixture, of: [{teacher: {kind: mixture, of: []}}]}"], "kind"),
        (["teacher={kind: model, model: {endpoint: {base_url: 'http://x/v1', model: m}}}"], "expected kind openai"),
        (["teacher={kind: model, model: {path: m, pool: {min_replicas: 0, num_gpus: 1}}}"], "teacher.timeout_s"),
    ],
)
def test_teachers_and_categories_that_cannot_be(sets, why):
    with pytest.raises(Failure, match=why):
        load(None, sets)


def test_a_category_is_as_large_as_a_task_needs_unless_it_is_said():
    assert load().acquire.min_category is None
    assert load(None, ["acquire.min_category=4"]).acquire.min_category == 4


def test_each_teacher_of_a_mixture_has_its_own_limits_and_its_name():
    big = "{kind: openai, base_url: 'http://x/v1', model: big, budget_usd: 3, usd_per_million_in: 1, concurrency: 2}"
    own = "{kind: model, model: {path: /models/own}}"
    config = load(None, [f"teacher={{kind: mixture, of: [{{weight: 3, teacher: {big}}}, {{teacher: {own}}}]}}"])
    each = config.teacher.each()
    assert {field: (weight, one.called) for field, (weight, one) in each.items()} == {
        "teacher.of.0.teacher": (3.0, "big"), "teacher.of.1.teacher": (1.0, "/models/own"),
    }  # fmt: skip
    assert load().teacher.each() == {"teacher": (1.0, load().teacher)}
