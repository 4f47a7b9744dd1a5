"""The Hugging Face Hub, when a user names it: `hf://owner/name[@revision]`. No torch.

Nothing here is reached by what a card or a folder says: a repository comes from the caller's own
words alone. What is downloaded is checked like any other folder.
"""

from fewclip.hub.download import is_address, local_folder
from fewclip.hub.upload import push

__all__ = ["is_address", "local_folder", "push"]
