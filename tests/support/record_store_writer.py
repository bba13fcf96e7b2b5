"""A process whose children are killed by tests; each changes a store of keys until then.

Each input line, `store kek number`, starts a child that adds, removes and replaces the keys of batches and re-wraps the
store, starting at that batch, and reports each step on stdout before and after it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ppfr.templates import IdentityMapping, KeyEncryptionKey, KeyStore

SCHEME = IdentityMapping(dim=16)
BATCH = 60


def subjects(number):
    """The subjects of a batch."""
    return [f"{number}-{place}" for place in range(BATCH)]


def kek_of(directory, number):
    """The key-encryption key after that many re-wrappings, in a file that the test process can read."""
    path = Path(directory) / f"{number}.kek"
    return KeyEncryptionKey.load(path) if path.exists() else KeyEncryptionKey.create(path)


def report(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def change(path, directory, kek, number):
    """Add a batch, remove the previous one's first subject, replace its second, and rotate the key."""
    store = KeyStore(path, SCHEME, key_encryption_key=kek_of(directory, kek))
    while True:
        report("add", number)
        store.add_all({one: SCHEME.new_key() for one in subjects(number)})
        report("added", number)
        report("remove", number)
        store.remove(subjects(number)[0])
        report("removed", number)
        key = SCHEME.new_key()
        report("replace", number, key.key_id.hex())
        store.replace(subjects(number)[1], key)
        report("replaced", number, key.key_id.hex())
        new = kek_of(directory, kek + 1)
        report("rewrap", kek + 1)
        store.rewrap(new)
        report("rewrapped", kek + 1)
        kek += 1
        number += 1


if __name__ == "__main__":
    report("ready")
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            path, directory, kek, number = line.split()
            change(path, directory, int(kek), int(number))
        report("child", child)
        os.waitpid(child, 0)
        report("gone")
