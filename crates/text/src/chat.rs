//! Conversations as text: by the model's chat template if its folder has one, else in a plain format.
//!
//! A template sees what transformers' sandbox gives it: the special tokens by role, `raise_exception`, `strftime_now`,
//! `{% generation %}`, loop controls, Jinja2's filters and tests, Python's methods and its `%` of texts, `tojson` as
//! Python's `json.dumps` writes, and values printed as Python prints them.

// The paths are given because the fuzz targets take this file by its path.
#[path = "chat/arguments.rs"]
mod arguments;
#[path = "chat/cycler.rs"]
mod cycler;
#[path = "chat/filters.rs"]
mod filters;
#[path = "chat/json.rs"]
mod json;
#[path = "chat/methods.rs"]
mod methods;
#[path = "chat/percent.rs"]
mod percent;
#[path = "chat/str_format.rs"]
mod str_format;
#[path = "chat/wrap.rs"]
mod wrap;

use super::tokenizer::Tokenizer;
use flipside_core::one_line;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, context};
use serde_json::Map;
use std::sync::LazyLock;

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, …
    pub role: String,
    /// The text.
    pub content: String,
    /// Whether the content is null and not an empty text, as beside tool calls. Templates tell the two apart.
    #[serde(skip)]
    pub null_content: bool,
    /// Other entries, which a chat template may use: `name`, `tool_calls`, `reasoning_content`, …
    #[serde(flatten)]
    pub more: Map<String, serde_json::Value>,
}

impl Message {
    /// A message with no other entries.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into(), null_content: false, more: Map::new() }
    }
}

/// Why a conversation cannot be written as text.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template is not one of Jinja.
    #[error("the chat template in {file} cannot be read ({reason}); take the one that came with the model")]
    Damaged {
        /// The file that it is in.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The template refuses the conversation.
    #[error("the model's chat template refuses a conversation ({0}); change the conversation or the template")]
    Refused(String),
}

/// The conversation as one text; with `add_generation_prompt`, up to where the assistant's answer begins.
///
/// Without a template, each message is one line `role: content`. With `add_generation_prompt`, `assistant:` follows, so
/// that an answer begins with a space.
///
/// # Errors
///
/// A template that cannot be parsed, or that refuses this conversation.
pub fn render(
    tokenizer: &Tokenizer,
    messages: &[Message],
    add_generation_prompt: bool,
) -> Result<String, TemplateError> {
    let Some(template) = tokenizer.chat_template() else {
        let mut text: String =
            messages.iter().map(|message| format!("{}: {}\n", message.role, message.content)).collect();
        // The last newline belongs to what follows it.
        text.pop();
        text.push_str(if add_generation_prompt { "\nassistant:" } else { "" });
        return Ok(text);
    };
    let why = |error: Error| one_line(error.detail().unwrap_or(&error.to_string()));
    // Jinja in Python reads every end of a line as this one.
    let template = without_generation_blocks(&template.replace("\r\n", "\n").replace('\r', "\n"));
    let environment = environment().map_err(|error| TemplateError::Refused(why(error)))?;
    let template = percent::rewritten(&template, environment.syntax().clone());
    let template = environment
        .template_from_str(&template)
        .map_err(|error| TemplateError::Damaged { file: tokenizer.template_file(), reason: why(error) })?;
    // transformers gives every template `tools` and `documents`, which are none without tools and documents.
    let rendered = template.render(context! {
        messages => Serde(&messages.iter().map(for_template).collect::<Vec<_>>()),
        add_generation_prompt,
        tools => (),
        documents => (),
        ..Value::from(tokenizer.roles())
    });
    rendered.map_err(|error| TemplateError::Refused(why(error)))
}

/// The conversation as one text, up to the end of its last message's content, so that the message is continued.
///
/// # Errors
///
/// As [`render`], and a template that changes the last message's text.
pub fn render_to_continue(tokenizer: &Tokenizer, messages: &[Message]) -> Result<String, TemplateError> {
    let mut text = render(tokenizer, messages, false)?;
    let last = messages.last().map_or("", |message| message.content.as_str());
    let place = text.rfind(last.trim()).ok_or_else(|| {
        TemplateError::Refused("it changes the text of the answer that is to be continued".to_owned())
    })?;
    let kept = last.trim_start();
    let length = if text[place..].starts_with(kept) { kept.len() } else { last.trim().len() };
    text.truncate(place + length);
    Ok(text)
}

