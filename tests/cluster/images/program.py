"""Makes an image of one static program and nothing else but its accounts and certificates.

Usage: program.py PROGRAM NAME ARCHIVE.
"""

import sys
import tempfile
from pathlib import Path

from folders import Folder
from oci import write_image


def main():
    program, name, archive = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        layer = Folder(Path(work) / "layer")
        layer.copy("/etc/ssl/certs/ca-certificates.crt")
        path = f"/bin/{Path(program).name}"
        layer.copy(program, path, executable=True)
        write_image(name, archive, [layer.root], {"Entrypoint": [path], "User": "65532:65532"})


main()
