//! Python's `%` of texts: `'%s-%03d' % (name, number)`. The filter `format` is the same.
//!
//! minijinja computes `%` of numbers alone and has no way to change an operator. So a template is rewritten by its
//! syntax tree: `a % b` becomes the call of a function.

use super::arguments::{width, wrong};
use super::json::{printed, quoted};
use minijinja::formatting::{FormatStyle, format as format_one};
use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, Macro, Stmt};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Error, State, Value, context};
use std::iter::Peekable;
use std::str::Chars;

/// The name of the function that `%` becomes.
pub(super) const FUNCTION: &str = "__percent";

/// The template with calls in place of `%`. One that cannot be read stays as it is: whoever renders it says why.
pub(super) fn rewritten(template: &str, syntax: SyntaxConfig) -> String {
    let Ok(tree) = parse(template, "chat_template", syntax) else { return template.to_owned() };
    let mut finder = Finder { template, edits: Vec::new() };
    finder.statement(&tree);
    let mut edits = finder.edits;
    edits.sort_by_key(|edit| edit.place);
    let (mut text, mut done) = (String::with_capacity(template.len()), 0);
    for edit in &edits {
        text.push_str(&template[done..edit.place]);
        text.push_str(&edit.text);
        done = edit.place + edit.removed;
    }
    text + &template[done..]
}

/// A change of a template's text.
struct Edit {
    /// Offset, bytes.
    place: usize,
    /// Bytes that go.
    removed: usize,
    /// What comes in their place.
    text: String,
}

/// Finds every `%` of a template.
struct Finder<'a> {
    template: &'a str,
    edits: Vec<Edit>,
}

impl Finder<'_> {
    fn statements(&mut self, statements: &[Stmt]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Template(s) => self.statements(&s.children),
            Stmt::EmitExpr(s) => self.expression(&s.expr),
            Stmt::ForLoop(s) => {
                self.expression(&s.iter);
                self.optional(&s.filter_expr);
                self.statements(&s.body);
                self.statements(&s.else_body);
            }
            Stmt::IfCond(s) => {
                self.expression(&s.expr);
                self.statements(&s.true_body);
                self.statements(&s.false_body);
            }
            Stmt::WithBlock(s) => {
                s.assignments.iter().for_each(|(_, value)| self.expression(value));
                self.statements(&s.body);
            }
            Stmt::Set(s) => self.expression(&s.expr),
            Stmt::SetBlock(s) => {
                self.optional(&s.filter);
                self.statements(&s.body);
            }
            Stmt::AutoEscape(s) => {
                self.expression(&s.enabled);
                self.statements(&s.body);
            }
            Stmt::FilterBlock(s) => {
                self.expression(&s.filter);
                self.statements(&s.body);
            }
            Stmt::Block(s) => self.statements(&s.body),
            Stmt::Macro(s) => self.definition(s),
            Stmt::CallBlock(s) => {
                self.call(&s.call);
                self.definition(&s.macro_decl);
            }
            Stmt::Do(s) => self.call(&s.call),
            // Texts, loop controls and other files, which chat templates have none of.
            _ => {}
        }
    }

    fn definition(&mut self, definition: &Macro) {
        self.all(&definition.defaults);
        self.statements(&definition.body);
    }

    fn all(&mut self, expressions: &[Expr]) {
        expressions.iter().for_each(|expression| self.expression(expression));
    }

    fn optional(&mut self, expression: &Option<Expr>) {
        expression.iter().for_each(|expression| self.expression(expression));
    }

    fn arguments(&mut self, arguments: &[CallArg]) {
        for argument in arguments {
            let (CallArg::Pos(value)
            | CallArg::Kwarg(_, value)
            | CallArg::PosSplat(value)
            | CallArg::KwargSplat(value)) = argument;
            self.expression(value);
        }
    }

    fn call(&mut self, call: &Call) {
        self.expression(&call.expr);
        self.arguments(&call.args);
    }

    fn expression(&mut self, expression: &Expr) {
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(e) => {
                self.expression(&e.expr);
                [&e.start, &e.stop, &e.step].into_iter().for_each(|part| self.optional(part));
            }
            Expr::UnaryOp(e) => self.expression(&e.expr),
            Expr::BinOp(e) => {
                self.expression(&e.left);
                self.expression(&e.right);
                if matches!(e.op, BinOpKind::Rem) {
                    let span = e.span();
                    self.percent([span.start_offset, e.left.span().end_offset, span.end_offset]);
                }
            }
            Expr::Compare(e) => {
                self.expression(&e.expr);
                e.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(e) => {
                self.expression(&e.test_expr);
                self.expression(&e.true_expr);
                self.optional(&e.false_expr);
            }
            Expr::Filter(e) => {
                self.optional(&e.expr);
                self.arguments(&e.args);
            }
            Expr::Test(e) => {
                self.expression(&e.expr);
                self.arguments(&e.args);
            }
            Expr::GetAttr(e) => self.expression(&e.expr),
            Expr::GetItem(e) => {
                self.expression(&e.expr);
                self.expression(&e.subscript_expr);
            }
            Expr::Call(e) => self.call(e),
            Expr::List(e) => self.all(&e.items),
            Expr::Tuple(e) => self.all(&e.items),
            Expr::Map(e) => {
                self.all(&e.keys);
                self.all(&e.values);
            }
        }
    }

    /// Notes an operation by the offsets of its beginning, of its left side's end and of its own end.
    fn percent(&mut self, [start, left, end]: [u32; 3]) {
        let [start, left, end] = [start, left, end].map(|offset| offset as usize);
        // Parentheses around the left side are not part of it.
        let sign = self.template[left..].find(|c: char| c != ')' && !c.is_whitespace()).map(|place| left + place);
        let Some(sign) = sign.filter(|&sign| self.template[sign..].starts_with('%')) else { return };
        self.edits.push(Edit { place: start, removed: 0, text: format!("{FUNCTION}(") });
        self.edits.push(Edit { place: sign, removed: 1, text: ",".to_owned() });
        self.edits.push(Edit { place: end, removed: 0, text: ")".to_owned() });
    }
}