/// The message as templates read it, its entries in their order. As in transformers, its reasoning has all the names
/// that templates use.
fn for_template(message: &Message) -> Map<String, serde_json::Value> {
    let content = if message.null_content { serde_json::Value::Null } else { message.content.as_str().into() };
    let mut entries = Map::new();
    entries.insert("role".to_owned(), message.role.as_str().into());
    entries.insert("content".to_owned(), content);
    entries.extend(message.more.iter().map(|(name, value)| (name.clone(), value.clone())));
    let given = ["reasoning_content", "thinking", "reasoning"].iter().find_map(|key| entries.get(*key).cloned());
    if let Some(reasoning) = given {
        entries.entry("thinking").or_insert_with(|| reasoning.clone());
        entries.insert("reasoning_content".to_owned(), reasoning);
    }
    entries
}

/// The settings and functions of `transformers.PreTrainedTokenizerBase.apply_chat_template`.
fn environment() -> Result<Environment<'static>, Error> {
    let mut jinja = Environment::new();
    jinja.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    minijinja_contrib::add_to_environment(&mut jinja);
    jinja.set_unknown_method_callback(methods::call);
    jinja.set_formatter(|out, state, value| {
        let printed = json::printed(value);
        // Nothing is escaped but within `{% autoescape true %}`.
        let escapes = !matches!(state.auto_escape(), AutoEscape::None) && !value.is_safe();
        out.write_str(&if escapes { filters::escaped(&printed) } else { printed }).map_err(Error::from)
    });
    filters::add(&mut jinja);
    jinja.add_filter("tojson", json::to_json);
    // Whatever has a length and is read by an index.
    jinja.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
    jinja.add_function("cycler", cycler::cycler);
    jinja.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    jinja.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    jinja.add_function(percent::FUNCTION, percent::percent);
    jinja.add_function("raise_exception", |why: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, why))
    });
    jinja.add_function("strftime_now", |format: &str| -> Result<String, Error> {
        // One time for the whole program: tokens may not change while it runs.
        static NOW: LazyLock<jiff::Zoned> = LazyLock::new(jiff::Zoned::now);
        let written = jiff::fmt::strtime::format(format, &*NOW);
        written.map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    Ok(jinja)
}

/// The template with `{% generation %}` blocks as plain scopes. transformers marks in them what the assistant has
/// written; the text is the same.
fn without_generation_blocks(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let inside = &rest[start + 2..start + length];
        let word = inside.trim_matches(|c: char| matches!(c, '-' | '+') || c.is_whitespace());
        text.push_str(&rest[..start + 2]);
        text.push_str(&match word {
            "generation" | "endgeneration" => inside.replacen("generation", "with", 1),
            _ => inside.to_owned(),
        });
        rest = &rest[start + length..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk() -> Vec<Message> {
        vec![
            Message::new("system", "Be brief."),
            Message::new("user", " Is it good? "),
            Message::new("assistant", "Yes."),
        ]
    }

    fn tokenizer(template: Option<&str>) -> Tokenizer {
        let trained = Tokenizer::train(["a plain text", "a plain text"], 300).unwrap();
        let config = template.map(|text| serde_json::json!({ "chat_template": text }).to_string());
        Tokenizer::from_json(&trained.to_json().unwrap(), config.as_deref()).unwrap()
    }

    /// The expected texts are what Python's jinja2 writes, in the sandbox and with the settings of
    /// `apply_chat_template`. The templates are ours but use what published ones use: methods of Python's strings, loop
    /// variables, white space taken out.
    #[test]
    fn templates_write_what_jinja_in_python_writes() {
        let im = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m.content.strip() + '<|im_end|>' + '\\n' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
        let blocks = "{%- for m in messages %}\n    {%- if loop.first and m.role == 'system' %}\n[{{ m.content | trim | upper }}]\n    \
                      {%- else %}\n<{{ m.role }}> {{ m.content.strip() }}{{ eos_token if loop.last else '' }}\n    {%- endif %}\n{%- endfor %}";
        for (template, add_generation_prompt, expected) in [
            (
                im,
                false,
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs it good?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n",
            ),
            (
                im,
                true,
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs it good?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>assistant\n",
            ),
            (blocks, false, "[BE BRIEF.]<user> Is it good?<assistant> Yes.<|end|>"),
        ] {
            assert_eq!(render(&tokenizer(Some(template)), &talk(), add_generation_prompt).unwrap(), expected);
        }
    }

    /// `tests/golden/text/chat.py` asks transformers.
    #[test]
    fn whatever_templates_use_is_written_as_python_writes_it() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/golden/text/chat.json")).unwrap();
        let case = &golden["everything"];
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let written = render(&tokenizer(case["template"].as_str()), &messages, false).unwrap();
        for (found, expected) in written.lines().zip(case["text"].as_str().unwrap().lines()) {
            assert_eq!(found, expected);
        }
        assert_eq!(written, case["text"].as_str().unwrap());
    }

    #[test]
    fn other_entries_of_a_message_reach_the_template_and_the_date_is_todays() {
        let mut said = Message::new("assistant", "Yes.");
        said.more.insert("thinking".to_owned(), "hm".into());
        let template = "{{ messages[0].reasoning_content }}{{ messages[0].thinking }} {{ strftime_now('%Y-%m-%d') }}";
        let written = render(&tokenizer(Some(template)), &[said], false).unwrap();
        assert_eq!(written, format!("hmhm {}", jiff::Zoned::now().strftime("%Y-%m-%d")));
    }

    /// `tests/golden/text/jinja.py` asks transformers about every filter, test, method and operator. What it refuses
    /// has no text.
    #[test]
    fn expressions_have_the_values_that_jinja_in_python_gives_them() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/golden/text/jinja.json")).unwrap();
        let messages: Vec<Message> = serde_json::from_value(golden["messages"].clone()).unwrap();
        let trained = Tokenizer::train(["a plain text", "a plain text"], 300).unwrap().to_json().unwrap();
        let mut wrong = Vec::new();
        for case in golden["cases"].as_array().unwrap() {
            let (template, expected) = (case[0].as_str().unwrap(), case[1].as_str());
            // `m` is a name for the first message.
            let named = format!("{{% set m = messages[0] %}}\n{template}");
            let config = serde_json::json!({ "chat_template": named }).to_string();
            let found = render(&Tokenizer::from_json(&trained, Some(&config)).unwrap(), &messages, false);
            if found.as_deref().ok() != expected {
                wrong.push(format!("{template}\n  {found:?}\n  {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// The texts are those of transformers 5.24.
    #[test]
    fn ends_of_lines_own_roles_and_less_usual_filters_are_as_in_python() {
        let config = serde_json::json!({
            "chat_template": "{% for m in messages %}\r\n{{ m.role }}{{ image_token }}{{ think_token }}\r\n{% endfor %}\r\n",
            "image_token": "<img>", "extra_special_tokens": { "think_token": "<think>" },
        });
        let trained = Tokenizer::train(["a plain text", "a plain text"], 300).unwrap();
        let tokenizer_of = |config: &str| Tokenizer::from_json(&trained.to_json().unwrap(), Some(config)).unwrap();
        let written = render(&tokenizer_of(&config.to_string()), &talk()[..2], false).unwrap();
        assert_eq!(written, "system<img><think>\nuser<img><think>\n");
        let less_usual = "{% set next = joiner(', ') %}{{ next() }}a{{ next() }}b {{ messages[1].content | wordcount }} \
                          {{ messages is sequence }}{{ messages[0] is sequence }}{{ 'a' is sequence }}{{ 3 is sequence }}";
        let written = render(&tokenizer(Some(less_usual)), &talk(), false).unwrap();
        assert_eq!(written, "a, b 3 TrueTrueTrueFalse");
    }

    /// Tool calls as transformers 5.24 and its jinja2 write them: `null` is none, and entries stay in their order.
    #[test]
    fn tool_calls_keep_their_order_and_null_stays_null() {
        let template = "{% for m in messages %}{% if m.content is none %}{% for call in m.tool_calls %}\
                        {{ call.function | tojson }}{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}";
        let calls = r#"[{"type": "function", "function": {"name": "get", "arguments": {"zone": "Rome", "at": 3}}}]"#;
        let mut said = Message::new("assistant", "");
        said.null_content = true;
        said.more.insert("tool_calls".to_owned(), serde_json::from_str(calls).unwrap());
        let written = render(&tokenizer(Some(template)), &[Message::new("user", "Go. "), said], false).unwrap();
        assert_eq!(written, r#"Go. {"name": "get", "arguments": {"zone": "Rome", "at": 3}}"#);
    }

    #[test]
    fn a_template_that_refuses_says_why() {
        let error = render(&tokenizer(Some("{{ raise_exception('no system message, please') }}")), &talk(), true);
        let words = error.unwrap_err().to_string();
        assert!(words.contains("no system message, please"), "{words}");
        let damaged = render(&tokenizer(Some("{% for")), &talk(), true).unwrap_err().to_string();
        assert!(damaged.starts_with("the chat template in tokenizer_config.json cannot be read"), "{damaged}");
    }

    #[test]
    fn without_a_template_each_message_is_a_line_and_an_answer_begins_with_a_space() {
        let tokenizer = tokenizer(None);
        let asked = render(&tokenizer, &talk()[..2], true).unwrap();
        let whole = render(&tokenizer, &talk(), false).unwrap();
        assert_eq!(whole.strip_prefix(&asked), Some(" Yes."));
    }
}
