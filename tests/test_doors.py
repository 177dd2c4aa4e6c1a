"""What import-linter cannot see: the two doors are single files, and starter.py starts fast."""

import ast
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
HEAVY = {"workflows", "apprise", "asyncssh", "azure", "kubernetes", "psycopg"}


def test_starter_loads_no_workflow_or_driver() -> None:
    code = "import sys, starter; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


def test_worker_loads_azure_only_when_it_is_asked() -> None:
    code = "import sys, worker; print(*[name for name in sys.modules if name.partition('.')[0] in ('azure', 'msal')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_module_imports_a_door() -> None:
    for file in REPOSITORY.glob("*/**/*.py"):
        if file.relative_to(REPOSITORY).parts[0].startswith((".", "tests")):
            continue
        nodes = list(ast.walk(ast.parse(file.read_text())))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        imported |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        assert imported.isdisjoint({"worker", "starter"}), file
