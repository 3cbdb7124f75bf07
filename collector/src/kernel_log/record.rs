//! The record format of `/dev/kmsg`: `priority,sequence number,microseconds since boot,flags;text`.
//!
//! The kernel writes what cannot be printed as `\x0a`. Lines that begin with a space give keys and values of the record
//! before them (subsystem, device); nothing here needs them. Fields that a newer kernel adds before the `;` are passed
//! over.

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Rises by one with each record since boot.
    pub(crate) seq: i64,
    /// When, microseconds since boot.
    pub(crate) since_boot_us: i64,
    /// What was logged; may have several lines.
    pub(crate) text: String,
}

/// Reads one line as a record; `None` where it is none.
pub(crate) fn parse(line: &str) -> Option<Record> {
    let (head, text) = line.split_once(';')?;
    let mut fields = head.split(',');
    let mut number = || fields.next()?.parse::<u64>().ok().and_then(|number| i64::try_from(number).ok());
    let (_priority, seq, since_boot_us) = (number()?, number()?, number()?);
    Some(Record { seq, since_boot_us, text: unescaped(text) })
}

/// Text with `\x0a` and its like as the characters that they stand for.
fn unescaped(text: &str) -> String {
    if !text.contains("\\x") {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match escaped(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte of `\xhh` at the beginning.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let digits = bytes.strip_prefix(b"\\x")?.get(..2)?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_read_and_what_is_none_is_not() {
        let record = |seq, since_boot_us, text: &str| Some(Record { seq, since_boot_us, text: text.to_owned() });
        for (line, expected) in [
            ("6,3964,206764307,-;nvidia-nvswitch2: open", record(3964, 206_764_307, "nvidia-nvswitch2: open")),
            ("4,1,2,-,caller=T17;a;b", record(1, 2, "a;b")),
            ("4,1,2,c;tab\\x09 and back\\x5cslash \\xc3\\xa4", record(1, 2, "tab\t and back\\slash ä")),
            ("4,1,2,-;\\x4 \\xzz \\x", record(1, 2, "\\x4 \\xzz \\x")),
            (" SUBSYSTEM=pci", None),
            ("[ 1.5] NVRM: loading; no record", None),
            ("6,-1,3,-;text", None),
            ("6,18446744073709551615,3,-;text", None),
            ("", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "\\PC*", escapes in "(\\\\x[0-9a-g]{0,3}|ä)*") {
            parse(&line);
            let record = format!("6,1,1,-;{escapes}");
            prop_assert!(parse(&record).is_some());
        }
    }
}
