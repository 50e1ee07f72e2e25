"""Makes the images that do not change with TMS, and the base of the one that does.

Usage: make.py WHEELS OUT, the folder of the files that requirements.txt names, and that of the images.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from folders import Folder
from oci import write_image

HERE = Path(__file__).parent
REGISTRY = "docker.io/local"
PYTHON = "/usr/lib/python3.11"
# Where Debian's Python looks by itself; the Python backend passes no PYTHONPATH on.
PACKAGES = "/usr/local/lib/python3.11/dist-packages"
TRITON = "/opt/tritonserver"
TRITON_LIBRARIES = "/opt/nvidia_pytriton.libs"
PATH = f"PATH={TRITON}/bin:/usr/local/bin:/usr/bin:/bin"


def main():
    wheels, out = Path(sys.argv[1]), Path(sys.argv[2])
    work = out / "work"
    packages = unpack(wheels, work / "packages")
    make_pause(work / "pause", out)
    python = make_python_layer(packages, work / "python")
    make_triton(packages, python, work / "triton", out)
    make_client(packages, python, work / "client", out)
    make_base(out / "base")
    shutil.rmtree(work)


def unpack(wheels, folder):
    """Returns the folder with the content of all wheels."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


def make_pause(root, out):
    root.mkdir(parents=True)
    subprocess.run(["gcc", "-static", "-O2", "-o", root / "pause", HERE / "pause.c"], check=True)
    write_image(f"{REGISTRY}/pause:1", out / "pause.tar", [root], {"Entrypoint": ["/pause"]})


def make_python_layer(packages, root):
    """Returns a layer with Debian's Python 3.11, numpy and a shell."""
    layer = Folder(root)
    layer.add_shell()
    # Triton's Python backend starts its stub by bash.
    layer.copy("/bin/bash")
    layer.copy("/usr/bin/python3.11")
    layer.link("/usr/bin/python3", "python3.11")
    layer.copy("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0")
    layer.copy_tree(PYTHON, PYTHON, "config-*", "idlelib", "tkinter", "lib2to3", "ensurepip", "dist-packages")
    for name in ["numpy", "numpy.libs"]:
        layer.copy_tree(packages / name, f"{PACKAGES}/{name}")
    layer.add_libraries(f"{PACKAGES}/numpy.libs")
    return layer.root


def make_triton(packages, python, root, out):
    layer = Folder(root)
    wheel = packages / "pytriton/tritonserver"
    layer.copy_tree(wheel, TRITON, "python_backend_stubs")
    stub = "triton_python_backend_stub"
    layer.copy(wheel / f"python_backend_stubs/3.11/{stub}", f"{TRITON}/backends/python/{stub}", executable=True)
    layer.at(f"{TRITON}/bin/tritonserver").chmod(0o755)
    layer.copy_tree(packages / "nvidia_pytriton.libs", TRITON_LIBRARIES)
    layer.at("/models").mkdir()
    layer.add_libraries(TRITON_LIBRARIES)
    config = {
        "Env": [PATH, f"LD_LIBRARY_PATH={TRITON_LIBRARIES}", "PYTHONHOME=/usr"],
        "WorkingDir": TRITON,
        "User": "1000:1000",
    }
    write_image(f"{REGISTRY}/triton:2.51", out / "triton.tar", [python, layer.root], config)


def make_client(packages, python, root, out):
    """Makes an image from which tests ask: a shell, Python, and Triton's own gRPC client."""
    layer = Folder(root)
    [client] = packages.glob("tritonclient-*.data/purelib/tritonclient")
    layer.copy_tree(client, f"{PACKAGES}/tritonclient")
    for name in ["grpc", "google", "packaging"]:
        layer.copy_tree(packages / name, f"{PACKAGES}/{name}")
    for file in [*packages.glob("rapidjson.*.so"), packages / "typing_extensions.py"]:
        layer.copy(file, f"{PACKAGES}/{file.name}")
    layer.add_libraries()
    config = {"Env": [PATH], "Entrypoint": ["sleep", "infinity"], "User": "1000:1000"}
    write_image(f"{REGISTRY}/client:1", out / "client.tar", [python, layer.root], config)


def make_base(root):
    """Lays out what stands in for the Dockerfile's base image: accounts, certificates; libraries come with the program."""
    base = Folder(root)
    base.copy("/etc/ssl/certs/ca-certificates.crt")


main()
