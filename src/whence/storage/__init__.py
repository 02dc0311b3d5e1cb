"""Files that whence writes and reads back: each whole or not there, and checked before it is used.

A file is written under another name beside its own, flushed to the disk and renamed. Every byte
that is read back is covered by a SHA-256 digest. An archive of arrays is a standard .npz file whose
comment is the digest of all before it; a manifest is a JSON object whose last entry is the digest
of the others. Nothing is pickled. `claim` refuses the second of two processes that would write in a
folder; where the file system has no locks, both write, and each file is still one writer's, whole.
"""

from whence.storage.archives import read_arrays as read_arrays
from whence.storage.archives import write_arrays as write_arrays
from whence.storage.digests import digest as digest
from whence.storage.files import clear_leftovers as clear_leftovers
from whence.storage.files import file_to_write as file_to_write
from whence.storage.files import write_bytes as write_bytes
from whence.storage.folders import claim as claim
from whence.storage.folders import make_folder as make_folder
from whence.storage.manifests import read_manifest as read_manifest
from whence.storage.manifests import write_manifest as write_manifest
