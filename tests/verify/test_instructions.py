import json
import random
from collections import Counter

import pytest

from prunus.errors import DataError
from prunus.verify.instructions import INSTRUCTIONS, follows, loose_readings, verdict
from prunus.verify.language import detect
from prunus.verify.sentences import count_capital_words, count_sentences, count_words
from tests.real import DATA, real
from tests.verify.oracles import lm_eval_ifeval

LEAST, LESS = "at least", "less than"


@pytest.mark.parametrize(
    ("name", "options", "right", "wrong"),
    [
        ("keywords:existence", {"keywords": ["plum", "C++"]}, "A PLUM in c++", "a plum"),
        ("keywords:frequency", {"keyword": "plum", "frequency": 2, "relation": LEAST}, "Plum, plums", "plum"),
        ("keywords:frequency", {"keyword": "plum", "frequency": 2, "relation": LESS}, "plum", "plum plum"),
        ("keywords:forbidden_words", {"forbidden_words": ["fig"]}, "figs", "a Fig."),
        ("keywords:letter_frequency", {"letter": "P", "let_frequency": 2, "let_relation": LEAST}, "Pip", "plum"),
        ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": LEAST}, "#a #b", "#a"),
        ("language:response_language", {"language": "de"}, "Die Pflaume ist nicht reif.", "The plum is not ripe."),
        ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LEAST}, "One. Two!", "Mr. One."),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***a***b***", "a***  ***b"),
        ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, "two words", "three words now"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "plums"},
            "a\n\n'Plums, they say",
            "plums\n\nthey",
        ),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a] and b"),
        ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye. p.p.s. a fig", "Bye. P.S. a fig"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. a fig", "Bye, a fig"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n - b", "* a\n** b"),
        ("detectable_format:constrained_response", {}, "Well. My answer is no.", "No."),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* **b**", "*a* ** **"),
        (
            "detectable_format:multiple_sections",
            {"section_spliter": "SECTION", "num_sections": 2},
            "SECTION 1 a SECTION 2 b",
            "section 1 section 2",
        ),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{'a': 1}"),
        ("detectable_format:title", {}, "<<Of plums>>\nx", "<< >>"),
        ("combination:two_responses", {}, "a******b", "a******a"),
        ("combination:two_responses", {}, "a******b******", "a************b"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Why?"}, " why? Because", "Because. Why?"),
        ("startend:end_checker", {"end_phrase": "The end."}, 'so. "the END."', "The end. so"),
        ("startend:quotation", {}, ' "so" ', '"so" he said'),
        ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": LEAST}, "I AM he", "I am"),
        ("change_case:english_capital", {}, "THE PLUM IS RIPE", "THE PLUM is RIPE"),
        ("change_case:english_lowercase", {}, "the plum is ripe", "die pflaume ist nicht reif"),
        ("punctuation:no_comma", {}, "a; b", "a, b"),
    ],
)
def test_an_instruction_is_followed_or_not(name: str, options: dict, right: str, wrong: str) -> None:
    assert follows(right, name, **options)
    assert not follows(wrong, name, **options)
    assert not follows(" \n", name, **options)


def test_there_are_twenty_five() -> None:
    assert len(INSTRUCTIONS) == 25


def test_loose_forgives_the_first_and_last_line_and_asterisks() -> None:
    answer = "Sure, here it is:\n**a plum**\nBye, bye"
    found = verdict(answer, ["punctuation:no_comma", "startend:end_checker"], [{}, {"end_phrase": "PLUM"}])
    assert (found.strict, found.loose) == ((False, False), (True, True))
    assert len(set(loose_readings(answer))) == 8


