//! JSON as miners write it: raw newlines in strings, `nan`, lost commas and values, keys without quotes, wrong escapes,
//! text after the end, two documents in one answer.
//!
//! Numbers keep their text, so that no digit is lost on the way to an integer. Any bytes give a value or `None`, within a
//! bound on depth and on the number of values. What ends before it is whole is none: a cut reply is never half a reply.

use std::borrow::Cow;

/// Deepest nesting.
const DEPTH_MAX: usize = 16;
/// Most values in a reply; the largest that is known has some hundred.
const VALUES_MAX: usize = 16_384;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// The text of a number, or of a bare word that stands where one should.
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The first value of the text; what comes after it is ignored.
    pub(super) fn parse(bytes: &[u8]) -> Option<Json> {
        let mut parser = Parser { bytes, at: 0, values: 0 };
        parser.value(0)
    }

    /// All objects and lists that stand one after another; none after the first that cannot be read.
    pub(super) fn parse_all(bytes: &[u8]) -> Vec<Json> {
        let mut parser = Parser { bytes, at: 0, values: 0 };
        let mut all = Vec::new();
        loop {
            parser.skip(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | 0));
            if !matches!(parser.peek(), Some(b'{' | b'[')) {
                return all;
            }
            match parser.value(0) {
                Some(value) => all.push(value),
                None => return all,
            }
        }
    }

    /// All that an answer holds as one value: members of later objects that the first one lacks are added to it.
    pub(super) fn parse_joined(bytes: &[u8]) -> Option<Json> {
        let mut all = Json::parse_all(bytes).into_iter();
        let mut first = all.next()?;
        for later in all {
            let (Json::Object(members), Json::Object(more)) = (&mut first, later) else { continue };
            let known = members.len();
            let is_new = |name: &str| members[..known].iter().all(|(have, _)| have != name);
            let new: Vec<(String, Json)> = more.into_iter().filter(|(name, _)| is_new(name)).collect();
            members.extend(new);
        }
        Some(first)
    }

    /// A member of an object.
    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The items of a list; none where it is no list.
    pub(super) fn items(&self) -> &[Json] {
        match self {
            Json::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a number or string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Json::Number(text) | Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a member that is a number or a string.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Json::text)
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn skip_space(&mut self) {
        self.skip(|byte| byte.is_ascii_whitespace());
    }

    /// White space and commas, however many.
    fn skip_separators(&mut self) {
        self.skip(|byte| byte.is_ascii_whitespace() || byte == b',');
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return None;
        }
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Json::Text),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut members = Vec::new();
        loop {
            self.skip_separators();
            let key = match self.peek()? {
                b'}' => {
                    self.at += 1;
                    return Some(Json::Object(members));
                }
                b'"' => self.string()?,
                _ => self.bare().into_owned(),
            };
            self.skip_space();
            if self.peek()? != b':' {
                self.skip_to_next()?;
                continue;
            }
            self.at += 1;
            self.skip_space();
            let value = if matches!(self.peek()?, b',' | b'}') { Json::Null } else { self.value(depth + 1)? };
            members.push((key, value));
        }
    }

    /// Leaves out what is no member, up to where the next one may begin.
    fn skip_to_next(&mut self) -> Option<()> {
        self.skip(|byte| !matches!(byte, b',' | b'}' | b'{' | b'[' | b']'));
        matches!(self.peek()?, b',' | b'}').then_some(())
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_separators();
            if self.peek()? == b']' {
                self.at += 1;
                return Some(Json::List(items));
            }
            if self.peek()? == b'}' {
                return None;
            }
            items.push(self.value(depth + 1)?);
        }
    }

    /// A string; any byte may stand in it, white space and control characters too.
    fn string(&mut self) -> Option<String> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(String::from_utf8_lossy(&bytes).into_owned()),
                b'\\' => self.escape(&mut bytes)?,
                _ => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        let plain = match byte {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'u' => {
                let digits = self.bytes.get(self.at..self.at + 4)?;
                let digits =
                    std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
                let Some(code) = digits.and_then(|text| u32::from_str_radix(text, 16).ok()) else {
                    bytes.extend_from_slice(b"\\u");
                    return Some(());
                };
                self.at += 4;
                let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            other => other,
        };
        bytes.push(plain);
        Some(())
    }

    /// A number, `true`, `false`, `null`, or what stands in its place.
    fn word(&mut self) -> Option<Json> {
        match &*self.bare() {
            "" => None,
            "null" => Some(Json::Null),
            "true" => Some(Json::Bool(true)),
            "false" => Some(Json::Bool(false)),
            word => Some(Json::Number(word.to_owned())),
        }
    }

    /// What stands without quotes, up to white space or a sign that has a meaning.
    fn bare(&mut self) -> Cow<'_, str> {
        let begin = self.at;
        self.skip(|byte| byte > b' ' && !matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']'));
        String::from_utf8_lossy(&self.bytes[begin..self.at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Json {
        Json::Number(text.to_owned())
    }

    #[test]
    fn numbers_keep_their_text() {
        let json = Json::parse(br#"{"a":79656630.00,"b":-1.5e3,"c":true,"d":null,"e":["x\"\u00b0\/"]}"#).unwrap();
        assert_eq!(json.text_of("a"), Some("79656630.00"));
        assert_eq!(json.text_of("b"), Some("-1.5e3"));
        assert_eq!((json.get("c"), json.get("d")), (Some(&Json::Bool(true)), Some(&Json::Null)));
        assert_eq!(json.get("e").unwrap().items()[0].text(), Some("x\"°/"));
    }

    #[test]
    fn what_firmwares_get_wrong_is_read_all_the_same() {
        let json = Json::parse(b"{\"a\":nan,\"b\":\"x\ny\" \"c\":[{\"d\":1}{\"d\":-nan}],}\0 trailing }").unwrap();
        assert_eq!(json.get("a"), Some(&number("nan")));
        assert_eq!(json.text_of("b"), Some("x\ny"));
        assert_eq!(json.get("c").unwrap().items()[1].text_of("d"), Some("-nan"));
        for (text, wanted) in [
            (r#"{"a":,"b":12%,"c":}"#, r#"{"a":null,"b":"12%","c":null}"#),
            (r#"{a:1, "b":"x"y","c":2}"#, r#"{"a":"1","b":"x","c":"2"}"#),
            (r#"{"a":"\uZZ11\'"}"#, r#"{"a":"\\uZZ11'"}"#),
            (r#"{"a" 1,"b":2}"#, r#"{"b":"2"}"#),
            ("{\"a\":1\u{e9}/2}", "{\"a\":\"1\u{e9}/2\"}"),
        ] {
            let (read, wanted) = (Json::parse(text.as_bytes()), Json::parse(wanted.as_bytes()));
            assert_eq!(format!("{read:?}").replace("Number", "Text"), format!("{wanted:?}"), "{text}");
        }
    }

    #[test]
    fn joined_documents_are_all_read() {
        let all = Json::parse_all(b"{\"a\":1}{\"b\":2}\0 [3] {\"c\":");
        assert_eq!(all.iter().map(|json| json.text_of("b")).collect::<Vec<_>>(), [None, Some("2"), None]);
        let joined = Json::parse_joined(br#"{"STATUS":1,"a":1}{"STATUS":2,"b":2}"#).unwrap();
        assert_eq!(["STATUS", "a", "b"].map(|name| joined.text_of(name)), [Some("1"), Some("1"), Some("2")]);
        assert!(Json::parse_all(b"hello").is_empty() && Json::parse_joined(b"{\"a\":").is_none());
    }

    #[test]
    fn whatever_the_bytes_are_nothing_panics() {
        let text = include_bytes!("../../../tests/miner-sim/recordings/avalon_q/stats.json");
        assert!(Json::parse(text).is_some());
        for end in 0..text.len() {
            // A cut reply is none, except that the end of the first value is no cut.
            assert_eq!(Json::parse(&text[..end]).is_some(), text[end..].iter().all(u8::is_ascii_whitespace), "{end}");
        }
        for i in (0..text.len()).step_by(7) {
            for byte in [0, b'"', b'\\', b'{', b']', 0xff] {
                let mut broken = text.to_vec();
                broken[i] = byte;
                Json::parse(&broken);
            }
        }
        for bad in ["", "{", "}", "[}", "{]}", "{\"a\" 1", "[\"\\u12", "\"\\", "\u{16}\u{3}", "{\"a\":"] {
            assert_eq!(Json::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::parse("[".repeat(100_000).as_bytes()), None);
        assert_eq!(Json::parse(format!("[{}]", "1 ".repeat(20_000)).as_bytes()), None);
    }
}
