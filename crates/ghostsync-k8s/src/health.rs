//! `health`: an HTTP probe for images that have no curl.
//!
//! A redirect is not followed and is no success: the kubelet follows one to https on the pod's own address, and fails
//! there for another reason. Send the headers that the app's proxy would send.

use std::time::Duration;

use ghostsync_cli::exit::Exit;
use ghostsync_cli::settings::invalid;
use ghostsync_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use url::Url;

use crate::args::HealthArgs;

/// More than any status line has.
const MAX_LINE_BYTES: u64 = 4096;

/// Probes; success is a status from 200 to 299.
///
/// # Errors
/// `Invalid` for an address or a header that is none, `Unavailable` for an answer that is no success, or none.
pub async fn run(args: HealthArgs) -> Result<Exit> {
    let request = request(&args)?;
    let status = tokio::time::timeout(args.timeout.0, ask(&request)).await;
    let unavailable = |what: String| Error::new(ErrorKind::Unavailable, format!("{}: {what}", args.url));
    match status {
        Err(_) => Err(unavailable(format!("no answer within {} ms", millis(args.timeout.0)))),
        Ok(Err(error)) => Err(unavailable(error.to_string())),
        Ok(Ok(status @ 200..=299)) => {
            println!("{status}");
            Ok(Exit::Done)
        }
        Ok(Ok(status @ 300..=399)) => {
            let hint = "an app that redirects to https wants --header 'X-Forwarded-Proto: https' and 'Host: …'";
            Err(unavailable(format!("answered {status}, a redirect; {hint}")))
        }
        Ok(Ok(status)) => Err(unavailable(format!("answered {status}"))),
    }
}

fn millis(time: Duration) -> u128 {
    time.as_millis()
}

struct Asked {
    address: String,
    text: String,
}

fn request(args: &HealthArgs) -> Result<Asked> {
    let url = Url::parse(&args.url).map_err(|error| invalid(format!("{}: {error}", args.url)))?;
    let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
        return Err(invalid(format!("{} is not an http address", args.url)));
    };
    let mut headers = vec![("Host".to_owned(), format!("{host}:{port}"))];
    for header in &args.headers {
        let (name, value) = header.split_once(':').ok_or_else(|| invalid(format!("{header:?} is not NAME: VALUE")))?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || header.chars().any(char::is_control) {
            return Err(invalid(format!("{header:?} is not NAME: VALUE")));
        }
        headers.retain(|(there, _)| !there.eq_ignore_ascii_case(name) || !there.eq_ignore_ascii_case("host"));
        headers.push((name.to_owned(), value.to_owned()));
    }
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("User-Agent: ghostsync-k8s\r\nConnection: close\r\n\r\n");
    Ok(Asked { address: format!("{host}:{port}"), text })
}

async fn ask(asked: &Asked) -> std::io::Result<u16> {
    let stream = TcpStream::connect(&asked.address).await?;
    let (reader, mut writer) = stream.into_split();
    writer.write_all(asked.text.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(reader.take(MAX_LINE_BYTES)).read_line(&mut line).await?;
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.trim().parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str, headers: &[&str]) -> Result<Asked> {
        let headers = headers.iter().map(|header| (*header).to_owned()).collect();
        request(&HealthArgs { url: url.into(), headers, timeout: "1s".parse().expect("a duration") })
    }

    #[test]
    fn the_headers_of_a_proxy_take_the_place_of_ours() {
        let headers = ["Host: blog.example", "X-Forwarded-Proto: https"];
        let asked = asked("http://127.0.0.1:2368/a?b=c#d", &headers).expect("a request");
        assert_eq!(asked.address, "127.0.0.1:2368");
        assert!(asked.text.starts_with("GET /a?b=c HTTP/1.1\r\nHost: blog.example\r\nX-Forwarded-Proto: https\r\n"));
        assert_eq!(asked.text.matches("Host:").count(), 1);
    }

    #[test]
    fn what_is_no_address_or_header_is_told() {
        for url in ["127.0.0.1:2368", "https://host/", "ftp://host/", "/x"] {
            assert!(asked(url, &[]).is_err(), "{url}");
        }
        for header in ["Host", ": x", "A: b\r\nC: d"] {
            assert!(asked("http://host/", &[header]).is_err(), "{header}");
        }
    }
}
