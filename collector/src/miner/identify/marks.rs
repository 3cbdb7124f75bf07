//! By what a firmware is known: words in its replies and on its first page. Any bytes give a make or none.

use super::super::json::Json;
use crate::config::Make;

/// Words in a reply to `version`, `get_version` or `devdetails`, in upper case. Firmwares that replace another one come
/// first: they may still name the machine that they run on.
const WORDS: [(&str, Make); 17] = [
    ("BOSMINER", Make::Braiins),
    ("BOSER", Make::Braiins),
    ("LUXMINER", Make::Luxos),
    ("VNISH", Make::Vnish),
    ("MARAFW", Make::Marathon),
    ("KAONSU", Make::Marathon),
    ("BDMINER", Make::Sealminer),
    ("GCMINER", Make::Auradine),
    ("FLUXOS", Make::Auradine),
    ("GOLDSHELL", Make::Goldshell),
    ("KDAMINER", Make::Goldshell),
    ("INTCHAINS_QOMO", Make::Goldshell),
    ("BTMINER", Make::Whatsminer),
    ("BITMICRO", Make::Whatsminer),
    ("WHATSMINER", Make::Whatsminer),
    ("AVALON", Make::Avalon),
    ("ANTMINER", Make::Antminer),
];

/// Words in the challenge of a page that wants a password.
const REALMS: [(&str, Make); 4] = [
    ("realm=\"antminer", Make::Antminer),
    ("blackminer configuration", Make::Volcminer),
    ("realm=\"daoge", Make::Elphapex),
    ("goldshell", Make::Goldshell),
];

/// Words in the text of a page.
const PAGES: [(&str, Make); 13] = [
    ("Braiins OS", Make::Braiins),
    ("Luxor Firmware", Make::Luxos),
    ("AnthillOS", Make::Vnish),
    ("Miner Web Dashboard", Make::Epic),
    ("VolcMiner", Make::Volcminer),
    ("Proto OS", Make::Proto),
    ("ForgeOS", Make::Forgeaxe),
    ("Nerd", Make::Nerdaxe),
    ("AxeOS", Make::Bitaxe),
    ("oldshell", Make::Goldshell),
    ("cloud-box", Make::Goldshell),
    ("amazeui", Make::Sealminer),
    ("Avalon", Make::Avalon),
];

/// The make that a reply on the cgminer port names.
pub(in crate::miner) fn of_reply(reply: &Json) -> Option<Make> {
    if is_get_version_of_whatsminer(reply) {
        return Some(Make::Whatsminer);
    }
    let mut text = String::new();
    gather(reply, &mut text);
    WORDS.iter().find(|(word, _)| text.contains(word)).map(|(_, make)| *make)
}

/// The make that a reply in frames names; only Whatsminer's newest firmware answers in frames.
pub(in crate::miner) fn of_framed(reply: &Json) -> Option<Make> {
    let is_of_command = reply.text_of("desc") == Some("get.device.info") || reply.get("msg")?.get("miner").is_some();
    (reply.get("code").is_some() && is_of_command).then_some(Make::Whatsminer)
}

/// The make of an answer of a web server on the cgminer port, which ePIC has there.
pub(in crate::miner) fn of_capabilities(bytes: &[u8]) -> Option<Make> {
    let page = Page::of(bytes)?;
    let body = page.body.find('{').and_then(|at| page.body.get(at..))?;
    let told = Json::parse(body.as_bytes())?;
    let known = told.get("Model").is_some() && (told.get("Max HBs").is_some() || told.get("Chip Type").is_some());
    known.then_some(Make::Epic)
}

/// What the first page of a web interface says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::miner) enum Said {
    /// It is of this make.
    Make(Make),
    /// It wants a password and does not say whose it is.
    Refused,
    /// It is another page.
    Other,
}

/// What an answer to `GET /` says; `None` where it is no answer of a web server.
pub(in crate::miner) fn of_page(bytes: &[u8]) -> Option<Said> {
    let page = Page::of(bytes)?;
    let challenge = page.header("www-authenticate").unwrap_or_default();
    let realm = REALMS.iter().find(|(word, _)| challenge.contains(word)).map(|(_, make)| *make);
    let redirect = page.header("location").unwrap_or_default();
    let make = match page.status {
        401 | 403 if realm.is_some() => realm,
        401 if page.header("algorithm").is_some_and(|value| value.contains("md5")) => Some(Make::Marathon),
        308 if redirect.contains("/overview") => Some(Make::Futurebit),
        _ => PAGES.iter().find(|(word, _)| page.body.contains(word)).map(|(_, make)| *make),
    };
    Some(match make {
        Some(make) => Said::Make(make),
        None if matches!(page.status, 401 | 403) => Said::Refused,
        None => Said::Other,
    })
}

