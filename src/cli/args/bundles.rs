//! The commands of an OCI runtime.

#![allow(clippy::doc_markdown, reason = "documentation is the text of --help")]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::{CreateArgs, ExecArgs, RunArgs, UpdateArgs, duration};

/// What can be done with a container of a bundle.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BundleCommand {
    /// Create a container, up to the point where its program is executed
    Create(CreateArgs),
    /// Execute the program of a created container
    Start {
        /// Container id
        id: String,
    },
    /// Create and start a container, wait for its end, and delete it
    Run(RunArgs),
    /// Print the state of a container, as JSON
    State {
        /// Container id
        id: String,
    },
    /// Send a signal to the init of a container
    Kill {
        /// Container id
        id: String,
        /// Name or number
        #[arg(default_value = "SIGTERM")]
        signal: String,
        /// Send it to every process of the container
        #[arg(short, long)]
        all: bool,
        /// The id is a regular expression: send it to every container whose id contains a match
        #[arg(short, long)]
        regex: bool,
    },
    /// Remove what a container leaves
    Delete {
        /// Container id
        id: String,
        /// Kill it first; an unknown container is no error
        #[arg(short, long)]
        force: bool,
        /// The id is a regular expression: remove every container whose id contains a match
        #[arg(short, long)]
        regex: bool,
    },
    /// Run a process in a container
    Exec(ExecArgs),
    /// List the processes of a container
    Ps {
        /// Container id
        id: String,
        /// As a table, or as a JSON list of pids
        #[arg(short, long, value_enum, default_value = "table")]
        format: Format,
        /// Options of ps(1), for the table
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        ps_options: Vec<String>,
    },
    /// Freeze a container
    Pause {
        /// Container id
        id: String,
    },
    /// Thaw a container
    #[command(alias = "unpause")]
    Resume {
        /// Container id
        id: String,
    },
    /// Change the resources of a container
    Update(UpdateArgs),
    /// Print a container's counters, and its OOM kills
    Events {
        /// Container id
        id: String,
        /// Print the counters once
        #[arg(long)]
        stats: bool,
        /// Time between counters, as in 5s, 500ms or 1m30s; a number is seconds
        #[arg(long, default_value = "5s", value_parser = duration)]
        interval: Duration,
    },
    /// List containers
    List {
        /// As a table or as JSON
        #[arg(short, long, value_enum, default_value = "table")]
        format: Format,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Write a config.json to start from
    Spec {
        /// Directory to write it into
        #[arg(short, long)]
        bundle: Option<PathBuf>,
        /// File to write, in that directory [default: config.json]
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// For a container of a user other than root
        #[arg(long)]
        rootless: bool,
    },
    /// Not supported: save a running container
    #[command(hide = true)]
    Checkpoint {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Not supported: start a container from a saved one
    #[command(hide = true)]
    Restore {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Not supported: change the mounts of a running container
    #[command(hide = true)]
    Mounts {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Print what the executor supports, as OCI features JSON
    Features,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    Table,
    Json,
}
