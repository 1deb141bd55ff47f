"""Writes tests/data/chat_templates/rendered.json: every template of that folder, rendered by transformers.

python scripts/make_template_reference.py [--check]

Needs transformers and jinja2 alone. The templates of Llama, Gemma and Command R follow the published texts,
shortened to what a conversation without tools uses; `constructs` has what else published templates use.
"""

import json
import sys
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

FOLDER = Path(__file__).parent.parent / "tests/data/chat_templates"


def messages(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CONVERSATIONS = {
    "one": messages(("user", "Who are you?")),
    "system": messages(
        ("system", "Be brief."),
        ("user", " Hi \n"),
        ("assistant", "Hello."),
        ("user", "<b> & 'é'\r\n\r\n\n?"),
    ),
    "turns": messages(
        ("user", "a"),
        ("assistant", "<think>\nhm\n</think>\n\n b "),
        ("user", "{{ c }}"),
        ("assistant", "d\n"),
        ("user", "日本"),
    ),
    "answered": messages(("user", "a"), ("assistant", "b")),
    "two-users": messages(("user", "a"), ("user", "b")),
    "tool": messages(("user", "a"), ("assistant", "b"), ("tool", "c"), ("tool", "d"), ("user", "e")),
}


def render(template, conversation):
    try:
        return _compile_jinja_template(template).render(
            messages=conversation,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            bos_token="<s>",
            eos_token="</s>",
        )
    except TemplateError as error:
        return {"error": str(error)}


rendered = {
    path.stem: {name: render(path.read_text(), conversation) for name, conversation in CONVERSATIONS.items()}
    for path in sorted(FOLDER.glob("*.jinja"))
}
text = json.dumps({"conversations": CONVERSATIONS, "rendered": rendered}, indent=1, ensure_ascii=False) + "\n"
if "--check" in sys.argv:
    assert (FOLDER / "rendered.json").read_text() == text, "rendered.json differs"
else:
    (FOLDER / "rendered.json").write_text(text)
