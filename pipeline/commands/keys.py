"""What the `--json` object of each command holds: key -> meaning, as its `--help` prints them.

Invariant: a command's object has these keys, no more and no fewer.
"""

from collections.abc import Mapping

STAGE_KEYS: dict[str, Mapping[str, str]] = {
    "acquire": {
        "documents": "documents read",
        "skipped_records": "corpus records left out",
        "left_out": "reason -> files, folders and records of the corpus that were not read",
        "failed_replies": "documents that the teacher did not answer",
        "malformed_replies": "teacher replies of which something could not be read",
        "candidates": "skills proposed by the teacher",
        "copied_examples": "skills that only repeat the prompt's example, no candidates",
        "unscored": "of them, those whose score by the rubric could not be read",
        "dropped_low_score": "those below acquire.min_score",
        "duplicates": "those that are a kept one again",
        "kept": "skills in the library",
        "kept_per_document": "proposals that are skills of the library, a document",
        "by_teacher": "who proposed -> documents answered, and kept: proposals that are skills of the library",
        "scripts": "of them with a script",
        "refused": "candidates whose script did not run, defined nothing, or did not pass its self-test",
        "version": "of the library's content",
        "skills": "category -> skills kept",
        "unnamed_categories": "those of them that the domain does not name",
        "merged_categories": "proposed category -> the one that its skills went to",
        "never_offered": "category that no task can come from -> why",
    },
    "sft": {
        "trajectories": "teacher episodes, or lines of sft.data",
        "accepted": "of them accepted by the committee, or short enough",
        "validity": "accepted / trajectories",
        "cloned": "of them trained on: as many of each style and category as sft.balance lets",
        "extraction": "documents with their skills, trained on beside these",
        "styles": "style as played -> {played, accepted, cloned}",
        "by_teacher": "teacher -> the same",
        "rejected": "reason -> trajectories that are not cloned; the commonest reasons",
        "steps": "optimizer steps",
        "loss_first": "loss of the first step, nats a token",
        "loss_last": "loss of the last step",
        "checkpoint": "Hugging Face directory of pi_ref",
    },
    "mgpo": {
        "steps": "optimizer steps",
        "episodes": "episodes issued",
        "ledger": "issued = trained + filtered + failed",
        "first": "figures of the first steps (see metrics.jsonl)",
        "last": "figures of the last steps",
        "checkpoint": "Hugging Face directory of the proposer",
    },
    "synthesize": {
        "accepted": "problems in dataset/problems.jsonl",
        "ended_by": "target that was reached first: problems, episodes, tokens, hours or usd; null: none",
        "tokens": "sampled for all episodes and their probes",
        "tokens_per_problem": "the same for each row",
        "seconds_per_problem": "of writing, for each row",
        "usd_per_problem": "spent at endpoints, for each row; null: nothing",
        "unsolved": "valid ones that no prober solves above chance, in dataset/unsolved.jsonl",
        "left_out": "reason -> accepted problems that are no rows",
        "marked": "gate that keeps no row out -> rows that it marks",
        "examples": "reason, gate or 'solved by no prober above chance' -> question and answer of the first three",
        "guessable": "rows of which a guess is right one time in two",
        "skeletons": "distinct skeletons (problems without numbers, names and wordings) in the data set",
        "skeleton_entropy": "of them, 1: all different",
        "skeleton_top_share": "share of the commonest",
        "episodes": "episodes played",
        "validity": "share of judged episodes that were accepted",
        "prune_rate": "share of episodes that dropped a skill",
        "mean_pass_at_k": "of the data set",
        "mean_pass_rate": "share of the prober's samples that are right, of the data set",
        "mean_difficulty": "1 - Pass@k, of the data set",
        "by_category": "category -> problems",
    },
    "solve": {
        "steps": "optimizer steps",
        "problems": "problems in the data set",
        "sources": "file -> {problems, weight, asked: of the problems asked, those of it}",
        "warmup": "SFT before GRPO: solutions learned from, left_out (reason -> problems), steps, loss_first, "
        "loss_last, checkpoint; null: none",
        "reward_first": "accuracy on sampled problems, first steps",
        "reward_last": "the same, last steps",
        "dev": "step -> score of its checkpoint on the dev problems, 0: before training; empty without solve.dev",
        "checkpoint": "Hugging Face directory of the solver",
    },
    "evaluate": {
        "problems": "problems of the benchmark",
        "samples": "k of Mean@k",
        "before": "{mean, interval (95 %), by_category, by_steps, unknown, measures} of the base solver; measures: "
        "mean@n, pass@k, best@n, maj@n, each {value, interval (95 %, bootstrap over problems)}, and counts of samples: "
        "truncated, of the others no_answer, unknown (nobody could judge)",
        "after": "the same of the trained solver",
        "gain": "after.mean - before.mean",
        "paired": "the gain problem by problem: difference, interval (95 %, bootstrap), p, problems better and worse",
        "score": "with evaluate.model: the same of that model; then before, after and gain are null",
        "models": "with evaluate.models or --model: model -> the same of each; empty without",
        "pairs": 'with them: "A ~ B" -> B against A: verdict in words, problems, difference, interval (95 %, '
        "bootstrap), p (signs flipped at random), problems better and worse; changed.parquet in B's step holds them",
        "left_out": "reason -> rows of the benchmark that its preset does not ask",
        "answers": "files with the answers to every item, of each model; items.parquet beside them has a row a sample",
    },
}

