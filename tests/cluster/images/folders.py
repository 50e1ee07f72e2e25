"""Lays out folders that become layers: files of this machine's Debian at their own paths, with the libraries they need."""

import os
import re
import shutil
import subprocess
from pathlib import Path

SHELL_COMMANDS = ["sh", "cat", "env", "kill", "ls", "mkdir", "rm", "sleep", "tar", "test", "true", "wget"]


class Folder:
    """A root folder in the making."""

    def __init__(self, root):
        self.root = Path(root)
        shutil.rmtree(self.root, ignore_errors=True)
        for name, mode in {"etc": 0o755, "tmp": 0o1777, "dev": 0o755, "proc": 0o755, "sys": 0o755}.items():
            (self.root / name).mkdir(parents=True)
            (self.root / name).chmod(mode)
        self.accounts()

    def accounts(self):
        """Names the users that images run as; the user of a pod need not be one of them."""
        self.write("/etc/passwd", "root:x:0:0::/:/bin/sh\ntriton:x:1000:1000::/:/bin/sh\nnonroot:x:65532:65532::/:/bin/sh\n")
        self.write("/etc/group", "root:x:0:\ntriton:x:1000:\nnonroot:x:65532:\n")
        self.write("/etc/nsswitch.conf", "hosts: files dns\n")

    def at(self, path):
        """Returns where a path of the image lies, with its parent made."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def write(self, path, text):
        self.at(path).write_text(text)

    def copy(self, source, path=None, executable=False):
        """Copies a file of the machine, by default to the same path. A link becomes the file it leads to."""
        place = self.at(path or source)
        shutil.copy2(os.path.realpath(source), place)
        if executable:
            place.chmod(0o755)
        return place

    def copy_tree(self, source, path, *ignored):
        """Copies a folder, without what the patterns name, and without compiled Python and tests."""
        ignore = shutil.ignore_patterns("__pycache__", "test", "tests", *ignored)
        shutil.copytree(source, self.at(path), ignore=ignore, symlinks=False, dirs_exist_ok=True)

    def link(self, path, target):
        self.at(path).symlink_to(target)

    def add_shell(self):
        """Adds a shell with its usual commands, in one static program."""
        self.copy("/bin/busybox")
        for name in SHELL_COMMANDS:
            self.link(f"/bin/{name}", "busybox")

    def add_libraries(self, *search):
        """Copies the libraries that the folder's programs and libraries need and it lacks. `search` are folders inside it."""
        places = ":".join(str(self.at(folder)) for folder in search)
        for file in [path for path in self.root.rglob("*") if _is_elf(path)]:
            for library in _libraries_of(file, places):
                if not library.startswith(str(self.root)) and not self.at(library).exists():
                    self.copy(library)


def _is_elf(path):
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _libraries_of(file, search):
    """Returns the paths of what the file is linked with, found as the loader finds it."""
    answer = subprocess.run(
        ["ldd", file], env={**os.environ, "LD_LIBRARY_PATH": search}, capture_output=True, text=True, check=False
    )
    missing = re.findall(r"^\s*(\S+) => not found", answer.stdout, re.MULTILINE)
    if missing:
        raise SystemExit(f"{file} needs {', '.join(missing)}, which this machine lacks")
    return re.findall(r"(/\S+) \(0x", answer.stdout)
