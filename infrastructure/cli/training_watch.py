"""Shows the training that ai-service does before it is ready, as its ``/health`` tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from infrastructure.cli.progress import Progress
from infrastructure.supervisor.http_client import LocalHttp
from infrastructure.supervisor.paper_run import AI
from shared.clock import Clock

_LOOK_SECONDS = 0.5
_TRAINING = re.compile(r"^training (?P<percent>\d+(?:\.\d+)?) %")
_FAILED = re.compile(r"^training failed")


async def watch_training(http: LocalHttp, url: str, *, progress: Progress, clock: Clock) -> None:
    """Tell ``progress`` about every training and every failed one at ``url``; runs until cancelled."""
    told = ""
    while True:
        for text in module_texts(await http.get_json(f"{url}/health")):
            if found := _TRAINING.match(text):
                progress.training(AI, float(found["percent"]) / 100.0)
            elif _FAILED.match(text) and text != told:
                told = text
                progress.say(f"{AI}: {text}; it tries again")
        await clock.sleep(_LOOK_SECONDS)


def module_texts(health: Mapping[str, Any] | None) -> list[str]:
    """Return what the modules of a service say about themselves."""
    modules = (health or {}).get("modules")
    return [str(text) for text in modules.values()] if isinstance(modules, dict) else []
