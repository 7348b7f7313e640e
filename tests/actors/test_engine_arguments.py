"""What is handed on to vLLM's engine: read by vLLM, refused with the argument's name."""

import pytest

from actors.engine_arguments import read
from pipeline.config import ModelConfig
from pipeline.config.loading import load
from pipeline.records import Failure


def test_values_are_what_vllm_reads_them_as():
    given = {
        "max_num_batched_tokens": "8k",
        "kv_cache_dtype": "fp8",
        "enable_prefix_caching": False,
        "hf_overrides": {"rope_theta": 1.5},
    }
    assert read(given) == given | {"max_num_batched_tokens": 8000}
    assert read({}) == {}


@pytest.mark.parametrize(
    "name, value, why",
    [
        ("kv_cache_dtype", "fp9", "invalid choice: 'fp9'"),
        ("max_num_batched_tokens", "many", "many"),
        ("max_num_batched", 8192, "unknown to vLLM"),  # not even as an abbreviation
        ("enable_prefix_caching", "often", "enable_prefix_caching"),
        ("speculative_config", "{", "speculative"),
        ("help", True, "unknown to vLLM"),
    ],
)
def test_what_vllm_refuses_is_refused_by_name(name, value, why):
    with pytest.raises(Failure, match=why) as e:
        read({"block_size": 32, name: value})
    assert str(e.value).startswith(f"engine.arguments.{name}: "), e.value
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "name, why",
    [
        ("max_num_seqs", "expected the field max_num_seqs beside"),
        ("kv_cache_memory_bytes", "expected kv_cache_gb"),
        ("seed", "the pool that serves the model decides it"),
    ],
)
def test_what_the_project_decides_is_no_argument(name, why):
    with pytest.raises(Failure, match=rf"proposer.engine: arguments.{name}: .*{why}"):
        load(None, [f"proposer.engine.arguments={{{name}: 1}}"])
    assert ModelConfig(path="m", engine={"arguments": {"block_size": 64}}).engine.arguments == {"block_size": 64}
