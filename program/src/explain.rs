//! Why a connection ended, in words that say where to look.

use proto_core::quic::CloseReason;

/// Codes of the CRYPTO_ERROR range are 0x100 + TLS alert (RFC 9001 §4.8).
const TLS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// What a client is told about its connection to the intermediate.
pub fn ended(reason: &CloseReason) -> String {
    match reason {
        CloseReason::TimedOut => "the intermediate does not answer".to_owned(),
        CloseReason::Reset => "the intermediate has lost this connection, probably by a restart".to_owned(),
        CloseReason::Peer {
            application: false,
            code,
            ..
        } if TLS.contains(code) => {
            let alert = alert(code - TLS.start());
            format!("the intermediate refused our certificate ({alert}): check cert_path, and its ca_cert")
        }
        CloseReason::Local {
            application: false,
            code,
        } if TLS.contains(code) => {
            let alert = alert(code - TLS.start());
            format!(
                "the certificate of the intermediate is not accepted ({alert}): check ca_cert, and that the \
                 certificate names the server"
            )
        }
        CloseReason::Peer {
            application: true,
            code: 0,
            reason,
        } => format!("the intermediate said goodbye{}", quoted(reason)),
        CloseReason::Peer { code, reason, .. } => {
            format!(
                "the intermediate closed the connection with code {code:#x}{}",
                quoted(reason)
            )
        }
        CloseReason::Local {
            application: true, ..
        } => "closed by this side".to_owned(),
        CloseReason::Local { code, .. } => format!("closed by this side with code {code:#x}"),
    }
}

/// The peer's own words; it may write anything.
fn quoted(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({})", reason.escape_debug())
    }
}

/// The name of a TLS alert (RFC 8446 §6).
fn alert(code: u64) -> String {
    let name = match code {
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        48 => "unknown_ca",
        80 => "internal_error",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => return format!("TLS alert {code}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
