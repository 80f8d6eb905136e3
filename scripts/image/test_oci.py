#!/usr/bin/env python3
"""Tests of oci.py: python3 scripts/image/test_oci.py"""

import contextlib
import io
import json
import os
import pathlib
import sys
import tarfile
import tempfile
import unittest

sys.dont_write_bytecode = True  # the checkout stays as it is
import oci  # noqa: E402


class Oci(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.program = self.file("program", b"\x7fELF program", 0o755)
        self.text = self.file("text", b"certificates", 0o600)

    def file(self, name, data, mode):
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def run_oci(self, *words):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = oci.main([str(word) for word in words])
        return code, out.getvalue(), err.getvalue()

    def pack(self, name="image.tar", created=1_000_000_000, reverse=False):
        archive = self.folder / name
        files = [f"/ghostsync-k8s={self.program}", f"/etc/ssl/certs/text={self.text}", "/ghostsync->ghostsync-k8s"]
        code, out, _ = self.run_oci(
            "pack", archive, "--name", "registry.example/ghostsync", "--version", "1.2.3", "--revision", "abc",
            "--arch", "amd64", "--created", created, *(reversed(files) if reverse else files),
        )
        self.assertEqual(code, 0)
        return archive, out.strip()

    def unpack(self, archive, *words):
        bundle = self.folder / f"bundle{len(list(self.folder.iterdir()))}"
        return bundle, *self.run_oci("unpack", archive, bundle, "--uid", 4321, *words)

    def rewritten(self, archive, change):
        """The archive with its parts changed, as somebody would who cannot make another digest fit."""
        with tarfile.open(archive) as tar:
            parts = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
        change(parts)
        made = self.folder / "rewritten.tar"
        made.write_bytes(oci.tar_of({name: (data, 0o644) for name, data in parts.items()}, set(), 0, {}))
        return made

    def test_the_same_files_give_the_same_bytes_whatever_their_times_their_order_and_the_umask(self):
        first, digest = self.pack()
        os.utime(self.program, (1, 1))
        umask = os.umask(0o077)
        self.addCleanup(os.umask, umask)
        self.text.chmod(0o444)
        second, again = self.pack("other.tar", reverse=True)
        self.assertEqual(digest, again)
        self.assertEqual(first.read_bytes(), second.read_bytes())

    def test_another_byte_another_mode_and_another_time_give_another_digest(self):
        digests = {self.pack()[1], self.pack(created=1_000_000_001)[1]}
        self.text.write_bytes(b"certificatez")
        digests.add(self.pack()[1])
        self.program.chmod(0o644)
        digests.add(self.pack()[1])
        self.assertEqual(len(digests), 4)

    def test_what_is_unpacked_is_what_was_packed(self):
        bundle, code, _, err = self.unpack(self.pack()[0])
        self.assertEqual((code, err), (0, ""))
        root = bundle / "rootfs"
        found = {str(path.relative_to(root)): path.lstat().st_mode & 0o777 for path in root.rglob("*")}
        folders = {"etc": 0o755, "etc/ssl": 0o755, "etc/ssl/certs": 0o755}
        self.assertEqual(found, {**folders, "etc/ssl/certs/text": 0o644, "ghostsync": 0o777, "ghostsync-k8s": 0o755})
        self.assertEqual(os.readlink(root / "ghostsync"), "ghostsync-k8s")
        self.assertEqual((root / "ghostsync-k8s").read_bytes(), self.program.read_bytes())

    def test_a_container_may_do_no_more_than_the_restricted_profile_allows(self):
        bundle, *_ = self.unpack(self.pack()[0], "--mount", "/data:/data:ro", "--", "sync", "--listen", ":1")
        made = json.loads((bundle / "config.json").read_text())
        process = made["process"]
        self.assertEqual(process["args"], ["/ghostsync-k8s", "sync", "--listen", ":1"])
        self.assertEqual(process["user"], {"uid": 4321, "gid": 4321})
        self.assertEqual({word for words in process["capabilities"].values() for word in words}, set())
        self.assertIs(process["noNewPrivileges"], True)
        self.assertIs(made["root"]["readonly"], True)
        self.assertIn("ro", [mount for mount in made["mounts"] if mount["destination"] == "/data"][0]["options"])

    def test_an_image_names_its_user_its_program_its_platform_and_its_labels(self):
        code, out, _ = self.run_oci("show", self.pack()[0])
        self.assertEqual(code, 0)
        for line in (
            "name: registry.example/ghostsync:1.2.3",
            "platform: linux/amd64",
            "user: 65532:65532",
            "entrypoint: /ghostsync-k8s",
            "label: org.opencontainers.image.created=2001-09-09T01:46:40Z",
            "label: org.opencontainers.image.revision=abc",
            "entry: 755 12 /ghostsync-k8s",
            "entry: 777 0 /ghostsync -> ghostsync-k8s",
        ):
            self.assertIn(line, out.splitlines())

    def test_a_blob_with_other_bytes_is_refused_whichever_it_is(self):
        archive, _ = self.pack()
        with tarfile.open(archive) as tar:
            blobs = [entry.name for entry in tar if entry.isfile() and entry.name.startswith("blobs/")]
        self.assertEqual(len(blobs), 3)
        for name in blobs:
            def damage(parts, name=name):
                parts[name] = parts[name][:-1] + bytes([parts[name][-1] ^ 1])
            _, code, _, err = self.unpack(self.rewritten(archive, damage))
            self.assertEqual(code, 1, name)
            self.assertIn("holds other bytes", err)

    def test_a_part_that_is_missing_is_named(self):
        archive, digest = self.pack()
        _, code, _, err = self.unpack(self.rewritten(archive, lambda parts: parts.pop(oci.blob_path(digest))))
        self.assertEqual(code, 1)
        self.assertIn(f"{oci.blob_path(digest)} is missing", err)

    def test_an_entry_outside_of_the_root_is_refused_and_so_is_a_link_that_leads_there(self):
        for word, complaint in (
            (f"../outside={self.program}", ".. lies outside of the image"),
            ("inside->../outside", "inside is neither a file, nor a folder, nor a link beside one"),
        ):
            archive = self.folder / "evil.tar"
            code, *_ = self.run_oci(
                "pack", archive, "--name", "n", "--version", "1", "--revision", "r", "--arch", "amd64", "--created", 0, word,
            )
            self.assertEqual(code, 0)
            bundle, code, _, err = self.unpack(archive)
            self.assertEqual((code, err), (1, f"oci.py: {complaint}\n"))
            self.assertFalse((bundle / "outside").exists())
            self.assertFalse((bundle / "rootfs/inside").is_symlink())


if __name__ == "__main__":
    unittest.main()
