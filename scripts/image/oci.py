#!/usr/bin/env python3
"""OCI images as an archive, from files to a digest and back; no registry, no daemon.

  oci.py pack ARCHIVE --name NAME --version VERSION --revision COMMIT --created SECONDS --arch ARCH PATH=FILE... 'PATH->NAME'...
  oci.py unpack ARCHIVE BUNDLE --uid UID [--gid GID] [--mount SOURCE:DESTINATION[:ro]]...
         [--entrypoint WORD]... [--hostname NAME] -- [ARGUMENT...]
  oci.py show ARCHIVE      what it is and how large, as lines `key: value`

`pack` puts each FILE at PATH, readable by everybody, executable if FILE is, and links to the NAME of a neighbour. The bytes
depend on nothing but the files and what stands on the command line: owners are 0, times are SECONDS, entries are sorted. It
prints the image's digest.

`unpack` checks every digest and size on the way, and writes a bundle for runc as a kubelet would ask for it in the Pod
Security profile restricted: an arbitrary user, a root that cannot be written to, no capabilities, no new privileges, no
network but loopback. What it runs comes from the image's own configuration.

The format: https://github.com/opencontainers/image-spec, layout, manifest and config.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import sys
import tarfile
import time

TITLE = "ghostsync"
DESCRIPTION = "Keeps a pod's directory in an object store: restored before the app, followed, saved at the end"
LICENSES = "MIT OR Apache-2.0"
USER = "65532:65532"
ENTRYPOINT = ["/ghostsync-k8s"]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Wrong(Exception):
    """An archive that is not what it says."""


def encoded(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_path(digest):
    return "blobs/" + digest.replace(":", "/", 1)


def tar_of(files, folders, seconds, links):
    """A tar of `files` (path to bytes and mode), `links` (path to target) and the folders above, each after its folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted({*files, *folders, *links}):
            entry = tarfile.TarInfo(path)
            entry.mtime = seconds
            if path in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            elif path in links:
                entry.type, entry.mode, entry.linkname = tarfile.SYMTYPE, 0o777, links[path]
                tar.addfile(entry)
            else:
                data, entry.mode = files[path]
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def folders_of(paths):
    return {str(parent) for path in paths for parent in pathlib.PurePosixPath(path).parents if str(parent) != "."}


def image_of(files, links, about):
    """The blobs of the image by digest, and the entry of its manifest for an index."""
    layer_tar = tar_of(files, folders_of([*files, *links]), about.created, links)
    layer = gzip.compress(layer_tar, compresslevel=9, mtime=0)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(about.created))
    labels = {
        "org.opencontainers.image.title": TITLE,
        "org.opencontainers.image.description": DESCRIPTION,
        "org.opencontainers.image.licenses": LICENSES,
        "org.opencontainers.image.version": about.version,
        "org.opencontainers.image.revision": about.revision,
        "org.opencontainers.image.created": created,
    }
    config = encoded({
        "architecture": about.arch,
        "os": "linux",
        "created": created,
        "config": {"User": USER, "Entrypoint": ENTRYPOINT, "WorkingDir": "/", "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer_tar)]},
        "history": [{"created": created, "created_by": "scripts/image.sh"}],
    })

    def descriptor(media_type, data):
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    manifest = encoded({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, layer)],
        "annotations": labels,
    })
    entry = descriptor(MANIFEST, manifest)
    entry["platform"] = {"architecture": about.arch, "os": "linux"}
    return {digest_of(data): data for data in (layer, config, manifest)}, entry


def pack(about):
    files, links = {}, {}
    for word in about.files:
        if "->" in word:
            path, _, links[path.lstrip("/")] = word.partition("->")
            continue
        path, _, source = word.partition("=")
        source = pathlib.Path(source)
        mode = 0o755 if os.access(source, os.X_OK) else 0o644
        files[path.lstrip("/")] = (source.read_bytes(), mode)
    blobs, entry = image_of(files, links, about)
    # containerd takes the first name, podman and skopeo the second.
    entry["annotations"] = {
        "io.containerd.image.name": f"{about.name}:{about.version}",
        "org.opencontainers.image.ref.name": about.version,
    }
    parts = {blob_path(digest): (data, 0o644) for digest, data in blobs.items()}
    parts["oci-layout"] = (encoded({"imageLayoutVersion": "1.0.0"}), 0o644)
    parts["index.json"] = (encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}), 0o644)
    made = pathlib.Path(str(about.archive) + ".new")
    made.write_bytes(tar_of(parts, folders_of(parts), about.created, {}))
    made.rename(about.archive)
    print(entry["digest"])


