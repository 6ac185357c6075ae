"""Toxicity by Detoxify's published model, run with transformers on weights in the user's cache; nothing is downloaded."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from cso_lab.analysis.llm_scorer import ROLE
from cso_lab.analysis.toxicity import Scores
from cso_lab.core.errors import UserError
from cso_lab.core.hashing import digest
from cso_lab.core.model_files import model_content

# The model's labels and the names of Table 7; "obscene" is the closest to profanity.
LABELS = {
    "toxic": "TOXICITY",
    "severe_toxic": "SEVERE_TOXICITY",
    "identity_hate": "IDENTITY_ATTACK",
    "insult": "INSULT",
    "obscene": "PROFANITY",
    "threat": "THREAT",
}
_LOCAL = {"local_files_only": True, "trust_remote_code": False}


class Detoxify:
    """A scorer (see `toxicity.Scorer`) that runs a text classifier with a sigmoid for each label; LABELS must be among them."""

    def __init__(self, name: str, notice: str | None, path: str, batch_size: int):
        """`path`: hub id of a model in the cache, or a folder."""
        self.name, self.notice, self._path, self._batch_size = name, notice, path, batch_size
        self.version = path

    def check(self) -> None:
        """Raises UserError if the model is not in the cache or lacks one of LABELS."""
        self._config()

    def score(self, texts: Sequence[str], folder: Path) -> list[Scores | None]:
        """Returns the scores of the texts; scores in the journal of `folder` are not computed again."""
        from filelock import FileLock

        from cso_lab.llm.journal import Journal

        revision = getattr(self._config(), "_commit_hash", None) or model_content(self._path, folder / "digests")
        self.version = f"{self._path}{f' at {revision[:10]}' if revision else ''}"
        folder.mkdir(parents=True, exist_ok=True)
        keys = [digest([self.version, text]) for text in texts]
        with FileLock(folder / ".lock"), Journal(folder, [ROLE]) as journal:
            missing = [(key, text) for key, text in zip(keys, texts, strict=True) if key not in journal.answers]
            for key, scores in self._classify(missing):
                reply = json.dumps(scores)
                call = {"key": key, "dialogue": ROLE, "role": ROLE, "model": self.version, "seed": 0, "attempt": 1}
                journal.write(call | {"reply": reply})
                journal.answers[key] = reply
            return [json.loads(journal.answers[key]) for key in keys]

    def _config(self):
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self._path, **_LOCAL)
        except (OSError, ValueError):
            raise UserError(
                f"toxicity.path={self._path} is neither a folder with a model nor in the model hub's cache: fetch it on a machine"
                f" with access (hf download {self._path}), or choose another toxicity="
            ) from None
        if missing := set(LABELS) - set(config.id2label.values()):
            raise UserError(
                f"toxicity.path={self._path} is no model of Detoxify's: it lacks the labels {', '.join(sorted(missing))}"
            )
        return config

    def _classify(self, texts: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Scores]]:
        """Yields (key, scores) for each (key, text), the shortest text first, so that batches have little padding."""
        if not texts:
            return
        import torch
        from tqdm.auto import tqdm
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._path, **_LOCAL)
            model = AutoModelForSequenceClassification.from_pretrained(self._path, use_safetensors=True, **_LOCAL).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"toxicity.path={self._path} has no weights in safetensors to be read: {str(error).splitlines()[0]}"
            ) from None
        texts = sorted(texts, key=lambda pair: len(pair[1]))
        with tqdm(total=len(texts), desc=f"toxicity by {self.name}", unit="text") as bar:
            for start in range(0, len(texts), self._batch_size):
                batch = texts[start : start + self._batch_size]
                inputs = tokenizer(
                    [text for _, text in batch], padding=True, truncation=True, max_length=512, return_tensors="pt"
                )
                with torch.inference_mode():
                    rows = torch.sigmoid(model(**inputs).logits.float()).tolist()
                for (key, _), row in zip(batch, rows, strict=True):
                    by_label = {model.config.id2label[index]: value for index, value in enumerate(row)}
                    yield key, {LABELS[label]: by_label[label] for label in LABELS}
                bar.update(len(batch))
