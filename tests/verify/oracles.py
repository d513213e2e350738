"""Checkers that others wrote, for those who have them installed."""

import sys
import types
from typing import Any

import pytest

from prunus.verify.sentences import ABBREVIATIONS


def lm_eval_ifeval() -> Any:
    """lm-evaluation-harness's IFEval, its sentences cut by nltk's untrained Punkt with our list of abbreviations.

    The trained one is a download.
    """
    pytest.importorskip("lm_eval")
    pytest.importorskip("langdetect").DetectorFactory.seed = 0
    nltk = pytest.importorskip("nltk")
    nltk.data.find = lambda *arguments, **options: "here"
    from lm_eval.tasks.ifeval import instructions_util, utils
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    punkt, words = PunktSentenceTokenizer(parameters), NLTKWordTokenizer()
    instructions_util._get_sentence_tokenizer = lambda: punkt
    nltk.word_tokenize = lambda text: [word for part in punkt.tokenize(text) for word in words.tokenize(part)]
    return utils


def bfcl_checker() -> Any:
    """bfcl-eval's AST checker, without the clients of the models that it lists."""
    pytest.importorskip("bfcl_eval")
    config = types.ModuleType("model_config")
    config.MODEL_CONFIG_MAPPING = {"x": types.SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    sys.modules["bfcl_eval.constants.model_config"] = config
    for name in ("java", "js"):
        path = f"bfcl_eval.eval_checker.ast_eval.type_convertor.{name}_type_converter"
        module = types.ModuleType(path)
        setattr(module, f"{name}_type_converter", None)
        sys.modules[path] = module
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval import ast_checker

    def check(functions: list, output: list, answers: list, category: str) -> bool:
        found = ast_checker.ast_checker(functions, output, answers, Language.PYTHON, category, "x")
        return bool(found["valid"])

    return check
