"""What every reward, task, source and filter has: settings of its own that explain themselves, and where it comes from."""

from __future__ import annotations

import subprocess
import sys

import pytest

from model_core import errors
from model_core.config import StrictModel
from model_core.errors import ConfigError, ModelCoreError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.filters import FILTERS
from model_core.registry import Registry
from model_core.rewards import REWARDS
from model_core.sources import SOURCES
from model_core.tasks import TASKS

KINDS: dict[str, Registry] = {"reward": REWARDS, "task": TASKS, "source": SOURCES, "filter": FILTERS, "benchmark": BENCHMARKS}
METHODS = {"reward": ("__call__",), "task": ("generate", "verify", "check_steps", "conclusion"), "source": ("rows",), "filter": ("why_dropped",),
           "benchmark": ("problem", "answer", "grade")}


THINGS = [pytest.param(kind, name, id=f"{kind}-{name}") for kind, registry in KINDS.items() for name in registry.names()]


@pytest.mark.parametrize(("kind", "name"), THINGS)
def test_a_thing_says_what_it_is_and_does_what_its_kind_does(kind: str, name: str) -> None:
    thing = KINDS[kind].get(name)
    assert thing.__doc__ and (sys.modules[thing.__module__].__doc__ or "").strip()
    assert thing.__name__ == "".join(part.title() for part in name.split("_"))
    assert all(callable(getattr(thing, method)) for method in METHODS[kind])


@pytest.mark.parametrize(("kind", "name"), THINGS)
def test_its_settings_have_defaults_explain_themselves_and_come_back(kind: str, name: str) -> None:
    config = KINDS[kind].get(name).Config
    assert issubclass(config, StrictModel) and config.__doc__
    assert all(field.description for field in config.model_fields.values())
    stored = config.parse({}).resolved()
    assert config.parse(stored) == config.parse({}) and config.parse(stored).resolved() == stored
    assert KINDS[kind].get(name)(config.parse({})).config == config.parse(stored)
    with pytest.raises(ConfigError, match="no such setting") as refused:
        config.parse({"magic": 1}, prefix="at")
    assert refused.value.field == "at.magic"


@pytest.mark.parametrize("name", REWARDS.names())
def test_a_reward_has_bounds(name: str) -> None:
    low, high = REWARDS.get(name).bounds
    assert low < high


def test_light_things_need_no_torch() -> None:
    """Every reward, task, source, filter and phase, and what starts and prepares runs."""
    code = (
        "import sys, model_core.preparation, model_core.scoring, model_core.recipes, model_core.launch, model_core.rundir, "
        "model_core.events, model_core.evaluation.statistics\n"
        "from model_core.filters import FILTERS\nfrom model_core.phases import PHASES\nfrom model_core.rewards import REWARDS\n"
        "from model_core.sources import SOURCES\nfrom model_core.tasks import TASKS\nfrom model_core.evaluation.benchmarks import BENCHMARKS\n"
        "found = [thing for kind in (FILTERS, PHASES, REWARDS, SOURCES, TASKS, BENCHMARKS) for _name, thing in kind.items()]\n"
        "assert len(found) > 12\n"
        "print({'torch', 'transformers', 'deepspeed', 'django'} & set(sys.modules))"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ModelCoreError)]


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_carries_its_sentence_and_its_field(cls: type[ModelCoreError]) -> None:
    error = cls("It is 3; set it to 2.", field="at.this")
    assert (str(error), error.message, error.field) == ("It is 3; set it to 2.", "It is 3; set it to 2.", "at.this")
    assert cls("x").field == "" and cls.__doc__


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_survives_the_way_between_processes(cls: type[ModelCoreError]) -> None:
    import pickle

    error = pickle.loads(pickle.dumps(cls("It is 3.", field="at.this")))
    assert type(error) is cls and (error.message, error.field) == ("It is 3.", "at.this")
