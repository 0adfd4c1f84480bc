//! A terminal for programs that behave differently on one: `script` of util-linux makes it, and passes on what is typed.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

use super::proxy::{PATIENCE, without_ambient};

/// A terminal in which a command of `sh` runs, the leader of its session.
pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Screen>,
}

#[derive(Default)]
struct Screen {
    text: Mutex<(String, bool)>,
    more: Condvar,
}

impl Terminal {
    /// Starts it.
    pub fn start(command: &str) -> Self {
        // Whoever runs the tests may ignore signals, as `nohup` does, and programs inherit that.
        let mut script = Command::new("env");
        script.args(["--default-signal", "script"]);
        script.args(["--quiet", "--flush", "--return", "--command", command, "/dev/null"]);
        without_ambient(&mut script);
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().expect("env and script");
        let keyboard = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        let screen = Arc::new(Screen::default());
        let filling = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut text = filling.text.lock().unwrap_or_else(PoisonError::into_inner);
                text.0.push_str(&String::from_utf8_lossy(&bytes[..count]));
                filling.more.notify_all();
            }
            filling.text.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
            filling.more.notify_all();
        });
        Self { child, keyboard, screen }
    }

    /// Types text; `\x03` is Ctrl-C, `\x1a` Ctrl-Z.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("a terminal");
        self.keyboard.flush().expect("a terminal");
    }

    /// Waits until something can be made of the text so far.
    pub fn wait_for<T>(&self, what: &str, make: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.screen.text.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(made) = make(&guard.0) {
                return made;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !guard.1, "no {what} on the terminal:\n{}", guard.0);
            guard = self.screen.more.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for text.
    pub fn wait_for_text(&self, text: &str) {
        self.wait_for(text, |screen| screen.contains(text).then_some(()));
    }

    /// Waits for the end, and returns all that was shown and the exit status.
    pub fn end(mut self) -> (String, Option<i32>) {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.screen.text.lock().unwrap_or_else(PoisonError::into_inner);
        while !guard.1 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it does not end:\n{}", guard.0);
            guard = self.screen.more.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let text = guard.0.clone();
        drop(guard);
        (text, self.child.wait().expect("it ends").code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already. The session's leader gets SIGHUP with its terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
