"""Model folders written whole or not at all. No torch, and no knowledge of the files' content.

`whole_folder` writes them, `card_file` writes and reads `card.json`, which carries the sha256 of
every other file and of itself, so what is loaded is exactly what was written.
"""

from fewclip.artifact.card_file import CARD_DIGEST, card_digest, now_utc, read_card, sha256_file
from fewclip.artifact.whole_folder import (
    DISK_REFUSES,
    check_target,
    sync_path,
    write_folder,
)

__all__ = [
    "CARD_DIGEST",
    "DISK_REFUSES",
    "card_digest",
    "check_target",
    "now_utc",
    "read_card",
    "sha256_file",
    "sync_path",
    "write_folder",
]
