"""A whole service, with engines, from its start to a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

KEY = {"Authorization": "Bearer sesame"}


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(900)
def test_a_service_answers_refuses_and_stops(tmp_path):
    """The bundled proposer writes for skills of the mini world; SIGTERM lets the one under way come to its end."""
    root = Path(__file__).parents[3]
    run = tmp_path / "run"
    env = os.environ | {"PYTHONPATH": str(root), "PROPOSE_API_KEY": "sesame"}
    begin = [sys.executable, "-m", "pipeline"]
    made = [*begin, "acquire", "--run-dir", str(run), "--set", "synthesize.proposer={path: mini:proposer}"]
    subprocess.run(made, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=300)
    service = subprocess.Popen(
        [*begin, "serve", str(run), "--port", "0"], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in service.stderr if "http://" in line)
        url = next(word for word in line.split() if word.startswith("http://"))
        with httpx.Client(base_url=url, headers=KEY, timeout=300) as client:
            assert httpx.get(f"{url}/v1/skills").status_code == 401
            skills = [skill["id"] for skill in client.get("/v1/skills").json()]
            wish = {"skills": skills[:2], "seed": 1}
            names = []
            with client.stream("POST", "/v1/problems", json=wish | {"stream": True}) as answer:
                for text in answer.iter_lines():
                    if text.startswith("event: "):
                        names.append(text[7:])
                        if names[-1] == "playing" and names.count("playing") == 1:
                            service.send_signal(signal.SIGTERM)
            assert names[:3] == ["waiting", "playing", "episode"] and names[-1] == "problem"
        assert service.wait(120) == 0
    finally:
        service.kill()
        service.wait()
