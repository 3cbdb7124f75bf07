//! What answers on a unit's ports: Avalon's model, or a body that a firmware speaks for.

use anyhow::Result;

use crate::body::Body;
use crate::makes::{self, Firmware, Login, Templates, Transport};
use crate::model::Model;
use crate::scenario::{Settings, Unit};

/// The machine of a unit.
pub(crate) enum Machine {
    Avalon(Box<Model>),
    Told { body: Box<Body>, firmware: &'static Firmware, templates: &'static Templates, verbatim: bool },
}

/// What is asked.
pub(crate) struct Asked<'a> {
    pub(crate) transport: Transport,
    /// Command or path.
    pub(crate) name: &'a str,
    pub(crate) parameter: &'a str,
}

impl Machine {
    pub(crate) fn new(unit: &Unit) -> Result<Machine> {
        let Some(firmware) = unit.profile.firmware() else { return Ok(Machine::Avalon(Box::new(Model::new(unit)?))) };
        let templates = makes::templates(unit.profile, firmware)?;
        let body = Box::new(Body::new(unit, &firmware.build));
        Ok(Machine::Told { body, firmware, templates, verbatim: unit.verbatim })
    }

    /// How its web interface is entered.
    pub(crate) fn login(&self) -> Login {
        match self {
            Machine::Avalon(_) => Login::Open,
            Machine::Told { firmware, .. } => firmware.login,
        }
    }

    /// The reply at the unit's `call`-th question, JSON; `None` for what the firmware does not know.
    pub(crate) fn reply(&mut self, asked: &Asked<'_>, settings: &Settings, call: u64) -> Option<String> {
        match self {
            Machine::Avalon(model) if asked.transport == Transport::Rpc => {
                Some(model.reply(asked.name, settings, call)?.to_string())
            }
            Machine::Avalon(_) => None,
            Machine::Told { body, templates, verbatim, .. } => {
                let parameter = asked.parameter.split(',').next().unwrap_or_default();
                let (question, template) = templates
                    .get(&(asked.transport, asked.name, parameter))
                    .or_else(|| templates.get(&(asked.transport, asked.name, "")))?;
                if *verbatim {
                    return Some(compact(question.recording));
                }
                let moment = body.moment(settings, call, question.counts);
                Some(template.render(&moment))
            }
        }
    }
}

/// A recording in one line.
fn compact(recording: &str) -> String {
    serde_json::from_str::<serde_json::Value>(recording).map_or_else(|_| recording.to_owned(), |tree| tree.to_string())
}
