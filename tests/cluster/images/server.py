"""Makes the server's image from the last stage of the Dockerfile, on the base that make.py laid out.

Usage: server.py DOCKERFILE BASE PROGRAM NAME ARCHIVE. PROGRAM stands in for what the first stage builds.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from folders import Folder
from oci import write_image


def main():
    dockerfile, base, program, name, archive = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        layer = Folder(Path(work) / "layer")
        shutil.copytree(base, layer.root, dirs_exist_ok=True, symlinks=True)
        config = run(last_stage(Path(dockerfile).read_text()), layer, Path(program))
        layer.add_libraries()
        write_image(name, archive, [layer.root], config)


def last_stage(text):
    """Returns the instructions after the last FROM, each as its word and the rest of its line."""
    lines = [line.strip().split(maxsplit=1) for line in text.splitlines() if line.strip() and line[0] != "#"]
    start = max(number for number, line in enumerate(lines) if line[0] == "FROM")
    return lines[start + 1 :]


def run(instructions, layer, program):
    """Does what the instructions say, and returns the image's configuration."""
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    for word, rest in instructions:
        match word:
            case "COPY":
                copy(rest.split(), layer, program)
            case "USER":
                config["User"] = rest
            case "ENTRYPOINT":
                config["Entrypoint"] = json.loads(rest)
            case _:
                raise SystemExit(f"{word} in the last stage of the Dockerfile is not known to {__file__}; teach it")
    return config


def copy(words, layer, program):
    origin, source, place = words
    if origin != "--from=build" or Path(source).name != "tms-server":
        raise SystemExit(f"COPY {' '.join(words)} in the Dockerfile is not known to {__file__}; teach it")
    copied = layer.copy(program, place, executable=True)
    # A debug build is ten times as large with what only debuggers read.
    subprocess.run(["strip", "--strip-debug", copied], check=True)


main()
