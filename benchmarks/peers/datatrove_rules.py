"""datatrove with the rules of the plan data/web, one task, in one process. benchmarks/prepare.py runs it with the
interpreter that --datatrove names, which needs: pip install 'datatrove[processing]' spacy orjson zstandard py3langid

Usage: PYTHON datatrove_rules.py FOLDER_OF_JSONL WORK_FOLDER; what is kept is in WORK_FOLDER/out.

Order and limits are those of the plan where datatrove has them; else its own defaults, which mostly do less: it masks
e-mail and IP addresses only, and exact copies are left to MinHash. Its LanguageFilter downloads a model, so py3langid
stands in, on the 1,000 characters that the plan gives it. 18 buckets of 7 hashes are the plan's bands.
"""

import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter, LambdaFilter
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from py3langid.langid import MODEL_FILE, LanguageIdentifier

SAMPLE = 1_000

model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
model.nb_ptc = model.nb_ptc.astype("float32")  # as seedbed does: float16 would be widened for every text


def is_english(document) -> bool:
    text, third = document.text, SAMPLE // 3
    if len(text) > SAMPLE:
        middle = (len(text) - third) // 2
        text = "\n".join((text[:third], text[middle : middle + third], text[-third:]))
    language, probability = model.classify(text)
    return language == "en" and probability >= 0.7


def main() -> None:
    source, work = sys.argv[1], Path(sys.argv[2])
    minhash = MinhashConfig(num_buckets=18, hashes_per_bucket=7)
    cleaned, signatures, buckets, removals, out = (
        str(work / name) for name in ("cleaned", "signatures", "buckets", "removals", "out")
    )
    cleaning = [
        JsonlReader(source),
        FTFYFormatter(),
        LambdaFilter(is_english),
        GopherQualityFilter(),
        C4QualityFilter(min_num_sentences=3, min_words_per_line=5),
        GopherRepetitionFilter(),
        PIIFormatter(),
        LambdaFilter(lambda document: len(document.text.strip()) >= 50),
        JsonlWriter(cleaned, compression="zstd"),
        MinhashDedupSignature(signatures, config=minhash),
    ]
    stages = {
        "cleaning": (cleaning, 1),
        "buckets": ([MinhashDedupBuckets(signatures, buckets, config=minhash)], minhash.num_buckets),
        "clusters": ([MinhashDedupCluster(buckets, removals, config=minhash)], 1),
        "writing": ([JsonlReader(cleaned), MinhashDedupFilter(removals), JsonlWriter(out, compression="zstd")], 1),
    }
    for name, (pipeline, tasks) in stages.items():
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(work / "logs" / name)).run()


if __name__ == "__main__":
    main()
