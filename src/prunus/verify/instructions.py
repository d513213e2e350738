"""IFEval's 25 verifiable instructions (Zhou et al. 2023, arXiv 2311.07911), each a rule on the text of an answer.

Verdicts equal those of lm-evaluation-harness, with these deviations: languages are not detected by langdetect (see
`verify.language`), sentences not by nltk's trained tokenizer (see `verify.sentences`); keywords are literal text, not
regular expressions; and the letter to count may be a mark such as `#`, which the harness replaces by a random letter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.errors import DataError, nearest
from prunus.verify.language import detect
from prunus.verify.sentences import count_capital_words, count_sentences, count_words

CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""One of these must be in a constrained response."""


@dataclass(frozen=True)
class Verdict:
    """Which of a prompt's instructions an answer follows.

    Attributes:
        strict: For each instruction, whether the unchanged answer follows it.
        loose: For each instruction, whether one of eight variants of the answer follows it: without the first line,
            the last line, or both, each with and without asterisks.
    """

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def verdict(response: str, instructions: Sequence[str], options: Sequence[dict[str, Any]]) -> Verdict:
    """Whether an answer follows each of its instructions.

    Args:
        response: The answer.
        instructions: Their names, such as `length_constraints:number_words`.
        options: The options of each, such as `{"relation": "at least", "num_words": 300}`.

    Raises:
        DataError: An instruction is unknown, or has no such options.
    """
    pairs = list(zip(instructions, options, strict=True))
    readings = loose_readings(response)
    return Verdict(
        tuple(follows(response, name, **given) for name, given in pairs),
        tuple(any(follows(reading, name, **given) for reading in readings) for name, given in pairs),
    )


def follows(response: str, instruction: str, **options: Any) -> bool:
    """Whether an answer follows one instruction; an empty answer follows none. Options that are None are ignored.

    Raises:
        DataError: As in `verdict`.
    """
    if instruction not in INSTRUCTIONS:
        raise DataError(f"instruction: {instruction!r} is not one of the 25{nearest(instruction, INSTRUCTIONS)}")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return bool(response.strip()) and INSTRUCTIONS[instruction](response, **given)
    except TypeError as error:
        raise DataError(f"instruction {instruction}: {given}: wrong options: {error}") from None


def loose_readings(response: str) -> list[str]:
    """The eight variants of an answer, of which one must follow the instruction (section 2.2)."""
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(reading.replace("*", "") for reading in cut)]


def _compare(count: int, relation: str, bound: int) -> bool:
    if relation not in ("less than", "at least"):
        raise DataError(f"relation: {relation!r}; allowed: 'less than', 'at least'")
    return count < bound if relation == "less than" else count >= bound


def _existence(text: str, keywords: Sequence[str]) -> bool:
    return all(_occurrences(text, word) for word in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compare(_occurrences(text, keyword.strip()), relation, frequency)


def _occurrences(text: str, word: str) -> int:
    return len(re.findall(re.escape(word), text, flags=re.IGNORECASE))


def _forbidden_words(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE) for word in forbidden_words)


def _letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compare(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _response_language(text: str, language: str) -> bool:
    return detect(text) in (language, None)


def _number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _compare(count_sentences(text), relation, num_sentences)


def _number_paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = [bool(part.strip()) for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and sum(parts) == num_paragraphs


def _number_words(text: str, num_words: int, relation: str) -> bool:
    return _compare(count_words(text), relation, num_words)


def _nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = text.split("\n\n")
    count = sum(bool(part.strip()) for part in paragraphs)
    if nth_paragraph > count or not paragraphs[nth_paragraph - 1].strip():
        return False
    opening = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"').lower()
    return count == num_paragraphs and re.split(r"[.,?!'\"]", opening)[0] == first_word.lower()


def _number_placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(known.get(marker, re.escape(marker.lower())), text.lower()))


def _number_bullet_lists(text: str, num_bullets: int) -> bool:
    starred = re.findall(r"^\s*\*[^\*].*$", text, flags=re.MULTILINE)
    return len(starred) + len(re.findall(r"^\s*-.*$", text, flags=re.MULTILINE)) == num_bullets


def _constrained_response(text: str) -> bool:
    return any(choice in text for choice in CHOICES)


def _number_highlighted_sections(text: str, num_highlights: int) -> bool:
    found = [part.strip("*") for part in re.findall(r"\*[^\n\*]*\*", text)]
    found += [part[2:-2] for part in re.findall(r"\*\*[^\n\*]*\*\*", text)]
    return sum(bool(part.strip()) for part in found) >= num_highlights


def _multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", text)) >= num_sections


def _json_format(text: str) -> bool:
    bare = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(fence)
    try:
        json.loads(bare.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    responses = [part for part in parts if part]
    return all(parts[1:-1]) and len(responses) == 2 and responses[0] != responses[1]


def _repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end_checker(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_word_frequency(text: str, capital_frequency: int, capital_relation: str) -> bool:
    return _compare(count_capital_words(text), capital_relation, capital_frequency)


def _english_capital(text: str) -> bool:
    return text.isupper() and detect(text) == "en"


def _english_lowercase(text: str) -> bool:
    return text.islower() and detect(text) == "en"


def _no_comma(text: str) -> bool:
    return "," not in text


def _quotation(text: str) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


INSTRUCTIONS: dict[str, Callable[..., bool]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": _number_words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
}
"""Every instruction by its name in IFEval's data; its function takes the answer and the data's options."""
