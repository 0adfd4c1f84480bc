//! What people see on a terminal, and what programs get that read the same from a pipe.

use certs_dev::{Bundle, Case};

use crate::support::{
    command::vouchsafe,
    gallery::{self, Front},
    pty::Terminal,
};

/// The arguments of `check` for these servers.
fn check(fronts: &[&Front], more: &[&str]) -> Vec<String> {
    let mut args = vec!["check".to_owned(), "--cacert".into(), gallery::bundle(Bundle::Root)];
    args.extend(more.iter().map(|more| (*more).to_owned()));
    for front in fronts {
        args.push(format!("--connect-to={}={}", front.authority(), front.address));
        args.push(front.authority());
    }
    args
}

/// A command line of the shell, on a terminal of that kind and size.
fn on_terminal(variables: &str, lines: u32, args: &[String]) -> String {
    let quoted: Vec<_> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let program = env!("CARGO_BIN_EXE_vouchsafe");
    let command = format!("stty rows {lines} cols 120; exec env {variables} {program} {}", quoted.join(" "));
    Terminal::start(&command).end().0.replace("\r\n", "\n")
}

/// The lines that a terminal of that height shows in the end, without styles: as much of ECMA-48 as is used.
fn screen(text: &str) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0_usize, 0_usize);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => (row, column) = (row + 1, 0),
            '\r' => column = 0,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "{text:?}");
                let mut parameter = String::new();
                while let Some(c) = chars.next_if(|c| !c.is_ascii_alphabetic()) {
                    parameter.push(c);
                }
                match chars.next() {
                    Some('A') => row -= parameter.parse::<usize>().unwrap(),
                    Some('B') => row += parameter.parse::<usize>().unwrap(),
                    Some('K') => lines[row].truncate(column),
                    Some('m') => {}
                    other => panic!("{other:?}: {text:?}"),
                }
            }
            c => {
                let line: &mut Vec<char> = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        if row >= lines.len() {
            lines.resize(row + 1, Vec::new());
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_are_a_table_that_fills() {
    let (good, bad) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
    let args = check(&[&good, &bad], &[]);
    for (lines, in_place) in [(40, true), (3, false)] {
        let text = on_terminal("TERM=xterm", lines, &args);
        assert_eq!(text.contains("\x1b[2A") && text.contains("waiting"), in_place, "{text:?}");
        assert!(text.contains("\x1b[32m✔ trusted") && text.contains("\x1b[1m\x1b[31m✘ refused"), "{text:?}");
        let shown = screen(&text);
        assert!(shown[0].starts_with("  VERDICT        SERVER "), "{shown:#?}");
        let row = |mark: &str, front: &Front| {
            let found = shown.iter().position(|line| line.starts_with(mark) && line.contains(&front.authority()));
            found.unwrap_or_else(|| panic!("no {mark} of {}: {shown:#?}", front.authority()))
        };
        assert_eq!((row("✔ trusted ", &good), row("✘ refused ", &bad)), (1, 2), "{shown:#?}");
        assert!(shown[2].contains("expired: the certificate"), "{shown:#?}");
        assert!(shown.iter().any(|line| line.ends_with("  refused: expired")), "its whole report: {shown:#?}");
        assert!(shown.iter().any(|line| line == "2 servers: 1 trusted, 1 refused"), "{shown:#?}");
        assert!(!shown.iter().any(|line| line.contains("waiting")), "{shown:#?}");
    }
    let brief = on_terminal("TERM=xterm", 40, &check(&[&good, &bad], &["--brief"]));
    assert_eq!(screen(&brief).iter().filter(|line| !line.is_empty()).count(), 4, "{brief:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_and_characters_are_those_that_the_terminal_has() {
    let good = Front::start(Case::Good).await;
    let args = check(&[&good], &["--brief"]);
    let always = [args.clone(), vec!["--color=always".into()]].concat();
    let never = [args.clone(), vec!["--color=never".into()]].concat();
    for (variables, args, color, mark) in [
        ("TERM=xterm", &args, true, '✔'),
        ("TERM=xterm NO_COLOR=1", &args, false, '✔'),
        ("TERM=xterm CLICOLOR=0", &args, false, '✔'),
        ("TERM=dumb", &args, false, '✔'),
        ("TERM=xterm", &never, false, '✔'),
        ("TERM=dumb", &always, true, '✔'),
        ("TERM=xterm LANG=C", &args, true, '+'),
        ("TERM=xterm LC_ALL=C LANG=C.UTF-8", &args, true, '+'),
        ("TERM=xterm LANG=de_DE.UTF-8", &args, true, '✔'),
    ] {
        let text = on_terminal(variables, 24, args);
        assert_eq!(text.contains("\x1b[32m"), color, "{variables}: {text:?}");
        assert!(text.contains(&format!("{mark} trusted")), "{variables}: {text:?}");
        assert_eq!(text.is_ascii(), mark == '+', "{variables}: {text:?}");
        // A terminal that can do nothing is not moved about on.
        assert_eq!(text.contains("\x1b[K"), !variables.contains("dumb"), "{variables}: {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_pipe_there_are_plain_lines() {
    let (good, bad) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
    let brief = vouchsafe(&check(&[&bad, &good], &["--brief"]));
    let lines: Vec<_> = brief.out.lines().collect();
    assert_eq!(brief.code, Some(1), "{brief:?}");
    assert!(lines[0].starts_with(&format!("✘ refused        {}", bad.authority())), "{brief:?}");
    assert!(lines[1].starts_with(&format!("✔ trusted        {}", good.authority())), "{brief:?}");
    assert_eq!(lines[2..], ["", "2 servers: 1 trusted, 1 refused"], "{brief:?}");
    assert!(!brief.out.contains('\x1b') && brief.err.is_empty(), "{brief:?}");
    let forced = vouchsafe(&check(&[&bad, &good], &["--brief", "--color", "always"]));
    assert!(forced.out.contains("\x1b[1m\x1b[31m✘ refused"), "{forced:?}");
    let whole = vouchsafe(&check(&[&good, &good], &[]));
    assert!(whole.out.ends_with("\n\n2 servers: 2 trusted\n") && !whole.out.contains('\x1b'), "{whole:?}");
}

#[test]
fn the_short_help_fits_a_screen_and_has_examples() {
    for command in [
        "",
        "audit",
        "bundle",
        "check",
        "config check",
        "config show",
        "demo",
        "exec",
        "explain",
        "pin",
        "ready",
        "run",
        "verify",
    ] {
        let args: Vec<_> = command.split_whitespace().chain(["-h"]).collect();
        let said = vouchsafe(&args);
        let lines = said.out.lines().count();
        assert!(lines <= 42, "{command}: {lines} lines:\n{}", said.out);
        assert!(said.out.contains("\nExamples:\n  vouchsafe "), "{command}:\n{}", said.out);
        assert!(!said.out.contains('\x1b'), "{command}: {}", said.out);
    }
}

#[test]
fn options_have_the_names_that_curl_gives_them() {
    let said = vouchsafe(&["check", "--cacert", "/nowhere/ca.pem", "a.example"]);
    assert!(said.err.contains("`/nowhere/ca.pem`"), "{said:?}");
    let said =
        vouchsafe(&["check", "--cacert", &gallery::bundle(Bundle::Root), "--cert", "/nowhere/me.pem", "a.example"]);
    assert!(said.err.contains("`/nowhere/me.pem`"), "{said:?}");
    // The name that was typed is the one that the message has.
    let said = vouchsafe(&["run", "--cert", ""]);
    assert!(said.err.starts_with("error: --cert: a value is missing"), "{said:?}");
}
