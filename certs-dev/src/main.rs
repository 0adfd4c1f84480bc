//! `certs-dev`: writes development certificates, and serves the bad ones.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use certs_dev::devstack::{self, ServerNames};
use certs_dev::{Bundle, Case, Error, Gallery, Server, files};
use clap::{Args, Parser, Subcommand};
use time::OffsetDateTime;

/// Makes certificates for development: an authority, servers, and a gallery of bad ones.
#[derive(Parser)]
#[command(name = "certs-dev")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a root, an intermediate and one server certificate, laid out as DevStack does.
    Ca {
        /// The directory to write to; it must not hold an authority yet.
        directory: PathBuf,
        #[command(flatten)]
        names: Names,
    },
    /// Issue one more server certificate: key, certificate and intermediate in one file.
    Server {
        /// The directory that `certs-dev ca` has written.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        #[command(flatten)]
        names: Names,
        /// The file to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write every case of a new gallery: chain, key, bundles, revocation lists and a table.
    Gallery {
        /// The directory to write to.
        directory: PathBuf,
    },
    /// Serve one case until ended. The first line of output is the address.
    Serve {
        /// The case; see `certs-dev list`.
        case: Case,
        /// Where to listen; port 0 takes any free one.
        #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
        listen: SocketAddr,
        /// Take the case from the directory that `certs-dev gallery` has written.
        #[arg(long, value_name = "DIR")]
        gallery: Option<PathBuf>,
        /// Write the bundle that the case's client trusts.
        #[arg(long, value_name = "FILE", conflicts_with = "gallery")]
        bundle_out: Option<PathBuf>,
    },
    /// Show all cases: name, expected outcome, what it is about.
    List,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Names {
    /// A DNS name of the server; may be repeated.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An address of the server; may be repeated.
    #[arg(long, value_name = "IP")]
    ip: Vec<IpAddr>,
}

impl From<Names> for ServerNames {
    fn from(names: Names) -> Self {
        Self { dns: names.dns, ips: names.ip }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command, OffsetDateTime::now_utc()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, now: OffsetDateTime) -> Result<(), Error> {
    match command {
        Command::Ca { directory, names } => {
            let layout = devstack::create(&directory, &names.into(), now)?;
            println!("bundle for clients: {}", layout.bundle.display());
            println!("for the server:     {}", layout.server.display());
        }
        Command::Server { ca, names, out } => {
            let server = devstack::issue(&devstack::open(&ca)?, &names.into(), now)?;
            files::write_private(&out, &devstack::key_and_chain(&server))?;
        }
        Command::Gallery { directory } => write_gallery(&directory, &Gallery::new(now)?)?,
        Command::Serve { case, listen, gallery, bundle_out } => {
            let identity = match gallery {
                Some(directory) => files::read_identity(
                    &directory.join(format!("{}.pem", case.id())),
                    &directory.join(format!("{}.key", case.id())),
                )?,
                None => {
                    let gallery = Gallery::new(now)?;
                    if let Some(path) = bundle_out {
                        files::write_public(&path, &gallery.bundle_pem(case.bundle()))?;
                    }
                    gallery.identity(case)?
                }
            };
            serve(case, listen, &identity)?;
        }
        Command::List => {
            let row = |case: &Case| format!("{:<34}{:<27}{}\n", case.id(), case.expected().as_str(), case.about());
            let table: String = Case::ALL.iter().map(row).collect();
            // A reader that has seen enough, as `head` has, is no failure.
            let _ = std::io::stdout().write_all(table.as_bytes());
        }
    }
    Ok(())
}

fn write_gallery(directory: &Path, gallery: &Gallery) -> Result<(), Error> {
    files::make_directory(directory)?;
    let mut table = String::from("id\tname\tbundle\texpected\n");
    for case in Case::ALL {
        let identity = gallery.identity(*case)?;
        let at = |extension: &str| directory.join(format!("{}.{extension}", case.id()));
        files::write_public(&at("pem"), &identity.chain_pem())?;
        files::write_private(&at("key"), &identity.key_pem())?;
        let row = [case.id(), case.name(), case.bundle().file_name(), case.expected().as_str()].join("\t");
        table += &(row + "\n");
    }
    for bundle in Bundle::ALL {
        files::write_public(&directory.join(bundle.file_name()), &gallery.bundle_pem(*bundle))?;
    }
    files::write_public(&directory.join("gallery.crl"), &gallery.crl_pem())?;
    files::write_public(&directory.join("cases.tsv"), &table)
}

fn serve(case: Case, listen: SocketAddr, identity: &certs_dev::Identity) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Io { doing: "start the runtime".to_owned(), source })?;
    runtime.block_on(async {
        let about = format!("{}: {}\n", case.id(), case.about());
        let server = Server::bind(listen, identity, &about).await?;
        println!("{}", server.local_addr());
        eprintln!("serving `{}` for `{}`; end with Ctrl-C", case.id(), case.name());
        server.run().await;
        Ok(())
    })
}