/// `left % right`.
pub(super) fn percent(state: &State, left: Value, right: Value) -> Result<Value, Error> {
    match left.as_str() {
        Some(text) => format(text, &right).map(Value::from),
        None => state.env().compile_expression("left % right")?.eval(context! { left, right }),
    }
}

/// One conversion: `%(name)-05.2f`.
struct Conversion {
    /// The key of the value in a mapping.
    name: Option<String>,
    flags: String,
    width: Option<usize>,
    precision: Option<usize>,
    kind: char,
}

/// The text with its conversions replaced by the values: those of a tuple, else this one.
pub(super) fn format(text: &str, values: &Value) -> Result<String, Error> {
    let all: Vec<Value> = if values.is_tuple() { values.try_iter()?.collect() } else { vec![values.clone()] };
    let mut rest = all.into_iter();
    let mut next = || rest.next().ok_or_else(|| wrong("not enough arguments for format string"));
    let (mut out, mut chars) = (String::new(), text.chars().peekable());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let conversion = conversion(&mut chars, &mut next)?;
        if conversion.kind == '%' {
            out.push('%');
            continue;
        }
        let value = match &conversion.name {
            None => next()?,
            Some(_) if values.kind() != ValueKind::Map => return Err(wrong("format requires a mapping")),
            Some(name) => {
                let value = values.get_item(&Value::from(name.as_str()))?;
                if value.is_undefined() {
                    return Err(wrong(format!("there is no {name:?} to format")));
                }
                value
            }
        };
        out.push_str(&conversion.write(&value)?);
    }
    // A mapping or a list may stand there without being used.
    let may_be_left = matches!(values.kind(), ValueKind::Map | ValueKind::Seq) && !values.is_tuple();
    if rest.next().is_some() && !may_be_left {
        return Err(wrong("not all arguments converted during string formatting"));
    }
    Ok(out)
}

