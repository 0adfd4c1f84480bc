//! What is wrong with a configuration: all problems at once.

use std::fmt;

/// One or more problems. Each is a sentence that names the flag, variable or `file:line`, the value, and the reason; a
/// hint follows on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// A single problem.
    pub fn one(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }

    /// An error if there are problems.
    ///
    /// # Errors
    /// The problems.
    pub fn unless_empty(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => f.write_str(&one.replace('\n', "\n  ")),
            many => {
                write!(f, "{} problems in the configuration", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {}", problem.replace('\n', "\n    ")))
            }
        }
    }
}

impl std::error::Error for ConfigError {}