/// `{"STATUS":"S","Code":131,"Msg":{"api_ver":...,"fw_ver":...}}`.
fn is_get_version_of_whatsminer(reply: &Json) -> bool {
    let told = reply.get("Msg");
    told.is_some_and(|told| {
        told.get("fw_ver").is_some() && (told.get("api_ver").is_some() || told.get("platform").is_some())
    })
}

/// All names and texts of a reply, in upper case.
fn gather(json: &Json, text: &mut String) {
    match json {
        Json::Text(own) => {
            text.push_str(&own.to_uppercase());
            text.push('\n');
        }
        Json::List(items) => items.iter().for_each(|item| gather(item, text)),
        Json::Object(members) => {
            for (name, value) in members {
                text.push_str(&name.to_uppercase());
                text.push('\n');
                gather(value, text);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// An answer of a web server, as much of it as came.
struct Page {
    status: u16,
    /// Lines of the head, in lower case.
    head: String,
    body: String,
}

impl Page {
    fn of(bytes: &[u8]) -> Option<Page> {
        let status = std::str::from_utf8(bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?.parse().ok()?;
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n")).unwrap_or((&text, ""));
        Some(Page { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_of(reply: &str) -> Option<Make> {
        of_reply(&Json::parse(reply.as_bytes()).unwrap())
    }

    #[test]
    fn a_firmware_is_known_by_its_replies() {
        for (reply, make) in [
            (include_str!("../../../../tests/miner-sim/recordings/avalon_q/version.json"), Make::Avalon),
            (include_str!("../../../../tests/miner-sim/recordings/avalon_1246/adapted/version.json"), Make::Avalon),
            (include_str!("../../../../tests/miner-sim/recordings/antminer/v2020/version.json"), Make::Antminer),
            (include_str!("../../../../tests/miner-sim/recordings/antminer/v2023_07/l9_version.json"), Make::Antminer),
            (include_str!("../../../../tests/miner-sim/recordings/whatsminer/v1/get_version.json"), Make::Whatsminer),
            (include_str!("../../../../tests/miner-sim/recordings/whatsminer/v2/get_version.json"), Make::Whatsminer),
            (include_str!("../../../../tests/miner-sim/recordings/braiins/v21_09/version.json"), Make::Braiins),
            (include_str!("../../../../tests/miner-sim/recordings/braiins/v25_05/version.json"), Make::Braiins),
            (include_str!("../../../../tests/miner-sim/recordings/luxminer/v1/version.json"), Make::Luxos),
            (include_str!("../../../../tests/miner-sim/recordings/sealminer/v2025/version.json"), Make::Sealminer),
            (include_str!("../../../../tests/miner-sim/recordings/auradine/v1/version.json"), Make::Auradine),
        ] {
            assert_eq!(make_of(reply), Some(make), "{reply}");
        }
        assert_eq!(
            make_of(r#"{"VERSION":[{"CGMiner":"4.11.1","Type":"Antminer S19 (vnish 1.2.6)"}]}"#),
            Some(Make::Vnish)
        );
        assert_eq!(make_of(r#"{"STATUS":[{"Description":"cgminer 4.9.0"}],"VERSION":[{"CGMiner":"4.9.0"}]}"#), None);
        let framed = include_bytes!("../../../../tests/miner-sim/recordings/whatsminer/v3/get_device_info.json");
        assert_eq!(of_framed(&Json::parse(framed).unwrap()), Some(Make::Whatsminer));
    }

    #[test]
    fn a_firmware_is_known_by_its_first_page() {
        for (page, said) in [
            (
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"antMiner Configuration\", nonce=\"1\"\r\n\r\n",
                Said::Make(Make::Antminer),
            ),
            ("HTTP/1.1 401 x\r\nwww-authenticate: Digest realm=\"Daoge Miner\"\r\n\r\n", Said::Make(Make::Elphapex)),
            ("HTTP/1.1 200 OK\r\n\r\n<title>AnthillOS</title>", Said::Make(Make::Vnish)),
            ("HTTP/1.1 200 OK\r\n\r\n<title>Braiins OS</title>", Said::Make(Make::Braiins)),
            ("HTTP/1.0 308 x\r\nLocation: /overview\r\n\r\n", Said::Make(Make::Futurebit)),
            ("HTTP/1.1 401 x\r\nWWW-Authenticate: Basic realm=\"printer\"\r\n\r\n", Said::Refused),
            ("HTTP/1.1 200 OK\r\n\r\nHello", Said::Other),
        ] {
            assert_eq!(of_page(page.as_bytes()), Some(said), "{page}");
        }
        assert_eq!(of_page(b"SSH-2.0-dropbear\r\n"), None);
        let capabilities = include_str!("../../../../tests/miner-sim/recordings/epic/v1/capabilities.json");
        assert_eq!(of_capabilities(format!("HTTP/1.1 200 OK\r\n\r\n{capabilities}").as_bytes()), Some(Make::Epic));
        assert_eq!(of_capabilities(b"HTTP/1.1 404 x\r\n\r\n{}"), None);
    }
}
