"""The code base about itself: sizes, one writer of each state, no swallowed errors, settings in the README."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db.models import CheckConstraint, Field

ROOT = Path(settings.BASE_DIR)
PACKAGES = ("r1platform", "training_app", "serving_app", "model_core")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
LONG_FUNCTIONS: dict[str, str] = {}
"""`path:function` → why; each also stands in docs/decisions.md."""
BROAD_EXCEPTS = 3


@cache
def sources() -> dict[Path, str]:
    return {
        path.relative_to(ROOT): path.read_text()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations" not in path.parts
    }


def product_and_tests() -> Iterator[Path]:
    for folder in (*PACKAGES, "tests", "benchmarks", "static", "templates"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".js", ".css", ".html"} and "migrations" not in path.parts:
                yield path


def test_no_file_is_too_long() -> None:
    long = {str(path.relative_to(ROOT)): num for path in product_and_tests()
            if (num := len(path.read_text().splitlines())) > MAX_FILE_LINES}  # fmt: skip
    assert not long


def test_no_function_is_too_long() -> None:
    long = [
        f"{path}:{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None
        if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES and f"{path}:{node.name}" not in LONG_FUNCTIONS
    ]
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [str(path) for path, text in sources().items() if text.strip() and ast.get_docstring(ast.parse(text)) is None]
    assert not silent


def broad_excepts() -> Iterator[tuple[Path, str]]:
    """Handlers of everything that do not raise it again, with the line they stand on."""
    for path, text in sources().items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})
            again = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            if broad and not again:
                yield path, text.splitlines()[node.lineno - 1]


def test_broad_excepts_are_few_and_explained() -> None:
    found = list(broad_excepts())
    assert all("#" in line for _, line in found), f"each says why on its line: {found}"
    assert len(found) <= BROAD_EXCEPTS, found


STATE_WRITERS = {Path("r1platform/lib/transitions.py")}


def calls(text: str) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))


def writes_a_state(call: ast.Call) -> bool:
    """`….update(state=…)`, `bulk_update(…, ["state"])`, or a `save` that does not say which fields it writes."""
    if not isinstance(call.func, ast.Attribute):
        return False
    names = {keyword.arg for keyword in call.keywords}
    if call.func.attr == "save":
        fields = next((keyword.value for keyword in call.keywords if keyword.arg == "update_fields"), None)
        return fields is not None and "'state'" in ast.unparse(fields)
    if call.func.attr == "bulk_update":
        return "'state'" in ast.unparse(call)
    return call.func.attr == "update" and "state" in names


def test_a_state_has_one_writer() -> None:
    """Only the compare-and-set changes a `state`; everything else goes through a `*_transition`."""
    writers = [
        f"{path}:{call.lineno}"
        for path, text in sources().items()
        if path not in STATE_WRITERS and path.parts[0] != "model_core"
        for call in calls(text)
        if writes_a_state(call)
    ]
    assert not writers


def test_rows_are_saved_by_field_in_the_apps() -> None:
    """A plain `save()` would write a stale state back; new rows are made with `create`."""
    plain = [
        f"{path}:{call.lineno}"
        for path, text in sources().items()
        if path.parts[0] in {"training_app", "serving_app"}
        for call in calls(text)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "save"
        if not {keyword.arg for keyword in call.keywords} & {"update_fields"} and not call.args
    ]
    assert not plain


def test_transitions_are_called_by_transition_functions_only() -> None:
    """`transition(` stands in the apps' `*_transition` functions, one per entity, and nowhere else."""
    callers: dict[str, str] = {}
    for path, text in sources().items():
        if path in STATE_WRITERS or path.parts[0] == "model_core":
            continue
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "transition":
                    callers[f"{path}:{function.name}"] = ast.unparse(node.args[0]) if node.args else "?"
    assert all(name.endswith("_transition") for name in callers), callers
    assert len(set(callers.values())) == len(callers), f"two functions write one entity: {callers}"


