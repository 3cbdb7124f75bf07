//! The lake's disk is full: ingest stops fetching, says so on /healthz, and goes on when there is room.

use std::path::{Path, PathBuf};
use std::process::Command;

use racklake_tests::process::Process;
use racklake_tests::sender::Sender;
use racklake_tests::site::{PARTITIONS, Site, http_get};
use racklake_tests::{binaries, kafka, turn, wait_for};

/// Ingest whose lake is a small tmpfs that only it sees, and the path to that lake from outside.
fn start_on_small_disk(site: &Site) -> (Process, String, PathBuf) {
    let disk = site.folder.join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let http = format!("127.0.0.1:{}", kafka::free_port().unwrap());
    let config = site.folder.join("ingest.toml");
    let text = format!(
        "[kafka]\nbootstrap_servers = {bootstrap:?}\ntopic_prefix = {prefix:?}\npartitions = {PARTITIONS}\n\
         tables = [\"gpu_sample\"]\n[lake]\nlocation = {lake:?}\n[flush]\nage_max = \"200ms\"\n[http]\nlisten = {http:?}\n",
        bootstrap = site.broker.bootstrap(),
        prefix = site.prefix,
        lake = disk.join("lake").display().to_string(),
    );
    std::fs::write(&config, text).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=4m tmpfs {disk} && exec {ingest} --config {config}",
        disk = disk.display(),
        ingest = binaries::path("racklake-ingest").unwrap().display(),
        config = config.display(),
    );
    let arguments = ["--map-root-user", "--mount", "sh", "-c", &script];
    let process = Process::start("ingest", Path::new("unshare"), &arguments, &site.folder).unwrap();
    let seen = PathBuf::from(format!("/proc/{}/root{}", process.pid(), disk.display()));
    (process, http, seen)
}

#[test]
fn a_full_disk_pauses_ingest_and_room_lets_it_go_on() {
    let _turn = turn();
    let site = Site::new("full_disk").unwrap();
    let (mut ingest, http, disk) = start_on_small_disk(&site);
    let tail = |ingest: &Process, error: anyhow::Error| -> ! { panic!("{error}\n{}", ingest.tail()) };
    let healthy = || http_get(&http, "/healthz").ok().filter(|(status, _)| *status == 200);
    wait_for("ingest to be healthy", 60, healthy).unwrap_or_else(|e| tail(&ingest, e));
    wait_for("the topic", 60, || site.broker.end_offsets(&site.topic("gpu_sample")).ok()).unwrap();
    let mut sender = Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, "node-1").unwrap();
    let send = |sender: &mut Sender| {
        (0..50).for_each(|_| sender.send().unwrap());
        sender.flush().unwrap();
    };
    send(&mut sender);
    let committed = || std::fs::read_dir(disk.join("lake/gpu_sample/_delta_log")).ok()?.nth(1);
    wait_for("the first commit", 60, committed).map(drop).unwrap_or_else(|e| tail(&ingest, e));

    // dd ends with an error when the disk is full, which is what is wanted.
    let ballast = disk.join("ballast");
    Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", ballast.display())).output().unwrap();
    send(&mut sender);
    let complaint = wait_for("ingest to say that the disk is full", 60, || {
        http_get(&http, "/healthz").ok().filter(|(status, _)| *status == 503)
    });
    let (_, body) = complaint.unwrap_or_else(|e| tail(&ingest, e));
    assert!(body.to_lowercase().contains("space") || body.to_lowercase().contains("room"), "{body}");
    assert!(ingest.is_running());

    std::fs::remove_file(&ballast).unwrap();
    wait_for("ingest to recover", 60, healthy).unwrap_or_else(|e| tail(&ingest, e));
    let account = site.folder.join("sent.json");
    Sender::write_account(&[&sender], &account).unwrap();
    let complete = || {
        let _ = std::fs::remove_dir_all(site.lake());
        let copied = Command::new("cp").arg("-r").arg(disk.join("lake")).arg(site.lake()).status().ok()?;
        copied.success().then(|| site.check_sent(&account).ok()).flatten()
    };
    println!("{}", wait_for("all rows to be in the lake", 60, complete).unwrap_or_else(|e| tail(&ingest, e)));
    assert!(ingest.terminate(60).unwrap().success());
}
