"""The problems of reasoning-gym, a library of generators with verifiers of their own, by one adapter.

Source: Reasoning Gym (arXiv 2505.24760), release 0.1.25. A row keeps how its problem was made and not the problem's
inner data: the verifier makes it again. There are no demonstrations. Nothing here needs a picture. What is left out of
the library stands in `LEFT_OUT` with its reason.
"""

from __future__ import annotations

import json
import random
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from model_core.errors import ConfigError
from model_core.registry import registered
from model_core.rewards._equations import equations
from model_core.tasks._problems import Levels, new_problems

Dataset = Literal[
    "ab", "advanced_geometry", "aiw", "arc_1d", "arc_agi", "base_conversion", "basic_arithmetic", "binary_alternation",
    "bitwise_arithmetic", "caesar_cipher", "calendar_arithmetic", "chain_sum", "circuit_logic", "coin_flip",
    "color_cube_rotation", "complex_arithmetic", "count_bits", "count_primes", "course_schedule", "cryptarithm",
    "decimal_arithmetic", "decimal_chain_sum", "dice", "emoji_mystery", "family_relationships", "figlet_font",
    "fraction_simplification", "futoshiki", "game_of_life", "gcd", "group_anagrams", "gsm_symbolic", "jugs", "kakurasu",
    "knights_knaves", "largest_island", "lcm", "leg_counting", "letter_counting", "letter_jumble", "list_functions",
    "mahjong_puzzle", "manipulate_matrix", "maze", "mini_sudoku", "modulo_grid", "needle_haystack", "number_filtering",
    "number_format", "number_sequence", "number_sorting", "palindrome_generation", "palindrome_partitioning", "path_star",
    "polynomial_equations", "pool_matrix", "power_function", "prime_factorization", "products", "quantum_lock", "rearc",
    "rectangle_count", "rotate_matrix", "rotten_oranges", "self_reference", "sentence_reordering", "shortest_path",
    "simple_equations", "simple_geometry", "sokoban", "spell_backward", "string_manipulation", "string_splitting",
    "string_synthesis", "sudoku", "survo", "syllogism", "time_intervals", "tower_of_hanoi", "tsumego",
    "word_sequence_reversal", "word_sorting", "zebra_puzzles",
]  # fmt: skip
_RUNS_ANSWERS = "its verifier runs the answer as a program, and the answer is a model's"
_OTHER_ELSEWHERE = "its problems are not the same for one seed in another process"
_NO_ANSWER = "its rows have no expected answer"
LEFT_OUT = {
    **dict.fromkeys(
        ("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
         "simple_integration", "spiral_matrix", "string_insertion"), _RUNS_ANSWERS),
    **dict.fromkeys(("acre", "isomorphic_strings", "knight_swap", "ransom_note", "word_ladder"), _OTHER_ELSEWHERE),
    **dict.fromkeys(("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"), _NO_ANSWER),
    "bf": "it prints while it makes problems",
    "codeio": "it runs programs of its own to make problems",
    "composite": "it only mixes others",
    "game_of_life_halting": "its verifier takes every text for a right answer",
}  # fmt: skip
"""What of the library is not here, with the reason."""
PLENTY = 1_000_000
"""Size that a dataset of the library is told to have; it makes a problem when it is asked for."""
MAX_IN_VAIN = 2_000
"""Problems in a row that were there already after which there are taken to be no more; some take a tenth of a second."""
_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What the library raises for settings that do not go together, and some of its verifiers for a text that they cannot read."""


@registered
class ReasoningGym:
    """Problems of one dataset of the library."""

    bounds = (0.0, 1.0)
    may_hang = True
    """Its verifiers are code of others: the reward asks them in a process that it can end."""

    class Config(Levels):
        """Which dataset and how hard."""

        dataset: Dataset = "chain_sum"
        """Name of the dataset in reasoning-gym."""
        settings: dict[str, Any] = Field(default_factory=dict)
        """The dataset's own settings, as reasoning-gym calls them; they come before those of a level."""
        min_level: int = Field(0, ge=0, le=40)
        """Easiest level of the dataset's curriculum, the first being 1; 0, for both: no curriculum, the dataset's defaults."""
        max_level: int = Field(0, ge=0, le=40)
        """Hardest level; all from the easiest on are drawn equally often. Most datasets have four to six."""

        @field_validator("dataset", mode="before")
        @classmethod
        def _is_not_left_out(cls, value: Any) -> Any:
            if isinstance(value, str) and value in LEFT_OUT:
                raise ValueError(f"“{value}” is not offered: {LEFT_OUT[value]}; choose another dataset")
            return value

        @model_validator(mode="after")
        def _is_what_the_library_takes(self) -> Self:
            """The library is only asked, which takes seconds the first time, about what is not its default."""
            if self.max_level and not self.min_level:
                raise ValueError(f"min_level is 0 but max_level {self.max_level}: levels begin with 1; set min_level 1")
            for level in range(self.min_level, self.max_level + 1) if self.settings or self.max_level else ():
                try:
                    _made(self.dataset, _text(self.settings), level, 0)
                except ConfigError as error:
                    raise ValueError(error.message) from error
            return self

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def generate(self, seed: int, num_train: int, num_held_out: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields ("train" | "held_out", row) with no prompt twice; no prompt of one split can be in the other.

        Raises ConfigError when there are not so many different problems, or the library cannot make those of a level.
        """
        draw, taken, config = random.Random(seed), Counter[int](), self.config

        def one() -> tuple[str, tuple[dict[str, Any], dict[str, Any]]]:
            level = draw.randint(config.min_level, config.max_level)
            made_by = {
                "dataset": config.dataset, "settings": config.settings, "level": level, "seed": seed, "index": taken[level]
            }
            taken[level] += 1
            entry = _entry(made_by)
            return entry["question"], (entry, made_by)

        for split, (entry, made_by) in new_problems(
            one, num_train, num_held_out, remedy="choose another dataset or harder levels", max_in_vain=MAX_IN_VAIN
        ):
            yield split, {
                "prompt": entry["question"], "completion": None, "answer": entry["answer"], "task": "reasoning_gym",
                "level": made_by["level"], "meta": made_by,
            }  # fmt: skip

    def verify(self, expected: str, answer: str, meta: Mapping[str, Any] | None = None) -> bool | None:
        """Whether the library's verifier gives the answer full marks; None when it cannot be asked."""
        score = self.score(expected, answer, meta)
        return None if score is None else score >= self.bounds[1]

    def score(self, expected: str, answer: str, meta: Mapping[str, Any] | None = None) -> float | None:
        """The mark that the library's verifier gives, within `bounds`; a text that it cannot read has 0.

        None when `meta` is not that of a row of this task, or this release of the library makes another problem of it.
        """
        if not meta or not {"dataset", "settings", "level", "seed", "index"} <= meta.keys():
            return None
        entry = _entry(meta)
        if entry["answer"] != expected:
            return None
        dataset = _made(meta["dataset"], _text(meta["settings"]), meta["level"], meta["seed"])
        with _quietly():
            try:
                score = float(dataset.score_answer(answer, entry))
            except _FAILURES:
                return self.bounds[0]
        return min(self.bounds[1], max(self.bounds[0], score))

    def check_steps(self, prompt: str, reasoning: str) -> tuple[int, int]:
        """How many equations of the reasoning hold and how many do not; of its other steps nothing is known."""
        found = equations(reasoning)
        right = sum(equation.holds for equation in found)
        return right, len(found) - right

    def conclusion(self, prompt: str, reasoning: str) -> str | None:
        """Not known: the library says nothing about reasoning."""
        return None


def _entry(made_by: Mapping[str, Any]) -> dict[str, Any]:
    return _entry_at(made_by["dataset"], _text(made_by["settings"]), made_by["level"], made_by["seed"], made_by["index"])


@lru_cache(maxsize=4096)
def _entry_at(name: str, settings: str, level: int, seed: int, index: int) -> dict[str, Any]:
    """The problem at `index`: {"question", "answer", "metadata"}. Kept, for a group asks for the same one many times."""
    dataset = _made(name, settings, level, seed)
    with _quietly():
        try:
            entry: dict[str, Any] = dataset[index]
        except _FAILURES as error:
            raise _refusal(name, level, error) from error
    return entry


@lru_cache(maxsize=64)
def _made(name: str, settings: str, level: int, seed: int) -> Any:
    """A dataset of the library. Raises ConfigError when it does not take the settings or has no such level."""
    from reasoning_gym.factory import DATASETS

    kind, config_class = DATASETS[name]
    given = json.loads(settings)
    known = {field.name for field in fields(config_class)} - {"seed", "size"}
    if unknown := sorted(given.keys() - known):
        raise ConfigError(
            f"The dataset {name} has no setting “{unknown[0]}”. It has: {', '.join(sorted(known))}.",
            field="source_config.task_config.settings",
        )
    with _quietly():
        try:
            return kind(config_class(**{**_settings_of(name, level), **given, "seed": seed, "size": PLENTY}))
        except _FAILURES as error:
            raise _refusal(name, level, error) from error


def _settings_of(name: str, level: int) -> dict[str, Any]:
    """What the curriculum of a dataset says for a level; only the hardest segment of a range, so that levels differ."""
    from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode
    from reasoning_gym.factory import CURRICULA, create_curriculum

    if level == 0:
        return {}
    if name not in CURRICULA:
        where = "source_config.task_config.max_level"
        raise ConfigError(f"The dataset {name} has no levels; set min_level and max_level 0.", field=where)
    curriculum = create_curriculum(name)
    num_levels = max((len(attribute.levels) for attribute in curriculum.attributes.values()), default=0)
    if level > num_levels:
        raise ConfigError(
            f"The dataset {name} has {num_levels} levels; {level} is above. Lower max_level.",
            field="source_config.task_config.max_level",
        )
    curriculum.set_global_level(level - 1)
    config = curriculum.generate_configuration(context=DefaultCurriculumContext(mode=RangeAttributeMode.UPPER_BOUND))
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _refusal(name: str, level: int, error: Exception) -> ConfigError:
    at = f" of level {level}" if level else ""
    return ConfigError(
        f"reasoning-gym makes no problems{at} of {name} with these settings: {error or type(error).__name__}. Change the "
        "settings or the level.", field="source_config.task_config.settings",
    )  # fmt: skip


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's warnings: of files that it leaves open, and of texts that are no answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
