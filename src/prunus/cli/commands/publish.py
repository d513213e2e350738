"""The command `publish`: show which files would be uploaded to the hub, and upload them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.checks import check_recorded
from prunus.cli.render import show_upload
from prunus.console import Console


@dataclass(kw_only=True)
class Publish:
    """Show which files of a model's folder would be published on the hub; with --upload, publish them in one commit."""

    folder: Annotated[Positional[str], arg(metavar="FOLDER")]
    """Model folder with its card, such as the last one of a student."""
    to: str
    """Repository on the hub, such as `me/my-model`."""
    upload: bool = False
    """Upload the files. Without this, nothing is sent."""
    public: bool = False
    """If the repository is created, make it public."""
    message: str = "Upload by Prunus"
    """Commit message."""

    def __call__(self, console: Console) -> None:
        """Choose and show the files; upload them with `--upload`."""
        from prunus.tools.publish.hub import prepare_upload, send

        check_recorded([self.folder], console)
        upload = prepare_upload(Path(self.folder), self.to)
        show_upload(upload, console)
        if self.upload:
            console.say(f"published: {send(upload, self.public, self.message)}")
        else:
            console.say("nothing was uploaded; add --upload to upload these files")
