"""What may import what, and which names are public: read off the source."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import optuna_hypernet


ROOT = Path(optuna_hypernet.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
SEE_STUDIES = {"sampler.py", "history.py"}


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def imported(name: str) -> Iterator[str]:
    """Dotted names that a file imports; ``a.b.c`` for ``from a.b import c``."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_public_names() -> None:
    public = ["HyperTraining", "HypernetSampler", "Shaped", "__version__", "squared_norm"]
    needs_torch = {"HyperTraining", "Shaped", "squared_norm"}

    assert optuna_hypernet.__all__ == public
    for name in public:
        if name in needs_torch and importlib.util.find_spec("torch") is None:
            with pytest.raises(ImportError, match="torch"):
                getattr(optuna_hypernet, name)
        else:
            assert hasattr(optuna_hypernet, name)


def test_nothing_else_looks_public() -> None:
    modules = {Path(name).parts[0].removesuffix(".py") for name in NAMES}
    visible = {name for name in vars(optuna_hypernet) if not name.startswith("_")}

    assert visible - modules - {"HyperTraining", "Shaped", "squared_norm"} == {"HypernetSampler"}


@pytest.mark.parametrize("name", NAMES)
def test_only_two_files_see_more_of_optuna_than_distributions(name: str) -> None:
    seen = {module for module in imported(name) if within(module, "optuna")}
    if name == "bilevel/reports.py":  # is handed a trial, and ends as a pruned one does
        seen -= {"optuna.exceptions.TrialPruned"}

    if name not in SEE_STUDIES:
        assert all(within(module, "optuna.distributions") for module in seen), seen


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("surrogate")])
def test_surrogate_knows_neither_optuna_nor_torch_nor_the_rest(name: str) -> None:
    for module in imported(name):
        assert not within(module, "optuna")
        assert not within(module, "torch")
        if within(module, "optuna_hypernet"):
            assert within(module, "optuna_hypernet.surrogate")


def reached(start: str) -> set[str]:
    """Files that importing ``start`` brings in from this package, itself among them."""
    seen, left = set(), [start]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        for module in imported(name):
            parts = module.split(".")[1:]
            for length in range(1, len(parts) + 1):
                path = "/".join(parts[:length])
                left += [each for each in (f"{path}.py", f"{path}/__init__.py") if each in NAMES]
    return seen


def test_a_black_box_suggestion_reaches_all_its_parts_and_no_torch() -> None:
    black_box = reached("sampler.py")

    assert {"space.py", "descent.py", "surrogate/posterior.py"} <= black_box
    for name in black_box:
        assert not [module for module in imported(name) if within(module, "torch")], name


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_imported_beyond_the_declared_dependencies(name: str) -> None:
    """Beside torch, an extra; tqdm, which Optuna brings; and what is used where it happens to be:
    threadpoolctl, optuna-dashboard."""
    allowed = {"numpy", "scipy", "optuna", "optuna_hypernet", *sys.stdlib_module_names}
    allowed |= {"threadpoolctl"} if name == "threads.py" else set()
    allowed |= {"optuna_dashboard", "plotly"} if name == "bilevel/plots.py" else set()
    allowed |= set() if name in reached("sampler.py") else {"torch", "tqdm"}

    assert {module.split(".")[0] for module in imported(name)} <= allowed


def test_arrows_have_no_circle() -> None:
    below: dict[str, set[str]] = {}
    for name in NAMES:
        me = "optuna_hypernet." + name.removesuffix(".py").replace("/", ".")
        below[me.removesuffix(".__init__")] = {
            module
            for module in imported(name)
            if within(module, "optuna_hypernet") and module != "optuna_hypernet"
        }
    arrows = {
        one: {other for other in below if other != one and any(within(m, other) for m in modules)}
        - {"optuna_hypernet", "optuna_hypernet.surrogate"}
        for one, modules in below.items()
    }
    while leaves := {one for one, others in arrows.items() if not others & arrows.keys()}:
        arrows = {one: others for one, others in arrows.items() if one not in leaves}

    assert not arrows


@pytest.mark.parametrize("name", NAMES)
def test_no_private_name_of_anyone_is_imported(name: str) -> None:
    for module in imported(name):
        private = [part for part in module.split(".") if part.startswith("_")]
        assert private in ([], ["__future__"], ["__version__"]), module


@pytest.mark.parametrize("name", NAMES)
def test_no_private_attribute_of_anyone_else_is_used(name: str) -> None:
    """``self._x`` and a name that the file itself assigns on self are our own."""
    nodes = [node for node in ast.walk(tree(name)) if isinstance(node, ast.Attribute)]
    for node in nodes:
        dunder = node.attr.startswith("__") and node.attr.endswith("__")
        if not node.attr.startswith("_") or dunder:
            continue
        owner = node.value
        assert isinstance(owner, ast.Name), f"line {node.lineno}: {ast.unparse(node)}"
        assert owner.id in {"self", "cls"}, f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", NAMES)
def test_files_say_what_they_hold(name: str) -> None:
    assert ast.get_docstring(tree(name)), "a module needs a docstring"


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / "py.typed").exists()


def test_import_brings_neither_torch_nor_plots() -> None:
    code = (
        "import sys, optuna_hypernet\n"
        "heavy = {'torch', 'matplotlib', 'sklearn', 'pandas', 'plotly'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
