"""Print the directory of an installed torch with the stable C++ API, without importing it."""

import importlib.util
import os
import site
import sysconfig


def candidates():
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin:
        yield os.path.dirname(spec.origin)
    # In pip's isolated build the target environment is off sys.path but still the interpreter's own.
    for key in ("platlib", "purelib"):
        yield os.path.join(sysconfig.get_path(key), "torch")
    yield os.path.join(site.getusersitepackages(), "torch")


def find_torch() -> str | None:
    for directory in candidates():
        if os.path.isfile(os.path.join(directory, "include", "torch", "csrc", "stable", "library.h")):
            return directory
    return None


if __name__ == "__main__":
    print(find_torch() or "")