/// Reads what follows a `%`. `next` gives the values that `*` stands for.
fn conversion(
    chars: &mut Peekable<Chars>,
    next: &mut impl FnMut() -> Result<Value, Error>,
) -> Result<Conversion, Error> {
    let name = match chars.next_if_eq(&'(') {
        None => None,
        Some(_) => {
            let (mut name, mut depth) = (String::new(), 1);
            loop {
                let c = chars.next().ok_or_else(|| wrong("incomplete format key"))?;
                depth += match c {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                if depth == 0 {
                    break Some(name);
                }
                name.push(c);
            }
        }
    };
    let mut flags = String::new();
    while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
        flags.push(flag);
    }
    let mut number = |chars: &mut Peekable<Chars>| -> Result<(Option<usize>, bool), Error> {
        if chars.next_if_eq(&'*').is_some() {
            let value = next()?;
            let negative = i64::try_from(value.clone())? < 0;
            let size = if negative { i64::try_from(value)?.saturating_neg().into() } else { value };
            return Ok((Some(width(&size)?), negative));
        }
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        if digits.is_empty() {
            return Ok((None, false));
        }
        let size: i64 = digits.parse().map_err(|_| wrong("width too big"))?;
        Ok((Some(width(&size.into())?), false))
    };
    let (size, to_the_left) = number(chars)?;
    if to_the_left {
        flags.push('-');
    }
    let precision = match chars.next_if_eq(&'.') {
        None => None,
        Some(_) => {
            // As in Python, a precision below 0 is 0.
            let (size, negative) = number(chars)?;
            Some(if negative { 0 } else { size.unwrap_or(0) })
        }
    };
    // As in C, and without a meaning.
    chars.next_if(|c| "hlL".contains(*c));
    let kind = chars.next().ok_or_else(|| wrong("incomplete format"))?;
    Ok(Conversion { name, flags, width: size, precision, kind })
}

impl Conversion {
    fn write(&self, value: &Value) -> Result<String, Error> {
        let kind = self.kind;
        let is_number = matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
        let needs = |what: &str| wrong(format!("%{kind} needs {what} and not a value of the kind {}", value.kind()));
        match kind {
            's' => self.padded('s', printed(value).into()),
            'r' => self.padded('s', quoted(value).into()),
            'a' => self.padded('s', ascii(&quoted(value)).into()),
            'd' | 'i' | 'u' if is_number && !value.is_integer() && value.kind() == ValueKind::Number => {
                let number = f64::try_from(value.clone())?.trunc();
                // Every f64 below 2¹²⁷ is a whole i128.
                if number.abs() >= 2.0_f64.powi(127) || number.is_nan() {
                    return Err(needs("a number that is not so large"));
                }
                self.padded('d', Value::from(number as i128))
            }
            'd' | 'i' | 'u' if is_number => self.padded('d', value.clone()),
            'd' | 'i' | 'u' => Err(needs("a number")),
            'x' | 'X' | 'o' if value.is_integer() || value.kind() == ValueKind::Bool => {
                self.padded(kind, value.clone())
            }
            'x' | 'X' | 'o' => Err(needs("a whole number")),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' if is_number => {
                let number =
                    f64::try_from(value.clone()).or_else(|_| i64::try_from(value.clone()).map(|n| n as f64))?;
                self.padded(kind, Value::from(number))
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => Err(needs("a number")),
            'c' => {
                let found = match value.as_str() {
                    Some(text) => text.parse().ok(),
                    None => u32::try_from(value.clone()).ok().and_then(char::from_u32),
                };
                let found = found.ok_or_else(|| needs("one character or the number of one"))?;
                self.padded('s', Value::from(String::from(found)))
            }
            other => Err(wrong(format!("unsupported format character {other:?}"))),
        }
    }

    /// The value with this conversion's flags, width and precision.
    fn padded(&self, kind: char, value: Value) -> Result<String, Error> {
        let width = self.width.map(|width| width.to_string()).unwrap_or_default();
        let precision = self.precision.map(|precision| format!(".{precision}")).unwrap_or_default();
        format_one(FormatStyle::Printf, &format!("%{}{width}{precision}{kind}", self.flags), &[value])
    }
}

/// The text with escapes for what is not ASCII, as Python's `ascii` has them.
pub(super) fn ascii(text: &str) -> String {
    let escaped = |c: char| match c as u32 {
        code @ 0..0x80 => char::from(code as u8).to_string(),
        code @ 0x80..0x100 => format!("\\x{code:02x}"),
        code @ 0x100..0x1_0000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    };
    text.chars().map(escaped).collect()
}
