"""Executed notebooks without what changes from run to run or belongs to one machine.

Progress goes to stderr and is dropped, as are times, counters, random cell ids and paths; two runs that compute the
same then give the same bytes.  Widgets are dropped with their state: without a kernel they are a random id and nothing
to see, so a notebook shows a picture of the same beside each.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from deepmask import files
from deepmask.paths import REPOSITORY

WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}


class NotebookError(ValueError):
    """An executed notebook cannot be kept; the message says why."""


def normalise(source: str | Path, destination: str | Path) -> None:
    """Write the executed notebook `source` to `destination` in a form that is the same for the same results.

    Raises NotebookError if it holds an error.
    """
    notebook = nbformat.read(source, as_version=4)
    notebook.metadata = nbformat.from_dict(KEPT)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
        cell.metadata = nbformat.from_dict({"tags": tags} if (tags := cell.metadata.get("tags")) else {})
        if cell.cell_type != "code":
            continue
        cell.outputs = _joined([output for output in cell.outputs if not _passing(output)])
        for output in cell.outputs:
            if output.output_type == "error":
                raise NotebookError(f"{source}: cell {index} ended in {output.ename}: {output.evalue}")
            output.pop("metadata", None)
            if output.output_type != "stream":  # which must have none
                output.metadata = nbformat.from_dict({})
    nbformat.validate(notebook)
    text = nbformat.writes(notebook, version=4)
    files.write_text(destination, _without_paths(text) + "\n")


def _passing(output: dict) -> bool:
    """Whether an output tells of one run only: progress, or the view of a widget."""
    return output.get("name") == "stderr" or WIDGET in output.get("data", {})


def _joined(outputs: list) -> list:
    """Neighbouring pieces of printed text as one: where the kernel cuts them is a matter of timing."""
    joined: list = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _without_paths(text: str) -> str:
    for folder in (str(Path.cwd()), str(REPOSITORY), str(Path.home())):
        text = re.sub(re.escape(folder) + r"(?=[/\"\\ ])", ".", text)
    return text
