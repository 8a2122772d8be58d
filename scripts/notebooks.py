"""Run the notebooks of examples/ anew and keep their outputs, without what differs from run to run.

python scripts/notebooks.py [NAME.ipynb ...]
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_MOST = 300_000  # bytes of a notebook with its figures


def main(names: list[str]) -> None:
    notebooks = [ROOT / "examples" / name for name in names] or sorted((ROOT / "examples").glob("*.ipynb"))
    tests = [str(ROOT / "tests" / "notebooks"), str(ROOT / "tests")]
    os.environ["PYTHONPATH"] = os.pathsep.join([*tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    for path in notebooks:
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
        clean(notebook)
        nbformat.write(notebook, path)
        size = path.stat().st_size
        print(f"{path.name}: {time.perf_counter() - start:.1f} s, {size / 1000:.0f} kB")
        if size > _MOST:
            sys.exit(f"{path.name}: {size:,} bytes; at most {_MOST:,} are committed. Draw fewer figures.")


def clean(notebook: NotebookNode) -> None:
    """Leave out versions, what libraries say on stderr, and the empty lines that progress bars left behind."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
        if cell.cell_type == "code":
            kept = [output for output in cell.outputs if shows(output)]
            printed = [output for output in kept if output.output_type == "stream"]
            for output in printed[1:]:  # prints may arrive in any number of parts
                printed[0].text += output.text
            cell.outputs = printed[:1] + [output for output in kept if output.output_type != "stream"]


def shows(output: NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout"
    return output.output_type != "display_data" or bool(output.data.get("text/html", "a figure"))


if __name__ == "__main__":
    main(sys.argv[1:])