def test_the_library_prints_only_in_commands() -> None:
    loud = [
        str(path)
        for path, text in sources().items()
        if not {"commands", "demo", "up", "__main__.py"} & set(path.parts)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not loud


def test_no_shell_no_pickle_no_eval() -> None:
    forbidden = re.compile(r"shell=True|\bos\.system\(|\bpickle\.loads?\(|(?<![.\w])eval\(|(?<![.\w])exec\(")
    found = [(str(path), match[0]) for path, text in sources().items() if (match := forbidden.search(text))]
    assert found == [("model_core/rewards/_sandbox.py", "exec(")]  # a process with limits that runs what a model wrote


def settings_read() -> set[str]:
    """Environment variables that the settings read."""
    text = (ROOT / "r1platform/settings.py").read_text()
    return set(re.findall(r"env(?:\.\w+)?\(\s*\"([A-Z0-9_]+)\"", text))


def test_every_setting_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert settings_read() >= {"R1_HOME", "DATABASE_URL", "REDIS_URL", "R1_SECRET_KEY", "R1_ALLOWED_HOSTS"}
    assert not {name for name in settings_read() if f"`{name}`" not in readme}


def test_every_promise_of_security_names_tests_that_are_there() -> None:
    text = (ROOT / "docs/security.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.partition("## Promises")[2].partition("\n## ")[0].splitlines() if line.startswith("|")]
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    named = {row[0]: set(re.findall(r"test_\w+\.py", row[3])) for row in rows[2:]}
    assert len(named) > 20 and all(len(row) == 4 for row in rows[2:])
    assert not {promise: tests for promise, tests in named.items() if not tests or tests - there}


@pytest.mark.django_db
def test_migrations_are_complete() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def our_fields() -> Iterator[Field]:  # type: ignore[type-arg]
    for model in apps.get_models():
        if model._meta.app_label in PACKAGES:
            yield from (field for field in model._meta.get_fields() if isinstance(field, Field))


def test_every_choice_has_its_constraint() -> None:
    """`choices` guard forms only; the database refuses the rest."""
    missing = []
    for field in our_fields():
        if not field.choices:
            continue
        texts = [str(one.condition) for one in field.model._meta.constraints if isinstance(one, CheckConstraint)]
        if not any(f"{field.name}__in" in text for text in texts):
            missing.append(f"{field.model.__name__}.{field.name}")
    assert not missing


def test_states_and_moves_agree() -> None:
    """Every state of a table of moves is one of its enum, and each table has at least one end."""
    from serving_app import states as serving
    from training_app import states as training

    for module in (training, serving):
        tables = {name: table for name, table in vars(module).items() if name.endswith("_MOVES")}
        assert tables
        for name, table in tables.items():
            known = {value for source in table for value in type(source).values} if table else set()
            used = set(table) | {to for tos in table.values() for to in tos}
            assert {str(state) for state in used} <= {str(state) for state in known}, name


def test_docker_compose_has_its_services() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert set(compose["services"]) == {"web", "worker", "beat", "gpu-worker", "redis", "postgres"}
    for name in ("web", "worker", "beat", "gpu-worker"):
        service = compose["services"][name]
        assert service["build"] == "." and "DATABASE_URL" in service["environment"]
        assert service["command"][:2] == ["up", "--only"]
    assert all("0.0.0.0" not in str(service.get("ports")) for service in compose["services"].values())


def test_the_lock_is_exact() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith(("#", "-r"))]
        assert all(re.fullmatch(r"[A-Za-z0-9._\[\]-]+==\S+", line) for line in lines), name


@pytest.mark.parametrize("name", ["requirements.in", "requirements-dev.in"])
def test_everything_asked_for_is_locked(name: str) -> None:
    locked = "".join((ROOT / file).read_text() for file in ("requirements.txt", "requirements-dev.txt")).lower().replace("_", "-")
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith(("#", "-r")):
            wanted = re.split(r"[<>=\[ ]", line)[0].lower().replace("_", "-")
            assert f"{wanted}==" in locked or f"{wanted.replace('.', '-')}==" in locked, wanted
