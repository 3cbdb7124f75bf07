//! How each make tells what its machine does: recorded replies, and which value goes where in them.

mod antminer;
mod braiins;
mod epic;
mod luxos;
mod whatsminer;

use std::collections::HashMap;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::body::Build;
use crate::profile::Profile;
use crate::template::{Hole, Template};

/// How a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// cgminer's: JSON in, JSON out, one connection per command.
    Rpc,
    /// HTTP/1.1.
    Http,
    /// JSON behind its length in 4 bytes, little-endian (Whatsminer's version 3).
    Framed,
}

/// How a web interface is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    Open,
    Digest,
    /// A session that is asked for with user and password.
    Token,
}

/// A question that a firmware answers.
pub(crate) struct Question {
    pub(crate) transport: Transport,
    /// Command, or path.
    pub(crate) name: &'static str,
    /// The parameter that this is the answer for; empty where there is none.
    pub(crate) parameter: &'static str,
    /// The recorded reply, or one that was made to its shape.
    pub(crate) recording: &'static str,
    pub(crate) holes: &'static [&'static [Hole]],
    /// Whether it tells the accepted shares, which makes it the one that a poll is known by.
    pub(crate) counts: bool,
}

/// A firmware.
pub(crate) struct Firmware {
    pub(crate) build: Build,
    pub(crate) login: Login,
    pub(crate) questions: &'static [Question],
}

impl Profile {
    /// The firmware; `None` for Avalon's, which has a model of its own.
    pub(crate) fn firmware(self) -> Option<&'static Firmware> {
        match self {
            Profile::Avalon1246 | Profile::AvalonQ => None,
            Profile::AntminerS19Pro => Some(&antminer::S19_PRO),
            Profile::WhatsminerV2 => Some(&whatsminer::V2),
            Profile::WhatsminerV3 => Some(&whatsminer::V3),
            Profile::Braiins => Some(&braiins::REST),
            Profile::Luxos => Some(&luxos::S19K_PRO),
            Profile::Epic => Some(&epic::POWER_PLAY),
        }
    }

    /// What it listens with: on the port of its address first, then on the port of its web interface.
    pub(crate) fn transports(self) -> &'static [Transport] {
        match self {
            Profile::Avalon1246 | Profile::AvalonQ | Profile::WhatsminerV2 | Profile::Luxos => &[Transport::Rpc],
            Profile::AntminerS19Pro | Profile::Braiins => &[Transport::Rpc, Transport::Http],
            Profile::WhatsminerV3 => &[Transport::Framed],
            Profile::Epic => &[Transport::Http, Transport::Http],
        }
    }
}

/// The templates of a firmware, by transport, name and parameter.
pub(crate) type Templates = HashMap<(Transport, &'static str, &'static str), (&'static Question, Template)>;

/// The templates of a profile, made once for all units.
pub(crate) fn templates(profile: Profile, firmware: &'static Firmware) -> Result<&'static Templates> {
    static MADE: OnceLock<std::sync::Mutex<HashMap<Profile, &'static Templates>>> = OnceLock::new();
    let made = MADE.get_or_init(Default::default);
    let mut made = made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(templates) = made.get(&profile) {
        return Ok(templates);
    }
    let mut templates = Templates::new();
    for question in firmware.questions {
        let template = Template::new(question.recording, question.holes, firmware.build.boards)
            .with_context(|| format!("{profile:?}: reply to {} {}", question.name, question.parameter))?;
        templates.insert((question.transport, question.name, question.parameter), (question, template));
    }
    // Once per profile and for as long as the process lives.
    let templates: &'static Templates = Box::leak(Box::new(templates));
    made.insert(profile, templates);
    Ok(templates)
}

/// A recorded reply.
macro_rules! recorded {
    ($path:literal) => {
        include_str!(concat!("../../recordings/", $path, ".json"))
    };
}
use recorded;

/// A question without a parameter.
const fn question(
    transport: Transport,
    name: &'static str,
    recording: &'static str,
    holes: &'static [&'static [Hole]],
) -> Question {
    Question { transport, name, parameter: "", recording, holes, counts: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_place_in_the_recordings() -> Result<()> {
        for profile in Profile::ALL {
            if let Some(firmware) = profile.firmware() {
                templates(profile, firmware)?;
            }
        }
        Ok(())
    }
}
