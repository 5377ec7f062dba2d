"""Upload of a saved estimator to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .model_card import CARD_FILE, is_own_card
from .persistence import WEIGHT_PATTERNS, save_estimator


def upload_estimator(
    estimator, repo_id: str, metrics, private, token, for_gliclass, *, revision, create_pr: bool, commit_message
) -> str:
    """Save a fitted estimator to a temporary folder and upload it in one commit; return the commit's address.

    A model card in the repository that was written by hand is kept.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(token=token, library_name="sklearn-gliclass")
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_estimator(estimator, folder, metrics, for_gliclass, name=repo_id)
        keeps_card = api.file_exists(repo_id, CARD_FILE, revision=revision) and not is_own_card(
            Path(api.hf_hub_download(repo_id, CARD_FILE, revision=revision))
        )
        if keeps_card:
            (folder / CARD_FILE).unlink()
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or f"Upload {type(estimator).__name__}",
            delete_patterns=WEIGHT_PATTERNS,  # of an earlier upload, in other files than this one
        )
    return str(commit.pr_url if create_pr else commit.commit_url)
