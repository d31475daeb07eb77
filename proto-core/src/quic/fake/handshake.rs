//! The messages of the pretended TLS handshake, and the judgement of certificates.

use super::codec::{Reader, push_bytes, push_varint};
use super::{FakeCertificate, FakeConfig, Trust};
use crate::quic::Cid;

/// A TLS alert (RFC 8446 §6) that ends a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alert {
    BadCertificate,
    UnknownCa,
    DecodeError,
    CertificateRequired,
    NoApplicationProtocol,
}

impl Alert {
    /// The transport error code of the alert (RFC 9001 §4.8).
    pub(super) fn code(self) -> u64 {
        0x100
            + match self {
                Self::BadCertificate => 42,
                Self::UnknownCa => 48,
                Self::DecodeError => 50,
                Self::CertificateRequired => 116,
                Self::NoApplicationProtocol => 120,
            }
    }
}

/// Transport parameters (RFC 9000 §18), those that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params {
    pub(super) initial_scid: Option<Cid>,
    pub(super) original_dcid: Option<Cid>,
    pub(super) retry_scid: Option<Cid>,
    pub(super) reset_token: Option<[u8; 16]>,
    /// Zero: no DATAGRAMs.
    pub(super) max_datagram_frame: u64,
    pub(super) idle_ms: u64,
    pub(super) cid_limit: u64,
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    ClientHello {
        random: [u8; 32],
        alpn: Vec<Vec<u8>>,
        server_name: Option<String>,
        params: Params,
    },
    ServerHello {
        random: [u8; 32],
    },
    ServerFlight {
        alpn: Vec<u8>,
        wants_certificate: bool,
        certificate: Option<FakeCertificate>,
        params: Params,
    },
    ClientFinish {
        certificate: Option<FakeCertificate>,
    },
}

impl Message {
    /// The bytes of the message, at least `min_len` of them.
    pub(super) fn encode(&self, min_len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::ClientHello {
                random,
                alpn,
                server_name,
                params,
            } => {
                out.push(1);
                out.extend_from_slice(random);
                push_varint(&mut out, alpn.len() as u64);
                for protocol in alpn {
                    push_bytes(&mut out, protocol);
                }
                push_bytes(&mut out, server_name.as_deref().unwrap_or_default().as_bytes());
                push_params(&mut out, params);
            }
            Self::ServerHello { random } => {
                out.push(2);
                out.extend_from_slice(random);
            }
            Self::ServerFlight {
                alpn,
                wants_certificate,
                certificate,
                params,
            } => {
                out.push(3);
                push_bytes(&mut out, alpn);
                out.push(u8::from(*wants_certificate));
                push_certificate(&mut out, certificate.as_ref());
                push_params(&mut out, params);
            }
            Self::ClientFinish { certificate } => {
                out.push(4);
                push_certificate(&mut out, certificate.as_ref());
            }
        }
        out.resize(out.len().max(min_len), 0);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(match reader.u8()? {
            1 => {
                let random = reader.array()?;
                let count = reader.varint()?;
                let alpn = (0..count)
                    .map(|_| reader.bytes().map(<[u8]>::to_vec))
                    .collect::<Option<_>>()?;
                let name = String::from_utf8(reader.bytes()?.to_vec()).ok()?;
                let server_name = (!name.is_empty()).then_some(name);
                Self::ClientHello {
                    random,
                    alpn,
                    server_name,
                    params: read_params(&mut reader)?,
                }
            }
            2 => Self::ServerHello {
                random: reader.array()?,
            },
            3 => Self::ServerFlight {
                alpn: reader.bytes()?.to_vec(),
                wants_certificate: reader.u8()? != 0,
                certificate: read_certificate(&mut reader)?,
                params: read_params(&mut reader)?,
            },
            4 => Self::ClientFinish {
                certificate: read_certificate(&mut reader)?,
            },
            _ => return None,
        })
    }
}

fn push_cid(out: &mut Vec<u8>, cid: Option<&Cid>) {
    out.push(u8::from(cid.is_some()));
    push_bytes(out, cid.map_or(&[], Cid::as_bytes));
}

fn read_cid(reader: &mut Reader<'_>) -> Option<Option<Cid>> {
    let present = reader.u8()? != 0;
    let cid = Cid::new(reader.bytes()?)?;
    Some(present.then_some(cid))
}

fn push_params(out: &mut Vec<u8>, params: &Params) {
    push_cid(out, params.initial_scid.as_ref());
    push_cid(out, params.original_dcid.as_ref());
    push_cid(out, params.retry_scid.as_ref());
    push_bytes(out, params.reset_token.as_ref().map_or(&[], |token| token));
    push_varint(out, params.max_datagram_frame);
    push_varint(out, params.idle_ms);
    push_varint(out, params.cid_limit);
}

fn read_params(reader: &mut Reader<'_>) -> Option<Params> {
    Some(Params {
        initial_scid: read_cid(reader)?,
        original_dcid: read_cid(reader)?,
        retry_scid: read_cid(reader)?,
        reset_token: reader.bytes()?.try_into().ok(),
        max_datagram_frame: reader.varint()?,
        idle_ms: reader.varint()?,
        cid_limit: reader.varint()?,
    })
}

fn push_certificate(out: &mut Vec<u8>, certificate: Option<&FakeCertificate>) {
    out.push(u8::from(certificate.is_some()));
    let Some(certificate) = certificate else { return };
    push_bytes(out, &certificate.der);
    push_varint(out, u64::from(certificate.issuer));
    push_varint(out, certificate.names.len() as u64);
    for name in &certificate.names {
        push_bytes(out, name.as_bytes());
    }
}

fn read_certificate(reader: &mut Reader<'_>) -> Option<Option<FakeCertificate>> {
    if reader.u8()? == 0 {
        return Some(None);
    }
    let der = reader.bytes()?.to_vec();
    let issuer = u32::try_from(reader.varint()?).ok()?;
    let count = reader.varint()?;
    let name = |_| String::from_utf8(reader.bytes()?.to_vec()).ok();
    let names = (0..count).map(name).collect::<Option<_>>()?;
    Some(Some(FakeCertificate { der, issuer, names }))
}

/// The first of the client's protocols that the server speaks.
///
/// # Errors
/// The alert to end the handshake with if there is none.
pub(super) fn choose_alpn(server: &[Vec<u8>], client: &[Vec<u8>]) -> Result<Vec<u8>, Alert> {
    let chosen = client.iter().find(|protocol| server.contains(protocol));
    chosen.cloned().ok_or(Alert::NoApplicationProtocol)
}

/// Judges the peer's certificate; `name` is the one it must carry, if any.
///
/// # Errors
/// The alert to end the handshake with.
pub(super) fn judge(
    config: &FakeConfig,
    certificate: Option<&FakeCertificate>,
    name: Option<&str>,
    required: bool,
) -> Result<(), Alert> {
    let Some(certificate) = certificate else {
        return if required {
            Err(Alert::CertificateRequired)
        } else {
            Ok(())
        };
    };
    let Trust::Issuers(issuers) = &config.trust else {
        return Ok(());
    };
    if !issuers.contains(&certificate.issuer) {
        return Err(Alert::UnknownCa);
    }
    let carries = |wanted: &str| {
        certificate
            .names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(wanted))
    };
    if name.is_some_and(|wanted| !carries(wanted)) {
        return Err(Alert::BadCertificate);
    }
    Ok(())
}
