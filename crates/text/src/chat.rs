//! Conversations as text: by the model's chat template if `tokenizer_config.json` has one, else in a plain format.

use super::tokenizer::Tokenizer;
use flipside_core::one_line;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, context};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, …
    pub role: String,
    /// The text.
    pub content: String,
}

/// Why a conversation cannot be written as text.
#[derive(Debug, thiserror::Error)]
#[error("the model's chat template refuses a conversation ({0}); change the conversation or the template")]
pub struct TemplateError(pub String);

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
    // The settings and functions are those of `transformers.PreTrainedTokenizerBase.apply_chat_template`.
    let refused = |error: Error| TemplateError(one_line(error.detail().unwrap_or(&error.to_string())));
    let mut jinja = Environment::new();
    jinja.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(refused)?);
    jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    jinja.add_function("raise_exception", |why: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, why))
    });
    let name = |token: Option<u32>| token.and_then(|id| tokenizer.name(id)).unwrap_or_default();
    let template = jinja.template_from_str(template).map_err(refused)?;
    let rendered = template.render(context! {
        messages => Serde(messages),
        add_generation_prompt,
        bos_token => name(tokenizer.bos()),
        eos_token => name(tokenizer.eos()),
        pad_token => name(tokenizer.pad()),
    });
    rendered.map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk() -> Vec<Message> {
        let said = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        vec![said("system", "Be brief."), said("user", " Is it good? "), said("assistant", "Yes.")]
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

    #[test]
    fn a_template_that_refuses_says_why() {
        let error = render(&tokenizer(Some("{{ raise_exception('no system message, please') }}")), &talk(), true);
        let words = error.unwrap_err().to_string();
        assert!(words.contains("no system message, please"), "{words}");
        assert!(render(&tokenizer(Some("{% for")), &talk(), true).is_err());
    }

    #[test]
    fn without_a_template_each_message_is_a_line_and_an_answer_begins_with_a_space() {
        let tokenizer = tokenizer(None);
        let asked = render(&tokenizer, &talk()[..2], true).unwrap();
        let whole = render(&tokenizer, &talk(), false).unwrap();
        assert_eq!(whole.strip_prefix(&asked), Some(" Yes."));
    }
}
