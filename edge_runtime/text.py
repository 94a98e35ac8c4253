"""Numbers, names and digests as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """Text that a terminal takes as text: a name in a stranger's file may hold its commands."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )


def file_size(count: int) -> str:
    """Bytes with their unit, such as `57 kB` or `1.6 MB`; 1 kB is 1000 bytes."""
    if count < 1000:
        return f"{count} bytes" if count != 1 else "1 byte"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5 or unit == "GB":
            break
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"


def counted(count: int, noun: str) -> str:
    """`1 node`, `1,200 nodes`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def few(names: Iterable[str], *, limit: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def short_digest(digest: str) -> str:
    """`sha256:` and the first 12 hexadecimal digits."""
    kind, colon, digits = digest.rpartition(":")
    return f"{kind}{colon}{digits[:12]}"


def tensorrt_version(number: int) -> str:
    """`10.3.0` of 100300 and `8.4.1` of 8401, the inverse of `trt_cache.version_number`."""
    major, rest = divmod(number, 10000 if number >= 100000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share as a percentage; never 100 % for less than all. `-` where there is none."""
    if share is None:
        return "-"
    text = f"{100 * share:.1f}"
    if text == "100.0":
        return "100 %" if share == 1 else "> 99.9 %"
    return f"{text} %"


def sqnr(decibels: float | None, *, equal: bool) -> str:
    """A signal to noise ratio; without one the outputs are equal, or there was no signal."""
    if equal:
        return "equal"
    return "no signal" if decibels is None else f"{decibels:.1f} dB"


def shape(sizes: Sequence[int]) -> str:
    """`[?, 3, 224, 224]`, where ? is dynamic."""
    return f"[{', '.join('?' if size < 0 else str(size) for size in sizes)}]"


def columns(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Rows as lines whose columns stand below each other, the first `left` of them flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
