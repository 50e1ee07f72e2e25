"""Writes container images as OCI archives: a few layers, each the content of a folder, and a configuration.

The same content gives the same digests, whoever packs it and whenever.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

MEDIA_TYPE = "application/vnd.oci.image."


def write_image(name, archive, layers, config):
    """Writes the image `name` to the file `archive`: folders as its layers, the lowest first, and its run configuration."""
    with tarfile.open(archive, "w") as tar:
        blobs = [_add_layer(tar, Path(folder), Path(f"{archive}.layer")) for folder in layers]
        image = {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [blob["digest"] for blob in blobs]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA_TYPE}manifest.v1+json",
            "config": _add_json(tar, "config.v1+json", image),
            "layers": blobs,
        }
        named = _add_json(tar, "manifest.v1+json", manifest)
        named["annotations"] = {"io.containerd.image.name": name}
        _add_file(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}).encode())
        _add_file(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def _add_layer(archive, folder, scratch):
    with tarfile.open(scratch, "w") as layer:
        for path in sorted(folder.rglob("*")):
            layer.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_of_nobody)
    with scratch.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    archive.add(scratch, f"blobs/sha256/{digest}", filter=_of_nobody)
    blob = _descriptor("layer.v1.tar", digest, scratch.stat().st_size)
    scratch.unlink()
    return blob


def _add_json(archive, kind, value):
    content = json.dumps(value, sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()
    _add_file(archive, f"blobs/sha256/{digest}", content)
    return _descriptor(kind, digest, len(content))


def _descriptor(kind, digest, size):
    return {"mediaType": MEDIA_TYPE + kind, "digest": f"sha256:{digest}", "size": size}


def _add_file(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _of_nobody(info):
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info
