//! What is wrong with a configuration: every problem in one go.

use std::fmt;

/// One or more problems, each a sentence that names the flag or `file:line`, the value, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// A single problem.
    pub fn one(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }

    /// Nothing, where there is no problem.
    ///
    /// # Errors
    /// Itself, where there is one.
    pub fn unless_empty(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => f.write_str(one),
            many => {
                write!(f, "{} problems in the configuration", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {}", problem.replace('\n', "\n  ")))
            }
        }
    }
}

impl std::error::Error for ConfigError {}
