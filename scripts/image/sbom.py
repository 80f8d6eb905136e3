#!/usr/bin/env python3
r"""Completes the SBOM that cargo-cyclonedx makes of a binary to that of the image, on stdout.

  sbom.py FILE --workspace FOLDER --crates FILE --version VERSION --digest sha256:… \
    --certifi VERSION --rust VERSION --glibc VERSION [--glibc-package VERSION]

--crates has those that are compiled in, one NAME@VERSION a line: the tool lists what any feature of the workspace would
bring, and a report about a crate that is not there costs somebody an afternoon. What Cargo does not know is added: the
certificates, and what a static binary carries of the C library and of Rust's own.
"""

import argparse
import json
import pathlib
import sys
import uuid


def component(kind, name, version, purl, license_id, description):
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "description": description,
        "licenses": [{"expression": license_id}],
    }


def prune(bom, crates):
    def is_there(each):
        return f"{each['name']}@{each['version']}" in crates

    bom["components"] = [each for each in bom["components"] if is_there(each)]
    missing = crates - {f"{each['name']}@{each['version']}" for each in [bom["metadata"]["component"], *bom["components"]]}
    if missing:
        sys.exit(f"sbom.py: cargo-cyclonedx does not know {' '.join(sorted(missing))}")
    kept = {each["bom-ref"] for each in [bom["metadata"]["component"], *bom["components"]]}
    bom["dependencies"] = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", []) if ref in kept]}
        for each in bom["dependencies"]
        if each["ref"] in kept
    ]


def complete(bom, about):
    binary = bom["metadata"]["component"]
    binary.pop("components", None)  # the targets of its manifest
    package = f"?package={about.glibc_package}" if about.glibc_package else ""
    beside = [
        component("data", "certifi", about.certifi, f"pkg:pypi/certifi@{about.certifi}", "MPL-2.0",
                  "Mozilla's certificate authorities, /etc/ssl/certs/ca-certificates.crt"),
        component("library", "glibc", about.glibc, f"pkg:generic/glibc@{about.glibc}{package}", "LGPL-2.1-or-later",
                  "The C library, linked statically"),
        component("library", "rust-std", about.rust, f"pkg:generic/rust-std@{about.rust}", "MIT OR Apache-2.0",
                  "Rust's standard library, linked statically"),
    ]
    image = {
        "type": "container",
        "bom-ref": f"pkg:oci/ghostsync@{about.digest.replace(':', '%3A')}",
        "name": "ghostsync",
        "version": about.version,
        "purl": f"pkg:oci/ghostsync@{about.digest.replace(':', '%3A')}",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }
    bom["components"] = [binary, *bom["components"], *beside]
    bom["dependencies"].append({
        "ref": image["bom-ref"],
        "dependsOn": [binary["bom-ref"], *(each["bom-ref"] for each in beside)],
    })
    bom["metadata"]["component"] = image
    # Of the image, so that the same image gives the same document.
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, about.digest)}"
    return bom


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    for flag in ("--version", "--digest", "--certifi", "--rust", "--glibc"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--crates", type=pathlib.Path, required=True)
    parser.add_argument("--glibc-package")
    about = parser.parse_args()
    # Refs have no folder of this machine in them.
    bom = json.loads(about.file.read_text().replace(f"file://{about.workspace}", "file://"))
    prune(bom, set(about.crates.read_text().split()))
    json.dump(complete(bom, about), sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
