"""Sphinx configuration. The build needs no network; warnings are errors."""

import importlib
import pkgutil
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

# Gallery pages are programs that import the examples next to the library.
DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "drawings")]

import flowprior  # noqa: E402

project = "flowprior"
author = "The flowprior authors"
copyright = "2026, The flowprior authors"
version = release = installed_version("flowprior")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery"]
default_role = "py:obj"

html_theme = "furo"
html_title = "flowprior"
html_static_path = ["_static"]
html_copy_source = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Source", "References")]

sphinx_gallery_conf = {
    "examples_dirs": ["gallery/concepts", "gallery/examples"],
    "gallery_dirs": ["auto_gallery/concepts", "auto_gallery/examples"],
    "image_scrapers": ("matplotlib", "gallery_tools.scrape"),
    "within_subsection_order": "gallery_tools.ReadingOrder",
    "abort_on_example_error": True,
    "capture_repr": (),
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "plot_gallery": "True",
    "parallel": 2,
    "thumbnail_size": (480, 300),
}

linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_anchors = False  # pages that are made by scripts have theirs only in a browser

# Every reference inside the library must resolve; those that leave it have no inventory here.
nitpicky = True
nitpick_ignore = [  # type variables and private protocols
    ("py:class", "flowprior.command.run_folder.Part"),
    ("py:class", "flowprior.files.model_folder.Model"),
    ("py:class", "flowprior.fitting.line_search.State"),
    ("py:class", "flowprior.prior.blocks.conditioned.Self"),
    ("py:class", "Verbs"),
]
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|os|collections|contextlib|types|abc|typing|pathlib)\..*"),
    (r"py:.*", r"(pickle|pickletools|enum|argparse)\..*"),
    (r"py:class", r"flowprior\..*\._\w+"),  # private base classes
    (r"py:.*", r"(bool|int|float|str|object|type|dict|list|tuple|None|optional)"),
    (r"py:.*", r"(OSError|TypeError|ValueError|RuntimeError|FileNotFoundError)"),
    (r"py:.*", r"(Any|Callable|Mapping|Tensor|PathLike)"),
    (r"py:class", r"dict\[str"),  # Sphinx splits signatures with "= <factory>" at every comma
]


def prepare_docstring(app, what, name, obj, options, lines):
    """Docstrings are written to be read in a terminal; say here what Sphinx would misread."""
    for number, line in enumerate(lines):
        code = line.split("``")  # every other part is a literal
        code[::2] = [
            re.sub(r"(?<![\\*\w])\*(?=(batch|extra|sample)\b)|(?<![\\|])\|(?=\w)", r"\\\g<0>", text)
            for text in code[::2]
        ]
        lines[number] = "``".join(code)
    if what in {"attribute", "data", "property"}:
        # Napoleon takes what precedes a colon in the first line for a type: give it an empty one.
        lines.insert(0, "\\ ")


def homes_of_public_names():
    """The full names of definitions, by the names under which packages re-export them."""
    names = {}
    for info in pkgutil.walk_packages(flowprior.__path__, "flowprior."):
        if info.ispkg or info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            parts = info.name.split(".")
            for package in (".".join(parts[:length]) for length in range(1, len(parts))):
                parent = importlib.import_module(package)
                if getattr(parent, name, None) is getattr(module, name):
                    names[f"{package}.{name}"] = f"{info.name}.{name}"
    return names


HOMES = homes_of_public_names()


def resolve_public_name(app, env, node, contnode):
    """``flowprior.ConditionalFlow`` is documented with the module that defines it."""
    if node.get("refdomain") != "py":
        return None
    python = env.get_domain("py")
    parts = node["reftarget"].split(".")
    names = [
        ".".join([HOMES[package], *parts[length:]])
        for length in range(1, len(parts) + 1)
        if (package := ".".join(parts[:length])) in HOMES
    ]
    # A docstring can also name anything in the library without its module, if the name is unique
    # or public in a package.
    ends = [name for name in python.objects if name.endswith(f".{node['reftarget']}")]
    homes = tuple(f"{home}." for home in HOMES.values())
    names += ends if len(ends) == 1 else [each for each in ends if f"{each}.".startswith(homes)]
    if not names:
        return None
    return python.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], names[0], node, contnode
    )


def setup(app):
    app.connect("autodoc-process-docstring", prepare_docstring, priority=100)
    app.connect("missing-reference", resolve_public_name)
