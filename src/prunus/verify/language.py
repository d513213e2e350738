"""Language detection by script and most common words: deterministic, so that verdicts never change.

langdetect, which IFEval uses, is random, and often takes text in capitals for German. The two differ on texts of a few
words and on text in capitals.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_SCRIPTS = {  # scripts that only one language of IFEval uses
    "KANNADA": "kn", "TELUGU": "te", "TAMIL": "ta", "GUJARATI": "gu", "BENGALI": "bn", "GURMUKHI": "pa",
    "MALAYALAM": "ml", "THAI": "th", "HANGUL": "ko", "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh-cn",
    "GREEK": "el", "HEBREW": "he",
}  # fmt: skip

_WORDS = {
    "LATIN": {
        "en": "the of and to in is that it for was on are as with be this have from or by you not at but they we i "
        "my your an will can has which their what all there who if her his would",
        "de": "der die und das ist nicht ein eine zu den mit sich auf für ich des im dem von es wir sie auch als wie "
        "oder aber dass haben sind werden kann einen einer",
        "fr": "le la les et des est une dans que pour qui ne pas sur ce au je vous nous il elle avec sont du être plus "
        "mais cette aux votre",
        "es": "el la los las y que es una por con para del se su al lo como más pero sus este está son muy también "
        "hay mi nos",
        "pt": "o os as e que é uma não com para do da dos das em se um mais como mas foi seu sua ao pelo pela são "
        "também você nos",
        "it": "il lo gli e che è una non con per del della di si sono nel alla anche come più ma questo dei delle ha "
        "un mi le",
        "nl": "de het een en van is dat niet zijn op te met voor aan er maar ook als bij je wij deze worden",
        "fi": "ja on ei se että hän oli ovat mutta kun myös niin joka ole tai kuin minä olen sen voi hyvin",
        "sv": "och att det som en är på för av med den till inte har de ett om var jag vi kan",
        "vi": "và của là có không được cho một các những người trong với này để khi đã tôi bạn rất",
        "sw": "ya na wa kwa ni katika za la kuwa hii cha yake au ambayo lakini kama hiyo si sana mimi wewe",
        "id": "yang dan di itu dengan untuk tidak dari ini dalam akan pada juga saya ke ada bisa adalah",
        "tr": "ve bir bu için ile de da çok olarak daha gibi ne var değil olan kadar ama ben",
        "pl": "i w nie na się z jest do że to jak o co po ale są dla przez może",
    },
    "CYRILLIC": {
        "ru": "и в не на что я с он как это по но они к у же вы за бы от мы для из было ее его ты",
        "bg": "и на да се от не за е в с по като това са си до който ще към но или ни той съм",
        "uk": "і в не на що я з він як це та але вони до у ви за від ми для є його її ти",
        "mk": "и на да се од не за е во со по како ова се до кој ќе кон но или тој сум",
    },
    "ARABIC": {
        "ar": "في من على أن إلى هذا التي عن مع ما لا هو هي كان الذي ذلك أو كل هذه",
        "fa": "و در به از که این را با است برای آن یک می خود تا بر هم های شود ما",
        "ur": "کے کی میں ہے اور سے کا کو پر یہ ہیں کہ نے کر بھی ایک وہ تھا ہو لئے",
    },
    "DEVANAGARI": {
        "hi": "के में है की और से का को पर यह हैं कि ने एक भी इस नहीं हो लिए वह कर था",
        "mr": "आहे आणि या च्या ते मध्ये आहेत हे तो होते त्या एक नाही की मी साठी करण्यासाठी असे",
        "ne": "छ र को मा का लागि गर्न हो यो पनि छन् ले भने एक हुन्छ गरेको तपाईं हुनुहुन्छ",
    },
}  # fmt: skip
_KNOWN = {script: {code: set(words.split()) for code, words in of.items()} for script, of in _WORDS.items()}


def detect(text: str) -> str | None:
    """The code of the language of most letters and common words in a text; None if it has no letters."""
    scripts = Counter(script for letter in text if (script := _script(letter)))
    if not scripts:
        return None
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > scripts["CJK"] / 10:
        scripts["HIRAGANA"] += scripts.pop("CJK", 0) + scripts.pop("KATAKANA", 0)
    script = scripts.most_common(1)[0][0]
    if script in _SCRIPTS:
        return _SCRIPTS[script]
    words = Counter(re.findall(r"[^\W\d_]+(?:[\u0900-\u097f]+)*", _joined(text.lower())))
    scores = {code: sum(words[word] for word in known) for code, known in _KNOWN[script].items()}
    return max(scores, key=lambda code: scores[code])  # ties: the first, which has the most speakers


def _script(letter: str) -> str | None:
    """The script of a letter, if it is one of the known scripts."""
    if not letter.isalpha():
        return None
    name = unicodedata.name(letter, "").split(" ", 1)[0]
    return name if name in _SCRIPTS or name in _KNOWN else None


def _joined(text: str) -> str:
    """Text with composed letters, and without the joiners inside words."""
    return unicodedata.normalize("NFC", text).replace("\u200c", "").replace("\u200d", "")
