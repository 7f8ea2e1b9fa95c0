"""`dataflow init`: a project that runs at once, with embedded parts only.

Here: copying the template folder with its placeholders filled in. Not here: what the project holds (`cli/template`).
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import click

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.terminal import Session, as_json
from dataflow_assets.cli.verb import VerbCommand

TEMPLATE = Path(__file__).parent / "template"
SCHEMAS = PurePosixPath(".schema")
_DAYS = 5


@click.command("init", cls=VerbCommand)
@click.argument("name", metavar="NAME")
@click.option("--pipelines-dir", default="pipelines", show_default=True, help="The folder for pipeline files, inside the project.")
@click.pass_obj
def command(session: Session, name: str, pipelines_dir: str) -> int:
    """Write a new project into the folder NAME: two pipelines, a transform, a test, a few rows of data, and what Dagster needs to show it.

    It needs no server and no password. The folder must not exist yet, or be empty.
    """
    root = Path(name).expanduser().absolute()
    title = _title(root)
    folder = _inside(pipelines_dir)
    _refuse_occupied(root)
    files = write_project(root, title=title, pipelines_dir=folder)
    session.emit({"ok": True, "project": title, "root": str(root), "files": files, "next": f"cd {name} && dataflow run"})
    session.say(f"Wrote {title} into {root}:")
    for file in files:
        session.say(f"  {file}")
    session.say(f"\nNext: cd {name} && dataflow run")
    return 0


def _title(root: Path) -> str:
    if not re.match(r"^[A-Za-z0-9][A-Za-z0-9_. -]*$", root.name):
        raise UsageFailed(
            f"{root.name!r} cannot be a project's name", hint="use letters, digits, _, - and ., as in `dataflow init my_project`"
        )
    return root.name


def _inside(pipelines_dir: str) -> PurePosixPath:
    folder = PurePosixPath(Path(pipelines_dir).as_posix())
    plain = re.match(r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$", str(folder))
    if folder.is_absolute() or ".." in folder.parts or not plain or folder.parts[0] in {"data", "tests", "transforms"}:
        raise UsageFailed(
            f"--pipelines-dir {pipelines_dir!r} is not a folder inside the project",
            hint="use a relative path such as pipelines or flows/daily",
        )
    return folder


def _refuse_occupied(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise UsageFailed(f"{root} is a file", hint="choose another name")
    if root.is_dir() and any(root.iterdir()):
        raise UsageFailed(f"{root} exists and is not empty", hint="choose another name, or empty the folder first; nothing was written")


def write_project(root: Path, *, title: str, pipelines_dir: PurePosixPath) -> list[str]:
    """Write every file of the template and the schemas; returns their paths, relative to `root`."""
    written: list[str] = []
    for source in sorted(path for path in TEMPLATE.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        relative = PurePosixPath(source.relative_to(TEMPLATE).as_posix())
        target = pipelines_dir / relative.name if relative.parts[0] == "pipelines" else relative
        text = _fill(source.read_text(encoding="utf-8"), title=title, pipelines_dir=pipelines_dir)
        written.append(_write(root, target, text))
    from dataflow_assets.cli.schema import schema_of

    written += [
        _write(root, SCHEMAS / f"{kind}.json", as_json(schema_of(kind), indent=2) + "\n") for kind in ("project", "pipeline", "test")
    ]
    return written


def _fill(text: str, *, title: str, pipelines_dir: PurePosixPath) -> str:
    today = datetime.now(UTC).date()
    values = {
        "project_name": title,
        "project_slug": re.sub(r"[^A-Za-z0-9_-]", "_", title),
        "pipelines_dir": str(pipelines_dir),
        "project_schema": str(SCHEMAS / "project.json"),
        "test_schema": Path(os.path.relpath(SCHEMAS / "test.json", "tests")).as_posix(),
        "pipeline_schema": Path(os.path.relpath(SCHEMAS / "pipeline.json", pipelines_dir)).as_posix(),
        "begin": str(today - timedelta(days=_DAYS)),
        **{f"day_{number}": str(today - timedelta(days=number)) for number in range(1, _DAYS + 1)},
    }
    return re.sub(r"__([a-z0-9_]+?)__", lambda match: values.get(match[1], match[0]), text)


def _write(root: Path, target: PurePosixPath, text: str) -> str:
    path = root / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return str(target)
