"""The skills, one file each."""

from prunus.verify.skill import Skill
from prunus.verify.skills import function_calling, instruction_following, rag, roleplay

SKILLS: dict[str, Skill] = {
    one.SKILL.name: one.SKILL for one in (instruction_following, roleplay, rag, function_calling)
}
"""Every skill by name, in the order of help texts."""