def test_options_that_are_none_are_not_given() -> None:
    assert follows("a", "punctuation:no_comma", num_words=None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("punctuation:no_coma", {}, r"not one of the 25 \(did you mean `punctuation:no_comma`"),
        ("punctuation:no_comma", {"num_words": 3}, r"\{'num_words': 3\}: wrong options"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "about"}, "allowed: 'less than', 'at least'"),
    ],
)
def test_what_is_no_instruction_is_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        follows("a", name, **options)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "There is a plum tree in the garden, and it bears fruit in July."),
        ("de", "Im Garten steht ein Pflaumenbaum, und er trägt im Juli."),
        ("fr", "Il y a un prunier dans le jardin et il donne des fruits en juillet."),
        ("es", "Hay un ciruelo en el jardín y da frutos en julio."),
        ("pt", "Há uma ameixeira no jardim e ela dá frutos em julho, mas não muitos."),
        ("it", "Nel giardino c'è un susino che non è molto alto e che dà frutti a luglio."),
        ("fi", "Puutarhassa on luumupuu, ja se ei ole kovin vanha."),
        ("vi", "Trong vườn có một cây mận và nó ra quả vào tháng bảy."),
        ("sw", "Kuna mti wa plamu katika bustani na huzaa matunda ya msimu."),
        ("ru", "В саду растёт слива, и она не очень старая, но это не беда."),
        ("bg", "В градината има слива и тя не е много стара, но ще роди."),
        ("ar", "هناك شجرة برقوق في الحديقة من أن هذا"),
        ("fa", "در باغ یک درخت آلو است که میوه می دهد"),
        ("ur", "باغ میں آلو بخارے کا درخت ہے اور یہ پھل دیتا ہے"),
        ("hi", "बगीचे में आलूबुखारे का एक पेड़ है और यह फल देता है।"),
        ("mr", "बागेत एक झाड आहे आणि ते फळ देते."),
        ("ne", "बगैंचामा एउटा रूख छ र यो फल दिन्छ।"),
        ("kn", "ತೋಟದಲ್ಲಿ ಒಂದು ಮರ ಇದೆ"),
        ("te", "తోటలో ఒక చెట్టు ఉంది"),
        ("ta", "தோட்டத்தில் ஒரு மரம் உள்ளது"),
        ("bn", "বাগানে একটি গাছ আছে"),
        ("gu", "બગીચામાં એક ઝાડ છે"),
        ("pa", "ਬਾਗ ਵਿੱਚ ਇੱਕ ਰੁੱਖ ਹੈ"),
        ("th", "ในสวนมีต้นพลัม"),
        ("ko", "정원에 자두나무가 있습니다"),
        ("ja", "庭に梅の木があります"),
        ("zh-cn", "花园里有一棵李子树"),
        (None, "1 + 1 = 2"),
    ],
)
def test_a_language_is_known_by_its_script_and_its_words(language: str | None, text: str) -> None:
    assert detect(text) == language
    assert detect(text.upper()) == language


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("no mark", 1),
        ("One. two", 2),
        ("Dr. Plum met J. K. Fig at 3.5 p.m. and left. He was late!", 2),
        ('"Is it?" she asked. (It was.) Good...', 4),
        ("Wait... what? No.", 2),
    ],
)
def test_sentences_are_counted(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences


def test_words_are_counted() -> None:
    assert count_words("It's a plum-tree, no?") == 6
    assert count_capital_words("I'M in the U.S. NOT here: A-B, c") == 5


@real("ifeval")
def test_verdicts_are_those_of_the_evaluation_harness() -> None:
    """On every prompt of IFEval, with real answers of others and with what is made to pass."""
    theirs = lm_eval_ifeval()
    rows = [json.loads(line) for line in (DATA / "ifeval" / "input_data.jsonl").open()]
    chats = [json.loads(line) for line in (DATA / "chat" / "synthetic_conversations_1k.jsonl").open()]
    texts = [turn["content"] for chat in chats for turn in chat["messages"] if turn["role"] == "assistant"]
    draw = random.Random(0)
    unlike: Counter[str] = Counter()
    held: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for row in rows:
        names, options = row["instruction_id_list"], row["kwargs"]
        other = draw.choice(texts)
        for answer in (row["prompt"], other, shaped(other, draw)):
            asked = theirs.InputExample(row["key"], names, row["prompt"], options)
            strict = theirs.test_instruction_following_strict(asked, answer).follow_instruction_list
            loose = theirs.test_instruction_following_loose(asked, answer).follow_instruction_list
            ours = verdict(answer, names, options)
            for i, name in enumerate(names):
                count[name] += 1
                held[name] += loose[i]
                if options[i].get("letter", "a").isalpha():  # for a mark they draw a letter
                    unlike[name] += (strict[i], loose[i]) != (ours.strict[i], ours.loose[i])
    assert len(count) == 25
    assert sum(count.values()) > 2400
    by_langdetect = {name for name in count if name.startswith(("language:", "change_case:english"))}
    assert {name for name in count if unlike[name]} <= by_langdetect
    assert all(unlike[name] <= 0.2 * count[name] for name in by_langdetect), unlike
    assert sum(0 < held[name] < count[name] for name in count) >= 22


def shaped(text: str, draw: random.Random) -> str:
    """An answer in a shape that some instruction asks for."""
    half = len(text) // 2
    shapes = [
        text.upper(), text.lower(), f'"{text}"', f"<<Plum>>\n{text}\nP.S. more", f"{text[:half]}******{text[half:]}",
        f"{text[:half]}\n***\n{text[half:]}", "\n".join(f"* {line}" for line in text.split("\n")[:4]),
        "".join(f"\nSection {i}\n[{word}] *{word}*" for i, word in enumerate(text.split()[:12])),
        text.replace(",", ""), json.dumps({"answer": text}), f"{text} My answer is yes.",
    ]  # fmt: skip
    return draw.choice(shapes)