EXTRACTION_KEYS = {
    "documents": "read by teacher and proposer",
    "teacher_per_document": "skills that the teacher's reading admitted, a document",
    "proposer_per_document": "the same of the trained proposer's",
    "difference": "proposer - teacher, document by document",
    "difference_interval": "its 95 % interval",
    "shared": "skills of documents that both admitted",
    "recall": "shared / the teacher's",
    "precision": "shared / the proposer's",
    "teacher_skills": "skills in the library of the teacher's reading",
    "proposer_skills": "in that of the proposer's",
    "shared_skills": "in both",
}
AUDIT_KEYS = {
    "sound": "sound problems judged",
    "planted": "problems with a known defect judged",
    "committee": "{false_accept, false_reject (each with _high, the end of its 95 % interval), abstention, "
    "disagreement, latency_s, latency_p95_s}",
    "verifiers": "name -> the same of each verifier's votes",
    "kappa": "verifier~verifier -> how far their votes agree beyond chance",
    "error_kappa": "the same of their errors",
    "unspoiled": "with --by-model: why a model's reply spoiled nothing -> count",
    "injections_accepted": "planted instructions to the verifiers that got a problem accepted",
    "by_defect": "defect -> {n, accepted}",
}
ADVERSARY_KEYS = {
    "tries": "with --adversary: attacks",
    "accepted": "of them by the committee",
    "paid": "above nothing",
    "exported": "rows they would be",
    "exploits": "paid, with a fault",
    "exploit_share": "of all tries",
    "by_fault": "fault -> share of all tries that are paid with it",
    "by_kind": "what the attack descends from -> {tries, accepted, paid, exported, exploits}",
    "examples": "fault -> the best paid ones",
}
LEDGER_KEYS = {
    "stages": "stage -> {steps, totals, checkpoints, trained_twice (tasks), taught (solutions that a warm-up learned "
    "from, no attempts)}; each step: tasks, attempts issued, "
    "trained, filtered, failed, live, interrupted (failed because the run ended), not_needed (failed because the stage "
    "had enough), attempts {number: issued}, checkpointed",
    "findings": "what does not add up, a line each; empty, else exit code 2",
}
VERIFY_KEYS = {
    "place": "what was verified",
    "files": "in it",
    "bytes": "of them",
    "findings": "what is not what was written: what, needed_by (stages), mend; empty, else exit code 2",
}
REPLAY_KEYS = {
    "stage": "mgpo or solve",
    "step": "the one that was trained again",
    "from": "step of the checkpoint that it was trained from, with those between; 0: the model the stage began with",
    "compared_with": "run: its checkpoint of the step; second replay: it kept none",
    "tensors": "compared",
    "sha256": "of the weights that the replay has",
    "different": "names of the tensors that differ in any bit; empty, else exit code 2",
}
CHAOS_KEYS = {
    "planned": "kills asked for",
    "kills": "processes killed",
    "lost": "rollouts that the config asks for and that have no end",
    "failed_by_infra": "tasks that infrastructure failed in every attempt: killed under them",
    "trained_twice": "rollouts that the trainer saw twice",
    "kinds": "kind -> kills, and medians of detect_s, full_rate_s, tokens_wasted; how: replaced (the process), "
    "restarted (the stage), resumed (the same command again)",
    "each": "the kills, in order",
    "checkpoint": "step and rollouts of the last one",
    "expected": "the same of an undisturbed run with these ends",
    "ends": "trained, filtered, failed rollouts",
    "findings": "of the ledger's audit",
    "orphans": "processes that outlived their run",
    "resumed": "times that the command was given again",
    "tokens_wasted": "of all kills",
    "wall_s": "of the run under fire",
}
ABLATE_KEYS = {
    "arms": "arm -> {meaning, seeds, and of each metric {mean, interval (95 % over seeds), values} or null; so of "
    "tokens sampled in training, learning rate and minutes}",
    "orderings": "comparison, higher, lower, metric, at (equal steps or tokens), difference (paired by seed), p and "
    "p_within (its being within bound) as Holm corrects them, verdict: does the higher arm lead?",
    "rounds": "gate -> of each round problems, label_accuracy, sound, yield_per_1k, pass_rate and score, each as above",
    "sources": "arm -> {episodes, tokens, problems, validity} of what its solver learned from, each as above; of those "
    "with a solver",
    "sweep": "arm -> learning rate tried -> solved_yield_per_1k at it, on combinations that training uses",
    "budget": "what every arm got",
    "fixed": "SHA-256 of the solver's base and of the benchmark, the same for all seeds",
}
DATASET_CHECK_KEYS = {
    "rows": "of the data set",
    "barred": "of them marked by a gate that keeps rows out",
    "gates": "gate -> rows that it marks; duplicate, in another data set, benchmark: exact, reordered, near, passage, "
    "semantic, changed numbers (which bars nothing)",
    "examples": "gate -> the first rows that it marks",
    "traces": "places of training files that tell how rows were made",
    "traces_shown": "the first 20, a line each",
}
DATASET_STATS_KEYS = {
    "rows": "of the data set",
    "kinds": "answer_kind -> rows",
    "categories": "category -> rows, as the provenance beside says",
    "question_words": "{median, p95, longest}",
    "answers": "{distinct, top, top_share}: how often the commonest is right",
    "languages": "language -> rows; unknown: too few words to tell",
    "pass_at_k": "{median, zero, one} of the prober, as the provenance beside says; null without",
    "skeletons": "{skeletons, skeleton_entropy, skeleton_top_share, near_duplicates}",
}
COMPARE_KEYS = {
    "a": "share of right samples",
    "b": "the same",
    "problems": "answered by both",
    "only_a": "left out: not answered by b",
    "only_b": "left out: not answered by a",
    "difference": "b - a, a mean over problems",
    "interval": "of it, 95 %, bootstrap over problems",
    "p": "chance of a difference as large if the two were alike: signs flipped at random",
    "better": "problems that b solves oftener",
    "worse": "less often",
    "changed": "{id, a, b, question} of each of these",
    "verdict": "in words",
}
REPORT_TWO_KEYS = {
    "page": "the file that was written",
    "a": "the summary of A",
    "b": "of B",
    "settings": "field, a, b of each setting that differs",
    "compared": "what `compare` says of the two solvers' answers; null where they cannot be compared",
    "why_not": "why they cannot; null else",
}
"""With two runs."""
SKILLS_LIST_KEYS = {
    "version": "of the library's content",
    "skills": "{id, category, intent, score, version, script, self_test, p_skill (how often the teacher proposes "
    "it; null where that is not known)} of each",
}
SKILLS_SHOW_KEYS = {
    "id": "its name",
    "category": "its own",
    "intent": "what it asks of a solver",
    "method": "structure and action",
    "difficulty": "how it makes a problem harder",
    "tool_hint": "how code can check it",
    "script": "Python, or null",
    "score": "r(k)",
    "source": "which document it came from",
    "version": "of its content",
    "document": "SKILL.md and the script, as a teacher writes them",
    "marks": "{item, points, reason} of the rubric",
    "origins": "{path, source, origin, license, name} of each proposal that it is made of",
}
SKILLS_ADD_KEYS = {
    "added": "names",
    "replaced": "names of skills that went for them",
    "skills": "in the library now",
    "version": "of its content now",
}
SKILLS_REMOVE_KEYS = {"removed": "names", "skills": "left in the library", "version": "of its content now"}
SKILLS_LINT_KEYS = {"findings": "{where, rule, what} of each; empty, else exit code 2"}
SKILLS_STATS_KEYS = {
    "version": "of the library's content",
    "skills": "in it",
    "categories": "category -> skills",
    "scripts": "skills with a script",
    "self_tests": "of them with a self-test",
    "scores": "{lowest, median, highest}",
    "sources": "documents that they came from",
    "licenses": "licence -> proposals that they are made of",
    "candidates": "what became of a proposal (kept, merged, or the cause of its rejection) -> proposals",
}
SKILLS_MERGE_KEYS = {
    "read": "skills of all libraries",
    "skills": "in the new one",
    "same": "skill -> names of those that were it again, and less well scored",
    "renamed": "skills that got a number, because another one has their name",
    "version": "of the content",
}
DATASET_CARD_KEYS = {"card": "the text of README.md"}
DATASET_EXPORT_KEYS = {
    "rows": "written",
    "layout": "their form",
    "out": "the folder",
    "files": "in it",
    "pushed": "its address on the Hub; null without --push",
}
MODEL_CARD_KEYS = {"card": "the text of README.md"}
MODEL_EXPORT_KEYS = {
    "model": "proposer or solver",
    "stage": "that trained it last",
    "checkpoint": "that was copied",
    "out": "the folder",
    "files": "in it",
    "pushed": "its address on the Hub; null without --push",
}
DOCTOR_KEYS = {"ready": "nothing prevents a run", "checks": "name, status, found, todo, detail of each"}
VALID_KEYS = {"valid": "true, else exit code 2", "name": "of the run", "run_dir": "where it would run"}
RUNS_KEYS = {
    "folder": "where was looked",
    "runs": "name, run_dir, stage (not done yet; null: all are), begun, last_sign (seconds since 1970), bytes, state "
    "(running, stopped, done, not begun, unreadable), why (it is unreadable) of each",
}
STATUS_KEYS = {
    "run_dir": "the run directory",
    "name": "of the run",
    "state": "running, stopped, done or not begun",
    "stage": "the first that is not done; null: all are",
    "since": "when a process took that stage up, in seconds since 1970",
    "cause": "of a stopped run, its stage and why that ended; null: not told, as of a process that was killed",
    "last_sign": "when the run last wrote metrics, events or accounts",
    "left_s": "of the running stage, by the rate of late, its first step left out",
    "stages": "stage -> {status, done, total, unit, rate_s (seconds a unit), wall_s}",
    "logs": "files and folders, of the run and of its Ray",
    "bytes": "on disk",
}
PLAN_KEYS = {
    "run_dir": "where it would work",
    "stages": "stage -> {do (skip, resume, run), done, total, unit, left_s, by (the run that the time is known from)}",
    "memory_gb": "pool or trainer -> GB, as far as known",
    "refused": "what would keep it from starting",
}
"""Of `--dry-run`."""
MEMORY_KEYS = {
    "stages": "stage -> its processes: {process, count, where (GPU or memory), gb (what -> GB of one; of a rank "
    "parameters, gradients, optimizer, reference, activations, layer, logits, buffers, update; of an engine "
    "weights, kv_cache), peak_gb, host_gb (of a rank on a GPU, what is offloaded), tokens (row: of the longest; "
    "kv_cache: that fit)}",
    "memory_gb": "stage -> GB of the machine's memory that its processes take together",
    "gpu_gb": "of the smallest GPU here; null: none, or a cluster's",
    "free_gb": "of this machine's memory; null: a cluster's",
    "unknown": "fields of models whose sizes are not known here, which are left out",
    "refused": "what there is no room for; empty, else exit code 2",
}
POOLS_KEYS = {
    "stage": "the stage",
    "steps": "of the stage; of synthesize, as many as its target takes",
    "episodes": "of all steps",
    "seconds": "that the stage would take",
    "episodes_per_hour": "rate",
    "accepted_per_hour": "accepted, solved and new; handed in, where unfiltered",
    "unfiltered": "whether whatever is handed in is a row (synthesize.filter none)",
    "binds": "the pool that is busy for 80 % of what it can do or more, else the setting that keeps all waiting",
    "pools": "pool -> {replicas, gpus, busy (share of what it can do), most_per_hour (episodes, whatever waits; "
    "null: none needs it), under_way (calls, by kind), waited_s (for a seat, by kind), enough (replicas that would do "
    "for the pool that can do least, 85 % busy; null: the trainer, or a machine that pools share)}",
    "gpus": "held by pools and trainer",
    "cpus": "reserved by them",
    "gpu_hours": "of the stage",
    "per_1000": "of 1,000 accepted problems: {hours, gpu_hours, cpu_hours, money (null: without a price)}; null: none "
    "was accepted",
    "memory": "what is up in the stage: {process, where, peak_gb of one}; see `propose plan memory`",
    "refused": "what there is no room for; empty, else exit code 2",
    "times": "what was put in: {alone_s (pool -> mean seconds an episode), slowdown (pool -> by a call of which pool "
    "-> share), token_s, step_s, between_s, tokens, kept (share of episodes), episodes (drawn from)}",
    "measured": "where the run that is planned for has done the stage: {episodes, seconds, episodes_per_hour, off (of "
    "the plan, as a share)}; else null",
    "simulated": "{steps, episodes, events, took_s}",
}
REDO_KEYS = {
    "run_dir": "the run directory",
    "stages": "those set aside",
    "moved": "their files and folders",
    "to": "where they are now",
    "dry_run": "true: nothing was moved",
}
"""With --no-run or --dry-run; else the keys are those of `run`."""
FORK_KEYS = {
    "run_dir": "the new run",
    "from": "the run that it shares stages with",
    "changed": "fields that compute something else",
    "shared": "stages that stay the same",
    "again": "stages that are to be run",
    "bytes": "that the fork takes on the disk",
    "dry_run": "true: nothing was made",
}
DIFF_KEYS = {"differences": "field, a, b of each field that differs (null: it has none)"}
INIT_KEYS = {
    "path": "the file that was written",
    "schema": "the JSON schema beside it, which editors check it by",
    "domain": "its domain",
    "profile": "what it is a copy of",
}


def summary_keys() -> Mapping[str, str]:
    """Of `run` and `report`; the report brings heavier packages, which other help does not need."""
    from pipeline.report import SUMMARY_KEYS

    return SUMMARY_KEYS
