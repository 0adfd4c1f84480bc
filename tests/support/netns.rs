//! Tests in a network namespace of their own: the addresses, ports and rules of one are nobody else's.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    process::{Command, Output, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A user that rules select: `nobody` of every Linux.
pub const TOOL: &str = "65534";

/// Runs a test in a thread, whose threads and children are all in a new network namespace, with loopback up and these
/// addresses on it. The namespace is gone when they are.
pub fn in_namespace(addresses: &'static [&'static str], test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        enter();
        run(&["ip", "link", "set", "lo", "up"]);
        for address in addresses {
            run(&["ip", "address", "add", address, "dev", "lo", "nodad"]);
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Moves the calling thread into a namespace that a child has made.
fn enter() {
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", "echo && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare of util-linux");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).expect("a line");
    assert_eq!(line, "\n", "a network namespace needs root");
    let namespace = File::open(format!("/proc/{}/ns/net", child.id())).expect("its namespace");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("a network namespace");
    drop(child.stdin.take());
    child.wait().expect("cat ends with its input");
}

/// Runs a command that has to succeed, and gives its output.
pub fn run(command: &[&str]) -> String {
    text(command, &Command::new(command[0]).args(&command[1..]).output().expect("it starts"))
}

/// The same with an input.
pub fn feed(command: &[&str], input: &str) -> String {
    let mut child = Command::new(command[0]);
    child.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("it starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).expect("it reads");
    text(command, &child.wait_with_output().expect("it ends"))
}

fn text(command: &[&str], output: &Output) -> String {
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A command of the user [`TOOL`], which has no capabilities.
pub fn tool(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", TOOL, "--regid", TOOL, "--clear-groups", "--bounding-set=-all", program]);
    for ambient in ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(ambient);
    }
    command
}
