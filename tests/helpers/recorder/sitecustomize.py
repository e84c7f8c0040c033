"""Notes which settings a stage reads; loaded by every Python that has this folder on its path.

With SPECMASKFOLEY_TOUCHED=FILE each stage appends lines `<stage> <setting>`. Reading a whole section at once
(`model_dump`) counts as reading all of it. What observers and the lineage itself read does not count.
"""

import importlib.util
import os
import sys
from pathlib import Path

LOG = os.environ.get("SPECMASKFOLEY_TOUCHED")
STAGE = Path(sys.argv[0]).stem if sys.argv and Path(sys.argv[0]).parent.name == "stages" else ""
WATCHED = "specmaskfoley.settings.params"


class Finder:
    """Lets the module of `Params` load as ever, and watches its settings from then on."""

    def find_spec(self, name, path=None, target=None):
        if name != WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            watch(module.Params)

        spec.loader.exec_module = exec_module
        return spec


def watch(params_class):
    from specmaskfoley.settings.base import Settings

    names, seen, alive = {}, set(), []
    plain, load = Settings.__getattribute__, params_class.load.__func__

    def note(name):
        from specmaskfoley.lineage import OBSERVERS

        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_globals.get("__name__") in OBSERVERS:
                return
            frame = frame.f_back
        seen.add(name)
        with open(LOG, "a", encoding="utf-8") as file:
            file.write(f"{STAGE} {name}\n")

    def getattribute(self, name):
        value = plain(self, name)
        section = names.get(id(self))
        if section is None:
            return value
        if name == "model_dump" and section not in seen:
            note(section)
        elif name in type(self).model_fields:
            path = f"{section}.{name}".lstrip(".")
            if isinstance(value, Settings):
                names[id(value)] = path
            elif path not in seen:
                note(path)
        return value

    def loaded(cls, *arguments, **options):
        params = load(cls, *arguments, **options)
        alive.append(params)  # so that no other object takes its id
        names[id(params)] = ""
        return params

    Settings.__getattribute__ = getattribute
    params_class.load = classmethod(loaded)


if LOG and STAGE:
    sys.meta_path.insert(0, Finder())
