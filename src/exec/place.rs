//! Where the tool runs: in the network of this process, or isolated.

use std::{
    ffi::OsString,
    io::{self, ErrorKind},
    process::Command,
    sync::Arc,
};

use crate::{
    config::{args::ExecArgs, settings::Settings},
    connect::resolve::name_servers,
    isolate::{Inside, IsolateError, Namespace, ServiceSockets, Watch},
    proxy::settings::ListenAddress,
    route::table::Routes,
    server::socket::InheritedSockets,
};

use super::{ExecError, child::Tool, environment::Environment};

/// A place for a tool.
#[derive(Debug)]
pub(super) enum Place {
    Shared,
    Isolated(Namespace, ServiceSockets),
}

/// The tool's words, and its variables.
#[derive(Debug)]
pub(super) struct CommandLine {
    pub(super) words: Vec<OsString>,
    pub(super) environment: Environment,
}

impl Place {
    /// Makes the place, and the proxy's listeners in it.
    pub(super) fn prepare(args: &ExecArgs, settings: &Settings) -> Result<(Self, InheritedSockets), ExecError> {
        if !args.isolate {
            return Ok((Self::Shared, InheritedSockets::default()));
        }
        let isolated = settings.listeners.iter().filter_map(|listener| match listener.address {
            ListenAddress::Isolated(address) => Some(address),
            _ => None,
        });
        let inside = Inside { listeners: isolated.collect(), passed: args.pass.clone(), name_servers: name_servers() };
        let (namespace, sockets) = Namespace::create(&inside).map_err(ExecError::Isolate)?;
        Ok((Self::Isolated(namespace, sockets.service), sockets.listeners.into()))
    }

    /// Starts the tool. `routes`: by which settings an isolated one may look up names at the time.
    pub(super) fn start(
        self,
        line: CommandLine,
        routes: impl Fn() -> Arc<Routes> + Send + 'static,
    ) -> Result<(Tool, Option<Watch>), ExecError> {
        let CommandLine { words, environment: Environment { set, unset } } = line;
        let program = words.first().cloned().unwrap_or_default();
        match self {
            Self::Shared => {
                let mut command = Command::new(&program);
                command.args(&words[1..]).envs(set);
                for name in unset {
                    command.env_remove(name);
                }
                let child = command.spawn().map_err(|error| not_started(program, error))?;
                Ok((Tool::of(&child).map_err(ExecError::System)?, None))
            }
            Self::Isolated(namespace, sockets) => {
                let watch = Watch::start(sockets, routes).map_err(ExecError::System)?;
                let child = namespace.start(words, set, &unset).map_err(|error| match error {
                    IsolateError::Execute(error) => not_started(program, error),
                    error => ExecError::Isolate(error),
                })?;
                Ok((Tool::of(&child).map_err(ExecError::System)?, Some(watch)))
            }
        }
    }
}

fn not_started(tool: OsString, error: io::Error) -> ExecError {
    match error.kind() {
        ErrorKind::NotFound => ExecError::NotFound(tool),
        _ => ExecError::NotExecutable(tool, error),
    }
}
