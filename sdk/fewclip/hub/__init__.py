"""The Hugging Face Hub, when a user names it: `hf://owner/name[@revision]`. No torch.

Nothing in a card or a folder leads here: only the caller names a repository. What is
downloaded is checked like any other folder.
"""

from fewclip.hub.download import is_address, local_folder
from fewclip.hub.upload import push

__all__ = ["is_address", "local_folder", "push"]
