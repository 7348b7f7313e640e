"""Which verdict and which probe belong to which episode: by key, and to the problem that it submitted.

Invariant: an episode that ended well and submitted a problem has one verdict, on that problem; nobody else has one. A
probe is of an attempt whose verdict accepted its problem (SFT probes none).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.records import Episode, Probe, Verdict
from pipeline.store.tables import KEY, Key, read_table


@dataclass(frozen=True)
class Pairs:
    """Of one step: attempt -> id of the problem that it submitted, that was judged, that was probed."""

    submitted: Mapping[Key, str]
    judged: Mapping[Key, str]
    accepted: frozenset[Key]
    probed: Mapping[Key, str]

    @classmethod
    def of(cls, episodes: Iterable[Episode], verdicts: Mapping[Key, Verdict], probes: Mapping[Key, Probe]) -> Pairs:
        return cls(
            {(e.id, e.attempt): e.submitted.id for e in episodes if e.submitted and e.outcome.kind == "ok"},
            {key: verdict.problem_id for key, verdict in verdicts.items()},
            frozenset(key for key, verdict in verdicts.items() if verdict.accepted),
            {key: probe.problem_id for key, probe in probes.items()},
        )

    @classmethod
    def on_disk(cls, step: Path) -> Pairs:
        """The same without the texts. Raises Damage."""
        episodes = read_table(step / "episodes.parquet", ["id", "attempt", "submitted.id", "outcome.kind"]).to_pylist()
        verdicts = read_table(step / "verdicts.parquet", [*KEY, "problem_id", "decision"]).to_pylist()
        probes = read_table(step / "probes.parquet", [*KEY, "problem_id"]).to_pylist()
        return cls(
            {
                (e["id"], e["attempt"]): e["submitted"]["id"]
                for e in episodes
                if e["submitted"] and e["outcome"]["kind"] == "ok"
            },
            {(v["episode_id"], v["attempt"]): v["problem_id"] for v in verdicts},
            frozenset((v["episode_id"], v["attempt"]) for v in verdicts if v["decision"] == "accepted"),
            {(p["episode_id"], p["attempt"]): p["problem_id"] for p in probes},
        )

    def wrong(self) -> Iterator[str]:
        """What contradicts the invariant, a line each."""
        for key in sorted(self.submitted.keys() - self.judged.keys()):
            yield f"{_name(key)} has no verdict"
        for what, problems in (("verdict", self.judged), ("probe", self.probed)):
            for key, problem in problems.items():
                if self.submitted.get(key) != problem:
                    theirs = self.submitted.get(key, "nothing")
                    yield f"the {what} of {_name(key)} is on {problem}, it submitted {theirs}"
        for key in sorted(self.probed.keys() - self.accepted):
            yield f"{_name(key)} was probed, and its problem was not accepted"


def _name(key: Key) -> str:
    return f"{key[0]} (attempt {key[1]})"