class Archive:
    """An archive whose every part is checked when it is read."""

    def __init__(self, path):
        with tarfile.open(path) as tar:
            self.parts = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
        if json.loads(self.part("oci-layout")) != {"imageLayoutVersion": "1.0.0"}:
            raise Wrong("oci-layout is of another version")
        manifests = json.loads(self.part("index.json"))["manifests"]
        if len(manifests) != 1:
            raise Wrong(f"{len(manifests)} images instead of one")
        self.entry = manifests[0]
        self.manifest = json.loads(self.blob(self.entry, MANIFEST))
        self.config = json.loads(self.blob(self.manifest["config"], CONFIG))
        self.layers = [gzip.decompress(self.blob(layer, LAYER)) for layer in self.manifest["layers"]]
        if [digest_of(layer) for layer in self.layers] != self.config["rootfs"]["diff_ids"]:
            raise Wrong("a layer is not the one that the configuration names")

    def part(self, name):
        if name not in self.parts:
            raise Wrong(f"{name} is missing")
        return self.parts[name]

    def blob(self, descriptor, media_type):
        data = self.part(blob_path(descriptor["digest"]))
        if descriptor["mediaType"] != media_type:
            raise Wrong(f"{descriptor['digest']} is said to be {descriptor['mediaType']}, not {media_type}")
        if (digest_of(data), len(data)) != (descriptor["digest"], descriptor["size"]):
            raise Wrong(f"{descriptor['digest']} holds other bytes")
        return data

    def extract(self, root):
        for layer in self.layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                for entry in tar:
                    path = root / entry.name
                    if ".." in path.parts:
                        raise Wrong(f"{entry.name} lies outside of the image")
                    if entry.issym() and "/" not in entry.linkname:
                        path.symlink_to(entry.linkname)
                        continue
                    if entry.isdir():
                        path.mkdir()
                    elif entry.isfile():
                        path.write_bytes(tar.extractfile(entry).read())
                    else:
                        raise Wrong(f"{entry.name} is neither a file, nor a folder, nor a link beside one")
                    path.chmod(entry.mode)


def runtime_config(archive, options):
    image = archive.config["config"]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=64k"]},
    ]
    for word in options.mount:
        source, destination, *access = word.split(":")
        mounts.append({
            "destination": destination,
            "type": "bind",
            "source": os.path.abspath(source),
            "options": ["rbind", "nosuid", "nodev", "ro" if access == ["ro"] else "rw"],
        })
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": options.uid, "gid": options.uid if options.gid is None else options.gid},
            "args": (options.entrypoint or image["Entrypoint"]) + options.arguments,
            "env": image.get("Env", []),
            "cwd": image.get("WorkingDir", "/"),
            "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": options.hostname,
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def unpack(options):
    archive = Archive(options.archive)
    root = options.bundle / "rootfs"
    root.mkdir(parents=True)
    archive.extract(root)
    (options.bundle / "config.json").write_text(json.dumps(runtime_config(archive, options), indent=1))


def show(options):
    archive = Archive(options.archive)
    image = archive.config["config"]
    print(f"digest: {archive.entry['digest']}")
    print(f"name: {archive.entry['annotations']['io.containerd.image.name']}")
    print(f"platform: {archive.config['os']}/{archive.config['architecture']}")
    print(f"user: {image['User']}")
    print(f"entrypoint: {' '.join(image['Entrypoint'])}")
    for name, value in sorted(image["Labels"].items()):
        print(f"label: {name}={value}")
    for layer in archive.layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            for entry in tar:
                print(f"entry: {entry.mode:o} {entry.size} /{entry.name}" + (f" -> {entry.linkname}" if entry.issym() else ""))
    print(f"packed_bytes: {sum(layer['size'] for layer in archive.manifest['layers'])}")
    print(f"unpacked_bytes: {sum(map(len, archive.layers))}")


def main(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("pack")
    command.set_defaults(run=pack)
    command.add_argument("archive", type=pathlib.Path)
    for flag in ("--name", "--version", "--revision", "--arch"):
        command.add_argument(flag, required=True)
    command.add_argument("--created", type=int, required=True)
    command.add_argument("files", nargs="+", metavar="PATH=FILE, PATH->NAME")
    command = commands.add_parser("unpack")
    command.set_defaults(run=unpack)
    command.add_argument("archive", type=pathlib.Path)
    command.add_argument("bundle", type=pathlib.Path)
    command.add_argument("--uid", type=int, required=True)
    command.add_argument("--gid", type=int)
    command.add_argument("--mount", action="append", default=[], metavar="SOURCE:DESTINATION[:ro]")
    command.add_argument("--entrypoint", action="append", default=[], metavar="WORD")
    command.add_argument("--hostname", default="pod")
    command = commands.add_parser("show")
    command.set_defaults(run=show)
    command.add_argument("archive", type=pathlib.Path)
    ours = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:ours])
    options.arguments = words[ours + 1 :]
    try:
        options.run(options)
    except (Wrong, OSError, tarfile.TarError) as error:
        print(f"oci.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
