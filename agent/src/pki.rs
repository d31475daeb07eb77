//! `ztna pki`: a development CA and certificates, so that nobody turns verification off.

use std::path::PathBuf;

use program::exit::{Failure, say};
use program::pki::{self, Authority, Grants, MAX_DAYS};

/// What can be done with a CA.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PkiCommand {
    /// Make a CA: ca.pem to give away, ca.key to keep
    Init(InitArgs),
    /// Make a certificate: NAME.pem and NAME.key
    ///
    /// --server is for the intermediate, --agent for hosts that reach a service, --connector for hosts that publish
    /// one. Give SERVICE as * (quoted) for any service.
    Issue(IssueArgs),
}

/// Flags of `ztna pki init`.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// Directory of the CA; made if missing
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,

    /// Days until the CA expires
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    pub days: u32,
}

/// Flags of `ztna pki issue`.
#[derive(Clone, Debug, clap::Args)]
pub struct IssueArgs {
    /// Directory of the CA
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,

    /// Name of the files, and of the holder in logs
    #[arg(long)]
    pub name: String,

    /// Host name or address of an intermediate; may be repeated
    #[arg(long, value_name = "HOST_OR_IP", num_args = 1..)]
    pub server: Vec<String>,

    /// Service that the holder may reach; may be repeated
    #[arg(long, value_name = "SERVICE", num_args = 1..)]
    pub agent: Vec<String>,

    /// Service that the holder may publish; may be repeated
    #[arg(long, value_name = "SERVICE", num_args = 1..)]
    pub connector: Vec<String>,

    /// Days until the certificate expires
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    pub days: u32,

    /// Directory for the two files [default: the directory of the CA]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Does it, and says which files were made.
///
/// # Errors
/// If a file exists already or cannot be written, or a name cannot stand in a certificate.
pub(crate) fn run(command: &PkiCommand) -> Result<(), Failure> {
    match command {
        PkiCommand::Init(InitArgs { dir, days }) => {
            Authority::create(dir, *days)?;
            say(&format!(
                "{}  give it to every program as ca_cert",
                dir.join(pki::CA_CERTIFICATE).display()
            ));
            say(&format!("{}  keep it secret", dir.join(pki::CA_KEY).display()));
        }
        PkiCommand::Issue(args) => {
            let grants = Grants {
                servers: args.server.clone(),
                agents: args.agent.clone(),
                connectors: args.connector.clone(),
            };
            let issued = Authority::open(&args.dir)?.issue(&args.name, &grants, args.days)?;
            let out = args.out.as_ref().unwrap_or(&args.dir);
            let (certificate, key) = pki::write(out, &args.name, &issued)?;
            say(&format!("{}  cert_path", certificate.display()));
            say(&format!("{}  key_path, keep it secret", key.display()));
        }
    }
    Ok(())
}
