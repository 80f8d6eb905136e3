#!/usr/bin/env python3
"""Completes the SBOM that cargo-cyclonedx makes of a binary to that of the image, on stdout.

  sbom.py FILE --version VERSION --digest sha256:… --certifi VERSION --rust VERSION --glibc VERSION [--glibc-package VERSION]

The crates are known to Cargo. What it does not know: the certificates, and what a static binary carries of the C library
and of Rust's own, whose vulnerabilities concern the image as well.
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
    parser.add_argument("--glibc-package")
    about = parser.parse_args()
    bom = json.loads(about.file.read_text())
    json.dump(complete(bom, about), sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
