"""The OCR demo that `scripts/demo` runs: an INT8 detector and an FP16 recogniser read a page."""
