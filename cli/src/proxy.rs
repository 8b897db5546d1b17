//! Through which proxy a client reaches its server: `--proxy`, or what the environment says, as other programs read it.

use std::env;

use skep_protocol::net::invitation::Address;
use skep_protocol::net::proxy::Proxy;

use crate::failure::Failure;

/// The proxy for these addresses. `asked` is the argument; `none` there means directly.
///
/// # Errors
/// [`Failure::Usage`] when the text is no proxy.
pub(crate) fn choose(asked: Option<&str>, addresses: &[Address]) -> Result<Option<Proxy>, Failure> {
    let (text, source) = match asked {
        Some(text) => (text.to_owned(), "--proxy"),
        None if is_excepted(addresses, &variable("NO_PROXY")) => return Ok(None),
        None => (variable("HTTPS_PROXY"), "HTTPS_PROXY"),
    };
    if text.is_empty() || text == "none" {
        return Ok(None);
    }
    let wrong = |error| Failure::Usage { problem: format!("{source}: {error}"), help: None };
    text.parse().map(Some).map_err(wrong)
}

/// Either spelling; empty when it is not set.
fn variable(name: &str) -> String {
    env::var(name).or_else(|_| env::var(name.to_lowercase())).unwrap_or_default()
}

/// Whether all addresses are among the exceptions: names, which cover what ends in them, or `*`.
fn is_excepted(addresses: &[Address], exceptions: &str) -> bool {
    let names: Vec<&str> = exceptions.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let covers = |name: &str, host: &str| {
        let name = name.trim_start_matches('.');
        name == "*" || host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
    };
    let excepted = |address: &Address| {
        let host = address.as_str().rsplit_once(':').map_or("", |(host, _)| host);
        names.iter().any(|name| covers(name, host))
    };
    !names.is_empty() && addresses.iter().all(excepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_hosts_and_what_is_below_them() {
        let addresses =
            |texts: &[&str]| -> Vec<Address> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        let bees = addresses(&["a.bees.example:443"]);
        for list in ["bees.example", ".bees.example", "x, bees.example", "*", "a.bees.example"] {
            assert!(is_excepted(&bees, list), "{list}");
        }
        for list in ["", "es.example", "b.bees.example", "example.org"] {
            assert!(!is_excepted(&bees, list), "{list}");
        }
        assert!(!is_excepted(&addresses(&["a.bees.example:443", "wasps.example:443"]), "bees.example"));
        assert!(is_excepted(&addresses(&["127.0.0.1:4433"]), "localhost,127.0.0.1"));
    }

    #[test]
    fn an_argument_comes_before_the_environment() {
        let chosen = choose(Some("http://proxy:3128"), &[]).unwrap().unwrap();
        assert_eq!(chosen.address().as_str(), "proxy:3128");
        assert_eq!(choose(Some("none"), &[]).unwrap(), None);
        assert!(choose(Some("ftp://proxy:3128"), &[]).is_err());
    }
}
