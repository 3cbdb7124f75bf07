//! Simulated miners of other makes than Avalon, as a client sees them.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use racklake_miner_sim::{Fault, MinerSim, Profile, Unit};
use serde_json::Value;

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// The reply of cgminer's port, without its NUL.
fn rpc(address: SocketAddr, request: &str) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes.pop();
    bytes
}

fn rpc_json(address: SocketAddr, request: &str) -> Value {
    serde_json::from_slice(&rpc(address, request)).unwrap()
}

/// Status, head and body of a request on an open connection.
fn http(stream: &mut TcpStream, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, Vec<u8>) {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), head, body)
}

fn account(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("account")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_make_answers_its_own_questions_and_all_of_it_is_in_the_account() {
    let folder = tempfile::tempdir().unwrap();
    let units = [Profile::AntminerS19Pro, Profile::WhatsminerV2, Profile::Luxos, Profile::Epic, Profile::Braiins]
        .map(|profile| Unit::new(&format!("{profile:?}"), profile));
    let sim = MinerSim::start(units.to_vec(), &folder.path().join("account")).unwrap();
    let [antminer, whatsminer, luxos, epic, braiins] = sim.addresses()[..] else { panic!("five units") };
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(rpc_json(antminer, r#"{"command":"summary"}"#));
        told.push(rpc_json(antminer, r#"{"command":"stats"}"#));
        told.push(rpc_json(whatsminer, r#"{"cmd":"summary"}"#));
        told.push(rpc_json(whatsminer, r#"{"cmd":"get_error_code"}"#));
        told.push(rpc_json(luxos, r#"{"command":"healthchipget","parameter":"1"}"#));
        told.push(serde_json::from_slice(&http(&mut connect(epic), "GET", "/summary", "", "").2).unwrap());
    }
    assert_eq!(told[4]["CHIPS"].as_array().unwrap().len(), 77);
    assert!(told[0]["SUMMARY"][0]["Accepted"].as_i64() < told[6]["SUMMARY"][0]["Accepted"].as_i64());
    assert!(told[5]["Session"]["Accepted"].as_i64() < told[11]["Session"]["Accepted"].as_i64());
    assert_eq!(account(folder.path()).iter().map(|line| line["reply"].clone()).collect::<Vec<_>>(), told);
    assert!(rpc_json(braiins, r#"{"command":"version"}"#)["VERSION"][0]["BOSer"].is_string());
}

#[test]
fn a_web_interface_asks_for_a_digest_or_a_token_and_counts_its_connections() {
    let folder = tempfile::tempdir().unwrap();
    let limited = Unit { connections_max: 1, ..Unit::new("b", Profile::Braiins) };
    let units = vec![Unit::new("a", Profile::AntminerS19Pro), limited];
    let sim = MinerSim::start(units, &folder.path().join("account")).unwrap();
    let [Some(antminer), Some(braiins)] = sim.web_addresses()[..] else { panic!("two web interfaces") };
    let path = "/cgi-bin/get_system_info.cgi";
    let mut stream = connect(antminer);
    let (status, head, _) = http(&mut stream, "GET", path, "", "");
    let challenge = head.lines().find_map(|line| line.strip_prefix("WWW-Authenticate: ")).unwrap();
    assert_eq!(status, 401);
    for (password, wanted) in [("wrong", 401), ("root", 200)] {
        let context = digest_auth::AuthContext::new("root", password, path);
        let given = digest_auth::parse(challenge).unwrap().respond(&context).unwrap();
        let (status, _, body) = http(&mut stream, "GET", path, &format!("Authorization: {given}\r\n"), "");
        assert_eq!(status, wanted, "{password}");
        assert_eq!(body.windows(9).any(|part| part == b"\"serinum\""), wanted == 200);
    }
    let mut stream = connect(braiins);
    assert_eq!(http(&mut stream, "GET", "/api/v1/miner/stats", "", "").0, 401);
    let login = r#"{"username":"root","password":"root"}"#;
    let (status, _, body) = http(&mut stream, "POST", "/api/v1/auth/login", "", login);
    let token = serde_json::from_slice::<Value>(&body).unwrap()["token"].as_str().unwrap().to_owned();
    assert_eq!(status, 200);
    let granted = format!("Authorization: {token}\r\n");
    assert_eq!(http(&mut stream, "GET", "/api/v1/miner/stats", &granted, "").0, 200);
    // The first connection is still open.
    assert_eq!(connect(braiins).read(&mut [0; 1]).unwrap_or(0), 0);
    let lines = account(folder.path());
    assert!(lines.iter().all(|line| line["turned_away"] == false || line["unit"] == "b"));
    let turned_away: Vec<&Value> = lines.iter().filter(|line| line["turned_away"] == true).collect();
    assert_eq!(turned_away.len(), 1);
    assert_eq!(turned_away[0]["connections"], 2);
}

#[test]
fn messages_behind_their_length_are_answered_one_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let sim = MinerSim::start(vec![Unit::new("w", Profile::WhatsminerV3)], &folder.path().join("account")).unwrap();
    let mut stream = connect(sim.addresses()[0]);
    for (request, key) in [
        (r#"{"cmd":"get.miner.status","param":"summary"}"#, "summary"),
        (r#"{"cmd":"get.miner.status","param":"edevs"}"#, "edevs"),
    ] {
        stream.write_all(&(request.len() as u32).to_le_bytes()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut body).unwrap();
        assert!(!serde_json::from_slice::<Value>(&body).unwrap()["msg"][key].is_null());
    }
}

#[test]
fn chips_fall_silent_and_take_their_share_of_the_hashrate_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let dying = Unit { chips_lost_per_poll: vec![0.0, 5.0], ..Unit::new("a", Profile::AntminerS19Pro) };
    let sim = MinerSim::start(vec![dying], &folder.path().join("account")).unwrap();
    let address = sim.addresses()[0];
    let poll = || {
        rpc(address, r#"{"command":"summary"}"#);
        rpc_json(address, r#"{"command":"stats"}"#)["STATS"][1].clone()
    };
    let first = poll();
    (0..4).for_each(|_| drop(poll()));
    let last = poll();
    assert_eq!((&first["chain_acn2"], &last["chain_acn2"]), (&109.into(), &84.into()));
    assert_eq!(last["chain_acs2"].as_str().unwrap().matches('x').count(), 30);
    assert_eq!(last["chain_acn1"], 114);
    let rate = |stats: &Value| stats["chain_rate2"].as_str().unwrap().parse::<f64>().unwrap();
    assert!(rate(&last) < 0.85 * rate(&first));
    assert!(last["chain_hw2"].as_i64() > first["chain_hw2"].as_i64());
}

#[test]
fn what_is_almost_json_and_what_is_none_over_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let sim = MinerSim::start(
        vec![Unit::new("l", Profile::Luxos), Unit::new("e", Profile::Epic)],
        &folder.path().join("account"),
    )
    .unwrap();
    let [luxos, epic] = sim.addresses()[..] else { panic!("two units") };
    for fault in [Fault::JoinedJson, Fault::MissingCommas, Fault::WrongEscapes, Fault::InvalidUtf8, Fault::DeepNesting]
    {
        sim.set_fault(0, Some(fault), &[]);
        let bytes = rpc(luxos, r#"{"command":"summary"}"#);
        assert!(serde_json::from_slice::<Value>(&bytes).is_err(), "{fault:?}");
        let reply = account(folder.path()).last().unwrap()["reply"].clone();
        assert_eq!(reply["SUMMARY"][0]["Accepted"].is_i64(), fault != Fault::DeepNesting, "{fault:?}");
    }
    for (fault, wanted) in [(Fault::Http401, 401), (Fault::TokensExhausted, 429), (Fault::Redirect, 302)] {
        sim.set_fault(1, Some(fault), &[]);
        let (status, head, _) = http(&mut connect(epic), "GET", "/summary", "", "");
        assert_eq!((status, head.contains("Location: ")), (wanted, fault == Fault::Redirect));
    }
    sim.set_fault(1, Some(Fault::Huge), &[]);
    let mut stream = connect(epic);
    stream.write_all(b"GET /summary HTTP/1.1\r\n\r\n").unwrap();
    let mut head = [0; 200];
    stream.read_exact(&mut head).unwrap();
    assert!(String::from_utf8_lossy(&head).contains("Content-Length: 1073741824"));
    let antminer = Unit::new("a", Profile::AntminerS19Pro);
    let sim = MinerSim::start(vec![antminer], &folder.path().join("other")).unwrap();
    sim.set_fault(0, Some(Fault::CloseRpc), &[]);
    assert!(TcpStream::connect(sim.addresses()[0]).is_err());
    assert_eq!(http(&mut connect(sim.web_addresses()[0].unwrap()), "GET", "/", "", "").0, 401);
}
