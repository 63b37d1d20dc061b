//! The commands for containerd's pods, and for the node that they run on.

#![allow(clippy::doc_markdown, reason = "documentation is the text of --help")]

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::{learn, top};

/// What can be seen of pods, and said about their isolation.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PodCommand {
    /// The pods of this node, live: class, isolation, containers, memory, processes, CPU, denied calls, age
    Top(top::TopArgs),
    /// What is enforced on a live pod or container, next to what was promised and asked for. Status 1 where something is missing
    Explain {
        /// A pod or a container: NAMESPACE/POD, POD/CONTAINER, an id or the beginning of one
        #[arg(value_name = "POD")]
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Show everything, also what the profile did not change
        #[arg(short, long)]
        verbose: bool,
        /// Read the seccomp filters back from the kernel, and compare what they deny. The first process of each container is stopped for
        /// a moment, which may interrupt a call in which it waits (EINTR)
        #[arg(long)]
        read_filters: bool,
    },
    /// Whether this node can run pods and enforce profiles, with remedies. Status 1 where something fails, 3 where something is
    /// degraded
    Check(CheckArgs),
    /// Isolation profiles
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// What a live pod uses of the kernel, and the smallest profile that covers it
    #[command(subcommand)]
    Learn(learn::LearnCommand),
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// Names of profiles; without any, those that containerd's handlers use
    pub profiles: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Show what is right, too
    #[arg(short, long)]
    pub verbose: bool,
    /// containerd's program
    #[arg(long, default_value = "containerd")]
    pub containerd: PathBuf,
    /// Its configuration file, where it is not the default one; also one that is not in use yet
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Look at the files below this directory instead: an image, a disk, or the node's root in a container. What is said about the kernel is about the running one. No program of them is executed
    // It takes the place of the option of that name for bundles.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ProfileCommand {
    /// List the profiles of this node, and where each is from
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Begin a profile of your own: its file, with every key as a comment, and the shim's link; then the steps that remain
    New {
        /// Its name, which becomes a part of the shim's
        name: String,
        /// The profile that it begins with
        #[arg(long, value_name = "PROFILE", default_value = "hardened")]
        from: String,
        /// Print what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Print a profile with everything that it inherits and every default
    Show {
        /// Name, or file
        #[arg(value_name = "PROFILE")]
        what: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Differences between two profiles, or of a spec before and after one. Status 1 where there are any
    Diff {
        /// Name, or file
        #[arg(value_name = "PROFILE")]
        what: String,
        /// Name, or file, of another one
        #[arg(required_unless_present_any = ["spec", "container"])]
        other: Option<String>,
        /// A config.json, to be seen under the profile
        #[arg(long, conflicts_with = "other")]
        spec: Option<PathBuf>,
        /// The id of a live container, whose config.json is to be seen under the profile
        #[arg(long, conflicts_with_all = ["other", "spec"])]
        container: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check profiles for mistakes. Status 1 where there are any
    Validate {
        /// Names, or files
        #[arg(required = true)]
        profiles: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}
