//! Finds the top-level field `name` of a config.pbtxt without knowing the rest of it. It is a message in protobuf's text
//! format, whose other fields only Triton needs to understand.

use std::iter::Peekable;
use std::str::Chars;

/// How a configuration calls its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By this name.
    As(String),
    /// By none.
    Not,
    /// It is not in protobuf's text format.
    Unreadable,
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Colon,
    Open,
    Close,
    Other,
}

/// Returns the name that a config.pbtxt gives its model.
pub fn config_name(text: &str) -> Named {
    let mut tokens = Tokens { characters: text.chars().peekable() };
    let mut depth = 0_u64;
    // A word after a colon is a value.
    let mut is_field = true;
    loop {
        match tokens.next() {
            Ok(Some(Token::Word(word))) if is_field && depth == 0 && word == "name" => {
                return value(&mut tokens);
            }
            Ok(Some(Token::Colon)) => is_field = false,
            Ok(Some(Token::Open)) => (depth, is_field) = (depth + 1, true),
            Ok(Some(Token::Close)) => match depth.checked_sub(1) {
                Some(less) => (depth, is_field) = (less, true),
                None => return Named::Unreadable,
            },
            Ok(Some(Token::Word(_) | Token::Text(_) | Token::Other)) => is_field = true,
            Ok(None) if depth == 0 => return Named::Not,
            Ok(None) | Err(Unterminated) => return Named::Unreadable,
        }
    }
}

/// Reads the value of the field: strings side by side are one.
fn value(tokens: &mut Tokens) -> Named {
    if tokens.next() != Ok(Some(Token::Colon)) {
        return Named::Unreadable;
    }
    let mut name = None::<String>;
    while let Ok(Some(Token::Text(part))) = tokens.next() {
        name.get_or_insert_default().push_str(&part);
    }
    name.map_or(Named::Unreadable, Named::As)
}

/// A string without its end.
#[derive(Debug, PartialEq)]
struct Unterminated;

struct Tokens<'a> {
    characters: Peekable<Chars<'a>>,
}

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<Token>, Unterminated> {
        let first = loop {
            match self.characters.next() {
                None => return Ok(None),
                Some('#') => while self.characters.next_if(|c| *c != '\n').is_some() {},
                Some(c) if c.is_whitespace() => {}
                Some(c) => break c,
            }
        };
        Ok(Some(match first {
            ':' => Token::Colon,
            '{' | '<' | '[' => Token::Open,
            '}' | '>' | ']' => Token::Close,
            '"' | '\'' => Token::Text(self.text(first)?),
            c if is_word(c) => Token::Word(self.word(c)),
            _ => Token::Other,
        }))
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(c) = self.characters.next_if(|c| is_word(*c)) {
            word.push(c);
        }
        word
    }

    fn text(&mut self, quote: char) -> Result<String, Unterminated> {
        let mut bytes = Vec::new();
        loop {
            match self.characters.next() {
                None | Some('\n') => return Err(Unterminated),
                Some('\\') => bytes.push(self.escape().ok_or(Unterminated)?),
                Some(c) if c == quote => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Some(c) => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
    }

    /// Reads what follows a backslash: one byte.
    fn escape(&mut self) -> Option<u8> {
        match self.characters.next()? {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            'x' | 'X' => self.digits(16, 2, 0),
            digit @ '0'..='7' => self.digits(8, 2, digit.to_digit(8)?),
            other => u8::try_from(other).ok(),
        }
    }

    fn digits(&mut self, radix: u32, most: usize, start: u32) -> Option<u8> {
        let mut value = start;
        for _ in 0..most {
            let Some(c) = self.characters.next_if(|c| c.is_digit(radix)) else { break };
            value = value * radix + c.to_digit(radix)?;
        }
        u8::try_from(value).ok()
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_top_level_name_counts() {
        let named = |name: &str| Named::As(name.to_owned());
        let table = [
            ("", Named::Not),
            ("name: \"a\"", named("a")),
            ("backend: 'python' name:'a'max_batch_size:8", named("a")),
            ("# name: \"x\"\nname :\n \"a\" # b\n 'b'\nplatform: \"c\"", named("ab")),
            ("input [{ name: \"X\" dims: [ -1 ] }]\noutput { name: \"Y\" }", Named::Not),
            ("input [{ name: \"X\" }, { name: \"Z\" }], name: \"a\"", named("a")),
            ("parameters: < key: \"name\" value: { string_value: \"}\" } >; name: \"a\";", named("a")),
            ("platform: name\nname: \"a\"", named("a")),
            ("backend: \"name: \\\"x\\\"\"\nname: '\\141\\x62\\n'", named("ab\n")),
            ("name: \"\"", named("")),
            ("filename: \"x\"", Named::Not),
            ("name: \"a", Named::Unreadable),
            ("name \"a\"", Named::Unreadable),
            ("name: 3", Named::Unreadable),
            ("name: \"a\nb\"", Named::Unreadable),
            ("}} name: \"a\"", Named::Unreadable),
            ("input {", Named::Unreadable),
            ("name: \"\\777\"", Named::Unreadable),
        ];
        for (text, expected) in table {
            assert_eq!(config_name(text), expected, "{text}");
        }
    }

    /// Fields that come before and after the name.
    fn fields() -> impl Strategy<Value = String> {
        let field = prop_oneof![
            Just("max_batch_size: 8".to_owned()),
            Just("backend: 'python'".to_owned()),
            Just("# name: \"x\"\n".to_owned()),
            "input \\[\\{ name: \"[a-z{}\\[\\]]{0,5}\" dims: \\[ -1, 3 \\] \\}\\]",
            "parameters \\{ key: \"[a-z:]{0,4}\" value < string_value: '[a-z\"{]{0,5}' > \\}",
        ];
        prop::collection::vec(field, 0..6).prop_map(|fields| fields.join("\n"))
    }

    proptest! {
        #[test]
        fn the_name_is_found_among_any_fields(before in fields(), name in "[a-zA-Z0-9_.-]{1,20}", after in fields()) {
            let text = format!("{before}\nname: \"{name}\"\n{after}");
            prop_assert_eq!(config_name(&text), Named::As(name));
            prop_assert_eq!(config_name(&format!("{before}\n{after}")), Named::Not);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(name|[:{}<>\\[\\]\"'\\\\#\n x0-9]|\\PC){0,60}") {
            let _ = config_name(&text);
        }
    }
}
