"""What SFT learns from, where somebody else wrote it."""

import asyncio
import json

from pipeline.config.loading import load
from pipeline.flow.context import Context
from pipeline.pools.loaders import DatasetLoader
from pipeline.stages import sft
from pipeline.store.rundir import RunDir


def test_given_trajectories_are_what_the_trainer_is_handed(tmp_path):
    talk = [{"role": role, "content": text} for role, text in (("user", "Go."), ("assistant", "## Draft\nFive coins."))]
    (tmp_path / "given.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 5)
    config = load(None, [f"sft.data={tmp_path / 'given.jsonl'}"])
    context = Context(config, RunDir.open(tmp_path / "run", config), None, None, None)
    for _ in range(2):  # the stage may begin again
        files, played, kept, _ = sft._given(context, context.domain.model(config.proposer.path))
        assert (played, kept) == (5, 5)
        assert asyncio.run(DatasetLoader(files, batch=2, epochs=3, seed=0).steps()) == 9
