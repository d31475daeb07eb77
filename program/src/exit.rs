//! How a program ends: 0 in order, 2 for what the person can put right, 3 for what is not there, 1 for anything else.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use runtime_io::{BindError, NoEntropy, RunError, TunError};

use crate::http::ListenError;
use crate::pki::PkiError;
use crate::settings::SettingsError;

/// Why a program does not run, or stopped running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The person at the keyboard can put it right: exit code 2.
    Start(String),
    /// Nobody expected it: exit code 1.
    Run(String),
    /// What was asked about is not there, and that may be as it should be: exit code 3.
    Absent(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(text) | Self::Run(text) | Self::Absent(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Start(error.to_string())
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        Self::Start(error.to_string())
    }
}

impl From<PkiError> for Failure {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::Crypto => Self::Run(error.to_string()),
            PkiError::Exists(_)
            | PkiError::NoAuthority(_)
            | PkiError::File(..)
            | PkiError::Authority(_)
            | PkiError::Name(_)
            | PkiError::NoName => Self::Start(error.to_string()),
        }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let fix = match error {
            BindError::AddressInUse(_) => "; stop the other process or choose another port",
            BindError::NotLocal(_) => "; choose another bind_addr",
            BindError::NotPermitted(_) | BindError::Other(..) => "",
        };
        Self::Start(format!("{error}{fix}"))
    }
}

impl From<TunError> for Failure {
    fn from(error: TunError) -> Self {
        Self::Start(error.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Run(error.to_string())
    }
}

impl From<NoEntropy> for Failure {
    fn from(error: NoEntropy) -> Self {
        Self::Run(error.to_string())
    }
}

/// Says why on stderr, in one line, and turns it into the exit code.
pub fn conclude(program: &str, result: Result<(), Failure>) -> ExitCode {
    let (failure, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure @ Failure::Start(_)) => (failure, 2),
        Err(failure @ Failure::Run(_)) => (failure, 1),
        Err(failure @ Failure::Absent(_)) => (failure, 3),
    };
    complain(program, &failure.to_string());
    ExitCode::from(code)
}

/// Says what went wrong on stderr, in one line.
pub fn complain(program: &str, line: &str) {
    // Nobody may be listening; the code says enough then.
    let _ = writeln!(std::io::stderr(), "{program}: {line}");
}

/// Prints the answer to a command that ends at once.
pub fn say(line: &str) {
    // A closed pipe is the reader's choice.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints what the command line parser has to say (help, version, or an error) and gives the exit code.
pub fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}
